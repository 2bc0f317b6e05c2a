"""Charts of a change say what is in it, stay inside their frame, and are always the same."""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import altair as alt
import polars as pl
import pytest

from tallybook.change import compare
from tallybook.change_charts import (
    before_and_after,
    change_by_category,
    change_drivers,
    headline,
    signed,
)
from tallybook.errors import ValidationError
from tallybook.look import chart_png, chart_spec, chart_svg, chart_title

Spec = dict[str, Any]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202etxt.exe",
    "",
    "a" * 500,
]
CHARTS = (change_drivers, before_and_after, change_by_category)
WORDS = {"before": "May", "after": "June"}


def totals(sales: dict[Any, tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(name, Decimal(total), count) for name, (total, count) in sales.items()],
        schema={
            "category": pl.String,
            "total_amount": pl.Decimal(38, 9),
            "transaction_count": pl.Int64,
        },
        orient="row",
    )


def changes(before: dict[Any, tuple[int, int]], after: dict[Any, tuple[int, int]]) -> pl.DataFrame:
    return compare(totals(before), totals(after))


SHOP = changes(
    {"Tea": (5_200, 1_300), "Coffee": (9_100, 1_820), "Juice": (2_400, 480), "Ice": (900, 300)},
    {"Tea": (7_600, 1_610), "Coffee": (8_370, 1_800), "Juice": (2_380, 500), "Cake": (1_450, 290)},
)
SAME = changes({"a": (5, 1)}, {"a": (5, 1)})


def layers(spec: Spec, kind: str) -> Iterator[Spec]:
    return (layer for layer in spec["layer"] if layer["mark"]["type"] == kind)


def drawn(spec: Spec, kind: str) -> list[dict[str, Any]]:
    """Return the rows of the last layer of a kind."""
    *_, layer = layers(spec, kind)
    return spec["datasets"][layer["data"]["name"]]


def title(chart: alt.LayerChart) -> str:
    return chart_title(chart_spec(chart))[0]


class TestHeadline:
    """The numbers in front."""

    def test_change(self) -> None:
        """Exact totals, counts, averages, and how the first of the last two differs."""
        both = {
            name: pl.DataFrame(
                {
                    "total_amount": [Decimal(t)],
                    "avg_amount": [float(t) / n],
                    "transaction_count": [n],
                }
            )
            for name, t, n in (("Both", "20.10", 8), ("June", "12.10", 4), ("May", "8.00", 4))
        }
        assert headline(both, unit="€", measure="sales").split("\n")[2:] == [
            "| Both | 20.1 | 2.51 | 8 |",
            "| June | 12.1 | 3.02 | 4 |",
            "| May | 8 | 2.00 | 4 |",
            "| Change | +4.1 (+51.2%) | +1.02 (+51.2%) | 0 (0.0%) |",
        ]

    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [(-5, 5, "+10"), (0, 5, "+5"), (1, 100, "+99"), (10, 5, "−5 (−50.0%)")],
    )
    def test_percent(self, before: int, after: int, said: str) -> None:
        """There is a percentage where it means something."""
        sides = [
            pl.DataFrame({"total_amount": [n], "avg_amount": [1.0], "transaction_count": [1]})
            for n in (after, before)
        ]
        assert f"| Change | {said} |" in headline({"b": sides[0], "a": sides[1]})

    def test_hostile(self) -> None:
        """No name ends its cell."""
        one = pl.DataFrame({"total_amount": [1], "avg_amount": [1.0], "transaction_count": [1]})
        table = headline({"a|b\nc": one}, unit="x|y", measure="m\\|")
        assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 5 for line in table.split("\n"))

    def test_signed(self) -> None:
        """Zero has no sign, a minus stays."""
        assert [signed(text) for text in ("5", "0", "0.00", "−5", "0.01")] == [
            *("+5", "0", "0.00", "−5", "+0.01")
        ]


class TestDrivers:
    """The waterfall."""

    def test_steps(self) -> None:
        """Each part begins where the one before ends, and the whole ends where the last does."""
        bars = drawn(chart_spec(change_drivers(SHOP, **WORDS)), "bar")
        assert [bar["label"] for bar in bars] == [
            *("Number of transactions", "Average transaction", "New: Cake", "Gone: Ice"),
            "Change in all",
        ]
        starts, ends = ([bar[side] for bar in bars] for side in ("start", "end"))
        assert starts[1:-1] == ends[:-2]
        assert (starts[0], starts[-1], ends[-1]) == (0, 0, ends[-2])
        assert ends[-1] == 2_200

    def test_only_what_there_is(self) -> None:
        """Without anybody new or gone there are no bars for them."""
        bars = drawn(chart_spec(change_drivers(SAME, **WORDS)), "bar")
        assert [bar["part"] for bar in bars] == ["count", "average", "all"]

    def test_many(self) -> None:
        """Several who came are counted."""
        bars = drawn(
            chart_spec(change_drivers(changes({}, {"a": (1, 1), "b": (1, 1)}), **WORDS)), "bar"
        )
        assert bars[0]["label"] == "Two new categories"

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (SHOP, "New categories moved the sales most: +€1,450, in all +€2,200"),
            (SAME, "In all, the sales did not change"),
            (
                changes({"a": (10, 2)}, {"a": (10, 2), "b": (-30, 1)}),
                "New categories moved the sales most: −€30, in all −€30",
            ),
            (
                changes({"a": (10, 2)}, {"a": (30, 6)}),
                "The number of transactions moved the sales most: +€20, in all +€20",
            ),
        ],
    )
    def test_title(self, given: pl.DataFrame, said: str) -> None:
        """It names the largest part that goes the way of the whole."""
        assert title(change_drivers(given, unit="€", measure="sales", **WORDS)) == said

    def test_unit_once(self) -> None:
        """A unit that is a word is said once."""
        chart = change_drivers(SHOP, unit="minutes", **WORDS)
        assert title(chart) == "New categories moved the total most: +1,450, in all +2,200 minutes"


