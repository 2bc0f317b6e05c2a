"""The numbers of reports on totals, proved against a computation that shares no code with them."""

import csv
import gzip
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from tallybook.reports import run_report
from tallybook.types import RunState

pytestmark = pytest.mark.usefixtures("warm_kernels")

Sums = dict[str, tuple[Decimal, int]]


def added_up(sample: Path, month: int | None = None) -> tuple[Sums, int]:
    """Add the sample up with Python's csv and decimal; return totals, counts and missing."""
    totals: Sums = defaultdict(lambda: (Decimal(0), 0))
    missing = 0
    with gzip.open(sample, "rt", encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            if not record["amount"]:
                missing += 1
            elif month is None or month == local_month(record["timestamp"]):
                total, count = totals[record["category"]]
                totals[record["category"]] = (total + Decimal(record["amount"]), count + 1)
    return dict(totals), missing


def local_month(timestamp: str) -> int:
    """Return the month that the clocks of New York showed."""
    return datetime.fromisoformat(timestamp).astimezone(ZoneInfo("America/New_York")).month


def whole(sums: Sums) -> tuple[Decimal, int]:
    """Return the total and the count over all categories."""
    return sum((total for total, _ in sums.values()), Decimal(0)), sum(n for _, n in sums.values())


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

    def test_headline(self, sample: Path, tmp_path: Path):
        """A month is compared with the one before, whose rows are in no other number."""
        asked = {"since": "2013-06-01", "until": "2013-07-01"}
        result = run_report("category_totals", asked, runs_dir=tmp_path)
        assert result.state is RunState.OK, result.reason
        values = result.manifest["values"]
        assert Decimal(values["total_amount_before"]) == whole(added_up(sample, 5)[0])[0]
        found = Decimal(values["total_amount"]), values["transaction_count"]
        assert found == whole(added_up(sample, 6)[0])
        table = pl.read_parquet(result.folder / "tables" / "totals.parquet")
        assert table["transaction_count"].sum() == values["transaction_count"]


class TestPeriodComparison:
    def test_changes_equal_python_s_fractions(self, sample: Path, tmp_path: Path):
        """Totals, counts, and Bennet's split of each change, rounded to two places."""
        result = run_report("period_comparison", {}, runs_dir=tmp_path)
        assert result.state is RunState.OK, result.reason
        november, december = (added_up(sample, month)[0] for month in (11, 12))
        table = pl.read_parquet(result.folder / "tables" / "changes.parquet")
        assert set(table["category"]) == november.keys() | december.keys()
        for row in table.iter_rows(named=True):
            (t0, n0), (t1, n1) = (
                side.get(row["category"], (0, 0)) for side in (november, december)
            )
            assert (row["total_before"], row["count_before"]) == (t0, n0)
            assert (row["total_after"], row["count_after"]) == (t1, n1)
            split = (
                (n1 - n0) * (Fraction(t0) / n0 + Fraction(t1) / n1) / 2
                if n0 and n1
                else Fraction(t1 - t0)
            )
            assert abs(Fraction(row["from_count"]) - split) <= Fraction(1, 199)
            assert row["from_count"] + row["from_average"] == row["change"] == t1 - t0

        values = result.manifest["values"]
        parts = (Decimal(values[f"from_{part}"]) for part in ("count", "average", "came", "went"))
        change = whole(december)[0] - whole(november)[0]
        assert sum(parts) == Decimal(values["change"]) == change
        assert (values["came"], values["went"]) == (0, 1)
        assert (values["since"], values["base_since"]) == ("2013-12-01", "2013-11-01")
