"""The bundled sample is what data/README.md says, and its script makes it again."""

import csv
import gzip
import hashlib
import runpy
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "flights.csv.gz"
TEXT_SHA256 = "7812cbfe19031f09d48dc0c5780dfdf18993bec7f3eaf86164e933f13c2c080b"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Every row of the sample, as text, read without Polars."""
    with gzip.open(SAMPLE, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


class TestSample:
    def test_counts(self, rows):
        """All departures are there, with the arrivals that never happened."""
        assert len(rows) == 336_776
        assert sum(row["amount"] == "" for row in rows) == 9_430
        assert len({row["category"] for row in rows}) == 16

    def test_columns(self, rows):
        """The columns are the record's own names, so that no mapping is needed."""
        assert list(rows[0]) == ["timestamp", "category", "amount"]

    def test_first_row_is_the_known_flight(self, rows):
        """UA1545, scheduled at 5:15 New York winter time, is in the 10:00Z hour."""
        assert rows[0] == {
            "timestamp": "2013-01-01T10:00:00Z",
            "category": "United Air Lines Inc.",
            "amount": "11",
        }

    def test_every_time_is_a_whole_utc_hour(self, rows):
        """From the first scheduled hour of 2013 in New York to the last, nothing outside."""
        times = {datetime.fromisoformat(row["timestamp"]) for row in rows}
        assert all(time.tzinfo == UTC and time.minute == time.second == 0 for time in times)
        assert min(times) == datetime(2013, 1, 1, 10, tzinfo=UTC)
        assert max(times) == datetime(2014, 1, 1, 4, tzinfo=UTC)

    def test_amounts_are_whole_minutes(self, rows):
        """What is not missing is an integer, and the totals are the published ones."""
        minutes = [int(row["amount"]) for row in rows if row["amount"]]
        assert (min(minutes), max(minutes)) == (-86, 1272)
        assert sum(minutes) == 2_257_174
        assert Counter(row["category"] for row in rows)["JetBlue Airways"] == 54_635


class TestFile:
    def test_is_small_and_carries_no_name_or_time(self):
        """It stays under 4 MB; a gzip header with flags or a time would change from run to run."""
        packed = SAMPLE.read_bytes()
        assert len(packed) <= 4_000_000
        assert packed[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"

    def test_digest(self):
        """Reports are compared across years: the text must never change unnoticed."""
        assert hashlib.sha256(gzip.decompress(SAMPLE.read_bytes())).hexdigest() == TEXT_SHA256

    def test_script_makes_the_same_bytes(self, tmp_path, capsys):
        """Anyone can make the sample again from the public package."""
        script = runpy.run_path(str(ROOT / "tools" / "make_sample.py"))
        script["main"](tmp_path / "again.csv.gz")
        assert "336,776 rows, 9,430 without an amount" in capsys.readouterr().out
        assert (tmp_path / "again.csv.gz").read_bytes() == SAMPLE.read_bytes()
