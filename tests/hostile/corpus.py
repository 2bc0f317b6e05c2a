"""Hostile inputs: what exports, pipes, disks and people do to files of records.

A case makes one input in a folder of its own. `outcomes.csv` says how each has to end.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import socket
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
from tests.hostile.workbook import workbook

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COLUMNS = "timestamp,category,amount"
GOOD = "2026-03-01T08:00:00Z,tea,2.10"
OTHER = "2026-03-02T09:30:00Z,cake,4.25"
OBJECT = '{"timestamp": "2026-03-01T08:00:00Z", "category": "tea", "amount": 2.10}'


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        group: What kind of hostility it is.
        name: What is hostile about it; unique within the group.
        file: The name of the file to make.
        content: Its bytes, or what makes it at a path.
        address: What is read, relative to the folder; by default the file.
        options: What is declared about reading it.
        schema: What is declared about its columns.
        counted: Who can count its records independently: "csv", "ndjson", "json" or "".
    """

    group: str
    name: str
    file: str
    content: bytes | Callable[[Path], object]
    address: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    counted: str = ""

    def make(self, folder: Path) -> Path:
        """Make the input in a folder and return the path to read."""
        path = folder / self.file
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return folder / self.address if self.address else path


def table(*lines: str, header: str = COLUMNS, end: str = "\n") -> bytes:
    """Return delimited text with a header."""
    return "".join(line + end for line in (header, *lines)).encode()


def csv_case(group: str, name: str, *lines: str, header: str = COLUMNS, **more: Any) -> Case:
    return Case(group, name, "a.csv", table(*lines, header=header), counted="csv", **more)


def cases() -> Iterator[Case]:
    """Yield every case."""
    for group in (
        layouts,
        encodings,
        ragged,
        quotes,
        characters,
        amounts,
        timestamps,
        formulae,
        headers,
        sizes,
        ndjson,
        arrays,
        items,
        packed,
        parquet,
        damaged,
        workbooks,
        names,
        things,
    ):
        yield from group()


def layouts() -> Iterator[Case]:
    ends = {"LF": "\n", "CRLF": "\r\n", "CR": "\r", "mixed": None}
    marks = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
    for (mark, sign), (end, letters), quoted, closed in product(
        marks.items(), ends.items(), ("no quotes", "quoted", "some quotes"), (True, False)
    ):
        rows = [line.split(",") for line in (COLUMNS, GOOD, OTHER, GOOD)]
        text = "".join(
            sign.join(
                f'"{cell}"'
                if quoted == "quoted" or (quoted == "some quotes" and place == 1)
                else cell
                for place, cell in enumerate(row)
            )
            + (letters or ("\r\n", "\n")[number % 2])
            for number, row in enumerate(rows)
        )
        text = text if closed else text.rstrip("\r\n")
        last = "closed" if closed else "open"
        yield Case(
            "layout",
            f"{mark}, {end}, {quoted}, last line {last}",
            "a.csv",
            text.encode(),
            counted="csv",
        )


def encodings() -> Iterator[Case]:
    words = {
        "utf-8": "Café",
        "utf-8-sig": "Café",
        "utf-16": "Café",
        "utf-16-le": "Café",
        "utf-16-be": "Café",
        "utf-32": "Café",
        "latin-1": "Café",
        "cp1252": "Café €",
        "cp437": "Café",
        "mac-roman": "Café",
        "iso8859-15": "Café €",
        "koi8-r": "чай",
        "cp1251": "чай",
        "shift_jis": "お茶",
        "euc-jp": "お茶",
        "gb18030": "茶",
        "big5": "茶",
        "euc-kr": "차",
        "utf-7": "Café",
        "cp037": "Café",
    }
    for encoding, word in words.items():
        content = table(GOOD.replace("tea", word), OTHER).decode().encode(encoding)
        yield Case("encoding", f"{encoding}, not declared", "a.csv", content)
        yield Case(
            "encoding", f"{encoding}, declared", "a.csv", content, options={"encoding": encoding}
        )
    good = table(GOOD, OTHER)
    wrong = {
        "a bad byte in the header": b"timestamp,categor\xff,amount\n",
        "a bad byte in the last row": good + GOOD.replace("tea", "t\xe9").encode("latin-1"),
        "half a letter at the end": good + GOOD.encode() + "é".encode()[:1],
        "an encoded surrogate": good
        + GOOD.replace("tea", "\ud800").encode("utf-8", "surrogatepass"),
        "an overlong slash": good + b"2026-03-01T08:00:00Z,\xc0\xaf,1\n",
        "above Unicode": good + b"2026-03-01T08:00:00Z,\xf4\x90\x80\x80,1\n",
        "a mark in the middle": good + "\ufeff".encode() + GOOD.encode(),
        "two marks": "\ufeff\ufeff".encode() + good,
        "a mark and quotes": b"\xef\xbb\xbf" + b'"timestamp","category","amount"\n' + GOOD.encode(),
        "nothing but a mark": b"\xef\xbb\xbf",
        "odd number of bytes as UTF-16": good,
    }
    for name, content in wrong.items():
        options = {"encoding": "utf-16"} if "UTF-16" in name else {}
        yield Case("encoding", name, "a.csv", content, options=options)


