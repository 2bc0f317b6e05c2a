"""`fetch_data_batch` against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import logging
import traceback
from decimal import Decimal

import aiohttp
import pytest
from tests.support.faulty_http import FaultyApi, Framing, Misdeed, Plan

from tallybook.errors import FetchError
from tallybook.fetch import Fault, FetchLimits, Timing, fetch_data_batch

PAGES = [['{"id": 1}'], ['{"id": 2}'], ['{"id": 3}']]
ONCE = FetchLimits(max_retries=0)


async def no_sleep(_seconds: float) -> None:
    """Wait for nothing."""


class Naps:
    """A sleep that only takes notes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def get(*urls: str, permits: int = 4, headers=None, **options):
    """Fetch with a session of its own, without real sleeps."""
    options.setdefault("timing", Timing(sleep=no_sleep))
    async with aiohttp.ClientSession(headers=headers) as session:
        return await fetch_data_batch(urls, session, asyncio.Semaphore(permits), **options)


async def get_error(url: str, **options) -> FetchError:
    [error] = await get(url, **options)
    assert isinstance(error, FetchError)
    return error


async def until(condition) -> None:
    """Let the loop run until something is true."""
    while not condition():
        await asyncio.sleep(0)


class TestBatch:
    async def test_dicts_in_the_order_of_the_addresses(self):
        """Whichever answer comes first."""
        async with FaultyApi(PAGES) as api:
            answers = await get(*(api.page_url(page) for page in (3, 1, 2, 3)))
        assert [answer["items"] for answer in answers] == [
            [{"id": 3}],
            [{"id": 1}],
            [{"id": 2}],
            [{"id": 3}],
        ]

    async def test_numbers_are_numbers(self):
        """Floats where they are exact, Decimals where they would not be."""
        async with FaultyApi([['{"a": 0.1, "b": 10, "c": 0.10000000000000000001}']]) as api:
            [answer] = await get(api.url)
        assert answer["items"] == [{"a": 0.1, "b": 10, "c": Decimal("0.10000000000000000001")}]

    async def test_a_failed_address_is_its_exception_in_its_place(self):
        """The others are not disturbed."""
        async with FaultyApi(PAGES, Plan(Misdeed.MISSING, page=2)) as api:
            first, second, third, fourth = await get(
                api.page_url(1), api.page_url(2), "nonsense", api.page_url(3)
            )
        assert (first["page"], fourth["page"]) == (1, 3)
        assert (second.context["fault"], second.context["status"]) == (Fault.BAD_STATUS, 404)
        assert str(second).endswith("orders?page=2: the server answered 404 Not Found")
        assert third.context["fault"] == Fault.BAD_URL

    async def test_nothing_to_do(self):
        """No addresses, no answers."""
        assert await get() == []

    async def test_session_stays_open(self):
        """It belongs to the caller."""
        async with FaultyApi(PAGES) as api, aiohttp.ClientSession() as session:
            await fetch_data_batch([api.url], session, asyncio.Semaphore(1))
            assert not session.closed
            await fetch_data_batch([api.url], session, asyncio.Semaphore(1))

    async def test_the_sessions_own_rules_do_not_interfere(self):
        """A session that raises or times out by itself gives the same answers."""
        async with (
            FaultyApi(PAGES, Plan(Misdeed.UNAVAILABLE)) as api,
            aiohttp.ClientSession(
                raise_for_status=True, timeout=aiohttp.ClientTimeout(total=60)
            ) as session,
        ):
            timing = Timing(sleep=no_sleep)
            [answer] = await fetch_data_batch(
                [api.url], session, asyncio.Semaphore(1), timing=timing
            )
        assert answer["page"] == 1


class TestSemaphore:
    @pytest.mark.parametrize("permits", [1, 3])
    async def test_as_many_at_once_as_it_allows(self, permits):
        """Not one more, and not fewer."""
        async with FaultyApi(PAGES, hold=asyncio.Event()) as api:
            batch = asyncio.create_task(get(*[api.url] * 8, permits=permits))
            await until(lambda: len(api.requests) == permits)
            api.hold.set()
            await batch
            assert api.most_at_once == permits
            assert len(api.requests) == 8

    async def test_is_given_back(self):
        """After failures too."""
        permits = asyncio.Semaphore(2)
        plan = Plan(Misdeed.MISSING, times=None)
        async with FaultyApi(PAGES, plan) as api, aiohttp.ClientSession() as session:
            await fetch_data_batch([api.url] * 5, session, permits, limits=ONCE)
        assert permits._value == 2

    async def test_waiting_for_it_counts(self):
        """Somebody else may hold it for ever; the deadline holds all the same."""
        permits = asyncio.Semaphore(0)
        async with aiohttp.ClientSession() as session:
            limits = FetchLimits(deadline_seconds=0.01)
            answers = await fetch_data_batch(["http://a.test"] * 3, session, permits, limits=limits)
        assert {answer.context["fault"] for answer in answers} == {Fault.DEADLINE}
        assert permits._value == 0


