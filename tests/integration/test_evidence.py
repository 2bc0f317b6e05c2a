"""The evidence in a real report, in its bundle and away from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallybook.evidence import FileState, check_text, verification_lines, verify_file
from tallybook.reports import run_report

pytestmark = pytest.mark.usefixtures("warm_kernels")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main report on the sample."""
    folder = run_report("category_totals", runs_dir=tmp_path_factory.mktemp("runs")).folder
    assert folder
    return folder


class TestRealReport:
    """The main report."""

    def test_intact(self, bundle: Path, tmp_path: Path) -> None:
        """It is intact in its bundle, with every chart and table tied to its files; and alone."""
        found = verify_file(bundle / "report.html")
        assert found.ok, verification_lines(found)
        assert (found.beside, found.unshown) == ((), ())
        assert found.manifest["run_id"] == bundle.name
        alone = verify_file(shutil.copy(bundle / "report.html", tmp_path))
        assert alone.ok
        assert alone.beside is None

    def test_any_byte(self, bundle: Path) -> None:
        """One bit of one byte, anywhere in the megabyte, is noticed."""
        page = (bundle / "report.html").read_bytes()

        @settings(max_examples=40)
        @given(st.integers(0, len(page) - 1), st.integers(0, 7))
        def flip(place: int, bit: int) -> None:
            changed = page[:place] + bytes([page[place] ^ 1 << bit]) + page[place + 1 :]
            state, findings = check_text(changed.decode("utf-8", "surrogateescape"))
            assert state is not FileState.INTACT
            assert findings or state is not FileState.ALTERED

        flip()

    def test_a_number(self, bundle: Path, tmp_path: Path) -> None:
        """A number in the table of totals is named by row and column."""
        total = f"{int(pl.read_parquet(bundle / 'tables' / 'totals.parquet')['total_amount'][1]):,}"
        text = (bundle / "report.html").read_text("utf-8")
        assert f">{total}<" in text
        (tmp_path / "report.html").write_text(text.replace(f">{total}<", ">1<"), "utf-8")
        [finding] = verify_file(tmp_path / "report.html").findings
        assert finding.kind == "table"
        assert finding.detail == "row 'JetBlue Airways', column 'Total amount' now reads '1'"

    def test_a_chart(self, bundle: Path, tmp_path: Path) -> None:
        """A chart whose data was changed is named by what it shows."""
        text = (bundle / "report.html").read_text("utf-8")
        place = text.index('"datasets"', text.index('<figure class="chart"'))
        place = text.index('"value":', place) + len('"value":')
        (tmp_path / "report.html").write_text(f"{text[:place]}9{text[place:]}", "utf-8")
        [finding] = verify_file(tmp_path / "report.html").findings
        assert finding.kind == "chart"
        assert finding.name.startswith("Line chart of the arrival delay")
        assert finding.detail == "its data or form"
