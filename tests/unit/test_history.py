"""What is read out of a folder of runs: every run, and of a damaged one why it cannot be read."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tallybook.errors import SourceError, ValidationError
from tallybook.history import (
    LOG_LINE,
    RUN,
    UNREADABLE,
    add_attempts,
    add_gaps,
    failed,
    read_log_lines,
    read_runs,
    summarize_runs,
)
from tallybook.types import RunState

START = datetime(2026, 3, 2, 6, tzinfo=UTC)


def manifest(**facts: Any) -> dict[str, Any]:
    """Return the manifest of a run that went well, with other facts put in."""
    return {
        "state": "ok",
        "reason": None,
        "started_at": START.isoformat(timespec="milliseconds"),
        "finished_at": (START + timedelta(seconds=2)).isoformat(timespec="milliseconds"),
        "duration_seconds": 2.0,
        "parameters": {"top": 10, "source": "<b>"},
        "inputs": [
            {"source": "a", "rows_read": 5, "rows_rejected": 1},
            {"source": "b", "rows_read": 7, "rows_rejected": 0},
        ],
        **facts,
    }


def put(runs: Path, text: str | dict, number: int = 1, report: str = "sales") -> Path:
    """Write a bundle with such a manifest and return its folder."""
    folder = runs / report / f"2026030{number}T060000Z-{number:06x}"
    folder.mkdir(parents=True)
    content = text if isinstance(text, str) else json.dumps(text)
    (folder / "manifest.json").write_text(content)
    return folder


class TestReadRuns:
    """One row for each run."""

    def test_facts(self, tmp_path: Path) -> None:
        """What the manifest says, summed over inputs, in UTC."""
        put(tmp_path, manifest(started_at="2026-03-02T07:00:00.250+01:00"))
        found = read_runs(tmp_path)
        assert dict(found.schema) == RUN
        row = found.row(0, named=True)
        assert (row["report"], row["state"], row["rows_read"], row["rows_rejected"]) == (
            "sales",
            "ok",
            12,
            1,
        )
        assert row["started_at"] == START + timedelta(milliseconds=250)
        assert json.loads(row["parameters"]) == {"top": 10, "source": "<b>"}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "{}",
            json.dumps(manifest(state="fine")),
            json.dumps(manifest(started_at="yesterday")),
            json.dumps(manifest(started_at=5)),
            json.dumps(manifest(inputs=7)),
            json.dumps(manifest(inputs=["a"])),
            json.dumps(manifest(duration_seconds="long")),
        ],
        ids=str,
    )
    def test_damaged(self, tmp_path: Path, text: str) -> None:
        """A damaged run is listed, with what is wrong and when it was."""
        put(tmp_path, text, 3)
        row = read_runs(tmp_path).row(0, named=True)
        assert row["state"] == UNREADABLE
        assert "manifest.json is damaged" in row["reason"]
        assert row["started_at"] == datetime(2026, 3, 3, 6, tzinfo=UTC)
        assert row["duration_seconds"] is None

    def test_no_manifest(self, tmp_path: Path) -> None:
        """So is one without a manifest, and one whose manifest is a folder."""
        (put(tmp_path, "", 1) / "manifest.json").unlink()
        odd = put(tmp_path, "", 2) / "manifest.json"
        odd.unlink()
        odd.mkdir()
        first, second = read_runs(tmp_path)["reason"]
        assert first == "it has no manifest.json"
        assert "cannot be opened" in second

    def test_what_is_not_a_run(self, tmp_path: Path) -> None:
        """Work folders, other folders and files are not runs."""
        put(tmp_path, manifest())
        (tmp_path / "sales" / ".20260301T060000Z-0a0a0a.partial").mkdir()
        (tmp_path / "sales" / "notes").mkdir()
        (tmp_path / "sales" / "20260301T060000Z-0b0b0b").touch()
        (tmp_path / "README").touch()
        assert read_runs(tmp_path).height == 1

    def test_the_newest(self, tmp_path: Path) -> None:
        """Of each report only the newest are read."""
        for number in (1, 2, 3):
            put(tmp_path, manifest(), number)
        put(tmp_path, manifest(), 1, "stock")
        found = read_runs(tmp_path, last=2)
        assert sorted(found["run_id"].str.slice(7, 1).to_list()) == ["1", "2", "3"]
        assert read_log_lines(tmp_path, last=2).height == 0

    def test_nothing(self, tmp_path: Path) -> None:
        """No folder, no runs; the columns are there."""
        assert read_runs(tmp_path / "no").schema == read_runs(tmp_path).schema
        assert read_log_lines(tmp_path / "no").height == 0

    def test_refusals(self, tmp_path: Path) -> None:
        """A file is not a folder of runs, and no run at all cannot be asked for."""
        (tmp_path / "file").touch()
        with pytest.raises(SourceError, match="cannot be listed"):
            read_runs(tmp_path / "file")
        with pytest.raises(ValidationError, match="last is 0"):
            read_runs(tmp_path, last=0)


class TestLogLines:
    """One row for each line."""

    def test_lines(self, tmp_path: Path) -> None:
        """In their order; a line that was cut off stays as it is."""
        good = {
            "timestamp": START.isoformat(),
            "level": "INFO",
            "logger": "l",
            "message": "\u2028m",
        }
        lines = [json.dumps(good), "{", "[1]", json.dumps(good | {"timestamp": "soon"}), ""]
        (put(tmp_path, manifest()) / "log.jsonl").write_text("\n".join(lines) + '{"cut')
        found = read_log_lines(tmp_path)
        assert dict(found.schema) == LOG_LINE
        assert found["level"].to_list() == ["INFO", *[UNREADABLE] * 4]
        assert found["message"].to_list()[:3] == ["\u2028m", "{", "[1]"]
        assert found["timestamp"][0] == START

    def test_unreadable(self, tmp_path: Path) -> None:
        """A log that cannot be opened is an error that names it."""
        (put(tmp_path, manifest()) / "log.jsonl").mkdir()
        with pytest.raises(SourceError, match=r"log\.jsonl"):
            read_log_lines(tmp_path)


def runs(*hours: float, states: str = "", report: str = "sales") -> pl.DataFrame:
    """Return runs by hours after the first; their states are `o` ok, `x` lost, `s` skipped."""
    words = {"o": "ok", "x": "lost", "s": "skipped"}
    rows = [
        {
            "report": report,
            "run_id": f"{report}{place:03}",
            "state": words[letter],
            "started_at": START + timedelta(hours=hour),
            "duration_seconds": float(place),
            "parameters": "{}",
        }
        for place, (hour, letter) in enumerate(zip(hours, states or "o" * len(hours), strict=True))
    ]
    return pl.DataFrame(rows, schema=RUN)


class TestGaps:
    """Late is what came after more than twice the usual time."""

    def test_late(self) -> None:
        """The day that was left out, and only that."""
        assert add_gaps(runs(0, 24, 48, 96.5, 120))["late"].to_list() == [
            False,
            False,
            False,
            True,
            False,
        ]

    def test_factor(self) -> None:
        """How late is late can be said, but not less than usual."""
        assert add_gaps(runs(0, 24, 48, 96.5), 3)["late"].sum() == 0
        with pytest.raises(ValidationError, match=r"0\.5 times"):
            add_gaps(runs(0), 0.5)

    def test_no_habit(self) -> None:
        """Three runs are no habit, and no other report's runs make one."""
        both = pl.concat([runs(0, 1, 90), runs(0, 1, 2, 3, report="stock")])
        assert add_gaps(both)["late"].sum() == 0

    def test_order(self) -> None:
        """Rows stay where they are, whatever their order."""
        backwards = runs(0, 24, 48, 96.5, 120).reverse()
        assert add_gaps(backwards)["late"].to_list() == [False, True, False, False, False]


