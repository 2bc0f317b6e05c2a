"""Work in a process apart: used again, replaced when it has died, gone when its owner is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tallybook.apart import Crew, DiedError, carry_out, dismiss

BOUND = 60
OWNER = """
import sys
from tallybook.apart import Crew, carry_out
crew = Crew("base64", "b64encode")
carry_out(crew, b"tea", 60)
print(crew._idle[0].process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def crew() -> Iterator[Crew]:
    """Processes that encode bytes; they are gone at the end."""
    made = Crew("base64", "b64encode")
    yield made
    dismiss(made)


def test_used_again(crew: Crew) -> None:
    """One order after the other is done by the same process."""
    pids = set()
    for _ in range(3):
        assert carry_out(crew, b"tea", BOUND) == b"dGVh"
        pids.add(crew._idle[0].process.pid)
    assert len(pids) == 1


def test_died_while_idle(crew: Crew) -> None:
    """A process that was killed when it had nothing to do is nobody's error."""
    carry_out(crew, b"tea", BOUND)
    dead = crew._idle[0].process
    dead.kill()
    dead.wait()
    assert carry_out(crew, b"cake", BOUND) == b"Y2FrZQ=="
    assert crew._idle[0].process.pid != dead.pid


def test_does_not_start() -> None:
    """Work that there is not is an error, not a process that nobody knows of."""
    with pytest.raises(DiedError, match="did not start"):
        carry_out(Crew("tallybook.no_such_module", "work"), b"", BOUND)


def test_owner_is_killed() -> None:
    """When the service is killed, its processes go."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        left = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    assert psutil.wait_procs([left], timeout=BOUND)[1] == []
