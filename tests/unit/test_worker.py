"""Working on a run: what is written whatever goes wrong, and what is taken away."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from tallybook import worker
from tallybook.errors import (
    LedgerError,
    OutputError,
    ParameterError,
    ReportError,
    ValidationError,
)
from tallybook.reports import RunResult
from tallybook.runs import (
    LedgerState,
    begin_run,
    cancel,
    claim,
    finish,
    get_run,
    is_kept,
    list_runs,
    request_run,
    waiting_since,
)
from tallybook.schedule import Section
from tallybook.types import RunState
from tallybook.worker import ask_for_run, drop_bundle, ledger_address, run_noted, utc_now, work_on

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def ledger(file_ledger):
    """Which of the two does not matter here."""
    return file_ledger


def claimed(ledger, lease=60.0, **more):
    """A run that was asked for and claimed."""
    request_run(ledger, "category_totals", {"top": 5}, now=utc_now(), **more)
    return claim(ledger, "anna", now=utc_now(), lease_seconds=lease)


def bundle(tmp_path, name="20261124T120000Z-3f9a1c"):
    """A folder that stands for a bundle."""
    folder = tmp_path / "runs" / "tiny" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def works(monkeypatch):
    """Let a function stand for running the report (test_scheduler runs real ones)."""

    def put(work):
        monkeypatch.setattr(worker, "run_report", lambda *_given, **options: work(options))

    return put


class TestEndings:
    """Each way to end is one true state."""

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (ParameterError("top: too few"), "usage"),
            (ValidationError("there is no report"), "usage"),
            (OutputError("no space left on device"), "lost"),
            (ReportError("the page cannot be made"), "lost"),
            (RuntimeError("a mistake of ours"), "lost"),
        ],
    )
    def test_errors(self, ledger, works, error, state):
        """An error ends the run, with its message."""

        def fail(_options):
            raise error

        works(fail)
        ended = work_on(ledger, claimed(ledger, max_attempts=1))
        assert ended.state == state
        assert str(error) in ended.reason

    def test_retries(self, ledger, works):
        """What was lost is tried again; with a schedule it is the schedule that says so."""
        works(lambda _: RunResult(RunState.LOST, "gone", None, {}))
        waiting = work_on(ledger, claimed(ledger))
        assert (waiting.state, waiting.failures) == ("requested", 1)
        assert waiting.not_before > utc_now() + timedelta(seconds=30)
        stern = Section(name="a", report="category_totals", cron="0 6 * * *", retries="0")
        assert work_on(ledger, claimed(ledger), section=stern).state == "lost"
        works(lambda _: RunResult(RunState.CELL_FAILED, "NameError", None, {}))
        assert work_on(ledger, claimed(ledger)).state == "cell_failed"

    def test_stopped_process(self, ledger, works):
        """A run that only its process stops is given back."""

        def stopped(options):
            assert options["should_stop"]()
            return RunResult(RunState.CANCELLED, "the run was stopped", None, {})

        works(stopped)
        back = work_on(ledger, claimed(ledger), should_stop=lambda: True)
        assert (back.state, back.failures) == ("requested", 0)

    def test_cancelled(self, ledger, works):
        """One that somebody cancels stops within a heartbeat, and says why."""
        run = claimed(ledger, lease=3)

        def wait(options):
            cancel(ledger, run.id, now=utc_now(), reason="not wanted")
            while not options["should_stop"]():
                Event().wait(0.01)
            return RunResult(RunState.CANCELLED, "the run was stopped", None, {})

        works(wait)
        ended = work_on(ledger, run, lease_seconds=3)
        assert (ended.state, ended.reason) == ("cancelled", "not wanted")

    def test_cancelled_before_it_began(self, ledger, works):
        """What was cancelled after it was claimed is known to be before anything is done for it."""
        run = claimed(ledger, lease=3600)
        cancel(ledger, run.id, now=utc_now(), reason="too early")
        asked = []

        def work(options):
            asked.append(options["should_stop"]())
            return RunResult(RunState.CANCELLED, "it was stopped", None, {})

        works(work)
        ended = work_on(ledger, run)
        assert asked == [True]
        assert (ended.state, ended.reason) == ("cancelled", "too early")

    def test_own_day(self, ledger, works):
        """`today` is the day on which the run was due, by its schedule's clock."""
        days = []

        def note(options):
            days.append(options["today"])
            return RunResult(RunState.OK, None, None, {})

        works(note)
        run = claimed(ledger)
        zone = Section(name="a", report="x", cron="0 6 * * *", time_zone="Asia/Tokyo")
        late = datetime(2026, 11, 24, 20, tzinfo=UTC)
        assert str(worker._day_of(begin_at(run, late), zone)) == "2026-11-25"
        work_on(ledger, run)
        assert days == [run.requested_at.date()]


