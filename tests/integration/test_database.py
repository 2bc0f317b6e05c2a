"""Databases: a real PostgreSQL and SQLite, digit by digit, batch by batch, and read only."""

import logging
import shutil
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing
from decimal import Decimal
from urllib.parse import quote

import polars as pl
import pytest
from tests.support.ledgers import start_postgres

from tallybook import database
from tallybook.database import open_database
from tallybook.errors import SourceError
from tallybook.judge import BROKEN, ROW
from tallybook.records import ReadOptions
from tallybook.transform import tally_source

PASSWORD = "hunter2&hunter3"  # noqa: S105
MANY = 1_000_000
SETUP = f"""
CREATE TABLE orders (
    at timestamptz, category text, amount numeric, price money, weight float8, "Odd ""name" text
);
INSERT INTO orders VALUES
    ('2026-03-29 02:30+02', 'tea', 0.10, 2.5, 0.1, 'x'),
    ('2026-03-30 00:00Z', 'café', 12345678901234567890.123456789, -1234.56, 1e300, NULL),
    (NULL, '', NULL, NULL, NULL, 'y'),
    ('2026-03-31 00:00Z', 'tea', 'NaN', 0, 'NaN', 'z');
CREATE TABLE odd_times (at timestamptz, day date, category text, amount numeric);
INSERT INTO odd_times VALUES
    ('2026-03-01Z', '2026-03-01', 'tea', 1), ('infinity', '2026-03-01', 'tea', 2),
    ('2026-03-01Z', '-infinity', 'tea', 3), ('0044-03-15 12:00Z BC', '2026-03-01', 'tea', 4);
CREATE TABLE everything AS
    SELECT true AS yes, '{{1,2}}'::int[] AS list, '{{"a": 1.10}}'::jsonb AS doc,
    interval '1 day' AS span,
    '\\x00ff'::bytea AS bytes, 'a'::char(3) AS fixed, 1::int2 AS small,
    '10.0.0.1'::inet AS host, now() AS at, NULL AS nothing;
CREATE TABLE "Odd table" (amount numeric);
CREATE TABLE many AS SELECT timestamptz '2026-01-01 00:00Z' + i * interval '1 second' AS timestamp,
    'c' || i % 5 AS category, (i * 0.01)::numeric(20, 4) AS amount, repeat('x', 50) AS note
    FROM generate_series(1, {MANY}) AS i;
CREATE ROLE ada LOGIN PASSWORD '{PASSWORD}';
GRANT pg_read_all_data TO ada;
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A server on a socket of its own; yields the address of its database."""
    folder = tmp_path_factory.mktemp("server") / "pg"
    server = start_postgres(folder)
    server.psql(SETUP)
    yield f"postgresql://postgres@/postgres?host={quote(str(folder))}"
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shop(tmp_path):
    """An SQLite database with values of every kind in one column."""
    path = tmp_path / "my shop?.db"
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("CREATE TABLE orders (id INTEGER, category, amount)")
        opened.executemany("INSERT INTO orders VALUES (?, ?, ?)", MIXED)
    return f"sqlite:///{quote(str(path))}"


MIXED = [
    (1, "tea", None),
    (2, "café", 0.1),
    (3, "", "12345678901234567890.12"),
    (4, None, 2**63 - 1),
    (5, "a\0b", b"\x01"),
    (6, "=tea", 1e300),
]


def frame(address, *values):
    """Return all records of a source."""
    source = open_database(address, ReadOptions(parameters=values))
    return pl.concat(chunk.frame.collect() for chunk in source.chunks())


def failure(address, *values):
    """Return the error of a read, after a look for the password in all that it shows."""
    with pytest.raises(SourceError) as caught:
        frame(address, *values)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.context)
    assert PASSWORD not in shown
    assert quote(PASSWORD) not in shown
    return str(caught.value).partition(": ")[2]


