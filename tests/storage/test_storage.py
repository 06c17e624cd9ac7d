"""Object stores, with memory:// in their place: the same bytes as on a disk, whatever fails and wherever it goes on."""

import contextlib
import datetime
import gzip
import itertools
import json
import os
import platform
import sys
import threading
import time
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import tree_hash
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import packcli
from packcli import cli, readers, storage
from packcli.dataset import Output
from packcli.errors import LockedError, MismatchError, NoInputError, OutputError, StorageError, UsageError
from packcli.storage import RemotePath, filesystem, heartbeats, location, locked, processes, ranges
from packcli.storage.filesystem import SCHEMES, persist, to_entry
from packcli.verify import verify

EVERY = 1 if os.environ.get("PACKCLI_EVERY_WAY") else 11
"""Which requests of a run fail, one in each of many runs; `make stress` asks for all."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(filesystem, "WAIT_S", 0.0)


@pytest.fixture
def pack(tokenizer_dir):
    def run(inputs, output, **settings):
        settings = {
            "max_len": 64,
            "workers": 1,
            "unit_bytes": 6_000,
            "tokenizer": str(tokenizer_dir),
            "tokenizer_engine": "tokenizers",
            **settings,
        }
        return packcli.pack(
            [str(each) for each in inputs] if isinstance(inputs, list) else str(inputs), str(output), **settings
        )

    return run


def lines(first, count):
    rows = (
        {"text": f"document {number} of the cat and {'the dog ' * (number % 7)}"}
        for number in range(first, first + count)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def make_inputs(folder):
    """A file of every format, plain JSONL and Parquet in several units; returns the folder."""
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(0, 250))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(250, 200), mtime=0))
    with pa.CompressedOutputStream(str(folder / "c.jsonl.zst"), "zstd") as file:
        file.write(lines(450, 100))
    table = pa.table({"text": [json.loads(line)["text"] for line in lines(550, 300).splitlines()], "n": range(300)})
    pq.write_table(table, folder / "d.parquet", row_group_size=50)
    with pa.ipc.new_stream(str(folder / "e.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "f.jsonl").write_bytes(lines(850, 20))
    return folder


def upload(folder, root):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (root / path.relative_to(folder).as_posix()).put(path.read_bytes())
    return root


def test_what_an_object_is(bucket):
    """The words of Path that packcli uses, on a hand-made bucket."""
    place = bucket / "a" / "x.json"
    assert (str(place), place.name, place.suffix, str(place.parent)) == (
        f"{bucket}/a/x.json",
        "x.json",
        ".json",
        f"{bucket}/a",
    )
    assert not place.exists()
    assert not bucket.is_dir()
    with pytest.raises(FileNotFoundError, match="no such object"):
        place.read_bytes()
    place.put(b"0123456789")
    (bucket / "a" / "b" / "y").put(b"")
    assert place.is_file()
    assert (bucket / "a").is_dir()
    assert not (bucket / "a").is_file()
    assert place.stat().st_size == 10
    assert (place.read_bytes(), place.read_range(2, 5), place.read_range(4, 4)) == (b"0123456789", b"234", b"")
    assert (bucket / "a" / "b" / "y").read_bytes() == b""
    assert sorted((bucket / "a").entries()) == ["b", "x.json"]
    assert [path.name for path in (bucket / "a").glob("*")] == ["x.json"]
    assert list(bucket.tree()) == [f"{bucket}/a/b/y", f"{bucket}/a/x.json"]
    with pytest.raises(StorageError, match="shorter while it was read"):
        place.read_range(10, 30)
    place.unlink()
    place.unlink(missing_ok=True)
    assert not place.exists()


def test_an_object_is_created_once(bucket):
    """Two writers would both hold the lock; and a writer whose answer was lost would wait for itself."""
    assert (bucket / "lock").create(b"mine")
    assert not (bucket / "lock").create(b"yours")
    assert (bucket / "lock").create(b"mine")


def test_a_store_that_says_in_its_own_way_that_an_object_is_there(bucket, monkeypatch):
    """gcsfs raises an HTTP error 412; taken for a failure, it would be exit code 6 instead of the owner's name."""

    class Other(Failing):
        def __getattr__(self, name):
            return getattr(self._system, name)

        def pipe_file(self, key, data, mode="overwrite"):
            if mode == "create" and self._system.exists(key):
                raise RuntimeError("412: conditionNotMet")
            self._system.pipe_file(key, data)

    monkeypatch.setattr("packcli.storage.remote.filesystem", lambda scheme: Other(fsspec.filesystem("memory"), 0))
    assert (bucket / "lock").create(b"mine")
    assert not (bucket / "lock").create(b"yours")
    assert (bucket / "lock").create(b"mine")


