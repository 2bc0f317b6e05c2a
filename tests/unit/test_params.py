"""Parameters cells: what is understood, what is refused, and what values become."""

import ast
import json
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tallybook.errors import ParameterError, SourceError
from tallybook.params import (
    describe_parameters,
    parse_parameters,
    read_parameters,
    resolve_date,
    to_papermill,
    validate_parameters,
)
from tallybook.types import Period


def values_of(source: str, **raw: object) -> dict[str, Any]:
    """Return the values of a run of a cell."""
    return dict(validate_parameters(parse_parameters(source), raw))


def lines_of(source: str) -> dict[int, str]:
    """Return the lines of a cell that are refused, with the reasons."""
    with pytest.raises(ParameterError) as caught:
        parse_parameters(source)
    lines: dict[int, str] = caught.value.context["lines"]
    return lines


def problems_of(model: type[BaseModel], **raw: object) -> dict[str, str]:
    """Return what is wrong with values, by parameter."""
    with pytest.raises(ParameterError) as caught:
        validate_parameters(model, raw)
    problems: dict[str, str] = caught.value.context["problems"]
    return problems


names = st.from_regex(r"p[a-z0-9_]{0,8}", fullmatch=True)
literals = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.integers(), min_size=1),
    st.lists(st.text(), min_size=1),
)
typed = st.one_of(
    st.tuples(st.just("int"), st.integers()),
    st.tuples(
        st.just("float | None"), st.none() | st.floats(allow_nan=False, allow_infinity=False)
    ),
    st.tuples(st.just("str"), st.text()),
    st.tuples(st.just("list[str]"), st.lists(st.text())),
    st.tuples(st.just("Decimal"), st.decimals(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("date"), st.dates()),
    st.tuples(st.just("datetime"), st.datetimes(timezones=st.none() | st.just(UTC))),
    st.tuples(st.just("Path"), st.from_regex(r"[a-z/]{1,9}", fullmatch=True).map(Path)),
    st.tuples(st.just("Period"), st.sampled_from(Period)),
)


class TestCell:
    """The text of a parameters cell becomes a model without being executed."""

    @given(st.dictionaries(names, literals))
    def test_literal_defaults_are_kept(self, defaults: dict[str, object]) -> None:
        """Whatever literal stands in the cell is the default, to the last digit."""
        cell = "".join(f"{name} = {value!r}\n" for name, value in defaults.items())
        assert values_of(cell) == defaults

    @given(st.text())
    def test_any_text_is_understood_or_refused(self, text: str) -> None:
        """No text of a cell brings anything but a model or a ParameterError."""
        with suppress(ParameterError):
            assert issubclass(parse_parameters(text), BaseModel)

    @pytest.mark.parametrize(
        ("cell", "default"),
        [
            ("x = 3", 3),
            ("x: 'int' = -3", -3),
            ("x = 1_000.5", 1000.5),
            ("x: float = 2", 2.0),
            ("x: Optional[int] = None", None),
            ("x: None | int = 4", 4),
            ("x: typing.Union[int, str] = 'a'", "a"),
            ("x: Literal['a', 'b'] = 'b'", "b"),
            ("x: Literal[1, None] = None", None),
            ("x = ['a', 'b']", ["a", "b"]),
            ("x: List[date] = [date(2013, 1, 1)]", [date(2013, 1, 1)]),
            ("x: dict[str, int] = {'a': 1}", {"a": 1}),
            ("x = datetime.date(2013, 1, 1)", date(2013, 1, 1)),
            ("x = date.fromisoformat('2013-01-01')", date(2013, 1, 1)),
            ("x = dt.datetime(2013, 1, 1, tzinfo=UTC)", datetime(2013, 1, 1, tzinfo=UTC)),
            ("x = Decimal('1.10')", Decimal("1.10")),
            ("x: Path = Path('a')", Path("a")),
            ("x: Period = Period.DAY", Period.DAY),
            ("x = types.Period.DAY", Period.DAY),
            ("x: Period = '1mo'", Period.MONTH),
            ("x: Annotated[int, Field(ge=1), 'how many'] = 2", 2),
            ("x = 'two ' 'parts'", "two parts"),
            ("x = 5  # type: float  a comment", 5.0),
            ("import os\nfrom datetime import date\n'''Text.'''\nx = 1", 1),
        ],
    )
    def test_forms(self, cell: str, default: object) -> None:
        """Each way to write a parameter gives the value that Python would give."""
        found = values_of(cell)["x"]
        assert (found, type(found)) == (default, type(default))

    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("x = input()", "would have to be run"),
            ("x = [print(1)]", "would have to be run"),
            ("x = date(*[1])", "not a literal"),
            ("x = date(2013, 13, 1)", "is not a value"),
            ("x = f'{1}'", "not a literal"),
            ("x = y", "not a literal"),
            ("x = 1 + 1", "not a literal"),
            ("x = b'1'", "not a literal"),
            ("x = (1, 2)", "not a literal"),
            ("x = os.environ['HOME']", "not a literal"),
            ("x: DataFrame = None", "not a type"),
            ("x: lisst[int] = []", "not a type"),
            ("x: itn = 1", "Did you mean 'int'?"),
            ("x: int = 'a'", "does not fit its type"),
            ("x: Annotated[int, Field(ge=5)] = 1", "does not fit its type"),
            ("x: Annotated[int, Field(ge='a')] = 1", "makes no sense"),
            ("x: Annotated[int, Field(gee=1)] = 1", "Did you mean 'ge'?"),
            ("x: Annotated[int, Field(1)] = 1", "not Field(...)"),
            ("a = b = 1", "is not a parameter"),
            ("a, b = 1, 2", "is not a parameter"),
            ("x.y: int = 1", "is not a parameter"),
            ("x += 1", "is not a parameter"),
            ("print(1)", "is not a parameter"),
            ("def f():\n    pass", "is not a parameter"),
            ("for x in []:\n    pass", "is not a parameter"),
            ("_x = 1", "cannot be called"),
            ("model_config = 1", "cannot be called"),
            ("x = ", "not Python"),
            ("%matplotlib inline", "not Python"),
            ("x = '\0'", "not Python"),
        ],
    )
    def test_refusals(self, cell: str, said: str) -> None:
        """What would have to be executed, or is no parameter, is refused by line."""
        lines = lines_of(cell)
        assert list(lines) == [1]
        assert said in lines[1]

    def test_all_lines_are_told(self) -> None:
        """One error names every bad line."""
        assert list(lines_of("a: int = 1\nb: int = 'x'\n\nc = print()\na = 2")) == [2, 4, 5]

    def test_deep_nesting(self) -> None:
        """A cell that would exhaust the parser is refused too."""
        assert 1 in lines_of(f"x = {'[' * 500}{']' * 500}")

    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        """Not even a default that looks like a constructor."""
        marker = tmp_path / "made"
        lines_of(f"x = Path('a', open({str(marker)!r}, 'w'))")
        assert not marker.exists()


