"""Metrics: what Prometheus reads, and that a broken ledger is one of the figures."""

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.ledgers import fresh_file

from tallybook.errors import ConfigError
from tallybook.metrics import observe_round, observe_run, render_metrics, serving_metrics
from tallybook.runs import claim, finish, open_ledger, request_run
from tallybook.types import RunState

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path):
    """A ledger in which one run waits and one is at work."""
    with closing(open_ledger(fresh_file(tmp_path))) as opened:
        for _ in range(2):
            request_run(opened, "category_totals", {}, now=NOON)
        claim(opened, "anna", now=NOON, lease_seconds=3600)
        yield opened


def figures(text):
    """Each figure by its name and its first label."""
    return {
        (sample.name, *list(sample.labels.values())[:1]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures(ledger):
    """Counts of every state, and how long the oldest has waited."""
    found = figures(render_metrics(ledger, NOON + timedelta(seconds=90)))
    assert found["tallybook_runs", "requested"] == found["tallybook_runs_waiting",] == 1
    assert found["tallybook_runs", "running"] == found["tallybook_runs_running",] == 1
    assert found["tallybook_runs", "lost"] == 0
    assert found["tallybook_oldest_waiting_seconds",] == 90
    assert found["tallybook_ledger_up",] == 1


def test_process(ledger):
    """Runs that ended here, and the last round."""
    run = claim(ledger, "bert", now=NOON, lease_seconds=60)
    done = finish(ledger, run, RunState.OK, now=NOON + timedelta(seconds=4))
    observe_run(replace(done, report="/srv/reports/of_this_test.ipynb"))
    observe_round(NOON)
    after = figures(render_metrics(ledger, NOON))
    assert after["tallybook_run_duration_seconds_sum", "of_this_test"] == 4
    assert after["tallybook_scheduler_last_round_timestamp_seconds",] == NOON.timestamp()


def test_server(ledger):
    """The same over HTTP; a port that is taken is told."""
    with serving_metrics(ledger, 0) as port:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert figures(answer.read().decode())["tallybook_runs_waiting",] == 1
        with (
            pytest.raises(ConfigError, match="Choose another port"),
            serving_metrics(ledger, port),
        ):
            pass


def test_broken_ledger(ledger, tmp_path):
    """It is down, and nothing is made up."""
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE runs")
    found = figures(render_metrics(ledger, NOON))
    assert found["tallybook_ledger_up",] == 0
    assert ("tallybook_runs_waiting",) not in found
