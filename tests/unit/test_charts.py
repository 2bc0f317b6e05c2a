"""Charts say what is in their totals, refuse what is not totals, and are always the same."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import altair as alt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.charts import (
    chart_png,
    chart_spec,
    chart_svg,
    chart_title,
    fold_small,
    overview,
    shares,
    totals_by_category,
    trend,
)
from tallybook.errors import ExactnessError, SchemaError, ValidationError
from tallybook.marks import spread
from tallybook.types import Period

MONEY = pl.Decimal(38, 9)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script>",
    "datum.value; 1/0",
    "'); alert(1); ('",
    "\\u0022",
    "{{7*7}}",
    "__proto__",
    "constructor",
    "\u202etxt.exe",
    "line\nbreak\r\ttab\0nul",
    "a" * 500,
    "   ",
    "",
    "2013-01-01",
    "NaN",
    "日本語のカテゴリー",
    "مبيعات",
    "👩‍👩‍👧‍👦 family",
]

Spec = dict[str, Any]


def totals(amounts: Mapping[str | None, str | int | float], dtype: Any = MONEY) -> pl.DataFrame:
    """Return totals as `finalize` gives them, of some categories."""
    numbers = [Decimal(str(a)) if dtype == MONEY else float(a) for a in amounts.values()]
    return pl.DataFrame(
        {"category": list(amounts), "total_amount": numbers},
        schema={"category": pl.String, "total_amount": dtype},
    ).with_columns(
        avg_amount=pl.col("total_amount").cast(pl.Float64) / 2,
        transaction_count=pl.lit(2, pl.Int64),
        min_amount=pl.col("total_amount") - 1,
        max_amount=pl.col("total_amount") + 1,
    )


def by_period(
    series: Mapping[str, list[float | None]],
    every: str = "1mo",
    zone: str | None = "America/New_York",
    start: datetime = datetime(2013, 1, 1),
) -> pl.DataFrame:
    """Return totals by period; None leaves the row out."""
    length = max(map(len, series.values()))
    stop = start + timedelta(days=400 * length)
    starts = pl.datetime_range(start, stop, every, time_zone=zone, eager=True).head(length)
    frames = [
        pl.DataFrame(
            {"period": starts.head(len(amounts)), "category": name, "total_amount": amounts}
        )
        for name, amounts in series.items()
    ]
    return pl.concat(frames, how="vertical_relaxed").drop_nulls("total_amount")


def rows(spec: Spec, layer: Spec) -> list[dict[str, Any]]:
    return spec["datasets"][layer["data"]["name"]]


def marks(spec: Spec) -> Iterator[Spec]:
    """Return every layer of a chart, however deep, with its data."""
    parts = spec.get("layer", []) + spec.get("vconcat", [])
    if parts:
        for part in parts:
            yield from marks({"data": spec.get("data"), **part})
    else:
        yield spec


def layer(spec: Spec, kind: str, nth: int = 0) -> Spec:
    found = [mark for mark in marks(spec) if mark["mark"]["type"] == kind]
    return found[nth]


def drawn(chart: alt.TopLevelMixin, kind: str, nth: int = 0) -> list[dict[str, Any]]:
    """Return the rows that one layer of a chart is drawn from."""
    spec = chart_spec(chart)
    return rows(spec, layer(spec, kind, nth))


def title(chart: alt.TopLevelMixin) -> str:
    return chart_title(chart_spec(chart))[0]


def subtitle(chart: alt.TopLevelMixin) -> str:
    return chart_title(chart_spec(chart))[1]


AIRLINES = totals(
    {"Envoy": 269_767, "ExpressJet": 807_324, "Alaska": -7_041, "United": 205_589, "Virgin": 9_027}
)
MONTHS = by_period(
    {
        "ExpressJet": [99, 71, 90, None, None, 86],
        "United": [14, 1, 7, 43, -12, 62],
        "Envoy": [17, 14, 6, 38, 26, 46],
        "Virgin": [None, None, 3, None, None, None],
        "Alaska": [-1, -2, -1, -2, -1, -2],
    }
)


class TestTotalsByCategory:
    """Bars."""

    def test_largest_first(self) -> None:
        """Bars are in the order of their totals, whatever the order of the rows."""
        bars = drawn(totals_by_category(AIRLINES), "bar")
        assert [row["category"] for row in bars] == [
            *("ExpressJet", "Envoy", "United", "Virgin", "Alaska")
        ]
        assert [row["rank"] for row in bars] == [1, 2, 3, 4, 5]

    def test_encoding(self) -> None:
        """Length is the total from zero, the order is the rank, the name is only text."""
        spec = chart_spec(totals_by_category(AIRLINES, unit="minutes"))
        encoding = layer(spec, "bar")["encoding"]
        assert encoding["x"]["field"] == "value"
        assert encoding["x"]["scale"]["domain"] == [-7_041, 807_324]
        assert encoding["x"]["axis"]["title"] == "minutes"
        assert encoding["y"] == {
            **encoding["y"], "field": "rank", "type": "ordinal", "axis": None
        }  # fmt: skip
        assert layer(spec, "text")["encoding"]["text"]["field"] == "label"

    def test_values_at_bars(self) -> None:
        """Values stand right of gains and left of losses."""
        spec = chart_spec(totals_by_category(AIRLINES))
        gains, losses = layer(spec, "text", 1), layer(spec, "text", 2)
        assert (gains["mark"]["align"], losses["mark"]["align"]) == ("left", "right")
        assert gains["transform"] == [{"filter": "datum.value >= 0"}]
        assert losses["transform"] == [{"filter": "datum.value < 0"}]
        assert [row["text"] for row in rows(spec, gains)] == [
            *("807,324", "269,767", "205,589", "9,027", "−7,041")
        ]

    def test_signs(self) -> None:
        """Gains are blue, losses orange, what was folded is grey."""
        chart = totals_by_category(totals({"a": 9, "b": -8, "c": 1, "d": 1}), top=2)
        assert [(row["category"], row["tone"]) for row in drawn(chart, "bar")] == [
            *[("a", "blue"), ("b", "orange"), ("Other (2)", "grey")]
        ]

    def test_tooltip_is_exact(self) -> None:
        """Drawing is in floats, but the tooltip has every digit."""
        frame = totals({"a": "12345678901234567890.123456789"})
        (row,) = drawn(totals_by_category(frame, unit="EUR"), "bar")
        assert row["exact"] == "12,345,678,901,234,567,890.123456789 EUR"
        assert row["text"] == "12,300,000T"
        spec = chart_spec(totals_by_category(frame, measure="net sales"))
        heads = [tip["title"] for tip in layer(spec, "bar")["encoding"]["tooltip"]]
        assert heads == ["Category", "Net sales", "Transactions", "Average"]

    def test_only_what_is_known(self) -> None:
        """Totals without counts and averages are drawn too, and the tooltip leaves them out."""
        spec = chart_spec(totals_by_category(AIRLINES.select("category", "total_amount")))
        heads = [tip["title"] for tip in layer(spec, "bar")["encoding"]["tooltip"]]
        assert heads == ["Category", "Total"]

    def test_width(self) -> None:
        """It fits its container, and a picture is 640 pixels wide."""
        spec = chart_spec(totals_by_category(AIRLINES))
        assert spec["width"] == "container"
        assert re.match(r'<svg [^>]*width="640"', chart_svg(spec))

    def test_names_get_room(self) -> None:
        """Long names are broken into lines, and bars start where the widest line ends."""
        short = chart_spec(totals_by_category(totals({"a": 1, "b": 2})))
        long = chart_spec(totals_by_category(totals({"Department of Redundancy Department": 1})))
        left = [layer(s, "bar")["encoding"]["x"]["scale"]["rangeMin"] for s in (short, long)]
        assert left[0] < 40
        assert 100 < left[1] < 190
        assert rows(long, layer(long, "bar"))[0]["label"].count("\n") == 1
        assert long["height"] == 35

    def test_thirty(self) -> None:
        """Thirty categories are thirty bars of the usual height."""
        spec = chart_spec(totals_by_category(totals({f"c{i}": i for i in range(30)})))
        assert len(rows(spec, layer(spec, "bar"))) == 30
        assert spec["height"] == 750

    def test_zeros(self) -> None:
        """Without any length to show, there still is a scale."""
        spec = chart_spec(totals_by_category(totals({"a": 0, "b": 0})))
        assert layer(spec, "bar")["encoding"]["x"]["scale"]["domain"] == [0, 1]
        assert chart_png(spec)

    def test_all_negative(self) -> None:
        """Losses alone end at zero on the right."""
        spec = chart_spec(totals_by_category(totals({"a": -5, "b": -3})))
        assert layer(spec, "bar")["encoding"]["x"]["scale"]["domain"] == [-5, 0]
        assert [row["category"] for row in rows(spec, layer(spec, "bar"))] == ["b", "a"]

    def test_null_category(self) -> None:
        """Rows without a category have a name that says so."""
        assert drawn(totals_by_category(totals({None: 1})), "bar")[0]["category"] == "(no category)"

    def test_float_totals(self) -> None:
        """Float totals are drawn like any other."""
        (row,) = drawn(totals_by_category(totals({"a": 0.1}, pl.Float64)), "bar")
        assert (row["value"], row["exact"]) == (0.1, "0.1")


class TestTitles:
    """What is seen, in a sentence."""

    @pytest.mark.parametrize(
        ("amounts", "said"),
        [
            ({"a": 3, "b": 2}, "a has the largest total: 3 EUR"),
            ({"a": -3, "b": -2}, "b has the largest total: −2 EUR"),
            ({"a": 1_234_567, "b": 2}, "a has the largest total: 1.23M EUR"),
            ({"a": 3, "b": 3, "c": 1}, "a and b share the largest total: 3 EUR"),
            ({"a": 3, "b": 3, "c": 3, "d": 1}, "Three categories share the largest total: 3 EUR"),
            ({"a": 0, "b": 0, "c": 0}, "All three categories have the same total: 0 EUR"),
            ({"a": 1, "b": 1}, "a and b have the same total: 1 EUR"),
            ({"only": 42}, "only has a total of 42 EUR"),
            ({"eBay": 2, "b": 1}, "eBay has the largest total: 2 EUR"),
        ],
    )
    def test_leader(self, amounts: dict[str | None, int], said: str) -> None:
        """There is a sentence for a winner, a tie, one category, and all the same."""
        assert title(totals_by_category(totals(amounts), unit="EUR")) == said

    def test_other_is_never_the_leader(self) -> None:
        """What was folded does not win, however much it adds up to."""
        chart = totals_by_category(totals({f"c{i}": 10 - i for i in range(9)}), top=1)
        assert title(chart) == "c0 has the largest total: 10"
        assert "Other adds up the eight smallest." in subtitle(chart)
        assert "Other adds up the eight smallest." in chart_spec(chart)["description"]

    def test_own(self) -> None:
        """A title that is given is used, whole."""
        own = "Something that somebody wanted to say about these totals, at some length " * 2
        assert title(totals_by_category(AIRLINES, title=own)) == own.strip()

    def test_subtitle(self) -> None:
        """It says what is measured, in what, and where it is from."""
        chart = totals_by_category(AIRLINES, unit="minutes", measure="delay", source="US DOT")
        assert subtitle(chart) == "Delay by category, in minutes. Source: US DOT"

    def test_lines_fit(self) -> None:
        """No line of a title or subtitle is wider than the picture."""
        frame = totals({"A name that goes on and on, " * 5: 3_000_000, "b": 1})
        spec = chart_spec(totals_by_category(frame, measure="very long measure " * 4))
        svg = chart_svg(spec)
        assert re.match(r'<svg [^>]*width="640"', svg)
        assert len(spec["title"]["text"]) == 3

    def test_description(self) -> None:
        """The words for a screen reader have names, numbers and units, the last one too."""
        words = chart_spec(totals_by_category(AIRLINES, unit="minutes"))["description"]
        assert words.startswith("Bar chart of the total by category. ExpressJet: 807,324 minutes; ")
        assert "Alaska: −7,041 minutes" in words
        many = totals({f"c{i}": i for i in range(30)})
        words = chart_spec(totals_by_category(many))["description"]
        assert words.endswith("c25: 25; and so on to c0: 0.")

    def test_marks_speak(self) -> None:
        """Each bar has its own words; texts that repeat them are silent."""
        spec = chart_spec(totals_by_category(totals({"tea": 5}), unit="€"))
        assert layer(spec, "bar")["encoding"]["description"]["field"] == "said"
        assert rows(spec, layer(spec, "bar"))[0]["said"] == "tea: €5"
        assert all(
            mark["mark"]["aria"] is False for mark in marks(spec) if mark["mark"]["type"] == "text"
        )


class TestFoldSmall:
    """Adding up the tail."""

    @given(
        st.dictionaries(
            st.text(max_size=3),
            st.decimals(-(10**20), 10**20, places=9),
            min_size=1,
            max_size=12,
        ),
        st.integers(1, 12),
    )
    def test_nothing_is_lost(self, amounts: dict[str | None, Any], top: int) -> None:
        """Sums and counts are the same before and after, to the last digit."""
        frame = totals(amounts)
        folded = fold_small(frame, top)
        assert sum(map(Fraction, folded["total_amount"])) == sum(map(Fraction, amounts.values()))
        assert folded["transaction_count"].sum() == frame["transaction_count"].sum()
        assert folded["min_amount"].min() == frame["min_amount"].min()
        assert folded.schema == frame.schema
        assert folded.height == min(len(amounts), top + 1)

    def test_by_size(self) -> None:
        """A large loss is as worth seeing as a large gain."""
        folded = fold_small(totals({"a": 5, "b": -9, "c": 1, "d": 1}), 2)
        assert folded["category"].to_list() == ["a", "b", "Other (2)"]

    def test_average(self) -> None:
        """The average of the others is over their transactions, not over their averages."""
        frame = totals({"a": 100, "b": 10, "c": 2}).with_columns(
            transaction_count=pl.Series([1, 1, 5])
        )
        assert fold_small(frame, 1)["avg_amount"].to_list()[1] == 2.0

    def test_one_left_over_is_kept(self) -> None:
        """Folding a single category would hide its name for nothing."""
        assert fold_small(totals({"a": 3, "b": 2, "c": 1}), 2)["category"].to_list() == [
            "a",
            "b",
            "c",
        ]

    @pytest.mark.parametrize("top", [None, 3, 99])
    def test_nothing_to_fold(self, top: int | None) -> None:
        """All fit: they come back, sorted."""
        assert fold_small(totals({"b": 2, "a": 3}), top)["category"].to_list() == ["a", "b"]

    def test_name_taken(self) -> None:
        """A category that is called like the others' row stays apart from it."""
        folded = fold_small(totals({"Other (2)": 9, "a": 2, "b": 1}), 1)
        assert folded.select("category", "total_amount").rows() == [
            *[("Other (2)", Decimal(9)), ("Other (2)*", Decimal(3))]
        ]

    def test_floats(self) -> None:
        """Floats are added without rounding on the way."""
        folded = fold_small(
            totals({"big": 9e9, **{f"c{i}": 0.1 for i in range(10)}}, pl.Float64), 1
        )
        assert folded["total_amount"].to_list()[1] == 1.0

    @pytest.mark.parametrize("top", [0, -1])
    def test_top_too_small(self, top: int) -> None:
        """Showing nothing is refused."""
        with pytest.raises(ValidationError, match=f"top is {top}"):
            fold_small(AIRLINES, top)

    def test_does_not_fit(self) -> None:
        """A sum beyond the type is refused instead of wrapped."""
        nines = Decimal("9" * 29)
        frame = pl.DataFrame(
            {"category": ["a", "b", "c"], "total_amount": [nines] * 3},
            schema_overrides={"total_amount": MONEY},
        )
        with pytest.raises(ExactnessError, match=r"add up to 19{28}8"):
            fold_small(frame, 1)


