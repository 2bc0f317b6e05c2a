"""The service to test with: an application of its own, with three callers and a fresh ledger.

with serve(tmp_path) as service:  # the command, in a process of its own
    service.get("/reports")
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
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


BOUND = 120
_SERVE = "from tallybook.cli import main; main()"


@dataclass(frozen=True)
class Service:
    """`tallybook serve` in a process of its own, and a client that shows its token.

    Attributes:
        process: The process of the command.
        address: Where it listens.
        client: Shows the token of the scope `admin`.
        log: What it has written.
    """

    process: subprocess.Popen[bytes]
    address: str
    client: httpx2.Client
    log: Path

    def children(self) -> list[psutil.Process]:
        """Every process that the command has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> psutil.Process:
        """The process that works on runs."""
        [found] = psutil.Process(self.process.pid).children()
        return found

    def until(self, seen: Callable[[], bool]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + BOUND
        while not seen():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def serve(folder: Path, *options: str, **environment: str) -> Iterator[Service]:
    """Run `tallybook serve` in a folder, as its user would; at the end kill it if it is there.

    Args:
        folder: Where runs go, and where its log is.
        options: Such as `--no-workers`.
        environment: More settings.
    """
    log, token = folder / "serve.log", TOKENS[Scope.ADMIN]
    command = [sys.executable, "-c", _SERVE, "serve", "--port", "0", *options]
    given = {**os.environ, "TALLYBOOK_SERVICE__TOKEN": token, **environment}
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=given, stdout=file, stderr=file)
    try:
        address = _address_in(log, process)
        headers = bearer(Scope.ADMIN)
        with httpx2.Client(base_url=address, headers=headers, timeout=BOUND) as client:
            yield Service(process, address, client, log)
    finally:
        _kill(process)


def _address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until a service has said where it is."""
    end = time.monotonic() + BOUND
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    return found.group()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started, if they are still there."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(BOUND)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=BOUND)
