"""The schema: a declaration that cannot contradict itself."""

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from tallybook.errors import SchemaError
from tallybook.schema import (
    AMOUNT_DIGITS,
    MAX_ROWS,
    RecordSchema,
    Rule,
    check_columns,
    read_schema,
)


class TestDeclaration:
    def test_three_roles_need_three_columns(self):
        """One column cannot be two things."""
        with pytest.raises(ValueError, match="three different columns"):
            RecordSchema(category="amount")

    def test_day_first_and_month_first_are_never_both(self):
        """01/02 would be a guess."""
        with pytest.raises(ValueError, match="would be a guess"):
            RecordSchema(timestamp_formats=("%m/%d/%Y", "%d/%m/%Y"))

    def test_a_missing_column_is_named_with_the_nearest(self):
        """And with what is there."""
        with pytest.raises(SchemaError) as caught:
            check_columns(
                RecordSchema(amount="fare"), ["Timestamp", "category", "fares"], source="x"
            )
        message = str(caught.value)
        assert "'fare'. Did you mean 'fares'?" in message
        assert "'timestamp'. Did you mean 'Timestamp'?" in message
        assert caught.value.context["missing"] == ["timestamp", "fare"]

    def test_columns_that_are_there_are_fine(self):
        """More of them do no harm."""
        check_columns(RecordSchema(), ["category", "amount", "timestamp", "shop"], source="x")

    def test_the_limit_keeps_every_sum_in_38_digits(self):
        """The largest amount times the most rows."""
        largest = 10**AMOUNT_DIGITS - 1
        assert largest * MAX_ROWS < 10**38

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            ({"timestamp_formats": ("%d.%m.%Y", "%m/%d/%y")}, "would be a guess"),
            ({"timestamp_formats": ("%Q",)}, "'%Q' does not describe a date"),
            ({"timestamp_formats": ()}, "at least 1 item"),
            ({"time_zone": "Europe/Berlim"}, "Did you mean 'Europe/Berlin'"),
            ({"thousands_mark": "."}, "cannot both group digits and end them"),
            ({"minimum": 5, "maximum": 4}, "minimum 5 is above maximum 4"),
            ({"rules": ({"name": "x", "holds": "amount >", "reason": "y"},)}, "Polars SQL"),
            (
                {"rules": ({"name": "x", "holds": "category IN (SELECT 1)", "reason": "y"},)},
                "query",
            ),
            (
                {"rules": ({"name": "x", "holds": pl.col("a", "b") > 0, "reason": "y"},)},
                "one value",
            ),
            ({"rules": ({"name": "x", "holds": 7, "reason": "y"},)}, "7 is not a condition"),
            ({"scale": 19}, "less than or equal to 18"),
            ({"amout": "fare"}, "Extra inputs are not permitted"),
        ],
    )
    def test_contradictions_are_found_when_it_is_written(self, declared, message):
        """Not when the report runs."""
        with pytest.raises(ValueError, match=message):
            RecordSchema(**declared)

    @pytest.mark.parametrize(
        "formats",
        [("%Y-%m-%d", "%d.%m.%Y"), ("%H:%M %d/%m/%Y",), ("iso8601", "%m/%d/%Y"), ("%B %Y %d",)],
    )
    def test_formats_that_agree_are_fine(self, formats):
        """Year first, one order, a name of a month."""
        assert RecordSchema(timestamp_formats=formats).timestamp_formats == formats

    def test_a_range_may_be_open_or_a_point(self):
        """One bound, or two that are equal."""
        assert RecordSchema(minimum=1).maximum is None
        assert RecordSchema(minimum=1, maximum=1).minimum == Decimal(1)

    def test_a_rule_may_be_an_expression(self):
        """It is compared, printed and stored like one in SQL."""
        rule = Rule(name="cap", holds=pl.col("amount") < pl.col("limit"), reason="too dear")
        assert RecordSchema(rules=(rule,)).others == ["limit"]
        same = Rule(name="cap", holds=pl.col("amount") < pl.col("limit"), reason="too dear")
        assert RecordSchema(rules=(rule,)) == RecordSchema(rules=(same,))
        other = Rule(name="cap", holds=pl.col("amount") > pl.col("limit"), reason="too dear")
        assert rule != other
        assert rule != "cap"
        assert hash(rule) == hash(same)
        stored = rule.model_dump(mode="json")
        assert stored["holds"] == '[(col("amount")) < (col("limit"))]'
        assert Rule.model_json_schema()["properties"]["holds"]["type"] == "string"

    def test_other_columns_are_those_that_anything_needs(self):
        """Once each; roles in rules are no columns."""
        rule = Rule(name="r", holds="shop = 'x' AND amount > 0 AND till > 1", reason="no")
        schema = RecordSchema(required=("shop",), unique="id", rules=(rule,))
        assert schema.others == ["shop", "id", "till"]
        with pytest.raises(SchemaError, match="no column 'till'"):
            check_columns(schema, ["timestamp", "category", "amount", "shop", "id"], source="x")


class TestFiles:
    def test_toml_and_ini_say_the_same(self, tmp_path: Path):
        """Lists, numbers and tables as each format writes them."""
        (tmp_path / "s.toml").write_text(
            'amount = "fare"\nscale = 2\nrename = { UA = "United" }\ncurrency = ["€"]\n'
        )
        (tmp_path / "s.ini").write_text(
            '[schema.rides]\namount = fare\nscale = 2\nrename = {"UA": "United"}\n'
            'currency = ["€"]\n[schema]\namount = paid\n'
        )
        declared = RecordSchema(amount="fare", scale=2, rename={"UA": "United"}, currency=("€",))
        assert read_schema(tmp_path / "s.toml") == declared
        assert read_schema(tmp_path / "s.ini", "rides") == declared
        assert read_schema(tmp_path / "s.ini").amount == "paid"

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("no.toml", None, "cannot read"),
            ("bad.toml", "amount = ", "is not TOML"),
            ("wrong.toml", "scale = 99\namount = 1\n", "scale: Input should be less"),
            ("twice.toml", 'amount = "timestamp"', "schema: timestamp, category and amount must"),
            ("s.ini", "[schema.ride]\n", "no section [schema.rides]. Did you mean 'schema.ride'"),
        ],
    )
    def test_mistakes_name_the_file_and_the_setting(self, tmp_path: Path, name, content, message):
        """All of them at once."""
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(SchemaError) as caught:
            read_schema(tmp_path / name, "rides" if name.endswith(".ini") else "")
        assert message in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
