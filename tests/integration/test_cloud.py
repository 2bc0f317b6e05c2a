"""Buckets: a real S3 API over HTTP, also one that is slow, stingy or rude.

Every read ends in the complete answer or in one sentence; never in a short one.
"""

import gzip
import logging
import traceback
from decimal import Decimal

import polars as pl
import pytest
from pydantic import SecretStr
from tests.support.faulty_s3 import BUCKET, SECRET, FaultyS3, Misdeed, Plan

from tallybook import cloud
from tallybook.cloud import open_bucket
from tallybook.errors import SourceError
from tallybook.transform import tally_source

HEADER = "timestamp,category,amount\n"
ROWS = "".join(f"2026-03-{day:02},tea,{day}.10\n" for day in range(1, 29))
WEEK = (HEADER + ROWS).encode()


@pytest.fixture(scope="module")
def server():
    with FaultyS3() as s3:
        yield s3


@pytest.fixture
def s3(server, monkeypatch):
    """The server without the objects and the plans of other tests."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server.reset()
    return server


def read(s3, address):
    """Return source and amounts of every chunk."""
    source = open_bucket(address, config=s3.config)
    return [(chunk.source, chunk.frame.collect()["amount"].to_list()) for chunk in source.chunks()]


def failure(s3, address):
    """Return the error of a read, after a look for secrets in all that it shows."""
    with pytest.raises(SourceError) as caught:
        read(s3, address)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.context)
    assert SECRET not in shown
    return str(caught.value)


class TestWhichObjects:
    """An address means one object, a pattern or a folder."""

    @pytest.mark.parametrize("key", ["a.csv", "in/[x] é.csv", "in/100%.csv", "in/a+b & c#.csv"])
    def test_one(self, s3, key):
        """A key is taken letter by letter."""
        address = s3.put(key, WEEK)
        [(source, amounts)] = read(s3, address)
        assert source == address
        assert amounts == [f"{day}.10" for day in range(1, 29)]

    def test_pattern(self, s3):
        """A star stops at a slash, two do not; the order is that of the keys."""
        for key in ("in/b.csv", "in/a.csv", "in/03/c.csv", "out/d.csv", "in/e.txt"):
            s3.put(key, WEEK)
        one = [source for source, _ in read(s3, f"s3://{BUCKET}/in/*.csv")]
        assert one == [f"s3://{BUCKET}/in/{name}.csv" for name in "ab"]
        assert len(read(s3, f"s3://{BUCKET}/in/**/*.csv")) == 3

    def test_folder(self, s3):
        """A folder is all that a reader can read in it, and says how much that is."""
        for key in ("in/a.csv", "in/03/b.csv.gz", "in/_SUCCESS", "in/.hidden.csv", "in/notes.doc"):
            s3.put(key, gzip.compress(WEEK) if key.endswith("gz") else WEEK)
        source = open_bucket(f"s3://{BUCKET}/in/", config=s3.config)
        assert source.note.startswith("2 objects, ")
        assert [chunk.source[-8:] for chunk in source.chunks()] == ["b.csv.gz", "in/a.csv"]

    def test_pages_of_names(self, s3):
        """A list that comes in pages is read to its end."""
        for number in range(5):
            s3.put(f"many/{number}.csv", WEEK)
        source = open_bucket(f"s3://{BUCKET}/many/*.csv", config=s3.config)
        assert source.note.startswith("5 objects")
        assert len([path for _, path in s3.requests if "list-type" in path]) == 3

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("in/*.parquet", "no object matches"),
            ("none/", "it holds no object with a known suffix"),
            ("in/b.csv", "there is no such object. Did you mean 'in/a.csv'?"),
            ("in", "there is no such object. It is a folder: end it in a slash"),
        ],
    )
    def test_nothing(self, s3, key, said):
        """No match is an error that says what is there."""
        s3.put("in/a.csv", WEEK)
        assert failure(s3, f"s3://{BUCKET}/{key}") == f"cannot read s3://{BUCKET}/{key}: {said}"

    def test_no_bucket(self, s3):
        """A bucket that is not there is named as such."""
        assert failure(s3, "s3://nowhere/*.csv").endswith(": there is no such bucket")


class TestFormats:
    """An object is read as strictly as a local file."""

    def test_parquet(self, s3, tmp_path):
        """Typed files keep their types."""
        pl.DataFrame({"amount": [1, 2]}).write_parquet(tmp_path / "a.parquet")
        address = s3.put("a.parquet", (tmp_path / "a.parquet").read_bytes())
        assert read(s3, address) == [(address, [1, 2])]

    def test_ndjson(self, s3):
        """Numbers keep their digits."""
        address = s3.put("a.ndjson", b'{"amount": 12345678901234567890.10}\n')
        assert read(s3, address) == [(address, ["12345678901234567890.10"])]

    def test_empty_object(self, s3):
        """An object without a byte is an error that names the object."""
        address = s3.put("a.csv", b"")
        assert failure(s3, address) == f"cannot read {address}: the file is empty"

    def test_damaged_object(self, s3):
        """What is wrong inside is said of the object, not of its copy."""
        address = s3.put("a.csv.gz", gzip.compress(WEEK)[:-9])
        assert failure(s3, address).startswith(f"cannot read {address}: ")

    def test_text_and_tables(self, s3):
        """Lines of text and tables cannot be one source."""
        s3.put("in/a.csv", WEEK)
        s3.put("in/b.txt", b"tea\n")
        assert failure(s3, f"s3://{BUCKET}/in/*").endswith("plain text and other formats at once")


class TestFaults:
    """The complete, verified answer or a clear error; never a short one."""

    @pytest.fixture(autouse=True)
    def small_pieces(self, monkeypatch):
        monkeypatch.setattr(cloud, "PIECE_BYTES", 100)

    @pytest.mark.parametrize("misdeed", [Misdeed.UNAVAILABLE, Misdeed.CUT_OFF, Misdeed.SLOW])
    @pytest.mark.parametrize("after", [0, 2])
    def test_passing(self, s3, misdeed, after):
        """What passes is tried again, and the answer is whole."""
        address = s3.put("in/a.csv", WEEK)
        s3.plan = Plan(misdeed, after=after)
        [(_, amounts)] = read(s3, address)
        assert amounts == [f"{day}.10" for day in range(1, 29)]

    @pytest.mark.parametrize(
        ("misdeed", "said"),
        [
            (Misdeed.FORBIDDEN, "access is denied. Check the key, and that it may list and read"),
            (Misdeed.NOT_FOUND, "there is no such object"),
            (Misdeed.UNAVAILABLE, "the server answered 503"),
            (Misdeed.SLOW, "the answer was cut off or came too slowly, again and again"),
            (Misdeed.CUT_OFF, "the answer was cut off or came too slowly, again and again"),
            (
                Misdeed.REFUSED_TOKEN,
                "did not understand the request",
            ),
            (Misdeed.SHORT, "the answer was cut off or came too slowly, again and again"),
            (Misdeed.NOT_S3, "the answer is not one that an object store gives"),
        ],
    )
    @pytest.mark.parametrize("after", [0, 3])
    def test_lasting(self, s3, misdeed, said, after):
        """What lasts is one sentence that names the object, and no rows are made up."""
        address = s3.put("in/a.csv", WEEK)
        s3.plan = Plan(misdeed, times=None, after=after)
        message = failure(s3, address)
        assert message.startswith(f"cannot read {address}: ")
        assert said in message

    @pytest.mark.parametrize(
        ("misdeed", "said"),
        [
            (Misdeed.FORBIDDEN, "access is denied"),
            (Misdeed.UNAVAILABLE, "the server answered 503"),
            (Misdeed.CUT_OFF, "the answer was cut off or came too slowly, again and again"),
            (Misdeed.NOT_S3, "no object matches"),
        ],
    )
    def test_listing(self, s3, misdeed, said):
        """A bucket that cannot be listed is not an empty one."""
        s3.put("in/a.csv", WEEK)
        s3.plan = Plan(misdeed, times=None)
        assert said in failure(s3, f"s3://{BUCKET}/in/*.csv")

    def test_replaced_while_reading(self, s3):
        """Two versions are never mixed, even if both have the same length."""
        address = s3.put("in/a.csv", WEEK)

        def replace_after_two(number):
            if number == 2:
                s3.put("in/a.csv", WEEK.replace(b"tea", b"pie"))

        s3.on_get = replace_after_two
        assert failure(s3, address).endswith("it was replaced while it was being read. Run again")

    def test_refused(self, s3):
        """A server that is not there is not waited for."""
        config = s3.config.model_copy(update={"endpoint": "http://127.0.0.1:1"})
        with pytest.raises(SourceError, match="no connection to the server"):
            open_bucket("s3://shop/a.csv", config=config)


class TestTally:
    """From a bucket to totals, with the settings of the environment."""

    def test_totals(self, s3, monkeypatch):
        """Three objects, each with its line in the account; a reject names its object."""
        for name in ("endpoint", "region", "access_key_id"):
            value = getattr(s3.config, name)
            shown = value.get_secret_value() if isinstance(value, SecretStr) else value
            monkeypatch.setenv(f"TALLYBOOK_STORAGE__{name.upper()}", shown)
        monkeypatch.setenv("TALLYBOOK_STORAGE__SECRET_ACCESS_KEY", SECRET)
        s3.put("in/a.csv", WEEK)
        s3.put("in/b.csv.gz", gzip.compress(WEEK.replace(b",", b";")))
        s3.put("in/c.csv", b"timestamp,category,amount\n2026-03-01,tea,1\n2026-03-02,tea,n/a\n")
        tallied = tally_source(f"s3://{BUCKET}/in/*")
        assert tallied.accounts["source"].to_list() == [
            f"s3://{BUCKET}/in/{name}" for name in ("a.csv", "b.csv.gz", "c.csv")
        ]
        assert tallied.accounts["rows_accepted"].to_list() == [28, 28, 1]
        assert tallied.totals["total_amount"].to_list() == [Decimal("818.60")]
        assert tallied.reasons["first_source"].to_list() == [f"s3://{BUCKET}/in/c.csv"]

    def test_not_utf8(self, s3):
        """What is no UTF-8 is said of the object."""
        address = s3.put("a.csv", WEEK.replace(b"tea", b"caf\xe9"))
        assert f"cannot read {address}: byte 40 (0xe9) is not UTF-8" in failure(s3, address)


class TestSigningIn:
    """Keys come from the environment or the settings, and stay there."""

    def test_environment(self, s3, monkeypatch):
        """What the settings do not say, the usual variables do."""
        address = s3.put("a.csv", WEEK)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ada")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.config.endpoint)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        unset = {"endpoint": None, "region": None, "access_key_id": None}
        config = s3.config.model_copy(update=unset | {"secret_access_key": None})
        [chunk] = open_bucket(address, config=config).chunks()
        assert chunk.source == address

    def test_no_keys_in_addresses(self):
        """A key in an address is refused without being repeated."""
        with pytest.raises(SourceError) as caught:
            open_bucket(f"s3://ada:{SECRET}@{BUCKET}/a.csv")
        assert SECRET not in str(caught.value)

    def test_log(self, s3, caplog):
        """The log has the digest of what was read, and no key."""
        address = s3.put("a.csv", WEEK)
        with caplog.at_level(logging.DEBUG):
            read(s3, address)
        [line] = [line for line in caplog.records if line.message == "object read"]
        assert line.extra_fields["source"] == address
        assert len(line.extra_fields["sha256"]) == 64
        assert SECRET not in repr([line.__dict__ for line in caplog.records])