class TestDescription:
    """Comments and bounds become help."""

    def test_comments(self) -> None:
        """The comment behind counts, else those above; other comments do not."""
        model = parse_parameters(
            "# a heading\n\nfirst = 1  # behind\n"
            "# above,\n# in two lines\nsecond = [\n    1,\n]\nthird = '#'\n"
        )
        said = {row.name: row.description for row in describe_parameters(model)}
        assert said == {"first": "behind", "second": "above, in two lines", "third": ""}

    def test_rows(self) -> None:
        """Types and defaults read as they would be written, bounds as words."""
        cell = (
            "top: Annotated[int | None, Field(gt=0)] = None\nhow: Literal['a', 'b'] = 'a'\n"
            "every: list[Period] = [Period.DAY, Period.WEEK]\nneeded: Decimal"
        )
        rows = [(r.type, r.default, r.limits) for r in describe_parameters(parse_parameters(cell))]
        assert rows == [
            ("int | None", "none", "more than 0"),
            ("'a' | 'b'", "a", "one of a, b"),
            ("list[Period]", "1d,1w", ""),
            ("Decimal", None, ""),
        ]

    def test_json_schema(self) -> None:
        """The model describes itself to a service."""
        schema = parse_parameters(
            "top: Annotated[int, Field(ge=1)] = 5  # how many"
        ).model_json_schema()
        assert schema["properties"]["top"] == {
            "default": 5,
            "description": "how many",
            "minimum": 1,
            "title": "Top",
            "type": "integer",
        }


