"""Make the lock files from pyproject.toml, or check that they still belong to it.

    python tools/locks.py make [--upgrade]   resolve with uv; pins stay unless --upgrade
    python tools/locks.py check              offline: compare the digest that each lock carries

Every lock names exact versions with the hashes of their files, for every platform and Python 3.11
or later, and no index: the machine's own package index serves them.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = "pyproject.toml"
DEV = "requirements-dev.lock"
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / PROJECT).read_text("utf-8"))
EXTRAS = [extra for extra in SETTINGS["project"]["optional-dependencies"] if extra != "lab"]
TESTED = ["--group", "dev", *(option for extra in EXTRAS for option in ("--extra", extra))]
LOCKS = {  # in this order: the later ones take their versions from the first
    DEV: [PROJECT, *TESTED],
    "requirements.lock": [PROJECT, "--constraints", DEV],
    "requirements-lab.lock": [PROJECT, *TESTED, "--extra", "lab", "--constraints", DEV],
    "requirements-build.lock": ["--group", "build", "--constraints", DEV],
}


def requirements_digest(project: dict[str, Any]) -> str:
    """Return a short digest of everything in pyproject.toml that decides what is installed."""
    wanted = [
        project["project"]["requires-python"],
        project["project"]["dependencies"],
        project["project"].get("optional-dependencies"),
        project.get("dependency-groups"),
        project.get("tool", {}).get("uv"),
    ]
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]


def header(digest: str) -> str:
    """Return the first line of a lock."""
    return f"# Made by `make lock` from pyproject.toml (requirements {digest}). Do not edit.\n"


def resolve(lock: str, options: list[str], extra: list[str]) -> None:
    """Run uv for one lock, keeping the versions that it already names."""
    command = ["uv", "pip", "compile", *options, *extra, "--output-file", lock]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"]
    subprocess.run([sys.executable, "-m", *command, "--quiet"], check=True, cwd=ROOT)


def make(digest: str, extra: list[str]) -> None:
    """Write every lock, its header first."""
    for lock, options in LOCKS.items():
        resolve(lock, options, extra)
        path = ROOT / lock
        path.write_text(header(digest) + path.read_text("utf-8"), "utf-8")
        packages = re.findall(r"^[a-z0-9]\S+==", path.read_text("utf-8"), re.MULTILINE)
        print(f"{lock}: {len(packages)} packages")


def stale(digest: str) -> list[str]:
    """Return the locks that were made from other requirements, or are missing."""
    return [
        lock
        for lock in LOCKS
        if not (ROOT / lock).exists()
        or not (ROOT / lock).read_text("utf-8").startswith(header(digest))
    ]


def main(command: str = "check", *extra: str) -> int:
    """Run one of the two commands; return the exit code."""
    digest = requirements_digest(SETTINGS)
    if command == "make":
        make(digest, list(extra))
        return 0
    behind = stale(digest)
    for lock in behind:
        print(f"{lock}: pyproject.toml has changed since it was made. Run `make lock`.")
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
