"""Parameters cells: what is understood, what is refused, and what values become."""

import ast
import json
import random
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
    read_words,
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
            ("list[Period]", "1d,1w", "each one of 1h, 1d, 1w, 1mo, 1q, 1y"),
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


FORMS: list[tuple[str, str, object]] = [
    ("int", "3", 3),
    ("int", "-7", -7),
    ("'int'", "1_000", 1000),
    ("float", "0.5", 0.5),
    ("float", "-2e3", -2000.0),
    ("float", "2", 2.0),
    ("bool", "True", True),
    ("bool", "False", False),
    ("str", "'sales'", "sales"),
    ("str", "''", ""),
    ("str", "'# no comment'", "# no comment"),
    ("str", "'''two\nlines'''", "two\nlines"),
    ("str", "r'a\\b' 'c'", "a\\bc"),
    ("date", "date(2013, 2, 9)", date(2013, 2, 9)),
    ("date", "dt.date(2013, month=2, day=9)", date(2013, 2, 9)),
    ("date", "'2013-02-09'", date(2013, 2, 9)),
    ("dt.date | None", "None", None),
    ("datetime", "datetime(2013, 2, 9, 14, 30)", datetime(2013, 2, 9, 14, 30)),
    ("datetime", "datetime(2013, 2, 9, tzinfo=UTC)", datetime(2013, 2, 9, tzinfo=UTC)),
    ("datetime", "'2013-02-09T14:30:00Z'", datetime(2013, 2, 9, 14, 30, tzinfo=UTC)),
    ("Decimal", "Decimal('0.10')", Decimal("0.10")),
    ("decimal.Decimal", "Decimal('-1E+3')", Decimal("-1E+3")),
    ("Decimal", "5", Decimal(5)),
    ("Path", "Path('a/b')", Path("a/b")),
    ("pathlib.Path", "'c.csv'", Path("c.csv")),
    ("Secret", "'secret:SALES'", "secret:SALES"),
    ("Literal['a', 'b']", "'b'", "b"),
    ("Literal[1, 2, None]", "2", 2),
    ("typing.Literal['x'] | None", "None", None),
    ("Period", "Period.MONTH", Period.MONTH),
    ("types.Period", "types.Period.DAY", Period.DAY),
    ("Period", "'1w'", Period.WEEK),
    ("list[int]", "[1, 2,\n    3]", [1, 2, 3]),
    ("List[str]", "[]", []),
    ("list[date]", "[date(2013, 1, 1)]", [date(2013, 1, 1)]),
    ("list[Period]", "['1d', Period.WEEK]", [Period.DAY, Period.WEEK]),
    ("list", "[1, 'a', None]", [1, "a", None]),
    ("list[list[int]]", "[[1], []]", [[1], []]),
    ("dict[str, int]", "{'a': 1}", {"a": 1}),
    ("dict", "{}", {}),
    ("Optional[int]", "None", None),
    ("typing.Optional[str]", "'x'", "x"),
    ("Union[int, str]", "'x'", "x"),
    ("int | float", "1.5", 1.5),
    ("None | int", "4", 4),
    ("date | Literal['all']", "'all'", "all"),
    ("Annotated[int, Field(ge=1, le=9)]", "9", 9),
    ("Annotated[int | None, Field(gt=0)]", "None", None),
    ("Annotated[str, Field(pattern='^a')]", "'abc'", "abc"),
    ("typing.Annotated[float, pydantic.Field(lt=1)]", "0.5", 0.5),
    ("Annotated[list[int], Field(min_length=1)]", "[1]", [1]),
    (
        "Annotated[Decimal, Field(max_digits=4, decimal_places=2)]",
        "Decimal('12.50')",
        Decimal("12.50"),
    ),
    ("list[Annotated[int, Field(ge=1)]]", "[1]", [1]),
    ("Annotated[Period, 'length of a step']", "Period.DAY", Period.DAY),
]
HOSTILE = [
    "{name}: int = __import__('os').system('true')",
    "{name} = open('/etc/passwd').read()",
    "{name}: str = f'{{1}}'",
    "{name}: int = (lambda: 1)()",
    "{name}: list[int] = [x for x in range(3)]",
    "{name}: int = 1 if True else 2",
    "{name}: int = 1 + 1",
    "{name}: str = 'a' * 9",
    "{name}: str = '%s' % 1",
    "{name}: int = other",
    "{name}: dict = {{**other}}",
    "{name}: list = [*other]",
    "{name}: bytes = b'1'",
    "{name}: tuple = (1, 2)",
    "{name}: set[int] = {{1}}",
    "{name}: complex = 1j",
    "{name}: Path = Path('a', open('b', 'w'))",
    "{name}: date = date.today()",
    "{name}: date = date(2013, 13, 1)",
    "{name}: datetime = datetime.now()",
    "{name}: Decimal = Decimal('x')",
    "{name}: int = 'x'",
    "{name}: int = True",
    "{name}: int = None",
    "{name}: float = float('nan')",
    "{name}: Secret = 'hunter2'",
    "{name}: Literal['a'] = 'b'",
    "{name}: Period = '2d'",
    "{name}: Perod = 1",
    "{name}: DataFrame = None",
    "{name}: list[DataFrame] = []",
    "{name}: eval('int') = 1",
    "{name}: Annotated[int, Field(ge=5)] = 1",
    "{name}: Annotated[int, Field(exec='1')] = 1",
    "{name}: Annotated[int, print('x')] = 1",
    "{name}: 'int; import os' = 1",
    "{name}.attribute: int = 1",
    "{name}[0]: int = 1",
    "{name} = other = 1",
    "{name}, other = 1, 2",
    "({name} := 1)",
    "{name} += 1",
    "del {name}",
    "print({name})",
    "def {name}(): return 1",
    "class {name}: pass",
    "if True: {name} = 1",
    "for {name} in []: pass",
    "with open('x') as {name}: pass",
    "global {name}",
    "assert {name}",
    "raise SystemExit",
    "_{name}: int = 1",
]
COMMENTS = ["", "  # how many", "  # Größe: 日本, 'quoted' and # more", "  #no space"]


