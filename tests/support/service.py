"""The service to test with: an application of its own, with three callers and a fresh ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from tallybook.access import Scope, make_key
from tallybook.api import create_app
from tallybook.config import AppConfig
from tallybook.runs import claim, finish
from tallybook.serving import listen, make_server

TOKENS = {scope: scope.value * 20 for scope in Scope}
KEYRING = tuple(make_key(scope.value, scope, token) for scope, token in TOKENS.items())


def new_app(folder: Path, **settings: Any) -> FastAPI:
    """Make an application whose bundles and ledger are in a folder."""
    return create_app(AppConfig(runs_dir=folder / "runs", **settings), keyring=KEYRING)


def bearer(scope: Scope) -> dict[str, str]:
    """Return the header of a caller with that scope."""
    return {"Authorization": f"Bearer {TOKENS[scope]}"}


def client_for(app: FastAPI, scope: Scope = Scope.ADMIN) -> TestClient:
    """Return a client that shows the token of that scope, and gets 500 as an answer."""
    return TestClient(app, headers=bearer(scope), raise_server_exceptions=False)


def work_once(app: FastAPI) -> None:
    """Do what a worker does with the next run that waits."""
    from tallybook.reports import run_report  # noqa: PLC0415 (a second)

    desk = app.state.desk
    run = claim(desk.ledger, "test", now=datetime.now(UTC), lease_seconds=600)
    assert run is not None
    result = run_report(run.report, run.parameters, runs_dir=desk.runs_dir)
    finish(
        desk.ledger,
        run,
        result.state,
        now=datetime.now(UTC),
        reason=result.reason,
        artefacts=str(result.folder) if result.folder else None,
    )


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on loopback, in a thread; give its address."""
    opened = listen("127.0.0.1", 0)
    server = make_server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        app.state.load.stopping = True
        server.should_exit = True
        thread.join(60)
        opened.close()
