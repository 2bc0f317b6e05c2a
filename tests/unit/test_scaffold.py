"""A new report: a plain name, a notebook without findings, and nobody's work overwritten."""

import ast
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from tallybook import cli
from tallybook.errors import OutputError, ValidationError
from tallybook.lint import check_notebook
from tallybook.reports import find_report
from tallybook.scaffold import write_new_report


def run(*words):
    return CliRunner().invoke(cli.app, ["report", *map(str, words)])


class TestNotebook:
    def test_it_is_a_valid_short_notebook_without_findings(self, tmp_path: Path):
        """At most fifteen cells, formatted, no definition, no output."""
        path = write_new_report("late_deliveries", tmp_path / "a" / "b")
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert len(notebook.cells) <= 15
        assert notebook.cells[0].source.startswith("# Late deliveries\n")
        assert check_notebook(path) == []
        for cell in notebook.cells:
            if cell.cell_type == "code":
                ast.parse(cell.source)
                assert max(map(len, cell.source.splitlines())) <= 100

    def test_the_same_name_gives_the_same_bytes(self, tmp_path: Path):
        """Nothing random, nothing of this machine."""
        first = write_new_report("rides", tmp_path / "a").read_bytes()
        assert write_new_report("rides", tmp_path / "b").read_bytes() == first

    def test_work_is_not_overwritten(self, tmp_path: Path):
        """Unless somebody says so."""
        path = write_new_report("rides", tmp_path)
        path.write_text("somebody's work")
        with pytest.raises(ValidationError, match="--force"):
            write_new_report("rides", tmp_path)
        assert path.read_text() == "somebody's work"
        write_new_report("rides", tmp_path, replace=True)
        assert check_notebook(path) == []

    def test_a_folder_that_cannot_be(self, tmp_path: Path):
        """Is told like any other output."""
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot write"):
            write_new_report("rides", tmp_path / "file")


class TestName:
    @pytest.mark.parametrize(
        ("name", "instead"),
        [
            ("Rides", "rides"),
            ("late deliveries", "late_deliveries"),
            ("rides.ipynb", "rides"),
            ("../rides", "rides"),
            ("a/b", "a_b"),
            ("r" * 65, "r" * 64),
        ],
    )
    def test_another_is_suggested(self, tmp_path: Path, name: str, instead: str):
        """One that would do."""
        with pytest.raises(ValidationError, match=rf"Would '{instead}' do\?"):
            write_new_report(name, tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["", "7", "_", "日本", "rides\n7"])
    def test_or_none(self, tmp_path: Path, name: str):
        """Where nothing is left of it."""
        with pytest.raises(ValidationError, match="cannot be called"):
            write_new_report(name, tmp_path)


class TestCommands:
    def test_new_says_what_to_do_next(self, tmp_path: Path, monkeypatch):
        """Change, check, run."""
        monkeypatch.chdir(tmp_path)
        result = run("new", "rides")
        assert result.exit_code == 0, result.output
        assert "jupyter lab reports/rides.ipynb" in result.stdout
        for line in ("tallybook report check rides", "tallybook report run rides"):
            assert f"{line}\n" in result.stdout
        again = run("new", "rides")
        assert again.exit_code == 2
        assert "there is a report" in again.stderr
        assert run("new", "rides", "--force").exit_code == 0

    def test_a_new_report_is_known_by_its_name(self, tmp_path: Path, monkeypatch):
        """Beside those that come with Tallybook, wherever the setting says that one's own are."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TALLYBOOK_REPORTS_DIR", "ours")
        assert "ours/rides.ipynb" in run("new", "rides").stdout
        listed = run("list").stdout
        assert "\nrides " in listed
        assert "category_totals " in listed
        assert run("show", "rides").stdout.startswith("Rides\n")
        assert run("check", "rides").stdout == "rides: nothing to mend\n"
        assert "'rides'" in run("show", "ridse").stderr

    def test_a_report_in_another_folder_is_known_by_its_path(self, tmp_path: Path, monkeypatch):
        """What to do next works as it is written."""
        monkeypatch.chdir(tmp_path)
        result = run("new", "rides", "--folder", "work")
        assert "tallybook report run work/rides.ipynb\n" in result.stdout

    def test_ones_own_goes_before_one_that_comes_with_tallybook(self, tmp_path: Path, monkeypatch):
        """Whoever copies a report to change it gets the copy."""
        monkeypatch.chdir(tmp_path)
        run("new", "category_totals")
        assert find_report("category_totals").path == tmp_path / "reports" / "category_totals.ipynb"

    def test_a_file_that_is_no_notebook_hides_no_report(self, tmp_path: Path, monkeypatch):
        """It is listed with what is wrong with it."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / "broken.ipynb").write_text("{")
        listed = run("list")
        assert listed.exit_code == 0
        assert "reports/broken.ipynb: this is not a notebook of format 4" in listed.stdout
        assert "category_totals " in listed.stdout
        assert run("show", "broken").exit_code == 2

    def test_check_ends_with_two_for_errors_only(self, tmp_path: Path, monkeypatch):
        """A warning is not a failure."""
        monkeypatch.chdir(tmp_path)
        path = write_new_report("rides", Path())
        assert run("check", "rides.ipynb").stdout == "rides: nothing to mend\n"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].source = "no title"
        nbformat.write(notebook, path)
        result = run("check", ".", "rides.ipynb")
        assert result.exit_code == 0
        assert result.stdout.count("rides: ") == 1
        assert "rides: 1 warning\n" in result.stdout
        assert "[no-title]" in result.stdout
        notebook.cells[-1].source = "nothing_of_that_name"
        nbformat.write(notebook, path)
        result = run("check", "rides.ipynb")
        assert result.exit_code == 2
        assert "rides: 1 error, 1 warning" in result.stdout
        assert '"rule": "name-unknown"' in run("check", "--json", "rides.ipynb").stdout

    def test_without_names_all_reports_are_checked(self):
        """Those that come with Tallybook."""
        assert "category_totals: " in run("check").stdout

    def test_an_unknown_name(self):
        """Is a mistake of the user's."""
        assert run("check", "category_total").exit_code == 2
