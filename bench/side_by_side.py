"""Measure several ways of doing something, taking turns, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Seconds = dict[str, float]


class Cost(NamedTuple):
    """How long something takes: on the clock, and of the processors' time."""

    seconds: float
    processor: float


def costs(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Cost]:
    """Run every way once per round, the first round not counted; return the medians."""
    taken: dict[str, list[Cost]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            gc.collect()
            started, busy = time.perf_counter(), time.process_time()
            way()
            if turn:
                cost = Cost(time.perf_counter() - started, time.process_time() - busy)
                taken[name].append(cost)
    medians = {
        name: map(statistics.median, zip(*all_, strict=True)) for name, all_ in taken.items()
    }
    return {name: Cost(*both) for name, both in medians.items()}


def medians(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> Seconds:
    """Return the median seconds on the clock of every way (see `costs`)."""
    return {name: cost.seconds for name, cost in costs(ways, rounds=rounds).items()}


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    print(f"\n{title}")
    for row in (heads, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells))


def verdict(value: float, goal: float) -> str:
    """Say whether a measured value stays under its goal."""
    return f"under {goal:g}: {'yes' if value < goal else 'NO'}"
