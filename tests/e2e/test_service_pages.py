"""The service's pages in a real Chromium, served by a real uvicorn on loopback, and a worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests.support.service import served

from tallybook.access import Scope, make_key
from tallybook.api import create_app
from tallybook.config import AppConfig
from tallybook.reports import run_report
from tallybook.runs import (
    Ledger,
    LedgerState,
    Progress,
    Run,
    claim,
    finish,
    get_run,
    heartbeat,
    list_runs,
    open_ledger,
    request_run,
)
from tallybook.types import RunState

TOKEN = "a-token-of-more-than-thirty-two-letters"  # noqa: S105 - of this test only
READER = "another-token-of-thirty-two-letters-or-more"
REPORT = "category_totals"
TITLE = "Totals by category"
LEASE = 600.0
SETTINGS = """
[tallybook]
runs_dir = {runs}

[tallybook.sources]
small = {small}

[schedule.morning]
report = category_totals
cron = 0 6 * * MON-FRI
time_zone = Europe/Berlin

[schedule.morning.parameters]
since = today-7d
"""
PAGES = (
    "/",
    f"/pages/reports/{REPORT}",
    "/pages/runs",
    "/pages/runs?report=anomalies",
    "/pages/runs/1",
    "/pages/runs/2",
    "/pages/schedule",
    "/pages/nothing",
)


@dataclass
class Site:
    """A service that runs, and what is behind it."""

    url: str
    ledger: Ledger
    runs_dir: Path
    at_work: threading.Event
    hostile: tuple[str, ...] = ()


def now() -> datetime:
    return datetime.now(UTC)


def work(ledger: Ledger, run: Run, runs_dir: Path) -> None:
    """Do what a worker does."""

    def tell(done: int, total: int, what: str) -> None:
        progress = Progress(done, total, what)
        heartbeat(ledger, run, now=now(), lease_seconds=LEASE, progress=progress)

    result = run_report(run.report, run.parameters, runs_dir=runs_dir, on_progress=tell, force=True)
    finish(ledger, run, result.state, now=now(), reason=result.reason, artefacts=str(result.folder))


def keep_working(site: Site, over: threading.Event) -> None:
    """Take up one run after the other, while somebody wants it."""
    while not over.is_set():
        if site.at_work.wait(0.1) and not over.is_set():
            run = claim(site.ledger, "worker", now=now(), lease_seconds=LEASE)
            if run:
                work(site.ledger, run, site.runs_dir)
            else:
                over.wait(0.1)


def hostile_bundle(folder: Path, names: tuple[str, ...]) -> Path:
    """A bundle in which every name would like to be code."""
    (folder / "charts").mkdir(parents=True)
    space = "xmlns='http://www.w3.org/2000/svg' width='9' height='9'"
    picture = f"<svg {space}><script>top.hacked=9</script></svg>"
    (folder / "charts" / "bars.svg").write_text(picture)
    (folder / "report.html").write_text(f"<h1>Report</h1>{''.join(names)}")
    (folder / "log.jsonl").write_text("".join(json.dumps({"message": one}) + "\n" for one in names))
    files = {"svg": "charts/bars.svg", "png": "charts/bars.png"}
    chart = {"name": "bars", "title": names[0], "description": names[2], "files": files}
    told = {"title": names[2], "values": {names[0]: names[1]}, "charts": [chart], "tables": []}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def seed(site: Site, names: tuple[str, ...]) -> None:
    """Two ended runs that would like to be code: one that went well, one that did not."""
    for number, state in enumerate((RunState.OK, RunState.GATE_FAILED)):
        parameters = {"unit": names[number], "source": "sample"}
        request_run(site.ledger, REPORT, parameters, now=now())
        run = claim(site.ledger, names[3], now=now(), lease_seconds=LEASE)
        assert run
        folder = hostile_bundle(site.runs_dir / REPORT / f"hostile-{number}", names)
        finish(site.ledger, run, state, now=now(), reason=names[2], artefacts=str(folder))


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, hostile_names: tuple[str, ...]
) -> Iterator[Site]:
    """The service on a free port of loopback; its worker rests until somebody sets `at_work`."""
    folder = tmp_path_factory.mktemp("service").resolve()
    small = folder / "small.csv"
    small.write_text("timestamp,category,amount\n2013-01-01T00:00:00Z,tea,5\n")
    (folder / "settings.ini").write_text(SETTINGS.format(runs=folder / "runs", small=small))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALLYBOOK_SETTINGS_DIR", str(folder))
        settings = AppConfig.load()
        keys = make_key("ada", Scope.ADMIN, TOKEN), make_key("bob", Scope.READ, READER)
        over = threading.Event()
        serving = served(create_app(settings, keyring=keys))
        with serving as url, closing(open_ledger(settings.ledger_address)) as ledger:
            made = Site(
                url,
                ledger,
                settings.runs_dir,
                threading.Event(),
                hostile_names,
            )
            seed(made, hostile_names)
            working = threading.Thread(target=keep_working, args=(made, over), daemon=True)
            working.start()
            yield made
            over.set()
            made.at_work.set()
            working.join(60)


@dataclass
class Guest:
    """Somebody with a browser, what it asked for, and what it complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def guest(browser: Browser, site: Site) -> Iterator[Callable[..., Guest]]:
    """Open a window, signed in unless said otherwise."""
    contexts = []

    def enter(*, width: int = 1280, token: str = TOKEN, **options: Any) -> Guest:
        window = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=window, base_url=site.url, **options))
        made = Guest(contexts[-1].new_page())
        made.page.set_default_timeout(60_000)
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("dialog", lambda dialog: made.complaints.append(dialog.message))
        made.page.on(
            "console",
            lambda said: (
                made.complaints.append(said.text)
                if said.type in ("error", "warning") and "status of" not in said.text
                else None
            ),
        )
        if token:
            made.page.goto("/sign-in")
            made.page.get_by_label("Token").fill(token)
            made.page.get_by_role("button", name="Sign in").click()
            expect(made.page.get_by_role("heading", level=1, name="Reports")).to_be_visible()
        return made

    yield enter
    for context in contexts:
        context.close()


