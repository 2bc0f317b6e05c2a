"""The ledger between processes: many at once, killed, stopped and woken."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from tests.support.ledgers import fresh_schema

from tallybook.runs import (
    LedgerState,
    Tick,
    claim,
    describe,
    expire_lost,
    get_run,
    list_attempts,
    list_runs,
    open_ledger,
    read_mark,
    record_ticks,
    request_run,
)

pytestmark = pytest.mark.hypothesis  # so that `make soak` runs this too
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
RUNS = 200
LEASE = 600
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

COMMON = """
import json, sys
from datetime import UTC, datetime, timedelta
from tallybook.errors import LateWriteError
from tallybook.runs import *
from tallybook.types import RunState

def now():
    return datetime.now(UTC)

def say(*words):
    print(json.dumps(words), flush=True)

def wait():
    sys.stdin.readline()

name = sys.argv[2]
wait()
ledger = open_ledger(sys.argv[1])
"""
WORK = """
while run := claim(ledger, name, now=now(), lease_seconds=600):
    finish(ledger, run, RunState.OK, now=now())
    say(run.id, run.attempt)
"""
HOLD = """
run = claim(ledger, name, now=now(), lease_seconds=600)
say(run.id, run.attempt)
wait()
try:
    finish(ledger, run, RunState.OK, now=now())
    say("accepted")
except LateWriteError as error:
    say(str(error))
"""
STALL = """
from tallybook.runs import _writing
with _writing(ledger, now()) as connection:
    say("inside")
    wait()
"""
ASK = """
while True:
    say(request_run(ledger, "totals", {"from": name}, now=now()).id)
"""
PLAN = """
from tallybook.schedule import *
hourly = Section(name="hourly", report="category_totals", cron="0 * * * *", misfire="run-all",
                 misfire_limit=1000)
noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
for hour in range(201):
    for run in plan_into(ledger, [hourly], now=noon + timedelta(hours=hour)):
        say(run.id, run.tick.isoformat())
