"""The family of errors: what they carry, how they travel, and the nearest name."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook import errors
from tallybook.errors import (
    ConfigError,
    ErrorCode,
    ExactnessError,
    FetchError,
    GateError,
    LateWriteError,
    LedgerError,
    OutputError,
    ParameterError,
    ProcessingError,
    ReportError,
    SchemaError,
    SourceError,
    ValidationError,
    did_you_mean,
    nearest,
)
from tallybook.types import RunState

FAMILY = [
    (ProcessingError, ErrorCode.PROCESSING_FAILED, 1),
    (ValidationError, ErrorCode.INVALID_INPUT, 2),
    (SchemaError, ErrorCode.INVALID_SCHEMA, 2),
    (ConfigError, ErrorCode.INVALID_CONFIG, 2),
    (ParameterError, ErrorCode.INVALID_PARAMETER, 2),
    (SourceError, ErrorCode.SOURCE_UNREADABLE, 2),
    (OutputError, ErrorCode.OUTPUT_FAILED, 1),
    (ExactnessError, ErrorCode.NOT_EXACT, 1),
    (FetchError, ErrorCode.FETCH_FAILED, 1),
    (GateError, ErrorCode.GATE_FAILED, 3),
    (ReportError, ErrorCode.REPORT_FAILED, 1),
    (LedgerError, ErrorCode.LEDGER_FAILED, 1),
    (LateWriteError, ErrorCode.LATE_WRITE, 1),
]


def there_and_back(error: ProcessingError) -> ProcessingError:
    """What arrives when another process sends this error."""
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize(("kind", "code", "exit_code"), FAMILY)
class TestFamily:
    """Every error is a `ProcessingError` with its own code and exit code."""

    def test_defaults(self, kind, code, exit_code):
        """The message alone is enough."""
        error = kind("no luck")

        assert isinstance(error, ProcessingError)
        assert str(error) == error.message == "no luck"
        assert error.error_code is code
        assert error.context == {}
        assert kind.exit_code == error.exit_code == exit_code

    def test_given_code_and_context(self, kind, code, exit_code):
        """Any text is accepted as a code, in second place; the context comes third."""
        error = kind("no luck", "MY_CODE", {"batch": 3})

        assert (error.error_code, error.context) == ("MY_CODE", {"batch": 3})
        assert error.exit_code == exit_code
        assert error.error_code != code

    def test_pickling(self, kind, code, exit_code):
        """What comes back from another process is the same error."""
        error = kind("no luck", error_code="MY_CODE", context={"rows": [1, 2]})

        home = there_and_back(error)

        assert type(home) is kind
        assert home.args == error.args
        assert vars(home) == vars(error)
        assert (home.exit_code, kind.default_code) == (exit_code, code)


class TestTheWholeFamily:
    """The list above is complete."""

    def test_every_error_is_listed(self):
        """A new error class needs a line in `FAMILY`."""
        defined = {
            value
            for value in vars(errors).values()
            if isinstance(value, type) and issubclass(value, ProcessingError)
        }
        assert defined == {kind for kind, _, _ in FAMILY}

    def test_codes_are_their_own_names(self):
        """One spelling everywhere: in Python, in logs, in answers."""
        assert all(code.name == code.value for code in ErrorCode)

    @pytest.mark.parametrize("kind", [SchemaError, ConfigError, ParameterError])
    def test_kinds_of_validation_error(self, kind):
        """Whoever catches `ValidationError` catches these too."""
        assert issubclass(kind, ValidationError)

    def test_context_is_a_copy(self):
        """Changing the caller's dict later does not change the error."""
        context = {"batch": 1}
        error = ProcessingError("no luck", context=context)
        context["batch"] = 2
        assert error.context == {"batch": 1}


class TestReportError:
    """A report's error takes its exit code from how the run ended."""

    @pytest.mark.parametrize("state", RunState)
    def test_exit_code_of_state(self, state):
        """Each state has its own exit code, here and after pickling."""
        error = ReportError("did not end well", state=state)

        home = there_and_back(error)

        assert error.exit_code == home.exit_code == state.exit_code
        assert home.state is state
        assert ReportError.exit_code == 1


class TestNearest:
    """The nearest name, if any is near."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("amuont", "amount"),
            ("AMOUNT", "amount"),
            ("catgory", "Category"),
            ("time stamp", "timestamp"),
            ("zebra", None),
            ("", None),
        ],
    )
    def test_nearest(self, name, expected):
        """Case does not count; the answer is spelled as in the choices."""
        assert nearest(name, ["timestamp", "Category", "amount"]) == expected

    def test_no_choices(self):
        """Nothing is near when there is nothing."""
        assert nearest("amount", []) is None
        assert did_you_mean("amount", []) == ""

    def test_sentence(self):
        """The end of a sentence, with a space before it."""
        assert did_you_mean("amt", ["amount"]) == " Did you mean 'amount'?"

    def test_enums(self):
        """The members of an enum are shown as their values."""
        assert did_you_mean("okay", RunState) == " Did you mean 'ok'?"

    @given(st.text(min_size=1), st.lists(st.text()))
    def test_a_choice_is_nearest_to_itself(self, name, others):
        """A name among the choices finds itself, up to case."""
        found = nearest(name, [*others, name])
        assert found is not None
        assert found.casefold() == name.casefold()
