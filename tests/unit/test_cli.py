"""The command line: words in, files and sentences out."""

import json
import logging
from decimal import Decimal
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tallybook import __version__, cli, core
from tallybook.types import Period

RIDES = """when,what,paid
2026-03-01,tea,2.10
2026-03-02,cake,x
2026-04-01,tea,0.90
"""
COLUMNS = ["--timestamp", "when", "--category", "what", "--amount", "paid"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder with one file of rides."""
    monkeypatch.chdir(tmp_path)
    Path("rides.csv").write_text(RIDES)
    return tmp_path


def run(*words):
    """Run a command; what it says is told apart from how it ends."""
    return CliRunner().invoke(cli.app, [*map(str, words)])


class TestProcess:
    def test_totals_rejects_and_an_account(self):
        """The whole of the main job in one command."""
        result = run("process", "-i", "rides.csv", "-o", "totals.csv", *COLUMNS)
        assert result.exit_code == 0, result.output
        assert "3 rows read = 2 accepted + 1 rejected" in result.stdout
        assert "paid: 1 not a number (first: row 2, 'x')" in result.stdout
        assert Path("totals.csv").read_text().splitlines() == [
            "category,total_amount,avg_amount,transaction_count",
            "tea,3,1.5,2",
        ]
        assert Path("totals.rejects.csv").read_text().splitlines()[1:] == [
            "rides.csv,2,paid,x,not a number"
        ]

    def test_dates_periods_and_rejects_file(self):
        """Each option does what its help says."""
        words = ["--since", "2026-03-01", "--until", "2026-04-01", "--every", "1mo"]
        result = run(
            *("process", "-i", "rides.csv", "-o", "t.parquet", "--rejects", "bad.parquet"),
            *COLUMNS,
            *words,
        )
        assert result.exit_code == 0, result.output
        totals = pl.read_parquet("t.parquet")
        assert totals.columns[0] == "period"
        assert totals["total_amount"].to_list() == [Decimal("2.1")]
        assert "1 of the accepted are outside the dates" in result.stdout
        assert pl.read_parquet("bad.parquet")["value"].to_list() == ["x"]
        assert not Path("t.rejects.csv").exists()

    def test_the_time_zone_moves_days(self):
        """Local midnight is where a local day begins."""
        Path("late.csv").write_text("timestamp,category,amount\n2026-03-31T23:00Z,a,1\n")
        words = ["process", "-i", "late.csv", "-o", "t.csv", "--every", "1mo"]
        assert run(*words, "--time-zone", "Europe/Berlin").exit_code == 0
        assert "2026-04-01" in Path("t.csv").read_text()

    def test_plain_text_is_counted(self):
        """One item a line."""
        Path("items.txt").write_text("a\nb\na\n")
        assert run("process", "-i", "items.txt", "-o", "counts.csv").exit_code == 0
        assert Path("counts.csv").read_text() == "category,transaction_count\na,2\nb,1\n"

    def test_labels_are_looked_up_in_batches(self, monkeypatch: pytest.MonkeyPatch):
        """As many at a time as the option, else the file, says."""
        batches = []

        def lookup(batch):
            batches.append(len(batch))
            return [label.upper() for label in batch]

        monkeypatch.setattr(core, "external_service", lookup)
        Path("labels.txt").write_text("a\nb\na\nc\na\n")
        Path("config.json").write_text('{"batch_size": 2}')
        words = ["process", "-i", "labels.txt", "-o", "t.json", "--lookup", "-c", "config.json"]
        assert run(*words).exit_code == 0
        assert batches == [2, 2, 1]
        counts = {
            row["category"]: row["transaction_count"]
            for row in json.loads(Path("t.json").read_text())
        }
        assert counts == {"A": 3, "B": 1, "C": 1}
        assert run(*words, "-b", "5").exit_code == 0
        assert batches[3:] == [5]

    def test_the_progress_adds_up(self):
        """Batches are small, the bar wants the sum."""
        seen = []
        tell = cli._adding_up(lambda done, total: seen.append((done, total)))
        tell(2)
        tell(3)
        assert seen == [(2, None), (5, None)]


SCHEMA = 'timestamp = "when"\ncategory = "what"\namount = "paid"\n'


class TestSources:
    def test_many_files_are_one_source(self):
        """A glob adds up, and each reject names its own file."""
        Path("rides2.csv").write_text(RIDES)
        result = run("process", "-i", "rides*.csv", "-o", "t.csv", *COLUMNS)
        assert "6 rows read = 4 accepted + 2 rejected" in result.stdout, result.output
        assert "rides2.csv,2,paid" in Path("t.rejects.csv").read_text()

    def test_what_is_declared_about_a_file_is_used(self):
        """A delimiter that no header gives away, and an old encoding."""
        Path("old.txt").write_bytes(
            "timestamp;category;amount\n2026-01-01;Café;5\n".encode("cp1252")
        )
        words = ["--format", "csv", "--encoding", "cp1252", "--delimiter", ";"]
        assert run("process", "-i", "old.txt", "-o", "t.csv", *words).exit_code == 0
        assert "Café,5" in Path("t.csv").read_text()


class TestSchemaAndRejects:
    def test_a_schema_file_names_the_columns_and_options_win(self):
        """What is said on the command line is said last."""
        Path("rides.toml").write_text(SCHEMA.replace("paid", "no such column"))
        words = ["process", "-i", "rides.csv", "-o", "t.csv", "--schema", "rides.toml"]
        assert run(*words).exit_code == 2
        assert run(*words, "--amount", "paid").exit_code == 0

    def test_statistics_add_columns(self):
        """Standard deviation and quantiles, beside the totals."""
        words = ["process", "-i", "rides.csv", "-o", "t.parquet", *COLUMNS, "--statistics"]
        assert run(*words).exit_code == 0
        assert {"std_amount", "p50_amount"} <= set(pl.read_parquet("t.parquet").columns)

    def test_corrected_rejects_are_replayed(self):
        """The totals move by exactly that row, and no reject is left."""
        words = ["process", "-i", "rides.csv", "-o", "t.csv", *COLUMNS]
        assert run(*words).exit_code == 0
        rejects = Path("t.rejects.csv")
        rejects.write_text(rejects.read_text().replace(",x,", ",4.00,"))
        result = run(*words, "--replay", rejects)
        assert "3 rows read = 3 accepted + 0 rejected" in result.stdout, result.output
        assert "cake,4,4.0,1" in Path("t.csv").read_text()
        assert not rejects.exists()

    def test_too_many_rejects_write_nothing(self, folder: Path):
        """Exit code 3: a data check said no."""
        before = set(folder.iterdir())
        words = ["process", "-i", "rides.csv", "-o", "t.csv", *COLUMNS]
        result = run(*words, "--max-rejects", "0")
        assert result.exit_code == 3
        assert "1 of 3 rows were rejected, and 0 are allowed" in result.stderr
        assert set(folder.iterdir()) == before
        assert run(*words, "--max-rejects", "50%").exit_code == 0

    def test_check_says_what_would_happen_and_writes_nothing(self, folder: Path):
        """The same account, no file."""
        before = set(folder.iterdir())
        result = run("check", "-i", "rides.csv", *COLUMNS)
        assert result.exit_code == 0
        assert "3 rows read = 2 accepted + 1 rejected" in result.stdout
        assert run("check", "-i", "rides.csv", *COLUMNS, "--max-rejects", "0").exit_code == 3
        assert set(folder.iterdir()) == before

    def test_an_inferred_schema_can_be_used_as_it_is(self):
        """Redirected into a file."""
        Path("shop.csv").write_text("day;shop;price\n03.04.2026;a;€ 1.234,50\n25.04.2026;a;€ 7\n")
        result = run("schema", "infer", "shop.csv")
        assert result.exit_code == 0
        Path("shop.toml").write_text(result.stdout)
        assert (
            run("process", "-i", "shop.csv", "-o", "t.csv", "--schema", "shop.toml").exit_code == 0
        )
        assert "a,1241.5," in Path("t.csv").read_text()

    def test_measurements_are_said_to_be_measurements(self):
        """A float total is not an exact one."""
        frame = pl.DataFrame({"timestamp": ["2026-01-01"], "category": "a", "amount": [0.5]})
        frame.write_parquet("m.parquet")
        assert "measurements (Float64)" in run("check", "-i", "m.parquet").stdout


MISTAKES = {
    "missing schema": (["-i", "rides.csv", "--schema", "no.toml"], "cannot read no.toml", 2),
    "missing rejects": (["-i", "rides.csv", "--replay", "no.csv"], "cannot read corrections", 2),
    "no limit": (["-i", "items.txt", "--max-rejects", "few"], "such as 2%", 2),
    "missing file": (["-i", "ride.csv"], "Did you mean 'rides.csv'", 2),
    "empty folder": (["-i", "folder"], "folder", 2),
    "no such encoding": (["-i", "rides.csv", "--encoding", "utf-9"], "--encoding: no encoding", 2),
    "no such format": (["-i", "rides.csv", "--format", "docx"], "--format: Input should be", 2),
    "empty file": (["-i", "empty.csv"], "the file is empty", 2),
    "header only": (["-i", "header.csv"], "it holds no records", 2),
    "unknown suffix": (["-i", "rides.xml"], "Known are .csv", 2),
    "missing column": (["-i", "rides.csv", "--amount", "payd"], "Did you mean 'paid'", 2),
    "one column twice": (["-i", "rides.csv", "--amount", "timestamp"], "three different", 2),
    "nothing accepted": (
        ["-i", "rides.csv", *COLUMNS[:4], "--amount", "what"],
        "three different columns",
        2,
    ),
    "no number": (["-i", "words.csv"], "not one of 1 rows was accepted", 3),
    "config missing": (["-i", "rides.csv", "-c", "no.json"], "cannot read no.json", 2),
    "config broken": (["-i", "rides.csv", "-c", "broken.json"], "broken.json is not JSON", 2),
    "config no object": (["-i", "rides.csv", "-c", "list.json"], "should hold a JSON object", 2),
    "config wrong": (["-i", "rides.csv", "-c", "wrong.json"], "batch_size: Input should be", 2),
    "batch too large": (["-i", "rides.csv", "-b", "2000"], "should not exceed 1000", 2),
    "batch size 0": (["-i", "rides.csv", "-b", "0"], "--batch-size", 2),
    "retries": (["-i", "rides.csv", "-r", "11"], "--max-retries", 2),
    "no date": (["-i", "rides.csv", "--since", "soon"], "--since", 2),
    "no period": (["-i", "rides.csv", "--every", "fortnight"], "--every", 2),
    "no zone": (["-i", "rides.csv", "--time-zone", "Europe/Berlim"], "Europe/Berlin", 2),
    "lookup of a table": (["-i", "rides.csv", "--lookup"], "plain text", 2),
    "lookup unconfigured": (["-i", "items.txt", "--lookup"], "api_endpoint", 2),
    "text has no dates": (["-i", "items.txt", "--every", "1d"], "no timestamps", 2),
    "rejects suffix": (["-i", "rides.csv", "--rejects", "r.xls"], "suffix must be", 1),
}


class TestMistakes:
    @pytest.mark.parametrize("name", MISTAKES)
    def test_each_is_one_message_an_exit_code_and_no_file(self, folder: Path, name: str):
        """An older output stays as it was."""
        Path("empty.csv").touch()
        Path("folder").mkdir()
        Path("header.csv").write_text("timestamp,category,amount\n")
        Path("words.csv").write_text("timestamp,category,amount\n2026-01-01,a,b\n")
        Path("rides.xml").write_text("<rides/>")
        Path("items.txt").write_text("a\n")
        Path("broken.json").write_text("{")
        Path("list.json").write_text("[1]")
        Path("wrong.json").write_text('{"batch_size": -1}')
        Path("old.csv").write_text("old")
        before = set(folder.iterdir())
        words, message, code = MISTAKES[name]
        for output in ("old.csv", "new.parquet"):
            result = run("process", *words, "-o", output)
            assert result.exit_code == code, result.output
            assert message in " ".join(result.stderr.replace("│", " ").split())
            assert "Traceback" not in result.output
        assert set(folder.iterdir()) == before
        assert Path("old.csv").read_text() == "old"

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("totals.xls", "suffix must be"),
            (".", "suffix must be"),
            ("no/t.csv", "there is no folder"),
        ],
    )
    def test_an_output_that_cannot_be_is_known_before_the_work(self, output, message):
        """Not after an hour."""
        result = run("process", "-i", "rides.csv", "-o", output, *COLUMNS)
        assert result.exit_code == 1
        assert message in result.stderr

    def test_markup_in_names_is_only_text(self):
        """A file may be called [red]."""
        result = run("process", "-i", "[red]x[/].csv", "-o", "t.csv")
        assert "[red]x[/].csv" in result.stderr


class TestHelp:
    def commands(self, command=None, path=()):
        command = command or get_command(cli.app)
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from self.commands(child, (*path, name))

    def test_every_command_shows_an_example(self):
        """One that can be pasted."""
        for path, command in self.commands():
            result = run(*path, "--help")
            assert result.exit_code == 0
            if not hasattr(command, "commands"):
                text = " ".join(result.stdout.split())
                assert f"Example: tallybook {' '.join(path)}" in text

    def test_every_option_has_a_help_text(self):
        """An option without one is a riddle."""
        for path, command in self.commands():
            for parameter in command.params:
                assert getattr(parameter, "help", "x") or parameter.name == "name", (
                    path,
                    parameter,
                )

    def test_the_periods_are_those_of_the_types(self):
        """They are written out here so that help needs no heavy import."""
        literal = get_args(get_args(cli.Every)[0])[0]
        assert list(get_args(literal)) == [period.value for period in Period]

    def test_the_version_is_the_package_s(self):
        """`tallybook --version`."""
        assert run("--version").stdout == f"tallybook {__version__}\n"


class TestLogging:
    @pytest.mark.parametrize(
        ("setting", "words", "level"),
        [
            ("", [], "WARNING"),
            ("", ["-v"], "INFO"),
            ("debug", [], "DEBUG"),
            ("debug", ["-v"], "DEBUG"),
            ("error", [], "ERROR"),
            ("error", ["-v"], "INFO"),
        ],
    )
    def test_the_setting_is_honoured(self, monkeypatch, setting, words, level):
        """Its default, INFO, means warnings until somebody asks for more."""
        monkeypatch.setenv("TALLYBOOK_LOG_LEVEL", setting)
        result = run("process", "-i", "rides.csv", "-o", "t.csv", *COLUMNS, *words)
        assert result.exit_code == 0, result.output
        assert logging.getLevelName(logging.getLogger("tallybook").level) == level

    def test_wrong_settings_are_a_mistake_like_any_other(self):
        """One message, exit code 2, no output."""
        Path("settings.ini").write_text("[tallybook]\nlog_level = loud\n")
        result = run("process", "-i", "rides.csv", "-o", "t.csv", *COLUMNS)
        assert result.exit_code == 2
        assert "log_level: should be 'DEBUG'" in result.stderr
        assert not Path("t.csv").exists()