class TestShares:
    """Parts of a whole."""

    def test_parts(self) -> None:
        """Labels are percentages of the whole, also when some are folded."""
        chart = shares(totals({"a": 50, "b": 30, "c": 15, "d": 5}), top=2, unit="EUR")
        bars = drawn(chart, "bar")
        assert [row["text"] for row in bars] == ["50.0%", "30.0%", "20.0%"]
        assert [row["exact"] for row in bars] == ["50 EUR", "30 EUR", "20 EUR"]
        assert "b: 30.0%" in chart_spec(chart)["description"]

    @pytest.mark.parametrize(
        ("amounts", "said"),
        [
            ([50, 30, 20], "c0 makes up 50% of the sales"),
            ([40, 30, 20, 10], "Two of four categories make up 70% of the sales"),
            ([1] * 26, "13 of 26 categories make up 50% of the sales"),
            ([7], "c0 makes up 100% of the sales"),
            ([7, 0], "c0 makes up 100% of the sales"),
        ],
    )
    def test_title(self, amounts: list[int], said: str) -> None:
        """It says how few make up half."""
        frame = totals(
            {f"c{i:02}" if len(amounts) > 9 else f"c{i}": a for i, a in enumerate(amounts)}
        )
        assert title(shares(frame, measure="sales")) == said

    def test_negative(self) -> None:
        """A loss is part of nothing."""
        with pytest.raises(ValidationError, match="'Alaska' has −7,041"):
            shares(AIRLINES)

    def test_nothing(self) -> None:
        """Nor is there a share of zero."""
        with pytest.raises(ValidationError, match="Every total is zero"):
            shares(totals({"a": 0}))


