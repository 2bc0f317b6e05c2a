"""Every hostile input ends in an exact account or in one clear error, and nobody dies of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.corpus import cases
from tests.hostile.run import OUTCOMES

pytestmark = pytest.mark.hypothesis  # so that `make soak` runs this too
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
STEP = 1 if SOAK else 2  # `make test` tries every second case, `make soak` all of them
PARTS = 2
MOST_MEMORY_MIB = 2048
UNTOLD = "damaged"  # how damage inside a file shows depends on the libraries' versions

Told = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="class")
def told(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Told:
    """What happened to the cases, each half of them read by one process."""
    base = str(tmp_path_factory.mktemp("hostile"))
    logs = [(Path(base) / f"{part}.log").open("w") for part in range(PARTS)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "tests.hostile.run"),
                *(base, str(part * STEP), str(PARTS * STEP)),
            ],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=logs[part],
            text=True,
        )
        for part in range(PARTS)
    ]
    ended = [process.communicate()[0] for process in processes]
    for part, process in enumerate(processes):
        logs[part].close()
        assert process.returncode == 0, (Path(base) / f"{part}.log").read_text()[-3_000:]
    lines = [json.loads(line) for out in ended for line in out.splitlines()]
    return {(line["group"], line["name"]): line for line in lines}


class TestHostileInputs:
    def test_there_are_well_over_three_hundred_and_all_ended(self, told: Told):
        """No process died on the way, and no case has the name of another."""
        names = [(case.group, case.name) for case in cases()]
        assert len(names) > 700
        assert [name for name, times in Counter(names).items() if times > 1] == []
        assert set(told) == set(names[::STEP])

    def test_each_ends_as_the_table_says(self, told: Told):
        """`python -m tests.hostile.run FOLDER --write` makes the table anew, for people to read."""
        with OUTCOMES.open(newline="") as file:
            table = {(row["group"], row["name"]): row for row in csv.DictReader(file)}
        assert set(table) == {(case.group, case.name) for case in cases()}
        for name in told:
            row = table[name]
            found = {key: "" if told[name][key] is None else str(told[name][key]) for key in row}
            assert found == row or name[0] == UNTOLD

    def test_every_row_is_accepted_or_rejected(self, told: Told):
        """Or there is an error, and then no account."""
        for case in told.values():
            if case["error"]:
                assert case["read"] is None
            else:
                assert case["read"] == case["accepted"] + case["rejected"] > 0

    def test_somebody_else_counts_the_same_records(self, told: Told):
        """Python's csv and json, which know nothing of Tallybook."""
        compared = [c for c in told.values() if c["counted"] is not None and not c["error"]]
        assert len(compared) > 400 // STEP
        assert [c for c in compared if c["counted"] != c["read"]] == []

    def test_an_unreadable_source_is_named_in_one_sentence(self, told: Told):
        """Whatever library found out; and without the name of an exception."""
        errors = [case["error"] for case in told.values() if "cannot read" in case["error"]]
        assert len(errors) > 100 // STEP
        for error in errors:
            assert "\n" not in error
            assert not error.startswith("cannot read :")
            assert "Traceback" not in error

    def test_memory_stays_below_two_gibibytes(self, told: Told):
        """Bombs and long lines included, in the process and in those that it starts."""
        assert max(case["peak_mib"] for case in told.values()) < MOST_MEMORY_MIB
