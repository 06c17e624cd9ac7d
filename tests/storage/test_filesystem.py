"""Requests to a store: tried again where that helps, and not where it does not."""

import sys
from types import SimpleNamespace

import fsspec
import pytest
from stored_inputs import Failing

from packcli.errors import StorageError
from packcli.storage.filesystem import persist


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
