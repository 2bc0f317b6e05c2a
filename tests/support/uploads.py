"""Uploads that somebody has tampered with: files of every format, and the forms around them."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
from tests.hostile.workbook import workbook

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDS: Final = [
    {
        "timestamp": f"2026-03-{day:02}T08:00:00Z",
        "category": ("tea", "cake", "Süßes")[day % 3],
        "amount": f"{day * 7 % 50 - 9}.{day:02}",
    }
    for day in range(1, 29)
]
ODD: Final = [
    b"",
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xff" * 4,
    b"\0\0\0\x80",
    b"-1",
    b"1e999",
    b"9" * 60,
    b"NaN",
    b"[" * 300,
    b'{"a":' * 100,
    b"PK\x03\x04",
    b"PAR1",
    b"ARROW1",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
]
NAMES: Final = [
    "../../etc/passwd",
    "a" * 3000 + ".csv",
    "x\0.csv",
    'x".csv',
    ".csv",
    "x.csv.gz.zip.zst",
    "CON",
    "x.parquet/",
    "\u202ecsv.x",
    "x.tar",
    "*.csv",
    "[x].csv",
]


@dataclass(frozen=True)
class Upload:
    """One request to `POST /tally`."""

    kind: str
    body: bytes


def _workbook() -> bytes:
    """The records as a workbook; its maker writes to a path."""
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.xlsx")
        workbook(path, [list(RECORDS[0]), *([*record.values()] for record in RECORDS)])
        return path.read_bytes()


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    target = io.BytesIO()
    write(target)
    return target.getvalue()


def _zipped(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return target.getvalue()


def seeds() -> dict[str, bytes]:
    """The same records in every format that can be uploaded, by file name."""
    frame = pl.DataFrame(RECORDS)
    csv = frame.write_csv().encode()
    lines = frame.write_ndjson().encode()
    return {
        "x.csv": csv,
        "x.tsv": frame.write_csv(separator="\t").encode(),
        "x.ndjson": lines,
        "x.json": json.dumps(RECORDS).encode(),
        "x.txt": b"\n".join(str(record["category"]).encode() for record in RECORDS),
        "x.parquet": _written(frame.write_parquet),
        "x.arrow": _written(frame.write_ipc),
        "x.xlsx": _workbook(),
        "x.csv.gz": gzip.compress(csv),
        "x.csv.zst": zstd.compress(csv),
        "x.zip": _zipped("x.csv", csv),
        "x.ndjson.gz": gzip.compress(lines),
    }


def mutated(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Return some bytes with one to four things done to them."""
    for _ in range(chance.randint(1, 4)):
        at, end = sorted(chance.randint(0, len(data)) for _ in range(2))
        data = _MUTATIONS[chance.randrange(len(_MUTATIONS))](data, at, end, chance, other)
    return data[:200_000]


Mutation = Callable[[bytes, int, int, random.Random, bytes], bytes]
_MUTATIONS: Final[list[Mutation]] = [
    lambda data, at, end, chance, other: data[:at],
    lambda data, at, end, chance, other: data[:at] + data[end:],
    lambda data, at, end, chance, other: data[:end] + data[at:end] * 3 + data[end:],
    lambda data, at, end, chance, other: data[:at] + chance.choice(ODD) + data[at:],
    lambda data, at, end, chance, other: data[:at] + chance.choice(ODD) + data[at + 4 :],
    lambda data, at, end, chance, other: data[:at] + chance.randbytes(1) + data[at + 1 :],
    lambda data, at, end, chance, other: data[:at] + chance.randbytes(end - at) + data[end:],
    lambda data, at, end, chance, other: data[:at] + other[at:],
    lambda data, at, end, chance, other: data[end:] + data[:end],
]
_OPTIONS: Final = [
    "{}",
    '{"every": "week", "statistics": true}',
    '{"reading": {"delimiter": ";"}}',
    '{"reading": {"encoding": "utf-16"}}',
    '{"reading": {"format": "excel", "sheet": "no"}}',
    '{"reading": {"format": "parquet"}}',
    '{"columns": {"amount": "sum", "decimal": ","}}',
    '{"since": "2026-03-10", "until": "2026-03-01"}',
    "[1, 2",
    "null",
]


def _part(name: str, content: bytes, filename: str | None = None, more: bytes = b"") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    return b"--B\r\n" + head.encode() + b"\r\n" + more + b"\r\n" + content + b"\r\n"


def _form(file: bytes, name: str, chance: random.Random) -> bytes:
    """Return a form around a file, often one that no browser would send."""
    parts = [_part("file", file, name)]
    if chance.random() < 0.5:
        parts.append(_part("options", chance.choice(_OPTIONS).encode()))
    if chance.random() < 0.1:
        parts.append(_part(chance.choice(["file", "options", "", "x" * 500]), b"again", "y.csv"))
    if chance.random() < 0.1:
        odd = [b"X: " + b"y" * 20_000 + b"\r\n", b"no header\r\n", b"Content-Length: -1\r\n"]
        parts.append(_part("file", file, name, chance.choice(odd)))
    chance.shuffle(parts)
    end = chance.choice([b"--B--\r\n"] * 8 + [b"", b"--B", b"--B--" + b"\0" * 50])
    return b"".join(parts) + end


def upload(given: dict[str, bytes], chance: random.Random) -> Upload:
    """Return a request made of real files by chance."""
    name, other = chance.choice(list(given)), chance.choice(list(given.values()))
    file = given[name] if chance.random() < 0.1 else mutated(given[name], chance, other)
    shown = chance.choice(NAMES) if chance.random() < 0.1 else name
    if chance.random() < 0.1:
        records = json.dumps({"records": RECORDS}).encode()
        return Upload("application/json", mutated(records, chance, file))
    body = _form(file, shown, chance)
    if chance.random() < 0.2:
        body = mutated(body, chance, file)
    kinds = ["multipart/form-data; boundary=B"] * 20
    kinds += [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="B',
    ]
    return Upload(chance.choice(kinds), body)
