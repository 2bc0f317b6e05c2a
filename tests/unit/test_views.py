"""Pages made from plain data: words, states, and that everything is escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from tallybook.form import Control, FormField
from tallybook.runs import LedgerState, Progress, Run, RunPage
from tallybook.schedule import Section
from tallybook.views import (
    GROUPS,
    Asked,
    Card,
    Frame,
    NextTick,
    Person,
    Picture,
    Plan,
    Problem,
    RunView,
    Verdict,
    Visitor,
    ago,
    error_page,
    gallery_page,
    report_page,
    run_page,
    runs_page,
    schedule_page,
    sign_in_page,
    subscribers_page,
    took,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"
ADA = Visitor("ada", "proof-of-ours", may_run=True, may_manage=True)
FRAME = Frame(NOW, ADA)


def a_run(state: LedgerState = LedgerState.OK, **values: Any) -> Run:
    """A run that took 90 seconds."""
    made = Run(
        id=7,
        report="totals",
        parameters={"top": 5},
        schedule=None,
        tick=None,
        retry_of=None,
        state=state,
        reason=None,
        stop_reason=None,
        requested_at=NOW - timedelta(minutes=5),
        not_before=NOW,
        start_by=None,
        started_at=NOW - timedelta(minutes=4),
        finished_at=NOW - timedelta(minutes=2.5),
        timeout_seconds=None,
        exclusive=False,
        max_attempts=3,
        attempt=1,
        failures=0,
        owner="worker",
        lease_until=None,
        heartbeat_at=None,
        artefacts=None,
        progress=None,
        request_key=None,
        announced=False,
    )
    return replace(made, **values)


def every_page() -> dict[str, str]:
    """Each page, with something hostile wherever text from outside can stand."""
    run = a_run(reason=EVIL, report=EVIL, schedule=EVIL, parameters={EVIL: EVIL}, stop_reason=EVIL)
    picture = Picture(7, EVIL, EVIL, EVIL)
    tick = NextTick(NOW, EVIL)
    field = FormField("p-x", EVIL, Control.TEXT, (EVIL,), ((EVIL, EVIL),), EVIL, EVIL, EVIL)
    fields = [replace(field, control=control, problem=EVIL) for control in Control]
    card = Card(EVIL, EVIL, EVIL, run, picture, tick)
    section = Section(name="x", report=EVIL, cron="0 6 * * *", parameters={EVIL: EVIL})
    verdict = Verdict("done", EVIL, (EVIL,), EVIL)
    view = RunView(run, EVIL, EVIL, {}, ((EVIL, EVIL),), (picture,), verdict=verdict, page=EVIL)
    frame = replace(FRAME, notice=EVIL, app_name=EVIL, visitor=replace(ADA, name=EVIL))
    person = Person(1, EVIL, EVIL, EVIL, [EVIL])
    return {
        "sign in": sign_in_page(replace(frame, visitor=None), onward=EVIL, problem=EVIL),
        "gallery": gallery_page(frame, [card]),
        "report": report_page(
            frame, card, fields, request_key=EVIL, history=[run], ticks=[tick], problem=EVIL
        ),
        "unreadable": report_page(frame, card, [], unreadable=EVIL),
        "runs": runs_page(
            frame, RunPage((run,), 3), Asked(EVIL, EVIL, EVIL, EVIL, EVIL), {EVIL: EVIL}
        ),
        "run": run_page(frame, view),
        "schedule": schedule_page(frame, [Plan(section, EVIL, [NOW], run, NOW, 7)], problem=EVIL),
        "subscribers": subscribers_page(frame, [person], fields, {EVIL: EVIL}, problem=EVIL),
        "error": error_page(frame, Problem(500, EVIL, EVIL, EVIL, EVIL)),
    }


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class TestEscaping:
    """Text from outside is text."""

    @pytest.mark.parametrize("name", every_page())
    def test_inert(self, name: str) -> None:
        """Nothing hostile becomes an element, and no attribute is left early."""
        html = every_page()[name]
        assert "<img src=x" not in html
        assert "<script>" not in html
        assert EVIL not in html
        assert "&lt;script&gt;" in html

    @pytest.mark.parametrize("name", every_page())
    def test_policy(self, name: str) -> None:
        """Nothing needs an exception from the policy: no inline script, no inline style."""
        reader = Elements()
        reader.feed(every_page()[name])
        assert ("script", {"src": "/static/pages.js", "defer": None}) in reader.found
        for tag, attributes in reader.found:
            assert tag != "style"
            assert tag != "script" or "src" in attributes
            assert not any(key == "style" or key.startswith("on") for key in attributes)


class TestStates:
    """A state is a shape and a word, and only then a colour."""

    @pytest.mark.parametrize("state", LedgerState)
    def test_words(self, state: LedgerState) -> None:
        """Each state of the ledger has its own word and a shape."""
        html = runs_page(FRAME, RunPage((a_run(state),), None), Asked(), {})
        shown = re.findall(r'<span class="state[^>]*><svg.*?</svg>([^<]+)</span>', html)
        assert len(shown) == 1
        assert shown[0] != state.value

    def test_groups(self) -> None:
        """The filter leaves no state out, and has none twice."""
        members = [state for _, states in GROUPS.values() for state in states]
        assert sorted(members) == sorted(LedgerState)


class TestRunPage:
    """What one can do depends on how things stand and on who looks."""

    def buttons(self, run: Run, visitor: Visitor = ADA, **shown: Any) -> list[str]:
        """What the buttons of a run's page do."""
        html = run_page(Frame(NOW, visitor), RunView(run, "Totals", **shown))
        return re.findall(r'action="/pages/runs/7/(\w+)"', html)

    def test_alive(self) -> None:
        """A run that has not ended can be stopped, once."""
        assert self.buttons(a_run(LedgerState.RUNNING)) == ["cancel"]
        assert self.buttons(a_run(LedgerState.RUNNING, stop_reason="enough")) == []

    def test_ended(self) -> None:
        """One that has can be repeated, and proved if it has left something."""
        assert self.buttons(a_run()) == ["retry"]
        assert self.buttons(a_run(), manifest={"title": "Totals"}) == ["retry", "verify"]

    def test_reader(self) -> None:
        """Whoever may only look has no buttons."""
        assert self.buttons(a_run(), replace(ADA, may_run=False)) == []

    def test_progress(self) -> None:
        """How far it has come stands there without a script, and the page looks again by itself."""
        run = a_run(LedgerState.RUNNING, finished_at=None, progress=Progress(4, 9, "cell 5"))
        html = run_page(FRAME, RunView(run, "Totals"))
        assert '<progress value="4" max="9"' in html
        assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in html
        assert "http-equiv" not in run_page(FRAME, RunView(a_run(), "Totals"))

    def test_verifying(self) -> None:
        """While it is being repeated, the page looks again, and cannot ask a second time."""
        view = RunView(a_run(), "Totals", manifest={"a": 1}, verdict=Verdict("working", "Wait"))
        assert 'data-again="3"' in run_page(FRAME, view)
        assert not view.verifiable


class TestWords:
    """Times and durations."""

    def test_ago(self) -> None:
        """A clock that is a little ahead makes nothing strange."""
        assert ago(NOW + timedelta(seconds=30), NOW) == "just now"
        assert ago(NOW - timedelta(days=2), NOW) == "2 days ago"

    def test_took(self) -> None:
        """Time counts from when a run was taken up, until now if it goes on."""
        assert took(a_run(), NOW) == "1 min 30 s"
        assert took(a_run(finished_at=None), NOW) == "4 min 0 s"
        assert took(a_run(started_at=None), NOW) == ""

    def test_empty(self) -> None:
        """A page with nothing on it says what to do."""
        assert "tallybook report new" in gallery_page(FRAME, [])
        assert "[schedule.morning]" in schedule_page(FRAME, [])
        assert "Nobody is subscribed yet" in subscribers_page(FRAME, [], [], {})
        assert "Show all runs" in runs_page(FRAME, RunPage((), None), Asked(report="x"), {})
