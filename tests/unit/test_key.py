"""What a run depends on: nothing that matters is missing, nothing that does not matter counts."""

import os
from datetime import date
from pathlib import Path

import pytest

from tallybook.digests import digest_of, fingerprint, local_files
from tallybook.key import (
    KeyPart,
    code_cells,
    given_days,
    installed_versions,
    key_changes,
    module_digests,
    named_files,
    reads_clock,
    run_key,
    summarize_changes,
    unseen,
)
from tallybook.params import parse_parameters, validate_parameters


def notebook(*sources, tags=()):
    cells = [
        {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source}
        for source in sources
    ]
    return {"cells": cells}


def key(*sources, notes=(), today="2026-01-31", **before):
    return run_key(before, notebook(*sources), notes, today)


def read(source, sha256):
    return {"kind": "input", "source": source, "sha256": sha256}


class TestCode:
    """Which code counts."""

    def test_prose_outputs_and_injected_values_do_not_count(self) -> None:
        """Only what the author wrote as code."""
        book = notebook("a = 1", " \n")
        book["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": "# A"})
        book["cells"] += notebook("a = 2", tags=["injected-parameters"])["cells"]
        book["cells"][1]["outputs"] = ["something"]
        assert code_cells(book) == ["a = 1"]

    @pytest.mark.parametrize(
        "source",
        [
            "pl.read_csv('a')",
            "pl.scan_parquet('a')",
            "open('a')",
            "Path('a').read_text()",
            "list(Path().glob('*'))",
            "tally_source('a')",
            "urllib.request.urlopen('http://a')",
            "subprocess.run(['date'])",
            "os.getenv('A')",
            "!date",
            "%run other.ipynb",
            "this is: not Python",
        ],
    )
    def test_reading_without_load(self, source: str) -> None:
        """A cell that may read something is never taken for unchanged."""
        [said] = unseen(["1", source])
        assert said.startswith("code cell 2 ")
        before = key("1", source)
        assert [change.part for change in key_changes(before, before)] == [KeyPart.UNSEEN]

    @pytest.mark.parametrize(
        "source", ["load('a')", "read_journal", "frame.filter(x > 1)", "already(1)"]
    )
    def test_harmless(self, source: str) -> None:
        """What is noted, or reads nothing, is no reason."""
        assert unseen([source]) == []

    @pytest.mark.parametrize(
        ("source", "asks"),
        [
            ("date.today()", True),
            ("datetime.now(UTC)", True),
            ("time.time()", True),
            ("today = 1", False),
        ],
    )
    def test_clock(self, source: str, asks: bool) -> None:
        """A cell that asks for the time depends on the day."""
        assert reads_clock([source]) is asks
        january = key(source)
        later = {**january, "days": [{**day, "day": "2026-02-01"} for day in january["days"]]}
        parts = [change.part for change in key_changes(january, later)]
        assert parts == [KeyPart.DAYS] * asks


