"""What the records of an input tell together: nothing is taken for the text that may be something else."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packcli.errors import BadRowError, FieldError
from packcli.readers import find_fields, find_sources
from packcli.readers.survey import schema_of, survey

MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def put(tmp_path, rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def find(*paths, **settings):
    return find_fields(find_sources([str(path) for path in paths], [], **settings), None, None)


FOUND = {
    "a null before the texts": ([{"id": "doc-1", "text": None}, {"id": "doc-2", "text": "The fox."}], "text", "text"),
    "a first record without its text": ([{"id": "doc-1"}, {"id": "doc-2", "text": "The fox."}], "text", "text"),
    "null messages before others": ([{"id": "", "messages": None}, {"messages": MESSAGES}], "chat", "messages"),
    "no messages before others": ([{"id": "a", "messages": []}, {"id": "b", "messages": MESSAGES}], "chat", "messages"),
    "messages as JSON in a string": ([{"messages": json.dumps(MESSAGES), "id": "a"}], "chat", "messages"),
    "turns as JSON in a string": ([{"conversations": json.dumps(TURNS)}], "sharegpt", "conversations"),
    "an optional field that comes late": ([{"instruction": "a", "output": "b"}, {"instruction": "a", "output": None}],
                                          "alpaca", "instruction"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_many_records_tell_the_shape(tmp_path, case):
    """The first record alone would train on its id."""
    rows, shape, name = FOUND[case]
    fields = find(put(tmp_path, rows))
    assert (fields.format, fields.names[0]) == (shape, name)


REFUSED = {
    "only an id": ([{"id": "doc-1", "n": 1}], "no field is surely the text: id (string)", "--text-field id"),
    "a null text": ([{"id": "a", "text": None}], "id (string), text (null)", "--text-field id"),
    "null messages": ([{"id": "a", "messages": None}], "id (string), messages (null)", "--text-field id"),
    "conversation": ([{"id": "a", "conversation": MESSAGES}], "array of messages", "--field messages=conversation"),
    "dialog": ([{"topic": "a", "dialog": TURNS}], "array of turns", "--field conversations=dialog"),
    "Messages": ([{"Messages": MESSAGES}], "no field holds text", "--field messages=Messages"),
    "tokens": ([{"id": "a", "tokens": [1, 2]}], "tokens (array of integers)", "--field input_ids=tokens"),
    "turns of strings": ([{"id": "a", "turns": ["q", "a"]}], "turns (array)", ""),
    "an object that holds the data": ([{"version": "1", "data": [{"text": "a"}]}], "data (array of objects)", ""),
    "a body beside a list": ([{"body": "a", "parts": []}], "body (string), parts (array)", "--text-field body"),
    "a body beside an object": ([{"body": "a", "meta": {}}], "body (string), meta (object)", "--text-field body"),
    "a body that is sometimes a list": ([{"body": "a"}, {"body": ["a"]}], "body (string or array)", ""),
    "pairs": ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "preference pairs (chosen, rejected)",
              "--field prompt=prompt --field completion=chosen trains on the chosen answers alone"),
    "pairs of chats": ([{"prompt": "a", "chosen": MESSAGES, "rejected": MESSAGES}], "preference pairs",
                       "--field messages=chosen trains"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_sure_is_refused_with_the_option_to_paste(tmp_path, case):
    """Each of these trained on an id, on a prompt alone, or on a version number, with exit code 0."""
    rows, message, hint = REFUSED[case]
    with pytest.raises(FieldError) as caught:
        find(put(tmp_path, rows))
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": pa.array(["a"]), "talk": pa.array([MESSAGES])}, "--field messages=talk"),
        ({"id": pa.array(["a"]), "talk": pa.array([TURNS])}, "--field conversations=talk"),
        ({"id": pa.array(["a"]), "text": pa.nulls(1)}, "text (null)"),
        ({"id": pa.array(["a"]), "text": pa.array([b"bytes"])}, "text (binary)"),
        ({"body": pa.array(["a"]), "blob": pa.array([b"bytes"])}, "--text-field body"),
        ({"url": pa.array(["a"]), "size": pa.array([1])}, "no field is surely the text: url (string), size (int64)"),
    ],
)
def test_the_whole_schema_tells(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(FieldError) as caught:
        find(tmp_path / "a.parquet")
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_a_file_of_another_shape_is_named(tmp_path):
    """Its rows would be bad ones, a thousand times, long after the first file was packed."""
    one = put(tmp_path, [{"messages": MESSAGES}], "a.jsonl")
    other = put(tmp_path, [{"instruction": "a", "output": "b"}], "b.jsonl")
    with pytest.raises(FieldError, match=r"b.jsonl: records of another shape: alpaca; those of .*a.jsonl are chat"):
        find(one, other)
    with pytest.raises(FieldError, match=r"b.jsonl: no field 'messages' in its records: instruction \(string\)"):
        find_fields(find_sources([str(one), str(other)], []), None, None, format_="chat")


def test_a_later_bad_record_is_left_to_the_run(tmp_path):
    """The run names it, keeps what is committed, and may pass over it; a bad first record ends it at once."""
    path = put(tmp_path, [{"text": "a"}])
    path.write_text(path.read_text() + "not JSON\n[]\n")
    assert find(path).names == ("text",)
    path.write_text("not JSON\n" + path.read_text())
    with pytest.raises(BadRowError, match=r"data.jsonl:1: not valid JSON"):
        find(path)
    assert find(path, skip_bad=True).names == ("text",)


def test_no_more_than_the_beginning_of_a_file_is_read(tmp_path):
    path = put(tmp_path, [{"text": "a"}] * 150 + [{"late": "b"}])
    ((_, found),) = survey(find_sources([str(path)], []), schema_of)
    assert found == {"text": "string"}
