"""Integers that stand for floats, squares and quantiles."""

import math
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.exact import (
    RELATIVE_ERROR,
    bucket,
    bucket_middle,
    deviation,
    float_total,
    float_units,
    limb,
    quantile,
    squares,
    sum_of_squares,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
X = pl.col("x")


def of(number, expression):
    return pl.DataFrame({"x": [number]}).lazy().select(expression).collect().item()


class TestFloats:
    @given(FINITE)
    def test_a_float_is_its_units_times_its_unit(self, number):
        """Exactly: down to the smallest and up to the largest."""
        units, where = of(number, float_units(X)), of(number, limb(X))
        assert Fraction(units) * Fraction(2) ** (32 * where - 53) == Fraction(number)
        assert abs(units) < 2**87

    @given(FINITE)
    def test_and_comes_back(self, number):
        """One number is its own sum."""
        assert float_total([of(number, limb(X))], [of(number, float_units(X))]) == number

    def test_a_sum_beyond_all_floats_is_an_error(self):
        """Not infinity."""
        with pytest.raises(OverflowError):
            float_total([32], [1 << 90])


class TestSquares:
    @given(st.lists(st.integers(-(10**28) + 1, 10**28 - 1), min_size=1, max_size=8))
    def test_the_three_sums_are_the_sum_of_squares(self, numbers):
        """For the largest amounts there are."""
        frame = pl.DataFrame({"x": pl.Series(numbers, dtype=pl.Int128)})
        assert sum_of_squares(*frame.select(**squares(X)).row(0)) == sum(n * n for n in numbers)

    def test_the_largest_products_fit_as_often_as_rows_may_come(self):
        """10^28 units, 10^10 rows, 127 bits."""
        frame = pl.DataFrame({"x": pl.Series([10**28 - 1, -(10**28) + 1], dtype=pl.Int128)})
        assert all(abs(part) // 2 * 10**10 < 2**127 for part in frame.select(**squares(X)).row(0))

    def test_one_number_has_no_deviation(self):
        """Nor has none."""
        assert deviation(1, 5, 25) is None
        assert deviation(3, 6, 12) == 0.0


class TestBuckets:
    @given(FINITE.filter(lambda x: x == 0 or 1e-300 < abs(x) < 1e300))
    def test_the_middle_is_within_one_per_cent(self, number):
        """Of either sign, of any size."""
        middle = bucket_middle(of(number, bucket(X)))
        assert math.isclose(middle, number, rel_tol=RELATIVE_ERROR * 1.001)

    @given(FINITE, FINITE)
    def test_buckets_are_in_the_order_of_the_numbers(self, one, other):
        """Or a quantile would count from the wrong end."""
        low, high = sorted([one, other])
        assert of(low, bucket(X)) <= of(high, bucket(X))

    def test_a_quantile_of_nothing_is_an_error(self):
        """Not zero."""
        with pytest.raises(ValueError, match="at least one"):
            quantile([], [], 0.5)