class TestNotebook:
    """The cell is found in the notebook by its tag."""

    @staticmethod
    def notebook(folder: Path, *cells: tuple[str, list[str]]) -> Path:
        path = folder / "some_report.ipynb"
        made = [
            {"cell_type": "code", "source": text, "metadata": {"tags": tags}}
            for text, tags in cells
        ]
        path.write_text(json.dumps({"cells": made}))
        return path

    def test_tagged_cell(self, tmp_path: Path) -> None:
        """Only the tagged cell counts; the report's name opens messages."""
        path = self.notebook(tmp_path, ("x = print()", []), ("top = 1", ["a", "parameters"]))
        model = read_parameters(path)
        assert list(model.model_fields) == ["top"]
        with pytest.raises(ParameterError, match=r"^some_report: 1 parameter is wrong\n  tpo: "):
            validate_parameters(model, {"tpo": 1})

    def test_no_tagged_cell(self, tmp_path: Path) -> None:
        """Then there are no parameters."""
        assert read_parameters(self.notebook(tmp_path, ("x = 1", []))).model_fields == {}

    def test_two_tagged_cells(self, tmp_path: Path) -> None:
        """Papermill would silently take the first; we ask."""
        path = self.notebook(tmp_path, ("x = 1", ["parameters"]), ("y = 1", ["parameters"]))
        with pytest.raises(ParameterError, match="2 cells are tagged"):
            read_parameters(path)

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"cells": [1]}', '{"worksheets": []}', "\x80"]
    )
    def test_other_files(self, tmp_path: Path, text: str) -> None:
        """What is not a notebook is called that."""
        path = tmp_path / "x.ipynb"
        path.write_text(text, encoding="latin-1")
        with pytest.raises(SourceError, match="not a notebook"):
            read_parameters(path)

    def test_missing(self, tmp_path: Path) -> None:
        """A missing file is named."""
        with pytest.raises(SourceError, match=r"x\.ipynb: the notebook cannot be opened"):
            read_parameters(tmp_path / "x.ipynb")


class TestValues:
    """Text, JSON and Python values become what the cell declares."""

    @pytest.mark.parametrize(
        ("kind", "raw", "value"),
        [
            ("str", "007", "007"),
            ("str | None", "none", "none"),
            ("int", "007", 7),
            ("int | None", "None", None),
            ("int | str", "7", "7"),
            ("float", "1e3", 1000.0),
            ("int | float", "1.5", 1.5),
            ("bool", "yes", True),
            ("bool", "0", False),
            ("Decimal", "0.10", Decimal("0.10")),
            ("date", "2013-02-09", date(2013, 2, 9)),
            ("date", "20130209", date(2013, 2, 9)),
            ("datetime", "2013-02-09T14:30:00Z", datetime(2013, 2, 9, 14, 30, tzinfo=UTC)),
            ("Period", "1mo", Period.MONTH),
            ("Literal[1, 'a']", "1", 1),
            ("Path", "a/b", Path("a/b")),
            ("list[int]", "1, 2", [1, 2]),
            ("list[str]", "", []),
            ("list[str]", '["a, b"]', ["a, b"]),
            ("list[int] | None", "none", None),
            ("dict[str, int]", '{"a": 1}', {"a": 1}),
            ("list[str]", ["a"], ["a"]),
        ],
    )
    def test_conversion(self, kind: str, raw: object, value: object) -> None:
        """The declared type decides, never the look of the text."""
        found = values_of(f"x: {kind}", x=raw)["x"]
        assert (found, type(found)) == (value, type(value))

    @pytest.mark.parametrize(
        ("kind", "raw"),
        [
            ("int", "1.5"),
            ("int", True),
            ("int", ""),
            ("float", "nan"),
            ("float", float("inf")),
            ("Decimal", "NaN"),
            ("Decimal", True),
            ("str", 7),
            ("date", 20130209),
            ("date", "20130230"),
            ("date", datetime(2013, 2, 9, tzinfo=UTC)),
            ("datetime", 1e9),
            ("datetime", "yesterday"),
            ("list[int]", "[1,"),
            ("list[int]", "1,a"),
            ("Period", "1 month"),
            ("bool", "maybe"),
        ],
    )
    def test_refused(self, kind: str, raw: object) -> None:
        """Nothing is guessed: no seconds since 1970, no true that is 1, no infinity."""
        assert list(problems_of(parse_parameters(f"x: {kind}"), x=raw)) == ["x"]

    @given(st.dictionaries(names, typed))
    def test_round_trip_through_json(self, declared: dict[str, tuple[str, Any]]) -> None:
        """What goes to papermill comes back as the same values."""
        cell = "".join(f"{name}: {kind}\n" for name, (kind, _) in declared.items())
        model = parse_parameters(cell)
        values = validate_parameters(model, {name: value for name, (_, value) in declared.items()})
        sent = json.loads(json.dumps(to_papermill(values)))
        assert validate_parameters(model, sent) == values

    @given(st.text().filter(lambda name: name != "top"))
    def test_other_names_are_refused(self, name: str) -> None:
        """Papermill would execute a name; only declared ones pass."""
        assert list(problems_of(parse_parameters("top = 1"), **{name: 1})) == [name]

    def test_all_problems_at_once(self) -> None:
        """Unknown, missing and wrong values come in one error, with the nearest names."""
        model = parse_parameters("top: int = 1\nneeded: str\nhow: Literal['mean', 'sum'] = 'sum'")
        problems = problems_of(model, tpo="1", top="x", how="summ")
        assert problems["tpo"] == "there is no such parameter. Did you mean 'top'?"
        assert problems["needed"] == "a value is needed"
        assert problems["how"].endswith("got 'summ'. Did you mean 'sum'?")
        assert problems["top"].endswith("got 'x'.")

    def test_hostile_text_stays_on_its_line(self) -> None:
        """A long value or a name with line ends cannot fill the screen."""
        model = parse_parameters("top: int = 1")
        with pytest.raises(ParameterError) as caught:
            validate_parameters(model, {"top": "9" * 9000, "a\nb": 1})
        assert max(map(len, str(caught.value).splitlines())) < 200
        assert len(str(caught.value).splitlines()) == 3

    def test_relative_paths(self, tmp_path: Path) -> None:
        """For the notebook a path starts from the caller's folder, alone and in lists."""
        values = validate_parameters(
            parse_parameters("a = Path('x')\nb: list[Path] = ['y', '/z']\nc: Path | None = None"),
            {},
        )
        sent = to_papermill(values, folder=tmp_path)
        assert sent == {"a": str(tmp_path / "x"), "b": [str(tmp_path / "y"), "/z"], "c": None}

    def test_sent_values_are_literals(self) -> None:
        """What is injected needs nothing but Python's literals."""
        values = validate_parameters(
            parse_parameters("a = date(2013, 1, 1)\nb = Decimal('0.1')"), {}
        )
        assert ast.literal_eval(repr(to_papermill(values))) == {"a": "2013-01-01", "b": "0.1"}


