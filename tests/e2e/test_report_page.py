"""The report's page in a real Chromium without a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

Open = Callable[..., Any]  # `visit` of conftest.py, which returns a Visit
REPORTS = sorted(path.stem for path in Path(__file__).parents[2].glob("reports/*.ipynb"))

LIVE = "figure.chart.is-live .live svg"


def overflow(visited: Any) -> int:
    """How many pixels of the page lie to the right of its window."""
    return visited.page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def background(page: Page) -> str:
    """The colour behind the text."""
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


class TestOffline:
    """The page needs nothing but itself."""

    def test_requests(self, visit: Open, report_page: Path) -> None:
        """Nothing is asked for but the file."""
        assert visit(report_page).requests == [report_page.as_uri()]

    def test_console(self, visit: Open, report_page: Path) -> None:
        """Nothing is complained about, not even by a warning."""
        assert visit(report_page).complaints == []

    def test_policy(self, visit: Open, report_page: Path) -> None:
        """What would ask for something is stopped by the page's own policy."""
        opened = visit(report_page)
        stopped = opened.page.evaluate(
            "fetch('https://example.org/').then(() => 'went out', (error) => error.name)"
        )
        assert stopped == "TypeError"
        assert any("Content Security Policy" in text for text in opened.complaints)


class TestCharts:
    """Each chart is a picture that comes alive."""

    def test_drawn(self, visit: Open, report_page: Path) -> None:
        """Every chart is drawn live, with marks in it, and says what it shows."""
        page = visit(report_page).page
        charts = page.locator("figure.chart")
        assert charts.count() >= 2
        expect(page.locator(LIVE)).to_have_count(charts.count())
        for chart in page.locator(LIVE).all():
            assert chart.locator("path").count() > 10
            said = chart.locator("xpath=..").get_attribute("aria-label")
            assert "delay" in (said or "")

    def test_fills_the_column(self, visit: Open, report_page: Path) -> None:
        """A chart is as wide as the text column, on a phone too."""
        for width in (360, 1280):
            page = visit(report_page, width=width).page
            room = page.locator("main").bounding_box()
            assert room
            for chart in page.locator(LIVE).all():
                box = chart.bounding_box()
                assert box
                assert box["width"] == pytest.approx(room["width"], abs=6)

    def test_tooltip(self, visit: Open, report_page: Path) -> None:
        """Pointing at a bar shows the exact numbers."""
        page = visit(report_page).page
        page.locator(f"{LIVE} .mark-rect path").first.hover()
        tooltip = page.locator("#vg-tooltip-element")
        expect(tooltip).to_be_visible()
        expect(tooltip).to_contain_text("ExpressJet Airlines Inc.")
        expect(tooltip).to_contain_text("807,324 minutes")

    def test_chosen(self, visit: Open, report_page: Path) -> None:
        """A click on a bar keeps its line in view and lets the others fade."""
        page = visit(report_page).page
        chart = page.locator(LIVE).filter(has=page.locator(".mark-rect")).first
        lines = chart.locator(".mark-line path")
        assert {line.get_attribute("opacity") for line in lines.all()} <= {None, "1"}
        chart.locator(".mark-rect path").first.click()
        page.mouse.move(0, 0)
        faded = chart.locator(".mark-line path[opacity='0.15']")
        expect(faded).to_have_count(lines.count() - 1)

    def test_resized(self, visit: Open, report_page: Path) -> None:
        """A narrower window gets narrower charts."""
        page = visit(report_page).page
        chart = page.locator(LIVE).first
        page.set_viewport_size({"width": 700, "height": 900})
        expect(chart).to_have_attribute("width", re.compile(r"^6[0-9]{2}"))

    def test_dark(self, visit: Open, report_page: Path) -> None:
        """In the dark, paper, text and bars change colour, without a reload."""
        page = visit(report_page, color_scheme="light").page
        bar = page.locator(f"{LIVE} .mark-rect path").first
        light, paper = bar.get_attribute("fill"), background(page)
        page.emulate_media(color_scheme="dark")
        expect(page.locator(f"{LIVE} .mark-rect path").first).not_to_have_attribute(
            "fill", light or ""
        )
        assert background(page) != paper

    def test_without_scripts(self, visit: Open, report_page: Path) -> None:
        """Without JavaScript the still pictures are there, each with a description."""
        page = visit(report_page, java_script_enabled=False).page
        stills = page.locator("figure.chart img.still")
        assert stills.count() >= 2
        for still in stills.all():
            expect(still).to_be_visible()
            box = still.bounding_box()
            assert box
            assert box["width"] > 300
            assert "delay" in (still.get_attribute("alt") or "")