class TestPostgres:
    """What is in the table is what arrives."""

    def test_values(self, postgres):
        """Every digit, every null, and times with their zone."""
        found = frame(f"{postgres}&table=orders")
        assert found[ROW].to_list() == [1, 2, 3, 4]
        assert found["amount"].to_list() == ["0.10", "12345678901234567890.123456789", None, "NaN"]
        assert found["price"].to_list() == ["2.50", "-1234.56", None, "0.00"]
        assert found["weight"].to_list()[:3] == [0.1, 1e300, None]
        assert found["category"].to_list() == ["tea", "café", "", "tea"]
        assert found.schema["at"] == pl.Datetime("us", "UTC")
        assert found["at"][0].isoformat() == "2026-03-29T00:30:00+00:00"
        assert found['Odd "name'].to_list() == ["x", None, "y", "z"]

    def test_every_other_type_is_text(self, postgres):
        """Nothing is left for a driver to interpret."""
        found = frame(f"{postgres}&table=everything").drop(ROW, BROKEN, "at")
        assert found.row(0) == (
            "true",
            "{1,2}",
            '{"a": 1.10}',
            "1 day",
            "\\x00ff",
            "a",
            1,
            "10.0.0.1/32",
            None,
        )

    def test_times_that_no_calendar_has(self, postgres):
        """Such a row is a reject that says so; it is neither lost nor another day."""
        found = frame(f"{postgres}&table=odd_times")
        assert found[BROKEN].to_list() == [
            None,
            "at = infinity",
            "day = -infinity",
            "at = 0044-03-15 12:00:00+00 BC",
        ]
        assert found["amount"].to_list() == ["1", "2", "3", "4"]

    def test_order_of_a_query(self, postgres):
        """Rows are numbered as the query orders them."""
        found = frame(f"{postgres}&query=SELECT category FROM many ORDER BY amount DESC LIMIT 3")
        assert found.select(ROW, "category").rows() == [(1, "c0"), (2, "c4"), (3, "c3")]

    def test_parameters(self, postgres):
        """Values are bound: text from the address, any type from the options."""
        text = f"{postgres}&query=SELECT at FROM orders WHERE category = $1&param=tea"
        assert frame(text).height == 2
        typed = f"{postgres}&query=SELECT category FROM many WHERE amount <= $1::text::numeric;"
        assert frame(typed, "0.03").height == 3
        nasty = f"{postgres}&query=SELECT $1::text AS said&param=' OR 1=1; DROP TABLE orders --"
        assert frame(nasty)["said"].to_list() == ["' OR 1=1; DROP TABLE orders --"]

    def test_tally(self, postgres):
        """A million rows give exact totals, and the account says so."""
        tallied = tally_source(f"{postgres}&table=many")
        [account] = tallied.accounts.to_dicts()
        assert account["source"] == f"{postgres}&table=many"
        assert account["rows_read"] == account["rows_accepted"] == MANY
        assert tallied.totals["total_amount"].sum() == Decimal(MANY * (MANY + 1) // 2) / 100

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ("table=order", "there is no table 'order'. Did you mean 'orders'?"),
            ("query=SELECT prize FROM orders", 'column "prize" does not exist'),
            ("query=SELECT FROM WHERE", 'syntax error at or near "WHERE"'),
            ("query=SELECT 1 AS a, 2 AS a", "two columns are named 'a'. Rename one with AS"),
            ("query=SELECT 1/0 AS a", "division by zero"),
            ("query=SELECT $1::int AS a", "there is no parameter $1"),
            ("table=orders&nosuch=1", 'Failed to connect: invalid URI query parameter: "nosuch"'),
        ],
    )
    def test_mistakes(self, postgres, asked, said):
        """One sentence, in the server's words where it knows best."""
        assert failure(f"{postgres}&{asked}").rstrip() == said

    @pytest.mark.parametrize(
        "query",
        [
            "DELETE FROM orders RETURNING *",
            "SELECT 1 AS a) AS a; DROP TABLE orders; SELECT * FROM (SELECT 1 AS a",
            "SELECT set_config('transaction_read_only', 'off', false) AS a",
            "SELECT lo_create(0) AS a",
            "SELECT nextval('numbers') AS a",
        ],
    )
    def test_nothing_is_written(self, postgres, query):
        """A query that would write ends in an error."""
        failure(f"{postgres}&query={query}")
        assert frame(f"{postgres}&table=orders").height == 4

    def test_connection_that_breaks(self, postgres, monkeypatch):
        """Rows that came before are not taken for all."""
        monkeypatch.setattr(database, "BATCH_ROWS", 1_000)
        chunks = iter(open_database(f"{postgres}&table=many").chunks())
        next(chunks)
        frame(
            f"{postgres}&query=SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'tallybook' AND pid <> pg_backend_pid()"
        )
        with pytest.raises(SourceError, match="terminating connection"):
            list(chunks)

    def test_leaving_early(self, postgres):
        """Whoever stops half-way leaves no connection behind."""
        chunks = open_database(f"{postgres}&table=many").chunks()
        next(chunks)
        chunks.close()
        count = "SELECT count(*) AS a FROM pg_stat_activity WHERE application_name = 'tallybook'"
        assert frame(f"{postgres}&query={count}")["a"].item() == 1


