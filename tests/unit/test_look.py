"""The theme, numbers and names that can be read, and files."""

import itertools
import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import altair as alt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import OutputError, ValidationError
from tallybook.look import (
    DARK,
    LIGHT,
    TONES,
    Look,
    all_digits,
    chart_png,
    chart_spec,
    chart_svg,
    chart_title,
    contrast,
    dark_config,
    heading,
    light_config,
    number_format,
    plain,
    save_chart,
    text_width,
    theme,
    use_theme,
    with_unit,
    wrap,
)

BARS = alt.Chart(pl.DataFrame({"a": ["x", "y"], "b": [1, 2]})).mark_bar().encode(x="b", y="a")

# How people without one kind of cone see linear RGB: Machado, Oliveira and Fernandes (2009).
SIGHTS = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red cones": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "no green cones": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "no blue cones": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)
Vector = tuple[float, ...]


def times(matrix: tuple[Vector, ...], vector: Vector) -> Vector:
    return tuple(sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)


def lab(colour: str, sight: tuple[Vector, ...]) -> Vector:
    """Return a colour in CIELAB, as somebody with this sight sees it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    seen = tuple(min(max(c, 0), 1) for c in times(sight, linear))
    ratios = [c / white for c, white in zip(times(XYZ, seen), WHITE, strict=True)]
    x, y, z = (r ** (1 / 3) if r > 0.008856 else 7.787 * r + 16 / 116 for r in ratios)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


class TestColours:
    """The two looks."""

    @pytest.mark.parametrize("sight", SIGHTS)
    @pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
    def test_tones_differ_for_everybody(self, look: Look, sight: str) -> None:
        """Any two tones are 12 units of CIELAB apart, whichever cones a reader has."""
        seen = [lab(colour, SIGHTS[sight]) for colour in look.tones]
        for one, other in itertools.combinations(seen, 2):
            assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 12

    @pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
    def test_contrast(self, look: Look) -> None:
        """Text has 4.5 to 1 and marks 3 to 1, also on paper that is not quite white or black."""
        paper = "#FBFBFA" if look is LIGHT else "#1A1D22"
        assert min(contrast(c, paper) for c in (look.ink, look.muted, *look.tones[:-1])) >= 4.5
        assert contrast(look.tones[-1], paper) >= 3

    def test_contrast_is_wcag(self) -> None:
        """Known pairs have the ratios that the standard gives them."""
        assert contrast("#777777", "#FFFFFF") == 4.48
        assert contrast("#FFFFFF", "#777777") == contrast("#777777", "#FFFFFF")
        assert contrast("#123456", "#123456") == 1

    def test_dark_replaces_every_colour(self) -> None:
        """No colour of the light look is left when the dark look is merged over it."""
        colours = re.findall(r"#[0-9A-F]{6}", json.dumps(light_config()))
        assert colours
        assert not set(colours) & set(re.findall(r"#[0-9A-F]{6}", json.dumps(dark_config())))


class TestTheme:
    """What Altair is told."""

    def test_import_changes_nothing(self) -> None:
        """Importing the module leaves the theme of the session alone."""
        code = "import altair as a; before = a.theme.active; import tallybook.look; "
        code += "assert a.theme.active == before; assert 'tallybook' in a.theme.names()"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_use_theme(self) -> None:
        """Asked for, it is used for every chart."""
        before = alt.theme.active
        try:
            use_theme()
            assert BARS.to_dict()["config"] == theme()["config"]
        finally:
            alt.theme.enable(before)

    def test_spec_has_theme_whatever_is_active(self) -> None:
        """Another theme neither shows in a specification nor is lost by making one."""
        with alt.theme.enable("dark"):
            assert chart_spec(BARS)["config"] == theme()["config"]
            assert alt.theme.active == "dark"

    def test_too_many_rows(self) -> None:
        """Records instead of totals are refused in words."""
        chart = alt.Chart(pl.DataFrame({"a": range(5_001)})).mark_bar().encode(x="a")
        with pytest.raises(ValidationError, match=r"more than 5,000 rows\. Draw totals"):
            chart_spec(chart)


class TestNumbers:
    """How numbers are written."""

    @pytest.mark.parametrize(
        ("values", "texts"),
        [
            ([205_589.0, -7_041.0, 346.0, 0.0], ["205,589", "−7,041", "346", "0"]),
            ([1_234_567.0, 999_999.0, 12.4, 0.0], ["1.23M", "1.00M", "12", "0"]),
            ([-2_345_678_901.0, 68_000.0], ["−2.35B", "68.0K"]),
            ([1e16], ["10,000T"]),
            ([12.5, 3.0], ["12.50", "3.00"]),
            ([0.00123, 0.0], ["0.00123", "0.00000"]),
            ([0.0], ["0"]),
            ([1_000.4, -0.4], ["1,000", "0"]),
        ],
    )
    def test_one_way_for_all(self, values: list[float], texts: list[str]) -> None:
        """The largest decides for all, and nothing is minus zero."""
        assert [*map(number_format(values), values)] == texts

    def test_no_numbers(self) -> None:
        """With nothing to look at, numbers are whole."""
        assert number_format([])(3.0) == "3"

    @given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
    def test_all_digits(self, amount: Decimal) -> None:
        """What is written in full reads back as the same number."""
        text = all_digits(amount).replace(",", "").replace("−", "-")
        assert Decimal(text) == amount

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_all_digits_of_floats(self, amount: float) -> None:
        """A float too is written so that it reads back."""
        assert float(all_digits(amount).replace(",", "").replace("−", "-")) == amount

    @pytest.mark.parametrize(
        ("number", "unit", "text"),
        [
            ("7", "", "7"),
            ("7", "minutes", "7 minutes"),
            ("−7", "€", "−€7"),
            ("7", "$", "$7"),
            ("7", r"\1", r"7 \1"),
        ],
    )
    def test_with_unit(self, number: str, unit: str, text: str) -> None:
        """A currency sign goes between sign and number, any other unit behind."""
        assert with_unit(number, unit) == text


class TestNames:
    """Names and long texts."""

    @given(st.text())
    def test_plain(self, name: str) -> None:
        """No control character and no change of direction is left, and never nothing."""
        shown = plain(name)
        assert shown.isprintable() or not re.search(r"[\x00-\x1f\x7f\u2028\u2029]", shown)
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
        assert plain(shown) == shown != ""

    @given(st.text(), st.integers(40, 400), st.integers(1, 4))
    def test_wrap_fits(self, text: str, width: int, most: int) -> None:
        """Lines fit, are few enough, and lose nothing unless they say so."""
        lines = wrap(text, width, 13, most)
        assert len(lines) <= most
        assert all(text_width(line, 13) <= width for line in lines)
        if not lines[-1].endswith("…"):
            assert "".join("".join(lines).split()) == "".join(text.split())

    def test_wrap_is_balanced(self) -> None:
        """A last word does not stand alone where the lines could be equally long."""
        assert wrap("ExpressJet Airlines Inc.", 120, 13) == ["ExpressJet", "Airlines Inc."]

    @pytest.mark.parametrize("text", ["ExpressJet Airlines Inc.", "807,324", "WAVY Mmm @ 100%"])
    def test_width_is_what_is_drawn(self, text: str) -> None:
        """The estimate is how wide vl-convert draws the text, or a little more where it kerns."""
        chart = alt.Chart(pl.DataFrame({"t": [text]}), width=10, height=10)
        spec = chart_spec(
            chart.mark_text(align="left", fontSize=40).encode(text="t", x=alt.value(0))
        )
        spec["config"]["padding"] = 0
        width = int(re.search(r'width="(\d+)"', chart_svg(spec))[1])  # type: ignore[index]
        assert width - 3 <= text_width(text, 40) <= width * 1.08


class TestHeading:
    """Titles."""

    def test_there_and_back(self) -> None:
        """A heading is broken into lines, and read back as one."""
        title = "A sentence that says what is seen in this chart, with the number that matters: 42"
        chart = BARS.properties(title=heading(title, "Minutes.", "The <b>Office</b>"))
        assert len(chart.title.text) > 1
        assert chart_title(chart_spec(chart)) == (title, "Minutes. Source: The <b>Office</b>")

    @pytest.mark.parametrize(
        "spec", [{}, {"title": None}, {"title": {}}, {"title": {"text": None}}]
    )
    def test_none(self, spec: dict[str, object]) -> None:
        """A chart without a title has an empty one."""
        assert chart_title(spec) == ("", "")

    def test_other_forms(self) -> None:
        """Charts made elsewhere have titles as a text or as lines."""
        assert chart_title({"title": "One"}) == ("One", "")
        assert chart_title({"title": ["One", "two"]}) == ("One two", "")


class TestPictures:
    """SVG and PNG."""

    def test_png(self) -> None:
        """A PNG has as many pixels as were asked for."""
        one, two = chart_png(chart_spec(BARS), scale=1), chart_png(chart_spec(BARS))
        widths = [int.from_bytes(png[16:20]) for png in (one, two)]
        assert one.startswith(b"\x89PNG")
        assert widths[1] == pytest.approx(2 * widths[0], abs=2)

    def test_font(self) -> None:
        """Text is asked for in the fonts that the widths are known of."""
        svg = chart_svg(chart_spec(BARS))
        assert set(re.findall(r'font-family="([^"]+)"', svg)) == {
            "Liberation Sans, Arial, Helvetica, sans-serif"
        }

    def test_no_requests(self) -> None:
        """A specification that wants data from an address does not get it."""
        spec = {"data": {"url": "http://127.0.0.1:9/x.csv"}, "mark": "bar", "encoding": {}}
        with pytest.raises(ValueError, match="not allowed"):
            chart_svg(spec)

    def test_reading_layer_left_out(self) -> None:
        """What only serves a pointer is not in the still picture, wherever it is in the chart."""
        layers = []
        for name in ("reading", "other"):
            near = alt.selection_point(name=f"near_{name}", on="pointerover", nearest=True)
            layers.append(BARS.mark_circle().add_params(near).properties(name=name))
        alone = alt.layer(BARS, layers[0])
        both = alt.vconcat(alt.layer(BARS, layers[0]), alt.layer(BARS, layers[1]))
        assert "voronoi" not in chart_svg(chart_spec(alone))
        assert chart_svg(chart_spec(both)).count("other_1_voronoi") == 1

    def test_tones_in_theme(self) -> None:
        """Charts name tones, the theme has a colour for each."""
        assert len(LIGHT.tones) == len(DARK.tones) == len(TONES)


class TestSaveChart:
    """The three files."""

    def test_files(self, tmp_path: Path) -> None:
        """Folder and files are made, and nothing else is left in the folder."""
        saved = save_chart(BARS, tmp_path / "new" / "charts", "some-name")
        files = sorted(path.name for path in (tmp_path / "new" / "charts").iterdir())
        assert files == ["some-name.png", "some-name.svg", "some-name.vl.json"]
        assert json.loads(saved.spec.read_text()) == chart_spec(BARS)
        assert saved.svg.read_text().startswith("<svg")
        assert saved.png.read_bytes() == chart_png(chart_spec(BARS))

    def test_again(self, tmp_path: Path) -> None:
        """Saving again replaces, with the same digest for the same chart."""
        assert save_chart(BARS, tmp_path, "a") == save_chart(BARS, str(tmp_path), "a")

    @pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a\n", "ä", "a" * 101, "a\0"])
    def test_bad_name(self, tmp_path: Path, name: str) -> None:
        """A name that could lead elsewhere is refused before anything is drawn."""
        with pytest.raises(ValidationError, match="is not a name for files"):
            save_chart(BARS, tmp_path, name)
        assert not list(tmp_path.iterdir())

    def test_folder_is_a_file(self, tmp_path: Path) -> None:
        """A folder that cannot be one is an error that names the path."""
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            save_chart(BARS, tmp_path / "file", "a")

    def test_name_taken_by_a_folder(self, tmp_path: Path) -> None:
        """A folder where a file should go is an error, and leaves no draft behind."""
        (tmp_path / "a.vl.json").mkdir()
        with pytest.raises(OutputError, match=r"a\.vl\.json"):
            save_chart(BARS, tmp_path, "a")
        assert [path.name for path in tmp_path.iterdir()] == ["a.vl.json"]
