"""packcli, through gcsfs, against the API of Google Cloud Storage on this machine. Run by `make integration-remote`.

Runs in this process have the class of gcsfs that users get, but its question of what kind a bucket is, which goes by
gRPC; processes that are started have the class without that question.
"""

import asyncio
import json
import os
import signal
import time
from types import SimpleNamespace

import gcsfs
import pytest
from helpers import tree
from integrations.remote.fake_gcs import PAGE, FakeGcs
from integrations.remote.fault_proxy import FaultProxy
from integrations.remote.runs import (
    SETTINGS,
    TWO_WORKERS,
    check_every_verb,
    check_gone_and_back,
    forget,
    run,
    start,
    start_until,
    upload,
)

from packcli import readers
from packcli.errors import StorageError
from packcli.storage import RemotePath, filesystem, ranges

SEEDS = int(os.environ.get("PACKCLI_SEEDS", "1"))
"""Runs under faults by chance."""


@pytest.fixture
def store():
    made = FakeGcs()
    made.buckets["bucket"] = {}
    yield made
    made.close()


@pytest.fixture
def proxy(store, monkeypatch):
    """What packcli talks to. gcsfs waits no half minute before it gives up."""
    made = FaultProxy(store.port)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", made.url)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

    async def plain(self, bucket):
        from gcsfs.extended_gcsfs import BucketType

        return BucketType.NON_HIERARCHICAL

    monkeypatch.setattr(gcsfs.GCSFileSystem, "_get_bucket_type", plain, raising=False)
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 100)))
    monkeypatch.setattr(filesystem, "WAIT_S", 0.0)
    forget("gs")
    yield made
    made.close()
    forget("gs")


@pytest.fixture
def bucket(proxy):
    return RemotePath("gs://bucket")


def test_the_same_tree_from_and_to_gs(tmp_path, bucket, inputs, whole):
    """And read back by every verb."""
    upload(inputs, bucket / "in")
    for source, target in ((bucket / "in", tmp_path / "gl"), (inputs, bucket / "lg"), (bucket / "in", bucket / "gg")):
        code, said = run("pack", source, "-o", target, *SETTINGS)
        assert code == 0, said
        assert tree(target) == whole
    code, said = run("pack", f"{bucket}/i*/*.*", "-o", bucket / "gg", *SETTINGS)
    assert code == 0, said
    assert "up to date" in said
    url = str(bucket / "gg")
    check_every_verb(url, tmp_path / "gl")


def test_what_an_object_is(bucket, store):
    """Over several pages, beside a longer name, with the empty objects that consoles make for folders."""
    names = [f"a/{number:03d}.json" for number in range(2 * PAGE + 5)]
    for name in [*names, "a/b/deep", "ab", "a/c%20d+é/[1].json"]:
        store.buckets["bucket"][name] = (name.encode(), 7)
    store.buckets["bucket"]["a/"] = store.buckets["bucket"]["a/b/"] = (b"", 8)
    root = bucket / "a"
    assert list(root.tree()) == sorted(f"{bucket}/{name}" for name in [*names, "a/b/deep", "a/c%20d+é/[1].json"])
    assert sorted(root.entries()) == sorted([*(name[2:] for name in names), "b", "c%20d+é"])
    assert len(list(root.glob("*9.json"))) == 8
    assert list((bucket / "a" / "*" / "[[]1].json").matches()) == [f"{bucket}/a/c%20d+é/[1].json"]
    assert (root / "c%20d+é" / "[1].json").read_bytes() == "a/c%20d+é/[1].json".encode()
    assert (bucket.is_dir(), root.is_dir(), (bucket / "ab").is_file()) == (True, True, True)
    assert not (bucket / "a" / "0").exists()
    place = bucket / "x"
    for data in (b"", b"{}\n", b"\r\n--\r", bytes(range(256)) * 400):
        place.put(data)
        assert place.read_bytes() == data
        assert place.read_range(1, len(data)) == data[1:]
        assert bucket.tree()[f"{place}"] == place.find() == bucket.entries()["x"]
        assert place.find().size == len(data)
    before = place.find().version
    place.put(data)
    assert place.find().version != before
    with pytest.raises(StorageError, match="shorter while it was read"):
        place.read_range(200_000, 200_001)
    assert (place.create(b"mine"), (bucket / "lock").create(b"mine")) == (False, True)
    assert ((bucket / "lock").create(b"yours"), (bucket / "lock").create(b"mine")) == (False, True)
    place.unlink()
    place.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        place.unlink()
    with pytest.raises(FileNotFoundError):
        place.read_bytes()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_faults_by_chance_give_the_right_bytes_or_a_resumable_error(proxy, bucket, inputs, whole, seed):
    """A third of the requests fails; nothing that is there in between may be wrong or half."""
    upload(inputs, bucket / "in")
    proxy.reset(proxy.random(seed, 0.3))
    code = -1
    while code != 0:
        code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
        assert code in (0, 6), said
        assert "Traceback" not in said
        assert code == 0 or "the same command" in said
        plan, proxy.plan = proxy.plan, lambda *request: None
        assert all(whole[name] == data for name, data in tree(bucket / "out").items())
        proxy.plan = plan
    assert set(proxy.injected) == {"500", "503", "reset", "cut", "lost"}
    proxy.reset()
    assert tree(bucket / "out") == whole


