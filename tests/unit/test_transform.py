"""From a source to totals: one pass, nothing lost, nothing half written."""

import csv
import gzip
import shutil
import tempfile
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook import transform
from tallybook.errors import (
    GateError,
    OutputError,
    ProcessingError,
    SchemaError,
    SourceError,
    ValidationError,
)
from tallybook.records import BATCH_ROWS, Source
from tallybook.schema import RecordSchema, Rule
from tallybook.transform import (
    check_conservation,
    describe_reasons,
    tally_source,
    transform_data,
    within,
)
from tallybook.types import Period

HEADER = "timestamp,category,amount\n"
WEEK = f"""{HEADER}2026-03-02T08:10:00Z,tea,2.10
2026-03-02T09:00:00Z,cake,4.25
2026-03-03T10:30:00Z,tea,n/a
2026-03-04T10:30:00Z,,2.10
2026-03-05T16:45:00Z,cake,-4.25
2026-03-06,tea,0.30
"""


@pytest.fixture
def week(tmp_path: Path) -> Path:
    path = tmp_path / "week.csv"
    path.write_text(WEEK)
    return path


def counts(tallied):
    return tallied.accounts.drop("source").row(0)


class TestTransformData:
    def test_totals_by_category_largest_first(self, week: Path, tmp_path: Path):
        """Exact totals, averages and counts, written and returned."""
        totals = transform_data(week, tmp_path / "totals.parquet")
        assert isinstance(totals, pl.LazyFrame)
        assert totals.collect_schema() == {
            "category": pl.String,
            "total_amount": pl.Decimal(38, 9),
            "avg_amount": pl.Float64,
            "transaction_count": pl.Int64,
        }
        assert totals.collect().rows() == [
            ("tea", Decimal("2.4"), 1.2, 2),
            ("cake", Decimal(0), 0.0, 2),
        ]
        assert pl.read_parquet(tmp_path / "totals.parquet").equals(totals.collect())

    @pytest.mark.parametrize(
        "day", ["2026-03-05", date(2026, 3, 5), datetime(2026, 3, 5, 12), "2026-03-05T00:00:00"]
    )
    def test_filter_date_keeps_that_day_and_later(self, week: Path, tmp_path: Path, day):
        """However the day is written."""
        totals = transform_data(week, tmp_path / "totals.csv", day).collect()
        assert totals["category"].to_list() == ["tea", "cake"]
        assert totals["transaction_count"].to_list() == [1, 1]

    def test_a_day_that_is_none_is_refused(self, week: Path, tmp_path: Path):
        """Before anything is read."""
        with pytest.raises(ValidationError, match="'soon' is not a date"):
            transform_data(week, tmp_path / "totals.csv", "soon")

    def test_a_float_column_gives_float_totals(self, tmp_path: Path):
        """A measurement is not dressed up as a decimal."""
        frame = pl.DataFrame({"timestamp": [date(2026, 1, 1)], "category": ["a"], "amount": [0.5]})
        frame.write_parquet(tmp_path / "in.parquet")
        totals = transform_data(tmp_path / "in.parquet", tmp_path / "out.parquet").collect()
        assert totals.schema["total_amount"] == pl.Float64

    def test_whether_amounts_were_measured_is_known(self, week: Path, tmp_path: Path):
        """Floats are measurements, everything else is exact."""
        pl.DataFrame(
            {"timestamp": ["2026-03-02"], "category": ["a"], "amount": [0.1]}
        ).write_parquet(tmp_path / "floats.parquet")
        assert tally_source(tmp_path / "floats.parquet").measured
        assert not tally_source(week).measured

    def test_lines_of_text_are_counted(self, tmp_path: Path):
        """An empty line is no item: it goes to the rejects."""
        (tmp_path / "items.txt").write_text("tea\ncake\n\ntea\n")
        totals = transform_data(tmp_path / "items.txt", tmp_path / "counts.json").collect()
        assert totals.rows() == [("tea", 2), ("cake", 1)]
        rejects = pl.read_csv(tmp_path / "counts.rejects.csv")
        assert rejects.select("row", "column", "reason").rows() == [(3, "line", "missing")]

    def test_text_has_no_dates_to_choose_by(self, tmp_path: Path):
        """Saying so beats counting everything."""
        (tmp_path / "items.txt").write_text("tea\n")
        with pytest.raises(ValidationError, match="no timestamps"):
            transform_data(tmp_path / "items.txt", tmp_path / "c.csv", "2026-01-01")

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (None, SourceError),
            ("", SourceError),
            (HEADER, SourceError),
            ("timestamp,category\n2026-01-01,a\n", SchemaError),
            (HEADER + "2026-01-01,a,b\n", GateError),
            (HEADER + "2026-01-01,a,1,2\n", GateError),
        ],
    )
    def test_a_failure_leaves_no_output_and_an_older_one_as_it_was(
        self, tmp_path: Path, content, error
    ):
        """Missing, empty, header only, a column missing, nothing accepted, too many cells."""
        source = tmp_path / "in.csv"
        if content is not None:
            source.write_text(content)
        old = tmp_path / "old.csv"
        old.write_text("old")
        before = set(tmp_path.iterdir())
        for output in (old, tmp_path / "new.parquet"):
            with pytest.raises(error):
                transform_data(source, output)
        assert set(tmp_path.iterdir()) == before
        assert old.read_text() == "old"

    def test_an_unknown_output_suffix_is_refused_before_reading(self, tmp_path: Path):
        """Not after an hour of work."""
        with pytest.raises(OutputError, match=r"suffix must be one of \.parquet, \.csv, \.json"):
            transform_data(tmp_path / "missing.csv", tmp_path / "totals.xls")


