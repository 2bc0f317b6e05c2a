"""The service as its callers see it: asking, following, fetching, proving; limits; stopping."""

from __future__ import annotations

import gzip
import io
import json
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, parse_headers
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import ROOT
from tests.support.service import TOKENS, bearer, client_for, new_app, served, work_once

from tallybook import runs_api, tally_api
from tallybook.access import Scope
from tallybook.apart import Crew
from tallybook.api import ExternalAPIService, get_external_api_service
from tallybook.errors import LedgerError, ProcessingError
from tallybook.metrics import render_metrics
from tallybook.runs import claim, request_run
from tallybook.status_api import get_database_service

RUN = "from tallybook.cli import main; main()"
RECORDS = [
    {"timestamp": "2026-01-01", "category": "tea", "amount": "2.50"},
    {"timestamp": "2026-01-02", "category": "tea", "amount": "oops"},
]


@pytest.fixture
def app(tmp_path):
    """An application of its own."""
    made = new_app(tmp_path)
    yield made
    made.state.desk.ledger.close()


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """An application in whose ledger run 1 and run 2 have ended well."""
    made = new_app(tmp_path_factory.mktemp("service"))
    client = client_for(made)
    for top in (3, 4):
        client.post("/reports/category_totals/runs", json={"parameters": {"top": top}})
        work_once(made)
    yield made
    made.state.desk.ledger.close()


