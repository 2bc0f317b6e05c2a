"""The command line of reports: a notebook's parameters are the options, all mistakes at once."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from tallybook import cli, reports
from tallybook.types import RunState

CELL = """
source: str = "sample"  # what is read
top: Annotated[int, Field(ge=1, le=30)] = 10  # how many to draw
since: date | None = None  # the first day
carriers: list[str] = []  # only these
exact: bool = False  # every digit
how: Literal["mean", "sum"] = "sum"  # what is shown
runs: int = 1  # a name that the command needs itself
name: str = "n"  # another one
time_zone: str = "UTC"  # the clock
"""


def write_report(name: str, cell: str) -> None:
    cells = [new_markdown_cell("# Rides\n\nWho rides."), new_code_cell(cell.strip())]
    cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells), name)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder with one report of its own."""
    monkeypatch.chdir(tmp_path)
    write_report("rides.ipynb", CELL)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What runs were asked for; none is carried out here (test_main_report does that)."""
    seen: list[dict[str, object]] = []

    def run_report(name, parameters, **options):
        seen.append(dict(parameters))
        return reports.RunResult(RunState.OK, None, None, {})

    monkeypatch.setattr(reports, "run_report", run_report)
    return seen


def run(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["report", *map(str, words)])


def mistakes(*words) -> list[str]:
    """Return the lines of the message that a run ends with."""
    result = run("run", "rides.ipynb", *words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return [line.strip() for line in result.stderr.splitlines()]


class TestOptions:
    @pytest.mark.parametrize(
        ("words", "values"),
        [
            ([], {}),
            (["--top", "5"], {"top": "5"}),
            (["--top=5", "--since", "yesterday"], {"top": "5", "since": "yesterday"}),
            (["-p", "top=5"], {"top": "5"}),
            (["-p", "source=a=b"], {"source": "a=b"}),
            (["--source="], {"source": ""}),
            (["--exact"], {"exact": "true"}),
            (["--exact", "--no-exact"], {"exact": "false"}),
            (["--carriers", "AA"], {"carriers": "AA"}),
            (["--carriers", "AA,UA", "--carriers", "DL"], {"carriers": ["AA", "UA", "DL"]}),
            (["-p", "carriers=AA", "--carriers", "DL"], {"carriers": ["AA", "DL"]}),
            (["--time-zone", "Asia/Tokyo"], {"time_zone": "Asia/Tokyo"}),
            (["--time_zone=Asia/Tokyo"], {"time_zone": "Asia/Tokyo"}),
            (["-p", "runs=3", "-p", "time_zone=UTC"], {"runs": "3", "time_zone": "UTC"}),
            (["--name", "x"], {"name": "x"}),
        ],
        ids=str,
    )
    def test_each_way_to_give_a_value(self, asked, words, values):
        """What it means is the parameters cell's to say."""
        result = run("run", "rides.ipynb", *words)
        assert result.exit_code == 0, result.output
        assert asked == [values]

    @pytest.mark.parametrize(
        "words",
        [
            ["--top", "5", "rides.ipynb"],
            ["-v", "--source", "x", "rides.ipynb", "--top", "5"],
            ["--runs", "elsewhere", "-p", "top=5", "rides.ipynb"],
        ],
        ids=str,
    )
    def test_the_name_may_come_later(self, asked, words):
        """It is the first word that can be one."""
        result = run("run", *words)
        assert result.exit_code == 0, result.output
        assert asked[0]["top"] == "5"

    def test_a_parameter_called_no_something(self, asked):
        """Takes its option from a flag that would be denied with it."""
        write_report("no.ipynb", "cache: bool = True\nno_cache: int = 1")
        assert run("run", "no.ipynb", "--no-cache", "3", "--cache").exit_code == 0
        assert asked == [{"no_cache": "3", "cache": "true"}]


