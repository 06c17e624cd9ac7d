"""Which field is the text, and rows that are not what they should be: each one is named with its file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_lines import LINES
from helpers import read
from hypothesis import given
from hypothesis import strategies as st

from packcli.errors import BadRowError, FieldError, NoInputError
from packcli.readers import Fields, files, find_fields, find_sources


def put(path: Path, *rows: object) -> Path:
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def fields_of(path: Path, field: str | None = None, template: str | None = None) -> Fields:
    return find_fields(find_sources([str(path)], []), field, template)


# --- rows of JSON that cannot be used ---

GOOD_ROWS: dict[str, tuple[bytes, str]] = {
    "a pair of surrogates": (b'{"text":"\\ud83d\\ude00"}', "😀"),
    "an escaped NUL": (b'{"text":"a\\u0000b"}', "a\0b"),
    "DEL": (b'{"text":"a\x7fb"}', "a\x7fb"),
    "line separators": ('{"text":"a\u2028b\u0085c\u2029"}'.encode(), "a\u2028b\u0085c\u2029"),
    "an escaped key": (b'{"te\\u0078t":"a"}', "a"),
    "the name of the field as a value, and further in": (b'{"type":"text","text":"a","x":{"text":"b","text":1}}', "a"),
    "another field twice": (b'{"x":1,"text":"a","x":2}', "a"),  # never read
    "bad UTF-8 in another field": (b'{"x":"\xff","text":"a"}', "a"),  # never decoded
    "a number of 5000 digits": (b'{"x":' + b"9" * 5000 + b',"text":"a"}', "a"),
    "a number over 1e308": (b'{"x":1e999,"text":"a"}', "a"),
    "some depth": (b'{"x":' + b"[" * 100 + b"]" * 100 + b',"text":"a"}', "a"),
    "white space around": (b' \t{ "text" : "a" } \r', "a"),
    "an empty text": (b'{"text":""}', ""),
}


@pytest.mark.parametrize("case", LINES)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, case: str) -> None:
    line, _, said, _ = LINES[case]
    path = put(tmp_path / "a.jsonl", {"text": "first"}, b"\n", line + b"\n", {"text": "last"})
    with pytest.raises(BadRowError, match=rf"^a\.jsonl:3: {re.escape(said)}\n    from byte 19: ['\"]") as caught:
        read(path)
    assert caught.value.exit_code == 4
    assert len(caught.value.message) < 400, "the row is shown, but not all of it"
    assert caught.value.message.isascii()
    assert "mend or remove the row" in caught.value.hint


@pytest.mark.parametrize("case", [case for case in LINES if case != "a mark in the middle of the file"])
def test_a_bad_first_row_is_named_too(tmp_path: Path, case: str) -> None:
    """The first row is looked at before the run, when the fields are found: by other code."""
    line = LINES[case][0]
    path = put(tmp_path / "a.jsonl", line + b"\n", {"text": "last"})
    if line.startswith(b"["):
        path = put(tmp_path / "a.jsonl", b"\n" + line + b"\n")
    with pytest.raises((BadRowError, FieldError), match=r"^a\.jsonl:(1|2): |^a\.jsonl: no field") as caught:
        read(path, field="text")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("case", GOOD_ROWS)
def test_an_odd_row_is_accepted(tmp_path: Path, case: str) -> None:
    line, text = GOOD_ROWS[case]
    path = put(tmp_path / "a.jsonl", {"text": "first"}, line + b"\n", {"text": "last"})
    assert read(path) == [(0, "first"), (1, text), (2, "last")]


@pytest.mark.parametrize("at", [0, 1, 499, 998, 999])
@pytest.mark.parametrize("unit_bytes", [1 << 20, 1000])
def test_the_line_is_right_wherever_the_row_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, unit_bytes: int
) -> None:
    """Chunks, parts and units all count rows; the line must be that of the file."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 300)
    rows: list[object] = [b'{"text":"ok"}\n' if index % 3 else b"\n" for index in range(1000)]
    rows[0] = b'{"text":"ok","n":1}\n'
    rows[at] = b'{"text":"ok","n":01}\n'
    path = put(tmp_path / "a.jsonl", *rows)
    with pytest.raises(BadRowError, match=rf"^a\.jsonl:{at + 1}: "):
        read(path, unit_bytes=unit_bytes)


def test_an_element_of_an_array_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "a"},\n\n{"text": 2}]')
    with pytest.raises(BadRowError, match=r"^a\.json:2: Expected `str`, got `int`"):
        read(tmp_path / "a.json")


