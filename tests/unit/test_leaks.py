"""Secrets are found in every usual disguise, and nothing else is taken for one."""

import base64
import html
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.leaks import SHORTEST, Leak, describe_leaks, find_leaks, secrets_in, withheld

SECRETS = {"secret:SALES": "pä\"ss<w>&'rd/+ 100%"}
PASSWORD = SECRETS["secret:SALES"]
DISGUISES = {
    "plain": lambda text: text,
    "json": json.dumps,
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "json in json": lambda text: json.dumps(json.dumps({"token": text})),
    "html": html.escape,
    "html of a template": lambda text: (
        html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    ),
    "html in json": lambda text: json.dumps(html.escape(text)),
    "repr": lambda text: repr({"token": text}),
    "url": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
    "url in lower case": lambda text: (
        quote(text, safe="")
        .replace("%C3%A4", "%c3%a4")
        .replace("%2F", "%2f")
        .replace("%2B", "%2b")
        .replace("%3C", "%3c")
        .replace("%3E", "%3e")
    ),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, urlsafe": lambda text: base64.urlsafe_b64encode(b"a" + text.encode()).decode(),
    "base64, in lines": lambda text: base64.encodebytes(b"x" * 60 + text.encode() * 3).decode(),
    "base64, in lines, in json": lambda text: json.dumps(
        base64.encodebytes(b"x" * 60 + text.encode()).decode()
    ),
}


class TestSecretsIn:
    """What is found in some bytes."""

    @pytest.mark.parametrize("name", DISGUISES)
    def test_disguises(self, name: str) -> None:
        """A secret with every awkward character is found in each disguise."""
        content = f"before {DISGUISES[name](PASSWORD)} after".encode()
        assert secrets_in(content, SECRETS) == ["secret:SALES"]

    @given(
        secret=st.text(st.characters(codec="utf-8"), min_size=SHORTEST, max_size=40),
        before=st.binary(max_size=7),
        after=st.binary(max_size=7),
    )
    def test_base64_wherever_it_begins(self, secret: str, before: bytes, after: bytes) -> None:
        """All alignments, with any neighbours."""
        content = base64.b64encode(before + secret.encode() + after)
        assert secrets_in(content, {"it": secret}) == ["it"]

    @given(
        secret=st.text(st.characters(codec="utf-8"), min_size=SHORTEST, max_size=40),
        encode=st.sampled_from([json.dumps, html.escape, quote_plus]),
    )
    def test_escaped(self, secret: str, encode) -> None:
        """Any text, in any of the usual escapes, also inside JSON."""
        assert secrets_in(json.dumps({"a": encode(secret)}).encode(), {"it": secret}) == ["it"]

    def test_short_ones_are_left_alone(self) -> None:
        """Five characters would turn up by chance."""
        assert secrets_in(b"12345 123456", {"a": "12345", "b": "123456"}) == ["b"]

    def test_nothing(self) -> None:
        """A page without a secret is clean; so is any page where none is known."""
        assert secrets_in(b"nothing to see", SECRETS) == []
        assert secrets_in(PASSWORD.encode(), {}) == []


class TestFindLeaks:
    """What is found in a folder."""

    def test_every_kind_of_file(self, tmp_path: Path) -> None:
        """Text, and tables: names of columns, cells, nested cells, bytes, digits as numbers."""
        (tmp_path / "tables").mkdir()
        tables = {
            "cell": pl.DataFrame({"a": ["x", "hunter2!"] * 1000}),
            "name": pl.DataFrame({"hunter2!": [1]}),
            "nested": pl.DataFrame({"a": [[{"b": "hunter2!"}]]}),
            "category": pl.DataFrame({"a": pl.Series(["hunter2!"], dtype=pl.Categorical)}),
            "bytes": pl.DataFrame({"a": [b"-hunter2!-"]}),
            "number": pl.DataFrame({"a": [20260131]}),
            "clean": pl.DataFrame({"a": ["tea"], "b": [1.5]}),
        }
        for name, table in tables.items():
            table.write_parquet(tmp_path / "tables" / f"{name}.parquet")
        (tmp_path / "log.jsonl").write_text('{"message": "hunter2!"}\n')
        found = find_leaks(tmp_path, {"secret:SALES": "hunter2!", "PIN": "20260131"})
        assert {(leak.file, leak.secret) for leak in found} == {
            ("log.jsonl", "secret:SALES"),
            *(
                (f"tables/{name}.parquet", "secret:SALES")
                for name in tables
                if name not in ("number", "clean")
            ),
            ("tables/number.parquet", "PIN"),
        }

    def test_our_own_words(self, tmp_path: Path) -> None:
        """A password that is a word in the script of every page is found only outside of it."""
        (tmp_path / "a.html").write_text("<script>var function;</script>")
        (tmp_path / "b.html").write_text("<script>var function;</script> function")
        found = find_leaks(tmp_path, {"PGPASSWORD": "function"}, ours=["var function;"])
        assert found == [Leak("b.html", "PGPASSWORD")]


class TestWithheld:
    """The notice says what was found without saying it."""

    def test_keys_values_and_numbers(self) -> None:
        """Every text that holds a secret is replaced as a whole."""
        secrets = {"a": "hunter2!", "b": "20260131"}
        told = {"x hunter2!": [20260131, "hunter2! 20260131", True, None, 1.5]}
        marks = [f"[withheld: it holds {name}]" for name in ("a", "b", "a and b")]
        assert withheld(told, secrets) == {marks[0]: [marks[1], marks[2], True, None, 1.5]}

    def test_sentence(self) -> None:
        """Files are gathered by secret."""
        leaks = [Leak(file, "s") for file in ("a", "b", "c")] + [Leak("c", "t")]
        assert describe_leaks(leaks) == "s in a, b and c; t in c"