class TestProcess:
    """POST /process."""

    def test_names_the_fields(self, app):
        """What is wrong with a request is said by field, and nothing that was sent comes back."""
        body = {"data": ["a", 5], "config": {"batch_size": "many"}}
        answered = client_for(app).post("/process", json=body)
        assert answered.status_code == 422
        fields = [error["field"] for error in answered.json()["errors"]]
        assert fields == ["body.data.1", "body.config.batch_size"]
        assert "many" not in answered.text

    def test_unforeseen(self, app, caplog):
        """What nobody foresaw is one sentence and a number, under which the log has the rest."""

        class Broken(ExternalAPIService):
            async def look_up(self, labels, config):
                raise RuntimeError("hunter2")

        app.dependency_overrides[get_external_api_service] = Broken
        answered = client_for(app).post("/process", json={"data": ["a"], "lookup": True})
        assert answered.status_code == 500
        problem = answered.json()
        assert problem["detail"] == "Internal processing error"
        assert "hunter2" not in answered.text
        assert problem["request_id"] == answered.headers["X-Request-ID"]
        assert any(
            getattr(record, "extra_fields", {}).get("request_id") == problem["request_id"]
            for record in caplog.records
        )

    def test_replaced_service(self, app):
        """A test puts another service for categories in place."""

        class Upper(ExternalAPIService):
            async def look_up(self, labels, config):
                return [label.upper() for label in labels]

        app.dependency_overrides[get_external_api_service] = Upper
        answered = client_for(app).post("/process", json={"data": ["a", "A"], "lookup": True})
        assert answered.json()["results"] == {"A": 2}

    def test_failing_service(self, app):
        """A service that fails is a 502, without its words."""

        class Down(ExternalAPIService):
            async def look_up(self, labels, config):
                raise ProcessingError("http://inside: refused", "EXTERNAL_SERVICE_FAILED")

        app.dependency_overrides[get_external_api_service] = Down
        answered = client_for(app).post("/process", json={"data": ["a"], "lookup": True})
        assert answered.status_code == 502
        assert "inside" not in answered.text

    @given(st.lists(st.text(max_size=5), max_size=50))
    def test_counts(self, worked, data):
        """Each label is counted as often as it occurs."""
        answered = client_for(worked).post("/process", json={"data": data})
        assert answered.json()["results"] == {label: data.count(label) for label in data}

    @given(
        st.binary(max_size=20)
        | st.fixed_dictionaries(
            {"data": st.lists(st.text(max_size=3) | st.integers(), max_size=5) | st.none()},
            optional={
                "config": st.fixed_dictionaries(
                    {},
                    optional={
                        "batch_size": st.integers(-1, 1001) | st.floats() | st.just("7"),
                        "timeout_seconds": st.floats() | st.integers() | st.just("7"),
                        "created_at": st.text(max_size=3) | st.just("2026-01-01T00:00:00Z"),
                    },
                ),
                "lookup": st.booleans() | st.just("no"),
                "more": st.none(),
            },
        ).map(lambda body: json.dumps(body).encode())
    )
    def test_both_ways(self, worked, body):
        """What goes the short way is answered as FastAPI answers what does not."""
        client, answers = client_for(worked), []
        for kind in ("application/json", "application/json; charset=utf-8"):
            answered = client.post("/process", content=body, headers={"Content-Type": kind})
            said = answered.json()
            own = {name: said.pop(name, None) for name in ("processing_time", "request_id")}
            assert any(own.values())
            answers.append((answered.status_code, said))
        assert answers[0] == answers[1]

    def test_in_parts(self, app):
        """A body may come in parts, also to who waits for leave to send it."""
        head = (
            "POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: {bearer(Scope.RUN)['Authorization']}\r\n"
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with served(app) as address, socket.create_connection(place(address), 30) as line:
            answer = line.makefile("rb")
            line.sendall(head.encode())
            assert [answer.readline(), answer.readline()] == [b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
            line.sendall(b'9\r\n{"data": \r\n')
            line.sendall(b'b\r\n["a", "a"]}\r\n0\r\n\r\n')
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = parse_headers(answer)
            assert headers.get_all("x-content-type-options") == ["nosniff"]
            said = json.loads(answer.read(int(headers["content-length"])))
        assert said["results"] == {"a": 2}

    @pytest.mark.parametrize("size", [10, 1001])
    def test_in_too_many_parts(self, tmp_path, size):
        """A body that turns out to be too large is refused, and the connection ends."""
        app = new_app(tmp_path, service={"max_body_bytes": 1000})
        with served(app) as address, closing(HTTPConnection(*place(address), timeout=30)) as line:
            headers = {**bearer(Scope.RUN), "Content-Type": "application/json"}
            body = (b" " * size for _ in range(101))
            line.request("POST", "/process", body, headers, encode_chunked=True)
            assert line.getresponse().status == 413
        app.state.desk.ledger.close()

    def test_log(self, app, caplog):
        """The short way is logged as what it is: the route, who asked, and the counts."""
        caplog.set_level("INFO", "tallybook.access")
        client_for(app, Scope.RUN).post("/process", json={"data": ["a", "b", "a"]})
        [fields] = [
            record.extra_fields for record in caplog.records if record.name.endswith("access")
        ]
        assert (fields["route"], fields["status"]) == ("/process", 200)
        assert fields["caller"]
        assert (fields["items"], fields["categories"]) == (3, 2)

    @pytest.mark.parametrize(("scope", "status"), [(Scope.READ, 403), (Scope.RUN, 200)])
    def test_scope(self, app, scope, status):
        """Either way, who may only look is refused."""
        for kind in ("application/json", "application/json; charset=utf-8"):
            headers = {"Content-Type": kind}
            asked = client_for(app, scope).post("/process", content='{"data": []}', headers=headers)
            assert asked.status_code == status


class TestTally:
    """POST /tally."""

    def test_records(self, app):
        """Every record is in a total or among the rejects, with its place and reason."""
        found = client_for(app).post("/tally", json={"records": RECORDS}).json()
        assert found["totals"][0]["total_amount"] == "2.5"
        assert found["rejects"] == [
            {"row": 2, "column": "amount", "value": "oops", "reason": "not a number"}
        ]
        assert found["conservation"] == {
            "rows_read": 2,
            "rows_accepted": 1,
            "rows_rejected": 1,
            "rows_outside": 0,
        }

    def test_exact(self, app):
        """A number keeps all its digits, in and out."""
        body = '{"records": [{"timestamp": "2026-01-01", "category": "x", "amount": %s}]}'
        digits = "9007199254740993.000000001"
        answered = client_for(app).post(
            "/tally", content=body % digits, headers={"Content-Type": "application/json"}
        )
        assert answered.json()["totals"][0]["total_amount"] == digits

    @pytest.mark.parametrize("name", ["../../etc/cron.d/x.csv", "C:\\x.csv", "x.csv"])
    def test_file(self, app, name):
        """Of a file's name only the suffix counts, and no path of ours comes back."""
        content = b"timestamp,category,amount\n2026-01-01,tea,1\n2026-01-01,tea,one\n"
        answered = client_for(app).post("/tally", files={"file": (name, content)})
        assert answered.json()["totals"][0]["total_amount"] == "1"
        assert tempfile.gettempdir() not in answered.text

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("x.parquet", b"PAR1 not really PAR1"),
            ("x.csv.gz", b"\x1f\x8bbroken"),
            ("x.exe", b"MZ"),
            ("x", b"a"),
            ("x.csv", b""),
            ("x.csv", b"\xff\xfe\x00\x00"),
            ("x.zip", b"PK"),
            ("x.xlsx", b"PK"),
            ("x.csv", b"a,b\n1,2\n"),
        ],
    )
    def test_unreadable(self, app, name, content):
        """What cannot be read is a 422 that names the file as the caller does."""
        answered = client_for(app).post("/tally", files={"file": (name, content)})
        assert answered.status_code == 422
        assert "tallybook-" not in answered.text
        assert tempfile.gettempdir() not in answered.text

    def test_bomb(self, tmp_path):
        """A file that holds much more than it weighs is refused before it is read."""
        app = new_app(tmp_path, service={"max_upload_bytes": 100_000})
        bomb = gzip.compress(b"0" * 10_000_000)
        answered = client_for(app).post("/tally", files={"file": ("x.csv.gz", bomb)})
        assert answered.status_code == 422
        assert "unpacked" in answered.json()["detail"]
        app.state.desk.ledger.close()

    def test_never_ends(self, tmp_path, monkeypatch):
        """A tally is killed at its deadline, in the middle of whatever it does."""
        forever = Crew("tests.support.orders", "never_end")
        monkeypatch.setattr(tally_api, "_crew", forever)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        app = new_app(tmp_path, service={"tally_timeout_seconds": 0.05})
        answered = client_for(app).post("/tally", files={"file": ("x.csv", b"a,b\n")})
        assert answered.status_code == 413
        assert "longer than 0.05 seconds" in answered.json()["detail"]
        assert forever._idle == []
        app.state.desk.ledger.close()

    def test_reader_dies(self, app, monkeypatch):
        """A file that kills its reader is a refusal; the next file finds another reader."""
        monkeypatch.setattr(tally_api, "_crew", Crew("sys", "exit"))
        answered = client_for(app).post("/tally", files={"file": ("x.csv", b"a,b\n")})
        assert answered.status_code == 422
        assert "x.csv: it may be damaged" in answered.json()["detail"]
        monkeypatch.undo()
        assert client_for(app).post("/tally", json={"records": RECORDS}).status_code == 200

    @given(st.binary(max_size=400), st.sampled_from(["x.csv", "x.json", "x.ndjson", "x.csv.gz"]))
    def test_any_bytes(self, worked, content, name):
        """Whatever is sent as a file, the answer is totals or a problem that is the caller's."""
        answered = client_for(worked).post("/tally", files={"file": (name, content)})
        assert answered.status_code in (200, 422)

    @given(st.binary(max_size=400))
    def test_any_form(self, worked, content):
        """Whatever is sent as a form, parsing it breaks nothing."""
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        body = b"--b\r\n" + content + b"\r\n--b--\r\n"
        answered = client_for(worked).post("/tally", content=body, headers=headers)
        assert answered.status_code in (400, 422)


