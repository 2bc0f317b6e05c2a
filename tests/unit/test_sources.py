"""Sources: every format gives the same text, and every mistake one sentence."""

import gzip
import io
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from datetime import date
from decimal import Decimal
from itertools import chain
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.exceptions import PolarsError
from tests.hostile.workbook import workbook

from tallybook import delimited, spool
from tallybook.delimited import Layout, column_names, is_plain, rows_if_regular, take_apart
from tallybook.errors import SourceError
from tallybook.judge import BROKEN, ROW, Reason
from tallybook.local import SUFFIXES, Format, file_format
from tallybook.notation import items
from tallybook.probe import first_damaged
from tallybook.records import BATCH_ROWS, ReadOptions, attempt
from tallybook.sources import open_source
from tallybook.spool import open_plain
from tallybook.transform import tally_source

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


def read(path, **options):
    """Return the columns of a source and its records as tuples."""
    chunks = list(open_source(path, ReadOptions(**options)).chunks())
    frame = everything(path, **options)
    assert {chunk.source for chunk in chunks} == {str(path)}
    assert frame[ROW].to_list() == list(range(1, frame.height + 1))
    return list(chunks[0].dtypes), frame.select(*chunks[0].dtypes).rows()


def everything(path, **options):
    """Return all records of a source in one frame."""
    source = open_source(path, ReadOptions(**options))
    frames = (attempt(chunk, lambda one: one.frame.collect()) for chunk in source.chunks())
    return pl.concat(chain.from_iterable(frames))


def csv_text(delimiter=","):
    def cell(value):
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    return "\n".join(delimiter.join(map(cell, row)) for row in [COLUMNS, *RECORDS])


def json_text(row):
    time, category, amount = row
    return f'{{"timestamp": "{time}", "category": {json.dumps(category)}, "amount": {amount}}}'


def write_columnar(path, writer):
    writer(pl.DataFrame(RECORDS, schema=COLUMNS, orient="row"), path)


def zipped(path, member, text):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, text)


WRITERS = {
    "a.csv": lambda path: path.write_text(csv_text()),
    "a.tsv": lambda path: path.write_text(csv_text("\t")),
    "semicolon.csv": lambda path: path.write_text(csv_text(";")),
    "bar.csv": lambda path: path.write_text(csv_text("|")),
    "crlf.csv": lambda path: path.write_bytes(csv_text().replace("\n", "\r\n").encode()),
    "bom.csv": lambda path: path.write_text(csv_text(), encoding="utf-8-sig"),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(csv_text().encode())),
    "a.csv.zst": lambda path: path.write_bytes(zstd.compress(csv_text().encode())),
    "a.csv.zip": lambda path: zipped(path, "a.csv", csv_text()),
    "a.zip": lambda path: zipped(path, "x/a.csv", csv_text()),
    "mac.csv": lambda path: path.write_bytes(csv_text().replace("\n", "\r").encode()),
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
    "folder.csv": (Path.mkdir, "the folder holds no file to read"),
    "gone.csv": (lambda path: path.symlink_to("nowhere"), "a link to nothing"),
    "null.csv": (lambda path: path.symlink_to("/dev/null"), "a device or a socket"),
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
    "cut.csv.gz": (damaged_gzip, "may be damaged"),
    "not.parquet": (lambda path: path.write_text("a,b\n"), "may be damaged"),
    "not.arrow": (lambda path: path.write_text("a,b\n"), "may be damaged"),
    "not.json": (lambda path: path.write_text("{"), "not a JSON array of records"),
    "object.json": (lambda path: path.write_text('{"a": 1}'), "no \\[ at its start"),
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

    def test_a_line_without_an_end_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """It would have to be held in memory; one that just fits is read."""
        monkeypatch.setattr(spool, "LONGEST", 1 << 20)
        start = b"a\n" * 1000
        (tmp_path / "a.csv").write_bytes(start + b"x" * ((1 << 20) - 1) + b"\nx\n")
        assert everything(tmp_path / "a.csv").height == 1001
        (tmp_path / "a.csv").write_bytes(start + b"x" * ((1 << 20) + 1) + b"\nx\n")
        with pytest.raises(SourceError, match="line at byte 2,000 is longer than 1 MiB"):
            everything(tmp_path / "a.csv")

    def test_formats_are_a_closed_list(self):
        """A new one has to say how it is opened."""
        assert set(SUFFIXES.values()) == set(Format)


