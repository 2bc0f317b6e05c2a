"""The tally: exact, mergeable, in any order."""

import math
import statistics
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallybook.errors import ExactnessError, ValidationError
from tallybook.exact import RELATIVE_ERROR
from tallybook.schema import MAX_ROWS
from tallybook.tally import QUANTILES, finalize, merge, partial, roll_up
from tallybook.types import Period

START = datetime(2026, 1, 1, tzinfo=UTC)
LARGEST = Decimal(10) ** 19 - Decimal("1e-9")
AMOUNTS = st.decimals(-LARGEST, LARGEST, places=9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda x: abs(x) < 1e300)
ROWS = st.lists(st.tuples(st.sampled_from("abc"), AMOUNTS, st.integers(0, 24 * 400)), max_size=30)


def records(rows):
    """Make accepted records from (category, amount, hours since the start)."""
    return pl.DataFrame(
        {
            "timestamp": [START + timedelta(hours=hours) for _, _, hours in rows],
            "category": [category for category, _, _ in rows],
            "amount": [amount for _, amount, _ in rows],
        },
        schema={
            "timestamp": pl.Datetime("us", "UTC"),
            "category": pl.String,
            "amount": pl.Decimal(38, 9),
        },
    )


def measurements(numbers):
    """Make accepted records of Float64 amounts."""
    frame = records([("a", Decimal(0), hour) for hour in range(len(numbers))])
    return frame.with_columns(amount=pl.Series(numbers, dtype=pl.Float64))


def by_hand(rows):
    """Add up with Python's decimal."""
    totals = {}
    with localcontext(prec=80):
        for category, amount, _ in rows:
            total, count = totals.get(category, (Decimal(0), 0))
            totals[category] = (total + amount, count + 1)
    return totals


class TestExactness:
    @given(ROWS)
    def test_equals_python_decimals(self, rows):
        """To the last digit, for amounts as large and as fine as they may be."""
        totals = finalize(partial(records(rows)))
        found = {
            row["category"]: (row["total_amount"], row["transaction_count"])
            for row in totals.iter_rows(named=True)
        }
        assert found == by_hand(rows)

    @given(ROWS, st.lists(st.integers(0, 30), max_size=4), st.randoms(use_true_random=False))
    def test_any_split_in_any_order_is_the_same(self, rows, cuts, random):
        """Bit for bit: that is what makes merging safe."""
        shuffled = random.sample(rows, len(rows))
        edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
        pieces = [partial(records(shuffled[a:b])) for a, b in pairwise(edges)]
        random.shuffle(pieces)
        whole = partial(records(rows))
        assert merge(whole.clear(), *pieces).equals(whole)

    def test_smallest_and_largest_survive_merging(self):
        """And the average is made from the merged total, not of averages."""
        rows = [("a", Decimal(1), 0), ("a", Decimal(2), 1), ("a", Decimal(6), 2)]
        merged = finalize(merge(partial(records(rows[:1])), partial(records(rows[1:]))))
        assert merged.row(0, named=True) == {
            "category": "a",
            "total_amount": 9,
            "avg_amount": 3.0,
            "transaction_count": 3,
            "min_amount": 1,
            "max_amount": 6,
        }

    def test_more_rows_than_are_proved_to_fit_are_refused(self):
        """Instead of a sum that wraps around."""
        nearly = partial(records([("a", LARGEST, 0)])).with_columns(
            transaction_count=pl.lit(MAX_ROWS, dtype=pl.Int64)
        )
        assert merge(nearly)["transaction_count"].item() == MAX_ROWS
        with pytest.raises(ExactnessError, match="10,000,000,000 rows"):
            merge(nearly, partial(records([("a", LARGEST, 0)])))

    def test_floats_stay_floats(self):
        """A Float64 column gives Float64 totals."""
        floats = records([("a", Decimal("0.5"), 0)]).with_columns(pl.col("amount").cast(pl.Float64))
        assert finalize(partial(floats)).schema["total_amount"] == pl.Float64


class TestMeasurements:
    @given(st.lists(FLOATS, min_size=1, max_size=40), st.randoms(use_true_random=False))
    def test_the_sum_is_the_nearest_float_in_any_order(self, numbers, random):
        """As `math.fsum` has it, over the whole range of floats."""
        shuffled = random.sample(numbers, len(numbers))
        cut = random.randint(0, len(numbers))
        pieces = [partial(measurements(part)) for part in (shuffled[:cut], shuffled[cut:])]
        assert merge(*pieces).equals(partial(measurements(numbers)))
        assert finalize(merge(*pieces))["total_amount"].item() == math.fsum(numbers)

    def test_a_sum_beyond_all_floats_is_refused(self):
        """Instead of infinity."""
        with pytest.raises(ExactnessError, match="beyond what Float64 holds"):
            finalize(partial(measurements([1.7e308, 1.7e308])))

    def test_they_roll_up_like_decimals(self):
        """By day, then all together."""
        daily = partial(measurements([0.1, 0.2, 0.3]), Period.DAY)
        assert finalize(roll_up(daily)).equals(finalize(partial(measurements([0.1, 0.2, 0.3]))))


