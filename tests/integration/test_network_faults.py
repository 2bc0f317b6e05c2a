"""Nine ways a network fails: a complete, verified answer or a clear error, never a short one.

`make test` tries a few seeds of each; under the soak profile (`make soak`) there are a hundred, and
the deadline is measured too. A seed decides where and how often the fault strikes, how bodies are
framed, how the API pages, and how patient the reader is.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from tests.support.faulty_http import FaultyApi, Framing, Misdeed, Plan

from tallybook.errors import FetchError
from tallybook.fetch import Fault, Timing
from tallybook.paging import (
    AnyPaging,
    ApiLimits,
    ApiSource,
    Cursor,
    LinkHeader,
    NextField,
    Page,
    PageNumber,
    api_pages,
)

pytestmark = pytest.mark.hypothesis  # so that `make soak` runs this too

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
SEEDS = 100 if SOAK else 5
AT_ONCE = 10
OVERSHOOT_SECONDS = 1.0
MEGABYTE = 2**20

PAGINGS: tuple[AnyPaging, ...] = (
    LinkHeader(),
    NextField(),
    Cursor(field="cursor"),
    Cursor(field="cursor", more_field="more"),
    PageNumber(),
    PageNumber(total_pages_field="pages"),
)
EXPECTED_FAULTS = {
    Misdeed.REFUSED: {Fault.UNREACHABLE, Fault.CUT_OFF},
    Misdeed.RESET: {Fault.CUT_OFF, Fault.CORRUPT},
    Misdeed.HALF_BODY: {Fault.CUT_OFF, Fault.CORRUPT},
    Misdeed.SLOW_DRIP: {Fault.TIMED_OUT, Fault.DEADLINE},
    Misdeed.SILENCE: {Fault.TIMED_OUT, Fault.DEADLINE},
    Misdeed.TOO_MANY: {Fault.BUSY},
    Misdeed.UNAVAILABLE: {Fault.BUSY},
    Misdeed.REDIRECT: {Fault.NOT_ALLOWED, Fault.BAD_ANSWER},
    Misdeed.BOMB: {Fault.TOO_LARGE},
}


@dataclass(frozen=True)
class Outcome:
    """What became of one read, and how long it went beyond its deadline."""

    fault: str | None
    overshoot_seconds: float


def make_pages(dice: Random) -> list[list[str]]:
    """Return one to six pages of records whose amounts need every digit."""
    sizes = [dice.randint(1, 5) for _ in range(dice.randint(1, 6))]
    amounts = iter(dice.getrandbits(80) for _ in range(sum(sizes)))
    return [
        [f'{{"category": "c{page}", "amount": {next(amounts)}.10}}' for _ in range(size)]
        for page, size in enumerate(sizes, start=1)
    ]


def make_plan(misdeed: Misdeed, pages: int, dice: Random) -> Plan:
    away = (
        "http://localhost:9/x",
        "http://169.254.169.254/latest",
        "//x.test/",
        "file:///etc/passwd",
    )
    return Plan(
        misdeed=misdeed,
        page=dice.randint(1, pages),
        times=dice.choice([1, 1, 2, 3, None]),
        framing=dice.choice(list(Framing)),
        cut=dice.random(),
        retry_after=dice.choice(["0", "1", "86400", "Wed, 23 Nov 2126 00:00:00 GMT", "soon"]),
        location=dice.choice(away),
    )


def make_source(api: FaultyApi, dice: Random) -> ApiSource:
    """Return an impatient reader of a slow server, else one whom a busy machine cannot hurry."""
    hurry = api.plan.misdeed in {Misdeed.SLOW_DRIP, Misdeed.SILENCE}
    limits = ApiLimits(
        request_timeout_seconds=dice.uniform(0.1, 1.5) if hurry else 30,
        deadline_seconds=dice.uniform(0.3, 1.0) if hurry else 30,
        max_retries=dice.choice([0, 2, 3, 4]),
        backoff_base_seconds=0.002,
        retry_after_cap_seconds=0.01,
        requests_per_second=None,
        concurrency=dice.choice([1, 2, 4]),
        max_bytes=MEGABYTE,
    )
    paging = dice.choice(PAGINGS)
    return ApiSource(
        url=api.url, records="items", paging=paging, total_field="total", limits=limits
    )


def check_complete(pages: list[Page], api: FaultyApi) -> None:
    """Every record came once, in order, with every digit, and the proof is what was sent."""
    amounts = [record["amount"] for page in pages for record in page.records]
    sent = [text.split('"amount": ')[1].rstrip("}") for page in api.pages for text in page]
    assert amounts == sent
    assert all(page.verified == (api.plan.framing is not Framing.UNSTATED) for page in pages)


async def read_once(misdeed: Misdeed, seed: int) -> Outcome:
    """Read an API that fails in one way: a complete answer, or an error of the right kind."""
    dice = Random(f"{misdeed}-{seed}")  # noqa: S311 (a seed, not a secret)
    pages = make_pages(dice)
    loop = asyncio.get_running_loop()
    async with FaultyApi(pages, make_plan(misdeed, len(pages), dice)) as api:
        source = make_source(api, dice)
        start, fault, clear = loop.time(), None, False
        try:
            check_complete([p async for p in api_pages(source, timing=Timing(sleep=api.nap))], api)
        except FetchError as error:
            fault = error.context["fault"]
            clear = fault in EXPECTED_FAULTS[misdeed] and api.origin in str(error)
        assert fault is None or clear, f"seed {seed}: {fault}"
        return Outcome(fault, loop.time() - start - source.limits.deadline_seconds)


async def read_seeds(misdeed: Misdeed) -> list[Outcome]:
    permits = asyncio.Semaphore(AT_ONCE)

    async def read_one(seed: int) -> Outcome:
        async with permits:
            return await read_once(misdeed, seed)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read_one(seed)) for seed in range(SEEDS)]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("misdeed", EXPECTED_FAULTS)
class TestNineFaults:
    async def test_complete_or_clear_error(self, misdeed, record_property):
        """Never a short answer; and in the soak, never more than a second over the deadline."""
        outcomes = await read_seeds(misdeed)
        worst = max(outcome.overshoot_seconds for outcome in outcomes)
        counts = Counter(outcome.fault or "complete" for outcome in outcomes)
        record_property("outcomes", dict(counts))
        print(f"{misdeed}: {dict(counts)}, past the deadline at most {worst:+.3f} s")  # noqa: T201
        assert sum(counts.values()) == SEEDS
        if SOAK:
            assert worst <= OVERSHOOT_SECONDS


class TestPassingFaults:
    @pytest.mark.parametrize(
        "misdeed",
        [
            Misdeed.REFUSED,
            Misdeed.RESET,
            Misdeed.HALF_BODY,
            Misdeed.TOO_MANY,
            Misdeed.UNAVAILABLE,
            Misdeed.WRONG_DIGEST,
            Misdeed.DAMAGED_GZIP,
        ],
    )
    @pytest.mark.parametrize("framing", Framing)
    async def test_a_fault_that_passes_is_survived(self, misdeed, framing):
        """Three failures and a success are a success, whatever the framing."""
        pages = make_pages(Random(7))  # noqa: S311
        plan = Plan(misdeed, page=len(pages), times=3, framing=framing)
        async with FaultyApi(pages, plan) as api:
            source = ApiSource(url=api.url, records="items")
            read = [page async for page in api_pages(source, timing=Timing(sleep=api.nap))]
            check_complete(read, api)
