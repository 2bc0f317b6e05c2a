"""Who hears of which end of a run, and that each end is thought of once."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import event

from tallybook.errors import ValidationError
from tallybook.outbox import (
    DeliveryState,
    announce,
    claim_deliveries,
    event_of,
    list_deliveries,
    mark_failed,
    mark_later,
    mark_sent,
    requeue,
)
from tallybook.runs import (
    ENDED,
    LedgerState,
    Tick,
    claim,
    finish,
    list_runs,
    open_ledger,
    prune,
    record_ticks,
    request_run,
)
from tallybook.subscribers import (
    Event,
    HasLeftError,
    add_subscriber,
    find_subscriber,
    list_subscribers,
    remove_subscriber,
    unsubscribe,
)
from tallybook.types import RunState

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
S = LedgerState


def after(**spans):
    """A moment after noon."""
    return NOON + timedelta(**spans)


def end(ledger, state, minute=0, report="totals"):
    """Run a report that ends like this."""
    now = after(minutes=minute)
    request_run(ledger, report, {}, now=now)
    held = claim(ledger, "anna", now=now, lease_seconds=60)
    return finish(ledger, held, state, now=now)


def told(ledger):
    """What was announced to whom, the oldest first."""
    while announce(ledger, now=after(days=1)):
        pass
    return [(one.subscriber_id, one.event.value) for one in reversed(list_deliveries(ledger))]


class TestEvents:
    """What a run's end is called."""

    @pytest.mark.parametrize(
        ("state", "told_as"),
        [
            (S.OK, Event.SUCCESS),
            (S.GATE_FAILED, Event.GATE),
            *product([S.USAGE, S.CELL_FAILED, S.KERNEL_DIED], [Event.FAILURE]),
            *product([S.TIMED_OUT, S.LOST, S.EXPIRED], [Event.FAILURE]),
            *product([S.SKIPPED, S.CANCELLED, S.COALESCED], [None]),
        ],
    )
    def test_every_end(self, state, told_as):
        """Each state is one event or nobody's news."""
        assert state in ENDED
        assert event_of(state, None) is told_as
        assert event_of(state, S.OK) is told_as

    def test_recovery(self, ledger):
        """A good end after a bad one, of the same report; it replaces the success."""
        add_subscriber(ledger, "ada@example.org", now=NOON, events=["success"])
        add_subscriber(ledger, "bob@example.org", now=NOON, events=["recovery"])
        for minute, state in enumerate(
            [RunState.OK, RunState.CELL_FAILED, RunState.SKIPPED, RunState.OK, RunState.OK]
        ):
            end(ledger, state, minute)
        end(ledger, RunState.OK, 9, report="other")
        assert told(ledger) == [
            (1, "success"),
            (1, "recovery"),
            (2, "recovery"),
            (1, "success"),
            (1, "success"),
        ]

    def test_schedules_apart(self, ledger):
        """What one schedule's run did is not the recovery of another's."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        expired = Tick(NOON, S.EXPIRED, "too late", "totals", {})
        record_ticks(ledger, "daily", [expired], seen=None, rule="r", until=NOON, now=NOON)
        end(ledger, RunState.OK, 1)
        assert told(ledger) == [(1, "failure"), (1, "success")]


class TestAudience:
    """Who is told."""

    def test_one_message_for_one_address(self, ledger):
        """The entry for the report counts more than the one for all."""
        add_subscriber(ledger, "ada@example.org", now=NOON, report="totals")
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger, RunState.OK)
        end(ledger, RunState.OK, report="other")
        assert told(ledger) == [(1, "success"), (2, "success")]

    def test_nobody(self, ledger):
        """Runs are passed over, and not announced to whoever joins later."""
        end(ledger, RunState.OK)
        assert told(ledger) == []
        assert all(run.announced for run in list_runs(ledger).runs)
        add_subscriber(ledger, "ada@example.org", now=NOON)
        assert told(ledger) == []

    def test_once(self, ledger):
        """Whoever announces again finds nothing; a run at work is not announced."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger, RunState.OK)
        request_run(ledger, "totals", {}, now=NOON)
        assert announce(ledger, now=NOON) == 1
        assert announce(ledger, now=NOON) == 0


class TestCost:
    """What happens every few seconds looks at no more than it has to."""

    def test_indices(self, tmp_path):
        """A long ledger is not read through for runs to announce, runs before, or messages due."""
        plans = []

        def explain(connection, _cursor, statement, parameters, *_):
            if statement.startswith("SELECT"):
                asked = connection.connection.cursor()
                asked.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.extend(row[3] for row in asked.fetchall())

        with closing(open_ledger(tmp_path / "ledger.db")) as ledger:
            add_subscriber(ledger, "ada@example.org", now=NOON)
            end(ledger, RunState.OK)
            event.listen(ledger.engine, "before_cursor_execute", explain)
            announce(ledger, now=NOON)
            claim_deliveries(ledger, now=NOON, lease_seconds=60)
        for index in ("runs_unannounced", "runs_by_end", "deliveries_pending"):
            assert any(f"INDEX {index}" in plan for plan in plans), plans
        assert not [plan for plan in plans if plan in ("SCAN runs", "SCAN deliveries")]