class TestRuns:
    """From asking to everything that came of it."""

    def test_asked_once(self, app):
        """The same key gives the same run, and for another request it is refused."""
        client, where = client_for(app), "/reports/category_totals/runs"
        key = {"Idempotency-Key": "k1"}
        first = client.post(where, json={"parameters": {"top": 5}}, headers=key)
        again = client.post(where, json={"parameters": {"top": 5}}, headers=key)
        other = client.post(where, json={"parameters": {"top": 6}}, headers=key)
        theirs = client_for(app, Scope.RUN).post(where, json={}, headers=key)
        assert first.status_code == again.status_code == theirs.status_code == 202
        assert first.headers["Location"] == again.headers["Location"] == "/runs/1"
        assert other.status_code == 422
        assert theirs.headers["Location"] == "/runs/2"

    @pytest.mark.parametrize(
        "source", ["/etc/passwd", "http://169.254.169.254/", "../x.csv", "s3://b/k", "~/x.csv"]
    )
    def test_no_place_from_a_request(self, app, source):
        """No path and no address gets past the door, in whatever parameter it stands."""
        client = client_for(app)
        for report, name in (
            ("category_totals", "source"),
            ("category_totals", "unit"),
            ("run_health", "runs_dir"),
        ):
            answered = client.post(f"/reports/{report}/runs", json={"parameters": {name: source}})
            assert answered.status_code == 422
            assert answered.json()["errors"][0]["field"] == name
        assert client.get("/runs").json()["runs"] == []

    def test_named_source(self, tmp_path):
        """A name from the settings stands for its address, which nobody is shown."""
        app = new_app(tmp_path, sources={"rides": "postgresql://db/rides?table=all"})
        client = client_for(app)
        body = {"parameters": {"source": "rides"}}
        asked = client.post("/reports/category_totals/runs", json=body).json()
        assert asked["parameters"]["source"] == "rides"
        assert "postgresql" not in client.get("/runs").text
        app.state.desk.ledger.close()

    def test_pages(self, app):
        """A cursor leads through all runs, each once, while new ones come in."""
        client = client_for(app)
        for _ in range(5):
            client.post("/reports/category_totals/runs", json={})
        first = client.get("/runs", params={"limit": 2}).json()
        client.post("/reports/category_totals/runs", json={})
        second = client.get("/runs", params={"limit": 3, "cursor": first["next"]}).json()
        assert [run["id"] for run in first["runs"] + second["runs"]] == [5, 4, 3, 2, 1]
        assert second["next"] is None

    def test_cancel_and_retry(self, app):
        """A run that waits can be cancelled, once; what has ended can be asked for again."""
        client = client_for(app)
        client.post("/reports/category_totals/runs", json={})
        assert client.post("/runs/1/retry").status_code == 409
        assert client.post("/runs/1/cancel").json()["state"] == "cancelled"
        assert client.post("/runs/1/cancel").status_code == 409
        again = client.post("/runs/1/retry")
        assert (again.status_code, again.json()["retry_of"]) == (202, 1)
        assert client.get("/runs/1/page").status_code == 404

    def test_retry_twice(self, app):
        """A retry that is sent again is the run from before; its key is good for nothing else."""
        client = client_for(app)
        for _ in range(2):
            client.post("/reports/category_totals/runs", json={})
        for number in (1, 2):
            client.post(f"/runs/{number}/cancel")
        key = {"Idempotency-Key": "k2"}
        sent = [client.post("/runs/1/retry", headers=key) for _ in range(2)]
        assert [answer.headers["Location"] for answer in sent] == ["/runs/3"] * 2
        assert client.post("/runs/1/retry").headers["Location"] == "/runs/3"
        assert client.post("/runs/2/retry", headers=key).status_code == 409

    def test_what_is_left(self, worked):
        """Page, manifest, notebook, log, charts and tables can be fetched, and kept."""
        client = client_for(worked, Scope.READ)
        manifest = client.get("/runs/1/manifest").json()
        assert client.get("/runs/1").json()["state"] == "ok"
        [chart, *_] = manifest["charts"]
        for kind, media in (("svg", "image/svg+xml"), ("png", "image/png")):
            name = chart["files"][kind].rpartition("/")[2]
            got = client.get(f"/runs/1/charts/{name}")
            assert got.headers["content-type"] == media
            tag = {"If-None-Match": got.headers["ETag"]}
            assert client.get(f"/runs/1/charts/{name}", headers=tag).status_code == 304
        table = manifest["tables"][0]["name"]
        shown = [client.get(f"/runs/1/tables/{table}?format={form}") for form in ("parquet", "csv")]
        read = pl.read_parquet(io.BytesIO(shown[0].content)), pl.read_csv(shown[1].content)
        assert read[0].height == read[1].height
        page = client.get("/runs/1/page")
        assert page.headers["Content-Security-Policy"].startswith("sandbox allow-scripts ")
        assert "allow-same-origin" not in page.headers["Content-Security-Policy"]
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in page.headers["Cache-Control"]
        for wrong in ("charts/..%2fmanifest.json", "charts/x.svg", "tables/..%2fx", "tables/x"):
            assert client.get(f"/runs/1/{wrong}").status_code == 404

    def test_diff_and_verify(self, worked):
        """Two runs are compared, and one is proved."""
        client = client_for(worked)
        found = client.get("/diff", params={"a": 1, "b": 2}).json()
        assert found["parameters"] == [
            {"name": "top", "before": "3", "after": "4", "difference": "+1 (+33.3 %)"}
        ]
        assert client.post("/runs/1/verify").json()["verdict"] == "reproduced"

    def test_folder_elsewhere(self, worked, tmp_path):
        """A ledger that names a folder outside the bundles opens nothing."""
        desk = worked.state.desk
        worked.state.desk = replace(desk, runs_dir=tmp_path)
        try:
            assert client_for(worked).get("/runs/1/page").status_code == 404
        finally:
            worked.state.desk = desk