class TestCancellation:
    async def test_leaves_nothing_running(self):
        """No task, no connection; the session and the semaphore are as they were."""
        permits = asyncio.Semaphore(3)
        async with (
            FaultyApi(PAGES, hold=asyncio.Event()) as api,
            aiohttp.ClientSession() as session,
        ):
            before = asyncio.all_tasks()
            batch = asyncio.create_task(fetch_data_batch([api.url] * 9, session, permits))
            await until(lambda: len(api.requests) == 3)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            assert not asyncio.all_tasks() - before - api.tasks
            assert permits._value == 3
            assert not session.closed
            api.hold.set()  # the server looks up and finds nobody there
            await until(lambda: api.open_connections == 0)


class TestRetries:
    @pytest.mark.parametrize(
        "misdeed", [Misdeed.LOGIN_PAGE, Misdeed.MISSING, Misdeed.BOMB, Misdeed.NOT_HTTP]
    )
    async def test_hopeless_faults_are_not_tried_again(self, misdeed):
        """The next answer would be the same."""
        async with FaultyApi(PAGES, Plan(misdeed, times=None)) as api:
            error = await get_error(api.url, limits=FetchLimits(max_bytes=10_000))
            assert len(api.requests) == 1
        assert error.context["tries"] == 1

    async def test_number_of_tries(self):
        """One and the retries; the error says how many."""
        async with FaultyApi(PAGES, Plan(Misdeed.UNAVAILABLE, times=None)) as api:
            error = await get_error(api.url, limits=FetchLimits(max_retries=4))
            assert len(api.requests) == 5
        assert str(error).endswith("503 Service Unavailable (tried 5 times)")
        assert (error.context["tries"], error.context["status"]) == (5, 503)

    @pytest.mark.parametrize(
        ("header", "seconds"), [("7", 7), ("86400", 60), ("0", 0.25), ("soon", 0.25), ("", 0.25)]
    )
    async def test_retry_after_up_to_a_cap(self, header, seconds):
        """The server's wish, the cap, or the jitter of half a second times one half."""
        naps = Naps()
        async with FaultyApi(PAGES, Plan(Misdeed.TOO_MANY, retry_after=header)) as api:
            [answer] = await get(api.url, timing=Timing(sleep=naps, random=lambda: 0.5))
        assert answer["page"] == 1
        assert naps.seconds == [seconds]

    async def test_no_wait_beyond_the_deadline(self):
        """It would be in vain, so the error comes at once and says what was wrong."""
        naps = Naps()
        async with FaultyApi(PAGES, Plan(Misdeed.TOO_MANY, retry_after="50")) as api:
            limits = FetchLimits(deadline_seconds=40)
            error = await get_error(api.url, limits=limits, timing=Timing(sleep=naps))
        assert error.context["fault"] == Fault.BUSY
        assert naps.seconds == []

    async def test_each_retry_is_logged(self, caplog):
        """With its facts, for whoever wonders why it takes so long."""
        caplog.set_level(logging.INFO, logger="tallybook")
        async with FaultyApi(PAGES, Plan(Misdeed.UNAVAILABLE, times=2)) as api:
            await get(f"{api.url}?api_key=hunter2")
        facts = [record.extra_fields for record in caplog.records]
        assert [(fact["fault"], fact["tries"]) for fact in facts] == [("busy", 1), ("busy", 2)]
        assert all(fact["url"].endswith("/orders?api_key=***") for fact in facts)


