"""packcli.load: every directory trains alike, whatever columns it stores."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from datasets import DatasetDict, load_from_disk
from helpers import SAMPLE

import packcli
from packcli import errors
from packcli.config.choices import COLUMNS

MAX_LEN = 256


@pytest.fixture(scope="module")
def pack(tokenizer_dir, tmp_path_factory):
    """Packs a hundred documents; the plain engine with a tiny tokenizer starts fastest."""
    source = tmp_path_factory.mktemp("source") / "docs.jsonl"
    lines = SAMPLE.read_bytes().split(b"\n")
    source.write_bytes(b"\n".join(line for line in lines if 0 < len(line) < 800) + b"\n")
    given = {"max_len": MAX_LEN, "workers": 1, "strategy": "next-fit", "tokenizer": str(tokenizer_dir)}
    given["tokenizer_engine"] = "tokenizers"
    return lambda output, **settings: packcli.pack(source, output, **{**given, **settings}).output


@pytest.fixture(scope="module", params=[True, False], ids=["isolate", "no-isolate"])
def full(request, pack, tmp_path_factory):
    output = pack(tmp_path_factory.mktemp("full") / "out", isolate=request.param)
    return request.param, list(load_from_disk(str(output)))


@pytest.mark.parametrize(
    "columns",
    ["compact", "input_ids,seq_lengths,sources", "input_ids,labels,seq_lengths", "input_ids,position_ids,seq_lengths"],
)
def test_what_is_not_stored_is_made(tmp_path, pack, full, columns):
    """Compact directories would need code of their own in every trainer."""
    isolate, rows = full
    output = pack(tmp_path / "out", columns=columns, isolate=isolate)
    loaded = packcli.load(output, row_type="list")
    arrays = packcli.load(output, row_type="numpy")
    made = {"input_ids", "labels", "position_ids", "seq_lengths"}
    assert made <= set(loaded.column_names)
    assert len(loaded) == len(rows)
    assert sum(row["input_ids"][-1] == 1 for row in rows) > 10  # padding was seen
    for ours, array, theirs in zip(loaded, arrays, rows, strict=True):
        assert {**theirs, **ours} == theirs
        assert set(array) == made
        assert all(array[name].dtype == np.int64 and array[name].tolist() == theirs[name] for name in made)


def test_trainers_may_remove_columns(tmp_path, pack, full):
    """Transformers removes seq_lengths, TRL removes position_ids; what is left must still be made."""
    isolate, rows = full
    loaded = packcli.load(pack(tmp_path / "out", columns="compact", isolate=isolate), row_type="list")
    for removed in ("seq_lengths", "position_ids"):
        left = loaded.remove_columns([removed]).select(range(20))
        for ours, theirs in zip(pickle.loads(pickle.dumps(left)), rows, strict=False):
            assert removed not in ours
            assert all(ours[name] == theirs[name] for name in ours)
    assert loaded.select_columns(["input_ids"])[7] == {"input_ids": rows[7]["input_ids"]}
    if isolate:
        with pytest.raises(errors.UsageError, match="labels are made from seq_lengths"):
            loaded.remove_columns(["seq_lengths", "position_ids"])[0]


def test_nothing_is_copied(tmp_path, pack):
    before = pa.total_allocated_bytes()
    loaded = packcli.load(pack(tmp_path / "out", columns="compact"))
    assert len(loaded) > 100
    assert pa.total_allocated_bytes() == before


def test_splits_are_loaded_alike(tmp_path, pack):
    loaded = packcli.load(pack(tmp_path / "out", columns="compact", val_fraction=0.2), row_type="numpy")
    assert isinstance(loaded, DatasetDict)
    for split in ("train", "validation"):
        assert loaded[split][0]["labels"].shape == (MAX_LEN,)


def test_a_full_directory_is_what_datasets_maps(tmp_path, pack):
    output = pack(tmp_path / "out")
    assert packcli.load(output, row_type="list").column_names == list(COLUMNS)
    row = packcli.load(output, row_type="numpy")[0]
    assert row["position_ids"].dtype == np.int64
    assert "sources" not in row


def test_mistakes_are_named(tmp_path, pack):
    with pytest.raises(errors.OutputError, match=r"no manifest\.json"):
        packcli.load(tmp_path)
    output = pack(tmp_path / "out")
    with pytest.raises(errors.UnknownNameError, match="did you mean 'torch'"):
        packcli.load(output, row_type="touch")
    assert json.loads((output / "manifest.json").read_text())["config"]["max_len"] == MAX_LEN
