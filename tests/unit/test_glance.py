"""A glance: what it is sure of, and that it is never mistaken."""

from datetime import datetime
from decimal import Decimal
from itertools import combinations, product

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.rows import CELL, records

from tallybook.glance import glance_over, glances, second_plan, undecided, with_care
from tallybook.judge import ROW, accept, accepted, compile_schema, find, judge, reject
from tallybook.schema import RecordSchema, Rule

BLANKS = r"[ \t]{0,2}"
TIMES = st.one_of(
    CELL,
    st.datetimes(min_value=datetime(1, 1, 1)).map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}"),
    st.datetimes(min_value=datetime(2026, 3, 29), max_value=datetime(2026, 3, 29, 4)).map(str),
    st.dates().map(str),
    st.sampled_from(["2026-02-30T00:00:00Z", "2026-03-01T23:59:60Z", "9999-12-31 23:59:59"]),
    st.sampled_from(["2026- 3-01", "2026-03-1 ", "+2026-3-01", "2\xa026-03-01", "٢026-03-01"]),
    st.from_regex(
        r"[12+ -][0-9 ]{3}-[0-9 :;]{2}-[0-9 \t]{2}([T ][0-9 ]{2}:[0-9 /]{2}:[0-9 +]{2}Z?)?",
        fullmatch=True,
    ),
    st.from_regex(
        rf"{BLANKS}[+]?[12][0-9]{{2,4}}-{BLANKS}[01]?[0-9]-{BLANKS}[0-3]?[0-9]"
        rf"([T ]{BLANKS}[0-2]?[0-9]:{BLANKS}[0-6]?[0-9]:{BLANKS}[0-6]?[0-9]Z?)?",
        fullmatch=True,
    ),
)
NUMBERS = st.one_of(
    CELL,
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.from_regex(r"[+-]?[0-9]{1,30}(\.[0-9]{0,20})?", fullmatch=True),
    st.from_regex(r"[+-]?[0-9]{0,9}\.?[0-9]{0,12}[eE][+-]?[0-9]{1,5}", fullmatch=True),
    st.from_regex(r"-?0?\.0{0,9}[0-9]{0,4}", fullmatch=True),
)
STRANGE_LETTERS = " a\t\x7f\x85\xa0é\u1680\u2003\u3000茶"
NAMES = st.one_of(CELL, st.text(alphabet=STRANGE_LETTERS, max_size=3))

SHAPES = ["2026-03-29T02:30:07Z", "2026-03-29T02:30:07", "2026-03-29 02:30:07", "2026-03-29"]
SAMPLES = [  # each has another glance chosen somewhere
    (SHAPES[0], "tea", "1.5"),
    (SHAPES[1], "茶", "123456789012.5"),
    (SHAPES[2], "tea", "-7"),
    (SHAPES[3], "é", "0.000000001"),
    ("soon", " ", "n/a"),
]


def compiled(rows, schema=None, sample=None):
    """Return what was found, the plan and the glances that a sample has chosen."""
    declared, frame = schema or RecordSchema(), records(rows)
    plan = compile_schema(declared, frame.collect_schema())
    found = find(frame, plan, "x.csv")
    seen = found if sample is None else find(records(sample), plan, "x.csv")
    return found, plan, glances(plan, declared, seen.collect())


def sure_rows(rows, schema=None, sample=None):
    """Return the numbers of the rows that a glance accepts."""
    found, plan, quick = compiled(rows, schema, sample)
    return glance_over(found, plan, quick).filter(accepted()).collect()[ROW].to_list()


def mistaken(rows, schema, sample):
    """Return the sure rows that care does not accept, or not with the same values."""
    found, plan, quick = compiled(rows, schema, sample)
    sure = glance_over(found, plan, quick).filter(accepted()).select(ROW, *plan.values)
    careful = judge(found, plan).filter(accepted()).select(ROW, *plan.values)
    return sure.join(careful, on=[ROW, *plan.values], how="anti").collect().height


