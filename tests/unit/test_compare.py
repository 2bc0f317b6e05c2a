"""What differs between two runs: every difference is found, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook import compare_page
from tallybook.compare import (
    ABSENT,
    Change,
    change_line,
    change_text,
    compare_runs,
    compare_tables,
    comparison_lines,
    value_text,
)
from tallybook.compare_page import comparison_page, laid_over, on_same_axes, write_comparison
from tallybook.errors import OutputError, SourceError
from tallybook.look import spec_json

HOSTILE = "</script><img src=x onerror=alert(1)>"
CITIES = pl.DataFrame({"city": ["Rome", "Oslo", "Bonn"], "rides": [1200, 7, 5]})
Make = Callable[..., Path]


def bars(top: int, **changes: Any) -> dict[str, Any]:
    """A plain chart."""
    return {
        "data": {"name": f"data-{top}"},
        "datasets": {f"data-{top}": [{"city": "Rome", "rides": top}]},
        "mark": "bar",
        "encoding": {
            "x": {"field": "rides", "type": "quantitative"},
            "y": {"field": "city", "type": "nominal"},
        },
    } | changes


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a bundle as a run leaves it."""

    def bundle(
        name: str,
        tables: dict[str, Any] | None = None,
        charts: dict[str, Any] | None = None,
        **told: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "files").mkdir(parents=True)
        kept: dict[str, Any] = {"tables": [], "charts": []}
        for table, frame in (tables or {}).items():
            path = folder / "files" / f"{table}.parquet"
            frame.write_parquet(path)
            digest = sha256(path.read_bytes()).hexdigest()
            kept["tables"].append(
                {"name": table, "title": table.title(), "file": f"files/{table}.parquet"}
                | {"rows": frame.height, "sha256": digest}
            )
        for chart, spec in (charts or {}).items():
            text = spec_json(spec)
            (folder / "files" / f"{chart}.vl.json").write_text(text)
            (folder / "files" / f"{chart}.svg").write_text(
                "<svg xmlns='http://www.w3.org/2000/svg'/>"
            )
            files = {"spec": f"files/{chart}.vl.json", "svg": f"files/{chart}.svg"}
            kept["charts"].append(
                {"name": chart, "title": f"{chart} {HOSTILE}", "description": "", "files": files}
                | {"sha256": sha256(text.encode()).hexdigest()}
            )
        manifest = {
            "format_version": 1,
            "report": "rides",
            "title": "Rides",
            "run_id": name,
            "state": "ok",
            "started_at": "2026-01-31T06:00:00+00:00",
            "notebook": {"name": "rides.ipynb", "sha256": "9f86d081"},
            "parameters": {"top": 5},
            "versions": {"tallybook": "0.1.0"},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest | kept | told))
        return folder

    return bundle


class TestChange:
    """One thing in two runs."""

    @given(st.integers() | st.decimals(-(10**15), 10**15, places=9))
    def test_exact(self, number: int | Decimal) -> None:
        """A difference has no rounding, also where decimals came as text."""
        text = str(number) if isinstance(number, int) else format(number, "f")
        change = Change("n", text, number + 1)
        assert change.absolute == 1
        assert change.moved

    @pytest.mark.parametrize(
        ("before", "after", "moved"),
        [
            (1, 1.0, False),
            ("1.500", Decimal("1.5"), False),
            (0.1, 0.1, False),
            (True, 1, False),
            (None, ABSENT, True),
            ("a", "b", True),
            (float("inf"), 1.0, True),
            ([1], [1], False),
        ],
        ids=str,
    )
    def test_moved(self, before: object, after: object, moved: bool) -> None:
        """Numbers are compared as numbers, all else by what it is."""
        assert Change("n", before, after).moved is moved

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (Change("n", 1200, 1260), "n: 1,200 → 1,260, +60 (+5.0 %)"),
            (Change("n", 0, -7), "n: 0 → −7, −7"),
            (Change("n", -4, -2), "n: −4 → −2, +2 (+50.0 %)"),
            (Change("n", 1.23456789, 1.5), "n: 1.2346 → 1.5, +0.2654 (+21.5 %)"),
            (Change("n", "km", ABSENT), "n: km → not there"),
            (Change("n", None, {"a": 1}), 'n: not set → {"a": 1}'),
        ],
        ids=lambda value: value.name if isinstance(value, Change) else None,
    )
    def test_line(self, change: Change, text: str) -> None:
        """It is written for people."""
        assert change_line(change) == text

    @given(st.floats() | st.decimals(places=6) | st.integers() | st.text() | st.none())
    def test_any_value(self, value: object) -> None:
        """Whatever was recorded can be written."""
        assert isinstance(value_text(value), str)
        assert change_text(Change("n", value, value)) in ("", "+0", "+0 (+0.0 %)")