class TestRefusals:
    """What is not totals."""

    CHARTS = (totals_by_category, shares, trend, lambda frame: overview(frame, MONTHS))

    @pytest.mark.parametrize("draw", CHARTS)
    def test_empty(self, draw: Any) -> None:
        """No row is an error that says where to look."""
        frame = (MONTHS if draw is trend else AIRLINES).head(0)
        with pytest.raises(ValidationError, match=r"nothing to draw.*rejects"):
            draw(frame)

    @pytest.mark.parametrize("draw", CHARTS)
    def test_missing_column(self, draw: Any) -> None:
        """A missing column is named, with those that are there and the nearest."""
        with pytest.raises(SchemaError, match=r"no column '.*'; they have .*amuont"):
            draw(AIRLINES.rename({"total_amount": "total_amuont"}).drop("category", strict=False))

    def test_twice(self) -> None:
        """Totals that were not rolled up are not drawn over each other."""
        with pytest.raises(ValidationError, match="'ExpressJet' has more than one total"):
            totals_by_category(MONTHS)
        with pytest.raises(ValidationError, match="one row for each category and period"):
            trend(pl.concat([MONTHS, MONTHS]))

    @pytest.mark.parametrize("amount", [None, float("nan"), float("inf")])
    def test_no_number(self, amount: float | None) -> None:
        """A total that has no place is named."""
        frame = pl.DataFrame({"category": ["a", "b"], "total_amount": [1.0, amount]})
        with pytest.raises(ValidationError, match=r"total of 'b' is .*1 of 2 rows"):
            totals_by_category(frame)

    def test_nan_over_time(self) -> None:
        """Over time null is a gap, but NaN still is no number."""
        with pytest.raises(ValidationError, match="'a' is nan"):
            trend(by_period({"a": [1.0, float("nan")]}))

    def test_only_gaps(self) -> None:
        """All null is nothing to draw."""
        frame = by_period({"a": [1.0, 2.0]}).with_columns(total_amount=pl.lit(None, pl.Float64))
        with pytest.raises(ValidationError, match="nothing to draw"):
            trend(frame)

    def test_too_many_points(self) -> None:
        """Too many points is an error that says how many, and what to do."""
        year = by_period({f"c{i}": [1.0] * 365 for i in range(16)}, "1d")
        with pytest.raises(ValidationError, match=r"16 categories over 365 days make 5,840 .* top"):
            trend(year)
        assert len(drawn(trend(year, top=9), "line")) == 3_650

    def test_wrong_period(self) -> None:
        """Periods that do not start where they should are refused, not moved."""
        with pytest.raises(ValidationError, match="not by year"):
            trend(MONTHS, every=Period.YEAR)
        with pytest.raises(ValidationError, match="not by hour"):
            trend(MONTHS.with_columns(pl.col("period") + pl.duration(minutes=1)))


