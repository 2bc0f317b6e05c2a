"""`POST /tally` in a real server under tampered uploads: each is answered, and nothing is left."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from tests.support.service import Service, serve
from tests.support.uploads import Upload, seeds, upload

MIB = 1 << 20
ROOMY = {"TALLYBOOK_SERVICE__REQUESTS_PER_SECOND": "100000"}
WARM_UP = 1000
MOST_GROWTH = 64 * MIB
READERS = 1
ANSWERS = {200, 400, 413, 415, 422}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service, with a folder of its own for temporary files."""
    (tmp_path / "tmp").mkdir()
    with serve(tmp_path, "--no-workers", TMPDIR=str(tmp_path / "tmp"), **ROOMY) as made:
        yield made


def send(service: Service, sent: Upload, kept: Path) -> int:
    """Send an upload; fail, and keep it, unless the answer is totals or the caller's mistake."""
    kept.write_bytes(sent.kind.encode() + b"\n" + sent.body)
    try:
        headers = {"Content-Type": sent.kind}
        answer = service.client.post("/tally", content=sent.body, headers=headers)
    except httpx2.TransportError as error:
        raise AssertionError(f"no answer to {kept}: {service.log.read_text()[-3000:]}") from error
    assert answer.status_code in ANSWERS, f"{kept}: {answer.status_code} {answer.text[:1000]}"
    assert str(service.log.parent) not in answer.text
    return answer.status_code


def fuzz(service: Service, seed: int, going: Callable[[int], bool]) -> Counter[int]:
    """Send one upload after the other; return how often each answer came."""
    given, chance = seeds(), random.Random(seed)  # noqa: S311
    seen: Counter[int] = Counter()
    while going(seen.total()):
        seen[send(service, upload(given, chance), service.log.parent / "last-upload")] += 1
    return seen


def check_nothing_is_left(service: Service, opened: int) -> None:
    """Fail if a file, a descriptor, a process or an unforeseen error has stayed behind."""
    process = psutil.Process(service.process.pid)
    service.until(lambda: process.num_fds() <= opened + READERS)
    assert len(process.children()) <= READERS
    assert list((service.log.parent / "tmp").iterdir()) == []
    assert '"level": "ERROR"' not in service.log.read_text()


def warmed_up(service: Service, seed: int, count: int) -> tuple[int, int]:
    """Send some uploads, so that all is imported; return the memory and the descriptors in use."""
    fuzz(service, seed, lambda done: done < count)
    return memory(service), psutil.Process(service.process.pid).num_fds()


def memory(service: Service) -> int:
    """Return what the service and those who read for it have in memory, in bytes."""
    return sum(
        one.memory_info().rss for one in [psutil.Process(service.process.pid), *service.children()]
    )


def test_tampered_uploads(service: Service) -> None:
    """Whatever is uploaded gets totals or a refusal, and leaves nothing behind."""
    _, opened = warmed_up(service, 1, 20)
    seen = fuzz(service, 2, lambda done: done < 60)
    assert {200, 422} <= seen.keys()
    check_nothing_is_left(service, opened)


@pytest.mark.soak
def test_tampered_uploads_for_ten_minutes(
    service: Service, record_property: Callable[[str, object], None]
) -> None:
    """Nor does memory grow, for as long as somebody goes on; another seed each day."""
    before, opened = warmed_up(service, 1, WARM_UP)
    seed, end = int(time.time()) // 86_400, time.monotonic() + 600
    seen = fuzz(service, seed, lambda _: time.monotonic() < end)
    grown = memory(service) - before
    record_property("tampered uploads", seen.total())
    record_property("MiB grown by tampered uploads", grown // MIB)
    assert grown < MOST_GROWTH, f"{grown / MIB:.1f} MiB after {seen.total()} uploads, seed {seed}"
    check_nothing_is_left(service, opened)
