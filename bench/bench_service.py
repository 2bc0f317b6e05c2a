"""Measure the service: POST /process beside a bare FastAPI route, latency, overload, connections.

    python bench/bench_service.py [--seconds 60]

The bare route takes the same body and counts it with a Counter; it has no checks, no limits and no
log. Both run in processes of their own, one after the other in short turns, and the client in a
third: on a machine with few processors all three share them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import psutil

TOKEN = "b" * 32
ITEMS = [f"label {number % 50}" for number in range(1000)]
BODY = {"data": ITEMS, "config": {"batch_size": 100}}
CONNECTIONS = 16
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
BARE = """
import sys
from collections import Counter
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

class Body(BaseModel):
    data: list[str]
    config: dict[str, int] = {}

app = FastAPI()

@app.post("/process")
async def process(body: Body) -> dict[str, int]:
    return dict(Counter(body.data))

print("ready", flush=True)
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""
OURS = "from tallybook.cli import main; main()"


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(*command: str, folder: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server; give its address and its process."""
    port = free_port()
    filled = [part.replace("PORT", str(port)) for part in command]
    with open(f"{folder}/log", "w") as log:  # noqa: PTH123
        child = subprocess.Popen(
            [sys.executable, "-c", *filled],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "TALLYBOOK_SERVICE__TOKEN": TOKEN,
                "TALLYBOOK_SERVICE__REQUESTS_PER_SECOND": "100000",
            },
        )
        try:
            yield f"http://127.0.0.1:{port}", psutil.Process(child.pid)
        finally:
            child.terminate()
            child.wait(60)


@asynccontextmanager
async def session(connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client with so many connections."""
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as client:
        yield client


async def wait_for(address: str) -> None:
    """Wait until a server answers."""
    async with session(1) as client:
        for _ in range(600):
            try:
                async with client.post(f"{address}/process", json={"data": []}):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
    sys.exit(f"{address} does not answer")


async def closed(address: str, seconds: float) -> float:
    """Return the requests a second of some callers, each of whom waits for its answer."""
    done, end = 0, time.perf_counter() + seconds

    async def caller(client: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < end:
            async with client.post(f"{address}/process", json=BODY) as answer:
                await answer.read()
                answer.raise_for_status()
                done += 1

    async with session(CONNECTIONS) as client:
        await asyncio.gather(*(caller(client) for _ in range(CONNECTIONS)))
    return done / seconds


async def paced(address: str, rate: float, seconds: float) -> tuple[list[float], Counter[int]]:
    """Send so many requests a second, whether or not they are answered; return times, statuses."""
    times: list[float] = []
    seen: Counter[int] = Counter()

    async def ask(client: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        try:
            async with client.post(f"{address}/process", json=BODY) as answer:
                await answer.read()
                seen[answer.status] += 1
                if answer.ok:
                    times.append(time.perf_counter() - began)
        except (aiohttp.ClientError, TimeoutError):
            seen[0] += 1

    async with session(1000) as client, asyncio.TaskGroup() as group:
        start, sent = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            while sent < passed * rate:
                group.create_task(ask(client))
                sent += 1
            await asyncio.sleep(1 / rate)
    return sorted(times), seen


def at(times: list[float], share: float) -> float:
    """Return the time within which that share of requests was answered, in milliseconds."""
    return times[min(len(times) - 1, int(share * len(times)))] * 1000


async def hold_open(address: str, count: int) -> tuple[int, float]:
    """Open so many connections at once; return how many are, and how long an answer takes then."""
    host, port = address.removeprefix("http://").split(":")
    head = f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    lines = []
    for start in range(0, count, 200):
        opened = (
            asyncio.open_connection(host, int(port)) for _ in range(start, min(start + 200, count))
        )
        lines += await asyncio.gather(*opened)
    for _, writer in lines:
        writer.write(head)
    answers = await asyncio.gather(
        *(reader.read(12) for reader, _ in lines), return_exceptions=True
    )
    alive = sum(answer in {b"HTTP/1.1 200", b"HTTP/1.1 503"} for answer in answers)
    began = time.perf_counter()
    async with session(1) as client, client.post(f"{address}/process", json=BODY) as answer:
        await answer.read()
    taken = time.perf_counter() - began
    for _, writer in lines:
        writer.close()
    return alive, taken


async def measure(bare: str, ours: str, process: psutil.Process, seconds: float) -> None:
    """Print every figure."""
    for address in (bare, ours):
        await wait_for(address)
        await closed(address, 1)
    turns = [(await closed(bare, 2), await closed(ours, 2)) for _ in range(5)]
    ratio = statistics.median(mine / other for other, mine in turns)
    capacity = statistics.median(mine for _, mine in turns)
    print(f"/process, 1,000 items: {capacity:.0f} a second, {ratio:.2f} x a bare route")
    times, seen = await paced(ours, 0.8 * capacity, 10)
    print(
        f"at 80 % load: p50 {at(times, 0.5):.1f} ms, p99 {at(times, 0.99):.1f} ms, "
        f"{at(times, 0.99) / at(times, 0.5):.1f} x; statuses {dict(seen)}"
    )
    before = process.memory_info().rss
    times, seen = await paced(ours, 2 * capacity, seconds)
    await asyncio.sleep(5)
    grown = (process.memory_info().rss - before) / 2**20
    print(
        f"{seconds:g} s at twice capacity: statuses {dict(seen)}, p99 of those served "
        f"{at(times, 0.99):.0f} ms, memory {grown:+.1f} MiB"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    alive, taken = await hold_open(ours, count)
    print(f"{count:,} connections: {alive:,} answered; a request then takes {taken * 1000:.0f} ms")


def main() -> None:
    """Start both servers and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long twice the capacity")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as a,
        tempfile.TemporaryDirectory() as b,
        server(BARE, "PORT", folder=a) as (bare, _),
        server(OURS, "serve", "--no-workers", "--port", "PORT", folder=b) as (ours, process),
    ):
        asyncio.run(measure(bare, ours, process, asked.seconds))


if __name__ == "__main__":
    main()
