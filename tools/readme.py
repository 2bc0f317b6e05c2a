"""Write README.md from nbs/index.ipynb, or check that it still is what the notebook says.

    python tools/readme.py write | check

nbdev's own way needs Quarto, which PyPI lacks. A cell that begins with `#| hide` is left out; text
outputs follow their code; a drawn chart is written to nbs/images/; links to files beside the
notebook are made to work one folder up.
"""

from __future__ import annotations

import json
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "nbs" / "index.ipynb"
README = ROOT / "README.md"
IMAGES = NOTEBOOK.parent / "images"
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


def picture(output: dict[str, Any]) -> str:
    """Return an output's chart as SVG; empty if it has none."""
    return "".join(output.get("data", {}).get("image/svg+xml", [])).strip()


def title(svg: str) -> str:
    """Return what a chart says it shows."""
    found = re.search(r"aria-label=\"Title text '([^\"]+)'\"", svg)
    return unescape(found[1]) if found else "a chart"


def blocks(cell: dict[str, Any], pictures: dict[str, str]) -> list[str]:
    """Return what a cell contributes to the README; add its charts to `pictures`, by file name."""
    source = "".join(cell["source"])
    if source.startswith("#| hide") or not source.strip():
        return []
    if cell["cell_type"] == "markdown":
        return [LINK.sub(moved, source.strip())]
    found = [fenced(source, "python")]
    for output in cell.get("outputs", []):
        svg = picture(output)
        plain = output.get("data", {}).get("text/plain") or output.get("text", [])
        if svg:
            name = f"readme-{len(pictures) + 1}.svg"
            pictures[name] = f"{svg}\n"
            found.append(f"![{title(svg)}](nbs/images/{name})")
        elif plain:
            found.append(fenced("".join(plain)))
    return found


def files() -> dict[Path, str]:
    """Return the README and its pictures as they should be."""
    pictures: dict[str, str] = {}
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    text = "\n\n".join(block for cell in cells for block in blocks(cell, pictures))
    return {README: f"{NOTE}{text}\n"} | {IMAGES / name: svg for name, svg in pictures.items()}


def main(command: str = "check") -> int:
    """Write or check; return the exit code."""
    wanted = files()
    if command == "write":
        IMAGES.mkdir(exist_ok=True)
        for path, text in wanted.items():
            path.write_text(text, "utf-8")
        return 0
    wrong = [p for p, text in wanted.items() if not p.exists() or p.read_text("utf-8") != text]
    for path in wrong:
        print(f"{path.relative_to(ROOT)}: not what nbs/index.ipynb says; `make readme` writes it")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
