"""The ledger: each promise on SQLite and on PostgreSQL, and a model of it under any clock."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from tests.support.ledgers import BACKENDS, fresh_file, fresh_schema

from tallybook import runs
from tallybook.errors import (
    ConfigError,
    LateWriteError,
    LedgerError,
    OutputError,
    ValidationError,
)
from tallybook.runs import (
    ENDED,
    LedgerState,
    Mark,
    Progress,
    Tick,
    cancel,
    claim,
    describe,
    expire_lost,
    finish,
    get_run,
    hand_back,
    heartbeat,
    list_attempts,
    list_runs,
    open_ledger,
    prune,
    read_mark,
    record_ticks,
    request_run,
    retry,
)
from tallybook.types import RunState

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASE = 60


def after(seconds=0, **more):
    """A moment after noon."""
    return NOON + timedelta(seconds=seconds, **more)


def asked(ledger, seconds=0, **more):
    """A run that was asked for."""
    return request_run(ledger, "totals", {"top": 5}, now=after(seconds), **more)


def taken(ledger, seconds=0, worker="anna", lease=LEASE):
    """What a worker takes up."""
    return claim(ledger, worker, now=after(seconds), lease_seconds=lease)


def tick(seconds, state=LedgerState.REQUESTED, reason=None, **more):
    """A tick so many seconds after noon."""
    return Tick(after(seconds), state, reason, "totals", {}, **more)


def record(ledger, *ticks, schedule="daily", seen="read", rule="r", now=None):
    """Write ticks down."""
    mark = read_mark(ledger, schedule) if seen == "read" else seen
    until = ticks[-1].at if ticks else NOON
    return record_ticks(
        ledger, schedule, ticks, seen=mark, rule=rule, until=until, now=now or until
    )


class TestOpen:
    """A ledger is made, found again, brought forward or refused."""

    def test_again(self, address):
        """What was written is there when it is opened again."""
        with closing(open_ledger(address)) as first:
            run = asked(first)
        with closing(open_ledger(address)) as second:
            assert get_run(second, run.id) == run

    def test_made_by_two_at_once(self, tmp_path, monkeypatch):
        """Whoever comes while the other one writes, still without a log, waits."""
        with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr(runs, "time", SimpleNamespace(sleep=lambda _: other.rollback()))
            open_ledger(tmp_path / "runs.db").close()

    def test_not_for_ever(self, tmp_path, monkeypatch):
        """After half a minute it says what is in the way."""
        waited = []
        with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr(runs, "time", SimpleNamespace(sleep=waited.append))
            with pytest.raises(LedgerError, match="database is locked"):
                open_ledger(tmp_path / "runs.db")
        assert 25 < sum(waited) < 31

    def test_newer_is_refused(self, address):
        """By who opens it, and by who has it open; reading goes on."""
        with closing(open_ledger(address)) as ledger:
            run = asked(ledger)
            with ledger.engine.begin() as connection:
                connection.execute(text("UPDATE format_version SET version = 99"))
            with pytest.raises(LedgerError, match="has format 99; this Tallybook knows formats up"):
                asked(ledger)
            with pytest.raises(LedgerError, match="Nothing was changed") as error:
                open_ledger(address)
            assert error.value.context["found"] == 99
            assert get_run(ledger, run.id) == run

    def test_older_is_brought_forward(self, address, monkeypatch):
        """Step by step, with all that is in it."""
        with closing(open_ledger(address)) as ledger:
            run = asked(ledger)
        steps = {
            1: lambda connection: connection.execute(text("ALTER TABLE runs ADD note TEXT")),
            2: lambda connection: connection.execute(text("UPDATE runs SET note = 'moved'")),
        }
        monkeypatch.setattr(runs, "_MIGRATIONS", steps)
        monkeypatch.setattr(runs, "FORMAT_VERSION", 3)
        with closing(open_ledger(address)) as ledger, ledger.engine.connect() as connection:
            moved = connection.execute(text("SELECT id, note FROM runs")).all()
            assert [tuple(row) for row in moved] == [(run.id, "moved")]
        with closing(open_ledger(address)) as ledger:
            assert describe(ledger).format_version == 3

    def test_step_that_fails(self, address, monkeypatch):
        """It leaves the ledger as it was."""
        open_ledger(address).close()

        def fail(connection):
            connection.execute(text("ALTER TABLE runs ADD note TEXT"))
            connection.execute(text("SELECT nonsense FROM runs"))

        monkeypatch.setattr(runs, "_MIGRATIONS", {1: fail})
        with monkeypatch.context() as newer:
            newer.setattr(runs, "FORMAT_VERSION", 2)
            with pytest.raises(LedgerError, match="nonsense"):
                open_ledger(address)
        with closing(open_ledger(address)) as ledger:
            assert describe(ledger).format_version == 1
            asked(ledger)

    def test_tables_of_others(self, address):
        """A table that is called like one of ours is not taken for ours."""
        other = runs._engine(runs._url(address))
        with other.begin() as connection:
            connection.execute(text("CREATE TABLE runs (miles INTEGER)"))
        other.dispose()
        with pytest.raises(LedgerError, match="already exists"):
            open_ledger(address)

    @pytest.mark.parametrize(
        ("where", "said"),
        [
            ("mysql://db/reports", r"cannot be kept in mysql://"),
            ("sqlight:///a.db", "Did you mean 'sqlite'"),
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
            ("postgresql://ada:hunter2@db:notaport/x", "it is no URL"),
        ],
    )
    def test_addresses(self, where, said):
        """What cannot be a ledger is told, without a password."""
        with pytest.raises(ConfigError, match=said) as error:
            open_ledger(where)
        assert "hunter2" not in str(error.value)

    def test_no_server(self, tmp_path):
        """The server's words, without the password."""
        with pytest.raises(LedgerError, match="No such file or directory") as error:
            open_ledger(f"postgresql://ada:hunter2@/x?host={tmp_path}")
        assert str(error.value).startswith("postgresql://ada:***@/x: ")
        assert "hunter2" not in str(error.value)

    def test_no_driver(self, monkeypatch):
        """What to install is told."""

        def missing(_url):
            raise ModuleNotFoundError("no psycopg")

        monkeypatch.setattr(runs, "_engine", missing)
        with pytest.raises(ConfigError, match=r"pip install 'tallybook\[db\]'"):
            open_ledger("postgresql://db/x")

    def test_not_a_database(self, tmp_path):
        """Any other file stays what it is."""
        path = tmp_path / "notes.txt"
        path.write_text("dear diary " * 1000)
        with pytest.raises(LedgerError, match="file is not a database"):
            open_ledger(path)
        assert path.read_text() == "dear diary " * 1000

    def test_no_folder(self, tmp_path):
        """A folder is made; where it cannot be, that is told."""
        open_ledger(tmp_path / "new" / "folder" / "ledger.db").close()
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot write"):
            open_ledger(tmp_path / "file" / "ledger.db")

    def test_full_disk(self, file_ledger):
        """What was acknowledged is there, the error is clear, and when there is room it goes on."""
        known = [asked(file_ledger).id]

        def limit(pages):
            with file_ledger.engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        def fill():
            while True:
                run = request_run(file_ledger, "x" * 4000, {}, now=NOON)
                known.append(run.id)

        limit(1)
        with pytest.raises(LedgerError, match="disk is full"):
            fill()
        limit(1_000_000)
        known.append(asked(file_ledger).id)
        assert {run.id for run in list_runs(file_ledger, limit=200).runs} == set(known)

    def test_connections_that_break(self, server):
        """A server that was restarted is found again."""
        with closing(open_ledger(fresh_schema(server))) as ledger:
            run = asked(ledger)
            with closing(open_ledger(fresh_schema(server))) as other, other.engine.begin() as both:
                both.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                    )
                )
            assert taken(ledger).id == run.id


