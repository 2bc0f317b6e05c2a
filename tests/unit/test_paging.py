"""The parts of `paging` that need no server."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from tallybook import paging
from tallybook.fetch import Answer, Fault, Proof, Trouble
from tallybook.paging import (
    AnyPaging,
    ApiLimits,
    ApiSource,
    Cursor,
    LinkHeader,
    NextField,
    NumberText,
    Page,
    PageNumber,
    Progress,
    RateLimiter,
    Sheet,
    SinglePage,
    next_urls,
    parse_json,
    parse_page,
    record_to_text,
)

FIRST = URL("https://api.test/orders?size=2")

names = st.text(min_size=1, max_size=5, alphabet=st.characters(codec="utf-8"))
texts = st.text(max_size=8, alphabet=st.characters(codec="utf-8"))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


def sheet_of(text: str, *, link: str | None = None, sha: str = "a") -> Sheet:
    """Return a sheet as if this body had been fetched."""
    next_link = None if link is None else URL(link)
    body = parse_page(text, "items")
    return Sheet(FIRST, Answer(FIRST, body, Proof.LENGTH, len(text), sha, next_link))


def api(**options) -> ApiSource:
    return ApiSource(url=str(FIRST), records="items", **options)


def queries(source: ApiSource, sheet: Sheet, done: int = 1) -> list[dict[str, str]]:
    return [dict(url.query) for url in next_urls(source, FIRST, sheet, done)]


class TestRecords:
    @given(st.decimals(allow_nan=False, allow_infinity=False))
    def test_numbers_keep_every_digit(self, number):
        """The text is the text that was sent, not only an equal number."""
        text = str(number).replace("E+", "e")
        assert record_to_text(parse_json(f'{{"a": {text}}}')) == {"a": text}
        assert Decimal(text) == number

    @pytest.mark.parametrize(
        "text", ["-0", "1.10", "1E400", "1e-400", "9" * 5000, "NaN", "-Infinity"]
    )
    def test_as_it_was_sent(self, text):
        """Minus zero, zeros at the end, huge ones; and what is no number is left to the schema."""
        assert record_to_text(parse_json(f'{{"a": {text}}}')) == {"a": text}

    @given(st.dictionaries(names.filter(lambda name: "." not in name), values, max_size=4))
    def test_lists_are_json_and_scalars_are_text(self, record):
        """Whatever is inside, a value can be told from its text."""
        row = record_to_text(parse_json(json.dumps(record)))
        assert all(type(text) in (str, type(None)) for text in row.values())
        for name, value in record.items():
            match value:
                case None:
                    assert row[name] is None
                case str():
                    assert row[name] == value
                case dict() if value:
                    assert name not in row
                case _:
                    assert json.loads(row[name]) == value

    def test_nested_objects_are_dotted(self):
        """As deep as they are; an empty one is still there."""
        record = parse_json('{"a": {"b": {"c": 1.0}, "d": {}}, "e": [{"f": 2.50}, null, false]}')
        assert record_to_text(record) == {
            "a.b.c": "1.0",
            "a.d": "{}",
            "e": '[{"f":2.50},null,false]',
        }

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ('[{"a.b": 1, "a": {"b": 2}}]', "record 1 .*'a.b' occurs twice"),
            (r'[{"a": 1}, {"a": "\ud800"}]', "record 2 .*surrogates not allowed"),
            (r'[{"a": ["\udfff"]}]', "record 1 .*surrogates not allowed"),
            ('[{"a": 1}, [1]]', "record 2 is a list, not an object"),
            ("[null]", "record 1 is null, not an object"),
            ("{}", "the body is an object, not a list; no field is a list"),
        ],
    )
    def test_refused(self, body, reason):
        """The message names the record."""
        with pytest.raises(Trouble, match=reason) as caught:
            paging._records(parse_json(body), "")
        assert caught.value.fault is Fault.NOT_RECORDS

    def test_nesting_without_bottom(self):
        """An error, not a crash."""
        deep = {"a": NumberText("1")}
        for _ in range(5000):
            deep = {"a": deep}
        with pytest.raises(Trouble, match="record 1 cannot be a row"):
            paging._row(deep, 1)

    def test_half_a_name(self):
        """Names are text as well, and may hold a lone surrogate."""
        with pytest.raises(Trouble, match="surrogates"):
            paging._row(parse_json(r'{"\ud800": 1}'), 1)


class TestDig:
    DOCUMENT = parse_json('{"a": {"b": [10, {"c": 1}]}, "x.y": 2, "x": {"y": 3, "z": null}, "": 4}')

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("a.b.0", "10"),
            ("a.b.-1.c", "1"),
            ("x.y", "2"),
            ("x.z", None),
            ("a.b.2", paging._Missing),
            ("a.b.-3", paging._Missing),
            ("a.b.one", paging._Missing),
            ("a.b.0.c", paging._Missing),
            ("a.c", paging._Missing),
            ("x.z.q", paging._Missing),
        ],
    )
    def test_path(self, path, found):
        """Names, places in a list, and names that contain dots."""
        assert paging._dig(self.DOCUMENT, path) == found

    def test_wrong_path_names_the_lists(self):
        """And the one that was probably meant."""
        with pytest.raises(
            Trouble, match=r"'data.itmes' is missing; .*'data.items'\. Did you mean"
        ):
            paging._records(parse_json('{"data": {"items": []}}'), "data.itmes")


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"url": "ftp://api.test"},
            {"url": "nonsense"},
            {"url": "https://ada:hunter2@api.test/"},
            {"headers": {"X Y": "hunter2"}},
            {"headers": {"X-Y": "hunter2\r\nHost: evil.test"}},
            {"headers": {"X-Y": "hunter2\x00"}},
            {"paging": {"style": "cursor"}},
            {"paging": {"style": "guess", "field": "hunter2"}},
            {"paging": {"style": "page_number", "field": "next"}},
            {"limits": {"requests_per_second": 0}},
            {"token": "hunter2"},
        ],
    )
    def test_refused_without_showing_values(self, wrong):
        """A wrong setting may be a secret in the wrong place."""
        with pytest.raises(ValidationError) as caught:
            ApiSource.model_validate({"url": str(FIRST)} | wrong)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "style", [SinglePage(), LinkHeader(), NextField(), Cursor(field="c"), PageNumber()]
    )
    def test_paging_from_a_file(self, style):
        """As a table in TOML or JSON, by its style."""
        adapter = TypeAdapter(AnyPaging)
        assert adapter.validate_json(adapter.dump_json(style)) == style

    def test_secrets_do_not_show(self):
        """Neither in the text of the model nor in its dump nor in the address."""
        source = ApiSource(
            url="https://api.test/x?token=hunter2",
            headers={"Authorization": "Bearer hunter2-hunter2"},
            secret_query={"customer": "hunter2"},
        )
        assert "hunter2" not in f"{source!r} {source} {source.address}"
        assert "hunter2" not in repr(source.model_dump(exclude={"url"}))
        assert paging._secrets(source) == {"Bearer hunter2-hunter2", "hunter2-hunter2", "hunter2"}

    def test_first_address(self):
        """The user's query, the secret one, and the first page's number."""
        source = ApiSource(
            url="https://api.test/x?size=2&page=9#top",
            secret_query={"key": "k"},
            paging=PageNumber(first=0),
        )
        assert str(paging._first_url(source)) == "https://api.test/x?size=2&page=0&key=k"


class TestNextUrls:
    BODY = (
        '{"items": [{"id": 7}], "next": "/p2", "cur": 9, "more": true, "pages": 5, "d": {"n": ""}}'
    )

    def test_single_page(self):
        """Declared is declared."""
        assert next_urls(api(paging=SinglePage()), FIRST, sheet_of(self.BODY, link="/x"), 1) == []

    def test_link_header(self):
        """Only the header counts."""
        source = api(paging=LinkHeader())
        link = "https://api.test/p2"
        assert next_urls(source, FIRST, sheet_of(self.BODY, link=link), 1) == [URL(link)]
        assert next_urls(source, FIRST, sheet_of(self.BODY), 1) == []

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ('"/p2"', "https://api.test/p2"),
            ('"?page=2"', "https://api.test/orders?page=2"),
            ('"https://other.test/p2"', "https://other.test/p2"),
        ],
    )
    def test_next_field(self, text, url):
        """Relative to the page it stands on."""
        sheet = sheet_of(f'{{"items": [], "next": {text}}}')
        assert next_urls(api(paging=NextField()), FIRST, sheet, 1) == [URL(url)]

    @pytest.mark.parametrize("text", ["null", '""', "false"])
    def test_next_field_at_the_end(self, text):
        """Servers have several ways to say "no more"."""
        sheet = sheet_of(f'{{"items": [], "next": {text}}}')
        assert next_urls(api(paging=NextField()), FIRST, sheet, 1) == []
        assert next_urls(api(paging=NextField(field="missing")), FIRST, sheet, 1) == []

    @pytest.mark.parametrize("text", ["true", "[]", '{"href": "/p2"}'])
    def test_next_field_that_is_something_else(self, text):
        """What is not understood is no end."""
        sheet = sheet_of(f'{{"items": [], "next": {text}}}')
        with pytest.raises(Trouble, match="should lead to the next page"):
            next_urls(api(paging=NextField()), FIRST, sheet, 1)

    def test_cursor(self):
        """Sent back as text, also when it is a number; the last record's id works too."""
        sheet = sheet_of(self.BODY)
        assert queries(api(paging=Cursor(field="cur")), sheet) == [{"size": "2", "cursor": "9"}]
        after = Cursor(field="items.-1.id", param="after", more_field="more")
        assert queries(api(paging=after), sheet) == [{"size": "2", "after": "7"}]
        assert queries(api(paging=Cursor(field="d.n")), sheet) == []

    def test_cursor_at_the_end(self):
        """When `more` is false the cursor does not count."""
        sheet = sheet_of('{"items": [{"id": 7}], "more": false}')
        source = api(paging=Cursor(field="items.-1.id", more_field="more"))
        assert queries(source, sheet) == []

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ('{"items": []}', "'more' is not true or false"),
            ('{"items": [], "more": "yes"}', "'more' is not true or false"),
            ('{"items": [], "more": true}', "holds no cursor"),
        ],
    )
    def test_cursor_that_contradicts_itself(self, body, reason):
        """More, but nothing to ask with."""
        with pytest.raises(Trouble, match=reason):
            queries(api(paging=Cursor(field="cur", more_field="more")), sheet_of(body))

    def test_page_numbers_come_in_windows(self):
        """As wide as the concurrency; with a known number of pages, not one too many."""
        wide = api(paging=PageNumber(), limits=ApiLimits(concurrency=3))
        assert [q["page"] for q in queries(wide, sheet_of(self.BODY), 4)] == ["5", "6", "7"]
        known = api(paging=PageNumber(total_pages_field="pages"))
        assert [q["page"] for q in queries(known, sheet_of(self.BODY), 3)] == ["4", "5"]
        assert queries(known, sheet_of(self.BODY), 5) == []

    def test_offsets(self):
        """Records are counted instead of pages."""
        paging_ = PageNumber(param="offset", first=0, step=50)
        source = api(paging=paging_, limits=ApiLimits(concurrency=2))
        assert [q["offset"] for q in queries(source, sheet_of(self.BODY))] == ["50", "100"]

    def test_an_empty_page_is_the_end(self):
        """Of an unknown number of pages; of a known number it is a page."""
        empty = sheet_of('{"items": [], "pages": 3}')
        assert queries(api(paging=PageNumber()), empty) == []
        assert len(queries(api(paging=PageNumber(total_pages_field="pages")), empty)) == 2

    @pytest.mark.parametrize("body", ['{"items": []}', '{"items": [], "pages": "many"}'])
    def test_number_of_pages_must_be_there(self, body):
        """It was declared."""
        with pytest.raises(Trouble, match="missing or not a count"):
            queries(api(paging=PageNumber(total_pages_field="pages")), sheet_of(body))

    @pytest.mark.parametrize(
        "sign",
        ['"next": "/p2"', '"has_more": true', '"@odata.nextLink": "x"', '"meta": {"next": 2}'],
    )
    def test_an_undeclared_sign_of_more(self, sign):
        """One page out of many must not pass for all."""
        with pytest.raises(Trouble, match="declare how this API pages"):
            next_urls(api(), FIRST, sheet_of(f'{{"items": [], {sign}}}'), 1)

    @pytest.mark.parametrize("sign", ['"next": null', '"has_more": false', '"meta": {}', '"n": 1'])
    def test_no_sign_of_more(self, sign):
        """Then one page is all."""
        assert next_urls(api(), FIRST, sheet_of(f'{{"items": [], {sign}}}'), 1) == []

    def test_link_header_without_declaration(self):
        """The standard is followed."""
        link = "https://api.test/p2"
        assert next_urls(api(), FIRST, sheet_of(self.BODY, link=link), 1) == [URL(link)]


