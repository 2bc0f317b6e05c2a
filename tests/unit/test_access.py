"""Who may do what: every route, with every kind of caller; sessions; pages that are not ours."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from tests.support.service import KEYRING, TOKENS, client_for, new_app

from tallybook.access import (
    CSRF_HEADER,
    SESSION_COOKIE,
    Scope,
    caller_of,
    csrf_token,
    identify,
    is_own_page,
    new_session,
    read_session,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PUBLIC = {("GET", "/health"), ("GET", "/ready")}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """One application for all that only ask who may come in."""
    made = new_app(tmp_path_factory.mktemp("service"))
    yield made
    made.state.desk.ledger.close()


def guarded_routes(app) -> list[tuple[str, str, Scope | None]]:
    """Every method and address that the description lists, with the scope it needs."""
    needs = {}
    for route in every_route(app.routes):
        found = [
            dependency.call.needed
            for dependency in route.dependant.dependencies
            if hasattr(dependency.call, "needed")
        ]
        for method in route.methods:
            needs[method, route.path] = found[0] if found else None
    return [(method, path, scope) for (method, path), scope in needs.items()]


def every_route(routes):
    """All routes of the API, those of included routers too."""
    for route in routes:
        if isinstance(route, APIRoute):
            if route.include_in_schema:
                yield route
        elif hasattr(route, "original_router"):
            yield from every_route(route.original_router.routes)


def address(path: str) -> str:
    """An address for a pattern."""
    for name in ("run_id", "subscriber_id", "name", "table", "file"):
        path = path.replace(f"{{{name}}}", "1")
    return path


class TestRoutes:
    """Whoever is not known, or may not, is refused before anything else happens."""

    def test_every_route_is_here(self, app):
        """The routes that are tried are those that are described, and only two are public."""
        described = {
            (method.upper(), path)
            for path, operations in app.openapi()["paths"].items()
            for method in operations
        }
        found = guarded_routes(app)
        assert {(method, path) for method, path, _ in found} == described
        assert {(method, path) for method, path, scope in found if scope is None} == PUBLIC

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic YTpi"},
            {"Authorization": f"Bearer {TOKENS[Scope.ADMIN]}x"},
            {"Authorization": f"Token {TOKENS[Scope.ADMIN]}"},
            {"Cookie": f"{SESSION_COOKIE}={TOKENS[Scope.ADMIN]}"},
        ],
    )
    def test_nobody(self, tmp_path, headers):
        """Without a token, or with a wrong one, every route says 401 and how to sign in."""
        app = new_app(tmp_path)
        for method, path, scope in guarded_routes(app):
            if scope is None:
                continue
            client = client_for(app)
            client.headers.pop("Authorization")
            answered = client.request(method, address(path), headers=headers)
            assert answered.status_code in (401, 429), (method, path)
            assert answered.headers["content-type"] == "application/problem+json"
            if answered.status_code == 401:
                assert answered.headers["WWW-Authenticate"].startswith("Bearer")
        app.state.desk.ledger.close()

    def test_weak_scope(self, app):
        """A scope that does not cover what a route needs gets 403, and the next one does not."""
        for method, path, needed in guarded_routes(app):
            for scope in Scope if needed else ():
                client = client_for(app, scope)
                if method == "GET" and scope.covers(needed):
                    continue
                answered = client.request(method, address(path))
                refused = answered.status_code == 403
                assert refused == (not scope.covers(needed)), (method, path, scope)

    def test_wrong_tokens_are_slowed(self, tmp_path):
        """After some wrong tokens an address is told to wait; right ones are still taken."""
        app = new_app(tmp_path)
        client = client_for(app)
        wrong = {"Authorization": "Bearer wrong"}
        seen = [client.get("/reports", headers=wrong).status_code for _ in range(30)]
        assert seen[0] == 401
        assert seen[-1] == 429
        assert client.get("/reports", headers=wrong).headers["Retry-After"]
        assert client.get("/reports").status_code == 200
        app.state.desk.ledger.close()


class TestSessions:
    """A cookie is as good as the token behind it, for a while, and on our own pages only."""

    @given(st.text(max_size=300))
    def test_no_text_is_a_session(self, text):
        """Whatever somebody writes into the cookie, they are nobody, and nothing breaks."""
        assert read_session(KEYRING, text, now=NOW) is None
        assert identify(KEYRING, text) is None
        assert caller_of(KEYRING, {"cookie": f"{SESSION_COOKIE}={text}"}) is None

    @given(st.integers(min_value=0), st.characters(codec="ascii"))
    def test_altered(self, place, mark):
        """A session in which one character is another one is none."""
        session = new_session(KEYRING, KEYRING[1].caller, now=NOW)
        place %= len(session)
        altered = session[:place] + mark + session[place + 1 :]
        assert (read_session(KEYRING, altered, now=NOW) is not None) == (altered == session)

    def test_expires(self):
        """After twelve hours somebody has to sign in again."""
        session = new_session(KEYRING, KEYRING[0].caller, now=NOW)
        assert read_session(KEYRING, session, now=NOW + timedelta(hours=11, minutes=59))
        assert read_session(KEYRING, session, now=NOW + timedelta(hours=12)) is None

    def test_token_gone(self):
        """Taking a token away signs its sessions out, and nobody else's."""
        sessions = [new_session(KEYRING, key.caller, now=NOW) for key in KEYRING]
        left = KEYRING[1:]
        assert [bool(read_session(left, session, now=NOW)) for session in sessions] == [
            False,
            True,
            True,
        ]

    def test_tokens_are_not_kept(self, app):
        """What the service remembers of a token is not the token."""
        kept = repr(app.state.desk.keyring)
        assert not any(token in kept for token in TOKENS.values())


class TestForgedRequests:
    """A page elsewhere cannot make a browser change anything here."""

    def ask(self, app, **headers):
        """Ask for a run by cookie."""
        session = new_session(KEYRING, KEYRING[1].caller, now=datetime.now(UTC))
        client = client_for(app)
        client.headers.pop("Authorization")
        proof = csrf_token(KEYRING, session)
        given = {"Cookie": f"{SESSION_COOKIE}={session}", CSRF_HEADER: proof, **headers}
        sent = {name: value for name, value in given.items() if value}
        return client.post("/process", json={"data": ["a"]}, headers=sent).status_code

    def test_own_page(self, app):
        """Our own pages send the proof, from our own origin."""
        assert self.ask(app) == 200
        assert self.ask(app, Origin="http://testserver") == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {CSRF_HEADER: ""},
            {CSRF_HEADER: "x" * 43},
            {CSRF_HEADER: "\xe4" * 43},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_other_page(self, app, headers):
        """Without the proof, or from elsewhere, a change is refused."""
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        assert self.ask(app, **encoded) == 403

    def test_reading_needs_no_proof(self, app):
        """A page of ours may be opened by a link."""
        session = new_session(KEYRING, KEYRING[0].caller, now=datetime.now(UTC))
        client = client_for(app)
        client.headers.pop("Authorization")
        assert client.get("/runs", headers={"Cookie": f"{SESSION_COOKIE}={session}"}).is_success

    def test_another_name(self, app):
        """A name that leads here but is not ours is refused, so that no page can claim it."""
        answered = client_for(app).get("/runs", headers={"Host": "evil.example"})
        assert answered.status_code == 421

    def test_origin_with_port(self):
        """The port is part of the origin."""
        headers = {"host": "127.0.0.1:8321", "origin": "http://127.0.0.1:8322"}
        assert not is_own_page(headers, "http")
