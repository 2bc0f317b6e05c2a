"""Charts of runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tallybook.errors import ValidationError
from tallybook.history import RUN, add_attempts, add_gaps
from tallybook.look import chart_spec, chart_svg
from tallybook.run_charts import durations, fates, lateness, timeline

START = datetime(2026, 3, 2, 6, tzinfo=UTC)
Row = tuple[str, str, float, float | None]


def runs(*rows: Row) -> pl.DataFrame:
    """Return runs: report, state, hours after the first, seconds taken."""
    found = [
        {
            "report": report,
            "run_id": f"{place:03}",
            "state": state,
            "started_at": START + timedelta(hours=hours),
            "duration_seconds": seconds,
            "parameters": "{}",
            "reason": None if state == "ok" else "because </script> of it",
        }
        for place, (report, state, hours, seconds) in enumerate(rows)
    ]
    return add_attempts(add_gaps(pl.DataFrame(found, schema=RUN)))


def rows_of(spec: dict[str, Any], *columns: str) -> list[tuple]:
    """Return the rows of a chart's data that have such columns."""
    rows = [row for data in spec["datasets"].values() for row in data]
    return [tuple(row[name] for name in columns) for row in rows if set(columns) <= set(row)]


MIXED = runs(
    ("sales", "ok", 0, 4.0),
    ("sales", "lost", 24, 9.5),
    ("stock", "skipped", 30, 1.0),
    ("stock", "unreadable", 48, None),
    ("stock", "gate_failed", 72, 2.0),
)


class TestTimeline:
    """When they ran, and how they ended."""

    def test_says(self) -> None:
        """Failures are counted and named; colours are explained; the worst report comes first."""
        spec = chart_spec(timeline(MIXED))
        assert spec["title"]["text"] == ["Three of 5 runs failed, two of them of stock"]
        subtitle = " ".join(spec["title"]["subtitle"])
        for words in ("blue: ok", "orange: failed", "grey: skipped", "purple: cannot be read"):
            assert words in subtitle.lower()
        assert rows_of(spec, "rank", "text") == [(1, "3 runs, 2 failed"), (2, "2 runs, 1 failed")]
        assert "stock: 3 runs, 2 failed" in spec["description"]

    def test_every_run_is_a_dot(self) -> None:
        """Those that failed are drawn last, so that nothing hides them."""
        tones = [tone for (tone, _) in rows_of(chart_spec(timeline(MIXED)), "tone", "when")]
        assert sorted(tones) == ["blue", "grey", "orange", "orange", "purple"]
        assert tones[-1] == "orange"

    @pytest.mark.parametrize(
        ("rows", "title"),
        [
            ([("a", "ok", 0, 1.0)], "The one run ended well"),
            ([("a", "ok", 0, 1.0), ("b", "ok", 1, 1.0)], "Both runs ended well"),
            ([("a", "lost", 0, 1.0)], "The one run failed"),
            (
                [("a", "lost", 0, 1.0), ("b", "ok", 0, 1.0)],
                "One of 2 runs failed, all of them of a",
            ),
        ],
        ids=str,
    )
    def test_titles(self, rows: list[Row], title: str) -> None:
        """Few runs are spoken of as few."""
        assert " ".join(chart_spec(timeline(runs(*rows)))["title"]["text"]) == title

    @pytest.mark.parametrize("hours", [0, 0.001, 0.1, 3, 12, 24 * 30, 24 * 365 * 3])
    def test_any_span(self, hours: float) -> None:
        """From one moment to three years it can be drawn, with labelled ticks."""
        spec = chart_spec(timeline(runs(("a", "ok", 0, 1.0), ("a", "ok", hours, 1.0))))
        assert "</text>" in chart_svg(spec)

    @pytest.mark.parametrize(
        "name", ["<script>alert(1)</script>", '"><img onerror=x>', "", "a" * 300]
    )
    def test_names(self, name: str) -> None:
        """Names are text."""
        svg = chart_svg(chart_spec(timeline(runs((name, "lost", 0, 1.0)))))
        assert "<script>" not in svg
        assert "<img" not in svg

    def test_refusals(self) -> None:
        """No run, or too many, cannot be drawn."""
        with pytest.raises(ValidationError, match="no report has run"):
            timeline(runs())
        many = pl.concat([MIXED] * 1000)
        with pytest.raises(ValidationError, match="5,000 runs"):
            timeline(many)


