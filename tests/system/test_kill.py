"""SIGKILL at random moments: what is committed is right, what is resumed is the same, and nobody is left behind."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from helpers import PACKCLI, big_input, members, tree_hash

KILLS = int(os.environ.get("PACKCLI_KILLS", "10" if os.environ.get("CI") else "3"))
"""Kills per kind of run; `make stress` asks for 100."""


def start(source, output, workers):
    arguments = ["pack", str(source), "-o", str(output), "-q", "-w", str(workers), "--unit-bytes", "200kB"]
    arguments += ["--strategy", "best-fit", "--max-len", "512"]
    return subprocess.Popen([*PACKCLI, *arguments], start_new_session=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    source = big_input(folder / "big.jsonl", copies=40)
    began = time.monotonic()
    assert start(source, folder / "out", 1).wait() == 0
    return source, tree_hash(folder / "out"), time.monotonic() - began


@pytest.mark.parametrize("workers", [1, 2])
def test_the_tree_after_kills_and_resumes_is_that_of_an_uninterrupted_run(tmp_path, uninterrupted, workers):
    source, expected, seconds = uninterrupted
    moments = random.Random(workers)
    units = tmp_path / "out" / "units"
    killed = 0
    while killed < KILLS:
        before = len(list(units.glob("*.json")))
        process = start(source, tmp_path / "out", workers)
        if killed % 3:  # also before the first commit, and while nothing is to be seen
            while process.poll() is None and len(list(units.glob("*.json"))) == before:
                time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2) * seconds)
        # Only the parent: its workers must die on their own, and do no harm until they have.
        process.kill()  # nothing, when it is done already
        killed += process.wait() == -signal.SIGKILL
        if (tmp_path / "out" / "manifest.json").exists():
            assert tree_hash(tmp_path / "out") == expected
            shutil.rmtree(tmp_path / "out")
    assert start(source, tmp_path / "out", workers).wait() == 0
    assert tree_hash(tmp_path / "out") == expected
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_workers_die_with_their_parent(tmp_path, uninterrupted):
    """Orphans would write for ever."""
    source, _, _ = uninterrupted
    process = start(source, tmp_path / "out", 2)
    deadline = time.monotonic() + 60
    while not any((tmp_path / "out").glob("units/*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 2
    while members(process.pid):
        assert time.monotonic() < deadline, members(process.pid)
        time.sleep(0.05)
