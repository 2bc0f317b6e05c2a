"""Measure the service: POST /process beside a bare FastAPI route, latency, overload, connections.

    python bench/bench_service.py [--seconds 60]

The bare route takes the same body and counts it with a Counter; it has no checks, no limits and no
log. Both run in processes of their own, one after the other in short turns, and the client in a
third: on a machine with few processors all three share them. Both stand on the same HTTP parser
(h11), and the same client, of bare sockets, asks both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from itertools import pairwise
from typing import NamedTuple

import psutil

TOKEN = "b" * 32
ITEMS = [f"label {number % 50}" for number in range(1000)]
BODY = {"data": ITEMS, "config": {"batch_size": 100}}
CONNECTIONS = 16
MOST_CONNECTIONS = 1000
TURNS = 5
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
uvicorn.run(app, port=int(sys.argv[1]), http="h11", log_level="warning", access_log=False)
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


class Cost(NamedTuple):
    """Requests a second, and the processors' time that the server took for each."""

    rate: float
    microseconds: float


class Line(asyncio.Protocol):
    """A connection that sends ready-made bytes, so that the client costs less than the server."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note how to write."""
        self._transport = transport  # type: ignore[assignment]

    async def ask(self, message: bytes) -> int:
        """Send a request; return the status of its answer, and 0 if there was none."""
        self._answer, self._got = asyncio.get_running_loop().create_future(), b""
        if self._transport is None or self._transport.is_closing():
            return 0
        self._transport.write(message)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Gather an answer until it has the length that it promised."""
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
            self._settle(int(head[9:12]))
            if b"connection: close" in head.lower():
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        """Give up on an answer that will not come."""
        self._settle(0)

    def _settle(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def message_to(address: str) -> bytes:
    """Return POST /process with 1,000 items, as it goes over the wire."""
    body = json.dumps(BODY).encode()
    head = (
        f"POST /process HTTP/1.1\r\nHost: {address.removeprefix('http://')}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(address: str) -> Line:
    """Open a connection."""
    host, port = address.removeprefix("http://").split(":")
    _, line = await asyncio.get_running_loop().create_connection(Line, host, int(port))
    return line


async def wait_for(address: str) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            line = await connect(address)
            status = await line.ask(message_to(address))
            line.close()
        except OSError:
            status = 0
        if status == HTTPStatus.OK:
            return
        await asyncio.sleep(0.1)
    sys.exit(f"{address} does not answer")


async def closed(address: str, seconds: float) -> int:
    """Return how many requests some callers make who each wait for their answer."""
    message, end, done = message_to(address), time.perf_counter() + seconds, 0

    async def caller() -> None:
        nonlocal done
        line = await connect(address)
        while time.perf_counter() < end:
            status = await line.ask(message)
            if status != HTTPStatus.OK:
                sys.exit(f"{address} answered with {status} below its capacity")
            done += 1
        line.close()

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return done


async def paced(
    address: str, rate: float, seconds: float, *, even: bool = True
) -> tuple[list[float], Counter[int]]:
    """Send so many requests a second, whether or not they are answered; return times, statuses.

    A time begins when the request was due, so a client that is late does not flatter the server.
    """
    message, idle = message_to(address), list[Line]()
    times: list[float] = []
    seen: Counter[int] = Counter()
    room = asyncio.Semaphore(MOST_CONNECTIONS)
    chance = random.Random(1)  # noqa: S311 (arrivals, not secrets)

    async def ask(due: float) -> None:
        async with room:
            while idle and not idle[-1].is_open:
                idle.pop()
            line = idle.pop() if idle else await connect(address)
            status = await line.ask(message)
            seen[status] += 1
            if status == HTTPStatus.OK:
                times.append(time.perf_counter() - due)
            idle.append(line)

    async with asyncio.TaskGroup() as group:
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            group.create_task(ask(due))
            due += 1 / rate if even else chance.expovariate(rate)
    for line in idle:
        line.close()
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
    line = await connect(address)
    await line.ask(message_to(address))
    line.close()
    taken = time.perf_counter() - began
    for _, writer in lines:
        writer.close()
    return alive, taken


def processor(process: psutil.Process) -> float:
    """Return the processors' time that a process has taken, in seconds."""
    taken = process.cpu_times()
    return float(taken.user + taken.system)


async def compare(servers: Mapping[str, tuple[str, psutil.Process]]) -> dict[str, list[Cost]]:
    """Let both serve in turns of 2 s; return for each turn requests a second, and their cost."""
    costs: dict[str, list[Cost]] = {name: [] for name in servers}
    for _ in range(TURNS):
        for name, (address, process) in servers.items():
            busy = processor(process)
            done = await closed(address, 2)
            costs[name].append(Cost(done / 2, (processor(process) - busy) / done * 1e6))
    return costs


async def show_latency(name: str, address: str, rate: float) -> None:
    """Print what a caller waits for at a load that can be borne.

    The bare route's times tell how much of the tail is the machine's: whoever else wants its
    processors stops both servers alike.
    """
    for even, when in ((True, "evenly spaced"), (False, "at random moments")):
        times, seen = await paced(address, rate, 10, even=even)
        median, late = at(times, 0.5), at(times, 0.99)
        print(
            f"{name} at 80 % load, {when}: p50 {median:.1f} ms, p99 {late:.1f} ms, "
            f"{late / median:.1f} x; statuses {dict(seen)}"
        )


async def show_overload(address: str, process: psutil.Process, rate: float, seconds: float) -> None:
    """Print what twice the capacity does, and whether memory grows once it has been through it.

    Memory is compared with that after an equal load: what grows only the first time is kept for
    the next, and is no leak.
    """
    sizes, found = [process.memory_info().rss], ""
    for _ in range(2):
        times, seen = await paced(address, rate, seconds)
        await asyncio.sleep(6)  # longer than an idle connection is kept
        sizes.append(process.memory_info().rss)
        found = f"statuses {dict(seen)}, p99 of those served {at(times, 0.99):.0f} ms"
    first, again = ((new - old) / 2**20 for old, new in pairwise(sizes))
    print(
        f"{seconds:g} s at twice capacity: {found}; memory {first:+.1f} MiB the first time, "
        f"{again:+.1f} MiB the second"
    )


async def measure(servers: Mapping[str, tuple[str, psutil.Process]], seconds: float) -> None:
    """Print every figure."""
    for address, _ in servers.values():
        await wait_for(address)
        await closed(address, 1)
    costs = await compare(servers)
    ratio = statistics.median(
        mine.rate / other.rate for other, mine in zip(costs["bare"], costs["ours"], strict=True)
    )
    rates = {name: statistics.median(cost.rate for cost in all_) for name, all_ in costs.items()}
    used = {
        name: statistics.median(cost.microseconds for cost in all_) for name, all_ in costs.items()
    }
    print(
        f"/process, 1,000 items: {rates['ours']:.0f} a second, {ratio:.2f} x a bare route; "
        f"processor {used['ours']:.0f} and {used['bare']:.0f} us a request, "
        f"{used['bare'] / used['ours']:.2f} x"
    )
    for name, (address, _) in servers.items():
        await show_latency(name, address, 0.8 * rates[name])
    ours, process = servers["ours"]
    await show_overload(ours, process, 2 * rates["ours"], seconds)
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
        server(BARE, "PORT", folder=a) as bare,
        server(OURS, "serve", "--no-workers", "--port", "PORT", folder=b) as ours,
    ):
        asyncio.run(measure({"bare": bare, "ours": ours}, asked.seconds))


if __name__ == "__main__":
    main()