def test_a_store_that_is_gone_in_mid_run_is_exit_code_6(proxy, store, bucket, inputs, whole):
    """After some commits nothing answers any more; when it does again, the same command goes on."""
    upload(inputs, bucket / "in")
    gone = []

    def plan(method, path, number):
        gone.extend([1] if method == "POST" and "out/units/00001-000.json" in store.buckets["bucket"] else [])
        return "503" if gone else None

    proxy.reset(plan)
    check_gone_and_back(proxy, bucket, whole)


def test_a_line_that_falls_silent_is_tried_again(proxy, bucket, monkeypatch):
    """gcsfs by itself waits for an answer for ever."""
    monkeypatch.setattr(filesystem, "SILENT_S", 0.3)
    forget("gs")
    proxy.reset(lambda method, path, number: "silent" if number == 1 else None)
    (bucket / "x").put(b"data")
    assert proxy.injected["silent"] == 1
    assert (bucket / "x").read_bytes() == b"data"


def test_a_kill_and_a_resume_give_the_same_tree(bucket, inputs, whole):
    """SIGKILL leaves the lock behind; on the same machine the next run sees that its owner is dead."""
    upload(inputs, bucket / "in")
    process = start_until(bucket, 2, "pack", bucket / "in", "-o", bucket / "out", *TWO_WORKERS)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (bucket / "out" / ".packcli" / "lock").exists()
    there = tree(bucket / "out")
    assert "manifest.json" not in there
    assert all(whole[name] == data for name, data in there.items())
    code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
    assert code == 0, said
    assert "resumed" in said
    assert tree(bucket / "out") == whole
    assert not (bucket / "out" / ".packcli" / "lock").exists()


def test_one_of_several_starts_packs(proxy, bucket, inputs, whole):
    """A generation of 0 lets one create the lock; the others leave with exit code 5 and its name."""
    upload(inputs, bucket / "in")
    processes = [start("pack", bucket / "in", "-o", bucket / "out", *SETTINGS) for _ in range(2)]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert sorted(code for _, code in ended)[0] == 0
    assert {code for _, code in ended} <= {0, 5}
    assert all("another packcli writes there now (process " in said for said, code in ended if code == 5)
    assert any("ifGenerationMatch=0" in path for method, path, _ in proxy.requests if method == "POST")
    assert tree(bucket / "out") == whole


def test_a_lock_that_is_held_is_exit_code_5(bucket, inputs, store):
    (bucket / "out" / ".packcli" / "lock").put(
        json.dumps({"token": "t", "pid": 7, "host": "far", "since": "then", "beat": time.time()}).encode()
    )
    before = store.buckets["bucket"].copy()
    code, said = run("pack", inputs, "-o", bucket / "out", *SETTINGS)
    assert (code, "process 7 on far, since then" in said) == (5, True), said
    assert store.buckets["bucket"] == before


