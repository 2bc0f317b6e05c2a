"""The routes behind the pages: who is let in, what is refused, where one is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from tallybook.access import Scope, make_key
from tallybook.api import create_app
from tallybook.config import AppConfig, NotifyConfig, SmtpConfig
from tallybook.mail import compose
from tallybook.notice import notice_of
from tallybook.outbox import announce, claim_deliveries
from tallybook.pages import onward, router
from tallybook.runs import (
    Ledger,
    LedgerState,
    Run,
    cancel,
    changing,
    claim,
    finish,
    list_runs,
    request_run,
)
from tallybook.subscribers import add_subscriber, end_subscription, list_subscribers
from tallybook.types import RunState

TOKENS = {scope: f"{scope}-token-of-at-least-32-letters-{scope}" for scope in Scope}
REPORT = "category_totals"
RUN = f"/pages/reports/{REPORT}/run"
Enter = Callable[..., TestClient]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application, with one token for each scope and one named source."""
    monkeypatch.setenv("TALLYBOOK_SETTINGS_DIR", str(tmp_path))
    small = tmp_path / "small.csv"
    settings = AppConfig(runs_dir=tmp_path / "runs", sources={"small": str(small)})
    keys = tuple(make_key(scope.value, scope, token) for scope, token in TOKENS.items())
    made = create_app(settings, keyring=keys)
    yield made
    made.state.desk.ledger.close()


@pytest.fixture
def ledger(app: Any) -> Ledger:
    return app.state.desk.ledger


@pytest.fixture
def enter(app: Any) -> Iterator[Enter]:
    """A browser without scripts, signed in with a scope."""
    opened = []

    def sign_in(scope: Scope | None = Scope.ADMIN) -> TestClient:
        client = TestClient(app, headers={"accept": "text/html"}, follow_redirects=False)
        opened.append(client)
        if scope:
            answer = client.post("/sign-in", data={"token": TOKENS[scope]})
            assert answer.status_code == 303
        return client

    yield sign_in
    for client in opened:
        client.close()


def proof(client: TestClient, address: str = "/") -> str:
    """The CSRF token of a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(address).text)
    assert found
    return found[1]


def ended(ledger: Ledger, folder: Path, manifest: dict[str, Any]) -> Run:
    """A run that has ended, with a bundle."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    now = datetime.now(UTC)
    request_run(ledger, REPORT, {}, now=now)
    run = claim(ledger, "worker", now=now, lease_seconds=60)
    assert run
    return finish(ledger, run, RunState.OK, now=now, artefacts=str(folder))


class TestSignIn:
    """A token for a cookie."""

    def test_sent_there_and_back(self, enter: Enter) -> None:
        """Whoever is not signed in is asked for a token, and then gets where they wanted to go."""
        client = enter(None)
        answer = client.get("/pages/runs?state=ok")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=%2Fpages%2Fruns%3Fstate%3Dok"
        form = {"token": TOKENS[Scope.READ], "next": "/pages/runs?state=ok"}
        answer = client.post("/sign-in", data=form)
        assert answer.headers["location"] == "/pages/runs?state=ok"
        assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]

    def test_from_another_site(self, enter: Enter) -> None:
        """A link in a mail on the web goes once around, so that the cookie comes along."""
        answer = enter(None).get("/pages/runs/1", headers={"sec-fetch-site": "cross-site"})
        assert 'http-equiv="refresh" content="0; url=/pages/runs/1"' in answer.text

    def test_program(self, enter: Enter) -> None:
        """A program gets JSON and no page."""
        answer = enter(None).get("/", headers={"accept": "application/json"})
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"

    def test_wrong(self, enter: Enter) -> None:
        """A wrong token is not said back, and after ten of them one has to wait."""
        client = enter(None)
        answers = [client.post("/sign-in", data={"token": "guessed-it"}) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429]
        assert not any("guessed-it" in answer.text for answer in answers)
        assert int(answers[-1].headers["retry-after"]) >= 1

    def test_foreign_form(self, enter: Enter) -> None:
        """Another site cannot sign anybody in."""
        headers = {"origin": "https://evil.example"}
        form = {"token": TOKENS[Scope.READ]}
        assert enter(None).post("/sign-in", data=form, headers=headers).status_code == 403

    def test_out(self, enter: Enter) -> None:
        """Signing out takes the cookie back."""
        client = enter()
        answer = client.post("/sign-out", data={"csrf_token": proof(client)})
        assert answer.headers["location"] == "/sign-in"
        assert client.get("/").status_code == 303

    @given(st.text(max_size=20).map("/".__add__) | st.text(max_size=20))
    def test_onward(self, address: str) -> None:
        """Whatever is asked for, one stays here."""
        there = onward(address)
        assert re.match(r"/(?![/\\])", there)
        assert there in (address, "/")