class TestLayout:
    """The page fits its window and its paper."""

    @pytest.mark.parametrize("width", [360, 768, 1280, 2000])
    def test_width(self, visit: Open, report_page: Path, width: int) -> None:
        """The page never scrolls sideways."""
        assert overflow(visit(report_page, width=width)) == 0

    def test_width_of_hostile_data(self, visit: Open, hostile_page: Path) -> None:
        """Nor do long names and values make it."""
        assert overflow(visit(hostile_page, width=360)) == 0

    def test_contents(self, visit: Open, report_page: Path) -> None:
        """Beside the text, or folded above it on a phone; every entry leads somewhere."""
        wide = visit(report_page).page
        expect(wide.locator("nav.wide")).to_be_visible()
        for link in wide.locator("nav.wide a").all():
            assert wide.locator(f"[id='{(link.get_attribute('href') or '#')[1:]}']").count() == 1
        phone = visit(report_page, width=360).page
        expect(phone.locator("nav.wide")).to_be_hidden()
        phone.get_by_text("Contents", exact=True).click()
        phone.locator("nav.narrow").get_by_role("link", name="Provenance").click()
        expect(phone.locator("#provenance")).to_be_in_viewport()

    def test_code(self, visit: Open, report_page: Path) -> None:
        """Code is folded, a fold opens by itself, and one button opens all."""
        page = visit(report_page).page
        code = page.locator("details.code pre").filter(has_text="load(")
        expect(code).to_be_hidden()
        page.get_by_role("button", name="Show all code").click()
        expect(code).to_be_visible()
        page.get_by_role("button", name="Hide all code").click()
        expect(code).to_be_hidden()

    def test_print(self, visit: Open, report_page: Path, tmp_path: Path) -> None:
        """On paper the still charts stand in for the live ones, and folded code is left out."""
        page = visit(report_page).page
        page.emulate_media(media="print")
        expect(page.locator("figure.chart .live").first).to_be_hidden()
        expect(page.locator("figure.chart img.still").first).to_be_visible()
        expect(page.locator("details.code").first).to_be_hidden()
        page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


class TestHostileData:
    """What comes with the data is text, wherever it appears."""

    def test_nothing_happens(self, visit: Open, hostile_page: Path) -> None:
        """No script of theirs runs, nothing is requested, nothing is complained about."""
        opened = visit(hostile_page)
        assert opened.page.evaluate("window.hacked") is None
        assert opened.requests == [hostile_page.as_uri()]
        assert opened.complaints == []

    def test_shown_as_text(
        self, visit: Open, hostile_page: Path, hostile_names: tuple[str, ...]
    ) -> None:
        """The names can be read in the table, letter by letter."""
        page = visit(hostile_page).page
        for name in hostile_names:
            expect(
                page.locator("main table").get_by_role("rowheader", name=name, exact=True)
            ).to_be_visible()

    def test_tooltip(self, visit: Open, hostile_page: Path) -> None:
        """A tooltip shows a name, it does not obey it."""
        opened = visit(hostile_page)
        for bar in opened.page.locator(f"{LIVE} .mark-rect path").all():
            bar.hover()
            expect(opened.page.locator("#vg-tooltip-element")).to_be_visible()
        assert opened.page.locator("#vg-tooltip-element :is(img, script, svg, a)").count() == 0
        assert opened.page.evaluate("window.hacked") is None
        assert opened.complaints == []


class TestAccessible:
    """The page can be used without eyes and without a mouse."""

    @pytest.mark.parametrize("options", [{}, {"width": 360}, {"color_scheme": "dark"}])
    def test_axe(self, visit: Open, report_page: Path, options: dict) -> None:
        """axe-core finds no violation, serious or not."""
        found = Axe().run(visit(report_page, **options).page)
        assert found.violations_count == 0, found.generate_report()

    def test_keyboard(self, visit: Open, report_page: Path) -> None:
        """The first stop leads past the contents; tables that scroll can be reached."""
        page = visit(report_page).page
        page.keyboard.press("Tab")
        expect(page.locator("a.skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        assert page.locator(".scroller:not([tabindex='0'])").count() == 0

    def test_landmarks(self, visit: Open, report_page: Path) -> None:
        """There is one title, a language, and each landmark once."""
        page = visit(report_page).page
        assert page.locator("html").get_attribute("lang") == "en"
        for landmark in ("banner", "main", "contentinfo", "navigation"):
            expect(page.get_by_role(landmark)).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)


class TestEveryReport:
    """What every report that ships has to be."""

    @pytest.mark.parametrize("name", REPORTS)
    def test_on_a_desk(self, visit: Open, page_of: Callable[[str], Path], name: str) -> None:
        """It asks for nothing, complains of nothing, draws every chart, and axe finds nothing."""
        opened = visit(page_of(name))
        charts = opened.page.locator("figure.chart")
        assert charts.count() >= 1
        expect(opened.page.locator(LIVE)).to_have_count(charts.count())
        for live in opened.page.locator("figure.chart .live").all():
            assert len(live.get_attribute("aria-label") or "") > 40
        found = Axe().run(opened.page)
        assert found.violations_count == 0, found.generate_report()
        assert opened.requests == [page_of(name).as_uri()]
        assert opened.complaints == []

    @pytest.mark.parametrize("name", REPORTS)
    def test_on_a_phone(self, visit: Open, page_of: Callable[[str], Path], name: str) -> None:
        """In the dark, 360 pixels wide: nothing sticks out."""
        opened = visit(page_of(name), width=360, color_scheme="dark")
        assert overflow(opened) == 0

    @pytest.mark.soak
    @pytest.mark.parametrize("name", REPORTS)
    def test_axe_in_the_dark(self, visit: Open, page_of: Callable[[str], Path], name: str) -> None:
        """Nor does axe find anything there."""
        opened = visit(page_of(name), width=360, color_scheme="dark")
        found = Axe().run(opened.page)
        assert found.violations_count == 0, found.generate_report()
