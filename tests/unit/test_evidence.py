"""A page's evidence: nothing can be changed without being found, and what was changed is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook import evidence
from tallybook.errors import SourceError
from tallybook.evidence import FileState, check_text, seal, verification_lines, verify_file
from tallybook.look import spec_json
from tallybook.publish import table_html

SPEC = {"mark": "bar", "title": "Rides"}
RIDES = pl.DataFrame({"city": ["Rome & <b>", "Oslo"], "rides": [1200, 7], "share": [0.99, 0.01]})
MANIFEST = {
    "run_id": "20260131T060000Z-000000",
    "report": "rides",
    "state": "ok",
    "charts": [
        {
            "name": "bars",
            "files": {"spec": "bars.vl.json"},
            "sha256": evidence._digest(spec_json(SPEC)),
        }
    ],
    "tables": [],
}


def page(**changes: str) -> str:
    """A page as the templates make it, in small, with its evidence."""
    parts = {
        "title": "Rides",
        "prose": "Two cities.",
        "table": table_html(RIDES, "Rides by city"),
        "alt": "Bars of rides",
        "spec": json.dumps(SPEC),
        "code": "publish()",
        "manifest": json.dumps(MANIFEST),
    } | changes
    return seal(
        "<!doctype html><html><head><style>p {{}}</style></head><body><h1>{title}</h1>\n"
        '<h2 id="cities">Cities</h2><p>{prose}</p>{table}\n<figure class="chart" id="figure-1">'
        '<img class="still" src="data:," alt="{alt}">'
        '<script type="application/json">{spec}</script></figure>'
        '<details class="code"><pre id="cell-3">{code}</pre></details>\n'
        '<script type="application/json" id="manifest">{manifest}</script>\n'
        "<script>run()</script>\n</body></html>\n".format(**parts)
    )


SEALED = page()
BYTES = SEALED.encode()


class TestFlips:
    """One byte is enough."""

    def test_every_place(self) -> None:
        """Whatever byte is changed, the page is no longer intact, and nothing else breaks."""
        for place, byte in enumerate(BYTES):
            changed = BYTES[:place] + bytes([byte ^ 1]) + BYTES[place + 1 :]
            state, findings = check_text(changed.decode("utf-8", "surrogateescape"))
            assert state is not FileState.INTACT
            assert findings or state is not FileState.ALTERED

    @given(st.integers(0, len(BYTES) - 1), st.binary(max_size=3), st.integers(0, 3))
    def test_any_edit(self, place: int, put: bytes, cut: int) -> None:
        """Nor does a longer, shorter or moved piece of it go unseen."""
        changed = BYTES[:place] + put + BYTES[place + cut :]
        state, _ = check_text(changed.decode("utf-8", "surrogateescape"))
        assert (state is FileState.INTACT) == (changed == BYTES)

    @given(st.text())
    def test_any_page(self, text: str) -> None:
        """Whatever stands in a page, sealed it is intact, and with one more letter it is not."""
        sealed = seal(text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))
        assert check_text(sealed)[0] is FileState.INTACT
        assert check_text(sealed + "x")[0] is not FileState.INTACT

    def test_parts_are_the_page(self) -> None:
        """No byte belongs to no part."""
        assert "".join(text for _, text in evidence._regions(SEALED)) == SEALED


class TestWhat:
    """What was changed is named as a reader would name it."""

    @pytest.mark.parametrize(
        ("was", "now", "said"),
        [
            (
                "1,200",
                "9,200",
                "table 'Rides by city': row 'Rome & ', column 'Rides' now reads '9,200'",
            ),
            ("Two cities", "Ten cities", "text 'Cities': it is not as it was written"),
            (">Rides</h1>", ">Bikes</h1>", "text 'Bikes': it is not as it was written"),
            ('"bar"', '"arc"', "chart 'Bars of rides': its data or form"),
            ("data:,", "data:x", "chart 'Bars of rides': its still picture or text"),
            ("publish()", "invent()", "code 'cell-3': it is not as it was written"),
            ('"rides", ', '"bikes", ', "manifest: it is not as it was written"),
            ("run()", "ran()", "script: it is not as it was written"),
            ("p {}", "a {}", "style: it is not as it was written"),
            ('"page":"', '"page":"0', "evidence: it is damaged"),
            ('"parts"', '"pants"', "evidence: it is damaged"),
            ('{"format', '["format', "evidence: it is damaged"),
            (">City<", ">Town<", "table 'Rides by city': a column's head now reads 'Town'"),
        ],
        ids=lambda text: re.sub(r"\W+", "-", text)[:24],
    )
    def test_one_change(self, was: str, now: str, said: str) -> None:
        """One change, one finding."""
        state, findings = check_text(SEALED.replace(was, now, 1))
        assert state is FileState.ALTERED
        assert [str(finding).replace("Rome & <b>", "Rome & ") for finding in findings] == [said]

    def test_several_cells(self) -> None:
        """Of several numbers in one table the first row is named."""
        text = SEALED.replace("1,200", "1,201").replace(">7<", ">8<")
        assert "2 of its rows differ, the first is" in str(check_text(text)[1][0])

    def test_row_gone(self) -> None:
        """A row that was taken out is noticed by the count."""
        text = re.sub(r"<tr>(?:(?!<tr>).)*Oslo.*?</tr>", "", SEALED, flags=re.DOTALL)
        assert "it had 3 rows and 3 columns" in str(check_text(text)[1][0])

    def test_parts_gone_and_added(self) -> None:
        """A whole part that went or came is named."""
        gone = re.sub(r"<details.*?</details>", "", SEALED, flags=re.DOTALL)
        assert "missing" in " ".join(map(str, check_text(gone)[1]))
        added = SEALED.replace("<p>Two", "<h2>New</h2><p>Two")
        assert "text 'New'" in " ".join(map(str, check_text(added)[1]))

    def test_line_ends(self) -> None:
        """A mail program that changed the line ends is told from a forger."""
        state, [finding] = check_text(SEALED.replace("\n", "\r\n"))
        assert state is FileState.ALTERED
        assert str(finding) == "text: nothing but its line ends"

    def test_newer_format(self) -> None:
        """What a later version wrote is not judged."""
        text = SEALED.replace('{"format_version":1', '{"format_version":2')
        assert check_text(text) == (FileState.NEWER_FORMAT, [])

    @pytest.mark.parametrize("text", ["", "<html>", "\x00"])
    def test_no_evidence(self, text: str) -> None:
        """A file of anybody else's has none."""
        assert check_text(text) == (FileState.NO_EVIDENCE, [])