class TestSecrets:
    """A password opens the door and is seen nowhere."""

    def test_accounts_and_logs(self, postgres, caplog):
        """Neither provenance nor the log shows it."""
        address = postgres.replace("postgres@", f"ada:{quote(PASSWORD, '')}@")
        with caplog.at_level(logging.DEBUG):
            tallied = tally_source(f"{address}&query=SELECT * FROM many LIMIT 10")
        shown = repr(tallied.accounts.to_dicts()) + repr([line.__dict__ for line in caplog.records])
        assert "hunter2" not in shown
        assert tallied.accounts["source"].item().startswith("postgresql://ada@/postgres?host=")

    @pytest.mark.parametrize(
        "address",
        [
            f"postgresql://ada:{quote(PASSWORD, '')}@127.0.0.1:1/sales?table=orders",
            f"postgresql://ada:{PASSWORD}%zz@127.0.0.1:1/sales?table=orders",
            f"postgresql://ada@127.0.0.1:1/sales?table=orders&password={quote(PASSWORD, '')}",
            f"postgresql://ada:{quote(PASSWORD, '')}@127.0.0.1:1/sales",
        ],
    )
    def test_errors(self, address):
        """Not even the driver's own words show it."""
        failure(address)

    def test_settings(self, postgres, monkeypatch):
        """Without a server the settings' database is meant; here it refuses to answer."""
        for name, value in {"HOST": "127.0.0.1", "PORT": "1", "DATABASE": "sales"}.items():
            monkeypatch.setenv(f"TALLYBOOK_DATABASE__{name}", value)
        monkeypatch.setenv("TALLYBOOK_DATABASE__USERNAME", "ada")
        monkeypatch.setenv("TALLYBOOK_DATABASE__PASSWORD", PASSWORD)
        said = failure("postgresql:///?table=orders")
        assert 'connection to server at "127.0.0.1", port 1 failed: Connection refused' in said


