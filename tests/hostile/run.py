"""Read every hostile input in this process and say how each ended.

python -m tests.hostile.run FOLDER          one JSON line for each case
python -m tests.hostile.run FOLDER 0 2      the same for every second case, from the first
python -m tests.hostile.run FOLDER --write  write outcomes.csv, to be read before it is believed
"""

from __future__ import annotations

import csv
import io
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from tests.hostile.corpus import Case, cases

from tallybook.errors import ProcessingError
from tallybook.records import ReadOptions
from tallybook.schema import RecordSchema
from tallybook.transform import tally_source

OUTCOMES = Path(__file__).with_name("outcomes.csv")


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        group: The case's group.
        name: The case's name.
        read: Rows read, accepted and rejected; None when it ended in an error.
        accepted: See `read`.
        rejected: See `read`.
        error: What the error says, with "…" for the folder; empty when there was none.
    """

    group: str
    name: str
    read: int | None
    accepted: int | None
    rejected: int | None
    error: str


def outcome(case: Case, folder: Path) -> Outcome:
    """Make and read one case."""
    path = case.make(folder)
    try:
        tallied = tally_source(
            path,
            schema=RecordSchema(**case.schema),
            options=ReadOptions(**case.options),
            rejects_path=folder / "rejects.csv",
        )
    except ProcessingError as error:
        said = str(error).replace(f"{folder}/", "").replace(str(folder), "…")
        return Outcome(case.group, case.name, None, None, None, _short(said))
    counts = tallied.accounts.select("rows_read", "rows_accepted", "rows_rejected").sum().row(0)
    return Outcome(case.group, case.name, *counts, "")


def _short(text: str, longest: int = 300) -> str:
    """Cut long text; letters that cannot be seen are written as escapes."""
    seen = "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
    return seen if len(seen) <= longest else f"{seen[:longest]}…"


def counted(case: Case) -> int | None:
    """Count the records of a case without Tallybook; None where nobody can."""
    if not case.counted or not isinstance(case.content, bytes):
        return None
    text = case.content.decode("utf-8-sig")
    if case.counted == "csv":
        csv.field_size_limit(1 << 30)
        first = text.strip("\r\n").splitlines()[0]
        mark = max(",;\t|", key=first.count)
        return (
            sum(1 for cells in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if cells)
            - 1
        )
    if case.counted == "ndjson":
        return sum(1 for line in text.split("\n") if line.strip(" \t\r"))
    return len(json.loads(text))


def run(base: Path, part: int = 0, parts: int = 1) -> list[dict[str, object]]:
    """Run every `parts`-th case, each in a folder of its own, saying what happens."""
    told = []
    for number, case in islice(enumerate(cases()), part, None, parts):
        folder = base / f"{number:03}"
        folder.mkdir()
        started = time.perf_counter()
        sys.stderr.write(json.dumps([case.group, case.name]) + "\n")
        ended = asdict(outcome(case, folder))
        peak = max(
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        extra = {
            "peak_mib": peak >> 10,
            "seconds": round(time.perf_counter() - started, 2),
            "counted": counted(case),
        }
        told.append(ended | extra)
        sys.stdout.write(json.dumps(told[-1]) + "\n")
    return told


def main() -> None:
    if "--write" not in sys.argv:
        run(Path(sys.argv[1]), *map(int, sys.argv[2:4]))
    else:
        told = run(Path(sys.argv[1]))
        with OUTCOMES.open("w", newline="") as file:
            columns = list(Outcome.__dataclass_fields__)
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(told)


if __name__ == "__main__":
    main()