class TestOptions:
    def test_what_is_declared_beats_what_would_be_found(self, tmp_path: Path):
        """Delimiter, encoding and format."""
        (tmp_path / "a").write_text("é,b;c\n1,2;3\n", encoding="utf-16")
        assert read(tmp_path / "a", delimiter=";", encoding="utf-16", format="csv") == (
            ["é,b", "c"],
            [("1,2", "3")],
        )

    @pytest.mark.parametrize(
        "wrong",
        [
            {"delimiter": ",,"},
            {"delimiter": "é"},
            {"delimiter": '"'},
            {"encoding": "utf-99"},
            {"encoding": "hex"},
        ],
    )
    def test_what_cannot_be_declared_is_refused(self, wrong: dict[str, str]):
        """A delimiter is one ASCII character, an encoding is one of text."""
        with pytest.raises(ValueError, match=r"is not one ASCII|no encoding"):
            ReadOptions(**wrong)

    def test_a_wrong_encoding_is_said(self, tmp_path: Path):
        """With the reason that the decoder gives."""
        (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n3,\xff\n")
        with pytest.raises(SourceError, match="its text is not utf-7"):
            everything(tmp_path / "a.csv", encoding="utf-7")


class TestDelimited:
    @example('a,b\n1,"x"\n"",\n')
    @example("a,b\n\ufeff1,2\n")
    @example("a\n\n1\n")
    @example('"\n"\r"')
    @given(st.text(alphabet='a1,;"\n\r\ufeff\0', min_size=1, max_size=40))
    def test_the_quick_reader_is_used_only_where_it_agrees(self, tmp_path_factory, text: str):
        """Cell by cell, row by row, for every text there is."""
        path = tmp_path_factory.getbasetemp() / "quick.csv"
        path.write_bytes(text.encode())
        file = open_plain(path)
        lines = list(spool.text_view(file))
        try:
            records = list(take_apart("quick.csv", lines, ","))
        except SourceError:
            return
        if not records or records[0].cells is None:
            return
        layout = Layout(",", tuple(column_names(records[0].cells)))
        careful = [chunk.frame.collect() for chunk in delimited._careful("q", file, layout)]
        assert sum(frame.height for frame in careful) == len(records) - 1
        if is_plain(file, layout):
            wanted = [ROW, BROKEN, *layout.columns]
            quick = delimited._quick(file, layout).select(wanted).collect()
            assert quick.rows() == pl.concat(careful).select(wanted).rows()

    @example([["a", "b"], ["1", "2", "3"], ["4"]], "\n", True)
    @example([["a", "b", "c"], ["", "2", "3", ""], ["", ""]], "\r\n", False)
    @example([["a", "b"], ["1", "2"], ["1", "2", "3"], ["4"]], "\n", True)
    @example([["a", "b"], ["", ""], [""], ["", "", ""]], "\n", False)
    @example([["a", "b", "c"], ["é", "é", "é"], [""]], "\r\n", True)
    @given(
        st.lists(
            st.lists(st.sampled_from(["", "a", "é", "1\r", "\r", '"']), min_size=1, max_size=4),
            min_size=2,
            max_size=5,
        ),
        st.sampled_from(["\n", "\r\n"]),
        st.booleans(),
    )
    def test_a_hopeful_scan_agrees_or_stops(self, tmp_path_factory, rows, end, closed):
        """Whichever columns are asked for; or it finds more rows than there are delimiters for."""
        path = tmp_path_factory.getbasetemp() / "hopeful.csv"
        path.write_bytes((end.join(map(",".join, rows)) + end * closed).encode() or b"\n")
        file = open_plain(path)
        layout = Layout(",", tuple(f"c{place}" for place in range(len(rows[0]))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spool, "LONGEST", 16)
            patch.setattr(spool, "_PROBE", 4)
            counted = rows_if_regular("q", file, layout)
        if counted is None:
            return
        careful = pl.concat(one.frame for one in delimited._careful("q", file, layout)).collect()
        for wanted in ([ROW, *layout.columns], [ROW, "c0"], [ROW, layout.columns[-1]]):
            try:
                quick = delimited._hopeful(file, layout).select(wanted).collect()
            except PolarsError:
                assert careful[BROKEN].null_count() < careful.height
                continue
            broken = careful[BROKEN].null_count() < careful.height
            assert (broken or quick.height > careful.height) is (quick.height != counted)
            if quick.height == counted:
                assert quick.rows() == careful.select(wanted).rows()

    @pytest.mark.parametrize(
        ("text", "rows"), [("a,b\r\n1,é\r\n", 1), ("a,b\n1,2\n3,4", 2), ("a,b\n", 0)]
    )
    def test_stretch_by_stretch(self, tmp_path: Path, text: str, rows: int, monkeypatch):
        """A long file is looked at in stretches of whole lines."""
        monkeypatch.setattr(spool, "LONGEST", 8)
        monkeypatch.setattr(spool, "_PROBE", 4)
        layout = Layout(",", ("a", "b"))
        for body, found in ((text, rows), (f"{text}\n3,4\r", None), (f"{text}\n,,", None)):
            (tmp_path / "a.csv").write_bytes(body.encode())
            assert rows_if_regular("a", open_plain(tmp_path / "a.csv"), layout) == found

    def test_the_first_stretch_is_looked_at_more_closely(self, tmp_path: Path, monkeypatch):
        """Whoever only looks at the first rows never learns how many there are."""
        layout = Layout(",", ("a", "b", "c"))
        ragged = "a,b,c\n1,2,3\nx\n4,5,6\n"
        (tmp_path / "a.csv").write_text(ragged)
        (tmp_path / "b.csv").write_text(ragged.replace("x\n", "4,5,6\n") + "x\n")
        monkeypatch.setattr(spool, "LONGEST", 16)
        monkeypatch.setattr(spool, "_PROBE", 4)
        assert rows_if_regular("a", open_plain(tmp_path / "a.csv"), layout) is None
        assert rows_if_regular("b", open_plain(tmp_path / "b.csv"), layout) == 3

    @pytest.mark.parametrize(
        "asked", [{}, {"since": date(2013, 1, 1)}, {"on_progress": lambda rows: None}]
    )
    def test_a_row_too_short_far_down_is_found(self, tmp_path: Path, asked, monkeypatch):
        """The scan takes its cells for empty, and finds a row more than were counted."""
        path = tmp_path / "a.csv"
        path.write_text("timestamp,category,amount\n" + "2013-01-01,a,1\n" * 5 + "2013-01-02\n")
        monkeypatch.setattr(spool, "LONGEST", 64)
        monkeypatch.setattr(spool, "_PROBE", 16)
        [chunk] = open_source(path).chunks()
        assert (chunk.rows, chunk.frame.collect().height) == (5, 6)
        tallied = tally_source(path, **asked)
        assert tallied.accounts.row(0)[1:4] == (6, 5, 1)
        [(reason, value)] = tallied.reasons.select("reason", "first_value").rows()
        assert (reason, value) == (Reason.BROKEN, "2013-01-02")

    @pytest.mark.parametrize("first", ["x", "x" * (1 << 20)])
    def test_the_head_of_a_long_file_is_its_first_rows(self, tmp_path: Path, first: str):
        """Also where the first row alone is longer than what is read for it."""
        (tmp_path / "a.csv").write_text(f"a,b\n{first},1\n" + "y,\n" * (1 << 19))
        [chunk] = open_source(tmp_path / "a.csv").chunks()
        head = chunk.head(3).collect()
        assert head.select("a", "b").rows() == [(first, "1"), ("y", None), ("y", None)]
        assert head[ROW].to_list() == [1, 2, 3]

    @pytest.mark.parametrize("used", ["amount", "note"])
    def test_a_row_too_long_makes_up_for_none_too_short(self, tmp_path: Path, used: str):
        """Not even where they are ragged in a column that nobody asks for."""
        last = "note" if used == "amount" else "amount"
        path = tmp_path / "a.csv"
        path.write_text(
            f"timestamp,category,{used},{last}\n2013-01-01,a,1,1\n2013-01-01,a,2,2,2\n2013-01-01,a,3\n"
        )
        tallied = tally_source(path)
        assert tallied.accounts.row(0)[1:4] == (3, 1, 2)
        assert tallied.reasons.select("reason", "rows").rows() == [(Reason.BROKEN, 2)]

    def test_ragged_rows_keep_their_text_and_their_number(self, tmp_path: Path):
        """Too short, too long, quoted over lines; a blank line is no record."""
        (tmp_path / "a.csv").write_text('a,b\n1,2\n3\n\n4,5,6\n"7\n8"\n9,"x"y\n10,11\n')
        frame = everything(tmp_path / "a.csv")
        assert frame[ROW].to_list() == [1, 2, 3, 4, 5, 6]
        assert frame[BROKEN].to_list() == [None, "3", "4,5,6", '"7\n8"', '9,"x"y', None]
        assert frame["b"].to_list() == ["2", None, None, None, None, "11"]

    def test_too_many_and_too_few_cells_do_not_cancel_out(self, tmp_path: Path):
        """Counting delimiters in the whole file would not see it."""
        (tmp_path / "a.csv").write_text("a,b\n1,2,3\n4\n5,6\n")
        assert everything(tmp_path / "a.csv")[BROKEN].to_list() == ["1,2,3", "4", None]

    def test_long_ragged_files_come_in_batches(self, tmp_path: Path):
        """With running numbers."""
        (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * (BATCH_ROWS + 5) + "3\n")
        chunks = [chunk.frame.collect() for chunk in open_source(tmp_path / "a.csv").chunks()]
        assert [chunk.height for chunk in chunks] == [BATCH_ROWS, 6]
        assert chunks[1][ROW].to_list() == list(range(BATCH_ROWS + 1, BATCH_ROWS + 7))

    @given(st.lists(st.sampled_from(["", "a", "b", "a (column 2)", "column 1", ROW, BROKEN])))
    def test_column_names_are_distinct_and_clear_ones_stay(self, header: list[str]):
        """Whatever stands in the header."""
        names = column_names(header)
        assert len(set(names)) == len(header)
        assert not {"", ROW, BROKEN} & set(names)
        for name, found in zip(header, names, strict=True):
            if header.count(name) == 1 and name not in ("", ROW, BROKEN):
                assert found == name


class TestArrays:
    @given(
        st.lists(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=8,
            )
        ),
        st.sampled_from([None, 1]),
    )
    def test_items_are_those_of_json(self, values: list[object], indent: int | None):
        """In any nesting and with any white space."""
        text = json.dumps(values, indent=indent, ensure_ascii=False)
        assert [json.loads(item) for item in items(io.StringIO(text))] == values

    def test_items_meet_the_ends_of_what_was_read_anywhere(self):
        """Numbers and texts that go on in the next piece are not cut."""
        values = [10**n for n in range(300)] * 20
        assert [int(item) for item in items(io.StringIO(json.dumps(values)))] == values


class TestMany:
    def test_a_pattern_names_each_file(self, tmp_path: Path):
        """In the order of their names."""
        for name in ("b.csv", "a.csv", "c.txt"):
            (tmp_path / name).write_text("x\n1\n")
        source = open_source(tmp_path / "*.csv")
        assert [chunk.source for chunk in source.chunks()] == [
            str(tmp_path / "a.csv"),
            str(tmp_path / "b.csv"),
        ]
        assert source.note == "files: 2"
        with pytest.raises(SourceError, match="no file matches the pattern"):
            open_source(tmp_path / "*.tsv")

    def test_a_folder_says_what_it_leaves_out(self, tmp_path: Path):
        """Nothing is skipped without a word."""
        for name in ("a.csv", "b.md", "_SUCCESS", ".x.csv", "d.exe", "notes.txt"):
            (tmp_path / name).write_text("x\n1\n")
        source = open_source(tmp_path)
        assert [chunk.source for chunk in source.chunks()] == [str(tmp_path / "a.csv")]
        assert source.note == "files: 1, left out: '.x.csv', '_SUCCESS', 'b.md' and 2 more"

    def test_a_folder_of_text_holds_items(self, tmp_path: Path):
        """And text among records is a mistake when it was asked for."""
        (tmp_path / "a.txt").write_text("tea\n")
        assert open_source(tmp_path).items
        (tmp_path / "b.csv").write_text("a\n1\n")
        with pytest.raises(SourceError, match="mixes plain text"):
            open_source(tmp_path / "*")

    def test_keys_in_folder_names_become_columns(self, tmp_path: Path):
        """Unless the file has them itself."""
        part = tmp_path / "lake" / "year=2026" / "shop=a%2Fb"
        part.mkdir(parents=True)
        write_columnar(part / "0.parquet", pl.DataFrame.write_parquet)
        pl.DataFrame({"shop": ["own"]}).write_parquet(part / "1.parquet")
        first, second = (chunk.frame.collect() for chunk in open_source(tmp_path / "lake").chunks())
        assert first.select("year", "shop").unique().rows() == [("2026", "a/b")]
        assert second.select("year", "shop").rows() == [("2026", "own")]

    def test_a_name_that_exists_is_no_pattern(self, tmp_path: Path):
        """Brackets, stars and braces are letters then."""
        for name in ("[x].csv", "x.csv", "a{b}.csv"):
            (tmp_path / name).write_text(f"{name}\n1\n")
        assert read(tmp_path / "[x].csv")[0] == ["[x].csv"]
        assert read(tmp_path / "a{b}.csv")[0] == ["a{b}.csv"]
        (tmp_path / "[x].csv").unlink()
        assert [c.source for c in open_source(tmp_path / "[x].csv").chunks()] == [
            str(tmp_path / "x.csv")
        ]

    def test_keys_stand_for_a_column_that_files_lack(self, tmp_path: Path):
        """Also for the timestamp, which is looked at before all else."""
        (tmp_path / "timestamp=2026-03-01").mkdir()
        (tmp_path / "timestamp=2026-03-01" / "a.csv").write_text("category,amount\nx,1\ny,2\n")
        tallied = tally_source(tmp_path)
        assert tallied.totals["total_amount"].sum() == 3
        assert tallied.accounts["rows_accepted"].sum() == 2


class TestPipes:
    def test_a_pipe_is_read_once(self, tmp_path: Path):
        """Into a file that can be read again and again."""
        os.mkfifo(tmp_path / "pipe.csv")
        writer = threading.Thread(target=(tmp_path / "pipe.csv").write_text, args=("a,b\n1,2\n",))
        writer.start()
        source = open_source(tmp_path / "pipe.csv")
        writer.join()
        for _ in range(2):
            [chunk] = source.chunks()
            assert chunk.frame.select("a", "b").collect().rows() == [("1", "2")]

    @pytest.mark.parametrize(
        ("content", "options"),
        [
            (b"a;b\n1;2\n", {}),
            (gzip.compress(b"a,b\n1,2\n", mtime=0), {}),
            (b'{"a": "1", "b": "2"}\n', {"format": "ndjson"}),
            ("a,b\n1,2\n".encode("utf-16"), {"encoding": "utf-16"}),
        ],
    )
    def test_standard_input(self, content: bytes, options: dict[str, str]):
        """CSV unless declared, unpacked when it is packed."""
        script = (
            "from tallybook.sources import open_source; from tallybook.records import ReadOptions\n"
            f"[c] = open_source('-', ReadOptions(**{options})).chunks()\n"
            "print(c.source, c.frame.select('a', 'b').collect().rows())"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            input=content,
            capture_output=True,
            check=True,
        )
        assert done.stdout == b"standard input [('1', '2')]\n"

    def test_a_socket_is_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """It has a name, but nothing to read."""
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s.csv")
        with pytest.raises(SourceError, match="a device or a socket"):
            open_source("s.csv")


class TestWorkbooks:
    def test_numbers_have_all_their_digits_and_text_stays(self, tmp_path: Path):
        """Also where Excel shows fewer."""
        rows = [
            ["when", "what", "paid"],
            [(1, 45000.5), "007", 0.1 + 0.2],
            [(2, 45001), "12345678901234567890.120", 1e-12],
            [],
            ["2026-03-01", "1.50", 1234567890123.4567],
        ]
        workbook(tmp_path / "a.xlsx", rows)
        columns, records = read(tmp_path / "a.xlsx")
        assert columns == ["when", "what", "paid"]
        assert [Decimal(record[2]) for record in records] == [
            Decimal("0.30000000000000004"),
            Decimal("1E-12"),
            Decimal("1234567890123.4568"),
        ]
        assert [record[:2] for record in records] == [
            ("2023-03-15 12:00:00", "007"),
            ("2023-03-16 00:00:00", "12345678901234567890.120"),
            ("2026-03-01", "1.50"),
        ]

    def test_a_sheet_is_chosen_by_its_name(self, tmp_path: Path):
        """The first one otherwise; a wrong name is an error with the right ones."""
        workbook(tmp_path / "a.xlsx", [["a"], [1]], [["b"], [2]])
        assert read(tmp_path / "a.xlsx") == (["a"], [("1",)])
        assert read(tmp_path / "a.xlsx", sheet="Sheet2") == (["b"], [("2",)])
        with pytest.raises(SourceError, match=r'Sheet "May" not found.*"Sheet1", "Sheet2"'):
            read(tmp_path / "a.xlsx", sheet="May")


class TestProbe:
    def test_a_death_is_reported_with_the_file_that_caused_it(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        """The process dies of the second file, and this one lives."""
        dying = "import os, sys; sys.stdout.write('0 1 '); sys.stdout.flush(); os.abort()"
        run = subprocess.run
        monkeypatch.setattr(
            "tallybook.probe.subprocess.run",
            lambda command, **how: run([command[0], "-c", dying], **how),
        )
        assert first_damaged([("parquet", "a"), ("parquet", "b")]) == (
            1,
            "reading it killed a process (-6)",
        )

    def test_trusted_files_are_not_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """That saves a process and a second reading."""
        monkeypatch.setattr("tallybook.columnar.first_damaged", pytest.fail)
        write_columnar(tmp_path / "a.parquet", pl.DataFrame.write_parquet)
        assert read(tmp_path / "a.parquet", trusted=True) == (COLUMNS, RECORDS)
