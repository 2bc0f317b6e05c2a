"""The command in a real process and on a real terminal."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tallybook.reports import list_reports

TALLYBOOK = [str(Path(sys.executable).with_name("tallybook"))]


def run(*words, cwd: Path, **options):
    return subprocess.run(
        [*TALLYBOOK, *words], cwd=cwd, capture_output=True, text=True, check=False, **options
    )


def on_a_terminal(*words, cwd: Path) -> str:
    """Run a command with a terminal for its output and return what appeared there."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [*TALLYBOOK, *words], cwd=cwd, env=environment, stdout=theirs, stderr=theirs, stdin=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        process.wait()
    os.close(ours)
    return shown.decode()


@pytest.fixture
def rides(tmp_path: Path) -> Path:
    path = tmp_path / "rides.csv"
    path.write_text("timestamp,category,amount\n2026-03-01,tea,2.10\n2026-03-01,tea,x\n")
    return path


class TestProcess:
    def test_output_for_a_log_has_no_colours_and_no_moving_bar(self, rides: Path):
        """Plain lines, whichever way they are read."""
        result = run("process", "-i", "rides.csv", "-o", "t.csv", cwd=rides.parent)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout + result.stderr
        assert result.stderr == "reading rides.csv\n"

    def test_standard_input_is_a_dash(self, rides: Path):
        """In a pipe, nothing needs a name."""
        words = ("process", "-i", "-", "-o", "t.csv")
        result = run(*words, cwd=rides.parent, input=rides.read_text())
        assert "2 rows read = 1 accepted + 1 rejected" in result.stdout, result.stderr

    def test_a_terminal_gets_a_bar(self, rides: Path):
        """And the same account below it."""
        shown = on_a_terminal("process", "-i", "rides.csv", "-o", "t.csv", cwd=rides.parent)
        assert "\x1b[" in shown
        assert "2 rows read = 1 accepted + 1 rejected" in shown

    def test_an_error_is_red_on_a_terminal_only(self, tmp_path: Path):
        """Colour helps a person and disturbs a log."""
        words = ("process", "-i", "no.csv", "-o", "t.csv")
        assert "\x1b[1;31merror:" in on_a_terminal(*words, cwd=tmp_path)
        assert run(*words, cwd=tmp_path).stderr.splitlines()[-1].startswith("error: cannot read")

    def test_columns_fit_a_terminal_and_lines_stay_whole_in_a_log(self, tmp_path: Path):
        """A person reads two columns, a script one line for each report."""
        shown = on_a_terminal("report", "list", cwd=tmp_path)
        assert max(len(line.rstrip("\r")) for line in shown.splitlines()) <= 100 + len(
            "\x1b[1m" * 4
        )
        lines = run("report", "list", cwd=tmp_path).stdout.splitlines()
        assert len(lines) == len(list_reports())
        assert [line.split()[0] for line in lines] == [one.name for one in list_reports()]

    def test_verbose_logs_json_lines(self, rides: Path):
        """On standard error, so that the answer stays clean."""
        result = run("process", "-i", "rides.csv", "-o", "t.csv", "-v", cwd=rides.parent)
        lines = result.stderr.splitlines()[1:]
        assert [json.loads(line)["rows_rejected"] for line in lines] == [1]

    @pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM])
    def test_being_stopped_leaves_nothing_behind(self, tmp_path: Path, signal_sent):
        """Not a half output, not a temporary file; the exit code says so."""
        (tmp_path / "labels.txt").write_text("a\n")
        before = set(tmp_path.iterdir())
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            process = subprocess.Popen(
                [*TALLYBOOK, "process", "-i", "labels.txt", "-o", "t.csv", "--lookup"],
                cwd=tmp_path,
                env=os.environ | {"TALLYBOOK_API_ENDPOINT": endpoint, "TMPDIR": str(tmp_path)},
                stderr=subprocess.PIPE,
                text=True,
            )
            connection, _ = silent.accept()  # now it waits for an answer that never comes
            with connection:
                process.send_signal(signal_sent)
                _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said.splitlines()[-1] == "cancelled; nothing was left behind"
        assert set(tmp_path.iterdir()) == before


HIDDEN = "correct-horse-battery-staple"


@pytest.fixture
def new_report(tmp_path: Path) -> Path:
    """A new report that was written by its command and given a secret."""
    assert run("report", "new", "rides", "--folder", ".", cwd=tmp_path).returncode == 0
    (tmp_path / "rides.csv").write_text(
        "timestamp,category,amount\n2026-03-01,tea,2.10\n2026-03-02,cake,3\n2026-03-02,tea,x\n"
    )
    (tmp_path / ".env").write_text(f"TALLYBOOK_SECRET_SALES={HIDDEN}\n")
    path = tmp_path / "rides.ipynb"
    notebook = json.loads(path.read_text())
    cells = notebook["cells"]
    cells[1]["source"].append("\nfrom tallybook.vault import Secret, secret")
    cells[2]["source"].append('\ntoken: Secret = "secret:NONE"  # what the sales service asks for')
    cells[5]["source"].append('\nrecord("token_length", len(secret(token)))')
    path.write_text(json.dumps(notebook))
    return path


class TestNewReport:
    def test_it_runs_with_its_parameters_as_options(self, new_report: Path):
        """From nothing to a page in two commands; a secret stays a reference wherever it is."""
        checked = run("report", "check", "rides.ipynb", cwd=new_report.parent)
        assert checked.stdout == "rides: nothing to mend\n"
        words = ("--source", "rides.csv", "--top=1", "--since", "2026-03-01", "--unit", "EUR")
        result = run(
            *("report", "run", "rides.ipynb", *words, "--token", "secret:sales"),
            cwd=new_report.parent,
        )
        assert result.returncode == 0, result.stderr
        assert "  rows_rejected: 1\n" in result.stdout
        assert f"  token_length: {len(HIDDEN)}\n" in result.stdout
        [bundle] = (new_report.parent / "runs" / "rides").iterdir()
        manifest = json.loads((bundle / "manifest.json").read_text())
        assert manifest["state"] == "ok"
        given = manifest["parameters"]
        assert (given["token"], given["since"]) == ("secret:sales", "2026-03-01")
        kept = [path for path in bundle.rglob("*") if path.is_file()]
        assert [path.name for path in kept if HIDDEN.encode() in path.read_bytes()] == []

    def test_a_secret_that_is_not_there_is_named(self, new_report: Path):
        """With the places that were searched; the report fails, since it needs it."""
        result = run("report", "run", "rides.ipynb", "--source=rides.csv", cwd=new_report.parent)
        assert result.returncode == 4
        assert "there is no secret NONE: set TALLYBOOK_SECRET_NONE" in result.stderr


class TestCost:
    def test_help_imports_nothing_heavy(self):
        """It has to appear at once; `make bench` measures how soon."""
        code = (
            "import sys; from tallybook.cli import app; app(['--help'], standalone_mode=False); "
            "print([m for m in ('polars', 'altair', 'pydantic', 'papermill') if m in sys.modules])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines()[-1] == "[]"
