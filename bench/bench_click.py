"""Measure from click to page: a form is sent as a browser sends it, until the report is served.

    python bench/bench_click.py [--times 5]

`tallybook serve` runs as a user starts it, with its workers and their warm kernels. Each time
another number of categories is asked for, so that nothing can be answered with an earlier run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

REPORT = "category_totals"
TOKEN = "c" * 32
SERVE = "from tallybook.cli import main; main()"
HIDDEN = re.compile(r'type="hidden" name="([^"]+)" value="([^"]*)"')
PATIENCE_SECONDS = 120


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Run the service in a folder; give its address."""
    log = folder / "log"
    env = {**os.environ, "TALLYBOOK_SERVICE__TOKEN": TOKEN}
    with log.open("w") as file:
        command = [sys.executable, "-c", SERVE, "serve", "--port", "0"]
        child = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=file)
    try:
        yield address_in(log)
    finally:
        child.terminate()
        child.wait(PATIENCE_SECONDS)


def address_in(log: Path) -> str:
    """Wait until the service has said where it is."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found.group()
        time.sleep(0.05)
    sys.exit(f"the service did not start:\n{log.read_text()}")


async def until_ended(browser: aiohttp.ClientSession, run: str) -> dict[str, Any]:
    """Follow the events of a run to its end; return what is told of it then."""
    async with browser.get(f"/runs/{run}/events") as events:
        async for line in events.content:
            if line.startswith(b"data:"):
                told: dict[str, Any] = json.loads(line.removeprefix(b"data:"))
                if told["ended"]:
                    return told
    sys.exit(f"the events of run {run} broke off")


async def click(browser: aiohttp.ClientSession, top: int) -> tuple[float, float]:
    """Run the report from its form.

    Returns:
        After how many seconds its page had arrived, and how many of them the run itself took.
    """
    async with browser.get(f"/pages/reports/{REPORT}") as form:
        fields = dict(HIDDEN.findall(await form.text()))
    began = time.perf_counter()
    sent = {**fields, "p-top": str(top)}
    async with browser.post(f"/pages/reports/{REPORT}/run", data=sent) as page:
        run = page.url.name
        page.raise_for_status()
    told = await until_ended(browser, run)
    if told["state"] != "ok":
        sys.exit(f"run {run} is {told['state']}: {told['reason']}")
    start, end = (datetime.fromisoformat(told[name]) for name in ("started_at", "finished_at"))
    async with browser.get(f"/pages/runs/{run}") as page, browser.get(f"/runs/{run}/page") as shown:
        await page.read()
        await shown.read()
        shown.raise_for_status()
    return time.perf_counter() - began, (end - start).total_seconds()


async def measure(address: str, times: int) -> None:
    """Sign in, warm the kernels up, and print the median."""
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    jar = aiohttp.CookieJar(unsafe=True)  # it is at a number, not a name
    async with aiohttp.ClientSession(address, headers=headers, cookie_jar=jar) as browser:
        async with browser.post("/sign-in", data={"token": TOKEN, "next": "/"}) as page:
            page.raise_for_status()
        first, _ = await click(browser, 2)
        taken = []
        for number in range(times):
            await asyncio.sleep(5)  # a reader looks at a page before the next click
            taken.append(await click(browser, 3 + number))
    whole = statistics.median(seconds for seconds, _ in taken)
    besides = statistics.median(seconds - run for seconds, run in taken)
    each = ", ".join(f"{seconds:.2f}" for seconds, _ in taken)
    print(f"click to page: {whole:.2f} s, {besides:.2f} s of them outside the run ({each})")
    print(f"the first click, on kernels that are not warm yet: {first:.2f} s")


def main() -> None:
    """Start the service and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="how often")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as address:
        asyncio.run(measure(address, asked.times))


if __name__ == "__main__":
    main()
