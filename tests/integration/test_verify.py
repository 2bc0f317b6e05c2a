"""Runs that are repeated: what is proved, what is found to differ, and what cannot be known."""

import json
import shutil
from datetime import date
from pathlib import Path

import nbformat
import polars as pl
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tallybook.errors import SourceError
from tallybook.files import sha256_file
from tallybook.reports import RunResult, run_report
from tallybook.types import RunState
from tallybook.verify import Verdict, Verification, verdict_lines, verify_run

pytestmark = pytest.mark.usefixtures("warm_kernels")
ROOT = Path(__file__).parents[2]
REPORTS = sorted(path.stem for path in (ROOT / "reports").glob("*.ipynb"))
SOME = ("category_totals",)
SHIPPED = [pytest.param(name, marks=() if name in SOME else pytest.mark.soak) for name in REPORTS]
RIDES = "timestamp,category,amount\n2013-02-09T10:00:00Z,tea,1.50\n2013-02-10T10:00:00Z,cake,2.25\n"
PARAMETERS = (
    "from datetime import date\nsince: date | None = None\nleast: float = 0.5\nfail: bool = False"
)
CODE = (
    "import os\nimport altair as alt\nimport polars as pl\n"
    "from tallybook.publish import gate, load, publish, record, skip\n"
    "from tallybook.tally import finalize",
    "rides = load('rides.csv', since=since, until='today+1d')\ntotals = finalize(rides.partial)",
    "# a report must not do this: it makes the result depend on something that nobody notes\n"
    "mood = os.environ.get('MOOD', '')\n"
    "if 'other' in mood:\n"
    "    totals = totals.with_columns(pl.col('total_amount') + 1)\n"
    "if mood == 'broken':\n"
    "    {}['nothing']",
    "record('total', totals['total_amount'].sum())\nrecord('since', since)",
    "frame = totals.select('category', pl.col('total_amount').cast(float))\n"
    "publish(totals, 'totals')\n"
    "publish(alt.Chart(frame).mark_bar().encode(x='total_amount', y='category'), 'bars')",
    "gate(not fail, 'there is nothing wrong')",
)
TODAY = date(2013, 2, 11)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a report on them."""
    place = tmp_path_factory.mktemp("shop")
    (place / "rides.csv").write_text(RIDES)
    cells = [
        new_markdown_cell("# Tea"),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, CODE),
    ]
    nbformat.write(new_notebook(cells=cells), place / "tea.ipynb")
    return place


@pytest.fixture(scope="module")
def january(shop: Path) -> RunResult:
    """Its run on a day of February 2013, for the days before."""
    given = {"since": "today-7d"}
    result = run_report(
        shop / "tea.ipynb", given, runs_dir=shop / "runs", start_dir=shop, today=TODAY
    )
    assert result.reason is None
    return result


@pytest.fixture
def bundle(january: RunResult, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    assert january.folder is not None
    return Path(shutil.copytree(january.folder, tmp_path / january.folder.name))


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def told(found: Verification) -> str:
    return "\n".join(verdict_lines(found))


class TestShipped:
    """The reports that come with Tallybook."""

    @pytest.mark.parametrize("name", SHIPPED)
    def test_byte_for_byte(
        self, name: str, january: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reproduced with another hash seed and another clock, for a day that is long past."""
        assert january.folder is not None
        shutil.copytree(january.folder, tmp_path / "runs" / "tea" / january.folder.name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONHASHSEED", "1")
        result = run_report(name, runs_dir=tmp_path / "made", today=TODAY)
        assert result.state in (RunState.OK, RunState.SKIPPED), result.reason
        assert result.folder is not None
        monkeypatch.setenv("PYTHONHASHSEED", "20130209")
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        found = verify_run(result.folder)
        assert (found.verdict, found.byte_for_byte) == (Verdict.REPRODUCED, True), told(found)


class TestReproduced:
    """The same comes out."""

    def test_the_day_is_that_of_the_run(self, january: RunResult, shop: Path) -> None:
        """Expressions mean what they meant, in parameters and in the notebook."""
        before = sorted((shop / "runs").rglob("*"))
        found = verify_run(january.folder, start_dir=shop)
        assert (found.verdict, found.byte_for_byte) == (Verdict.REPRODUCED, True), told(found)
        assert january.manifest["values"]["since"] == "2013-02-04"
        days = [
            (day["where"], day["expression"], day["day"]) for day in january.manifest["key"]["days"]
        ]
        assert days == [("since", "today-7d", "2013-02-04"), ("load", "today+1d", "2013-02-12")]
        assert "reproduced, byte for byte (1 table, 1 chart, 2 recorded values)" in told(found)
        assert sorted((shop / "runs").rglob("*")) == before

    def test_a_failed_check(self, shop: Path) -> None:
        """A run that ended with no can be proved as well."""
        result = run_report(
            shop / "tea.ipynb", {"fail": True}, runs_dir=shop / "runs", start_dir=shop
        )
        assert result.state is RunState.GATE_FAILED
        assert verify_run(result.folder, start_dir=shop).verdict is Verdict.REPRODUCED

    def test_a_failed_cell(self, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same error comes out; when it does not, that is a drift."""
        monkeypatch.setenv("MOOD", "broken")
        result = run_report(shop / "tea.ipynb", runs_dir=shop / "runs", start_dir=shop)
        assert result.state is RunState.CELL_FAILED
        assert verify_run(result.folder, start_dir=shop).verdict is Verdict.REPRODUCED
        monkeypatch.delenv("MOOD")
        found = verify_run(result.folder, start_dir=shop)
        assert found.verdict is Verdict.DRIFTED
        assert "state: cell_failed → ok" in told(found)


class TestDrifted:
    """Something else comes out."""

    def test_numbers(self, january: RunResult, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Values, cells and charts are named, with the difference."""
        monkeypatch.setenv("MOOD", "other")
        found = verify_run(january.folder, start_dir=shop)
        assert found.verdict is Verdict.DRIFTED
        said = told(found)
        assert "total: 3.75 → 5.75, +2 (+53.3 %)" in said
        assert "tea: total_amount: 1.5 → 2.5, +1 (+66.7 %)" in said
        assert "chart bars: " in said
        assert "total_amount: 2.25 → 3.25" in said

    def test_forged_table(self, bundle: Path, shop: Path) -> None:
        """A table that was changed together with its digest does not come out again."""
        path = bundle / "tables" / "totals.parquet"
        forged = pl.read_parquet(path).with_columns(pl.col("transaction_count") + 1)
        forged.write_parquet(path)
        tables = json.loads((bundle / "manifest.json").read_text())["tables"]
        edit(bundle, tables=[{**tables[0], "sha256": sha256_file(path)}])
        found = verify_run(bundle, start_dir=shop)
        assert found.verdict is Verdict.DRIFTED
        assert "cake: transaction_count: 2 → 1" in told(found)

    def test_other_bytes_with_the_same_values(self, bundle: Path, shop: Path) -> None:
        """Another version of Parquet writes other bytes; the values are proved."""
        path = bundle / "tables" / "totals.parquet"
        pl.read_parquet(path).write_parquet(path, compression="uncompressed")
        tables = json.loads((bundle / "manifest.json").read_text())["tables"]
        edit(bundle, tables=[{**tables[0], "sha256": sha256_file(path)}])
        found = verify_run(bundle, start_dir=shop)
        assert (found.verdict, found.byte_for_byte) == (Verdict.REPRODUCED, False)
        assert "value by value" in told(found)

    def test_broken_since(
        self, january: RunResult, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Code that fails only now proves nothing about the numbers."""
        monkeypatch.setenv("MOOD", "broken")
        found = verify_run(january.folder, start_dir=shop)
        assert found.verdict is Verdict.CANNOT_RUN
        assert "this time it ended as cell_failed: KeyError: 'nothing'" in told(found)


class TestNotRun:
    """What is said before anything is run."""

    def test_input_changed(self, bundle: Path, tmp_path: Path) -> None:
        """Which one, and what its digest was."""
        (tmp_path / "rides.csv").write_text(RIDES.replace("1.50", "1.51"))
        found = verify_run(bundle, start_dir=tmp_path)
        assert found.verdict is Verdict.INPUTS_CHANGED
        assert "rides.csv has changed (SHA-256 " in told(found)

    def test_input_missing(self, bundle: Path, tmp_path: Path) -> None:
        """Which one, and where it was looked for."""
        found = verify_run(bundle, start_dir=tmp_path)
        assert found.verdict is Verdict.CANNOT_RUN
        assert f"rides.csv is not there, seen from {tmp_path}" in told(found)

    @pytest.mark.parametrize("name", ["tables/totals.parquet", "charts/bars.vl.json"])
    def test_tampered_result(self, bundle: Path, shop: Path, name: str) -> None:
        """A result whose digest is not that of the manifest."""
        path = bundle / name
        path.write_bytes(path.read_bytes().replace(b"tea", b"TEA") + b" ")
        found = verify_run(bundle, start_dir=shop)
        assert (found.verdict, found.verdict.exit_code) == (Verdict.TAMPERED, 13)
        assert name in told(found)

    def test_tampered_code(self, bundle: Path, shop: Path) -> None:
        """Code that was put into the bundle is not executed."""
        path = bundle / "notebook.ipynb"
        path.write_text(path.read_text().replace("import os", "import os; os.abort()", 1))
        assert verify_run(bundle, start_dir=shop).reasons == (
            "notebook.ipynb is gone, or not as the run left it",
        )

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"state": "timed_out", "reason": "too slow"}, "it ended as timed_out: too slow"),
            ({"state": "kernel_died", "reason": "killed"}, "it ended as kernel_died: killed"),
            ({"leaks": []}, "its results were withheld"),
        ],
    )
    def test_not_repeatable(self, bundle: Path, shop: Path, changes, said: str) -> None:
        """Runs without a result that could come out again."""
        edit(bundle, **changes)
        found = verify_run(bundle, start_dir=shop)
        assert found.verdict is Verdict.CANNOT_RUN
        assert said in told(found)

    def test_before_keys(self, bundle: Path, shop: Path) -> None:
        """A bundle that does not say what it depended on."""
        manifest = json.loads((bundle / "manifest.json").read_text())
        del manifest["key"]
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        assert "did not keep what a run depends on" in told(verify_run(bundle, start_dir=shop))

    def test_secret_missing(self, bundle: Path, shop: Path) -> None:
        """By its name."""
        edit(bundle, parameters={"token": "secret:NOWHERE"})
        found = verify_run(bundle, start_dir=shop)
        assert found.verdict is Verdict.CANNOT_RUN
        assert "there is no secret NOWHERE" in told(found)

    def test_parameters_that_the_code_does_not_know(self, bundle: Path, shop: Path) -> None:
        """Forged parameters are a mistake, not a crash."""
        edit(bundle, parameters={"nothing": 1})
        assert "there is no such parameter" in told(verify_run(bundle, start_dir=shop))

    def test_newer_format(self, bundle: Path) -> None:
        """It is refused, and says what to do."""
        edit(bundle, format_version=2)
        with pytest.raises(SourceError, match="update Tallybook"):
            verify_run(bundle)

    def test_no_bundle(self, tmp_path: Path) -> None:
        """A folder without a run."""
        with pytest.raises(SourceError, match="there is no run here"):
            verify_run(tmp_path)
