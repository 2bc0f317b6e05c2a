"""Messages about runs: real mail servers and webhooks, two databases, and what goes wrong."""

import base64
import hashlib
import hmac
import json
import logging
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from aiohttp import web
from tests.support.mail_server import HANG, certificate, mail_server

from tallybook import mail
from tallybook.config import AppConfig, NotifyConfig, SmtpConfig
from tallybook.machine import check_mail
from tallybook.notify import Round, deliver_due
from tallybook.outbox import DeliveryState, announce, list_deliveries, requeue
from tallybook.paging import background_loop
from tallybook.runs import claim, finish, get_run, request_run
from tallybook.subscribers import add_subscriber, list_subscribers, unsubscribe
from tallybook.types import RunState

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes, no more, no less").decode()


def after(**spans):
    """A moment after noon."""
    return NOON + timedelta(**spans)


@pytest.fixture
def post():
    """A mail server that takes everything from everybody."""
    with mail_server() as running:
        yield running


def settings(port=1, *, smtp=None, **notify):
    """Settings with a mail server on this machine."""
    given = {"host": "127.0.0.1", "port": port, "sender": "reports@example.com"} | (smtp or {})
    return AppConfig(smtp=SmtpConfig(**given), notify=NotifyConfig(**notify))


def end(ledger, state=RunState.OK, *, report="totals", now=NOON, **more):
    """Run a report that ends like this."""
    request_run(ledger, report, {}, now=now)
    held = claim(ledger, "anna", now=now, lease_seconds=60)
    return finish(ledger, held, state, now=now, **more)