@given(data=st.binary(max_size=200), moves=st.lists(st.tuples(st.integers(0, 210), st.integers(0, 60)), max_size=12))
@pytest.mark.parametrize("kind", ["stream", "random"])
def test_a_file_over_ranges_is_the_object(kind, data, moves):
    """Jumps and reads of any size against a slice; blocks of a few bytes."""
    path = RemotePath("memory://ranges/object")
    path.put(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "FIRST_BYTES", 3)
        patch.setattr(ranges, "BLOCK_BYTES", 16)
        file = storage.open_stream(path, len(data)) if kind == "stream" else storage.open_random(path, len(data))
        with file:
            for start, size in moves:
                file.seek(start)
                assert file.read(size) == data[start : start + size]
            file.seek(0)
            assert file.read() == data
            assert file.seek(-min(5, len(data)), 2) == max(len(data) - 5, 0)
            assert file.read(100) == data[-5:]


def test_a_unit_takes_a_few_requests(bucket, monkeypatch):
    """128 MiB line by line would be a million; the README says nine."""
    asked = []

    def read_range(self, start, stop):
        asked.append((start, stop))
        return bytes(stop - start)

    monkeypatch.setattr(RemotePath, "read_range", read_range)
    mib = 1 << 20
    with storage.open_stream(bucket / "x", 500 * mib, 100 * mib, 228 * mib) as file:
        size = 0
        while size < 128 * mib:
            size += len(file.read(mib))
    assert len(asked) == 9
    ends = sorted(asked)
    assert (ends[0][0], ends[-1][1]) == (100 * mib, 228 * mib)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(ends))


TREE = "x.jsonl y.jsonl.gz .hidden.jsonl b/z.jsonl b/c/w.jsonl b/c/note.txt _skipped/v.jsonl [1].jsonl q1.jsonl".split()


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*.jsonl",
        "**/*.jsonl",
        "b/*",
        "*",
        "?1.jsonl",
        "[!x]*.jsonl",
        "b/**",
        "**/c/*.jsonl",
        "[1].jsonl",
        "[[]1].jsonl",
        "[!~~&]*.jsonl",
        ".*.jsonl",
    ],
)
def test_inputs_are_found_as_on_a_disk(tmp_path, bucket, pattern):
    """The same names in the same order, or the fingerprint and the bytes would depend on where the inputs are."""
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'{"text": "a"}\n')
    upload(tmp_path, bucket)
    here = readers.find_sources([str(tmp_path / pattern)], [])
    there = readers.find_sources([str(bucket / pattern)], [])
    assert [each.name for each in there] == [each.name for each in here]
    assert [each.num_bytes for each in there] == [each.num_bytes for each in here]
    assert all(each.version and each.path.startswith("memory://") for each in there)


