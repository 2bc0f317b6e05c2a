"""Report pages made by the real runner, and visits to them with the network off."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tallybook.reports import run_report

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    '"><img src=x onerror="window.hacked = 3">',
    "<!-- <svg onload=window.hacked=4>",
    "![pixel](https://example.org/pixel.png) [link](javascript:window.hacked=5)",
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 6} `*_|",
)


def _report(runs: Path, parameters: dict[str, Any], name: str = "category_totals") -> Path:
    """Run a report and return its page."""
    run_report(name, parameters, runs_dir=runs)
    (page,) = (runs / name).rglob("report.html")
    return page


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """Categories that would like to be code."""
    return HOSTILE


@pytest.fixture(scope="session")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main report on the sample."""
    return _report(tmp_path_factory.mktemp("runs"), {})


@pytest.fixture(scope="session")
def page_of(report_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Any report on the sample, run when it is first asked for; the main one's run is known."""
    runs = report_page.parents[2]

    @cache
    def run(name: str) -> Path:
        if name == "category_totals":
            return report_page
        about_runs = {"runs_dir": str(runs)} if name == "run_health" else {}
        return _report(tmp_path_factory.mktemp("every"), about_runs, name)

    return run


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main report on data, and with parameters, that would like to be code."""
    folder = tmp_path_factory.mktemp("hostile")
    source = folder / "hostile.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "category", "amount"])
        writer.writerows(
            [f"2013-0{month}-01T00:00:00Z", category, month * number]
            for month in (1, 2, 3)
            for number, category in enumerate(HOSTILE, start=2)
        )
        writer.writerow(["2013-01-01T00:00:00Z", "plain", HOSTILE[2]])
    return _report(
        folder / "runs", {"source": str(source), "unit": HOSTILE[0], "measure": HOSTILE[1]}
    )


@dataclass
class Visit:
    """A page that was opened, what it asked the network for, and what it complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open a file in a browser that has no network, and wait until its charts are drawn."""
    contexts = []

    def open_file(path: Path, *, width: int = 1280, **options: Any) -> Visit:
        window = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=window, offline=True, **options))
        made = Visit(contexts[-1].new_page())
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.on("console", lambda message: _listen(made, message))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("dialog", lambda dialog: made.complaints.append(dialog.message))
        made.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            made.page.wait_for_selector("html[data-charts=ready]")
        return made

    yield open_file
    for context in contexts:
        context.close()


def _listen(made: Visit, message: ConsoleMessage) -> None:
    if message.type in ("error", "warning"):
        made.complaints.append(message.text)
