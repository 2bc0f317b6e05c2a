"""Killed at any moment, a run leaves a whole bundle or none, and no process."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from glob import glob
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook.files import sha256_file
from tallybook.runner import remove_abandoned
from tallybook.types import RunState

PROGRAM = """
import sys
from pathlib import Path
from tallybook.reports import run_report
print(flush=True)
run_report(sys.argv[1], runs_dir=Path(sys.argv[2]), timeout_seconds=120)
"""
CELLS = [
    "import polars as pl\nfrom tallybook.publish import publish, record",
    "frame = pl.DataFrame({'category': ['a', 'b'], 'total': [1.5, 2.5]})\nrecord('answer', 42)",
    "publish(frame, 'totals')",
    "import altair as alt",
    "publish(alt.Chart(frame).mark_bar().encode(x='total', y='category'), 'bars')",
]
TARGETS = ["caller", "group", "runner", "kernel", "all"]
SIGNALS = [signal.SIGTERM, signal.SIGKILL]

Reached = Callable[[Path], bool]


def found(folder: Path, pattern: str) -> set[Path]:
    """Return what is of that name under a folder whose folders come and go meanwhile."""
    names = glob(pattern, root_dir=folder, include_hidden=True)  # noqa: PTH207 - pathlib's raises
    return {folder / name for name in names}


def has(pattern: str) -> Reached:
    """Return a test whether something of that name is under the folder of a report's runs."""
    return lambda runs: bool(found(runs, pattern))


POINTS: dict[str, Reached] = {
    "place": has(".*.partial"),
    "kernel": has(".*.partial/scratch/connection.json"),
    "sockets": has(".*.partial/scratch/kernel-5"),
    "log": has(".*.partial/log.jsonl"),
    "journal": has(".*.partial/journal.jsonl"),
    "table": has(".*.partial/tables/*"),
    "chart": has(".*.partial/charts/*"),
    "notebook": has(".*.partial/notebook.ipynb"),
    "page": has(".*.partial/report.html"),
    "manifest": has(".*.partial/manifest.json"),
    "bundle": has("2*/manifest.json"),
}


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the living processes of runs under a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            places = process.environ().get("TALLYBOOK_RUN_DIR", ""), process.cwd()
            ours = any(place.startswith(f"{folder}{os.sep}") for place in places)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def by_role(folder: Path, caller: int) -> dict[str, list[int]]:
    """Return the processes of a run by the part they have in it."""
    alive = processes_in(folder)
    roles: dict[str, list[int]] = {"caller": [caller], "runner": [], "kernel": []}
    for process in alive:
        with suppress(psutil.Error, ProcessLookupError):
            leads_session = os.getsid(process.pid) == process.pid
            roles["runner" if leads_session else "kernel"].append(process.pid)
    return {**roles, "all": [pid for pids in roles.values() for pid in pids]}


def strike(folder: Path, caller: int, target: str, number: signal.Signals) -> None:
    """Send a signal to one part of a run, or to all of it."""
    if target == "group":
        os.killpg(caller, number)
        return
    for pid in by_role(folder, caller)[target]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def check_bundle(bundle: Path) -> None:
    """Fail unless a bundle is whole."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    RunState(manifest["state"])
    assert (bundle / "report.html").read_text().rstrip().endswith("</html>")
    nbformat.read(bundle / "notebook.ipynb", 4)
    assert not {"scratch", "journal.jsonl"} & {path.name for path in bundle.iterdir()}
    for table in manifest["tables"]:
        assert sha256_file(bundle / table["file"]) == table["sha256"]
    for chart in manifest["charts"]:
        assert all((bundle / file).is_file() for file in chart["files"].values())


def clear_away(runs: Path) -> None:
    """Do what the next run would do with a place that is old.

    A killed process loses its environment, by which we know it, before its lock on the place.
    """
    deadline = time.monotonic() + 60
    while places := list(runs.glob(".*.partial")):
        for place in places:
            os.utime(place, (0, 0))
        remove_abandoned(runs)
        if time.monotonic() > deadline:
            break


def check(folder: Path) -> None:
    """Fail if a process, half a bundle or a place that nobody can clear away is left."""
    runs = folder / "runs" / "tiny"
    for _ in range(20):  # a kernel may have been born while we looked
        alive = processes_in(folder)
        if not alive:
            break
        psutil.wait_procs(alive, timeout=60)
    assert processes_in(folder) == []
    clear_away(runs)
    left = list(runs.iterdir()) if runs.exists() else []
    assert [path.name for path in left if path.name.startswith(".")] == []
    for bundle in left:
        check_bundle(bundle)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a caller that is about to run a report."""
    cells = [new_markdown_cell("# The tiny report"), *map(new_code_cell, CELLS)]
    report = folder / "tiny.ipynb"
    nbformat.write(new_notebook(cells=cells), report)
    caller = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(report), str(folder / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    assert caller.stdout is not None
    caller.stdout.readline()
    return caller


def kill_at_point(folder: Path, point: str, target: str, number: signal.Signals) -> None:
    """Run a report, strike when its folder has reached a state, and check what is left."""
    with start(folder) as caller:
        while caller.poll() is None and not POINTS[point](folder / "runs" / "tiny"):
            pass
        with suppress(ProcessLookupError):
            strike(folder, caller.pid, target, number)
        caller.wait(120)
    check(folder)


def kill_at_moment(folder: Path, seconds: float, target: str, number: signal.Signals) -> None:
    """Run a report, strike after a while, and check what is left."""
    with start(folder) as caller:
        with suppress(subprocess.TimeoutExpired):
            caller.wait(seconds)
        with suppress(ProcessLookupError):
            strike(folder, caller.pid, target, number)
        caller.wait(120)
    check(folder)


class TestNamedPoints:
    """What is being made tells how far a run is."""

    @pytest.mark.parametrize(
        ("point", "target", "number"),
        [
            ("sockets", "runner", signal.SIGTERM),
            ("journal", "kernel", signal.SIGTERM),
            ("notebook", "caller", signal.SIGKILL),
            ("manifest", "group", signal.SIGTERM),
        ],
    )
    def test_some(self, tmp_path: Path, point: str, target: str, number: signal.Signals) -> None:
        """Each part of a run once."""
        kill_at_point(tmp_path, point, target, number)

    @pytest.mark.soak
    @pytest.mark.parametrize("number", SIGNALS)
    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("point", POINTS)
    def test_every(self, tmp_path: Path, point: str, target: str, number: signal.Signals) -> None:
        """Every part of a run at every point."""
        kill_at_point(tmp_path, point, target, number)


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run takes here that nobody kills."""
    folder = tmp_path_factory.mktemp("whole")
    started = time.perf_counter()
    with start(folder) as caller:
        caller.wait(120)
    check(folder)
    return time.perf_counter() - started


@pytest.mark.soak
class TestRandomMoments:
    """Between the points, and at all times."""

    @pytest.mark.parametrize("seed", range(200))
    def test_one(self, tmp_path: Path, seconds: float, seed: int) -> None:
        """A moment, a part and a signal, drawn by the seed."""
        chance = random.Random(seed)  # noqa: S311 - not a secret
        moment = chance.uniform(0, 1.05) * seconds
        kill_at_moment(tmp_path, moment, chance.choice(TARGETS), chance.choice(SIGNALS))