class TestRequest:
    """What is asked for is kept as it was asked."""

    def test_same_request_again(self, ledger):
        """A request with a key is one run, however often it is sent and whatever became of it."""
        first = asked(ledger, key="mail-17")
        assert asked(ledger, 5, key="mail-17") == first
        assert asked(ledger, key="mail-18").id != first.id
        assert asked(ledger).id != asked(ledger).id
        over = cancel(ledger, first.id, now=after(9), reason="enough")
        assert asked(ledger, 10, key="mail-17") == over

    def test_key_of_another_request(self, ledger):
        """A key that stands for something else already is refused."""
        asked(ledger, key="mail-17")
        with pytest.raises(ValidationError, match="'mail-17' was used for run 1"):
            request_run(ledger, "totals", {"top": 6}, now=NOON, key="mail-17")

    def test_values(self, ledger):
        """Parameters, text of every kind, and times in UTC."""
        given = {"ä": [1, None, True], "deep": {"b": 1.5, "a": "\0\ud800"}}
        local = NOON.astimezone(datetime.now().astimezone().tzinfo)
        run = request_run(ledger, "totals", given, now=local, timeout_seconds=1.5, max_attempts=2)
        assert run == get_run(ledger, run.id)
        assert run.parameters == given
        assert (run.requested_at, run.requested_at.tzinfo) == (NOON, UTC)
        assert (run.timeout_seconds, run.max_attempts, run.state) == (1.5, 2, "requested")

    @pytest.mark.parametrize(
        "value", [float("nan"), datetime.now(UTC), {1, 2}], ids=["nan", "time", "set"]
    )
    def test_no_json(self, file_ledger, value):
        """Only JSON comes back as it went in."""
        with pytest.raises(ValidationError, match="have to be JSON values"):
            request_run(file_ledger, "totals", {"top": value}, now=NOON)

    def test_endless(self, file_ledger):
        """Not even a list that holds itself gets in."""
        loop = []
        loop.append(loop)
        with pytest.raises(ValidationError, match="have to be JSON values"):
            request_run(file_ledger, "totals", {"loop": loop}, now=NOON)

    def test_naive_times(self, file_ledger):
        """A time without a zone could be anywhere."""
        naive = NOON.replace(tzinfo=None)
        mark = {"seen": None, "rule": "r", "until": NOON, "now": naive}
        asked(file_ledger)
        run = taken(file_ledger)
        for call in (
            lambda: request_run(file_ledger, "totals", {}, now=naive),
            lambda: record_ticks(file_ledger, "daily", [], **mark),
            lambda: record_ticks(file_ledger, "daily", [], **{**mark, "now": NOON, "until": naive}),
            lambda: record(file_ledger, replace(tick(0), at=naive), now=NOON),
            lambda: record(file_ledger, tick(0, start_by=naive), now=NOON),
            lambda: list_runs(file_ledger, since=naive),
            lambda: list_runs(file_ledger, until=naive),
            lambda: finish(file_ledger, run, RunState.OK, now=NOON, retry_at=naive),
        ):
            with pytest.raises(ValidationError, match="a time needs its zone"):
                call()
        assert get_run(file_ledger, run.id) == run

    @pytest.mark.parametrize("number", [0, -1, 7, 2**63, 10**30])
    def test_unknown(self, ledger, number):
        """A number that no run has."""
        for verb in (
            lambda: get_run(ledger, number),
            lambda: retry(ledger, number, now=NOON),
            lambda: cancel(ledger, number, now=NOON, reason="x"),
        ):
            with pytest.raises(ValidationError, match=f"there is no run {number} "):
                verb()


