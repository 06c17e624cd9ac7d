"""Object stores, with memory:// in their place: the same bytes as on a disk, whatever fails and wherever it goes on."""

import contextlib
import os
import time

import fsspec
import pytest
from helpers import tree_hash
from stored_inputs import REQUESTS, Failing, lines, upload
from typer.testing import CliRunner

import packcli
from packcli import cli, readers
from packcli.dataset import Output
from packcli.errors import MismatchError, OutputError, StorageError, UsageError
from packcli.storage import RemotePath, filesystem
from packcli.verification import verify

EVERY = 1 if os.environ.get("PACKCLI_EVERY_WAY") else 11
"""Which requests of a run fail, one in each of many runs; `make stress` asks for all."""


@pytest.mark.parametrize("settings", [{}, {"val_fraction": 0.2, "strategy": "best-fit"}], ids=["concat", "validation"])
def test_the_same_bytes_from_and_to_everywhere(tmp_path, bucket, pack, same, settings):
    """disk to disk, store to disk, disk to store, store to store."""
    upload(same, bucket / "in")
    report = pack(same, tmp_path / "dd", **settings)
    expected = tree_hash(tmp_path / "dd")
    assert report.stats.num_parts > 10
    pack(bucket / "in", tmp_path / "sd", **settings)
    pack(same, bucket / "ds", **settings)
    pack(bucket / "in", bucket / "ss", **settings)
    assert tree_hash(tmp_path / "sd") == expected
    assert tree_hash(bucket / "ds") == expected
    assert tree_hash(bucket / "ss") == expected
    assert pack(bucket / "in", bucket / "ss", **settings).status == "up to date"
    assert len((bucket / "ss" / ".packcli" / "run.jsonl").read_text().splitlines()) == 1
    assert not (bucket / "ss" / ".packcli" / "lock").exists()


def test_a_mixture_of_remote_inputs_is_that_of_local_ones(tmp_path, bucket, pack, same):
    """Shares, epochs and units hang on names and rows, not on where a file is; what was counted is remembered there."""
    upload(same, bucket / "in")
    mixed = [
        {"mix": {f"{root}/a.jsonl": 0.5, f"{root}/d.parquet": 0.2, f"{root}/*.gz": 0.3}, "tokens": 9_000}
        for root in (same, bucket / "in")
    ]
    assert pack([], tmp_path / "dd", **mixed[0]).stats.num_parts > 2
    pack([], bucket / "ss", **mixed[1])
    assert tree_hash(bucket / "ss") == tree_hash(tmp_path / "dd")
    assert pack([], bucket / "ss", **mixed[1]).status == "up to date"


def test_every_verb_reads_a_remote_output(tmp_path, bucket, pack, same):
    """An output that only `pack` can open is no use to anybody."""
    upload(same, bucket / "in")
    pack(bucket / "in", bucket / "out", columns="all")
    pack(same, tmp_path / "out")
    url = str(bucket / "out")
    for arguments in (
        ["verify", url],
        ["verify", url, "--deep"],
        ["verify", url, "--same-as", str(tmp_path / "out")],
        ["stats", url, "--recount"],
        ["stats", url, str(tmp_path / "out")],
        ["stats", str(bucket / "in" / "a.jsonl"), "--max-len", "64", "-w", "1"],
        ["inspect", url, "--row", "-1"],
        ["export", url, "--to", "parquet", "-o", str(tmp_path / "parquet")],
    ):
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, (arguments, result.output)
    loaded = packcli.load(url, row_type="list")
    assert loaded.to_dict() == packcli.load(tmp_path / "out", row_type="list").to_dict()
    with pytest.raises(UsageError, match="an export is written on this machine"):
        packcli.export(url, "parquet", str(bucket / "parquet"))
    with pytest.raises(OutputError, match="not an output of packcli"):
        packcli.load(str(bucket / "in"))


