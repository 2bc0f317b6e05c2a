"""The value types: what they accept, what they refuse, and in which words."""

import unicodedata
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tallybook.types import (
    DataSource,
    Period,
    ProcessingConfig,
    ProcessingStats,
    RunState,
    UserInput,
)

ADA = {"email": "ada@example.org", "name": "Ada"}


def message(error: pytest.ExceptionInfo[ValidationError]) -> str:
    """The one message in a pydantic error."""
    (detail,) = error.value.errors()
    return detail["msg"].removeprefix("Value error, ")


class TestEnums:
    """Their values are what other people's files and command lines hold."""

    def test_data_source(self):
        """Four kinds of source."""
        assert {source.name: source.value for source in DataSource} == {
            "CLOUD_STORAGE": "cloud_storage",
            "LOCAL_FILE": "local_file",
            "DATABASE": "database",
            "API_ENDPOINT": "api_endpoint",
        }

    def test_period(self):
        """Polars' own spelling of durations."""
        assert [period.value for period in Period] == ["1h", "1d", "1w", "1mo", "1q", "1y"]

    def test_exit_codes(self):
        """Those of DESIGN.md, one for each state."""
        assert {state.value: state.exit_code for state in RunState} == {
            "ok": 0,
            "usage": 2,
            "gate_failed": 3,
            "cell_failed": 4,
            "kernel_died": 5,
            "timed_out": 6,
            "skipped": 0,
            "cancelled": 130,
            "lost": 1,
        }


class TestProcessingConfig:
    """Defaults, bounds, and the one sentence about large batches."""

    def test_defaults(self):
        """An ordinary laptop needs no settings."""
        config = ProcessingConfig()

        assert (config.batch_size, config.max_retries, config.timeout_seconds) == (100, 3, 30.0)
        assert config.created_at.tzinfo is UTC
        assert datetime.now(UTC) - config.created_at < timedelta(minutes=1)

    @pytest.mark.parametrize(
        "values",
        [
            {"batch_size": 1},
            {"batch_size": 1000},
            {"max_retries": 0},
            {"max_retries": 10},
            {"timeout_seconds": 0.001},
            {"timeout_seconds": 300},
        ],
    )
    def test_bounds_included(self, values):
        """The limits themselves are allowed."""
        config = ProcessingConfig(**values)
        assert config.model_dump(include=set(values)) == values

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"batch_size": 0}, "Input should be greater than 0"),
            ({"batch_size": -1}, "Input should be greater than 0"),
            ({"batch_size": 10_001}, "Input should be less than or equal to 10000"),
            ({"batch_size": 2.5}, "Input should be a valid integer, got a number with a "),
            ({"max_retries": -1}, "Input should be greater than or equal to 0"),
            ({"max_retries": 11}, "Input should be less than or equal to 10"),
            ({"timeout_seconds": 0}, "Input should be greater than 0"),
            ({"timeout_seconds": 300.1}, "Input should be less than or equal to 300"),
            ({"timeout_seconds": float("nan")}, "Input should be less than or equal to 300"),
            ({"timeout_seconds": float("inf")}, "Input should be less than or equal to 300"),
            ({"created_at": "2013-02-09T00:00:00"}, "Input should have timezone info"),
            ({"bach_size": 10}, "Extra inputs are not permitted"),
        ],
    )
    def test_refused(self, values, expected):
        """What is out of bounds or unknown is refused in pydantic's words."""
        with pytest.raises(ValidationError) as error:
            ProcessingConfig(**values)
        assert message(error).startswith(expected)

    @given(st.integers(1001, 10_000))
    def test_large_batches(self, size):
        """Between the comfortable and the possible there is one sentence."""
        with pytest.raises(ValidationError) as error:
            ProcessingConfig(batch_size=size)
        assert message(error) == "Batch size should not exceed 1000 for optimal performance"

    @given(st.datetimes(timezones=st.timezones(), max_value=datetime(9000, 1, 1)))
    def test_created_at_becomes_utc(self, moment):
        """Whatever the zone, the same moment in UTC."""
        moment = moment.astimezone(timezone(moment.utcoffset()))
        created_at = ProcessingConfig(created_at=moment).created_at
        assert created_at == moment
        assert created_at.tzinfo is UTC

    def test_frozen(self):
        """A configuration does not change under those who use it."""
        with pytest.raises(ValidationError, match="frozen"):
            ProcessingConfig().batch_size = 5

    def test_json_round_trip(self):
        """It survives being written to a file."""
        config = ProcessingConfig(batch_size=7)
        assert ProcessingConfig.model_validate_json(config.model_dump_json()) == config


class TestProcessingStats:
    """Counts that add up."""

    def test_defaults(self):
        """Nothing done yet."""
        stats = ProcessingStats()
        assert (stats.processed_count, stats.failed_count, stats.total_count) == (0, 0, 0)
        assert (stats.duration_seconds, stats.errors) == (0.0, [])

    @given(st.integers(0), st.integers(0))
    def test_total(self, processed, failed):
        """Processed and failed are all there is."""
        stats = ProcessingStats(processed_count=processed, failed_count=failed)
        assert stats.total_count == processed + failed

    @pytest.mark.parametrize(
        "values",
        [
            {"processed_count": -1},
            {"failed_count": -1},
            {"duration_seconds": -0.1},
            {"duration_seconds": float("nan")},
            {"duration_seconds": float("inf")},
        ],
    )
    def test_refused(self, values):
        """No negative counts, no time that is not a number."""
        with pytest.raises(ValidationError):
            ProcessingStats(**values)

    def test_round_trip(self):
        """What is written can be read again."""
        stats = ProcessingStats(processed_count=3, failed_count=1, errors=["item 2"])
        assert ProcessingStats.model_validate(stats.model_dump()) == stats


