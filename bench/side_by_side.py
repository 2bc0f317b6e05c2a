"""Measure several ways of doing something, taking turns, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Seconds = dict[str, float]


def medians(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> Seconds:
    """Run every way once per round, the first round not counted; return the median seconds."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            gc.collect()
            started = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


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
