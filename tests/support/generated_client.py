"""Use a generated client of the service (in its own environment): address, token, then what it saw.

It is a program: `tests/integration/test_generated_client.py` runs it beside the client.
"""

# mypy: ignore-errors
from __future__ import annotations

import io
import json
import sys
import time

from tallybook_client import AuthenticatedClient
from tallybook_client.api.default import (
    get_one_run,
    get_report,
    get_reports,
    get_table,
    post_run,
    post_tally,
    process_data_endpoint,
)
from tallybook_client.models import (
    LedgerState,
    PostTallyFilesBody,
    Problem,
    ProcessRequest,
    RunRequest,
    RunRequestParameters,
    TableForm,
    TallyRequest,
)
from tallybook_client.types import File

BOUND = 120
CSV = b"timestamp,category,amount\n2026-11-24T09:00:00Z,tea,2.50\n2026-11-24T09:30:00Z,tea,oops\n"
RECORDS = [
    {"timestamp": "2026-11-24T09:00:00Z", "category": "tea", "amount": "2.50"},
    {"timestamp": "2026-11-24T10:00:00Z", "category": "cake", "amount": "0.1"},
]


def run(client):
    """Start a run of the first report, and read it until it has ended."""
    asked = RunRequest(parameters=RunRequestParameters.from_dict({"top": 3}))
    started = post_run.sync("category_totals", client=client, body=asked, idempotency_key="once")
    again = post_run.sync("category_totals", client=client, body=asked, idempotency_key="once")
    assert again.id == started.id
    end = time.monotonic() + BOUND
    while not (read := get_one_run.sync(started.id, client=client)).ended:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert read.state is LedgerState.OK, read.reason
    return read


def main(address, token):
    """Do what a program would do, and print what came back."""
    with AuthenticatedClient(base_url=address, token=token, timeout=BOUND) as client:
        counted = process_data_endpoint.sync(
            client=client, body=ProcessRequest(data=["a", "b", "a"])
        )
        posted = post_tally.sync(client=client, body=TallyRequest.from_dict({"records": RECORDS}))
        file = File(payload=io.BytesIO(CSV), file_name="x.csv", mime_type="text/csv")
        sent = post_tally.sync(client=client, body=PostTallyFilesBody(file=file))
        refused = post_run.sync("no_such_report", client=client, body=RunRequest())
        assert isinstance(refused, Problem)
        ended = run(client)
        table = get_table.sync(ended.id, "totals", client=client, format_=TableForm.CSV)
        told = {
            "reports": [report.name for report in get_reports.sync(client=client)],
            "parameters": [
                one.name for one in get_report.sync("category_totals", client=client).parameters
            ],
            "counted": counted.results.to_dict(),
            "totals": [row.to_dict() for row in posted.totals],
            "rejects": [(one.row, one.column, one.value) for one in sent.rejects],
            "refused": (refused.status, refused.detail),
            "run": (ended.state.value, ended.parameters.to_dict()["top"], ended.has_bundle),
            "table": table.splitlines()[0],
        }
    sys.stdout.write(json.dumps(told))


main(*sys.argv[1:])
