"""The scheduler's process: killed, stopped, several at once; no tick is lost or run twice."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tests.integration.test_kills import CELLS, by_role, check_bundle, processes_in
from tests.support.ledgers import BACKENDS, fresh_file, fresh_schema, postgres_server

from tallybook.runs import (
    Ledger,
    LedgerState,
    Run,
    cancel,
    list_attempts,
    list_runs,
    open_ledger,
    record_ticks,
)
from tallybook.schedule import Section

pytestmark = pytest.mark.hypothesis  # so that `make soak` runs this too
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
LEASE = 3
BOUND = 120
PROGRAM = """
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
ledger = open_ledger(given["address"])
ended = run_scheduler(
    ledger, schedule=known, workers=given["workers"], runs_dir=Path(given["runs"]),
    once=given["once"], lease_seconds=given["lease"], grace_seconds=given["grace"],
    clock=lambda: datetime.now(UTC) - timedelta(seconds=given["ago"]),
)
print(json.dumps(ended))
"""


class Place:
    """A folder with a tiny daily report, and a ledger in which some of its days are due.

    The clock of all processes shows half past twelve, so that nothing more comes due.
    """

    def __init__(self, folder: Path, address: str, days: int, cells: list[str] = CELLS) -> None:
        self.folder, self.address, self.days = folder, address, days
        report = folder / "tiny.ipynb"
        made = [new_markdown_cell("# The tiny report"), new_code_cell("from datetime import date")]
        parameters = {"tags": ["parameters"]}
        made.append(new_code_cell("day: date | None = None  # which", metadata=parameters))
        made += map(new_code_cell, cells)
        nbformat.write(new_notebook(cells=made), report)
        self.section = {
            "name": "daily",
            "report": str(report),
            "cron": "0 12 * * *",
            "parameters": {"day": "today"},
            "misfire": "run-all",
            "misfire_limit": 1000,
            "retries": "20",
            "backoff": "0s",
            "overlap": "allow",
        }
        present = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
        self.ago = (datetime.now(UTC) - present).total_seconds()
        with closing(open_ledger(address)) as ledger:
            until = present - timedelta(days=days)
            rule = Section(**self.section).rule
            record_ticks(ledger, "daily", [], seen=None, rule=rule, until=until, now=present)

    @property
    def bundles(self) -> list[Path]:
        """The bundles that are there."""
        return sorted((self.folder / "runs" / "tiny").glob("2*"))

    @contextmanager
    def scheduler(self, *, once: bool = True, workers: int = 1) -> Iterator[subprocess.Popen[str]]:
        """Start a scheduler's process."""
        given = {
            "section": self.section,
            "address": self.address,
            "runs": str(self.folder / "runs"),
            "workers": workers,
            "once": once,
            "lease": LEASE,
            "grace": 60,
            "ago": self.ago,
        }
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                yield running
            finally:
                running.kill()

    def work_off(self) -> None:
        """Let processes do all that is left, also what still has a dead one's lease."""
        while not (runs := place_runs(self)) or any(run.finished_at is None for run in runs):
            with self.scheduler() as running:
                _, log = running.communicate(timeout=BOUND)
                assert running.returncode == 0, log

    def check(self) -> list[Run]:
        """Fail unless each day has one run, which is ok and names a whole bundle."""
        with closing(open_ledger(self.address)) as ledger:
            runs = list(list_runs(ledger, limit=1000).runs)
            last = {run.id: list_attempts(ledger, run.id)[-1] for run in runs}
        assert len({run.tick for run in runs}) == len(runs) == self.days
        assert {run.state for run in runs} == {LedgerState.OK}, [run.reason for run in runs]
        assert {attempt.outcome for attempt in last.values()} == {"ok"}
        for run in runs:
            assert run.artefacts is not None
            check_bundle(Path(run.artefacts))
            manifest = json.loads(Path(run.artefacts, "manifest.json").read_text())
            assert manifest["parameters"] == run.parameters
        for bundle in self.bundles:
            check_bundle(bundle)
        _, alive = psutil.wait_procs(processes_in(self.folder), timeout=BOUND)
        assert alive == []
        return runs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A PostgreSQL server."""
    with postgres_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=BACKENDS)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger can be made."""
    if request.param == "sqlite":
        return fresh_file(tmp_path)
    return fresh_schema(request.getfixturevalue("server"))


def wait_for(running: subprocess.Popen[str], seen: Callable[[], bool]) -> None:
    """Wait until something is there, or the process has ended."""
    while running.poll() is None and not seen():
        with suppress(subprocess.TimeoutExpired):
            running.wait(0.01)


def state_of(ledger: Ledger, state: LedgerState) -> tuple[Run, ...]:
    """The runs in a state."""
    return list_runs(ledger, states=[state]).runs


def has(place: Place, pattern: str) -> bool:
    """Whether something of that name is under the folder of the report's runs."""
    return any((place.folder / "runs" / "tiny").glob(pattern))


POINTS = {
    "place": ".*.partial",
    "sockets": ".*.partial/scratch/kernel-5",
    "table": ".*.partial/tables/*",
    "notebook": ".*.partial/notebook.ipynb",
    "manifest": ".*.partial/manifest.json",
    "bundle": "2*/manifest.json",
}
TARGETS = ["scheduler", "runner", "kernel", "everything"]
SIGNALS = [signal.SIGTERM, signal.SIGKILL]


def strike(
    place: Place, running: subprocess.Popen[str], target: str, number: signal.Signals
) -> None:
    """Send a signal to one part of what works."""
    roles = by_role(place.folder, running.pid)
    struck = {"scheduler": roles["caller"], "everything": roles["all"]}.get(target)
    for pid in roles[target] if struck is None else struck:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def survive(place: Place, running: subprocess.Popen[str], target: str) -> None:
    """Wait for what is left of the struck process, then do the rest and check it."""
    running.communicate(timeout=BOUND)
    place.work_off()
    place.check()