class TestMail:
    """An e-mail arrives, once, and says what it has to."""

    def test_arrives(self, ledger, post):
        """With both forms of the text, and with what machines need to know."""
        add_subscriber(ledger, "ada@example.org", now=NOON, name="Ada Lovelace")
        end(ledger, RunState.CELL_FAILED, reason="KeyError: 'fare'")
        public = settings(post.port, public_url="https://reports.example.com")

        assert deliver_due(ledger, public, NOON) == Round(announced=1, sent=1)
        assert deliver_due(ledger, public, after(days=9)) == Round()

        (message,) = post.messages
        assert message["To"] == "Ada Lovelace <ada@example.org>"
        assert message["Subject"] == "totals: it failed: KeyError: 'fare'"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        parts = [part.get_content_type() for part in message.walk()]
        assert parts[:2] == ["multipart/alternative", "text/plain"]
        assert "text/html" in parts
        assert "tallybook report run totals" in message.get_body(("plain",)).get_content()

    def test_link_leaves(self, ledger, post):
        """The token in the message ends the subscription, and what was waiting is not sent."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        public = settings(post.port, public_url="https://reports.example.com/a/long/way/down/to/it")
        end(ledger)
        deliver_due(ledger, public, NOON)
        header = next(line for line in post.raw[0].splitlines() if line.startswith(b"List-Unsub"))
        token = header.decode().removesuffix(">").rpartition("/")[2]
        end(ledger)
        announce(ledger, now=NOON)

        assert not unsubscribe(ledger, token, now=NOON).active
        assert deliver_due(ledger, public, NOON) == Round()
        assert list_deliveries(ledger)[0].reason == "not sent: unsubscribed"
        assert len(post.messages) == 1
        assert list_subscribers(ledger) == []

    def test_page_is_attached(self, file_ledger, post, tmp_path):
        """Charts are in the text; a page that is too large is told by its place."""
        bundle = tmp_path / "bundle"
        (bundle / "charts").mkdir(parents=True)
        (bundle / "charts" / "one.png").write_bytes(b"\x89PNG picture")
        (bundle / "report.html").write_text("<p>the page</p>" * 9)
        chart = {"title": "One <b>", "description": "A line", "files": {"png": "charts/one.png"}}
        outside = {"title": "Two", "description": "", "files": {"png": "../secret.png"}}
        (tmp_path / "secret.png").write_bytes(b"not yours")
        manifest = {
            "title": "Totals",
            "run_id": "r1",
            "values": {"total_amount": "1234567.50", "rows": 3},
            "charts": [chart, outside],
            "inputs": [{"rows_read": 336776, "rows_rejected": 0}],
        }
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        add_subscriber(file_ledger, "ada@example.org", now=NOON)

        end(file_ledger, artefacts=bundle)
        deliver_due(file_ledger, settings(post.port), NOON)
        end(file_ledger, artefacts=bundle)
        deliver_due(file_ledger, settings(post.port, attach_up_to_mb=0.0001), NOON)

        first, second = post.messages
        assert first["Subject"] == "Totals: ready, 336,776 rows read, none rejected"
        pictures = [part for part in first.walk() if part.get_content_type() == "image/png"]
        assert [part.get_content() for part in pictures] == [b"\x89PNG picture"]
        html = first.get_body(("html",)).get_content()
        assert f"cid:{pictures[0]['Content-ID'].strip('<>')}" in html
        assert "1,234,567.5" in html
        names = [part.get_filename() for part in first.iter_attachments()]
        assert names == ["totals-r1.html"]
        assert list(second.iter_attachments()) == []
        assert f"too large to be attached (135 bytes). It is {bundle / 'report.html'}" in (
            second.get_body(("plain",)).get_content()
        )

    def test_hostile_texts(self, file_ledger, post):
        """Names and reasons begin no header, no element and no change of direction."""
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        evil = 'x\r\nBcc: eve@example.com\r\n\r\n<script>alert("1")</script>\u202e\x1b[31m'
        end(file_ledger, RunState.GATE_FAILED, report=evil, reason=evil)
        deliver_due(file_ledger, settings(post.port), NOON)

        (message,) = post.messages
        assert message["Bcc"] is None
        assert {str(part) for part in message.walk() if part.get_filename()} == set()
        html = message.get_body(("html",)).get_content()
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert not set("\u202e\x1b") & set(html + message["Subject"])

    def test_no_secret(self, file_ledger, post, monkeypatch):
        """A reason that holds a secret is withheld."""
        monkeypatch.setenv("TALLYBOOK_SECRET_SALES", "correct-horse")
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger, RunState.CELL_FAILED, reason="no login with correct-horse")
        deliver_due(file_ledger, settings(post.port), NOON)
        assert b"correct-horse" not in post.raw[0]
        assert "[withheld: it holds secret:SALES]" in post.messages[0]["Subject"]


class TestEncryption:
    """Who one is, is said over an encrypted connection only."""

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_login(self, file_ledger, tmp_path, wrapped):
        """With STARTTLS or with TLS from the start, and a certificate that is checked."""
        tls, trusted = certificate(tmp_path)
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger)
        with mail_server(tls=tls, login=True, wrapped=wrapped) as post:
            who = {"username": "ada", "password": "hunter2", "ca_file": trusted}
            how = {"security": "tls" if wrapped else "starttls"}
            done = deliver_due(file_ledger, settings(post.port, smtp=who | how), NOON)
            lines = psutil.Process().net_connections("tcp")
            assert [line for line in lines if line.raddr and line.raddr.port == post.port] == []
        assert list_deliveries(file_ledger)[0].reason is None
        assert (done.sent, post.logins) == (1, [("ada", True)])

    def test_wrong_password(self, file_ledger, tmp_path):
        """It is tried again, as somebody may mend it, and is not in the reason."""
        tls, trusted = certificate(tmp_path)
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger)
        with mail_server(tls=tls, login=True) as post:
            who = {"username": "ada", "password": "wr0ngwr0ng", "ca_file": trusted}
            assert deliver_due(file_ledger, settings(post.port, smtp=who), NOON).later == 1
        (waiting,) = list_deliveries(file_ledger)
        assert "535" in waiting.reason
        assert "wr0ng" not in waiting.reason

    def test_doctor(self, tmp_path):
        """What `tallybook doctor` says of a server that lets us in, does not, or is gone."""
        tls, trusted = certificate(tmp_path)
        who = {"host": "127.0.0.1", "username": "ada", "ca_file": trusted}
        with mail_server(tls=tls, login=True) as post:
            known = who | {"port": post.port, "password": "hunter2"}
            fine = check_mail(SmtpConfig(**known))
            refused = check_mail(SmtpConfig(**(known | {"password": "wr0ngwr0ng"})))
        gone = check_mail(SmtpConfig(**known))
        assert [found.level.value for found in (fine, refused, gone)] == ["ok", "wrong", "wrong"]
        assert "535" in refused.found
        assert "wr0ng" not in refused.found
        assert "refused" in gone.found

    def test_unknown_certificate(self, file_ledger, tmp_path):
        """Nothing is sent to a server that is not the one that was meant."""
        tls, _ = certificate(tmp_path)
        (tmp_path / "other").mkdir()
        _, other = certificate(tmp_path / "other")
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger)
        with mail_server(tls=tls) as post:
            stranger = settings(post.port, smtp={"ca_file": other})
            assert deliver_due(file_ledger, stranger, NOON).later == 1
        assert post.messages == []

    def test_required_elsewhere(self, file_ledger, post, monkeypatch):
        """A server on another machine that offers no encryption gets nothing."""
        monkeypatch.setattr(mail, "is_loopback", lambda host: False)
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger)
        assert deliver_due(file_ledger, settings(post.port), NOON).later == 1
        assert post.messages == []
        assert "STARTTLS" in list_deliveries(file_ledger)[0].reason

    def test_password_in_the_open(self, file_ledger, monkeypatch):
        """Plain text and a password are refused before a connection is made."""
        monkeypatch.setattr(mail, "is_loopback", lambda host: False)
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger)
        plain = {"security": "plain", "username": "ada", "password": "hunter2"}
        deliver_due(file_ledger, settings(smtp=plain), NOON)
        assert "would send the password in the open" in list_deliveries(file_ledger)[0].reason


class TestTrouble:
    """A server that is down, busy, or says no."""

    def test_down_then_up(self, ledger, caplog):
        """The message waits, and arrives when there is a server."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger)
        assert deliver_due(ledger, settings(), NOON) == Round(announced=1, later=1)
        (waiting,) = list_deliveries(ledger)
        assert waiting.state is DeliveryState.PENDING
        assert NOON <= waiting.next_at <= after(minutes=2)
        with mail_server() as post:
            assert deliver_due(ledger, settings(post.port), after(minutes=3)).sent == 1
        assert list_deliveries(ledger)[0].attempts == 2

    def test_later_then_now(self, ledger, post):
        """A 4xx is tried again, as the same message."""
        post.to_data.extend(["451 not now"])
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger)
        assert deliver_due(ledger, settings(post.port), NOON).later == 1
        assert list_deliveries(ledger)[0].reason == "the mail server said 451 not now"
        assert deliver_due(ledger, settings(post.port), after(hours=1)).sent == 1

    @pytest.mark.parametrize("where", ["to_receiver", "to_data"])
    def test_never(self, ledger, post, caplog, where):
        """A 5xx is given up, with a line in the log that names no address; it can be sent again."""
        getattr(post, where).append("550 no such mailbox")
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger)
        with caplog.at_level(logging.WARNING, "tallybook"):
            assert deliver_due(ledger, settings(post.port), NOON).failed == 1
        assert [record.message for record in caplog.records] == ["a message was given up"]
        assert "ada@" not in str(caplog.records[0].__dict__)
        (failed,) = list_deliveries(ledger, states=[DeliveryState.FAILED])
        assert failed.reason == "the mail server said 550 no such mailbox"
        requeue(ledger, failed.id, now=after(hours=1))
        assert deliver_due(ledger, settings(post.port), after(hours=1)).sent == 1

    def test_hangs(self, file_ledger, post):
        """A server that says nothing costs its time-out, and not the other messages."""
        post.to_data.append(HANG)
        for name in ("ada", "bob", "eve"):
            add_subscriber(file_ledger, f"{name}@example.org", now=NOON)
        end(file_ledger)
        slow = settings(post.port, smtp={"timeout_seconds": 2})
        assert deliver_due(file_ledger, slow, NOON) == Round(announced=1, sent=2, later=1)
        reasons = {one.reason for one in list_deliveries(file_ledger)}
        assert reasons == {None, "the mail server did not answer in time"}

    def test_limit(self, file_ledger, caplog):
        """After so many tries it is given up."""
        add_subscriber(file_ledger, "ada@example.org", now=NOON)
        end(file_ledger)
        down = settings(max_attempts=3)
        rounds = [deliver_due(file_ledger, down, after(days=day)) for day in range(4)]
        assert [(one.later, one.failed) for one in rounds] == [(1, 0), (1, 0), (0, 1), (0, 0)]


