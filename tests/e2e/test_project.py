"""The project as people get it: wheel, editable installation, locks, menu."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions, version
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import tallybook
from tallybook.reports import run_report

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = sorted(ROOT.glob("requirements*.lock"))
LATER_STDLIB = {"compression"}  # Python 3.14
RESOURCES = ("settings.ini", "data/*", "reports/*.ipynb", "templates/**/*")


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command to its end; return what it printed, or fail with it."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | variables
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv(*options: str | Path, cwd: Path = ROOT) -> str:
    """Run the uv of this environment."""
    return run(sys.executable, "-m", "uv", *options, cwd=cwd)


def build(folder: Path, *kinds: str) -> Path:
    """Build with what is installed, without a network; return the wheel."""
    uv("build", *kinds, "--no-build-isolation", "--offline", "--python", sys.executable,
       "--out-dir", folder)  # fmt: skip
    return next(folder.glob("*.whl"))


def members(wheel: Path) -> dict[str, bytes]:
    """Return the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build(tmp_path_factory.mktemp("wheel"), "--wheel")


class TestWheel:
    def test_carries_the_package_and_its_resources_and_nothing_else(self, wheel):
        """Code, reports, templates, the sample and the settings, byte for byte."""
        code = {
            path.relative_to(ROOT / "pkg").as_posix(): path.read_bytes()
            for path in (ROOT / "pkg" / "tallybook").iterdir()
            if path.is_file()
        }
        resources = {
            f"tallybook/_resources/{path.relative_to(ROOT).as_posix()}": path.read_bytes()
            for pattern in RESOURCES
            for path in ROOT.glob(pattern)
            if path.is_file()
        }
        carried = {name: data for name, data in members(wheel).items() if "dist-info" not in name}
        assert carried.keys() == code.keys() | resources.keys()
        assert carried == code | resources

    def test_metadata(self, wheel):
        """It names its version, licence, Python and every dependency, and no pandas."""
        files = members(wheel)
        name = next(name for name in files if name.endswith("dist-info/METADATA"))
        metadata = Parser().parsestr(files[name].decode())
        needed = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
        assert metadata["Version"] == tallybook.__version__ == version("tallybook")
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Requires-Python"] == ">=3.11"
        assert len(needed) == len(PROJECT["project"]["dependencies"])
        assert not any(need.startswith("pandas") for need in needed)
        assert b"Apache License" in files[name.replace("METADATA", "licenses/LICENSE")]

    def test_the_source_distribution_makes_the_same_wheel(self, wheel, tmp_path):
        """Whoever builds from the sdist gets the same files."""
        assert members(build(tmp_path)) == members(wheel)


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the runtime lock and the wheel, and nothing else.

    The locked packages come out of uv's cache, which `make test` has just filled. A link to this
    environment's own site-packages would be quicker still, but would also hide what is missing.
    """
    folder = tmp_path_factory.mktemp("bare") / "venv"
    python = folder / "bin" / "python"
    lock = ROOT / "requirements.lock"
    uv("venv", "--quiet", "--python", sys.executable, folder)
    uv("pip", "install", "--quiet", "--python", python, "--require-hashes", "--requirement", lock)
    uv("pip", "install", "--quiet", "--python", python, "--offline", "--no-deps", wheel)
    return folder / "bin"


def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says about the data, without times, names and versions."""
    sums = {
        kind: {item["name"]: item["sha256"] for item in manifest[kind]}
        for kind in ("charts", "tables")
    }
    return sums | {
        name: manifest[name] for name in ("state", "values", "inputs", "reasons", "gates")
    }


class TestInstalled:
    def test_has_all_it_needs(self, bare):
        """The runtime lock is complete, and JupyterLab and pandas are no part of it."""
        uv("pip", "check", "--quiet", "--python", bare / "python")
        names = run(bare / "python", "-c", "import importlib.metadata as m\n"
                    "print(*(d.name.lower() for d in m.distributions()))").split()  # fmt: skip
        assert not {"jupyterlab", "pandas", "pytest", "nbdev"} & set(names)

    def test_demo_gives_the_same_report_in_an_empty_folder(self, bare, tmp_path):
        """`pip install` and `tallybook demo`, far from any checkout: the same facts."""
        empty, home = tmp_path / "empty", tmp_path / "home"
        empty.mkdir()
        home.mkdir()
        run(bare / "tallybook", "demo", cwd=empty, HOME=str(home), PYTHONPATH="", VIRTUAL_ENV="")
        bundle = next(empty.glob("runs/category_totals/*/manifest.json")).parent
        here = run_report("category_totals", {}, runs_dir=tmp_path / "runs")
        manifests = [
            json.loads((folder / "manifest.json").read_text("utf-8"))
            for folder in (bundle, here.folder)
        ]
        assert facts(manifests[0]) == facts(manifests[1])
        assert manifests[0]["state"] == "ok"
        assert (bundle / "report.html").stat().st_size > 100_000