def test_outputs_and_saved_datasets_among_inputs_are_known(tmp_path, bucket, pack):
    """A packed directory would be packed again, and a saved data set read in another order."""
    upload(make_inputs(tmp_path / "in"), bucket / "all")
    pack(bucket / "all" / "a.jsonl", bucket / "all" / "packed")
    warnings = []
    names = [each.name for each in readers.find_sources([str(bucket / "all")], warnings)]
    assert "deeper/f.jsonl" in names
    assert not any("packed" in name for name in names)
    assert any("is an output of packcli" in each for each in warnings)
    saved = readers.find_sources([str(bucket / "all" / "deeper")], [])
    assert [each.name for each in saved] == ["f.jsonl"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://KEY:SECRET@bucket/x", "holds credentials"),
        ("s3://bucket/x?X-Amz-Signature=SECRET", "holds credentials"),
        ("gs://bucket/x?x-goog-signature=SECRET", "holds credentials"),
        ("s4://bucket/x", "did you mean 's3://'"),
        ("s3://", "no bucket"),
        ("memory://b*/x", "a pattern in the name of the bucket"),
        ("hf://datasets/me", "no repository"),
        ("hf://me", "no repository"),
        ("hf://datasets/me/*/x.jsonl", "no repository"),
    ],
)
def test_urls_that_are_refused(url, said):
    """A secret in a URL would stand in the run log, and in every error message."""
    with pytest.raises(UsageError) as caught:
        readers.find_sources([url], [])
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "KEY" not in str(caught.value)


def test_what_is_missing_is_named(bucket, monkeypatch, pack, tmp_path):
    """Users would search the documentation for the name of an extra."""
    monkeypatch.setitem(SCHEMES, "s3", ("no_such_module", "packcli[s3]"))
    filesystem.filesystem.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'packcli\[s3\]'"):
        readers.find_sources(["s3://bucket/x.jsonl"], [])
    for pattern in ("none.jsonl", "none*.jsonl"):
        with pytest.raises(NoInputError, match="no"):
            readers.find_sources([str(bucket / pattern)], [])
    (bucket / "in.jsonl").put(lines(0, 5))
    with pytest.raises(UsageError, match="packcli reads hf:// and does not write there"):
        pack(bucket / "in.jsonl", "hf://datasets/me/mine", restart=True)


def test_secrets_do_not_show_in_errors(bucket, monkeypatch):
    """What a library says goes to logs that others read."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-of-mine")

    def fail():
        raise RuntimeError("could not sign with s3cr3t-of-mine: GET http://host/x?X-Amz-Signature=abc failed")

    with pytest.raises(StorageError) as caught:
        persist("s3://bucket/x", fail)
    assert "s3cr3t-of-mine" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert "could not sign with ***" in str(caught.value)


class GoogleError(Exception):
    """As gcsfs has it: with a number, and no OSError."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


class HubError(OSError):
    """As huggingface_hub has it."""

    response = SimpleNamespace(status_code=403)


class BotoError(Exception):
    """As botocore has it; s3fs raises errors of Python's from it."""

    def __init__(self, status):
        super().__init__("no")
        self.response = {"Error": {"Code": "?"}, "ResponseMetadata": {"HTTPStatusCode": status}}


def boto_error(status):
    error = OSError(22, "words")
    error.__cause__ = BotoError(status)
    return error


class NoCredentialsError(Exception):
    pass


@pytest.fixture
def libraries(monkeypatch):
    """Modules that are not installed here, with the classes that they document."""
    botocore = SimpleNamespace(NoCredentialsError=NoCredentialsError)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", botocore)
    monkeypatch.setitem(sys.modules, "aiohttp", SimpleNamespace(ClientError=ClientError))


class ClientError(Exception):
    """As aiohttp has it."""


