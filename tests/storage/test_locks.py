"""Locks in a store: one writer at a time, and the lock of the dead is taken."""

import json
import os
import platform
import threading
import time

import pytest
from helpers import tree_hash
from stored_inputs import lines, upload

from packcli.errors import LockedError
from packcli.storage import heartbeats, locked, processes


def owner(**changes):
    known = {
        "token": "theirs",
        "pid": 1,
        "host": "elsewhere",
        "since": "2026-01-01 00:00:00 +0000",
        "beat": time.time(),
    }
    return json.dumps({**known, **changes}).encode()


def test_a_lock_names_its_owner(bucket, pack):
    """Exit code 5: two who write different runs into one output would mix them."""
    (bucket / "in.jsonl").put(lines(0, 20))
    (bucket / "out" / ".packcli" / "lock").put(owner())
    with pytest.raises(
        LockedError, match=r"out: another packcli writes there now \(process 1 on elsewhere, since 2026"
    ) as caught:
        pack(bucket / "in.jsonl", bucket / "out")
    assert caught.value.exit_code == 5
    assert (bucket / "out" / ".packcli" / "lock").read_bytes()


@pytest.mark.parametrize(
    "lock",
    [
        owner(beat=time.time() - 2 * heartbeats.SILENCE_S),
        owner(**{**processes.this_process(), "pid": 2**22 + 5}),
        owner(**{**processes.this_process(), "pid": os.getppid(), "born": "1"}),  # another had its number before
        owner(**processes.this_process()),
        b"{ not JSON",
    ],
    ids=["silent for long", "of a dead process here", "of a forerunner's number", "of the same number here", "damaged"],
)
def test_a_lock_of_the_dead_is_taken(bucket, pack, lock):
    """Nothing frees the lock of a killed run; without this it would be for ever."""
    (bucket / "in.jsonl").put(lines(0, 20))
    (bucket / "out" / ".packcli" / "lock").put(lock)
    assert pack(bucket / "in.jsonl", bucket / "out").status == "packed"
    assert not (bucket / "out" / ".packcli" / "lock").exists()


def test_one_of_many_holds_the_lock(bucket):
    """Threads of one process, so that neither host nor process tells them apart."""
    held, refused = [], []
    barrier = threading.Barrier(8)

    def try_() -> None:
        barrier.wait()
        try:
            with locked(bucket / ".packcli" / "lock"):
                held.append(1)
                time.sleep(0.3)
        except LockedError:
            refused.append(1)

    threads = [threading.Thread(target=try_) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)


def test_an_owner_shows_that_it_is_alive(bucket, monkeypatch):
    """A run of an hour would lose its lock after five minutes; one that lost it must not take it back."""
    monkeypatch.setattr(heartbeats, "TOUCH_S", 0.01)
    lock = bucket / ".packcli" / "lock"
    with locked(lock):
        first = json.loads(lock.read_bytes())
        deadline = time.monotonic() + 20
        while json.loads(lock.read_bytes())["beat"] == first["beat"]:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        lock.put(owner())
        time.sleep(0.1)
        assert json.loads(lock.read_bytes())["token"] == "theirs"
    assert json.loads(lock.read_bytes())["token"] == "theirs"


def test_another_machine_goes_on(tmp_path, bucket, pack, same, monkeypatch):
    """All that a resume needs is in the store: the plan, the sidecars and the versions of the inputs."""
    inputs = upload(same, bucket / "in") / "a.jsonl"
    pack(same / "a.jsonl", tmp_path / "out")
    pack(inputs, bucket / "out")
    (bucket / "out" / "manifest.json").unlink()
    (bucket / "out" / "units" / "00001-000.json").unlink()
    (bucket / "out" / "data-00002-000.arrow").put(b"short")
    (bucket / "out" / ".packcli" / "lock").put(owner(beat=time.time() - 2 * heartbeats.SILENCE_S))
    monkeypatch.setattr(platform, "node", lambda: "another")
    report = pack(inputs, bucket / "out")
    assert report.status == "resumed"
    assert report.run["resumed_parts"] == report.stats.num_parts - 2
    assert tree_hash(bucket / "out") == tree_hash(tmp_path / "out")
