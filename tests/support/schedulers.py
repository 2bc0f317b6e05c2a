"""Schedulers' processes on one ledger, with reports so small that a run costs a second.

with place(tmp_path, fresh_file(tmp_path), days=2) as there:
    running = there.start()
    there.until(lambda: there.unfinished() == [])
    there.stop()
    there.check()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tests.integration.test_kills import CELLS, by_role, check_bundle, found, processes_in

from tallybook.errors import LedgerError
from tallybook.runs import (
    Ledger,
    LedgerState,
    Run,
    Tick,
    get_run,
    list_attempts,
    list_runs,
    open_ledger,
    read_mark,
    record_ticks,
)
from tallybook.schedule import Section

BOUND = 120
PRESENT = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
FOREVER = ["import time\nwhile True:\n    time.sleep(0.05)"]
_PROGRAM = """
import json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tallybook.log import setup_logging
from tallybook.runs import open_ledger
from tallybook.schedule import Section
from tallybook.scheduler import Schedule, run_scheduler
given = json.loads(sys.argv[1])
setup_logging("INFO")
known = Schedule(Path("none.ini"), [Section(**given["section"])], None)
run_scheduler(
    open_ledger(given["address"]), schedule=known, workers=1, runs_dir=Path(given["runs"]),
    lease_seconds=given["lease"], grace_seconds=60,
    clock=lambda: datetime.now(UTC) - timedelta(seconds=given["ago"]),
)
"""


def write_report(path: Path, cells: list[str]) -> Path:
    """Write a report with a day as its parameter."""
    made = [new_markdown_cell("# A small report"), new_code_cell("from datetime import date")]
    given = {"tags": ["parameters"]}
    made.append(new_code_cell("day: date | None = None  # which", metadata=given))
    nbformat.write(new_notebook(cells=made + [new_code_cell(cell) for cell in cells]), path)
    return path


@dataclass(frozen=True)
class Scheduler:
    """A scheduler's process, and the file with its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, words: str) -> bool:
        """Whether its log has these words."""
        return words in self.log.read_text()