class TestWhoMay:
    """Scopes and forged forms."""

    def test_every_page(self, app: Any, enter: Enter) -> None:
        """No page is shown, and nothing is changed, without a session; the sign-in page apart."""
        client = enter(None)
        open_to_all = {"/sign-in", "/static/{name}", "/unsubscribe/{token}"}
        for route in router.routes:
            path = getattr(route, "path", "")
            for method in getattr(route, "methods", ()) if path not in open_to_all else ():
                address = path.replace("{run_id}", "1").replace("{name}", REPORT)
                answer = client.request(method, address)
                assert answer.status_code in (303, 401), (method, path)
                assert answer.headers.get("location", "/sign-in").startswith("/sign-in")

    @pytest.mark.parametrize(
        "action", [RUN, *(f"/pages/runs/1/{do}" for do in ("cancel", "retry", "verify"))]
    )
    def test_forged(self, enter: Enter, ledger: Ledger, action: str) -> None:
        """A form without the right token does nothing, and says so in a page."""
        request_run(ledger, REPORT, {}, now=datetime.now(UTC))
        client = enter()
        for form in ({}, {"csrf_token": "x" * 43}, {"csrf_token": proof(enter())}):
            answer = client.post(action, data=form)
            assert answer.status_code == 403
            assert "You may not do that" in answer.text
        assert [run.state for run in list_runs(ledger).runs] == [LedgerState.REQUESTED]

    @pytest.mark.parametrize("action", [RUN, "/pages/runs/1/cancel"])
    def test_weak(self, enter: Enter, action: str) -> None:
        """Whoever may only look cannot change anything."""
        client = enter(Scope.READ)
        answer = client.post(action, data={"csrf_token": proof(client)})
        assert answer.status_code == 403
        assert "this needs the scope run" in answer.text.lower()


class TestRunning:
    """What becomes of a form."""

    def test_twice(self, enter: Enter, ledger: Ledger) -> None:
        """The same form sent twice is one run; with another value it is another."""
        client = enter()
        form = {"csrf_token": proof(client), "request_key": "k", "p-top": "5"}
        places = [client.post(RUN, data=form).headers["location"] for _ in range(2)]
        assert places == ["/pages/runs/1"] * 2
        other = client.post(RUN, data={**form, "p-top": "6"})
        assert other.headers["location"] == "/pages/runs/2"

    def test_again_twice(self, enter: Enter, ledger: Ledger) -> None:
        """A double click on "Run again" is one run, also if a worker is quick; another is new."""
        client = enter()
        request_run(ledger, REPORT, {}, now=datetime.now(UTC))
        cancel(ledger, 1, now=datetime.now(UTC), reason="not needed")
        keys = re.findall(r'request_key" value="([^"]+)', client.get("/pages/runs/1").text)
        form = {"csrf_token": proof(client), "request_key": keys[0]}
        first = client.post("/pages/runs/1/retry", data=form).headers["location"]
        assert claim(ledger, "quick", now=datetime.now(UTC), lease_seconds=60)
        assert client.post("/pages/runs/1/retry", data=form).headers["location"] == first
        later = client.post("/pages/runs/1/retry", data={**form, "request_key": "another"})
        assert (first, later.headers["location"]) == (
            "/pages/runs/2?done=again",
            "/pages/runs/3?done=again",
        )

    @pytest.mark.parametrize("place", ["/etc/passwd", "https://evil.example/x.csv", "../x", "smal"])
    def test_places(self, enter: Enter, ledger: Ledger, place: str) -> None:
        """No path and no address from a form reaches a file or a socket; the rest is said too."""
        client = enter()
        form = {"csrf_token": proof(client), "p-source": place, "p-top": "500"}
        answer = client.post(RUN, data=form)
        assert answer.status_code == 422
        assert "should be the name of a source" in answer.text
        assert "less than or equal to 30" in answer.text
        assert list_runs(ledger).runs == ()

    def test_named_source(self, enter: Enter, ledger: Ledger, tmp_path: Path) -> None:
        """A source in the settings is chosen by its name."""
        client = enter()
        page = client.get(f"/pages/reports/{REPORT}").text
        assert '<option value="small">small</option>' in page
        client.post(RUN, data={"csrf_token": proof(client), "p-source": "small"})
        assert list_runs(ledger).runs[0].parameters["source"] == str(tmp_path / "small.csv")

    def test_unknown_parameter(self, enter: Enter, ledger: Ledger) -> None:
        """A name that the report does not know is refused, by name."""
        client = enter()
        answer = client.post(RUN, data={"csrf_token": proof(client), "p-tpo": "5"})
        assert answer.status_code == 422
        assert "Did you mean &#39;top&#39;" in answer.text

    def test_cancelled_twice(self, enter: Enter, ledger: Ledger) -> None:
        """Stopping what has ended already is no error."""
        client = enter()
        request_run(ledger, REPORT, {}, now=datetime.now(UTC))
        form = {"csrf_token": proof(client)}
        assert (
            client.post("/pages/runs/1/cancel", data=form).headers["location"].endswith("cancelled")
        )
        assert client.post("/pages/runs/1/cancel", data=form).headers["location"] == "/pages/runs/1"