def ragged() -> Iterator[Case]:
    bad = {
        "short": "2026-03-02T09:30:00Z,cake",
        "one cell": "cake",
        "long": OTHER + ",1",
        "very long": OTHER + ",1" * 5000,
        "delimiters only": ",,",
        "too many delimiters": ",,,,,,",
        "blank": "",
        "spaces": "   ",
        "comment": "# cake",
    }
    places = {"first": 0, "middle": 2, "last": 4}
    for (name, line), (place, index), quoted in product(bad.items(), places.items(), (False, True)):
        lines = [GOOD.replace("tea", '"tea"') if quoted else GOOD] * 4
        lines.insert(index, line)
        said = ", quotes elsewhere" if quoted else ""
        yield csv_case("ragged", f"{name}, {place}{said}", *lines)
    yield csv_case(
        "ragged",
        "too long and too short cancel out",
        GOOD + ",1",
        "2026-03-02T09:30:00Z,cake",
        GOOD,
    )
    yield csv_case("ragged", "every row too long", *[GOOD + ","] * 3)
    yield Case(
        "ragged", "a blank line before the header", "a.csv", b"\n\n" + table(GOOD), counted="csv"
    )
    yield Case(
        "ragged", "blank lines at the end", "a.csv", table(GOOD) + b"\r\n\n\n", counted="csv"
    )
    yield Case("ragged", "one column", "a.csv", b"timestamp\n1\n\n2\n", counted="csv")


def quotes() -> Iterator[Case]:
    lines = {
        "inside a cell": '2026-03-01T08:00:00Z,5" pipe,2',
        "after a closing quote": '2026-03-01T08:00:00Z,"tea"x,2',
        "doubled": '2026-03-01T08:00:00Z,"say ""tea""",2',
        "three": '2026-03-01T08:00:00Z,"""tea""",2',
        "doubled without quotes": '2026-03-01T08:00:00Z,""tea"",2',
        "a space before": '2026-03-01T08:00:00Z, "tea",2',
        "a space after": '2026-03-01T08:00:00Z,"tea" ,2',
        "single": "2026-03-01T08:00:00Z,'te,a',2",
        "escaped with a backslash": '2026-03-01T08:00:00Z,"te\\"a",2',
        "curly": "2026-03-01T08:00:00Z,“tea”,2",
        "around a delimiter": '2026-03-01T08:00:00Z,"te,a",2',
        "around a line end": '2026-03-01T08:00:00Z,"te\na",2',
        "around CRLF": '2026-03-01T08:00:00Z,"te\r\na",2',
        "around CR": '2026-03-01T08:00:00Z,"te\ra",2',
        "around blank lines": '2026-03-01T08:00:00Z,"te\n\n\na",2',
        "around records": '2026-03-01T08:00:00Z,"' + "\n".join([GOOD] * 5) + '",2',
        "around nothing": '2026-03-01T08:00:00Z,"",2',
        "around an amount": '2026-03-01T08:00:00Z,tea,"2"',
        "alone in a line": '"',
        "two in a line": '""',
        "opened before the last cell": '2026-03-01T08:00:00Z,tea,"2',
    }
    for name, line in lines.items():
        yield csv_case("quotes", f"{name}, middle", GOOD, line, GOOD)
        yield csv_case("quotes", f"{name}, last", GOOD, line)
    yield csv_case(
        "quotes",
        "opened twice, closing one another",
        GOOD,
        '2026-03-01T08:00:00Z,"tea,2',
        GOOD,
        '"2026-03-02T09:30:00Z",cake,1',
    )
    yield Case(
        "quotes", "opened in the header", "a.csv", table(GOOD, header='timestamp,"category,amount')
    )
    yield Case(
        "quotes",
        "a line end in the header",
        "a.csv",
        table(GOOD + ",1", header=f'{COLUMNS},"a\nb"'),
        counted="csv",
    )


def characters() -> Iterator[Case]:
    letters = {
        "NUL": "\0",
        "bell": "\a",
        "backspace": "\b",
        "vertical tab": "\v",
        "form feed": "\f",
        "escape": "\x1b[31m",
        "end of file": "\x1a",
        "delete": "\x7f",
        "unit separator": "\x1f",
        "record separator": "\x1e",
        "next line": "\x85",
        "line separator": "\u2028",
        "paragraph separator": "\u2029",
        "no-break space": "\xa0",
        "zero-width space": "\u200b",
        "right to left": "\u202e",
        "a mark": "\ufeff",
        "replacement": "\ufffd",
        "combining": "e\u0301",
        "emoji": "👩‍👩‍👧",
        "beyond the plane": "\U0010ffff",
        "tab": "\t",
        "markup": "<script>alert(1)</script>",
        "a lone CR": "\r",
    }
    for name, letter in letters.items():
        yield csv_case(
            "characters", f"{name} in a category", GOOD, GOOD.replace("tea", f"te{letter}a")
        )
        yield csv_case(
            "characters", f"{name} in an amount", GOOD, GOOD.replace("2.10", f"2{letter}1")
        )
    yield Case("characters", "a thousand NULs", "a.csv", b"\0" * 1000)
    yield Case(
        "characters",
        "a sparse file",
        "a.csv",
        lambda path: (path.touch(), os.truncate(path, 1 << 26)),
    )
    yield Case(
        "characters",
        "NULs after a crash",
        "a.csv",
        table(GOOD, OTHER) + b"\0" * 4096,
        counted="csv",
    )