def test_verify_finds_a_remote_shard_that_was_changed(bucket, pack, same):
    """One bit, in an object that has the same size as before."""
    pack(same, bucket / "out")
    shard = next((bucket / "out").glob("data-*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.put(bytes(data))
    assert [each.file for each in verify(bucket / "out").problems] == [shard.name]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_whose_store_goes_away_at_any_request_resumes_to_the_same_bytes(
    tmp_path, bucket, pack, same, monkeypatch, after
):
    """Nothing half is committed: whatever is there after the failure is byte for byte what belongs there."""
    inputs = upload(same, bucket / "in") / "a.jsonl"
    pack(same / "a.jsonl", tmp_path / "out")
    expected = tree_hash(tmp_path / "out")
    system = Failing(fsspec.filesystem("memory"), 0)
    monkeypatch.setattr("packcli.storage.remote.filesystem", lambda scheme: system)
    pack(inputs, bucket / "counted")
    num_requests = system.count
    assert num_requests > 50
    for at in range(1 + after, num_requests, EVERY):
        out = bucket / f"out{at}"
        system.count, system.at, system.after = 0, at, after
        with contextlib.suppress(StorageError):  # the last requests only free the lock, which may be in vain
            pack(inputs, out)
            assert (out / "manifest.json").exists()
        system.at = 0
        for url in out.tree():
            name = url.removeprefix(f"{out}/")
            if not name.startswith(".packcli/"):
                assert RemotePath(url).read_bytes() == (tmp_path / "out" / name).read_bytes()
        pack(inputs, out)
        assert tree_hash(out) == expected


def test_a_failure_that_passes_is_not_seen(tmp_path, bucket, pack, same, monkeypatch):
    """A single 500 in a run of a million requests would end it."""
    inputs = upload(same, bucket / "in")
    pack(same, tmp_path / "out")
    memory = fsspec.filesystem("memory")

    class Flaky(Failing):
        def __getattr__(self, name):
            method = getattr(memory, name)
            if name not in REQUESTS:
                return method

            def request(*arguments, **settings):
                self.count += 1
                if self.count % 3 == 0:
                    raise ConnectionResetError("passing")
                answer = method(*arguments, **settings)
                return answer[:-1] if "end" in settings and self.count % 7 == 0 else answer

            return request

    flaky = Flaky(memory, 0)
    monkeypatch.setattr("packcli.storage.remote.filesystem", lambda scheme: flaky)
    monkeypatch.setattr(filesystem, "TRIES", 5)
    pack(inputs, bucket / "out")
    assert flaky.count > 100
    assert tree_hash(bucket / "out") == tree_hash(tmp_path / "out")


def test_changed_inputs_are_noticed_by_their_version(bucket, pack):
    """Of the same size, so that only the version tells; the same rows put again are the same input."""
    (bucket / "in.jsonl").put(lines(0, 300))
    pack(bucket / "in.jsonl", bucket / "out")
    (bucket / "in.jsonl").put(lines(0, 300))
    assert pack(bucket / "in.jsonl", bucket / "out").status == "up to date"
    (bucket / "in.jsonl").put(lines(0, 300).replace(b"cat", b"dog"))
    with pytest.raises(MismatchError, match="was made from other rows"):
        pack(bucket / "in.jsonl", bucket / "out")


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.parquet"])
def test_an_input_that_changes_while_it_is_read_is_not_packed(bucket, pack, same, monkeypatch, name):
    """Ranges of two objects would make rows that nobody wrote."""
    data = {"in.jsonl": "a.jsonl", "in.jsonl.gz": "b.jsonl.gz", "in.parquet": "d.parquet"}[name]
    (bucket / name).put((same / data).read_bytes())
    sources = readers.find_sources([str(bucket / name)], [])
    fields = readers.find_fields(sources, None, None)
    time.sleep(0.01)
    (bucket / name).put((same / data).read_bytes())
    units = readers.cut_units(sources, 1 << 20)
    with pytest.raises(StorageError, match="has changed while it was read"):
        for part in readers.read_parts(units[0], sources, fields, unit_bytes=1 << 20):
            part.skip()
    (bucket / name).put(b"{}")
    with pytest.raises(StorageError):
        for part in readers.read_parts(units[0], sources, fields, unit_bytes=1 << 20):
            part.skip()


def test_standard_input_is_kept_here(tmp_path, bucket, tokenizer_dir, monkeypatch):
    """It cannot be read twice, and an object store cannot be written to bit by bit."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arguments = [
        "pack",
        "-",
        "-o",
        str(bucket / "out"),
        "--tokenizer",
        str(tokenizer_dir),
        "-w",
        "1",
        "--max-len",
        "64",
    ]
    result = CliRunner().invoke(cli.app, arguments, input=lines(0, 30))
    assert result.exit_code == 0, result.output
    assert Output(bucket / "out").is_finished
    assert not list(tmp_path.glob("packcli-*"))
