"""packcli against a real S3 server, through a line that breaks: the right bytes, or exit code 6 and a resume to them.

Run by `make integration-remote` in an environment of its own: moto is too large for every developer's.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from helpers import tree
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
from moto.server import ThreadedMotoServer

import packcli
from packcli import readers
from packcli.errors import StorageError
from packcli.storage import RemotePath, ranges
from packcli.storage.filesystem import filesystem

SEEDS = int(os.environ.get("PACKCLI_SEEDS", "3"))
"""Runs under faults by chance."""


@pytest.fixture(scope="session")
def server():
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    yield moto.get_host_and_port()[1]
    moto.stop()


@pytest.fixture
def proxy(server, monkeypatch):
    """What packcli talks to."""
    made = FaultProxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    forget("s3")
    yield made
    made.close()
    forget("s3")


@pytest.fixture
def bucket(proxy, request):
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    filesystem("s3").call_s3("create_bucket", Bucket=name)
    return RemotePath(f"s3://{name}")


def test_the_same_tree_from_and_to_s3(tmp_path, bucket, inputs, whole):
    """Also by two processes, and read back by every verb."""
    upload(inputs, bucket / "in")
    for source, target in ((bucket / "in", tmp_path / "sl"), (inputs, bucket / "ls"), (bucket / "in", bucket / "ss")):
        code, said = run("pack", source, "-o", target, *TWO_WORKERS)
        assert code == 0, said
        assert tree(target) == whole
    code, said = run("pack", bucket / "in", "-o", bucket / "ss", *SETTINGS)
    assert code == 0
    assert "up to date" in said
    url = str(bucket / "ss")
    check_every_verb(url, tmp_path / "sl")
    assert packcli.load(url, row_type="list").to_dict() == packcli.load(tmp_path / "sl", row_type="list").to_dict()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_faults_by_chance_give_the_right_bytes_or_a_resumable_error(proxy, bucket, inputs, whole, seed):
    """A tenth of the requests fails; nothing that is there in between may be wrong or half."""
    upload(inputs, bucket / "in")
    proxy.reset(proxy.random(seed, 0.1))
    said = ""
    for _ in range(8):
        code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
        plan, proxy.plan = proxy.plan, lambda *request: None
        for name, data in tree(bucket / "out").items():
            assert data == whole[name], name
        proxy.plan = plan
        assert code in (0, 6), said
        assert "Traceback" not in said
        assert "s3cr3t-of-the-tests" not in said
        if code == 0:
            break
        assert "the same command" in said
    assert sum(proxy.injected.values()) >= 3
    proxy.reset()
    code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
    assert code == 0, said
    assert tree(bucket / "out") == whole


def test_the_end_of_an_object_is_found_by_its_size(bucket):
    """S3 answers a range of nothing with 416, and s3fs with an OSError; its words change."""
    (bucket / "empty").put(b"")
    (bucket / "short").put(b"0123456789")
    assert (bucket / "empty").read_bytes() == b""
    for first, stop in ((5, 11), (10, 11), (200, 300)):
        with pytest.raises(StorageError, match="shorter while it was read"):
            (bucket / "short").read_range(first, stop)


@pytest.mark.parametrize("fault", ["500", "reset", "cut", "lost"])
def test_a_store_that_is_gone_in_mid_run_is_exit_code_6(proxy, bucket, inputs, whole, fault):
    """After some commits nothing answers any more; when it does again, the same command goes on."""
    upload(inputs, bucket / "in")
    gone = []

    def plan(method, path, number):
        gone.extend([1] if method == "PUT" and "/out/units/00002" in path else [])
        return fault if gone else None

    proxy.reset(plan)
    check_gone_and_back(proxy, bucket, whole)


def test_slow_reads_are_only_slow(proxy, bucket, inputs, whole):
    upload(inputs, bucket / "in")
    proxy.reset(lambda method, path, number: "slow" if method == "GET" else None)
    code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
    assert code == 0, said
    assert proxy.injected["slow"] > 10
    proxy.reset()
    assert tree(bucket / "out") == whole


def test_kills_and_resumes_give_the_same_tree(bucket, inputs, whole):
    """SIGKILL leaves the lock behind; on the same machine the next run sees that its owner is dead."""
    upload(inputs, bucket / "in")
    for wanted in (1, 2, 4):
        process = start_until(bucket, wanted, "pack", bucket / "in", "-o", bucket / "out", *TWO_WORKERS)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert all(whole[name] == data for name, data in tree(bucket / "out").items())
    code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
    assert code == 0, said
    assert tree(bucket / "out") == whole


def test_one_of_several_starts_packs(bucket, inputs, whole):
    """If-None-Match lets one create the lock; the others leave with exit code 5 and its name."""
    upload(inputs, bucket / "in")
    processes = [start("pack", bucket / "in", "-o", bucket / "out", *SETTINGS) for _ in range(4)]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    codes = sorted(code for _, code in ended)
    assert codes[0] == 0
    assert set(codes) <= {0, 5}
    assert all("another packcli writes there now (process " in said for said, code in ended if code == 5)
    assert tree(bucket / "out") == whole


def test_requests_of_a_unit(proxy, bucket, inputs, monkeypatch):
    """What the README says it costs; Parquet reads the wanted column of the wanted row groups only."""
    monkeypatch.setattr(ranges, "FIRST_BYTES", 2_000)
    monkeypatch.setattr(ranges, "BLOCK_BYTES", 16_000)
    upload(inputs, bucket / "in")
    sources = readers.find_sources([str(bucket / "in" / "a.jsonl"), str(bucket / "in" / "d.parquet")], [])
    fields = readers.find_fields(sources, None, None)
    units = readers.cut_units(sources, 20_000)
    first = units[0]
    proxy.reset()
    for part in readers.read_parts(first, sources, fields, unit_bytes=20_000):
        part.skip()
    assert proxy.counts == {"GET": 3, "HEAD": 1}  # 2 kB, 16 kB, the rest; then whether it is still the same
    columns = [unit for unit in units if unit.spans[0].source == 1][1]
    proxy.reset()
    for part in readers.read_parts(columns, sources, fields, unit_bytes=20_000):
        part.skip()
    assert proxy.counts["GET"] <= 4
    asked = [
        tuple(map(int, each.removeprefix("bytes=").split("-"))) for method, _, each in proxy.requests if method == "GET"
    ]
    assert sum(stop - start + 1 for start, stop in asked[1:]) < sources[1].num_bytes // 4  # the first is the footer


def test_a_large_object_appears_whole_or_not_at_all(tmp_path, proxy, bucket):
    """In several parts; one that fails for good takes the upload with it."""
    size = 120 << 20
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(size)
    proxy.reset(lambda method, path, number: "500" if "partNumber=2" in path else None)
    with pytest.raises(StorageError, match="the same command resumes"):
        (bucket / "large").put_file(str(path), size)
    assert proxy.injected["500"] > 1
    proxy.reset()
    assert not (bucket / "large").exists()
    uploads = filesystem("s3").call_s3("list_multipart_uploads", Bucket=bucket.name)
    assert not uploads.get("Uploads")
    proxy.reset(lambda method, path, number: "cut" if number == 3 else None)
    (bucket / "large").put_file(str(path), size)
    assert (bucket / "large").stat().size == size


def test_no_credentials_no_bucket_and_no_server(proxy, bucket, inputs, tmp_path, monkeypatch):
    """A user's first three mistakes: each says what, and none shows a secret or a traceback."""
    code, said = run("pack", inputs, "-o", "s3://no-such-bucket-here/out", *SETTINGS)
    assert (code, "there is no no-such-bucket-here to write to" in said) == (6, True), said
    code, said = run("pack", "s3://no-such-bucket-here/in", "-o", tmp_path / "out", *SETTINGS)
    assert (code, "no such object" in said) == (2, True), said
    (bucket / "out" / ".packcli" / "lock").put(
        json.dumps({"token": "t", "pid": 7, "host": "far", "since": "then", "beat": time.time()}).encode()
    )
    code, said = run("pack", inputs, "-o", bucket / "out", *SETTINGS)
    assert (code, "process 7 on far, since then" in said) == (5, True), said
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget("s3")
    code, said = run("pack", inputs, "-o", bucket / "other", *SETTINGS)
    assert (code, "credentials from where" in said, "Traceback" in said) == (6, True, False), said


