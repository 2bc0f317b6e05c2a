"""JSON log lines: always whole, always parseable, and nobody else's business."""

import json
import logging
import sys
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import ConfigError
from tallybook.log import JSONFormatter, get_logger, setup_logging

BASE = ["timestamp", "level", "logger", "message", "module", "function", "line"]


class Unprintable:
    """A value that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Colour(Enum):
    """An enum whose values JSON does not take as they are."""

    RED = "red"


def line_of(fields: object = None, **attributes: object) -> dict[str, object]:
    """Format one record and read it back, strictly."""
    values = {"name": "tallybook.x", "levelname": "INFO", "msg": "hello"} | attributes
    if fields is not None:
        values["extra_fields"] = fields
    text = JSONFormatter().format(logging.makeLogRecord(values))
    assert "\n" not in text
    assert text.isascii()
    return json.loads(text, parse_constant=pytest.fail)


@pytest.fixture
def tallybook_logger():
    """The logger `tallybook` without handlers; as it was, afterwards."""
    logger = logging.getLogger("tallybook")
    handlers, level = logger.handlers[:], logger.level
    logger.handlers.clear()
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


class TestBaseFields:
    """What every line has."""

    def test_names_and_order(self):
        """Seven names, always first."""
        assert list(line_of({"rows": 3})) == [*BASE, "rows"]

    def test_values(self):
        """Each says what logging knows."""
        line = line_of(
            msg="%d rows", args=(3,), module="core", funcName="count", lineno=7, levelname="ERROR"
        )
        assert [line[name] for name in BASE[1:]] == [
            "ERROR",
            "tallybook.x",
            "3 rows",
            "core",
            "count",
            7,
        ]

    @given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)))
    def test_timestamp(self, moment):
        """The moment in UTC with its offset, to the millisecond."""
        stamp = datetime.fromisoformat(line_of(created=moment.timestamp())["timestamp"])
        assert stamp.utcoffset().total_seconds() == 0
        assert abs((stamp - moment).total_seconds()) <= 0.001

    def test_exception(self):
        """The traceback is one field, line breaks and all."""
        try:
            {}["amount"]
        except KeyError:
            line = line_of(exc_info=sys.exc_info())
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("KeyError: 'amount'")

    def test_stack(self):
        """A stack that was asked for is kept."""
        assert line_of(stack_info="Stack:\n  here")["stack"] == "Stack:\n  here"


class TestExtraFields:
    """What callers add."""

    @pytest.mark.parametrize("name", [*BASE, "extra_fields"])
    def test_never_overwrites(self, name):
        """Our names keep our values; the caller's value is kept beside them."""
        line = line_of({name: "mine", "rows": 3})
        assert line["rows"] == 3
        assert line["extra_fields"] == {name: "mine"}
        assert line["message"] == "hello"
        assert line["level"] == "INFO"

    @pytest.mark.parametrize("name", ["exception", "stack"])
    def test_exception_is_kept_too(self, name):
        """Where there is an exception or a stack, it has its name for itself."""
        error = (ValueError, ValueError("bad"), None)
        line = line_of({name: "mine"}, exc_info=error, stack_info="Stack")
        assert line[name] != "mine"
        assert line["extra_fields"] == {name: "mine"}

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (Decimal("1.10"), "1.10"),
            (datetime(2013, 2, 9, tzinfo=UTC), "2013-02-09 00:00:00+00:00"),
            (Path("runs"), "runs"),
            (Colour.RED, "Colour.RED"),
            (b"\xff", "b'\\xff'"),
            (float("nan"), "nan"),
            (float("-inf"), "-inf"),
            ({1: {None: (1, 2.5, True, None)}}, {"1": {"None": [1, 2.5, True, None]}}),
            ("caf\u00e9 \ud800 \u2028", "caf\u00e9 \ud800 \u2028"),
            (Unprintable(), "<Unprintable without text>"),
            ({Unprintable(): 1}, {"<Unprintable without text>": 1}),
            ([Unprintable()], ["<Unprintable without text>"]),
        ],
    )
    def test_odd_values(self, value, expected):
        """What JSON cannot hold becomes text."""
        assert line_of({"value": value})["value"] == expected

    def test_a_number_too_long_to_print(self):
        """Python refuses to write it out; the line is written all the same."""
        assert line_of({"value": 10**5000})["value"] == "<int without text>"

    def test_a_list_within_itself(self):
        """One endless field does not cost the others."""
        loop: list[object] = []
        loop.append(loop)
        line = line_of({"loop": loop, "rows": 3})
        assert line["rows"] == 3
        assert line["loop"] == "[[...]]"

    def test_not_a_mapping(self):
        """Fields without names are kept under `extra`."""
        assert line_of([1, 2])["extra"] == [1, 2]

    @given(
        st.dictionaries(
            st.text(),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
                max_leaves=10,
            ),
        )
    )
    def test_anything(self, fields):
        """Every line is strict JSON with the seven names, whatever is added."""
        line = line_of(fields)
        assert list(line)[:7] == BASE
        assert line["message"] == "hello"