def test_requests_of_a_unit(proxy, bucket, inputs, monkeypatch):
    """What the README says it costs; Parquet reads the wanted column of the wanted row groups only."""
    monkeypatch.setattr(ranges, "FIRST_BYTES", 2_000)
    monkeypatch.setattr(ranges, "BLOCK_BYTES", 16_000)
    upload(inputs, bucket / "in")
    sources = readers.find_sources([str(bucket / "in" / "a.jsonl"), str(bucket / "in" / "d.parquet")], [])
    fields = readers.find_fields(sources, None, None)
    units = readers.cut_units(sources, 20_000)
    for unit, most in ((units[0], 3), ([unit for unit in units if unit.spans[0].source == 1][1], 4)):
        proxy.reset()
        for part in readers.read_parts(unit, sources, fields, unit_bytes=20_000):
            part.skip()
        asked = [each for method, path, each in proxy.requests if "/download/" in path]
        assert 1 <= len(asked) <= most
        assert 1 <= len(proxy.requests) - len(asked) <= 3  # whether it is still the same: an object, or a prefix
    spans = [tuple(map(int, each.removeprefix("bytes=").split("-"))) for each in asked]
    assert sum(stop - start + 1 for start, stop in spans[1:]) < sources[1].num_bytes // 4  # the first is the footer


def test_an_input_that_changes_while_it_is_read_ends_the_run(proxy, bucket, inputs, store, tmp_path):
    """Put again with the same bytes: only the generation tells."""
    upload(inputs, bucket / "in")
    name = "in/d.parquet"
    changed = []

    def plan(method, path, number):
        if method == "GET" and "/download/" in path and "d.parquet" in path and not changed:
            data, generation = store.buckets["bucket"][name]
            store.buckets["bucket"][name] = (data, generation + 10**6)
            changed.append(1)

    proxy.reset(plan)
    code, said = run("pack", bucket / "in", "-o", tmp_path / "out", *SETTINGS)
    assert changed
    assert (code, "d.parquet" in said, "changed while it was read" in said) == (6, True, True), said


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_large_object_appears_whole_or_not_at_all(tmp_path, proxy, bucket, store):
    """In several parts; one that fails for good takes the upload with it."""
    size = 52 << 20  # gcsfs sends 50 MiB at a time
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(size - 4)
        file.seek(0, 2)
        file.write(b"end\n")
    proxy.reset(lambda method, url, number: "503" if method == "POST" and number > 2 else None)
    with pytest.raises(StorageError, match="the same command resumes"):
        (bucket / "large").put_file(str(path), size)
    proxy.reset()
    assert not (bucket / "large").exists()
    assert not store.uploads
    proxy.reset(lambda method, url, number: "lost" if number in (2, 4) else None)
    (bucket / "large").put_file(str(path), size)
    proxy.reset()
    assert store.buckets["bucket"]["large"][0] == path.read_bytes()


def test_no_credentials_and_no_bucket(bucket, inputs, store, tmp_path):
    """A user's first mistakes: each says what. gcsfs logs tracebacks, which nobody asked for."""
    code, said = run("pack", inputs, "-o", "gs://no-such-bucket/out", *SETTINGS)
    assert (code, "there is no no-such-bucket to write to" in said) == (6, True), said
    code, said = run("pack", "gs://no-such-bucket/in", "-o", tmp_path / "out", *SETTINGS)
    assert (code, "no such object" in said) == (2, True), said
    for status in (401, 403):
        store.buckets["theirs"], store.closed["theirs"] = {}, status
        for source, target in (("gs://theirs/in", tmp_path / "out"), (inputs, "gs://theirs/out")):
            code, said = run("pack", source, "-o", target, *SETTINGS)
            assert (code, "credentials from where" in said) == (6, True), said
    store.closed["theirs"] = 401
    process = start("pack", "gs://theirs/in", "-o", tmp_path / "out", *SETTINGS)
    said = "".join(process.communicate(timeout=120))
    assert (process.returncode, said.count("Anonymous caller"), "Traceback" in said) == (6, 1, False), said
