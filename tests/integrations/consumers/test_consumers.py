"""Exports in the own readers of other stacks. `make integration-consumers` runs it.

| export | reader |
|---|---|
| megatron | megatron-core, IndexedDataset |
| mds | mosaicml-streaming, StreamingDataset |
| flat | datatrove, DatatroveFileDataset |
| unpacked | TRL, pack_dataset |
| parquet | datasets, load_dataset |
| automodel | nemo-automodel, packed_sequence_thd_collater and process_input_for_thd |
| llama-factory | llamafactory, prepare_4d_attention_mask; what its package imports besides (torchaudio) is left out |
| megatron-bridge | none: 0.3.1 on PyPI does not read packed Parquet; tests/exports has one by its layout |

No set of versions has the dependencies of all of them (streaming wants numpy < 2.2 and transformers < 5, TRL
transformers 5), so they are installed without, beside those few that their readers import.
"""

import ast
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
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
    packcli.pack(folder / "docs.jsonl", folder / "padded", max_len=MAX_LEN, strategy="next-fit", **given)
    return folder


@pytest.fixture(scope="module")
def documents(packed):
    rows = load_from_disk(str(packed / "whole"))
    found = [row["input_ids"][: row["sources"][0]["end"]] for row in rows]
    assert len(found) > 100
    return found


@pytest.fixture
def export(packed, tmp_path):
    return lambda name, of="out": exports.export(str(packed / of), name, str(tmp_path / name)).output


def test_megatron_core_reads_the_indexed_dataset(export, documents):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    data = IndexedDataset(str(export("megatron") / "train"))
    assert data.document_indices.tolist() == list(range(len(documents) + 1))
    assert [data[at].tolist() for at in range(len(data))] == documents
    assert data.get(7, offset=1, length=3).tolist() == documents[7][1:4]


def import_streaming():
    """Its package imports two names of torchvision, for images only, and torchvision has no build for every torch."""
    import transformers  # noqa: F401 - looks for torchvision at its first import, and shall not find what follows

    made = {"torchvision.datasets": "VisionDataset", "torchvision.transforms.functional": "to_tensor"}
    names = ["torchvision", "torchvision.transforms", *made]
    if importlib.util.find_spec("torchvision") is None:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
            setattr(sys.modules[name], made.get(name, "nothing"), type("Absent", (), {}))
    try:
        import streaming
    finally:
        for name in names:  # Transformers would take it for the real one
            if getattr(sys.modules.get(name), "__file__", None) is None:
                sys.modules.pop(name, None)
    return streaming


def test_streaming_reads_the_shards(export, packed):
    streaming = import_streaming()
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


def documents_of(rows):
    """(ids, targets) of every document of each stored row."""
    for row in rows:
        ends = np.cumsum([source["end"] - source["start"] for source in row["sources"]]).tolist()
        yield [
            (row["input_ids"][begin:end], [*row["labels"][begin + 1 : end], -100])
            for begin, end in zip([0, *ends[:-1]], ends, strict=True)
        ]


def test_automodel_collates_the_packs(export, packed):
    from nemo_automodel.components.datasets.utils import packed_sequence_thd_collater
    from nemo_automodel.components.distributed.thd_utils import process_input_for_thd

    exported = load_from_disk(str(export("automodel", "padded")))
    stored = list(documents_of(load_from_disk(str(packed / "padded"))))
    assert any(sum(row["seq_lens"]) < MAX_LEN for row in exported)
    for first in range(0, len(exported) - 3, 4):
        rows = [exported[at] for at in range(first, first + 4)]
        batch = packed_sequence_thd_collater([dict(row) for row in rows])
        assert batch["qkv_format"] == "thd"
        assert batch["input_ids"].shape == (4, MAX_LEN)
        found = []
        for at in range(4):
            lengths, room = (
                batch[name][at][batch[name][at] != -1000].tolist() for name in ("seq_lens", "seq_lens_padded")
            )
            assert sum(room) == MAX_LEN
            begins = np.cumsum([0, *room[:-1]]).tolist()
            pieces = [slice(begin, begin + length) for begin, length in zip(begins, lengths, strict=True)]
            found.append(
                [(batch["input_ids"][at][each].tolist(), batch["labels"][at][each].tolist()) for each in pieces]
            )
        assert found == stored[first : first + 4]
        # What its model gets: each row on its own, since real lengths are counted without the room between rows.
        for at, row in enumerate(rows):
            single = process_input_for_thd(packed_sequence_thd_collater([dict(row)]))
            cu_seqlens = single["cu_seqlens"].tolist()
            real = [length for length in np.diff(cu_seqlens).tolist() if length]
            assert real[:-1] == [len(ids) for ids, _ in stored[first + at]][:-1]
            assert cu_seqlens[-1] == MAX_LEN  # the last one takes the padding up, whose labels are -100


def test_llama_factory_masks_the_packs(export, packed):
    place = Path(importlib.util.find_spec("llamafactory").origin).parent / "data" / "collator.py"
    tree = ast.parse(place.read_text(encoding="utf-8"))
    tree.body = [each for each in tree.body if getattr(each, "name", "") == "prepare_4d_attention_mask"]
    scope = {"torch": torch}
    exec(compile(tree, str(place), "exec"), scope)
    exported = load_from_disk(str(export("llama-factory", "padded")))
    for row, stored in zip(exported, load_from_disk(str(packed / "padded")), strict=True):
        mask = scope["prepare_4d_attention_mask"](torch.tensor([row["attention_mask"]]), torch.float32)[0, 0]
        lengths = [source["end"] - source["start"] for source in stored["sources"]]
        document = np.repeat(np.arange(len(lengths)), lengths)
        size = len(document)
        causal = np.tril(np.ones((size, size), dtype=bool))
        assert np.array_equal((mask == 0).numpy()[:size, :size], causal & (document[:, None] == document))
        assert not (mask == 0)[:size, size:].any()
        assert row["labels"] == stored["labels"]
        assert row["input_ids"] == stored["input_ids"]