class TestHostileNames:
    """Names are only ever text."""

    FRAME = totals({name: 100 - i for i, name in enumerate(HOSTILE)})
    SERIES = by_period({name: [float(100 - i), 2.0, 3.0] for i, name in enumerate(HOSTILE)})

    @pytest.mark.parametrize(
        "chart",
        [totals_by_category(FRAME), shares(FRAME), trend(SERIES), overview(FRAME, SERIES)],
        ids=["totals", "shares", "trend", "overview"],
    )
    def test_inert(self, chart: alt.TopLevelMixin) -> None:
        """No name becomes an element of the picture or a part of an expression."""
        spec = chart_spec(chart)
        svg = chart_svg(spec)
        assert not re.search(r"<(script|img)", svg)
        assert chart_png(spec)
        code = json.dumps(
            {k: v for k, v in spec.items() if k not in {"datasets", "title", "description"}}
        )
        assert not [name for name in HOSTILE if name.strip() and json.dumps(name)[1:-1] in code]

    def test_all_drawn(self) -> None:
        """Every name has its own bar, with text that has no control characters."""
        spec = chart_spec(totals_by_category(self.FRAME))
        shown = rows(spec, layer(spec, "bar"))
        assert len(shown) == len(HOSTILE)
        assert not [row for row in shown if re.search("[\0-\x09\x0b-\x1f\u202e]", row["label"])]
        bars = re.findall(r'aria-label="([^"]*): \d+" role="graphics-symbol"', chart_svg(spec))
        assert len(bars) == len(HOSTILE)

    def test_hostile_words(self) -> None:
        """A measure and a unit are only text as well, in the expression of a tooltip too."""
        evil = "'\"}]; alert(1) //"
        spec = chart_spec(trend(MONTHS, unit=evil, measure=evil))
        (point,) = [mark for mark in marks(spec) if mark.get("name") == "reading"]
        assert json.dumps(evil) in point["mark"]["tooltip"]["expr"]
        assert chart_png(spec)


