"""Exports in the own readers of Megatron-LM, MosaicML Streaming, datatrove and TRL. `make test-consumers` runs it."""

import json

import numpy as np
import pytest
from datasets import load_dataset, load_from_disk
from helpers import SAMPLE

import packcli
from packcli import exports

MAX_LEN = 128

pytestmark = pytest.mark.filterwarnings("default")  # what the stacks deprecate is not our matter


@pytest.fixture(scope="module")
def packed(tokenizer_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    lines = [line for line in SAMPLE.read_bytes().split(b"\n") if 0 < len(line) < 900]
    (folder / "docs.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    given = {"workers": 1, "tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers", "unit_bytes": 20_000}
    # concat: readers of mds know a document that goes on in the next row by the row, the others by EOS
    packcli.pack(folder / "docs.jsonl", folder / "out", max_len=MAX_LEN, strategy="concat", **given)
    packcli.pack(folder / "docs.jsonl", folder / "whole", max_len=8192, strategy="pad", **given)
    return folder


@pytest.fixture(scope="module")
def documents(packed):
    rows = load_from_disk(str(packed / "whole"))
    found = [row["input_ids"][: row["sources"][0]["end"]] for row in rows]
    assert len(found) > 100
    return found


@pytest.fixture
def export(packed, tmp_path):
    return lambda name: exports.export(str(packed / "out"), name, str(tmp_path / name)).output


def test_megatron_core_reads_the_indexed_dataset(export, documents):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    data = IndexedDataset(str(export("megatron") / "train"))
    assert data.document_indices.tolist() == list(range(len(documents) + 1))
    assert [data[at].tolist() for at in range(len(data))] == documents
    assert data.get(7, offset=1, length=3).tolist() == documents[7][1:4]


def test_streaming_reads_the_shards(export, packed):
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    data = streaming.StreamingDataset(local=str(export("mds")), batch_size=1, shuffle=False)
    rows = load_from_disk(str(packed / "out"))
    assert len(data) == len(rows) > 100
    for at, row in enumerate(rows):
        sample = data[at]
        assert sorted(sample) == ["labels", "position_ids", "tokens"]
        for name, theirs in (("tokens", "input_ids"), ("labels", "labels"), ("position_ids", "position_ids")):
            assert sample[name].dtype == np.int32
            assert sample[name].tolist() == row[theirs]
        # LLM Foundry counts the EOS before a token: the same documents as seq_lengths, padding aside
        ids = np.cumsum(np.append(0, sample["tokens"][:-1] == 0))
        real = sum(source["end"] - source["start"] for source in row["sources"])
        expected = np.repeat(np.arange(len(row["seq_lengths"])), row["seq_lengths"])
        assert ids[:real].tolist() == expected[:real].tolist()


def test_datatrove_reads_the_flat_file_and_its_index(export, documents):
    from datatrove.utils.dataset import DatatroveFileDataset

    path = str(export("flat") / "train.bin")
    stream = np.concatenate([np.array(each) for each in documents])
    positions = np.concatenate([np.arange(len(each)) for each in documents])
    data = DatatroveFileDataset(path, MAX_LEN, token_size=2, return_positions=True)
    assert len(data) == len(stream) // (MAX_LEN + 1) > 50
    for at in range(len(data)):
        window = slice(at * (MAX_LEN + 1), (at + 1) * (MAX_LEN + 1))
        assert data[at]["input_ids"].tolist() == stream[window].tolist()
        starts = np.flatnonzero(positions[window] == 0)
        found = data[at]["positions"].numpy()
        assert np.flatnonzero(found == 0).tolist() == sorted({0, *starts.tolist()})


def test_trl_packs_the_documents(export, documents):
    import trl

    data = load_from_disk(str(export("unpacked")))
    assert data["input_ids"][:] == documents
    fits = [each for each in documents if len(each) <= MAX_LEN]
    short = data.filter(lambda row: len(row["input_ids"]) <= MAX_LEN).remove_columns(["attention_mask"])
    packs = trl.pack_dataset(short, MAX_LEN, strategy="bfd")
    found = []
    for row in packs:
        ends = np.cumsum(row["seq_lengths"])
        found += [each.tolist() for each in np.split(np.array(row["input_ids"]), ends[:-1])]
    assert sorted(found) == sorted(fits)


def test_datasets_reads_the_hub_layout(export, packed, tmp_path):
    data = load_dataset(str(export("parquet")), cache_dir=str(tmp_path / "cache"))["train"]
    rows = load_from_disk(str(packed / "out"))
    assert data.features == rows.features
    assert [json.dumps(row) for row in data] == [json.dumps(row) for row in rows]
