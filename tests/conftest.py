"""What every test may use: the checkout, the sample, a browser; and how long Hypothesis tries.

Hypothesis profiles, chosen by HYPOTHESIS_PROFILE:
    default   random examples, failures kept in .hypothesis/
    ci        the same examples on every run (chosen by CI=true)
    soak      twenty times as many examples as each test asks for (`make soak`)
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings
from playwright.sync_api import Browser, sync_playwright
from tests.support.ledgers import BACKENDS, fresh_file, fresh_schema, postgres_server

from tallybook import reports
from tallybook.pool import warm_pool
from tallybook.runs import Ledger, open_ledger

collect_ignore = ["support/generated_client.py"]  # what it imports is there in its own test only
ROOT = Path(__file__).parents[1]
SOAK_FACTOR = 20
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("soak", deadline=None, suppress_health_check=[HealthCheck.too_slow])
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "default")
settings.load_profile(PROFILE)

# A shell starts what runs in the background with Ctrl-C ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

for name in [name for name in os.environ if name.upper().startswith("TALLYBOOK_")]:
    del os.environ[name]  # a developer's own settings decide nothing here


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under the soak profile, multiply the examples of every property, also where it sets them.

    Under the others, leave out what is marked `soak`.
    """
    if PROFILE != "soak":
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
        return
    functions = {getattr(item.obj, "__func__", item.obj) for item in items if hasattr(item, "obj")}
    for function in filter(is_hypothesis_test, functions):
        asked = getattr(function, "_hypothesis_internal_use_settings", settings.default)
        function._hypothesis_internal_use_settings = settings(
            asked, max_examples=asked.max_examples * SOAK_FACTOR
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Under the soak profile, say how often each test was tried, and how often it failed.

    And add up what tests have counted with `record_property`.
    """
    if PROFILE != "soak":
        return
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for outcome, counts in (("passed", tried), ("failed", failed)):
        for report in terminalreporter.stats.get(outcome, []):
            counts[report.nodeid.partition("[")[0]] += 1
            counted.update({k: v for k, v in report.user_properties if isinstance(v, int)})
    terminalreporter.section("figures")
    for name in sorted({*tried, *failed}):
        total = tried[name] + failed[name]
        terminalreporter.write_line(f"{total:5} tried, {failed[name]} failed: {name}")
    for name in sorted(counted):
        terminalreporter.write_line(f"{counted[name]:5} {name}")


@pytest.fixture(scope="module")
def warm_kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a module's reports run in warm kernels, where nothing is about how they start."""
    own = reports._runner_for
    folder = tmp_path_factory.mktemp("warm")
    with warm_pool(1, runs_dir=folder) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "_runner_for", lambda request, given: own(request, given or pool))
        yield


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    """Give the package's logger back as it was, whatever a test configured."""
    logger = logging.getLogger("tallybook")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers[:] = before[1:]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sample() -> Path:
    """The bundled sample: every departure from New York in 2013."""
    return ROOT / "data" / "flights.csv.gz"


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium on this machine; without one the test is left out, which CI counts a failure."""
    wanted = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else BROWSERS
    found = next(filter(None, map(shutil.which, wanted)), None)
    if found:
        return Path(found)
    message = f"needs a browser: no {', '.join(wanted)} on PATH (or name one in CHROMIUM)"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """A headless Chromium, one per module.

    Not one per session: while it is open the thread has a running event loop, and an asynchronous
    test that came later in the same worker could not start its own.
    """
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A PostgreSQL server, on which every test has a schema of its own."""
    with postgres_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=BACKENDS)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger can be made."""
    if request.param == "sqlite":
        return fresh_file(tmp_path)
    return fresh_schema(request.getfixturevalue("server"))


@pytest.fixture
def ledger(address: str) -> Iterator[Ledger]:
    """A ledger without runs."""
    with closing(open_ledger(address)) as opened:
        yield opened


@pytest.fixture
def file_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger without runs, in a file."""
    with closing(open_ledger(fresh_file(tmp_path))) as opened:
        yield opened