class TestTrend:
    """Lines."""

    def test_encoding(self) -> None:
        """Time goes across on a scale that no viewer's zone can move, values up from zero."""
        encoding = layer(chart_spec(trend(MONTHS, unit="minutes")), "line")["encoding"]
        assert (encoding["x"]["field"], encoding["x"]["type"]) == ("when", "temporal")
        assert encoding["x"]["scale"]["type"] == "utc"
        assert encoding["y"]["axis"]["title"] == "minutes per month"
        assert encoding["y"]["scale"]["domain"] == [-20, 120]
        assert encoding["detail"]["field"] == "rank"

    def test_local_time(self) -> None:
        """New York's midnight is drawn as midnight, in summer and in winter."""
        whens = {row["when"] for row in drawn(trend(MONTHS), "line")}
        assert whens == {f"2013-0{month}-01T00:00:00Z" for month in range(1, 7)}

    def test_gaps(self) -> None:
        """A month without a total is null; it breaks the line."""
        chart = trend(MONTHS)
        line = [row["value"] for row in drawn(chart, "line") if row["category"] == "ExpressJet"]
        assert line == [99, 71, 90, None, None, 86]
        assert layer(chart_spec(chart), "line")["mark"]["invalid"] == "break-paths-show-domains"

    def test_gap_for_everybody(self) -> None:
        """A month that nobody has a total for is a gap as well."""
        chart = trend(by_period({"a": [1, 2, None, 4], "b": [1, 2, None, 4]}))
        assert [row["value"] for row in drawn(chart, "line")] == [1, 2, None, 4] * 2

    def test_null_is_a_gap(self) -> None:
        """A null total is the same as no row."""
        frame = by_period({"a": [1.0, 2.0, 3.0]})
        null = frame.with_columns(
            pl.when(pl.col("total_amount") == 2)
            .then(None)
            .otherwise(pl.col("total_amount"))
            .alias("total_amount")
        )
        assert chart_spec(trend(null)) == chart_spec(trend(by_period({"a": [1.0, None, 3.0]})))

    def test_lonely_points(self) -> None:
        """A point between two gaps is a dot, because it has no line."""
        alone = [(r["category"], r["when"][:7]) for r in drawn(trend(MONTHS), "line") if r["alone"]]
        assert alone == [("Virgin", "2013-03"), ("ExpressJet", "2013-06")]
        assert layer(chart_spec(trend(MONTHS)), "circle")["transform"] == [
            {"filter": "datum.alone"}
        ]

    def test_colours(self) -> None:
        """The largest lines have colours in their order, and lie over the grey ones."""
        tones = {row["category"]: row["tone"] for row in drawn(trend(MONTHS, highlight=2), "line")}
        assert tones == {
            "Alaska": "grey",
            "Virgin": "grey",
            "United": "grey",
            "Envoy": "orange",
            "ExpressJet": "blue",
        }
        assert [*tones][-2:] == ["Envoy", "ExpressJet"]
        assert "Grey: three other categories." in subtitle(trend(MONTHS, highlight=2))

    def test_highest_is_highlighted(self) -> None:
        """The line that the title speaks of has a colour, though others are larger in all."""
        chart = trend(by_period({"a": [5, 5, 5], "b": [4, 4, 4], "c": [0, 9, 0]}), highlight=1)
        assert {r["category"] for r in drawn(chart, "line") if r["tone"] != "grey"} == {"c"}
        assert title(chart) == "c reaches the highest monthly total: 9 in February 2013"

    def test_named_highlights(self) -> None:
        """Categories can be chosen by name, and the title speaks of these."""
        chart = trend(MONTHS, highlight=["Alaska"])
        assert {r["category"] for r in drawn(chart, "line") if r["tone"] != "grey"} == {"Alaska"}
        assert title(chart).startswith("Alaska reaches the highest monthly total: −1 in January")

    def test_no_highlights(self) -> None:
        """All lines can be grey."""
        chart = trend(MONTHS, highlight=0)
        assert {row["tone"] for row in drawn(chart, "line")} == {"grey"}
        assert "Grey: five other categories." in subtitle(chart)
        assert chart_png(chart_spec(chart))

    @pytest.mark.parametrize(
        ("highlight", "message"),
        [
            (["Alasca"], "no line of 'Alasca' to highlight. Did you mean 'Alaska'"),
            (["a", "b", "c", "d", "e", "f"], "6 lines cannot be told apart; highlight 5"),
        ],
    )
    def test_wrong_highlights(self, highlight: list[str], message: str) -> None:
        """Names that are not there, and more than there are colours, are refused."""
        with pytest.raises(ValidationError, match=message):
            trend(MONTHS, highlight=highlight)
        with pytest.raises(ValidationError, match="cannot be told apart"):
            trend(by_period({f"c{i}": [1.0, 2.0] for i in range(9)}), highlight=6)

    def test_folding(self) -> None:
        """The others are one line, period by period, and every period's sum stays."""
        chart = trend(MONTHS, top=2)
        lines = drawn(chart, "line")
        assert {row["category"] for row in lines} == {"ExpressJet", "Envoy", "Other (3)"}
        other = [row["value"] for row in lines if row["category"] == "Other (3)"]
        assert other == [13, -1, 9, 41, -13, 60]
        assert "Grey: the sum of the three smallest." in subtitle(chart)

    def test_grey_and_folded(self) -> None:
        """Both kinds of grey are told."""
        assert "Grey: one other category and the sum of the two smallest." in subtitle(
            trend(MONTHS, top=3, highlight=2)
        )

    def test_description(self) -> None:
        """In words: what, the peak, and where highlighted lines start and end."""
        words = chart_spec(trend(MONTHS, highlight=1, unit="EUR"))["description"]
        assert words == (
            "Line chart of the total per month, in EUR, America/New York time. "
            "ExpressJet reaches the highest monthly total: 99 EUR in January 2013. "
            "ExpressJet goes from 99 EUR to 86 EUR. Grey: four other categories."
        )

    def test_names_at_ends(self) -> None:
        """Each coloured line has its name, and no two names overlap."""
        close = by_period({f"Category {i}": [1.0, 50.0 + i / 10] for i in range(5)})
        spec = chart_spec(trend(close, highlight=5))
        labels = [row for row in rows(spec, layer(spec, "text")) if "label" in row]
        low, high = layer(spec, "line")["encoding"]["y"]["scale"]["domain"]
        pixels = sorted((high - row["at"]) / (high - low) * 300 for row in labels)
        assert len(labels) == 5
        assert all(below - above > 15 for above, below in itertools.pairwise(pixels))
        assert min(pixels) > 5
        assert max(pixels) < 295

    def test_single_period(self) -> None:
        """One period is dots, and the title says which period."""
        chart = trend(by_period({"a": [3.0], "b": [2.0]}), every=Period.MONTH, unit="€")
        assert title(chart) == "In January 2013, a has the largest total: €3"
        assert [row["alone"] for row in drawn(chart, "line")] == [True, True]
        assert chart_svg(chart_spec(chart)).count("NaN") == 0

    def test_single_tie(self) -> None:
        """A crowd after an opening starts in lower case."""
        chart = trend(by_period({"a": [3.0], "b": [3.0], "c": [3.0]}), every=Period.DAY)
        assert title(chart) == "On 1 January 2013, all three categories have the same total: 3"

    @pytest.mark.parametrize(
        ("amounts", "said"),
        [
            ([1.0, 4.0, 2.0], "a reaches its highest monthly total: 4 in February 2013"),
            ([4.0, 4.0], "Every monthly total is 4"),
            ([0.0, None, 0.0], "Every monthly total is 0"),
        ],
    )
    def test_one_category(self, amounts: list[float | None], said: str) -> None:
        """A line alone is compared with itself."""
        assert title(trend(by_period({"a": amounts}))) == said

    def test_pointing(self) -> None:
        """The nearest point is found, and the picture does without."""
        spec = chart_spec(trend(MONTHS))
        near, focus = spec["params"]
        assert near["select"]["nearest"] is True
        assert focus == {"name": "focus", "expr": "near.rank || []"}
        assert "voronoi" not in chart_svg(spec)