def begin_at(run, tick):
    """The run as one of a schedule."""
    from dataclasses import replace  # noqa: PLC0415

    return replace(run, tick=tick)


class TestLate:
    """What is not ours is taken away, what others rely on is not."""

    def test_own_bundle_goes(self, ledger, works, tmp_path):
        """The bundle of an attempt that came too late."""
        made = bundle(tmp_path)
        run = claimed(ledger)

        def steal(_options):
            later = utc_now() + timedelta(hours=1)
            claim(ledger, "bert", now=later, lease_seconds=60)
            return RunResult(RunState.OK, None, made, {})

        works(steal)
        assert work_on(ledger, run) is None
        assert list(made.parent.iterdir()) == []
        assert get_run(ledger, run.id).owner == "bert"

    def test_earlier_bundle_stays(self, ledger, works, tmp_path):
        """One that was only found."""
        made = bundle(tmp_path)
        run = claimed(ledger)

        def steal(_options):
            claim(ledger, "bert", now=utc_now() + timedelta(hours=1), lease_seconds=60)
            return RunResult(RunState.OK, None, made, {}, unchanged=True)

        works(steal)
        assert work_on(ledger, run) is None
        assert made.is_dir()

    def test_named_bundle_stays(self, ledger, tmp_path):
        """One that a run names."""
        made = bundle(tmp_path)
        run = claimed(ledger)
        finish(ledger, run, RunState.OK, now=utc_now(), artefacts=made)
        assert is_kept(ledger, made)
        assert not drop_bundle(ledger, made)
        assert made.is_dir()
        assert not drop_bundle(ledger, tmp_path / "gone")

    def test_bundle_that_went(self, ledger, works, tmp_path):
        """An earlier bundle that disappears before it is named is no result: it runs again."""
        made = bundle(tmp_path)
        found = [tmp_path / "gone", made]
        works(lambda _: RunResult(RunState.OK, None, found.pop(0), {}, unchanged=True))
        assert work_on(ledger, claimed(ledger)).artefacts == str(made)


class TestLedgerAway:
    """The ledger may be away for a while."""

    def test_last_word_is_tried_again(self, ledger, works, monkeypatch):
        """Until it is written."""
        works(lambda _: RunResult(RunState.OK, "fine", None, {}))
        failures = [LedgerError("away"), LedgerError("away")]

        def sometimes(*given, **more):
            if failures:
                raise failures.pop()
            return finish(*given, **more)

        monkeypatch.setattr(worker, "finish", sometimes)
        ended = work_on(ledger, claimed(ledger, lease=3), lease_seconds=3)
        assert (ended.state, failures) == ("ok", [])

    def test_answer_that_never_came(self, ledger, works, monkeypatch, tmp_path):
        """What was written although the connection broke is not taken for a late write."""
        made = bundle(tmp_path)
        works(lambda _: RunResult(RunState.OK, None, made, {}))

        def broken(*given, **more):
            finish(*given, **more)
            raise LedgerError("the connection broke")

        monkeypatch.setattr(worker, "finish", broken)
        ended = work_on(ledger, claimed(ledger, lease=3), lease_seconds=3)
        assert ended.state == "ok"
        assert made.is_dir()

    def test_for_too_long(self, ledger, works, monkeypatch, tmp_path):
        """After the lease the run is given up; its bundle waits for the next attempt's finding."""
        made = bundle(tmp_path)
        works(lambda _: RunResult(RunState.OK, None, made, {}))

        def away(*_given, **_more):
            raise LedgerError("away")

        for name in ("finish", "is_kept"):
            monkeypatch.setattr(worker, name, away)
        assert work_on(ledger, claimed(ledger, lease=0.5), lease_seconds=0.5) is None
        assert made.is_dir()

    def test_no_heartbeat(self, ledger, works, monkeypatch):
        """Without one until the lease has passed, the work stops."""

        def away(*_given, **_more):
            raise LedgerError("away")

        def wait(options):
            while not options["should_stop"]():
                Event().wait(0.01)
            return RunResult(RunState.CANCELLED, "the run was stopped", None, {})

        monkeypatch.setattr(worker, "heartbeat", away)
        works(wait)
        assert work_on(ledger, claimed(ledger, lease=0.5), lease_seconds=0.5) is None


