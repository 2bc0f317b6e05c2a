"""Rejected rows and their days."""

from pathlib import Path

import polars as pl
import pytest

from tallybook import spool
from tallybook.errors import ValidationError
from tallybook.quality import (
    ABOVE,
    OWN,
    date_rejects,
    missing_days,
    rejects_by_period,
    sample_rejects,
    short_names,
    step_for,
)
from tallybook.transform import Tallied, tally_source
from tallybook.types import Period

HEAD = "timestamp,category,amount\n"
STALL = HEAD + (
    "never,tea,1\n"
    "2026-03-02T09:00:00Z,tea,1\n"
    "2026-03-02T23:30:00Z,,n/a\n"
    "never,tea,\n"
    "2026-03-06T09:00:00Z,tea,1\n"
)


def rejected(path: Path, **asked: object) -> tuple[Tallied, pl.DataFrame]:
    """Tally a source by day and return what it rejected."""
    file = path.parent / "rejects.parquet"
    tallied = tally_source(path, every=Period.DAY, rejects_path=file, **asked)
    return tallied, pl.read_parquet(file)


@pytest.fixture
def stall(tmp_path: Path) -> Path:
    """A file with five rows, three of which are wrong in five ways."""
    path = tmp_path / "stall.csv"
    path.write_text(STALL)
    return path


