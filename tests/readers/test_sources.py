"""Inputs as users name them -> files: which, in what order, under which name, and what is refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from packcli.errors import NoInputError, StorageError, UsageError
from packcli.readers import default_output_name, find_sources, spool_stdin

ROW = b'{"text": "a"}\n'


def put(root: Path, *names: str, data: bytes = ROW) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def find(*inputs: object) -> list[str]:
    return [source.name for source in find_sources([str(each) for each in inputs], [])]


def warnings_of(*inputs: object) -> list[str]:
    warnings: list[str] = []
    find_sources([str(each) for each in inputs], warnings)
    return warnings


def write_arrow(path: Path, texts: list[str]) -> None:
    table = pa.table({"text": texts})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def save_by_hand(root: Path, shards: list[str]) -> None:
    """What save_to_disk writes, as far as packcli looks at it."""
    root.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        write_arrow(root / shard, [shard])
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": shard} for shard in shards]}))
    (root / "dataset_info.json").write_text("{}")


# --- which files, in which order ---


def test_explicit_files_keep_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    put(tmp_path, "b.jsonl", "a.jsonl")
    assert find(tmp_path / "b.jsonl", tmp_path / "a.jsonl") == ["b.jsonl", "a.jsonl"]


def test_a_glob_is_sorted_and_recursive(tmp_path: Path) -> None:
    put(tmp_path, "b.jsonl", "a.jsonl", "sub/c.jsonl", "x.parquet.note")
    assert find(tmp_path / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert find(tmp_path / "**" / "*.jsonl") == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]


def test_a_glob_may_match_directories(tmp_path: Path) -> None:
    put(tmp_path, "part1/b.jsonl", "part2/a.jsonl")
    assert find(tmp_path / "part*") == ["part1/b.jsonl", "part2/a.jsonl"]


def test_a_name_with_glob_characters_that_exists_is_a_file(tmp_path: Path) -> None:
    put(tmp_path, "data[1].jsonl", "data1.jsonl")
    assert find(tmp_path / "data[1].jsonl") == ["data[1].jsonl"]


def test_a_directory_is_walked_sorted_without_hidden_names(tmp_path: Path) -> None:
    put(tmp_path, "b/2.jsonl", "a/1.parquet", "c.NDJSON", "b/d/3.jsonl.gz")
    put(tmp_path, ".hidden.jsonl", "_SUCCESS.jsonl", ".git/x.jsonl", "_parts/y.jsonl", "b/.x/z.jsonl")
    assert find(tmp_path) == ["a/1.parquet", "b/2.jsonl", "b/d/3.jsonl.gz", "c.NDJSON"]


@pytest.mark.parametrize(
    ("names", "read", "left_out"),
    [
        (["d.jsonl", "info.json", "notes.txt", "README.md"], ["d.jsonl"], 2),
        (["d.jsonl.zst", "sub/info.json"], ["d.jsonl.zst"], 1),
        (["d.json", "notes.txt", "more.txt.gz"], ["d.json"], 2),
        (["b.txt", "a.txt.gz", "x.py"], ["a.txt.gz", "b.txt"], 0),
        (["a.jsonl", "b.ndjson", "c.parquet", "d.arrow"], ["a.jsonl", "b.ndjson", "c.parquet", "d.arrow"], 0),
    ],
)
def test_in_a_directory_the_first_family_is_the_data(
    tmp_path: Path, names: list[str], read: list[str], left_out: int
) -> None:
    """Without it a dataset_info.json or a LICENSE.txt beside the data would be trained on."""
    put(tmp_path, *names)
    assert find(tmp_path) == read
    said = [line for line in warnings_of(tmp_path) if "left out" in line]
    assert len(said) == bool(left_out)
    assert all(f"{left_out} .json or .txt files" in line for line in said)


def test_outputs_of_packcli_inside_the_input_are_passed_over(tmp_path: Path) -> None:
    """Without it a second run would pack what the first one wrote."""
    put(tmp_path, "a.jsonl", "a-packed/.packcli/run.jsonl", "a-packed/data.arrow", "a-packed/sub/b.jsonl")
    assert find(tmp_path) == ["a.jsonl"]
    assert ["a-packed is an output of packcli" in line for line in warnings_of(tmp_path)] == [True]


def test_a_directory_without_data_says_what_is_read(tmp_path: Path) -> None:
    put(tmp_path, "README.md", ".jsonl", "_x.jsonl")
    with pytest.raises(NoInputError, match=r"no file that packcli reads in this directory\nit reads .jsonl"):
        find(tmp_path)


def test_a_link_to_the_directory_above_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "sub/a.jsonl")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert find(tmp_path) == ["a.jsonl"]


def test_a_dangling_link_in_a_directory_is_an_error(tmp_path: Path) -> None:
    """A shard that has gone must not turn into fewer rows."""
    put(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(StorageError, match=r"b\.jsonl: No such file"):
        find(tmp_path)


# --- directories of save_to_disk ---


def test_shards_of_save_to_disk_come_in_the_order_of_its_state(tmp_path: Path) -> None:
    """Sorted by name they would be other rows under the same numbers; cache files would be read twice."""
    save_by_hand(tmp_path, ["data-2.arrow", "data-10.arrow", "data-1.arrow"])
    write_arrow(tmp_path / "cache-77.arrow", ["not a row of it"])
    assert find(tmp_path) == ["data-2.arrow", "data-10.arrow", "data-1.arrow"]


def test_a_dataset_dict_with_one_split_is_that_split(tmp_path: Path) -> None:
    save_by_hand(tmp_path / "train", ["data.arrow"])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert find(tmp_path) == ["data.arrow"]


def test_a_dataset_dict_with_two_splits_asks_for_one(tmp_path: Path) -> None:
    """Without it validation rows would be packed with the training rows."""
    for split in ("train", "test"):
        save_by_hand(tmp_path / split, [f"{split}.arrow"])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UsageError, match=r"the splits train, test\nname one: .*train"):
        find(tmp_path)
    assert find(tmp_path / "test") == ["test.arrow"]


def test_a_saved_dataset_below_an_input_directory_is_its_shards(tmp_path: Path) -> None:
    """Caches that datasets leaves beside the shards would be packed as data."""
    put(tmp_path, "in/a.jsonl")
    datasets.Dataset.from_dict({"text": ["b"]}).save_to_disk(str(tmp_path / "in" / "saved"))
    write_arrow(tmp_path / "in" / "saved" / "cache-0123.arrow", ["c"])
    assert find(tmp_path / "in") == ["a.jsonl", "saved/data-00000-of-00001.arrow"]


def test_what_datasets_itself_saves_is_found(tmp_path: Path) -> None:
    """The hand-made directories above must be like the real ones."""
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"text": [str(index) for index in range(20)]})
    rows.save_to_disk(str(tmp_path / "one"), num_shards=3)
    datasets.DatasetDict(train=rows).save_to_disk(str(tmp_path / "dict"))
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "both"))
    assert find(tmp_path / "one") == [f"data-0000{index}-of-00003.arrow" for index in range(3)]
    assert find(tmp_path / "dict") == ["data-00000-of-00001.arrow"]
    with pytest.raises(UsageError, match="the splits train, test"):
        find(tmp_path / "both")


@pytest.mark.parametrize("state", ["", "[1]", "{}", '{"_data_files": 3}', '{"_data_files": [{}]}', "\udcff"])
def test_a_damaged_state_file_is_named(tmp_path: Path, state: str) -> None:
    (tmp_path / "state.json").write_bytes(state.encode(errors="surrogateescape"))
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(StorageError, match="damaged save_to_disk directory"):
        find(tmp_path)


@pytest.mark.parametrize("splits", ["", "[]", "{}", '{"splits": []}', '{"splits": null}'])
def test_a_damaged_dataset_dict_is_named(tmp_path: Path, splits: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(splits)
    with pytest.raises(StorageError, match="damaged save_to_disk directory"):
        find(tmp_path)


def test_a_shard_that_the_state_names_and_that_is_gone_is_an_error(tmp_path: Path) -> None:
    save_by_hand(tmp_path, ["data-0.arrow", "data-1.arrow"])
    (tmp_path / "data-1.arrow").unlink()
    with pytest.raises(StorageError, match=r"data-1\.arrow: No such file"):
        find(tmp_path)


# --- the same file twice, and names ---


def test_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it rows would be trained on twice, in silence."""
    put(tmp_path, "a.jsonl", "b.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for other in ("a.jsonl", "./a.jsonl", "link.jsonl", "folder/a.jsonl", tmp_path / "a.jsonl", "a.json*"):
        assert find("a.jsonl", other) == ["a.jsonl"], other
        assert ["is named twice: it is read once" in line for line in warnings_of("a.jsonl", other)] == [True]
    assert find("b.jsonl", tmp_path) == ["b.jsonl", "a.jsonl"]


def test_two_files_with_the_same_rows_are_two_files(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", "b.jsonl")
    assert warnings_of(tmp_path) == []
    assert len(find(tmp_path)) == 2


def test_names_do_not_depend_on_spelling_or_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are hashed: another spelling would be another run, and resume would refuse it."""
    put(tmp_path, "data/x/1.jsonl", "data/y/z/2.jsonl", "data/3.jsonl")
    want = ["x/1.jsonl", "y/z/2.jsonl", "3.jsonl"]
    spellings = [
        (tmp_path, ["data/x/1.jsonl", "data/y/z/2.jsonl", "data/3.jsonl"]),
        (tmp_path / "data", ["x/1.jsonl", "./y/../y/z//2.jsonl", "3.jsonl"]),
        (tmp_path / "data" / "y", ["../x/1.jsonl", "z/2.jsonl", "../3.jsonl"]),
        (Path("/"), [str(tmp_path / "data" / name) for name in want]),
    ]
    for directory, inputs in spellings:
        monkeypatch.chdir(directory)
        assert find(*inputs) == want


def test_names_begin_below_the_deepest_common_directory(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c/1.jsonl", "a/b/d/2.jsonl", "a/bb.jsonl")
    assert find(tmp_path / "a/b/c/1.jsonl") == ["1.jsonl"]
    assert find(tmp_path / "a/b/c/1.jsonl", tmp_path / "a/b/d/2.jsonl") == ["c/1.jsonl", "d/2.jsonl"]
    assert find(tmp_path / "a/b/c/1.jsonl", tmp_path / "a/bb.jsonl") == ["b/c/1.jsonl", "bb.jsonl"]


def test_what_a_source_says(tmp_path: Path) -> None:
    wanted = {
        "a.jsonl": ("json", None),
        "b.ndjson.gz": ("json", "gzip"),
        "c.json.zst": ("json", "zstd"),
        "d.TXT.GZ": ("txt", "gzip"),
        "e.parquet": ("parquet", None),
        "f.arrow": ("arrow", None),
        "g.v2.jsonl.zst": ("json", "zstd"),
    }
    put(tmp_path, *wanted)
    sources = find_sources([str(tmp_path / name) for name in wanted], [])
    assert {source.name: (source.format, source.compression) for source in sources} == wanted
    assert all(source.num_bytes == len(ROW) and os.path.isabs(source.path) for source in sources)


# --- what is refused ---


def test_no_such_file_names_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "other.parquet")
    with pytest.raises(NoInputError, match=r"trian\.jsonl: no such file or directory; did you mean .*/train\.jsonl\?"):
        find(tmp_path / "trian.jsonl")
    with pytest.raises(NoInputError, match=r"no such file or directory$"):
        find(tmp_path / "nowhere" / "train.jsonl")


@pytest.mark.parametrize("pattern", ["*.parquet", "sub/**/*.jsonl", "a?.jsonl", "[bc].jsonl"])
def test_a_pattern_without_a_match_is_an_error(tmp_path: Path, pattern: str) -> None:
    put(tmp_path, "a.jsonl")
    with pytest.raises(NoInputError, match="no file matches"):
        find(tmp_path / pattern)


def test_nothing_named_is_an_error() -> None:
    with pytest.raises(NoInputError, match="no input"):
        find()


def test_an_empty_file_is_said_and_all_empty_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    put(tmp_path, "b.jsonl", "c.jsonl", data=b"")
    assert find(tmp_path) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert warnings_of(tmp_path) == ["b.jsonl is empty", "c.jsonl is empty"]
    with pytest.raises(NoInputError, match="every input file is empty"):
        find(tmp_path / "b.jsonl", tmp_path / "c.jsonl")


@pytest.mark.parametrize("name", ["x.csv", "x", "x.gz", "x.jsonl.bz2", "x.parquet.gz", "x.arrow.zst", "x.jsonl~"])
def test_a_suffix_that_says_nothing_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    with pytest.raises(UsageError, match="cannot tell the format from the name"):
        find(tmp_path / name)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Without it packcli would hang on a named pipe, named or found in a directory."""
    put(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    keep_open = os.open(tmp_path / "b.jsonl", os.O_RDWR)  # so that a broken packcli fails instead of hanging
    try:
        for each in (tmp_path / "b.jsonl", tmp_path, tmp_path / "*.jsonl"):
            with pytest.raises(UsageError, match=r"b\.jsonl is not a regular file\nuse -"):
                find(each)
    finally:
        os.close(keep_open)


# --- the name of the output, and standard input ---


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ("data.jsonl", "data-packed"),
        ("data.jsonl.zst", "data-packed"),
        ("/some/where/data.v2.parquet", "data-packed"),
        ("../x/data.jsonl", "data-packed"),
        (".jsonl", ".jsonl-packed"),
        ("sub/*.jsonl", "sub-packed"),
        ("sub/a*.jsonl", "sub-packed"),
        ("sub/**/*.jsonl", "sub-packed"),
        ("sub/a?.jsonl", "sub-packed"),
        ("*.jsonl", "here-packed"),
        ("exists[1].jsonl", "exists[1]-packed"),
        (".", "here-packed"),
        ("folder", "folder-packed"),
        ("folder/", "folder-packed"),
        ("folder.v1", "folder.v1-packed"),
        ("/", "data-packed"),
        ("-", "stdin-packed"),
    ],
)
def test_the_output_is_named_after_the_first_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, name: str
) -> None:
    (tmp_path / "here" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "folder.v1").mkdir()
    (tmp_path / "here" / "exists[1].jsonl").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert default_output_name([first, "other.jsonl"]) == name


def test_standard_input_is_kept_whole(tmp_path: Path) -> None:
    source = spool_stdin(io.BytesIO(ROW * 3), tmp_path / "spool.jsonl")
    assert (source.name, source.format, source.compression, source.num_bytes) == ("stdin.jsonl", "json", None, 42)
    assert (tmp_path / "spool.jsonl").read_bytes() == ROW * 3


def test_empty_standard_input_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="standard input is empty"):
        spool_stdin(io.BytesIO(), tmp_path / "spool.jsonl")


def test_standard_input_that_cannot_be_kept_says_where(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot keep standard input in .*gone"):
        spool_stdin(io.BytesIO(ROW), tmp_path / "gone" / "spool.jsonl")
