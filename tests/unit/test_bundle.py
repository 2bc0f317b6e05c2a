"""Bundles written without a kernel: what a secret leaves of them, and when they still hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tallybook.bundle import write_bundle
from tallybook.errors import ReportError
from tallybook.execution import Outcome, Request, failure
from tallybook.explain import damaged_files, explain, explanation_lines
from tallybook.types import RunState

PASSWORD = "hunter2-and-more"  # noqa: S105 - nobody's


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Return the order for a run whose work folder is ready, and which knows a secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLYBOOK_SECRET_SALES", PASSWORD)
    (tmp_path / "tea.ipynb").write_text(json.dumps(written()))
    made = Request(
        report="tea",
        title="Tea",
        notebook=str(tmp_path / "tea.ipynb"),
        parameters={"token": "secret:SALES"},
        run_id="20260131T060000Z-000000",
        runs=str(tmp_path / "runs" / "tea"),
        start_dir=str(tmp_path),
        started_at="2026-01-31T06:00:00+00:00",
        timeout_seconds=60,
        today="2026-01-31",
        depends={"parameters": {"token": "secret:SALES"}},
    )
    made.scratch.mkdir(parents=True)
    return made


def written(source="go()", text="done"):
    said = new_output("stream", text=text)
    return new_notebook(cells=[new_markdown_cell("# Tea"), new_code_cell(source, outputs=[said])])


def everything(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


class TestSecrets:
    """What is left of a run in which a secret stood."""

    def test_reference_is_no_secret(self, request_: Request) -> None:
        """Its name may be seen by everybody."""
        write_bundle(request_, Outcome(RunState.OK), written(), None)
        manifest = json.loads((request_.work / "manifest.json").read_text())
        assert (manifest["state"], manifest["parameters"]) == ("ok", {"token": "secret:SALES"})
        assert "leaks" not in manifest

    @pytest.mark.parametrize("where", ["source", "text"])
    def test_cell(self, request_: Request, where: str) -> None:
        """In code or in an output; the page names the cell, the file and the secret."""
        write_bundle(request_, Outcome(RunState.OK), written(**{where: f"x = '{PASSWORD}'"}), None)
        manifest = json.loads((request_.work / "manifest.json").read_text())
        assert (manifest["state"], manifest["error"]["cell"]) == ("cell_failed", 2)
        assert "secret:SALES in notebook.ipynb and report.html" in manifest["reason"]
        assert PASSWORD not in everything(request_.work)
        assert "secret:SALES" in (request_.work / "report.html").read_text()

    def test_a_failed_run_keeps_its_state(self, request_: Request) -> None:
        """But its message, which held the secret, is not kept."""
        outcome = Outcome(
            RunState.TIMED_OUT,
            f"waiting for {PASSWORD}",
            failure(1, "TimedOut", PASSWORD, PASSWORD),
        )
        write_bundle(request_, outcome, written(), 1)
        manifest = json.loads((request_.work / "manifest.json").read_text())
        assert (manifest["state"], manifest["error"]["cell"]) == ("timed_out", 2)
        assert PASSWORD not in everything(request_.work)

    def test_given_as_a_parameter(self, request_: Request) -> None:
        """A password that somebody passed as plain text is in none of the files."""
        given = replace(
            request_, parameters={"token": PASSWORD}, depends={"parameters": {"token": PASSWORD}}
        )
        write_bundle(given, Outcome(RunState.OK), written(), None)
        assert PASSWORD not in everything(request_.work)

    def test_results_and_log_are_gone(self, request_: Request) -> None:
        """Also those in which nothing was found."""
        (request_.work / "tables").mkdir()
        (request_.work / "tables" / "clean.csv").write_text("tea")
        request_.log.write_text(f'{{"message": "{PASSWORD}"}}\n')
        write_bundle(request_, Outcome(RunState.OK), written(), None)
        assert sorted(path.name for path in request_.work.iterdir()) == [
            "manifest.json",
            "notebook.ipynb",
            "report.html",
        ]

    def test_a_word_of_every_page(self, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such a password cannot be kept out; that is said, and by which name."""
        monkeypatch.setenv("PGPASSWORD", "format_version")
        with pytest.raises(ReportError, match="the value of PGPASSWORD is a word"):
            write_bundle(request_, Outcome(RunState.OK), written(), None)


class TestEarlierRun:
    """When a bundle may stand in for a new run."""

    @pytest.fixture
    def earlier(self, request_: Request) -> Request:
        """Return the order for a run that has taken place."""
        write_bundle(request_, Outcome(RunState.OK), written(), None)
        request_.work.rename(request_.folder)
        return request_

    def test_unchanged(self, earlier: Request) -> None:
        """The same question, and nothing else is different."""
        found = explain(earlier)
        assert not found.would_run
        assert (
            "would not run: nothing has changed since 2026-01-31 06:00 UTC"
            in explanation_lines(found)[0]
        )

    @pytest.mark.parametrize("name", ["report.html", "notebook.ipynb"])
    def test_damaged(self, earlier: Request, name: str) -> None:
        """A bundle with a file missing does not stand in."""
        (earlier.folder / name).unlink()
        assert damaged_files(earlier.folder, dict(explain(earlier).manifest)) == [name]
        assert explain(earlier).would_run

    @pytest.mark.parametrize(
        "change", [{"state": "cell_failed"}, {"format_version": 2}, {"key": None}]
    )
    def test_not_comparable(self, earlier: Request, change) -> None:
        """Failed, of a later format, or of a version without keys."""
        path = earlier.folder / "manifest.json"
        manifest = json.loads(path.read_text()) | change
        path.write_text(json.dumps({name: value for name, value in manifest.items() if value}))
        assert explanation_lines(explain(earlier)) == ["tea would run: no earlier run ended well."]

    def test_rubbish_is_passed_over(self, earlier: Request) -> None:
        """A broken manifest is nobody's earlier run."""
        other = Path(earlier.runs, "20260201T060000Z-000000")
        other.mkdir()
        (other / "manifest.json").write_text("{")
        assert explain(earlier).folder == earlier.folder

    def test_the_same_question_comes_first(self, earlier: Request) -> None:
        """A newer run with other parameters is not in the way."""
        later = replace(
            earlier,
            run_id="20260301T060000Z-000000",
            parameters={"token": "secret:STOCK"},
            depends={"parameters": {"token": "secret:STOCK"}},
        )
        later.scratch.mkdir(parents=True)
        write_bundle(later, Outcome(RunState.OK), written(), None)
        later.work.rename(later.folder)
        assert explain(earlier).folder == earlier.folder
        assert explain(replace(earlier, parameters={}, depends={})).folder == later.folder
