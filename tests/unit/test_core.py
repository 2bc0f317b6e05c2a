"""Counting in batches, through a look-up that fails, and in streams: nothing is lost."""

import asyncio
import json
import logging
import threading
from collections import Counter
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from unittest.mock import MagicMock, patch

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import RetryCallState

from tallybook import core
from tallybook.core import (
    batch_generator,
    external_service,
    look_up_categories,
    process_batch_async,
    process_data,
    process_records,
    process_records_async,
    process_stream,
    process_with_logging,
)
from tallybook.errors import ConfigError, ErrorCode, FetchError, ProcessingError, ValidationError
from tallybook.types import DataSource, ProcessingConfig

API = DataSource.API_ENDPOINT
FILE = DataSource.LOCAL_FILE
SERVICE = "tallybook.core.external_service"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Retries follow at once."""
    monkeypatch.setattr(core, "_FIRST_PAUSE_SECONDS", 0)


async def stream_of(*items):
    """A stream with an end."""
    for item in items:
        yield item


class Endless:
    """A stream without an end that knows how much was taken and whether it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = False

    async def items(self):
        """Count upwards for ever."""
        try:
            while True:
                self.taken += 1
                yield f"item {self.taken}"
        finally:
            self.closed = True


class TestProcessData:
    """Counts, without a look-up."""

    def test_counts(self):
        """The example of the specification."""
        counts = process_data(["a", "b", "a"], ProcessingConfig(), FILE)
        assert counts == {"a": 2, "b": 1}
        assert list(counts) == ["a", "b"]

    @pytest.mark.parametrize("source", DataSource)
    def test_nothing(self, source):
        """Nothing in, nothing out, and nobody is asked."""
        with patch(SERVICE) as service:
            assert process_data([], ProcessingConfig(), source) == {}
        service.assert_not_called()

    @given(st.lists(st.text(max_size=3)), st.integers(1, 1000), st.sampled_from(DataSource))
    def test_no_item_is_lost(self, items, batch_size, source):
        """For any items, batch size and source the counts are those of a Counter."""
        with patch(SERVICE, side_effect=list):
            counts = process_data(items, ProcessingConfig(batch_size=batch_size), source)
        assert counts == Counter(items)
        assert list(counts) == list(dict.fromkeys(items))

    @given(st.lists(st.text(max_size=3)), st.integers(1, 5), st.sampled_from([FILE, API]))
    def test_callback(self, items, batch_size, source):
        """The callback hears every item as it was given, in order."""
        heard = []
        with patch(SERVICE, return_value={}):
            process_data(items, ProcessingConfig(batch_size=batch_size), source, heard.append)
        assert heard == items

    def test_reads_once(self):
        """A generator will do."""
        assert process_data((c for c in "aab"), ProcessingConfig(), FILE) == {"a": 2, "b": 1}

    @pytest.mark.parametrize("item", [None, 7, b"a", ["a"]])
    def test_not_text(self, item):
        """What is not text is named by its place, counted over all batches."""
        with pytest.raises(ValidationError, match="item 4 should be text, found ") as error:
            process_data(["a", "", "b", item], ProcessingConfig(batch_size=3), FILE)
        assert error.value.context == {"item": 4}

    def test_own_kinds_of_text(self):
        """A subclass of text is text."""
        assert process_data([FILE, "local_file"], ProcessingConfig(), FILE) == {"local_file": 2}

    @pytest.mark.parametrize("data", ["abc", b"abc"])
    def test_a_single_text(self, data):
        """Counting the letters of a word would be a misunderstanding."""
        with pytest.raises(ValidationError, match="should be a list of texts"):
            process_data(data, ProcessingConfig(), FILE)

    def test_source_as_text(self):
        """A source's value is as good as its name; an unknown one is refused."""
        with patch(SERVICE, return_value={"a": "A"}):
            assert process_data(["a"], ProcessingConfig(), "api_endpoint") == {"A": 1}
        with pytest.raises(ValidationError, match=r"no source 'local'\. Did you mean 'local_file'"):
            process_data(["a"], ProcessingConfig(), "local")


