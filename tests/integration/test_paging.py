"""Reading a paged API from a real server: styles, limits, secrets, threads."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from tests.support.faulty_http import HOST, FaultyApi, Framing, Misdeed, Plan

from tallybook import paging
from tallybook.errors import FetchError
from tallybook.fetch import Fault, Proof, Timing
from tallybook.paging import (
    ApiLimits,
    ApiSource,
    Cursor,
    LinkHeader,
    NextField,
    PageNumber,
    SinglePage,
    api_pages,
    read_api,
)

PAGES = [
    ['{"id": 1, "amount": 0.10}', '{"id": 2, "amount": 12345678901234567890.12}'],
    ['{"id": 3, "amount": 1e400}', '{"id": 4, "amount": null}'],
    ['{"id": 5, "amount": -0.0}'],
]
IDS = ["1", "2", "3", "4", "5"]
QUICK = ApiLimits(requests_per_second=None)
TOKEN = "hunter2-hunter2"  # noqa: S105


async def no_sleep(_seconds: float) -> None:
    """Wait for nothing."""


IN_NO_TIME = Timing(sleep=no_sleep)


def source_of(api: FaultyApi, **options) -> ApiSource:
    return ApiSource(**{"url": api.url, "records": "items", "limits": QUICK} | options)


async def read(api: FaultyApi, resolver: AbstractResolver | None = None, **options):
    """Return all pages."""
    source = source_of(api, **options)
    return [page async for page in api_pages(source, timing=IN_NO_TIME, resolver=resolver)]


async def read_error(api: FaultyApi, **options) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await read(api, **options)
    return caught.value


def ids(pages) -> list[str]:
    return [record["id"] for page in pages for record in page.records]


class TestStyles:
    @pytest.mark.parametrize(
        "style",
        [
            None,
            LinkHeader(),
            NextField(),
            Cursor(field="cursor"),
            Cursor(field="cursor", more_field="more"),
            PageNumber(),
            PageNumber(total_pages_field="pages"),
        ],
    )
    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    async def test_every_record_once_and_in_order(self, style, concurrency):
        """Whatever the style, with every digit."""
        limits = ApiLimits(requests_per_second=None, concurrency=concurrency)
        async with FaultyApi(PAGES) as api:
            pages = await read(api, paging=style, limits=limits, total_field="total")
        assert ids(pages) == IDS
        amounts = [record["amount"] for page in pages for record in page.records]
        assert amounts == ["0.10", "12345678901234567890.12", "1e400", None, "-0.0"]
        assert [page.number for page in pages] == list(range(1, len(pages) + 1))

    async def test_provenance(self):
        """Each page says where it came from and what it weighed."""
        async with FaultyApi(PAGES) as api:
            first, second, third = await read(api, paging=NextField())
            assert [first.url, second.url] == [api.url, api.page_url(2)]
            assert third.size_bytes == len(api.body(3))
        assert len({page.sha256 for page in (first, second, third)}) == 3

    async def test_no_records_at_all(self):
        """An API may have nothing to tell: one page, no rows."""
        for style in (None, PageNumber(), PageNumber(total_pages_field="pages")):
            async with FaultyApi([[]]) as api:
                pages = await read(api, paging=style)
            assert [page.records for page in pages] == [[]]

    async def test_not_one_request_too_many(self):
        """A known number of pages is kept to; an unknown one costs less than a window."""
        async with FaultyApi(PAGES) as api:
            await read(api, paging=PageNumber(total_pages_field="pages"))
            assert sorted(request.page for request in api.requests) == [1, 2, 3]
            api.requests.clear()
            await read(api, paging=PageNumber())
            assert sorted(request.page for request in api.requests) == [1, 2, 3, 4, 5]

    async def test_pages_beyond_the_end_may_fail(self):
        """Some servers answer 404 there; they were only asked to be quick."""
        plan = Plan(Misdeed.MISSING, page=5, times=None)
        async with FaultyApi(PAGES, plan) as api:
            assert ids(await read(api, paging=PageNumber())) == IDS

    async def test_an_empty_page_in_the_middle(self):
        """It looks like the end, but the page behind it has records."""
        async with FaultyApi([PAGES[0], [], PAGES[2]]) as api:
            error = await read_error(api, paging=PageNumber())
        assert error.context["fault"] == Fault.BAD_PAGING
        assert str(error).endswith("page=3: page 2 is not full, so records before page 3 are lost")


class TestNotAll:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (
                {"records": "itmes"},
                "'itmes' is missing; lists are at 'items'. Did you mean 'items'?",
            ),
            ({"records": ""}, "the body is an object, not a list; lists are at 'items'."),
            ({"records": "total"}, "'total' is a number, not a list"),
            (
                {"paging": SinglePage(), "total_field": "total"},
                "2 records came, but 'total' says 5",
            ),
            ({"paging": NextField(field="nxt"), "total_field": "total"}, "2 records came"),
            ({"paging": PageNumber(param="seite")}, "page 2 is the same as page 1"),
            ({"limits": ApiLimits(max_pages=2)}, "more than max_pages=2"),
        ],
    )
    async def test_wrong_settings_are_noticed(self, options, reason):
        """Too few or too many rows are an error with a reason."""
        pages = [*PAGES, ['{"id": 6}']] if "limits" in options else PAGES
        async with FaultyApi(pages) as api:
            error = await read_error(api, **options)
        assert reason in str(error)

    @pytest.mark.parametrize("depth", [900, 100_000])
    async def test_nesting_without_bottom(self, depth):
        """An error of ours, whether the parser or the search for lists gives up."""
        deep = '{"a": ' * depth + "1" + "}" * depth
        async with FaultyApi([[deep]]) as api:
            error = await read_error(api, records="nothing")
        assert error.context["fault"] in {Fault.NOT_JSON, Fault.NOT_RECORDS}

    async def test_a_link_header_that_is_missing(self):
        """Then the body's own `next` is a sign of more."""
        async with FaultyApi(PAGES, decorate=lambda _, headers: headers.pop("Link", None)) as api:
            error = await read_error(api)
        assert "'next' says that there is more" in str(error)

    async def test_links_in_a_circle(self):
        """The last page leads back to the first."""
        async with FaultyApi(PAGES) as api:
            back = {"Link": f'<{api.url}>; rel="prev next"'}
            api.decorate = lambda page, headers: headers.update(back) if page == 3 else None
            error = await read_error(api, paging=LinkHeader())
        assert str(error).endswith("page=3: the next page is one that was already read")


