"""Transaction records in, totals you can prove and reports that run themselves out.

Importing this package costs next to nothing: a name below is loaded when it is first used.

Examples:
    >>> from tallybook import DataSource, ProcessingConfig, process_data
    >>> process_data(["a", "b", "a"], ProcessingConfig(), DataSource.LOCAL_FILE)
    {'a': 2, 'b': 1}
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tallybook.config import AppConfig
    from tallybook.core import process_data, process_records
    from tallybook.errors import ProcessingError, ValidationError
    from tallybook.reports import run_report
    from tallybook.schema import RecordSchema
    from tallybook.transform import tally_source, transform_data
    from tallybook.types import DataSource, ProcessingConfig, ProcessingStats, UserInput

__all__ = [
    "AppConfig",
    "DataSource",
    "ProcessingConfig",
    "ProcessingError",
    "ProcessingStats",
    "RecordSchema",
    "UserInput",
    "ValidationError",
    "process_data",
    "process_records",
    "run_report",
    "tally_source",
    "transform_data",
]

_HOMES = {
    "AppConfig": "config",
    "DataSource": "types",
    "ProcessingConfig": "types",
    "ProcessingError": "errors",
    "ProcessingStats": "types",
    "RecordSchema": "schema",
    "UserInput": "types",
    "ValidationError": "errors",
    "process_data": "core",
    "process_records": "core",
    "run_report": "reports",
    "tally_source": "transform",
    "transform_data": "transform",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module, once (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