class TestSqlite:
    """In SQLite a type belongs to a value."""

    def test_values(self, shop):
        """Every value arrives as the database itself would write it."""
        found = frame(f"{shop}?table=orders")
        assert found["amount"].to_list() == [
            None,
            "0.1",
            "12345678901234567890.12",
            "9223372036854775807",
            "X'01'",
            "1.0e+300",
        ]
        assert found["category"].to_list() == ["tea", "café", "", None, "a\0b", "=tea"]
        assert found["id"].to_list() == list("123456")

    def test_no_rows(self, shop, postgres):
        """A table without rows has its columns, and nothing to tally."""
        none = "query=SELECT category, amount AS timestamp, amount FROM orders WHERE amount = '7'"
        for address in (f"{shop}?{none}", f"{postgres}&{none}"):
            assert frame(address).columns == [ROW, BROKEN, "category", "timestamp", "amount"]
            with pytest.raises(SourceError, match="no records"):
                tally_source(address)

    def test_nulls_first(self, shop, tmp_path):
        """Fifty thousand nulls do not decide what a column is."""
        with closing(sqlite3.connect(tmp_path / "my shop?.db")) as opened, opened:
            opened.execute("CREATE TABLE late (amount)")
            opened.executemany("INSERT INTO late VALUES (?)", [(None,)] * 60_000 + [("0.10",)])
        found = frame(f"{shop}?table=late")
        assert found["amount"].null_count() == 60_000
        assert found.row(-1) == (60_001, None, "0.10")

    def test_not_utf8(self, shop, tmp_path):
        """Bytes that are no text are a broken record, not a crash."""
        with closing(sqlite3.connect(tmp_path / "my shop?.db")) as opened, opened:
            opened.execute("CREATE TABLE bad AS SELECT CAST(x'63ff' AS TEXT) AS category, 1 AS n")
        found = frame(f"{shop}?table=bad")
        assert found.row(0, named=True) == {
            ROW: 1,
            BROKEN: "category = 63ff",
            "category": None,
            "n": "1",
        }

    def test_parameters(self, shop):
        """Values are bound by place."""
        found = frame(f"{shop}?query=SELECT * FROM orders WHERE id = ? OR category = ?", 1, "café")
        assert found["id"].to_list() == ["1", "2"]

    @pytest.mark.parametrize(
        "query",
        [
            "DELETE FROM orders RETURNING *",
            "SELECT 1) ; DROP TABLE orders; SELECT * FROM (SELECT 1",
        ],
    )
    def test_nothing_is_written(self, shop, query):
        """A query that would write ends in an error."""
        failure(f"{shop}?query={query}")
        assert frame(f"{shop}?table=orders").height == len(MIXED)

    def test_no_file(self, tmp_path):
        """A name that is wrong makes no new database."""
        with pytest.raises(SourceError, match="there is no such file"):
            open_database(f"sqlite:///{tmp_path}/none.db?table=orders")
        assert not list(tmp_path.iterdir())

    def test_not_a_database(self, tmp_path):
        """Any other file is called by its name."""
        (tmp_path / "notes.db").write_text("dear diary " * 100)
        assert failure(f"sqlite:///{tmp_path}/notes.db?table=orders").endswith("not a database")

    def test_leaving_early(self, shop, tmp_path):
        """Whoever stops half-way can go."""
        with closing(sqlite3.connect(tmp_path / "my shop?.db")) as opened, opened:
            opened.execute(
                "CREATE TABLE many AS WITH RECURSIVE n(i) AS "
                "(SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000000) SELECT i FROM n"
            )
        command = [sys.executable, "-c", LEAVING, f"{shop}?table=many"]  # a crash is its own
        left = subprocess.run(command, capture_output=True, check=False, text=True)
        assert (left.returncode, left.stdout) == (0, "left\n"), left.stderr

    def test_error_half_way(self, shop):
        """What fails after the first batch is an error in the database's own words."""
        late = "SELECT CASE WHEN id < 6 THEN '{}' ELSE '{' END AS doc FROM orders"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "BATCH_ROWS", 2)
            assert failure(f"{shop}?query=SELECT json(doc) AS doc FROM ({late})") == (
                "malformed JSON"
            )


LEAVING = """
import sys
from tallybook import database
database.BATCH_ROWS = 20_000
for _ in range(60):
    chunks = database.open_database(sys.argv[1]).chunks()
    assert next(chunks).frame.collect().height == 20_000
    chunks.close()
print("left")
"""


PEAK = """
import resource, sys
from tallybook.database import open_database
for chunk in open_database(sys.argv[1]).chunks():
    rows = chunk.frame.collect()[-1]["__row__"].item()
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


class TestMemory:
    """Memory follows the batch, not the table."""

    def test_flat(self, postgres):
        """A million rows need hardly more than a tenth of them."""

        def peak(rows):
            query = f"{postgres}&query=SELECT * FROM many LIMIT {rows}"
            done = subprocess.run(
                [sys.executable, "-c", PEAK, query], capture_output=True, check=True, text=True
            )
            found, mebibytes = map(int, done.stdout.split())
            assert found == rows
            return mebibytes

        assert peak(MANY) < 1.2 * peak(MANY // 10)
