"""A client generated from the description works against a running service.

The generator pins libraries that we use in other versions, so it and its client get an environment
of their own from uv, which fetches it. That needs a network, which no other test does; so this
one runs in `make soak` only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.support.service import TOKENS, serve

from tallybook.access import Scope

GENERATOR = "openapi-python-client>=0.26"
PROGRAM = ROOT / "tests" / "support" / "generated_client.py"
KNOWN = "Unsupported content_type application/x-ndjson"  # it would be bytes; there is no such kind

pytestmark = pytest.mark.soak


def beside(folder: Path, *command: str) -> tuple[str, str]:
    """Run a command in the generator's environment; return what it says, and what it warns of."""
    apart = ("run", "--quiet", "--no-project", "--no-config", "--isolated")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            *apart,
            "--python",
            sys.executable,
            "--with",
            GENERATOR,
            *command,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_generated_client(tmp_path: Path) -> None:
    """It lists reports, runs one, reads what came of it, counts and tallies; errors are typed."""
    with serve(tmp_path) as service:
        (tmp_path / "openapi.json").write_text(service.client.get("/openapi.json").text)
        options = ("--path", "openapi.json", "--meta", "none", "--output-path", "tallybook_client")
        _, warned = beside(tmp_path, "openapi-python-client", "generate", *options)
        assert warned.count("WARNING") == warned.count(KNOWN) == 1, warned
        (tmp_path / "use.py").write_bytes(PROGRAM.read_bytes())
        said, _ = beside(tmp_path, "python", "use.py", service.address, TOKENS[Scope.ADMIN])
    told = json.loads(said)
    assert "category_totals" in told["reports"]
    assert "top" in told["parameters"]
    assert told["counted"] == {"a": 2, "b": 1}
    totals = {row["category"]: row["total_amount"] for row in told["totals"]}
    assert totals == {"tea": "2.5", "cake": "0.1"}
    assert told["rejects"] == [[2, "amount", "oops"]]
    assert told["refused"][0] == 404
    assert told["run"] == ["ok", 3, True]
    assert "category" in told["table"]
