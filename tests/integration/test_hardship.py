"""A disk that is full or fails, a server without room: what was acknowledged stays there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.ledgers import fresh_schema, postgres_server

from tallybook import doctor
from tallybook.doctor import check_ledger
from tallybook.errors import LedgerError, OutputError
from tallybook.machine import Level, check_space
from tallybook.reports import run_report
from tallybook.runs import Ledger, claim, finish, get_run, list_runs, open_ledger, request_run
from tallybook.types import RunState

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes; where none can be mounted the test is left out."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tallybook-test", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"needs to mount a small disk: {done.stderr.strip()}"
        if IN_CI and os.geteuid() == 0:
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left, to the last byte, and return the file that has it."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return path


def ask_until_refused(ledger: Ledger, known: list[int]) -> None:
    """Ask for large runs until one is refused, and note those that were not."""
    while True:
        known.append(request_run(ledger, "x" * 4000, {}, now=NOON).id)


class TestLedger:
    """SQLite on a disk without room."""

    def test_full_and_free_again(self, small_disk: Path) -> None:
        """What was acknowledged is there, the error names the file, and with room it goes on."""
        address = small_disk / "ledger.db"
        with closing(open_ledger(address)) as ledger:
            known = [request_run(ledger, "totals", {"n": n}, now=NOON).id for n in range(20)]
            held = claim(ledger, "anna", now=NOON, lease_seconds=600)
            assert held
            ballast = fill(small_disk)
            with pytest.raises(LedgerError, match=r"ledger\.db: .*(full|disk I/O)"):
                ask_until_refused(ledger, known)
            assert {run.id for run in list_runs(ledger, limit=1000).runs} == set(known)
            assert check_space(small_disk).level is Level.WRONG
            ballast.unlink()
            finish(ledger, held, RunState.OK, now=NOON)
            known.append(request_run(ledger, "totals", {}, now=NOON).id)
        with closing(open_ledger(address)) as again:
            assert {run.id for run in list_runs(again, limit=1000).runs} == set(known)
            assert get_run(again, held.id).state == "ok"
        assert check_ledger(str(address), [], NOON)[0].level is Level.OK


class TestBundle:
    """A report whose folder has no room."""

    def test_full_and_free_again(self, small_disk: Path) -> None:
        """No half bundle, an error that says why, and the same call works when there is room."""
        runs = small_disk / "runs"
        runs.mkdir()
        ballast = fill(small_disk)
        with pytest.raises(OutputError, match=r"(?i)no space left"):
            run_report("category_totals", runs_dir=runs)
        assert list(runs.glob("*/[0-9]*")) == []
        ballast.unlink()
        result = run_report("category_totals", {"top": 3}, runs_dir=runs)
        assert result.state is RunState.OK, result.reason


FAULTY = """
import collections, ctypes, json, sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tallybook.errors import ProcessingError
from tallybook.runs import list_runs, open_ledger, request_run

faults, now = ctypes.CDLL("libfiu.so.0"), datetime(2026, 11, 24, 12, tzinfo=UTC)
error, *points = sys.argv[1:]
known, said = [], collections.Counter()
with closing(open_ledger(Path("ledger.db"))) as ledger:
    for point in points:
        one_in_ten = ctypes.c_float(0.1)
        no = ctypes.c_void_p(int(error))
        assert faults.fiu_enable_random(point.encode(), 1, no, 0, one_in_ten) == 0
    for number in range(300):
        try:
            known.append(request_run(ledger, "totals", {"n": number}, now=now).id)
        except ProcessingError as refused:
            said[str(refused)] += 1
    for point in points:
        faults.fiu_disable(point.encode())
    known.append(request_run(ledger, "totals", {}, now=now).id)
with closing(open_ledger(Path("ledger.db"))) as ledger:
    there = [run.id for run in list_runs(ledger, limit=1000).runs]