class TestEditable:
    def test_leaves_no_copy_behind(self, tmp_path):
        """An editable installation points at the checkout: a copied resource would grow stale."""
        command = "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])"
        run(sys.executable, "-c", command, tmp_path)
        inside = members(next(tmp_path.glob("*.whl")))
        assert [name for name in inside if "dist-info" not in name] == ["_tallybook.pth"]
        assert inside["_tallybook.pth"].decode() == str(ROOT / "pkg")

    def test_is_what_these_tests_import(self):
        """Otherwise they would test an older copy."""
        assert Path(tallybook.__file__) == ROOT / "pkg" / "tallybook" / "__init__.py"


class TestDependencies:
    def test_every_import_is_declared(self):
        """What the package imports is a dependency or an extra, not there by luck."""
        needs = [
            *PROJECT["project"]["dependencies"],
            *chain(*PROJECT["project"]["optional-dependencies"].values()),
        ]
        declared = {re.split(r"[^\w.-]", need)[0].lower().replace("_", "-") for need in needs}
        providers = packages_distributions()
        undeclared = {
            f"{path.name}: {module}"
            for path in (ROOT / "pkg" / "tallybook").glob("*.py")
            for module in imported(path)
            if module not in sys.stdlib_module_names | {"tallybook", *LATER_STDLIB}
            and not declared
            & {name.lower().replace("_", "-") for name in providers.get(module, [])}
        }
        assert undeclared == set()


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a module imports, wherever it does."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in plain | named if name}


class TestLocks:
    def test_belong_to_the_project(self):
        """They were made from the requirements that pyproject.toml now has."""
        run(sys.executable, "tools/locks.py", "check")

    @pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
    def test_pins_every_file_and_names_no_index(self, lock):
        """Each requirement is exact and has hashes; where to fetch it is the machine's business."""
        text = lock.read_text("utf-8")
        pins = re.findall(r"^[a-z0-9].*$", text, re.MULTILINE)
        assert pins
        assert all(re.fullmatch(r"[a-z0-9.-]+==\S+( ; .+)? \\", pin) for pin in pins)
        assert text.count("--hash=sha256:") >= len(pins)
        assert not re.search(r"https?:|--(extra-)?index-url|--find-links", text)

    def test_the_runtime_is_part_of_the_development_set(self):
        """Tests run on the versions that users get."""
        runtime, development = (
            set(re.findall(r"^[a-z0-9.-]+==\S+", (ROOT / name).read_text("utf-8"), re.MULTILINE))
            for name in ("requirements.lock", "requirements-dev.lock")
        )
        assert runtime <= development
        assert not any(pin.startswith(("jupyterlab==", "pandas==")) for pin in development)


class TestMenu:
    def test_make_shows_every_target(self):
        """`make` alone explains itself, and the README's and CONTRIBUTING's commands are there."""
        menu = set(re.findall(r"^  make (\w+) +\S", run("make", MAKEFLAGS=""), re.MULTILINE))
        told = {
            target
            for name in ("README.md", "CONTRIBUTING.md")
            for target in re.findall(r"\bmake ([a-z]+)\b(?=[`\s]*$|`|  +#)",
                                     (ROOT / name).read_text("utf-8"), re.MULTILINE)
        }  # fmt: skip
        expected = "help lab export check test report bench soak docs dist clean lock"
        assert set(expected.split()) <= menu
        assert told <= menu


class TestReadme:
    def test_commands_print_what_it_shows(self, tmp_path):
        """Its `tallybook` commands work as written, and print what it says but for the time."""
        (tmp_path / "data").symlink_to(ROOT / "data")
        text = (ROOT / "README.md").read_text("utf-8")
        shown = "\n".join(re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        sessions = re.findall(r"^\$ (tallybook .+)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE)
        assert sessions
        for command, expected in sessions:
            name, *options = shlex.split(command)
            printed = run(Path(sys.executable).with_name(name), *options, cwd=tmp_path)
            assert timeless(printed) == timeless(expected)

    def test_its_other_commands_exist(self):
        """Each `tallybook` command in a block without output has its options."""
        text = (ROOT / "README.md").read_text("utf-8")
        commands = re.findall(r"^tallybook .+$", text, re.MULTILINE)
        assert commands
        for command in commands:
            words = [word for word in shlex.split(command) if "=" not in word]
            asked = [word for word in words if not word.startswith("-")]
            helped = run(Path(sys.executable).with_name("tallybook"), *asked[1:3], "--help")
            assert all(word in helped for word in words if word.startswith("-"))


def timeless(text: str) -> str:
    """Return what a command printed, without the seconds that it took."""
    return re.sub(r"in [\d.]+ s\b", "in a moment", text).strip()