class TestDeliveries:
    """A message belongs to one, and what became of it is noted."""

    @pytest.fixture
    def waiting(self, ledger):
        """A ledger with one message."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger, RunState.OK)
        announce(ledger, now=NOON)
        return ledger

    def test_lease(self, waiting):
        """After it, somebody else gets the message; the first one's word counts no more."""
        (first,) = claim_deliveries(waiting, now=NOON, lease_seconds=60)
        assert claim_deliveries(waiting, now=after(seconds=59), lease_seconds=60) == []
        (second,) = claim_deliveries(waiting, now=after(seconds=60), lease_seconds=60)
        late = first.delivery
        assert (second.delivery.key, second.delivery.attempts) == (late.key, 2)
        assert first.token != second.token
        assert not mark_failed(waiting, late, now=NOON, reason="x")
        assert not mark_later(waiting, late, now=NOON, next_at=NOON, reason="x")
        mark_sent(waiting, late, now=after(seconds=61))
        assert not mark_failed(waiting, second.delivery, now=NOON, reason="x")
        assert list_deliveries(waiting)[0].state is DeliveryState.SENT
        for claimed in (first, second):
            assert unsubscribe(waiting, claimed.token, now=NOON).id == 1

    def test_no_lease(self, waiting):
        """One that lasts no time is refused."""
        with pytest.raises(ValidationError, match="longer than 0 seconds"):
            claim_deliveries(waiting, now=NOON, lease_seconds=0)

    def test_requeue(self, waiting):
        """Only what was given up can be sent again, and only to who has not left."""
        with pytest.raises(ValidationError, match="only one that was given up"):
            requeue(waiting, 1, now=NOON)
        (taken,) = claim_deliveries(waiting, now=NOON, lease_seconds=60)
        mark_failed(waiting, taken.delivery, now=NOON, reason="no")
        unsubscribe(waiting, taken.token, now=NOON)
        with pytest.raises(ValidationError, match="who has not left"):
            requeue(waiting, 1, now=NOON)

    def test_filters(self, waiting):
        """By state, run and subscriber."""
        assert list_deliveries(waiting, states=[DeliveryState.SENT]) == []
        assert list_deliveries(waiting, run_id=2) == []
        assert len(list_deliveries(waiting, run_id=1, subscriber_id=1)) == 1

    def test_pruned(self, waiting):
        """Messages go with their runs."""
        end(waiting, RunState.OK, minute=1)
        assert len(prune(waiting, now=after(days=100), keep_last=0)) == 1
        assert list_deliveries(waiting) == []


class TestSubscribers:
    """Joining, leaving, coming back, being removed."""

    def test_again(self, ledger):
        """Joining twice changes what is asked for; who left comes back when asked to."""
        add_subscriber(ledger, "ada@example.org", now=NOON, name="Ada")
        changed = add_subscriber(ledger, "ADA@example.org", now=after(days=1), events=["gate"])
        assert (changed.name, changed.since, changed.events) == ("Ada", NOON, (Event.GATE,))
        end(ledger, RunState.GATE_FAILED)
        announce(ledger, now=NOON)
        (taken,) = claim_deliveries(ledger, now=NOON, lease_seconds=60)
        unsubscribe(ledger, taken.token, now=NOON)
        with pytest.raises(HasLeftError, match=r"left on 2026-11-24 \(unsubscribed\)$"):
            add_subscriber(ledger, "ada@example.org", now=NOON)
        back = add_subscriber(ledger, "ada@example.org", now=after(days=2), again=True)
        assert (back.active, back.since) == (True, after(days=2))

    @pytest.mark.parametrize(
        ("where", "more", "said"),
        [
            ("ada", {}, "email 'ada': invalid email format"),
            ("ada@example.org", {"name": "Ada\r\nBcc: x"}, "contains invalid characters"),
            ("ada@example.org", {"events": ["sucess"]}, "Did you mean 'success'"),
            ("ada@example.org", {"events": []}, "at least"),
            ("ftp://example.com/x", {}, "needs an address such as https"),
            ("https://", {}, "needs an address such as https"),
            ("https://ada:hunter2@example.com/", {}, "holds no user or password"),
            ("https://example.com/", {"secret": "hunter2"}, "given by its name"),
        ],
    )
    def test_refused(self, ledger, where, more, said):
        """What cannot be accepted is told, without a password."""
        with pytest.raises(ValidationError, match=said) as error:
            add_subscriber(ledger, where, now=NOON, **more)
        assert "hunter2" not in str(error.value)
        assert list_subscribers(ledger, everybody=True) == []

    def test_unknown_token(self, ledger):
        """A token that no message had leads nowhere, whatever is in it."""
        for token in ("", "x" * 32, "\udcff"):
            with pytest.raises(ValidationError, match="leads to no subscription"):
                unsubscribe(ledger, token, now=NOON)

    def test_found(self, ledger):
        """By number or address; several entries have to be told apart."""
        one = add_subscriber(ledger, "ada@example.org", now=NOON, report="totals")
        assert find_subscriber(ledger, "1") == find_subscriber(ledger, one.address) == one
        add_subscriber(ledger, "ada@example.org", now=NOON)
        with pytest.raises(ValidationError, match=r"1 \(totals\), 2 \(\*\)"):
            find_subscriber(ledger, "ada@example.org")
        with pytest.raises(ValidationError, match=r"Did you mean 'ada@example\.org'"):
            find_subscriber(ledger, "ada@exmaple.org")

    def test_removed(self, ledger):
        """Nothing of them stays, and their link leads nowhere."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger, RunState.OK)
        announce(ledger, now=NOON)
        (taken,) = claim_deliveries(ledger, now=NOON, lease_seconds=60)
        remove_subscriber(ledger, 1, now=NOON)
        assert list_deliveries(ledger) == []
        with pytest.raises(ValidationError, match="may have been removed"):
            unsubscribe(ledger, taken.token, now=NOON)
        with pytest.raises(ValidationError, match="no subscriber 1"):
            remove_subscriber(ledger, 1, now=NOON)
