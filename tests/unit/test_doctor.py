"""What the doctor finds: each thing broken on purpose, one at a time, and no secret is told."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tallybook import cli, doctor
from tallybook.doctor import (
    check_ledger,
    check_planning,
    check_schedule,
    check_settings,
    check_source,
    check_sources,
    examine,
)
from tallybook.machine import (
    Finding,
    Level,
    check_browser,
    check_clock,
    check_file_system,
    check_mail,
    check_space,
    check_writing,
    check_zones,
)
from tallybook.runs import open_ledger
from tallybook.schedule import Section, plan_into

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOURLY = Section(name="hourly", report="category_totals", cron="0 * * * *")
SECRET = "s3same-open"  # noqa: S105 - for these tests


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything happens in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a browser nor a kernel is started: both have tests of their own."""
    for name in ("browser", "kernel"):
        fine = Finding(name, Level.OK, "not started here")
        monkeypatch.setattr(doctor, f"check_{name}", lambda fine=fine: fine)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def levels(findings: list[Finding]) -> list[str]:
    """Return how bad findings are."""
    return [str(one.level) for one in findings]


class TestSettings:
    """What is allowed but unwise."""

    def test_secrets_in_the_file(self, folder: Path) -> None:
        """Each is named by its setting, and never shown; an address without a password is none."""
        Path("settings.ini").write_text(
            f"[tallybook]\napi_key = {SECRET}\nledger = runs.db\n"
            f"[tallybook.storage]\nsecret_access_key = {SECRET}\n"
        )
        found = check_settings(folder)
        assert levels(found) == ["ok", "warning", "warning"]
        said = " ".join(one.found for one in found)
        assert "api_key" in said
        assert "storage.secret_access_key" in said
        assert SECRET not in said

    def test_password_in_the_ledger_s_address(self, folder: Path) -> None:
        """It is a secret too."""
        Path("settings.ini").write_text(f"[tallybook]\nledger = postgresql://a:{SECRET}@db/x\n")
        assert "ledger" in check_settings(folder)[1].found

    @pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o640, "warning")])
    def test_rights(self, folder: Path, mode: int, level: str) -> None:
        """A .env is for its owner alone."""
        Path(".env").touch(mode=mode)
        Path(".env").chmod(mode)
        assert levels(check_settings(folder))[-1] == level