"""


@contextmanager
def process(script, address, name="anna"):
    """Start a process that waits for a line before it opens the ledger."""
    command = [sys.executable, "-c", COMMON + script, address, name]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def go(running):
    """Let a process go on."""
    running.stdin.write("\n")
    running.stdin.flush()


def told(running):
    """What a process says next."""
    return json.loads(running.stdout.readline())


def rest(running):
    """What a process says until it ends."""
    said, errors = running.communicate()
    assert running.returncode == 0, errors
    return [json.loads(line) for line in said.splitlines()]


def together(stack, script, address, count=4):
    """Start processes, and let them go when all are there."""
    started = [stack.enter_context(process(script, address, f"w{n}")) for n in range(count)]
    for one in started:
        go(one)
    return started


def ask(address, count=RUNS):
    """Make a ledger in which runs wait."""
    with closing(open_ledger(address)) as ledger:
        for number in range(count):
            request_run(ledger, "totals", {"number": number}, now=NOON)


class TestTogether:
    """Four processes on one ledger."""

    def test_claims(self, address):
        """Two hundred runs are claimed two hundred times, by all of them."""
        ask(address)
        with ExitStack() as stack:
            said = [rest(one) for one in together(stack, WORK, address)]
        claimed = sorted(run for one in said for run, _ in one)
        assert claimed == list(range(1, RUNS + 1))
        with closing(open_ledger(address)) as ledger:
            assert describe(ledger).counts == {LedgerState.OK: RUNS}
            assert {run.attempt for run in list_runs(ledger, limit=RUNS).runs} == {1}

    def test_planners(self, address):
        """Two hundred ticks are two hundred runs, whoever plans them and makes the ledger first."""
        with ExitStack() as stack:
            said = [rest(one) for one in together(stack, PLAN, address)]
        assert len([run for one in said for run in one]) == RUNS
        with closing(open_ledger(address)) as ledger:
            runs = list_runs(ledger, limit=1000).runs
            assert {run.state for run in runs} == {"requested"}
            hours = [NOON + timedelta(hours=hour) for hour in range(1, RUNS + 1)]
            assert sorted(run.tick for run in runs) == hours
            assert read_mark(ledger, "hourly").planned_until == hours[-1]


class TestKilled:
    """A process that is gone takes nothing with it."""

    def test_worker(self, address):
        """The others do the rest; its run is taken up after its lease, and not before."""
        ask(address, 40)
        with ExitStack() as stack:
            victim = stack.enter_context(process(HOLD, address, "victim"))
            go(victim)
            run, _ = told(victim)
            others = together(stack, WORK, address, count=3)
            victim.send_signal(signal.SIGKILL)
            done = [number for one in others for number, _ in rest(one)]
        assert sorted([*done, run]) == list(range(1, 41))
        with closing(open_ledger(address)) as ledger:
            held = get_run(ledger, run)
            assert (held.state, held.owner) == ("running", "victim")
            soon, later = (held.lease_until + timedelta(seconds=n) for n in (-1, 0))
            assert claim(ledger, "bert", now=soon, lease_seconds=LEASE) is None
            again = claim(ledger, "bert", now=later, lease_seconds=LEASE)
            assert (again.id, again.attempt) == (run, 2)
            assert [one.outcome for one in list_attempts(ledger, run)] == ["lost", None]

    @pytest.mark.parametrize("after", range(1, 51 if SOAK else 3))
    def test_request(self, address, after):
        """What was acknowledged is there, wherever the process was when it was killed."""
        with process(ASK, address) as asking:
            go(asking)
            acknowledged = [told(asking)[0] for _ in range(after)]
            asking.send_signal(signal.SIGKILL)
            asking.wait()  # not `communicate`: it does not know of the lines that are here already
            tail = [line for line in asking.stdout.read().splitlines() if line.endswith("]")]
        acknowledged += [json.loads(line)[0] for line in tail]
        with closing(open_ledger(address)) as ledger:
            found = {run.id for run in list_runs(ledger, limit=100_000).runs}
            assert set(acknowledged) <= found
            assert found == set(range(1, len(found) + 1))
            assert len(found) - len(acknowledged) <= 1  # written, but not told any more
            assert expire_lost(ledger, now=datetime.now(UTC)) == []


class TestStopped:
    """A process that sleeps does not know how long."""

    @pytest.mark.parametrize("round_", range(25 if SOAK else 1))
    def test_worker(self, address, round_):
        """Stopped past its lease and woken, it is refused; what the other one did stands."""
        ask(address, 1)
        with process(HOLD, address, "sleeper") as sleeper, closing(open_ledger(address)) as ledger:
            go(sleeper)
            run, attempt = told(sleeper)
            sleeper.send_signal(signal.SIGSTOP)
            later = get_run(ledger, run).lease_until
            taken = claim(ledger, "bert", now=later, lease_seconds=LEASE)
            assert (taken.id, taken.attempt) == (run, attempt + 1)
            sleeper.send_signal(signal.SIGCONT)
            go(sleeper)
            [said] = told(sleeper)
            assert "bert has taken it up since, as attempt 2" in said
            assert get_run(ledger, run) == taken

    def test_inside_a_transaction(self, server):
        """On a server, one that sleeps while all others wait for it loses its transaction."""
        address = fresh_schema(server)
        ask(address, 1)
        with process(STALL, address) as sleeper, closing(open_ledger(address)) as ledger:
            go(sleeper)
            told(sleeper)
            sleeper.send_signal(signal.SIGSTOP)
            assert claim(ledger, "bert", now=NOON, lease_seconds=LEASE)
            sleeper.send_signal(signal.SIGCONT)
            _, said = sleeper.communicate("\n")
        assert "LedgerError: postgresql://" in said.splitlines()[-1]
        assert sleeper.returncode == 1


def test_ticks_are_unique(address):
    """The table itself refuses a second run for a tick, whatever the code does."""
    with closing(open_ledger(address)) as ledger:
        due = Tick(NOON, LedgerState.REQUESTED, None, "totals", {})
        mark = {"rule": "r", "until": NOON, "now": NOON}
        record_ticks(ledger, "daily", [due], seen=None, **mark)
        copy = (
            "INSERT INTO runs (report, parameters, schedule, tick, state, requested_at, "
            "not_before, exclusive, max_attempts, attempt, failures) "
            "SELECT report, parameters, schedule, tick, state, requested_at, not_before, "
            "exclusive, max_attempts, attempt, failures FROM runs"
        )
        with pytest.raises(IntegrityError), ledger.engine.begin() as connection:
            connection.exec_driver_sql(copy)
        assert len(list_runs(ledger).runs) == 1