def test_the_state_holds_no_secret(bucket, inputs):
    """State, manifest and log go to where others read."""
    upload(inputs, bucket / "in")
    assert run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)[0] == 0
    held = b"".join(RemotePath(url).read_bytes() for url in (bucket / "out").tree())
    assert b"s3cr3t-of-the-tests" not in held
    assert b"key-of-the-tests" not in held
    assert str(bucket).encode() not in (bucket / "out" / "manifest.json").read_bytes()
    assert Path(inputs).exists()


def test_three_ranks_on_s3_one_of_which_is_killed(bucket, inputs, whole):
    """From any machines that reach the store: the tree of one process, and status from the store alone."""
    upload(inputs, bucket / "in")
    out = bucket / "out"
    settings = [each for each in SETTINGS if each not in ("-w", "1")]
    code, said = run("units", "plan", bucket / "in", "-o", out, *settings)
    assert code == 0, said
    ranks = [
        start("units", "run", out, "--rank", rank, "--world-size", 3, "-w", 1 + rank % 2, "-q") for rank in range(3)
    ]
    while not (out / "units").entries():
        assert any(each.poll() is None for each in ranks)
        time.sleep(0.05)
    os.killpg(ranks[1].pid, signal.SIGKILL)
    for each in ranks:
        _, said = each.communicate()
        assert each.returncode == (-signal.SIGKILL if each is ranks[1] else 0), said
    code, said = run("units", "run", out, "--rank", 1, "--world-size", 3, "-w", 1, "-q")
    assert code == 0, said
    code, said = run("units", "status", out, "--json")
    found = json.loads(said)
    assert (found["state"], found["num_units_done"], found["ranks"]) == ("complete", found["num_units"], [])
    code, said = run("units", "finish", out)
    assert code == 0, said
    assert tree(out) == whole
