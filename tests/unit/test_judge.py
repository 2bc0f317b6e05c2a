"""Judging: what is accepted, what is rejected and why."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.rows import CELL, records

from tallybook.errors import SchemaError
from tallybook.judge import (
    BROKEN,
    ROW,
    Reason,
    accept,
    accepted,
    amount_cell,
    category_cell,
    compile_schema,
    find,
    judge,
    reject,
    timestamp_cell,
)
from tallybook.schema import RecordSchema, Rule, amount_limit


def look(cell, values, dtype=pl.String):
    """Return (value, reason) for each cell; the reason is None for an accepted one."""
    found = pl.DataFrame({f"found_{cell.role}": pl.Series(values, dtype=dtype)})
    reason = pl.when(cell.value.is_null()).then(cell.reason)
    return found.lazy().select(cell.value.alias("v"), r=reason).collect().rows()


def amount(value, scale=9, dtype=pl.String):
    return look(amount_cell(RecordSchema(scale=scale), dtype()), [value], dtype)[0]


def timestamp(value, dtype=pl.String, **declared):
    cell = timestamp_cell(RecordSchema(**declared), dtype if dtype != pl.String else pl.String())
    return look(cell, [value], dtype)[0]


class TestTextAmounts:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", "1"),
            ("+1.5", "1.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            (" 7\t", "7"),
            ("0" * 60 + "1", "1"),
            ("1.50000000000000000000", "1.5"),
            ("1e5", "100000"),
            ("2.5E-3", "0.0025"),
            ("-0", "0"),
            ("9" * 19 + "." + "9" * 9, "9" * 19 + "." + "9" * 9),
        ],
    )
    def test_plain_decimals_are_kept_to_the_last_digit(self, text, value):
        """Signs, points and exponents of ASCII digits are numbers."""
        assert amount(text) == (Decimal(value), None)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (None, Reason.MISSING),
            ("", Reason.MISSING),
            ("  ", Reason.MISSING),
            ("n/a", Reason.NOT_A_NUMBER),
            ("1,5", Reason.NOT_A_NUMBER),
            ("1_000", Reason.NOT_A_NUMBER),
            ("0x10", Reason.NOT_A_NUMBER),
            ("٣.٥", Reason.NOT_A_NUMBER),
            ("1.2.3", Reason.NOT_A_NUMBER),
            ("--1", Reason.NOT_A_NUMBER),
            ("-", Reason.NOT_A_NUMBER),
            (".", Reason.NOT_A_NUMBER),
            ("=1+1", Reason.NOT_A_NUMBER),
            ("1\n2", Reason.NOT_A_NUMBER),
            ("NaN", Reason.NOT_FINITE),
            ("-inf", Reason.NOT_FINITE),
            ("Infinity", Reason.NOT_FINITE),
            ("0.0000000001", Reason.TOO_PRECISE),
            ("1.0000000000000000000000000001", Reason.TOO_PRECISE),
            ("1e-10", Reason.TOO_PRECISE),
            ("1.0000000000000001e-3", Reason.TOO_PRECISE),
            ("1e-400", Reason.TOO_PRECISE),
            ("1e400", Reason.TOO_LARGE),
            ("1e19", Reason.TOO_LARGE),
            ("1" + "0" * 19, Reason.TOO_LARGE),
            ("-1" + "0" * 40, Reason.TOO_LARGE),
        ],
    )
    def test_everything_else_is_rejected_with_its_reason(self, text, reason):
        """No text is rounded, guessed or wrapped."""
        assert amount(text) == (None, reason.value)

    @given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 18))
    def test_agrees_with_python_decimals(self, number, scale):
        """A decimal is accepted exactly when it fits, and then it is that decimal."""
        fits = abs(number) < amount_limit(scale) and number == round(number, min(scale, 28))
        value, reason = amount(f"{number:f}", scale)
        assert (value == number and reason is None) if fits else value is None

    @given(st.text())
    def test_any_text_has_a_value_or_a_reason(self, text):
        """What is accepted is a number to Python as well."""
        value, reason = amount(text)
        assert (value is None) == (reason is not None)
        if value is not None:
            assert Decimal(text.strip()) == value


def written(text, **declared):
    """Return the value and the reason of a number under a declared way of writing."""
    return look(amount_cell(RecordSchema(**declared), pl.String()), [text])[0]


class TestWrittenAmounts:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1.234.567,89", "1234567.89"),
            ("1234567,89", "1234567.89"),
            ("-1.234", "-1234"),
            ("€ 5", "5"),
            ("-€5", "-5"),
            ("€ -5", "-5"),
            ("5,50 €", "5.5"),
            ("5 EUR", "5"),
        ],
    )
    def test_declared_marks_are_taken_out(self, text, value):
        """A point groups by three, a comma ends, a sign stands before or behind."""
        marks = {"decimal_mark": ",", "thousands_mark": ".", "currency": ("€", "EUR")}
        assert written(text, **marks) == (Decimal(value), None)

    @pytest.mark.parametrize("text", ["1.23", "1.2345", "12.34,5.6", "€€5", "5 $", "-€-5", "1,2,3"])
    def test_marks_in_the_wrong_place_are_no_number(self, text):
        """1.23 is not 123, whoever wrote it."""
        marks = {"decimal_mark": ",", "thousands_mark": ".", "currency": ("€",)}
        assert written(text, **marks) == (None, Reason.NOT_A_NUMBER.value)

    def test_undeclared_marks_are_no_number(self):
        """Nothing is removed that nobody declared."""
        for text in ("1,234", "$5", "1'000"):
            assert written(text) == (None, Reason.NOT_A_NUMBER.value)

    def test_amounts_out_of_range_say_so(self):
        """The bounds themselves are inside; other reasons come first."""
        bounds = {"minimum": Decimal(0), "maximum": Decimal("99.99")}
        assert written("0", **bounds) == (0, None)
        assert written("99.99", **bounds) == (Decimal("99.99"), None)
        assert written("-0.01", **bounds) == (None, Reason.OUT_OF_RANGE.value)
        assert written("100", **bounds) == (None, Reason.OUT_OF_RANGE.value)
        assert written("x", **bounds) == (None, Reason.NOT_A_NUMBER.value)
        assert written("-1", minimum=Decimal(0))[1] == Reason.OUT_OF_RANGE.value
        assert written("1", maximum=Decimal(0))[1] == Reason.OUT_OF_RANGE.value

    @given(st.decimals(-(10**15), 10**15, places=2))
    def test_python_s_own_grouping_comes_back(self, number):
        """What `format` writes with commas is the same number again."""
        assert written(f"{number:,}", thousands_mark=",") == (number, None)


class TestCategories:
    def named(self, text, **declared):
        return look(category_cell(RecordSchema(**declared)), [text])[0]

    def test_any_text_is_kept_letter_for_letter(self):
        """Spaces are part of it until somebody declares otherwise."""
        assert self.named(" Tea ") == (" Tea ", None)
        assert self.named(" Tea ", trim=True) == ("Tea", None)

    def test_blank_is_missing(self):
        """Whatever it is made of."""
        for text in (None, "", " \t", "\u00a0"):
            assert self.named(text) == (None, Reason.MISSING.value)

    def test_renamed_then_compared_with_those_allowed(self):
        """Old names are welcome under their new one."""
        declared = {"rename": {"UA": "United"}, "categories": ("United", "Delta")}
        assert self.named("UA", **declared) == ("United", None)
        assert self.named("Delta", **declared) == ("Delta", None)
        assert self.named("DL", **declared) == (None, Reason.NOT_ALLOWED.value)
        assert self.named(None, **declared) == (None, Reason.MISSING.value)

    def test_numbers_are_categories_too(self):
        """A department may be 17."""
        cell = category_cell(RecordSchema())
        assert look(cell, [17], pl.Int64) == [("17", None)]


class TestTypedAmounts:
    def test_integers_are_exact(self):
        """Including those that no float can hold."""
        assert amount(2**53 + 1, dtype=pl.Int64) == (2**53 + 1, None)
        assert amount(None, dtype=pl.Int64) == (None, Reason.MISSING.value)
        assert amount(2**100, dtype=pl.Int128) == (None, Reason.TOO_LARGE.value)

    def test_decimals_keep_their_digits_or_are_rejected(self):
        """A third place does not vanish in a schema of two."""
        places = pl.Decimal(38, 3)
        cell = amount_cell(RecordSchema(scale=2), places)
        values = [Decimal("1.500"), Decimal("1.505"), None, Decimal(10) ** 30]
        assert look(cell, values, places) == [
            (Decimal("1.50"), None),
            (None, Reason.TOO_PRECISE.value),
            (None, Reason.MISSING.value),
            (None, Reason.TOO_LARGE.value),
        ]

    def test_floats_stay_floats(self):
        """A measurement is not dressed up as a decimal."""
        assert amount(0.1, dtype=pl.Float64) == (0.1, None)
        assert amount(float("nan"), dtype=pl.Float64) == (None, Reason.NOT_FINITE.value)
        assert amount(None, dtype=pl.Float64) == (None, Reason.MISSING.value)
        assert amount(0.5, dtype=pl.Float32) == (0.5, None)

    def test_a_column_of_nulls_is_missing(self):
        """Parquet knows a type for columns without a value."""
        assert amount(None, dtype=pl.Null) == (None, Reason.MISSING.value)

    def test_other_types_are_refused_by_name(self):
        """A list cannot be an amount."""
        with pytest.raises(SchemaError, match="'amount' holds List"):
            amount_cell(RecordSchema(), pl.List(pl.Int64))


class TestTextTimestamps:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
            ("2026-03-01T09:30", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
            ("2026-03-01 09:30:15", datetime(2026, 3, 1, 9, 30, 15, tzinfo=UTC)),
            ("2026-03-01T09:30:15Z", datetime(2026, 3, 1, 9, 30, 15, tzinfo=UTC)),
            ("2026-03-01T09:30:15.25Z", datetime(2026, 3, 1, 9, 30, 15, 250_000, tzinfo=UTC)),
            ("2026-03-01T09:30:15.123456789Z", datetime(2026, 3, 1, 9, 30, 15, 123_456, UTC)),
            ("2026-03-01T00:30:00+05:30", datetime(2026, 2, 28, 19, 0, tzinfo=UTC)),
            ("2026-03-01T00:30:00-0030", datetime(2026, 3, 1, 1, 0, tzinfo=UTC)),
            (" 2026-03-01 ", datetime(2026, 3, 1, tzinfo=UTC)),
        ],
    )
    def test_iso_8601_becomes_utc(self, text, expected):
        """With or without a time, a fraction and an offset."""
        assert timestamp(text) == (expected, None)

    @pytest.mark.parametrize(
        "text",
        [
            "2026-02-30",
            "2026-13-01",
            "12026-01-01",
            "0000-01-01",
            "-2026-01-01",
            "20260301",
            "2026-3-1",
            "01/02/2026",
            "2026-03-01T24:00:00",
            "2026-03-01T23:59:60Z",
            "2026-03-01T23:59:59+15:00",
            "2026-03-01T10:00:00 UTC",
            "0001-01-01T00:00:00+01:00",
            "٢٠٢٦-٠٣-٠١",
            "yesterday",
        ],
    )
    def test_what_is_not_a_time_is_rejected(self, text):
        """A leap second does not roll into the next day, a February does not get longer."""
        assert timestamp(text) == (None, Reason.NOT_A_TIMESTAMP.value)

    @pytest.mark.parametrize("text", [None, "", " "])
    def test_nothing_is_missing(self, text):
        """No text, no guess."""
        assert timestamp(text) == (None, Reason.MISSING.value)

    def test_declared_formats_are_tried_in_order(self):
        """An export and its predecessor in one file."""
        formats = {"timestamp_formats": ("%d.%m.%Y %H:%M", "%d.%m.%Y")}
        assert timestamp("01.02.2026", **formats)[0] == datetime(2026, 2, 1, tzinfo=UTC)
        assert timestamp("01.02.2026 03:04", **formats)[0] == datetime(2026, 2, 1, 3, 4, tzinfo=UTC)
        assert timestamp("2026-02-01", **formats) == (None, Reason.NOT_A_TIMESTAMP.value)

    def test_declared_formats_can_carry_offsets(self):
        """And a leap second is refused there as well."""
        formats = {"timestamp_formats": ("%d.%m.%Y %H:%M:%S %z",)}
        value, _ = timestamp("01.02.2026 03:04:05 +0100", **formats)
        assert value == datetime(2026, 2, 1, 2, 4, 5, tzinfo=UTC)
        assert timestamp("31.12.2016 23:59:60 +0000", **formats)[0] is None

    @given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
    def test_agrees_with_python(self, moment):
        """Whatever Python writes as ISO 8601 comes back as the same moment."""
        assert timestamp(moment.isoformat()) == (moment.replace(tzinfo=UTC), None)

    @given(st.text())
    def test_any_text_has_a_value_or_a_reason(self, text):
        """No text is both and none is neither."""
        value, reason = timestamp(text)
        assert (value is None) == (reason is not None)


class TestTimeZones:
    def test_naive_times_follow_the_declared_zone(self):
        """An offset in the text wins over it."""
        zone = {"time_zone": "Europe/Berlin"}
        assert timestamp("2026-07-01T12:00", **zone)[0] == datetime(2026, 7, 1, 10, tzinfo=UTC)
        assert timestamp("2026-07-01T12:00Z", **zone)[0] == datetime(2026, 7, 1, 12, tzinfo=UTC)
        formats = {"timestamp_formats": ("%d.%m.%Y",), **zone}
        assert timestamp("01.07.2026", **formats)[0] == datetime(2026, 6, 30, 22, tzinfo=UTC)

    def test_clock_changes_are_told_apart(self):
        """A skipped hour does not exist, a repeated one is ambiguous."""
        zone = {"time_zone": "Europe/Berlin"}
        assert timestamp("2026-03-29T02:30", **zone) == (None, Reason.NO_SUCH_TIME.value)
        assert timestamp("2026-10-25T02:30", **zone) == (None, Reason.AMBIGUOUS_TIME.value)
        assert timestamp("2026-10-25T02:30+01:00", **zone)[1] is None

    def test_an_unknown_zone_is_refused_with_the_nearest(self):
        """A typing error is found when the schema is written."""
        with pytest.raises(ValueError, match="Did you mean 'Europe/Berlin'"):
            RecordSchema(time_zone="Europe/Berlim")


class TestTypedTimestamps:
    def test_times_with_a_zone_become_utc(self):
        """The instant is kept."""
        dtype = pl.Datetime("ms", "Europe/Berlin")
        moment = datetime(2026, 7, 1, 10, tzinfo=UTC)
        assert timestamp(moment, dtype) == (moment, None)
        assert timestamp(None, dtype) == (None, Reason.MISSING.value)

    def test_naive_times_and_dates_follow_the_declared_zone(self):
        """Skipped hours are rejected here too."""
        zone = {"time_zone": "Europe/Berlin"}
        assert timestamp(date(2026, 7, 1), pl.Date(), **zone)[0] == datetime(
            2026, 6, 30, 22, tzinfo=UTC
        )
        skipped = timestamp(datetime(2026, 3, 29, 2, 30), pl.Datetime("us"), **zone)
        assert skipped == (None, Reason.NO_SUCH_TIME.value)
        assert timestamp(None, pl.Date()) == (None, Reason.MISSING.value)

    def test_numbers_are_refused(self):
        """1700000000 may be seconds, milliseconds or a mistake."""
        with pytest.raises(SchemaError, match="'timestamp' holds Int64"):
            timestamp_cell(RecordSchema(), pl.Int64())


def judged_of(frame, schema=None):
    plan = compile_schema(schema or RecordSchema(), frame.collect_schema())
    unique = schema.unique if schema else None
    again = ~pl.col(unique).is_first_distinct() if unique else None
    return judge(find(frame, plan, "x.csv", again), plan), plan


class TestJudging:
    def test_three_broken_rules_are_three_reasons(self):
        """With the cell's own text beside each."""
        judged, plan = judged_of(records([("soon", " ", "1e99")]))
        assert reject(judged, plan).collect().rows() == [
            ("x.csv", 1, "timestamp", "soon", "not a timestamp"),
            ("x.csv", 1, "category", " ", "missing"),
            ("x.csv", 1, "amount", "1e99", "too large"),
        ]
        assert accept(judged, plan).collect().is_empty()

    def test_the_file_s_own_column_names_stand_in_the_rejects(self):
        """People look a reject up in their file, not in our vocabulary."""
        schema = RecordSchema(timestamp="amount", category="row", amount="source")
        frame = records([("2026-03-01", "a", "x")], ("amount", "row", "source"))
        judged, plan = judged_of(frame, schema)
        assert reject(judged, plan).collect()["column"].to_list() == ["source"]

    @pytest.mark.parametrize(
        ("holds", "message"),
        [
            ("amount < 10 * AVG(amount)", "more than one record"),
            ("COUNT(*) > 2", "more than one record"),
            ("amount = FIRST(amount)", "more than one record"),
            ("amount > LAG(amount) OVER (ORDER BY timestamp)", "more than one record"),
            ("amount + 1", "true or false"),
            ("LENGTH(category)", "true or false"),
            ("category > 5", "cannot compare string with numeric type"),
            (pl.col("amount") < pl.col("amount").max(), "more than one record"),
        ],
    )
    def test_a_rule_that_cannot_judge_a_record_is_refused(self, holds, message):
        """Before anything is read: it would judge by whatever happens to be read together."""
        schema = RecordSchema(rules=(Rule(name="odd", holds=holds, reason="odd"),))
        with pytest.raises(SchemaError, match=f"rule 'odd'.*{message}"):
            judged_of(records([("2026-03-01", "a", "1")]), schema)

    @pytest.mark.parametrize(
        "holds",
        [
            "amount > 0 AND category NOT IN ('a', 'b')",
            "EXTRACT(year FROM timestamp) = 2026",
            "CASE WHEN amount > 0 THEN category = 'tea' ELSE TRUE END",
            "TRY_CAST(category AS INT) IS NULL",
            "ROUND(amount, 2) = amount AND amount % 2 = 1",
            "1 = 1",
            pl.col("category").str.starts_with("t"),
        ],
    )
    def test_conditions_on_one_record(self, holds):
        """In SQL or as an expression."""
        schema = RecordSchema(rules=(Rule(name="fine", holds=holds, reason="no"),))
        judged, plan = judged_of(records([("2026-03-01", "tea", "1")]), schema)
        assert accept(judged, plan).collect().height == 1

    def test_a_broken_record_has_one_reason_and_its_text(self):
        """Its cells are not judged: there are none."""
        frame = records([(None, None, None)]).with_columns(pl.lit("{half").alias(BROKEN))
        judged, plan = judged_of(frame)
        assert reject(judged, plan).collect().rows() == [
            ("x.csv", 1, None, "{half", "not a record")
        ]

    def test_other_columns_can_be_required_unique_and_ruled(self):
        """Each has its own words, and a row that breaks several shows them all."""
        schema = RecordSchema(
            required=("shop",),
            unique="id",
            rules=(
                Rule(name="cap", holds="amount < 100 OR shop = 'big'", reason="above the cap"),
                Rule(name="id", holds="id LIKE 'x%'", reason="strange id"),
            ),
        )
        rows = [
            ("2026-03-01", "a", "5", "one", "x1"),
            ("2026-03-01", "a", "500", "big", "x2"),
            ("2026-03-01", "a", "500", None, "x1"),
            ("2026-03-01", "a", "n/a", "one", None),
        ]
        columns = ("timestamp", "category", "amount", "shop", "id")
        judged, plan = judged_of(records(rows, columns), schema)
        assert accept(judged, plan).collect().height == 2
        assert reject(judged, plan).collect().rows() == [
            ("x.csv", 3, "shop", None, "missing"),
            ("x.csv", 3, "id", "x1", "seen before"),
            ("x.csv", 3, None, None, "above the cap"),
            ("x.csv", 4, "amount", "n/a", "not a number"),
            ("x.csv", 4, None, None, "strange id"),
        ]

    @given(st.lists(st.tuples(CELL, CELL, CELL), max_size=12))
    def test_every_row_is_accepted_or_has_a_reason_and_never_both(self, rows):
        """The sentence that everything else leans on."""
        judged, plan = judged_of(records(rows))
        kept = set(judged.filter(accepted()).collect()[ROW])
        turned_away = set(reject(judged, plan).collect()["row"])
        assert kept | turned_away == set(range(1, len(rows) + 1))
        assert not kept & turned_away

    @given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8))
    def test_a_cell_is_rejected_whatever_stands_beside_it(self, rows):
        """One row's verdict does not depend on another's."""
        together, _ = judged_of(records(rows))
        verdicts = together.select(accepted()).collect().to_series().to_list()
        alone = [judged_of(records([row]))[0].select(accepted()).collect().item() for row in rows]
        assert verdicts == alone

    def test_reasons_are_a_closed_list(self):
        """A reason that is not in the enum cannot be counted between nights."""
        reasons = {reason.value for reason in Reason}
        assert all(re.fullmatch(r"[a-z ]+", reason) for reason in reasons)
