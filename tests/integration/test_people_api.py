"""Subscribers over HTTP, on a real ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from tests.support.service import client_for, new_app

from tallybook.access import Scope
from tallybook.runs import changing
from tallybook.subscribers import add_subscriber, end_subscription, list_subscribers

HOOK = "https://hooks.example.org/services/T0/the-key"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """An application with an empty ledger."""
    return new_app(tmp_path)


def test_add_list_remove(app: FastAPI) -> None:
    """A person is added with the command's defaults, listed, and removed once."""
    client = client_for(app)
    added = client.post("/subscribers", json={"address": "ada@example.org"})
    assert added.status_code == 201
    assert added.json()["report"] == "*"
    assert added.json()["events"] == ["success", "failure", "gate", "recovery"]
    assert client.get("/subscribers").json() == [added.json()]
    assert client.delete("/subscribers/1").status_code == 204
    assert client.delete("/subscribers/1").status_code == 404
    assert client.get("/subscribers").json() == []


def test_added_twice(app: FastAPI) -> None:
    """Adding somebody again changes what they hear, and makes no second entry."""
    client = client_for(app)
    asked = {"address": "ada@example.org"}
    first = client.post("/subscribers", json=asked)
    again = client.post("/subscribers", json={**asked, "events": ["failure"]})
    assert (first.status_code, again.status_code) == (201, 200)
    assert [one["events"] for one in client.get("/subscribers").json()] == [["failure"]]


def test_has_left(app: FastAPI) -> None:
    """Who has left is not brought back by accident; the refusal says what to send."""
    client, asked = client_for(app), {"address": "ada@example.org"}
    client.post("/subscribers", json=asked)
    with changing(app.state.desk.ledger, datetime.now(UTC)) as connection:
        end_subscription(connection, 1, now=datetime.now(UTC), why="unsubscribed")
    refused = client.post("/subscribers", json=asked)
    assert refused.status_code == 409
    assert 'send "again": true' in refused.json()["detail"]
    assert "--" not in refused.text
    back = client.post("/subscribers", json={**asked, "again": True})
    assert (back.status_code, back.json()["id"]) == (200, 1)


@pytest.mark.parametrize(
    ("report", "said"),
    [("category_total", "Did you mean 'category_totals'"), ("x", "There are: *, anomalies,")],
)
def test_no_such_report(app: FastAPI, report: str, said: str) -> None:
    """Nobody is left waiting for word of a report that there is not; the nearest one is named."""
    client = client_for(app)
    refused = client.post("/subscribers", json={"address": "ada@example.org", "report": report})
    assert refused.status_code == 422
    assert said in refused.json()["detail"]
    assert client.get("/subscribers").json() == []


def test_secrets_are_not_shown(app: FastAPI) -> None:
    """Neither a webhook's key nor its secret's name is in an answer; the ledger has both."""
    client = client_for(app)
    added = client.post("/subscribers", json={"address": HOOK, "secret": "secret:SIGNING"})
    for answer in (added, client.get("/subscribers")):
        assert "the-key" not in answer.text
        assert "SIGNING" not in answer.text
    assert added.json()["signed"]
    assert list_subscribers(app.state.desk.ledger)[0].address == HOOK


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "nobody"},
        {"address": HOOK, "secret": "in-the-clear"},
        {"address": "ada@example.org", "events": []},
        {"address": "ada@example.org", "events": ["sucess"]},
        {"address": "ada@example.org", "admin": True},
    ],
)
def test_refused(app: FastAPI, wrong: dict[str, object]) -> None:
    """What cannot be accepted is a problem, adds nobody, and shows no secret."""
    client = client_for(app)
    refused = client.post("/subscribers", json=wrong)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert "in-the-clear" not in refused.text
    assert "the-key" not in refused.text
    assert client.get("/subscribers").json() == []


@pytest.mark.parametrize("scope", [Scope.READ, Scope.RUN])
def test_only_for_admin(app: FastAPI, scope: Scope) -> None:
    """Who may not manage neither sees who is told nor changes it."""
    ledger = app.state.desk.ledger
    add_subscriber(ledger, "ada@example.org", now=datetime.now(UTC))
    client = client_for(app, scope)
    assert client.get("/subscribers").status_code == 403
    assert client.post("/subscribers", json={"address": "eve@example.org"}).status_code == 403
    assert client.delete("/subscribers/1").status_code == 403
    assert [one.address for one in list_subscribers(ledger)] == ["ada@example.org"]
