"""Checking a report notebook: each finding is made where it should be, and nowhere else."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tallybook.errors import SourceError
from tallybook.lint import Finding, Rule, Severity, check_notebook

IMPORTS = "import altair as alt\nimport polars as pl\nfrom tallybook import charts\n"
PARAMETERS = "top: int = 10  # how many"


def found(tmp_path: Path, *cells: str, parameters: str = PARAMETERS, use: str = "top") -> list[str]:
    """Return what is found in a report with these cells: rules, with cell and line."""
    made = [
        new_markdown_cell("# A report\n\nAbout something."),
        new_code_cell(IMPORTS),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, cells),
        new_code_cell(use),
    ]
    return rules(check(tmp_path, *made))


def check(tmp_path: Path, *cells) -> list[Finding]:
    path = tmp_path / "a_report.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return check_notebook(path)


def rules(findings: list[Finding]) -> list[str]:
    return [f"{one.rule}@{one.cell}.{one.line}" for one in findings]


BAD = {
    "syntax": ("x = = 1", "not-python@4.1"),
    "def": ("x = 1\ndef f():\n    pass", "definition@4.2"),
    "async def": ("async def f():\n    pass", "definition@4.1"),
    "class": ("class A:\n    pass", "definition@4.1"),
    "lambda": ("f = lambda: 1", "definition@4.1"),
    "typed lambda": ("f: object = lambda: 1", "definition@4.1"),
    "url": ("u = 'postgresql://ada:hunter2@db/sales'", "secret@4.1"),
    "url in a comment": ("# from https://ada:hunter2@example.com/x", "secret@4.1"),
    "aws": ("k = 'AKIAIOSFODNN7EXAMPLE'", "secret@4.1"),
    "github": ("k = 'ghp_" + "a1" * 18 + "'", "secret@4.1"),
    "jwt": ("k = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.abc'", "secret@4.1"),
    "private key": ("k = '''-----BEGIN RSA PRIVATE KEY-----\n'''", "secret@4.1"),
    "name": ("db_password = 'hunter2'", "secret@4.1"),
    "keyword": ("dict(\n    api_key='hunter2')", "secret@4.2"),
    "key": ("{'token': 'hunter2'}", "secret@4.1"),
    "item": ("d = {}\nd['PGPASSWORD'.lower()] = 1\nd['password'] = 'hunter2'", "secret@4.3"),
    "home": ("p = '/home/ada/rides.csv'", "absolute-path@4.1"),
    "tilde": ("p = '~/rides.csv'", "absolute-path@4.1"),
    "windows": (r"p = r'C:\rides.csv'", "absolute-path@4.1"),
    "share": (r"p = r'\\server\rides'", "absolute-path@4.1"),
    "file address": ("p = 'file:///data/rides.csv'", "absolute-path@4.1"),
    "f-string": ("p = f'/mnt/{top}'", "absolute-path@4.1"),
    "read": ("pl.read_csv('https://example.com/a.csv')", "network@4.1"),
    "scan": ("pl.scan_parquet('s3://b/a.parquet')", "network@4.1"),
    "requests": ("import requests as r\nr.get('x')", "network@4.2"),
    "urlopen": ("from urllib.request import urlopen\nurlopen(top)", "network@4.2"),
    "pip": ("%pip install polars", "network@4.1"),
    "curl": ("!curl example.com", "network@4.1"),
    "chart": ("alt.Chart(top).mark_bar()", "chart-unpublished@4.1"),
    "our chart": ("charts.trend(top)", "chart-unpublished@4.1"),
    "imported": ("from tallybook.charts import trend\ntrend(top)", "chart-unpublished@4.2"),
    "composed": ("a = charts.trend(top)\n(a | a).properties(width=3)", "chart-unpublished@4.2"),
    "named": ("a = alt.layer(top)\na", "chart-unpublished@4.2"),
    "displayed": ("display(charts.trend(top))", "chart-unpublished@4.1"),
    "made only": ("a = charts.trend(top)", "chart-unpublished@4.1"),
    "unknown": ("print(rides)", "name-unknown@4.1"),
    "unknown in a function": ("sorted([], key=lambda x: x + y)", "name-unknown@4.1"),
    "augmented": ("n += 1", "name-unknown@4.1"),
    "annotation": ("n: Period = 1", "name-unknown@4.1"),
    "comprehension leaks nothing": ("[x for x in [1]]\nx", "name-unknown@4.2"),
    "later in the cell": ("print(n)\nn = 1", "name-later@4.1"),
    "deleted": ("n = 1\ndel n\nn", "name-deleted@4.3"),
    "deleted twice": ("n = 1\ndel n\ndel n", "name-deleted@4.3"),
}
GOOD = {
    "magic": "%matplotlib inline\nfiles = !ls\nhere = %pwd\nfiles, here",
    "cell magic": "%%bash\necho $HOME (",
    "timed": "%%time\nn = 1",
    "lambda argument": "sorted([1], key=lambda x: -x)",
    "secret": "from tallybook.vault import secret\ntoken = secret('secret:SALES')\ntoken",
    "reference": "token = 'secret:SALES'\ntoken",
    "no secret": "token = ''\nnext_token = str(top)\ntokens = 'a b'\nsecretary = 'Ada'",
    "address": "u = 'https://example.com:8080/a@b'\nv = f'postgresql://{top}:{top}@db'",
    "hash": "h = 'a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447'",
    "roots": "a = '/'\nb = '/api/v1/runs'\nc = 'a/b'\nd = '~'\ne = 'C: 3'\nf = '10:/12'",
    "relative read": "pl.read_csv('rides.csv')\nlink = 'https://example.com'",
    "urls": "from urllib.parse import quote\nquote('https://example.com')",
    "published": "from tallybook.publish import publish\npublish(charts.trend(top), 'a')",
    "published by name": "publish = print\na = charts.trend(top)\nb = a | a\npublish(b, 'a')",
    "no chart": "charts.fold_small(top, top=3)\nalt.X('a')\nalt.value(1)",
    "other charts": "from my_charts import trend\ntrend(1)",
    "binds": "for i, (j, *k) in []:\n    i, j, k\n"
    "with open(top) as f, open(top) as (g, h):\n    f, g, h",
    "more binds": "try:\n    pass\nexcept OSError as e:\n    print(e)\n"
    "import os.path as p, sys\np, sys",
    "walrus": "if (n := 1) and [m := 2 for _ in [1]]:\n    n, m",
    "match": "match top:\n    case [a, *b]:\n        a, b\n"
    "    case {'k': c, **d}:\n        c, d\n    case int() as e:\n        e",
    "comprehension": "[x + y for x in [1] for y in [x] if y]\n"
    "{k: v for k, v in {}.items()}\n{z for z in ''}",
    "either": "if top:\n    n = 1\nelse:\n    n = 2\nn",
    "bound again": "n = 1\ndel n\nn = 2\nn",
    "typed": "n: int\nm: list[int] = []\nm",
    "builtins": "print(len('')), display, get_ipython, __name__, _",
    "global text": "print(f'{top:>{top}} {top!r}')",
    "empty": "",
    "comment": "# nothing",
}


class TestCells:
    @pytest.mark.parametrize("name", BAD)
    def test_finds_it(self, tmp_path: Path, name: str):
        """By rule, cell and line; and finds nothing else that is an error."""
        cell, expected = BAD[name]
        assert found(tmp_path, cell) == [expected]

    @pytest.mark.parametrize("name", GOOD)
    def test_does_not_cry_wolf(self, tmp_path: Path, name: str):
        """What looks a little like it is left alone."""
        assert found(tmp_path, GOOD[name]) == []

    def test_a_function_reads_names_later(self, tmp_path: Path):
        """When it is called, the name is there; its own names are nobody's business."""
        body = "    global g\n    g = 1\n    e = a\n    return e, later, b, c, d"
        cell = f"def f(a, *b, c=1, **d):\n{body}"
        assert found(tmp_path, cell, "later = 1\ng\nf(1)") == ["definition@4.1"]
        cell = "class A(dict):\n    n = 1\n    m = n"
        assert found(tmp_path, cell, "A()\nm") == ["definition@4.1", "name-unknown@5.2"]

    def test_names_of_later_cells(self, tmp_path: Path):
        """Luck of order, told once for each name, with the cell to move."""
        assert found(tmp_path, "print(rides)\nrides", "rides = 1", "del rides", "rides") == [
            "name-later@4.1",
            "name-deleted@7.1",
        ]

    def test_import_star_hides_everything(self, tmp_path: Path):
        """Nobody can say which names it brings."""
        assert found(tmp_path, "from math import *\nprint(pi)") == []

    def test_a_secret_is_never_repeated(self, tmp_path: Path):
        """The finding may go into a log."""
        cells = [new_code_cell("token = 'hunter2'\nu = 'http://a:hunter2@b/'")]
        shown = json.dumps([one.facts() for one in check(tmp_path, *cells)])
        assert shown.count('"rule": "secret"') == 2
        assert "hunter2" not in shown


