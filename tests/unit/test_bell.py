"""The bell between two processes: never waits, hears a death, wakes everybody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from threading import Event, Thread
from threading import enumerate as all_threads

import pytest

from tallybook.bell import News, hearing, ring

BOUND = 30
Line = tuple[socket.socket, socket.socket]


@pytest.fixture
def line() -> Iterator[Line]:
    """The two ends of a line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


class TestRing:
    """Ringing returns, whatever is at the other end."""

    def test_nobody_listens(self, line: Line) -> None:
        """More rings than the line can hold do not make anybody wait."""
        ours, theirs = line
        for _ in range(100_000):
            ring(ours)
        assert theirs.recv(10) == b"!" * 10

    def test_gone(self, line: Line) -> None:
        """Nor is it an error when the other end has gone, or our own."""
        ours, theirs = line
        theirs.close()
        ring(ours)
        ours.close()
        ring(ours)


class TestHearing:
    """What is called, and when."""

    def test_ends(self, line: Line) -> None:
        """After the block nothing is called any more, no thread is left, and one can still ring."""
        ours, theirs = line
        rings: list[None] = []
        with hearing(ours, lambda: rings.append(None), lambda: rings.append(None)):
            assert any(one.name == "bell" for one in all_threads())
        ring(theirs)
        theirs.close()
        assert rings == []
        assert not any(one.name == "bell" for one in all_threads())

    def test_rung_before(self, line: Line) -> None:
        """A ring from before anybody listened is heard."""
        ours, theirs = line
        ring(theirs)
        heard = Event()
        with hearing(ours, heard.set, lambda: None):
            assert heard.wait(BOUND)

    def test_gone_once(self, line: Line) -> None:
        """That the other end has gone is told once, after its last ring."""
        ours, theirs = line
        told: list[str] = []
        gone = Event()

        def leave() -> None:
            told.append("gone")
            gone.set()

        with hearing(ours, lambda: told.append("ring"), leave):
            ring(theirs)
            theirs.close()
            assert gone.wait(BOUND)
        assert told == ["ring", "gone"]


class TestNews:
    """News for coroutines."""

    async def test_everybody(self) -> None:
        """All who wait are woken, from another thread; nobody is remembered afterwards."""
        news, there = News(), asyncio.Barrier(4)

        async def wait() -> bool:
            with news.awaited() as event:
                await there.wait()
                return await event.wait()

        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        await there.wait()
        Thread(target=news.spread).start()
        assert await asyncio.wait_for(asyncio.gather(*waiting), BOUND) == [True] * 3
        assert news._waiting == {}

    async def test_while_looking(self) -> None:
        """News that come between clearing and waiting are not missed."""
        news = News()
        with news.awaited() as event:
            event.clear()
            news.spread()
            await asyncio.wait_for(event.wait(), BOUND)

    def test_loop_has_ended(self) -> None:
        """Whoever waited in a loop that is closed keeps nobody else from hearing."""
        news, loop = News(), asyncio.new_event_loop()

        async def begin() -> Iterator[None]:
            waiting = news.awaited()
            waiting.__enter__()
            return waiting

        kept = loop.run_until_complete(begin())
        loop.close()
        news.spread()
        assert kept is not None

    def test_disconnected(self, line: Line) -> None:
        """After the block it rings nobody."""
        news = News()
        with news.connected(line[0], lambda: None):
            news.ring()
        news.ring()
        assert line[1].recv(10) == b"!"