class TestPeriods:
    """Time."""

    @pytest.mark.parametrize(
        ("every", "noun", "moment"),
        [
            ("1h", "hour", "at 1 January 2013, 01:00 EST"),
            ("1d", "day", "on 2 January 2013"),
            ("1w", "week", "in the week of 14 January 2013"),
            ("1mo", "month", "in February 2013"),
            ("1q", "quarter", "in Q2 2013"),
            ("1y", "year", "in 2014"),
        ],
    )
    def test_found_out(self, every: str, noun: str, moment: str) -> None:
        """How long periods are is seen from where they start, and said in words."""
        start = datetime(2013, 1, 7) if every == "1w" else datetime(2013, 1, 1)
        chart = trend(by_period({"a": [1.0, 5.0, 2.0]}, every, start=start))
        assert title(chart).endswith(moment)
        assert subtitle(chart) == f"Total per {noun}, America/New York time."
        assert chart_spec(
            trend(by_period({"a": [1.0, 5.0, 2.0]}, every, start=start), every=Period(every))
        ) == chart_spec(chart)

    def test_hour_twice(self) -> None:
        """When clocks go back, both hours are there and neither is a gap."""
        start = datetime(2013, 11, 3)
        hours = by_period({"a": [float(i) for i in range(6)]}, "1h", start=start)
        lines = drawn(trend(hours), "line")
        assert [row["when"][11:13] for row in lines] == ["00", "01", "01", "02", "03", "04"]
        assert [row["moment"][-3:] for row in lines[1:3]] == ["EDT", "EST"]

    def test_hour_missing(self) -> None:
        """When clocks go forward, the hour that was not is no gap."""
        hours = by_period({"a": [1.0] * 4}, "1h", start=datetime(2013, 3, 10))
        assert [row["value"] for row in drawn(trend(hours), "line")] == [1.0] * 4

    def test_midnight_missing(self) -> None:
        """A day that starts at one o'clock, as in Brazil, is still a day."""
        days = by_period({"a": [1.0] * 4}, "1h", "America/Sao_Paulo", datetime(2013, 10, 18))
        starts = pl.Series([datetime(2013, 10, d, 4) for d in (18, 19, 20, 21)])
        local = starts.dt.replace_time_zone("UTC").dt.convert_time_zone("America/Sao_Paulo")
        chart = trend(days.with_columns(period=local.dt.truncate("1d")))
        assert [row["when"] for row in drawn(chart, "line")] == [
            f"2013-10-{d}T00:00:00Z" for d in (18, 19, 20, 21)
        ]

    def test_utc(self) -> None:
        """UTC is said without "time"; naive times say nothing."""
        assert subtitle(trend(by_period({"a": [1.0, 2.0]}, zone="UTC"))) == "Total per month, UTC."
        assert subtitle(trend(by_period({"a": [1.0, 2.0]}, zone=None))) == "Total per month."

    def test_dates(self) -> None:
        """Dates are as good as times."""
        frame = pl.DataFrame(
            {
                "period": [date(2013, 1, 1), date(2013, 1, 3)],
                "category": "a",
                "total_amount": [1, 2],
            }
        )
        assert [row["value"] for row in drawn(trend(frame), "line")] == [1, None, 2]

    @pytest.mark.parametrize(
        ("every", "length", "ticks"),
        [("1h", 10, 10), ("1h", 60, 10), ("1d", 60, 8), ("1mo", 40, 4), ("1y", 90, 9)],
    )
    def test_ticks(self, every: str, length: int, ticks: int) -> None:
        """There are at most twelve ticks, on round starts."""
        chart = trend(by_period({"a": [1.0] * length}, every, zone="UTC"))
        axis = layer(chart_spec(chart), "line")["encoding"]["x"]["axis"]
        assert len(json.loads(axis["values"]["expr"])) == ticks

    def test_viewer_zone_changes_nothing(self) -> None:
        """The picture is the same whatever zone it is drawn in."""
        spec = chart_spec(trend(MONTHS))
        code = "import json, sys; from tallybook.look import chart_svg; "
        code += "print(chart_svg(json.load(sys.stdin)))"
        elsewhere = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(spec),
            env={**os.environ, "TZ": "Pacific/Kiritimati"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert elsewhere.strip() == chart_svg(spec)
        assert ">Jan<" in elsewhere


class TestOverview:
    """Bars and lines together."""

    def test_same_colours(self) -> None:
        """A category has one colour and one rank in both views."""
        spec = chart_spec(overview(AIRLINES, MONTHS, highlight=3))
        ranks = [
            {(row["category"], row["rank"], row["tone"]) for row in rows(spec, layer(spec, kind))}
            for kind in ("bar", "line")
        ]
        assert ranks[0] == ranks[1]
        assert len(ranks[0]) == 5

    def test_folding(self) -> None:
        """The same categories are folded in both, under the same name."""
        spec = chart_spec(overview(AIRLINES, MONTHS, top=2))
        names = [{row["category"] for row in rows(spec, layer(spec, k))} for k in ("bar", "line")]
        assert names == [{"ExpressJet", "Envoy", "Other (3)"}] * 2

    def test_choosing(self) -> None:
        """Bars and points choose by rank; the picture is at rest."""
        spec = chart_spec(overview(AIRLINES, MONTHS))
        assert [param["name"] for param in spec["params"]] == ["hover", "pick", "near", "focus"]
        assert spec["params"][-1]["expr"] == "near.rank || hover.rank || pick.rank || []"
        assert "voronoi" not in chart_svg(spec)

    def test_width(self) -> None:
        """Both views have a width that a page can set, and fill a picture."""
        spec = chart_spec(overview(AIRLINES, MONTHS))
        assert [view["width"] for view in spec["vconcat"]] == [608, 608]
        width = re.match(r'<svg [^>]*width="(\d+)"', chart_svg(spec))
        assert width
        assert int(width[1]) == pytest.approx(640, abs=3)

    def test_words(self) -> None:
        """Title, subtitle and description tell of both."""
        spec = chart_spec(overview(AIRLINES, MONTHS, unit="minutes", source="US DOT"))
        assert chart_title(spec) == (
            "ExpressJet has the largest total: 807,324 minutes",
            "Total by category, in minutes. Source: US DOT",
        )
        assert spec["vconcat"][1]["title"]["text"] == "Per month, America/New York time"
        assert spec["description"].startswith("Bars, and lines over time, of the total by category")

    def test_other_records(self) -> None:
        """Tables that are not of the same records are refused."""
        with pytest.raises(
            ValidationError, match="'Alaska' has totals by period but none over all"
        ):
            overview(AIRLINES.filter(pl.col("category") != "Alaska"), MONTHS)

    def test_less_by_period(self) -> None:
        """A category may have no line."""
        chart = overview(AIRLINES, MONTHS.filter(pl.col("category") != "Alaska"))
        assert chart_png(chart_spec(chart))

    def test_nothing_kept_by_period(self) -> None:
        """Even if only folded categories have periods, there is a chart."""
        chart = overview(AIRLINES, MONTHS.filter(pl.col("category") == "Virgin"), top=1)
        assert {row["category"] for row in drawn(chart, "line")} == {"Other (4)"}
        assert chart_png(chart_spec(chart))


class TestSpread:
    """Moving labels apart."""

    @given(st.lists(st.tuples(st.floats(-500, 800), st.sampled_from([17.0, 32.0])), max_size=9))
    def test_apart_inside_in_order(self, labels: list[tuple[float, float]]) -> None:
        """No two overlap, all are inside, and the order is kept."""
        labels.sort()
        wanted, heights = [y for y, _ in labels], [height for _, height in labels]
        placed = spread(wanted, heights, 300)
        edges = [(y - h / 2, y + h / 2) for y, h in zip(placed, heights, strict=True)]
        assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(edges))
        assert all(top >= -1e-6 and bottom <= 300 + 1e-6 for top, bottom in edges)

    def test_moves_as_little_as_possible(self) -> None:
        """Labels with room stay; two that collide share the way."""
        assert spread([50, 150], [20, 20], 300) == [50, 150]
        assert spread([100, 100, 250], [20, 20, 20], 300) == [90, 110, 250]


