"""Packs as people read them: the rows, what is derived when columns are missing, and text from strangers made inert."""

import io
import json
import os
import subprocess

import numpy as np
import pyarrow as pa
import pytest
from helpers import PACKCLI, SAMPLE
from rich.console import Console
from typer.testing import CliRunner

import packcli
from packcli import cli
from packcli.cli.views.packs import show_pack
from packcli.dataset import PackedDataset
from packcli.errors import printable
from packcli.report import Inspector, read_packs

HOSTILE = "<script>alert(1)</script> \x1b[31mred\x1b]8;;http://x\x07 \u202eabc\u2066 [bold]no[/bold] \x9b2J \u200b"


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "120", "NO_COLOR": "1"})


def pack(out, tokenizer_dir, inputs=str(SAMPLE), **settings):
    settings = {"max_len": 256, "workers": 1, "tokenizer": str(tokenizer_dir), "add_bos": False, **settings}
    return packcli.pack(inputs, out, **settings)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tokenizer_dir):
    out = tmp_path_factory.mktemp("inspect") / "out"
    pack(out, tokenizer_dir, strategy="best-fit", val_fraction=0.2)
    return out


@pytest.fixture(scope="module")
def texts():
    return [json.loads(line)["text"] for line in SAMPLE.read_bytes().splitlines()]


@pytest.mark.parametrize("columns", ["all", "compact", "input_ids", "input_ids,labels", "input_ids,labels,seq_lengths"])
@pytest.mark.parametrize("isolate", [True, False])
def test_rows_say_the_same_whatever_columns_they_have(tmp_path, tokenizer_dir, columns, isolate):
    """Padding, labels and positions are stored or derived; without seq_lengths boundaries are not known."""
    settings = {"strategy": "next-fit", "max_len": 1024, "isolate": isolate}
    pack(tmp_path / "all", tokenizer_dir, **settings)
    pack(tmp_path / "some", tokenizer_dir, columns=columns, **settings)
    whole, some = PackedDataset(tmp_path / "all"), PackedDataset(tmp_path / "some")
    assert whole.num_rows == some.num_rows
    knows_boundaries = columns not in ("input_ids", "input_ids,labels")
    for index in range(whole.num_rows["train"]):
        one, other = whole.row("train", index), some.row("train", index)
        num_real = sum(each.end - each.begin for each in one.segments if not each.is_padding)
        assert one.ids[:num_real].tolist() == other.ids[:num_real].tolist()
        assert num_real == sum(each.end - each.begin for each in other.segments if not each.is_padding)
        if knows_boundaries or "labels" in columns:
            assert one.labels[:num_real].tolist() == other.labels[:num_real].tolist()
        if knows_boundaries:
            assert one.positions[:num_real].tolist() == other.positions[:num_real].tolist()
            if isolate:
                segments = [(each.begin, each.end) for each in other.segments if not each.is_padding]
                assert segments == [(each.begin, each.end) for each in one.segments if not each.is_padding]


def test_every_row_can_be_asked_for(packed):
    inspector = Inspector(packed)
    for split, total in inspector.packed.num_rows.items():
        rows = [
            row for _, first, batch in inspector.packed.batches(split) for row in range(first, first + batch.num_rows)
        ]
        assert rows == list(range(total))
        one, other = inspector.at(split, -1), inspector.at(split, total - 1)
        assert one.index == other.index == total - 1
        drawn = [row.index for row in inspector.random(split, total + 5, seed=3)]
        assert drawn == rows
    assert [row.index for row in inspector.random("train", 3, 1)] == [
        row.index for row in inspector.random("train", 3, 1)
    ]


def test_text_is_that_of_the_documents(packed, texts):
    inspector = Inspector(packed)
    seen = 0
    for split in inspector.packed.num_rows:
        for file, first, batch in inspector.packed.batches(split):
            for row in inspector.packed.pick(split, file, first, batch):
                for each in inspector.show(row):
                    if each.segment.is_padding:
                        continue
                    shown = "".join(span.text for span in each.spans).removesuffix("<|endoftext|>")
                    assert "\ufffd" in shown or shown in texts[each.segment.row]
                    assert [span.has_loss for span in each.spans] == [False, True][: len(each.spans)]
                    assert each.origin == "docs.jsonl"
                    assert each.restarts
                    seen += 1
    assert seen > 300


def test_a_document_is_found_by_its_row(packed, texts):
    longest = max(range(len(texts)), key=lambda row: len(texts[row]))
    split = next(
        split
        for split in ("train", "validation")
        if list(Inspector(packed).of_document(split, f"docs.jsonl:{longest}"))
    )
    result = invoke("inspect", packed, "--doc", f"docs.jsonl:{longest}", "--limit", 100, "--split", split, "--json")
    found = json.loads(result.stdout)["rows"]
    pieces = [each for row in found for each in row["segments"] if each["row"] == longest]
    assert len(pieces) > 5
    starts = sorted((each["start"], each["end"] - each["begin"]) for each in pieces)
    assert [start for start, _ in starts] == np.cumsum([0, *(length for _, length in starts[:-1])]).tolist()
    few = invoke("inspect", packed, "--doc", f"0:{longest}", "--split", split, "--json", "--limit", 2)
    assert len(json.loads(few.stdout)["rows"]) == 2


def test_text_is_found(packed, texts):
    words = texts[5].split()[1]
    result = invoke("inspect", packed, "--search", words, "--limit", 3)
    assert result.exit_code == 0
    assert words in result.stdout