class TestEvents:
    """Following a run."""

    def test_until_the_end(self, app):
        """Each change is told once, and the stream ends with the run."""
        client = client_for(app)
        client.post("/reports/category_totals/runs", json={})
        with served(app) as address:
            asked = Request(f"{address}/runs/1/events", headers=bearer(Scope.READ))  # noqa: S310
            with urlopen(asked, timeout=60) as stream:  # noqa: S310
                lines = iter(lambda: stream.readline().decode(), "")
                seen = [next(lines) for _ in range(5)]
                client.post("/runs/1/cancel")
                seen += list(lines)
        kinds = [line.split(": ")[1].strip() for line in seen if line.startswith("event")]
        states = [json.loads(line[6:])["state"] for line in seen if line.startswith("data")]
        assert kinds == ["state", "end"]
        assert states == ["requested", "cancelled"]

    def test_told(self, app, monkeypatch):
        """Who follows a run hears of its end when the workers ring, not only at the next look."""
        monkeypatch.setattr(runs_api, "_LOOK_SECONDS", 3600)
        client = client_for(app)
        client.post("/reports/category_totals/runs", json={})
        with served(app) as address:
            asked = Request(f"{address}/runs/1/events", headers=bearer(Scope.READ))  # noqa: S310
            with urlopen(asked, timeout=60) as stream:  # noqa: S310
                lines = iter(lambda: stream.readline().decode(), "")
                assert "requested" in next(line for line in lines if line.startswith("data"))
                client.post("/runs/1/cancel")
                app.state.desk.news.spread()
                assert "event: end\n" in list(lines)

    def test_heard_already(self, app):
        """Who comes back with the number of the last event does not hear it again."""
        client = client_for(app)
        client.post("/reports/category_totals/runs", json={})
        client.post("/runs/1/cancel")
        whole = client.get("/runs/1/events").text
        number = next(line[4:] for line in whole.splitlines() if line.startswith("id: "))
        rest = client.get("/runs/1/events", headers={"Last-Event-ID": number}).text
        assert "event: end" in whole
        assert "event:" not in rest


