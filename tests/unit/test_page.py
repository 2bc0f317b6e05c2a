"""The report's page as text: what is in it, and what cannot get into it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tallybook import charts, page
from tallybook.config import resource_path
from tallybook.evidence import is_intact

SPEC = {
    "title": {"text": ["Two", "lines"]},
    "mark": "bar",
    "data": {"values": [{"a": "</script><!--", "b": 3}]},
    "encoding": {"x": {"field": "b", "type": "quantitative"}, "y": {"field": "a"}},
}
VEGALITE = "application/vnd.vegalite.v6+json"
VOID = {"meta", "link", "img", "br", "hr", "input"}


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest of a run that went well."""
    return {
        "format_version": 1,
        "report": "lateness",
        "title": "Who was late",
        "run_id": "20261123T201500Z-3f9a1c",
        "state": "ok",
        "reason": None,
        "started_at": "2026-11-23T20:15:00+00:00",
        "finished_at": "2026-11-23T20:15:06+00:00",
        "duration_seconds": 6.2,
        "parameters": {"source": "sample", "since": None},
        "versions": {"python": "3.11", "tallybook": "0.1.0"},
        "notebook": {"name": "lateness.ipynb", "sha256": "e3b0c442"},
        "inputs": [account()],
        "reasons": [],
        "values": {},
        "gates": [],
        "charts": [],
        "tables": [],
    } | changes


def account(**changes: Any) -> dict[str, Any]:
    """What became of a source's rows."""
    return {
        "source": "in/flights.csv",
        "sha256": "9f86d081",
        "bytes": 3_412_000,
        "rows_read": 1200,
        "rows_accepted": 1100,
        "rows_rejected": 100,
        "rows_outside": 7,
    } | changes


def notebook(*cells: NotebookNode) -> NotebookNode:
    """A notebook with a title and these cells."""
    return new_notebook(cells=[new_markdown_cell("# Who was late\n\nBy airline."), *cells])


def shown(data: dict[str, Any]) -> NotebookNode:
    """A code cell that displayed one result in these forms."""
    return new_code_cell("show()", execution_count=1, outputs=[new_output("display_data", data)])


def charted() -> NotebookNode:
    """A code cell that displayed a chart."""
    return shown({VEGALITE: SPEC, "image/svg+xml": "<svg/>", "text/plain": "Chart"})


class Outline(HTMLParser):
    """Reads a page as a browser does, as far as we need it: its elements and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.open += [tag] * (tag not in VOID)
        if tag == "script" and ("type", "application/json") not in attrs:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and not data.lstrip().startswith(("{", "[")):
            self.scripts[-1] += data


class TestScriptJson:
    """Data on its way into a script element."""

    @given(st.recursive(st.text() | st.integers() | st.none(), st.lists))
    def test_round_trip(self, value: object) -> None:
        """What goes in comes out, and no character of it is HTML's."""
        written = page.script_json(value)
        assert json.loads(written) == value
        assert not set("<>&\u2028") & set(written)


class TestPolicy:
    """The rule that the page gives to the browser."""

    def test_scripts_are_named(self) -> None:
        """Every script in the page is one that the policy allows, by digest, and no other."""
        outline = Outline(page.render_page(notebook(charted()), manifest()))
        policy = next(value for _, value in outline.attributes if value.startswith("default-src"))
        allowed = re.findall(r"'sha256-([^']+)'", policy)
        digests = [hashlib.sha256(script.encode()).digest() for script in outline.scripts]
        assert [base64.b64encode(digest).decode() for digest in digests] == allowed
        assert len(allowed) == 2

    def test_nothing_else_is_allowed(self) -> None:
        """No address, no evaluated text, no inline handlers."""
        policy = page.content_security_policy(["1"])
        assert policy.startswith("default-src 'none'")
        assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe", policy)

    def test_no_addresses(self) -> None:
        """Whatever the page refers to is in it."""
        outline = Outline(page.render_page(notebook(charted()), manifest()))
        referred = [value for name, value in outline.attributes if name in ("src", "href")]
        assert referred
        assert all(value.startswith(("data:", "#")) for value in referred)


