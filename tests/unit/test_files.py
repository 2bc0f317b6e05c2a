"""Files appear whole or not at all."""

import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import OutputError
from tallybook.files import (
    check_output,
    escape_formulae,
    replacing,
    sha256_file,
    unescape_formulae,
    write_frame,
)


class TestReplacing:
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path: Path):
        """Whatever the error is."""
        target = tmp_path / "totals.csv"
        target.write_text("old")
        with pytest.raises(ZeroDivisionError), replacing(target) as beside:
            beside.write_text(f"half {1 / 0}" if beside.write_text("half") else "")
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]

    def test_the_name_beside_keeps_its_suffixes(self, tmp_path: Path):
        """Writers choose their format by it."""
        with replacing(tmp_path / "a.csv.gz") as beside:
            assert beside.name.endswith(".csv.gz")
            beside.write_text("x")
        assert (tmp_path / "a.csv.gz").read_text() == "x"

    @pytest.mark.parametrize("name", ["missing/totals.csv", "file/totals.csv"])
    def test_a_folder_that_is_not_there_is_one_clear_error(self, tmp_path: Path, name: str):
        """Also when a file stands in its place."""
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / name) as beside:
            beside.write_text("x")

    def test_a_folder_is_not_replaced(self, tmp_path: Path):
        """It may hold somebody's work."""
        with pytest.raises(OutputError, match="it is a folder"), replacing(tmp_path):
            pass

    def test_a_full_disk_is_said_to_be_full(self, tmp_path: Path):
        """`/dev/full` refuses every byte, as a full disk does."""
        with pytest.raises(OutputError, match="no space left"), replacing(tmp_path / "totals.csv"):
            Path("/dev/full").write_text("x")


class TestChecks:
    def test_what_cannot_be_written_is_known_before_the_work(self, tmp_path: Path):
        """Suffix, folder of that name, missing folder."""
        (tmp_path / "folder.csv").mkdir()
        for name, why in [
            ("totals.xls", "suffix must be one of .csv"),
            ("folder.csv", "it is a folder"),
            ("nowhere/totals.csv", "there is no folder"),
        ]:
            with pytest.raises(OutputError, match=why):
                check_output(tmp_path / name, (".csv",))
        check_output(tmp_path / "totals.CSV", (".csv",))


class TestFrames:
    @pytest.mark.parametrize("value", ["0.1", "-3", "100", "1234567890123456789.000000001", "0"])
    def test_decimals_keep_their_digits_in_text(self, tmp_path: Path, value: str):
        """Without the zeros that only fill the scale, and never through a float."""
        amount = pl.Series([Decimal(value)], dtype=pl.Decimal(38, 9))
        frame = pl.LazyFrame({"total": amount, "note": ["1.500"]})
        write_frame(frame, tmp_path / "t.csv")
        write_frame(frame, tmp_path / "t.json")
        write_frame(frame, tmp_path / "t.parquet")
        assert (tmp_path / "t.csv").read_text() == f"total,note\n{value},1.500\n"
        assert json.loads((tmp_path / "t.json").read_text()) == [{"total": value, "note": "1.500"}]
        assert pl.read_parquet(tmp_path / "t.parquet")["total"].item() == Decimal(value)

    def test_the_fingerprint_is_sha_256(self, tmp_path: Path):
        """Of the bytes, known from the standard's own example."""
        (tmp_path / "abc").write_bytes(b"abc")
        assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


class TestFormulae:
    @given(st.text(alphabet="'=+-@\t\r\n1a", max_size=6))
    def test_escaping_is_undone_exactly(self, text: str):
        """And nothing that is escaped begins like a formula."""
        escaped = pl.select(escape_formulae(pl.lit(text))).item()
        assert escaped[:1] not in tuple("=+-@\t\r\n")
        assert pl.select(unescape_formulae(pl.lit(escaped))).item() == text

    def test_only_text_in_csv_is_escaped(self, tmp_path: Path):
        """Numbers stay numbers, null stays null; Parquet and JSON keep the original."""
        frame = pl.LazyFrame(
            {
                "text": ["=1+1", None],
                "whole": [-1, 2],
                "real": [-0.5, 1.5],
                "exact": pl.Series(["-1.50", "2"]).cast(pl.Decimal(38, 9)),
            }
        )
        for suffix in ("csv", "json", "parquet"):
            write_frame(frame, tmp_path / f"a.{suffix}")
        assert (
            tmp_path / "a.csv"
        ).read_text() == "text,whole,real,exact\n'=1+1,-1,-0.5,-1.5\n,2,1.5,2\n"
        assert json.loads((tmp_path / "a.json").read_text())[0]["text"] == "=1+1"
        assert pl.read_parquet(tmp_path / "a.parquet")["text"].to_list() == ["=1+1", None]
