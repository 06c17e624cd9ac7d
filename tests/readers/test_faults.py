"""What is wrong with a row is told from its bytes: no version of a library, and no word of it, changes what is said."""

import json
import re
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_lines import LINES
from hypothesis import given
from hypothesis import strategies as st

import packcli
from packcli import errors
from packcli.readers.faults import first_fault, judge, judge_value
from packcli.readers.json_decoder import RecordDecoder, repaired

# --- bytes that are no UTF-8, in every kind of file ---

NO_UTF8 = {
    "never UTF-8": (b"\xff", "invalid start byte", 1),
    "an overlong NUL": (b"\xc0\x80", "invalid start byte", 2),
    "a surrogate": (b"\xed\xa0\x80", "invalid continuation byte", 3),
    "half a character": (b"\xe2\x82", "invalid continuation byte", 1),
    "past U+10FFFF": (b"\xf4\x90\x80\x80", "invalid continuation byte", 4),
}
"""Name -> bytes, what is said of them before other text, and how many U+FFFD stand for them."""

BEFORE, AFTER = b'{"text":"', b'"}'
MESSAGES = b'[{"role":"user","content":"caf'
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def as_text(values):
    """A column of strings that hold any bytes: nobody looks."""
    return pa.array(values, pa.binary()).view(pa.string())


def nested(values):
    talk = pa.StructArray.from_arrays([pa.array(["user"] * 3), as_text(values)], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), talk)


def json_of(content):
    return b'[{"role":"user","content":"' + content + b'"}]'


def write(path, contents):
    """Three rows of these contents; returns what is said before and after the words for the bytes of the second."""
    kind = path.stem
    if path.suffix == ".parquet":
        columns = {
            "text": lambda: ("text", as_text(contents)),
            "nested": lambda: ("messages", nested(contents)),
            "json": lambda: ("messages", as_text([json_of(each) for each in contents])),
        }
        name, column = columns[kind]()
        pq.write_table(pa.table({name: column}), path)
        at = {"text": 3, "nested": 33, "json": len(MESSAGES)}[kind]
        whose = "JSON of it" if kind == "nested" else "value"
        return f"{path.name}: row 1: '{name}' is not UTF-8: ", f" at byte {at} of the {whose}"
    if path.suffix == ".txt":
        path.write_bytes(b"|".join(contents))
        return f"{path.name}: document 1, byte 3: not UTF-8: ", ""
    rows = [BEFORE + each + AFTER for each in contents]
    path.write_bytes(b"[" + b",\n".join(rows) + b"]" if path.suffix == ".json" else b"\n".join(rows))
    return f"{path.name}:2: not UTF-8: ", f" at byte {len(BEFORE) + 3} of the row"


@pytest.mark.parametrize("bad", NO_UTF8)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "text.parquet", "nested.parquet", "json.parquet"])
def test_bytes_that_are_no_utf8_are_named_counted_and_mended(tmp_path, tokenizer_dir, name, bad):
    """With another msgspec such rows would be called no JSON, without the byte, and counted so in rejected.jsonl."""
    raw, words, num_marks = NO_UTF8[bad]
    before, after = write(tmp_path / name, [b"one", b"caf" + raw + b" x", b"three"])
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    has_messages = name.startswith(("nested", "json"))
    settings = {"chat_template": str(tmp_path / "t.jinja"), "loss": "all"} if has_messages else {}
    settings |= {"split_on": "|"} if name == "a.txt" else {}
    settings |= {"format": "chat"} if name == "json.parquet" else {}

    def pack(output, **more):
        settings_ = {"tokenizer": str(tokenizer_dir), "workers": 1, "tokenizer_engine": "tokenizers", "max_len": 64}
        return packcli.pack(str(tmp_path / name), tmp_path / output, **settings_, **settings, **more)

    with pytest.raises(errors.BadRowError) as caught:
        pack("stop")
    assert caught.value.message.splitlines()[0] == before + words + after
    assert caught.value.cause == "not-utf8"
    assert "--lenient" in caught.value.hint
    report = pack("skip", on_error="skip", max_bad=1)
    assert (report.stats.rejected_by_cause, report.stats.num_documents_packed) == ({"not-utf8": 1}, 2)
    (entry,) = map(json.loads, (tmp_path / "skip" / "rejected.jsonl").read_bytes().splitlines())
    assert (entry["row"], entry["cause"]) == (1, "not-utf8")
    assert f"{entry['place']}: {entry['message']}" == before + words + after
    report = pack("lenient", lenient=True)
    assert (report.stats.num_rows_repaired, report.stats.num_documents_packed) == (1, 3)
    write(tmp_path / name, [b"one", b"caf" + "\ufffd".encode() * num_marks + b" x", b"three"])
    pack("clean")
    one, other = (packcli.load(str(tmp_path / each), row_type="list") for each in ("lenient", "clean"))
    assert one["input_ids"][:] == other["input_ids"][:] != []