class TestLimits:
    """No request and no caller takes everything."""

    def test_body(self, tmp_path):
        """A body that is too large is refused, whether it says so or comes in chunks."""
        app = new_app(tmp_path, service={"max_body_bytes": 1000})
        client = client_for(app)
        headers = {"Content-Type": "application/json"}
        assert client.post("/process", content=b" " * 1001, headers=headers).status_code == 413
        chunks = (b" " * 100 for _ in range(11))
        assert client.post("/process", content=chunks, headers=headers).status_code == 413
        app.state.desk.ledger.close()

    def test_items(self, tmp_path):
        """So are too many items or records."""
        app = new_app(tmp_path, service={"max_items": 2})
        client = client_for(app)
        assert client.post("/process", json={"data": ["a"] * 3}).status_code == 413
        assert client.post("/tally", json={"records": RECORDS * 2}).status_code == 413
        app.state.desk.ledger.close()

    def test_rate(self, tmp_path):
        """Who asks too often is told when to come back; others are not slowed."""
        app = new_app(tmp_path, service={"requests_per_second": 0.01})
        client = client_for(app)
        assert client.get("/runs").status_code == 200
        refused = client.get("/runs")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert client_for(app, Scope.READ).get("/runs").status_code == 200
        app.state.desk.ledger.close()

    @pytest.mark.parametrize(
        "path", ["/health", "/runs", "/nowhere", "/sign-in", "/openapi.json", "/metrics"]
    )
    def test_headers(self, app, path):
        """Our server writes the headers that any other is told to send, each once."""
        asked = {**bearer(Scope.ADMIN), "x-request-id": "number-1"}
        told = client_for(app).get(path, headers=asked, follow_redirects=False).headers
        with served(app) as address, closing(HTTPConnection(*place(address), timeout=30)) as line:
            line.request("GET", path, headers=asked)
            answered = line.getresponse()
            answered.read()
        ours = sorted(name.lower() for name, _ in answered.getheaders())
        assert ours == sorted([*told.keys(), "date"])
        differing = {"date", "content-length", "etag", "x-request-id"}
        shared = {name: answered.getheader(name) for name in ours if name not in differing}
        assert shared == {name: told[name] for name in shared}
        assert answered.getheader("x-request-id") == "number-1"

    @pytest.mark.parametrize(("size", "kept"), [(30_000, True), (70_000, False)])
    def test_connection_of_the_refused(self, tmp_path, size, kept):
        """Who is to come back keeps the connection, unless a large body would have to be read."""
        app = new_app(tmp_path, service={"requests_per_second": 0.01})
        with served(app) as address, closing(HTTPConnection(*place(address), timeout=30)) as line:
            line.request("GET", "/runs", headers=bearer(Scope.RUN))
            assert line.getresponse().read()
            line.request("POST", "/process", b" " * size, bearer(Scope.RUN))
            refused = line.getresponse()
            assert refused.status == 429
            assert (refused.getheader("Connection") is None) is kept
            if kept:
                refused.read()
                line.auto_open = 0  # the same connection or none
                line.request("GET", "/health")
                assert line.getresponse().status == 200
        app.state.desk.ledger.close()

    def test_overload(self, tmp_path):
        """When too many come at once, some are served, others told to come back; none fails."""
        app = new_app(tmp_path, service={"max_requests": 2})
        body = json.dumps({"data": ["a"] * 50_000}).encode()
        headers = {**bearer(Scope.RUN), "Content-Type": "application/json"}

        with served(app) as address:

            def ask(_number: int) -> int:
                asked = Request(f"{address}/process", body, headers)  # noqa: S310
                try:
                    with urlopen(asked, timeout=60) as answered:  # noqa: S310
                        return answered.status
                except HTTPError as error:
                    error.close()
                    return error.code if error.headers["Retry-After"] else 0

            with ThreadPoolExecutor(16) as pool:
                seen = set(pool.map(ask, range(64)))
        assert 200 in seen
        assert seen <= {200, 503}
        assert app.state.load.requests == 0

    def test_slow_body(self, tmp_path):
        """A body that does not arrive in time is given up."""
        app = new_app(tmp_path, service={"body_timeout_seconds": 0.2})
        head = (
            "POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: {bearer(Scope.RUN)['Authorization']}\r\nContent-Length: 50\r\n\r\n{{"
        )
        with served(app) as address, socket.create_connection(place(address), 30) as line:
            line.sendall(head.encode())
            assert b" 408 " in line.makefile("rb").readline()

    def test_slow_head(self, app, monkeypatch):
        """So is a request whose head never ends."""
        monkeypatch.setattr("tallybook.serving._HEAD_SECONDS", 0.2)
        with served(app) as address, socket.create_connection(place(address), 30) as line:
            line.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
            with suppress(ConnectionResetError):
                assert line.recv(100) == b""

    def test_ledger_away(self, app):
        """A service whose ledger is away is alive and not ready, and says no more."""

        class Away:
            def describe(self):
                raise LedgerError("/srv/secret/ledger.db: disk full")

        app.dependency_overrides[get_database_service] = Away
        client = client_for(app)
        assert client.get("/health").json() == {"status": "ok"}
        refused = client.get("/ready")
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert "/srv" not in refused.text

    def test_nobody_works(self, app):
        """A run that is due and that nobody takes up is a warning; a worker at work is none."""
        client, ledger = client_for(app), app.state.desk.ledger
        now = datetime.now(UTC)
        request_run(ledger, "category_totals", {}, now=now - timedelta(seconds=20))
        assert client.get("/ready").json()["warning"] is None
        request_run(ledger, "category_totals", {}, now=now - timedelta(seconds=90))
        assert "tallybook schedule run" in client.get("/ready").json()["warning"]
        claim(ledger, "ada", now=now, lease_seconds=600)
        request_run(ledger, "category_totals", {}, now=now - timedelta(seconds=80))
        assert client.get("/ready").json() == {
            "status": "ok",
            "waiting": 2,
            "running": 1,
            "warning": None,
        }

    def test_worker_is_gone(self, app):
        """A run that somebody took up and left does not count as work."""
        client, ledger = client_for(app), app.state.desk.ledger
        then = datetime.now(UTC) - timedelta(seconds=90)
        for _ in range(2):
            request_run(ledger, "category_totals", {}, now=then)
        claim(ledger, "ada", now=then, lease_seconds=60)
        assert client.get("/ready").json()["warning"]

    def test_metrics(self, app):
        """The ledger's figures are those of the scheduler, each once; the service adds its own."""
        client, ledger = client_for(app), app.state.desk.ledger
        now = datetime.now(UTC)
        request_run(ledger, "category_totals", {}, now=now - timedelta(seconds=90))
        client.get("/health")
        said = client.get("/metrics").text.splitlines()
        kinds = [line for line in said if line.startswith("# TYPE")]
        assert len(kinds) == len(set(kinds))
        ours = 'tallybook_http_requests_total{method="GET",route="/health",status="200"} 1.0'
        assert ours in said
        shared = {line for line in kinds if "http" not in line}
        assert shared
        assert shared < set(render_metrics(ledger, now).splitlines())

    @pytest.mark.parametrize(
        ("address", "methods"),
        [
            ("/pages/subscribers", "GET, POST"),
            ("/subscribers", "GET, POST"),
            ("/subscribers/1", "DELETE"),
            ("/sign-in", "GET, POST"),
            ("/openapi.json", "GET, HEAD"),
        ],
    )
    def test_methods(self, app, address, methods):
        """Who asks with a method that an address does not take is told all that it does."""
        refused = client_for(app).options(address)
        assert (refused.status_code, refused.headers["Allow"]) == (405, methods)

    def test_cors(self, tmp_path, app):
        """Other origins are let in only if they are listed."""
        headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
        refused = client_for(app).options("/runs", headers=headers)
        assert "access-control-allow-origin" not in refused.headers
        listed = new_app(tmp_path / "b", service={"cors_origins": "https://a.example"})
        answered = client_for(listed).options("/runs", headers=headers)
        assert answered.headers["access-control-allow-origin"] == "https://a.example"
        listed.state.desk.ledger.close()