class TestSpread:
    @given(st.lists(AMOUNTS, min_size=2, max_size=30))
    def test_the_deviation_is_that_of_python_s_statistics(self, amounts):
        """Which counts in fractions, without rounding."""
        totals = finalize(partial(records([("a", x, 0) for x in amounts]), spread=True))
        expected = float(statistics.stdev(map(Fraction, amounts)))
        assert math.isclose(totals["std_amount"].item(), expected, rel_tol=1e-14)

    @given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30))
    def test_the_deviation_of_measurements_is_as_good(self, numbers):
        """Far from zero, close together: no cancellation."""
        shifted = [number / 1e9 + 1e6 for number in numbers]
        totals = finalize(partial(measurements(shifted), spread=True))
        expected = float(statistics.stdev(map(Fraction, shifted)))
        assert math.isclose(totals["std_amount"].item(), expected, rel_tol=1e-14)

    @given(st.lists(AMOUNTS, min_size=1, max_size=60))
    def test_quantiles_are_within_one_per_cent_of_an_amount_of_that_rank(self, amounts):
        """Whatever the amounts are."""
        totals = finalize(partial(records([("a", x, 0) for x in amounts]), spread=True))
        for name, share in QUANTILES.items():
            true = float(sorted(amounts)[max(1, math.ceil(share * len(amounts))) - 1])
            assert math.isclose(totals[name].item(), true, rel_tol=RELATIVE_ERROR * 1.001)

    @given(ROWS, st.integers(0, 30))
    @example([("a", Decimal(0), 0)] * 3 + [("b", Decimal(n) / 10**9, 0) for n in (0, 0, 1)], 0)
    def test_it_merges_like_everything_else(self, rows, cut):
        """Bit for bit, and with the same totals as without it."""
        pieces = [partial(records(part), spread=True) for part in (rows[cut:], rows[:cut])]
        whole = partial(records(rows), spread=True)
        assert merge(*pieces).equals(whole)
        plain = finalize(partial(records(rows)))
        assert finalize(whole).select(plain.columns).equals(plain)

    def test_one_record_has_no_deviation(self):
        """And its median is itself."""
        totals = finalize(partial(records([("a", Decimal("12.34"), 0)]), spread=True))
        assert totals.select("std_amount", "p50_amount").row(0) == (None, 12.34)
        floats = finalize(partial(measurements([0.5]), spread=True))
        assert floats.select("std_amount", "p95_amount").row(0) == (None, 0.5)

    def test_by_period_it_is_each_period_s_own(self):
        """And rolls up to the whole."""
        rows = records([("a", Decimal(x), 24 * x) for x in (1, 2, 3)])
        daily = partial(rows, Period.DAY, spread=True)
        assert finalize(daily)["std_amount"].to_list() == [None] * 3
        assert finalize(roll_up(daily))["std_amount"].item() == 1.0


class TestShapes:
    def test_different_questions_do_not_merge(self):
        """By day and by category are two things."""
        rows = records([("a", Decimal(1), 0)])
        with pytest.raises(ValidationError, match="cannot be merged"):
            merge(partial(rows), partial(rows, Period.DAY))

    def test_records_without_amounts_are_counted(self):
        """The most frequent first, ties by name."""
        lines = pl.DataFrame({"category": ["b", "a", "c", "c"]})
        assert finalize(partial(lines)).rows() == [("c", 2), ("a", 1), ("b", 1)]

    def test_no_records_give_no_totals(self):
        """With all the columns, so that nothing downstream stumbles."""
        nothing = finalize(partial(records([])))
        assert nothing.is_empty()
        assert "avg_amount" in nothing.columns

    def test_largest_total_first_and_ties_by_name(self):
        """The same data gives the same table, always."""
        rows = [("b", Decimal(1), 0), ("a", Decimal(1), 0), ("c", Decimal(5), 0)]
        assert finalize(partial(records(rows)))["category"].to_list() == ["c", "a", "b"]


class TestPeriods:
    @given(
        ROWS, st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH, Period.QUARTER, Period.YEAR])
    )
    def test_rolling_up_hours_is_tallying_anew(self, rows, every):
        """In a zone with two clock changes among them."""
        zone = "America/New_York"
        hourly = partial(records(rows), Period.HOUR, zone)
        assert roll_up(hourly, every).equals(partial(records(rows), every, zone))
        assert roll_up(hourly).equals(partial(records(rows)))

    @pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
    def test_days_with_a_clock_change_have_all_their_hours(self, day, hours):
        """Every hour of the day, however many, and none of its neighbours'."""
        zone = ZoneInfo("Europe/Berlin")
        first = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
        offset = int((first - START).total_seconds()) // 3600
        rows = records([("a", Decimal(1), offset + hour) for hour in range(-2, 30)])
        daily = partial(rows, Period.DAY, "Europe/Berlin")
        on_the_day = daily.filter(pl.col("period").dt.date() == datetime.fromisoformat(day).date())
        assert on_the_day["transaction_count"].to_list() == [hours]

    def test_the_repeated_hour_is_two_hours(self):
        """By the hour, both are kept apart."""
        offset = int((datetime(2026, 10, 25, tzinfo=UTC) - START).total_seconds()) // 3600
        rows = records([("a", Decimal(1), offset), ("a", Decimal(1), offset + 1)])
        hourly = partial(rows, Period.HOUR, "Europe/Berlin")
        assert hourly["transaction_count"].to_list() == [1, 1]

    def test_weeks_begin_on_monday(self):
        """As ISO 8601 has it."""
        weekly = partial(records([("a", Decimal(1), 24 * 3)]), Period.WEEK)
        assert weekly["period"].item() == datetime(2025, 12, 29, tzinfo=UTC)
