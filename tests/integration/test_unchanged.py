"""A report whose inputs have not changed is not run again, and whatever has changed is named."""

import json
import os
from datetime import date
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook.explain import explanation_lines
from tallybook.key import KeyPart
from tallybook.reports import RunResult, explain_run, run_report
from tallybook.types import RunState

pytestmark = pytest.mark.usefixtures("warm_kernels")

RIDES = "timestamp,category,amount\n2013-02-09T10:00:00Z,tea,1.50\n"
PARAMETERS = (
    "from datetime import date\nfrom pathlib import Path\n"
    "since: date | None = None\nnotes: Path = Path('notes.txt')\ntop: int = 5"
)
CODE = (
    "from tallybook.publish import load, record",
    "rides = load('rides.csv', since=since, until='today+1d')",
    "record('rows', rides.accounts['rows_read'].sum())",
)
TODAY = date(2013, 3, 1)


def write_report(folder: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    cells = [
        new_markdown_cell("# Tea"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, sources),
    ]
    path = folder / "tea.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def prepare(place: Path) -> Path:
    """Write the report and its data."""
    (place / "rides.csv").write_text(RIDES)
    (place / "notes.txt").write_text("rain")
    return write_report(place, *CODE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A folder with a report that has been run once."""
    place = tmp_path_factory.mktemp("shop")
    result = run_report(prepare(place), {"since": "today-30d"}, **where(place))
    assert result.reason is None
    return place, result


def where(place: Path) -> dict:
    return {"runs_dir": place / "runs", "start_dir": place, "today": TODAY}


@pytest.fixture
def ask(shop):
    """Restore the folder, and return a function that asks why the report would run."""
    place, _ = shop
    prepare(place)

    def asked(given=None, **options) -> list[str]:
        settings = {**where(place), **options}
        return [
            f"{reason.part}: {reason.said}"
            for reason in explain_run(
                place / "tea.ipynb", {"since": "today-30d"} | (given or {}), **settings
            ).reasons
        ]

    return asked


class TestUnchanged:
    """Nothing runs, and the earlier page is the answer."""

    def test_asked_again(self, shop, ask) -> None:
        """The result is the earlier one and says so; nothing was added."""
        place, first = shop
        again = run_report(place / "tea.ipynb", {"since": "today-30d"}, **where(place))
        assert (again.unchanged, first.unchanged) == (True, False)
        assert (again.folder, again.state) == (first.folder, RunState.OK)
        assert again.reason is not None
        assert again.reason.startswith("nothing has changed since 20")
        assert len(list((place / "runs" / "tea").iterdir())) == 1

    def test_prose_and_dates_of_files_do_not_count(self, shop, ask) -> None:
        """Neither does the folder's place, as long as the same bytes are there."""
        place, _ = shop
        book = nbformat.read(place / "tea.ipynb", 4)
        book.cells[0].source = "# Tea\n\nMore prose."
        nbformat.write(book, place / "tea.ipynb")
        os.utime(place / "rides.csv", (0, 0))
        assert ask() == []

    def test_an_equal_day(self, ask) -> None:
        """The day itself or an expression that means it: the question is the same."""
        assert ask({"since": "2013-01-30"}) == []


class TestChanged:
    """Each part is named."""

    def test_parameter(self, ask) -> None:
        """With both values."""
        assert ask({"top": 6}) == ["parameters: parameter top was 5 and is 6"]

    def test_cell(self, shop, ask) -> None:
        """With its number, and the first line that differs."""
        write_report(shop[0], *CODE[:2], "record('rows', 1)")
        assert ask() == [
            "notebook: code cell 4, line 1: was "
            "`record('rows', rides.accounts['rows_read'].sum())`, is `record('rows', 1)`"
        ]

    def test_input_of_the_same_size_and_time(self, shop, ask) -> None:
        """The bytes count, not what the file system says."""
        path = shop[0] / "rides.csv"
        before = path.stat()
        path.write_text(RIDES.replace("1.50", "1.51"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        [said] = ask()
        assert said.startswith("inputs: rides.csv has changed (SHA-256 ")

    def test_file_named_by_a_parameter(self, shop, ask) -> None:
        """The notebook could read it without telling."""
        (shop[0] / "notes.txt").write_text("sun")
        [said] = ask()
        assert "notes.txt has changed" in said

    def test_input_that_is_gone(self, shop, ask) -> None:
        """It is said before the run fails on it."""
        (shop[0] / "rides.csv").unlink()
        assert ask() == ["inputs: rides.csv is not there any more"]

    def test_another_folder(self, shop, ask, tmp_path: Path) -> None:
        """A relative address means another file there."""
        (tmp_path / "rides.csv").write_text(RIDES + RIDES.splitlines()[1])
        assert any("rides.csv has changed" in said for said in ask(start_dir=tmp_path))

    def test_another_day(self, ask) -> None:
        """The parameter says which expression moved; the notebook's own days are said, too."""
        assert ask(today=date(2013, 3, 2)) == [
            "parameters: parameter since was '2013-01-30' and is '2013-01-31' (today-30d)",
            "days: today+1d was 2013-03-02 and is 2013-03-03",
        ]

    def test_package_and_module(self, ask, monkeypatch: pytest.MonkeyPatch) -> None:
        """By name, with both versions."""
        monkeypatch.setattr("tallybook.reports.installed_versions", lambda: {"polars": "9"})
        monkeypatch.setattr("tallybook.reports.module_digests", lambda code: {})
        said = ask()
        assert "modules: module tallybook.tally is gone" in said
        assert any(one.startswith("environment: polars was ") for one in said)

    def test_terminal(self, shop, ask) -> None:
        """What a person reads."""
        place, first = shop
        lines = explanation_lines(explain_run(place / "tea.ipynb", {"top": 6}, **where(place)))
        assert lines[0].startswith("tea would run. Compared with the run of 20")
        assert "  parameter top was 5 and is 6" in lines
        assert lines[-1] == f"That run is {first.folder}"


class TestRunning:
    """When it runs all the same."""

    def test_force(self, tmp_path: Path) -> None:
        """Asked for with force, there is a second bundle; a failed run never stands in."""
        report = write_report(tmp_path, "1 / top", parameters="top: int = 0")
        options = {"runs_dir": tmp_path / "runs"}
        failed = run_report(report, **options)
        assert failed.state is RunState.CELL_FAILED
        assert explain_run(report, **options).folder is None
        first = run_report(report, {"top": 1}, **options)
        assert not first.unchanged
        forced = run_report(report, {"top": 1}, force=True, **options)
        assert not forced.unchanged
        assert forced.folder != first.folder

    def test_a_notebook_that_was_edited_while_it_ran(self, tmp_path: Path) -> None:
        """The page was made by the code that ran, not by the code that stands there now."""
        edit = "from pathlib import Path\nplace = Path(report)\n"
        edit += "place.write_text(place.read_text().replace('one = 1', 'one = 2', 1))"
        report = write_report(tmp_path, "one = 1", edit, parameters="report: str = ''")
        result = run_report(report, {"report": str(report)}, runs_dir=tmp_path / "runs")
        assert result.state is RunState.OK
        found = explain_run(report, {"report": str(report)}, runs_dir=tmp_path / "runs")
        assert [reason.said for reason in found.reasons if reason.part is KeyPart.NOTEBOOK] == [
            "code cell 2, line 1: was `one = 1`, is `one = 2`",
        ]

    def test_the_key_names_no_path_of_this_machine(self, shop) -> None:
        """Sources are kept as they were typed."""
        place, first = shop
        assert first.folder is not None
        key = json.loads((first.folder / "manifest.json").read_text())["key"]
        assert "rides.csv" in [one["source"] for one in key["inputs"]]
        assert str(place) not in json.dumps({**key, "parameters": {}, "inputs": []})