@pytest.fixture
def worker(site: Site) -> Iterator[None]:
    """Let the worker work."""
    site.at_work.set()
    yield
    site.at_work.clear()


def overflow(page: Page) -> int:
    """How many pixels of the page lie to the right of its window."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def tab_to(page: Page, name: str, role: str = "button") -> None:
    """Press Tab until something has the focus, as somebody without a mouse does."""
    wanted = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]
    for _ in range(80):
        page.keyboard.press("Tab")
        if wanted.evaluate("it => it === document.activeElement"):
            return
    pytest.fail(f"{name} cannot be reached with the keyboard")


class TestStory:
    """What a colleague does who has a browser and a token."""

    @pytest.mark.usefixtures("worker")
    def test_whole(self, guest: Callable[..., Guest], site: Site) -> None:
        """Sign in, choose, run, watch, open, compare, verify, sign out; all within the origin."""
        visit = guest()
        page = visit.page
        page.get_by_role("link", name=TITLE, exact=True).click()
        page.get_by_label("Top").fill("5")
        page.get_by_role("button", name=f"Run {TITLE}").click()
        expect(page.locator("[data-events]")).to_be_visible()
        expect(page.locator("[data-count]")).to_contain_text(" of ", timeout=120_000)
        expect(page.locator(".dateline")).to_contain_text("Complete", timeout=240_000)
        expect(page.locator(".figures dd").first).to_be_visible()
        first = page.url
        page.get_by_role("link", name="Open the report").click()
        expect(page.get_by_role("heading", level=1, name=TITLE)).to_be_visible()
        expect(page.locator("figure.chart.is-live .live svg").first).to_be_visible()
        page.goto(first)
        page.get_by_role("button", name="Run again").click()
        expect(page.get_by_role("status").first).to_contain_text("This is the new run")
        expect(page.locator(".dateline")).to_contain_text("Complete", timeout=240_000)
        chosen = first.rpartition("/")[2]
        page.get_by_label("What has changed since").select_option(chosen)
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_text("The same results")).to_be_visible()
        page.goto(first)
        page.get_by_role("button", name="Verify").click()
        expect(page.get_by_role("heading", name="Reproduced")).to_be_visible(timeout=240_000)
        page.goto("/")
        expect(page.locator(".card .plate img").first).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()
        page.goto(first)
        expect(page.get_by_label("Token")).to_be_visible()
        assert all(url.startswith((site.url, "data:", "blob:")) for url in visit.requests)
        assert visit.complaints == []

    def test_keyboard(self, guest: Callable[..., Guest], site: Site) -> None:
        """All of it can be done with the keyboard alone."""
        page = guest(token="").page
        page.goto("/")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name="Reports")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.locator("a.skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        tab_to(page, TITLE, "link")
        page.keyboard.press("Enter")
        tab_to(page, f"Run {TITLE}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Waiting for a worker")).to_be_visible()
        tab_to(page, "Cancel")
        page.keyboard.press("Enter")
        expect(page.locator(".dateline")).to_contain_text("Cancelled")
        tab_to(page, "Sign out (ada)")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()

    def test_without_scripts(self, guest: Callable[..., Guest], site: Site) -> None:
        """Without JavaScript a wrong form comes back whole, and a run page looks again itself."""
        page = guest(java_script_enabled=False).page
        page.goto(f"/pages/reports/{REPORT}")
        page.get_by_label("Top").fill("500")
        page.get_by_label("Since").fill("someday")
        page.get_by_label("Unit").fill("EUR")
        page.get_by_role("button", name=f"Run {TITLE}").click()
        expect(page.get_by_role("alert")).to_contain_text("2 values are not right")
        expect(page.locator(".field .problem")).to_have_count(2)
        expect(page.get_by_label("Top")).to_have_value("500")
        expect(page.get_by_label("Unit")).to_have_value("EUR")
        page.get_by_label("Top").fill("5")
        page.get_by_label("Since").fill("month_start-1mo")
        page.get_by_role("button", name=f"Run {TITLE}").click()
        expect(page.get_by_role("heading", name="Waiting for a worker")).to_be_visible()
        run = list_runs(site.ledger, limit=1).runs[0]
        assert (run.parameters["top"], run.parameters["unit"]) == (5, "EUR")
        taken = claim(site.ledger, "somebody", now=now(), lease_seconds=LEASE)
        assert taken
        assert taken.id == run.id
        finish(site.ledger, taken, RunState.SKIPPED, now=now(), reason="nothing to do")
        expect(page.locator(".dateline")).to_contain_text("Skipped on purpose", timeout=30_000)

    def test_link_with_token(self, guest: Callable[..., Guest]) -> None:
        """A link with the token behind # signs in, and the token is in no address afterwards."""
        visit = guest(token="")
        visit.page.goto(f"/sign-in?next=/pages/schedule#token={TOKEN}")
        expect(visit.page.get_by_role("heading", level=1, name="Schedule")).to_be_visible()
        assert "token" not in visit.page.url
        assert not any(TOKEN in url.partition("#")[0] for url in visit.requests)

    def test_double_click(self, guest: Callable[..., Guest], site: Site) -> None:
        """Two clicks on the button make one run."""
        page = guest().page
        page.goto(f"/pages/reports/{REPORT}")
        before = len(list_runs(site.ledger).runs)
        page.get_by_role("button", name=f"Run {TITLE}").dblclick()
        page.wait_for_url("**/pages/runs/*")
        assert len(list_runs(site.ledger).runs) == before + 1
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".dateline")).to_contain_text("Cancelled")

    def test_reader(self, guest: Callable[..., Guest]) -> None:
        """Whoever may only look sees no button that would be refused."""
        page = guest(token=READER).page
        page.goto(f"/pages/reports/{REPORT}")
        expect(page.get_by_text("may look at reports, but not run them")).to_be_visible()
        page.goto("/pages/runs/1")
        expect(page.get_by_role("link", name="Open the report")).to_be_visible()
        expect(page.locator("main form[method=post]")).to_have_count(0)


