"""Charts of days that stand out: what they say, what they refuse, and that labels have room."""

import json
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from tallybook.errors import ValidationError
from tallybook.look import chart_spec, chart_svg
from tallybook.outlier_charts import _apart, _fits, deviations, say_days, standouts
from tallybook.outliers import judge_days

FIRST = date(2026, 1, 5)
HOSTILE = (
    "<script>alert(1)</script>",
    "</script>",
    '"><img src=x onerror=alert(1)>',
    "datum.x; 1/0",
)


def judged(odd: dict[int, int], *names: str, days: int = 84) -> pl.DataFrame:
    """Judge quiet days, some of which are odd, in categories of such names."""
    values = [odd.get(place, 100 + place % 3) for place in range(days)]
    calendar = [FIRST + timedelta(days=place) for place in range(days)]
    parts = [
        pl.DataFrame({"category": name, "day": calendar, "transaction_count": values})
        for name in names or ("shop",)
    ]
    return judge_days(pl.concat(parts), "transaction_count")


def texts(spec: dict[str, Any]) -> list[str]:
    """Return the labels in a chart's data."""
    rows = [row for data in spec["datasets"].values() for row in data]
    return [row["text"] for row in rows if "text" in row]


class TestSayDays:
    """Days as people name them."""

    @pytest.mark.parametrize(
        ("first", "last", "long", "short"),
        [
            ((2013, 2, 8), (2013, 2, 8), "8 February 2013", "8 Feb"),
            ((2013, 2, 8), (2013, 2, 9), "8–9 February 2013", "8–9 Feb"),
            ((2013, 7, 31), (2013, 8, 1), "31 July–1 August 2013", "31 Jul–1 Aug"),
            ((2013, 12, 31), (2014, 1, 1), "31 December 2013–1 January 2014", "31 Dec–1 Jan"),
            ((2013, 2, 8), (2014, 2, 9), "8 February 2013–9 February 2014", "8 Feb–9 Feb"),
        ],
        ids=str,
    )
    def test_named(self, first: tuple, last: tuple, long: str, short: str) -> None:
        """What both ends share is said once."""
        assert say_days(date(*first), date(*last)) == long
        assert say_days(date(*first), date(*last), short=True) == short


class TestDeviations:
    """The whole, day by day."""

    def test_says(self) -> None:
        """The title tells the most extreme spell, the subtitle what is drawn."""
        spec = chart_spec(deviations(judged({40: 0, 41: 3, 60: 260}), unit="sales", source="us"))
        title = " ".join(spec["title"]["text"])
        assert title == "6 March 2026 stood out most: 260 sales, 159 above what was expected"
        assert "Source: us" in spec["title"]["subtitle"]
        assert "3 of 84 days stand out" in spec["description"]
        assert set(texts(spec)) == {"14–15 Feb", "6 Mar"}

    def test_quiet(self) -> None:
        """A quiet year is drawn too, without a label."""
        spec = chart_spec(deviations(judged({})))
        assert spec["title"]["text"] == ["None of 84 days stands out"]
        assert texts(spec) == []
        assert "<svg" in chart_svg(spec)

    def test_unjudged_days_are_gaps(self) -> None:
        """Days that were not judged have no point."""
        few = judged({}, days=16)
        spec = chart_spec(deviations(few))
        values = [r["value"] for data in spec["datasets"].values() for r in data if "low" in r]
        assert values.count(None) == few["score"].null_count() > 0

    @pytest.mark.parametrize(
        "odd", [dict.fromkeys(range(10, 70, 5), 0), {0: 0, 83: 0, 1: 300}], ids=str
    )
    def test_labels_have_room(self, odd: dict[int, int]) -> None:
        """However many days stand out, the chart is drawn and some are labelled."""
        spec = chart_spec(deviations(judged(odd)))
        assert 1 <= len(texts(spec)) <= 10

    def test_boxes(self) -> None:
        """Labels fit inside the view and beside each other."""
        assert _apart((0, 1, 0, 1), (1, 2, 0, 1))
        assert not _apart((0, 2, 0, 2), (1, 3, 1, 3))
        assert not _fits((-1, 5, 0, 5), [])
        assert _fits((0, 5, 0, 5), [(6, 7, 0, 5)])

    def test_same_everywhere(self) -> None:
        """The same days in another order give the same chart."""
        days = judged({40: 0, 60: 260})
        one, other = (json.dumps(chart_spec(deviations(d))) for d in (days, days.reverse()))
        assert one == other

    def test_refusals(self) -> None:
        """Several categories, too many days, and days that cannot be judged are refused."""
        with pytest.raises(ValidationError, match="one category"):
            deviations(judged({}, "a", "b"))
        with pytest.raises(ValidationError, match="too few days"):
            deviations(judged({}, days=13))
        with pytest.raises(ValidationError, match="5,000 days"):
            deviations(judged({}, days=5000))


class TestStandouts:
    """Who, and when."""

    def test_says(self) -> None:
        """The title tells the day that most share; categories are counted, the silent ones too."""
        days = pl.concat([judged({40: 0}, "a", "b"), judged({40: 0, 50: 0}, "c"), judged({}, "d")])
        spec = chart_spec(standouts(days))
        assert spec["title"]["text"] == ["Three of four categories stood out on 14 February 2026"]
        assert " ".join(spec["title"]["subtitle"]).endswith("One more never did.")
        assert texts(spec) == ["2 days", "1 day", "1 day"]
        assert "c: 2 days" in spec["description"]

    def test_alone(self) -> None:
        """Where no day is shared, that is said; what cannot be judged is told apart."""
        unknown = judged({}, "z", days=13)
        days = pl.concat([judged({40: 0}, "a"), judged({50: 0}, "b"), unknown])
        spec = chart_spec(standouts(days))
        assert spec["title"]["text"] == ["No two categories stood out on the same day"]
        assert " ".join(spec["title"]["subtitle"]).endswith("One cannot be judged.")

    @pytest.mark.parametrize("name", [*HOSTILE, "", "a" * 300, "line\nbreak", "日本語"], ids=ascii)
    def test_names(self, name: str) -> None:
        """Names are text, whatever they would like to be."""
        svg = chart_svg(chart_spec(standouts(judged({40: 0}, name))))
        assert "<script>alert" not in svg
        assert "<img" not in svg

    def test_refusals(self) -> None:
        """Nothing that stands out, or too much of it, cannot be drawn."""
        with pytest.raises(ValidationError, match="no day stands out"):
            standouts(judged({}, "a"))
        all_day = judged({}, *map(str, range(60))).with_columns(stands_out=pl.lit(value=True))
        with pytest.raises(ValidationError, match="raise the threshold"):
            standouts(all_day)