def test_control_characters_of_a_row_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", {"text": "first"}, b'{"text":"\x1b[31m\xe2\x80\xae"}\n')
    with pytest.raises(BadRowError) as caught:
        read(path)
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


# --- text files ---


def test_a_text_file_that_is_not_utf8_is_named_by_document_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one--two\xff--three")
    with pytest.raises(BadRowError, match=r"^a\.txt: document 1, byte 3: not UTF-8: invalid start byte"):
        read(tmp_path / "a.txt", split_on="--")


def test_text_files_need_no_field(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert fields_of(tmp_path / "a.txt") == Fields(())
    for options in ({"field": "text"}, {"template": "{text}"}):
        with pytest.raises(FieldError, match=r"say nothing about \.txt files"):
            fields_of(tmp_path / "a.txt", **options)


# --- columns ---


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("at", [0, 7, 2999])
@pytest.mark.parametrize("unit_bytes", [1 << 20, 1000])
def test_a_null_is_named_by_its_row(tmp_path: Path, suffix: str, at: int, unit_bytes: int) -> None:
    texts: list[str | None] = ["ok"] * 3000
    texts[at] = None
    path = write_columns(tmp_path / f"a{suffix}", pa.table({"text": texts}))
    with pytest.raises(BadRowError, match=rf"^a\{suffix}: row {at}: 'text' is null"):
        read(path, unit_bytes=unit_bytes)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_bad_utf8_in_a_column_is_named_by_its_row(tmp_path: Path, suffix: str, dictionary: bool) -> None:
    """Parquet readers let it pass: a string column is bytes to them."""
    values = [b"ok"] * 2000 + [b"a\xff"] + [b"ok"] * 10
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    column = pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(values)))
    path = write_columns(
        tmp_path / f"a{suffix}", pa.table({"text": column.dictionary_encode() if dictionary else column})
    )
    with pytest.raises(BadRowError, match=rf"^a\{suffix}: row 2000: 'text' is not UTF-8: invalid start byte"):
        read(path)


def write_columns(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=1000)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize(
    "values",
    [[1], [1.5], [True], [b"bytes"], [["a"]], [{"a": "b"}], [None]],
    ids=["int", "float", "bool", "binary", "list", "struct", "null"],
)
def test_a_column_that_is_not_text_is_refused(tmp_path: Path, suffix: str, values: list[object]) -> None:
    path = write_columns(tmp_path / f"a{suffix}", pa.table({"text": values, "n": [1]}))
    with pytest.raises(FieldError, match="no field holds text: text "):
        fields_of(path)
    with pytest.raises(FieldError, match=rf"^a\{suffix}: column 'text' is .*, not text; it has text .*, n \(int64\)"):
        fields_of(path, "text")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_every_columnar_file_must_have_the_column(tmp_path: Path, suffix: str) -> None:
    """It is said before the run, not after the first terabyte."""
    write_columns(tmp_path / f"a{suffix}", pa.table({"text": ["a"]}))
    write_columns(tmp_path / f"b{suffix}", pa.table({"body": ["b"]}))
    with pytest.raises(FieldError, match=rf"^b\{suffix}: no column 'text'; it has body \(string\)"):
        fields_of(tmp_path)


def test_a_column_named_like_a_path_is_a_column(tmp_path: Path) -> None:
    write_columns(tmp_path / "a.parquet", pa.table({"a": [{"b": "nested"}], "a.b": ["flat"], "text": ["t"]}))
    assert read(tmp_path / "a.parquet", field="a.b") == [(0, "flat")]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(FieldError, match=r"^a\.parquet: no column 'text'; it has text \(string\), text"):
        fields_of(write_columns(tmp_path / "a.parquet", table))


# --- which field ---


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"text": "a"}, "text"),
        ({"id": "x", "text": "a", "url": "u"}, "text"),
        ({"id": 1, "body": "a", "score": 0.5, "ok": True}, "body"),
        ({"text": "a", "tags": ["x"], "meta": {"a": "b"}, "n": None}, "text"),
        ({"text": 1, "body": "a"}, "body"),
        ({"": "a"}, ""),
    ],
)
def test_the_text_is_found(tmp_path: Path, row: dict[str, object], name: str) -> None:
    assert fields_of(put(tmp_path / "a.jsonl", row)) == Fields((name,))
    assert read(tmp_path / "a.jsonl") == [(0, "a")]


