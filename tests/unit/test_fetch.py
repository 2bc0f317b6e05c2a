"""The parts of `fetch` that need no server."""

from __future__ import annotations

import base64
import gzip
import hashlib
import inspect
import pickle
import socket
import traceback
import tracemalloc
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from types import ModuleType

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.abc import AbstractResolver
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from pydantic import ValidationError
from yarl import URL

from tallybook import fetch
from tallybook.errors import FetchError
from tallybook.fetch import (
    RETRYABLE,
    Fault,
    FetchLimits,
    Proof,
    Territory,
    Trouble,
    decompress,
    exact_number,
    explained,
    fault_of,
    full_jitter,
    is_home,
    is_private_address,
    json_kind,
    load_json,
    redact_url,
    retry_after_seconds,
    stated_digests,
    territory_of,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def exceptions_in(module: ModuleType) -> list[type[Exception]]:
    """Return every exception class that a module defines."""
    classes = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [kind for kind in classes if issubclass(kind, Exception)]


class TestFaultOf:
    @pytest.mark.parametrize(
        "kind",
        [*exceptions_in(client_exceptions), *exceptions_in(http_exceptions)],
        ids=lambda kind: kind.__name__,
    )
    def test_no_aiohttp_exception_is_unmapped(self, kind):
        """Whatever aiohttp can raise has a fault, and would be caught."""
        assert fault_of(kind) is not None
        assert issubclass(kind, fetch._FAILURES)

    @pytest.mark.parametrize(
        ("kind", "fault"),
        [
            (TimeoutError, Fault.TIMED_OUT),
            (aiohttp.SocketTimeoutError, Fault.TIMED_OUT),
            (aiohttp.ConnectionTimeoutError, Fault.TIMED_OUT),
            (ConnectionResetError, Fault.CUT_OFF),
            (aiohttp.ClientPayloadError, Fault.CUT_OFF),
            (aiohttp.ServerDisconnectedError, Fault.CUT_OFF),
            (aiohttp.ClientConnectorDNSError, Fault.UNREACHABLE),
            (aiohttp.ClientConnectorError, Fault.UNREACHABLE),
            (aiohttp.ClientConnectorCertificateError, Fault.UNTRUSTED),
            (aiohttp.ServerFingerprintMismatch, Fault.UNTRUSTED),
            (aiohttp.InvalidURL, Fault.BAD_URL),
            (aiohttp.ClientResponseError, Fault.BAD_ANSWER),
        ],
    )
    def test_which_fault(self, kind, fault):
        """The narrower class decides where several rows of the table fit."""
        assert fault_of(kind) is fault

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, KeyError, AssertionError])
    def test_bugs_and_signals_are_no_faults(self, kind):
        """They must go through, unchanged."""
        assert fault_of(kind) is None
        assert not issubclass(kind, fetch._FAILURES)

    def test_a_certificate_does_not_get_better(self):
        """Trying again is for faults that pass."""
        hopeless = {Fault.UNTRUSTED, Fault.TOO_LARGE, Fault.NOT_ALLOWED, Fault.BAD_STATUS}
        assert not hopeless & RETRYABLE

    def test_reason_names_the_system_error(self):
        """A refused connection says so."""
        key = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
        failed_call = ConnectionRefusedError(111, "Connect call failed")
        refused = aiohttp.ClientConnectorError(key, failed_call)
        assert fetch._understand(refused).reason == "no connection (Connection refused)"
        lookup = socket.gaierror(-2, "Name or service not known")
        unknown = aiohttp.ClientConnectorDNSError(key, lookup)
        assert fetch._understand(unknown).reason == "no connection (Name or service not known)"


class TestRedactUrl:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://a.test/x?page=2&size=100", "https://a.test/x?page=2&size=100"),
            ("https://ada:pw@a.test/x", "https://a.test/x"),
            ("https://a.test/x?API_KEY=k&page=2", "https://a.test/x?API_KEY=***&page=2"),
            ("https://a.test/x?X-Amz-Signature=9f", "https://a.test/x?X-Amz-Signature=***"),
            ("https://a.test/x?next=" + "aB3-" * 8, "https://a.test/x?next=***"),
            ("https://a.test/x?fields=id,amount,category,timestamp,country", None),
            ("https://a.test/x#access_token=k", "https://a.test/x"),
            ("nonsense", "nonsense"),
            ("https://[broken?token=k", "***"),
            ("", ""),
        ],
    )
    def test_what_is_shown(self, url, shown):
        """Secrets are stars; what is harmless stays, so that pages can be told apart."""
        assert redact_url(url) == (shown or url)

    @given(
        secret=st.text(min_size=3, alphabet=st.characters(codec="utf-8", exclude_characters="*"))
    )
    def test_a_known_secret_is_never_shown(self, secret):
        """Not in the query, not in the path, not percent-encoded."""
        url = URL("https://a.test/").with_path(f"/{secret}/x").with_query(q=f"a{secret}b", page="2")
        shown = redact_url(url, [secret])
        decoded = URL(shown)
        assert secret not in decoded.path.replace("***", "")
        assert decoded.query["q"] == "***"