class TestErrors:
    """What cannot be shown is said in a page."""

    @pytest.mark.parametrize(
        "address",
        [
            "/nothing",
            "/pages/runs/9",
            "/pages/runs/99999999999999999999",
            "/pages/reports/no",
            "/pages/reports/..%2F..%2Fx.ipynb",
            "/static/site.html.j2",
            "/pages/compare?a=1&b=2",
        ],
    )
    def test_missing(self, enter: Enter, address: str) -> None:
        """An address with nothing behind it is a page with a way on."""
        answer = enter().get(address)
        assert answer.status_code == 404
        assert "To the reports" in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")

    def test_number(self, enter: Enter) -> None:
        """What is no number is said too."""
        answer = enter().get("/pages/runs/first")
        assert answer.status_code == 422
        assert "That does not fit" in answer.text

    @pytest.mark.parametrize("query", ["since=someday", "state=good", "before=x", "before=-1"])
    def test_filter(self, enter: Enter, query: str) -> None:
        """A filter that cannot be understood is said, and everything is still usable."""
        answer = enter().get(f"/pages/runs?{query}")
        assert answer.status_code in (200, 422)
        assert "Filter the runs" in answer.text

    def test_broken_settings(self, enter: Enter, tmp_path: Path) -> None:
        """A schedule that cannot be read is said on its page, and the gallery goes on."""
        client = enter()
        (tmp_path / "settings.ini").write_text("[schedule.x]\ncron = nonsense\nreport = nothing\n")
        page = client.get("/pages/schedule").text
        assert "cannot be read" in page
        assert "there is no report" in page
        assert client.get("/").status_code == 200


class TestBundle:
    """What a run has left, or has not any more."""

    def test_shown(self, enter: Enter, ledger: Ledger, tmp_path: Path) -> None:
        """Its numbers, and links to its files in every form."""
        table = {"name": "totals", "title": "All totals", "file": "tables/totals.parquet"}
        told = {"title": "T", "values": {"total_amount": "1234.50"}, "tables": [table]}
        ended(ledger, tmp_path / "runs" / REPORT / "one", told)
        page = enter().get("/pages/runs/1").text
        assert "<dd>1,234.5</dd>" in page
        for address in ("/runs/1/page", "/runs/1/tables/totals?format=csv", "/runs/1/manifest"):
            assert f'href="{address}"' in page

    @pytest.mark.parametrize("place", ["elsewhere", "runs/gone"])
    def test_none(self, enter: Enter, ledger: Ledger, tmp_path: Path, place: str) -> None:
        """A bundle outside the folder of runs is none, and one that was removed is no error."""
        ended(ledger, tmp_path / place, {"values": {"total_amount": 1}})
        if place == "runs/gone":
            (tmp_path / place / "manifest.json").unlink()
        page = enter().get("/pages/runs/1")
        assert page.status_code == 200
        assert "Numbers kept" not in page.text
        assert "Open the report" not in page.text

    def test_source_by_its_name(self, enter: Enter, ledger: Ledger, tmp_path: Path) -> None:
        """The address of a source stands on no page; its name does."""
        client = enter()
        client.post(RUN, data={"csrf_token": proof(client), "p-source": "small"})
        page = client.get("/pages/runs/1").text
        assert "<dd>small</dd>" in page
        assert str(tmp_path) not in page