class TestByHand:
    """A run on the command line is noted, whatever the ledger says."""

    def noted(self, work, address, warnings=None):
        """Carry out a run of the main report."""
        warn = (warnings if warnings is not None else []).append
        asked = {"since": "2013-02-01"}
        return run_noted("category_totals", asked, work, address=address, warn=warn)

    def test_from_beginning_to_end(self, ledger, tmp_path):
        """While it works nobody else can take it up."""
        address = str(ledger.engine.url.database)

        def work(tell, should_stop):
            [run] = list_runs(ledger).runs
            assert (run.state, run.parameters["since"]) == ("running", "2013-02-01")
            assert claim(ledger, "bert", now=utc_now(), lease_seconds=60) is None
            assert not should_stop()
            tell(1, 2, "Drawing")
            return RunResult(RunState.OK, None, None, {})

        self.noted(work, address)
        assert list_runs(ledger).runs[0].state == "ok"

    def test_error(self, ledger):
        """It is noted, and it is still an error."""

        def work(_tell, _should_stop):
            raise OutputError("no space left on device")

        with pytest.raises(OutputError, match="no space"):
            self.noted(work, str(ledger.engine.url.database))
        [run] = list_runs(ledger).runs
        assert (run.state, run.reason) == ("lost", "no space left on device")

    def test_interrupted(self, ledger):
        """So is Ctrl-C."""

        def work(_tell, _should_stop):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.noted(work, str(ledger.engine.url.database))
        assert list_runs(ledger).runs[0].state == "cancelled"

    @pytest.mark.parametrize("where", ["mysql://db/reports", "broken.db"])
    def test_ledger_that_cannot_be_used(self, tmp_path, where):
        """It is a warning, and the report runs."""
        address = where
        if where == "broken.db":
            address = str(tmp_path / where)
            Path(address).write_text("this is no database " * 100)
        warnings = []
        done = RunResult(RunState.OK, None, None, {})
        assert self.noted(lambda *_: done, address, warnings) == done
        [said] = warnings
        assert said.startswith("this run is not noted: ")

    def test_wrong_request(self, ledger):
        """It is told, and nothing is noted."""
        with pytest.raises(ParameterError, match="topp"):
            run_noted("category_totals", {"topp": 1}, print, address="x.db", warn=print)
        assert list_runs(ledger).runs == ()

    def test_end_that_cannot_be_noted(self, ledger):
        """It is a warning too."""
        warnings = []

        def work(_tell, _should_stop):
            [run] = list_runs(ledger).runs
            finish(ledger, run, RunState.LOST, now=utc_now())
            return RunResult(RunState.OK, None, None, {})

        self.noted(work, str(ledger.engine.url.database), warnings)
        assert warnings[0].startswith("the end of this run is not noted: ")


class TestAsking:
    """What is asked for is what is meant."""

    def test_resolved(self, ledger, tmp_path, monkeypatch):
        """Names stay names, days become dates; a mistake is told at once."""
        run = ask_for_run(ledger, "category_totals", {"since": "today"}, now=utc_now(), key="k")
        assert run.report == "category_totals"
        assert run.parameters["since"] == f"{utc_now():%Y-%m-%d}"
        with pytest.raises(ParameterError, match="topp"):
            ask_for_run(ledger, "category_totals", {"topp": 1}, now=utc_now())

    def test_address(self, tmp_path, monkeypatch):
        """The setting, else beside the runs."""
        monkeypatch.chdir(tmp_path)
        assert ledger_address() == str(Path("runs/ledger.db"))
        assert ledger_address(Path("elsewhere")) == str(Path("elsewhere/ledger.db"))
        monkeypatch.setenv("TALLYBOOK_LEDGER", "postgresql://db/reports")
        assert ledger_address(Path("elsewhere")) == "postgresql://db/reports"


class TestLedger:
    """What the ledger was taught for workers."""

    def test_begin(self, ledger):
        """Nobody takes such a run up; when its worker dies it is lost."""
        run = begin_run(ledger, "x", {}, "me", now=NOON, lease_seconds=60)
        assert (run.state, run.attempt, run.max_attempts) == (LedgerState.RUNNING, 1, 1)
        later = NOON + timedelta(minutes=2)
        assert claim(ledger, "bert", now=later, lease_seconds=60) is None
        assert get_run(ledger, run.id).state == "lost"

    def test_waiting(self, ledger):
        """The oldest one that could start."""
        assert waiting_since(ledger, now=NOON) is None
        request_run(ledger, "x", {}, now=NOON)
        request_run(ledger, "x", {}, now=NOON - timedelta(hours=1))
        assert waiting_since(ledger, now=NOON) == NOON - timedelta(hours=1)
        assert waiting_since(ledger, now=NOON - timedelta(hours=2)) is None
