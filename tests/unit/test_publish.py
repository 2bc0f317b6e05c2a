"""The verbs of a report notebook: what they show, what they note, what they refuse."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import altair as alt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook import publish as module
from tallybook.errors import GateError, OutputError, SourceError, ValidationError
from tallybook.files import sha256_file
from tallybook.journal import read_journal
from tallybook.publish import (
    SkippedError,
    gate,
    load,
    load_with_rejects,
    publish,
    record,
    skip,
    table_html,
)
from tallybook.types import Period

RIDES = """timestamp,category,amount
2013-02-08T10:00:00Z,tea,1.50
2013-02-09T10:00:00Z,tea,2.25
2013-02-09T11:00:00Z,cake,n/a
"""
FRAME = pl.DataFrame({"category": ["<b>", "b"], "total": [Decimal("1.50"), Decimal("-2.25")]})
CHART = (
    alt.Chart(
        pl.DataFrame({"x": [1, 2]}), title="Two bars", description="The second is twice the first."
    )
    .mark_bar()
    .encode(x="x:Q")
)

Shown = list[dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend to be in a run, and return its work folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("TALLYBOOK_RUN_DIR", str(folder))
    return folder


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Pretend to be in a notebook, and return what it displays."""
    displayed: Shown = []
    shell = SimpleNamespace(display_pub=SimpleNamespace(publish=displayed.append))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    return displayed


@pytest.fixture
def rides(tmp_path: Path) -> Path:
    """Return a small file with a row that is wrong."""
    path = tmp_path / "rides.csv"
    path.write_text(RIDES)
    return path


