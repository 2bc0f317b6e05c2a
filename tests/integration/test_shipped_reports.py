"""The reports that ship, run as users run them: what they must find, and what must not happen."""

import csv
import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tallybook.errors import ValidationError
from tallybook.params import read_parameters
from tallybook.reports import RunResult, list_reports, run_report
from tallybook.runs import LedgerState, Tick, claim, finish, open_ledger, record_ticks
from tallybook.types import RunState

pytestmark = pytest.mark.usefixtures("warm_kernels")

HOSTILE = ("<script>alert(1)</script>", "</script><b>", '"><img src=x onerror=alert(1)>')
NEW = ("anomalies", "data_quality", "run_health")

Run = Callable[..., RunResult]


@pytest.fixture(scope="module")
def hostile_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve weeks of three names that would like to be code; one day is odd, one is empty."""
    path = tmp_path_factory.mktemp("hostile") / "hostile.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "category", "amount"])
        for day in range(84):
            moment = f"{date(2026, 1, 5) + timedelta(days=day)}T12:00:00Z"
            times = 0 if day == 40 else 30 if day == 50 else 5
            rows.writerows([moment, name, 7 + day % 3] for name in HOSTILE for _ in range(times))
            rows.writerow([moment, HOSTILE[day % 3], HOSTILE[day % 3]] if day != 40 else [])
    return path


@pytest.fixture(scope="module")
def some_runs(tmp_path_factory: pytest.TempPathFactory, hostile_csv: Path) -> Path:
    """A folder of runs: one that was fine, one that a check ended, one that was damaged."""
    folder = tmp_path_factory.mktemp("some")
    for limit in (60, 1):
        given = {"source": str(hostile_csv), "max_rejected": limit}
        run_report("data_quality", given, runs_dir=folder)
    damaged = folder / HOSTILE[0].replace("/", "_") / "20260304T060000Z-0c0c0c"
    damaged.mkdir(parents=True)
    (damaged / "manifest.json").write_text("</script><img src=x onerror=alert(1)>")
    return folder


@pytest.fixture(scope="module")
def anomalies(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The days of the sample that stand out."""
    return run_report("anomalies", runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Where the sample's rows went."""
    return run_report("data_quality", runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def health(tmp_path_factory: pytest.TempPathFactory, some_runs: Path) -> RunResult:
    """How those runs are doing, asked for by a relative path."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(some_runs.parent)
        given = {"runs_dir": some_runs.name}
        return run_report("run_health", given, runs_dir=tmp_path_factory.mktemp("runs"))


def table(result: RunResult, name: str) -> pl.DataFrame:
    """Return a table of a run."""
    assert result.folder, result.reason
    return pl.read_parquet(result.folder / "tables" / f"{name}.parquet")


def evidence(result: RunResult) -> dict[str, str]:
    """Return the digests of a run's tables and charts, by name."""
    assert result.state is RunState.OK, result.reason
    parts = [*result.manifest["tables"], *result.manifest["charts"]]
    return {part["name"]: part["sha256"] for part in parts}


class TestAnomalies:
    """Days that stand out."""

    def test_finds_the_blizzard(self, anomalies: RunResult) -> None:
        """The storm of February 2013 comes first, with its days, and is said in words."""
        assert anomalies.state is RunState.OK, anomalies.reason
        assert anomalies.manifest["values"]["most_unusual_count"] == ["2013-02-08", "2013-02-09"]
        first = table(anomalies, "spells_of_counts").row(0, named=True)
        assert (first["first_day"], first["days"]) == (date(2013, 2, 8), 2)
        assert (first["value"], first["expected"]) == (746, 1663)
        charts = {chart["name"]: chart["title"] for chart in anomalies.manifest["charts"]}
        assert charts["unusual_counts"].startswith("8–9 February 2013 stood out most: 746 ")
        assert "on 8 February 2013" in charts["unusual_counts_by_category"]

    def test_says_how(self, anomalies: RunResult) -> None:
        """Method and threshold stand in the page."""
        assert anomalies.page
        text = anomalies.page.read_text("utf-8")
        for words in ("median of the same weekday", "±3.5", "Iglewicz and Hoaglin"):
            assert words in text

    def test_missing_days_and_hostile_names(self, tmp_path: Path, hostile_csv: Path) -> None:
        """A day without a record is found; names that would like to be code do nothing."""
        given = {"source": str(hostile_csv), "measure": HOSTILE[1], "unit": HOSTILE[2]}
        result = run_report("anomalies", given, runs_dir=tmp_path)
        assert result.state is RunState.OK, result.reason
        assert result.manifest["values"]["days_without_records"] == 1
        days = table(result, "spells_of_counts")["first_day"].to_list()
        assert set(days) == {date(2026, 1, 5) + timedelta(days=n) for n in (40, 50)}
        check_inert(result)

    def test_too_few_days(self, tmp_path: Path) -> None:
        """Two weeks are nothing to judge by: skipped, and said kindly."""
        given = {"since": "2013-02-01", "until": "2013-02-15"}
        result = run_report("anomalies", given, runs_dir=tmp_path)
        assert result.state is RunState.SKIPPED
        assert result.reason == "14 days are too few: what is usual takes three weeks, at least"


class TestDataQuality:
    """Where every row went."""

    def test_conservation(self, quality: RunResult) -> None:
        """Read is accepted and rejected; every rejected row has its day."""
        assert quality.state is RunState.OK, quality.reason
        row = table(quality, "accounts").row(0, named=True)
        assert row["rows_read"] == row["rows_accepted"] + row["rows_rejected"] == 336_776
        assert table(quality, "placed_by").rows() == [("its own timestamp", 9430)]
        [chart] = quality.manifest["charts"]
        assert "475 rows" in chart["title"]
        assert "8 February 2013" in chart["title"]

    def test_freshness(self, tmp_path: Path) -> None:
        """Age is counted to the day that is asked for, and too old is a failed gate."""
        given = {"as_of": "2014-01-03", "max_age_days": 2}
        result = run_report("data_quality", given, runs_dir=tmp_path)
        assert result.state is RunState.GATE_FAILED
        assert result.reason
        assert "on 2014-01-03 the newest record is at most 2 days old; it is 3" in result.reason
        assert result.manifest["values"]["age_days"] == 3

    def test_too_many_rejects(self, some_runs: Path) -> None:
        """More rejects than allowed is a failed gate; what was found is there all the same."""
        found = [
            json.loads(path.read_text()) for path in some_runs.glob("data_quality/*/manifest.json")
        ]
        states = {one["parameters"]["max_rejected"]: one for one in found}
        assert states[60]["state"] == "ok"
        assert states[1]["state"] == "gate_failed"
        assert {one["name"] for one in states[1]["tables"]} >= {
            "accounts",
            "missing_days",
            "samples",
        }

    def test_hostile_rows(self, some_runs: Path) -> None:
        """Rejected values that would like to be code do nothing."""
        for page in some_runs.glob("data_quality/*/report.html"):
            check_inert_page(page)


class TestRunHealth:
    """How the runs are doing."""

    def test_every_run_is_there(self, health: RunResult) -> None:
        """The damaged one too, which is told as such."""
        assert health.state is RunState.OK, health.reason
        states = table(health, "states")
        assert states["runs"].sum() == 3
        assert set(states["state"]) == {"ok", "gate_failed", "unreadable"}
        reasons = table(health, "failures")["reason"].to_list()
        assert any("damaged" in reason for reason in reasons)
        check_inert(health)

    def test_same_again(self, health: RunResult, some_runs: Path, tmp_path: Path) -> None:
        """The same folder gives the same tables and charts."""
        again = run_report("run_health", {"runs_dir": some_runs}, runs_dir=tmp_path)
        assert evidence(again) == evidence(health)

    def test_empty(self, tmp_path: Path) -> None:
        """Without a run there is nothing to look after: skipped."""
        result = run_report("run_health", {"runs_dir": tmp_path / "no"}, runs_dir=tmp_path)
        assert result.state is RunState.SKIPPED
        assert "no report has run yet" in (result.reason or "")


class TestRunHealthWithLedger:
    """The runs of a folder that has a ledger."""

    def ledger(self, address: Path) -> None:
        """Note two ticks: one ran late, one was put together with it."""
        noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
        states = [LedgerState.COALESCED, LedgerState.REQUESTED]
        ticks = [
            Tick(noon + timedelta(hours=n), state, HOSTILE[1], HOSTILE[0], {})
            for n, state in enumerate(states)
        ]
        late = noon + timedelta(hours=3)
        with closing(open_ledger(address)) as ledger:
            record_ticks(
                ledger, HOSTILE[2], ticks, seen=None, rule="x", until=ticks[1].at, now=late
            )
            held = claim(ledger, "anna", now=late, lease_seconds=60)
            assert held
            finish(ledger, held, RunState.LOST, now=late, reason=HOSTILE[1])

    def test_only_the_ledger_knows(self, tmp_path: Path) -> None:
        """Runs that left no bundle are told: as late, as lost, as put together."""
        folder = tmp_path / "some"
        self.ledger(folder / "ledger.db")
        result = run_report("run_health", {"runs_dir": folder}, runs_dir=tmp_path / "out")
        assert result.state is RunState.OK, result.reason
        values = result.manifest["values"]
        assert (values["runs"], values["ledger_noted"]) == (0, 2)
        assert (values["ledger_lost"], values["ledger_coalesced"]) == (1, 1)
        assert table(result, "latest_runs")["late_seconds"].to_list() == [7200.0]
        assert {chart["name"] for chart in result.manifest["charts"]} == {"fates", "lateness"}
        check_inert(result)

    def test_another_ledger(self, some_runs: Path, tmp_path: Path) -> None:
        """One that is named counts instead; none is made where there is none."""
        self.ledger(tmp_path / "other.db")
        given = {"runs_dir": some_runs, "ledger": str(tmp_path / "other.db")}
        result = run_report("run_health", given, runs_dir=tmp_path / "out")
        assert result.manifest["values"]["ledger_noted"] == 2
        assert result.manifest["values"]["runs"] == 3
        assert not (some_runs / "ledger.db").exists()

    def test_no_password(self, some_runs: Path, tmp_path: Path) -> None:
        """An address with a password is refused before anything could keep it."""
        given = {"runs_dir": some_runs, "ledger": "postgresql://anna:geheim99@127.0.0.1:1/x"}
        with pytest.raises(ValidationError):
            run_report("run_health", given, runs_dir=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_password_of_the_setting(
        self, some_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that is not there fails the report; nothing that it leaves has the password."""
        monkeypatch.setenv("TALLYBOOK_LEDGER", "postgresql://anna:geheim99@127.0.0.1:1/x")
        result = run_report("run_health", {"runs_dir": some_runs}, runs_dir=tmp_path)
        assert result.state is RunState.CELL_FAILED
        assert "postgresql://anna:***@127.0.0.1:1/x" in (result.reason or "")
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or b"geheim99" not in path.read_bytes(), path


class TestAll:
    """What holds for each of them."""

    @pytest.mark.parametrize("name", NEW)
    def test_form(self, name: str, root: Path) -> None:
        """At most fifteen cells, no definitions, and a comment behind every parameter."""
        path = root / "reports" / f"{name}.ipynb"
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert len(cells) <= 15
        assert not any(
            line.startswith(("def ", "class ")) for one in code for line in one.splitlines()
        )
        assert all(field.description for field in read_parameters(path).model_fields.values())
        assert name in [report.name for report in list_reports()]


def check_inert(result: RunResult) -> None:
    """Fail if a hostile text is markup in a run's page or picture."""
    assert result.folder
    check_inert_page(result.folder / "report.html")
    for picture in result.folder.glob("charts/*.svg"):
        check_inert_page(picture)


def check_inert_page(path: Path) -> None:
    """Fail if a hostile text is markup in a file."""
    text = path.read_text("utf-8")
    for code in ("<script>alert", "<img src=x", "</script><b>", "</script><img"):
        assert code not in text, f"{code} in {path.name}"