AMOUNTS = (
    "1e400",
    "-1e400",
    "1e-400",
    "1e28",
    "1e27",
    "1e19",
    "1e18",
    "9" * 18,
    "9" * 19,
    "9" * 20,
    "9" * 29,
    "9" * 400,
    "-" + "9" * 19,
    "0." + "1" * 9,
    "0." + "1" * 10,
    "0." + "1" * 400,
    "1." + "0" * 400,
    "0" * 400 + "1",
    "18446744073709551616",
    "9223372036854775808",
    "-9223372036854775809",
    "340282366920938463463374607431768211456",
    "٣٫١٤",
    "٣",
    "３",
    "१२",
    "৪",
    "Ⅷ",
    "½",
    "²",
    "−5",
    "–5",
    "5−",
    "NaN",
    "nan",
    "-nan",
    "inf",
    "-Infinity",
    "1.#INF",
    "∞",
    "",
    " ",
    "null",
    "NULL",
    "None",
    "n/a",
    "-",
    "+",
    ".",
    "e",
    "e5",
    "1e",
    "1e+",
    "1e5e5",
    "1.2.3",
    "--1",
    "+-1",
    "1-",
    "0x10",
    "0b1",
    "0o7",
    "1_000",
    "1 000",
    "1'000",
    '"1,000"',
    '"1.000,50"',
    '"1,5"',
    "$5",
    "5€",
    "5 EUR",
    "5%",
    "(5)",
    "5CR",
    "1/2",
    "1:30",
    "TRUE",
    "-0",
    "-0.0",
    "+5",
    "5.",
    ".5",
    "-.5",
    "1E5",
    "1e+5",
    "1e-9",
    "1e-10",
    "1.5e1",
    "1e0005",
    "1d5",
    "1f",
    "=1+1",
    "@5",
    "\t5",
    "5\t",
    "5 5",
    "\u200b5",
    "\xa05",
    "5\xa0",
    "0.1e1",
    "1e00000000000000000000005",
    "1.0e-0",
    "1,",
    "#REF!",
)


def amounts() -> Iterator[Case]:
    for text in AMOUNTS:
        name = repr(text if len(text) < 45 else f"{text[:20]}… {len(text)} characters")
        yield csv_case("amounts", name, GOOD, f"2026-03-02T09:30:00Z,cake,{text}")


TIMES = (
    "2026-03-29T02:30:00",
    "2026-10-25T02:30:00",
    "2026-03-29T02:30:00+01:00",
    "2016-12-31T23:59:60Z",
    "2026-03-01T23:59:60",
    "2026-03-01T24:00:00",
    "2026-03-01T25:00:00",
    "2026-03-01T12:60:00",
    "2026-02-29",
    "2024-02-29",
    "2026-02-30",
    "2026-13-01",
    "2026-00-01",
    "2026-01-00",
    "0000-01-01",
    "0001-01-01",
    "9999-12-31T23:59:59.999999",
    "10000-01-01",
    "-0001-01-01",
    "1582-10-10",
    "1900-02-29",
    "2026-3-1",
    "26-03-01",
    "20260301",
    "20260301T080000Z",
    "2026-W09-7",
    "2026-060",
    "2026-03",
    "2026",
    "01/02/2026",
    "13/02/2026",
    "02.01.2026",
    "March 1, 2026",
    "2026-03-01 08:00:00",
    "2026-03-01t08:00:00z",
    "2026-03-01T08:00Z",
    "2026-03-01T08Z",
    "2026-03-01T08:00:00.123456Z",
    "2026-03-01T08:00:00.123456789Z",
    "2026-03-01T08:00:00.1234567890123Z",
    "2026-03-01T08:00:00+14:00",
    "2026-03-01T08:00:00+24:00",
    "2026-03-01T08:00:00+0100",
    "2026-03-01T08:00:00+01",
    "2026-03-01T08:00:00 UTC",
    "2026-03-01T08:00:00-00:00",
    "2026-03-01T08:00:00[Europe/Berlin]",
    "1772352000",
    "1772352000000",
    "45000.5",
    "",
    " ",
    "now",
    "today",
    "null",
    "٢٠٢٦-٠٣-٠١",
    "２０２６-03-01",
    "2026–03–01",
    " 2026-03-01",
    "2026-03-01 ",
    "2026-03-01T",
    "2026-03-01T08:00:00ZZ",
    "1e9",
    "NaT",
)


def timestamps() -> Iterator[Case]:
    for text in TIMES:
        yield csv_case(
            "timestamps", repr(text), GOOD, f"{text},cake,1", schema={"time_zone": "Europe/Berlin"}
        )


