"""What the ledger costs with a hundred thousand runs in it: to list, to plan, to claim."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from side_by_side import medians, show, verdict
from tallybook.runs import (
    Ledger,
    LedgerState,
    Tick,
    claim,
    describe,
    finish,
    list_runs,
    open_ledger,
    read_mark,
    record_ticks,
)
from tallybook.schedule import Section, plan_into
from tallybook.types import RunState

RUNS = 100_000
TICKS = 300
START = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENDS = (LedgerState.OK, LedgerState.OK, LedgerState.OK, LedgerState.GATE_FAILED)


def fill(ledger: Ledger) -> None:
    """Write runs that have ended, of twenty schedules, each a tick a minute."""
    each = RUNS // 20
    for schedule in range(20):
        name, report = f"schedule{schedule}", f"report{schedule % 5}"
        ticks = [
            Tick(START + timedelta(minutes=n), ENDS[n % 4], "done", report, {"n": n})
            for n in range(each)
        ]
        mark = {"rule": "filled", "until": START, "now": START}
        record_ticks(ledger, name, ticks, seen=None, **mark)


def planner(ledger: Ledger, name: str, first: datetime) -> Callable[[], object]:
    """Return a function that plans the next tick of an hourly schedule."""
    section = Section(name=name, report="category_totals", cron="0 * * * *", overlap="allow")
    plan_into(ledger, [section], now=first)
    hours = count(1)
    return lambda: plan_into(ledger, [section], now=first + next(hours) * HOUR)


def ways(ledger: Ledger) -> dict[str, Callable[[], object]]:
    """What is measured, one at a time."""
    later = START + timedelta(days=300)
    return {
        "list, newest": lambda: list_runs(ledger),
        "list, one state": lambda: list_runs(ledger, states=[LedgerState.GATE_FAILED]),
        "list, no such state": lambda: list_runs(ledger, states=[LedgerState.LOST]),
        "list, report and state": lambda: list_runs(
            ledger, report="report3", states=[LedgerState.GATE_FAILED]
        ),
        "list, one schedule": lambda: list_runs(ledger, schedule="schedule7"),
        "list, deep page": lambda: list_runs(ledger, before=RUNS // 2),
        "list, since": lambda: list_runs(ledger, since=later),
        "describe": lambda: describe(ledger),
        "plan, one tick": planner(ledger, "hourly", START),
        "plan, nothing due": lambda: read_mark(ledger, "hourly"),
    }


def per_tick(ledger: Ledger) -> tuple[float, float]:
    """Plan a tick and claim it, again and again; return seconds and processor seconds of one.

    The median of five rounds. On a busy machine the second figure is the one to compare.
    """
    plan = planner(ledger, "fast", START)
    taken = []
    for _ in range(5):
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(TICKS // 5):
            plan()
            claim(ledger, "bench", now=START + 400 * 24 * HOUR, lease_seconds=60)
        ended = time.perf_counter() - started, time.process_time() - processor
        taken.append([value / (TICKS / 5) for value in ended])
    each, processor = (statistics.median(values) for values in zip(*taken, strict=True))
    return each, processor


def drain(ledger: Ledger) -> None:
    """End what the planning has left waiting."""
    now = START + 400 * 24 * HOUR
    while run := claim(ledger, "bench", now=now, lease_seconds=60):
        finish(ledger, run, RunState.OK, now=now)


def main() -> None:
    """Print the medians, and what the project promises."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_ledger(Path(folder) / "ledger.db")) as ledger,
    ):
        fill(ledger)
        seconds = medians(ways(ledger), rounds=21)
        drain(ledger)
        each, processor = per_tick(ledger)
    rows = [[name, f"{value * 1e3:.2f}"] for name, value in seconds.items()]
    show(f"A ledger of {RUNS:,} runs on SQLite, medians of 21", ["", "ms"], rows)
    slowest = max(value for name, value in seconds.items() if name != "describe") * 1e3
    show(
        "Promises",
        ["", "measured", "goal"],
        [
            ["slowest list or plan, ms", f"{slowest:.2f}", verdict(slowest, 50)],
            ["plan and claim one, ms", f"{each * 1e3:.2f}", verdict(each * 1e3, 5)],
            ["of it the processor, ms", f"{processor * 1e3:.2f}", ""],
            ["that is, a second", f"{1 / each:.0f}", "at least 200"],
        ],
    )


if __name__ == "__main__":
    main()
