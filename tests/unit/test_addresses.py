"""Addresses: what each says, what it hides, and what is no address."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook import database
from tallybook.cloud import bucket_address, key_pattern, store_options
from tallybook.config import DatabaseConfig, StorageConfig
from tallybook.database import database_address, open_database, postgres_uri, quoted
from tallybook.errors import SourceError
from tallybook.sources import open_source, scheme_of

SECRET = "hunter2"  # noqa: S105
PLAIN = st.text("ab/.-^]\\", max_size=5)
SERVER = "postgresql://ada@db/sales"


class TestSchemes:
    """What an address begins with decides who opens it."""

    @pytest.mark.parametrize("address", ["a.csv", "C:/a.csv", "-", "a:b.csv", "../s3/a.csv"])
    def test_local(self, address):
        """Without a scheme an address is a path."""
        assert scheme_of(address) is None

    @pytest.mark.parametrize("scheme", ["s3", "GS", "az", "postgresql", "sqlite", "https"])
    def test_known(self, scheme):
        """Letters may be large or small."""
        assert scheme_of(f"{scheme}://x") == scheme.lower()

    def test_unknown(self):
        """A scheme that nobody opens is told with the nearest one, and without what follows."""
        with pytest.raises(SourceError, match=r"Did you mean 'sqlite'\?") as caught:
            open_source(f"sqlit://ada:{SECRET}@shop/a.csv")
        assert SECRET not in str(caught.value)


class TestBuckets:
    """Keys, patterns and options."""

    @given(st.text(max_size=20).filter(lambda key: not set("*?[") & set(key)))
    def test_a_plain_key_matches_itself(self, key):
        """Nothing but `*`, `?` and `[` has a meaning of its own."""
        assert key_pattern(key).fullmatch(key)
        assert bucket_address(f"s3://shop/{key}").key == key

    @given(
        st.lists(st.text("ab/.-^]\\", max_size=5), min_size=1, max_size=4),
        st.text("ab", max_size=3),
    )
    def test_stars(self, parts, filled):
        """A star stands for anything but a slash, two for anything at all."""
        assert key_pattern("*".join(parts)).fullmatch(filled.join(parts))
        assert key_pattern("**".join(parts)).fullmatch(f"{filled}/{filled}".join(parts))

    @pytest.mark.parametrize(
        ("pattern", "yes", "no"),
        [
            ("a/*.csv", "a/b.csv", "a/b/c.csv"),
            ("a/**/*.csv", "a/c.csv", "b/c.csv"),
            ("day-[0-3]?.csv", "day-12.csv", "day-42.csv"),
            ("[!a].csv", "b.csv", "a.csv"),
            ("[.csv", "[.csv", "x.csv"),
        ],
    )
    def test_patterns(self, pattern, yes, no):
        """What matches and what does not."""
        assert key_pattern(pattern).fullmatch(yes)
        assert not key_pattern(pattern).fullmatch(no)

    @pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
    def test_options(self, scheme):
        """Settings that are not set leave the environment its word."""
        assert store_options(scheme, StorageConfig()) == {}
        assert len(store_options(scheme, StorageConfig(anonymous=True))) == 1

    def test_no_bucket(self):
        """An address without a bucket is none."""
        with pytest.raises(SourceError, match="names no bucket"):
            bucket_address("s3:///a.csv")


class TestDatabases:
    """One grammar for tables, queries and their values."""

    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
    def test_any_name_can_be_quoted(self, name):
        """A quoted name in an address is that name, whatever it holds."""
        escaped = quoted(name).replace("%", "%25").replace("&", "%26")
        assert database_address(f"{SERVER}?table={escaped}").table == (name,)

    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
    def test_values_are_never_part_of_the_query(self, value):
        """A value is bound, whatever it looks like."""
        escaped = value.replace("%", "%25").replace("&", "%26")
        address = database_address(f"{SERVER}?query=SELECT $1&param={escaped}")
        assert (address.query, address.parameters) == ("SELECT $1", (value,))

    @pytest.mark.parametrize("table", ["a; DROP", "a.b.c", "1a", "", '"a', "a b", "a--", "'a'"])
    def test_no_names(self, table):
        """What is not a name is not pasted into SQL."""
        with pytest.raises(SourceError):
            database_address(f"{SERVER}?table={table}")

    def test_a_plus_is_a_plus(self):
        """SQL is taken as it stands, but for per cent signs."""
        text = "SELECT a+b FROM t WHERE c LIKE '%25x' # AND d & 1"
        assert database_address(f"{SERVER}?query={text}").query == text.replace("%25", "%")

    @pytest.mark.parametrize(
        "address",
        [
            f"postgresql://ada:{SECRET}@db/sales?table=orders",
            f"postgresql://ada@db/sales?table=orders&password={SECRET}",
            f"postgresql://ada@db/sales?password={SECRET}&query=SELECT 1",
        ],
    )
    def test_shown(self, address):
        """A password is neither shown nor printed."""
        found = database_address(address)
        assert SECRET not in found.shown + repr(found)
        assert SECRET in postgres_uri(found, None)

    def test_password_of_the_settings(self):
        """It is for the very same server, database and user."""
        config = DatabaseConfig(host="DB", database="sales", username="ada", password=SECRET)
        for server, told in {
            "postgresql://ada@db/sales": True,
            "postgres://ada@db:5432/sales": True,
            "postgresql:///": True,
            "postgresql://ada@db:5433/sales": False,
            "postgresql://bob@db/sales": False,
            "postgresql://ada@db/other": False,
            "postgresql://ada@evil.example.com/sales": False,
            "postgresql://ada:own@db/sales": False,
        }.items():
            uri = postgres_uri(database_address(f"{server}?table=orders"), config)
            assert (SECRET in uri) is told, server

    def test_missing_driver(self, tmp_path, monkeypatch):
        """Without the extra, the error says how to get it."""

        def refuse(name):
            raise ImportError(name)

        (tmp_path / "a.db").write_text("x")
        monkeypatch.setattr(database, "import_module", refuse)
        source = open_database(f"sqlite:///{tmp_path}/a.db?table=orders")
        with pytest.raises(SourceError, match=re.escape("pip install 'tallybook[db]'")):
            list(source.chunks())

    @pytest.mark.parametrize("address", ["sqlite://a.db?table=a", "sqlite:///?table=a"])
    def test_no_path(self, address):
        """A path needs its three slashes."""
        with pytest.raises(SourceError, match=r"write sqlite:///shop\.db"):
            open_database(address)
