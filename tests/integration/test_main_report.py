"""The main report's numbers, proved against a computation that shares no code with it."""

import csv
import gzip
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import polars as pl

from tallybook.reports import run_report
from tallybook.types import RunState


def added_up(sample: Path) -> tuple[dict[str, tuple[Decimal, int]], int]:
    """Add the sample up with Python's csv and decimal; return totals, counts and missing."""
    totals: dict[str, tuple[Decimal, int]] = defaultdict(lambda: (Decimal(0), 0))
    missing = 0
    with gzip.open(sample, "rt", encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            if not record["amount"]:
                missing += 1
                continue
            total, count = totals[record["category"]]
            totals[record["category"]] = (total + Decimal(record["amount"]), count + 1)
    return dict(totals), missing


class TestCategoryTotals:
    def test_totals_equal_python_s_decimals_to_the_last_digit(self, sample: Path, tmp_path: Path):
        """In the table, in the recorded values and in the account."""
        result = run_report("category_totals", {"top": 20}, runs_dir=tmp_path)
        assert result.state is RunState.OK, result.reason
        expected, missing = added_up(sample)

        table = pl.read_parquet(result.folder / "tables" / "totals.parquet")
        found = {
            row["category"]: (row["total_amount"], row["transaction_count"])
            for row in table.iter_rows(named=True)
        }
        assert found == expected

        values = result.manifest["values"]
        assert Decimal(values["total_amount"]) == sum(total for total, _ in expected.values())
        assert values["transaction_count"] == sum(count for _, count in expected.values())
        assert values["rows_rejected"] == missing

        [source] = result.manifest["inputs"]
        assert source["rows_read"] == source["rows_accepted"] + source["rows_rejected"]
        assert (source["rows_read"], source["rows_rejected"]) == (336_776, 9_430)
