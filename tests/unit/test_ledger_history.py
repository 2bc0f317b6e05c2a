"""What is read out of a ledger for the report on the runs, and what is not written for it."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tallybook.errors import ConfigError, LedgerError, ValidationError
from tallybook.ledger_history import NOTED, chosen_ledger, ledger_file, read_ledger, sum_up
from tallybook.runs import LedgerState, Tick, claim, finish, open_ledger, record_ticks, request_run
from tallybook.types import RunState

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A ledger: of two ticks one ran late and at the second try; two requests wait."""
    path = tmp_path / "ledger.db"
    states = [LedgerState.EXPIRED, LedgerState.REQUESTED]
    ticks = [
        Tick(NOON + timedelta(minutes=n), state, None, "sales", {})
        for n, state in enumerate(states)
    ]
    with closing(open_ledger(path)) as ledger:
        until, now = ticks[-1].at, NOON + timedelta(minutes=2)
        record_ticks(ledger, "minutely", ticks, seen=None, rule="* UTC", until=until, now=now)
        first = claim(ledger, "anna", now=now, lease_seconds=60)
        assert first
        finish(ledger, first, RunState.KERNEL_DIED, now=now, retry_at=now + timedelta(seconds=9))
        second = claim(ledger, "anna", now=now + timedelta(seconds=9), lease_seconds=60)
        assert second
        finish(ledger, second, RunState.OK, now=now + timedelta(seconds=12))
        for name in ("/srv/reports/stock.ipynb", "sales"):
            request_run(ledger, name, {}, now=NOON + timedelta(hours=1))
    return str(path)


class TestReadLedger:
    """One row for each run."""

    def test_rows(self, address: str) -> None:
        """Requests in order; lateness counts from the tick, to the first start."""
        noted = read_ledger(address)
        assert dict(noted.schema) == NOTED
        assert noted["report"].to_list() == ["sales", "sales", "stock", "sales"]
        assert noted["state"].to_list() == ["expired", "ok", "requested", "requested"]
        assert noted["late_seconds"].to_list() == [None, 60.0, None, None]
        assert noted["waiting_seconds"].to_list() == [None, 0.0, None, None]
        assert noted.row(1, named=True)["attempts"] == 2
        assert noted.row(1, named=True)["failures"] == 1

    def test_narrowed(self, address: str) -> None:
        """By time of the request, and to the last runs of each report."""
        later = NOON + timedelta(minutes=30)
        assert read_ledger(address, since=later)["run"].to_list() == [3, 4]
        assert read_ledger(address, until=later)["run"].to_list() == [1, 2]
        assert read_ledger(address, last=1)["run"].to_list() == [3, 4]
        with pytest.raises(ValidationError, match="last is 0"):
            read_ledger(address, last=0)

    def test_none_is_made(self, tmp_path: Path) -> None:
        """Without a ledger there are no runs, and there still is no ledger."""
        for address in (str(tmp_path / "a" / "no.db"), f"sqlite:///{tmp_path}/no.db"):
            noted = read_ledger(address)
            assert (noted.height, dict(noted.schema)) == (0, NOTED)
        assert list(tmp_path.iterdir()) == []

    def test_no_ledger(self, tmp_path: Path) -> None:
        """What is none is an error of ours, and shows no password."""
        (tmp_path / "text.db").write_text("no ledger" * 99)
        with pytest.raises(LedgerError, match=r"text\.db"):
            read_ledger(str(tmp_path / "text.db"))
        with pytest.raises(ConfigError, match="mysql") as caught:
            read_ledger("mysql://anna:geheim@db/runs")
        assert "geheim" not in str(caught.value)


class TestChosenLedger:
    """Which ledger goes with some runs."""

    def test_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one asked for, else the setting's, else the one beside the runs."""
        monkeypatch.chdir(tmp_path)
        runs = tmp_path / "runs"
        assert chosen_ledger("", runs, tmp_path) == str(runs / "ledger.db")
        monkeypatch.setenv("TALLYBOOK_LEDGER", "postgresql://anna:geheim@db/runs")
        assert chosen_ledger("", runs, tmp_path) == "postgresql://anna:geheim@db/runs"
        assert chosen_ledger("a.db", runs, tmp_path) == str(tmp_path / "a.db")
        assert chosen_ledger("sqlite:///a.db", runs, tmp_path) == str(tmp_path / "a.db")
        assert ledger_file("no:// address") is None


class TestSumUp:
    """The figures of the page."""

    def test_figures(self, address: str) -> None:
        """Each fate is counted once."""
        assert sum_up(read_ledger(address)) == {
            "noted": 4,
            "retried": 1,
            "lost": 0,
            "coalesced": 0,
            "expired": 1,
            "median_waiting_seconds": 0.0,
            "median_late_seconds": 60.0,
            "longest_late_seconds": 60.0,
        }

    def test_nothing(self) -> None:
        """Without a run there is no median."""
        figures = sum_up(pl.DataFrame(schema=NOTED))
        assert (figures["noted"], figures["median_late_seconds"]) == (0, None)
