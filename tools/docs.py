"""Render the notebooks as a small site in _docs/: nbdev's own way needs Quarto, which PyPI lacks.

Pages only use files beside them, so they open from the disk with the network off. Code comes from
the notebooks as it is; outputs are the saved ones, which `make test` compares with fresh ones.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).parents[1]
DESTINATION = ROOT / "_docs"
DIRECTIVE = re.compile(r"^#\|.*\n?", re.MULTILINE)
NOTEBOOK_LINK = re.compile(r'(href="[^":/]*)\.ipynb(?=["#])')  # beside it, not in reports/
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


@dataclass(frozen=True)
class Name:
    """Something public that a page defines."""

    name: str
    kind: str
    promise: str


@dataclass
class Page:
    """One notebook, rendered."""

    file: str
    title: str = ""
    promise: str = ""
    module: str = ""
    body: list[str] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)
    names: list[Name] = field(default_factory=list)


def slug(text: str) -> str:
    """Return a heading as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def python(source: str) -> str:
    """Return Python as highlighted HTML."""
    code: str = highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))
    return f'<pre class="code"><code>{code}</code></pre>'


def public_names(source: str) -> list[Name]:
    """Return the public functions and classes that a cell defines, with their first sentence."""
    kinds = {ast.FunctionDef: "function", ast.AsyncFunctionDef: "function", ast.ClassDef: "class"}
    return [
        Name(node.name, kinds[type(node)], (ast.get_docstring(node) or "").partition("\n\n")[0])
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]


def render_markdown(page: Page, source: str) -> str:
    """Return a markdown cell as HTML; note the page's title, promise and sections."""
    tokens = MARKDOWN.parse(source)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", slug(inline.content))
            if opening.tag == "h1":
                page.title = page.title or inline.content
            elif opening.tag == "h2":
                page.sections.append((slug(inline.content), inline.content.replace("`", "")))
    promise = re.search(r"^> (.+)$", source, re.MULTILINE)
    page.promise = page.promise or (promise[1] if promise else "")
    html: str = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    html = NOTEBOOK_LINK.sub(r"\1.html", html)
    return f'<div class="prose">{html}</div>'


def render_output(output: dict[str, Any]) -> str:
    """Return one saved output, the richest form that needs no script."""
    data = output.get("data", {})
    text = {kind: "".join(value) for kind, value in data.items() if isinstance(value, str | list)}
    if "image/svg+xml" in text:
        return f'<figure class="chart">{text["image/svg+xml"]}</figure>'
    if "image/png" in text:
        image = f'<img alt="" src="data:image/png;base64,{text["image/png"]}">'
        return f'<figure class="chart">{image}</figure>'
    if "text/html" in text:
        return f'<div class="scroller">{text["text/html"]}</div>'
    plain = text.get("text/plain") or "".join(output.get("text", []))
    return f'<pre class="output">{escape(plain)}</pre>'


def render_code(page: Page, cell: dict[str, Any], source: str, directives: str) -> str:
    """Return a code cell: exported code with anchors, or a lesson with its outputs."""
    code = DIRECTIVE.sub("", source).strip("\n")
    outputs = "".join(map(render_output, cell.get("outputs", [])))
    if "#| export" not in directives:
        return f'<div class="lesson">{python(code)}{outputs}</div>'
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(code).body):
        return f'<details class="export"><summary>Imports</summary>{python(code)}</details>'
    names = public_names(code)
    page.names += names
    anchors = "".join(f'<a id="{name.name}"></a>' for name in names)
    return f'<div class="export">{anchors}{python(code)}</div>'


def render_page(path: Path) -> Page:
    """Read one notebook and render every cell that is not hidden."""
    page = Page("index.html" if path.stem == "index" else f"{path.stem}.html")
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        directives = "\n".join(DIRECTIVE.findall(source))
        module = re.search(r"#\| default_exp (\S+)", directives)
        page.module = page.module or (module[1] if module else "")
        if not source.strip() or module or "#| hide" in directives:
            continue
        if cell["cell_type"] == "markdown":
            page.body.append(render_markdown(page, source))
        elif cell["cell_type"] == "code":
            page.body.append(render_code(page, cell, source, directives))
    return page


def reference(pages: list[Page]) -> Page:
    """Return the page that lists every public name, each linked to where it is explained."""
    page = Page("reference.html", "Reference", "Every public name, and where it is explained.")
    page.body.append(f'<div class="prose"><h1>{page.title}</h1><p>{page.promise}</p></div>')
    for each in pages:
        if not each.names:
            continue
        page.sections.append((each.module, each.module))
        rows = "".join(
            f'<tr><td><a href="{each.file}#{name.name}"><code>{name.name}</code></a></td>'
            f"<td>{MARKDOWN.renderInline(name.promise)}</td></tr>"
            for name in each.names
        )
        page.body.append(
            f'<h2 id="{each.module}"><a href="{each.file}">tallybook.{each.module}</a></h2>'
            f'<div class="scroller"><table class="names"><tbody>{rows}</tbody></table></div>'
        )
    return page


def styles() -> str:
    """Return the site's style sheet: the reports' visual language, then the layout."""
    language = (ROOT / "templates" / "report" / "language.css").read_text("utf-8")
    own = (ROOT / "tools" / "docs.css").read_text("utf-8")
    return f"{language}\n{own}"


def main() -> None:
    """Write the site and say where its first page is."""
    notebooks = sorted(
        (ROOT / "nbs").glob("*.ipynb"), key=lambda path: (path.stem != "index", path)
    )
    pages = [render_page(path) for path in notebooks]
    pages.append(reference(pages))
    shutil.rmtree(DESTINATION, ignore_errors=True)
    DESTINATION.mkdir()
    if (ROOT / "nbs" / "images").is_dir():
        shutil.copytree(ROOT / "nbs" / "images", DESTINATION / "images")
    (DESTINATION / "style.css").write_text(styles(), "utf-8")
    environment = Environment(
        loader=FileSystemLoader(ROOT / "tools"), autoescape=True, undefined=StrictUndefined
    )
    template = environment.get_template("docs.html.j2")
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None], strict=False):
        html = template.render(
            page=page, pages=pages, before=before, after=after, body="\n".join(page.body)
        )
        (DESTINATION / page.file).write_text(html, "utf-8")
    print(f"{len(pages)} pages: {DESTINATION / pages[0].file}")


if __name__ == "__main__":
    main()
