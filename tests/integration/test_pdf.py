"""A page printed by the real Chromium."""

from __future__ import annotations

import os
import re
import stat
import time
import zlib
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tallybook.errors import ConfigError, OutputError, ReportError, SourceError
from tallybook.page import render_page
from tallybook.pdf import export_pdf, find_browser

SPEC = {
    "title": "Rides",
    "mark": "bar",
    "data": {"values": [{"city": "Rome", "rides": 3}]},
    "encoding": {"x": {"field": "rides", "type": "quantitative"}, "y": {"field": "city"}},
}
MANIFEST = {
    "report": "rides",
    "title": "Rides",
    "run_id": "20260131T060000Z-000000",
    "state": "ok",
    "reason": None,
    "started_at": "2026-01-31T06:00:00+00:00",
    "duration_seconds": 1.0,
    "parameters": {},
    "values": {},
    "versions": {"tallybook": "0.1.0"},
    "notebook": {"name": "rides.ipynb", "sha256": "9f86d081"},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a chart."""
    chart = new_output("display_data", {"application/vnd.vegalite.v6+json": SPEC})
    cells = [
        new_markdown_cell("# Rides\n\n## By city"),
        new_code_cell("show()", execution_count=1, outputs=[chart]),
        new_markdown_cell("## Many\n\n" + "A line of text.\n\n" * 120),
    ]
    path = tmp_path_factory.mktemp("page") / "a report.html"
    path.write_text(render_page(new_notebook(cells=cells), MANIFEST), "utf-8")
    return path


@pytest.fixture(scope="module")
def printed(page: Path, chromium: Path) -> bytes:
    """The same report as PDF."""
    return export_pdf(page, page.with_name("report.pdf"), browser=chromium).read_bytes()


def script(path: Path, text: str) -> Path:
    """A program that stands in for a browser."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class TestPrinted:
    """What comes out."""

    def test_pages(self, printed: bytes) -> None:
        """A PDF with as many pages as there is text for, A4, to its end."""
        assert printed.startswith(b"%PDF-")
        assert printed.rstrip().endswith(b"%%EOF")
        boxes = re.findall(rb"/MediaBox\s*\[0 0 ([0-9.]+) ([0-9.]+)\]", printed)
        assert len(boxes) >= 3
        assert {(round(float(w)), round(float(h))) for w, h in boxes} <= {(595, 842), (596, 842)}

    def test_charts_are_drawn(self, printed: bytes) -> None:
        """The chart's bar is on the first page, in its colour, as a path and no pixels."""
        streams = re.findall(rb"stream\r?\n(.*?)endstream", printed, re.DOTALL)
        drawn = b""
        for stream in streams:
            unpacked = zlib.decompressobj()
            try:
                drawn += unpacked.decompress(stream)
            except zlib.error:
                continue
        blue = rb"\.298[0-9]* 0?\.470[0-9]* 0?\.658[0-9]* rg"
        assert re.search(blue, drawn)
        assert b"/Subtype /Image" not in printed

    def test_nothing_stays(self, printed: bytes, page: Path) -> None:
        """Page and PDF are all that is left, and no browser runs."""
        assert sorted(path.name for path in page.parent.iterdir()) == [
            "a report.html",
            "report.pdf",
        ]
        ours = psutil.Process().children(recursive=True)
        assert not [child for child in ours if "--print-to-pdf" in " ".join(child.cmdline())]


def stays(pid: int) -> bool:
    """Tell whether a process that was killed is still there some time later."""
    with suppress(psutil.NoSuchProcess):
        for _ in range(1000):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
            time.sleep(0.01)
        return True
    return False


class TestRefused:
    """What goes wrong is said, and an older PDF is left as it was."""

    def test_no_page(self, tmp_path: Path) -> None:
        """There is nothing to print."""
        with pytest.raises(SourceError, match=r"name a report's page"):
            export_pdf(tmp_path / "missing.html", tmp_path / "report.pdf")

    @pytest.mark.parametrize("name", ["report.txt", "nowhere/report.pdf"])
    def test_no_place(self, page: Path, tmp_path: Path, name: str) -> None:
        """It cannot be written there."""
        with pytest.raises(OutputError, match="cannot write"):
            export_pdf(page, tmp_path / name)

    def test_no_browser(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without a browser the error says how to get one."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("tallybook.pdf._APPLICATIONS", ())
        with pytest.raises(ConfigError, match="apt install chromium"):
            find_browser()
        with pytest.raises(ConfigError, match="netscape"):
            find_browser(Path("netscape"))
        named = script(tmp_path / "chromium", "exit 0")
        assert find_browser() == named

    def test_browser_fails(self, page: Path, tmp_path: Path) -> None:
        """What the browser said is passed on."""
        older = tmp_path / "report.pdf"
        older.write_text("older")
        broken = script(tmp_path / "broken", "echo no display >&2; exit 1")
        with pytest.raises(ReportError, match="ended without a PDF; it said: no display"):
            export_pdf(page, older, browser=broken)
        assert older.read_text() == "older"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "report.pdf"]

    def test_takes_too_long(self, page: Path, tmp_path: Path) -> None:
        """A browser that hangs is ended, with its children."""
        pids = tmp_path / "pids"
        hanging = script(tmp_path / "hanging", f'tail -f /dev/null &\necho "$$ $!" > {pids}\nwait')
        with pytest.raises(ReportError, match="took longer than 2 seconds"):
            export_pdf(page, tmp_path / "report.pdf", browser=hanging, timeout_seconds=2)
        assert not any(map(stays, map(int, pids.read_text().split())))

    def test_arguments(self, page: Path, tmp_path: Path) -> None:
        """It has a profile of its own, no network, and no sandbox only for root."""
        told = tmp_path / "told"
        spy = script(tmp_path / "spy", f'printf "%s\\n" "$@" > {told}')
        with pytest.raises(ReportError):
            export_pdf(page, tmp_path / "report.pdf", browser=spy)
        arguments = told.read_text().splitlines()
        assert arguments[-1] == page.as_uri()
        assert ("--no-sandbox" in arguments) == (os.geteuid() == 0)
        assert "--host-resolver-rules=MAP * ~NOTFOUND" in arguments
        [profile] = [text for text in arguments if text.startswith("--user-data-dir=")]
        assert not Path(profile.partition("=")[2]).exists()