def made_cell(seed: int) -> tuple[str, dict[str, tuple[object, str]], list[int]]:
    """Return a cell, what its parameters are (default, comment), and the lines to be refused."""
    chance = random.Random(seed)  # noqa: S311 - the same cells every time
    lines, expected, refused = ["from datetime import date"] * (seed % 2), {}, []
    for number in range(chance.randint(1, 6)):
        name = f"p{number}_{chance.choice(['top', 'größe', 'X', 'since'])}"
        line = 1 + sum(text.count("\n") + 1 for text in lines)
        if chance.random() < 0.2:
            lines.append(chance.choice(HOSTILE).format(name=name))
            refused.append(line)
            continue
        kind, source, value = chance.choice(FORMS)
        comment = chance.choice(COMMENTS)
        lines.append(f"{name}: {kind} = {source}{comment}")
        own = "length of a step" if "length of a step" in kind else ""
        expected[name] = (value, comment.strip().lstrip("#").strip() or own)
        lines += [""] * chance.randint(0, 1)
    return "\n".join(lines), expected, refused


class TestFiveHundredCells:
    """Generated cells of every type and form, a third of them with code that must not run."""

    @pytest.mark.parametrize("first", range(0, 500, 100))
    def test_each_is_understood_or_refused_by_line(self, first: int) -> None:
        """The model has exactly these parameters, or the error has exactly these lines."""
        for seed in range(first, first + 100):
            cell, expected, refused = made_cell(seed)
            if refused:
                assert list(lines_of(cell)) == refused, cell
                continue
            model = parse_parameters(cell)
            rows = describe_parameters(model)
            defaults = values_of(cell)
            found = {row.name: (defaults[row.name], row.description) for row in rows}
            assert found == expected, cell
            assert all(type(found[n][0]) is type(expected[n][0]) for n in expected), cell
            assert set(model.model_json_schema()["properties"]) == set(expected), cell

    def test_they_cover_every_form(self) -> None:
        """No line of the tables above is left to chance."""
        cells = [made_cell(seed) for seed in range(500)]
        text = "\n".join(cell for cell, _, _ in cells)
        assert [form for form in FORMS if f": {form[0]} = {form[1]}" not in text] == []
        fragments = [line.split("{name}")[-1].format() for line in HOSTILE]
        assert [fragment for fragment in fragments if fragment not in text] == []
        refused = sum(bool(lines) for _, _, lines in cells)
        assert 150 < refused < 350


PAPERMILL = {
    "a = 2": (2, "int", ""),
    "a = 2  # help": (2, "int", "help"),
    "a: float = 2.25  # Variable a": (2.25, "float", "Variable a"),
    "a = 2.25  # type: float Variable a": (2.25, "float", "Variable a"),
    "a = 2  # type:float": (2.0, "float", ""),
    "a: 'float' = 2.25": (2.25, "float", ""),
    'a: List[str] = ["Hello", "World"]  # Nice list': (
        ["Hello", "World"],
        "list[str]",
        "Nice list",
    ),
    "a = [\n    'this',  # First\n    'list',  # Last\n]  # Nice": (
        ["this", "list"],
        "list[str]",
        "Nice",
    ),
    "a: NoneType = None": (None, "None", ""),
    "msg = None": (None, "str | None", ""),
    "a = 'this is a string'  # type: str Nice": ("this is a string", "str", "Nice"),
    "a: bool = True": (True, "bool", ""),
    "a = {'key': [1, 2]}": ({"key": [1, 2]}, "dict[str, Any]", ""),
    "a = 0.6": (0.6, "float", ""),
    "# This cell is tagged `parameters`\na = 0.1": (
        0.1,
        "float",
        "This cell is tagged `parameters`",
    ),
}