def formulae() -> Iterator[Case]:
    for start, rest in product("=+-@\t\r", ("1+1", "cmd|'/C calc'!A0", "SUM(A1:A9)")):
        yield csv_case(
            "formulae", repr(start + rest), GOOD, f'2026-03-01T08:00:00Z,"{start}{rest}",1'
        )


def headers() -> Iterator[Case]:
    shapes = {
        "amount twice": f"{COLUMNS},amount",
        "another twice": f"{COLUMNS},note,note",
        "one without a name": f"{COLUMNS},",
        "two without names": f"{COLUMNS},,",
        "all without names": ",,,",
        "in capitals": COLUMNS.upper(),
        "with spaces": "timestamp, category, amount",
        "as Polars renames": f"{COLUMNS},amount_duplicated_0,amount",
        "our own names": f"{COLUMNS},__row__,__broken__",
        "our inner names": f"{COLUMNS},__source__,found_amount",
        "quoted": '"timestamp","category","amount"',
        "a column missing": "timestamp,category,paid",
        "a comment": f"# {COLUMNS}",
        "a quote in a name": f'{COLUMNS},"a ""b"""',
        "a pattern": f"{COLUMNS},^.*$,*",
        "a place taken": f"{COLUMNS},x,x,x (column 4)",
    }
    for name, header in shapes.items():
        width = header.count(",") + 1
        row = ",".join([*GOOD.split(","), *["1"] * (width - 3)])
        yield Case("headers", name, "a.csv", table(row, row, header=header), counted="csv")
    row = f"{GOOD},1,1"
    yield csv_case("headers", "a pattern and a ragged row", row, GOOD, header=f"{COLUMNS},^.*$,*")
    yield Case("headers", "none", "a.csv", f"{GOOD}\n{OTHER}\n".encode())
    yield Case("headers", "nothing below", "a.csv", table())
    yield Case("headers", "nothing below and no line end", "a.csv", COLUMNS.encode())
    yield Case("headers", "in the middle again", "a.csv", table(GOOD, COLUMNS, GOOD), counted="csv")
    yield Case("headers", "a separator line for Excel", "a.csv", b"sep=,\n" + table(GOOD))
    yield Case(
        "headers", "a delimiter that is not declared", "a.csv", table(GOOD).replace(b",", b"^")
    )
    yield Case(
        "headers",
        "a delimiter that is declared",
        "a.csv",
        table(GOOD).replace(b",", b"^"),
        options={"delimiter": "^"},
    )
    yield Case(
        "headers", "a wrong delimiter declared", "a.csv", table(GOOD), options={"delimiter": ";"}
    )


def sizes() -> Iterator[Case]:
    wide = ",".join([COLUMNS, *(f"c{n}" for n in range(9_997))])
    yield Case(
        "sizes",
        "10,000 columns",
        "a.csv",
        table(*[GOOD + ",1" * 9_997] * 50, header=wide),
        counted="csv",
    )
    yield Case(
        "sizes",
        "10,000 columns and a short row",
        "a.csv",
        table(GOOD + ",1" * 9_997, GOOD, header=wide),
        counted="csv",
    )
    for millions in (1, 15, 40):
        yield csv_case(
            "sizes",
            f"a line of {millions} MB",
            GOOD,
            GOOD.replace("tea", "x" * (millions * 1_000_000)),
        )
    yield Case(
        "sizes", "a header of 20 MB", "a.csv", table(GOOD, header=COLUMNS + "x" * 20_000_000)
    )
    yield csv_case(
        "sizes",
        "a quoted cell of 20 MB in lines",
        GOOD,
        GOOD.replace("tea", '"' + "x" * 99 + "\n" + ("x" * 99 + "\n") * 200_000 + '"'),
        GOOD,
    )
    yield csv_case(
        "sizes", "a quote open for 3 MB", GOOD, GOOD.replace("tea", '"tea'), *[GOOD] * 100_000
    )
    yield csv_case("sizes", "200,000 rows", *[GOOD] * 200_000)
    yield csv_case("sizes", "120,000 rows and a short one", *[GOOD] * 120_000, "x")
    yield csv_case("sizes", "60,000 broken rows", GOOD, *["x"] * 60_000)


