"""Exports: whatever a stack reads out of them, it is the documents and the masks of the packed directory.

Readers here are written from the documented layouts; tests/integrations/consumers uses the stacks' own.
"""

import itertools
import json
import struct
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset, load_from_disk
from filelock import FileLock
from helpers import PACKCLI, SAMPLE, tree_hash
from typer.testing import CliRunner

import packcli
from packcli import cli, errors, exports
from packcli.cli.export import EXPORT_FORMATS
from packcli.dataset.fingerprint import sealed_bytes
from packcli.exports.base import Sink
from packcli.storage import file_sha256

MAX_LEN = 128
IGNORE = -100


@pytest.fixture(scope="module")
def pack(tokenizer_dir, tmp_path_factory):
    """Packs the shorter half of sample_data in several units; some documents are over max_len and cut."""
    source = tmp_path_factory.mktemp("source") / "docs.jsonl"
    lines = [line for line in SAMPLE.read_bytes().split(b"\n") if 0 < len(line) < 900]
    source.write_bytes(b"\n".join(lines) + b"\n")
    given = {"max_len": MAX_LEN, "workers": 1, "tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers"}
    given |= {"unit_bytes": 20_000, "overwrite": True}
    return lambda output, **settings: packcli.pack(source, output, **{**given, **settings}).output


def mask_labels(output):
    """Every third label is masked, as prompts are."""
    for shard in output.rglob("data-*.arrow"):
        table = pa.ipc.open_stream(shard.read_bytes()).read_all()
        labels = np.array(table.column("labels").to_pylist(), dtype=np.int32)
        labels[:, ::3] = IGNORE
        column = pa.array(labels.tolist(), pa.list_(pa.int32()))
        table = table.set_column(table.schema.get_field_index("labels"), table.schema.field("labels"), column)
        with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    manifest = json.loads((output / "manifest.json").read_bytes())
    for each in itertools.chain(*manifest["splits"].values()):
        each["sha256"] = file_sha256(output / each["file"])[0]
    del manifest["sha256"]
    (output / "manifest.json").write_bytes(sealed_bytes(manifest))


@pytest.fixture(scope="module", params=["concat", "masked", "classic"])
def packed(request, pack, tmp_path_factory):
    """Packed directories, and the rows that they hold."""
    strategy = {"masked": "best-fit", "classic": "next-fit"}.get(request.param, request.param)
    output = tmp_path_factory.mktemp(request.param) / "out"
    pack(output, strategy=strategy, isolate=request.param != "classic", val_fraction=0.1)
    if request.param == "masked":
        mask_labels(output)
    return output


@pytest.fixture(scope="module")
def whole(pack, tmp_path_factory):
    """(row of the input -> ids) of every document, packed one a row and never cut."""
    output = pack(tmp_path_factory.mktemp("whole") / "out", strategy="pad", max_len=8192)
    found = {}
    for row in load_from_disk(str(output)):
        source = row["sources"][0]
        found[source["row"]] = row["input_ids"][: source["end"]]
    assert len(found) > 100
    return found


