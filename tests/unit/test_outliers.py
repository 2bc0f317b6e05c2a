"""Days that stand out: zeros count, bad days do not hide, small numbers are not accused."""

from datetime import UTC, date, datetime, timedelta
from statistics import median

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import SchemaError, ValidationError
from tallybook.outliers import by_day, judge_days, keep_frequent, name_drivers, spells
from tallybook.tally import finalize, partial
from tallybook.types import Period

FIRST = date(2026, 1, 5)
COLUMNS = {"timestamp": pl.Datetime("us", "UTC"), "category": pl.String}
MONEY = COLUMNS | {"amount": pl.Decimal(38, 9)}


def counts(values: list[int], category: str = "shop") -> pl.DataFrame:
    """Return days as `by_day` gives them, from a Monday on."""
    days = [FIRST + timedelta(days=n) for n in range(len(values))]
    columns = {"category": category, "day": days, "transaction_count": values}
    return pl.DataFrame(columns).with_columns(total_amount=pl.col("transaction_count") * 2.5)


def records(*rows: tuple[int, str, str], schema: dict = MONEY) -> pl.DataFrame:
    """Return records: day of March 2026, category, amount."""
    moments = [(datetime(2026, 3, day, 12, tzinfo=UTC), name, money) for day, name, money in rows]
    text = schema | {"amount": pl.String}
    return pl.DataFrame(moments, schema=text, orient="row").cast(schema)


class TestByDay:
    """Every category has a row for every day."""

    def test_zeros(self) -> None:
        """Days without a record are there, with zeros of the right type."""
        found = by_day(partial(records((2, "tea", "1.5"), (5, "cake", "2")), Period.DAY))
        assert found.height == 2 * 4
        assert found.schema["total_amount"] == pl.Decimal(38, 9)
        assert found.filter(category="tea")["transaction_count"].to_list() == [1, 0, 0, 0]

    def test_days_asked_for(self) -> None:
        """Days asked for are there although nothing happened, before the first, after the last."""
        tallied = partial(records((3, "tea", "1")), Period.DAY)
        found = by_day(tallied, date(2026, 3, 1), date(2026, 3, 6))
        assert found["transaction_count"].to_list() == [0, 0, 1, 0, 0]

    def test_measurements(self) -> None:
        """Measurements, whose partial has limbs, are settled first."""
        floats = records(
            (2, "a", "0.1"), (2, "a", "1e300"), schema=COLUMNS | {"amount": pl.Float64}
        )
        assert by_day(partial(floats, Period.DAY))["total_amount"].to_list() == [1e300]

    @given(
        st.lists(st.tuples(st.integers(1, 28), st.sampled_from("abc"), st.just("0.1")), min_size=1)
    )
    def test_conservation(self, rows: list[tuple[int, str, str]]) -> None:
        """Nothing is lost on the way: counts and totals add up to those of the records."""
        tallied = partial(records(*rows), Period.DAY)
        found, whole = by_day(tallied), finalize(tallied)
        assert found["transaction_count"].sum() == len(rows)
        assert found["total_amount"].sum() == whole["total_amount"].sum()

    @pytest.mark.parametrize("every", [None, Period.HOUR])
    def test_needs_days(self, every: Period | None) -> None:
        """A partial without days, or by hour, is refused."""
        with pytest.raises(ValidationError, match="these totals"):
            by_day(partial(records((2, "tea", "1")), every))

    def test_nothing(self) -> None:
        """So is one without a row."""
        with pytest.raises(ValidationError, match="no days"):
            by_day(partial(records((2, "tea", "1")), Period.DAY).clear())


class TestKeepFrequent:
    """The most frequent categories stay, the others are added up."""

    rows = ((2, "a", "1"), (2, "a", "1"), (2, "b", "1"), (2, "c", "4"), (2, "Other (2)", "8"))

    def test_folds(self) -> None:
        """By count, not by total; ties by name; and the new name is free."""
        found = keep_frequent(partial(records(*self.rows[:4], (3, "d", "16")), Period.DAY), 2)
        assert found["category"].unique().sort().to_list() == ["Other (2)", "a", "b"]
        assert found["total_amount"].sum() == 23

    def test_taken_name(self) -> None:
        """A category that is called like the sum of the others stays apart from it."""
        found = keep_frequent(partial(records(*self.rows, (3, "d", "1")), Period.DAY), 2)
        names = found["category"].unique().sort().to_list()
        assert names == ["Other (2)", "Other (3)", "a"]

    def test_one_left_over(self) -> None:
        """A single one left over is not folded."""
        tallied = partial(records(*self.rows), Period.DAY)
        assert keep_frequent(tallied, 3).equals(tallied)

    def test_none(self) -> None:
        """At least one is kept."""
        with pytest.raises(ValidationError, match="top is 0"):
            keep_frequent(partial(records(*self.rows), Period.DAY), 0)