class TestClaim:
    """One worker gets a run, for as long as its lease lasts."""

    def test_order(self, ledger):
        """The one that has waited longest, and none before its time."""
        later, sooner = asked(ledger, 5), asked(ledger, 3)
        assert taken(ledger, 2) is None
        assert [taken(ledger, 6).id for _ in range(2)] == [sooner.id, later.id]
        assert taken(ledger, 6) is None

    def test_progress(self, ledger):
        """What a worker said of its progress stays until it says more, or somebody begins anew."""
        asked(ledger)
        run = taken(ledger)
        said = heartbeat(ledger, run, now=NOON, lease_seconds=5, progress=Progress(1, 3, "Adding"))
        assert said.progress == Progress(1, 3, "Adding")
        assert heartbeat(ledger, run, now=NOON, lease_seconds=5).progress == said.progress
        assert taken(ledger, 6).progress is None

    def test_lease_that_passes(self, ledger):
        """The run goes to the next one, with a higher attempt; the first one is late."""
        asked(ledger)
        anna = taken(ledger)
        assert taken(ledger, LEASE - 1, "bert") is None
        bert = taken(ledger, LEASE, "bert")
        assert (bert.id, bert.attempt, bert.failures) == (anna.id, 2, 1)
        assert bert.started_at == anna.started_at
        for verb in (
            lambda: heartbeat(ledger, anna, now=after(LEASE), lease_seconds=LEASE),
            lambda: finish(ledger, anna, RunState.OK, now=after(LEASE)),
            lambda: hand_back(ledger, anna, now=after(LEASE), reason="x"),
        ):
            with pytest.raises(LateWriteError, match="bert has taken it up since") as error:
                verb()
            assert error.value.context["current_attempt"] == 2
        assert get_run(ledger, anna.id) == bert

    def test_late_without_a_rival(self, ledger):
        """After the lease anybody may take it, so it is late already."""
        asked(ledger)
        anna = taken(ledger)
        with pytest.raises(LateWriteError, match="lease ended at 2026-11-24 12:01:00 UTC"):
            finish(ledger, anna, RunState.OK, now=after(LEASE))
        assert [run.state for run in expire_lost(ledger, now=after(LEASE))] == ["requested"]
        assert expire_lost(ledger, now=after(LEASE)) == []

    def test_lost(self, ledger):
        """After so many attempts nobody tries again."""
        run = asked(ledger, max_attempts=2)
        taken(ledger, 0)
        taken(ledger, 100)
        [lost] = expire_lost(ledger, now=after(200))
        assert (lost.id, lost.state, lost.failures) == (run.id, "lost", 2)
        assert lost.reason == "anna was not heard of again; attempt 2 of 2"
        assert (lost.lease_until, lost.finished_at) == (None, after(200))
        assert taken(ledger, 300) is None

    def test_expired(self, ledger):
        """A tick that nobody took up in time; one that was taken up once is kept."""
        record(ledger)
        record(ledger, tick(1, start_by=after(50)), tick(2, start_by=after(50)))
        anna = taken(ledger, 10)
        hand_back(ledger, anna, now=after(20), reason="leaving")
        assert expire_lost(ledger, now=after(50)) == []
        [late] = expire_lost(ledger, now=after(51))
        assert (late.tick, late.state, late.finished_at) == (after(2), "expired", after(51))
        assert taken(ledger, 52).id == anna.id

    def test_exclusive(self, ledger):
        """Runs of one schedule wait for each other unless they need not."""
        record(ledger)
        record(ledger, tick(1), tick(2), tick(3, exclusive=False))
        record(ledger, schedule="other")
        record(ledger, tick(4), schedule="other")
        first = taken(ledger, 5)
        assert [taken(ledger, 5).tick for _ in range(2)] == [after(3), after(4)]
        assert taken(ledger, 5) is None
        finish(ledger, first, RunState.OK, now=after(6))
        assert taken(ledger, 6) is None  # the third one of them is at work
        expired = taken(ledger, 70)
        assert expired.tick == after(2)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_no_lease(self, file_ledger, seconds):
        """A lease lasts for some time."""
        asked(file_ledger)
        with pytest.raises(ValidationError, match="a lease has to last longer"):
            taken(file_ledger, lease=seconds)
        run = taken(file_ledger)
        with pytest.raises(ValidationError, match="a lease has to last longer"):
            heartbeat(file_ledger, run, now=NOON, lease_seconds=seconds)