class TestPapermillCells:
    """The ways to write parameters that papermill's documentation and its inspection know."""

    @pytest.mark.parametrize("cell", PAPERMILL)
    def test_means_the_same_here(self, cell: str) -> None:
        """Value, type and help."""
        [row] = describe_parameters(parse_parameters(cell))
        assert (values_of(cell)[row.name], row.type, row.description) == PAPERMILL[cell]

    @pytest.mark.parametrize(
        ("cell", "line"),
        [("a = 1\nb = a + 1", 2), ("a = 1\n\n\nimport os; os.getcwd()", 4), ("a = 1;; b = 2", 1)],
    )
    def test_what_papermill_would_run_is_refused(self, cell: str, line: int) -> None:
        """A value that depends on another keeps its default there, silently."""
        assert list(lines_of(cell)) == [line]


class TestOptions:
    """What a command line, a form and a page need to know."""

    @pytest.mark.parametrize(
        ("kind", "metavar", "flag", "many", "limits"),
        [
            ("int", "INT", False, False, ""),
            ("str | None", "TEXT", False, False, ""),
            ("bool | None", "BOOL", True, False, ""),
            ("list[bool]", "BOOL", False, True, ""),
            ("Secret", "secret:NAME", False, False, ""),
            ("list[Literal[1, 2]]", "CHOICE", False, True, "each one of 1, 2"),
            ("int | Literal['all']", "INT|CHOICE", False, False, "or one of all"),
            ("dict[str, int]", "JSON", False, False, ""),
            ("list", "VALUE", False, True, ""),
            ("Annotated[int, Field(ge=1)] | None", "INT", False, False, "at least 1"),
            (
                "Annotated[int | None, Field(ge=1, lt=9)]",
                "INT",
                False,
                False,
                "at least 1; less than 9",
            ),
            (
                "Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=3)]",
                "INT",
                False,
                True,
                "each at least 1; length at most 3",
            ),
        ],
    )
    def test_rows(self, kind: str, metavar: str, flag: bool, many: bool, limits: str) -> None:
        """The word for a value, whether the name says it all, whether it can be given again."""
        [row] = describe_parameters(parse_parameters(f"x: {kind}"))
        assert (row.metavar, row.flag, row.many, row.limits) == (metavar, flag, many, limits)

    def test_bounds_of_an_optional_type_are_in_the_schema(self) -> None:
        """Where pydantic alone would lose them."""
        model = parse_parameters("x: Annotated[int | None, Field(ge=1, description='hm')] = None")
        schema = model.model_json_schema()["properties"]["x"]
        assert schema["anyOf"][0]["minimum"] == 1
        assert schema["description"] == "hm"
        assert list(problems_of(model, x=0)) == ["x"]

    @pytest.mark.parametrize(
        ("kind", "words", "value"),
        [
            ("int", ["5"], "5"),
            ("int", ["5", "6"], ["5", "6"]),
            ("list[int]", ["1,2"], "1,2"),
            ("list[int]", ["1,2", "[3]"], [1, 2, 3]),
            ("list[int] | None", ["1", "none"], ["1", None]),
            ("str", ["a", "b"], ["a", "b"]),
        ],
    )
    def test_words(self, kind: str, words: list[str], value: object) -> None:
        """The words of a list add up; the others are left for the check."""
        found = read_words(parse_parameters(f"x: {kind}"), {"x": words})["x"]
        assert [str(one) for one in found] == [str(one) for one in value]  # type: ignore[union-attr]

    def test_one_value_is_wanted(self) -> None:
        """Two words for a number are a mistake: the last would win silently."""
        problems = problems_of(parse_parameters("x: int"), x=["5", "6"])
        assert problems["x"] == "one value is wanted, not 2: ['5', '6']"

    def test_words_for_nothing(self) -> None:
        """An unknown name is for the check to refuse."""
        assert read_words(parse_parameters(""), {"x": ["1", "2"], "y": ["1"]}) == {
            "x": ["1", "2"],
            "y": "1",
        }

    def test_a_secret_is_not_shown(self) -> None:
        """Not even in the refusal."""
        model = parse_parameters("token: Secret")
        with pytest.raises(ParameterError) as caught:
            validate_parameters(model, {"token": "hunter2"})
        assert "hunter2" not in f"{caught.value}{caught.value.context}"
        values = validate_parameters(model, {"token": "secret:SALES"})
        assert to_papermill(values) == {"token": "secret:SALES"}
