"""The recipes for other schedulers: well-formed, and each command run, its exit code carried."""

import configparser
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
import yaml
from cronsim import CronSim
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook.runs import LedgerState, list_runs, open_ledger

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
HERE = Path(sys.executable).parent
BOUND = 180
NOON = datetime(2026, 11, 24, 12)
ENDS = [
    pytest.param("True", 0, id="ok", marks=pytest.mark.soak),
    pytest.param("False", 3, id="gate_failed"),
]
PARAMETERS = 'source: str = ""  # the rides\nuntil: str = ""  # the first day that does not count'
# What the command itself can only be made to end as by hand.
STAND_IN = '#!/bin/sh\necho "$@"\nexit {code}\n'


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Path]:
    """A folder as the recipes expect it; its report ends well if its check says so."""

    def make(verdict: str) -> Path:
        cells = [new_markdown_cell("# Rides")]
        cells.append(new_code_cell("from tallybook.publish import gate"))
        cells.append(new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
        cells.append(new_code_cell(f"gate({verdict}, 'all rides have an end')"))
        folder = tmp_path / "srv"
        (folder / "reports").mkdir(parents=True)
        nbformat.write(new_notebook(cells=cells), folder / "reports" / "category_totals.ipynb")
        (folder / "rides.csv").write_text("timestamp,category,amount\n")
        (folder / "settings.ini").write_text("[tallybook]\nreports_dir = reports\n")
        return folder

    return make


def recipe(name: str, folder: Path) -> str:
    """Return a recipe that is meant for a folder, and for the Tallybook of this environment."""
    text = (RECIPES / name).read_text("utf-8")
    return text.replace("/srv/reports", str(folder)).replace("/opt/tallybook/bin", str(HERE))


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the little environment that a scheduler gives."""
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"} | more
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


def states(folder: Path) -> list[LedgerState]:
    """Return how the runs of a folder have ended or stand."""
    with closing(open_ledger(folder / "runs" / "ledger.db")) as ledger:
        return [one.state for one in list_runs(ledger).runs]


class TestCrontab:
    """A line a day."""

    def lines(self, folder: Path) -> list[tuple[str, str]]:
        """Return the lines that do something, also those commented out: their times and command."""
        text = recipe("crontab", folder)
        found = re.findall(r"^#?((?:[\d*/,-]+ ){4}[\d*/,-]+)  (.+)$", text, re.MULTILINE)
        assert len(found) == 2
        return found

    def test_times(self, tmp_path: Path) -> None:
        """Each line's five fields come due, and no `%` is a new line by mistake."""
        for when, command in self.lines(tmp_path):
            assert next(CronSim(when, NOON))
            assert "%" not in command

    @pytest.mark.parametrize(("verdict", "code"), ENDS)
    def test_report(self, place: Callable[[str], Path], verdict: str, code: int) -> None:
        """Nothing is mailed about a run that ends well; another one is told, with its exit code."""
        folder = place(verdict)
        done = run(["/bin/sh", "-c", self.lines(folder)[0][1]], Path("/"), HOME=str(folder))
        assert done.returncode == code, done.stdout
        assert bool(done.stdout) is bool(code)
        assert "gate" in done.stdout or not code

    def test_round(self, place: Callable[[str], Path]) -> None:
        """The other line does what waits in the ledger."""
        folder = place("False")
        command = [str(HERE / "tallybook"), "runs", "start", "category_totals"]
        assert run(command, folder).returncode == 0
        done = run(["/bin/sh", "-c", self.lines(folder)[1][1]], Path("/"), HOME=str(folder))
        assert done.returncode == 3, done.stdout
        assert "1 gate_failed" in done.stdout


def unit(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """Read a unit."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(recipe(f"systemd/{name}", folder))
    return {title: dict(parser[title]) for title in parser.sections()}


@contextmanager
def service(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a service, and end it in any case."""
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={"PATH": "/usr/bin:/bin"}, stdout=log, stderr=log, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class TestSystemd:
    """A timer with its service, and the schedules as a service."""

    NAMES = ("tallybook-report.service", "tallybook-report.timer", "tallybook-schedule.service")

    def test_verify(self, tmp_path: Path) -> None:
        """There is nothing that systemd says against them."""
        program = shutil.which("systemd-analyze")
        if program is None:
            pytest.skip("needs systemd-analyze, which is not on this machine")
        for name in self.NAMES:
            text = recipe(f"systemd/{name}", tmp_path)
            (tmp_path / name).write_text(text.replace("User=reports", "User=root"))
        paths = [str(tmp_path / name) for name in self.NAMES]
        done = run([program, "verify", "--man=no", "--recursive-errors=no", *paths], tmp_path)
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_timer_starts_the_service(self, tmp_path: Path) -> None:
        """They belong together by name; both services leave Tallybook time to end by itself."""
        timer = unit("tallybook-report.timer", tmp_path)["Timer"]
        assert timer == {"OnCalendar": "Mon..Fri 06:00 Europe/Berlin", "Persistent": "true"}
        once = unit("tallybook-report.service", tmp_path)["Service"]
        always = unit("tallybook-schedule.service", tmp_path)["Service"]
        assert once["RestartPreventExitStatus"] == "2 3 4"
        for one in (once, always):
            assert (one["KillMode"], one["TimeoutStopSec"]) == ("mixed", "60")
            assert one["ReadWritePaths"] == one["WorkingDirectory"] == str(tmp_path)

    @pytest.mark.soak
    @pytest.mark.parametrize(("verdict", "code"), ENDS)
    def test_report(self, place: Callable[[str], Path], verdict: str, code: int) -> None:
        """The command ends with the code of the run, by which systemd tries again or does not."""
        folder = place(verdict)
        command = unit("tallybook-report.service", folder)["Service"]["ExecStart"]
        done = run(shlex.split(command), folder)
        assert done.returncode == code, done.stderr

    def test_schedule(self, place: Callable[[str], Path]) -> None:
        """The service works on what waits, and TERM ends it well."""
        folder = place("True")
        command = [str(HERE / "tallybook"), "runs", "start", "category_totals"]
        assert run(command, folder).returncode == 0
        command = shlex.split(unit("tallybook-schedule.service", folder)["Service"]["ExecStart"])
        with service(command, folder) as process:
            bound = time.monotonic() + BOUND
            while states(folder) != [LedgerState.OK]:
                assert process.poll() is None, (folder / "service.log").read_text()
                assert time.monotonic() < bound, (folder / "service.log").read_text()
                time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND) == 0, (folder / "service.log").read_text()


class Task:
    """Notes what an operator was given, and what comes after it."""

    def __init__(self, **given: Any) -> None:
        self.given, self.then = given, []  # type: ignore[var-annotated]

    def __rshift__(self, other: "Task") -> "Task":
        self.then.append(other)
        return other

    def __enter__(self) -> "Task":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Airflow is far too big to install here: two names stand in, and note what they are given."""
    bash, sdk = ModuleType("airflow.providers.standard.operators.bash"), ModuleType("airflow.sdk")
    bash.BashOperator, sdk.DAG = Task, Task  # type: ignore[attr-defined]
    names = ["airflow", *(f"airflow.{one}" for one in ("providers", "providers.standard"))]
    for name in (*names, "airflow.providers.standard.operators"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (bash, sdk):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return runpy.run_path(str(RECIPES / "airflow" / "category_totals.py"))


class TestAirflow:
    """Two tasks: one that is tried again, and one that says how it ended."""

    def bash(self, task: Task, folder: Path, bin_folder: Path = HERE, **values: str) -> Any:
        """Run a task's command as BashOperator does, its templates filled in."""
        text = task.given["bash_command"].replace("/opt/tallybook/bin", str(bin_folder))
        filled = re.sub(r"\{\{ (\w+).*? \}\}", lambda found: values[found[1]], text)
        return run(["/usr/bin/env", "bash", "-c", filled], folder)

    def test_structure(self, dag: dict[str, Any]) -> None:
        """The verdict comes after the run and is never tried again; every run has an end."""
        assert dag["run"].then == [dag["verdict"]]
        assert (dag["run"].given["retries"], dag["verdict"].given["retries"]) == (3, 0)
        assert dag["run"].given["execution_timeout"].total_seconds() == 3600
        assert next(CronSim(dag["dag"].given["schedule"], NOON))
        assert dag["dag"].given["catchup"] is False

    @pytest.mark.parametrize(("verdict", "code"), ENDS)
    def test_report(
        self, place: Callable[[str], Path], dag: dict[str, Any], verdict: str, code: int
    ) -> None:
        """A refused check passes through the first task, and fails the second one."""
        folder = place(verdict)
        first = self.bash(dag["run"], folder, ds="2026-11-24")
        assert first.returncode == 0, first.stderr
        last_line = first.stdout.splitlines()[-1]
        assert last_line == str(code)
        assert self.bash(dag["verdict"], folder, ti=last_line).returncode == code

    @pytest.mark.parametrize("code", [1, 5, 6, 130])
    def test_worth_another_try(self, tmp_path: Path, dag: dict[str, Any], code: int) -> None:
        """What the machine did fails the task that is tried again."""
        program = tmp_path / "tallybook"
        program.write_text(STAND_IN.format(code=code))
        program.chmod(0o755)
        done = self.bash(dag["run"], tmp_path, tmp_path, ds="2026-11-24")
        assert done.returncode == code
        assert done.stdout.endswith("--source rides.csv --until 2026-11-24\n")


class TestGitHub:
    """A workflow."""

    @pytest.fixture
    def workflow(self) -> dict[Any, Any]:
        """The workflow; YAML takes the name `on` for a yes."""
        loaded: dict[Any, Any] = yaml.safe_load((RECIPES / "github" / "reports.yml").read_text())
        return loaded

    def test_structure(self, workflow: dict[Any, Any]) -> None:
        """It comes due, may only read, and keeps the page of a run that failed."""
        assert set(workflow) == {"name", True, "permissions", "concurrency", "jobs"}
        assert next(CronSim(workflow[True]["schedule"][0]["cron"], NOON))
        assert workflow["permissions"] == {"contents": "read"}
        (job,) = workflow["jobs"].values()
        assert set(job) == {"runs-on", "timeout-minutes", "steps"}
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
        assert job["steps"][-1]["if"] == "always()"
        assert job["steps"][-1]["with"]["path"] == "runs/"

    @pytest.mark.soak
    @pytest.mark.parametrize(("verdict", "code"), ENDS)
    def test_report(
        self, place: Callable[[str], Path], workflow: dict[Any, Any], verdict: str, code: int
    ) -> None:
        """The step ends with the code of the run, and a refused check is named as one."""
        folder = place(verdict)
        (job,) = workflow["jobs"].values()
        (step,) = [one for one in job["steps"] if one.get("name") == "Run the report"]
        script = folder / "step.sh"
        script.write_text(step["run"])
        path = f"{HERE}:/usr/bin:/bin"
        done = run(["/usr/bin/env", "bash", "-e", str(script)], folder, PATH=path)
        assert done.returncode == code, done.stderr
        assert ("::error title=A data check said no::" in done.stdout) is bool(code)


class TestKubernetes:
    """A volume and a CronJob."""

    def job(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the volume and the CronJob."""
        volume, job = yaml.safe_load_all(recipe("kubernetes/cronjob.yaml", folder))
        return volume, job

    def test_structure(self, tmp_path: Path) -> None:
        """Names meet, it comes due, and codes that come again end the job."""
        volume, job = self.job(tmp_path)
        assert (volume["kind"], job["apiVersion"], job["kind"]) == (
            "PersistentVolumeClaim",
            "batch/v1",
            "CronJob",
        )
        assert next(CronSim(job["spec"]["schedule"], NOON))
        inside = job["spec"]["jobTemplate"]["spec"]
        (container,) = inside["template"]["spec"]["containers"]
        rule = inside["podFailurePolicy"]["rules"][0]["onExitCodes"]
        assert (rule["containerName"], rule["values"]) == (container["name"], [2, 3, 4])
        assert inside["template"]["spec"]["restartPolicy"] == "Never"  # what a failure policy needs
        volumes = {one["name"]: one for one in inside["template"]["spec"]["volumes"]}
        assert {one["name"] for one in container["volumeMounts"]} == set(volumes)
        claim = volumes["reports"]["persistentVolumeClaim"]["claimName"]
        assert claim == volume["metadata"]["name"]

    @pytest.mark.soak
    @pytest.mark.parametrize(("verdict", "code"), ENDS)
    def test_report(self, place: Callable[[str], Path], verdict: str, code: int) -> None:
        """The container's command ends with the code of the run."""
        folder = place(verdict)
        _, job = self.job(folder)
        inside = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        (container,) = inside["containers"]
        given = {one["name"]: one["value"] for one in container["env"]}
        assert container["workingDir"] == str(folder)
        done = run([*container["command"], *container["args"]], folder, **given)
        assert done.returncode == code, done.stderr


def test_every_recipe_is_on_the_page() -> None:
    """The page on recipes shows each file as it is."""
    page = (ROOT / "nbs" / "41_recipes.ipynb").read_text("utf-8")
    shown = nbformat.reads(page, 4).cells
    printed = [out.get("text", "") for cell in shown for out in cell.get("outputs", [])]
    for path in sorted(path for path in RECIPES.rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            assert any(path.read_text("utf-8").strip() in text for text in printed), path