class TestEnd:
    """A run ends once."""

    @pytest.mark.parametrize("state", RunState)
    def test_finish(self, file_ledger, state):
        """Everything is noted, and the worker has no more say."""
        asked(file_ledger)
        run = taken(file_ledger)
        over = finish(
            file_ledger, run, state, now=after(9), reason="a\0b\ud800", artefacts="runs/1"
        )
        fine = state in (RunState.OK, RunState.SKIPPED, RunState.CANCELLED)
        assert (over.state, over.finished_at, over.artefacts) == (state.value, after(9), "runs/1")
        assert (over.reason, over.failures) == ("a\N{REPLACEMENT CHARACTER}b?", 0 if fine else 1)
        with pytest.raises(LateWriteError, match=f"it is {state.value} now"):
            finish(file_ledger, run, state, now=after(9))
        [attempt] = list_attempts(file_ledger, run.id)
        assert (attempt.outcome, attempt.artefacts) == (state.value, "runs/1")

    def test_retry_later(self, ledger):
        """The failure is kept with its attempt."""
        asked(ledger)
        run = taken(ledger)
        again = finish(
            ledger, run, RunState.KERNEL_DIED, now=after(9), reason="oom", retry_at=after(30)
        )
        assert (again.state, again.failures, again.finished_at) == ("requested", 1, None)
        assert taken(ledger, 29) is None
        second = taken(ledger, 30)
        finish(ledger, second, RunState.OK, now=after(40))
        outcomes = [(one.number, one.outcome, one.reason) for one in list_attempts(ledger, run.id)]
        assert outcomes == [(1, "kernel_died", "oom"), (2, "ok", None)]

    def test_hand_back(self, ledger):
        """It waits again at once, and that is no failure."""
        asked(ledger, max_attempts=1)
        for number in range(1, 4):
            run = taken(ledger, number)
            assert run.attempt == number
            back = hand_back(ledger, run, now=after(number), reason="leaving")
            assert (back.state, back.failures, back.reason) == ("requested", 0, "leaving")
        assert taken(ledger, 9).reason is None

    def test_cancel(self, ledger):
        """One that waits has ended; one that has ended cannot be cancelled."""
        run = cancel(ledger, asked(ledger).id, now=after(1), reason="not needed")
        assert (run.state, run.reason, run.finished_at) == ("cancelled", "not needed", after(1))
        assert taken(ledger, 2) is None
        with pytest.raises(ValidationError, match="it has ended already, as cancelled"):
            cancel(ledger, run.id, now=after(1), reason="x")

    @pytest.mark.parametrize("end", ["finish", "hand_back", "lapse"])
    def test_stop(self, ledger, end):
        """One at work is asked to stop; whatever its worker does, it is not taken up again."""
        asked(ledger)
        run = taken(ledger)
        asked_to = cancel(ledger, run.id, now=after(1), reason="not needed")
        assert (asked_to.state, asked_to.stop_reason) == ("running", "not needed")
        assert cancel(ledger, run.id, now=after(2), reason="again").stop_reason == "not needed"
        told = heartbeat(ledger, run, now=after(3), lease_seconds=LEASE)
        assert told.stop_reason == "not needed"
        if end == "finish":
            over = finish(ledger, run, RunState.KERNEL_DIED, now=after(4), retry_at=after(5))
            assert over.state == "kernel_died"
        elif end == "hand_back":
            over = hand_back(ledger, run, now=after(4), reason="leaving")
            assert (over.state, over.reason) == ("cancelled", "not needed")
        else:
            [over] = expire_lost(ledger, now=after(100))
            assert (over.state, over.reason) == ("cancelled", "not needed")
        assert taken(ledger, 200) is None

    def test_retry(self, ledger):
        """A new run with the same values; the old one stays as it ended."""
        record(ledger)
        [old] = record(
            ledger, tick(1, LedgerState.EXPIRED, "late", timeout_seconds=9, max_attempts=7)
        )
        new = retry(ledger, old.id, now=after(5))
        assert (new.retry_of, new.schedule, new.tick) == (old.id, "daily", None)
        assert (new.timeout_seconds, new.exclusive, new.max_attempts) == (9, True, 7)
        assert get_run(ledger, old.id) == old
        with pytest.raises(ValidationError, match=f"run {new.id} cannot be repeated: it is req"):
            retry(ledger, new.id, now=after(5))

    def test_retry_twice(self, ledger):
        """While the repetition waits there is no second one; when it was taken up there may be."""
        [old] = record(ledger, tick(1, LedgerState.EXPIRED, "late"))
        new = retry(ledger, old.id, now=after(5))
        assert retry(ledger, old.id, now=after(6)) == new
        taken(ledger, 7)
        assert retry(ledger, old.id, now=after(8)).id != new.id

    def test_retry_with_a_key(self, ledger):
        """With the same key there is one repetition, at work or not; for others it is refused."""
        for number in (0, 1):
            run = request_run(ledger, "r", {}, now=after(number))
            cancel(ledger, run.id, now=after(2), reason="x")
        new = retry(ledger, 1, now=after(5), key="k")
        taken(ledger, 6)
        assert retry(ledger, 1, now=after(7), key="k").id == new.id
        with pytest.raises(ValidationError, match="not the same request"):
            retry(ledger, 2, now=after(8), key="k")
        with pytest.raises(ValidationError, match="not the same request"):
            request_run(ledger, "r", {}, now=after(9), key="k")