@pytest.mark.parametrize(
    "error",
    [
        GoogleError("no access", 401),
        GoogleError("no access", "403"),
        HubError("403 Client Error."),
        OSError("Forbidden: b/o"),
        PermissionError("no"),
        boto_error(403),
        NoCredentialsError("Unable to locate"),
    ],
)
@pytest.mark.usefixtures("libraries")
def test_what_is_refused_is_not_asked_again(error):
    """The hint was to run the same command again, which is refused again."""
    asked = []

    def ask():
        asked.append(1)
        raise error

    with pytest.raises(StorageError, match="takes credentials from where") as caught:
        persist("gs://bucket/x", ask)
    assert caught.value.exit_code == 6
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("place", "error", "times"),
    [
        ("gs://b/x", GoogleError("away", 503), 1),
        ("gs://b/x", ClientError("away"), 1),
        ("gs://b/x", ConnectionResetError("away"), 2),
        ("s3://b/x", ClientError("away"), 2),
        ("s3://b/x", boto_error(503), 2),
        ("s3://b/x", OSError("Forbidden to say: range not satisfiable, Credentials"), 2),
    ],
)
@pytest.mark.usefixtures("libraries")
def test_what_gcsfs_has_tried_is_not_tried_again(place, error, times):
    """It tries for half a minute: a store that is away would keep a run for minutes before exit code 6."""
    asked = []

    def ask():
        asked.append(1)
        raise error

    with pytest.raises(StorageError, match="the same command resumes"):
        persist(place, ask)
    assert len(asked) == times


@pytest.mark.parametrize("error", [GoogleError("", 416), boto_error(416)], ids=["gcsfs", "s3fs"])
def test_an_empty_object_is_read_from_a_store_that_has_no_such_range(bucket, monkeypatch, error):
    """Google answers a range of nothing with an error of gcsfs's own, which said that the object became shorter."""
    memory = fsspec.filesystem("memory")

    class Strict(Failing):
        def __getattr__(self, name):
            return self.cat_file_ if name == "cat_file" else getattr(memory, name)

        def cat_file_(self, key, start=None, end=None):
            if start is not None and start >= memory.info(key)["size"]:
                raise error
            return memory.cat_file(key, start=start, end=end)

    monkeypatch.setattr("packcli.storage.remote.filesystem", lambda scheme: Strict(memory, 0))
    (bucket / "empty").put(b"")
    assert (bucket / "empty").read_bytes() == b""
    with pytest.raises(StorageError, match="shorter while it was read"):
        (bucket / "empty").read_range(1, 2)


def test_a_short_answer_is_no_short_object(bucket, monkeypatch):
    """A connection that broke would send users to look for who has changed their input."""
    memory = fsspec.filesystem("memory")

    class Short(Failing):
        def __getattr__(self, name):
            return self.cat_file_ if name == "cat_file" else getattr(memory, name)

        def cat_file_(self, key, start=None, end=None):
            return memory.cat_file(key, start=start, end=end)[:3]

    (bucket / "x").put(b"0123456789")
    with pytest.raises(StorageError, match="shorter while it was read"):
        (bucket / "x").read_range(5, 11)
    monkeypatch.setattr("packcli.storage.remote.filesystem", lambda scheme: Short(memory, 0))
    with pytest.raises(StorageError, match="bytes 5 to 10 were asked for, and 3 came"):
        (bucket / "x").read_range(5, 10)


@pytest.mark.parametrize("has_bucket", [True, False])
def test_an_upload_that_is_lost_is_sent_again_and_a_bucket_that_is_missing_is_named(
    bucket, monkeypatch, tmp_path, has_bucket
):
    """Both are a FileNotFoundError, and only their words differ."""
    memory = fsspec.filesystem("memory")
    sent = []

    class Lost(Failing):
        def __getattr__(self, name):
            return {"put_file": self.put_file_, "info": self.info_}.get(name) or getattr(memory, name)

        def put_file_(self, path, key):
            sent.append(key)
            if len(sent) == 1:
                raise FileNotFoundError("whatever it says")
            memory.put_file(path, key)

        def info_(self, key):
            if not has_bucket:
                raise FileNotFoundError(key)
            return memory.info(key)

    (bucket / "other").put(b"1")
    (tmp_path / "x").write_bytes(b"0123456789")
    monkeypatch.setattr("packcli.storage.remote.filesystem", lambda scheme: Lost(memory, 0))
    if has_bucket:
        (bucket / "x").put_file(str(tmp_path / "x"), 10)
        assert (bucket / "x").read_bytes() == b"0123456789"
    else:
        with pytest.raises(StorageError, match="to write to"):
            (bucket / "x").put_file(str(tmp_path / "x"), 10)
    assert len(sent) == 1 + has_bucket


