"""RemotePath: what an object is, created once, read over ranges, and sent whole."""

import datetime
import itertools

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_inputs import Failing, lines

from packcli import storage
from packcli.errors import MismatchError, OutputError, StorageError
from packcli.storage import RemotePath, location, ranges
from packcli.storage.filesystem import to_entry
from packcli.verification import verify


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