class TestTicks:
    """A tick is written once, whoever plans."""

    def test_states(self, ledger):
        """What is not to run has ended at once."""
        record(ledger)
        ticks = [
            tick(1, LedgerState.COALESCED, "the next one runs"),
            tick(2, LedgerState.SKIPPED, "too busy"),
            tick(3),
        ]
        written = record(ledger, *ticks, now=after(10))
        assert [run.state for run in written] == ["coalesced", "skipped", "requested"]
        assert [run.finished_at for run in written] == [after(10), after(10), None]
        assert [run.reason for run in written] == ["the next one runs", "too busy", None]
        assert read_mark(ledger, "daily") == Mark("r", after(3), written[2].id)

    def test_once(self, ledger):
        """Who started from an older mark writes nothing; a tick that is there is not written."""
        assert read_mark(ledger, "daily") is None
        assert record(ledger, seen=None) == []
        assert record(ledger, seen=None) is None
        seen = read_mark(ledger, "daily")
        assert len(record(ledger, tick(1), seen=seen)) == 1
        assert record(ledger, tick(1), tick(2), seen=seen) is None
        again = record(ledger, tick(1), tick(2))
        assert [run.tick for run in again] == [after(2)]
        assert record(ledger, tick(1), tick(2)) == []
        assert len(list_runs(ledger).runs) == 2

    def test_never_back(self, ledger):
        """A mark does not move back; a rule that changed is another mark."""
        record(ledger)
        record(ledger, tick(100))
        assert record(ledger, rule="s", now=after(200)) == []
        assert read_mark(ledger, "daily").planned_until == after(100)
        assert record(ledger, tick(101), seen=Mark("r", after(100))) is None