def test_several_fields_that_could_be_the_text_are_listed(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", {"question": "a", "n": 1, "answer": "b"})
    with pytest.raises(FieldError) as caught:
        fields_of(path)
    listed = "several fields could be the text: question (string), n (number), answer (string)"
    assert caught.value.message == f"a.jsonl: {listed}"
    assert "--text-template '{question}\\n{answer}'" in caught.value.hint


def test_no_field_that_could_be_the_text_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", {"n": 1, "l": [], "o": {}, "b": True, "z": None})
    kinds = r"n \(number\), l \(array\), o \(object\), b \(boolean\), z \(null\)"
    with pytest.raises(FieldError, match=rf"no field holds text: {kinds}"):
        fields_of(path)
    with pytest.raises(FieldError, match="nothing: the record is empty"):
        fields_of(put(tmp_path / "a.jsonl", {}))


def test_a_field_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", {"content": "a", "n": 1})
    with pytest.raises(FieldError, match=r"no field 'contnet'; did you mean 'content'\?\n--text-field can use content"):
        fields_of(path, "contnet")
    with pytest.raises(FieldError, match=r"no field 'contnet'; did you mean 'content'\?\n--text-template can use"):
        fields_of(path, None, "{content} {contnet}")


def test_a_first_record_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    for row, kind in (("a", "string"), (1, "number"), (None, "null")):
        with pytest.raises(FieldError, match=rf"^a\.jsonl:2: the first record is {kind}, not an object"):
            fields_of(put(tmp_path / "a.jsonl", b"\n", row))


def test_the_first_record_may_come_late(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", b"\n  \n")
    put(tmp_path / "b.jsonl", b"\n\n \t\r\n", {"body": "b"})
    assert fields_of(tmp_path) == Fields(("body",))
    assert read(tmp_path) == [(3, "b")]


def test_no_record_at_all_is_no_input(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", b"\n  \n")
    with pytest.raises(NoInputError, match=r"a\.jsonl: no record in it$"):
        fields_of(tmp_path / "a.jsonl")
    put(tmp_path / "b.jsonl", b"\xef\xbb\xbf")
    with pytest.raises(NoInputError, match=r"no record in it, nor in the others$"):
        fields_of(tmp_path)
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(NoInputError, match=r"c\.json: no record in it$"):
        fields_of(tmp_path / "c.json")


# --- templates ---


@given(question=st.text("ab{}0:!\\\n é", max_size=12), answer=st.text("ab{}0\n", max_size=12))
def test_braces_in_values_stay_as_they_are(tmp_path: Path, question: str, answer: str) -> None:
    """str.format on the values would run what a stranger wrote: '{0.__class__}'."""
    path = put(tmp_path / "a.jsonl", {"answer": answer, "question": question})
    template = "{{Q}} {question}\n{answer}|{question}{{}}"
    assert read(path, template=template) == [(0, f"{{Q}} {question}\n{answer}|{question}{{}}")]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".arrow"])
def test_a_template_is_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    rows = [{"b": "{a}", "n": 1, "a": "{{0}}"}, {"b": "", "n": 2, "a": "{f0!r}"}]
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        put(path, *rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        write_columns(path, pa.Table.from_pylist(rows))
    assert read(path, template="{a}-{b}-{a}") == [(0, "{{0}}-{a}-{{0}}"), (1, "{f0!r}--{f0!r}")]


def test_a_field_of_a_template_that_is_missing_in_a_row_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", {"a": "x", "b": "y"}, {"a": "x"})
    with pytest.raises(BadRowError, match=re.escape("a.jsonl:2: Object missing required field `b`")):
        read(path, template="{a}{b}")


def test_field_names_that_are_no_identifiers_work(tmp_path: Path) -> None:
    names = ["class", "f0", "f1", "a b", "é", "a.b", "__init__", "'"]
    path = put(tmp_path / "a.jsonl", {name: f"<{name}>" for name in names})
    for name in names:
        assert read(path, field=name) == [(0, f"<{name}>")]
    assert read(path, template="{class}{f1}{f0}{a b}") == [(0, "<class><f1><f0><a b>")]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_field_name_that_msgspec_cannot_take_is_refused_before_the_run(tmp_path: Path, name: str) -> None:
    """Only of JSON: a column may be called so."""
    with pytest.raises(FieldError, match="has a quote, backslash or control character in its name"):
        fields_of(put(tmp_path / "a.jsonl", {name: "x"}))
    assert read(write_columns(tmp_path / "a.parquet", pa.table({name: ["x"]}))) == [(0, "x")]