class TestDays:
    """A rejected row belongs to a day."""

    def test_own_above_or_none(self, stall: Path) -> None:
        """Its own timestamp, else that of the readable row above, else none; and which it was."""
        _, rejects = rejected(stall)
        dated = date_rejects(rejects, stall)
        first = dated.unique("row", maintain_order=True).select("row", "timestamp", "dated_by")
        texts = [(row, str(when)[:16], by) for row, when, by in first.rows()]
        assert texts == [
            (1, "None", None),
            (3, "2026-03-02 23:30", OWN),
            (4, "2026-03-02 23:30", ABOVE),
        ]

    def test_a_ragged_file_is_read_with_care(self, tmp_path: Path) -> None:
        """It seems regular: the row that is too long makes up for the one that is too short."""
        path = tmp_path / "ragged.csv"
        path.write_text(
            HEAD + "2026-03-01,tea,1\n2026-03-02,tea,2,3\n2026-03-03,tea\n2026-03-04,,4\n"
        )
        _, rejects = rejected(path)
        dated = date_rejects(rejects, path)
        assert [(row, str(when)[:10]) for row, when in dated.select("row", "timestamp").rows()] == [
            (2, "2026-03-01"),
            (3, "2026-03-01"),
            (4, "2026-03-04"),
        ]

    def test_a_row_too_short_far_down(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The scan comes to the end, and has found a row more than were counted."""
        path = tmp_path / "ragged.csv"
        path.write_text(HEAD + "2026-03-01,tea,1\n" * 5 + "2026-03-02\n2026-03-04,,4\n")
        monkeypatch.setattr(spool, "LONGEST", 64)
        monkeypatch.setattr(spool, "_PROBE", 16)
        _, rejects = rejected(path)
        dated = date_rejects(rejects, path)
        assert [(row, str(when)[:10]) for row, when in dated.select("row", "timestamp").rows()] == [
            (6, "2026-03-01"),
            (7, "2026-03-04"),
        ]

    def test_nothing_is_lost(self, stall: Path) -> None:
        """The same rows come back, in the same order."""
        _, rejects = rejected(stall)
        dated = date_rejects(rejects, stall)
        same = rejects.with_columns(pl.col("row").cast(pl.Int64))
        assert dated.select(same.columns).equals(same)

    def test_several_files(self, tmp_path: Path) -> None:
        """Rows of one file are not looked for in another one."""
        (tmp_path / "in").mkdir()
        for month in (3, 4):
            text = f"{HEAD}2026-0{month}-01T00:00:00Z,tea,\n2026-0{month}-02T00:00:00Z,tea,1\n"
            (tmp_path / "in" / f"{month}.csv").write_text(text)
        _, rejects = rejected(tmp_path / "in")
        dated = date_rejects(rejects, tmp_path / "in")
        assert dated["timestamp"].dt.month().to_list() == [3, 4]

    def test_plain_text(self, tmp_path: Path) -> None:
        """Lines of plain text have no time."""
        path = tmp_path / "items.txt"
        path.write_text("tea\n\n")
        rejects = pl.DataFrame({"source": [str(path)], "row": [2], "reason": ["missing"]})
        assert date_rejects(rejects, path)["timestamp"].to_list() == [None]

    def test_nothing_rejected(self, stall: Path) -> None:
        """Without a reject nothing is read, and the columns are there."""
        empty = pl.DataFrame(schema={"source": pl.String, "row": pl.Int64})
        assert date_rejects(empty, stall).columns == ["source", "row", "timestamp", "dated_by"]


class TestPeriods:
    """Faults over time."""

    def test_counts(self, stall: Path) -> None:
        """Each kind has a number for every period; rows without a time are left out."""
        tallied, rejects = rejected(stall)
        found = rejects_by_period(date_rejects(rejects, stall), tallied.partial, Period.DAY)
        kinds = found["category"].unique().to_list()
        assert found.height == 5 * len(kinds)
        by_kind = dict(found.group_by("category").agg(pl.col("total_amount").sum()).rows())
        assert by_kind == {
            "amount: missing": 1,
            "amount: not a number": 1,
            "category: missing": 1,
            "timestamp: not a timestamp": 1,
        }

    def test_clock(self, stall: Path) -> None:
        """Days begin at midnight where the tally's days begin."""
        tallied, rejects = rejected(stall, time_zone="Europe/Berlin")
        found = rejects_by_period(date_rejects(rejects, stall), tallied.partial, Period.DAY)
        late = found.filter(pl.col("total_amount") > 0)["period"].dt.day().unique().to_list()
        assert late == [3]

    def test_nothing(self, stall: Path) -> None:
        """Without a reject there is no kind, so no row."""
        tallied, rejects = rejected(stall)
        dated = date_rejects(rejects, stall).clear()
        assert rejects_by_period(dated, tallied.partial, Period.DAY).height == 0

    def test_needs_days(self, stall: Path) -> None:
        """A partial without periods is refused."""
        with pytest.raises(ValidationError, match="every='1d'"):
            rejects_by_period(pl.DataFrame(), tally_source(stall).partial, Period.DAY)

    @pytest.mark.parametrize(
        ("days", "step"), [(1, "1d"), (400, "1d"), (401, "1w"), (2801, "1mo"), (36500, "1y")]
    )
    def test_step(self, days: int, step: str) -> None:
        """The longer the time, the longer the step."""
        assert step_for(days) == Period(step)


class TestSamples:
    """A few of each kind."""

    def test_first_of_each(self, stall: Path) -> None:
        """At most so many of each kind, with how many there are."""
        _, rejects = rejected(stall)
        found = sample_rejects(date_rejects(rejects, stall), 1)
        assert found["fault"].is_unique().all()
        assert found["fault"][0] == "timestamp: not a timestamp"
        assert found["rows"][0] == 2


class TestHoles:
    """Days without a record."""

    def test_found(self, stall: Path) -> None:
        """Three days in a row are one hole."""
        tallied, _ = rejected(stall)
        rows = missing_days(tallied.partial).with_columns(pl.exclude("days").cast(pl.String)).rows()
        assert rows == [("2026-03-03", "2026-03-05", 3)]


class TestNames:
    """Files are named without what they share."""

    @pytest.mark.parametrize(
        ("names", "short"),
        [
            (["/in/a.csv"], ["asked"]),
            (["/in/a.csv", "/in/ab.csv"], ["a.csv", "ab.csv"]),
            (["/in/x/a.csv", "/in/y/a.csv"], ["x/a.csv", "y/a.csv"]),
            (["a.csv", "b.csv"], ["a.csv", "b.csv"]),
        ],
    )
    def test_short(self, names: list[str], short: list[str]) -> None:
        """A single one has the name that was asked for."""
        assert short_names(pl.Series(names), "asked").to_list() == short