class TestForeignText:
    """Text that somebody else wrote, in every place where it can appear."""

    @given(st.text() | st.sampled_from(["</script><b>", '"><img src=x onerror=alert(1)>', "<!--"]))
    def test_is_only_text(self, text: str) -> None:
        """No element comes or goes, whatever the text is."""
        assert self.elements(text) == self.elements("x")

    def elements(self, text: str) -> Counter[str]:
        reason = {"reason": text, "column": text, "rows": 1, "first_row": 1, "first_value": text}
        told = manifest(
            title=text or "x",
            parameters={f"p{text}": text},
            inputs=[account(source=text)],
            reasons=[reason | {"first_value": text or "x"}],
            gates=[{"message": text, "passed": False}],
            values={f"v{text}": text},
            versions={"tallybook": text},
            state="cell_failed",
            reason=text or "x",
            error={"cell": 2, "error": text, "traceback": text or "x"},
        )
        failure = new_output("error", ename=text, evalue=text, traceback=[text])
        cell = new_code_cell("1", outputs=[new_output("stream", text=text), failure])
        return Outline(page.render_page(notebook(cell), told)).elements

    @pytest.mark.parametrize(
        "text", ["<b>", "<script>alert(1)</script>", "![a](http://b.org/c.png)"]
    )
    def test_in_markdown_output(self, text: str) -> None:
        """Markdown that code displayed may not bring elements of its own."""
        assert set(Outline(page.prose(text)).elements) == {"p"}

    def test_links_that_run(self) -> None:
        """A link to a script is no link."""
        assert "javascript:" not in page.prose("[click](javascript:alert(1))")

    def test_authors_are_trusted(self) -> None:
        """A notebook's own Markdown cells may hold HTML."""
        page_text = page.render_page(notebook(new_markdown_cell("<mark>so</mark>")), manifest())
        assert "<mark>so</mark>" in page_text


class TestVegaBundle:
    """The script that draws charts, and its cache."""

    @pytest.fixture(autouse=True)
    def _fresh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.folder = tmp_path / "cache"
        monkeypatch.setattr(page, "user_cache_path", lambda _name: self.folder)
        monkeypatch.setattr(page.vl_convert, "javascript_bundle", self.make)
        page.vega_bundle.cache_clear()
        yield
        page.vega_bundle.cache_clear()

    def make(self, _snippet: str) -> str:
        self.made += 1
        return "vega = 'é</script>'"

    def again(self) -> str:
        page.vega_bundle.cache_clear()
        return page.vega_bundle()

    def test_made_once(self) -> None:
        """The next process finds it in the cache."""
        assert page.vega_bundle() == self.again() == "vega = 'é<\\/script>'"
        assert self.made == 1

    @pytest.mark.parametrize("damage", [b"", b"00", b"deadbeef\nvega = 'evil'", b"\xff\n\xff"])
    def test_damaged(self, damage: bytes) -> None:
        """A file that does not fit its digest is made anew."""
        good = page.vega_bundle()
        (file,) = self.folder.iterdir()
        file.write_bytes(damage)
        assert self.again() == good
        assert self.made == 2
        assert self.again() == good
        assert self.made == 2

    def test_no_folder(self) -> None:
        """Where nothing can be written, it is made every time."""
        self.folder.write_text("a file stands here")
        assert page.vega_bundle() == self.again()
        assert self.made == 2

    def test_once_per_page(self) -> None:
        """Three charts share one; a page without charts has none."""
        bundle = page.vega_bundle()
        assert (
            page.render_page(notebook(charted(), charted(), charted()), manifest()).count(bundle)
            == 1
        )
        assert bundle not in page.render_page(notebook(), manifest())


