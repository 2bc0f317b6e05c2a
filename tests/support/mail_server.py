"""A real SMTP server on loopback that answers as a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tallybook.paging import background_loop

HANG = "hang"


@dataclass
class MailServer:
    """What a server has got, and what it is going to say.

    Attributes:
        port: Where it listens.
        messages: What it took, oldest first.
        logins: Who signed in, and whether over an encrypted connection.
        to_receiver: Its next answers to RCPT; then it takes everybody.
        to_data: Its next answers to DATA; then it takes everything.
    """

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    logins: list[tuple[str, bool]] = field(default_factory=list)
    to_receiver: deque[str] = field(default_factory=deque)
    to_data: deque[str] = field(default_factory=deque)

    async def handle_RCPT(  # noqa: N802 (the library's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a receiver, or do not."""
        if self.to_receiver:
            return self.to_receiver.popleft()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Take a message, or do not, or say nothing at all."""
        answer = self.to_data.popleft() if self.to_data else "250 taken"
        if answer == HANG:
            await asyncio.Event().wait()
        if answer.startswith("250"):
            self.raw.append(envelope.content)
            self.messages.append(message_from_bytes(envelope.content, policy=default))
        return answer

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: object
    ) -> AuthResult:
        """Let ada in."""
        assert isinstance(given, LoginPassword)
        encrypted = server.transport.get_extra_info("ssl_object") is not None
        self.logins.append((given.login.decode(), encrypted))
        known = (given.login, given.password) == (b"ada", b"hunter2")
        return AuthResult(success=known, handled=False)


@contextmanager
def mail_server(
    *, tls: ssl.SSLContext | None = None, login: bool = False, wrapped: bool = False
) -> Iterator[MailServer]:
    """Run a server.

    Args:
        tls: Its certificate; it then asks for STARTTLS first.
        login: Whether it asks who one is; from whoever comes in by TLS it takes the answer unasked.
        wrapped: Whether it speaks TLS from the start instead.
    """
    server = MailServer()
    needs = {"auth_required": login and not wrapped, "authenticator": server.authenticate}
    if tls and not wrapped:
        needs |= {"tls_context": tls, "require_starttls": True}
    if wrapped or not tls:
        needs["auth_require_tls"] = False

    async def listen() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: SMTP(server, hostname="mail.test", loop=loop, **needs),
            "127.0.0.1",
            0,
            ssl=tls if wrapped else None,
        )

    async def close(listening: asyncio.Server) -> None:
        listening.close()

    with background_loop() as run:
        listening = run(listen())
        server.port = listening.sockets[0].getsockname()[1]
        yield server
        run(close(listening))


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for this machine, and the file that makes one trust it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    return context, trusted
