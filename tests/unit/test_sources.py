"""Sources: every format gives the same text, and every mistake one sentence."""

import gzip
import json
import os
import sys
from pathlib import Path

import polars as pl
import pytest

from tallybook.errors import SourceError
from tallybook.local import SUFFIXES, Format, file_format
from tallybook.records import BATCH_ROWS
from tallybook.judge import BROKEN, ROW
from tallybook.sources import open_source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COLUMNS = ["timestamp", "category", "amount"]
RECORDS = [
    ("2026-03-01", "Café", "0.10"),
    ("2026-03-02", 'say "tea", please', "12345678901234567890.123456789"),
    ("2026-03-03", None, "1e5"),
]


def read(path):
    """Return the columns of a source and its records as tuples."""
    chunks = list(open_source(path).chunks())
    frame = everything(path)
    assert {chunk.source for chunk in chunks} == {str(path)}
    assert frame[ROW].to_list() == list(range(1, frame.height + 1))
    return list(chunks[0].dtypes), frame.select(*chunks[0].dtypes).rows()


def everything(path):
    """Return all records of a source in one frame."""
    return pl.concat(chunk.frame for chunk in open_source(path).chunks()).collect()


def csv_text(delimiter=","):
    def cell(value):
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    return "\n".join(delimiter.join(map(cell, row)) for row in [COLUMNS, *RECORDS])


def json_text(row):
    time, category, amount = row
    return f'{{"timestamp": "{time}", "category": {json.dumps(category)}, "amount": {amount}}}'


def write_columnar(path, writer):
    writer(pl.DataFrame(RECORDS, schema=COLUMNS, orient="row"), path)


WRITERS = {
    "a.csv": lambda path: path.write_text(csv_text()),
    "a.tsv": lambda path: path.write_text(csv_text("\t")),
    "semicolon.csv": lambda path: path.write_text(csv_text(";")),
    "bar.csv": lambda path: path.write_text(csv_text("|")),
    "crlf.csv": lambda path: path.write_bytes(csv_text().replace("\n", "\r\n").encode()),
    "bom.csv": lambda path: path.write_text(csv_text(), encoding="utf-8-sig"),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(csv_text().encode())),
    "a.csv.zst": lambda path: path.write_bytes(zstd.compress(csv_text().encode())),
    "[odd] {name} *.csv": lambda path: path.write_text(csv_text()),
    "a.ndjson": lambda path: path.write_text("\n".join(map(json_text, RECORDS)) + "\n\n"),
    "a.jsonl.gz": lambda path: path.write_bytes(
        gzip.compress("\n".join(map(json_text, RECORDS)).encode())
    ),
    "a.json": lambda path: path.write_text(f"[{','.join(map(json_text, RECORDS))}]"),
    "a.json.zst": lambda path: path.write_bytes(
        zstd.compress(f"[{','.join(map(json_text, RECORDS))}]".encode())
    ),
    "a.parquet": lambda path: write_columnar(path, pl.DataFrame.write_parquet),
    "a.arrow": lambda path: write_columnar(path, pl.DataFrame.write_ipc),
}


class TestFormats:
    @pytest.mark.parametrize("name", WRITERS)
    def test_the_same_records_whatever_the_format(self, tmp_path: Path, name: str):
        """With digits that no float has, a quoted delimiter and an empty cell."""
        WRITERS[name](tmp_path / name)
        assert read(tmp_path / name) == (COLUMNS, RECORDS)

    def test_an_unusual_delimiter_is_mentioned(self, tmp_path: Path):
        """It was found out, not declared."""
        for delimiter, note in [(",", ""), (";", "delimiter: semicolon"), ("\t", "delimiter: tab")]:
            (tmp_path / "a.csv").write_text(csv_text(delimiter))
            assert open_source(tmp_path / "a.csv").note == note

    def test_lines_of_text_are_items(self, tmp_path: Path):
        """Also the empty ones: the schema says what they are worth."""
        (tmp_path / "a.txt").write_bytes(b"tea\r\n\ncake")
        assert read(tmp_path / "a.txt") == (["line"], [("tea",), ("",), ("cake",)])

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_suffix_is_known_in_upper_case_too(self, suffix: str):
        """Old programs shout."""
        assert file_format(Path(f"A{suffix.upper()}")) is SUFFIXES[suffix]

    @pytest.mark.parametrize("name", ["a.xml", "a", "a.gz", "a.parquet.gz", ".csv.bz2"])
    def test_unknown_suffixes_are_refused_with_those_that_are_known(self, name: str):
        """Nothing is sniffed out of the content."""
        with pytest.raises(SourceError, match=r"Known are \.csv, "):
            file_format(Path(name))