def test_tokens_are_listed_one_a_line(packed):
    row = Inspector(packed).at("train", 1)
    result = invoke("inspect", packed, "--row", 1, "--tokens")
    lines = result.stdout.splitlines()[2:]
    lines = [line for line in lines if line]
    assert len(lines) == 256
    for place, line in enumerate(lines):
        words = line.removeprefix("> ").split()
        assert words[:2] == [str(place), str(row.ids[place])]
        assert words[2] == ("-" if row.labels[place] == -100 else str(row.labels[place]))
        assert words[3] == str(row.positions[place])
        assert line.startswith("> ") == (row.positions[place] == 0 and words[4] != "pad")


def test_colours_and_marks_tell_the_same(packed):
    row = max(read_packs(packed, random=20), key=lambda each: len(each.segments))
    assert len(row.segments) > 2
    plain, coloured, ascii_only = io.StringIO(), io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show_pack(Console(file=plain, width=80, color_system=None), row)
    show_pack(Console(file=coloured, width=80, force_terminal=True, color_system="256", no_color=False), row)
    assert "\x1b" not in plain.getvalue()
    assert plain.getvalue().count("\u27ea") == sum(not piece.is_padding for piece in row.row.segments) + 1
    assert "\u27ea" not in coloured.getvalue()
    for style in ("\x1b[2;3", "\x1b[36m", "\x1b[32m"):  # dim, and two colours in turn
        assert style in coloured.getvalue()
    assert max(len(line) for line in plain.getvalue().splitlines()) <= 80
    ascii_only.reconfigure(errors="backslashreplace")
    show_pack(Console(file=ascii_only, width=80, color_system=None), row)
    ascii_only.flush()
    assert b"{{no loss}}" in ascii_only.buffer.getvalue()


def test_masked_tokens_show_in_the_middle_of_a_segment(tmp_path, tokenizer_dir):
    """What a chat looks like: runs with and without loss in turn, and the text is whole."""
    pack(tmp_path / "out", tokenizer_dir, strategy="next-fit")
    (shard,) = (tmp_path / "out").glob("*.arrow")
    with pa.OSFile(str(shard)) as file, pa.ipc.open_stream(file) as reader:
        schema, table = reader.schema, reader.read_all()
    labels = [
        [-100 if 20 <= place < 40 else label for place, label in enumerate(row)] for row in table["labels"].to_pylist()
    ]
    changed = table.set_column(1, schema.field("labels"), pa.array(labels, schema.field("labels").type)).cast(schema)
    before = Inspector(tmp_path / "out")
    whole = ["".join(span.text for span in each.spans) for each in before.show(before.at("train", 0))]
    with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        writer.write_table(changed)
    inspector = Inspector(tmp_path / "out")
    row = inspector.at("train", 0)
    shown = inspector.show(row)
    assert ["".join(span.text for span in each.spans) for each in shown] == whole
    runs = [(each.has_loss, each.num_tokens) for each in shown[0].spans]
    assert runs[:3] == [(False, 1), (True, 19), (False, 20)]
    assert row.num_loss == sum(label != -100 for label in labels[0])


def test_text_from_strangers_is_inert(tmp_path, tokenizer_dir):
    source = tmp_path / "\x1b[31mevil\u202e.jsonl"
    source.write_text(json.dumps({"text": HOSTILE}) + "\n", encoding="utf-8")
    pack(tmp_path / "out", tokenizer_dir, str(source))
    for arguments in (["--row", 0], ["--row", 0, "--tokens"]):
        result = invoke("inspect", tmp_path / "out", *arguments)
        assert result.exit_code == 0, result.stderr
        for char in "\x1b\x07\x9b\u202e\u2066\u200b":
            assert char not in result.stdout
        assert "\\x1b" in result.stdout
    joined = invoke("inspect", tmp_path / "out").stdout
    assert "[bold]no[/bold]" in joined
    assert "evil\\u202e.jsonl" in joined


def test_visible():
    assert printable("a\x1b\u202e\nb\u00e9") == "a\\x1b\\u202e\\nb\u00e9"
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "100000"], "has rows 0.."),
        (["--row", "1", "--random", "2"], "give one of them"),
        (["--doc", "docs.jsonl"], "is not SOURCE:ROW"),
        (["--doc", "docs.jsnl:3"], "did you mean 'docs.jsonl'"),
        (["--doc", "docs.jsonl:99999"], "no row of train holds docs.jsonl:99999"),
        (["--search", "no such words anywhere"], "no row of train holds"),
        (["--search", ""], "--search is empty"),
        (["--split", "test"], "it has train, validation"),
        (["--limit", "0"], "at least 1"),
    ],
)
def test_mistakes_are_told(packed, arguments, message):
    result = invoke("inspect", packed, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n  ", " ")


def test_the_tokenizer_is_found_or_asked_for(tmp_path, tokenizer_dir):
    moved = tmp_path / "tokenizer"
    moved.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (moved / name).write_bytes((tokenizer_dir / name).read_bytes())
    pack(tmp_path / "out", moved)
    assert invoke("inspect", tmp_path / "out").exit_code == 0
    moved.rename(tmp_path / "elsewhere")
    result = invoke("inspect", tmp_path / "out")
    assert result.exit_code == 2
    assert "--tokenizer takes the one with sha256" in result.stderr
    assert invoke("inspect", tmp_path / "out", "--tokenizer", tmp_path / "elsewhere").exit_code == 0
    other = invoke("inspect", tmp_path / "out", "--tokenizer", "builtin")
    assert other.exit_code == 3
    assert "is not the tokenizer" in other.stderr


def test_a_closed_pipe_and_a_pager_that_is_not_wanted(packed):
    command = f"{' '.join(PACKCLI)} inspect {packed} --random 50 --pager | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert result.returncode in (0, 141)
    assert "Traceback" not in result.stderr
    assert "train row" in result.stdout
