"""Rows as a source hands them over, and what may stand in their cells."""

import polars as pl
from hypothesis import strategies as st

from tallybook.judge import BROKEN, ROW

CELL = st.one_of(
    st.none(),
    st.sampled_from(["2026-03-01", "1.50", "tea", "", "n/a", "1e99", "2026-02-30", "=cmd"]),
    st.text(max_size=5),
)


def records(rows, columns=("timestamp", "category", "amount")):
    """Make what a source hands over, all text."""
    frame = pl.LazyFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW)
    return frame.with_columns(number, pl.lit(None, dtype=pl.String).alias(BROKEN))