print(json.dumps({"known": known, "there": there, "said": said}))
"""


@pytest.fixture
def injected(tmp_path: Path) -> Callable[..., Any]:
    """Run a command whose system calls can be made to fail."""
    fiu = shutil.which("fiu-run")
    if fiu is None:
        pytest.skip("needs fiu-run (Debian: fiu-utils) to make system calls fail")

    def run(*command: str, faults: str | None = None) -> subprocess.CompletedProcess[str]:
        asked = ["-c", faults] if faults else []
        # No pipe to control it by: the thread that reads one would read what our pipes carry
        # as soon as a process arranges its open files anew.
        return subprocess.run(
            [fiu, "-x", "-f", "", *asked, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


class TestInjectedErrors:
    """System calls that fail: a write for want of room, a sync for a broken disk."""

    @pytest.mark.parametrize(
        ("error", "points", "words"),
        [
            ("28", ["posix/io/rw/pwrite", "posix/io/rw/pwrite64"], "disk is full"),
            ("5", ["posix/io/sync/fsync", "posix/io/sync/fdatasync"], "disk I/O error"),
        ],
    )
    def test_ledger(
        self, injected: Callable[..., Any], error: str, points: list[str], words: str
    ) -> None:
        """The ledger has exactly the runs that it said it has, and takes more afterwards."""
        done = injected(sys.executable, "-c", FAULTY, error, *points)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert sorted(found["there"]) == found["known"]
        assert found["said"], "no fault came"
        for said in found["said"]:
            assert "ledger.db: " in said
            assert words in said

    def test_bundle(self, injected: Callable[..., Any], tmp_path: Path) -> None:
        """A bundle that cannot be synced is not published, and that is told without a traceback."""
        command = [str(Path(sys.executable).with_name("tallybook")), "report", "run"]
        done = injected(
            *command, "category_totals", faults="enable name=posix/io/sync/fsync,failinfo=5"
        )
        assert done.returncode == 1
        assert "error: cannot write " in done.stderr
        assert "input/output error" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.glob("runs/*/[0-9]*")) == []
        again = injected(*command, "category_totals")
        assert again.returncode == 0, again.stderr
        assert len(list(tmp_path.glob("runs/*/[0-9]*/manifest.json"))) == 1


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ledger on a server that takes few connections of ordinary users."""
    with postgres_server(tmp_path_factory.mktemp("crowded")) as server:
        address = fresh_schema(server)
        plain = address.replace("postgresql://postgres@", "postgresql://anna@")
        with psycopg.connect(address, autocommit=True) as connection:
            schema = connection.execute("SELECT current_schema()").fetchone()
            assert schema
            connection.execute("CREATE ROLE anna LOGIN CONNECTION LIMIT 2")
            connection.execute(f"GRANT ALL ON SCHEMA {schema[0]} TO anna")
        yield plain


class TestPostgres:
    """A real server that has other things to do."""

    def test_out_of_connections(self, crowded: str) -> None:
        """The error says so; what was acknowledged is there when others have left."""
        with closing(open_ledger(crowded)) as ledger:
            known = request_run(ledger, "totals", {}, now=NOON).id
        with ExitStack() as others:
            for _ in range(2):
                others.enter_context(psycopg.connect(crowded))
            with pytest.raises(LedgerError, match="too many connections"):
                open_ledger(crowded)
            found = check_ledger(crowded, [], NOON)
            assert [one.level for one in found] == [Level.WRONG]
            assert "too many connections" in found[0].found
        with closing(open_ledger(crowded)) as ledger:
            assert get_run(ledger, known).state == "requested"
            request_run(ledger, "totals", {}, now=NOON)

    def test_the_server_s_clock(self, crowded: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clock like ours is not worth a word; one that is a quarter of an hour off is."""
        assert check_ledger(crowded, [], NOON)[0].level is Level.OK
        assert not any("clock" in one.found for one in check_ledger(crowded, [], NOON))

        class Ahead(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.now(tz) + timedelta(minutes=15)

        monkeypatch.setattr(doctor, "datetime", Ahead)
        (told,) = [one for one in check_ledger(crowded, [], NOON) if "clock" in one.found]
        assert told.level is Level.WARNING
        assert "15 minutes apart" in told.found
