"""packcli.restore and `packcli verify --row`: a pack made again from the inputs, byte by byte."""

import gzip
import importlib
import json
import random
import shutil
import string

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk
from helpers import SAMPLE, tree_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import packcli
from packcli import cli, readers
from packcli.errors import MismatchError, OutputError, UsageError
from packcli.readers import PickedRows, find_fields, find_sources
from packcli.verification import inputs

ENGINE = {"tokenizer_engine": "tokenizers"}
LINES = [line for line in SAMPLE.read_bytes().split(b"\n") if 0 < len(line) < 1500][:80]
"""Documents of a few hundred bytes."""
MESSY = [b"", LINES[0], b"  ", *LINES[1:40], b'{"text": ""}', *LINES[40:]]
"""With blank lines and an empty document among them: rows are numbered all the same."""


def write_jsonl(folder):
    (folder / "data.jsonl").write_bytes(b"\n".join(MESSY))
    return folder / "data.jsonl"


def write_gz(folder):
    (folder / "data.jsonl.gz").write_bytes(gzip.compress(b"\n".join(MESSY)))
    return folder / "data.jsonl.gz"


def write_zst(folder):
    with pa.CompressedOutputStream(str(folder / "data.jsonl.zst"), "zstd") as file:
        file.write(b"\n".join(MESSY))
    return folder / "data.jsonl.zst"


def write_array(folder):
    (folder / "data.json").write_bytes(b"[" + b",\n".join(LINES) + b"]")
    return folder / "data.json"


def write_parquet(folder):
    table = pa.table({"id": list(range(len(LINES))), "text": [json.loads(line)["text"] for line in LINES]})
    pq.write_table(table, folder / "data.parquet", row_group_size=7)
    return folder / "data.parquet"


def write_arrow(folder):
    table = pa.table({"text": [json.loads(line)["text"] for line in LINES]})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return folder / "data.arrow"


def write_txt(folder):
    (folder / "data.txt").write_text("\n\n".join(json.loads(line)["text"] for line in LINES[:40]))
    return folder / "data.txt"


