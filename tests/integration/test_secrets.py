"""Runs that get a secret by its name, and what happens to those that let it out."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook.reports import RunResult, run_report
from tallybook.types import RunState

PASSWORD = 'hunter2 & "more"'  # noqa: S105 - nobody's
PARAMETERS = (
    "from tallybook.vault import Secret, secret\ntoken: Secret = 'secret:SALES'  # who we are"
)
IMPORTS = (
    "import base64, urllib.parse\nimport altair as alt\nimport polars as pl\n"
    "from tallybook.log import get_logger\nfrom tallybook.publish import publish, record\n"
    "frame = pl.DataFrame({'category': ['a', 'b'], 'total': [1, 2]})\n"
    "bars = alt.Chart(frame).mark_bar().encode(x='total', y='category')\n"
    "known = secret(token)"
)
LEAKS = {
    "print": "print('connecting with', known)",
    "chart": "publish(bars.properties(title=known), 'bars')",
    "table": "publish(frame.with_columns(by=pl.lit(known)), 'totals')",
    "log": "get_logger('mine').warning('connecting with %s', known)",
    "base64": "record('header', base64.b64encode(f'ada:{known}'.encode()).decode())",
    "url": "record('address', 'https://db?key=' + urllib.parse.quote(known))",
    "error": "raise ValueError(f'refused: {known}')",
}


def run_sources(place: Path, *sources: str) -> RunResult:
    cells = [
        new_markdown_cell("# Secret sales"),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, (IMPORTS, *sources)),
    ]
    nbformat.write(new_notebook(cells=cells), place / "sales.ipynb")
    return run_report(place / "sales.ipynb", runs_dir=place / "runs")


@pytest.fixture(autouse=True)
def vault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is a secret, in an environment without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLYBOOK_SECRET_SALES", PASSWORD)


def everything(folder: Path) -> str:
    return "\n".join(
        path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file()
    )


class TestSecrets:
    """The reference is seen by everybody, the secret by nobody."""

    def test_a_reference_stays_a_reference(self, tmp_path: Path) -> None:
        """The notebook uses the secret; page, notebook, manifest and log have its name only."""
        result = run_sources(
            tmp_path, "record('length', len(known))\nget_logger('mine').info('as %s', token)"
        )
        assert (result.state, result.manifest["values"]) == (RunState.OK, {"length": len(PASSWORD)})
        assert result.folder is not None
        assert result.manifest["parameters"] == {"token": "secret:SALES"}
        for name in ("report.html", "notebook.ipynb", "log.jsonl", "manifest.json"):
            text = (result.folder / name).read_text()
            assert "secret:SALES" in text
            assert "hunter2" not in text

    def test_everywhere(self, tmp_path: Path) -> None:
        """Printed, drawn, tabulated, logged and encoded: every file is named, none is kept."""
        told = [source for name, source in LEAKS.items() if name != "error"]
        result = run_sources(tmp_path, *told)
        assert (result.state, result.state.exit_code) == (RunState.CELL_FAILED, 4)
        assert result.folder is not None
        assert {leak["file"] for leak in result.manifest["leaks"]} == {
            "charts/bars.svg",
            "charts/bars.vl.json",
            "log.jsonl",
            "manifest.json",
            "notebook.ipynb",
            "report.html",
            "tables/totals.parquet",
        }
        assert "secret:SALES in charts/bars.svg, charts/bars.vl.json" in str(result.reason)
        assert result.manifest["error"]["cell"] == 5
        assert sorted(path.name for path in result.folder.iterdir()) == [
            "manifest.json",
            "notebook.ipynb",
            "report.html",
        ]
        assert "hunter2" not in everything(result.folder)
        page = (result.folder / "report.html").read_text()
        assert "secret:SALES" in page
        assert "tables/totals.parquet" in page
        assert result.manifest["values"] == {}
        assert list((tmp_path / "runs" / "sales").glob(".*")) == []

    @pytest.mark.parametrize("name", ["base64", "url", "error"])
    def test_each_disguise_alone(self, tmp_path: Path, name: str) -> None:
        """One is enough."""
        result = run_sources(tmp_path, LEAKS[name])
        assert result.state is RunState.CELL_FAILED
        assert result.folder is not None
        assert [leak["secret"] for leak in result.manifest["leaks"]].count("secret:SALES") >= 3
        kept = everything(result.folder)
        assert "hunter2" not in kept
        assert json.loads((result.folder / "manifest.json").read_text()) == result.manifest