class TestDoubt:
    ONE = '{"items": [{"id": 1}]}'
    TWO = '{"items": [{"id": 1}, {"id": 2}]}'
    NONE = '{"items": []}'
    OFFSET = PageNumber(param="offset", first=0, step=2)

    @staticmethod
    def accept(source: ApiSource, *bodies: str) -> Progress:
        progress = Progress(FIRST)
        for number, body in enumerate(bodies):
            same = bodies.index(body) if body.endswith(" ") else number
            paging._accept(sheet_of(body, sha=str(same)), source, progress)
        return progress

    def test_counts(self):
        """Pages and records."""
        progress = self.accept(api(), self.ONE, self.TWO, self.NONE)
        assert (progress.pages, progress.records) == (3, 3)

    def test_the_same_page_twice(self):
        """Unless that is declared to be all right; empty pages are all alike."""
        with pytest.raises(Trouble, match="page 3 is the same as page 1"):
            self.accept(api(), self.ONE + " ", self.TWO, self.ONE + " ")
        self.accept(api(allow_repeated_pages=True), self.ONE + " ", self.ONE + " ")
        self.accept(api(), self.NONE + " ", self.NONE + " ")

    def test_offsets_with_a_short_page(self):
        """The last page may be short, no other."""
        self.accept(api(paging=self.OFFSET), self.TWO, self.ONE, self.NONE)
        with pytest.raises(Trouble, match="page 1 is not full, so records before page 2"):
            self.accept(api(paging=self.OFFSET), self.ONE, self.TWO)

    def test_records_behind_an_empty_page(self):
        """The empty page was no end, unless the number of pages was known."""
        with pytest.raises(Trouble, match="page 2 is not full, so records before page 3"):
            self.accept(api(paging=PageNumber()), self.ONE, self.NONE, self.TWO)
        known = api(paging=PageNumber(total_pages_field="pages"))
        self.accept(known, self.ONE, self.NONE, self.TWO)

    def test_too_many_pages(self):
        """An empty page that ends the rest is not counted."""
        source = api(limits=ApiLimits(max_pages=2))
        self.accept(source, self.ONE, self.TWO, self.NONE)
        with pytest.raises(Trouble, match="more than max_pages=2"):
            self.accept(source, self.ONE, self.TWO, self.ONE)
        with pytest.raises(Trouble, match="more than max_pages=2"):
            self.accept(source, self.NONE, self.NONE, self.NONE, self.NONE)

    def test_loop(self):
        """A next address that was asked before."""
        progress = Progress(FIRST, asked={FIRST})
        sheet = sheet_of(self.ONE, link=str(FIRST))
        with pytest.raises(Trouble, match="already read"):
            paging._plan(api(), sheet, progress)

    def test_next_address_that_is_none(self):
        """ValueErrors do not come out."""
        sheet = sheet_of('{"items": [], "next": "http://["}')
        with pytest.raises(Trouble, match="no address"):
            paging._plan(api(paging=NextField()), sheet, Progress(FIRST))

    @pytest.mark.parametrize(("total", "right"), [("1", True), ("2", False), ("0", False)])
    def test_total(self, total, right):
        """Compared at the end."""
        source = api(total_field="total")
        progress = self.accept(source, self.ONE)
        sheet = sheet_of(f'{{"items": [], "total": {total}}}')
        if right:
            assert paging._plan(source, sheet, progress) == []
        else:
            with pytest.raises(Trouble, match=f"1 records came, but 'total' says {total}"):
                paging._plan(source, sheet, progress)