class TestKilled:
    """Whatever is killed, the next process does the rest."""

    @pytest.mark.parametrize(
        ("point", "target", "number"),
        [
            ("sockets", "scheduler", signal.SIGKILL),
            ("table", "kernel", signal.SIGKILL),
            ("manifest", "everything", signal.SIGKILL),
            ("place", "scheduler", signal.SIGTERM),
        ],
    )
    def test_some(self, tmp_path: Path, point: str, target: str, number: signal.Signals) -> None:
        """Each part once."""
        place = Place(tmp_path, fresh_file(tmp_path), 2)
        with place.scheduler() as running:
            wait_for(running, lambda: has(place, POINTS[point]))
            strike(place, running, target, number)
            survive(place, running, target)

    @pytest.mark.soak
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("number", SIGNALS)
    @pytest.mark.parametrize("point", POINTS)
    def test_every_point(
        self, tmp_path: Path, point: str, number: signal.Signals, seed: int
    ) -> None:
        """At every point, five times; the part is drawn."""
        place = Place(tmp_path, fresh_file(tmp_path), 2)
        target = random.Random(f"{point} {number} {seed}").choice(TARGETS)  # noqa: S311
        with place.scheduler() as running:
            wait_for(running, lambda: has(place, POINTS[point]))
            strike(place, running, target, number)
            survive(place, running, target)

    @pytest.mark.soak
    @pytest.mark.parametrize("seed", range(200))
    def test_any_moment(self, tmp_path: Path, seed: int) -> None:
        """A moment, a part and a signal, drawn by the seed."""
        chance = random.Random(seed)  # noqa: S311 - not a secret
        place = Place(tmp_path, fresh_file(tmp_path), 2)
        with place.scheduler() as running:
            with suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0.5, 12))
            strike(place, running, chance.choice(TARGETS), chance.choice(SIGNALS))
            survive(place, running, "")


class TestStopped:
    """A process that sleeps past its lease."""

    @pytest.mark.parametrize("seed", range(25 if SOAK else 1))
    def test_woken(self, tmp_path: Path, address: str, seed: int) -> None:
        """It changes nothing any more, and leaves no second bundle."""
        place = Place(tmp_path, address, 1)
        points = random.Random(seed).sample(list(POINTS), 1) if SOAK else ["sockets"]  # noqa: S311
        with place.scheduler() as sleeper:
            wait_for(sleeper, lambda: has(place, POINTS[points[0]]))
            sleeper.send_signal(signal.SIGSTOP)
            place.work_off()
            [before] = place_runs(place)
            sleeper.send_signal(signal.SIGCONT)
            sleeper.communicate(timeout=BOUND)
        [run] = place.check()
        assert run == before
        assert place.bundles == [Path(str(run.artefacts))]


def place_runs(place: Place) -> list[Run]:
    """All runs of a place's ledger."""
    with closing(open_ledger(place.address)) as ledger:
        return list(list_runs(ledger, limit=1000).runs)


class TestTogether:
    """Four processes on one ledger."""

    def test_ticks(self, tmp_path: Path, address: str) -> None:
        """Each tick is one run and one bundle."""
        days = 200 if SOAK else 4
        place = Place(tmp_path, address, days)
        with ExitStack() as stack:
            started = [stack.enter_context(place.scheduler()) for _ in range(4)]
            for one in started:
                _, log = one.communicate(timeout=BOUND * (10 if SOAK else 1))
                assert one.returncode == 0, log
        runs = place.check()
        assert {run.attempt for run in runs} == {1}
        assert len(place.bundles) == days


class TestAsked:
    """What people want of a process at work."""

    FOREVER = ("import time\nwhile True:\n    time.sleep(0.05)",)

    def test_cancel(self, tmp_path: Path) -> None:
        """A run at work stops, says why, and leaves nothing."""
        place = Place(tmp_path, fresh_file(tmp_path), 1, list(self.FOREVER))
        with (
            place.scheduler() as running,
            closing(open_ledger(place.address)) as ledger,
        ):
            wait_for(running, lambda: has(place, POINTS["sockets"]))
            [run] = state_of(ledger, LedgerState.RUNNING)
            asked = datetime.now(UTC) - timedelta(seconds=place.ago)
            cancel(ledger, run.id, now=asked, reason="not wanted")
            said, log = running.communicate(timeout=BOUND)
            assert json.loads(said) == {"cancelled": 1}, log
        [ended] = place_runs(place)
        assert (ended.state, ended.reason) == ("cancelled", "not wanted")
        assert place.bundles == processes_in(tmp_path) == []

    def test_second_term(self, tmp_path: Path) -> None:
        """The first is heard, the second one gives the run back at once."""
        place = Place(tmp_path, fresh_file(tmp_path), 1, list(self.FOREVER))
        with place.scheduler(once=False) as running:
            wait_for(running, lambda: has(place, POINTS["sockets"]))
            running.terminate()
            assert running.stderr is not None
            while "are being finished" not in running.stderr.readline():
                assert running.poll() is None
            running.terminate()
            _, log = running.communicate(timeout=BOUND)
            assert running.returncode == 0, log
        with closing(open_ledger(place.address)) as ledger:
            [run] = state_of(ledger, LedgerState.REQUESTED)
            [attempt] = list_attempts(ledger, run.id)
        assert (attempt.outcome, run.failures) == ("handed_back", 0)
        assert place.bundles == processes_in(tmp_path) == []
