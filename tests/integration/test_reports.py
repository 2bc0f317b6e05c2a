"""Runs with real kernels: what they leave behind, and that they leave nothing else."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook import reports
from tallybook.errors import OutputError, ParameterError, ValidationError
from tallybook.files import sha256_file
from tallybook.reports import RunResult, find_report, list_reports, run_report
from tallybook.runner import remove_abandoned
from tallybook.types import RunState

FOREVER = "while True: pass"

Run = Callable[..., RunResult]


def write_report(folder: Path, *sources: str, parameters: str = "", name: str = "tiny") -> Path:
    """Write a notebook from the sources of its code cells."""
    cells = [new_markdown_cell(f"# The {name} report\n\n> It is small.")]
    if parameters:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source) for source in sources]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write a notebook and run it with its bundle in the test's folder."""

    def run_sources(
        *sources: str,
        parameters: str = "",
        given: dict[str, object] | None = None,
        seconds: float = 60,
    ) -> RunResult:
        path = write_report(tmp_path, *sources, parameters=parameters)
        return run_report(path, given, runs_dir=tmp_path / "runs", timeout_seconds=seconds)

    return run_sources


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the living processes of every run under a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            places = process.environ().get("TALLYBOOK_RUN_DIR", ""), process.cwd()
            ours = process.pid != os.getpid() and any(
                place.startswith(f"{folder}{os.sep}") for place in places
            )
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def check_nothing_stays(folder: Path) -> None:
    """Fail if a process or a half-built folder of a run is left."""
    assert processes_of(folder) == []
    assert list(folder.rglob("*.partial")) == []


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    """After every test no process and no half-built folder is left."""
    yield
    check_nothing_stays(tmp_path)


def names(folder: Path | None) -> set[str]:
    """Return the names in a folder."""
    assert folder is not None
    return {path.name for path in folder.iterdir()}


