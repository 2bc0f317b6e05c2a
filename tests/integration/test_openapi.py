"""The description of the service, held against the running service by schemathesis."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from tests.conftest import ROOT
from tests.support.service import TOKENS, new_app, served

from tallybook import guard
from tallybook.access import Scope
from tallybook.runs import request_run

SETTINGS = ROOT / "tests" / "support" / "schemathesis.toml"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Let schemathesis show as many wrong tokens as it likes: test_service.py tries that limit."""
    monkeypatch.setattr(guard, "_SIGN_IN_TRIES", 1e6)


def hold_against(folder, *options: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis, with all its checks, on everything that the description lists."""
    app = new_app(folder, service={"requests_per_second": 1e6})
    for _ in range(3):
        request_run(app.state.desk.ledger, "category_totals", {}, now=datetime.now(UTC))
    with served(app) as address:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS)),
            *("run", f"{address}/openapi.json", "--header"),
            *(f"Authorization: Bearer {TOKENS[Scope.ADMIN]}", "--checks", "all", "--no-color"),
            *("--workers", "1", "--generation-database", "none", *options),
        ]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=850, check=False
        )


def test_service_is_as_described(tmp_path):
    """Every operation does what is described: for examples, edges, chance and sequences."""
    found = hold_against(tmp_path, "--max-examples", "8")
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]


def test_names_for_generated_clients(tmp_path):
    """An operation is called what its function is: a client made from it can be read."""
    app = new_app(tmp_path)
    paths = app.openapi()["paths"]
    app.state.desk.ledger.close()
    names = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(names) == len(set(names))
    assert {"get_reports", "post_run", "get_one_run", "post_tally"} < set(names)


@pytest.mark.soak
def test_service_is_as_described_for_long(tmp_path):
    """The same with many more requests."""
    found = hold_against(tmp_path, "--max-examples", "150")
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