def write_chats(folder):
    (folder / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    return SAMPLE.with_name("chat.jsonl")


def write_prompts(folder):
    return SAMPLE.with_name("prompt_completion.jsonl")


WRITERS = {
    "jsonl": write_jsonl,
    "gz": write_gz,
    "zst": write_zst,
    "array": write_array,
    "parquet": write_parquet,
    "arrow": write_arrow,
}


SHAPES = {
    "jsonl": (write_jsonl, {}),
    "gz in several parts": (write_gz, {"unit_bytes": 9000}),
    "zst": (write_zst, {"strategy": "concat"}),
    "array": (write_array, {"val_fraction": 0.3}),
    "parquet": (write_parquet, {"unit_bytes": 9000, "val_fraction": 0.3}),
    "arrow": (write_arrow, {"strategy": "shuffle-fit", "seed": 3}),
    "txt": (write_txt, {"split_on": "\n\n"}),
    "continued segments": (write_jsonl, {"max_len": 48, "strategy": "best-fit", "unit_bytes": 9000}),
    "concat over units": (write_jsonl, {"max_len": 64, "strategy": "concat", "unit_bytes": 9000}),
    "truncated": (write_jsonl, {"max_len": 64, "overlong": "truncate", "strategy": "next-fit"}),
    "classic": (write_jsonl, {"isolate": False}),
    "ragged with sources": (write_jsonl, {"columns": "compact,sources"}),
    "balanced, BOS, no EOS": (write_jsonl, {"balance": True, "add_bos": True, "add_eos": False}),
    "a template": (write_jsonl, {"text_template": "Q: {text}\nA: {text}"}),
    "compact": (write_jsonl, {"columns": "compact", "unit_bytes": 9000}),
    "compact, several parts": (write_gz, {"columns": "compact", "unit_bytes": 9000, "strategy": "first-fit"}),
    "no sources": (write_parquet, {"columns": "input_ids,labels", "unit_bytes": 9000, "val_fraction": 0.2}),
    "prompts": (write_prompts, {"max_len": 64}),
    "chats": (write_chats, {"max_len": 256, "chat_template": "chatml"}),
    "chats that get BOS and EOS": (
        write_chats,
        {"max_len": 256, "chat_template": "plain.jinja", "add_bos": True, "add_eos": True, "val_fraction": 0.4},
    ),
    "chats, compact": (
        write_chats,
        {"max_len": 256, "chat_template": "chatml", "columns": "compact", "loss": "last-assistant"},
    ),
}


def pack(source, output, tokenizer_dir, **given_):
    settings_ = {"max_len": 200, "strategy": "best-fit", "workers": 1, "tokenizer": str(tokenizer_dir), **ENGINE}
    return packcli.pack(source, output, **{**settings_, **given_}).output


def splits(output):
    data = load_from_disk(str(output))
    return data if isinstance(data, dict) else {"train": data}


def some(count, number=6):
    """Row numbers: the first, the last, and some by chance."""
    return sorted({0, count - 1, *random.Random(0).sample(range(count), min(number, count))}) if count else []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("damaged", [False, True])
def test_restored_rows_are_those_that_are_stored(shape, damaged, tmp_path, tokenizer_dir, monkeypatch):
    """In every shape of input and of output; from the sources, and with all shards gone."""
    write, given_ = SHAPES[shape]
    monkeypatch.chdir(tmp_path)
    output = pack(write(tmp_path), tmp_path / "out", tokenizer_dir, **given_)
    stored = {split: rows[:] for split, rows in splits(output).items()}
    has_sources = "sources" in stored["train"]
    if damaged:
        for shard in output.rglob("data-*.arrow"):
            shard.unlink()
    for split, columns in stored.items():
        count = len(columns["input_ids"])
        for row in some(count, 1 if damaged or not has_sources else 6):
            restored = packcli.restore(output, row, split=split, **ENGINE)
            assert restored == {name: values[row] for name, values in columns.items()}
            assert (restored.split, restored.row) == (split, row)
            assert restored.way == ("sources" if has_sources and not damaged else "replay")
            assert restored.is_compared is not damaged
            gone = (restored.file, "is missing or cannot be read: No such file or directory")
            assert [(each.file, each.what) for each in restored.problems] == ([gone] if damaged else [])


def test_every_row_of_a_directory(tmp_path, tokenizer_dir):
    output = pack(write_jsonl(tmp_path), tmp_path / "out", tokenizer_dir, unit_bytes=7000)
    rows = load_from_disk(str(output))
    assert len(rows) > 50
    assert len(json.loads((output / "manifest.json").read_text())["parts"]) > 3
    for number, row in enumerate(rows):
        assert packcli.restore(output, number, **ENGINE) == row
    assert packcli.restore(output, -1, **ENGINE) == rows[-1]


texts = st.text(string.ascii_letters + "  .é中\n😀", max_size=60)


@settings(max_examples=15)
@given(
    st.lists(texts, min_size=3, max_size=30),
    st.sampled_from(sorted(WRITERS)),
    st.fixed_dictionaries(
        {
            "max_len": st.integers(4, 60),
            "strategy": st.sampled_from(["concat", "best-fit", "shuffle-fit", "first-fit", "next-fit", "pad"]),
            "overlong": st.sampled_from(["split", "truncate", "drop"]),
            "columns": st.sampled_from(["all", "compact", "compact,sources", "input_ids,labels,sources"]),
            "val_fraction": st.sampled_from([0.0, 0.4]),
            "isolate": st.booleans(),
            "unit_bytes": st.sampled_from([1024, 1 << 20]),
            "seed": st.integers(0, 5),
        }
    ),
    st.booleans(),
)
def test_whatever_was_packed(tmp_path_factory, tokenizer_dir, documents, kind, given_, replay):
    folder = tmp_path_factory.mktemp("any")
    lines = [json.dumps({"text": text}).encode() for text in [*documents, "ab", "a"]]  # these are dropped by no policy
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LINES", "MESSY"):
            patch.setitem(globals(), name, lines)
        source = WRITERS[kind](folder)
    output = pack(source, folder / "out", tokenizer_dir, **given_)
    for split, rows in splits(output).items():
        for number in some(len(rows), 1):
            restored = packcli.restore(output, number, split=split, replay=replay, **ENGINE)
            assert restored == rows[number]
            assert restored.problems == []
            assert restored.way == ("replay" if replay or given_["columns"] == "compact" else "sources")


@pytest.fixture
def output(tmp_path, tokenizer_dir):
    """Three units of data.jsonl, packed."""
    return pack(write_jsonl(tmp_path), tmp_path / "out", tokenizer_dir, unit_bytes=12_000)


def verify(*arguments):
    line = ["verify", *map(str, arguments), "--tokenizer-engine", "tokenizers"]
    return CliRunner().invoke(cli.app, line, env={"COLUMNS": "300", "NO_COLOR": "1"})


def test_only_the_documents_of_the_row_are_read_and_tokenized(output, monkeypatch):
    """One pack of a terabyte must not cost the terabyte."""
    seen = []
    tokenize_rows = inputs.tokenize_rows

    def spy(job, rows):
        batch, origin = tokenize_rows(job, rows)
        seen.append(list(zip(origin.source.tolist(), origin.row.tolist(), strict=True)))
        return batch, origin

    def never(*arguments):
        raise AssertionError("a whole unit is packed")

    monkeypatch.setattr(importlib.import_module("packcli.verification.restore"), "tokenize_rows", spy)
    monkeypatch.setattr(importlib.import_module("packcli.verification.restore"), "run_unit", never)
    monkeypatch.setattr(readers, "digest_parts", never)
    rows = load_from_disk(str(output))
    for number in (0, len(rows) // 2):
        packcli.restore(output, number, **ENGINE)
        assert seen.pop() == sorted({(each["source"], each["row"]) for each in rows[number]["sources"]})


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_picked_rows_by_hand(kind, tmp_path):
    """In order, with their numbers, and nothing past the last of them is read."""
    path = WRITERS[kind](tmp_path)
    sources = find_sources([str(path)], [])
    fields = find_fields(sources, None, None)
    wanted = [60, 3, 17, 3, 25]
    chunks = list(PickedRows(sources, fields, None, {0: wanted}).chunks())
    texts, numbers = zip(*(readers.TextExtractor(fields, sources)(chunk) for chunk in chunks), strict=True)
    assert [number for each in numbers for number in each.tolist()] == [3, 17, 25, 60]
    rows = MESSY if "jsonl" in path.name else LINES
    assert [text for each in texts for text in each] == [json.loads(rows[at])["text"] for at in (3, 17, 25, 60)]
    assert list(PickedRows(sources, fields, None, {0: [10_000]}).chunks()) == []


def test_parquet_reads_only_the_row_groups_that_it_needs(tmp_path, monkeypatch):
    path = write_parquet(tmp_path)
    sources = find_sources([str(path)], [])
    fields = find_fields(sources, None, None)
    read = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self, *arguments, row_groups, columns, **others):
        read.append((row_groups, columns))
        return iter_batches(self, *arguments, row_groups=row_groups, columns=columns, **others)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert len(list(PickedRows(sources, fields, None, {0: [8, 9, 30]}).chunks())) == 3
    assert read == [([1], ["text"]), ([4], ["text"])]


def test_the_command_says_which_way_it_went(output):
    before = tree_hash(output)
    result = verify(output, "--row", 2)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "row 2 of train made again from its sources: the same bytes in 5 columns (" in result.stderr
    assert (
        "by packing its unit again (it was asked for): the same bytes" in verify(output, "--row", 2, "--replay").stderr
    )
    found = json.loads(verify(output, "--deep", "--row", -1, "--json").stdout)
    rows = load_from_disk(str(output))
    assert found["restored"].pop("columns") == rows[-1]
    assert found["restored"] == {
        "split": "train",
        "row": len(rows) - 1,
        "file": "data-00002-000.arrow",
        "way": "sources",
        "reason": "",
        "is_compared": True,
    }
    assert verify(output, "--row", 1, "-q").output == ""
    assert tree_hash(output) == before


def test_a_damaged_shard_is_told_and_its_rows_are_given_back(output):
    rows = load_from_disk(str(output))[:]
    shard = output / "data-00001-000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()  # it is mapped
    shard.write_bytes(data)
    first = json.loads((output / "manifest.json").read_text())["splits"]["train"][0]["num_rows"]
    for number in (first, first + 1):
        restored = packcli.restore(output, number, **ENGINE)
        assert restored == {name: values[number] for name, values in rows.items()}
        assert restored.way == "replay"
        assert "has changed: sha256" in restored.problems[0].what
    result = verify(output, "--row", first, "--json")
    assert result.exit_code == 3
    assert f"row {first} of train made again by packing its unit again (the shard has changed" in result.stderr
    assert "not compared: --json prints it" in result.stderr
    assert json.loads(result.stdout)["restored"]["columns"]["input_ids"] == rows["input_ids"][first]
    assert verify(output, "--row", 0).exit_code == 0  # of another shard


def test_a_row_that_the_inputs_do_not_give_is_told(output, monkeypatch):
    """The shard is as it was written, the inputs too: then what was written was wrong, and it is said where."""
    tokenize_rows = inputs.tokenize_rows

    def other(job, rows):
        batch, origin = tokenize_rows(job, rows)
        batch.ids[:] += 1
        return batch, origin

    monkeypatch.setattr(importlib.import_module("packcli.verification.restore"), "tokenize_rows", other)
    (one, two) = packcli.restore(output, 1, **ENGINE).problems
    assert one.what.startswith("row 1: input_ids differs at ")
    assert two.what.startswith("row 1: labels differs at ")
    result = verify(output, "--row", 1)
    assert result.exit_code == 3
    assert "not the same bytes in 5 columns" in result.stderr


CHANGES = {
    "a letter of the row": (lambda lines: lines[3].replace(b"Water", b"water"), "have changed: XXH3 was"),
    "another field": (lambda lines: lines[3].replace(b'"text": ', b'"test": '), "have changed: XXH3 was"),
    "no JSON": (lambda lines: lines[3].replace(b'{"', b"{ "), "have changed: XXH3 was"),
    "no text": (lambda lines: b'{"text": ""}'.ljust(len(lines[3])), "have changed: XXH3 was"),
    "a longer file": (lambda lines: lines[3] + b" ", "bytes, had"),
}


@pytest.mark.parametrize("way", [[], ["--replay"]])
@pytest.mark.parametrize("change", CHANGES)
def test_inputs_that_have_changed_are_named(change, way, tmp_path, output):
    path = tmp_path / "data.jsonl"
    lines = path.read_bytes().split(b"\n")
    edit, message = CHANGES[change]
    path.write_bytes(b"\n".join([*lines[:3], edit(lines), *lines[4:]]))
    rows = load_from_disk(str(output))["sources"][:]
    holds = next(at for at, row in enumerate(rows) if any((each["row"], each["start"]) == (3, 0) for each in row))
    with pytest.raises(MismatchError, match=message):
        packcli.restore(output, holds, replay=bool(way), **ENGINE)
    result = verify(output, "--row", holds, *way)
    assert result.exit_code == 3
    assert message in result.stderr


def test_inputs_elsewhere(tmp_path, output, tokenizer_dir):
    """What was moved is named with --against; what is gone is named in the error."""
    shutil.move(tmp_path / "data.jsonl", tmp_path / "moved.jsonl")
    with pytest.raises(UsageError, match=r"data.jsonl: the input is not there any more") as caught:
        packcli.restore(output, 0, **ENGINE)
    assert "--against" in caught.value.hint
    row = load_from_disk(str(output))[0]
    assert packcli.restore(output, 0, against=[str(tmp_path / "moved.jsonl")], **ENGINE) == row
    assert verify(output, "--row", 0, "--against", tmp_path / "moved.jsonl").exit_code == 0
    assert verify(output, "--row", 0).exit_code == 2


def test_another_tokenizer_is_named(tmp_path, output, tokenizer_dir):
    toml = output / ".packcli" / "packcli.toml"
    toml.write_text(toml.read_text().replace(str(tokenizer_dir), "builtin"))
    log = output / ".packcli" / "run.jsonl"
    log.unlink()
    with pytest.raises(MismatchError, match="is not that of the run"):
        packcli.restore(output, 0, **ENGINE)
    result = verify(output, "--row", 0)
    assert result.exit_code == 3
    assert "wrong: the tokenizer" in result.stderr


def test_mistakes_are_named(tmp_path, output):
    for row in (10_000, -10_000):
        with pytest.raises(UsageError, match=f"row {row}: train has [0-9]+ rows"):
            packcli.restore(output, row, **ENGINE)
    with pytest.raises(UsageError, match="split 'validation' is not known"):
        packcli.restore(output, 0, split="validation", **ENGINE)
    with pytest.raises(OutputError, match="no manifest"):
        packcli.restore(tmp_path, 0, **ENGINE)
    for line in (["--row", 0, "--same-as", output], ["--row", 0, "--sample", "1/2"], ["--replay"], ["--split", "x"]):
        assert verify(output, *line).exit_code == 2
    manifest = output / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"max_len": 200', '"max_len": 201'))
    with pytest.raises(OutputError, match="its own sha256 does not hold"):
        packcli.restore(output, 0, **ENGINE)


PLANS = """
import numpy as np

def by_length(lengths, capacity, *, seed=0):
    return np.argsort(lengths, kind="stable"), np.arange(len(lengths) + 1)
"""


def test_a_strategy_of_ones_own_runs_only_when_it_is_named(tmp_path, tokenizer_dir):
    """A manifest may be a stranger's; with the code that was hashed the row comes back."""
    (tmp_path / "plans.py").write_text(PLANS)
    strategy = f"{tmp_path}/plans.py:by_length"
    output = pack(write_jsonl(tmp_path), tmp_path / "out", tokenizer_dir, strategy=strategy)
    row = load_from_disk(str(output))[3]
    (tmp_path / "plans.py").rename(tmp_path / "moved.py")
    assert packcli.restore(output, 3, **ENGINE) == row  # its sources say what it holds
    (output / "data-00000-000.arrow").unlink()
    with pytest.raises(
        UsageError, match="planned by plans.py:by_length, code that packcli does not run unless"
    ) as caught:
        packcli.restore(output, 3, **ENGINE)
    assert "--strategy path/to/plans.py:by_length" in caught.value.hint
    named = f"{tmp_path}/moved.py:by_length"
    assert packcli.restore(output, 3, strategy=named, **ENGINE) == row
    assert verify(output, "--row", 3, "--strategy", named, "-q").exit_code == 3  # the shard is gone
    with pytest.raises(UsageError, match="were planned by plans.py:by_length"):
        packcli.restore(output, 3, strategy="best-fit", **ENGINE)
    (tmp_path / "other.py").write_text("open('ran', 'w').close()\n" + PLANS)
    with pytest.raises(MismatchError, match="is not the one that this run began with"):
        packcli.restore(output, 3, strategy=f"{tmp_path}/other.py:by_length", **ENGINE)


def test_a_strategy_that_does_not_answer_alike_is_found(tmp_path, tokenizer_dir, monkeypatch):
    """What the probe of 1,000 lengths cannot see: an order that hangs on the process."""
    (tmp_path / "plans.py").write_text(
        PLANS.replace("import numpy as np", "import os\nimport numpy as np").replace(
            "np.argsort(lengths, kind", 'np.argsort(lengths * (1 if os.environ.get("ONCE") else -1), kind'
        )
    )
    strategy = f"{tmp_path}/plans.py:by_length"
    monkeypatch.setenv("ONCE", "1")
    output = pack(write_jsonl(tmp_path), tmp_path / "out", tokenizer_dir, strategy=strategy)
    assert packcli.restore(output, 0, replay=True, strategy=strategy, **ENGINE).problems == []
    monkeypatch.delenv("ONCE")
    with pytest.raises(MismatchError, match="the strategy does not answer alike for the same lengths"):
        packcli.restore(output, 0, replay=True, strategy=strategy, **ENGINE)