@dataclass(frozen=True)
class Finished:
    """A run that ended well, and what it told on the way."""

    result: RunResult
    folder: Path
    steps: list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run that uses everything, and leaves a process behind that has gone its own way."""
    place = tmp_path_factory.mktemp("finished")
    report = write_report(
        place,
        "import os, subprocess\nimport altair as alt\nimport polars as pl",
        "from tallybook.log import get_logger\nfrom tallybook.publish import publish, record",
        "get_logger('mine').warning('careful')\nprint(os.getcwd())",
        "frame = pl.DataFrame({'category': ['<b>', 'b'], 'total': [1.5, 2.5]})",
        "publish(frame, 'totals', title='Two totals')\nrecord('answer', 42)",
        "publish(alt.Chart(frame).mark_bar().encode(x='total', y='category'), 'bars')",
        "subprocess.Popen(['sleep', '600'], start_new_session=True);",
    )
    steps: list[tuple[int, int, str]] = []
    result = run_report(report, runs_dir=place, on_progress=lambda *step: steps.append(step))
    check_nothing_stays(place)
    assert result.folder is not None
    return Finished(result, result.folder, steps)


class TestBundle:
    """A run that ends well leaves a complete folder."""

    def test_is_complete(self, finished: Finished) -> None:
        """Everything that DESIGN.md names is there, and nothing of the making."""
        assert (finished.result.state, finished.result.reason) == (RunState.OK, None)
        files = {"report.html", "notebook.ipynb", "manifest.json", "log.jsonl", "charts", "tables"}
        assert names(finished.folder) == files

    def test_manifest_is_what_the_result_holds(self, finished: Finished) -> None:
        """The file and the result say the same, and name their run and their notebook."""
        written = json.loads((finished.folder / "manifest.json").read_text())
        assert written == finished.result.manifest
        assert written["run_id"] == finished.folder.name
        assert written["report"] == finished.folder.parent.name == "tiny"
        assert written["title"] == "The tiny report"
        assert written["values"] == {"answer": 42}
        assert set(written["versions"]) == {"python", "tallybook", "polars", "altair", "papermill"}
        assert written["started_at"].endswith("+00:00")
        assert "error" not in written

    def test_log_is_json_lines(self, finished: Finished) -> None:
        """The runner's lines and the notebook's are in one log."""
        log = (finished.folder / "log.jsonl").read_text()
        lines = [json.loads(line) for line in log.splitlines()]
        assert ("tallybook.mine", "careful") in {
            (line["logger"], line["message"]) for line in lines
        }
        assert lines[-1]["state"] == "ok"

    def test_charts_and_tables_are_kept(self, finished: Finished) -> None:
        """A chart is there as specification, SVG and PNG, a table as Parquet."""
        [chart], [table] = (finished.result.manifest[kind] for kind in ("charts", "tables"))
        assert names(finished.folder / "charts") == {"bars.vl.json", "bars.svg", "bars.png"}
        assert all((finished.folder / file).is_file() for file in chart["files"].values())
        assert chart["sha256"] == sha256_file(finished.folder / chart["files"]["spec"])
        assert table["sha256"] == sha256_file(finished.folder / table["file"])
        assert (table["title"], table["rows"], table["columns"]) == (
            "Two totals",
            2,
            ["category", "total"],
        )

    def test_shows_nothing_of_this_machine(self, finished: Finished) -> None:
        """The notebook printed where it was; the bundle does not tell."""
        for name in ("notebook.ipynb", "manifest.json"):
            text = (finished.folder / name).read_text()
            assert str(finished.folder.parent) not in text
            assert sys.prefix not in text

    def test_progress_was_told(self, finished: Finished) -> None:
        """Steps come in order, one for each cell and one for the page."""
        steps = [*((done, 8, "The tiny report") for done in range(7)), (7, 8, "Writing the page")]
        assert finished.steps == steps


class TestParameters:
    """Values are checked before anything starts, and arrive as they were meant."""

    def test_are_converted_by_their_type(self, run: Run) -> None:
        """Text becomes what the cell declares; quotes, braces and line ends arrive untouched."""
        hostile = "\"; import os # \\' {x} \n\u2028</script>\N{SNOWMAN}"
        result = run(
            "from tallybook.publish import record\nrecord('got', [code, count, since, text])",
            parameters="from datetime import date\ncode: str = ''\ncount: int = 0\n"
            "since: date | None = None\ntext: str = ''",
            given={"code": "007", "count": "007", "since": "2013-02-09", "text": hostile},
        )
        assert result.manifest["values"]["got"] == ["007", 7, "2013-02-09", hostile]
        assert list(result.manifest["parameters"].values()) == ["007", 7, "2013-02-09", hostile]

    @pytest.mark.parametrize("name", ["x = 1; open('made', 'w')", "tpo", "", "__class__"])
    def test_an_undeclared_name_is_never_run(self, run: Run, tmp_path: Path, name: str) -> None:
        """Papermill executes names; ours are refused before there is a run."""
        with pytest.raises(ParameterError) as caught:
            run("1", parameters="top: int = 1", given={name: 1})
        assert list(caught.value.context["problems"]) == [name]
        assert not (tmp_path / "runs").exists()

    def test_relative_paths_start_where_the_run_was_asked_for(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A Path parameter and a source mean the caller's folder; the run works in an empty one."""
        (tmp_path / "rides.csv").write_text(
            "timestamp,category,amount\n2013-02-09T10:00:00Z,a,1.5\n"
        )
        monkeypatch.chdir(tmp_path)
        result = run(
            "import os\nfrom tallybook.publish import load, record\nrecord('here', os.listdir())",
            "record('there', Path(place).exists())\nrides = load(source)",
            parameters="from pathlib import Path\nsource: str = ''\nplace = Path('rides.csv')",
            given={"source": "rides.csv"},
        )
        assert result.reason is None
        assert result.manifest["values"] == {"here": [], "there": True}
        [rides] = result.manifest["inputs"]
        assert (rides["source"], rides["rows_read"], len(rides["sha256"])) == ("rides.csv", 1, 64)