class TestElsewhere:
    async def test_a_next_link_to_another_place(self):
        """It was written by the server, like a redirect, and is treated like one."""
        async with FaultyApi(PAGES) as away, FaultyApi(PAGES) as api:
            link = {"Link": f'<{away.page_url(2)}>; rel="next"'}
            api.decorate = lambda _, headers: headers.update(link)
            secret = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
            error = await read_error(api, **secret)
            assert error.context["fault"] == Fault.NOT_ALLOWED
            assert away.requests == []
            limits = ApiLimits(allowed_hosts={f"{HOST}:{away.port}"})
            pages = await read(api, limits=limits, **secret)
            assert ids(pages) == IDS
            assert all(request.headers.get("authorization") for request in api.requests)
            assert all(TOKEN not in str(request) for request in away.requests)

    async def test_an_allowed_name_is_looked_up_by_the_guard(self):
        """With the resolver that was handed in, and refused where it leads inside."""
        async with FaultyApi(PAGES) as away, FaultyApi(PAGES) as api:
            link = {"Link": f'<http://files.test:{away.port}/orders?page=2>; rel="next"'}
            api.decorate = lambda _, headers: headers.update(link)
            hosts = {"files.test", f"{HOST}:{away.port}"}
            limits = {"allowed_hosts": hosts, "requests_per_second": None}
            with pytest.raises(FetchError, match=r"files.test, which is the private address 127"):
                await read(api, LocalNames(), limits=ApiLimits(**limits))
            assert away.requests == []
            allowed = ApiLimits(**limits, allow_private=True)
            assert ids(await read(api, LocalNames(), limits=allowed)) == IDS

    async def test_a_home_with_a_name(self):
        """The user's own host may be inside."""
        async with FaultyApi(PAGES) as api:
            url = f"http://api.test:{api.port}/orders?page=3"
            assert ids(await read(api, LocalNames(), url=url)) == ["5"]