class TestGetLogger:
    """All our loggers hang below one."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("core", "tallybook.core"),
            ("tallybook.core", "tallybook.core"),
            ("tallybook", "tallybook"),
            ("tallybookish", "tallybook.tallybookish"),
            ("__main__", "tallybook.__main__"),
        ],
    )
    def test_names(self, name, expected):
        """`tallybook.` is put in front once."""
        assert get_logger(name).name == expected

    def test_default(self):
        """Without a name it is the top one."""
        assert get_logger() is logging.getLogger("tallybook")


class TestSetupLogging:
    """For programs, not for libraries."""

    @pytest.mark.usefixtures("tallybook_logger")
    def test_writes_json_to_stderr(self, capsys):
        """A line on standard error, none on standard output."""
        setup_logging("INFO")
        get_logger("core").info("hello", extra={"extra_fields": {"rows": 3}})

        out, err = capsys.readouterr()
        assert out == ""
        line = json.loads(err)
        assert (line["message"], line["rows"], line["logger"]) == ("hello", 3, "tallybook.core")
        assert line["function"] == "test_writes_json_to_stderr"

    @pytest.mark.usefixtures("tallybook_logger")
    def test_follows_stderr(self, capsys, monkeypatch):
        """Whoever borrows standard error later gets the lines."""
        setup_logging()
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        get_logger().warning("hello")
        assert json.loads(capsys.readouterr().out)["message"] == "hello"

    def test_idempotent(self, tallybook_logger, capsys):
        """Called thrice, one handler, one line; the last level counts."""
        for level in ("ERROR", "DEBUG", "warning"):
            setup_logging(level)

        assert len(tallybook_logger.handlers) == 1
        assert tallybook_logger.level == logging.WARNING
        get_logger("core").info("too quiet")
        get_logger("core").warning("heard")
        assert capsys.readouterr().err.count("\n") == 1

    def test_leaves_others_alone(self, tallybook_logger):
        """The root logger and a guest's handler stay as they were."""
        root = logging.getLogger()
        guest = logging.NullHandler()
        tallybook_logger.addHandler(guest)
        before = (root.level, root.handlers[:])

        setup_logging("DEBUG")

        assert (root.level, root.handlers) == before
        assert guest in tallybook_logger.handlers
        assert tallybook_logger.propagate

    @pytest.mark.parametrize(("level", "number"), [(10, 10), ("critical", 50), (logging.INFO, 20)])
    def test_levels(self, tallybook_logger, level, number):
        """Names in any case, or logging's numbers."""
        setup_logging(level)
        assert tallybook_logger.level == number

    def test_unknown_level(self, tallybook_logger):
        """The nearest name helps; nothing was set up."""
        with pytest.raises(ConfigError, match=r"no log level 'DEBGU'\. Did you mean 'DEBUG'\?"):
            setup_logging("DEBGU")
        assert tallybook_logger.handlers == []
