"""Ranks on an object store, memory:// here and S3 in tests/integrations/remote: the bytes of one process."""

import itertools
import json
import threading
import time

import fsspec
import pytest
from helpers import SAMPLE, tree_hash

from packcli import pipeline
from packcli.config import PackConfig, RunOptions
from packcli.dataset import Output
from packcli.errors import LockedError, MismatchError, OutputError, StorageError, UnfinishedError
from packcli.pipeline import Started, ranks
from packcli.pipeline.ranks import status
from packcli.storage import SILENCE_S, Heartbeat, RemotePath, heartbeats, read_heartbeat, read_heartbeats
from packcli.verification import verify


@pytest.fixture(scope="module")
def config(tokenizer_dir):
    return PackConfig(
        tokenizer=str(tokenizer_dir), max_len=256, strategy="best-fit", unit_bytes=40_000, val_fraction=0.2
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two inputs, plain and compressed."""
    folder = tmp_path_factory.mktemp("inputs") / "in"
    folder.mkdir()
    rows = SAMPLE.read_bytes().splitlines(keepends=True)
    (folder / "a.jsonl").write_bytes(b"".join(rows[:200]))
    with fsspec.open(str(folder / "b.jsonl.gz"), "wb", compression="gzip") as file:
        file.write(b"".join(rows[200:]))
    return folder


@pytest.fixture(scope="module")
def whole(folder, config, tmp_path_factory):
    """The tree of one process, on a disk."""
    output = tmp_path_factory.mktemp("whole") / "out"
    pipeline.pack(str(folder), str(output), config=config, options=RunOptions(workers=1))
    return tree_hash(output)


@pytest.fixture
def inputs(folder, bucket):
    for path in folder.iterdir():
        (bucket / "in" / path.name).put(path.read_bytes())
    return bucket / "in"


def plan(inputs, output, config):
    return ranks.plan([str(inputs)], str(output), config=config, options=RunOptions(tokenizer_engine="tokenizers"))


@pytest.mark.parametrize("side", ["both", "inputs", "output"])
def test_three_ranks_give_the_bytes_of_one_process(bucket, tmp_path, inputs, folder, config, whole, side):
    output = tmp_path / "out" if side == "inputs" else bucket / "out"
    assert str(plan(folder if side == "output" else inputs, output, config)) == str(output)
    found = status(output)
    assert (found.state, found.num_units_done) == ("planned", 0)
    assert found.num_units > 4
    for rank in (2, 0, 1):
        ran = ranks.run(output, rank, 3, workers=1)
        assert ran.num_units_done == ran.num_units > 0
        assert ranks.run(output, rank, 3, workers=1).num_units_done == 0
    found = status(output)
    assert (found.state, found.ranks, found.num_bytes_done) == ("complete", [], found.num_bytes)
    report = ranks.finish(output, workers=1)
    assert report.run["ranks"] == 3
    assert ranks.finish(output).status == "up to date"
    assert status(output).state == "finished"
    assert tree_hash(output) == whole
    assert verify(output, deep=True, tokenizer_engine="tokenizers").problems == []


def test_pack_goes_on_with_what_ranks_began(bucket, tmp_path, inputs, config, whole):
    plan(inputs, bucket / "out", config)
    ranks.run(bucket / "out", 1, 2, workers=1)
    report = pipeline.pack(str(inputs), str(bucket / "out"), config=config, options=RunOptions(workers=1))
    assert report.run["resumed_parts"] > 0
    assert tree_hash(bucket / "out") == whole


def test_a_rank_whose_store_goes_away_is_seen_and_started_again(bucket, tmp_path, inputs, config, whole, monkeypatch):
    """What went wrong is in its note, where the store took it; another rank makes it good."""
    plan(inputs, bucket / "out", config)
    put_file, calls = RemotePath.put, itertools.count()

    def put(self, data):
        if self.suffix == ".arrow" and next(calls) >= 2:
            raise StorageError(f"{self}: the store is away")
        put_file(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "put", put)
        with pytest.raises(StorageError):
            ranks.run(bucket / "out", 0, 1, workers=1)
    found = status(bucket / "out")
    assert (found.state, found.num_units_running) == ("stopped", 0)
    assert 0 < found.num_units_done < found.num_units
    assert "the store is away" in found.ranks[0].error
    with pytest.raises(UnfinishedError):
        ranks.finish(bucket / "out")
    for rank in range(2):
        ranks.run(bucket / "out", rank, 2, workers=1)
    assert status(bucket / "out").ranks == []
    ranks.finish(bucket / "out")
    assert tree_hash(bucket / "out") == whole


def test_who_works_alone_and_who_beside_others(bucket, inputs, config):
    """finish beside a living rank would write a manifest without its shards; a lock holder is no rank's neighbour."""
    output = bucket / "out"
    plan(inputs, output, config)
    with (
        Output(output).lock.join_as_rank(4, 16, state="running"),
        Output(output).lock.join_as_rank(5, 16, state="running"),
    ):
        assert [each.rank for each in status(output).ranks] == [4, 5]
        for work in (
            lambda: ranks.finish(output),
            lambda: plan(inputs, output, config),
            lambda: pipeline.pack(str(inputs), str(output), config=config, options=RunOptions()),
        ):
            with pytest.raises(LockedError, match="a rank still runs there: rank 4 of 16"):
                work()
        with pytest.raises(LockedError, match="rank 4 of 16"), Output(output).lock.held():
            pass
    with Output(output).lock.held():
        assert "process" in status(output).alone
        with pytest.raises(LockedError, match="another packcli works there alone now"):
            ranks.run(output, 0, 2, workers=1)
    assert status(output).ranks == []
    assert not (output / ".packcli" / "lock").exists()


def test_notes_tell_the_living_from_the_dead(bucket, monkeypatch):
    """A rank that died elsewhere would keep finish out for ever, one that lives would be taken for dead."""
    folder = bucket / "notes"
    with Heartbeat(folder / "one.json", {"rank": 1}) as note:
        (found,) = read_heartbeats(folder, note.now)
        assert (found.is_alive, found.data["rank"]) == (True, 1)
        note.tell(rank=2)
        elsewhere = {**json.loads((folder / "one.json").read_bytes()), "place": "", "host": "elsewhere"}
        (folder / "far.json").put(json.dumps(elsewhere).encode())
        (folder / "bad.json").put(b"{")
        (folder / "list.json").put(b"[]")
        now = time.time()
        assert read_heartbeat(folder / "far.json", now + 200).is_alive
        assert not read_heartbeat(folder / "far.json", now + SILENCE_S + 1).is_alive
        found = read_heartbeats(folder, now)
        assert [each.path.name for each in found] == ["far.json", "one.json"]
    assert read_heartbeat(folder / "one.json", now) is None


def test_a_note_is_put_again_while_its_process_lives_and_never_after(bucket, monkeypatch):
    monkeypatch.setattr(heartbeats, "TOUCH_S", 0.01)
    path = bucket / "note.json"
    with Heartbeat(path) as note:
        first = json.loads(path.read_bytes())["beat"]
        deadline = time.monotonic() + 20
        while json.loads(path.read_bytes())["beat"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        threads = threading.active_count()
    while threading.active_count() >= threads:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    note._touch_once()
    assert not path.exists()


def test_an_output_that_was_begun_anew_gets_nothing_from_an_old_rank(bucket, inputs, config):
    plan(inputs, bucket / "out", config)

    def begin_anew(event):
        if isinstance(event, Started):
            path = bucket / "out" / ".packcli" / "plan.json"
            path.put(path.read_bytes() + b" ")

    with pytest.raises(MismatchError, match="was begun anew"):
        ranks.run(bucket / "out", 0, 1, workers=1, on_event=begin_anew)
    assert status(bucket / "out").num_units_done == 0


def test_inputs_that_changed_and_outputs_that_are_none_are_refused(bucket, inputs, config):
    plan(inputs, bucket / "out", config)
    kept = (inputs / "a.jsonl").read_bytes()
    (inputs / "a.jsonl").put(kept + b'{"text": "more"}\n')
    with pytest.raises(MismatchError, match="when the units were planned"):
        ranks.run(bucket / "out", 0, 1, workers=1)
    (inputs / "a.jsonl").unlink()
    with pytest.raises(StorageError, match=r"a\.jsonl"):
        ranks.run(bucket / "out", 0, 1, workers=1)
    with pytest.raises(OutputError, match="not an output of packcli"):
        ranks.run(bucket / "nowhere", 0, 1)