class TestOutputs:
    """What a cell displayed, in the best of its forms."""

    def test_order(self) -> None:
        """A chart comes before HTML, HTML before Markdown, that before a picture and text."""
        forms = {
            "text/plain": "t",
            "image/png": "aGk=\n",
            "text/markdown": "*m*",
            "text/html": "<p>h</p>",
            VEGALITE: SPEC,
        }
        kinds = []
        while forms:
            kinds.append(page.piece(new_output("execute_result", forms)).kind)
            forms.popitem()
        assert kinds == ["chart", "html", "prose", "image", "text"]

    def test_pictures(self) -> None:
        """A picture is in the page, base64 in one line; its text is what it shows."""
        made = page.piece(
            new_output("display_data", {"image/png": "aG\nk=\n", "text/plain": "plot"})
        )
        assert (made.body, made.label) == ("data:image/png;base64,aGk=", "plot")

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ({}, "Chart"),
            ({"title": "Short"}, "Short"),
            ({"title": {"text": ["Two", "lines"]}}, "Two lines"),
            ({"title": "Short", "description": "Long"}, "Long"),
        ],
    )
    def test_chart_label(self, spec: dict[str, Any], said: str) -> None:
        """A chart is described by its description, its title, or at least named."""
        assert page.chart_piece(spec, "<svg/>").label == said

    def test_chart_without_picture(self) -> None:
        """A chart that came without a picture is drawn here."""
        made = page.chart_piece(SPEC, None)
        picture = base64.b64decode(made.body.partition(",")[2]).decode()
        assert picture.startswith("<svg")
        assert json.loads(made.spec) == SPEC

    def test_warnings_stay_with_the_code(self) -> None:
        """What went to standard error, and notes, are inside the fold."""
        outputs = [new_output("stream", name="stderr", text="\x1b[33mcareful\x1b[0m")]
        outputs += [new_output("display_data", {"text/plain": "Check passed"})]
        shown, _ = page.blocks([new_code_cell("1", outputs=outputs, execution_count=1)])
        assert shown[0].pieces == ()
        assert shown[0].code[0].notes == ("careful", "Check passed")


class TestTables:
    """Markdown's tables."""

    def test_scrolls(self) -> None:
        """A table has a frame that can be reached and scrolled by keyboard."""
        found = Outline(page.prose("|a|b|\n|-|-|\n|1|2|\n|3|4|\n"))
        assert found.elements["td"] == 4
        assert ("tabindex", "0") in found.attributes

    def test_figures(self) -> None:
        """One row is shown as figures, each under its name."""
        text = page.prose("| a | b |\n|:-:|--:|\n| 1 | <i> |\n")
        assert re.findall("<d[td]>(.*?)</d[td]>", text) == ["a", "1", "b", "&lt;i&gt;"]


class TestOpening:
    """The first cell."""

    @pytest.mark.parametrize(
        ("source", "lede", "rest"),
        [
            ("# T\n\nOne\ntwo.\n\nThree.", "<p>One\ntwo.</p>\n", "\nThree."),
            ("# T\n> One\n> two.\n", "<p>One\ntwo.</p>\n", ""),
            ("# T\n## Part\n\nText.", "", "## Part\n\nText."),
            ("# T", "", ""),
            ("No title", "", "No title"),
            ("## Part", "", "## Part"),
        ],
    )
    def test_split(self, source: str, lede: str, rest: str) -> None:
        """Title and first paragraph go into the masthead, the rest stays."""
        found, cells = page.opening([new_markdown_cell(source)])
        assert (found, cells[0]["source"]) == (lede, rest)

    def test_no_cells(self) -> None:
        """A notebook may be empty, or begin with code."""
        assert page.opening([]) == ("", [])
        code = new_code_cell("# not a title")
        assert page.opening([code]) == ("", [code])


class TestContents:
    """The table of contents."""

    @given(st.lists(st.sampled_from(["Totals", "totals!", "Provenance", "<i>é</i>", "…"])))
    def test_anchors(self, titles: list[str]) -> None:
        """Every heading has an anchor of its own, and every entry leads to one."""
        cells = [new_markdown_cell(f"## {title}") for title in titles]
        ids = [
            value
            for name, value in Outline(page.render_page(notebook(*cells), manifest())).attributes
            if name == "id"
        ]
        assert len(ids) == len(set(ids))
        anchors = [heading.anchor for heading in page.blocks(cells)[1]]
        assert len(anchors) == len(titles)
        assert set(anchors) <= set(ids)