class TestAttempts:
    """A run after a failure, with the same parameters, is another attempt."""

    @pytest.mark.parametrize(
        ("states", "attempts"),
        [("ooo", [1, 1, 1]), ("xxo", [1, 2, 3]), ("oxoxo", [1, 1, 2, 1, 2]), ("xso", [1, 2, 1])],
    )
    def test_numbers(self, states: str, attempts: list[int]) -> None:
        """Counted from the first failure."""
        found = add_attempts(runs(*range(len(states)), states=states))
        assert found["attempt"].to_list() == attempts

    def test_others(self) -> None:
        """Other parameters and other reports are other things; unknown ones cannot be told."""
        mixed = pl.concat(
            [
                runs(0, 2, states="xo"),
                runs(1, 3, states="xo").with_columns(parameters=pl.lit('{"a": 1}')),
                runs(0, 1, states="xo").with_columns(parameters=pl.lit(None, pl.String)),
                runs(0, 1, states="oo", report="stock"),
            ]
        )
        found = add_attempts(mixed)
        known = found.drop_nulls("attempt").group_by("report", "parameters").agg("attempt")
        assert sorted(known["attempt"].to_list()) == [[1, 1], [1, 2], [1, 2]]
        assert found["attempt"].null_count() == 2


class TestSummary:
    """Each report in a row."""

    def test_rows(self) -> None:
        """Worst first; every run is counted."""
        both = pl.concat([runs(0, 1, 2), runs(3, 1, 2, states="xsx", report="stock")])
        found = summarize_runs(add_attempts(add_gaps(both)))
        assert found.select("report", "runs", "failed", "last_state").rows() == [
            ("stock", 3, 2, "lost"),
            ("sales", 3, 0, "ok"),
        ]

    @pytest.mark.parametrize("state", [*RunState, UNREADABLE])
    def test_failed(self, state: str) -> None:
        """Only what went well, or was left out on purpose, is not a failure."""
        found = pl.DataFrame({"state": [str(state)]}).select(failed()).item()
        assert found is (state not in ("ok", "skipped"))