def runs_of(row, isolate):
    """(ids, targets) of everything in a row that attends to itself only; the target of the last token is nothing."""
    lengths = [source["end"] - source["start"] for source in row["sources"]]
    ends = np.cumsum(lengths).tolist() if isolate else [sum(lengths)]
    return [
        (row["input_ids"][begin:end], [*row["labels"][begin + 1 : end], IGNORE])
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def expected_packs(output):
    isolate = json.loads((output / "manifest.json").read_text())["config"]["isolate"]
    return {split: [runs_of(row, isolate) for row in rows] for split, rows in load_from_disk(str(output)).items()}


def read_parquet(root):
    data = load_dataset(str(root), cache_dir=str(root.parent / "cache"))
    return {
        split: [cut(row["input_ids"], [*row["labels"][1:], IGNORE], row["seq_lengths"]) for row in rows]
        for split, rows in data.items()
    }


def cut(ids, targets, lengths):
    """Pieces of a row; a last target belongs to the next piece, and padding has no targets."""
    ends = np.cumsum(lengths).tolist()
    pieces = [
        (ids[begin:end], [*targets[begin : end - 1], IGNORE]) for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    is_padding = set(pieces[-1][0]) == {1} and set(pieces[-1][1]) == {IGNORE}
    return pieces[: len(pieces) - is_padding]


def read_bridge(root):
    out = {}
    for split in ("train", "validation"):
        out[split] = []
        for path in sorted((root / split).glob("*.idx.parquet")):
            table = pq.read_table(path)
            assert [field.type.value_type for field in table.schema] == [pa.int32(), pa.int8(), pa.int32()]
            for row in table.to_pylist():
                ids, bounds = row["input_ids"], [*row["seq_start_id"], len(row["input_ids"])]
                assert len(row["loss_mask"]) == len(ids)
                pieces = []
                for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
                    mask = row["loss_mask"][begin:end]
                    assert mask[-1] == 0
                    targets = [ids[begin + at + 1] if on else IGNORE for at, on in enumerate(mask[:-1])]
                    pieces.append((ids[begin:end], [*targets, IGNORE]))
                out[split].append(pieces)
    return out


def read_automodel(root):
    out = {}
    for split, rows in load_from_disk(str(root)).items():
        out[split] = []
        for row in rows:
            assert sum(row["seq_lens_padded"]) == len(row["input_ids"]) == MAX_LEN
            pieces, begin = [], 0
            for real, room in zip(row["seq_lens"], row["seq_lens_padded"], strict=True):
                assert row["position_ids"][begin : begin + real] == list(range(real))
                pieces.append(tuple(row[name][begin : begin + real] for name in ("input_ids", "labels")))
                assert set(row["labels"][begin + real : begin + room]) <= {IGNORE}
                begin += room
            out[split].append(pieces)
    return out


def read_llama_factory(root):
    out = {}
    for split, rows in load_from_disk(str(root)).items():
        out[split] = []
        for row in rows:
            segment, pieces = np.array(row["attention_mask"]), []
            for number in range(1, segment.max() + 1):
                at = np.flatnonzero(segment == number)
                assert at.tolist() == list(range(at[0], at[-1] + 1))
                assert np.array(row["position_ids"])[at].tolist() == list(range(len(at)))
                labels = np.array(row["labels"])[at].tolist()
                pieces.append((np.array(row["input_ids"])[at].tolist(), [*labels[1:], IGNORE]))
            assert set(np.array(row["labels"])[segment == 0].tolist()) <= {IGNORE}
            out[split].append(pieces)
    return out


def read_mds(root):
    out = {}
    for split in ("train", "validation"):
        out[split] = []
        for shard in json.loads((root / split / "index.json").read_text())["shards"]:
            data = (root / split / shard["raw_data"]["basename"]).read_bytes()
            assert len(data) == shard["raw_data"]["bytes"]
            (count,) = struct.unpack_from("<I", data)
            assert count == shard["samples"]
            offsets = np.frombuffer(data, "<u4", count + 1, 4).tolist()
            for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
                values = np.frombuffer(data[begin:end], "<i4").reshape(3, MAX_LEN)
                sample = dict(zip(shard["column_names"], values.tolist(), strict=True))
                starts = [at for at, position in enumerate(sample["position_ids"]) if position == 0]
                lengths = np.diff([*starts, MAX_LEN]).tolist()
                out[split].append(cut(sample["tokens"], [*sample["labels"][1:], IGNORE], lengths))
    return out


PACKS = {
    "parquet": read_parquet,
    "megatron-bridge": read_bridge,
    "automodel": read_automodel,
    "llama-factory": read_llama_factory,
    "mds": read_mds,
}


@pytest.mark.parametrize("name", PACKS)
def test_packs_are_read_back(packed, name, tmp_path):
    """A mask off by one, a boundary lost, padding taken for text: all would train on without a word."""
    found = exports.export(str(packed), name, str(tmp_path / "out"), lossy=name == "mds")
    expected = expected_packs(packed)
    read = PACKS[name](tmp_path / "out")
    assert list(read) == list(expected) == ["train", "validation"]
    for split, rows in expected.items():
        ours = read[split]
        if name in ("mds", "parquet") and "classic" in str(packed):  # padding is not told apart in one long run
            rows = [[(ids, targets) for ids, targets in row] for row in rows]
            ours = [
                [(run[0][: len(row[0][0])], [*run[1][: len(row[0][0]) - 1], IGNORE])]
                for (run, *_), row in zip(ours, rows, strict=True)
            ]
        assert ours == rows
    assert found.num_rows == sum(map(len, expected.values())) > 100
    assert found.num_tokens == sum(len(run[0]) for rows in expected.values() for row in rows for run in row)
    assert len({len(row) for rows in expected.values() for row in rows}) > 1 or "classic" in str(packed)


def read_unpacked(root):
    return {
        split: [(row["input_ids"], row["labels"], row["attention_mask"]) for row in rows]
        for split, rows in load_from_disk(str(root)).items()
    }


def read_megatron(root):
    out = {}
    for split in ("train", "validation"):
        index = (root / f"{split}.idx").read_bytes()
        assert index[:9] == b"MMIDIDX\x00\x00"
        version, code, num_sequences, num_documents = struct.unpack_from("<QBQQ", index, 9)
        assert (version, code, num_documents) == (1, 8, num_sequences + 1)
        lengths = np.frombuffer(index, "<i4", num_sequences, 34)
        pointers = np.frombuffer(index, "<i8", num_sequences, 34 + 4 * num_sequences)
        documents = np.frombuffer(index, "<i8", num_documents, 34 + 12 * num_sequences)
        assert documents.tolist() == list(range(num_documents))
        assert len(index) == 34 + 12 * num_sequences + 8 * num_documents
        data = (root / f"{split}.bin").read_bytes()
        out[split] = [
            (np.frombuffer(data, "<u2", length, begin).tolist(),)
            for length, begin in zip(lengths.tolist(), pointers.tolist(), strict=True)
        ]
        assert len(data) == 2 * lengths.sum()
    return out


def read_flat(root):
    out = {}
    for split, name in (("train", "train.bin"), ("validation", "val.bin")):
        ids = np.fromfile(root / name, "<u2")
        ends = np.fromfile(root / f"{name}.index", "<u8").astype(int)
        assert ends[-1] == len(ids)
        out[split] = [(each.tolist(),) for each in np.split(ids, ends[:-1])]
        mask = root / f"{name}.mask"
        if mask.exists():
            kept = np.split(np.fromfile(mask, np.bool_), ends[:-1])
            out[split] = [(*each, on.tolist()) for each, on in zip(out[split], kept, strict=True)]
    return out


DOCUMENTS = {"unpacked": read_unpacked, "megatron": read_megatron, "flat": read_flat}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_whole_again(packed, name, whole, tmp_path):
    """Documents that were cut over several packs are put together, in the order of the input."""
    masked = "masked" in str(packed)
    if masked and name == "megatron":
        with pytest.raises(errors.UsageError, match="labels are masked"):
            exports.export(str(packed), name, str(tmp_path / "out"))
    exports.export(str(packed), name, str(tmp_path / "out"), lossy=masked and name == "megatron")
    read = DOCUMENTS[name](tmp_path / "out")
    rows = {split: [] for split in read}
    for split, data in load_from_disk(str(packed)).items():
        rows[split] = sorted({source["row"] for row in data for source in row["sources"]})
    assert sorted(rows["train"] + rows["validation"]) == sorted(whole)
    labels = labels_of(packed) if masked else {}
    for split, documents in read.items():
        assert [each[0] for each in documents] == [whole[row] for row in rows[split]]
        for row, document in zip(rows[split], documents, strict=True):
            ids = whole[row]
            kept = [label != IGNORE for label in labels[row]] if masked else [True] * len(ids)
            if name == "unpacked":
                assert document[1] == [
                    IGNORE,
                    *(one if on else IGNORE for one, on in zip(ids[1:], kept[1:], strict=True)),
                ]
                assert document[2] == [1] * len(ids)
            if name == "flat" and masked:
                assert document[1] == [True, *kept[1:]]
    assert (tmp_path / "out" / "train.bin.mask").exists() == (masked and name == "flat")


def labels_of(output):
    """(row of the input -> labels) as the packs hold them."""
    found = {}
    for data in load_from_disk(str(output)).values():
        for row in data:
            begin = 0
            for source in row["sources"]:
                size = source["end"] - source["start"]
                found.setdefault(source["row"], {})[source["start"]] = row["labels"][begin : begin + size]
                begin += size
    return {row: [label for start in sorted(pieces) for label in pieces[start]] for row, pieces in found.items()}


def test_a_compact_directory_exports_the_same_packs(pack, tmp_path):
    pack(tmp_path / "full", strategy="best-fit")
    pack(tmp_path / "compact", strategy="best-fit", columns="compact")
    for name in ("llama-factory", "megatron-bridge"):
        for kind in ("full", "compact"):
            exports.export(str(tmp_path / kind), name, str(tmp_path / f"{kind}-{name}"))
        one, other = (json.loads((tmp_path / f"{kind}-{name}/export.json").read_text()) for kind in ("full", "compact"))
        assert [file["sha256"] for file in one["files"]] == [file["sha256"] for file in other["files"]]
    with pytest.raises(errors.UsageError, match="no column sources"):
        exports.export(str(tmp_path / "compact"), "unpacked", str(tmp_path / "x"))


REFUSED = {
    "EOS inside": ({"allow_special": True}, "flat", "EOS stand inside documents"),
    "EOS inside, mds": ({"allow_special": True, "strategy": "best-fit"}, "mds", "EOS stand inside documents"),
    "no EOS": ({"add_eos": False}, "megatron", "do not end with EOS"),
    "truncated": ({"overlong": "truncate", "strategy": "best-fit"}, "megatron", "do not end with EOS"),
    "truncated, mds": ({"overlong": "truncate", "strategy": "next-fit", "max_len": 60}, "mds", None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_cannot_hold_is_refused(case, pack, tmp_path, tokenizer_dir):
    """A reader that looks for EOS would cut a document in two, or join two."""
    settings, name, message = REFUSED[case]
    if "EOS inside" in case:
        source = tmp_path / "data.jsonl"
        texts = ["one <|endoftext|> two", "three"]
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        given = {"tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers", "workers": 1, "max_len": 64}
        packcli.pack(source, tmp_path / "in", **given, **settings)
    else:
        pack(tmp_path / "in", **settings)
    if message is None:  # a truncated document that ends its row is told apart by the row
        exports.export(str(tmp_path / "in"), name, str(tmp_path / "out"))
        return
    with pytest.raises(errors.UsageError, match=message) as caught:
        exports.export(str(tmp_path / "in"), name, str(tmp_path / "out"))
    assert "--lossy" in caught.value.hint
    exports.export(str(tmp_path / "in"), name, str(tmp_path / "out"), lossy=True)


@pytest.mark.parametrize("packed", ["masked"], indirect=True)
@pytest.mark.parametrize("name", exports.EXPORTS)
def test_an_interrupted_export_resumes(packed, name, tmp_path, monkeypatch):
    """The same tree as of a run that was left alone; what was done is not done again, and nothing half done shows."""
    lossy = name in ("mds", "megatron")
    exports.export(str(packed), name, str(tmp_path / "clean"), lossy=lossy)
    exporter = exports.get_export(name)
    done = []

    def die_on_third(self, packed, split, index, sink, lossy):
        if len(done) == 2:
            with sink.open(".packcli/parts/half"):
                raise KeyboardInterrupt
        done.append((split, index))
        return type(exporter).write_part.__wrapped__(self, packed, split, index, sink, lossy)

    real = type(exporter).write_part
    die_on_third.__wrapped__ = real
    monkeypatch.setattr(type(exporter), "write_part", die_on_third)
    with pytest.raises(KeyboardInterrupt):
        exports.export(str(packed), name, str(tmp_path / "out"), lossy=lossy)
    assert not (tmp_path / "out" / "export.json").exists()
    for folder in ("", ".packcli/parts/"):  # what a killed process leaves
        (tmp_path / "out" / f"{folder}.half.1.abc.tmp").write_bytes(b"x")
    again = []
    monkeypatch.setattr(type(exporter), "write_part", lambda *given: again.append(given[2:4]) or real(*given))
    assert exports.export(str(packed), name, str(tmp_path / "out"), lossy=lossy).status == "resumed"
    assert len(done) == 2
    assert not set(done) & set(again)
    assert len(again) >= 4
    assert tree_hash(tmp_path / "out") == tree_hash(tmp_path / "clean")
    again.clear()
    assert exports.export(str(packed), name, str(tmp_path / "out"), lossy=lossy).status == "up to date"
    assert again == []


def test_outputs_are_guarded(pack, tmp_path):
    pack(tmp_path / "in")
    pack(tmp_path / "other", strategy="best-fit")
    out = tmp_path / "out"
    exports.export(str(tmp_path / "in"), "flat", str(out))
    (out / "mine.txt").write_text("stays")
    with pytest.raises(errors.MismatchError, match="format was"):
        exports.export(str(tmp_path / "in"), "mds", str(out))
    with pytest.raises(errors.MismatchError, match="source_fingerprint"):
        exports.export(str(tmp_path / "other"), "flat", str(out))
    exports.export(str(tmp_path / "other"), "unpacked", str(out), overwrite=True)
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".arrow") == sorted(
        [".packcli", "dataset_info.json", "export.json", "mine.txt", "state.json"]
    )
    with pytest.raises(errors.OutputError, match="holds a packed directory"):
        exports.export(str(tmp_path / "in"), "flat", str(tmp_path / "other"), overwrite=True)
    with pytest.raises(errors.OutputError, match="holds a packed directory"):
        exports.export(str(tmp_path / "in"), "flat", str(tmp_path), overwrite=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("x")
    with pytest.raises(errors.OutputError, match="not an output of packcli"):
        exports.export(str(tmp_path / "in"), "flat", str(tmp_path / "theirs"))
    with FileLock(out / ".packcli" / "lock"), pytest.raises(errors.LockedError):
        exports.export(str(tmp_path / "other"), "unpacked", str(out))
    with pytest.raises(errors.OutputError, match=r"no manifest\.json"):
        exports.export(str(out), "flat", str(tmp_path / "x"))
    shard = next((tmp_path / "in").glob("data-*.arrow"))
    shard.unlink()
    with pytest.raises(errors.StorageError, match="missing, or it cannot be read"):
        exports.export(str(tmp_path / "in"), "mds", str(tmp_path / "y"), lossy=True)


def test_a_token_that_looks_like_padding_is_not_lost(tmp_path, tokenizer_dir):
    """Without sources, a last piece of one EOS and a pad of EOS look alike: refused, not exported without it."""
    given = {"tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers", "workers": 1, "max_len": 8}
    given |= {"pad_token": "<|endoftext|>", "strategy": "best-fit"}
    texts = ["7" * 8, "7" * 6]  # 9 and 7 tokens: rows of 8, and of 7 and 1
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for columns in ("all", "input_ids,labels,seq_lengths"):
        report = packcli.pack(tmp_path / "data.jsonl", tmp_path / columns, columns=columns, **given)
        assert report.stats.num_tokens_packed == 8 * report.stats.num_packs == 16
    exports.export(tmp_path / "all", "llama-factory")
    with pytest.raises(errors.StorageError, match="looks like padding"):
        exports.export(tmp_path / "input_ids,labels,seq_lengths", "llama-factory")


def test_files_of_an_export_are_recorded_by_hash(pack, tmp_path):
    import hashlib

    found = exports.export(str(pack(tmp_path / "in")), "flat", str(tmp_path / "out"))
    assert [file.name for file in found.files] == ["train.bin", "train.bin.index"]
    for file in found.files:
        data = (tmp_path / "out" / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.num_bytes, file.sha256)
    assert Sink(tmp_path).files == []


def test_the_command_line(pack, tmp_path):
    output = pack(tmp_path / "in")
    result = CliRunner().invoke(cli.app, ["export", str(output), "--to", "flat", "--json"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert (printed["output"], printed["status"]) == (f"{output}-flat", "exported")
    assert "numpy.memmap" in result.stderr
    again = subprocess.run([*PACKCLI, "export", output, "--to", "flat", "-q"], capture_output=True, check=True)
    assert again.stdout + again.stderr == b""
    wrong = CliRunner().invoke(cli.app, ["export", str(output), "--to", "parket"])
    assert wrong.exit_code == 2
    assert "did you mean 'parquet'" in wrong.stderr


def test_the_command_line_knows_every_format():
    assert tuple(exports.EXPORTS) == EXPORT_FORMATS