def test_a_mark_at_the_beginning_of_a_text_file_is_counted_in_bytes(tmp_path, tokenizer_dir):
    """The byte would be three too few."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(errors.BadRowError, match="document 0, byte 5: not UTF-8: invalid start byte"):
        packcli.pack(str(tmp_path / "a.txt"), tmp_path / "out", tokenizer=str(tokenizer_dir), workers=1)


# --- whatever the decoder says ---

ODD = [
    ValueError("Invalid UTF-8 encoded string"),
    UnicodeDecodeError("utf-8", b"a", 0, 1, "Object missing required field"),
    msgspec.DecodeError("Expected `object`, got `null` - at `$`"),
    msgspec.ValidationError("Input data was truncated"),
    RecursionError("trailing characters (byte 1)"),
]


@pytest.mark.parametrize("error", ODD, ids=repr)
def test_no_word_and_no_class_of_a_decoder_decides(monkeypatch, error):
    """The next version of msgspec would count other causes for the same rows."""
    real = msgspec.json.Decoder

    class Odd:
        def __init__(self, *arguments, **options):
            self._decode = real(*arguments, **options).decode

        def decode(self, raw):
            try:
                return self._decode(raw)
            except Exception:
                raise error from None

    monkeypatch.setattr(msgspec.json, "Decoder", Odd)
    decoder = RecordDecoder({"text": str})
    for line, cause, words, mended in LINES.values():
        assert decoder.one(line) is None
        assert decoder.judge(line, mended=False) == (cause, words)
        if mended is not None:
            assert decoder.one(repaired(line)).f0 == mended
    assert decoder.all([b'{"text":"a"}', *LINES["half a character"][:1]]) is None


MESSAGES_OR_TEXT, IDS = list[dict[str, Any]] | str, list[int | bool]
TYPES = {"messages": MESSAGES_OR_TEXT, "tools": list[Any] | str, "kwargs": dict[str, Any] | str, "ids": IDS}
OPTIONAL = frozenset(TYPES) - {"messages"}
DEEP = b'{"messages":[],"x":' + b"[" * 100_000 + b"]" * 100_000
VERDICTS = [
    (b'{"messages":null}', "null", "Expected `str | array`, got `null` - at `$.messages`"),
    (b'{"messages":{}}', "wrong-type", "Expected `str | array`, got `object` - at `$.messages`"),
    (b'{"messages":[{},3]}', "wrong-type", "Expected `object`, got `int` - at `$.messages[1]`"),
    (b'{"messages":[null]}', "null", "Expected `object`, got `null` - at `$.messages[0]`"),
    (b'{"messages":[],"tools":3}', "wrong-type", "Expected `str | array | null`, got `int` - at `$.tools`"),
    (b'{"messages":[],"kwargs":[]}', "wrong-type", "Expected `str | object | null`, got `array` - at `$.kwargs`"),
    (b'{"messages":[],"ids":{}}', "wrong-type", "Expected `array | null`, got `object` - at `$.ids`"),
    (b'{"messages":[],"ids":[1,1.0]}', "wrong-type", "Expected `bool | int`, got `float` - at `$.ids[1]`"),
    (b'{"messages":[],"ids":[null]}', "null", "Expected `bool | int`, got `null` - at `$.ids[0]`"),
    (b'{"messages":[],"ids":[' + b"9" * 5000 + b"]}", "wrong-type", "a number is out of range"),
    (b'{"messages":[{"a":{"b":[1e999]}}]}', "wrong-type", "a number is out of range"),
    (b'{"ids":[1],"tools":null}', "missing-field", "Object missing required field `messages`"),
    (b'{"messages":[],"x":1,"ids":[],"ids":[]}', "duplicate-field", "the field 'ids' stands 2 times"),
    (b'{"messages":[],"messages":1}', "wrong-type", "Expected `str | array`, got `int` - at `$.messages`"),
    (b'{"messages":1,"x":"\xff"}', "not-utf8", "not UTF-8: invalid start byte at byte 19 of the row"),
    (b'{"messages":1,"x":NaN}', "not-json", "not valid JSON: JSON is malformed: invalid character (byte 18)"),
    (DEEP + b"}", "too-deep", "not readable JSON: nested too deeply"),
    (b"1.5", "not-object", "Expected `object`, got `float`"),
    (b" ", "not-json", "not valid JSON: nothing stands there"),
]


@pytest.mark.parametrize(("raw", "cause", "words"), VERDICTS, ids=range(len(VERDICTS)))
def test_what_is_wrong_with_records(raw, cause, words):
    """Bytes first, then whether it is JSON, then types, then what is missing, then what stands twice."""
    assert RecordDecoder(TYPES, OPTIONAL).one(raw) is None
    assert judge(raw, TYPES, OPTIONAL) == (cause, words)


def test_what_is_wrong_with_values():
    assert judge_value(b"[3]", MESSAGES_OR_TEXT, False) == ("wrong-type", "Expected `object`, got `int` - at `$[0]`")
    assert judge_value(b"1.5", dict[str, Any] | str, False) == ("wrong-type", "Expected `str | object`, got `float`")
    assert judge_value(b'"\\ud800"', str, False)[0] == "lone-surrogate"


PIECES = [
    *b'{}[],:"\\u-.0e1 \x00\n',
    *b"tfn",
    "true",
    "null",
    '"text"',
    '"ids"',
    '"a"',
    "12",
    "1e999",
    '"\\ud800"',
    "\xff",
]
JSON_LIKE = st.lists(st.sampled_from([chr(each) if isinstance(each, int) else each for each in PIECES]), max_size=14)


@given(pieces=JSON_LIKE, in_record=st.booleans())
def test_every_row_that_is_refused_has_a_cause_and_the_byte_is_the_first_wrong_one(pieces, in_record):
    inside = "".join(pieces).encode("latin-1")
    raw = b'{"text":"a","ids":[],' + inside + b"}" if in_record else inside
    decoder = RecordDecoder({"text": str, "ids": IDS})
    if decoder.one(raw) is None:
        cause, words = decoder.judge(raw, mended=False)
        assert "cannot tell" not in words
        found = re.fullmatch(r"not valid JSON: JSON is malformed: .*\(byte (\d+)\)", words)
        assert (cause == "not-json") == bool(found or words.endswith(("truncated", "nothing stands there")))
        if found:  # what is before it could become JSON, and with it nothing can
            assert first_fault(raw[: int(found[1])]) in ("Input data was truncated", "nothing stands there")
            assert first_fault(raw[: int(found[1]) + 1]) == first_fault(raw) != "Input data was truncated"
    else:
        json.loads(raw.decode("utf-8", "replace"))