def test_a_model_repository_has_one_name():
    """Its file system names what it finds without `models/`, and walking a folder went on for ever."""
    assert str(storage.locate("hf://models/me/mine@v1/x")) == "hf://me/mine@v1/x"
    assert (
        str(storage.locate("hf://datasets/me/mine@refs/convert/parquet"))
        == "hf://datasets/me/mine@refs/convert/parquet"
    )


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """The inputs, in a folder."""
    return make_inputs(tmp_path_factory.mktemp("same") / "in")


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


REQUESTS = ("cat_file", "info", "ls", "find", "pipe_file", "put_file", "rm_file")


class Failing:
    """A file system whose request number `at` fails, and every one after it until `heal`."""

    def __init__(self, system, at):
        self._system, self.at, self.count, self.after = system, at, 0, False

    def __getattr__(self, name):
        method = getattr(self._system, name)
        if name not in REQUESTS:
            return method

        def request(*arguments, **settings):
            self.count += 1
            if self.at and self.count >= self.at:
                if self.after and name == "pipe_file":  # it came through; its answer did not come back
                    method(*arguments, **settings)
                raise OSError("the line is dead")
            return method(*arguments, **settings)

        return request


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


def test_what_is_not_ours_stays(bucket, pack):
    """`--overwrite` removes what packcli wrote there, and nothing else."""
    (bucket / "in.jsonl").put(lines(0, 300))
    (bucket / "taken" / "x").put(b"theirs")
    with pytest.raises(OutputError, match="is not empty and not an output of packcli"):
        pack(bucket / "in.jsonl", bucket / "taken")
    pack(bucket / "in.jsonl", bucket / "out", max_len=32)
    (bucket / "out" / "notes.txt").put(b"theirs")
    with pytest.raises(MismatchError, match="max_len was 32, now it is 64"):
        pack(bucket / "in.jsonl", bucket / "out")
    pack(bucket / "in.jsonl", bucket / "out", overwrite=True)
    assert (bucket / "out" / "notes.txt").read_bytes() == b"theirs"
    assert verify(bucket / "out").is_sound
    (bucket / "out" / "notes.jsonl").put(lines(0, 3))
    with pytest.raises(OutputError, match="lies in the output"):
        pack(bucket / "out" / "notes.jsonl", bucket / "out")


def test_large_objects_go_up_from_a_file(bucket, monkeypatch):
    """An upload that breaks off begins anew; what cannot be written here is never put."""
    monkeypatch.setattr(location, "SMALL_BYTES", 4)
    with storage.uploaded(bucket / "large") as file:
        file.write(b"12345")
    assert (bucket / "large").read_bytes() == b"12345"
    with pytest.raises(ValueError, match="in the middle"), storage.uploaded(bucket / "half") as file:
        file.write(b"123456789")
        raise ValueError("in the middle")
    assert not (bucket / "half").exists()


def test_versions_of_listings_and_of_single_looks_agree(bucket):
    """Every input would seem to have changed while it was read."""
    (bucket / "x").put(b"1")
    assert bucket.tree()[f"{bucket}/x"] == (bucket / "x").find() == bucket.entries()["x"]
    assert to_entry({"size": 3, "ETag": '"abc"', "type": "file"}).version == '"abc"'
    assert to_entry({"size": 3, "etag": "of labels too", "generation": "7"}).version == "7"
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    assert to_entry({"size": 3, "created": moment}).version == str(moment.timestamp())


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