class TestRecord:
    """Values are kept exactly or not at all."""

    @pytest.mark.parametrize(
        ("value", "kept"),
        [
            (1, 1),
            (0.1, 0.1),
            (None, None),
            (True, True),
            (Decimal("1E+2"), "100"),
            (Decimal("0.10"), "0.10"),
            (date(2013, 2, 9), "2013-02-09"),
            (datetime(2013, 2, 9, tzinfo=UTC), "2013-02-09T00:00:00+00:00"),
            (Period.DAY, "1d"),
            ({"a": [Decimal(1), (2,)]}, {"a": ["1", [2]]}),
        ],
    )
    def test_kept(self, run: Path, value: object, kept: object) -> None:
        """The journal holds JSON of the same value."""
        record("value", value)
        assert read_journal(run) == [{"kind": "value", "name": "value", "value": kept}]

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), Decimal("NaN"), object(), b"x", {1}]
    )
    def test_refused(self, run: Path, value: object) -> None:
        """What JSON cannot hold exactly is an error, and is not noted."""
        with pytest.raises(ValidationError, match="cannot be recorded"):
            record("value", [value])
        assert read_journal(run) == []

    @given(st.decimals(allow_nan=False, allow_infinity=False))
    def test_decimals_to_the_last_digit(self, value: Decimal) -> None:
        """No digit is lost on the way through text."""
        assert Decimal(str(module._plain(value))) == value

    def test_shows_by_hand(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Outside a run it only shows, again and again."""
        record("rows", 1)
        record("rows", 2)
        assert capsys.readouterr().out == "rows = 1\nrows = 2\n"


class TestNames:
    """A name is plain, and in a run it is taken once."""

    @pytest.mark.parametrize(
        "name", ["", "A", "1a", "a-b", "a/b", "../a", "a" * 65, "ä", "a\n", None]
    )
    def test_refused(self, name: Any) -> None:
        """What could leave a folder or break an anchor is refused, by hand too."""
        with pytest.raises(ValidationError, match="cannot be used"):
            record(name, 1)
        with pytest.raises(ValidationError, match="cannot be used"):
            publish(FRAME, name)

    def test_twice(self, run: Path) -> None:
        """Charts and tables share their names; values have their own."""
        publish(FRAME, "totals")
        record("totals", 1)
        for again in (lambda: publish(CHART, "totals"), lambda: record("totals", 2)):
            with pytest.raises(ValidationError, match="used twice"):
                again()
        assert [note["kind"] for note in read_journal(run)] == ["table", "value"]


class TestGate:
    """A check is true or false, and noted either way."""

    def test_noted_either_way(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A failed check is in the journal before the error is raised."""
        gate(True, "first")
        with pytest.raises(GateError, match="check failed: second") as caught:
            gate(False, "second")
        assert caught.value.exit_code == 3
        assert [(note["message"], note["passed"]) for note in read_journal(run)] == [
            ("first", True),
            ("second", False),
        ]
        assert capsys.readouterr().out == "Check passed: first\n"

    def test_a_single_value_of_a_frame(self) -> None:
        """A series of one truth value is one."""
        with pytest.raises(GateError):
            gate((FRAME["total"] > 0).all(), "all are positive")
        gate(pl.Series([True]), "a series of one")

    @pytest.mark.parametrize(
        "condition", [None, 1, "yes", [], pl.Series([1]), pl.Series([True] * 2), pl.lit(True)]
    )
    def test_what_only_looks_true(self, condition: Any) -> None:
        """Anything else is an error, not a passed check."""
        with pytest.raises(ValidationError, match="needs True or False"):
            gate(condition, "something holds")


class TestSkip:
    """A report can end on purpose."""

    def test_skip(self, run: Path) -> None:
        """It raises, with its reason noted, and shows one line in a notebook."""
        with pytest.raises(SkippedError, match="a holiday") as caught:
            skip("a holiday")
        assert caught.value.exit_code == 0
        assert caught.value._render_traceback_() == ["Skipped: a holiday"]
        assert read_journal(run) == [{"kind": "skip", "reason": "a holiday"}]


class TestLoad:
    """Loading says what was read and what became of it."""

    def test_notes(self, run: Path, rides: Path) -> None:
        """Address, digest, size, the account and the reasons are in the journal."""
        load(rides)
        account, reason = read_journal(run)
        assert account == {
            "kind": "input",
            "source": str(rides),
            "rows_read": 3,
            "rows_accepted": 2,
            "rows_rejected": 1,
            "rows_outside": 0,
            "sha256": sha256_file(rides),
            "bytes": len(RIDES),
        }
        assert (reason["column"], reason["rows"], reason["first_row"]) == ("amount", 1, 3)
        assert reason["first_source"] == str(rides)

    def test_sentence(self, rides: Path, shown: Shown) -> None:
        """It is shown as text and as HTML; a hostile file name stays text."""
        hostile = rides.rename(rides.with_name("<b>.csv"))
        load(hostile, since="2013-02-09")
        assert shown[0]["text/plain"] == (
            f"{hostile}: 3 rows read = 2 accepted + 1 rejected; "
            "of the accepted, 1 outside the dates asked for"
        )
        assert "<b>" not in shown[0]["text/html"]

    def test_text_from_a_run(self, rides: Path) -> None:
        """Days and periods may be text, as papermill injects them, or objects."""
        as_text = load(rides, every="1d", since="2013-02-08", until="2013-02-09").totals
        as_objects = load(
            rides, every=Period.DAY, since=date(2013, 2, 8), until=date(2013, 2, 9)
        ).totals
        assert as_text.equals(as_objects)
        assert as_text["transaction_count"].to_list() == [1]

    @pytest.mark.parametrize(
        "wrong", [{"every": "1 day"}, {"since": "2013-02-30"}, {"until": "soon"}]
    )
    def test_wrong_text(self, rides: Path, wrong: dict[str, str]) -> None:
        """What is no day and no period is refused."""
        with pytest.raises(ValidationError, match="not a"):
            load(rides, **wrong)  # type: ignore[arg-type]

    def test_relative_address(
        self, run: Path, rides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a run it starts from where the run was asked for, and is noted as it was given."""
        monkeypatch.setenv("TALLYBOOK_RUN_START_DIR", str(rides.parent))
        monkeypatch.chdir(run)
        load("rides.csv")
        assert read_journal(run)[0]["source"] == "rides.csv"

    def test_file_that_changes(self, rides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A digest of something else than what was read would be a lie."""

        def tally_and_touch(source: Path, **_options: object) -> SimpleNamespace:
            source.write_text(RIDES + "2013-02-10T10:00:00Z,tea,1\n")
            return SimpleNamespace()

        monkeypatch.setattr(module, "tally_source", tally_and_touch)
        with pytest.raises(SourceError, match="changed while it was read"):
            load(rides)

    def test_missing(self, tmp_path: Path) -> None:
        """A missing file is the source's error, by name."""
        with pytest.raises(SourceError, match=r"nowhere\.csv"):
            load(tmp_path / "nowhere.csv")


class TestLoadWithRejects:
    """Loading, and reading again for what was rejected."""

    def test_rows_and_notes(self, run: Path, rides: Path) -> None:
        """The same is noted as by `load`; the rejected row comes with its reason and its day."""
        tallied, rejects = load_with_rejects(rides)
        assert [note["kind"] for note in read_journal(run)] == ["input", "reason"]
        assert tallied.accounts["source"].to_list() == [str(rides)]
        row = rejects.row(0, named=True)
        assert (row["source"], row["row"], row["value"]) == (str(rides), 3, "n/a")
        assert row["timestamp"] == datetime(2013, 2, 9, 11, tzinfo=UTC)

    def test_nothing_rejected(self, rides: Path) -> None:
        """Without a reject the frame is empty, with the same columns and types."""
        _, some = load_with_rejects(rides)
        rides.write_text(RIDES.replace("n/a", "1"))
        _, none = load_with_rejects(rides)
        assert none.height == 0
        assert none.schema == some.schema

    def test_several_files(self, rides: Path) -> None:
        """Files are named without the folder that they share, in both."""
        folder = rides.parent / "in"
        folder.mkdir()
        for name in ("a.csv", "b.csv"):
            (folder / name).write_text(RIDES)
        tallied, rejects = load_with_rejects(folder, every="1d")
        assert tallied.accounts["source"].to_list() == ["a.csv", "b.csv"]
        assert rejects["source"].to_list() == ["a.csv", "b.csv"]


class Table(HTMLParser):
    """The cells of an HTML table, with their tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, dict[str, str | None], str]] = []
        self.tags: set[str] = set()
        self.open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("th", "td", "caption"):
            self.open = (tag, dict(attrs))
            self.cells.append((*self.open, ""))

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, attributes, text = self.cells[-1]
            self.cells[-1] = (tag, attributes, text + data)

    def handle_endtag(self, tag: str) -> None:
        self.open = None if self.open and tag == self.open[0] else self.open


class TestTable:
    """Tables are for people: exact where exact, and safe whatever is in them."""

    def test_headers(self) -> None:
        """A screen reader finds the caption, the columns' and the rows' headers."""
        cells = Table(table_html(FRAME, "Two totals")).cells
        assert cells[0] == ("caption", {}, "Two totals")
        assert [(tag, attrs.get("scope"), text) for tag, attrs, text in cells[1:]] == [
            ("th", "col", "Category"),
            ("th", "col", "Total"),
            ("th", "row", "<b>"),
            ("td", None, "1.50"),
            ("th", "row", "b"),
            ("td", None, "\N{MINUS SIGN}2.25"),
        ]
        assert cells[4][1]["class"] == "number"

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]))), st.text())
    def test_text_is_never_obeyed(self, texts: list[str], caption: str) -> None:
        """No text of the data becomes a tag, and none is lost."""
        html = table_html(pl.DataFrame({"category": pl.Series(texts, dtype=pl.String)}), caption)
        table = Table(html)
        assert table.tags <= {"table", "caption", "thead", "tbody", "tr", "th"}
        assert [text for _, attrs, text in table.cells if attrs.get("scope") == "row"] == texts

    @pytest.mark.parametrize(
        ("column", "texts"),
        [
            (pl.Series([1234567, None]), ["1,234,567", "\N{EN DASH}"]),
            (pl.Series([Decimal("1.5000"), Decimal("1234.25")]), ["1.50", "1,234.25"]),
            (pl.Series([Decimal("0.000000001")]), ["0.000000001"]),
            (pl.Series([Decimal("1000.000")]), ["1,000"]),
            (pl.Series([0.12345, -0.5]), ["0.1235", "\N{MINUS SIGN}0.5000"]),
            (pl.Series([12.345, 1.0]), ["12.35", "1.00"]),
            (pl.Series([1234.5, 1.25]), ["1,234.5", "1.2"]),
            (pl.Series([1.0, 2.0]), ["1", "2"]),
            (pl.Series([None], dtype=pl.Float64), ["\N{EN DASH}"]),
            (pl.Series([date(2013, 2, 9)]), ["2013-02-09"]),
            (pl.Series([datetime(2013, 2, 9), datetime(2013, 3, 1)]), ["2013-02-09", "2013-03-01"]),
            (pl.Series([datetime(2013, 2, 9, 14, 30)]), ["2013-02-09 14:30"]),
            (pl.Series([True, None]), ["True", "\N{EN DASH}"]),
        ],
    )
    def test_texts(self, column: pl.Series, texts: list[str]) -> None:
        """A column has the same places in all rows; decimals are never rounded."""
        assert module._texts(column) == texts

    def test_long_tables(self) -> None:
        """The rows that are not shown are counted."""
        html = table_html(pl.DataFrame({"n": range(1203)}), most_rows=3)
        assert html.count("<td") == 3
        assert "1,200 more rows are not shown." in html


class TestPublish:
    """A chart or a table is shown, and in a run kept."""

    def test_chart(self, run: Path, shown: Shown) -> None:
        """It is displayed once, as a specification and drawn, and saved in three forms."""
        publish(CHART, "bars")
        [forms], [note] = shown, read_journal(run)
        spec = json.loads((run / "charts" / "bars.vl.json").read_text())
        assert forms["application/vnd.vegalite.v6+json"] == spec
        assert forms["image/svg+xml"].startswith("<svg")
        assert forms["text/plain"] == "Chart: Two bars"
        assert (note["title"], note["description"]) == (
            "Two bars",
            "The second is twice the first.",
        )
        assert note["sha256"] == sha256_file(run / note["files"]["spec"])

    def test_own_description(self, shown: Shown, tmp_path: Path) -> None:
        """A description given here goes into the chart; by hand nothing is written."""
        publish(CHART, "bars", title="Bars", description="Something else.")
        assert shown[0]["application/vnd.vegalite.v6+json"]["description"] == "Something else."
        assert list(tmp_path.iterdir()) == []

    def test_table(self, run: Path, shown: Shown) -> None:
        """It is displayed as HTML, and saved as Parquet with all its digits."""
        publish(FRAME, "totals", title="All totals", description="Exact & whole.")
        [note] = read_journal(run)
        assert pl.read_parquet(run / note["file"]).equals(FRAME)
        assert (note["rows"], note["columns"]) == (2, ["category", "total"])
        assert "<caption>All totals</caption>" in shown[0]["text/html"]
        assert "<p>Exact &amp; whole.</p>" in shown[0]["text/html"]

    @pytest.mark.parametrize("result", [FRAME.lazy(), FRAME["total"], {"a": 1}, None])
    def test_other_things(self, result: Any) -> None:
        """Anything else is refused with what it is."""
        with pytest.raises(ValidationError, match=f"not a {type(result).__name__}"):
            publish(result, "totals")

    def test_folder_that_cannot_be_written(self, run: Path) -> None:
        """The error says so, and nothing is noted."""
        (run / "tables").write_text("in the way")
        with pytest.raises(OutputError, match="tables"):
            publish(FRAME, "totals")
        assert read_journal(run) == []


class TestMostRows:
    """A long table is kept whole and shown in part."""

    def test_shown_in_part(self, run: Path, shown: Shown) -> None:
        """The page counts what it does not show; the file has every row."""
        publish(pl.DataFrame({"n": range(30)}), "long", most_rows=3)
        assert "27 more rows" in shown[0]["text/html"]
        assert pl.read_parquet(run / "tables" / "long.parquet").height == 30


class TestJournal:
    """What was noted survives whatever happens next."""

    def test_last_line_cut_off(self, run: Path) -> None:
        """A note that was being written when the kernel was killed is left out."""
        record("whole", 1)
        with (run / "journal.jsonl").open("a") as journal:
            journal.write('{"kind": "va')
        assert [note["name"] for note in read_journal(run)] == ["whole"]

    def test_strange_characters(self, run: Path) -> None:
        """Line separators in a text do not split its line."""
        record("text", "a\u2028b\x85c\nd")
        assert read_journal(run)[0]["value"] == "a\u2028b\x85c\nd"


def test_imports_nothing_slow() -> None:
    """Neither papermill nor altair is needed to say what a report has to say."""
    slow = "{'papermill', 'altair', 'nbformat'}"
    program = f"import sys, tallybook.publish; print({slow} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
