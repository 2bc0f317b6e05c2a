"""What exact totals with rejects cost, next to Polars alone and to plain Python."""

from __future__ import annotations

import csv
import gzip
import sys
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import polars as pl

from side_by_side import medians, show
from tallybook.config import resource_path
from tallybook.transform import tally_source

REPEATS = 10
Totals = dict[str, Decimal]


def repeat_sample(path: Path) -> int:
    """Write the sample ten times over as plain CSV; return the number of rows."""
    head, _, body = gzip.decompress(resource_path("data", "flights.csv.gz").read_bytes()).partition(
        b"\n"
    )
    path.write_bytes(head + b"\n" + body * REPEATS)
    return body.count(b"\n") * REPEATS


def with_tallybook(path: Path) -> Totals:
    """Exact totals; every row converted by the schema, counted, and accepted or explained."""
    totals = tally_source(path).totals
    return dict(totals.select("category", "total_amount").iter_rows())


def with_polars(path: Path) -> dict[str, float]:
    """Polars alone: types given, missing amounts skipped without a word, floating-point totals."""
    types = {"timestamp": pl.String, "category": pl.String, "amount": pl.Float64}
    totals = pl.scan_csv(path, schema=types).group_by("category").agg(pl.col("amount").sum())
    return dict(totals.collect().iter_rows())


def with_python(path: Path) -> Totals:
    """The csv and decimal modules: exact, and what the tests compare with."""
    totals: Totals = defaultdict(Decimal)
    with path.open(newline="", encoding="utf-8") as lines:
        for record in csv.DictReader(lines):
            if record["amount"]:
                totals[record["category"]] += Decimal(record["amount"])
    return totals


def main() -> None:
    """Print the medians as a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flights.csv"
        rows = repeat_sample(path)
        if with_tallybook(path) != with_python(path):
            sys.exit("the totals are not those of the csv and decimal modules")
        seconds = medians(
            {
                "Polars, floats, no rejects": lambda: with_polars(path),
                "Tallybook, exact, with account and rejects": lambda: with_tallybook(path),
            },
            rounds=3,
        )
        seconds |= medians({"Python, csv and decimal": lambda: with_python(path)}, rounds=1)
    polars = next(iter(seconds.values()))
    show(
        f"Totals of {rows:,} rows of CSV by category, medians",
        ["way", "seconds", "million rows/s", "ratio"],
        [
            [name, f"{value:.2f}", f"{rows / value / 1e6:.1f}", f"{value / polars:.2f}"]
            for name, value in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
