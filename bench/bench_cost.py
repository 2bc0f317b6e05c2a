"""What validation costs: the same totals with and without it, on a CSV file of 750 MB."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl

from side_by_side import Cost, costs, show, verdict
from tallybook.config import resource_path
from tallybook.transform import tally_source

REPEATS = 52
ROUNDS = 3
UNVALIDATED = "Polars, converted, not validated"
TALLYBOOK = "Tallybook, account and rejects"
MOST_MIB = 700
DUCKDB = """
SELECT category, sum(amount), count(*), min(amount), max(amount)
FROM read_csv($path, header = true,
    columns = {'timestamp': 'VARCHAR', 'category': 'VARCHAR', 'amount': 'DECIMAL(38, 9)'})
GROUP BY category
"""
# The peak of this program alone: getrusage would begin with that of the process it was forked from.
MEASURE = """
import re, sys
from pathlib import Path
from tallybook.transform import tally_source
tally_source(sys.argv[1])
print(int(re.search(r"VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def repeat_sample(path: Path, times: int) -> int:
    """Write the bundled sample many times over as plain CSV; return the number of rows."""
    sample = gzip.decompress(resource_path("data", "flights.csv.gz").read_bytes())
    head, _, body = sample.partition(b"\n")
    with path.open("wb") as file:
        file.write(head + b"\n")
        for _ in range(times):
            file.write(body)
    return body.count(b"\n") * times


def _aggregates() -> dict[str, pl.Expr]:
    amount = pl.col("amount")
    return {
        "total": amount.sum(),
        "count": pl.len(),
        "low": amount.min(),
        "high": amount.max(),
    }


def _conversions() -> tuple[pl.Expr, pl.Expr]:
    """Convert times and amounts as they come: what does not fit is null, and nobody is told."""
    time = pl.col("timestamp").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", strict=False, time_unit="us", time_zone="UTC"
    )
    return time, pl.col("amount").cast(pl.Decimal(38, 9), strict=False)


def converted(path: Path) -> pl.LazyFrame:
    """Return the records, converted."""
    return pl.scan_csv(path, infer_schema=False).with_columns(*_conversions())


def _with_latest() -> dict[str, pl.Expr]:
    """Return what is asked for, and the latest time, so that times are converted."""
    return _aggregates() | {"latest": pl.col("timestamp").max()}


def unvalidated(path: Path) -> pl.DataFrame:
    """The same without validation."""
    query = converted(path).group_by("category").agg(**_with_latest())
    return query.collect(engine="streaming")


def nulls_aside(path: Path, folder: Path) -> list[pl.DataFrame]:
    """The same, but rows in which anything is null go to a file: rejects without any proof."""
    rows = pl.scan_csv(path, infer_schema=False, row_index_name="row")
    found = rows.with_columns(pl.struct(pl.all()).alias("found")).with_columns(*_conversions())
    fine = pl.all_horizontal(pl.col("timestamp", "category", "amount").is_not_null())
    totals = found.filter(fine).group_by("category").agg(**_with_latest())
    rejects = found.filter(~fine).select("found").unnest("found")
    written = rejects.sink_parquet(folder / "nulls.parquet", lazy=True)
    return pl.collect_all([totals, written], engine="streaming")


def pruned(path: Path) -> pl.DataFrame:
    """The same, but nobody asks for times, and Polars does not even read them."""
    return converted(path).group_by("category").agg(**_aggregates()).collect(engine="streaming")


def floats(path: Path) -> pl.DataFrame:
    """Plain Polars: types given, floating-point totals."""
    types = {"timestamp": pl.String, "category": pl.String, "amount": pl.Float64}
    return pl.scan_csv(path, schema=types).group_by("category").agg(**_aggregates()).collect()


def with_duckdb(path: Path) -> list[tuple[object, ...]]:
    """DuckDB: decimals, as many threads as there are processors."""
    with duckdb.connect() as connection:
        return connection.execute(DUCKDB, {"path": str(path)}).fetchall()


def peak_mib(path: Path) -> int:
    """Return the largest memory of a process of its own that tallies a file."""
    told = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True
    )
    return int(told.stdout)


def ways(path: Path) -> dict[str, Callable[[], object]]:
    """Return what is compared, by the name that it has in the table."""
    return {
        UNVALIDATED: lambda: unvalidated(path),
        "Polars, rows with nulls set aside": lambda: nulls_aside(path, path.parent),
        "Polars, times never read": lambda: pruned(path),
        "Polars, floats": lambda: floats(path),
        "DuckDB, decimals": lambda: with_duckdb(path),
        TALLYBOOK: lambda: tally_source(path),
    }


def check_totals(path: Path) -> None:
    """Stop unless the totals of the accepted rows are those of the unvalidated query."""
    mine = dict(tally_source(path).totals.select("category", "total_amount").iter_rows())
    if mine != dict(pruned(path).select("category", "total").iter_rows()):
        sys.exit("the totals differ")


def show_costs(taken: dict[str, Cost], rows: int) -> None:
    """Print what each way costs, also as multiples of the first."""
    base = next(iter(taken.values()))
    show(
        f"Totals of {rows:,} rows of CSV by category, medians of {ROUNDS} runs",
        ["way", "seconds", "ratio", "CPU seconds", "ratio"],
        [
            [
                name,
                f"{cost.seconds:.2f}",
                f"{cost.seconds / base.seconds:.2f}",
                f"{cost.processor:.2f}",
                f"{cost.processor / base.processor:.2f}",
            ]
            for name, cost in taken.items()
        ],
    )


def main() -> None:
    """Print the costs, the memory, and whether the goals are met."""
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.csv"
        rows = repeat_sample(large, REPEATS)
        check_totals(large)
        taken = costs(ways(large), rounds=ROUNDS)
        peak = peak_mib(large)
        repeat_sample(large, 4 * REPEATS)
        wide = peak_mib(large)
    show_costs(taken, rows)
    ratio = taken[TALLYBOOK].seconds / taken[UNVALIDATED].seconds
    show(
        "Promises",
        ["", "measured", "goal"],
        [
            ["validation / the same query without", f"{ratio:.2f}", verdict(ratio, 1.25)],
            ["peak memory, MiB", str(peak), verdict(peak, MOST_MIB)],
            [
                "peak memory of a file four times as large / that",
                f"{wide / peak:.2f}",
                verdict(wide / peak, 1.2),
            ],
        ],
    )


if __name__ == "__main__":
    main()