class TestLedger:
    """Looked at, never made."""

    def test_not_there(self) -> None:
        """That is fine, and it is still not there afterwards."""
        assert levels(check_ledger("runs/ledger.db", [], NOON)) == ["ok", "ok"]
        assert not Path("runs").exists()

    def test_no_database(self) -> None:
        """A file of another kind is told, and kept."""
        Path("notes.txt").write_text("dear diary " * 1000)
        [found] = check_ledger("notes.txt", [], NOON)
        assert found.level is Level.WRONG
        assert "not a database" in found.found

    def test_damaged(self) -> None:
        """Pages that were overwritten are told."""
        open_ledger("ledger.db").close()
        size = Path("ledger.db").stat().st_size
        with Path("ledger.db").open("r+b") as file:
            file.seek(size // 2)
            file.write(b"\xff" * (size // 4))
        assert "wrong" in levels(check_ledger("ledger.db", [], NOON))

    def test_no_server(self) -> None:
        """A server that is not there is told without its password."""
        [found] = check_ledger(f"postgresql://ada:{SECRET}@127.0.0.1:9/runs", [], NOON)
        assert found.level is Level.WRONG
        assert SECRET not in found.found + found.advice

    def test_planning(self) -> None:
        """Fine when it is up to date; told when it is behind, or ahead of the clock."""
        with closing(open_ledger("ledger.db")) as ledger:
            plan_into(ledger, [HOURLY], now=NOON)
            for hours, level in ((0, "ok"), (1, "ok"), (5, "warning"), (-5, "warning")):
                now = NOON + timedelta(hours=hours, minutes=1)
                assert levels(check_planning(ledger, [HOURLY], now)) == [level]
            (fine,) = check_planning(ledger, [HOURLY], NOON)
            assert fine.found == "up to date for 1 schedule"


class TestSchedule:
    """What comes next, and what it reads."""

    def test_none(self) -> None:
        """No schedule is nothing wrong."""
        assert levels(check_schedule([], NOON)) == ["ok"]

    def test_sources(self) -> None:
        """A file that is gone is wrong for a schedule that reads it; the sample needs none."""
        reading = HOURLY.model_copy(update={"parameters": {"source": "rides.csv"}})
        assert levels(check_sources([HOURLY], NOON)) == ["ok"]
        assert levels(check_sources([reading, reading], NOON)) == ["wrong"]
        Path("rides.csv").write_text("timestamp,category,amount\n2026-01-01,tea,1\n")
        assert levels(check_sources([reading], NOON)) == ["ok"]

    @pytest.mark.parametrize(
        "address", ["*.csv", "-", "empty.csv", "ftp://x/y", "sqlite:///no.db?table=x"]
    )
    def test_wrong(self, address: str) -> None:
        """What cannot be read is told, in one line."""
        Path("empty.csv").touch()
        found = check_source(address)
        assert found.level is Level.WRONG
        assert "\n" not in found.found

    def test_servers(self, listener: int) -> None:
        """One that answers is fine, one that does not is named without its password."""
        assert check_source(f"http://127.0.0.1:{listener}/rides").level is Level.OK
        found = check_source(f"postgresql://ada:{SECRET}@127.0.0.1:9/sales#rides")
        assert found.level is Level.WRONG
        assert "127.0.0.1:9" in found.found
        assert SECRET not in found.found


class TestMachine:
    """What reports stand on."""

    def test_space(self, folder: Path) -> None:
        """A disk that is nearly full is a warning, then wrong."""
        assert check_space(folder, low=0, least=0).level is Level.OK
        assert check_space(folder, low=2**80, least=0).level is Level.WARNING
        assert check_space(folder, low=2**80, least=2**80).level is Level.WRONG

    def test_nothing_is_left(self, folder: Path) -> None:
        """A folder that is not there is tried above it, and not made."""
        assert check_writing(folder / "a" / "b").level is Level.OK
        assert list(folder.iterdir()) == []

    def test_not_writable(self) -> None:
        """The folder is named, and what does not work."""
        found = check_writing(Path("/proc/runs"))
        assert (found.level, "writing does not work" in found.found) == (Level.WRONG, True)

    def test_network(self) -> None:
        """SQLite on a network's file system is a warning."""
        assert check_file_system(Path("x"), "nfs4").level is Level.WARNING
        assert check_file_system(Path("x"), "ext4").level is Level.OK

    def test_no_browser(self) -> None:
        """That is a warning: only PDFs need one."""
        assert check_browser(Path("netscape")).level is Level.WARNING

    def test_time(self) -> None:
        """Old rules, a clock before them, and one that nothing keeps."""
        editions = ("2026b", "2021a", "2031a", "")
        found = [str(check_zones(NOON, (one, "here")).level) for one in editions]
        assert found == ["ok", "warning", "wrong", "ok"]
        assert [check_clock(state).level for state in (0, 5)] == [Level.OK, Level.WARNING]

    def test_mail(self, listener: int) -> None:
        """Nobody listens, and nobody says hello: told in time, without the password."""

        class Smtp:
            host, security, username = "127.0.0.1", "plain", "ada"
            password = SecretStr(SECRET)
            port = 9

        refused = check_mail(Smtp())
        assert refused.level is Level.WRONG
        assert "cannot be reached" in refused.found
        Smtp.port = listener
        silent = check_mail(Smtp())
        assert silent.level is Level.WRONG
        assert SECRET not in refused.found + silent.found


@pytest.mark.usefixtures("quick")
class TestTogether:
    """All of it."""

    def test_fresh(self) -> None:
        """In an empty folder nothing is wrong, and nothing is left behind."""
        found = examine(NOON)
        assert "wrong" not in levels(found)
        assert list(Path().iterdir()) == []

    def test_a_check_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is a finding, without its secret; the others are still told."""
        monkeypatch.setenv("TALLYBOOK_API_KEY", SECRET)

        def fail(*_: object) -> None:
            raise RuntimeError(f"the key {SECRET} was refused")

        monkeypatch.setattr(doctor, "check_zones", fail)
        found = {one.check: one for one in examine(NOON)}
        assert found["time zones"].level is Level.WRONG
        assert "the key *** was refused" in found["time zones"].found
        assert found["disk space"].check

    def test_command(self) -> None:
        """Exit code 1 for what is wrong, 0 for less; JSON holds the same findings."""
        fine = CliRunner().invoke(cli.app, ["doctor", "--json"])
        assert fine.exit_code == 0, fine.output
        assert {"check", "level", "found", "advice"} == set(json.loads(fine.stdout)[0])
        Path("settings.ini").write_text("[tallybook]\nworker_count = many\nlog_lvel = INFO\n")
        broken = CliRunner().invoke(cli.app, ["doctor"])
        assert broken.exit_code == 1
        assert "worker_count" in broken.stdout
        assert "Did you mean 'log_level'?" in broken.stdout
        assert "Traceback" not in broken.output

    def test_quick(self) -> None:
        """What takes seconds is left out, and only that."""
        every, few = ([one.check for one in examine(NOON, quick=quick)] for quick in (False, True))
        assert [one for one in every if one not in few] == ["browser", "kernel"]
        told = CliRunner().invoke(cli.app, ["doctor", "--quick", "--json"])
        assert [one["check"] for one in json.loads(told.stdout)] == few

    def test_colour(self) -> None:
        """On a terminal, and only there, bad news is seen before it is read."""
        Path("settings.ini").write_text("[tallybook]\nworker_count = many\n")
        terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": ""}
        told = CliRunner().invoke(cli.app, ["doctor", "--quick"], env=terminal)
        assert "\x1b[1;31mwrong\x1b[0m" in told.stdout
        assert "\x1b[32mok\x1b[0m" in told.stdout
        assert "\x1b" not in CliRunner().invoke(cli.app, ["doctor", "--quick"]).stdout