def ndjson() -> Iterator[Case]:
    lines = {
        "cut": OBJECT[:-9],
        "a number": "17",
        "a list": "[1]",
        "text": '"tea"',
        "null": "null",
        "blank": "",
        "spaces": "  ",
        "two objects": OBJECT * 2,
        "an empty object": "{}",
        "a key twice": OBJECT.replace("{", '{"amount": 1, '),
        "a lone surrogate": OBJECT.replace("tea", "\\ud83d"),
        "a surrogate pair": OBJECT.replace("tea", "\\ud83d\\ude00"),
        "an escaped NUL": OBJECT.replace("tea", "\\u0000"),
        "a raw NUL": OBJECT.replace("tea", "\0"),
        "a raw tab": OBJECT.replace("tea", "\t"),
        "single quotes": OBJECT.replace('"', "'"),
        "a comma at the end": OBJECT.replace("}", ",}"),
        "a comment": "// tea",
        "NaN": OBJECT.replace("2.10", "NaN"),
        "Infinity": OBJECT.replace("2.10", "-Infinity"),
        "1e400": OBJECT.replace("2.10", "1e400"),
        "01": OBJECT.replace("2.10", "01"),
        "+1": OBJECT.replace("2.10", "+1"),
        "many digits": OBJECT.replace("2.10", "9" * 5000),
        "an amount as text": OBJECT.replace("2.10", '"2.10"'),
        "an amount as list": OBJECT.replace("2.10", "[2]"),
        "an amount as object": OBJECT.replace("2.10", '{"EUR": 2}'),
        "an amount of true": OBJECT.replace("2.10", "true"),
        "an amount of null": OBJECT.replace("2.10", "null"),
        "a nested category": OBJECT.replace('"tea"', '{"a": [1.0]}'),
        "deep lists": OBJECT.replace("2.10", "[" * 100_000 + "]" * 100_000),
        "another key": OBJECT.replace("amount", "Amount"),
        "our own names": OBJECT.replace("{", '{"__row__": 7, "__broken__": "x", '),
        "a mark": "\ufeff" + OBJECT,
        "a CR": OBJECT + "\r",
    }
    for name, line in lines.items():
        text = f"{OBJECT}\n{line}\n{OBJECT}"
        yield Case("ndjson", name, "a.ndjson", text.encode(), counted="ndjson")
    yield Case("ndjson", "a mark at the start", "a.ndjson", f"\ufeff{OBJECT}\n".encode())
    yield Case(
        "ndjson",
        "a new key late",
        "a.ndjson",
        f"{OBJECT}\n{OBJECT.replace('{', chr(123) + chr(34) + 'x' + chr(34) + ': 1, ')}\n".encode(),
        counted="ndjson",
    )
    yield Case("ndjson", "numbers only", "a.ndjson", b"1\n2\n")
    yield Case("ndjson", "an array", "a.ndjson", f"[{OBJECT},\n{OBJECT}]".encode())


def arrays() -> Iterator[Case]:
    texts = {
        "compact": f"[{OBJECT},{OBJECT}]",
        "spaces": f" [ {OBJECT} ,\r\n\t{OBJECT} ] \n",
        "a mark": f"\ufeff[{OBJECT}]",
        "other items": f'[{OBJECT}, 17, null, [1], "x"]',
        "nothing": "[]",
        "an object": OBJECT,
        "lines": f"{OBJECT}\n{OBJECT}",
        "text": '"tea"',
        "not closed": f"[{OBJECT}",
        "cut": f"[{OBJECT}, {OBJECT[:-9]}",
        "a comma at the end": f"[{OBJECT},]",
        "a comma first": f"[,{OBJECT}]",
        "no comma": f"[{OBJECT} {OBJECT}]",
        "something after": f"[{OBJECT}] x",
        "two arrays": f"[{OBJECT}][{OBJECT}]",
        "a key twice": f'[{OBJECT}, {{"amount": 1, "amount": 2}}]',
        "a lone surrogate": f"[{OBJECT}, {OBJECT.replace('tea', chr(92) + 'udc00')}]",
        "deep": "[" * 100_000 + "]" * 100_000,
        "deep inside": f"[{OBJECT}, {'[' * 100_000}{']' * 100_000}]",
        "an item of 1 MB": f"[{OBJECT}, {OBJECT.replace('tea', 'x' * 1_000_000)}]",
        "an item of 20 MB": f"[{OBJECT}, {OBJECT.replace('tea', 'x' * 20_000_000)}]",
        "items across pieces": "[" + ",".join([OBJECT] * 5_000) + "]",
        "spaces of 1 MB": f"[{' ' * 1_000_000}{OBJECT}]",
        "numbers across pieces": "[" + ",".join([OBJECT] + ["1" * 9] * 20_000) + "]",
    }
    counted = {
        "compact",
        "spaces",
        "other items",
        "an item of 1 MB",
        "items across pieces",
        "spaces of 1 MB",
        "numbers across pieces",
    }
    for name, text in texts.items():
        yield Case("json", name, "a.json", text.encode(), counted="json" if name in counted else "")


def items() -> Iterator[Case]:
    for name, text in {
        "lines": b"tea\ncake\ntea\n",
        "blank lines": b"tea\n\n \ntea",
        "CRLF": b"tea\r\ncake\r\n",
        "a mark": b"\xef\xbb\xbftea\ntea\n",
        "NUL": b"te\0a\n",
        "only blanks": b"\n\n\n",
        "Latin-1": b"caf\xe9\n",
        "a line of 40 MB": b"x" * 40_000_000,
        "formulae": b"=1+1\n@x\n",
    }.items():
        yield Case("text", name, "a.txt", text)