PARAMETER_CELLS = {
    "untyped": ("top = 10  # how many", ["parameter-untyped@3.1"]),
    "typed by comment": ("top = 10  # type: int how many", []),
    "unexplained": ("top: int = 10", ["parameter-unexplained@3.1"]),
    "explained above": ("# how many\ntop: int = 10", []),
    "unused": ("top: int = 1  # a\nn: int = 1  # b", ["parameter-unused@3.2"]),
    "required": ("top: int  # how many", []),
    "unreadable": ("top: int = 1  # a\nn = input()", ["parameter-unreadable@3.2"]),
    "secret": (
        "top: int = 1  # a\ntoken: str = 'x'  # b",
        ["parameter-unused@3.2", "secret@3.2"],
    ),
    "plain secret of the right type": (
        "top: int = 1  # a\ntoken: Secret = 'x'  # b",
        ["name-unknown@3.2", "parameter-unreadable@3.2", "secret@3.2"],
    ),
    "path": ("top: Path = Path('/data/x')  # a", ["absolute-path@3.1", "name-unknown@3.1"]),
}


class TestParameters:
    @pytest.mark.parametrize("name", PARAMETER_CELLS)
    def test_each_parameter(self, tmp_path: Path, name: str):
        """Typed, explained, used, readable."""
        cell, expected = PARAMETER_CELLS[name]
        assert found(tmp_path, parameters=cell) == expected

    @pytest.mark.parametrize("use", ["f'{top}'", "del top", "sorted([], key=lambda x: top)"])
    def test_every_kind_of_use_counts(self, tmp_path: Path, use: str):
        """Also one in a text or in a function."""
        assert found(tmp_path, use=use) == []

    def test_locals_may_use_any(self, tmp_path: Path):
        """Then nobody knows."""
        assert found(tmp_path, use="print(locals())") == []

    def test_none_is_a_warning(self, tmp_path: Path):
        """A report without parameters runs."""
        [one] = check(tmp_path, new_markdown_cell("# A"), new_code_cell("1"))
        assert (one.rule, one.severity, one.place) == (
            Rule.NO_PARAMETERS,
            Severity.WARNING,
            "notebook",
        )

    def test_two_cells(self, tmp_path: Path):
        """Papermill would take the first."""
        tagged = {"tags": ["parameters"]}
        first = new_code_cell("a: int = 1  # x", metadata=tagged)
        second = new_code_cell("b: int = 1  # y", metadata=tagged)
        cells = [new_markdown_cell("# A"), first, second, new_code_cell("a, b")]
        assert rules(check(tmp_path, *cells)) == ["parameters-twice@3.0"]

    def test_a_tagged_text_is_no_parameters_cell(self, tmp_path: Path):
        """It holds no code."""
        cells = [new_markdown_cell("# A", metadata={"tags": ["parameters"]}), new_code_cell("1")]
        assert rules(check(tmp_path, *cells)) == ["no-parameters@0.0"]

    def test_code_before_them(self, tmp_path: Path):
        """Would work with the defaults; imports may stand there."""
        tagged = new_code_cell("a: int = 1  # x", metadata={"tags": ["parameters"]})
        early = new_code_cell("'''Text.'''\nimport os\n%load_ext x\nn = 1\nm = 2")
        cells = [new_markdown_cell("# A"), early, tagged, new_code_cell("a, n, os")]
        assert rules(check(tmp_path, *cells)) == ["parameters-late@2.4"]


