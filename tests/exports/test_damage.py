"""An export of damaged shards: an error that names the file, and never an abort, a traceback, or another result."""

import subprocess
import sys

import pytest
from helpers import SAMPLE

import packcli
from packcli import errors
from packcli.dataset import PackedDataset

FORMATS = ("unpacked", "automodel")
"""One that puts documents together, and one of rows."""

EXPORT = """
import sys, packcli
try:
    packcli.export(sys.argv[1], sys.argv[2], sys.argv[3])
except packcli.PackcliError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def packed(tmp_path, tokenizer_dir):
    source = tmp_path / "docs.jsonl"
    source.write_bytes(b"".join(SAMPLE.read_bytes().splitlines(keepends=True)[:12]))
    given = {"max_len": 64, "workers": 1, "tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers"}
    packcli.pack(source, tmp_path / "packed", strategy="best-fit", **given)
    return tmp_path / "packed"


def damaged(raw, count):
    """The bytes with one flipped, at `count` places from end to end."""
    for number in range(count):
        place = number * (len(raw) - 1) // (count - 1)
        yield place, raw[:place] + bytes([raw[place] ^ (1 << number % 8)]) + raw[place + 1 :]


def test_a_flipped_byte_is_an_error_that_names_the_shard(packed, tmp_path):
    (shard,) = packed.glob("data-*.arrow")
    raw = shard.read_bytes()
    for place, changed in damaged(raw, 60):
        shard.write_bytes(changed)
        for number, name in enumerate(FORMATS):
            with pytest.raises(errors.StorageError, match="has changed: sha256") as caught:
                packcli.export(packed, name, tmp_path / f"{name}-{place}-{number}")
            assert str(shard) in caught.value.message
    shard.write_bytes(raw[:-20])
    with pytest.raises(errors.StorageError, match="has changed"):
        packcli.export(packed, "automodel", tmp_path / "cut")
    shard.write_bytes(raw)
    packcli.export(packed, "automodel", tmp_path / "whole")


def test_a_damaged_shard_is_never_read_past_its_buffers(packed, tmp_path, monkeypatch):
    """Where sha256 does not hold it back, as of a shard that was written wrong, what Arrow validates does."""
    (shard,) = packed.glob("data-*.arrow")
    raw = shard.read_bytes()
    code = EXPORT.replace("import sys, packcli", f"import sys, packcli\n{UNCHECKED}")
    results = {}
    for name in FORMATS:
        found = packcli.export(packed, name, tmp_path / f"whole-{name}")
        results[name] = [file.sha256 for file in found.files if file.name.endswith(".arrow")]
    monkeypatch.setattr(PackedDataset, "check_sha256", lambda self, shard: None)
    messages = []
    for place, changed in damaged(raw, 60):
        shard.write_bytes(changed)
        for name in FORMATS:
            try:
                packcli.export(packed, name, tmp_path / f"{name}-{place}")
            except errors.StorageError as error:
                messages.append(error.message)
    assert all(str(packed) in each for each in messages)
    assert len(messages) >= 4  # the head of the stream; ids in the middle look like any other ids
    for number in range(8, min(len(raw), 1000), 97):  # where the head says how long buffers are: in a process apart
        shard.write_bytes(raw[:number] + b"\xff" * 4 + raw[number + 4 :])
        command = [sys.executable, "-c", code, packed, "unpacked", tmp_path / f"apart-{number}"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode in (0, 6), ended.stderr
        assert ended.returncode == 0 or str(shard) in ended.stdout


UNCHECKED = "from packcli.dataset import PackedDataset; PackedDataset.check_sha256 = lambda self, shard: None"


def test_the_exit_code_is_that_of_damage(packed, tmp_path):
    (shard,) = packed.glob("data-*.arrow")
    raw = shard.read_bytes()
    shard.write_bytes(raw[:900] + b"\0" + raw[901:])
    command = [sys.executable, "-c", EXPORT, packed, "flat", tmp_path / "out"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 6
    assert str(shard) in ended.stdout