def place(address: str) -> tuple[str, int]:
    """The host and the port of an address."""
    host, _, port = address.removeprefix("http://").partition(":")
    return host, int(port)


class TestServe:
    """`tallybook serve`."""

    def command(self, tmp_path, *options, **environment):
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-c", RUN, "serve", "--no-workers", "--port", "0", *options],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_starts_and_stops(self, tmp_path):
        """It shows a link to sign in, answers, and ends well when it is told to stop."""
        process = self.command(tmp_path)
        said = [process.stdout.readline() for _ in range(4)]
        address, _, token = said[0].split()[-1].partition("/sign-in#token=")
        asked = Request(f"{address}/reports", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        with urlopen(asked, timeout=60) as answered:  # noqa: S310
            assert "category_totals" in answered.read().decode()
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out.endswith("stopped\n")
        assert token not in log

    def test_beyond_this_machine(self, tmp_path):
        """Without a token it does not listen to other machines, and says what to do."""
        process = self.command(tmp_path, "--host", "0.0.0.0")  # noqa: S104
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "TALLYBOOK_SERVICE__TOKEN" in said


def test_secrets_are_nowhere(worked, caplog):
    """No token stands in the description, in figures, in errors or in the log."""
    client = client_for(worked)
    said = "".join(
        client.get(path).text for path in ("/openapi.json", "/metrics", "/runs", "/nowhere")
    )
    said += "".join(str(vars(record)) for record in caplog.records)
    assert not any(token in said for token in TOKENS.values())