class TestDays:
    """Day expressions are resolved once, in the report's time zone."""

    @pytest.mark.parametrize(
        ("text", "day"),
        [
            ("today", date(2024, 2, 29)),
            ("yesterday", date(2024, 2, 28)),
            ("tomorrow", date(2024, 3, 1)),
            ("today-1y", date(2023, 2, 28)),
            ("today+1mo-1d", date(2024, 3, 28)),
            ("today-1q", date(2023, 11, 29)),
            ("week_start-1w", date(2024, 2, 19)),
            ("month_start", date(2024, 2, 1)),
            ("quarter_start", date(2024, 1, 1)),
            ("year_start-1y", date(2023, 1, 1)),
            (" 2013-02-09 ", date(2013, 2, 9)),
        ],
    )
    def test_expressions(self, text: str, day: date) -> None:
        """From a leap day, months and years end on a day that exists."""
        assert resolve_date(text, today=date(2024, 2, 29)) == day

    @pytest.mark.parametrize(
        "text", ["", "todays", "today-7", "today - 7d", "today-99999y", "-1d", "7d"]
    )
    def test_refused(self, text: str) -> None:
        """Nothing else is a day."""
        with pytest.raises(ValueError, match="day"):
            resolve_date(text, today=date(2024, 2, 29))

    @given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(-600, 600))
    def test_months_move_by_months(self, today: date, months: int) -> None:
        """Any number of months lands in the right month, at most three days short."""
        moved = resolve_date(f"today{months:+}mo", today=today)
        assert moved.year * 12 + moved.month == today.year * 12 + today.month + months
        assert 0 <= today.day - moved.day <= 3

    def test_time_zone(self) -> None:
        """In the evening in New York it is tomorrow in UTC."""
        model = parse_parameters("since: date = 'today'\nuntil: date | None = None")
        now = datetime(2013, 2, 9, 1, 0, tzinfo=UTC)
        raw = {"until": "tomorrow"}
        here = validate_parameters(model, raw, now=now, time_zone="America/New_York")
        there = validate_parameters(model, raw, now=now)
        assert list(dict(here).values()) == [date(2013, 2, 8), date(2013, 2, 9)]
        assert list(dict(there).values()) == [date(2013, 2, 9), date(2013, 2, 10)]


class TestRareCells:
    """Branches that random cells only reach now and then."""

    def test_an_annotation_in_quotes_has_to_be_a_type(self):
        """What stands in the quotes is parsed, not run."""
        assert values_of("top: 'int' = 3") == {"top": 3}
        assert "is not a type" in lines_of("top: 'int +' = 3")[1]

    def test_a_default_without_an_annotation_gives_the_type(self):
        """A table as well."""
        assert values_of("limits = {'low': 1}") == {"limits": {"low": 1}}

    @pytest.mark.parametrize(
        "source", ["top = 1\0", "top = " + "-" * 100_000 + "1"], ids=["nul", "deep"]
    )
    def test_what_no_parser_takes_is_refused(self, source: str):
        """A NUL, or nesting without end: a line and a reason, no traceback."""
        assert lines_of(source)[1].startswith("not Python")