class TestHelp:
    def test_the_parameters_are_options(self):
        """Name, type, comment, bounds, choices, default."""
        text = " ".join(run("run", "rides.ipynb", "--help").stdout.split())
        for line in (
            "Parameters of rides:",
            "--top INT how many to draw [int; at least 1; at most 30; default: 10]",
            "--since DATE the first day [date | None; default: none]",
            "--how CHOICE what is shown ['mean' | 'sum'; one of mean, sum; default: sum]",
            "only these [list[str]; give it again for more; default: empty]",
            "--exact / --no-exact",
        ):
            assert line in text
        assert text.count("--runs") == 1

    def test_without_a_name(self):
        """Says how to see the parameters."""
        result = run("run", "--help")
        assert result.exit_code == 0
        assert "tallybook report run NAME --help lists them" in " ".join(result.stdout.split())
        assert "Parameters of" not in result.stdout

    def test_a_required_parameter(self):
        """Is called that."""
        write_report("needy.ipynb", "city: str  # where")
        assert "--city TEXT  where [str; required]" in run("run", "needy.ipynb", "--help").stdout
        result = run("run", "needy.ipynb")
        assert result.exit_code == 2
        assert "--city: a value is needed" in result.stderr

    def test_a_report_without_parameters(self, asked):
        """Has the fixed options only."""
        nbformat.write(new_notebook(cells=[new_code_cell("1")]), "bare.ipynb")
        assert "Parameters of" not in run("run", "bare.ipynb", "--help").stdout
        assert run("run", "bare.ipynb").exit_code == 0

    @pytest.mark.parametrize("words", [["--help"], ["--top", "5"]])
    def test_an_unknown_report(self, words):
        """Is told, with the nearest name."""
        result = run("run", "category_total", *words)
        assert result.exit_code == 2
        assert "Did you mean 'category_totals'?" in result.stderr

    def test_a_cell_that_cannot_be_read(self):
        """Is told by line."""
        write_report("bad.ipynb", "x = 1\ny = input()")
        result = run("run", "bad.ipynb", "--help")
        assert result.exit_code == 2
        assert "line 2: the default `input()`" in result.stderr


class TestMistakes:
    def test_all_are_told_at_once(self, asked):
        """In the spelling in which each would be given, with the nearest name, and nothing runs."""
        lines = mistakes(
            *("--tpo", "5", "--top=99", "--since", "soon", "stray", "--no-exat", "-p", "top2"),
            *("-p", "tpo=1", "-p", "=3", "--how", "summ", "-x", "-p", "a b=1"),
        )
        assert lines[0] == "error: rides: 11 options are wrong"
        assert "--tpo: there is no such option. Did you mean '--top'?" in lines
        assert "--top: input should be less than or equal to 30; got '99'." in lines
        assert "--since: not a day: 'soon' (a day is 2013-02-09, or today-7d)." in lines
        assert "'stray': this word belongs to no option" in lines
        assert "--no-exat: there is no such option. Did you mean '--no-exact'?" in lines
        assert "-p top2: a parameter is given as key=value" in lines
        assert "-p =3: a parameter is given as key=value" in lines
        assert "-p tpo: there is no such parameter. Did you mean 'top'?" in lines
        assert "--how: input should be 'mean' or 'sum'; got 'summ'. Did you mean 'sum'?" in lines
        assert "-x: there is no such option." in lines
        assert any(line.startswith("-p 'a b': there is no such parameter") for line in lines)
        assert lines[-1] == "Its options are listed by: tallybook report run rides.ipynb --help"
        assert asked == []

    def test_one_value_given_twice(self, asked):
        """The last would win silently otherwise."""
        assert mistakes("--top", "5", "-p", "top=6")[1] == (
            "--top: one value is wanted, not 2: ['6', '5']"
        )

    def test_a_near_name_of_the_command_s_own(self, asked):
        """Is suggested too."""
        assert "Did you mean '--runs'?" in mistakes("--rnus", "x")[1]

    def test_a_secret_is_not_repeated(self, asked):
        """Given by itself instead of by its name, it is refused and not shown."""
        write_report("rides.ipynb", 'token: Secret = "secret:SALES"')
        said = "\n".join(mistakes("--token", "hunter2"))
        assert "--token: a secret is given by its name" in said
        assert "hunter2" not in said

    @pytest.mark.parametrize("words", [["--top"], ["-p"]])
    def test_a_missing_value(self, words):
        """Is a mistake like any other."""
        assert "requires an argument" in mistakes(*words)[-1]


class TestShow:
    def test_the_same_table_as_help(self):
        """Under the title and the description."""
        result = run("show", "rides.ipynb")
        assert result.stdout.startswith("Rides\nWho rides.\n")
        assert "how many to draw [int; at least 1; at most 30; default: 10]" in result.stdout

    def test_the_schema_for_programs(self):
        """As JSON, and nothing else."""
        schema = json.loads(run("show", "rides.ipynb", "--schema").stdout)
        assert schema["properties"]["top"]["maximum"] == 30
        assert schema["additionalProperties"] is False

    def test_the_list(self):
        """The reports that come with Tallybook."""
        said = " ".join(run("list").stdout.split())
        assert "category_totals What every category adds up to" in said


class TestEnding:
    def test_values_and_the_page_are_said(self, monkeypatch, tmp_path):
        """And a run that ends badly ends the command with the state's exit code."""
        ended = reports.RunResult(
            RunState.GATE_FAILED, "check failed: rows", tmp_path, {"values": {"total": "3"}}
        )
        monkeypatch.setattr(reports, "run_report", lambda *args, **options: ended)
        result = run("run", "rides.ipynb")
        assert result.exit_code == 3
        assert "total: 3" in result.stdout
        assert "page: " in result.stdout
        assert "rides.ipynb ended as gate_failed: check failed: rows" in result.stderr
