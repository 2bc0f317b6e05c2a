"""Catching up: every period once, none hidden, and the rest when it is asked again."""

import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook.backfill import Backfill, backfill, kept_numbers, periods_between
from tallybook.errors import ParameterError, ValidationError
from tallybook.types import Period, RunState

LENGTHS = [Period.DAY, Period.WEEK, Period.MONTH, Period.QUARTER, Period.YEAR]
DAYS = "from datetime import date\nsince: date\nuntil: date"


def write_report(folder: Path, *sources: str, parameters: str = DAYS) -> Path:
    """Write a notebook with days as its parameters."""
    cells = [
        new_markdown_cell("# Days <b>of</b> the month"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, sources),
    ]
    path = folder / "days.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


class TestPeriods:
    """They lie one after another, and leave no day out."""

    @given(
        start=st.dates(date(1990, 1, 1), date(2040, 1, 1)),
        length=st.integers(1, 900),
        every=st.sampled_from(LENGTHS),
    )
    def test_cover_every_day_once(self, start: date, length: int, every: Period) -> None:
        """The first begins at the start, each at the end of the one before, the last ends it."""
        end = start + timedelta(days=length)
        periods = periods_between(start, end, every)
        assert periods[0][0] == start
        assert periods[-1][1] == end
        assert all(since < until for since, until in periods)
        assert all(before[1] == after[0] for before, after in pairwise(periods))

    def test_hours_are_refused(self) -> None:
        """A report cannot be told an hour."""
        with pytest.raises(ValidationError, match="days, weeks, months"):
            periods_between(date(2013, 1, 1), date(2013, 1, 2), Period.HOUR)

    def test_nothing_between(self) -> None:
        """An end before the start is a mistake."""
        with pytest.raises(ValidationError, match="there is no day"):
            periods_between(date(2013, 1, 2), date(2013, 1, 2), Period.DAY)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's bundles are."""
    return tmp_path_factory.mktemp("backfill")


@pytest.fixture(scope="module")
def first(place: Path) -> Backfill:
    """Four days, of which the third fails."""
    report = write_report(
        place,
        "from tallybook.publish import gate, publish, record\nday = date.fromisoformat(since).day",
        "record('day', day)\nrecord('name', since)\ngate(day != 3, 'not <b>the</b> third')",
        "import altair as alt, polars as pl\nframe = pl.DataFrame({'category': ['a'], 'n': [day]})",
        "publish(alt.Chart(frame).mark_bar().encode(x='n', y='category'), 'bars')",
    )
    steps: list[tuple[int, int, str]] = []
    found = backfill(
        report,
        "2013-02-01",
        date(2013, 2, 5),
        "1d",
        runs_dir=place / "runs",
        workers=2,
        on_progress=lambda *step: steps.append(step),
    )
    assert [step[:2] for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return found


class TestBackfill:
    """One run for each period, and one page."""

    def test_every_period_is_told(self, first: Backfill) -> None:
        """In order, whatever ended first; one failure does not stop the others."""
        states = [each.result.state.value for each in first.periods]
        assert states == ["ok", "ok", "gate_failed", "ok"]
        assert [each.label for each in first.periods] == [f"{n} February 2013" for n in range(1, 5)]
        assert first.exit_code == RunState.GATE_FAILED.exit_code
        assert kept_numbers(first) == {"day": [1.0, 2.0, None, 4.0]}

    def test_page(self, first: Backfill) -> None:
        """It shows the gap, links to every page beside it, and escapes."""
        text = first.page.read_text()
        assert "not &lt;b&gt;the&lt;/b&gt; third" in text
        assert text.count('class="tile is-gap"') == 1
        for each in first.periods:
            assert each.result.folder is not None
            link = f"{each.result.folder.name}/report.html"
            assert f'href="{link}"' in text
            assert (first.page.parent / link).exists()
        assert text.count('<img src="data:image/svg+xml') >= 3

    def test_goes_on_where_it_was(self, first: Backfill, place: Path) -> None:
        """Only what failed or is new is run; a longer stretch keeps what is there."""
        again = backfill(
            place / "days.ipynb", "2013-02-01", "2013-02-06", "1d", runs_dir=place / "runs"
        )
        kept = [each.result.unchanged for each in again.periods]
        assert kept == [True, True, False, True, False]
        folders = [each.result.folder for each in first.periods]
        assert [each.result.folder for each in again.periods][:2] == folders[:2]
        assert again.page != first.page


class TestStopping:
    """Ctrl-C leaves what is done, and says what is not."""

    PROGRAM = """
import json, sys
from pathlib import Path
from tallybook.backfill import backfill

def tell(done, total, what):
    print(done, flush=True)

found = backfill(sys.argv[1], "2013-02-01", "2013-02-05", "1d",
                 runs_dir=Path(sys.argv[2]), workers=1, on_progress=tell)
states = [each.result.state.value for each in found.periods]
print(json.dumps([states, found.page.exists(), found.exit_code]))
"""

    def test_interrupted(self, tmp_path: Path) -> None:
        """The second day never ends; the first is kept, the others are cancelled."""
        report = write_report(tmp_path, "while since != '2013-02-01': pass")
        command = [sys.executable, "-c", self.PROGRAM, str(report), str(tmp_path / "runs")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            os.kill(process.pid, signal.SIGINT)
            told, _ = process.communicate(timeout=120)
        assert json.loads(told) == [["ok", "cancelled", "cancelled", "cancelled"], True, 130]
        assert list((tmp_path / "runs").rglob("*.partial")) == []


class TestAsking:
    """What is wrong is said before anything runs."""

    def test_report_without_days(self, tmp_path: Path) -> None:
        """A report that cannot be told the day is named, with what it has."""
        report = write_report(tmp_path, "1", parameters="sinc: str = ''")
        with pytest.raises(ParameterError, match=r"has no parameter 'since'.*'sinc'"):
            backfill(report, "2013-01-01", "2013-01-02", "1d", runs_dir=tmp_path)

    @pytest.mark.parametrize(
        ("start", "every", "workers", "message"),
        [
            ("2013-01-32", "1d", 1, "2013-01-32"),
            ("2013-01-01", "daily", 1, "is not a period"),
            ("2013-01-01", "1d", -1, "at least 1 worker"),
        ],
    )
    def test_nonsense(
        self, tmp_path: Path, start: str, every: str, workers: int, message: str
    ) -> None:
        """Days, periods and numbers that are none."""
        report = write_report(tmp_path, "1")
        with pytest.raises(ValidationError, match=message):
            backfill(report, start, "2013-03-01", every, runs_dir=tmp_path, workers=workers)

    def test_wrong_parameter(self, tmp_path: Path) -> None:
        """An unknown parameter is refused as in a single run."""
        report = write_report(tmp_path, "1")
        with pytest.raises(ParameterError):
            backfill(report, "2013-01-01", "2013-01-02", "1d", {"tpo": 1}, runs_dir=tmp_path)