class TestExplained:
    def test_fetch_error_has_the_facts(self):
        """Address, fault and status are attributes, and survive pickling."""
        with (
            pytest.raises(FetchError) as caught,
            explained("https://a.test/x?token=k"),
        ):
            raise Trouble(Fault.BUSY, "the server answered 503", status=503)
        error = pickle.loads(pickle.dumps(caught.value))
        assert str(error) == "https://a.test/x?token=***: the server answered 503"
        assert error.context == {
            "url": "https://a.test/x?token=***",
            "fault": "busy",
            "status": 503,
            "tries": 1,
        }
        assert error.exit_code == 1

    def test_a_cause_that_would_tell_is_dropped(self):
        """An exception whose text holds the address is not printed below a redacted message."""
        url = URL("https://a.test/x?token=hunter2")
        loud = aiohttp.ConnectionTimeoutError(f"Connection timeout to host {url}")
        quiet = aiohttp.ServerDisconnectedError()
        assert fetch._printable(loud, url, []) is None
        assert fetch._printable(quiet, url, []) is quiet
        assert "hunter2" not in "".join(traceback.format_exception(quiet))

    def test_a_header_secret_in_a_cause_drops_it(self):
        """The known secrets are looked for as well."""
        assert (
            fetch._printable(OSError("proxy said hunter2"), "https://a.test", ["hunter2"]) is None
        )


class TestFetchLimits:
    @pytest.mark.parametrize(
        "wrong", [{"max_retries": -1}, {"deadline_seconds": 0}, {"max_bytes": 0}, {"retries": 3}]
    )
    def test_out_of_range_or_unknown(self, wrong):
        """A limit that limits nothing is refused."""
        with pytest.raises(ValidationError):
            FetchLimits(**wrong)

    def test_hosts_are_lower_case(self):
        """Host names have no case."""
        assert FetchLimits(allowed_hosts={"Files.Example.COM:8080"}).allowed_hosts == {
            "files.example.com:8080"
        }


class TestWaits:
    @given(tries=st.integers(1, 10_000), chance=st.floats(0, 1))
    def test_jitter_stays_below_both_bounds(self, tries, chance):
        """However many tries there were."""
        limits = FetchLimits()
        wait = full_jitter(min(tries, 1000), limits, chance)
        assert 0 <= wait <= limits.backoff_cap_seconds
        assert wait <= limits.backoff_base_seconds * 2 ** min(tries - 1, 30)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("0", 0.0),
            (" 120 ", 120.0),
            ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
            ("Monday, 23-Nov-26 12:00:30 GMT", 30.0),
            ("Mon, 23 Nov 2026 13:00:30 +0100", 30.0),
            ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
            ("-5", None),
            ("1.5", None),
            ("1e9", None),
            ("٣", None),
            ("soon", None),
            ("", None),
            (None, None),
            ("9" * 400, None),
        ],
    )
    def test_retry_after(self, header, seconds):
        """Seconds and dates are read; what cannot be read is as if it were not there."""
        assert retry_after_seconds(header, NOON) == seconds

    @given(st.timedeltas(timedelta(0), timedelta(days=400)))
    def test_any_date(self, later):
        """A date is read to the second."""
        header = format_datetime(NOON + later, usegmt=True)
        assert retry_after_seconds(header, NOON) == int(later.total_seconds())


