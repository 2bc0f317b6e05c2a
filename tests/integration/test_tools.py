"""The small scripts behind make: each notices what it is there to notice."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from copy import deepcopy
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    """Load a fresh copy of a script from tools/."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


class TestNotebooks:
    @pytest.fixture
    def notebooks(self, tmp_path):
        """The script, on a copy of the checkout that may be spoilt."""
        for name in ("nbs", "reports", "pkg"):
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        module = tool("notebooks")
        module.ROOT = tmp_path
        return module

    def test_an_edited_module_is_noticed(self, notebooks, capsys):
        """Whoever edits pkg/ by hand is told which file, and what to do."""
        module = notebooks.ROOT / "pkg" / "tallybook" / "types.py"
        module.write_text(module.read_text("utf-8") + "\nX = 1\n", "utf-8")
        assert notebooks.check() == 1
        said = capsys.readouterr().out
        assert "pkg/tallybook/types.py: `make export` writes it from its notebook" in said
        assert "-X = 1" in said

    @pytest.mark.soak
    def test_a_module_without_a_notebook_is_noticed(self, notebooks, capsys):
        """Renaming a notebook must not leave its old module behind."""
        (notebooks.ROOT / "pkg" / "tallybook" / "left_over.py").write_text("", "utf-8")
        assert notebooks.check() == 1
        assert "left_over.py: no notebook exports it; delete it" in capsys.readouterr().out

    @pytest.mark.soak
    def test_an_unclean_notebook_is_noticed(self, notebooks, capsys):
        """Execution counts would make a change of every run."""
        notebook = notebooks.ROOT / "reports" / "category_totals.ipynb"
        text = notebook.read_text("utf-8").replace(
            '"execution_count": null', '"execution_count": 7', 1
        )
        notebook.write_text(text, "utf-8")
        assert notebooks.check() == 1
        assert "category_totals.ipynb: `make export` cleans it" in capsys.readouterr().out

    def test_numbering(self):
        """Code cells are counted, so that nbval compares; what must not run is marked for it."""
        cells = [
            {"cell_type": "markdown", "source": ["# T"], "metadata": {}},
            {"cell_type": "code", "source": ["1 + 1"], "metadata": {}, "execution_count": None},
            {"cell_type": "code", "source": ["#| slow\n", "2"], "metadata": {"tags": ["a"]}},
        ]
        done = tool("notebooks").numbered({"cells": deepcopy(cells)})["cells"]
        assert done[0] == cells[0]
        assert [cell["execution_count"] for cell in done[1:]] == [1, 2]
        assert [cell["metadata"] for cell in done[1:]] == [{}, {"tags": ["a", "nbval-skip"]}]


class TestLocks:
    def test_a_changed_requirement_is_noticed(self):
        """The digest covers what decides an installation, and nothing else of the project."""
        locks = tool("locks")
        before = locks.requirements_digest(locks.SETTINGS)
        other, wanted = deepcopy(locks.SETTINGS), deepcopy(locks.SETTINGS)
        other["project"]["description"] = "something else"
        wanted["project"]["dependencies"].append("six")
        assert locks.requirements_digest(other) == before
        assert locks.requirements_digest(wanted) != before
        assert locks.stale(before) == []
        assert locks.stale("another") == list(locks.LOCKS)


class TestReadme:
    def test_a_dead_link_is_refused(self):
        """A link that leads nowhere stops the build; others are made to work one folder up."""
        readme = tool("readme")
        assert readme.LINK.sub(readme.moved, "[a](../LICENSE)") == "[a](LICENSE)"
        assert readme.LINK.sub(readme.moved, "[a](00_types.ipynb#x)") == "[a](nbs/00_types.ipynb#x)"
        assert readme.LINK.sub(readme.moved, "[a](https://x.org)") == "[a](https://x.org)"
        with pytest.raises(SystemExit, match="leads nowhere"):
            readme.LINK.sub(readme.moved, "[a](nowhere.md)")

    def test_hidden_cells_and_outputs(self):
        """A hidden cell is left out; text follows its code; a chart becomes a file."""
        readme = tool("readme")
        drawn = {"data": {"image/svg+xml": "<svg aria-label=\"Title text 'Up &amp; up'\"></svg>"}}
        pictures = {}
        hidden = {"cell_type": "code", "source": ["#| hide\n", "x"]}
        shown = {"cell_type": "code", "source": ["x"], "outputs": [{"text": ["1\n"]}, drawn]}
        assert readme.blocks(hidden, pictures) == []
        assert readme.blocks(shown, pictures) == [
            "```python\nx\n```",
            "```\n1\n```",
            "![Up & up](nbs/images/readme-1.svg)",
        ]
        assert list(pictures) == ["readme-1.svg"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered documentation."""
    docs = tool("docs")
    docs.DESTINATION = tmp_path_factory.mktemp("site") / "_docs"
    docs.main()
    return docs.DESTINATION


class TestDocs:
    def test_every_notebook_has_a_page(self, site):
        """And there is a reference of every public name."""
        expected = {f"{path.stem}.html" for path in (ROOT / "nbs").glob("*.ipynb")}
        assert {path.name for path in site.glob("*.html")} == expected | {"reference.html"}

    def test_links_lead_somewhere(self, site):
        """Between pages and to their anchors, and into the checkout."""
        pages = {path.name: path.read_text("utf-8") for path in site.glob("*.html")}
        for page, text in pages.items():
            prose = re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
            for link in map(unescape, re.findall(r'<a [^>]*href="([^"]+)"', prose)):
                target, _, anchor = link.partition("#")
                if target.startswith(("http:", "https:")):
                    continue
                target = target or page
                if target in pages:
                    assert not anchor or f'id="{anchor}"' in pages[target], (page, link)
                else:
                    assert (ROOT / "_docs" / target).resolve().exists(), (page, link)

    def test_nothing_is_fetched_from_elsewhere(self, site):
        """Pages open with the network off."""
        for path in site.glob("*.html"):
            text = path.read_text("utf-8")
            loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="([^"]+)"', text)
            assert all(not link.startswith(("http", "//")) for link in loaded), path.name