class TestDurations:
    """How long they took."""

    def test_says(self) -> None:
        """Slowest first, by the median; runs without a duration have no dot."""
        spec = chart_spec(durations(MIXED))
        assert spec["title"]["text"] == ["sales usually takes longest: 6.8 seconds"]
        assert rows_of(spec, "rank", "text") == [(1, "median 6.8 s"), (2, "median 1.5 s")]
        assert len(rows_of(spec, "tone", "seconds")) == 4

    def test_one_report(self) -> None:
        """With one report nobody is the slowest."""
        spec = chart_spec(durations(runs(("a", "ok", 0, 3.0))))
        assert spec["title"]["text"] == ["A run usually takes 3 seconds"]

    def test_unknown(self) -> None:
        """Without a duration there is nothing to draw."""
        with pytest.raises(ValidationError, match="no report has run"):
            durations(runs(("a", "unreadable", 0, None)))


def noted(*rows: tuple[str, str, float | None, int]) -> pl.DataFrame:
    """Return what a ledger noted: report, state, seconds late, failures."""
    names = ("report", "state", "late_seconds", "failures")
    plain = pl.DataFrame(
        rows,
        schema={**dict.fromkeys(names[:2], pl.String), names[2]: pl.Float64, names[3]: int},
        orient="row",
    )
    return plain.with_row_index("run").with_columns(tick=pl.lit(START), schedule=pl.lit("daily"))


NOTES = noted(
    ("sales", "ok", 2.0, 0),
    ("sales", "ok", 7_200.0, 1),
    ("sales", "expired", None, 0),
    ("</script>", "coalesced", None, 0),
    ("</script>", "lost", 0.2, 3),
    ("stock", "running", -4.0, 0),
)


class TestLateness:
    """How long after their tick runs started."""

    def test_says(self) -> None:
        """The latest report comes first and is named; what never started has no dot."""
        spec = chart_spec(lateness(NOTES))
        assert spec["title"]["text"] == ["sales came latest, by 2 h"]
        assert rows_of(spec, "rank", "text")[0] == (1, "median 1 h, longest 2 h")
        assert sorted(rows_of(spec, "rank", "shown")) == [(1, 2.0), (1, 7200.0), (2, 1.0), (3, 1.0)]
        assert ">1 min<" in chart_svg(spec)

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(59.0, "The one due run started within a minute"), (86_400.0, "by 1 day"), (1e9, "days")],
    )
    def test_spans(self, seconds: float, words: str) -> None:
        """A second and thirty years fit on the axis, and nothing lies beyond it."""
        spec = chart_spec(lateness(noted(("sales", "ok", seconds, 0))))
        assert words in " ".join(spec["title"]["text"])
        x = spec["layer"][-1]["encoding"]["x"]
        assert x["scale"]["domain"][1] >= max(seconds, 60)

    def test_nothing(self) -> None:
        """Without a scheduled run that started there is nothing to draw."""
        with pytest.raises(ValidationError, match="nothing to draw"):
            lateness(noted(("sales", "expired", None, 0)))


class TestFates:
    """What became of runs."""

    def test_says(self) -> None:
        """Parts of a bar add up to its runs; failures and further tries are counted."""
        spec = chart_spec(fates(NOTES))
        title = " ".join(spec["title"]["text"])
        assert (
            title == "Of 6 runs, one ended well after another try and two failed or came too late"
        )
        assert sorted(rows_of(spec, "rank", "begin", "end", "tone")) == [
            (1, 0, 1, "orange"),
            (1, 1, 2, "grey"),
            (2, 0, 1, "blue"),
            (2, 1, 2, "green"),
            (2, 2, 3, "purple"),
            (3, 0, 1, "brown"),
        ]
        assert "<script" not in chart_svg(spec)
        assert "</script" not in chart_svg(spec)

    def test_all_went_well(self) -> None:
        """Then that is the headline."""
        fine = ("sales", "ok", 1.0, 0)
        for rows, words in (
            ([fine], "The one run did not fail"),
            ([fine] * 3, "None of 3 runs failed"),
        ):
            assert chart_spec(fates(noted(*rows)))["title"]["text"] == [words]

    def test_nothing(self) -> None:
        """Without a run there is nothing to draw."""
        with pytest.raises(ValidationError, match="no run is noted"):
            fates(noted())