class TestRejects:
    def test_each_reject_names_file_row_column_value_and_reason(self, week: Path, tmp_path: Path):
        """As the file has them."""
        tally_source(week, rejects_path=tmp_path / "rejects.csv")
        rejects = pl.read_csv(tmp_path / "rejects.csv", infer_schema=False)
        assert rejects.rows() == [
            (str(week), "3", "amount", "n/a", "not a number"),
            (str(week), "4", "category", None, "missing"),
        ]

    def test_without_rejects_there_is_no_file_and_no_stale_one(self, tmp_path: Path):
        """Last night's rejects are not this night's."""
        (tmp_path / "ok.csv").write_text(HEADER + "2026-01-01,a,1\n")
        (tmp_path / "rejects.parquet").write_text("stale")
        tallied = tally_source(tmp_path / "ok.csv", rejects_path=tmp_path / "rejects.parquet")
        assert tallied.reasons.is_empty()
        assert not (tmp_path / "rejects.parquet").exists()

    def test_reasons_are_counted_and_exemplified(self, week: Path):
        """In a few lines, the most frequent first."""
        week.write_text(WEEK + "2026-03-07,tea,\n" * 3 + f"2026-03-07,tea,{'9' * 99}\nx,tea,\n")
        tallied = tally_source(week)
        assert describe_reasons(tallied.reasons).splitlines() == [
            "  amount: 4 missing (first: row 7, nothing)",
            "  category: 1 missing (first: row 4, nothing)",
            "  amount: 1 not a number (first: row 3, 'n/a')",
            "  more: 2",
        ]
        assert f"'{'9' * 40}…'" in describe_reasons(tallied.reasons, most=9)

    def test_a_torn_record_is_a_reject(self, tmp_path: Path):
        """A half line costs one record, not the file."""
        line = '{"timestamp": "2026-01-01", "category": "a", "amount": 0.1}'
        (tmp_path / "a.ndjson").write_text(f'{line}\n{{"timest\n{line}\n')
        tallied = tally_source(tmp_path / "a.ndjson")
        assert counts(tallied) == (3, 2, 1, 0)
        assert tallied.totals["total_amount"].item() == Decimal("0.2")
        assert "record: 1 not a record" in describe_reasons(tallied.reasons)