class TestMachinery:
    """Modules and versions."""

    def test_local_modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module and a package beside the report count by their bytes; installed ones do not."""
        (tmp_path / "our_rules.py").write_text("limit = 1\n")
        (tmp_path / "our_package").mkdir()
        (tmp_path / "our_package" / "__init__.py").write_text("")
        (tmp_path / "our_package" / "inner.py").write_text("a = 1\n")
        monkeypatch.syspath_prepend(tmp_path)
        code = [
            "import our_rules, json, polars, nowhere\nfrom our_package.inner import a",
            "not Python",
        ]
        before = module_digests(code)
        assert {name for name in before if not name.startswith(("tallybook", "templates"))} == {
            "our_rules",
            "our_package",
        }
        (tmp_path / "our_package" / "inner.py").write_text("a = 2\n")
        changes = key_changes(key(modules=before), key(modules=module_digests(code)))
        assert [change.said for change in changes] == ["module our_package has changed"]

    def test_versions_are_those_installed(self) -> None:
        """Names are normalized, so that one package has one name."""
        found = installed_versions()
        assert "typing-extensions" in found
        assert not any("_" in name for name in found)


class TestBeforeTheRun:
    """Days and files that parameters name."""

    def test_days(self) -> None:
        """Given or default, an expression is kept with what it meant; a plain day is not."""
        model = parse_parameters("a: date = 'today'\nb: date = 'today'\nc: date | None = None")
        given = {"b": "2026-01-02", "c": "yesterday"}
        values = validate_parameters(model, given)
        found = {day["where"]: day["expression"] for day in given_days(values, given)}
        assert found == {"a": "today", "c": "yesterday"}
        assert date.fromisoformat(given_days(values, given)[0]["day"]) == values.a

    def test_paths(self, tmp_path: Path) -> None:
        """A file has its digest; a folder or nothing has none, so that it is never unchanged."""
        (tmp_path / "a.csv").write_text("1")
        model = parse_parameters("a: Path = Path('a.csv')\nb: list[Path] = ['.', 'no']\nc: int = 1")
        found = named_files(validate_parameters(model, {}), tmp_path)
        assert [bool(one["sha256"]) for one in found] == [True, False, False]
        before = key(inputs=found)
        assert len(key_changes(before, before)) == 2


class TestChanges:
    """Every difference is said, by its part."""

    def test_nothing(self) -> None:
        """The same is the same."""
        same = key("a = 1", notes=[read("a", "1")], parameters={"top": 5}, modules={"m": "1"})
        assert key_changes(same, same) == []

    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            ({"top": 5}, {"top": 6}, ["parameter top was 5 and is 6"]),
            ({"top": 5}, {"top": "5"}, ["parameter top was 5 and is '5'"]),
            ({"top": 1}, {"top": True}, ["parameter top was 1 and is True"]),
            ({"top": 5}, {}, ["parameter top is gone; it was 5"]),
            ({}, {"top": None}, ["parameter top is new: None"]),
        ],
    )
    def test_parameters(self, before, after, said) -> None:
        """Both values are named, and kinds count."""
        changes = key_changes(key(parameters=before), key(parameters=after))
        assert [change.said for change in changes] == said

    def test_inputs(self) -> None:
        """Changed, gone, and without a digest."""
        before = key(
            notes=[read("a", "1" * 64), read("b", "2" * 64), read("c", None), read("d", "4")]
        )
        now = {
            **before,
            "inputs": [{"source": "a", "sha256": "9" * 64}, {"source": "b", "sha256": None}],
        }
        now["inputs"] += [{"source": "d", "sha256": "4"}]
        assert [change.said for change in key_changes(before, now)] == [
            "a has changed (SHA-256 11111111…, now 99999999…)",
            "b is not there any more",
            "c has no digest, so nobody can tell whether it has changed",
        ]

    def test_a_source_that_changed_between_two_readings(self) -> None:
        """It has no digest: nobody knows which one made the report."""
        assert key(notes=[read("a", "1"), read("a", "2")])["inputs"] == [
            {"source": "a", "sha256": None}
        ]

    @pytest.mark.parametrize(
        ("new", "said"),
        [
            (["a = 1", "b = 1\nc = 3"], ["code cell 2, line 2: was `c = 2`, is `c = 3`"]),
            (["a = 1", "b = 1\nc = 2\nd = 1"], ["code cell 2, line 3: was nothing, is `d = 1`"]),
            (["a = 1"], ["code cell 2 is gone; it was: `b = 1`"]),
            (["x = 1", "a = 1", "b = 1\nc = 2"], ["code cell 1 is new: `x = 1`"]),
        ],
    )
    def test_notebook(self, new, said) -> None:
        """The cell and the first line that differs."""
        old = ["a = 1", "b = 1\nc = 2"]
        changes = key_changes(key(*old), key(*new), old, new)
        assert [change.said for change in changes] == said

    def test_notebook_whose_earlier_code_is_lost(self) -> None:
        """Then only the fact is said."""
        changes = key_changes(key("a"), key("b"), [], ["b"])
        assert [change.said for change in changes] == ["the notebook's code has changed"]

    def test_long_lists(self) -> None:
        """Five of a part, and how many more."""
        versions = {f"p{n}": "1" for n in range(9)}
        lines = summarize_changes(key_changes(key(environment=versions), key(parameters={"a": 1})))
        assert lines[0] == "parameter a is new: 1"
        assert len(lines) == 7
        assert lines[-1] == "and 4 more of the environment"


class TestDigests:
    """Files behind an address."""

    def test_a_pipe_has_no_digest(self, tmp_path: Path) -> None:
        """It would be waited for without end."""
        os.mkfifo(tmp_path / "pipe")
        assert local_files(tmp_path / "pipe") == []
        assert digest_of(tmp_path / "pipe") is None
        assert fingerprint(tmp_path / "pipe") == []

    def test_names_and_contents_count(self, tmp_path: Path) -> None:
        """In a folder, a renamed file is a change; a name with brackets is a file."""
        (tmp_path / "[x].csv").write_text("1")
        before = digest_of(tmp_path)
        assert digest_of(tmp_path / "[x].csv") is not None
        (tmp_path / "[x].csv").rename(tmp_path / "y.csv")
        assert digest_of(tmp_path) not in (None, before)
