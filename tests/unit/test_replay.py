"""Repairing rejects: the totals move by exactly the rows that were repaired."""

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import GateError, ValidationError
from tallybook.replay import read_corrections
from tallybook.transform import rejects_allowed, tally_source

HEADER = "timestamp,category,amount\n"


def write(folder: Path, rows) -> Path:
    path = folder / "in.csv"
    path.write_text(HEADER + "".join(f"{','.join(row)}\n" for row in rows))
    return path


class TestReplay:
    @given(
        st.lists(st.sampled_from(["1.50", "n/a", ""]), min_size=2, max_size=12),
        st.sets(st.integers(1, 12)),
        st.sampled_from(["csv", "parquet"]),
    )
    def test_exactly_the_repaired_rows_move(self, tmp_path_factory, amounts, repaired, suffix):
        """The others stay rejected, for their old reasons."""
        folder = tmp_path_factory.mktemp("replay")
        source = write(
            folder, [("2026-01-01", "a", "1"), *(("2026-01-01", "a", x) for x in amounts)]
        )
        rejects = folder / f"rejects.{suffix}"
        before = tally_source(source, rejects_path=rejects)
        if not rejects.exists():
            return
        read = pl.read_csv if suffix == "csv" else pl.read_parquet
        found = read(rejects, **({"infer_schema": False} if suffix == "csv" else {}))
        mended = found.with_columns(
            value=pl.when(pl.col("row").cast(pl.Int64).is_in(sorted(repaired)))
            .then(pl.lit("100"))
            .otherwise("value")
        )
        getattr(mended, f"write_{suffix}")(rejects)
        after = tally_source(source, corrections=read_corrections(rejects))
        moved = len(repaired & set(found["row"].cast(pl.Int64)))
        gained = after.totals["total_amount"].sum() - before.totals["total_amount"].sum()
        assert gained == 100 * moved
        rejected = before.accounts["rows_rejected"].item() - moved
        assert after.accounts["rows_rejected"].item() == rejected

    def test_a_typed_column_takes_a_typed_correction(self, tmp_path: Path):
        """Text becomes what the column holds, or is refused."""
        frame = pl.DataFrame(
            {"timestamp": ["2026-01-01"] * 2, "category": "a", "amount": [1, None]}
        )
        frame.write_parquet(tmp_path / "in.parquet")
        rejects = tmp_path / "r.parquet"
        tally_source(tmp_path / "in.parquet", rejects_path=rejects)
        found = pl.read_parquet(rejects)
        corrections = found.with_columns(value=pl.lit("41"))
        after = tally_source(tmp_path / "in.parquet", corrections=corrections)
        assert after.totals["total_amount"].item() == 42
        with pytest.raises(ValidationError, match="not of its type, Int64"):
            tally_source(
                tmp_path / "in.parquet", corrections=found.with_columns(value=pl.lit("many"))
            )

    def test_text_that_was_escaped_for_spreadsheets_comes_back_as_it_was(self, tmp_path: Path):
        """What nobody corrected is rejected again, letter for letter."""
        source = write(tmp_path, [("2026-01-01", "a", "1"), ("2026-01-01", "a", "=1+1")])
        rejects = tmp_path / "r.csv"
        before = tally_source(source, rejects_path=rejects)
        assert "'=1+1" in rejects.read_text()
        after = tally_source(source, corrections=read_corrections(rejects))
        assert after.reasons.equals(before.reasons)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"source": "other.csv"}, "belong to no row"),
            ({"row": 99}, "belong to no row"),
            ({"row": 0}, "belong to no row"),
            ({"column": "amuont"}, "the column 'amuont', which"),
        ],
    )
    def test_a_correction_that_fits_nothing_is_an_error(self, tmp_path: Path, change, message):
        """It would be lost without a word."""
        source = write(tmp_path, [("2026-01-01", "a", "1"), ("2026-01-01", "a", "x")])
        cell = {"source": str(source), "row": 2, "column": "amount", "value": "1"} | change
        with pytest.raises(ValidationError, match=message):
            tally_source(source, corrections=pl.DataFrame([cell]))


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "cannot read corrections"),
            ("a,b\n1,2\n", "with the columns source, row, column, value"),
            ("source,row,column,value\nx,one,a,1\n", "cannot read corrections"),
            ("source,row,column,value\nx,1,a,1\nx,1,a,2\n", "corrects a in row 1 of x twice"),
        ],
    )
    def test_what_is_no_file_of_rejects_is_refused(self, tmp_path: Path, content, message):
        """With what it should be."""
        path = tmp_path / "r.csv"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValidationError, match=message):
            read_corrections(path)

    def test_the_same_correction_twice_is_one(self, tmp_path: Path):
        """And a record that could not be split has no cell to correct."""
        path = tmp_path / "r.csv"
        path.write_text("source,row,column,value\nx,1,a,1\nx,1,a,1\nx,2,,{half\n")
        assert read_corrections(path).rows() == [("x", 1, "a", "1")]


class TestLimits:
    @pytest.mark.parametrize(
        ("limit", "rows", "allowed"),
        [("0", 10, 0), ("3", 10, 3), ("5%", 99, 4), ("0.1 %", 1000, 1), ("100%", 7, 7)],
    )
    def test_a_limit_is_rows_or_a_share(self, limit, rows, allowed):
        """A share is rounded down: 5 % of 99 rows is four."""
        assert rejects_allowed(limit, rows) == allowed

    @pytest.mark.parametrize("limit", ["", "-1", "1.5", "few", "5 % of them", "%"])
    def test_anything_else_is_refused(self, limit):
        """With an example of what is meant."""
        with pytest.raises(ValidationError, match="such as 2%"):
            rejects_allowed(limit, 10)

    def test_above_the_limit_nothing_is_written(self, tmp_path: Path):
        """And the message says what was wrong with the rows."""
        source = write(tmp_path, [("2026-01-01", "a", x) for x in ("1", "x", "y")])
        rejects = tmp_path / "r.csv"
        with pytest.raises(
            GateError, match="2 of 3 rows were rejected, and 1 are allowed"
        ) as caught:
            tally_source(source, max_rejects="1", rejects_path=rejects)
        assert "amount: 2 not a number" in str(caught.value)
        assert not rejects.exists()
        tallied = tally_source(source, max_rejects="67%", rejects_path=rejects)
        assert tallied.totals["total_amount"].item() == Decimal(1)