CHILD = """
import os, signal, sys
from datetime import datetime
from tallybook import notify
from tallybook.config import AppConfig
from tallybook.runs import open_ledger
if sys.argv[3] == "killed":
    notify.mark_sent = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.stdin.readline()
ledger = open_ledger(sys.argv[1])
print(notify.deliver_due(ledger, AppConfig(), datetime.fromisoformat(sys.argv[2])))
ledger.close()
"""


@contextmanager
def deliverer(address, port, how="whole"):
    """Start a process that delivers when it is told to."""
    env = {
        "TALLYBOOK_SMTP__HOST": "127.0.0.1",
        "TALLYBOOK_SMTP__PORT": str(port),
        "TALLYBOOK_SMTP__SENDER": "reports@example.com",
    }
    command = [sys.executable, "-c", CHILD, address, NOON.isoformat(), how]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


class TestProcesses:
    """Several at once, and one that is killed."""

    def test_killed_before_it_was_noted(self, address, ledger, post):
        """The message is sent again after the lease, under the same id."""
        add_subscriber(ledger, "ada@example.org", now=NOON)
        end(ledger)
        with deliverer(address, post.port, "killed") as process:
            process.communicate("go\n", timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert deliver_due(ledger, settings(post.port), NOON).sent == 0
        assert deliver_due(ledger, settings(post.port), after(minutes=5)).sent == 1
        first, second = post.messages
        assert first["Message-ID"] == second["Message-ID"]
        assert list_deliveries(ledger)[0].state is DeliveryState.SENT

    def test_two_at_once(self, address, ledger, post):
        """Each message is sent by one of them."""
        people = [f"p{number}@example.org" for number in range(12)]
        for person in people:
            add_subscriber(ledger, person, now=NOON)
        end(ledger)
        with deliverer(address, post.port) as one, deliverer(address, post.port) as other:
            for process in (one, other):
                process.stdin.write("go\n")
                process.stdin.flush()
            said = [process.communicate(timeout=60)[0] for process in (one, other)]
        assert all("failed=0" in words for words in said)
        told = [message["To"].addresses[0].addr_spec for message in post.messages]
        assert sorted(told) == sorted(people)


@contextmanager
def webhook(answers):
    """Run a web server; yields where it is, and what it was told."""
    told = []

    async def take(request):
        told.append((dict(request.headers), await request.read()))
        answer = answers.pop(0) if answers else {"status": 204}
        return web.Response(**answer)

    async def start():
        app = web.Application()
        app.router.add_post("/hook/{key}", take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    with background_loop() as run:
        runner, port = run(start())
        yield f"http://127.0.0.1:{port}/hook/s3cr3t", told
        run(runner.cleanup())


class TestWebhooks:
    """A signed call, to where it was asked for and to nowhere else."""

    def test_signed(self, ledger):
        """The signature is that of Standard Webhooks, over what came."""
        add_to = settings(allow_private=True, webhook_secret=SECRET)
        with webhook([]) as (url, told):
            add_subscriber(ledger, url, now=NOON)
            run = end(ledger, RunState.GATE_FAILED, reason="no rows")
            assert deliver_due(ledger, add_to, NOON).sent == 1
        ((headers, body),) = told
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        right = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{right}"
        said = json.loads(body)
        assert said["type"] == "run.gate"
        assert (said["data"]["run"], said["data"]["reason"]) == (run.id, "no rows")

    def test_own_secret(self, file_ledger, monkeypatch):
        """A webhook can have one of its own."""
        monkeypatch.setenv("TALLYBOOK_SECRET_HOOK", SECRET)
        with webhook([]) as (url, told):
            add_subscriber(file_ledger, url, now=NOON, secret="secret:HOOK")  # noqa: S106
            end(file_ledger)
            assert deliver_due(file_ledger, settings(allow_private=True), NOON).sent == 1
        assert told

    def test_retry_after(self, file_ledger):
        """A server that is busy is left alone for as long as it asks, and gets the same id."""
        busy = {"status": 503, "headers": {"Retry-After": "3600"}}
        calm = settings(allow_private=True, webhook_secret=SECRET)
        with webhook([busy]) as (url, told):
            add_subscriber(file_ledger, url, now=NOON)
            end(file_ledger)
            assert deliver_due(file_ledger, calm, NOON).later == 1
            assert deliver_due(file_ledger, calm, after(minutes=55)) == Round()
            assert deliver_due(file_ledger, calm, after(minutes=65)).sent == 1
        assert len({headers["webhook-id"] for headers, _ in told}) == 1

    def test_gone(self, file_ledger):
        """410 ends the subscription."""
        quiet = settings(allow_private=True, webhook_secret=SECRET)
        with webhook([{"status": 410}]) as (url, _):
            add_subscriber(file_ledger, url, now=NOON)
            end(file_ledger)
            assert deliver_due(file_ledger, quiet, NOON).failed == 1
        (left,) = list_subscribers(file_ledger, everybody=True)
        assert left.ended_why == "the webhook answered 410 Gone"

    def test_no_redirect(self, file_ledger):
        """What a webhook points to is not called."""
        away = {"status": 307, "headers": {"Location": "/hook/elsewhere"}}
        with webhook([away]) as (url, told):
            add_subscriber(file_ledger, url, now=NOON)
            end(file_ledger)
            deliver_due(file_ledger, settings(allow_private=True, webhook_secret=SECRET), NOON)
        assert len(told) == 1
        assert "redirects are not followed" in list_deliveries(file_ledger)[0].reason

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:10.0.0.1]"])
    def test_private_addresses(self, file_ledger, host):
        """They are refused, by figures and by name; the reason does not show the key."""
        add_subscriber(file_ledger, f"https://{host}:9/hook/s3cr3t", now=NOON)
        end(file_ledger)
        assert deliver_due(file_ledger, settings(webhook_secret=SECRET), NOON).later == 1
        reason = list_deliveries(file_ledger)[0].reason
        assert "private address" in reason
        assert "s3cr3t" not in reason

    def test_no_secret_set(self, file_ledger):
        """Nothing is sent unsigned; the reason says how to make a secret."""
        with webhook([]) as (url, told):
            add_subscriber(file_ledger, url, now=NOON)
            end(file_ledger)
            deliver_due(file_ledger, settings(allow_private=True), NOON)
        assert told == []
        assert "TALLYBOOK_NOTIFY__WEBHOOK_SECRET" in list_deliveries(file_ledger)[0].reason


def test_old_history(ledger, post):
    """Runs that ended before somebody joined are passed over, however many there are."""
    for minute in range(5):
        end(ledger, RunState.CELL_FAILED, now=after(minutes=minute))
    add_subscriber(ledger, "ada@example.org", now=after(minutes=10))
    run = end(ledger, now=after(minutes=11))
    assert deliver_due(ledger, settings(post.port), after(minutes=12)) == Round(announced=1, sent=1)
    assert get_run(ledger, run.id).announced
    assert post.messages[0]["Subject"] == "totals: works again"
