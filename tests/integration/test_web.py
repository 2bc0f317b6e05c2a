"""Web sources: all pages of a loopback API as chunks, and nothing that was not asked for.

What a server can do wrong is tried in test_network_faults.py; here is what becomes of it.
"""

import asyncio
import logging
import threading
from contextlib import contextmanager
from decimal import Decimal

import pytest
from tests.support.faulty_http import FaultyApi, Framing, Misdeed, Plan

from tallybook.config import AppConfig
from tallybook.errors import FetchError, SourceError
from tallybook.judge import ROW
from tallybook.transform import tally_source
from tallybook.web import api_source, open_web

TOKEN = "hunter2hunter2hunter2"  # noqa: S105


def record(number):
    return (
        f'{{"timestamp": "2026-03-{number:02}", "category": "tea", "amount": {number}.10,'
        f' "shop": {{"city": "Ulm"}}}}'
    )


PAGES = [[record(1), record(2)], [record(3), record(4)], [record(5)]]
HONEST = Plan()
RECORDS = "#records=items&paging=next_field"


@contextmanager
def serving(plan=HONEST, pages=PAGES):
    """Run the API in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    api = FaultyApi(pages, plan)
    run(api.__aenter__())
    try:
        yield api
    finally:
        run(api.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def chunks(address, config=None):
    """Return source and frame of every chunk."""
    source = open_web(address, config=config or AppConfig())
    return [(chunk.source, chunk.frame.collect()) for chunk in source.chunks()]


class TestPages:
    """A page is a chunk."""

    def test_provenance(self):
        """A row is found by its page's address and its place there; numbers keep their digits."""
        with serving() as api:
            read = chunks(api.url + RECORDS)
            assert [name for name, _ in read] == [
                api.url,
                *(api.page_url(page) for page in (2, 3)),
            ]
        assert [frame[ROW].to_list() for _, frame in read] == [[1, 2], [1, 2], [1]]
        assert read[1][1]["amount"].to_list() == ["3.10", "4.10"]
        assert read[2][1]["shop.city"].to_list() == ["Ulm"]

    @pytest.mark.parametrize(
        "declared",
        [
            "#records=items",
            "#records=items&paging=cursor&paging.field=cursor&total_field=total",
            "#records=items&paging=page_number",
            "#records=items&paging=page_number&paging.total_pages_field=pages&concurrency=2",
        ],
    )
    def test_styles(self, declared):
        """What stands behind the # is how the API is paged, and is never sent."""
        with serving() as api:
            assert sum(frame.height for _, frame in chunks(api.url + declared)) == 5
            assert not any("records" in request.path for request in api.requests)

    def test_tally(self):
        """The totals are exact and the account has a line for each page."""
        with serving() as api:
            tallied = tally_source(api.url + RECORDS)
        assert tallied.totals["total_amount"].to_list() == [Decimal("15.50")]
        assert tallied.accounts["rows_accepted"].to_list() == [2, 2, 1]

    def test_column_that_a_page_lacks(self):
        """A column of earlier pages is null where a page has it not."""
        pages = [['{"a": 1, "b": 2}'], ['{"a": 3}']]
        with serving(pages=pages) as api:
            assert [frame["b"].to_list() for _, frame in chunks(api.url + RECORDS)] == [
                ["2"],
                [None],
            ]

    def test_no_records(self):
        """An API without records has no chunk."""
        with serving(pages=[[]]) as api:
            assert chunks(api.url + RECORDS) == []


class TestFaults:
    """All records or an error; what came before is never taken for all."""

    def test_passing(self):
        """What passes is tried again."""
        with serving(Plan(Misdeed.UNAVAILABLE, page=2)) as api:
            assert sum(frame.height for _, frame in chunks(api.url + RECORDS)) == 5

    def test_lasting(self):
        """What lasts is an error that names the page."""
        with serving(Plan(Misdeed.LOGIN_PAGE, page=3, times=None)) as api:
            with pytest.raises(FetchError, match="not the JSON it should be") as caught:
                tally_source(api.url + RECORDS)
            assert str(caught.value).startswith(api.page_url(3))

    @pytest.mark.parametrize("limit", ["max_pages=2", "max_bytes=100"])
    def test_caps(self, limit):
        """More than was declared is never taken."""
        with serving() as api, pytest.raises(FetchError, match=r"max_pages=2|max_bytes is 100"):
            chunks(f"{api.url}{RECORDS}&{limit}")

    def test_unverified(self, caplog):
        """A page that nothing proves is used, and the log says so."""
        with serving(Plan(framing=Framing.UNSTATED)) as api, caplog.at_level(logging.WARNING):
            chunks(api.url + RECORDS)
            told = [line.extra_fields["source"] for line in caplog.records]
            assert told == [api.url, api.page_url(2), api.page_url(3)]


class TestTerritory:
    """Where a source may lead, and who is told the token."""

    def test_token(self, caplog):
        """The token goes to its own host, and is seen nowhere."""
        with serving() as api, caplog.at_level(logging.DEBUG):
            config = AppConfig(web={"token": TOKEN, "token_host": api.origin.split("//")[1]})
            read = chunks(api.url + RECORDS, config)
            assert {request.headers["authorization"] for request in api.requests} == {
                f"Bearer {TOKEN}"
            }
        shown = repr(read) + repr([line.__dict__ for line in caplog.records])
        assert TOKEN not in shown

    def test_key_of_the_service(self):
        """`api_key` goes to the origin of `api_endpoint` only."""
        config = AppConfig(api_endpoint="https://api.example.com/labels", api_key=TOKEN)
        assert api_source("https://api.example.com/orders", config).headers
        assert not api_source("https://api.example.com:444/orders", config).headers
        assert not api_source("https://example.com/orders", config).headers

    def test_redirect(self):
        """Another host is not followed to, unless the settings allow it."""
        with serving() as other:
            plan = Plan(Misdeed.REDIRECT, times=None, location=other.url)
            with serving(plan) as api, pytest.raises(FetchError, match="leads to another host"):
                chunks(api.url + RECORDS)
            assert not other.requests

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("http://api.example.com/orders", "it is not encrypted"),
            (f"https://ada:{TOKEN}@api.example.com/", "must not hold a user or password"),
            ("https://api.example.com/#token=1", "'token' behind the # is not known"),
            ("https://api.example.com/#max_pages=none", "should be a valid integer"),
            ("https://api.example.com/#paging=cursor", "paging.cursor.field: Field required"),
            ("https:///orders", "must be an http or https address with a host"),
        ],
    )
    def test_refused(self, address, said):
        """A mistake is found before anything is sent."""
        with pytest.raises(SourceError) as caught:
            open_web(address, config=AppConfig())
        assert said in str(caught.value)
        assert TOKEN not in str(caught.value)

    def test_plain_http_allowed(self):
        """Whoever allows it may read without encryption."""
        config = AppConfig(web={"allow_http": True})
        assert open_web("http://api.example.com/orders", config=config).name
