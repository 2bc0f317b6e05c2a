"""Two runs of the real report compared, and the page about it in Chromium."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tallybook.compare import Comparison, compare_runs, comparison_lines
from tallybook.compare_page import write_comparison
from tallybook.reports import run_report

pytestmark = pytest.mark.usefixtures("warm_kernels")

HOSTILE = '"><img src=x onerror="window.hacked = 1">'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """The main report on two files: one category went, one came, one moved."""
    folder = tmp_path_factory.mktemp("compare")
    rows = {"one": {"Rome": 5, "Oslo": 7}, "two": {"Rome": 9, HOSTILE: 2}}
    made = []
    for name, amounts in rows.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["timestamp", "category", "amount"])
            for month in (1, 2, 3):
                for city, amount in amounts.items():
                    writer.writerow([f"2026-0{month}-01T00:00:00Z", city, amount * month])
        run = run_report(
            "category_totals", {"source": str(folder / f"{name}.csv")}, runs_dir=folder / "runs"
        )
        assert run.folder
        made.append(run.folder)
    return compare_runs(*made)


@pytest.fixture(scope="module")
def written(found: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about them."""
    return write_comparison(found, tmp_path_factory.mktemp("page") / "diff.html")


@pytest.fixture
def opened(written: Path, browser: Browser) -> Iterator[Page]:
    """The page in a browser without a network; what it asks for or complains about fails a test."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    told: list[str] = []
    page.on("request", lambda request: told.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(written.as_uri())
    page.wait_for_selector("html[data-charts=ready]")
    yield page
    assert told == [written.as_uri()]
    assert page.evaluate("window.hacked") is None
    context.close()


class TestFound:
    """What the comparison says."""

    def test_against_the_tables(self, found: Comparison) -> None:
        """Every change that is told is the difference of two numbers in the files."""
        before, after = (
            {
                row["category"]: row
                for row in pl.read_parquet(run.folder / "tables/totals.parquet").to_dicts()
            }
            for run in (found.a, found.b)
        )
        [totals] = [table for table in found.tables if table.name == "totals"]
        assert (totals.came, totals.went) == ((HOSTILE,), ("Oslo",))
        [moved] = [cell for cell in totals.cells if cell.change.name == "total_amount"]
        difference = after["Rome"]["total_amount"] - before["Rome"]["total_amount"]
        assert (moved.key, moved.change.absolute) == ("Rome", difference)
        values = {change.name: change.absolute for change in found.values}
        assert values["total_amount"] == -6

    def test_lines(self, found: Comparison) -> None:
        """The terminal's lines name inputs, values, keys and charts."""
        lines = "\n".join(comparison_lines(found))
        for said in ("source:", "went: Oslo", "total_amount: 72 → 66", "whole_over_time: changed"):
            assert said in lines


class TestPage:
    """What is seen."""

    def test_slider(self, opened: Page) -> None:
        """Two charts lie over each other; keys move the slider, and a button blinks."""
        pair = opened.locator(".overlay").first
        slider = pair.get_by_role("slider", name="First run")
        first, second = pair.locator(".side").all()
        slider.focus()
        slider.press("Home")
        expect(first).to_have_css("opacity", "1")
        expect(second).to_have_css("opacity", "0")
        expect(slider).to_have_attribute(
            "aria-valuetext", "100 percent first run, 0 percent second run"
        )
        blink = pair.get_by_role("button", name="Blink")
        blink.press("Enter")
        expect(first).to_have_css("opacity", "0")
        expect(second).to_have_css("opacity", "1")
        boxes = first.bounding_box(), second.bounding_box()
        assert boxes[0]
        assert boxes[1]
        assert (boxes[0]["x"], boxes[0]["width"]) == (boxes[1]["x"], boxes[1]["width"])
        pair.get_by_role("button", name="Side by side").click()
        expect(slider).to_be_disabled()
        expect(first).to_have_css("opacity", "1")

    def test_different_sizes_begin_side_by_side(
        self, found: Comparison, tmp_path: Path, browser: Browser
    ) -> None:
        """Rows that do not stand at the same heights cannot be read over each other."""
        text = write_comparison(found, tmp_path / "page.html").read_text("utf-8")
        apart = tmp_path / "apart.html"
        apart.write_text(text.replace('class="overlay" role', 'class="overlay" data-apart role'))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(apart.as_uri())
        pair = page.locator(".overlay").first
        stack = pair.get_by_role("button", name="Side by side")
        expect(stack).to_have_attribute("aria-pressed", "true")
        expect(pair.get_by_role("slider")).to_be_disabled()
        stack.click()
        expect(pair.get_by_role("slider")).to_be_enabled()
        expect(pair.locator(".overlay-key p")).to_have_count(2)
        page.close()

    def test_accessible(self, opened: Page) -> None:
        """Nothing serious, wide, or on a phone in the dark; it never scrolls sideways."""
        for width, scheme in ((1280, "light"), (360, "dark")):
            opened.set_viewport_size({"width": width, "height": 900})
            opened.emulate_media(color_scheme=scheme)
            violations = Axe().run(opened).response["violations"]
            assert [
                one["id"] for one in violations if one["impact"] in ("serious", "critical")
            ] == []
            overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert opened.evaluate(overflow) == 0

    def test_in_words(self, opened: Page, found: Comparison) -> None:
        """Every picture says what it shows, and names of the data are text."""
        for picture in opened.locator(".side img").all():
            assert len(picture.get_attribute("alt") or "") > 20
        expect(opened.get_by_text(HOSTILE, exact=True).first).to_be_visible()

    def test_without_scripts(self, written: Path, browser: Browser) -> None:
        """Without JavaScript the charts stand side by side."""
        context = browser.new_context(
            java_script_enabled=False, viewport={"width": 1280, "height": 900}
        )
        page = context.new_page()
        page.goto(written.as_uri())
        first, second = page.locator(".overlay").first.locator(".side").all()
        expect(first).to_be_visible()
        boxes = first.bounding_box(), second.bounding_box()
        assert boxes[0]
        assert boxes[1]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        expect(page.locator(".overlay-controls")).to_have_count(0)
        context.close()

    def test_manifests_are_untouched(self, found: Comparison) -> None:
        """A comparison only reads."""
        for run in (found.a, found.b):
            assert json.loads((run.folder / "manifest.json").read_text()) == run.manifest