class TestDeadline:
    @pytest.mark.parametrize("misdeed", [Misdeed.SILENCE, Misdeed.SLOW_DRIP])
    async def test_one_request(self, misdeed):
        """A drip is as slow as silence: the time-out is for the whole request."""
        async with FaultyApi(PAGES, Plan(misdeed, times=None)) as api:
            limits = FetchLimits(request_timeout_seconds=0.1, max_retries=1)
            error = await get_error(api.url, limits=limits)
        assert error.context["fault"] == Fault.TIMED_OUT
        assert error.context["tries"] == 2

    async def test_all_of_them(self):
        """It ends requests, retries and waits alike."""
        async with FaultyApi(PAGES, Plan(Misdeed.SILENCE, times=None)) as api:
            answers = await get(*[api.url] * 3, limits=FetchLimits(deadline_seconds=0.1))
        assert {answer.context["fault"] for answer in answers} == {Fault.DEADLINE}
        assert str(answers[0]).endswith(
            "the deadline of 0.1 s passed before the answer was complete"
        )


class TestBodies:
    @pytest.mark.parametrize("framing", Framing)
    @pytest.mark.parametrize("misdeed", [Misdeed.HALF_BODY, Misdeed.RESET])
    @pytest.mark.parametrize("cut", [0.0, 0.3, 0.999])
    async def test_half_a_body_is_never_an_answer(self, framing, misdeed, cut):
        """However its end was announced."""
        plan = Plan(misdeed, framing=framing, cut=cut, times=None)
        async with FaultyApi(PAGES, plan) as api:
            error = await get_error(api.url, limits=ONCE)
        assert error.context["fault"] in {Fault.CUT_OFF, Fault.CORRUPT}

    async def test_wrong_digest(self):
        """The body is not what was sent."""
        async with FaultyApi(PAGES, Plan(Misdeed.WRONG_DIGEST)) as api:
            error = await get_error(api.url, limits=ONCE)
        assert error.context["fault"] == Fault.CORRUPT
        assert "md5" in str(error)

    async def test_bomb(self):
        """50 MB of zeros in 49 KB."""
        async with FaultyApi(PAGES, Plan(Misdeed.BOMB)) as api:
            error = await get_error(api.url, limits=FetchLimits(max_bytes=1_000_000))
        assert error.context["fault"] == Fault.TOO_LARGE
        assert "more than 1000000 bytes after decompression" in str(error)

    @pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED, Framing.UNSTATED])
    async def test_too_large_without_compression(self, framing):
        """Known from its length, or found on the way."""
        async with FaultyApi([[f'{{"note": "{"x" * 5000}"}}']], Plan(framing=framing)) as api:
            error = await get_error(api.url, limits=FetchLimits(max_bytes=5000))
        assert error.context["fault"] == Fault.TOO_LARGE

    async def test_a_page_for_people(self):
        """A login page is a 200 as well; its kind is in the message."""
        async with FaultyApi(PAGES, Plan(Misdeed.LOGIN_PAGE)) as api:
            error = await get_error(api.url)
        assert error.context["fault"] == Fault.NOT_JSON
        assert "text/html" in str(error)

    @pytest.mark.parametrize(
        ("headers", "fault"),
        [
            ({"Content-Encoding": "br"}, Fault.BAD_ANSWER),
            ({"Content-Encoding": "gzip"}, Fault.CORRUPT),
            ({"Content-Type": "application/json; charset=klingon"}, Fault.BAD_ANSWER),
            ({"Content-Type": "application/json; charset=utf-16"}, Fault.NOT_JSON),
            ({"Link": "<http://[>; rel=next"}, Fault.BAD_ANSWER),
        ],
    )
    async def test_headers_that_do_not_fit(self, headers, fault):
        """What the headers say is believed, and held against the body."""
        api = FaultyApi([['{"id": "0"}']], decorate=lambda _, sent: sent.update(headers))
        async with api:
            error = await get_error(api.url)
        assert error.context["fault"] == fault

    @pytest.mark.parametrize("charset", ["utf-8", "UTF8", "iso-8859-1"])
    async def test_charset(self, charset):
        """A declared charset is used."""
        kind = {"Content-Type": f"application/json; charset={charset}"}
        async with FaultyApi([['{"id": "x"}']], decorate=lambda _, sent: sent.update(kind)) as api:
            [answer] = await get(api.url)
        assert answer["items"] == [{"id": "x"}]