class TestJudge:
    """The rule, as it is written on the page."""

    def test_by_hand(self) -> None:
        """The score is 0.6745 times the distance from the median, over the MAD."""
        values = [1000 + (n * 37) % 200 for n in range(70)]
        values[33] = 3000
        judged = judge_days(counts(values), "total_amount", weeks=2)
        weekday = [values[n] * 2.5 for n in range(33 - 14, 33 + 15, 7)]
        row = judged.row(33, named=True)
        assert row["expected"] == median(weekday)
        mad = median(abs(value) for value in judged["difference"])
        assert row["score"] == pytest.approx(0.6745 * row["difference"] / mad, rel=1e-12)
        assert row["high"] == pytest.approx(row["expected"] + 3.5 * mad / 0.6745)
        assert judged.filter("stands_out")["day"].to_list() == [FIRST + timedelta(days=33)]

    @pytest.mark.parametrize("place", [0, 1, 37, 82, 83])
    def test_a_closed_day(self, place: int) -> None:
        """A day with nothing is found wherever it lies, also as the first or the last."""
        values = [100 + n % 7 for n in range(84)]
        values[place] = 0
        judged = judge_days(counts(values), "transaction_count")
        assert judged.filter("stands_out")["day"].to_list() == [FIRST + timedelta(days=place)]

    def test_weekends_and_growth_are_usual(self) -> None:
        """Neither a weekly rhythm nor a steady growth stands out."""
        values = [(100 if n % 7 < 5 else 900) + n for n in range(200)]
        assert not judge_days(counts(values), "transaction_count")["stands_out"].any()

    def test_small_counts(self) -> None:
        """Of something that happens once a day, a day without is no news, and forty are."""
        values = [1] * 84
        values[20], values[60] = 0, 40
        judged = judge_days(counts(values), "transaction_count")
        assert judged.filter("stands_out")["value"].to_list() == [40]

    def test_more_than_half_the_same(self) -> None:
        """Where the MAD is zero the mean distance tells what is usual."""
        values = [100] * 84
        values[40] = 500
        judged = judge_days(counts(values), "total_amount")
        assert judged["stands_out"].sum() == 1
        assert judged["score"].is_finite().all()

    def test_all_the_same(self) -> None:
        """Where nothing differs nothing stands out."""
        judged = judge_days(counts([100] * 84), "total_amount")
        assert set(judged["score"]) == {0.0}

    def test_rare_categories_have_no_usual_total(self) -> None:
        """Totals are not judged where a transaction is not usual; counts are."""
        values = [0] * 84
        values[30] = 1
        assert judge_days(counts(values), "total_amount")["score"].is_null().all()
        assert not judge_days(counts(values), "transaction_count")["stands_out"].any()

    def test_too_few_days(self) -> None:
        """Two weeks are no habit."""
        judged = judge_days(counts([5, 0] * 7), "transaction_count")
        assert judged["score"].is_null().all()
        assert not judged["stands_out"].any()

    def test_categories_apart(self) -> None:
        """Categories are judged each by itself."""
        large, small = [1000 + 40 * (n % 3) for n in range(84)], [9] * 84
        small[50] = 60
        both = pl.concat([counts(large, "large"), counts(small, "small")])
        found = judge_days(both, "transaction_count").filter("stands_out")
        assert found["category"].to_list() == ["small"]

    def test_order_of_rows_does_not_matter(self) -> None:
        """The same days in another order get the same judgement."""
        days = counts([100 + (n * 13) % 29 for n in range(84)])
        judged = judge_days(days, "total_amount")
        again = judge_days(days.reverse(), "total_amount").reverse()
        assert again.equals(judged)

    def test_refusals(self) -> None:
        """What cannot be asked is refused with what can."""
        days = counts([1] * 30)
        with pytest.raises(SchemaError, match="transaction_count and total_amount"):
            judge_days(days, "avg_amount")
        with pytest.raises(SchemaError, match="judged by transaction_count,"):
            judge_days(days.drop("total_amount"), "total_amount")
        with pytest.raises(ValidationError, match="above zero"):
            judge_days(days, "total_amount", weeks=0)
        with pytest.raises(ValidationError, match="above zero"):
            judge_days(days, "total_amount", threshold=float("nan"))


class TestSpells:
    """Days in a row are one event."""

    values = tuple(100 + n % 3 for n in range(84))

    def judged(self, category: str = "shop", **odd: int) -> pl.DataFrame:
        """Judge quiet days with some odd ones, `d40=0` for the 40th."""
        values = list(self.values)
        for place, value in odd.items():
            values[int(place[1:])] = value
        return judge_days(counts(values, category), "transaction_count")

    def test_neighbours(self) -> None:
        """Neighbours on one side are joined, those on the other are not."""
        found = spells(self.judged(d40=0, d41=10, d42=300, d50=0))
        assert found["days"].sum() == 4
        ends = found.sort("first_day").select("first_day", "last_day").rows()
        days = [(40, 41), (42, 42), (50, 50)]
        assert ends == [tuple(FIRST + timedelta(days=n) for n in pair) for pair in days]

    def test_numbers(self) -> None:
        """Sums over the spell, and its most extreme score; the most extreme spell first."""
        judged = self.judged(d40=0, d41=10, d60=20)
        found = spells(judged)
        assert found["value"].to_list() == [10.0, 20.0]
        assert found["score"][0] == judged["score"][40]
        assert found["difference"][0] == pytest.approx(
            judged["difference"][40] + judged["difference"][41]
        )

    def test_nothing(self) -> None:
        """Without such days there is no spell, and the columns are the same."""
        quiet, odd = spells(self.judged()), spells(self.judged(d40=0))
        assert quiet.height == 0
        assert quiet.schema == odd.schema
        assert name_drivers(quiet, self.judged()).height == 0

    def test_drivers(self) -> None:
        """The category that moved most, in the same direction."""
        whole = self.judged(d40=0)
        parts = pl.concat(
            [self.judged("a", d40=60), self.judged("b", d40=50), self.judged("c", d40=400)]
        )
        found = name_drivers(spells(whole), parts)
        assert found["driver"].to_list() == ["b"]

    def test_no_driver(self) -> None:
        """Nobody is named who did not move that way."""
        found = name_drivers(spells(self.judged(d40=0)), self.judged("c", d40=400))
        assert found["driver"].to_list() == [None]