class LocalNames(AbstractResolver):
    """Every name is this machine; with `gate`, the lookup hangs until it is opened."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate

    async def resolve(self, host, port=0, family=socket.AF_INET):
        if self.gate is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.gate.wait)
        where = {"hostname": host, "host": HOST, "port": port}
        return [{**where, "family": family, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


class TestProofs:
    @pytest.mark.parametrize(
        ("framing", "proof"),
        [
            (Framing.LENGTH, Proof.LENGTH),
            (Framing.CHUNKED, Proof.CHUNKED),
            (Framing.DIGEST, Proof.DIGEST),
            (Framing.GZIP, Proof.TRAILER),
            (Framing.UNSTATED, Proof.NONE),
        ],
    )
    async def test_each_page_says_what_proves_it(self, framing, proof):
        """And a body without any proof is marked."""
        async with FaultyApi(PAGES, Plan(framing=framing)) as api:
            pages = await read(api)
        assert {page.proof for page in pages} == {proof}
        assert all(page.verified == (proof is not Proof.NONE) for page in pages)


class TestLimits:
    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_concurrency(self, concurrency):
        """Numbered pages are asked for so many at once, not more."""
        limits = ApiLimits(concurrency=concurrency, requests_per_second=None)
        pages = [[f'{{"id": {number}}}'] for number in range(20)]
        async with FaultyApi(pages, hold=asyncio.Event()) as api:
            reading = asyncio.create_task(read(api, paging=PageNumber(), limits=limits))
            while len(api.requests) < 1:
                await asyncio.sleep(0)
            api.hold.set()
            await reading
            assert api.most_at_once <= concurrency
            assert len(api.requests) >= 20

    async def test_rate(self):
        """Every request waits for its turn, retries and redirects too."""
        naps = []

        async def nap(seconds: float) -> None:
            naps.append(seconds)

        limits = ApiLimits(requests_per_second=0.001)
        async with FaultyApi(PAGES, Plan(Misdeed.REDIRECT, location="?page=2")) as api:
            source = source_of(api, paging=SinglePage(), limits=limits)
            assert len([page async for page in api_pages(source, timing=Timing(sleep=nap))]) == 1
        assert [round(seconds, -1) for seconds in naps] == [1000]

    async def test_deadline_counts_from_the_start(self):
        """Page 3 never comes; what came before is not passed off as all."""
        limits = ApiLimits(deadline_seconds=0.3, requests_per_second=None)
        async with FaultyApi(PAGES, Plan(Misdeed.SILENCE, page=3, times=None)) as api:
            pages = api_pages(source_of(api, limits=limits))
            assert [(await anext(pages)).number, (await anext(pages)).number] == [1, 2]
            with pytest.raises(FetchError, match=r"page=3: the deadline of 0\.3 s passed"):
                await anext(pages)


class TestLeaving:
    async def test_break_closes_everything(self):
        """Between two pages nothing runs, and leaving closes the connections."""
        async with FaultyApi(PAGES) as api:
            before = asyncio.all_tasks()
            async with aclosing(api_pages(source_of(api, paging=PageNumber()))) as pages:
                async for _ in pages:
                    assert not asyncio.all_tasks() - before - api.tasks
                    break
            while api.open_connections:
                await asyncio.sleep(0)

    async def test_cancellation(self):
        """In the middle of a window."""
        async with FaultyApi(PAGES) as api:
            before = asyncio.all_tasks()
            api.decorate = lambda page, _: setattr(api, "hold", asyncio.Event())
            reading = asyncio.create_task(read(api, paging=PageNumber()))
            while len(api.requests) < 5:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert not asyncio.all_tasks() - before - api.tasks
            api.hold.set()
            while api.open_connections:
                await asyncio.sleep(0)


@contextmanager
def serving(api: FaultyApi) -> Iterator[FaultyApi]:
    """Run a server in a thread of its own."""
    with paging.background_loop() as run:
        run(api.__aenter__())
        try:
            yield api
        finally:
            run(api.__aexit__(None, None, None))


def fetching_threads() -> int:
    return sum(thread.name == "tallybook-fetch" for thread in threading.enumerate())


class TestReadApi:
    def test_same_pages(self):
        """As `api_pages` gives them."""
        with serving(FaultyApi(PAGES)) as api:
            assert ids(read_api(source_of(api))) == IDS
            assert fetching_threads() == 1  # the server's

    async def test_inside_a_running_loop(self):
        """As in JupyterLab, where a loop runs in the notebook's own thread."""
        with serving(FaultyApi(PAGES)) as api:
            assert ids(read_api(source_of(api))) == IDS

    def test_errors_come_through(self):
        """With the same type and context."""
        with (
            serving(FaultyApi(PAGES, Plan(Misdeed.MISSING, page=2))) as api,
            pytest.raises(FetchError, match="404") as caught,
        ):
            list(read_api(source_of(api)))
        assert caught.value.context["status"] == 404
        assert fetching_threads() == 0

    def test_leaving_early(self):
        """Ends the thread and closes the connections."""
        with serving(FaultyApi(PAGES)) as api:
            with closing(read_api(source_of(api))) as pages:
                assert next(pages).number == 1
                assert fetching_threads() == 2
            assert fetching_threads() == 1

    def test_ctrl_c(self):
        """Ends the request that is under way, at once."""
        with serving(FaultyApi(PAGES, Plan(Misdeed.SILENCE, page=2, times=None))) as api:
            interrupt = threading.Thread(target=_interrupt_at_request, args=(api, 2))
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                list(read_api(source_of(api)))
            interrupt.join()
            assert fetching_threads() == 1

    def test_a_lookup_that_hangs(self):
        """It cannot be cancelled, but the deadline does not wait for it."""
        gate = threading.Event()
        limits = ApiLimits(deadline_seconds=0.1)
        source = ApiSource(url="http://api.test/", limits=limits)
        try:
            with pytest.raises(FetchError, match=r"deadline of 0\.1 s"):
                list(read_api(source, resolver=LocalNames(gate)))
            assert not gate.is_set()
            assert fetching_threads() == 0
        finally:
            gate.set()