class TestJson:
    def test_a_line_that_is_no_object_is_kept_as_it_stands(self, tmp_path: Path):
        """A torn line, a number, a list."""
        good = json_text(RECORDS[0])
        (tmp_path / "a.ndjson").write_text(f'{good}\n{{"timestamp": "2\n17\n[1]\n')
        frame = everything(tmp_path / "a.ndjson")
        assert frame[BROKEN].to_list() == [None, '{"timestamp": "2', "17", "[1]"]
        (tmp_path / "a.json").write_text(f"[{good}, 17, null]")
        frame = everything(tmp_path / "a.json")
        assert frame[BROKEN].to_list() == [None, "17", "null"]

    def test_what_is_no_text_is_written_as_json(self, tmp_path: Path):
        """True, nested values, and numbers that JSON does not have."""
        (tmp_path / "a.ndjson").write_text(
            '{"a": true, "b": {"c": [1.0, "é"]}, "d": NaN, "e": null}'
        )
        columns, rows = read(tmp_path / "a.ndjson")
        assert dict(zip(columns, rows[0], strict=True)) == {
            "a": "true",
            "b": '{"c": ["1.0", "é"]}',
            "d": "NaN",
            "e": None,
        }

    def test_long_files_come_in_batches_with_running_numbers(self, tmp_path: Path):
        """Memory stays flat, row numbers stay right."""
        line = json_text(RECORDS[0]) + "\n"
        (tmp_path / "a.ndjson").write_text(line * (BATCH_ROWS + 10))
        source = open_source(tmp_path / "a.ndjson")
        heights = [chunk.frame.collect().height for chunk in source.chunks()]
        assert len(heights) > 1
        assert sum(heights) == BATCH_ROWS + 10
        assert read(tmp_path / "a.ndjson")[1][-1] == RECORDS[0]

    def test_a_source_can_be_read_again(self, tmp_path: Path):
        """Reading does not use it up."""
        (tmp_path / "a.ndjson").write_text(json_text(RECORDS[0]))
        source = open_source(tmp_path / "a.ndjson")
        assert [len(list(source.chunks())) for _ in range(2)] == [1, 1]


def damaged_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(csv_text().encode() * 50)[:-30])


MISTAKES = {
    "missing.csv": (lambda path: (path.parent / "mising.csv").touch(), "Did you mean 'mising.csv'"),
    "no/such/folder.csv": (lambda path: None, "there is no such file"),
    "folder.csv": (Path.mkdir, "it is a folder"),
    "pipe.csv": (os.mkfifo, "not a regular file"),
    "empty.csv": (Path.touch, "the file is empty"),
    "latin.csv": (
        lambda path: path.write_bytes("timestamp,categorié\n".encode("latin-1")),
        r"byte 18 \(0xe9\) is not UTF-8; the file looks like Latin-1",
    ),
    "wide.csv": (
        lambda path: path.write_text("a,b\n1,2\n", encoding="utf-16"),
        "looks like UTF-16",
    ),
    "latin.csv.gz": (
        lambda path: path.write_bytes(gzip.compress("aé\n1\n".encode("latin-1"))),
        r"byte 1 \(0xe9\)",
    ),
    "latin.json": (lambda path: path.write_bytes(b'["\xe9"]'), r"byte 2 \(0xe9\)"),
    "mac.csv": (lambda path: path.write_bytes(b"a,b\r1,2\r"), "lines end in CR alone"),
    "cut.csv.gz": (damaged_gzip, "may be damaged"),
    "not.parquet": (lambda path: path.write_text("a,b\n"), "may be damaged"),
    "not.arrow": (lambda path: path.write_text("a,b\n"), "may be damaged"),
    "not.json": (lambda path: path.write_text("{"), "it is not JSON"),
    "object.json": (lambda path: path.write_text('{"a": 1}'), "no JSON array"),
    "lines.ndjson": (lambda path: path.write_text("1\n2\n"), "none of its first lines"),
}


class TestMistakes:
    @pytest.mark.parametrize("name", MISTAKES)
    def test_each_is_one_clear_sentence(self, tmp_path: Path, name: str):
        """It names the file and says what is wrong with it."""
        make, message = MISTAKES[name]
        path = tmp_path / name
        make(path)
        with pytest.raises(SourceError, match=message) as caught:
            everything(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_bad_byte_is_found_far_inside(self, tmp_path: Path):
        """Also where pieces of the file meet inside a letter."""
        text = ("é" * (1 << 19) + "x").encode()
        (tmp_path / "a.csv").write_bytes(b"x" + text + b"\xff\n")
        with pytest.raises(SourceError, match=rf"byte {1 + len(text)} \(0xff\)"):
            open_source(tmp_path / "a.csv")

    def test_formats_are_a_closed_list(self):
        """A new one has to say how it is opened."""
        assert set(SUFFIXES.values()) == set(Format)
