"""Hold the notebooks and the package together.

    python tools/notebooks.py check           is pkg/ what nbs/ exports, is every notebook clean?
    python tools/notebooks.py number FOLDER   copy nbs/ with execution counts for `pytest --nbval`,
                                              and describe a kernel that starts quickly

Nothing in the checkout is written, and git is not asked: both work on a copy.
"""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "pkg/tallybook"
NOT_EXPORTED = ("__init__.py", "py.typed")  # written by hand, copied before the export
NOT_RUN = ("#| slow", "#| eval: false")
QUICK = """import sys
sys.modules["debugpy"] = None  # a debugger costs half of a kernel's start
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()"""
APART = """import os
from functools import partial
import nbval.kernel
from jupyter_client.localinterfaces import local_ips
# A kernel's ports were free a moment ago; on an address of its own no other worker takes them.
address = "127.0.1." + os.environ.get("PYTEST_XDIST_WORKER", "gw1")[2:]
local_ips().append(address)
nbval.kernel.KernelManager = partial(nbval.kernel.KernelManager, ip=address)
"""


def nbdev(command: str, *options: str, folder: Path) -> None:
    """Run one of nbdev's commands in a folder, quietly; its own message is the error's."""
    done = subprocess.run(
        [Path(sys.executable).with_name(f"nbdev-{command}"), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"nbdev-{command} failed:\n{done.stdout}{done.stderr}")


def copy_sources(folder: Path) -> None:
    """Copy what nbdev reads: the notebooks, pyproject.toml and what no notebook exports."""
    for name in ("nbs", "reports"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / PACKAGE).mkdir(parents=True)
    for name in NOT_EXPORTED:
        shutil.copy(ROOT / PACKAGE / name, folder / PACKAGE)


def texts(folder: Path, pattern: str) -> dict[str, str]:
    """Return the text of every file that matches, by its path inside the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.glob(pattern))
    }


def differences(pattern: str, expected: Path, remedy: str) -> Iterator[str]:
    """Say, file by file, where the checkout is not what is expected."""
    here, there = texts(ROOT, pattern), texts(expected, pattern)
    for name in sorted(here.keys() | there.keys()):
        if name not in there:
            yield f"{name}: no notebook exports it; delete it"
        elif name not in here:
            yield f"{name}: missing; {remedy}"
        elif here[name] != there[name]:
            lines = difflib.unified_diff(
                here[name].splitlines(), there[name].splitlines(), "now", "expected", n=0
            )
            yield "\n    ".join([f"{name}: {remedy}", *list(lines)[2:12]])


def check() -> int:
    """Export and clean a copy, compare, and return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        copy_sources(copy)
        nbdev("export", folder=copy)
        nbdev("clean", folder=copy)
        nbdev("clean", "--fname", "reports", folder=copy)
        found = [
            *differences(f"{PACKAGE}/**/*.py", copy, "`make export` writes it from its notebook"),
            *differences("nbs/*.ipynb", copy, "`make export` cleans it"),
            *differences("reports/*.ipynb", copy, "`make export` cleans it"),
        ]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


def numbered(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with execution counts, which nbdev-clean removes.

    nbval takes a cell without a count for one that never ran and would not compare its output.
    """
    code = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
        if "".join(cell["source"]).startswith(NOT_RUN):
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "nbval-skip"]
    return notebook


def number(folder: Path) -> int:
    """Write the numbered copies and the kernel's description; return the exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        notebook = numbered(json.loads(path.read_text("utf-8")))
        (folder / path.name).write_text(json.dumps(notebook), "utf-8")
    kernel = folder / "kernels" / "quick"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-c", QUICK, "-f", "{connection_file}"]
    described = {"argv": argv, "display_name": "Python without a debugger", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(described), "utf-8")
    (folder / "conftest.py").write_text(APART, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(number(Path(sys.argv[2])) if sys.argv[1:2] == ["number"] else check())