class TestTables:
    """Rows matched by their key."""

    @given(
        st.dictionaries(st.text(max_size=3), st.integers(-5, 5), max_size=6),
        st.dictionaries(st.text(max_size=3), st.integers(-5, 5), max_size=6),
    )
    def test_as_dictionaries(self, before: dict[str, int], after: dict[str, int]) -> None:
        """What came, went and moved is what two dictionaries say, in any order of rows."""
        schema = {"key": pl.String, "n": pl.Int64}
        tables = [
            pl.DataFrame(list(rows.items()), schema=schema, orient="row")
            for rows in (before, after)
        ]
        found = compare_tables("t", "", *tables)
        assert set(found.came) == after.keys() - before.keys()
        assert set(found.went) == before.keys() - after.keys()
        moved = {cell.key: cell.change.absolute for cell in found.cells}
        both = before.keys() & after.keys()
        assert moved == {k: after[k] - before[k] for k in both if before[k] != after[k]}

    def test_key_of_two_columns(self) -> None:
        """Every column before the first number belongs to the key; missing parts have a name."""
        table = pl.DataFrame(
            {"city": ["Rome", "Rome", None], "day": ["a", "b", "b"], "n": [1, 2, 3]}
        )
        changed = table.with_columns(n=pl.Series([1, 2, 4]))
        found = compare_tables("t", "", table, changed)
        assert found.key == ("city", "day")
        assert [cell.key for cell in found.cells] == ["–, b"]

    def test_exact_decimals(self) -> None:
        """The last of thirty digits counts, and another scale does not."""
        numbers = ["12345678901234567890123456.789", "1.5"]
        one = pl.DataFrame({"k": ["a", "b"], "n": numbers}).cast({"n": pl.Decimal(38, 3)})
        other = one.with_columns(n=one["n"].cast(pl.Decimal(38, 9)))
        assert not compare_tables("t", "", one, other).moved
        up = one.with_columns(n=pl.col("n") + pl.lit(Decimal("0.001")).cast(pl.Decimal(38, 3)))
        [cell, _] = compare_tables("t", "", one, up).cells
        assert cell.change.absolute == Decimal("0.001")

    def test_cannot_be_matched(self) -> None:
        """Without a key, or with one that repeats, it is said that nothing can be said of rows."""
        twice = pl.concat([CITIES, CITIES])
        numbers = CITIES.select("rides")
        renamed = CITIES.rename({"city": "town"})
        assert "is no key" in compare_tables("t", "", twice, CITIES).notes[0]
        assert "no key to match" in compare_tables("t", "", numbers, numbers * 2).notes[0]
        assert "column city is gone" in compare_tables("t", "", CITIES, renamed).notes
        assert not compare_tables("t", "", twice, twice).moved

    def test_lists(self) -> None:
        """Values that are no single value are compared, too."""
        table = pl.DataFrame({"k": ["a"], "n": [1], "parts": [[1, 2]]})
        found = compare_tables("t", "", table, table.with_columns(parts=pl.Series([[1, 3]])))
        assert [cell.change.name for cell in found.cells] == ["parts"]


