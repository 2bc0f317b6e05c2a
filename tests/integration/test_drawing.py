"""Charts drawn by a process that several kernels share, or by the kernel when there is none."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tallybook import drawing
from tallybook.drawing import Drawer, draw_svg, draw_through, end_drawer, line_to, start_drawer
from tallybook.pool import WarmPool, warm_pool
from tallybook.reports import RunResult, run_report
from tallybook.types import RunState

VEGALITE = "6.1"
COMMAND = [sys.executable, "-c", "from tallybook.drawing import serve_drawing; serve_drawing()"]
# A billion points: nobody waits for that.
ENDLESS = {"data": {"sequence": {"start": 0, "stop": 10**9}}, "mark": "point"}


def chart(rides: int) -> dict[str, object]:
    """Return a chart with axes, a clipped mark and names, which differs by a number."""
    cities = ["Rome", "Oslo", "<b>Zürich</b>"]
    values = [{"city": city, "rides": rides + n} for n, city in enumerate(cities)]
    encoding = {"x": {"field": "rides", "type": "quantitative"}, "y": {"field": "city"}}
    return {
        "data": {"values": values},
        "mark": {"type": "bar", "clip": True},
        "encoding": encoding,
    }


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    """A process that draws; gone after the test."""
    started = start_drawer(COMMAND, dict(os.environ))
    yield started
    drawing._leave()
    end_drawer(started)


def ask(drawer: Drawer, spec: object) -> bytes:
    """Ask for a drawing as a kernel does, on a line of its own."""
    with Connection(line_to(drawer)) as line:
        line.send_bytes(json.dumps([spec, VEGALITE]).encode())
        return line.recv_bytes()


class TestDrawer:
    """It draws what a process would draw by itself."""

    def test_same_bytes(self, drawer: Drawer) -> None:
        """Whatever was drawn before, and in whatever order."""
        alone = [draw_svg(chart(rides), VEGALITE) for rides in range(3)]
        draw_through(line_to(drawer))
        shared = [draw_svg(chart(rides), VEGALITE) for rides in (2, 0, 1)]
        assert os.getpid() in drawing._LINES
        assert [shared[1], shared[2], shared[0]] == alone

    def test_several_at_once(self, drawer: Drawer) -> None:
        """Each gets its own drawing."""
        with ThreadPoolExecutor(4) as threads:
            drawn = list(threads.map(lambda rides: ask(drawer, chart(rides)), range(12)))
        assert drawn == [draw_svg(chart(rides), VEGALITE).encode() for rides in range(12)]

    def test_what_cannot_be_drawn(self, drawer: Drawer) -> None:
        """The error is that of this process, and the drawer goes on."""
        draw_through(line_to(drawer))
        with pytest.raises(ValueError, match="conversion failed"):
            draw_svg({"mark": 3}, VEGALITE)
        assert ask(drawer, chart(1)).startswith(b"<svg")

    def test_asks_nobody(self, drawer: Drawer) -> None:
        """What a chart loads from an address is refused by the drawer too."""
        url = {"data": {"url": "http://127.0.0.1:9/rides.csv"}, "mark": "bar"}
        assert ask(drawer, url) == b""

    def test_whoever_asked_is_gone(self, drawer: Drawer) -> None:
        """Half a question, and a question whose answer nobody reads, stop nothing."""
        os.close(line_to(drawer))
        for sent in (b"\0\0", b"\0\0\1\0half"):
            line = line_to(drawer)
            os.write(line, sent)
            os.close(line)
        with Connection(line_to(drawer)) as line:
            line.send_bytes(json.dumps([chart(1), VEGALITE]).encode())
        assert ask(drawer, chart(2)).startswith(b"<svg")


class TestWithoutDrawer:
    """One that fails costs a moment, and no picture."""

    def test_killed_while_it_draws(self, drawer: Drawer) -> None:
        """Whoever waits hears at once; the next drawing is made here."""
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(ask, drawer, ENDLESS)
            draw_through(line_to(drawer))
            drawer.process.kill()
            with pytest.raises((EOFError, ConnectionError)):
                waiting.result(timeout=60)
        assert draw_svg(chart(1), VEGALITE).startswith("<svg")
        assert os.getpid() not in drawing._LINES

    def test_ends_what_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An alarm ends it in the middle of a drawing."""
        hasty = COMMAND[2].replace("; ", "; from tallybook import drawing; ", 1)
        hasty = hasty.replace("serve_drawing()", "drawing._DRAW_SECONDS = 0.2; serve_drawing()")
        started = start_drawer([sys.executable, "-c", hasty], dict(os.environ))
        try:
            with pytest.raises((EOFError, ConnectionError)):
                ask(started, ENDLESS)
            assert started.process.wait(60) == -signal.SIGALRM
        finally:
            end_drawer(started)

    def test_stopped(self, drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that does not answer is left alone after a while."""
        monkeypatch.setattr(drawing, "_PATIENCE_SECONDS", 1)
        drawer.process.send_signal(signal.SIGSTOP)
        draw_through(line_to(drawer))
        assert draw_svg(chart(1), VEGALITE).startswith("<svg")
        assert os.getpid() not in drawing._LINES

    def test_fork_draws_by_itself(self, drawer: Drawer) -> None:
        """A line is for one process: a fork's questions would get in between."""
        draw_through(line_to(drawer))
        lines, drawing._LINES[os.getpid() + 1] = (
            dict(drawing._LINES),
            drawing._LINES.pop(os.getpid()),
        )
        assert drawing._asked(chart(1), VEGALITE) == ""
        drawing._LINES.clear()
        drawing._LINES.update(lines)

    def test_own_fonts(
        self, drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that registers fonts has them in its charts: it draws by itself."""
        import vl_convert  # noqa: PLC0415

        monkeypatch.setattr(
            vl_convert, "register_font_directory", vl_convert.register_font_directory
        )
        draw_through(line_to(drawer))
        vl_convert.register_font_directory(str(tmp_path))
        assert os.getpid() not in drawing._LINES

    def test_ends_with_its_owner(self, drawer: Drawer) -> None:
        """When nobody can give it a line any more, it ends."""
        drawer.socket.close()
        assert drawer.process.wait(60) == 0


DRAWS = """
import os, sys
import altair as alt
from tallybook import charts, drawing
from tallybook.publish import publish, record
record("shared", os.getpid() in drawing._LINES)
chart = alt.Chart(alt.InlineData(values=[{"a": 1, "b": "x"}, {"a": 3, "b": "y"}]))
publish(chart.mark_bar().encode(x="a:Q", y="b:N").properties(title="A"), "bars")
record("still", os.getpid() in drawing._LINES)
"""


def write_report(folder: Path, *sources: str) -> Path:
    """Write a notebook from the sources of its code cells."""
    path = folder / "drawn.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def pictures(result: RunResult) -> dict[str, bytes]:
    """Return a run's chart files by name."""
    assert result.state is RunState.OK, result.reason
    assert result.folder is not None
    return {path.name: path.read_bytes() for path in (result.folder / "charts").iterdir()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's pool and its bundles are."""
    return tmp_path_factory.mktemp("drawing")


@pytest.fixture(scope="module")
def pool(place: Path) -> Iterator[WarmPool]:
    """One pool for the module; after it nothing that draws is left."""
    with warm_pool(1, runs_dir=place) as opened:
        yield opened
        pids = [drawer.process.pid for drawer in opened._drawers]
    assert pids
    assert not any(map(psutil.pid_exists, pids))


class TestPool:
    """The kernels of a pool have their charts drawn."""

    def test_same_files_as_without(self, pool: WarmPool, place: Path) -> None:
        """Specification, SVG and PNG; and the drawer has drawn them."""
        warm = run_report(write_report(place, DRAWS), pool=pool, force=True)
        cold = run_report(write_report(place, DRAWS), runs_dir=place, force=True)
        assert pictures(warm) == pictures(cold)
        assert len(pictures(warm)) == 3
        assert warm.manifest["values"] == {"shared": True, "still": True}
        assert cold.manifest["values"] == {"shared": False, "still": False}

    def test_killed_drawer(self, pool: WarmPool, place: Path) -> None:
        """Kernels that wait draw by themselves; those that come later have a new one."""
        [before] = pool._drawers
        before.process.kill()
        before.process.wait()
        alone, again = (run_report(write_report(place, DRAWS), pool=pool, force=True) for _ in "12")
        assert pictures(alone) == pictures(again)
        assert alone.manifest["values"]["still"] is False
        assert again.manifest["values"]["still"] is True
        assert pool._drawers[0].process.pid != before.process.pid

    def test_kernel_that_draws_nothing_has_none(self, tmp_path: Path) -> None:
        """Nor is one started for it."""
        with warm_pool(1, ["polars"], runs_dir=tmp_path) as plain:
            seen = run_report(write_report(tmp_path, DRAWS), pool=plain, force=True)
            assert seen.manifest["values"]["shared"] is False
            assert not plain._drawers