class TestEnding:
    """Each way to end has its own state, judged by what happened."""

    def test_gate(self, run: Run) -> None:
        """A check that says no ends the run there; what came before is kept."""
        result = run(
            "from tallybook.publish import gate, record",
            "record('before', 1)\ngate(False, 'rows were read')\nrecord('after', 2)",
        )
        assert result.state is RunState.GATE_FAILED
        assert result.reason == "check failed: rows were read"
        assert result.manifest["gates"] == [{"message": "rows were read", "passed": False}]
        assert result.manifest["values"] == {"before": 1}

    def test_error_in_a_cell(self, run: Run) -> None:
        """The failure page names the cell and the error; the bundle is complete."""
        result = run("1", "{}['amuont']", "2")
        assert (result.state, result.reason) == (RunState.CELL_FAILED, "KeyError: 'amuont'")
        error = result.manifest["error"]
        assert (error["cell"], error["ename"], error["evalue"]) == (3, "KeyError", "'amuont'")
        assert "Traceback" in error["traceback"]
        assert "\x1b" not in error["traceback"]
        assert result.page is not None
        assert "amuont" in result.page.read_text()

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import sys; sys.exit(0)", "the notebook called sys.exit(0)"),
            ("from tallybook.publish import skip; skip('a holiday')", "a holiday"),
        ],
    )
    def test_skipped_on_purpose(self, run: Run, source: str, reason: str) -> None:
        """Nothing failed, and no later cell was executed."""
        result = run(source, "from tallybook.publish import record; record('late', 1)")
        assert (result.state, result.reason, result.state.exit_code) == (
            RunState.SKIPPED,
            reason,
            0,
        )
        assert result.manifest["values"] == {}

    def test_killed_kernel(self, run: Run) -> None:
        """The saved notebook would say that all is well; the state does not."""
        result = run("import os", "os.kill(os.getpid(), 9)", "print('never')")
        assert result.state is RunState.KERNEL_DIED
        assert "SIGKILL in cell 3" in str(result.reason)
        assert result.folder is not None
        cells = nbformat.read(result.folder / "notebook.ipynb", 4).cells
        assert [cell.metadata.papermill["status"] for cell in cells[1:]] == [
            "completed",
            "failed",
            "pending",
        ]

    def test_deadline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An endless cell is ended with all it has started, even what has left its session."""
        report = write_report(
            tmp_path,
            "import subprocess, sys\nfrom tallybook.publish import record\nrecord('begun', True)",
            "subprocess.Popen([sys.executable, '-c', 'while True: pass'], start_new_session=True)",
            FOREVER,
        )
        clock = iter([0.0, 1.0, 2.0, 3.0])  # then the deadline, and time to write the page

        def leap_at_the_end(done: int, _total: int, _what: str) -> None:
            nonlocal clock
            clock = itertools.count(700.0, 0.001) if done == 2 else clock

        watch = SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep, time=time.time)
        monkeypatch.setattr("tallybook.reports.time", watch)
        result = run_report(
            report, runs_dir=tmp_path / "runs", timeout_seconds=600, on_progress=leap_at_the_end
        )
        assert result.state is RunState.TIMED_OUT
        assert result.reason == "the deadline of 600 seconds passed in cell 4"
        assert result.manifest["values"] == {"begun": True}

    def test_lost_runner(self, run: Run) -> None:
        """When the process in the middle is killed, the run is lost, and its page says so."""
        result = run("import os", f"os.kill(os.getppid(), 9)\n{FOREVER}")
        assert (result.state, result.reason) == (RunState.LOST, "the run's process was lost")
        assert result.page is not None

    def test_lost_when_all_was_done(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A runner that dies when its bundle is there already takes nothing away from it."""
        follow = reports._follow
        monkeypatch.setattr(reports, "_follow", lambda *given: {**follow(*given), "ended": "lost"})
        result = run("1 + 1")
        assert (result.state, result.reason) == (RunState.OK, None)
        assert result.page is not None