class TestStates:
    """How a run ended, said first."""

    @pytest.mark.parametrize(
        "state", ["usage", "gate_failed", "timed_out", "kernel_died", "lost", "new"]
    )
    def test_failed(self, state: str) -> None:
        """A page of a failed run opens with the reason, the cell and what was done before."""
        error = {"cell": 3, "error": "E: no", "traceback": "\x1b[31mTrace\x1b[0m"}
        cells = [
            shown({"text/html": "<p>before</p>"}),
            new_code_cell("1 / 0"),
            new_markdown_cell("## After"),
        ]
        text = page.render_page(
            notebook(*cells), manifest(state=state, reason="No row.", error=error)
        )
        assert text.index("No row.") < text.index("<p>before</p>")
        assert 'href="#cell-3"' in text
        assert 'aria-label="The error">Trace</pre>' in text
        assert ">After<" not in text
        assert "Code that was not run" in text
        assert ("What to do next" in text) == (state not in ("usage", "new"))

    def test_account(self) -> None:
        """The cell's code and heading, the error's way, the end of the log, and what to repeat."""
        frames = "Cell In[2], line 1\n----> 1 1 / 0\n      2 # later\n\nE: no"
        told = manifest(
            state="cell_failed",
            reason="E: no",
            error={"cell": 3, "error": "E: no", "traceback": frames},
            charts=[{"name": "bars", "title": "A <b>bar</b>"}],
        )
        log = "".join(
            f'{{"timestamp": "2026-11-23T20:15:{n:02}+00:00", "message": "m{n}."}}\n'
            for n in range(20)
        )
        cells = [new_markdown_cell("## Sums"), new_code_cell("1 / 0")]
        text = page.render_page(notebook(*cells), told, log=log + "<half")
        account = text[text.index('class="failure"') : text.index("</section>")]
        assert 'under <a href="#sums">Sums</a>' in account
        assert '<span class="mi">1</span>' in account
        assert "Cell In[2], line 1\n    1 / 0</pre>" in account
        assert "tallybook report run lateness -p source=sample" in account
        assert "A &lt;b&gt;bar&lt;/b&gt;" in account
        assert "m19." in account
        assert "&lt;half" in account
        assert "m8." not in account

    def test_rescued(self) -> None:
        """What was published is shown where the notebook has no results."""
        piece = page.Piece("html", page._html("<table><tr><td>1</td></tr></table>"))
        text = page.render_page(
            notebook(new_code_cell("1")), manifest(state="lost", reason="gone"), rescued=[piece]
        )
        assert text.index('id="rescued"') < text.index("<td>1</td>")
        assert "Code that was not run" not in text

    def test_killed(self) -> None:
        """A run that was killed may know neither cell nor reason."""
        error = {"cell": None, "error": "gone", "traceback": ""}
        for known in ({}, {"error": error}):
            text = page.render_page(notebook(), manifest(state="cancelled", **known))
            assert "Cancelled" in text
            assert "It happened in" not in text

    def test_went_well(self) -> None:
        """Without a failure there is no word of one."""
        assert 'class="failure"' not in page.render_page(notebook(), manifest())


class TestProvenance:
    """Where the numbers come from."""

    def test_rows(self) -> None:
        """Every row is accounted for, with thousands apart, and sources that are not files too."""
        database = account(source="db", sha256=None, bytes=None, rows_outside=0)
        text = page.render_page(notebook(), manifest(inputs=[account(), database]))
        for said in ("1,200", "1,100", "7 lie outside", "3.4 MB", "9f86d081"):
            assert said in text
        assert text.count("SHA-256") == 2

    def test_manifest_inside(self) -> None:
        """The page carries the manifest it was made from."""
        told = manifest(title="</script>")
        text = page.render_page(notebook(), told)
        carried = re.search(r'id="manifest">(.*?)</script>', text)
        assert carried
        assert json.loads(carried[1]) == told

    def test_evidence_inside(self) -> None:
        """And the evidence that it is as it was written."""
        assert is_intact(page.render_page(notebook(charted()), manifest()))


class TestLooks:
    """The colours of live charts."""

    def test_as_charts_say(self) -> None:
        """looks.json holds what the charts module returns; if not, write it anew."""
        kept = json.loads(resource_path("templates", "report", "looks.json").read_text())
        assert kept == {"light": charts.light_config(), "dark": charts.dark_config()}
