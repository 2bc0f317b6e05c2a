"""Drafts of schemas: what is clear is declared, what is not is left open."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from tallybook.errors import SourceError
from tallybook.infer import as_toml, propose_schema
from tallybook.schema import read_schema
from tallybook.sources import open_source
from tallybook.transform import tally_source


def draft(path: Path, text: str):
    path.write_text(text)
    return propose_schema(open_source(path))


class TestDrafts:
    @pytest.mark.parametrize(
        ("text", "declared"),
        [
            (
                "timestamp,category,amount\n2026-01-01,a,1.5\n",
                {"timestamp_formats": ["iso8601"]},
            ),
            (
                "when;what;paid\n25.04.2026 10:00;a;1.234,50\n26.04.2026 10:00;b;7,00\n",
                {
                    "timestamp_formats": ["%d.%m.%Y %H:%M"],
                    "decimal_mark": ",",
                    "thousands_mark": ".",
                },
            ),
            (
                "on|kind|price\n04/25/2026|a|$1,234.50\n04/26/2026|a|$7.25\n",
                {
                    "timestamp_formats": ["%m/%d/%Y"],
                    "thousands_mark": ",",
                    "currency": ["$"],
                },
            ),
            ("day,shop,paid\n20260425,a,CHF 1'234\n20260426,a,CHF 5\n", {"thousands_mark": "'"}),
        ],
    )
    def test_the_usual_ways_are_recognised(self, tmp_path: Path, text, declared):
        """And the draft reads the file that it was made from, every row."""
        proposal = draft(tmp_path / "in.csv", text)
        assert proposal.declared.items() >= declared.items()
        assert not proposal.choices
        (tmp_path / "s.toml").write_text(as_toml(proposal))
        tallied = tally_source(tmp_path / "in.csv", schema=read_schema(tmp_path / "s.toml"))
        assert tallied.reasons.is_empty()

    def test_what_can_be_read_in_two_ways_is_left_open(self, tmp_path: Path):
        """January or February, a thousand or one: a person decides."""
        proposal = draft(tmp_path / "in.csv", "day;shop;paid\n01/02/2026;a;1,234\n")
        assert set(proposal.choices) == {"timestamp", "amount"}
        toml = as_toml(proposal)
        assert '# timestamp_formats = ["%d/%m/%Y"]' in toml
        assert '# timestamp_formats = ["%m/%d/%Y"]' in toml
        assert '# decimal_mark = ","' in toml
        assert '# thousands_mark = ","' in toml

    def test_a_role_without_a_column_is_asked_for(self, tmp_path: Path):
        """The draft says which."""
        proposal = draft(tmp_path / "in.csv", "a,b\nx,y\nx,z\n")
        assert proposal.missing == ("timestamp", "amount")
        assert '# amount = "?"' in as_toml(proposal)

    def test_dirty_cells_do_not_hide_a_format(self, tmp_path: Path):
        """Files that need a schema have them."""
        rows = "".join(f"2026-01-{day:02},a,{day}.50\n" for day in range(1, 20))
        proposal = draft(tmp_path / "in.csv", f"t,c,amount\n{rows}soon,b,n/a\n,,\n")
        assert proposal.declared["timestamp"] == "t"
        assert proposal.declared["amount"] == "amount"

    def test_an_id_is_not_taken_for_an_amount(self, tmp_path: Path):
        """When another column's name says that it is one."""
        proposal = draft(
            tmp_path / "in.csv", "id,t,shop,fare\n1,2026-01-01,a,5\n2,2026-01-02,a,6\n"
        )
        assert proposal.declared["amount"] == "fare"
        assert proposal.declared["category"] == "shop"

    def test_typed_columns_need_no_guess(self, tmp_path: Path):
        """Parquet knows."""
        frame = pl.DataFrame({"on": [date(2026, 1, 1)], "n": [1.5], "c": ["a"], "flag": [True]})
        frame.write_parquet(tmp_path / "in.parquet")
        proposal = propose_schema(open_source(tmp_path / "in.parquet"))
        assert proposal.declared == {"timestamp": "on", "amount": "n", "category": "c"}

    def test_nothing_to_look_at_is_an_error(self, tmp_path: Path):
        """A header alone tells nothing."""
        with pytest.raises(SourceError, match="no records"):
            draft(tmp_path / "in.csv", "a,b,c\n")