class TestWhole:
    def test_title_length_and_leftovers(self, tmp_path: Path):
        """All of them warnings: the report would run."""
        cells = [new_code_cell(str(number)) for number in range(16)]
        cells[3].outputs = [new_output("stream", text="3")]
        cells[4].execution_count, cells[5].execution_count, cells[7].execution_count = 2, 9, 8
        findings = check(tmp_path, *cells)
        assert rules(findings) == [
            "no-parameters@0.0",
            "no-title@0.0",
            "too-long@0.0",
            "saved-output@4.0",
            "run-out-of-order@8.0",
        ]
        assert {one.severity for one in findings} == {Severity.WARNING}

    @pytest.mark.parametrize("first", ["## A", "Text\n# A", "#A"])
    def test_what_is_no_title(self, tmp_path: Path, first: str):
        """A title is a heading of the first level, at the top."""
        findings = check(tmp_path, new_markdown_cell(first))
        assert "no-title@0.0" in rules(findings)

    def test_an_empty_notebook(self, tmp_path: Path):
        """Has no title and no parameters, and that is all."""
        assert rules(check(tmp_path)) == ["no-parameters@0.0", "no-title@0.0"]

    @pytest.mark.parametrize("text", ["", "[]", '{"cells": [1]}', "\x80"])
    def test_other_files(self, tmp_path: Path, text: str):
        """What is not a notebook is called that."""
        (tmp_path / "x.ipynb").write_text(text, encoding="latin-1")
        with pytest.raises(SourceError, match="not a notebook"):
            check_notebook(tmp_path / "x.ipynb")
        with pytest.raises(SourceError, match="cannot be opened"):
            check_notebook(tmp_path / "y.ipynb")

    def test_every_shipped_report_passes(self, root: Path):
        """With nothing to mend at all."""
        reports = sorted((root / "reports").glob("*.ipynb"))
        assert len(reports) >= 2
        errors = {
            path.name: [one.facts() for one in check_notebook(path) if one.severity == "error"]
            for path in reports
        }
        assert errors == {path.name: [] for path in reports}

    def test_every_rule_is_tested(self):
        """A new one is not forgotten here."""
        seen = {expected.partition("@")[0] for _, expected in BAD.values()}
        seen |= {one.partition("@")[0] for _, many in PARAMETER_CELLS.values() for one in many}
        seen |= {"no-parameters", "no-title", "too-long", "saved-output", "run-out-of-order"}
        assert seen | {"parameters-twice", "parameters-late"} == set(map(str, Rule))
