"""Record shapes: which one a first record has, which fields its parts come from, and what of a row is refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packcli.errors import BadRowError, FieldError, UnknownNameError, UsageError
from packcli.readers import RowExtractor, cut_units, find_fields, find_sources, read_parts

MESSAGES = [{"role": "user", "content": "q"}]


def sources_of(tmp_path, *rows):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return find_sources([str(path)], [])


def find(sources, format_=None, *mapped, field=None, template=None):
    return find_fields(sources, field, template, format_=format_, mapped=mapped)


def read(sources, fields):
    """(row number, parts) of every row."""
    extract = RowExtractor(fields, sources)
    out = []
    for unit in cut_units(sources, 1 << 20):
        for part in read_parts(unit, sources, fields, unit_bytes=1 << 20):
            for chunk in part.chunks():
                rows, numbers = extract(chunk)
                out += zip(numbers.tolist(), rows, strict=True)
    return out


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "a", "id": 3}, "text"),
        ({"body": "a", "id": 3}, "text"),
        ({"prompt": "a", "completion": "b"}, "prompt-completion"),
        ({"prompt": MESSAGES, "completion": MESSAGES}, "prompt-completion"),
        ({"messages": MESSAGES, "prompt": "a", "prompt_id": "b"}, "chat"),
        ({"conversations": [{"from": "human", "value": "a"}], "id": "x"}, "sharegpt"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        ({"instruction": "a", "input": "", "output": "b", "response": "b"}, "alpaca"),
        ({"instruction": "a", "response": "b"}, "alpaca"),
        ({"input_ids": [1], "labels": [1]}, "tokenized"),
    ],
)
def test_shapes_are_found(tmp_path, record, expected):
    assert find(sources_of(tmp_path, record)).format == expected


@pytest.mark.parametrize(
    ("record", "choices"),
    [
        ({"text": "a", "messages": MESSAGES}, "--format text or --format chat"),
        ({"text": "a", "instruction": "b", "output": "c"}, "--format text or --format alpaca"),
        ({"input_ids": [1], "text": "a"}, "--format text or --format tokenized"),
    ],
)
def test_several_shapes_are_an_error_that_names_them(tmp_path, record, choices):
    sources = sources_of(tmp_path, record)
    with pytest.raises(FieldError, match="the records could be text") as caught:
        find(sources)
    assert caught.value.hint == f"choose with {choices}"
    assert find(sources, choices.split()[-1]).format == choices.split()[-1]
    assert find(sources, "text").names == ("text",)
    assert find(sources, field="text").format == "text"


def test_two_strings_say_how_to_map_them(tmp_path):
    with pytest.raises(FieldError, match="several fields could be the text") as caught:
        find(sources_of(tmp_path, {"question": "a", "answer": "b"}))
    assert "--field prompt=question --field completion=answer" in caught.value.hint


def test_mapped_parts_tell_the_shape(tmp_path):
    sources = sources_of(tmp_path, {"q": "a{b}", "a": "c", "talk": MESSAGES, "ids": [1, 2]})
    fields = find(sources, None, "prompt=q", "completion=a")
    assert (fields.format, fields.names[:2], fields.has_messages) == ("prompt-completion", ("q", "a"), False)
    assert read(sources, fields) == [(0, ("a{b}", "c", None, None))]
    fields = find(sources, None, "prompt={a}: {q} {{!}}\n", "completion=a")
    assert read(sources, fields)[0][1][:2] == ("c: a{b} {!}\n", "c")
    assert find(sources, None, "messages=talk").has_messages
    assert find(sources, None, "input_ids=ids").format == "tokenized"
    assert find(sources, None, "text={q}{a}").template == "{q}{a}"


@pytest.mark.parametrize(
    ("format_", "mapped", "error", "message"),
    [
        (None, ("promt=q", "completion=a"), UnknownNameError, "did you mean 'prompt'"),
        (None, ("prompt=q",), FieldError, "no record shape has the parts prompt"),
        ("prompt-completion", ("prompt=x", "completion=a"), FieldError, "no field 'x' for the prompt"),
        ("prompt-completion", ("prompt={qq}", "completion=a"), FieldError, "no field 'qq' for the prompt"),
        ("chat", (), FieldError, "no field 'messages' for the messages"),
        ("chat", ("prompt=q",), UsageError, "--format chat has no part 'prompt'"),
        (None, ("prompt=q", "prompt=a"), UsageError, "--field prompt=... is given twice"),
    ],
)
def test_mappings_that_are_refused(tmp_path, format_, mapped, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        find(sources_of(tmp_path, {"q": "a", "a": "c"}), format_, *mapped)


def test_shapes_say_nothing_about_plain_text(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    sources = find_sources([str(tmp_path / "a.txt")], [])
    with pytest.raises(FieldError, match="say nothing about .txt files"):
        find(sources, "chat")
    both = [*sources_of(tmp_path, {"messages": MESSAGES}), *sources]
    with pytest.raises(FieldError, match="there are .txt files"):
        find(both, "chat")


def test_optional_parts_may_come_and_go(tmp_path):
    rows = [{"messages": MESSAGES}, {"messages": MESSAGES, "tools": [{"a": 1}]}, {"messages": "[]", "tools": None}]
    sources = sources_of(tmp_path, *rows)
    assert read(sources, find(sources)) == [
        (0, (MESSAGES, None, None)),
        (1, (MESSAGES, [{"a": 1}], None)),
        (2, ("[]", None, None)),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": None}, "Expected `str | array`, got `null`"),
        ({"messages": [3]}, "Expected `object`, got `int`"),
        ({"talk": []}, "missing required field `messages`"),
        ({"messages": [], "tools": 3}, "Expected `str | array | null`"),
        (3, "Expected `object`, got `int`"),
    ],
)
def test_bad_rows_have_a_line(tmp_path, row, message):
    sources = sources_of(tmp_path, {"messages": MESSAGES}, row)
    with pytest.raises(BadRowError, match=r"data.jsonl:2: ") as caught:
        read(sources, find(sources))
    assert message in caught.value.message


def test_bad_rows_of_columns_have_a_row(tmp_path):
    def fields_of(column):
        pq.write_table(pa.table({"input_ids": column}), tmp_path / "t.parquet")
        sources = find_sources([str(tmp_path / "t.parquet")], [])
        return sources, find(sources, "tokenized")

    for values, message in (([[1], None], "'input_ids' is null"), ([[1], [None, 2]], "'input_ids' holds a null")):
        with pytest.raises(BadRowError, match=f"row 1: {message}"):
            read(*fields_of(pa.array(values, pa.list_(pa.int32()))))
    with pytest.raises(FieldError, match="not a list of integers"):
        fields_of(pa.array([["a"]]))
    pq.write_table(pa.table({"messages": ["[]", None]}), tmp_path / "c.parquet")
    sources = find_sources([str(tmp_path / "c.parquet")], [])
    with pytest.raises(BadRowError, match="row 1: 'messages' is null"):
        read(sources, find(sources, "chat"))
    pq.write_table(pa.table({"messages": [[3, 4]]}), tmp_path / "c.parquet")
    with pytest.raises(FieldError, match="not text or messages"):
        find(sources, "chat")