class TestNeverMistaken:
    """What a glance is sure of is what care would have found."""

    @given(
        st.lists(st.tuples(TIMES, NAMES, NUMBERS), max_size=12),
        st.sampled_from(["UTC", "Europe/Berlin"]),
        st.sampled_from([0, 2, 3, 9, 18]),
        st.booleans(),
        st.sampled_from(SAMPLES),
    )
    def test_two_looks_find_what_care_finds(self, rows, zone, scale, trim, sample):
        """The same records, the same rejects with the same words, and no row twice."""
        schema = RecordSchema(time_zone=zone, scale=scale, trim=trim)
        found, plan, quick = compiled(rows, schema, [sample])
        glanced = glance_over(found, plan, quick)
        aside = undecided(glanced, quick)
        second = second_plan(aside, plan)
        looked, careful = judge(aside, second), judge(found, plan)
        kept = pl.concat(
            part.filter(accepted()).select(ROW, *plan.values) for part in (glanced, looked)
        )
        wanted = careful.filter(accepted()).select(ROW, *plan.values).collect()
        assert kept.sort(ROW).collect().equals(wanted)
        assert reject(looked, second).collect().equals(reject(careful, plan).collect())

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
    def test_times_with_any_two_letters_changed(self, shape, zone):
        """Blanks, signs, marks and digits that are too large, wherever they stand."""
        letters = [" ", "\t", "\x0b", "+", "-", ".", ":", "/", "0", "1", "6", "9", "T", "Z", "é"]
        texts = [
            shape[:i] + one + shape[i + 1 : j] + other + shape[j + 1 :]
            for i, j in combinations(range(len(shape)), 2)
            for one, other in product(letters, letters)
        ]
        rows = [(text, "tea", "1") for text in texts]
        schema = RecordSchema(time_zone=zone)
        assert mistaken(rows, schema, [(shape, "tea", "1")]) == 0
        assert len(sure_rows(rows, schema, [(shape, "tea", "1")])) > 10 * len(shape)

    @pytest.mark.parametrize("scale", [0, 1, 2, 3, 9, 18])
    def test_every_short_amount(self, scale):
        """All texts of up to five letters that a number can be made of."""
        alphabet = "015.+-eE "
        texts = ["".join(text) for size in range(1, 6) for text in product(alphabet, repeat=size)]
        rows = [(SHAPES[0], "tea", text) for text in texts]
        assert mistaken(rows, RecordSchema(scale=scale), [(SHAPES[0], "tea", "1")]) == 0

    @pytest.mark.parametrize(
        "text",
        ["1e-10", ".1e-9", "1.0e-9", "123456e-10", ".123456e-9", "12345.6e-9", "1e27", "-9e26"],
    )
    def test_amounts_that_a_cast_changes(self, text):
        """It rounds them, or lets them through although they are beyond the limit."""
        assert sure_rows([(SHAPES[0], "tea", text)], sample=[SAMPLES[0]]) == []


class TestWhatItIsGoodFor:
    """A glance that is sure of nothing would be of no use."""

    @pytest.mark.parametrize("time", SHAPES)
    @pytest.mark.parametrize("name", ["tea", "a b", "Ärger", "茶"])
    @pytest.mark.parametrize(
        "amount", ["7", "-12.50", "0", "0.00", "1234567.89", "123456789.123456"]
    )
    def test_plain_rows_need_no_second_look(self, time, name, amount):
        """Whatever shape they all have."""
        assert sure_rows([(time, name, amount)] * 3) == [1, 2, 3]

    @pytest.mark.parametrize("amount", ["7", "123456789.123456"])
    def test_amounts_in_a_declared_range(self, amount):
        """Bounds are two comparisons more; a row beyond them is left to care."""
        low, high = RecordSchema(minimum=amount), RecordSchema(maximum=amount)
        for schema in (low, high, RecordSchema(minimum=amount, maximum=amount)):
            rows = [(SHAPES[0], "tea", text) for text in (amount, f"{amount}1", f"-{amount}")]
            assert 1 in sure_rows(rows, schema, rows[:1])
            assert mistaken(rows, schema, rows[:1]) == 0

    def test_the_shape_of_most_rows_is_chosen(self):
        """One date at the beginning is not the shape of the file."""
        rows = [("2026-03-01", "tea", "1"), *[(SHAPES[0], "tea", "1")] * 3]
        assert sure_rows(rows) == [2, 3, 4]

    def test_a_shape_that_few_rows_have_is_not_worth_it(self):
        """Care converts them all."""
        rows = [(SHAPES[0], "tea", "1"), *[("2026-03-01T09:30:00.5Z", "tea", "1")] * 3]
        assert sure_rows(rows) == [1, 2, 3, 4]

    def test_nothing_to_choose_by(self):
        """No row, no glance."""
        found, plan, quick = compiled([])
        assert quick.keys() == plan.values.keys()
        assert glance_over(found, plan, quick).collect().is_empty()

    def test_ways_of_writing_that_are_declared_get_care(self):
        """The glance knows plain numbers and untouched names only."""
        schema = RecordSchema(decimal_mark=",", timestamp_formats=("%d.%m.%Y",), categories=("a",))
        assert sure_rows([("01.03.2026", "a", "1,50"), ("01.03.2026", "b", "1.50")], schema) == [1]
        assert sure_rows(
            [(SHAPES[0], "a", "5"), (SHAPES[0], "a", "7")], RecordSchema(maximum=6)
        ) == [1]

    def test_typed_columns_are_converted_as_they_are(self):
        """There is nothing to glance at."""
        frame = records([("2026-03-01", "1", "5")]).with_columns(
            pl.col("timestamp").str.to_date(), pl.col("category", "amount").cast(pl.Int64)
        )
        plan = compile_schema(RecordSchema(), frame.collect_schema())
        found = find(frame, plan, "x.csv")
        quick = glances(plan, RecordSchema(), found.collect())
        assert accept(glance_over(found, plan, quick), plan).collect().height == 1