class TestFailures:
    """A run that fails says why, and leaves nothing behind."""

    @pytest.fixture
    def scratch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where the folders for the time of a run are made."""
        folder = tmp_path / "scratch"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder

    @pytest.mark.parametrize("repeat", range(5))
    def test_a_rule_that_fails_on_a_value(self, tmp_path: Path, scratch: Path, repeat: int):
        """The rule is to blame, not the file; what helps is said."""
        (tmp_path / "a.csv").write_text(
            "timestamp,category,amount,n\n2026-01-01,a,1,5\n2026-01-02,b,2,x\n"
        )
        rule = Rule(name="big", holds="CAST(n AS INT) > 3", reason="too small")
        with pytest.raises(SchemaError, match=r"a\.csv: rule 'big' failed: .*TRY_CAST gives null"):
            tally_source(tmp_path / "a.csv", schema=RecordSchema(rules=(rule,)))
        assert not list(scratch.iterdir())

    def test_without_rules_it_is_the_source(
        self, week: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Whatever Polars cannot do with it."""

        def fail(*_: object) -> None:
            raise pl.exceptions.InvalidOperationError("cannot be done")

        monkeypatch.setattr(transform, "_tally_chunk", fail)
        with pytest.raises(SourceError, match=r"week\.csv: cannot be done"):
            tally_source(week)

    def test_what_a_scan_leaves_behind_late_goes_too(
        self, week: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """It may still write for a moment after it has failed."""
        remove, tried = shutil.rmtree, []

        def too_early(folder: Path, **options: bool) -> None:
            tried.append(folder)
            if len(tried) > 1:
                remove(folder, **options)

        monkeypatch.setattr(shutil, "rmtree", too_early)
        assert counts(tally_source(week)) == (6, 4, 2, 0)
        assert len(tried) == 2
        assert not list(scratch.iterdir())

    def test_a_folder_that_cannot_go_stops_no_run(
        self, week: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The totals are there; somebody else tidies up."""
        monkeypatch.setattr(transform, "_TRIES", 2)
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
        assert counts(tally_source(week)) == (6, 4, 2, 0)
        assert len(list(scratch.iterdir())) == 1


CELLS = st.tuples(
    st.sampled_from(["2026-03-01", "2026-03-02T10:00:00Z", "never", ""]),
    st.sampled_from(["a", "b", "=c", " ", 'say "x"', "two\nlines", ""]),
    st.sampled_from(["1", "0.10", "-5.5", "1e3", "NaN", "1e99", "0.12345678901", "x", ""]),
)


class TestConservation:
    @given(st.lists(CELLS, min_size=1, max_size=20), st.sampled_from([None, *Period]))
    def test_every_row_is_in_a_total_or_in_the_rejects(self, tmp_path_factory, rows, every):
        """Whatever is asked, the same rows are rejected, and Python's csv counts as many."""
        path = tmp_path_factory.mktemp("rows") / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER.strip().split(","), *rows])
        rejects = path.with_name("rejects.parquet")
        try:
            tallied = tally_source(path, every=every, rejects_path=rejects)
        except GateError:  # nothing accepted: its own test says what follows
            return
        read, accepted, rejected, outside = counts(tallied)
        assert (read, outside) == (len(rows), 0)
        assert int(tallied.partial["transaction_count"].sum()) == accepted == read - rejected
        named = set(pl.read_parquet(rejects)["row"]) if rejects.exists() else set()
        good = {"1", "0.10", "-5.5", "1e3"}
        expected = {
            number
            for number, (moment, category, amount) in enumerate(rows, 1)
            if not moment.startswith("2026") or not category.strip() or amount not in good
        }
        assert named == expected

    def test_an_account_that_does_not_balance_stops_everything(self, week: Path):
        """It would be a fault of ours, and no total leaves the house."""
        tallied = tally_source(week)
        short = tallied.accounts.with_columns(rows_rejected=pl.lit(1, dtype=pl.Int64))
        fewer = tallied.partial.head(1)
        for accounts, partial in [(short, tallied.partial), (tallied.accounts, fewer)]:
            with pytest.raises(ProcessingError, match="does not balance") as caught:
                check_conservation(accounts, partial)
            assert caught.value.error_code == "NOT_EXACT"

    def test_rows_outside_the_dates_are_accepted_and_counted_apart(self, week: Path):
        """There is nothing wrong with them; a reject stays one whatever its date."""
        tallied = tally_source(week, since=date(2026, 3, 3), until=date(2026, 3, 6))
        assert counts(tallied) == (6, 4, 2, 3)
        assert tallied.totals.select("category", "transaction_count").rows() == [("cake", 1)]

    def test_dates_that_hold_nothing_give_an_empty_total(self, week: Path):
        """That is an answer, not an error."""
        tallied = tally_source(week, since=date(2030, 1, 1))
        assert tallied.totals.is_empty()
        assert counts(tallied) == (6, 4, 2, 4)

    def test_a_source_without_a_single_chunk_holds_no_records(self, monkeypatch):
        """A service may answer with no page at all."""
        empty = Source("https://example.org/sales", list)
        monkeypatch.setattr(transform, "open_source", lambda *_: empty)
        with pytest.raises(SourceError, match="it holds no records"):
            tally_source("https://example.org/sales")

    def test_progress_adds_up_to_the_rows_read(self, week: Path):
        """A bar that ends at 100 %."""
        seen: Counter[str] = Counter()
        tally_source(week, on_progress=lambda rows: seen.update(rows=rows))
        assert seen["rows"] == 6

    def test_telling_hands_the_batch_on(self):
        """Polars calls it from threads of its own, where coverage does not look."""
        batch, seen = pl.DataFrame({"a": [1, 2]}), []
        assert transform._telling(seen.append)(batch) is batch
        assert seen == [2]