class TestBeforeAndAfter:
    """The dumbbells."""

    def test_rows(self) -> None:
        """Both ends of each, the largest rise first, with their numbers at the outer sides."""
        dots = drawn(chart_spec(before_and_after(SHOP, **WORDS)), "tick")
        assert [(dot["label"], dot["before"], dot["after"]) for dot in dots] == [
            *[("Tea", 5_200, 7_600), ("Cake (new)", 0, 1_450), ("Juice", 2_400, 2_380)],
            *[("Coffee", 9_100, 8_370), ("Ice (gone)", 900, 0)],
        ]
        assert [dot["low_text"] for dot in dots] == ["5,200", "0", "2,380", "8,370", "0"]
        assert [dot["tone"] for dot in dots] == ["blue", "blue", "orange", "orange", "orange"]

    def test_titles(self) -> None:
        """Who moved furthest; or that nobody did."""
        chart = before_and_after(SHOP, unit="EUR", **WORDS)
        assert title(chart) == "Tea moved furthest: from 5,200 to 7,600 EUR"
        assert title(before_and_after(SAME, **WORDS)) == "No category's total changed"

    def test_folding(self) -> None:
        """The rest is one grey row, said in the subtitle."""
        chart = before_and_after(SHOP, top=2, **WORDS)
        last = drawn(chart_spec(chart), "tick")[-1]
        assert (last["label"], last["tone"], last["value"]) == ("Other (3)", "grey", -1_650)
        assert "Other adds up the three that moved least." in chart_title(chart_spec(chart))[1]

    def test_key(self) -> None:
        """What the marks mean stands above them, on two lines if the names are long."""
        long = "30 December 2013 to 26 January 2014"
        short = chart_spec(before_and_after(SHOP, **WORDS))
        tall = chart_spec(before_and_after(SHOP, before=long, after=long))
        assert tall["height"] - short["height"] == 30


class TestByCategory:
    """The split bars."""

    def test_segments(self) -> None:
        """Parts of one direction are stacked; opposite ones lie on both sides of zero."""
        spec = chart_spec(change_by_category(SHOP, **WORDS))
        bars = [bar for bar in drawn(spec, "bar") if bar["category"] in {"Tea", "Juice"}]
        ends = {(bar["category"], bar["cause"]): (bar["start"], bar["end"]) for bar in bars}
        assert ends["Tea", "average"] == (ends["Tea", "count"][1], 2_400)
        assert ends["Juice", "count"][0] == ends["Juice", "average"][0] == 0
        assert ends["Juice", "average"][1] < 0 < ends["Juice", "count"][1]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (SHOP, "Sales rose in two of five categories and fell in three"),
            (SAME, "Sales did not change in any category"),
            (changes({"a": (1, 1)}, {"a": (2, 1)}), "Sales rose in the only category"),
            (
                changes({"a": (1, 1), "b": (1, 1)}, {"a": (0, 1), "b": (0, 1)}),
                "Sales fell in all two categories",
            ),
            (
                changes({"a": (1, 1), "b": (1, 1)}, {"a": (1, 1), "b": (0, 1)}),
                "Sales fell in one of two categories",
            ),
        ],
    )
    def test_title(self, given: pl.DataFrame, said: str) -> None:
        """How many rose and how many fell."""
        assert title(change_by_category(given, measure="sales", **WORDS)) == said


class TestAll:
    """What holds for each of them."""

    @pytest.mark.parametrize("chart", CHARTS)
    def test_fits(self, chart: Callable[..., alt.LayerChart]) -> None:
        """It fills its container; a picture is 640 pixels wide; nothing is a default."""
        spec = chart_spec(chart(SHOP, unit="EUR", source="the till", **WORDS))
        assert spec["width"] == "container"
        assert re.match(r'<svg [^>]*width="640"', chart_svg(spec))
        assert chart_png(spec)
        assert chart_title(spec)[1].endswith("Source: the till")
        assert (
            "from May to June" in spec["description"] or "in May and in June" in spec["description"]
        )
        assert not re.search(r"view_|param_\d", json.dumps(spec))

    @pytest.mark.parametrize("chart", CHARTS)
    def test_hostile(self, chart: Callable[..., alt.LayerChart]) -> None:
        """Names are text; one that is missing has a name."""
        names = {name: (number, 1) for number, name in enumerate(HOSTILE)}
        spec = chart_spec(chart(changes(names | {None: (1, 1)}, {None: (5, 1)}), **WORDS))
        svg = chart_svg(spec)
        assert "<script>" not in svg
        assert "<img" not in svg
        assert re.match(r'<svg [^>]*width="640"', svg)

    @pytest.mark.parametrize("chart", CHARTS)
    def test_nothing(self, chart: Callable[..., alt.LayerChart]) -> None:
        """Nothing to compare is said, not drawn."""
        with pytest.raises(ValidationError, match="nothing to compare"):
            chart(changes({}, {}), **WORDS)

    @pytest.mark.parametrize("chart", CHARTS)
    def test_own_title(self, chart: Callable[..., alt.LayerChart]) -> None:
        """A title that is given is used."""
        assert title(chart(SHOP, title="Tea!", **WORDS)) == "Tea!"

    @pytest.mark.parametrize("chart", CHARTS)
    def test_zeros(self, chart: Callable[..., alt.LayerChart]) -> None:
        """Without any length to show there still is a picture."""
        assert "NaN" not in chart_svg(
            chart_spec(chart(changes({"a": (0, 1)}, {"a": (0, 1)}), **WORDS))
        )
