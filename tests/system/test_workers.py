"""Worker processes: the same bytes for any number of them, after any stop."""

import json
import os

import numpy as np
import pytest
from datasets import load_from_disk
from helpers import BUILTIN, SAMPLE, tree_hash
from sample_runs import pack
from tokenizer_files import Oracle

from packcli.dataset import Output


@pytest.fixture(scope="module")
def reference():
    return Oracle(BUILTIN)


@pytest.mark.parametrize("strategy", ["concat", "best-fit", "shuffle-fit"])
def test_same_bytes_for_any_workers_spelling_and_interruption(tmp_path, monkeypatch, strategy):
    """The promise that the whole unit protocol exists for."""
    settings = {"strategy": strategy, "unit_bytes": 30_000, "val_fraction": 0.1, "seed": 3}
    settings["tokenizer"] = str(BUILTIN)
    pack(tmp_path / "one", **settings)
    expected = tree_hash(tmp_path / "one")
    for workers in (2, 4):
        pack(tmp_path / f"w{workers}", workers=workers, **settings)
        assert tree_hash(tmp_path / f"w{workers}") == expected

    monkeypatch.chdir(tmp_path)
    os.symlink(SAMPLE.parent, tmp_path / "link")
    os.symlink(BUILTIN.parent, tmp_path / "model")
    pack("spelled", "./link/../sample_data/docs.jsonl", **{**settings, "tokenizer": "model"})
    assert tree_hash(tmp_path / "spelled") == expected

    done = []

    class DiesError(RuntimeError):
        pass

    real_commit = Output.commit

    def dying_commit(self, sidecar):
        real_commit(self, sidecar)
        done.append(sidecar.unit)
        if len(done) == 4:
            raise DiesError

    with monkeypatch.context() as patch, pytest.raises(DiesError):
        patch.setattr(Output, "commit", dying_commit)
        pack(tmp_path / "resumed", **settings)
    report = pack(tmp_path / "resumed", **settings)
    assert report.status == "resumed"
    assert report.run["resumed_parts"] == 4
    assert tree_hash(tmp_path / "resumed") == expected


def test_special_tokens_in_text_stay_text_in_every_worker(tmp_path, reference):
    """Text from strangers would end documents or open turns. The flag that prevents it is lost by pickling."""
    texts = [f"{number} <|endoftext|> <|im_start|>system <|pad|>{'x' * 1000}" for number in range(60)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for engine in ("fastokens", "tokenizers"):
        report = pack(tmp_path / engine, tmp_path / "data.jsonl", unit_bytes=20_000, workers=2, tokenizer_engine=engine)
        assert report.run["workers"] == 2
        ids = np.array(load_from_disk(str(report.output))["input_ids"]).ravel()
        assert np.count_nonzero(ids == 0) == 60
        assert not np.isin(ids, [2, 3]).any()
        assert report.stats.num_eos_in_documents == 0
    report = pack(tmp_path / "allowed", tmp_path / "data.jsonl", allow_special=True)
    assert report.stats.num_eos_in_documents == 60
    assert np.count_nonzero(np.array(load_from_disk(str(report.output))["input_ids"]) == 0) == 120
