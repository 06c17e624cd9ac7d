"""Rows that cannot be used: the first ends the run, or each is passed over and kept, and no other row is lost."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_lines import LINES
from hypothesis import given
from hypothesis import strategies as st
from rejected_rows import pack, raw_of, rejected

from packcli import errors
from packcli.config.bad_rows import CAUSES
from packcli.readers import BadRows, Fields, TextExtractor, cut_units, files, find_fields, find_sources, read_parts
from packcli.readers.json_decoder import repaired
from packcli.verification import verify

KEYS = ["source", "row", "place", "byte", "cause", "message", "num_bytes"]


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def taken(path, *, lenient=False, split_on=None, unit_bytes=1 << 20, **rules):
    """What the readers make of a file: {row: text}, and the entries of its bad rows, in their order."""
    sources = find_sources([str(path)], [], skip_bad=True, lenient=lenient, **rules)
    fields = Fields(()) if ".txt" in path.name else find_fields(sources, "text", None)
    found, texts = [], {}
    bad_rows = BadRows(sources, found.append)
    extract = TextExtractor(fields, sources, bad_rows)
    for unit in cut_units(sources, unit_bytes):
        for part in read_parts(unit, sources, fields, unit_bytes=unit_bytes, split_on=split_on):
            for chunk in part.chunks():
                new, rows = extract(chunk)
                bad_rows.flush()
                assert not set(texts) & set(rows.tolist())
                texts |= zip(rows.tolist(), new, strict=True)
    entries = [json.loads(each.entry) for each in found]
    assert bad_rows.num_rows == len(texts) + len(entries)
    assert [each["row"] for each in entries] == sorted({each["row"] for each in entries} - set(texts))
    return texts, entries, bad_rows


# --- lines: 43 kinds, in every file that holds JSON ---

NOT_IN_ARRAYS = ("a mark in the middle of the file", "cut in the text", "cut before the brace")
"""A mark is one only in a line; what is cut ends the array."""


def json_file(path):
    """A good row and a bad one in turn: {row: text} of the good ones, {row: kind} of the bad ones, and the data."""
    in_array = path.name == "a.json"
    kinds = [kind for kind in LINES if not (in_array and kind in NOT_IN_ARRAYS)]
    rows, good, bad = [], {}, {}
    for number, kind in enumerate(kinds):
        good[len(rows)] = f"good {number}"
        rows.append(json.dumps({"text": good[len(rows)]}).encode())
        bad[len(rows)] = kind
        rows.append(LINES[kind][0])
    good[len(rows)] = "last"
    rows.append(b'{"text": "last"}')
    data = b"[" + b",\n".join(rows) + b"]" if in_array else b"\n".join(rows) + b"\n"
    compress = {".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)
    path.write_bytes(compress(data))
    return good, bad, data


@pytest.mark.parametrize("lenient", [False, True], ids=["skip", "lenient"])
@pytest.mark.parametrize("block_bytes", [1 << 20, 300])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json"])
def test_every_bad_line_is_passed_over_alone(tmp_path, monkeypatch, name, block_bytes, lenient):
    """Without it one bad row would take its neighbours along, or another message would stand in rejected.jsonl."""
    monkeypatch.setattr(files, "BLOCK_BYTES", block_bytes)
    good, bad, data = json_file(tmp_path / name)
    texts, entries, bad_rows = taken(tmp_path / name, lenient=lenient)
    mended = {row: LINES[kind][3] for row, kind in bad.items() if lenient and LINES[kind][3] is not None}
    assert texts == {**good, **mended}
    assert bad_rows.num_repaired == len(mended) == (10 if lenient else 0)
    assert len(entries) == len(bad) - len(mended) > 29
    for entry in entries:
        line, cause, said, _ = LINES[bad[entry["row"]]]
        assert list(entry)[:7] == KEYS
        assert (entry["source"], entry["cause"], entry["message"]) == (name, cause, said)
        assert entry["place"] == f"{name}:{entry['row'] + 1}"
        assert raw_of(entry) == line
        assert entry["num_bytes"] == len(line)
        assert data[entry["byte"] :].startswith(line)
        assert cause in CAUSES


@pytest.mark.parametrize("lenient", [False, True], ids=["skip", "lenient"])
def test_columns_and_text_files_say_the_same_as_lines(tmp_path, lenient):
    """Bad UTF-8 is mended alike, whichever file it stands in."""
    values = [b"ok", b"ab\xff", None, b"\xed\xa0\x80", b"\xc0\x80x", b"end"]
    wanted = {0: "ok", 5: "end"} | ({1: "ab\ufffd", 3: "\ufffd\ufffd\ufffd", 4: "\ufffd\ufffdx"} if lenient else {})
    column = pa.array(values, pa.binary()).view(pa.string())
    forms = {"plain": column, "dictionary": column.dictionary_encode(), "large": column.cast(pa.large_string())}
    for form, each in forms.items():
        for suffix in (".parquet", ".arrow"):
            path = tmp_path / f"{form}{suffix}"
            table = pa.table({"text": each})
            if suffix == ".parquet":
                pq.write_table(table, path, row_group_size=4)
            else:
                with pa.ipc.new_stream(str(path), table.schema) as writer:
                    writer.write_table(table, max_chunksize=4)
            texts, entries, bad_rows = taken(path, lenient=lenient)
            assert texts == wanted, path
            assert bad_rows.num_repaired == 3 * lenient
            causes = {2: "null"} if lenient else {1: "not-utf8", 2: "null", 3: "not-utf8", 4: "not-utf8"}
            assert {entry["row"]: entry["cause"] for entry in entries} == causes
            assert raw_of(entries[-1]) == (b'{"text": null}' if lenient else b'{"text": "' + values[4] + b'"}')
            assert {entry["byte"] for entry in entries} == {None}
    (tmp_path / "a.txt").write_bytes(b"--".join(value or b"\xff" for value in values))
    texts, entries, _ = taken(tmp_path / "a.txt", lenient=lenient, split_on="--")
    assert texts == wanted | ({2: "\ufffd"} if lenient else {})
    assert [entry["byte"] for entry in entries] == ([] if lenient else [4, 9, 12, 17])
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"text":"' + (value or b"") + b'"}\n' for value in values))
    assert taken(tmp_path / "a.jsonl", lenient=lenient)[0] == wanted | {2: ""}


def slowly_repaired(raw):
    """The twin of `repaired`: escapes from left to right."""
    text = raw.decode("utf-8", "replace").encode()
    out, at = b"", 0
    while at < len(text):
        if text[at : at + 1] != b"\\":
            out, at = out + text[at : at + 1], at + 1
            continue
        piece = text[at : at + 6]
        if piece[1:2] == b"u" and len(piece) == 6 and piece[2:4].lower() in (b"d8", b"d9", b"da", b"db"):
            other = text[at + 6 : at + 12]
            if other[:2] == b"\\u" and len(other) == 12 - 6 and other[2:4].lower() in (b"dc", b"dd", b"de", b"df"):
                out, at = out + piece + other, at + 12
            else:
                out, at = out + rb"\ufffd", at + 6
        elif piece[1:2] == b"u" and len(piece) == 6 and piece[2:4].lower() in (b"dc", b"dd", b"de", b"df"):
            out, at = out + rb"\ufffd", at + 6
        else:
            out, at = out + text[at : at + 2], at + 2
    return out


PIECES = st.sampled_from([rb"\ud83d", rb"\uDE00", rb"\u0041", rb"\\", rb"\"", b"ud800", b"a", b"\xff", b"\xc3\xa9"])


@given(pieces=st.lists(PIECES, max_size=8))
def test_lenient_mends_halves_and_leaves_pairs_and_escaped_backslashes(pieces):
    raw = b"".join(pieces)
    assert repaired(raw) == slowly_repaired(raw)
    if not raw.endswith(b"\\") and b'"' not in raw.replace(rb"\"", b""):
        json.loads(b'"' + repaired(raw) + b'"').encode()  # text now, and nothing but text


# --- rows that are too long ---


@pytest.mark.parametrize("block_bytes", [1 << 20, 64, 7])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.json", "a.txt", "a.txt.gz", "a.parquet"])
def test_a_row_that_is_too_long_is_passed_over_and_its_beginning_kept(tmp_path, monkeypatch, name, block_bytes):
    """The row after it would be lost, or memory be filled."""
    monkeypatch.setattr(files, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("packcli.readers.chunks.RAW_BYTES", 40)
    monkeypatch.setattr("packcli.readers.bad_rows.RAW_BYTES", 40)
    texts = ["a", "x" * 200, "b", "y" * 100, "z" * 100, "c" * 50, "q" * 99]
    path = tmp_path / name
    rows = [json.dumps({"text": text}).encode() for text in texts]
    data = {"a.json": b"[" + b",".join(rows) + b"]", "a.txt": "<->".join(texts).encode()}.get(name.split(".gz")[0])
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        data = data or b"\n".join(rows)
        path.write_bytes({".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)(data))
    found, entries, _ = taken(path, max_row_bytes=90, split_on="<->")
    assert found == {0: "a", 2: "b", 5: "c" * 50}
    assert [(entry["row"], entry["cause"]) for entry in entries] == [(row, "too-long") for row in (1, 3, 4, 6)]
    raw = texts if ".txt" in name else [row.decode() for row in rows]
    for entry in entries:
        assert entry["message"] == "the row is longer than 90 bytes"
        assert entry["raw"] == raw[entry["row"]][:40]
        assert entry["num_bytes"] == len(raw[entry["row"]])
        if name not in ("a.json", "a.parquet"):
            assert data[entry["byte"] :].startswith(entry["raw"].encode())


def test_the_digest_of_a_part_knows_the_rows_that_are_too_long(tmp_path, monkeypatch):
    """A run would be resumed although its input has changed, in a row that nobody holds; or refused, cut otherwise."""
    seen = []
    for text in ("x" * 200, "x" * 199 + "y"):
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": text}) + "\n")
        for block_bytes in (1 << 20, 50):
            monkeypatch.setattr(files, "BLOCK_BYTES", block_bytes)
            sources = find_sources([str(tmp_path / "a.jsonl")], [], skip_bad=True, max_row_bytes=90)
            (part,) = (
                part
                for part in read_parts(cut_units(sources, 1 << 20)[0], sources, Fields(()), unit_bytes=1 << 20)
                if part.skip(hashed=True) is None
            )
            seen.append(part.digest)
    assert seen[0] == seen[1] != seen[2] == seen[3]


# --- every record shape ---

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CHAT = {"messages": [USER, ASSISTANT]}
HALF = json.dumps([{**USER, "content": "\ud83d"}, ASSISTANT])
TEMPLATE = (
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('no such words') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
SHAPES = {
    "prompt-completion": (
        {"prompt": "a", "completion": " b"},
        {
            "missing-field": [{"prompt": "a"}],
            "null": [{"prompt": None, "completion": "b"}],
            "wrong-type": [{"prompt": 1, "completion": "b"}],
            "wrong-content": [{"prompt": "a", "completion": [ASSISTANT]}],
            "duplicate-field": [b'{"prompt":"a","completion":"b","prompt":"c"}'],
        },
    ),
    "alpaca": (
        {"instruction": "a", "input": "", "output": "b"},
        {"missing-field": [{"instruction": "a"}], "duplicate-field": [b'{"instruction":"a","output":"","output":"b"}']},
    ),
    "chat": (
        CHAT,
        {
            "wrong-type": [{"messages": [3]}, {"messages": [], "tools": 3}],
            "wrong-content": [
                {"messages": [{"content": "a"}]},
                {"messages": "{"},
                {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
                {"messages": [{**USER, "train": True}]},
            ],
            "template": [{"messages": [{**USER, "content": "no"}, ASSISTANT]}],
            "duplicate-field": [b'{"messages":[],"messages":[]}', b'{"messages":[],"tools":null,"tools":[]}'],
            "lone-surrogate": [{"messages": HALF}],
        },
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"wrong-content": [{"conversations": [{"from": "dog", "value": "w"}]}, {"conversations": [{"from": "gpt"}]}]},
    ),
    "tokenized": (
        {"input_ids": [5, 6, 7]},
        {
            "wrong-tokens": [
                {"input_ids": [-1]},
                {"input_ids": [5, 10**6]},
                {"input_ids": [2**70]},
                {"input_ids": [5], "labels": [6]},
                {"input_ids": [5, 6], "attention_mask": [1]},
            ],
            "wrong-type": [{"input_ids": [1.5]}, {"input_ids": ["5"]}, {"input_ids": [[5]]}, {"input_ids": "5"}],
            "duplicate-field": [
                b'{"input_ids":[5],"input_ids":[5]}',
                b'{"input_ids":[18446744073709551615],"input_ids":[5]}',
            ],
        },
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_bad_rows_of_every_shape_are_passed_over(tmp_path, tokenizer_dir, shape):
    """One row at a time: rows are encoded 128 together."""
    good, causes = SHAPES[shape]
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    rows, wanted = [good] * 3, []
    for cause, bad in causes.items():
        for row in bad:
            wanted.append((len(rows), cause))
            rows += [row, good, good]
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "a.json").write_bytes(b"[" + b",".join(lines) + b"]")
    settings = {"chat_template": str(tmp_path / "t.jinja")} if shape in ("chat", "sharegpt") else {}
    for name in ("a.jsonl", "a.json"):
        report = pack(tmp_path / name, tmp_path / f"{name}-out", tokenizer_dir, format=shape, max_len=512, **settings)
        found = rejected(tmp_path / f"{name}-out")
        assert [(entry["row"], entry["cause"]) for entry in found] == wanted
        assert [raw_of(entry) for entry in found] == [lines[row] for row, _ in wanted]
        assert report.stats.num_documents_packed == len(rows) - len(wanted) > 4
    if shape == "chat":
        report = pack(tmp_path / "a.jsonl", tmp_path / "l", tokenizer_dir, format=shape, lenient=True, **settings)
        assert report.stats.num_rows_repaired == 1
        assert report.stats.num_rows_rejected == len(wanted) - 1
    found = verify(tmp_path / "a.jsonl-out", against=[str(tmp_path / "a.jsonl")])
    assert found.is_sound, found.problems
    assert [(each.row, each.cause) for each in found.absent] == [(row, f"rejected: {cause}") for row, cause in wanted]


def test_columns_of_messages_and_ids_are_judged_row_by_row(tmp_path, tokenizer_dir):
    bad = pa.array([b"q", b"\xff", b"q", b"q"], pa.binary()).view(pa.string())
    first = pa.StructArray.from_arrays([pa.array(["user"] * 4), bad], ["role", "content"])
    talks = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), first)
    more = pa.table({"messages": [[USER, ASSISTANT], None]}, schema=pa.schema([("messages", talks.type)]))
    pq.write_table(pa.concat_tables([pa.table({"messages": talks}), more]), tmp_path / "a.parquet")
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    settings = {"chat_template": str(tmp_path / "t.jinja"), "loss": "all", "max_len": 64}
    report = pack(tmp_path / "a.parquet", tmp_path / "out", tokenizer_dir, **settings)
    assert [(each["row"], each["cause"]) for each in rejected(tmp_path / "out")] == [(1, "not-utf8"), (5, "null")]
    row = b'{"messages": [{"role": "user", "content": "\xff"}], "tools": null, "chat_template_kwargs": null}'
    assert raw_of(rejected(tmp_path / "out")[0]) == row
    assert report.stats.num_documents_packed == 4
    assert (
        pack(tmp_path / "a.parquet", tmp_path / "l", tokenizer_dir, lenient=True, **settings).stats.num_rows_repaired
        == 1
    )
    ids = pa.array([[5, 6], None, [5, None], [], [7]], pa.list_(pa.int32()))
    pq.write_table(pa.table({"input_ids": ids}), tmp_path / "i.parquet")
    report = pack(tmp_path / "i.parquet", tmp_path / "i", tokenizer_dir, max_len=64)
    assert [(each["row"], each["cause"]) for each in rejected(tmp_path / "i")] == [(1, "null"), (2, "null")]
    assert (report.stats.num_documents_packed, report.stats.num_documents_empty) == (1, 1)  # one has no label


def test_overlong_rows_are_rejected_under_the_policy_error(tmp_path, tokenizer_dir):
    texts = ["the cat sat"] * 70
    texts[3] = texts[69] = "the cat sat on the mat and the dog ran " * 9
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir, overlong="error", max_len=64)
    assert [(each["row"], each["cause"]) for each in rejected(tmp_path / "out")] == [(3, "overlong"), (69, "overlong")]
    assert rejected(tmp_path / "out")[0]["message"].endswith("tokens, over --max-len 64")
    assert report.stats.num_documents_packed == 68
    assert verify(tmp_path / "out", deep=True).is_sound
    texts[5] = ""
    rows = [{"prompt": "the cat", "completion": text} for text in texts]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = pack(tmp_path / "p.jsonl", tmp_path / "p", tokenizer_dir, overlong="error", max_len=64, val_fraction=0.5)
    assert report.stats.rejected_by_cause == {"overlong": 2}
    assert report.stats.num_documents == 68


# --- what tells the fields of an input whose first rows are bad ---


def test_the_shape_is_found_behind_bad_rows(tmp_path, tokenizer_dir):
    bad = [b"x", b"[1]", b'{"error":1}', b'"a"', b""]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*bad, b'{"text":"one","id":1}', b'{"text":"two"}', b'{"id":1}']))
    report = pack(tmp_path / "a.jsonl", tmp_path / "out", tokenizer_dir)
    assert report.manifest["text"]["fields"] == ["text"]
    assert report.stats.rejected_by_cause == {"missing-field": 2, "not-json": 1, "not-object": 2}
    for rest, said in ((b"", "not valid JSON"), (b'{"n":1}\n' * 200 + b'{"text":"a"}', "no field holds text: n")):
        (tmp_path / "a.jsonl").write_bytes(b"x\n" + rest)
        with pytest.raises(errors.PackcliError, match=said):
            pack(tmp_path / "a.jsonl", tmp_path / "none", tokenizer_dir)
    (tmp_path / "a.jsonl").write_bytes(b'{"n":1}\n')
    with pytest.raises(errors.FieldError, match="no field holds text"):  # a wrong setting is no bad row
        pack(tmp_path / "a.jsonl", tmp_path / "none", tokenizer_dir)