class TestRuns:
    """Two bundles."""

    def test_same(self, make: Make) -> None:
        """A run does not differ from itself."""
        one = make("one", {"cities": CITIES}, {"bars": bars(1)})
        found = compare_runs(one, one / "report.html")
        assert found.same_results
        assert "Both say the same" in comparison_lines(found)[1]
        assert "Both say the same" in comparison_page(found)

    def test_everything(self, make: Make) -> None:
        """Each kind of difference is there, in the lines and on the page, and text is only text."""
        source = {"source": "a.csv", "rows_read": 3, "rows_accepted": 3, "rows_rejected": 0}
        reason = {"column": "amount", "reason": "missing", "rows": 2}
        one = make(
            "one",
            {"cities": CITIES, "old": CITIES},
            {"bars": bars(1), "gone": bars(1), "layers": {"layer": [bars(1)]}},
            inputs=[source | {"sha256": "x"}],
            values={"n": "1.50", "best": "Rome"},
            gates=[{"message": "rows were read", "passed": True}],
        )
        other = make(
            "two",
            {
                "cities": CITIES.with_columns(
                    rides=pl.col("rides") + 1,
                    city=pl.lit(HOSTILE).repeat_by(1).list.first() + pl.col("city"),
                ),
                "new": CITIES,
            },
            {"bars": bars(2), "new": bars(2), "layers": {"layer": [bars(2)]}},
            state="gate_failed",
            inputs=[source | {"sha256": "y", "rows_read": 5, "rows_rejected": 2}],
            reasons=[reason],
            values={"n": "1.75", "best": HOSTILE},
            parameters={"top": 5, "unit": HOSTILE},
            gates=[{"message": "rows were read", "passed": False}],
            versions={"tallybook": "0.2.0"},
        )
        found = compare_runs(one, other)
        lines = "\n".join(comparison_lines(found))
        for said in (
            "state: ok → gate_failed",
            f"unit: not there → {HOSTILE}",
            "other bytes",
            "rows_read: 3 → 5, +2 (+66.7 %)",
            "amount, missing: not there → 2",
            "n: 1.5 → 1.75, +0.25 (+16.7 %)",
            "3 came, 3 went, 0 values moved",
            "only the second run has it",
            "only the first run has it",
            "bars: changed",
            "new: came",
            "gone: went",
            "rows were read: passed → failed",
            "tallybook: 0.1.0 → 0.2.0",
        ):
            assert said in lines
        page = comparison_page(found)
        assert HOSTILE not in page
        assert page.count('<figure class="chart"') == 1
        assert page.count('class="overlay"') == 1
        assert page.count("window.vegaEmbed=") == 1

    def test_many(self, make: Make) -> None:
        """A long list is cut, and what is not shown is counted."""
        names = [f"c{n}" for n in range(150)]
        table = pl.DataFrame({"city": names, "rides": range(150)})
        moved = table.with_columns(rides=pl.col("rides") * 2 + 1)
        found = compare_runs(make("a", {"t": table}), make("b", {"t": moved}))
        assert "  … and 142 more values that moved" in comparison_lines(found)
        assert "  c149: rides: 149 → 299, +150 (+100.7 %)" in comparison_lines(found)
        assert "110 smaller changes are not shown" in comparison_page(found)
        fresh = compare_runs(make("c", {"t": table.head(1)}), make("d", {"t": table}))
        assert "49 more are not shown" in comparison_page(fresh)

    def test_two_inputs_of_one_name(self, make: Make) -> None:
        """A source that was read twice is compared twice."""
        read = [{"source": "a.csv", "rows_read": n, "sha256": None} for n in (1, 2)]
        found = compare_runs(make("a", inputs=read), make("b", inputs=read[:1]))
        assert [change.source for change in found.inputs] == ["a.csv #2"]
        assert found.inputs[0].same_bytes is None

    @pytest.mark.parametrize("text", [None, "{", "{}", "[]", '{"format_version": 2}'], ids=str)
    def test_no_bundle(self, tmp_path: Path, text: str | None) -> None:
        """What is no bundle, or a later one, is an error that says what to do."""
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(SourceError, match=r"name a run's folder|update Tallybook"):
            compare_runs(tmp_path, tmp_path)

    def test_files_gone(self, make: Make) -> None:
        """A bundle without its files says which is missing."""
        one = make("a", {"t": CITIES}, {"c": bars(1)})
        other = make("b", {"t": CITIES.head(1)}, {"c": bars(2)})
        (one / "files" / "c.vl.json").unlink()
        found = compare_runs(one, other)
        with pytest.raises(SourceError, match=r"c\.vl\.json"):
            comparison_page(found)
        (one / "files" / "t.parquet").write_text("no")
        with pytest.raises(SourceError, match=r"t\.parquet"):
            compare_runs(one, other)

    def test_written_in_one_step(self, make: Make, tmp_path: Path) -> None:
        """The page is there, or not at all."""
        one = make("a")
        found = compare_runs(one, one)
        assert write_comparison(found, tmp_path / "d.html").read_text() == comparison_page(found)
        with pytest.raises(OutputError):
            write_comparison(found, tmp_path / "nowhere" / "d.html")


class TestOverlay:
    """Two charts in one picture."""

    def test_plain(self) -> None:
        """Plain charts become one, the first light, both data sets inside."""
        both = laid_over(bars(1), bars(2, config={"font": "x"}))
        assert both
        assert both["datasets"].keys() == {"data-1", "data-2"}
        assert [layer["mark"].get("opacity") for layer in both["layer"]] == [0.35, None]
        assert both["config"] == {"font": "x"}

    @pytest.mark.parametrize(
        "other",
        [
            {"mark": "line"},
            {"mark": "text"},
            {"params": [{"name": "p"}]},
            {"encoding": {"x": {"field": "rides", "type": "quantitative", "sort": "-y"}}},
            {"layer": [], "mark": {}},
        ],
        ids=["mark", "text", "interaction", "order", "layers"],
    )
    def test_not_plain(self, other: dict[str, Any]) -> None:
        """Others do not."""
        assert laid_over(bars(1), bars(2, **other)) is None
        assert laid_over(bars(1, **other), bars(2)) is None

    def test_same_axes(self) -> None:
        """Charts of layers get axes that hold both; those of another form do not."""

        def layered(top: float) -> dict[str, Any]:
            scale = {"domain": [0, top], "rangeMin": 50}
            axis = {"values": [0, top]}
            x = {"field": "rides", "type": "quantitative", "scale": scale, "axis": axis}
            return {"vconcat": [{"layer": [{"mark": "bar", "encoding": {"x": x}}]}]}

        one, other = on_same_axes(layered(5), layered(9)) or ({}, {})
        assert one == other
        assert one["vconcat"][0]["layer"][0]["encoding"]["x"]["axis"]["values"] == [0, 9]
        assert on_same_axes(layered(5), {"vconcat": [{"layer": []}]}) is None

    def test_axes_that_are_not_known(self) -> None:
        """Where the ends of an axis are not written down, it stays as it is."""
        assert on_same_axes(bars(1), bars(2)) == (bars(1), bars(2))

    def test_drawing_fails(self) -> None:
        """Charts that cannot be drawn again are shown as they were published."""
        assert compare_page._aligned(({"mark": 7}, {"mark": 7})) == []