def _interrupt_at_request(api: FaultyApi, number: int) -> None:
    """Press Ctrl-C when the server has got so many requests."""
    while len(api.requests) < number:
        threading.Event().wait(0.001)
    os.kill(os.getpid(), signal.SIGINT)


class TestSecrets:
    @staticmethod
    def secret_source(api: FaultyApi, **options) -> ApiSource:
        return source_of(
            api,
            url=f"{api.url}?access_token={TOKEN}&size=2",
            headers={"Authorization": f"Bearer {TOKEN}", "X-Tenant": TOKEN},
            secret_query={"customer": TOKEN},
            limits=ApiLimits(
                requests_per_second=None,
                max_retries=1,
                request_timeout_seconds=0.1,
                max_bytes=100_000,
            ),
            **options,
        )

    @pytest.mark.parametrize("misdeed", Misdeed)
    @pytest.mark.parametrize("records", ["items", "nothing"])
    async def test_never_in_logs_errors_or_pages(self, misdeed, records, caplog):
        """Whatever goes wrong; and the server did get them."""
        caplog.set_level(logging.DEBUG)
        location = f"http://{TOKEN}:{TOKEN}@{TOKEN}.test/{TOKEN}?q={TOKEN}"
        told = []
        async with FaultyApi(PAGES, Plan(misdeed, times=None, location=location)) as api:
            source = self.secret_source(api, records=records)
            try:
                told += [repr(page) async for page in api_pages(source, timing=IN_NO_TIME)]
            except FetchError as error:
                told += [str(error), repr(error.context), *traceback.format_exception(error)]
            sent = str(api.requests)
        told += [repr(source), source.address]
        told += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
        assert TOKEN not in "".join(told)
        if misdeed is not Misdeed.REFUSED:
            assert sent.count(TOKEN) >= 4

    async def test_in_the_address_of_a_page(self):
        """A next link that carries the token along."""
        async with FaultyApi(PAGES) as api:
            link = {"Link": f'<{api.page_url(2)}&signed={TOKEN}&sig=x>; rel="next"'}
            api.decorate = lambda page, headers: headers.update(link) if page == 1 else None
            pages = await read(api, headers={"Authorization": f"Bearer {TOKEN}"})
        assert pages[1].url.endswith("/orders?page=2&signed=***&sig=***")

    async def test_in_a_cause(self):
        """An exception of aiohttp that holds the headers is not attached."""
        async with FaultyApi(PAGES, Plan(Misdeed.NOT_HTTP)) as api:
            error = await read_error(api, headers={"Authorization": f"Bearer {TOKEN}"})
        assert error.context["fault"] == Fault.BAD_ANSWER
        assert not isinstance(error.__cause__, aiohttp.ClientResponseError)
        assert error.__suppress_context__