class TestStopping:
    """Whoever asked for the run can be stopped at any time."""

    PROGRAM = """
import sys
from pathlib import Path
from tallybook.reports import run_report

def tell(done, total, what):
    print(done, flush=True)

result = run_report(sys.argv[1], runs_dir=Path(sys.argv[2]), timeout_seconds=60, on_progress=tell)
print(result.state.value, result.folder, flush=True)
sys.exit(result.state.exit_code)
"""

    @pytest.fixture
    def caller(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        """Return a process whose report is in an endless cell."""
        report = write_report(tmp_path, FOREVER)
        command = [sys.executable, "-c", self.PROGRAM, str(report), str(tmp_path / "runs")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
            yield process
            process.kill()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_cancelled(
        self, caller: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
    ) -> None:
        """Ctrl-C and SIGTERM end the run as cancelled, without a bundle."""
        caller.send_signal(number)
        assert caller.communicate(timeout=30) == ("cancelled None\n", None)
        assert caller.returncode == 130
        assert list((tmp_path / "runs" / "tiny").iterdir()) == []

    def test_caller_killed(self, caller: subprocess.Popen[str], tmp_path: Path) -> None:
        """When the caller cannot clear up, the runner does."""
        started = processes_of(tmp_path)
        assert len(started) == 2
        caller.kill()
        _, alive = psutil.wait_procs(started, timeout=30)
        assert alive == []

    def test_all_but_the_kernel_killed(self, caller: subprocess.Popen[str], tmp_path: Path) -> None:
        """A kernel that has lost its runner ends; the next run would remove the rest."""
        started = processes_of(tmp_path)
        [runner] = [process for process in started if process.ppid() == caller.pid]
        caller.kill()
        runner.kill()
        _, alive = psutil.wait_procs(started, timeout=30)
        assert alive == []
        [work] = (tmp_path / "runs" / "tiny").glob(".*.partial")
        os.utime(work, (0, 0))
        remove_abandoned(work.parent)


class TestIsolation:
    """A run depends on nothing personal, and runs do not meet."""

    def test_personal_settings_are_ignored(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither another kernel called python3 nor start-up files have a say."""
        kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        kernel.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "", "language": ""}))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        startup = tmp_path / "ipython" / "profile_default" / "startup" / "00.py"
        startup.parent.mkdir(parents=True)
        startup.write_text("personal = True")
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("PYTHONSTARTUP", str(startup))
        result = run(
            "import sys\nfrom tallybook.publish import record",
            "record('python', sys.executable)\nrecord('personal', 'personal' in globals())",
        )
        assert result.manifest["values"] == {"python": sys.executable, "personal": False}

    def test_side_by_side(self, tmp_path: Path) -> None:
        """Two runs in threads have a folder each."""
        source = "from tallybook.publish import record\nopen('mine', 'w').close()\nimport os\n"
        report = write_report(tmp_path, f"{source}record('names', os.listdir())")
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(run_report, report, runs_dir=tmp_path / "runs", force=True)
                for _ in range(2)
            ]
            results = [each.result() for each in runs]
        assert [result.manifest["values"] for result in results] == [{"names": ["mine"]}] * 2
        assert results[0].folder != results[1].folder

    def test_plain_papermill(self, tmp_path: Path) -> None:
        """The same notebook runs under papermill alone; then the calls only show."""
        report = write_report(
            tmp_path,
            "from tallybook.publish import gate\ngate(top == 5, 'it is five')",
            parameters="top: int = 10",
        )
        done = tmp_path / "out.ipynb"
        command = [
            "papermill",
            str(report),
            str(done),
            "-k",
            "python3",
            "-l",
            "python",
            "-p",
            "top",
            "5",
        ]
        subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
        text = done.read_text()
        assert "top = 5" in text
        assert "Check passed: it is five" in text


class TestAsking:
    """What can be said before a run is said at once."""

    def test_progress_that_fails(self, tmp_path: Path) -> None:
        """An error in the caller's own function comes out, and the run is cleared away."""

        def fail(*_step: object) -> None:
            raise RuntimeError("no terminal")

        with pytest.raises(RuntimeError, match="no terminal"):
            run_report(write_report(tmp_path, "1"), runs_dir=tmp_path / "runs", on_progress=fail)
        assert list((tmp_path / "runs" / "tiny").iterdir()) == []

    def test_unknown_report(self) -> None:
        """A wrong name is a mistake of usage."""
        with pytest.raises(ValidationError, match="there is no report 'no_such_report'"):
            find_report("no_such_report")

    def test_runs_folder_that_is_a_file(self, tmp_path: Path) -> None:
        """It is said before anything starts."""
        (tmp_path / "runs").write_text("")
        with pytest.raises(OutputError, match="folder cannot be made"):
            run_report(write_report(tmp_path, "1"), runs_dir=tmp_path / "runs")

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_no_time(self, tmp_path: Path, seconds: float) -> None:
        """A deadline in the past is refused."""
        with pytest.raises(ValidationError, match="needs more time"):
            run_report(write_report(tmp_path, "1"), runs_dir=tmp_path, timeout_seconds=seconds)

    def test_list(self, tmp_path: Path) -> None:
        """Reports are listed by name, with title and description from their first cell."""
        write_report(tmp_path, "1", name="beta")
        write_report(tmp_path, "1", name="alpha")
        found = list_reports(tmp_path)
        assert [report.name for report in found] == ["alpha", "beta"]
        assert (found[0].title, found[0].description) == ("The alpha report", "It is small.")