class TestFile:
    """The file alone, and in its bundle."""

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        """A page with all that lies next to it."""
        (tmp_path / "bars.vl.json").write_text(spec_json(SPEC))
        RIDES.write_parquet(tmp_path / "rides.parquet")
        sha256 = evidence.sha256_file(tmp_path / "rides.parquet")
        table = {
            "name": "rides",
            "title": "Rides by city",
            "file": "rides.parquet",
            "sha256": sha256,
        }
        manifest = MANIFEST | {"tables": [table]}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest, indent=2))
        (tmp_path / "report.html").write_text(page(manifest=json.dumps(manifest)))
        return tmp_path

    def test_intact(self, bundle: Path) -> None:
        """It says so, that it agrees with the bundle, and what that does not show."""
        found = verify_file(bundle / "report.html")
        assert found.ok
        assert found.beside == ()
        assert found.unshown == ()
        lines = verification_lines(found)
        assert "intact" in lines[0]
        assert "rides, run 20260131T060000Z-000000" in lines[0]
        assert "agrees with the bundle" in lines[2]
        assert "does not show who wrote it" in lines[-1]

    def test_alone(self, tmp_path: Path) -> None:
        """Nothing but the file is needed."""
        (tmp_path / "mail.html").write_bytes(BYTES)
        found = verify_file(tmp_path / "mail.html")
        assert found.ok
        assert found.beside is None

    def test_forged_with_new_evidence(self, bundle: Path) -> None:
        """A page that was changed and sealed again is found out by its bundle, number by number."""
        file = bundle / "report.html"
        file.write_text(seal(evidence._unsealed(file.read_text())[0].replace("1,200", "9,200")))
        found = verify_file(file)
        assert found.state is FileState.INTACT
        assert not found.ok
        assert "column 'Rides' reads '9,200', the file says '1,200'" in str(found.beside[0])
        assert "differs from its bundle" in "\n".join(verification_lines(found))

    def test_forged_chart(self, bundle: Path) -> None:
        """A chart that is not the published one is named, even with new evidence."""
        file = bundle / "report.html"
        file.write_text(seal(evidence._unsealed(file.read_text())[0].replace('"bar"', '"arc"')))
        assert verify_file(file).unshown == ("bars",)
        assert "chart bars" in "\n".join(verification_lines(verify_file(file)))

    @pytest.mark.parametrize(
        ("file", "content", "said"),
        [
            ("bars.vl.json", "{}", "not the one that the manifest names"),
            ("bars.vl.json", None, "bars.vl.json is missing"),
            ("rides.parquet", "PAR1", "not the one that the manifest names"),
            ("manifest.json", "{", "it cannot be read"),
            ("manifest.json", json.dumps(MANIFEST), "manifest.json differ in tables"),
            ("manifest.json", '{"run_id": "other"}', "the folder's is of another run, other"),
        ],
        ids=["chart", "chart-gone", "table", "manifest-broken", "manifest", "other-run"],
    )
    def test_bundle_differs(self, bundle: Path, file: str, content: str | None, said: str) -> None:
        """Whatever was changed in the bundle is named."""
        if content is None:
            (bundle / file).unlink()
        else:
            (bundle / file).write_text(content)
        found = verify_file(bundle / "report.html")
        assert not found.ok
        assert [said in str(finding) for finding in found.beside] == [True]

    def test_table_of_another_shape(self, bundle: Path) -> None:
        """A table that lost a column is not compared number by number."""
        file = bundle / "report.html"
        rest = evidence._unsealed(file.read_text())[0]
        other = table_html(RIDES.drop("share"), "Rides by city")
        file.write_text(seal(re.sub(r"<table.*</table>", lambda _: other, rest, flags=re.DOTALL)))
        assert "other rows or columns" in str(verify_file(file).beside[0])

    def test_unreadable(self, tmp_path: Path) -> None:
        """A missing file, or a folder, is an error that says what to name."""
        for path in (tmp_path, tmp_path / "missing.html"):
            with pytest.raises(SourceError, match="name a report's page"):
                verify_file(path)

    def test_not_text(self, tmp_path: Path) -> None:
        """Any bytes can be asked about."""
        (tmp_path / "noise").write_bytes(bytes(range(256)))
        assert verify_file(tmp_path / "noise").state is FileState.NO_EVIDENCE

    def test_manifest_that_is_none(self) -> None:
        """A page may carry a manifest that is none."""
        for text in ("", 'id="manifest">{</script>', 'id="manifest">[]</script>'):
            assert evidence.manifest_inside(text) == {}
