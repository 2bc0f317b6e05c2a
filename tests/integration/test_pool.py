"""Warm kernels: fresh for every run, gone with their owner."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tallybook import pool as pool_module
from tallybook.errors import OutputError, ValidationError
from tallybook.pool import Template, WarmPool, _start_template, taken, warm_pool
from tallybook.reports import RunResult, run_report
from tallybook.runner import Runner, clear_place, end_runner
from tallybook.types import RunState

FOREVER = "while True: pass"


def write_report(folder: Path, *sources: str, name: str = "tiny") -> Path:
    """Write a notebook from the sources of its code cells."""
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the living processes that work in a folder, or were started for it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            places = process.environ().get("TALLYBOOK_RUN_DIR", ""), process.cwd()
            ours = any(place.startswith(str(folder)) for place in places)
            if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's pool and its bundles are."""
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(place: Path) -> Iterator[WarmPool]:
    """One pool for the module; after it no process and no half-built folder is left."""
    with warm_pool(1, runs_dir=place / "runs") as opened:
        yield opened
    assert processes_in(place) == []
    assert list(place.rglob("*.partial")) == []


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that is dead may wait to be noticed by its parent."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def run(pool: WarmPool, folder: Path, *sources: str, seconds: float = 60) -> RunResult:
    """Run a notebook of these cells in a warm kernel."""
    return run_report(write_report(folder, *sources), pool=pool, timeout_seconds=seconds)


def wait_until_ready(runner: Runner) -> None:
    """Wait for a waiting runner to say that its kernel is ready."""
    assert runner.events.get(timeout=60) == {"ready": True}