class TestTerritory:
    HOME = "https://api.example.com/v1/orders"

    @pytest.mark.parametrize(
        ("home", "url", "home_again"),
        [
            (HOME, "https://api.example.com/other", True),
            (HOME, "https://api.example.com:443/x", True),
            (HOME, "https://API.example.com/x", True),
            (HOME, "https://api.example.com:8443/x", False),
            (HOME, "http://api.example.com/x", False),
            (HOME, "https://api.example.com.evil.test/x", False),
            (HOME, "https://api.example.com@evil.test/x", False),
            ("http://a.test/x", "https://a.test/x", True),
            ("http://a.test:8080/x", "https://a.test/x", False),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/", False),
            ("http://127.0.0.1:5000/", "http://localhost:5000/", False),
        ],
    )
    def test_home(self, home, url, home_again):
        """Home is one origin, and the https of a plain one."""
        assert is_home(URL(url), Territory(URL(home))) is home_again

    @pytest.mark.parametrize(
        ("allowed", "url"),
        [
            ({"files.test"}, "https://files.test/x"),
            ({"files.test"}, "https://files.test:8443/x"),
            ({"files.test:8443"}, "https://files.test:8443/x"),
            ({"10.0.0.5"}, "https://10.0.0.5/x"),
        ],
    )
    def test_allowed(self, allowed, url):
        """A host may be allowed with all its ports or with one."""
        fetch._check_territory(URL(url), Territory(URL(self.HOME), frozenset(allowed)))

    @pytest.mark.parametrize(
        ("url", "fault"),
        [
            ("https://evil.test/x", Fault.NOT_ALLOWED),
            ("https://files.test:8444/x", Fault.NOT_ALLOWED),
            ("http://api.example.com/x", Fault.NOT_ALLOWED),
            ("http://plain.test/x", Fault.NOT_ALLOWED),
            ("https://169.254.169.254/", Fault.NOT_ALLOWED),
            ("https://[::1]/", Fault.NOT_ALLOWED),
            ("file:///etc/passwd", Fault.BAD_ANSWER),
            ("ftp://files.test/x", Fault.BAD_ANSWER),
            ("data:text/plain,x", Fault.BAD_ANSWER),
            ("/relative", Fault.BAD_ANSWER),
        ],
    )
    def test_refused(self, url, fault):
        """Other hosts, other ports, plain http after https, other schemes."""
        allowed = frozenset({"files.test:8443", "plain.test"})
        with pytest.raises(Trouble) as caught:
            fetch._check_territory(URL(url), Territory(URL(self.HOME), allowed))
        assert caught.value.fault is fault

    @pytest.mark.parametrize(
        "text", ["", "nonsense", "//a.test/x", "ftp://a.test", "http://", "http://[", None]
    )
    def test_not_an_address(self, text):
        """What is no http address has no territory."""
        with pytest.raises(Trouble) as caught:
            territory_of(text, FetchLimits())
        assert caught.value.fault is Fault.BAD_URL


class TestPrivateAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            *("0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254"),
            *("172.16.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
            *("255.255.255.255", "::", "::1", "fc00::1", "fd00::1", "fe80::1", "fe80::1%eth0"),
            *("fec0::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"),
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",  # Teredo, with 10.0.0.1 inside
        ],
    )
    def test_private(self, address):
        """Every range that is not the public internet, and IPv4 hidden in IPv6."""
        assert is_private_address(address)

    @pytest.mark.parametrize(
        "address",
        ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
    )
    def test_public(self, address):
        """The public internet."""
        assert not is_private_address(address)

    def test_not_an_address(self):
        """A name is no address."""
        with pytest.raises(ValueError, match="IPv4 or IPv6"):
            is_private_address("localhost")


