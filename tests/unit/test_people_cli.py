"""`tallybook subscribers` and `tallybook notify`: what they say, and what they ask for next."""

import json

import pytest
from tests.support.mail_server import mail_server
from typer.testing import CliRunner

from tallybook import cli


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every command runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def post(monkeypatch):
    """A mail server that the settings name."""
    with mail_server() as running:
        monkeypatch.setenv("TALLYBOOK_SMTP__HOST", "127.0.0.1")
        monkeypatch.setenv("TALLYBOOK_SMTP__PORT", str(running.port))
        monkeypatch.setenv("TALLYBOOK_SMTP__SENDER", "reports@example.com")
        yield running


def run(*words, code=0):
    """What a command says."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done.output


class TestSubscribers:
    """Joining and leaving."""

    def test_add_without_a_server(self):
        """It says what is missing, and what to try."""
        said = run("subscribers", "add", "ada@example.org", "--on", "failure", "--on", "gate")
        assert "1  ada@example.org  every report: failure, gate" in said
        assert (
            "Nothing can be sent yet: e-mail needs a server: set host in [tallybook.smtp]" in said
        )
        assert "Try it: tallybook subscribers test 1" in said

    def test_add_webhook(self):
        """The key in its address is not shown."""
        said = run("subscribers", "add", "https://example.com/hook/s3cr3t")
        assert "https://example.com/..." in said
        assert "TALLYBOOK_NOTIFY__WEBHOOK_SECRET" in said
        assert "s3cr3t" not in said + run("subscribers", "list", "--json")

    def test_unknown_report(self):
        """The nearest one is suggested."""
        said = run("subscribers", "add", "ada@example.org", "--report", "categry_totals", code=2)
        assert "Did you mean 'category_totals'" in said

    def test_list_and_remove(self):
        """As lines and as JSON."""
        assert "Nobody is told. Begin with" in run("subscribers", "list")
        run("subscribers", "add", "ada@example.org", "--name", "Ada")
        (ada,) = json.loads(run("subscribers", "list", "--json"))
        assert (ada["address"], ada["name"], ada["report"]) == ("ada@example.org", "Ada", "*")
        assert "removed: 1  ada@example.org" in run("subscribers", "remove", "ada@example.org")
        assert "there is no subscriber 'ada@example.org'" in (
            run("subscribers", "remove", "ada@example.org", code=2)
        )

    def test_trial(self, post):
        """It arrives, and the server's answer is told; the token in it ends the subscription."""
        run("subscribers", "add", "ada@example.org")
        said = run("subscribers", "test", "1")
        assert "the server answered: taken" in said
        text = post.messages[0].get_body(("plain",)).get_content()
        token = text.split("tallybook subscribers unsubscribe ")[1].split()[0]
        assert "left on" in run("subscribers", "unsubscribe", token)
        assert "left on" in run("subscribers", "list", "--all")

    def test_trial_refused(self, post):
        """What the server says is the error."""
        post.to_receiver.append("550 no such mailbox")
        run("subscribers", "add", "ada@example.org")
        said = run("subscribers", "test", "1", code=1)
        assert "the mail server said 550 no such mailbox" in said


class TestNotify:
    """The messages."""

    def test_nothing(self):
        """There is nothing to do."""
        assert "0 ended runs looked at; 0 messages sent" in run("notify", "deliver")
        assert json.loads(run("notify", "deliver", "--json"))["sent"] == 0
        assert "There are no such messages" in run("notify", "list", "--state", "failed")
        assert "message 7 cannot be sent again" in run("notify", "retry", "7", code=2)