class TestConnections:
    async def test_plain_http_where_tls_was_meant(self):
        """A connection that cannot be trusted is not tried again."""
        async with FaultyApi(PAGES) as api:
            error = await get_error(api.url.replace("http:", "https:"))
        assert error.context["fault"] == Fault.UNTRUSTED
        assert error.context["tries"] == 1

    async def test_nobody_there(self):
        """The cause is kept."""
        async with FaultyApi(PAGES, Plan(Misdeed.REFUSED)) as api:
            error = await get_error(api.url, limits=ONCE)
        assert error.context["fault"] == Fault.UNREACHABLE
        assert str(error).endswith("no connection (Connection refused)")
        assert isinstance(error.__cause__, aiohttp.ClientConnectorError)

    async def test_something_else_there(self):
        """A port that speaks another language."""
        async with FaultyApi(PAGES, Plan(Misdeed.NOT_HTTP)) as api:
            error = await get_error(f"{api.url}?token=hunter2")
        assert error.context["fault"] == Fault.BAD_ANSWER
        assert "hunter2" not in "".join(traceback.format_exception(error))


SECRETS = {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter2", "Cookie": "id=hunter2"}


class TestRedirects:
    @pytest.mark.parametrize("location", ["?page=2", "/orders?page=2", "//{place}/orders?page=2"])
    async def test_at_home(self, location):
        """Followed, with the headers."""
        async with FaultyApi(PAGES, Plan(Misdeed.REDIRECT)) as api:
            api.plan = Plan(
                Misdeed.REDIRECT, location=location.format(place=f"127.0.0.1:{api.port}")
            )
            [answer] = await get(api.url, headers=SECRETS)
            assert api.requests[1].headers["authorization"] == "Bearer hunter2"
        assert answer["page"] == 2

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_to_another_place(self, host):
        """Refused, and nobody was asked there."""
        async with FaultyApi(PAGES) as away:
            plan = Plan(Misdeed.REDIRECT, location=f"http://{host}:{away.port}/orders")
            async with FaultyApi(PAGES, plan) as api:
                error = await get_error(api.url)
            assert away.requests == []
        assert error.context["fault"] == Fault.NOT_ALLOWED
        assert "allowed_hosts" in str(error)

    async def test_to_an_allowed_place(self):
        """Followed, but no header of ours goes along."""
        async with FaultyApi(PAGES) as away:
            place = f"127.0.0.1:{away.port}"
            plan = Plan(Misdeed.REDIRECT, location=f"http://{place}/orders?page=3")
            async with FaultyApi(PAGES, plan) as api:
                limits = FetchLimits(allowed_hosts={place})
                [answer] = await get(api.url, headers=SECRETS, limits=limits)
            [request] = away.requests
        assert answer["page"] == 3
        assert not {"authorization", "x-api-key", "cookie"} & set(request.headers)
        assert "hunter2" not in str(request)

    @pytest.mark.parametrize("allow_private", [True, False])
    async def test_to_an_allowed_name_that_is_private(self, allow_private):
        """The name may be allowed and its address still not."""
        async with FaultyApi(PAGES) as away:
            plan = Plan(Misdeed.REDIRECT, location=f"http://localhost:{away.port}/orders")
            async with FaultyApi(PAGES, plan) as api:
                limits = FetchLimits(allowed_hosts={"localhost"}, allow_private=allow_private)
                [answer] = await get(api.url, limits=limits)
            assert len(away.requests) == allow_private
        if not allow_private:
            assert answer.context["fault"] == Fault.NOT_ALLOWED
            assert "allow_private" in str(answer)

    @pytest.mark.parametrize(
        ("location", "fault"),
        [
            ("", Fault.BAD_ANSWER),
            ("file:///etc/passwd", Fault.BAD_ANSWER),
            ("http://[", Fault.BAD_ANSWER),
            ("http://169.254.169.254/latest", Fault.NOT_ALLOWED),
            ("http://2130706433/", Fault.NOT_ALLOWED),
        ],
    )
    async def test_nonsense(self, location, fault):
        """An error of ours, whatever is in the header."""
        async with FaultyApi(PAGES, Plan(Misdeed.REDIRECT, location=location)) as api:
            error = await get_error(api.url)
        assert error.context["fault"] == fault

    async def test_in_circles(self):
        """Six times is enough."""
        async with FaultyApi(PAGES, Plan(Misdeed.REDIRECT, times=None, location="?again")) as api:
            error = await get_error(api.url)
            assert len(api.requests) == 6
        assert str(error).endswith("redirects more than 5 times")