def zipped(path: Path, *members: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


def write_bomb(path: Path, line: bytes, megabytes: int) -> None:
    opener = gzip.open if path.suffix == ".gz" else zstd.open
    with opener(path, "wb") as file:
        file.write(table(GOOD))
        for _ in range(megabytes):
            file.write(line * ((1 << 20) // len(line)))


def packed() -> Iterator[Case]:
    rows = table(*[GOOD, OTHER] * 2_000)
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd.compress}
    for suffix, pack in packers.items():
        whole = pack(rows)
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
        contents = {
            "whole": whole,
            "two members": pack(table(GOOD)) + pack(f"{OTHER}\n".encode()),
            "packed twice": pack(whole),
            "of nothing": pack(b""),
            "empty": b"",
            "not packed": rows,
            "a flipped byte": flipped,
            "cut in the header": whole[:5],
            "cut in the middle": whole[:middle],
            "cut at the end": whole[:-3],
            "garbage after": whole + b"garbage",
            "zeros after": whole + b"\0" * 512,
            "a wrong checksum": whole[:-8] + b"\1\2\3\4" + whole[-4:],
        }
        for name, content in contents.items():
            yield Case(
                "damaged" if "flipped" in name else "packed",
                f"{suffix}, {name}",
                f"a.csv.{suffix}",
                content,
            )
        yield Case(
            "packed",
            f"{suffix}, UTF-16 declared",
            f"a.csv.{suffix}",
            pack(rows.decode().encode("utf-16")),
            options={"encoding": "utf-16"},
        )
        yield Case(
            "packed",
            f"{suffix}, 100 MB of one line",
            f"a.csv.{suffix}",
            lambda path: write_bomb(path, b"x", 100),
        )
        yield Case(
            "packed",
            f"{suffix}, 30 MB of rows",
            f"a.csv.{suffix}",
            lambda path: write_bomb(path, f"{GOOD}\n".encode(), 30),
        )
        yield Case("packed", f"{suffix}, Parquet inside", f"a.parquet.{suffix}", whole)
    yield Case(
        "packed",
        "gz, 400 MB of blanks, 1000:1",
        "a.ndjson.gz",
        lambda path: write_bomb(path, b" ", 400),
    )
    zips: dict[str, list[tuple[str, bytes]]] = {
        "one member": [("a.csv", rows)],
        "in a folder": [("x/", b""), ("x/a.csv", rows)],
        "no member": [],
        "two members": [("a.csv", rows), ("b.csv", rows)],
        "a wicked name": [("../../etc/a.csv", rows)],
        "an unknown suffix": [("a.exe", rows)],
        "an empty member": [("a.csv", b"")],
        "a zip inside": [("a.zip", rows)],
        "100 MB of one line": [("a.csv", table(GOOD) + b"x" * 100_000_000)],
    }
    for name, members in zips.items():
        yield Case(
            "packed", f"zip, {name}", "a.zip", lambda path, members=members: zipped(path, *members)
        )
    yield Case(
        "packed",
        "zip, format in the archive's name",
        "a.csv.zip",
        lambda path: zipped(path, ("data", rows)),
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", rows)
    whole = buffer.getvalue()
    for name, content in {
        "cut": whole[:-30],
        "wrong content": whole.replace(b"cake", b"cafe", 1),
        "not a zip": rows,
        "empty": b"",
        "encrypted": whole.replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
        ),
    }.items():
        yield Case("packed", f"zip, {name}", "a.csv.zip", content)
    yield Case("packed", "bz2", "a.csv.bz2", b"BZh91AY&SY")


def frame(**columns: Any) -> pl.DataFrame:
    standard = {
        "timestamp": ["2026-03-01T08:00:00Z", "2026-03-02T09:30:00Z"],
        "category": ["tea", "cake"],
        "amount": ["2.10", "4.25"],
    }
    return pl.DataFrame(standard | columns)


def parquet() -> Iterator[Case]:
    frames = {
        "text": frame(),
        "floats": frame(amount=[2.1, float("nan")]),
        "infinity": frame(amount=[2.1, float("inf")]),
        "integers": frame(amount=[2, None]),
        "large integers": frame(amount=[2**63 - 1, 1]),
        "decimals": frame(amount=[Decimal("2.10"), Decimal("4.25")]),
        "unsigned": frame(amount=pl.Series([2**64 - 1, 0], dtype=pl.UInt64)),
        "booleans": frame(amount=[True, False]),
        "lists": frame(amount=[[1], [2]]),
        "nulls": frame(amount=[None, None]),
        "dates": frame(timestamp=[date(2026, 3, 1), None]),
        "naive times": frame(timestamp=[datetime(2026, 3, 29, 2, 30), datetime(2026, 3, 1)]),
        "times as integers": frame(timestamp=[1, 2]),
        "categories": frame(category=pl.Series(["tea", "cake"], dtype=pl.Categorical)),
        "binary": frame(category=[b"\xff", b"x"]),
        "no rows": frame().clear(),
        "no columns": pl.DataFrame(),
        "our own names": frame(__row__=[1, 2]),
        "10,000 columns": frame(**{f"c{n}": [1, 2] for n in range(10_000)}),
        "one row": frame().head(1),
    }
    for name, data in frames.items():
        schema = {"time_zone": "Europe/Berlin"} if "naive" in name else {}
        options = {"trusted": True}
        yield Case(
            "parquet",
            name,
            "a.parquet",
            lambda path, data=data: data.write_parquet(path),
            schema=schema,
            options=options,
        )
    for name in ("text", "floats", "decimals", "lists"):
        yield Case(
            "arrow",
            name,
            "a.arrow",
            lambda path, data=frames[name]: data.write_ipc(path),
            options={"trusted": True},
        )


def damage(path: Path, how: Callable[[bytearray], bytes | bytearray]) -> None:
    data = pl.DataFrame(
        {
            "timestamp": [f"2026-03-{1 + n % 28:02}" for n in range(300)],
            "category": ["tea", "coffee", "cake"] * 100,
            "amount": [f"{n}.25" for n in range(300)],
        }
    )
    (data.write_parquet if path.suffix == ".parquet" else data.write_ipc)(path)
    path.write_bytes(how(bytearray(path.read_bytes())))


def scrambled(seed: int) -> Callable[[bytearray], bytearray]:
    def scramble(content: bytearray) -> bytearray:
        chance = random.Random(seed)
        start = chance.randrange(len(content))
        for place in range(start, min(len(content), start + chance.randint(1, 64))):
            content[place] = chance.randrange(256)
        return content

    return scramble


def damaged() -> Iterator[Case]:
    """Damage to binary files. They may still be read; how they end is not told byte by byte."""
    for suffix in ("parquet", "arrow"):
        cuts = {
            "cut to four bytes": 4,
            "cut to half": 0.5,
            "cut by one byte": -1,
            "cut by a hundred": -100,
        }
        for name, cut in cuts.items():

            def shorten(content: bytearray, cut: float = cut) -> bytearray:
                return content[: int(len(content) * cut) if 0 < cut < 1 else int(cut)]

            yield Case(
                "damaged",
                f"{suffix}, {name}",
                f"a.{suffix}",
                partial(damage, how=shorten),
            )
        for seed in range(6):
            yield Case(
                "damaged",
                f"{suffix}, scrambled {seed}",
                f"a.{suffix}",
                partial(damage, how=scrambled(seed)),
            )
        yield Case("damaged", f"{suffix}, text inside", f"a.{suffix}", table(GOOD))
        yield Case("damaged", f"{suffix}, empty", f"a.{suffix}", b"")
        yield Case("damaged", f"{suffix}, zeros", f"a.{suffix}", b"\0" * 1000)
    yield Case(
        "damaged",
        "parquet, an enormous footer",
        "a.parquet",
        b"PAR1" + b"\xff" * 60 + b"\xff\xff\xff\x7fPAR1",
    )


def workbooks() -> Iterator[Case]:
    head = COLUMNS.split(",")
    sheets: dict[str, list[list[Any]]] = {
        "numbers": [head, ["2026-03-01", "tea", 0.1], ["2026-03-01", "tea", 0.1 + 0.2]],
        "dates": [head, [(2, 45000.5), "tea", 1], [(1, 45001), "tea", 2]],
        "a large number": [head, ["2026-03-01", "tea", 1e300], ["2026-03-01", "tea", 1]],
        "errors": [
            head,
            ["2026-03-01", "tea", "#DIV/0!"],
            ["2026-03-01", "#N/A", 1],
            ["2026-03-01", "tea", 1],
        ],
        "blank rows": [
            [],
            [],
            head,
            ["2026-03-01", "tea", 1],
            [],
            [None, None, None],
            ["2026-03-02", "tea", 1],
        ],
        "short rows": [head, ["2026-03-01", "tea"], ["2026-03-01", "tea", 1]],
        "long rows": [head, ["2026-03-01", "tea", 1, 5], ["2026-03-01", "tea", 1]],
        "booleans": [head, ["2026-03-01", True, True], ["2026-03-01", "tea", 1]],
        "amount twice": [[*head, "amount"], ["2026-03-01", "tea", 1, 2]],
        "nothing": [],
        "a header only": [head],
        "text that looks like numbers": [
            head,
            ["2026-03-01", "007", "1.0050"],
            ["2026-03-01", "tea", "12345678901234567890.12"],
        ],
        "formulae": [head, ["2026-03-01", "=1+1", 1]],
    }
    for name, rows in sheets.items():
        yield Case("excel", name, "a.xlsx", lambda path, rows=rows: workbook(path, rows))
    good = [head, ["2026-03-01", "tea", 1]]
    yield Case(
        "excel",
        "a sheet that is not there",
        "a.xlsx",
        lambda path: workbook(path, good),
        options={"sheet": "May"},
    )
    yield Case(
        "excel",
        "a sheet by name",
        "a.xlsx",
        lambda path: workbook(path, [], good),
        options={"sheet": "Sheet2"},
    )
    yield Case("excel", "text", "a.xlsx", table(GOOD))
    yield Case("excel", "an empty zip", "a.xlsx", zipped)
    yield Case("excel", "another zip", "a.xlsx", lambda path: zipped(path, ("a.csv", table(GOOD))))
    yield Case(
        "excel",
        "a bomb",
        "a.xlsx",
        lambda path: zipped(path, ("xl/worksheets/sheet1.xml", b" " * 300_000_000)),
    )
    yield Case(
        "excel",
        "cut",
        "a.xlsx",
        lambda path: (workbook(path, good), path.write_bytes(path.read_bytes()[:-40])),
    )


def names() -> Iterator[Case]:
    for file in (
        "[x].csv",
        "a{b}.csv",
        "*.csv",
        "a?b.csv",
        "a b.csv",
        " .csv",
        "a\nb.csv",
        "a\tb.csv",
        "-.csv",
        "--help.csv",
        "%41.csv",
        "a%2Fb.csv",
        "$HOME.csv",
        "~.csv",
        "#1.csv",
        "a;b.csv",
        "a'b\"c.csv",
        "café.csv",
        "cafe\u0301.csv",
        "茶.csv",
        "👩‍👩‍👧.csv",
        "\u202ecsv.csv",
        "<script>.csv",
        "CON.csv",
        "a..csv",
        ".hidden.csv",
        "a.b.c.csv",
        "A.CSV",
        "x" * 250 + ".csv",
        "key=value.csv",
        "a\\b.csv",
        "a:b.csv",
        "s3:a.csv",
        "[!a]*.csv",
        "a.csv.gz.csv",
    ):
        shown = file if len(file) < 60 else f"{file[:9]}… {len(file)} letters"
        yield Case("names", ascii(shown)[1:-1], file, table(GOOD, OTHER), counted="csv")
    yield Case("names", "not UTF-8", os.fsdecode(b"caf\xe9.csv"), table(GOOD, OTHER, "x"))
    yield Case("names", "not UTF-8, empty", os.fsdecode(b"caf\xe9.csv"), b"")


def folder_of(**files: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        for name, content in files.items():
            file = path / name.replace("__", "/").replace("_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    return make


def feed(path: Path, content: bytes) -> None:
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()


def link(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        (path.parent / "real.csv").write_bytes(table(GOOD, OTHER))
        (path.parent / "folder").mkdir()
        path.symlink_to(target)

    return make


def things() -> Iterator[Case]:
    good = table(GOOD, OTHER)
    yield Case("things", "missing", "a.csv", lambda path: None)
    yield Case("things", "empty", "a.csv", b"")
    yield Case("things", "one line end", "a.csv", b"\n")
    yield Case("things", "blank lines", "a.csv", b"\n\r\n\n")
    yield Case("things", "an empty folder", "a.csv", Path.mkdir)
    yield Case("things", "a folder with other things", "a", folder_of(x_md=b"x", y_exe=b"x"))
    yield Case(
        "things",
        "a folder with three files",
        "a",
        folder_of(a_csv=good, b_csv=good, README_md=b"x", c_ndjson=OBJECT.encode()),
    )
    yield Case(
        "things",
        "a folder with one damaged file",
        "a",
        folder_of(a_csv=good, b_csv=b"a,\xff\n", c_csv=good),
    )
    yield Case(
        "things",
        "a folder with one damaged Parquet file",
        "a",
        folder_of(a_csv=good, b_parquet=b"PAR1"),
    )
    yield Case(
        "things",
        "a folder with one file of other columns",
        "a",
        folder_of(a_csv=good, b_csv=b"a,b\n1,2\n"),
    )
    yield Case("things", "a folder with a folder", "a", folder_of(a_csv=good, b__c_csv=good))
    yield Case(
        "things", "a pattern", "a", folder_of(a_csv=good, b_csv=good, c_txt=b"x"), address="a/*.csv"
    )
    yield Case(
        "things",
        "a pattern for any depth",
        "a",
        folder_of(a_csv=good, b__c_csv=good),
        address="a/**/*.csv",
    )
    yield Case("things", "a pattern without a match", "a", folder_of(a_csv=good), address="a/*.tsv")
    yield Case(
        "things",
        "a pattern over unknown files",
        "a",
        folder_of(a_csv=good, b_md=b"x"),
        address="a/*",
    )
    for name, target in {
        "a file": "real.csv",
        "nothing": "gone.csv",
        "itself": "a.csv",
        "a folder": "folder",
        "a device": "/dev/null",
    }.items():
        yield Case("things", f"a link to {name}", "a.csv", link(target))
    yield Case("things", "a pipe", "a.csv", lambda path: feed(path, good))
    yield Case(
        "things", "a pipe with packed text", "a.csv", lambda path: feed(path, gzip.compress(good))
    )
    yield Case("things", "a pipe without a suffix", "a", lambda path: feed(path, good))
    yield Case("things", "a pipe with nothing in it", "a.csv", lambda path: feed(path, b""))
    yield Case(
        "things", "a pipe with a ragged row", "a.csv", lambda path: feed(path, good + b"x\n")
    )
    yield Case("things", "a socket", "a.csv", _socket)
    yield Case("things", "an endless device", "/dev/zero", lambda path: None)
    yield Case("things", "a file as a folder", "a.csv", good, address="a.csv/b.csv")
    yield Case("things", "no suffix", "a", good)
    yield Case("things", "no suffix, format declared", "a", good, options={"format": "csv"})
    yield Case(
        "things",
        "JSON declared to be CSV",
        "a.json",
        json.dumps([1]).encode(),
        options={"format": "csv"},
    )
    yield Case("things", "CSV declared to be Parquet", "a.csv", good, options={"format": "parquet"})


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path) if len(str(path)) > 100 else str(path))
