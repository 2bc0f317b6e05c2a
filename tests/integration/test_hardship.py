"""A full disk, small and of its own: nothing acknowledged is lost, and with room it goes on."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

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