class TestIsolation:
    """Nothing passes from one run to the next, nor from the pool's start to a run."""

    SPOIL = """
import builtins, json, os, sys, polars
spoiled = True
builtins.spoiled_too = True
sys.modules["json"].spoiled = True
sys.modules["spoiled"] = json
sys.path.append("/spoiled")
os.environ["SPOILED"] = "secret"
os.chdir("/")
kept_open = open("/proc/self/stat")
polars.Config.set_tbl_rows(1)
"""
    LOOK = """
import builtins, json, os, sys
from tallybook.publish import record
import polars
open("mine", "w").close()
record("seen", {
    "pid": os.getpid(),
    "globals": "spoiled" in globals() or hasattr(builtins, "spoiled_too"),
    "modules": hasattr(json, "spoiled") or "spoiled" in sys.modules or "/spoiled" in sys.path,
    "environment": "SPOILED" in os.environ,
    "names": os.listdir(),
    "options": polars.Config.state().get("POLARS_FMT_MAX_ROWS"),
    "asked": os.environ.get("ASKED"),
    "gone": os.environ.get("WAS_THERE"),
    "here": os.getcwd() == os.environ["TALLYBOOK_RUN_DIR"] + "/scratch/cwd",
    "files": sorted(
        os.readlink(f"/proc/self/fd/{each}").split(":")[0]
        for each in os.listdir("/proc/self/fd")
        if int(each) > 3 and os.path.exists(f"/proc/self/fd/{each}")
    ).count("pipe"),
})
"""

    def test_every_run_is_fresh(
        self, pool: WarmPool, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Globals, modules, folder, environment, files and options of one run end with it."""
        before = run(pool, place, self.LOOK).manifest["values"]["seen"]
        assert run(pool, place, self.SPOIL).state is RunState.OK
        monkeypatch.setenv("ASKED", "now")
        after = run(pool, place, f"{self.LOOK}\n").manifest["values"]["seen"]
        assert before.pop("pid") != after.pop("pid")
        clean = {
            "globals": False,
            "modules": False,
            "environment": False,
            "names": ["mine"],
            "options": None,
            "asked": None,
            "gone": None,
            "here": True,
        }
        assert {name: before[name] for name in clean} == clean
        assert {name: after[name] for name in clean} == {**clean, "asked": "now"}
        assert after["files"] == before["files"]

    def test_environment_is_that_of_the_order(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was in the environment when the pool was opened, and is not any more, is gone."""
        monkeypatch.setenv("WAS_THERE", "a secret")
        with warm_pool(1, runs_dir=place / "runs") as opened:
            wait_until_ready(opened._waiting[0])
            monkeypatch.delenv("WAS_THERE")
            seen = run(opened, place, f"{self.LOOK}\n\n").manifest["values"]["seen"]
        assert seen["gone"] is None

    def test_relative_sources_start_where_the_run_was_asked_for(
        self, pool: WarmPool, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As without a pool."""
        rides = "timestamp,category,amount\n2013-02-09T10:00:00Z,a,1.5\n"
        (place / "rides.csv").write_text(rides)
        monkeypatch.chdir(place)
        source = "from tallybook.publish import load\nload('rides.csv');"
        [noted] = run(pool, place, source).manifest["inputs"]
        assert (noted["source"], noted["rows_read"]) == ("rides.csv", 1)


class TestEnding:
    """A warm run ends as any other does."""

    def test_log_and_bundle(self, pool: WarmPool, place: Path) -> None:
        """The notebook's lines and the runner's are in the run's log; the bundle is complete."""
        source = "from tallybook.log import get_logger\nget_logger('mine').warning('careful')"
        result = run(pool, place, source)
        assert result.folder is not None
        names = {path.name for path in result.folder.iterdir()}
        assert names == {"report.html", "notebook.ipynb", "manifest.json", "log.jsonl"}
        assert "careful" in (result.folder / "log.jsonl").read_text()

    def test_nothing_survives(self, pool: WarmPool, place: Path) -> None:
        """Neither what leaves the session nor what forks itself away without a new program."""
        result = run(
            pool,
            place,
            "import os, subprocess\nfrom tallybook.publish import record",
            "one = subprocess.Popen(['sleep', '600'], start_new_session=True).pid",
            "import signal\ntwo = os.fork()\nif two == 0:\n    os.setsid()\n"
            "    os.close(1)\n    signal.pause()",
            "record('started', [one, two])",
        )
        assert result.state is RunState.OK
        assert not any(map(lives, result.manifest["values"]["started"]))

    def test_killed_kernel(self, pool: WarmPool, place: Path) -> None:
        """The state says so."""
        result = run(pool, place, "import os", "os.kill(os.getpid(), 9)")
        assert result.state is RunState.KERNEL_DIED
        assert "SIGKILL in cell 2" in str(result.reason)

    def test_lost_runner(self, pool: WarmPool, place: Path) -> None:
        """Nor does it matter that the runner is not our child."""
        result = run(pool, place, f"import os\nos.kill(os.getppid(), 9)\n{FOREVER}")
        assert result.state is RunState.LOST

    def test_deadline(self, pool: WarmPool, place: Path) -> None:
        """It is held from outside."""
        result = run(pool, place, "1", FOREVER, seconds=1)
        assert result.state is RunState.TIMED_OUT

    def test_closing_cancels(self, place: Path) -> None:
        """Runs in other threads end as cancelled, and leave no bundle."""
        begun = Event()
        with ThreadPoolExecutor(1) as threads:
            with warm_pool(1, runs_dir=place / "cancelled") as opened:
                report = write_report(place, FOREVER)
                running = threads.submit(
                    run_report, report, pool=opened, on_progress=lambda *_: begun.set()
                )
                assert begun.wait(60)
            assert running.result().state is RunState.CANCELLED
        assert [path.name for path in (place / "cancelled").rglob("*")] == ["tiny"]

    def test_threads_share_a_pool(self, pool: WarmPool, place: Path) -> None:
        """More runs at once than kernels wait: each has its own all the same."""
        source = "import os\nfrom tallybook.publish import record\nrecord('pid', os.getpid())"
        report = write_report(place, source)
        with ThreadPoolExecutor(3) as threads:
            runs = [threads.submit(run_report, report, pool=pool, force=True) for _ in range(3)]
            values = [each.result().manifest["values"]["pid"] for each in runs]
        assert len(set(values)) == 3


class TestWaiting:
    """What dies while it waits is replaced."""

    def test_dead_kernel(self, pool: WarmPool, place: Path) -> None:
        """The runner makes another one."""
        runner = pool._waiting[0]
        wait_until_ready(runner)
        [kernel] = psutil.Process(runner.pid).children()
        kernel.kill()
        wait_until_ready(runner)
        assert run(pool, place, "2").state is RunState.OK

    def test_dead_runner(self, pool: WarmPool, place: Path) -> None:
        """The pool takes the next one."""
        runner = pool._waiting[0]
        os.kill(runner.pid, signal.SIGKILL)
        while runner.events.get(timeout=60) is not None:
            pass
        runner.events.put(None)  # as it was
        assert run(pool, place, "3").state is RunState.OK
        assert runner not in pool._waiting

    def test_template_that_answers_no_more(self, pool: WarmPool, place: Path) -> None:
        """One that is about to end, but has not yet, is ended and not asked a second time."""
        before = pool._template
        assert before is not None
        before.process.send_signal(signal.SIGSTOP)
        before.line.shutdown(socket.SHUT_RDWR)
        assert run(pool, place, "6").state is RunState.OK
        assert before.process.returncode == -signal.SIGKILL

    def test_dead_template(self, pool: WarmPool, place: Path) -> None:
        """It is started again."""
        assert pool._template is not None
        pool._template.process.kill()
        pool._template.process.wait()
        assert run(pool, place, "4").state is RunState.OK
        assert run(pool, place, "5").state is RunState.OK

    def test_template_killed_again_and_again(
        self, pool: WarmPool, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Four that die as soon as they are started are no reason to give up."""
        start, started = pool_module._start_template, []

        def start_badly(runs: Path) -> Template:
            started.append(template := start(runs))
            if len(started) < 5:
                template.process.kill()
            return template

        monkeypatch.setattr(pool_module, "_start_template", start_badly)
        assert pool._template is not None
        pool._template.process.kill()
        pool._template.process.wait()
        assert run(pool, place, "7").state is RunState.OK
        assert len(started) == 5

    def test_moved_while_it_starts(self, tmp_path: Path) -> None:
        """A run may be ordered, and the place get its name, before the kernel is ready."""
        program = (
            "import os, sys, time\nfrom pathlib import Path\n"
            "from ipykernel.kernelapp import IPKernelApp\n"
            "from tallybook.kernel import start_kernel\n"
            "go_on = IPKernelApp.init_heartbeat\n"
            "IPKernelApp.init_heartbeat = lambda self: (os.rename(*sys.argv[1:]), go_on(self))\n"
            "kernel = start_kernel([])\n"
            "kernel.begin(os.environ, Path('../begun.log'))\n"
            "while kernel.is_alive() and not Path('../begun.log').exists():\n"
            "    time.sleep(0.01)\n"
            "print(Path('../kernel.log').read_text(), file=sys.stderr)\n"
            "sys.exit(kernel.exit_code())"
        )
        (tmp_path / "waiting" / "scratch" / "cwd").mkdir(parents=True)
        ended = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "waiting", tmp_path / "run"],
            cwd=tmp_path / "waiting" / "scratch" / "cwd",
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / "run" / "scratch" / "begun.log").exists()

    def test_ends_with_its_owner(self, tmp_path: Path) -> None:
        """Whoever holds the pool is killed: nothing of it is left."""
        program = (
            "import sys, time\nfrom pathlib import Path\nfrom tallybook.pool import warm_pool\n"
            "with warm_pool(2, runs_dir=Path(sys.argv[1])) as pool:\n"
            "    print(flush=True)\n    time.sleep(600)"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "runs")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            started = processes_in(tmp_path)
            owner.kill()
        assert len(started) >= 3
        _, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []
        assert list((tmp_path / "runs").iterdir()) == []


class TestTemplate:
    """It may fork because no thread of it holds anything."""

    def test_threads(self, pool: WarmPool) -> None:
        """Polars is imported but not used: its threads that compute are not there."""
        assert pool._template is not None
        tasks = Path("/proc", str(pool._template.process.pid), "task").iterdir()
        names = Counter((task / "comm").read_text().strip() for task in tasks)
        assert names.pop("python") == 1
        assert names.keys() == {"jemalloc_bg_thd", "polars-ooc-clea"}

    SPILL = """
import os, pathlib
import polars as pl
from tallybook.publish import record
rows = pl.LazyFrame({"n": pl.int_range(3_000_000, eager=True)})
rows = rows.with_columns(rest=pl.col("n") % 1_000_003, text=pl.col("n").cast(pl.String))
totals = rows.sort("rest", "text").group_by("rest").agg(pl.col("n").sum()).collect()
record("total", totals["n"].sum())
record("files", len(list(pathlib.Path(os.environ["POLARS_OOC_SPILL_DIR"]).rglob("*.ipc"))))
"""

    def test_memory_runs_short(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A kernel whose Polars has to put things on the disk counts right all the same."""
        monkeypatch.setenv("POLARS_OOC_MEMORY_BUDGET_MB", "50")
        monkeypatch.setenv("POLARS_OOC_SPILL_DIR", str(tmp_path))
        with warm_pool(1, runs_dir=place / "runs") as opened:
            values = run(opened, place, self.SPILL).manifest["values"]
        assert values["total"] == sum(range(3_000_000))
        assert values["files"] > 0

    def test_loses_its_owner(self, tmp_path: Path) -> None:
        """Whoever gave the order is killed before the answer: it ends, and has no more to say."""
        (tmp_path / "place" / "scratch" / "cwd").mkdir(parents=True)
        order = {
            "cwd": str(tmp_path / "place" / "scratch" / "cwd"),
            "mark": "0" * 32,
            "modules": [],
        }
        template = _start_template(tmp_path)
        nothing = os.open(os.devnull, os.O_RDWR)
        socket.send_fds(template.line, [json.dumps(order).encode()], [nothing] * 4)
        template.line.close()
        os.close(nothing)
        assert template.process.wait(60) == 0


class TestAsking:
    """What is wrong is said at once."""

    def test_size(self, tmp_path: Path) -> None:
        """A pool of nothing is refused."""
        with pytest.raises(ValidationError, match="at least 1 warm kernel"), warm_pool(0):
            pass

    def test_closed(self, tmp_path: Path) -> None:
        """A closed pool gives nothing."""
        pool = WarmPool(1, (), tmp_path, _closed=True)
        with pytest.raises(ValidationError, match="closed"), taken(pool):
            pass

    def test_folder_that_is_a_file(self, tmp_path: Path) -> None:
        """It is said when the pool is opened."""
        (tmp_path / "runs").write_text("")
        with (
            pytest.raises(OutputError, match="cannot be made"),
            warm_pool(runs_dir=tmp_path / "runs"),
        ):
            pass

    def test_run_elsewhere(self, pool: WarmPool, place: Path) -> None:
        """A runner that cannot move to where the run should be is ended."""
        (place / "occupied").write_text("")
        with pytest.raises(OutputError, match="cannot be made"):
            run_report(write_report(place, "6"), pool=pool, runs_dir=place / "occupied")

    def test_unused_is_ended(self, pool: WarmPool) -> None:
        """One that was taken, and not used, can be given up."""
        with taken(pool) as runner:
            end_runner(runner)
            clear_place(runner, runner.place)
        assert not lives(runner.pid)
