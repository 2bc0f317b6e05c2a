"""A paged JSON API on loopback that misbehaves on purpose, byte by byte.

It speaks HTTP through plain asyncio streams, because a proper server would not send half a body.
Every page comes with all that any style of paging needs: a Link header, and in the body `next`,
`cursor`, `pages` and `total`.

    async with FaultyApi(PAGES, Plan(Misdeed.HALF_BODY, page=2)) as api:
        ...  # ask api.url, look at api.requests
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
BOMB_BYTES = 50_000_000
DRIP_SECONDS = 0.05


class Misdeed(StrEnum):
    """What goes wrong."""

    NOTHING = "nothing"
    REFUSED = "refused"
    RESET = "reset"
    HALF_BODY = "half_body"
    SLOW_DRIP = "slow_drip"
    SILENCE = "silence"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"
    REDIRECT = "redirect"
    BOMB = "bomb"
    WRONG_DIGEST = "wrong_digest"
    DAMAGED_GZIP = "damaged_gzip"
    LOGIN_PAGE = "login_page"
    MISSING = "missing"
    NOT_HTTP = "not_http"


class Framing(StrEnum):
    """How a body says where it ends; `UNSTATED` does not."""

    LENGTH = "length"
    CHUNKED = "chunked"
    DIGEST = "digest"
    GZIP = "gzip"
    UNSTATED = "unstated"


@dataclass(frozen=True)
class Plan:
    """What goes wrong, where, and how often.

    Attributes:
        misdeed: What goes wrong.
        page: The page it happens on, from 1.
        times: How many requests for that page suffer; None for all.
        framing: How every body ends.
        cut: Which share of the body is sent before a reset or a half body ends.
        retry_after: The header of a 429 or 503; empty for none.
        location: Where a redirect leads.
    """

    misdeed: Misdeed = Misdeed.NOTHING
    page: int = 1
    times: int | None = 1
    framing: Framing = Framing.LENGTH
    cut: float = 0.5
    retry_after: str = ""
    location: str = ""


@dataclass(frozen=True)
class Request:
    """One request that arrived."""

    path: str
    page: int
    headers: dict[str, str]


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(BOMB_BYTES), mtime=0)


def _head(status: str, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def framed(body: bytes, framing: Framing) -> tuple[dict[str, str], bytes]:
    """Return the headers and the bytes on the wire for a body."""
    match framing:
        case Framing.LENGTH:
            return {"Content-Length": str(len(body))}, body
        case Framing.CHUNKED:
            return {"Transfer-Encoding": "chunked"}, _chunked(body)
        case Framing.DIGEST:
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            return {"Repr-Digest": f"sha-256=:{digest}:", "Connection": "close"}, body
        case Framing.GZIP:
            headers = {"Content-Encoding": "gzip", "Connection": "close"}
            return headers, gzip.compress(body, mtime=0)
        case Framing.UNSTATED:
            return {"Connection": "close"}, body


@dataclass
class FaultyApi:
    """The server; an asynchronous context manager.

    Attributes:
        pages: The JSON text of each record, page by page.
        plan: What goes wrong.
        requests: What arrived, in order.
        open_connections: How many connections are open now.
        most_at_once: The largest number of requests that were being answered at once.
        hold: If set, each request waits for it before it is answered.
        decorate: May change a good page's headers; gets the page's number and the headers.
        tasks: The server's own, one for each connection.
    """

    pages: list[list[str]]
    plan: Plan = Plan()
    requests: list[Request] = field(default_factory=list)
    open_connections: int = 0
    most_at_once: int = 0
    hold: asyncio.Event | None = None
    decorate: Callable[[int, dict[str, str]], None] | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    _listening: bool = False
    _busy: int = 0
    _left: float = 0
    _refused: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._left = float("inf") if self.plan.times is None else self.plan.times
        self._servers: list[asyncio.Server] = []
        self._holder = self._socket(0)  # keeps the port ours, but never listens
        self.port: int = self._holder.getsockname()[1]
        if not (self.plan.misdeed is Misdeed.REFUSED and self.plan.page == 1):
            await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop_listening()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._pass_rounds()
        self._holder.close()

    @staticmethod
    async def _pass_rounds(rounds: int = 5) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/orders"

    def page_url(self, page: int) -> str:
        return f"{self.url}?page={page}"

    def body(self, page: int) -> bytes:
        """Return the body of a page; beyond the last one it has no records."""
        last = len(self.pages)
        items = self.pages[page - 1] if 0 < page <= last else []
        fields = {
            "total": sum(map(len, self.pages)),
            "pages": last,
            "page": page,
            "more": "true" if page < last else "false",
            "next": f'"{self.page_url(page + 1)}"' if page < last else "null",
            "cursor": f'"{page + 1}"' if page < last else "null",
            "items": f"[{', '.join(items)}]",
        }
        return "".join(
            ["{", ", ".join(f'"{name}": {text}' for name, text in fields.items()), "}"]
        ).encode()

    async def nap(self, _seconds: float) -> None:
        """Sleep like a client that waits before its next try, but hardly at all.

        A port cannot count the connections it refuses; but each of them is followed by a wait.
        """
        if self.plan.misdeed is Misdeed.REFUSED and not self._listening:
            self._refused += 1
            if self._refused >= self._left:
                await self._listen()
        await asyncio.sleep(0.001)

    @staticmethod
    def _socket(port: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((HOST, port))
        return opened

    async def _listen(self) -> None:
        self._listening = True
        opened = await asyncio.start_server(
            self._connected, sock=self._socket(self.port), start_serving=False
        )
        self._servers.append(opened)  # known before anything can be cancelled
        await opened.start_serving()

    async def _stop_listening(self) -> None:
        """Accept no more; close only when what was just accepted has its handler."""
        self._listening = False
        loop = asyncio.get_running_loop()
        for listener in [sock for opened in self._servers for sock in opened.sockets]:
            loop.remove_reader(listener.fileno())
        await self._pass_rounds()
        for opened in self._servers:
            opened.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._answer_one(reader, writer)
        finally:
            self.open_connections -= 1
            writer.transport.abort()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if not first.isalpha():  # the greeting of TLS, for example
            writer.write(_head("400 Bad Request", {"Connection": "close"}))
            await self._finish(writer)
            return
        request = self._parse(first + await reader.readuntil(b"\r\n\r\n"))
        self.requests.append(request)
        self._busy += 1
        self.most_at_once = max(self.most_at_once, self._busy)
        try:
            if self.hold is not None:
                await self.hold.wait()
            await self._reply(request, writer)
        finally:
            self._busy -= 1

    @staticmethod
    def _parse(head: bytes) -> Request:
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        target = first.split(" ")[1]
        query = parse_qs(urlsplit(target).query)
        page = query.get("page") or query.get("cursor") or ["1"]
        pairs = (line.split(": ", 1) for line in lines)
        return Request(target, int(page[0]), {name.lower(): value for name, value in pairs})

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> None:
        plan = self.plan
        on_this_page = request.page == plan.page and plan.misdeed is not Misdeed.REFUSED
        if on_this_page and plan.misdeed is not Misdeed.NOTHING and self._left > 0:
            self._left -= 1
            await self._misbehave(request, writer)
            return
        await self._send_page(request.page, writer)

    async def _send_page(self, page: int, writer: asyncio.StreamWriter) -> None:
        headers, wire = framed(self.body(page), self.plan.framing)
        headers |= {"Content-Type": "application/json"}
        if page < len(self.pages):
            headers["Link"] = f'<{self.page_url(page + 1)}>; rel="next", </>; rel=start'
        if self.decorate is not None:
            self.decorate(page, headers)
        closes_now = self.plan.misdeed is Misdeed.REFUSED and page == self.plan.page - 1
        if closes_now and self._refused < self._left:
            headers["Connection"] = "close"
            await self._stop_listening()
        writer.write(_head("200 OK", headers) + wire)
        await writer.drain()
        if headers.get("Connection") == "close":
            await self._finish(writer)

    @staticmethod
    async def _finish(writer: asyncio.StreamWriter) -> None:
        """Close after everything has been sent."""
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _misbehave(self, request: Request, writer: asyncio.StreamWriter) -> None:
        page = request.page
        match self.plan.misdeed:
            case Misdeed.RESET:
                writer.write(self._part(page))
                await writer.drain()
                linger = struct.pack("ii", 1, 0)
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            case Misdeed.HALF_BODY:
                writer.write(self._part(page))
                await self._finish(writer)
            case Misdeed.SLOW_DRIP:
                await self._drip(page, writer)
            case Misdeed.SILENCE:
                await asyncio.Event().wait()
            case Misdeed.TOO_MANY:
                await self._empty("429 Too Many Requests", writer)
            case Misdeed.UNAVAILABLE:
                await self._empty("503 Service Unavailable", writer)
            case Misdeed.MISSING:
                await self._empty("404 Not Found", writer)
            case Misdeed.REDIRECT:
                headers = {"Location": self.plan.location, "Content-Length": "0"}
                writer.write(_head("302 Found", headers))
                await writer.drain()
            case other:
                await self._send_nonsense(other, page, writer)

    async def _send_nonsense(
        self, misdeed: Misdeed, page: int, writer: asyncio.StreamWriter
    ) -> None:
        headers, wire = framed(self.body(page), Framing.LENGTH)
        match misdeed:
            case Misdeed.BOMB:
                headers = {"Content-Encoding": "gzip", "Content-Length": str(len(_bomb()))}
                wire = _bomb()
            case Misdeed.WRONG_DIGEST:
                headers["Content-MD5"] = base64.b64encode(bytes(16)).decode()
            case Misdeed.DAMAGED_GZIP:
                wire = bytearray(gzip.compress(wire, mtime=0))
                wire[len(wire) // 2] ^= 0xFF
                headers = {"Content-Encoding": "gzip", "Content-Length": str(len(wire))}
            case Misdeed.LOGIN_PAGE:
                wire = b"<!doctype html><title>Please sign in</title>"
                headers = {"Content-Type": "text/html", "Content-Length": str(len(wire))}
            case Misdeed.NOT_HTTP:
                writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
                await self._finish(writer)
                return
        writer.write(_head("200 OK", headers) + bytes(wire))
        await writer.drain()

    def _part(self, page: int) -> bytes:
        headers, wire = framed(self.body(page), self.plan.framing)
        end = min(len(wire) - 1, int(len(wire) * self.plan.cut))
        return _head("200 OK", headers) + wire[:end]

    async def _drip(self, page: int, writer: asyncio.StreamWriter) -> None:
        headers, wire = framed(self.body(page), self.plan.framing)
        writer.write(_head("200 OK", headers))
        for place in range(len(wire) - 1):
            writer.write(wire[place : place + 1])
            await writer.drain()
            await asyncio.sleep(DRIP_SECONDS)
        await asyncio.Event().wait()

    async def _empty(self, status: str, writer: asyncio.StreamWriter) -> None:
        headers = {"Content-Length": "0"}
        if self.plan.retry_after:
            headers["Retry-After"] = self.plan.retry_after
        writer.write(_head(status, headers))
        await writer.drain()
