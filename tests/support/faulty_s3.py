"""A real S3 API on loopback (moto) behind a proxy that misbehaves on purpose.

Lists come in pages of two names.

with FaultyS3() as s3:
    s3.reset()
    s3.put("in/a.csv", b"...")
    s3.plan = Plan(Misdeed.CUT_OFF, times=2)
    ...  # read s3://shop/in/a.csv with s3.config, look at s3.requests
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import quote

from moto.server import ThreadedMotoServer

from tallybook.config import StorageConfig

HOST = "127.0.0.1"
BUCKET = "shop"
SECRET = "hunter2hunter2hunter2"  # noqa: S105
_SIGNED = {  # moto reads who signed, and does not check the signature
    "Authorization": "AWS4-HMAC-SHA256 Credential=ada/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
_KEPT = ("content-type", "etag", "last-modified", "content-range", "accept-ranges")


class Misdeed(StrEnum):
    """What goes wrong with requests for an object's bytes, or for a list."""

    NOTHING = "nothing"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    SLOW = "slow"
    CUT_OFF = "cut_off"
    SHORT = "short"
    REFUSED_TOKEN = "refused_token"  # noqa: S105
    NOT_S3 = "not_s3"


@dataclass(frozen=True)
class Plan:
    """What goes wrong, how often, and in which of those requests first.

    Attributes:
        misdeed: What goes wrong.
        times: How many requests suffer; None for all.
        after: How many are answered properly before.
    """

    misdeed: Misdeed = Misdeed.NOTHING
    times: int | None = 1
    after: int = 0


@dataclass
class FaultyS3:
    """The server; a context manager.

    Attributes:
        plan: What goes wrong.
        requests: The method and path of what was asked, in order.
        on_get: Called with the number of each request for an object's bytes, before its answer.
    """

    plan: Plan = Plan()
    requests: list[tuple[str, str]] = field(default_factory=list)
    on_get: Callable[[int], None] | None = None
    _reads: int = 0

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
        self._moto.start()
        self._upstream: tuple[str, int] = self._moto.get_host_and_port()
        handler = type("Handler", (_Handler,), {"world": self})
        self._proxy = ThreadingHTTPServer((HOST, 0), handler)
        self._proxy.daemon_threads = True
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._proxy.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gone.set()
        self._proxy.shutdown()
        self._thread.join()
        self._proxy.server_close()
        self._moto.stop()

    @property
    def config(self) -> StorageConfig:
        """Settings that reach this server, and give up soon."""
        return StorageConfig(
            endpoint=f"http://{HOST}:{self._proxy.server_port}",
            region="us-east-1",
            access_key_id="ada",
            secret_access_key=SECRET,
            session_token=SECRET,
            max_retries=1,
            timeout_seconds=1,
        )

    def reset(self) -> None:
        """Start again with an empty bucket."""
        self.plan, self.requests, self.on_get, self._reads = Plan(), [], None, 0
        self._arrange("POST", "/moto-api/reset")
        self._arrange("PUT", f"/{BUCKET}")

    def put(self, key: str, body: bytes) -> str:
        """Store an object and return its address."""
        self._arrange("PUT", f"/{BUCKET}/{quote(key)}", body)
        return f"s3://{BUCKET}/{key}"

    def _arrange(self, method: str, path: str, body: bytes | None = None) -> None:
        status, _, said = self.ask(method, path, body, _SIGNED)
        assert status == http.client.OK, said

    def ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the server behind the proxy."""
        connection = http.client.HTTPConnection(*self._upstream)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return content

    def next_misdeed(self, path: str) -> Misdeed:
        """Count a GET and say what goes wrong with it."""
        self._reads += 1
        if self.on_get is not None and "list-type" not in path:
            self.on_get(self._reads)
        place, times = self._reads - self.plan.after, self.plan.times
        hit = place > 0 and (times is None or place <= times)
        return self.plan.misdeed if hit else Misdeed.NOTHING

    def wait(self) -> None:
        """Say nothing until the server is closed."""
        self._gone.wait(10)


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on, and the answer back, more or less."""

    protocol_version = "HTTP/1.1"
    world: FaultyS3

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._pass_on(Misdeed.NOTHING)

    def do_GET(self) -> None:
        self._pass_on(self.world.next_misdeed(self.path))

    def _pass_on(self, misdeed: Misdeed) -> None:
        self.world.requests.append((self.command, self.path))
        path = f"{self.path}&max-keys=2" if "list-type" in self.path else self.path
        status, headers, body = self.world.ask(self.command, path, None, dict(self.headers))
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else len(body)
        kept = {name: value for name, value in headers if name.lower() in _KEPT}
        with suppress(OSError):
            match misdeed:
                case Misdeed.FORBIDDEN:
                    self._send(403, b"<Error><Code>AccessDenied</Code></Error>")
                case Misdeed.NOT_FOUND:
                    self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
                case Misdeed.UNAVAILABLE:
                    self._send(503, b"<Error><Code>SlowDown</Code></Error>")
                case Misdeed.REFUSED_TOKEN:
                    token = self.headers.get("x-amz-security-token", "")
                    self._send(400, f"<Error><Token-0>{token}</Token-0></Error>".encode())
                case Misdeed.NOT_S3:
                    self._send(200, b"<!doctype html><title>Welcome</title>")
                case Misdeed.SHORT:
                    self._send(status, body[:-1], kept)
                case Misdeed.CUT_OFF | Misdeed.SLOW:
                    self._head(status, kept, length)
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    self._break_off(misdeed)
                case Misdeed.NOTHING:
                    self._head(status, kept, length)
                    self.wfile.write(body if self.command == "GET" else b"")

    def _break_off(self, misdeed: Misdeed) -> None:
        if misdeed is Misdeed.SLOW:
            self.world.wait()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _head(self, status: int, headers: dict[str, str], length: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, headers or {}, len(body))
        self.wfile.write(body)
