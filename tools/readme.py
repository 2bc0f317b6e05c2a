"""Write README.md from nbs/index.ipynb, or check that it still is what the notebook says.

    python tools/readme.py write | check

nbdev's own way needs Quarto, which PyPI lacks. A cell that begins with `#| hide` is left out; text
outputs follow their code; links to files beside the notebook are made to work one folder up.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "nbs" / "index.ipynb"
README = ROOT / "README.md"
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`. Edit the notebook. -->\n\n"
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)\s]+)|(?<=src=\")(?!https?:|data:)([^\"]+)")


def moved(link: re.Match[str]) -> str:
    """Return a link as it reads from the checkout's own folder."""
    target = link[0]
    path = (NOTEBOOK.parent / target.partition("#")[0]).resolve()
    if not path.exists():
        sys.exit(f"{NOTEBOOK.relative_to(ROOT)}: the link {target!r} leads nowhere")
    return target.replace(target.partition("#")[0], path.relative_to(ROOT).as_posix())


def fenced(text: str, language: str = "") -> str:
    """Return text as a fenced block."""
    return f"```{language}\n{text.strip(chr(10))}\n```"


def shown(output: dict[str, Any]) -> str:
    """Return the text of a saved output."""
    plain = output.get("data", {}).get("text/plain") or output.get("text", [])
    return fenced("".join(plain)) if plain else ""


def blocks(cell: dict[str, Any]) -> list[str]:
    """Return what a cell contributes to the README."""
    source = "".join(cell["source"])
    if source.startswith("#| hide") or not source.strip():
        return []
    if cell["cell_type"] == "markdown":
        return [LINK.sub(moved, source.strip())]
    return [fenced(source, "python"), *filter(None, map(shown, cell.get("outputs", [])))]


def readme() -> str:
    """Return the README's text."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return NOTE + "\n\n".join(block for cell in cells for block in blocks(cell)) + "\n"


def main(command: str = "check") -> int:
    """Write or check; return the exit code."""
    text = readme()
    if command == "write":
        README.write_text(text, "utf-8")
    elif README.read_text("utf-8") != text:
        print("README.md: not what nbs/index.ipynb says; `make readme` writes it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