class TestLeaving:
    """The link in a message, for whoever reads it."""

    @pytest.fixture
    def link(self, app: Any, enter: Enter, ledger: Ledger) -> str:
        """The link out of a real message, without the service's own address."""
        settings = AppConfig(
            notify=NotifyConfig(public_url="https://reports.example.com"),
            smtp=SmtpConfig(host="mail.example.com", sender="reports@example.com"),
        )
        moment = datetime.now(UTC)
        add_subscriber(ledger, "ada@example.org", now=moment, name="Ada")
        request_run(ledger, REPORT, {}, now=moment)
        run = claim(ledger, "anna", now=moment, lease_seconds=60)
        assert run is not None
        finish(ledger, run, RunState.CELL_FAILED, now=moment + timedelta(seconds=1))
        later = moment + timedelta(seconds=2)
        assert announce(ledger, now=later) == 1
        [claimed] = claim_deliveries(ledger, now=later, lease_seconds=60, limit=5, due_by=later)
        notice = notice_of(claimed.run, claimed.delivery.event, settings)
        message = compose(
            notice, claimed.subscriber, settings, token=claimed.token, key="k", now=later
        )
        return (
            str(message["List-Unsubscribe"]).strip("<>").removeprefix("https://reports.example.com")
        )

    def test_asks_first(self, enter: Enter, ledger: Ledger, link: str) -> None:
        """Following the link changes nothing, as programs that scan mail follow it, too."""
        answer = enter(None).get(link)
        assert answer.status_code == 200
        assert "Send me no more" in answer.text
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert len(list_subscribers(ledger)) == 1

    def test_one_click(self, enter: Enter, ledger: Ledger, link: str, caplog: Any) -> None:
        """What a mail program posts by itself is enough, also twice; the token is in no log."""
        client = enter(None)
        for _ in range(2):
            answer = client.post(link, data={"List-Unsubscribe": "One-Click"})
            assert answer.status_code == 200
            assert "Nothing more is sent to Ada " in answer.text
        assert list_subscribers(ledger) == []
        assert link.rpartition("/")[2] not in caplog.text

    def test_unknown(self, enter: Enter) -> None:
        """A link that is none is not found, and cannot be guessed for long."""
        client = enter(None)
        answers = [client.post(f"/unsubscribe/{number}").status_code for number in range(12)]
        assert answers[0] == 404
        assert answers[-1] == 429


class TestSubscribers:
    """Who is told how runs end."""

    def test_in_and_out(self, enter: Enter, ledger: Ledger) -> None:
        """Somebody is added, stands on the page, and is taken out again."""
        client = enter()
        form = {"csrf_token": proof(client), "p-email": "Ada@Example.org", "p-name": "Ada <b>"}
        form |= {"p-report": "*", "p-events": ["failure", "gate"]}
        answer = client.post("/pages/subscribers", data=form)
        assert answer.status_code == 422
        assert "Ada &lt;b&gt;" in answer.text
        answer = client.post("/pages/subscribers", data={**form, "p-name": "Ada"})
        assert answer.headers["location"] == "/pages/subscribers?done=subscribed"
        page = client.get("/pages/subscribers").text
        assert "ada@example.org" in page
        assert "Failures, failed data checks" in page
        [one] = list_subscribers(ledger)
        client.post(f"/pages/subscribers/{one.id}/remove", data={"csrf_token": proof(client)})
        assert list_subscribers(ledger) == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"p-email": "nobody"},
            {"p-email": "https://u:p@example.org/"},
            {"p-report": "no_such"},
            {"p-events": []},
        ],
    )
    def test_wrong(self, enter: Enter, ledger: Ledger, wrong: dict[str, Any]) -> None:
        """What is wrong is said, and nobody is added."""
        client = enter()
        form = {"csrf_token": proof(client), "p-email": "ada@example.org", "p-report": "*"}
        answer = client.post("/pages/subscribers", data={**form, "p-events": ["gate"], **wrong})
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert list_subscribers(ledger) == []

    def test_back(self, enter: Enter, ledger: Ledger) -> None:
        """Who has left comes back when the box is ticked; without it, that is said beside it."""
        client = enter()
        form = {"csrf_token": proof(client), "p-email": "ada@example.org"}
        form |= {"p-report": "*", "p-events": ["failure"]}
        client.post("/pages/subscribers", data=form)
        with changing(ledger, datetime.now(UTC)) as connection:
            end_subscription(connection, 1, now=datetime.now(UTC), why="unsubscribed")
        refused = client.post("/pages/subscribers", data=form)
        assert refused.status_code == 422
        assert "tick this if they want to come back" in refused.text
        client.post("/pages/subscribers", data={**form, "p-again": "true"})
        assert [one.active for one in list_subscribers(ledger)] == [True]

    def test_only_for_those_who_manage(self, enter: Enter) -> None:
        """Addresses of people are nothing for everybody."""
        client = enter(Scope.RUN)
        assert client.get("/pages/subscribers").status_code == 403
        assert "/pages/subscribers" not in client.get("/").text