class TestSecondLook:
    """What was sure stays, and is not done again."""

    def test_what_is_set_aside_holds_on_to_nothing(self):
        """One row in a thousand takes up the memory of one row in a thousand."""
        name = "a category with a long name"
        rows = [(SHAPES[0], name, "1")] * 20_000 + [("yesterday, in the evening", name, "1")]
        found, plan, quick = compiled(rows, sample=rows[:1])
        aside = undecided(glance_over(found, plan, quick), quick).collect()
        assert aside["found_timestamp"].to_list() == ["yesterday, in the evening"]
        assert aside.estimated_size() < 1000

    def test_sure_cells_come_with_their_value(self):
        """And without their text, which nobody needs any more."""
        found, plan, quick = compiled([(SHAPES[0], "tea", "n/a")], sample=[SAMPLES[0]])
        [row] = undecided(glance_over(found, plan, quick), quick).collect().rows(named=True)
        assert row["__known_timestamp__"] == datetime.fromisoformat(SHAPES[0])
        assert row["__known_category__"] == "tea"
        assert row["__known_amount__"] is None
        assert (row["found_timestamp"], row["found_category"], row["found_amount"]) == (
            None,
            None,
            "n/a",
        )

    def test_roles_that_were_sure_are_settled(self):
        """They cannot be a reason any more; rules of one's own still are."""
        schema = RecordSchema(rules=(Rule(name="cap", holds="amount < 5", reason="too dear"),))
        rows = [(SHAPES[0], "tea", "9"), (SHAPES[0], "tea", "2e1000"), (SHAPES[0], "tea", "1")]
        found, plan, quick = compiled(rows, schema, [SAMPLES[0]])
        aside = undecided(glance_over(found, plan, quick), quick)
        second = second_plan(aside, plan)
        assert [fault.column for fault in second.faults] == ["amount", None]
        told = reject(judge(aside, second), second).collect()
        assert told.select("row", "reason").rows() == [(1, "too dear"), (2, "too large")]

    def test_nothing_undecided(self):
        """Then there is nothing to decide."""
        found, plan, quick = compiled([(SHAPES[0], "tea", "1")])
        aside = undecided(glance_over(found, plan, quick), quick)
        assert second_plan(aside, plan).faults == ()
        assert judge(aside, second_plan(aside, plan)).collect().is_empty()

    def test_with_care_only(self):
        """The careful conversions are a glance as well, one that is sure of all that is right."""
        rows = [("2026-03-01T09:30:00.5Z", "tea", "2e1"), ("soon", "tea", "1")]
        found, plan, _ = compiled(rows)
        glanced = glance_over(found, plan, with_care(plan)).filter(accepted())
        assert accept(glanced, plan).collect()["amount"].to_list() == [Decimal(20)]