class FixedNames(AbstractResolver):
    """Answers with the addresses it was given, one after the other; the last one stays."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": family,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        self.answers.clear()


class TestGuardedResolver:
    @staticmethod
    def guarded(*answers: str, allow_private: bool = False) -> AbstractResolver:
        territory = Territory(URL("http://home.test/"), frozenset({"away.test"}), allow_private)
        return fetch._GuardedResolver(territory, FixedNames(*answers))

    async def test_public_names_pass(self):
        """Anything public, home or not."""
        guarded = self.guarded("8.8.8.8")
        assert (await guarded.resolve("away.test"))[0]["host"] == "8.8.8.8"
        assert (await guarded.resolve("home.test"))[0]["host"] == "8.8.8.8"

    async def test_a_private_home_is_the_users_choice(self):
        """Companies have APIs at home."""
        guarded = self.guarded("10.0.0.1")
        assert (await guarded.resolve("home.test"))[0]["host"] == "10.0.0.1"
        assert (await guarded.resolve("home.test"))[0]["host"] == "10.0.0.1"

    async def test_home_cannot_become_private(self):
        """A name that changes its mind (DNS rebinding) is refused."""
        guarded = self.guarded("8.8.8.8", "169.254.169.254")
        await guarded.resolve("home.test")
        with pytest.raises(Trouble, match=r"169\.254\.169\.254"):
            await guarded.resolve("home.test")

    async def test_an_allowed_name_may_not_be_private(self):
        """Unless that is allowed too."""
        with pytest.raises(Trouble) as caught:
            await self.guarded("10.0.0.1").resolve("away.test")
        assert caught.value.fault is Fault.NOT_ALLOWED
        found = await self.guarded("10.0.0.1", allow_private=True).resolve("away.test")
        assert found[0]["host"] == "10.0.0.1"

    async def test_close(self):
        """What is inside is closed too."""
        inner = FixedNames("8.8.8.8")
        await fetch._GuardedResolver(Territory(URL("http://home.test/")), inner).close()
        assert inner.answers == []


class TestDecompress:
    @given(
        contents=st.lists(st.binary(max_size=200), min_size=1, max_size=5),
        pack=st.sampled_from([gzip.compress, zlib.compress]),
    )
    def test_members_come_back_joined(self, contents, pack):
        """Whatever was packed, in one member or several."""
        packed = b"".join(map(pack, contents))
        expected = b"".join(contents)
        assert decompress(packed, limit=len(expected)) == expected

    @given(content=st.binary(min_size=1, max_size=3000), cut=st.floats(0, 1, exclude_max=True))
    def test_half_of_it_is_an_error(self, content, cut):
        """There is no place to cut at which it would look whole."""
        packed = gzip.compress(content)
        with pytest.raises(EOFError):
            decompress(packed[: int(len(packed) * cut)], limit=10_000)

    @given(content=st.binary(min_size=1, max_size=300), at=st.integers(0), bit=st.integers(0, 7))
    def test_one_flipped_bit_is_never_another_content(self, content, at, bit):
        """The checksum finds it, or it was in a part of the header that means nothing."""
        packed = bytearray(gzip.compress(content, mtime=0))
        packed[at % len(packed)] ^= 1 << bit
        with suppress(zlib.error, EOFError, OverflowError):
            assert decompress(bytes(packed), limit=10_000) == content

    @given(content=st.binary(min_size=2, max_size=1000), missing=st.integers(1, 1000))
    def test_limit_is_exact(self, content, missing):
        """One byte too many is too many."""
        limit = max(0, len(content) - missing)
        with pytest.raises(OverflowError):
            decompress(gzip.compress(content), limit)

    def test_a_bomb_costs_no_memory(self):
        """200 MB of zeros are given up after the limit, not after they are all there."""
        packer = zlib.compressobj(9)
        zeros = bytes(1_000_000)
        bomb = b"".join(packer.compress(zeros) for _ in range(200)) + packer.flush()
        tracemalloc.start()
        try:
            with pytest.raises(OverflowError):
                decompress(bomb, limit=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 6_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("rest", [b"x", bytes(20)])
    def test_garbage_behind_it(self, rest):
        """What is behind the end was not meant."""
        with pytest.raises((zlib.error, EOFError)):
            decompress(gzip.compress(b"abc") + rest, limit=100)

    def test_too_many_members(self):
        """A million empty members would burn time without ever reaching the limit."""
        with pytest.raises(zlib.error, match="members"):
            decompress(gzip.compress(b"") * 1001, limit=100)

    def test_nothing(self):
        """An empty body is not compressed data."""
        with pytest.raises(EOFError):
            decompress(b"", limit=10)


def in_base64(name: str, content: bytes) -> str:
    return base64.b64encode(hashlib.new(name, content).digest()).decode()


class TestProof:
    BODY = b'{"items": []}'

    @pytest.mark.parametrize(
        ("headers", "proof"),
        [
            ({}, Proof.NONE),
            ({"Content-Length": "13"}, Proof.LENGTH),
            ({"Transfer-Encoding": "chunked"}, Proof.CHUNKED),
            ({"Content-Encoding": "gzip"}, Proof.TRAILER),
            ({"Content-MD5": in_base64("md5", BODY)}, Proof.DIGEST),
            ({"Content-MD5": hashlib.md5(BODY, usedforsecurity=False).hexdigest()}, Proof.DIGEST),
            ({"Digest": f"SHA-256={in_base64('sha256', BODY)}"}, Proof.DIGEST),
            ({"Repr-Digest": f"sha-512=:{in_base64('sha512', BODY)}:"}, Proof.DIGEST),
            ({"Content-Digest": f"x=:AA==:, sha-256=:{in_base64('sha256', BODY)}:"}, Proof.DIGEST),
            ({"Digest": "unixsum=12345"}, Proof.NONE),
        ],
    )
    def test_best_proof(self, headers, proof):
        """The strongest of what was sent; an unknown hash proves nothing."""
        assert fetch._proof(CIMultiDict(headers), self.BODY, self.BODY) is proof

    @pytest.mark.parametrize("header", ["Content-MD5", "Digest", "Content-Digest", "Repr-Digest"])
    @pytest.mark.parametrize("value", ["", "AAAA", "!!", in_base64("md5", b"other")])
    def test_wrong_digest(self, header, value):
        """A digest of something else is never overlooked, whatever the length says."""
        text = value if header == "Content-MD5" else f"md5={value}"
        headers = CIMultiDict({header: text, "Content-Length": "13"})
        with pytest.raises(Trouble) as caught:
            fetch._proof(headers, self.BODY, self.BODY)
        assert caught.value.fault is Fault.CORRUPT

    def test_one_wrong_of_two(self):
        """All of them must match."""
        headers = CIMultiDict(
            [("Digest", f"sha-256={in_base64('sha256', self.BODY)}"), ("Digest", "md5=AAAA")]
        )
        assert len(stated_digests(headers)) == 2
        with pytest.raises(Trouble):
            fetch._proof(headers, self.BODY, self.BODY)

    def test_digest_of_the_compressed_or_the_plain_body(self):
        """Standards say compressed; servers say either; both prove it."""
        raw = gzip.compress(self.BODY)
        for covered in (raw, self.BODY):
            headers = CIMultiDict({"Digest": f"sha-256={in_base64('sha256', covered)}"})
            assert fetch._proof(headers, raw, self.BODY) is Proof.DIGEST

    @given(body=st.binary(min_size=1, max_size=100), cut=st.floats(0, 1, exclude_max=True))
    def test_a_short_body_is_never_proved(self, body, cut):
        """Neither by its length nor by a digest."""
        part = body[: int(len(body) * cut)]
        for headers in (
            {"Content-Length": str(len(body))},
            {"Repr-Digest": f"sha-256=:{in_base64('sha256', body)}:"},
        ):
            with pytest.raises(Trouble):
                fetch._proof(CIMultiDict(headers), part, part)

    def test_unknown_encoding(self):
        """What was not asked for cannot be read."""
        with pytest.raises(Trouble, match="'br'"):
            fetch._content(CIMultiDict({"Content-Encoding": "br"}), b"x", 10)


class TestJson:
    @given(st.decimals(allow_nan=False, allow_infinity=False))
    def test_exact_number_is_equal(self, number):
        """Compared with Python's decimals, no digit is lost."""
        assert Decimal(str(exact_number(str(number)))) == number

    @pytest.mark.parametrize("text", ["0.1", "12.5", "1e22", "-0.0", "5e-324"])
    def test_ordinary_numbers_are_floats(self, text):
        """A Decimal only where it is needed."""
        assert isinstance(exact_number(text), float)

    @pytest.mark.parametrize("text", ["1e400", "-1e400", "1e-400", "0.1000000000000000055"])
    def test_long_numbers_are_decimals(self, text):
        """Neither infinity nor zero nor a neighbour."""
        assert exact_number(text) == Decimal(text)

    @pytest.mark.parametrize(
        "text",
        [
            '{"a": 1, "a": 2}',
            '[{"x": {"a": 1, "a": 1}}]',
            "[" * 100_000,
            '{"a": ' * 100_000,
            "{",
            "",
            "[1,]",
        ],
    )
    def test_refused(self, text):
        """Twins, bottomless nesting, and what is no JSON."""
        with pytest.raises(ValueError, match=r"twice|deeply|Expecting|property name|Illegal"):
            load_json(text, integer=int, fraction=float, constant=str)

    @pytest.mark.parametrize(
        "text", ["[]", "3", '"x"', "null", '{"a": NaN}', '{"a": 1e9999999999999999999}']
    )
    def test_no_object_for_a_batch(self, text):
        """A batch promises dicts of real numbers."""
        with pytest.raises(
            ValueError, match=r"expected an object|not a JSON number|out of any range"
        ):
            fetch._parse_object(text)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (True, "true or false"),
            (1, "a number"),
            (Decimal(1), "a number"),
            ("x", "a text"),
            ({}, "an object"),
        ],
    )
    def test_kind(self, value, kind):
        """As a person would say it."""
        assert json_kind(value) == kind
