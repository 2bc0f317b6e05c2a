"""`tallybook runs` and `tallybook schedule`: what they say, to people and to programs."""

import json
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tallybook import cli
from tallybook.runs import claim, finish, get_run, open_ledger, request_run
from tallybook.types import RunState
from tallybook.worker import utc_now


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(folder: Path):
    """The ledger of that folder."""
    with closing(open_ledger(folder / "runs" / "ledger.db")) as opened:
        yield opened


def say(*words: str, code: int = 0):
    """What a command says."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, list(words))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout if code == 0 else result.stderr


def ended(ledger, state=RunState.OK, report="category_totals", **more):
    """A run that has ended."""
    run = request_run(ledger, report, {"top": 5}, now=utc_now())
    held = claim(ledger, "anna", now=utc_now(), lease_seconds=60)
    assert held is not None
    assert held.id == run.id
    return finish(ledger, held, state, now=utc_now(), **more)


class TestList:
    def test_empty(self):
        """It says how to begin."""
        assert "no run is noted yet; begin with: tallybook report run" in say("runs", "list")
        assert json.loads(say("runs", "list", "--json")) == []

    def test_filters(self, ledger):
        """By state, report, schedule and day."""
        ended(ledger, RunState.GATE_FAILED, reason="check failed: rows")
        ended(ledger, report="anomalies")
        assert [line.split()[0] for line in say("runs", "list").splitlines()] == ["RUN", "2", "1"]
        for words in (
            ["--state", "gate_failed"],
            ["--report", "category_totals"],
            ["--state", "gate_failed", "--since", "today-1d", "--until", "today+2d"],
        ):
            [run] = json.loads(say("runs", "list", *words, "--json"))
            assert (run["id"], run["reason"]) == (1, "check failed: rows")
        for words in (["--until", "yesterday"], ["--schedule", "none"]):
            assert "no run is like that" in say("runs", "list", *words)
        assert "--limit 2" in say("runs", "list", "--limit", "1")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--state", "gate_fail"], "Did you mean 'gate_failed'?"),
            (["--since", "someday"], "'someday' is no day and no time"),
            (["--since", "2026-13-01T00:00"], "is no day and no time"),
        ],
    )
    def test_mistakes(self, words, said):
        """Each is one message."""
        assert said in say("runs", "list", *words, code=2)


class TestOne:
    def test_show(self, ledger, folder):
        """Every fact and every attempt."""
        ended(ledger, reason="fine", artefacts=folder)
        shown = say("runs", "show", "1")
        assert "attempt 1 by anna" in shown
        assert '{"top": 5}' in shown
        facts = json.loads(say("runs", "show", "1", "--json"))
        assert (facts["state"], facts["attempts"][0]["outcome"]) == ("ok", "ok")
        assert "there is no run 7" in say("runs", "show", "7", code=2)

    def test_log(self, ledger, folder):
        """For people, and as it is."""
        line = json.dumps({"timestamp": "2026-11-24T06:00:01Z", "level": "INFO", "message": "m"})
        (folder / "log.jsonl").write_text(f"{line}\nnot JSON\n")
        ended(ledger, artefacts=folder)
        assert say("runs", "log", "1") == "06:00:01  INFO     m\nnot JSON\n"
        assert say("runs", "log", "1", "--json") == f"{line}\nnot JSON\n"
        ended(ledger, artefacts=folder / "gone")
        assert "the log cannot be read: No such file" in say("runs", "log", "2", code=2)
        request_run(ledger, "x", {}, now=utc_now())
        assert "run 3 has no log: it is requested" in say("runs", "log", "3", code=2)

    def test_start_cancel_retry(self, ledger):
        """What is asked for is in the ledger."""
        assert "run 1 was asked for" in say("runs", "start", "category_totals", "--top", "3")
        assert get_run(ledger, 1).parameters["top"] == 3
        assert "there is no such option" in say("runs", "start", "anomalies", "--tpo", "3", code=2)
        assert "is cancelled" in say("runs", "cancel", "1", "--reason", "not today")
        assert get_run(ledger, 1).reason == "not today"
        assert "it has ended already" in say("runs", "cancel", "1", code=2)
        assert "run 2 was asked for, as run 1 again" in say("runs", "retry", "1")
        claim(ledger, "anna", now=utc_now(), lease_seconds=60)
        assert "stops within seconds" in say("runs", "cancel", "2")

    def test_prune(self, ledger, folder):
        """The folders go only if asked, and not while another run names them."""
        kept, gone = folder / "kept", folder / "gone"
        for each in (kept, gone):
            each.mkdir()
            (each / "manifest.json").touch()
        for artefacts in (kept, gone, kept):
            ended(ledger, artefacts=artefacts)
        options = ["runs", "prune", "--keep-days", "0", "--keep-last", "1"]
        assert "2 runs would be removed" in say(*options, "--dry-run", "--bundles")
        assert "1 of their folders" in say(*options, "--bundles")
        assert (kept.is_dir(), gone.is_dir()) == (True, False)


SETTINGS = """
[schedule.morning]
report = category_totals
cron = 0 6 * * *
time_zone = Europe/Berlin
[schedule.off]
report = anomalies
cron = 0 7 * * *
enabled = false
"""


class TestSchedule:
    def test_none(self):
        """It shows how to write one."""
        for command in ("list", "next", "check"):
            assert "[schedule.morning]" in say("schedule", command)

    def test_some(self, ledger, folder):
        """When each is due, and what is due next."""
        (folder / "settings.ini").write_text(SETTINGS)
        lines = say("schedule", "list").splitlines()
        assert "never ran" in lines[1]
        assert "switched off" in lines[2]
        [morning, off] = json.loads(say("schedule", "list", "--json"))
        assert (morning["time_zone"], off["next"]) == ("Europe/Berlin", None)
        due = json.loads(say("schedule", "next", "--count", "3", "--json"))
        assert {one["name"] for one in due} == {"morning"}
        assert len(due) == 3
        assert len(say("schedule", "next").splitlines()) == 11
        assert "nothing is wrong: morning, off" in say("schedule", "check")

    def test_mistakes(self, folder):
        """All of them, with exit code 2; the process does not start either."""
        (folder / "settings.ini").write_text(SETTINGS.replace("0 6", "0 26") + "corn = 1\n")
        for command in (["check"], ["run", "--once"]):
            said = say("schedule", *command, code=2)
            assert "bad hour" in said
            assert "Did you mean 'cron'?" in said

    def test_once(self, ledger, folder):
        """With nothing to do it ends well, a wrong request decides the exit code."""
        assert "none" in say("schedule", "run", "--once", "--workers", "1", "--metrics", "0")
        request_run(ledger, "category_totals", {"topp": 1}, now=utc_now() - timedelta(hours=1))
        assert "topp" in say("schedule", "run", "--once", "--workers", "1", code=2)
        assert get_run(ledger, 1).state == "usage"