@dataclass
class Place:
    """A folder with a small daily report, and a ledger in which some of its days are due.

    The clock of all processes shows half past twelve, so that nothing more comes due by itself.
    """

    folder: Path
    address: str
    ledger: Ledger
    section: dict[str, str | int | dict[str, str]]
    ago: timedelta
    lease: float
    days: int
    schedulers: list[Scheduler] = field(default_factory=list)
    struck: list[Scheduler] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The time that all processes go by."""
        return datetime.now(UTC) - self.ago

    def start(self) -> Scheduler:
        """Start a scheduler's process."""
        given = {
            "section": self.section,
            "address": self.address,
            "runs": str(self.folder / "runs"),
            "lease": self.lease,
            "ago": self.ago.total_seconds(),
        }
        log = self.folder / f"scheduler-{len(self.schedulers)}.jsonl"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(given)], stderr=file
            )
        self.schedulers.append(Scheduler(process, log))
        return self.schedulers[-1]

    def at_work(self) -> Scheduler:
        """Return a scheduler that nobody has struck, a new one if there is none.

        One that has ended does not count: its pool may have been killed twice while it started.
        """
        whole = [one for one in self.schedulers if one not in self.struck]
        alive = [one for one in whole if one.process.poll() is None]
        return alive[-1] if alive else self.start()

    def add(self, report: str = "tiny", count: int = 1) -> Run:
        """Let earlier days come due; return the run of the last one."""
        ticks = []
        for _ in range(count):
            self.days += 1
            noon = PRESENT.replace(minute=0) - timedelta(days=self.days - 1)
            path, given = str(self.folder / f"{report}.ipynb"), {"day": f"{noon:%Y-%m-%d}"}
            fate = {"exclusive": False, "max_attempts": 21}
            ticks.insert(0, Tick(noon, LedgerState.REQUESTED, None, path, given, **fate))
        while (mark := read_mark(self.ledger, "daily")) is not None:
            options = {"rule": mark.rule, "until": mark.planned_until, "now": self.now}
            runs = record_ticks(self.ledger, "daily", ticks, seen=mark, **options)
            if runs is not None:
                return runs[-1]
        raise AssertionError("a place has a mark from its beginning")

    def runs(self) -> list[Run]:
        """All runs."""
        return list(list_runs(self.ledger, limit=1000).runs)

    def unfinished(self) -> list[Run]:
        """The runs that have not ended."""
        states = [LedgerState.REQUESTED, LedgerState.RUNNING]
        return list(list_runs(self.ledger, states=states, limit=1000).runs)

    def is_done(self) -> bool:
        """Whether all that is due has ended. A ledger that cannot be asked has not said so."""
        with suppress(LedgerError):
            runs = self.runs()
            return len(runs) == self.days and all(run.finished_at for run in runs)
        return False

    def until(self, seen: Callable[[], bool], bound: float = BOUND, pause: float = 0.05) -> None:
        """Wait until something is so."""
        end = time.monotonic() + bound
        while not seen():
            assert time.monotonic() < end, self.told()
            time.sleep(pause)

    def told(self) -> str:
        """All that the schedulers have logged, for a failure's message."""
        return "\n".join(f"{one.log.name}:\n{one.log.read_text()}" for one in self.schedulers)

    def found(self, pattern: str, report: str = "tiny") -> set[Path]:
        """What is of that name under the folder of the report's runs."""
        return found(self.folder / "runs" / report, pattern)

    def worker_of(self, run: Run) -> Scheduler:
        """The scheduler that works on a run."""
        owner = str(get_run(self.ledger, run.id).owner)
        return next(one for one in self.schedulers if f":{one.process.pid}:" in owner)

    def strike(self, struck: Scheduler, target: str, number: signal.Signals) -> int:
        """Send a signal to one part of what works; return how many processes it has met."""
        if target in ("scheduler", "everything"):
            self.struck.append(struck)
        roles = by_role(self.folder, struck.process.pid)
        named = {"scheduler": roles["caller"], "everything": roles["all"]}
        met = 0
        for pid in named.get(target, roles.get(target, [])):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                met += 1
        return met

    def stop(self) -> None:
        """Ask all schedulers to stop, and wait until they have."""
        for one in self.schedulers:
            one.process.terminate()
        for one in self.schedulers:
            one.process.wait(BOUND)

    def check_runs(self) -> list[Run]:
        """Fail unless each day has one run, which is ok and names the only whole bundle of it."""
        runs = [run for run in self.runs() if Path(run.report).stem == "tiny"]
        assert len({run.tick for run in self.runs()}) == len(self.runs()) == self.days
        assert {run.state for run in runs} == {LedgerState.OK}, [run.reason for run in runs]
        for run in runs:
            self._check_attempts(run)
        whole = Counter(map(_day_of, filter(_is_ok, self.found("2*"))))
        assert whole == Counter(str(run.parameters["day"]) for run in runs)
        return runs

    def check(self) -> None:
        """Fail unless all runs are as they have to be, and no process is left."""
        self.check_runs()
        _, alive = psutil.wait_procs(processes_in(self.folder), timeout=BOUND)
        assert alive == []

    def _check_attempts(self, run: Run) -> None:
        """Fail unless the last attempt is the only one that is ok, and bundles say the same."""
        attempts = list_attempts(self.ledger, run.id)
        assert [one.number for one in attempts] == list(range(1, run.attempt + 1))
        assert [one.outcome == "ok" for one in attempts] == [False] * (run.attempt - 1) + [True]
        assert attempts[-1].artefacts == run.artefacts
        for one in attempts:
            if one.artefacts is not None:
                check_bundle(Path(one.artefacts))
                manifest = json.loads(Path(one.artefacts, "manifest.json").read_text())
                assert (manifest["state"], manifest["parameters"]) == (one.outcome, run.parameters)


def _is_ok(bundle: Path) -> bool:
    """Whether a bundle is whole, and says that its run went well."""
    check_bundle(bundle)
    return bool(json.loads((bundle / "manifest.json").read_text())["state"] == "ok")


def _day_of(bundle: Path) -> str:
    """For which day a bundle was made."""
    return str(json.loads((bundle / "manifest.json").read_text())["parameters"]["day"])


@contextmanager
def place(folder: Path, address: str, *, days: int, lease: float = 3) -> Iterator[Place]:
    """Make a place in which so many days are due; at the end kill what is left of it.

    Args:
        folder: An empty folder.
        address: Where its ledger can be made.
        days: For how many days a scheduler that starts finds something to plan.
        lease: How many seconds a run stays a worker's own without a heartbeat.
    """
    section = {
        "name": "daily",
        "report": str(write_report(folder / "tiny.ipynb", CELLS[:3])),
        "cron": "0 12 * * *",
        "parameters": {"day": "today"},
        "misfire": "run-all",
        "misfire_limit": 1000,
        "retries": "20",
        "backoff": "0s",
        "overlap": "allow",
    }
    write_report(folder / "forever.ipynb", FOREVER)
    with closing(open_ledger(address)) as ledger:
        ago, until = datetime.now(UTC) - PRESENT, PRESENT - timedelta(days=days)
        rule = Section(**section).rule
        record_ticks(ledger, "daily", [], seen=None, rule=rule, until=until, now=PRESENT)
        made = Place(folder, address, ledger, section, ago, lease, days)
        try:
            yield made
        finally:
            for one in made.schedulers:
                one.process.kill()
                one.process.wait()