class TestUniqueIds:
    def test_an_id_that_repeats_is_a_reject_wherever_it_repeats(self, tmp_path: Path):
        """In the same batch or a later one; the first is the one that counts."""
        line = '{{"timestamp": "2026-01-01", "category": "a", "amount": 1, "id": "{}"}}'
        ids = [*range(BATCH_ROWS + 5), 3, 3, BATCH_ROWS + 1]
        (tmp_path / "a.ndjson").write_text("\n".join(map(line.format, ids)))
        schema = RecordSchema(unique="id")
        rejects = tmp_path / "rejects.parquet"
        tallied = tally_source(tmp_path / "a.ndjson", schema=schema, rejects_path=rejects)
        assert counts(tallied) == (len(ids), BATCH_ROWS + 5, 3, 0)
        assert pl.read_parquet(rejects).select("row", "column", "value", "reason").rows() == [
            (BATCH_ROWS + 6, "id", "3", "seen before"),
            (BATCH_ROWS + 7, "id", "3", "seen before"),
            (BATCH_ROWS + 8, "id", str(BATCH_ROWS + 1), "seen before"),
        ]

    def test_a_missing_id_repeats_nothing(self, tmp_path: Path):
        """Whether it may be missing is another rule."""
        (tmp_path / "a.csv").write_text(f"{HEADER.strip()},id\n2026-01-01,a,1,\n2026-01-01,a,1,\n")
        assert counts(tally_source(tmp_path / "a.csv", schema=RecordSchema(unique="id")))[1] == 2


class TestDates:
    def test_days_begin_at_local_midnight(self):
        """Also on the day on which the clocks change."""
        moments = [f"2026-03-28T{hour}" for hour in ("22:59:59", "23:00:00")]
        frame = pl.DataFrame({"timestamp": moments}).select(
            pl.col("timestamp").str.to_datetime(time_zone="UTC")
        )
        inside = within(date(2026, 3, 29), None, "Europe/Berlin")
        assert frame.select(inside).to_series().to_list() == [False, True]

    def test_without_bounds_everything_is_inside(self):
        """Including the year 1."""
        frame = pl.DataFrame({"timestamp": [datetime(1, 1, 1)]})
        assert frame.filter(within(None, None)).height == 1


class TestSameTotals:
    def test_order_and_compression_change_nothing(self, week: Path, tmp_path: Path):
        """Not a bit."""
        header, *lines = WEEK.splitlines()
        other = tmp_path / "other.csv.gz"
        other.write_bytes(gzip.compress("\n".join([header, *reversed(lines)]).encode()))
        assert tally_source(other).partial.equals(tally_source(week).partial)

    def test_the_schema_names_the_columns(self, tmp_path: Path):
        """And says what the delimiter was."""
        (tmp_path / "rides.csv").write_text("when;what;fare\n01.03.2026;a;5\n")
        schema = RecordSchema(
            timestamp="when", category="what", amount="fare", timestamp_formats=("%d.%m.%Y",)
        )
        tallied = tally_source(tmp_path / "rides.csv", schema=schema)
        assert tallied.totals["total_amount"].item() == 5
        assert tallied.note == "delimiter: semicolon"

    def test_the_module_reads_the_data_once(self, week: Path, monkeypatch: pytest.MonkeyPatch):
        """Totals and account share one scan; what was set aside is not scanned again."""
        collected = []
        original = pl.collect_all

        def spy(plans, **options):
            collected.append(pl.explain_all(plans).count("Csv SCAN"))
            return original(plans, **options)

        monkeypatch.setattr(transform.pl, "collect_all", spy)
        tally_source(week)
        assert collected == [1, 0]