class TestRateLimiter:
    @given(
        rate=st.integers(1, 1000),
        arrivals=st.lists(st.integers(0, 50_000), min_size=1, max_size=30).map(sorted),
    )
    def test_turns_are_spaced(self, rate, arrivals):
        """Whoever comes, whenever: never closer than the interval, never later than needed."""
        now, turns = 0.0, []

        async def sleep(seconds: float) -> None:
            turns[-1] += seconds

        limiter = RateLimiter(rate, sleep, clock=lambda: now)
        for arrival in arrivals:
            now = arrival / 1000
            turns.append(now)
            asyncio.run(limiter.turn())
        gaps = [after - before for before, after in pairwise(turns)]
        assert all(gap >= 1 / rate - 1e-9 for gap in gaps)
        assert turns[0] == arrivals[0] / 1000

    async def test_no_limit(self):
        """Nobody waits."""

        async def sleep(_seconds: float) -> None:
            pytest.fail("there is nothing to wait for")

        limiter = RateLimiter(None, sleep, clock=lambda: 0.0)
        for _ in range(5):
            await limiter.turn()


class TestPage:
    def test_verified(self):
        """All proofs count but none."""
        pages = [Page("u", 1, [], proof, 0, "") for proof in Proof]
        assert [page.verified for page in pages] == [True, True, True, True, False]
