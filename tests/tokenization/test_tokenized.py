"""Tokenized input, in rows and in columns: taken as it is, or refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_documents import pack, unpacked, write_rows

from packcli import errors
from packcli.tokenization.documents import check_tokenized

# Parquet and Arrow.


def test_parquet_gives_what_jsonl_gives(tmp_path):
    """Nested columns, tools as JSON in a string, and structs that Arrow fills up with nulls."""
    # Keys in this order, into which pyarrow before 24 puts those of dicts.
    call = {"function": {"arguments": {"a": 1}, "name": "f"}, "type": "function"}
    other = {"function": {"arguments": {"b": "x"}, "name": "g"}, "type": "function"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [other]}]},
        {"messages": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "s"}], "tools": tools},
    ]
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% generation %}{{ m['content'] }}{% if m['tool_calls'] %}{{ m['tool_calls'] | tojson }}{% endif %}<|im_end|>"
        "{% endgeneration %}{% endfor %}"
    )
    write_rows(tmp_path / "c.jsonl", rows)
    strings = [{**row, "tools": json.dumps(row["tools"]) if "tools" in row else None} for row in rows]
    pq.write_table(pa.Table.from_pylist(strings), tmp_path / "c.parquet")
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file:
        table = pa.Table.from_pylist([{**row, "tools": row.get("tools")} for row in rows])
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    made = [
        unpacked(pack(tmp_path / name, tmp_path / f"c.{name}", chat_template=str(template)).output)
        for name in ("jsonl", "parquet", "arrow")
    ]
    # An empty object has no columns in Arrow: it is gone from the tools of the stream.
    assert made[0] == made[1]
    assert {row: made[0][row] for row in (0, 1)} == {row: made[2][row] for row in (0, 1)}


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.uint16(), 3)])
def test_tokenized_columns(tmp_path, kind):
    columns = {
        "input_ids": pa.array([[5, 6, 7], [8, 9, 10]], kind),
        "loss_mask": pa.array([[False, False, True], [False, True, True]], pa.list_(pa.bool_())),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    documents = unpacked(pack(tmp_path / "out", tmp_path / "t.parquet").output)
    assert documents == {0: ([5, 6, 7], [-100, -100, 7]), 1: ([8, 9, 10], [-100, 9, 10])}


# Tokenized input.


def test_tokenized_rows(tmp_path):
    rows = [
        {"input_ids": [5, 6, 7, 1, 1], "attention_mask": [1, 1, 1, 0, 0], "labels": [-100, 6, 7, -100, -100]},
        {"input_ids": [5, 6, 0], "completion_mask": [0, 1, 1], "assistant_masks": [1, 1, 0]},
        {"input_ids": [9, 9]},
        {"input_ids": []},
    ]
    source = write_rows(tmp_path / "t.jsonl", rows)
    report = pack(tmp_path / "out", source)
    assert unpacked(tmp_path / "out") == {
        0: ([5, 6, 7], [-100, 6, 7]),
        1: ([5, 6, 0], [-100, 6, -100]),
        2: ([9, 9], [-100, 9]),
    }
    assert (report.stats.num_tokens_padding_in, report.stats.num_documents_empty) == (2, 1)
    pack(tmp_path / "eos", source, add_eos=True)
    assert [ids for _, (ids, _) in sorted(unpacked(tmp_path / "eos").items())] == [[5, 6, 7, 0], [5, 6, 0], [9, 9, 0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [5, 6, 7], "labels": [6, 7, -100]}, "labels are shifted already"),
        ({"input_ids": [5, 6, 7], "labels": [-100, 7, 0]}, "labels are shifted already"),
        ({"input_ids": [5, 6, 7], "labels": [5, 6, 9]}, r"labels\[2\] is 9 and input_ids\[2\] is 7"),
        ({"input_ids": [5, 6, 7], "labels": [5, 6]}, "labels has 2 entries and input_ids 3"),
        ({"input_ids": [5, 6, 32768]}, "input_ids holds 32768, and the tokenizer has ids 0..32767"),
        ({"input_ids": [5, -1]}, "input_ids holds -1"),
        ({"input_ids": [5, 2**70]}, "input_ids holds a number that is no token id"),
        ({"input_ids": [5, 6], "loss_mask": [0, 2]}, "loss_mask holds 2, not 0 or 1"),
        ({"input_ids": [5, 6], "attention_mask": [1, 2]}, "is packed already"),
        ({"input_ids": [5, 6, 7], "attention_mask": [1, 0, 1]}, "it can only say where padding is"),
        ({"input_ids": "abc"}, "Expected `array`"),
        ({"input_ids": [5, 1.5]}, "Expected `bool | int`"),
    ],
)
def test_tokenized_rows_that_are_refused(tmp_path, row, message):
    source = write_rows(tmp_path / "t.jsonl", [{"input_ids": [5, 6, 7]}, row])
    with pytest.raises(errors.BadRowError, match=message.replace("|", r"\|")) as caught:
        pack(tmp_path / "out", source)
    assert "t.jsonl:2: " in caught.value.message


def test_ids_alone_are_not_taken_for_shifted():
    """A row of one repeated id is its own shift."""
    ids, loss, _ = check_tokenized({"input_ids": [4, 4, 4], "labels": [4, 4, -100]}, 100)
    assert (ids.tolist(), loss.tolist()) == ([4, 4, 4], [True, True, False])
