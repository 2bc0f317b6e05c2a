"""Two periods: named, chosen, compared; and parts of a change that add up to it."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.change import (
    CAME,
    STAYED,
    WENT,
    Span,
    all_together,
    as_long_as,
    choose_spans,
    compare,
    cut,
    days_of,
    drivers,
    fold_changes,
    last_two,
    last_whole,
    span_before,
    span_name,
    spans_at_a_glance,
    totals_of,
)
from tallybook.errors import ExactnessError, SchemaError, ValidationError
from tallybook.exact import exact_sum
from tallybook.types import Period

MONEY = pl.Decimal(38, 9)
UNIT = Decimal("0.000000001")
YEAR = Span(date(2013, 1, 1), date(2014, 1, 1))
DAYS = st.dates(date(1950, 1, 1), date(2090, 1, 1))
SPANS = st.builds(lambda day, n: Span(day, day + timedelta(n)), DAYS, st.integers(1, 900))
MONTHS = st.builds(
    lambda year, month, n: as_long_as(
        Span(date(2000, 1, 1), date(2000 + n // 12, n % 12 + 1, 1)), date(year, month, 1)
    ),
    st.integers(1950, 2090),
    st.integers(1, 12),
    st.integers(1, 30),
)
SALES = st.dictionaries(
    st.text(max_size=3) | st.none(),
    st.tuples(st.decimals(-(10**20), 10**20, places=9), st.integers(1, 10**9)),
    max_size=5,
)


def totals(sales: dict[Any, tuple[Any, int]], dtype: Any = MONEY) -> pl.DataFrame:
    """Return totals and counts as `finalize` gives them."""
    return pl.DataFrame(
        {
            "category": list(sales),
            "total_amount": [total for total, _ in sales.values()],
            "transaction_count": [count for _, count in sales.values()],
        },
        schema={"category": pl.String, "total_amount": dtype, "transaction_count": pl.Int64},
    )


def decimals(**sales: tuple[int | str, int]) -> pl.DataFrame:
    return totals({name: (Decimal(total), count) for name, (total, count) in sales.items()})


def daily(*days: str, category: str = "a") -> pl.DataFrame:
    """Return a partial with one transaction on each of some days in New York."""
    starts = [datetime.fromisoformat(day) for day in days]
    periods = pl.Series(starts).dt.replace_time_zone("America/New_York")
    return pl.DataFrame(
        {
            "period": periods,
            "category": category,
            "total_amount": [Decimal(1)] * len(days),
            "transaction_count": [1] * len(days),
            "min_amount": [Decimal(1)] * len(days),
            "max_amount": [Decimal(1)] * len(days),
        },
        schema_overrides=dict.fromkeys(("total_amount", "min_amount", "max_amount"), MONEY),
    )


class TestSpan:
    """Days, and what they are called."""

    def test_has_a_day(self) -> None:
        """A span that ends before it begins, or at once, is refused."""
        with pytest.raises(ValidationError, match="No day lies from 2013-02-01 to before"):
            Span(date(2013, 2, 1), date(2013, 2, 1))

    @pytest.mark.parametrize(
        ("since", "until", "name"),
        [
            ("2012-01-01", "2013-01-01", "2012"),
            ("2012-01-01", "2014-01-01", "January 2012 to December 2013"),
            ("2012-02-01", "2012-03-01", "February 2012"),
            ("2012-01-01", "2012-04-01", "January to March 2012"),
            ("2012-02-29", "2012-03-01", "29 February 2012"),
            ("2012-02-01", "2012-02-29", "1 to 28 February 2012"),
            ("2012-02-10", "2012-03-11", "10 February to 10 March 2012"),
            ("2012-12-10", "2013-01-02", "10 December 2012 to 1 January 2013"),
        ],
    )
    def test_names(self, since: str, until: str, name: str) -> None:
        """As short as they can be."""
        assert span_name(Span(date.fromisoformat(since), date.fromisoformat(until))) == name

    @given(SPANS | MONTHS)
    def test_before(self, span: Span) -> None:
        """The period before ends where the other begins, and is as long as it."""
        before = span_before(span)
        assert before.until == span.since
        assert as_long_as(before, span.since) == span
        assert abs(before.days - span.days) <= 6  # 30 months are 910 to 916 days

    @given(MONTHS)
    def test_months_before_months(self, span: Span) -> None:
        """Whole months are preceded by whole months."""
        assert span_before(span).since.day == 1

    def test_as_long_as_from_within_a_month(self) -> None:
        """From the middle of a month, a length in months is one in days."""
        february = Span(date(2013, 2, 1), date(2013, 3, 1))
        assert as_long_as(february, date(2013, 1, 15)).days == 28


class TestChoosing:
    """Which periods are compared."""

    @pytest.mark.parametrize(
        ("every", "since"),
        [
            (Period.HOUR, date(2013, 12, 30)),
            (Period.DAY, date(2013, 12, 30)),
            (Period.WEEK, date(2013, 12, 23)),
            (Period.MONTH, date(2013, 11, 1)),
            (Period.QUARTER, date(2013, 7, 1)),
        ],
    )
    def test_last_whole(self, every: Period, since: date) -> None:
        """The last step that ends where the data does, or before; weeks begin on Mondays."""
        known = Span(date(2013, 1, 1), date(2013, 12, 31))
        assert last_whole(known, every).since == since  # type: ignore[union-attr]

    @given(SPANS, st.sampled_from(Period))
    def test_last_two_are_known(self, known: Span, every: Period) -> None:
        """Both lie in the days that are known, side by side."""
        found = last_two(known, [every])
        if found:
            before, after = found
            assert known.since <= before.since
            assert before.until == after.since
            assert after.until <= known.until

    def test_no_whole_year(self) -> None:
        """Where there is no whole step there is none."""
        assert last_whole(Span(date(2013, 1, 2), date(2014, 1, 1)), Period.YEAR) is None

    @pytest.mark.parametrize(
        ("days", "names"),
        [
            (365, ["November 2013", "December 2013"]),
            (20, ["16 to 22 December 2013", "23 to 29 December 2013"]),
            (9, ["30 December 2013", "31 December 2013"]),
        ],
    )
    def test_by_themselves(self, days: int, names: list[str]) -> None:
        """The last two whole months, or weeks, or days."""
        known = Span(YEAR.until - timedelta(days), YEAR.until)
        assert [span_name(span) for span in choose_spans(known)] == names

    @pytest.mark.parametrize(
        ("asked", "names"),
        [
            ({"since": date(2013, 12, 1)}, ["November 2013", "December 2013"]),
            (
                {"since": date(2013, 3, 4), "until": date(2013, 3, 6)},
                ["2 to 3 March 2013", "4 to 5 March 2013"],
            ),
            (
                {"since": date(2013, 12, 1), "base_since": date(2013, 2, 1)},
                ["February 2013", "December 2013"],
            ),
            (
                {
                    "since": date(2013, 12, 1),
                    "base_since": date(2013, 2, 1),
                    "base_until": date(2013, 2, 3),
                },
                ["1 to 2 February 2013", "December 2013"],
            ),
        ],
    )
    def test_as_asked(self, asked: dict[str, date], names: list[str]) -> None:
        """What is given is kept, what is not is filled in."""
        assert [span_name(span) for span in choose_spans(YEAR, **asked)] == names

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"until": date(2013, 3, 1)}, "Say with since"),
            ({"base_since": date(2013, 3, 1)}, "Say with since"),
            ({"since": date(2013, 3, 1), "base_until": date(2013, 2, 1)}, "Say with base_since"),
            ({"since": date(2013, 3, 1), "base_since": date(2013, 3, 5)}, "overlap"),
            ({"since": date(2014, 1, 1)}, "No day lies"),
        ],
    )
    def test_refused(self, asked: dict[str, date], message: str) -> None:
        """What cannot be filled in is asked for."""
        with pytest.raises(ValidationError, match=message):
            choose_spans(YEAR, **asked)

    def test_one_day(self) -> None:
        """One day alone is no two periods."""
        with pytest.raises(ValidationError, match="All records are of one day, 1 January 2013"):
            choose_spans(Span(date(2013, 1, 1), date(2013, 1, 2)))

    @pytest.mark.parametrize(
        ("since", "until", "names"),
        [
            (None, None, ["November 2013", "December 2013"]),
            (date(2013, 6, 1), date(2013, 7, 1), ["May 2013", "June 2013"]),
            (date(2013, 12, 30), None, ["28 to 29 December 2013", "30 to 31 December 2013"]),
            (date(2013, 1, 1), date(2013, 6, 1), ["April 2013", "May 2013"]),
            (None, date(2013, 6, 15), ["April 2013", "May 2013"]),
        ],
    )
    def test_at_a_glance(self, since: date | None, until: date | None, names: list[str]) -> None:
        """The days asked for and those before; or the last two whole steps among them."""
        spans = spans_at_a_glance(YEAR, since, until, Period.MONTH)
        assert spans
        assert [span_name(span) for span in spans] == names

    def test_nothing_at_a_glance(self) -> None:
        """A report of January alone, from data that begins with it, compares nothing."""
        assert spans_at_a_glance(YEAR, date(2013, 1, 1), date(2013, 2, 1), Period.MONTH) is None


class TestCutting:
    """Parts of a partial."""

    PARTIAL = daily("2013-03-09", "2013-03-10", "2013-03-11", "2013-11-03")

    def test_local_days(self) -> None:
        """Days are those of the wall clock, also where it was turned."""
        assert days_of(self.PARTIAL) == Span(date(2013, 3, 9), date(2013, 11, 4))
        kept = cut(self.PARTIAL, Span(date(2013, 3, 10), date(2013, 3, 12)))
        assert kept["period"].dt.day().to_list() == [10, 11]

    def test_totals(self) -> None:
        """One row for each category."""
        assert totals_of(self.PARTIAL, YEAR)["transaction_count"].to_list() == [4]

    def test_no_records(self) -> None:
        """An empty span says which days there are records of."""
        with pytest.raises(ValidationError, match=r"no records of May 2013; there are of 9 March"):
            totals_of(self.PARTIAL, Span(date(2013, 5, 1), date(2013, 6, 1)))

    def test_all_together(self) -> None:
        """Categories are merged, periods stay."""
        both = pl.concat([self.PARTIAL, daily("2013-03-09", category="b")])
        assert all_together(both)["transaction_count"].to_list() == [2, 1, 1, 1]


class TestCompare:
    """Each category's change, and its two causes."""

    @given(SALES, SALES)
    def test_adds_up(self, before: dict, after: dict) -> None:
        """Everything adds up, to the last digit: parts, changes, drivers, what was folded."""
        changes = compare(totals(before), totals(after))
        whole = sum((Fraction(t) for t, _ in after.values()), Fraction(0))
        whole -= sum((Fraction(t) for t, _ in before.values()), Fraction(0))
        parts = zip(changes["from_count"], changes["from_average"], strict=True)
        assert [Fraction(a) + Fraction(b) for a, b in parts] == [*map(Fraction, changes["change"])]
        assert Fraction(exact_sum(changes["change"])) == whole
        assert Fraction(exact_sum(drivers(changes)["amount"])) == whole
        folded = fold_changes(changes, 2)
        assert Fraction(exact_sum(folded["change"])) == whole
        assert folded["count_after"].sum() == sum(count for _, count in after.values())
        assert folded.schema == changes.schema

    @given(
        st.tuples(st.decimals(-(10**20), 10**20, places=9), st.integers(1, 10**9)),
        st.tuples(st.decimals(-(10**20), 10**20, places=9), st.integers(1, 10**9)),
    )
    def test_formula(self, before: tuple, after: tuple) -> None:
        """Bennet's formula in fractions, within half a unit of the last digit; and its mirror."""
        row = compare(totals({"a": before}), totals({"a": after})).row(0, named=True)
        (t0, n0), (t1, n1) = before, after
        mean = (Fraction(t0) / n0 + Fraction(t1) / n1) / 2
        assert abs(Fraction(row["from_count"]) - (n1 - n0) * mean) <= Fraction(UNIT) / 2
        back = compare(totals({"a": after}), totals({"a": before})).row(0, named=True)
        for part in ("from_count", "from_average"):
            assert Fraction(back[part]) == -Fraction(row[part])

    def test_came_and_went(self) -> None:
        """Whoever is on one side only came or went, and has no average on the other."""
        changes = compare(decimals(a=(6, 2), gone=(-5, 1)), decimals(a=(6, 3), new=(8, 4)))
        assert changes.select("category", "status", "change").rows() == [
            *[("new", CAME, 8), ("gone", WENT, 5), ("a", STAYED, 0)]
        ]
        assert changes["avg_before"].to_list() == [None, -5.0, 3.0]
        assert changes["from_count"].to_list() == [8, 5, Decimal("2.5")]
        assert changes["from_average"].to_list() == [0, 0, Decimal("-2.5")]
        assert drivers(changes).rows() == [
            ("count", Decimal("2.5"), 1),
            ("average", Decimal("-2.5"), 1),
            (CAME, 8, 1),
            (WENT, 5, 1),
        ]

    def test_no_category(self) -> None:
        """Rows without a category are one category, and the same on both sides."""
        changes = compare(totals({None: (Decimal(1), 1)}), totals({None: (Decimal(3), 1)}))
        assert changes.select("category", "status", "change").rows() == [(None, STAYED, 2)]

    def test_floats(self) -> None:
        """Measurements are compared as floats."""
        changes = compare(totals({"a": (0.5, 1)}, pl.Float64), totals({"a": (1.5, 2)}, pl.Float64))
        row = changes.row(0, named=True)
        assert (row["change"], row["from_count"], row["from_average"]) == (1.0, 0.625, 0.375)

    def test_too_large(self) -> None:
        """A change that the type cannot hold is refused, not wrapped around."""
        most = "9" * 29
        with pytest.raises(ExactnessError, match="more than Decimal"):
            compare(decimals(a=(f"-{most}", 1)), decimals(a=(most, 1)))

    def test_not_totals(self) -> None:
        """A missing column is named, a category that is there twice too."""
        good = decimals(a=(1, 1))
        with pytest.raises(SchemaError, match="no column 'transaction_count'"):
            compare(good.drop("transaction_count"), good)
        with pytest.raises(ValidationError, match="'a' has more than one total"):
            compare(good, pl.concat([good, good]))

    def test_order(self) -> None:
        """The order of the rows given does not matter; ties are by name."""
        one, two = decimals(b=(1, 1), a=(1, 1), c=(5, 1)), decimals(c=(1, 1), a=(2, 1), b=(2, 1))
        changes = compare(one, two)
        assert changes["category"].to_list() == ["a", "b", "c"]
        assert changes.equals(compare(one.reverse(), two.reverse()))


