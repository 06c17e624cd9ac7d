"""Where inputs are: found in a store as on a disk, and what cannot be read is named."""

import pytest
from stored_inputs import lines, make_inputs, upload

from packcli import readers, storage
from packcli.errors import NoInputError, StorageError, UsageError
from packcli.storage import filesystem
from packcli.storage.filesystem import SCHEMES, persist

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


def test_a_model_repository_has_one_name():
    """Its file system names what it finds without `models/`, and walking a folder went on for ever."""
    assert str(storage.locate("hf://models/me/mine@v1/x")) == "hf://me/mine@v1/x"
    assert (
        str(storage.locate("hf://datasets/me/mine@refs/convert/parquet"))
        == "hf://datasets/me/mine@refs/convert/parquet"
    )
