"""What a report costs as a run of its own: next to a plain script, and to papermill and nbconvert.

With an argument, such as 3, that many rounds are measured instead of 5.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path

from side_by_side import medians, show, verdict
from tallybook.backfill import backfill
from tallybook.config import resource_path
from tallybook.pool import WarmPool, warm_pool
from tallybook.reports import run_report
from tallybook.types import RunState

ROOT = Path(__file__).parents[1]
NOTEBOOK = resource_path("reports", "category_totals.ipynb")
BIN = Path(sys.executable).parent
DAYS, LOOPED = 100, 10
START = date(2013, 1, 1)

# What the script does after the notebook's own cells: one page with pictures, charts and Vega.
ENDING = """
from html import escape
from tallybook.page import script_json, vega_bundle
charts = sorted(Path(os.environ["TALLYBOOK_RUN_DIR"], "charts").glob("*.svg"))
specs = [json.loads(each.with_suffix(".vl.json").read_text()) for each in charts]
parts = [each.read_text() + f"<script type='application/json'>{script_json(spec)}</script>"
         for each, spec in zip(charts, specs)]
page = "".join(["<!doctype html>", *parts, "<script>", vega_bundle(), "</script>"])
Path(os.environ["TALLYBOOK_RUN_DIR"], "page.html").write_text(page)
"""


def call(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, without its output."""
    subprocess.run(command, check=True, capture_output=True, env=environment)


def script_of(notebook: Path) -> str:
    """Return a notebook's code as a plain script that draws, saves and writes a page."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n\n".join(["import json, os\nfrom pathlib import Path", *code, ENDING])


def run_script(script: Path, folder: Path) -> None:
    """Run the plain script in an interpreter of its own."""
    out = Path(tempfile.mkdtemp(dir=folder))
    call([sys.executable, script], {**os.environ, "TALLYBOOK_RUN_DIR": str(out)})
    if not (out / "page.html").exists():
        raise SystemExit("the plain script has written no page")


def run_command(folder: Path) -> None:
    """Run the report as anybody does: the command, a process of its own."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom tallybook.reports import run_report\n"
        "result = run_report('category_totals', runs_dir=Path(sys.argv[1]), force=True)\n"
        "sys.exit(result.state.exit_code)"
    )
    call([sys.executable, "-c", program, str(folder)])


def run_warm(pool: WarmPool) -> None:
    """Run the report with a kernel that is warm."""
    if run_report("category_totals", pool=pool, force=True).state is not RunState.OK:
        raise SystemExit("the warm run has failed")


def run_classic(tools: Path, folder: Path) -> None:
    """Run papermill, then nbconvert, on the same notebook."""
    done = folder / "done.ipynb"
    call([tools / "papermill", NOTEBOOK, done, "-k", "python3"])
    call([tools / "jupyter", "nbconvert", "--to", "html", done])


def run_papermill(folder: Path, parameters: Mapping[str, str], day: date) -> None:
    """Run papermill's command for one day."""
    given = {"since": str(day), "until": str(day + timedelta(days=1)), **parameters}
    options = [part for pair in given.items() for part in ("-p", *pair)]
    command = [BIN / "papermill", NOTEBOOK, folder / f"{day}.ipynb", "-k", "python3", *options]
    call(command)


@contextmanager
def classic_tools(folder: Path) -> Iterator[Path | None]:
    """Give an environment with what Tallybook runs on, and nbconvert; None if it cannot be made."""
    uv = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    place = folder / "venv"
    pins = (ROOT / "requirements-lab.lock").read_text("utf-8").splitlines()
    pinned = next(line.split()[0] for line in pins if line.startswith("nbconvert=="))
    install = [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python"]
    try:
        call([uv, "venv", "--quiet", "--python", sys.executable, place])
        call([*install, "-r", ROOT / "requirements.lock"])
        call([*install, pinned, "-c", without_hashes(folder)])
        call([*install, "--no-deps", "-e", ROOT])
    except (subprocess.CalledProcessError, OSError, TypeError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        print(f"Left out: papermill and nbconvert. {said.decode()[-500:]}")
        yield None
        return
    yield place / "bin"


def without_hashes(folder: Path) -> Path:
    """Write what requirements.lock pins as plain constraints."""
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [line.split()[0] for line in lines if line[:1].isalnum()]
    path = folder / "pins.txt"
    path.write_text("\n".join(pins), "utf-8")
    return path


def measure_one(folder: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds of the main report made in four ways, taking turns."""
    script = folder / "script.py"
    script.write_text(script_of(NOTEBOOK), "utf-8")
    with classic_tools(folder) as tools, warm_pool(runs_dir=folder / "warm") as pool:
        ways: dict[str, Callable[[], object]] = {
            "plain script": partial(run_script, script, folder),
            "report, a process of its own": partial(run_command, folder / "cold"),
            "report, warm kernel": partial(run_warm, pool),
        }
        if tools:
            ways["papermill + jupyter nbconvert"] = partial(run_classic, tools, folder)
        return medians(ways, rounds=rounds)


def timed(way: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def measure_days(folder: Path, parameters: Mapping[str, str]) -> tuple[float, float]:
    """Return the seconds of the backfill, and of as many papermill commands, some of them measured.

    Half of the commands are measured before the backfill, half after it.
    """
    days = [START + timedelta(days=place) for place in range(LOOPED)]
    commands = [partial(run_papermill, folder, parameters, day) for day in days]
    before = sum(map(timed, commands[: LOOPED // 2]))
    end = START + timedelta(days=DAYS)
    place = folder / "-".join(["days", *parameters])
    filled = timed(
        lambda: backfill(
            "category_totals", START, end, "1d", parameters, runs_dir=place, force=True
        )
    )
    after = sum(map(timed, commands[LOOPED // 2 :]))
    return filled, (before + after) * DAYS / LOOPED


def main() -> None:
    """Print the medians, and the ratios that the project promises."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        seconds = measure_one(Path(name), rounds)
        script, cold, warm = list(seconds.values())[:3]
        rows = [[way, f"{value:.2f}", f"{value / script:.2f}"] for way, value in seconds.items()]
        show(f"The main report, medians of {rounds}", ["way", "s", "over script"], rows)
        filled, looped = measure_days(Path(name), {})
        hourly, hourly_loop = measure_days(Path(name), {"period": "1h"})
    rows = [
        [f"backfill of {DAYS} days", f"{filled:.1f}", f"{hourly:.1f}"],
        [f"{DAYS} papermill commands ({LOOPED} measured)", f"{looped:.1f}", f"{hourly_loop:.1f}"],
    ]
    show("Many days", ["way", "s", "s, by the hour"], rows)
    ratios = {
        "report / plain script": (cold / script, 2),
        "warm report / plain script": (warm / script, 1.2),
        "backfill / papermill commands": (filled / looped, 1 / 5),
        "the same, days by the hour": (hourly / hourly_loop, 1 / 5),
    }
    if classic := seconds.get("papermill + jupyter nbconvert"):
        ratios["report / (papermill + nbconvert)"] = (cold / classic, 1 / 3)
    rows = [[what, f"{ratio:.2f}", verdict(ratio, goal)] for what, (ratio, goal) in ratios.items()]
    show("Promises", ["", "measured", "goal"], rows)


if __name__ == "__main__":
    main()