class TestEveryPage:
    """What each page has to be."""

    @pytest.mark.parametrize(
        ("width", "scheme"),
        [
            (360, "dark"),
            (1280, "light"),
            pytest.param(360, "light", marks=pytest.mark.soak),
            pytest.param(1280, "dark", marks=pytest.mark.soak),
        ],
    )
    def test_fits_and_is_accessible(
        self, guest: Callable[..., Guest], site: Site, width: int, scheme: str
    ) -> None:
        """Nothing sticks out to the right, and axe-core finds nothing, hostile names included."""
        visit = guest(width=width, color_scheme=scheme)
        for address in PAGES:
            visit.page.goto(address)
            assert overflow(visit.page) == 0, address
            found = Axe().run(visit.page)
            assert found.violations_count == 0, f"{address}: {found.generate_report()}"
        assert all(url.startswith((site.url, "data:")) for url in visit.requests)

    def test_sign_in(self, guest: Callable[..., Guest]) -> None:
        """So it is with the first page, also when the token was wrong."""
        page = guest(width=360, token="").page
        page.goto("/")
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not known")
        assert overflow(page) == 0
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


class TestHostile:
    """What comes with the data is text, wherever it appears."""

    @pytest.mark.parametrize("address", ["/", "/pages/runs", "/pages/runs/1", "/pages/runs/2"])
    def test_nothing_happens(self, guest: Callable[..., Guest], site: Site, address: str) -> None:
        """No script of theirs runs, and nothing is asked of anybody else."""
        visit = guest()
        visit.page.goto(address)
        visit.page.wait_for_selector("html[data-ready]")
        assert visit.page.evaluate("window.hacked") is None
        assert visit.page.locator("main :is(script, img[src=x], svg[onload])").count() == 0
        assert all(url.startswith((site.url, "data:")) for url in visit.requests)
        assert visit.complaints == []

    def test_shown_as_text(self, guest: Callable[..., Guest], site: Site) -> None:
        """They can be read, letter by letter."""
        page = guest().page
        page.goto("/pages/runs/1")
        expect(page.get_by_role("heading", level=1)).to_have_text(site.hostile[2])
        expect(page.locator(".figures dd")).to_have_text(site.hostile[1])

    def test_boxed(self, guest: Callable[..., Guest], site: Site) -> None:
        """A report is not trusted: it can reach neither our cookie nor any network."""
        visit = guest()
        answer = visit.page.goto("/runs/1/page")
        assert answer
        assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts")
        assert visit.page.evaluate("self.origin") == "null"
        stopped = visit.page.evaluate(f"fetch('{site.url}/').then(() => 'out', (e) => e.name)")
        assert stopped == "TypeError"
        assert not any("example.org" in url for url in visit.requests)


def test_states_of_the_ledger_stand_on_the_page(guest: Callable[..., Guest], site: Site) -> None:
    """The history can be narrowed down to what went wrong."""
    page = guest().page
    page.goto("/pages/runs")
    page.get_by_label("State").select_option("wrong")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody .state")).to_have_text("Data check failed")
    assert get_run(site.ledger, 2).state is LedgerState.GATE_FAILED