class TestEmail:
    """Addresses: shape only, lower case."""

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("ada@example.org", "ada@example.org"),
            ("Ada.Lovelace+Reports@Example.ORG", "ada.lovelace+reports@example.org"),
            ("o'neill@a-b.co.uk", "o'neill@a-b.co.uk"),
            ("x@3com.com", "x@3com.com"),
            ("a" * 64 + "@example.org", "a" * 64 + "@example.org"),
            ("ada@" + "x" * 63 + ".org", "ada@" + "x" * 63 + ".org"),
        ],
    )
    def test_accepted(self, given, kept):
        """Lower case is what is kept."""
        assert UserInput(email=given, name="Ada").email == kept

    @pytest.mark.parametrize(
        "email",
        [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@localhost",
            "ada@@example.org",
            "ada lovelace@example.org",
            "ada@example..org",
            ".ada@example.org",
            "ada.@example.org",
            "a..b@example.org",
            "ada@-example.org",
            "ada@example-.org",
            "ada@example.org.",
            "ada@192.168.0.1",
            "ada@exämple.org",
            "äda@example.org",
            "\u212aelvin@example.org",
            "ada@example.org\n",
            " ada@example.org",
            "ada@example.org\r\nBcc: all@example.org",
            "Ada <ada@example.org>",
            "ada@example.org,bob@example.org",
            "a" * 65 + "@example.org",
            "ada@" + "x" * 64 + ".org",
            "ada@" + "x." * 124 + "org",
        ],
    )
    def test_refused(self, email):
        """One sentence for all of them."""
        with pytest.raises(ValidationError) as error:
            UserInput(email=email, name="Ada")
        assert message(error) == "Invalid email format"

    @given(st.emails())
    def test_never_two_addresses(self, email):
        """Whatever is accepted is one ASCII address without spaces or line breaks."""
        try:
            kept = UserInput(email=email, name="Ada").email
        except ValidationError:
            return
        assert kept == email.lower()
        assert kept.count("@") == 1
        assert kept.isascii()
        assert not set(kept) & set(' \t\r\n,;<>()"')

    def test_long_nonsense_is_refused_quickly(self):
        """A pattern that backtracks would not come back from this one."""
        with pytest.raises(ValidationError, match="Invalid email format"):
            UserInput(email="a@" + "a-" * 50_000, name="Ada")


class TestRestrictedText:
    """Names and descriptions: letters of any language, digits, spaces, `-_.`."""

    @pytest.mark.parametrize(
        "text",
        [
            "Ada",
            "Zoë O-Neill",
            "Zoe\u0308",
            "नमस्ते",
            "สวัสดี",
            "Nguyễn Văn A",
            "李小龙",
            "مريم ٣",
            "team_42.ops",
        ],
    )
    def test_accepted(self, text):
        """Marks that belong to letters are part of them."""
        user = UserInput(**ADA | {"name": text}, description=text)
        assert (user.name, user.description) == (text, text)

    @pytest.mark.parametrize(
        "character", "<>&\"'`;:,/\\|@#$%^*()[]{}=+~?!\n\r\t\0\u200b\u2028😀½①€"
    )
    def test_refused(self, character):
        """Nothing that a page, a shell or a mail could take for an instruction."""
        for field in ("name", "description"):
            with pytest.raises(ValidationError) as error:
                UserInput(**ADA | {field: f"a{character}b"})
            assert message(error) == "Contains invalid characters"

    @given(st.text(min_size=1, max_size=50))
    def test_exactly_these_characters(self, text):
        """Accepted if and only if every character is of an allowed kind."""
        allowed = all(
            unicodedata.category(one)[0] in "LM"
            or unicodedata.category(one) == "Nd"
            or one in " -_."
            for one in text
        )
        with nullcontext() if allowed else pytest.raises(ValidationError, match="invalid char"):
            UserInput(**ADA, description=text)

    def test_newline_at_either_end(self):
        """Outer spaces are dropped, outer line breaks are not forgiven."""
        assert UserInput(**ADA | {"name": "  Ada "}).name == "Ada"
        for name in ("Ada\n", "\nAda"):
            with pytest.raises(ValidationError, match="Contains invalid characters"):
                UserInput(**ADA | {"name": name})

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("", "String should have at least 1 character"),
            ("  ", "Contains only spaces"),
            ("x" * 101, "String should have at most 100 characters"),
        ],
    )
    def test_name_length(self, name, expected):
        """A name has 1 to 100 characters that are more than spaces."""
        with pytest.raises(ValidationError) as error:
            UserInput(**ADA | {"name": name})
        assert message(error) == expected

    def test_longest(self):
        """The limits themselves are allowed."""
        user = UserInput(**ADA | {"name": "n" * 100}, description="d" * 1000)
        assert (len(user.name), len(user.description)) == (100, 1000)
        with pytest.raises(ValidationError, match="at most 1000 characters"):
            UserInput(**ADA, description="d" * 1001)

    def test_description_is_optional(self):
        """Nobody has to describe themselves."""
        assert UserInput(**ADA).description is None

    @given(st.text(alphabet=ascii_lowercase + " -_.é", max_size=20))
    def test_round_trip(self, text):
        """What was accepted once is accepted again, unchanged."""
        user = UserInput(**ADA, description=text)
        assert UserInput.model_validate(user.model_dump()) == user
