"""The scheduler's process: killed, stopped, several at once; no tick is lost or run twice."""

import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest
from tests.integration.test_kills import CELLS, processes_in
from tests.support.ledgers import (
    BACKENDS,
    fresh_file,
    fresh_schema,
    postgres_server,
    restart_postgres,
)
from tests.support.schedulers import BOUND, Place, Scheduler, place, write_report

from tallybook import scheduler
from tallybook.bell import ring
from tallybook.runs import (
    LedgerState,
    Run,
    cancel,
    get_run,
    list_attempts,
    open_ledger,
    request_run,
)
from tallybook.worker import utc_now

pytestmark = pytest.mark.hypothesis  # so that `make soak` runs this too
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
TICKS = 200 if SOAK else 4
LONG = BOUND * (20 if SOAK else 1)  # seconds

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
Count = Callable[[str, object], None]


def busy(there: Place) -> Scheduler:
    """Return a scheduler at work that has enough to do."""
    while len(there.unfinished()) < 2:
        there.add()
    return there.at_work()


def coming(there: Place, point: str) -> Callable[[], bool]:
    """Return a test whether a run has come to a point since now."""
    before = there.found(POINTS[point])
    return lambda: bool(there.found(POINTS[point]) - before)


def reach(there: Place, running: Scheduler, point: str) -> None:
    """Wait until a run of this process has come to a point, or nothing is left that could."""
    has_come = coming(there, point)

    def is_over() -> bool:
        return running.process.poll() is not None or there.is_done()

    there.until(lambda: has_come() or is_over(), pause=0.002)


def finish(there: Place) -> None:
    """Let a process do the rest, what a dead one has held included, and check all of it."""
    there.until(lambda: there.is_done() or not there.at_work())
    there.stop()
    there.check()


class TestKilled:
    """Whatever is killed, the next process does the rest."""

    def test_some(self, tmp_path: Path) -> None:
        """Each part once."""
        with place(tmp_path, fresh_file(tmp_path), days=2) as there:
            for point, target, number in [
                ("table", "kernel", signal.SIGKILL),
                ("sockets", "scheduler", signal.SIGKILL),
                ("manifest", "everything", signal.SIGTERM),
            ]:
                running = busy(there)
                reach(there, running, point)
                there.strike(running, target, number)
            finish(there)

    @pytest.mark.soak
    @pytest.mark.parametrize("number", SIGNALS)
    @pytest.mark.parametrize("point", POINTS)
    def test_every_point(
        self, tmp_path: Path, point: str, number: signal.Signals, record_property: Count
    ) -> None:
        """At every point, five times; the part is drawn."""
        with place(tmp_path, fresh_file(tmp_path), days=2) as there:
            for seed in range(5):
                target = random.Random(f"{point} {number} {seed}").choice(TARGETS)  # noqa: S311
                running = busy(there)
                reach(there, running, point)
                there.strike(running, target, number)
            finish(there)
        record_property("kills at named points", 5)

    @pytest.mark.soak
    @pytest.mark.parametrize("seed", range(20))
    def test_any_moment(
        self, tmp_path: Path, seconds: float, seed: int, record_property: Count
    ) -> None:
        """Ten moments, parts and signals, drawn by the seed, one after another."""
        chance, met = random.Random(seed), 0  # noqa: S311 - not a secret
        with place(tmp_path, fresh_file(tmp_path), days=2) as there:
            while met < 10:
                known = len(there.schedulers)
                running = busy(there)
                span = seconds if len(there.schedulers) > known else seconds / 4
                moment = there.now.timestamp() + chance.uniform(0, span)
                there.until(lambda end=moment: there.now.timestamp() > end, pause=0.01)
                met += there.strike(running, chance.choice(TARGETS), chance.choice(SIGNALS)) > 0
            finish(there)
        record_property("kills at random moments", met)


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a process takes here to start and to do one run."""
    folder = tmp_path_factory.mktemp("whole")
    with place(folder, fresh_file(folder), days=1) as there:
        begun = there.now
        there.start()
        there.until(there.is_done)
        taken = (there.now - begun).total_seconds()
        there.stop()
        return taken


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A PostgreSQL server."""
    with postgres_server(tmp_path_factory.mktemp("server")) as running:
        yield running


CREWS = [pytest.param(name, marks=pytest.mark.xdist_group(f"crew-{name}")) for name in BACKENDS]