class TestLists:
    """Pages, filters and figures."""

    def test_filters(self, ledger):
        """Each of them, and several together."""
        for number in range(4):
            request_run(ledger, "even" if number % 2 == 0 else "odd", {}, now=after(number))
        record(ledger)
        record(ledger, tick(9))
        finish(ledger, taken(ledger, 5), RunState.OK, now=after(6))

        def ids(**filters):
            return [run.id for run in list_runs(ledger, **filters).runs]

        assert ids() == [5, 4, 3, 2, 1]
        assert ids(states=[LedgerState.OK, LedgerState.LOST]) == [1]
        assert ids(report="even") == [3, 1]
        assert ids(schedule="daily") == [5]
        assert ids(since=after(1), until=after(3)) == [3, 2]
        assert ids(report="even", states=[LedgerState.REQUESTED]) == [3]
        assert ids(report="nosuch") == []
        assert describe(ledger).counts == {LedgerState.OK: 1, LedgerState.REQUESTED: 4}
        assert describe(ledger).planned_until == {"daily": after(9)}

    def test_pages(self, ledger):
        """Every run once, also when new ones come in between."""
        for _ in range(6):
            asked(ledger)
        first = list_runs(ledger, limit=4)
        assert ([run.id for run in first.runs], first.before) == ([6, 5, 4, 3], 3)
        asked(ledger)
        last = list_runs(ledger, limit=4, before=first.before)
        assert ([run.id for run in last.runs], last.before) == ([2, 1], None)


class TestPrune:
    """What is removed, and what never is."""

    def test_rules(self, ledger):
        """The newest stay, and the newest good one, and what lives."""
        states = [RunState.OK, RunState.OK, *[RunState.GATE_FAILED] * 3]
        for number, state in enumerate(states):
            asked(ledger, number)
            finish(
                ledger, taken(ledger, number), state, now=after(number), artefacts=f"runs/{state}"
            )
        working, waiting = asked(ledger, 10), asked(ledger, 11)
        taken(ledger, 10, lease=10**9)
        much_later = after(days=365)
        rules = {"now": much_later, "keep_days": 90, "keep_last": 1}
        planned = prune(ledger, **rules, dry_run=True)
        assert len(list_runs(ledger).runs) == 7
        removed = prune(ledger, **rules)
        assert removed == planned
        assert [run.id for run in removed] == [1, 3, 4]
        assert removed[0].artefacts == "runs/ok"
        assert {run.id for run in list_runs(ledger).runs} == {2, 5, working.id, waiting.id}
        assert list_attempts(ledger, 1) == []
        assert prune(ledger, now=after(days=80), keep_days=90, keep_last=0) == []
        assert prune(ledger, **rules) == []
        with pytest.raises(ValidationError, match="cannot be below 0"):
            prune(ledger, now=NOON, keep_days=-1)

    def test_many(self, file_ledger):
        """More than go at once."""
        record(file_ledger)
        many = [tick(number, LedgerState.SKIPPED) for number in range(1, 1202)]
        assert len(record(file_ledger, *many)) == 1201
        removed = prune(file_ledger, now=after(days=365), keep_last=0)
        assert len(removed) == 1201
        assert asked(file_ledger).id == 1202
        assert read_mark(file_ledger, "daily").planned_until == after(1201)