class TestFolding:
    """The changes that are too small to draw."""

    CHANGES = compare(
        decimals(a=(0, 1), b=(9, 2), c=(1, 1), d=(1, 1)),
        decimals(a=(5, 1), b=(2, 1), c=(3, 1), d=(0, 1)),
    )

    def test_largest_stay(self) -> None:
        """Up or down; the others are summed, with the average over all of them."""
        folded = fold_changes(self.CHANGES, 2)
        assert folded.select("category", "change").rows() == [
            *[("a", 5), ("b", -7), ("Other (2)", 1)]
        ]
        assert folded["avg_after"].to_list() == [5.0, 2.0, 1.5]

    def test_one_left_over(self) -> None:
        """Folding one would hide it for nothing."""
        assert fold_changes(self.CHANGES, 3).equals(self.CHANGES)
        assert fold_changes(self.CHANGES, None).equals(self.CHANGES)

    def test_name_taken(self) -> None:
        """A category may be called like the others."""
        named = self.CHANGES.with_columns(category=pl.col("category").replace("a", "Other (2)"))
        assert fold_changes(named, 2)["category"].to_list()[-1] == "Other (2)*"

    def test_none(self) -> None:
        """Nobody is not a choice."""
        with pytest.raises(ValidationError, match="at least one"):
            fold_changes(self.CHANGES, 0)