DRAW_ALL = """
import hashlib, json, sys
sys.path.insert(0, {folder!r})
from test_charts import AIRLINES, MONTHS, TestHostileNames
from tallybook.charts import *
draws = [
    lambda: totals_by_category(AIRLINES, top=3, unit="minutes"),
    lambda: trend(MONTHS, unit="minutes"),
    lambda: overview(AIRLINES, MONTHS, top=3),
    lambda: totals_by_category(TestHostileNames.FRAME),
]
order = {order}
digests = {{}}
for i in order:
    spec = chart_spec(draws[i]())
    text = json.dumps(spec) + chart_svg(spec)
    picture = chart_png(spec) if i == 0 else b""
    digests[i] = hashlib.sha256(text.encode() + picture).hexdigest()
print(json.dumps([digests[i] for i in range(4)]))
"""


class TestAlwaysTheSame:
    """Nothing but the totals decides what a chart is."""

    @pytest.mark.soak
    def test_across_processes(self) -> None:
        """Specification, SVG and PNG are the same for another hash seed and another order."""
        folder = os.path.dirname(__file__)  # noqa: PTH120 - a text for the other process
        told = [
            subprocess.run(
                [sys.executable, "-c", DRAW_ALL.format(folder=folder, order=order)],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed, order in (("1", [0, 1, 2, 3]), ("2", [3, 2, 1, 0, 2]))
        ]
        assert told[0] == told[1]
        assert len(set(json.loads(told[0]))) == 4

    def test_row_order(self) -> None:
        """The order of the rows given does not matter."""
        specs = [
            chart_spec(
                overview(
                    AIRLINES.sample(fraction=1, shuffle=True, seed=seed),
                    MONTHS.sample(fraction=1, shuffle=True, seed=seed),
                )
            )
            for seed in (1, 2)
        ]
        digests = [hashlib.sha256(json.dumps(spec).encode()).hexdigest() for spec in specs]
        assert digests[0] == digests[1]

    def test_no_counted_names(self) -> None:
        """Altair's own names, which count charts or hash them, are nowhere."""
        for chart in (totals_by_category(AIRLINES), trend(MONTHS), overview(AIRLINES, MONTHS)):
            assert not re.search(r"view_|param_\d", json.dumps(chart_spec(chart)))

    def test_input_untouched(self) -> None:
        """Totals are the same after drawing."""
        before = AIRLINES.clone()
        totals_by_category(AIRLINES, top=2)
        assert AIRLINES.equals(before)
