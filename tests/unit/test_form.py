"""The form of a report: how each kind of parameter is asked for, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import ParameterError
from tallybook.form import PREFIX, Control, FormField, form_fields, read_form
from tallybook.params import parse_parameters, read_parameters, validate_parameters

ROOT = Path(__file__).parents[2]
EVERY_KIND = """
source: str = "sample"
since: date | None = None
at: datetime | None = None
period: Period = Period.MONTH
mode: Literal["a", "b", 3] = "a"
maybe: Literal["x"] | None = None
top: Annotated[int, Field(ge=1, le=30)] = 10
share: float = 0.5
amount: Decimal = Decimal("1.50")
own: bool = True
tri: bool | None = None
carriers: list[str] = ["AA"]
modes: list[Literal["u", "v"]] = ["u"]
extra: dict[str, int] = {}
folder: Path | None = None
key: Secret | None = None
mixed: int | str = 5
wanted: str
"""
MODEL = parse_parameters(EVERY_KIND)


def one(source: str, **options: Any) -> FormField:
    """The only field of a form."""
    [field] = form_fields(parse_parameters(source), **options)
    return field


def untouched(model: Any, **typed: str) -> dict[str, list[str]]:
    """What a browser sends if nobody changes anything but this."""
    sent = {}
    for field in form_fields(model):
        values = list(field.values)
        if field.control is Control.CHECKBOX:
            values = ["true"] * (values == ["true"])
        elif field.control is Control.LIST:
            values += ["", ""]
        elif field.control is not Control.CHOICES:
            values = values or [""]
        if values:
            sent[field.name] = values
    return sent | {PREFIX + name: [text] for name, text in typed.items()}


class TestFields:
    """How a parameter is asked for."""

    @pytest.mark.parametrize(
        ("name", "control"),
        [
            ("source", "text"),
            ("since", "day"),
            ("at", "moment"),
            ("period", "select"),
            ("mode", "select"),
            ("maybe", "select"),
            ("top", "integer"),
            ("share", "number"),
            ("amount", "number"),
            ("own", "checkbox"),
            ("tri", "select"),
            ("carriers", "list"),
            ("modes", "choices"),
            ("extra", "json"),
            ("folder", "text"),
            ("key", "secret"),
            ("mixed", "text"),
        ],
    )
    def test_control(self, name: str, control: str) -> None:
        """Each type has a control that suits it."""
        fields = {field.name: field for field in form_fields(MODEL)}
        assert fields[PREFIX + name].control == control

    def test_enumeration(self) -> None:
        """The members of our own enumerations are called by their names."""
        field = one("period: Period = Period.MONTH")
        assert ("1mo", "Month") in field.options
        assert field.text == "1mo"

    def test_nothing_chosen(self) -> None:
        """What may be left open has a choice that says so; what may not has none."""
        assert one('a: Literal["x"] | None = None').options[0] == ("", "Not set")
        assert one('a: Literal["x", "y"] = "x"').options[0] == ("x", "x")

    def test_three_answers(self) -> None:
        """Yes, no, or nothing at all."""
        options = one("a: bool | None = None").options
        assert options == (("", "Not set"), ("true", "Yes"), ("false", "No"))

    def test_help(self) -> None:
        """The comment is the help, and the bounds are said in words."""
        field = one("top: Annotated[int, Field(ge=1, le=30)] = 10  # how many to draw")
        assert (field.help, field.limits) == ("How many to draw", "at least 1; at most 30")
        assert field.default == "10"
        assert not field.needed

    def test_needed(self) -> None:
        """A parameter without a default has to be given."""
        field = one("who: str")
        assert field.needed
        assert field.values == ()

    def test_places(self) -> None:
        """Where data comes from is chosen among what is configured, and the default."""
        field = one('source: str = "sample"', places={"source": ["sales", "sample"]})
        assert field.control is Control.SELECT
        assert [value for value, _ in field.options] == ["sample", "sales"]

    def test_no_place(self) -> None:
        """A folder that the settings decide about can be left to them."""
        field = one("folder: Path | None = None", places={"folder": []})
        assert field.options == (("", "As in the settings"),)

    def test_comes_back(self) -> None:
        """What was sent stands in the form again, with what is wrong about it."""
        field = one("top: int = 10", sent={"p-top": ["many"]}, problems={"top": "no number"})
        assert (field.text, field.problem) == ("many", "no number")

    def test_every_report(self) -> None:
        """Every report that ships has a field with a help for each parameter."""
        for path in sorted(ROOT.glob("reports/*.ipynb")):
            fields = form_fields(read_parameters(path))
            assert fields
            assert all(field.help for field in fields), path.name


class TestReading:
    """What comes back from a browser."""

    def test_untouched(self) -> None:
        """A form that nobody changed asks for the defaults."""
        sent = untouched(MODEL, wanted="x")
        read = validate_parameters(MODEL, read_form(MODEL, sent))
        assert read == validate_parameters(MODEL, {"wanted": "x"})

    def test_every_report(self) -> None:
        """So does the form of every report that ships."""
        for path in sorted(ROOT.glob("reports/*.ipynb")):
            model = read_parameters(path)
            read = validate_parameters(model, read_form(model, untouched(model)))
            assert read == validate_parameters(model, {}), path.name

    def test_unticked(self) -> None:
        """A box that is not ticked is a no, also where yes is the default."""
        assert read_form(parse_parameters("own: bool = True"), {}) == {"own": False}

    def test_emptied(self) -> None:
        """A list that was emptied is empty, and does not take its default."""
        model = parse_parameters('carriers: list[str] = ["AA"]; kinds: list[Literal["u"]] = ["u"]')
        assert read_form(model, {"p-carriers": ["", " "]}) == {"carriers": [], "kinds": []}

    def test_left_open(self) -> None:
        """An empty field is nothing where that is allowed, else the default."""
        model = parse_parameters("a: int | None = 5; b: int = 6")
        read = read_form(model, {"p-a": [""], "p-b": [""]})
        assert read == {"a": None}

    def test_text_stays(self) -> None:
        """A text is taken as it was typed, commas, zeros and words for nothing included."""
        model = parse_parameters('unit: str = "x"')
        for text in ("007", "none", "a, b", " x "):
            read = validate_parameters(model, read_form(model, {"p-unit": [text]}))
            assert read.model_dump() == {"unit": text}

    def test_unknown(self) -> None:
        """A name that no parameter has is refused, not dropped; other names are not ours."""
        read = read_form(MODEL, untouched(MODEL, wanted="x", tpo="5") | {"csrf_token": ["c"]})
        with pytest.raises(ParameterError, match=r"tpo.*Did you mean 'top'") as caught:
            validate_parameters(MODEL, read)
        assert set(caught.value.context["problems"]) == {"tpo"}

    def test_all_at_once(self) -> None:
        """Everything that is wrong is said together, each at its own field."""
        sent = untouched(MODEL, wanted="x", top="500", since="someday", share="half")
        with pytest.raises(ParameterError) as caught:
            validate_parameters(MODEL, read_form(MODEL, sent))
        fields = form_fields(MODEL, sent=sent, problems=caught.value.context["problems"])
        assert [field.label for field in fields if field.problem] == ["Since", "Top", "Share"]
        assert "500" in {field.text for field in fields}

    @given(
        st.dictionaries(
            st.sampled_from([PREFIX + name for name in MODEL.model_fields]),
            st.lists(st.text(max_size=8), max_size=3),
        )
    )
    def test_anything(self, sent: dict[str, list[str]]) -> None:
        """Whatever is sent is either accepted or refused by name, and can be shown again."""
        problems: dict[str, str] = {}
        try:
            validate_parameters(MODEL, read_form(MODEL, sent))
        except ParameterError as error:
            problems = error.context["problems"]
        assert problems.keys() <= set(MODEL.model_fields)
        assert len(form_fields(MODEL, sent=sent)) == len(MODEL.model_fields)
