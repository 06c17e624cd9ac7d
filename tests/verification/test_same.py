"""verify --same-as: the same rows in two outputs."""

import shutil

import pyarrow as pa
from helpers import SAMPLE, tree_hash
from outputs_to_verify import of_row, pack, rewrite_shard, wrong

# --- two outputs ---


def test_the_same_rows_are_the_same_whatever_they_are_called(tmp_path, output, original):
    assert wrong(output, same_as=original) == []
    shutil.copy(SAMPLE, tmp_path / "renamed.jsonl")
    one, other = pack(tmp_path / "one"), pack(tmp_path / "other", tmp_path / "renamed.jsonl")
    assert tree_hash(one) != tree_hash(other)
    assert wrong(one, same_as=other) == []


def test_other_rows_are_named(tmp_path):
    one, other = pack(tmp_path / "one", strategy="concat"), pack(tmp_path / "other", strategy="concat")
    rewrite_shard(other, "data-00001-000.arrow", of_row(2, "input_ids", 0, 7))
    first = pa.ipc.open_stream((one / "data-00000-000.arrow").read_bytes()).read_all().num_rows
    assert wrong(one, same_as=other) == [("", f"train row {first + 2} differs in input_ids")]
    compact = pack(tmp_path / "compact", strategy="concat", columns="input_ids,labels,seq_lengths")
    ((_, what),) = wrong(one, same_as=compact)
    assert what == "only one of the two has the columns position_ids, sources; the others were compared"
    fewer = pack(tmp_path / "fewer", strategy="concat", max_len=512)
    assert any("rows here and" in what for _, what in wrong(one, same_as=fewer))
    (fewer / "stats.json").unlink()
    assert wrong(one, same_as=fewer) == [("stats.json", "is missing or cannot be read: No such file or directory")]