@pytest.fixture(scope="class", params=CREWS)
def crew(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Processes on one ledger that find some days due when they start, and then stay.

    When all tests are done with them, they stop, and nothing is wrong with any run.
    """
    folder = tmp_path_factory.mktemp("crew")
    with_file = request.param == "sqlite"
    address = fresh_file(folder) if with_file else fresh_schema(request.getfixturevalue("server"))
    with place(folder, address, days=TICKS, lease=6) as there:
        for _ in range(4 if SOAK else 2):
            there.start()
        yield there
        there.until(there.is_done)
        there.stop()
        assert {one.process.returncode for one in there.schedulers} == {0}, there.told()
        there.check()


def asleep(there: Place, point: str) -> tuple[Scheduler, Run]:
    """Let a day come due, and stop the process that works on it at a point."""
    while True:
        has_come, run = coming(there, point), there.add()
        there.until(has_come, pause=0.002)
        if get_run(there.ledger, run.id).state is LedgerState.RUNNING:
            sleeper = there.worker_of(run)
            sleeper.process.send_signal(signal.SIGSTOP)
            state = psutil.Process(sleeper.process.pid).status
            there.until(lambda state=state: state() == psutil.STATUS_STOPPED)
            if get_run(there.ledger, run.id).state is LedgerState.RUNNING:
                return sleeper, run
            sleeper.process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(LONG + 300)
class TestTogether:
    """Several processes on one ledger: two, or four in `make soak`."""

    def test_ticks(self, crew: Place, record_property: Count) -> None:
        """Each tick is planned once, by whoever comes first, and is one run and one bundle."""
        crew.until(crew.is_done, LONG)
        assert len(crew.check_runs()) >= TICKS
        record_property("ticks planned by four processes", TICKS)

    @pytest.mark.parametrize("seed", range(25 if SOAK else 1))
    def test_stopped(self, crew: Place, seed: int) -> None:
        """A process that sleeps past its lease changes nothing when it is woken."""
        crew.until(crew.is_done, LONG)
        point = random.Random(seed).choice(list(POINTS)[:-1]) if SOAK else "sockets"  # noqa: S311
        sleeper, run = asleep(crew, point)
        crew.until(lambda: get_run(crew.ledger, run.id).finished_at is not None)
        before = get_run(crew.ledger, run.id)
        sleeper.process.send_signal(signal.SIGCONT)
        crew.until(lambda: sleeper.says(f"run {run.id} is not ours any more"))
        assert get_run(crew.ledger, run.id) == before
        outcomes = [one.outcome for one in list_attempts(crew.ledger, run.id)]
        assert outcomes == ["lost"] * (before.attempt - 1) + ["ok"]
        crew.check_runs()

    @pytest.mark.parametrize("crew", CREWS[1:], indirect=True, scope="class")
    def test_restart(self, crew: Place, server: Path, record_property: Count) -> None:
        """The database's server crashes under them, and comes back: no run is lost or run twice."""
        portion = min(10, TICKS)
        for _ in range(TICKS // portion):
            crew.add(count=portion)
            waiting = len(crew.unfinished())
            crew.until(lambda known=waiting: len(crew.unfinished()) < known, LONG)
            restart_postgres(server)
        crew.until(crew.is_done, LONG)
        crew.check_runs()
        record_property("restarts of PostgreSQL at work", TICKS // portion)

    def test_cancel(self, crew: Place) -> None:
        """A run at work stops, says why, and leaves nothing."""
        run = crew.add("forever")
        crew.until(lambda: bool(crew.found(POINTS["sockets"], "forever")), LONG)
        cancel(crew.ledger, run.id, now=crew.now, reason="not wanted")
        crew.until(lambda: get_run(crew.ledger, run.id).finished_at is not None)
        ended = get_run(crew.ledger, run.id)
        assert (ended.state, ended.reason) == ("cancelled", "not wanted")
        crew.until(lambda: processes_in(crew.folder / "runs" / "forever") == [])
        assert crew.found("*", "forever") == set()


def test_second_term(tmp_path: Path) -> None:
    """The first is heard, the second one gives the run back at once."""
    with place(tmp_path, fresh_file(tmp_path), days=0) as there:
        added = there.add("forever")
        running = there.start()
        there.until(lambda: bool(there.found(POINTS["sockets"], "forever")))
        running.process.terminate()
        there.until(lambda: running.says("are being finished"))
        running.process.terminate()
        assert running.process.wait(BOUND) == 0, there.told()
        run = get_run(there.ledger, added.id)
        [attempt] = list_attempts(there.ledger, run.id)
        assert (run.state, attempt.outcome, run.failures) == ("requested", "handed_back", 0)
        assert there.found("*", "forever") == set()
        assert processes_in(tmp_path) == []


class TestLine:
    """A scheduler and whoever has started it hear each other."""

    def test_rings_and_leaves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A ring is a round at once; beginning and end ring back; hanging up ends it, in peace."""
        monkeypatch.setattr(scheduler, "_until_next", lambda _: 3600.0)
        path = write_report(tmp_path / "tiny.ipynb", CELLS[:3])
        ours, theirs = socket.socketpair()
        rounds: SimpleQueue[None] = SimpleQueue()
        options = {"schedule": scheduler.Schedule(tmp_path / "none.ini", [], None), "line": theirs}
        with (
            ours,
            theirs,
            closing(open_ledger(fresh_file(tmp_path))) as ledger,
            ThreadPoolExecutor(1) as threads,
        ):
            at_work = threads.submit(
                scheduler.run_scheduler,
                ledger,
                workers=1,
                runs_dir=tmp_path / "runs",
                after_round=lambda *_: rounds.put(None),
                **options,
            )
            rounds.get(timeout=BOUND)
            run = request_run(ledger, str(path), {"day": "2026-11-24"}, now=utc_now())
            ring(ours)
            ours.settimeout(BOUND)
            while get_run(ledger, run.id).finished_at is None:
                assert ours.recv(1) == b"!"
            ours.shutdown(socket.SHUT_WR)
            assert at_work.result(BOUND) == {LedgerState.OK: 1}
