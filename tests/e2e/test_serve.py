"""`tallybook serve` as its user starts it, with its workers: used, stopped, killed."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx2
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tests.support.service import BOUND, TOKENS, Service, serve

from tallybook.access import Scope

QUICK = "from tallybook.publish import record\nrecord('twice', 2 * count)"
SLOW = """from pathlib import Path
import time
while not Path({folder!r}, "go-on").exists():
    time.sleep(0.01)"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two small reports: one ends at once, the other when a file is there."""
    works = {"counting": QUICK, "patient": SLOW.format(folder=str(tmp_path))}
    for name, work in works.items():
        path = tmp_path / "reports" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        made = [new_markdown_cell("# A small report")]
        given = {"tags": ["parameters"]}
        made.append(new_code_cell("count: int = 1  # how many", metadata=given))
        made.append(new_code_cell(work))
        nbformat.write(new_notebook(cells=made), path)
    return tmp_path


def until_ended(service: Service, number: int) -> dict[str, Any]:
    """Follow a run to its end; return what is told of it then."""
    with service.client.stream("GET", f"/runs/{number}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: ") and (told := json.loads(line[6:]))["ended"]:
                return told
    raise AssertionError(service.log.read_text())


def ask(service: Service, report: str, **parameters: Any) -> int:
    """Ask for a run; return its number."""
    asked = service.client.post(f"/reports/{report}/runs", json={"parameters": parameters})
    assert asked.status_code == 202, asked.text
    return int(asked.json()["id"])


def is_running(service: Service, number: int) -> bool:
    """Whether somebody works on a run."""
    return bool(service.client.get(f"/runs/{number}").json()["state"] == "running")


def fields_of(html: str) -> dict[str, str]:
    """The hidden fields of a page's last form."""
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', html))


def test_from_the_form_to_the_page(tmp_path: Path) -> None:
    """Sign in, send the form of the main report, follow it, read its page; TERM ends it all."""
    with serve(tmp_path) as service:
        same = {"Sec-Fetch-Site": "same-origin"}
        with httpx2.Client(base_url=service.address, headers=same, timeout=BOUND) as browser:
            token = TOKENS[Scope.ADMIN]
            entered = browser.post("/sign-in", data={"token": token, "next": "/"})
            assert (entered.status_code, entered.headers["location"]) == (303, "/")
            form = browser.get("/pages/reports/category_totals").text
            sent = {**fields_of(form), "p-top": "3"}
            asked = browser.post("/pages/reports/category_totals/run", data=sent)
            assert asked.headers["location"] == "/pages/runs/1"
            assert until_ended(service, 1)["state"] == "ok"
            assert "Open the report" in browser.get("/pages/runs/1").text
            page = browser.get("/runs/1/page")
        assert "Totals by category" in page.text
        assert page.headers["content-security-policy"].startswith("sandbox")
        family = service.children()
        assert len(family) > 1
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(BOUND) == 0, service.log.read_text()
        assert psutil.wait_procs(family, timeout=BOUND)[1] == []
        said = service.log.read_text()
    assert "runs that ended here: 1 ok\nstopped\n" in said
    assert token not in said


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
)
def test_stops_after_its_runs(place: Path, number: signal.Signals) -> None:
    """A run at work is finished first, at TERM and at Ctrl-C, which a terminal sends to both."""
    with serve(place, TALLYBOOK_REPORTS_DIR=str(place / "reports")) as service:
        run = ask(service, "patient")
        service.until(lambda: is_running(service, run))
        met = [psutil.Process(service.process.pid), service.workers()]
        for process in met if number is signal.SIGINT else met[:1]:
            process.send_signal(number)
        service.until(lambda: "stopping: 1 runs" in service.log.read_text())
        (place / "go-on").touch()
        assert service.process.wait(BOUND) == 0, service.log.read_text()
        assert "runs that ended here: 1 ok" in service.log.read_text()


def test_workers_die(place: Path) -> None:
    """When its workers are killed others take their place, and what waits is done."""
    with serve(place, TALLYBOOK_REPORTS_DIR=str(place / "reports")) as service:
        service.until(lambda: bool(psutil.Process(service.process.pid).children()))
        dead = service.workers()
        dead.kill()
        assert until_ended(service, ask(service, "counting", count=4))["state"] == "ok"
        assert service.workers().pid != dead.pid
        assert "the workers have ended with code -9" in service.log.read_text()


def test_service_dies(place: Path) -> None:
    """When the service is killed its workers and their kernels go as well."""
    with serve(place, TALLYBOOK_REPORTS_DIR=str(place / "reports")) as service:
        until_ended(service, ask(service, "counting"))
        family = service.children()
        os.kill(service.process.pid, signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=BOUND)[1] == []