@dataclass
class Expected:
    """What the model knows of a run."""

    state: str
    not_before: datetime
    max_attempts: int = 3
    schedule: str | None = None
    exclusive: bool = False
    start_by: datetime | None = None
    lease_until: datetime | None = None
    attempt: int = 0
    failures: int = 0
    started: bool = False
    stop: bool = False
    ends: int = 0
    retry_of: int | None = None


class LedgerMachine(RuleBasedStateMachine):
    """A plain model beside a real ledger: any order, workers that stop and wake, any clock.

    A worker is what it holds in its hand: every claim that was ever made may be used at any later
    moment, however late. Clocks jump in both directions.
    """

    claims = Bundle("claims")
    numbers = Bundle("numbers")

    def __init__(self, address):
        super().__init__()
        self.ledger = open_ledger(address)
        self.now = NOON
        self.model: dict[int, Expected] = {}
        self.last_tick = NOON

    def teardown(self):
        self.ledger.close()

    def moment(self, seconds):
        return self.now + timedelta(seconds=seconds)

    def end(self, run, state):
        assert run.state not in {end.value for end in ENDED}
        run.state, run.lease_until, run.ends = state, None, run.ends + 1

    def lapse(self):
        """What happens to runs whose lease or whose deadline has passed."""
        for run in self.model.values():
            if run.state == "running" and run.lease_until <= self.now:
                run.failures += 1
                if run.stop:
                    self.end(run, "cancelled")
                elif run.failures >= run.max_attempts:
                    self.end(run, "lost")
                else:
                    run.state, run.not_before, run.lease_until = "requested", self.now, None
        for run in self.model.values():
            missed = run.start_by is not None and run.start_by < self.now and not run.started
            if run.state == "requested" and missed:
                self.end(run, "expired")

    def next_one(self):
        """Which run a claim has to get."""
        at_work = {run.schedule for run in self.model.values() if run.state == "running"} - {None}
        free = [
            (run.not_before, number)
            for number, run in self.model.items()
            if run.state == "requested"
            and run.not_before <= self.now
            and not (run.exclusive and run.schedule in at_work)
        ]
        return min(free)[1] if free else None

    def holds(self, held):
        """Whether a worker may still write about a run."""
        run = self.model[held.id]
        valid = run.state == "running" and run.attempt == held.attempt
        return run if valid and run.lease_until > self.now else None

    @initialize()
    def begin(self):
        """A schedule is known from now on."""
        record(self.ledger, now=NOON)

    @rule(seconds=st.sampled_from([1, 10, 59, 60, 61, 3600, -1, -60, -3600]))
    def clock(self, seconds):
        """Time passes, or jumps."""
        self.now = self.moment(seconds)

    @rule(target=numbers, attempts=st.integers(1, 3))
    def request(self, attempts):
        """Somebody asks for a run."""
        run = request_run(self.ledger, "totals", {}, now=self.now, max_attempts=attempts)
        self.model[run.id] = Expected("requested", self.now, attempts)
        return run.id

    @rule(target=numbers, exclusive=st.booleans(), patience=st.sampled_from([None, 0, 30, 600]))
    def plan(self, exclusive, patience):
        """A tick is written down."""
        self.last_tick += timedelta(seconds=1)
        start_by = None if patience is None else self.now + timedelta(seconds=patience)
        due = Tick(
            self.last_tick,
            LedgerState.REQUESTED,
            None,
            "totals",
            {},
            start_by=start_by,
            exclusive=exclusive,
        )
        [run] = record(self.ledger, due, now=self.now)
        self.model[run.id] = Expected(
            "requested", due.at, schedule="daily", exclusive=exclusive, start_by=start_by
        )
        return run.id

    @rule(target=claims, lease=st.sampled_from([10, 60, 600]))
    def take(self, lease):
        """A worker looks for work."""
        self.lapse()
        expected = self.next_one()
        run = claim(self.ledger, "anna", now=self.now, lease_seconds=lease)
        if expected is None:
            assert run is None
            return multiple()
        assert run is not None
        assert run.id == expected
        known = self.model[run.id]
        known.state, known.attempt, known.started = "running", known.attempt + 1, True
        known.lease_until = self.moment(lease)
        assert run.attempt == known.attempt
        return run

    @rule(held=claims, lease=st.sampled_from([10, 600]))
    def beat(self, held, lease):
        """A worker says that it lives."""
        if known := self.holds(held):
            heartbeat(self.ledger, held, now=self.now, lease_seconds=lease)
            known.lease_until = self.moment(lease)
        else:
            with pytest.raises(LateWriteError):
                heartbeat(self.ledger, held, now=self.now, lease_seconds=lease)

    @rule(held=claims, state=st.sampled_from(RunState), again=st.booleans())
    def done(self, held, state, again):
        """A worker says how it went, in time or late, perhaps for the second time."""
        retry_at = self.moment(30) if again else None
        if known := self.holds(held):
            finish(self.ledger, held, state, now=self.now, retry_at=retry_at)
            known.failures += state not in (RunState.OK, RunState.SKIPPED, RunState.CANCELLED)
            if again and not known.stop:
                known.state, known.not_before, known.lease_until = "requested", retry_at, None
            else:
                self.end(known, state.value)
        else:
            with pytest.raises(LateWriteError):
                finish(self.ledger, held, state, now=self.now, retry_at=retry_at)

    @rule(target=claims, held=claims)
    def oversleep(self, held):
        """A worker sleeps past its lease, and wakes when another one has looked for work."""
        known = self.holds(held)
        if known is None:
            return multiple()
        self.now = known.lease_until
        taken_up = self.take(600)
        self.beat(held, 10)
        self.done(held, RunState.OK, again=False)
        return taken_up

    @rule(held=consumes(claims))
    def leave(self, held):
        """A worker is asked to go."""
        if known := self.holds(held):
            hand_back(self.ledger, held, now=self.now, reason="leaving")
            if known.stop:
                self.end(known, "cancelled")
            else:
                known.state, known.not_before, known.lease_until = "requested", self.now, None
        else:
            with pytest.raises(LateWriteError):
                hand_back(self.ledger, held, now=self.now, reason="leaving")

    @rule(number=numbers)
    def call_off(self, number):
        """Somebody wants a run to stop."""
        known = self.model[number]
        if known.ends:
            with pytest.raises(ValidationError):
                cancel(self.ledger, number, now=self.now, reason="x")
            return
        cancel(self.ledger, number, now=self.now, reason="x")
        if known.state == "running":
            known.stop = True
        else:
            self.end(known, "cancelled")

    @rule(target=numbers, number=numbers)
    def repeat(self, number):
        """Somebody wants a run once more."""
        known = self.model[number]
        if not known.ends:
            with pytest.raises(ValidationError):
                retry(self.ledger, number, now=self.now)
            return multiple()
        waiting = [
            other
            for other, one in self.model.items()
            if (one.retry_of, one.state) == (number, "requested")
        ]
        run = retry(self.ledger, number, now=self.now)
        if waiting:
            assert [run.id] == waiting
            return multiple()
        self.model[run.id] = Expected(
            "requested",
            self.now,
            known.max_attempts,
            schedule=known.schedule,
            exclusive=known.exclusive,
            retry_of=number,
        )
        return run.id

    @rule()
    def look_for_lost(self):
        """A process that starts looks for what was left behind."""
        self.lapse()
        expire_lost(self.ledger, now=self.now)

    @invariant()
    def same(self):
        """No run is missing, none is there twice, none has ended twice, and every state is true."""
        found = {run.id: run for run in list_runs(self.ledger, limit=1000).runs}
        assert found.keys() == self.model.keys()
        for number, known in self.model.items():
            run = found[number]
            assert (run.state, run.attempt, run.failures, run.lease_until, run.not_before) == (
                known.state,
                known.attempt,
                known.failures,
                known.lease_until,
                known.not_before,
            )
            assert (run.finished_at is not None) == (run.state in ENDED) == (known.ends == 1)


@pytest.mark.hypothesis
@pytest.mark.parametrize("backend", BACKENDS)
def test_model(backend, request, tmp_path):
    """In whatever order: none lost, none finished twice, no late write accepted."""
    server = request.getfixturevalue("server") if backend == "postgresql" else None

    def machine():
        return LedgerMachine(fresh_schema(server) if server else fresh_file(tmp_path))

    examples = {"sqlite": 30, "postgresql": 6}[backend] * (20 if SOAK else 1)
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, suppress_health_check=checks
        ),
    )


def test_columns_are_plain(file_ledger):
    """Whoever looks with another tool finds JSON and times that can be read."""
    asked(file_ledger)
    with file_ledger.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT parameters, requested_at FROM runs").one()
    assert json.loads(row[0]) == {"top": 5}
    assert row[1] == "2026-11-24 12:00:00.000000"