class TestLookUp:
    """With a look-up: each batch passes through it, and failures are accounted for."""

    def test_only_for_the_api(self):
        """Other sources do not ask."""
        with patch(SERVICE) as service:
            for source in set(DataSource) - {API}:
                process_data(["a"], ProcessingConfig(), source)
        service.assert_not_called()

    def test_batches(self):
        """Each batch is asked for once, in order, as a list."""
        with patch(SERVICE, side_effect=list) as service:
            process_data(list("abcde"), ProcessingConfig(batch_size=2), API)
        asked = [call.args for call in service.call_args_list]
        assert asked == [(["a", "b"],), (["c", "d"],), (["e"],)]

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (["A", "B"], {"A": 1, "B": 1}),
            (("A", "A"), {"A": 2}),
            ({"a": "A"}, {"A": 1, "b": 1}),
            ({}, {"a": 1, "b": 1}),
        ],
    )
    def test_answers(self, answer, expected):
        """A list of the same length, or a mapping that leaves alone what it does not know."""
        with patch(SERVICE, return_value=answer):
            assert process_data(["a", "b"], ProcessingConfig(), API) == expected

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ([], "the answer has 0 categories for 2 labels"),
            (["A"], "the answer has 1 categories for 2 labels"),
            (["A", "B", "C"], "the answer has 3 categories for 2 labels"),
            (["A", None], "the category of 'b' should be text, found None"),
            ({"a": 7}, "the category of 'a' should be text, found 7"),
            (None, "should be a list of 2 categories, found a NoneType"),
            ("AB", "should be a list of 2 categories, found a str"),
            (MagicMock(), "should be a list of 2 categories, found a MagicMock"),
        ],
    )
    def test_wrong_answers(self, answer, expected):
        """An answer that would lose or invent items is an error, at once."""
        with (
            patch(SERVICE, return_value=answer) as service,
            pytest.raises(ProcessingError, match=expected) as error,
        ):
            process_data(["a", "b"], ProcessingConfig(), API)
        service.assert_called_once()
        assert error.value.error_code is ErrorCode.EXTERNAL_SERVICE_FAILED
        assert isinstance(error.value.__cause__, FetchError)

    @pytest.mark.parametrize("retries", [0, 1, 3, 10])
    @pytest.mark.parametrize("failure", [ConnectionError, ConnectionResetError, TimeoutError])
    def test_retries_run_out(self, failure, retries):
        """`max_retries` more tries, then an error that says all there is to say."""
        config = ProcessingConfig(batch_size=2, max_retries=retries)
        failures = [failure("down")] * (retries + 1)
        with (
            patch(SERVICE, side_effect=[["A", "B"], *failures]) as service,
            pytest.raises(ProcessingError) as error,
        ):
            process_data(["a", "b", "c"], config, API)

        assert service.call_count == retries + 2
        assert type(error.value) is ProcessingError
        assert error.value.error_code is ErrorCode.EXTERNAL_SERVICE_FAILED
        assert isinstance(error.value.__cause__, failure)
        assert error.value.context == {
            "batch": 2,
            "items": 1,
            "attempts": retries + 1,
            "counted_items": 2,
            "counted": {"A": 1, "B": 1},
        }
        tries = "1 attempt" if retries == 0 else f"{retries + 1} attempts"
        assert str(error.value) == (
            f"batch 2 (1 items) could not be looked up in {tries}: down "
            "(items counted before it: 2)"
        )

    @given(st.lists(st.sampled_from([ConnectionError, TimeoutError]), max_size=3))
    def test_a_stumble_costs_nothing(self, failures):
        """Up to `max_retries` failures in a row leave no trace in the counts."""
        with patch(SERVICE, side_effect=[*failures, ["A", "A"]]):
            assert process_data(["a", "b"], ProcessingConfig(max_retries=3), API) == {"A": 2}

    @pytest.mark.parametrize("failure", [ValueError("bad"), FetchError("status 400"), OSError()])
    def test_no_retry_for_what_will_not_pass(self, failure):
        """Anything else fails at once, with the same context."""
        with (
            patch(SERVICE, side_effect=failure) as service,
            pytest.raises(ProcessingError, match=str(failure) or "OSError") as error,
        ):
            process_data(["a"], ProcessingConfig(), API)
        service.assert_called_once()
        assert error.value.context["attempts"] == 1

    def test_config_errors_pass_through(self):
        """A missing setting is the user's to mend, and says so by its type."""
        with patch(SERVICE, side_effect=ConfigError("no key")), pytest.raises(ConfigError):
            process_data(["a"], ProcessingConfig(), API)

    def test_interrupts_pass_through(self):
        """Control-C is no failure of the service."""
        with patch(SERVICE, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            process_data(["a"], ProcessingConfig(), API)

    def test_a_service_that_never_answers(self):
        """Each try ends after `timeout_seconds`."""
        never = threading.Event()
        config = ProcessingConfig(timeout_seconds=0.01, max_retries=1)
        with (
            patch(SERVICE, side_effect=lambda _: never.wait()),
            pytest.raises(ProcessingError, match=r"in 2 attempts: no answer within 0\.01 seconds"),
        ):
            process_data(["a"], config, API)
        never.set()

    def test_pauses_have_full_jitter(self, monkeypatch):
        """Each pause is drawn from zero to a bound that doubles up to five seconds."""
        monkeypatch.setattr(core, "_FIRST_PAUSE_SECONDS", 0.1)
        wait = core._retry_rules(ProcessingConfig())["wait"]
        for attempt, bound in [(1, 0.1), (2, 0.2), (3, 0.4), (7, 5.0), (10, 5.0)]:
            state = RetryCallState(MagicMock(), None, (), {})
            state.attempt_number = attempt
            pauses = [wait(state) for _ in range(300)]
            assert min(pauses) < bound * 0.2
            assert bound * 0.8 < max(pauses) <= bound

    @pytest.mark.parametrize(("asked", "pause"), [(0, 0), (7, 7), (3600, 20)])
    def test_pauses_that_were_asked_for(self, asked, pause):
        """Retry-After is kept to, up to the time one try may take."""
        state = RetryCallState(MagicMock(), None, (), {})
        state.set_exception((core._BusyError, core._BusyError("busy", asked), None))
        assert core._retry_rules(ProcessingConfig(timeout_seconds=20))["wait"](state) == pause


class LabelServer:
    """A look-up service on loopback that answers as it is told to."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self.requests: list[dict[str, object]] = []
        self.answers: list[web.StreamResponse] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Note the request; give the next answer, or labels in capitals."""
        labels = (await request.json())["labels"]
        self.requests.append({"labels": labels, "key": request.headers.get("Authorization")})
        if self.answers:
            return self.answers.pop(0)
        return web.json_response({"categories": [label.upper() for label in labels]})


@pytest.fixture
async def service(tmp_path, monkeypatch):
    """A running look-up service, configured as `api_endpoint`."""
    application = web.Application()
    server = TestServer(application)
    labels = LabelServer(server)
    application.router.add_post("/labels", labels.answer)
    await server.start_server()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLYBOOK_API_ENDPOINT", f"{server.make_url('/labels')}?token=hunter2")
    yield labels
    await server.close()


class TestWebService:
    """The real look-up, against a real server on loopback."""

    async def test_exchange(self, service, monkeypatch):
        """Labels go out with the key, categories come back."""
        monkeypatch.setenv("TALLYBOOK_API_KEY", "k")
        assert await look_up_categories(["a", "é"]) == ["A", "É"]
        assert service.requests == [{"labels": ["a", "é"], "key": "Bearer k"}]

    async def test_without_a_key(self, service):
        """A service may need none."""
        await look_up_categories(["a"])
        assert service.requests[0]["key"] is None

    async def test_process_data(self, service):
        """From items to counts over the network, a stumble included, beside a running loop."""
        service.answers = [web.Response(status=503), web.Response(status=429)]
        config = ProcessingConfig(batch_size=2)
        counts = await asyncio.to_thread(process_data, ["a", "b", "A"], config, API)
        assert counts == {"A": 2, "B": 1}
        assert len(service.requests) == 4

    @pytest.mark.parametrize(("header", "seconds"), [({}, 0), ({"Retry-After": "7"}, 7)])
    async def test_busy(self, service, header, seconds):
        """The pause that a service asks for is passed on."""
        service.answers = [web.Response(status=429, headers=header)]
        with pytest.raises(ConnectionError) as error:
            await look_up_categories(["a"])
        assert error.value.wait_seconds == seconds

    async def test_stream(self, service):
        """The same look-up in a stream."""
        stream = process_stream(stream_of("a", "b"), look_up=look_up_categories)
        assert [record["category"] async for record in stream] == ["A", "B"]

    @pytest.mark.parametrize(
        ("response", "kind", "expected"),
        [
            ({"status": 503}, ConnectionError, "answered with status 503"),
            ({"status": 500}, ConnectionError, "answered with status 500"),
            ({"status": 400}, FetchError, "answered with status 400."),
            ({"status": 401}, FetchError, "status 401. Check the setting 'api_key'."),
            ({"status": 302, "headers": {"Location": "/x"}}, FetchError, "with status 302."),
            ({"text": "<html>"}, FetchError, "did not answer with JSON"),
            ({"body": b"\xff\xfe"}, FetchError, "did not answer with JSON"),
            ({"text": "[1]"}, FetchError, "answered without 'categories'"),
            ({"text": "{}"}, FetchError, "answered without 'categories'"),
            ({"text": '{"categories": []}'}, FetchError, "has 0 categories for 1 labels"),
        ],
    )
    async def test_bad_answers(self, service, response, kind, expected):
        """What may pass is a ConnectionError, what will not is a FetchError; no token is shown."""
        service.answers = [web.Response(**response)]
        with pytest.raises(kind) as error:
            await look_up_categories(["a"])
        assert expected in str(error.value)
        assert "hunter2" not in str(error.value)

    async def test_too_long(self, service, monkeypatch):
        """An answer without an end is cut off."""
        monkeypatch.setattr(core, "_LONGEST_ANSWER", 100)
        service.answers = [web.json_response({"categories": ["x" * 100]})]
        with pytest.raises(FetchError, match="sent more than 100 bytes"):
            await look_up_categories(["a"])

    async def test_half_an_answer(self, monkeypatch, tmp_path):
        """A body that breaks off is not an answer, whatever the status said."""

        async def break_off(reader, writer):
            await reader.readuntil(b"}")
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"categories"')
            writer.close()

        monkeypatch.chdir(tmp_path)
        async with await asyncio.start_server(break_off, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("TALLYBOOK_API_ENDPOINT", f"http://127.0.0.1:{port}/labels")
            with pytest.raises(ConnectionError, match="/labels: "):
                await look_up_categories(["a"])

    async def test_nobody_there(self, monkeypatch, tmp_path):
        """A refused connection names the address without its query."""
        monkeypatch.chdir(tmp_path)
        address = f"http://127.0.0.1:{unused_port()}/labels"
        monkeypatch.setenv("TALLYBOOK_API_ENDPOINT", f"{address}?token=hunter2")
        with pytest.raises(ConnectionError) as error:
            await look_up_categories(["a"])
        assert str(error.value).startswith(f"{address}: ")
        assert "hunter2" not in str(error.value)

    def test_not_configured(self, monkeypatch, tmp_path):
        """Without `api_endpoint` the error says what to set; nothing is retried."""
        monkeypatch.chdir(tmp_path)
        expected = "The look-up of categories needs the setting 'api_endpoint': set api_endpoint"
        with pytest.raises(ConfigError, match=expected):
            external_service(["a"])
        with pytest.raises(ConfigError, match=expected):
            process_data(["a"], ProcessingConfig(), API)


class TestProcessWithLogging:
    """The same counts, with a line at either end."""

    @pytest.fixture
    def lines(self, caplog):
        """What is logged, as (level, message, fields)."""
        caplog.set_level(logging.INFO, logger="tallybook")
        return lambda: [(r.levelname, r.message, r.extra_fields) for r in caplog.records]

    def test_success(self, lines):
        """Start and finish, with counts and duration."""
        heard = []
        counts = process_with_logging(["a", "b", "a"], ProcessingConfig(), callback=heard.append)

        (first, last) = lines()
        seconds = last[2].pop("duration_seconds")
        assert counts == {"a": 2, "b": 1}
        assert heard == ["a", "b", "a"]
        assert first == ("INFO", "processing started", {"source": FILE, "batch_size": 100})
        assert last == ("INFO", "processing finished", {"items": 3, "categories": 2})
        assert 0 <= seconds < 60

    @pytest.mark.parametrize(
        ("data", "kind", "code"),
        [
            ([None], ValidationError, "INVALID_INPUT"),
            (7, TypeError, "TypeError"),
        ],
    )
    def test_failure(self, lines, caplog, data, kind, code):
        """The error is logged with its code and goes on to the caller."""
        with pytest.raises(kind):
            process_with_logging(data, ProcessingConfig())

        level, message, fields = lines()[-1]
        assert (level, message, fields["error_code"]) == ("ERROR", "processing failed", code)
        assert fields["duration_seconds"] >= 0
        assert caplog.records[-1].exc_info[0] is kind

    def test_place(self, caplog):
        """The lines name the function that wrote them."""
        caplog.set_level(logging.INFO, logger="tallybook")
        process_with_logging([], ProcessingConfig())
        assert {(r.name, r.funcName) for r in caplog.records} == {
            ("tallybook.core", "process_with_logging")
        }


def in_a_loop(data, config, callback=None):
    """`process_records_async`, run to its end."""
    return asyncio.run(process_records_async(data, config, callback))


@pytest.mark.parametrize("process", [process_records, in_a_loop])
class TestProcessRecords:
    """Records and their asynchronous twin: the same in every respect."""

    def test_records(self, process):
        """Copies with `processed_at`, in order, and true counts."""
        data = [{"id": 1, "value": 4.5, "note": "x"}, {"id": "b", "value": 0}]
        before = json.dumps(data)
        heard = []

        done, stats = process(data, ProcessingConfig(), heard.append)

        moments = [record.pop("processed_at") for record in done]
        assert done == data
        assert json.dumps(data) == before
        assert all(moment.tzinfo is UTC for moment in moments)
        assert all(datetime.now(UTC) - moment < timedelta(minutes=1) for moment in moments)
        assert heard == ["1", "b"]
        assert (stats.processed_count, stats.failed_count, stats.errors) == (2, 0, [])
        assert stats.duration_seconds >= 0

    @settings(max_examples=30)
    @given(count=st.integers(0, 30), batch_size=st.integers(1, 10))
    def test_no_record_is_lost(self, process, count, batch_size):
        """Whatever the batch size."""
        data = [{"id": number, "value": number} for number in range(count)]
        done, stats = process(data, ProcessingConfig(batch_size=batch_size))
        assert [record["id"] for record in done] == list(range(count))
        assert stats.total_count == count

    def test_incomplete_records(self, process):
        """All are counted, three are shown, nothing is processed."""
        data = [
            {"id": 1, "value": 2},
            {"id": "b7"},
            {"value": 3},
            {},
            "x",
            {"id": 0, "value": None},
        ]
        heard = []

        with pytest.raises(ValidationError) as error:
            process(data, ProcessingConfig(), heard.append)

        assert str(error.value) == (
            "5 of 6 records cannot be processed: record 2 (id 'b7') has no 'value'; "
            "record 3 has no 'id'; record 4 has no 'id' and no 'value'; and 2 more"
        )
        assert error.value.context["records"][3:] == [
            "record 5 should have 'id' and 'value', found 'x'",
            "record 6 (id 0) has no 'value'",
        ]
        assert heard == []

    def test_one_incomplete_record(self, process):
        """One is named, and no more are announced."""
        with pytest.raises(ValidationError) as error:
            process([{"id": 5}], ProcessingConfig())
        assert str(error.value) == (
            "1 of 1 records cannot be processed: record 1 (id 5) has no 'value'"
        )


class TestProcessRecordsAsync:
    """What only the asynchronous twin can do."""

    async def test_gives_way(self):
        """Others get their turn after each batch."""
        turns = []

        async def other():
            while True:
                turns.append(len(heard))
                await asyncio.sleep(0)

        heard = []
        task = asyncio.create_task(other())
        data = [{"id": number, "value": 0} for number in range(6)]
        await process_records_async(data, ProcessingConfig(batch_size=2), heard.append)
        task.cancel()
        assert set(turns) >= {2, 4}


class TestBatchGenerator:
    """A stream in portions."""

    @given(st.lists(st.text(max_size=3)), st.integers(1, 7))
    def test_nothing_is_lost(self, items, size):
        """All items in order, all batches full but the last."""

        async def gather():
            return [batch async for batch in batch_generator(stream_of(*items), size)]

        batches = asyncio.run(gather())
        assert [item for batch in batches for item in batch] == items
        assert all(len(batch) == size for batch in batches[:-1])
        assert all(1 <= len(batch) <= size for batch in batches)

    async def test_not_text(self):
        """The place is counted over the whole stream."""
        with pytest.raises(ValidationError, match="item 3 should be text, found None"):
            async for _ in batch_generator(stream_of("a", "b", None), 2):
                pass

    @pytest.mark.parametrize("size", [0, -1])
    async def test_size(self, size):
        """A batch holds something."""
        with pytest.raises(ValidationError, match="batch_size should be at least 1"):
            await anext(batch_generator(stream_of("a"), size))

    async def test_a_plain_iterator(self):
        """A stream need not be a generator."""

        class Words:
            def __init__(self):
                self.words = iter("ab")

            def __aiter__(self):
                return self

            async def __anext__(self):
                for word in self.words:
                    return word
                raise StopAsyncIteration

        assert [batch async for batch in batch_generator(Words(), 5)] == [["a", "b"]]

    async def test_failure_closes_the_source(self):
        """What went wrong further down closes what is further up."""
        source = Endless()

        async def fail_at_once():
            async with aclosing(batch_generator(source.items(), 2)) as batches:
                async for _ in batches:
                    raise RuntimeError("reader")

        with pytest.raises(RuntimeError, match="reader"):
            await fail_at_once()
        assert (source.taken, source.closed) == (2, True)


class TestProcessBatchAsync:
    """One batch, with and without a look-up."""

    async def test_without_a_look_up(self):
        """Each item is its own category."""
        records = await process_batch_async(["a", "", "a"])
        assert [(r["item"], r["category"]) for r in records] == [("a", "a"), ("", ""), ("a", "a")]
        assert all(record["processed_at"].tzinfo is UTC for record in records)

    async def test_nothing(self):
        """An empty batch is no work."""
        assert await process_batch_async([]) == []

    async def test_not_text(self):
        """Checked here too, for it can be called by itself."""
        with pytest.raises(ValidationError, match="item 2"):
            await process_batch_async(["a", 7])

    async def test_retries(self):
        """The rules are those of the synchronous look-up."""
        answers = [ConnectionError("reset"), TimeoutError(), {"a": "A"}]

        async def look_up(_):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        records = await process_batch_async(["a", "b"], look_up=look_up)
        assert [record["category"] for record in records] == ["A", "b"]

    async def test_failure(self):
        """The error says which batch, how often, and how many came before."""

        async def look_up(_):
            raise ConnectionError("down")

        config = ProcessingConfig(max_retries=2)
        with pytest.raises(ProcessingError, match="in 3 attempts: down") as error:
            await process_batch_async(["a"], config, look_up, number=4, counted_items=300)
        assert error.value.context == {
            "batch": 4,
            "items": 1,
            "attempts": 3,
            "counted_items": 300,
        }

    async def test_never_answers(self):
        """Each try ends after `timeout_seconds`."""
        config = ProcessingConfig(max_retries=1, timeout_seconds=0.01)
        with pytest.raises(ProcessingError, match=r"2 attempts: no answer within 0\.01 seconds"):
            await process_batch_async(["a"], config, lambda _: asyncio.Event().wait())

    async def test_config_errors_pass_through(self):
        """As in the synchronous look-up."""

        async def look_up(_):
            raise ConfigError("no key")

        with pytest.raises(ConfigError):
            await process_batch_async(["a"], look_up=look_up)


class TestProcessStream:
    """A stream in, a stream out: in order, bounded, and gone when cancelled."""

    @given(st.lists(st.text(max_size=3)), st.integers(1, 7))
    def test_nothing_is_lost(self, items, size):
        """One record for each item, in order, for any batch size."""

        async def gather():
            stream = process_stream(stream_of(*items), ProcessingConfig(batch_size=size))
            return [record["item"] async for record in stream]

        assert asyncio.run(gather()) == items

    async def test_back_pressure(self):
        """The source is never more than one batch ahead of the reader."""
        source = Endless()
        config = ProcessingConfig(batch_size=10)
        async with aclosing(process_stream(source.items(), config)) as stream:
            for number in range(1, 96):
                await anext(stream)
                assert number <= source.taken <= number + 9
        assert source.closed

    async def test_cancelled_in_a_look_up(self):
        """Nothing is left running, nothing is left open."""
        source, reached = Endless(), asyncio.Event()
        ended = []

        async def look_up(_):
            try:
                reached.set()
                await asyncio.Event().wait()
            finally:
                ended.append("look-up")

        async def read():
            stream = process_stream(source.items(), ProcessingConfig(batch_size=3), look_up)
            async with aclosing(stream) as records:
                async for _ in records:
                    pass

        before = asyncio.all_tasks()
        task = asyncio.create_task(read())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert ended == ["look-up"]
        assert (source.taken, source.closed) == (3, True)
        assert asyncio.all_tasks() == before

    async def test_failure_in_the_third_batch(self):
        """What came before was handed over; the error says how much that was."""

        async def look_up(batch):
            if "e" in batch:
                raise ConnectionError("down")
            return batch

        seen = []
        config = ProcessingConfig(batch_size=2, max_retries=0)

        async def read():
            async for record in process_stream(stream_of(*"abcdef"), config, look_up):
                seen.append(record["item"])  # noqa: PERF401 (what was read before the failure)

        with pytest.raises(ProcessingError) as error:
            await read()

        assert seen == ["a", "b", "c", "d"]
        assert error.value.context["batch"] == 3
        assert error.value.context["counted_items"] == 4
