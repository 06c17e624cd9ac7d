"""Every open, write, fsync and rename of a small run fails once, in every way: nothing committed is ever wrong.

All points, not a sample: which one it is that a disk fills up at, nobody chooses.
"""

import builtins
import contextlib
import errno
import gzip
import io
import json
import os
import warnings

import pytest
from helpers import tree_hash

from packcli import errors, pipeline, tokenization
from packcli.cli.exit import storage_error
from packcli.config import PackConfig, RunOptions
from packcli.dataset.sidecar import read_sidecar
from packcli.verification import verify

EVERY_WAY = bool(os.environ.get("PACKCLI_EVERY_WAY"))
"""`make stress` lets every operation fail in every way and more of them; the suite takes the ways in turn."""

TEXTS = [f"the cat {number} sat on the mat and the dog ran after it" * (number % 5 + 1) for number in range(30)]


class Injector:
    """Counts the operations below a directory, and lets the n-th one go wrong."""

    def __init__(self, root, at=None, how=None):
        self.root, self.at, self.how = str(root), at, how
        self.log = []

    def step(self, name, path, operation):
        """Carries out one operation, or what is to happen instead."""
        if not os.fspath(path).startswith(self.root):
            return operation()
        self.log.append((name, os.path.basename(path)))
        if len(self.log) - 1 != self.at:
            return operation()
        if isinstance(self.how, int):
            raise OSError(self.how, os.strerror(self.how), os.fspath(path))
        if self.how == "after":
            operation()
        os._exit(99)

    @contextlib.contextmanager
    def installed(self):
        real_open, real_os_open, real_fsync, real_replace = builtins.open, os.open, os.fsync, os.replace
        paths = {}

        def open_(path, mode="r", *arguments, **options):
            if not isinstance(path, str | os.PathLike) or not set(mode) & set("wax+"):
                return real_open(path, mode, *arguments, **options)
            file = self.step("open", path, lambda: real_open(path, mode, *arguments, **options))
            paths[file.fileno()] = path
            return File(file, path, self)

        def os_open(path, flags, *arguments, **options):
            # With a file without a name filelock looks whether the file system can lock, and goes on when it cannot.
            nameless = getattr(os, "O_TMPFILE", 0)
            name = "look" if nameless and flags & nameless == nameless else "open"
            handle = self.step(name, path, lambda: real_os_open(path, flags, *arguments, **options))
            paths[handle] = path
            return handle

        def fsync(handle):
            return self.step("fsync", paths[handle], lambda: real_fsync(handle))

        def replace(one, other):
            return self.step("rename", other, lambda: real_replace(one, other))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", open_)
            patch.setattr(io, "open", open_)
            patch.setattr(os, "open", os_open)
            patch.setattr(os, "fsync", fsync)
            patch.setattr(os, "replace", replace)
            yield self


class File:
    """A file whose writes are counted."""

    def __init__(self, file, path, injector):
        self._file, self._path, self._injector = file, path, injector

    def write(self, data):
        return self._injector.step("write", self._path, lambda: self._file.write(data))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.fixture(scope="module")
def pack(tmp_path_factory, tokenizer_dir):
    """Packs some units and two splits in a moment."""
    plain = tmp_path_factory.mktemp("injection") / "data.jsonl"
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    plain.write_text("".join(rows[:10]))
    zipped = plain.with_name("more.jsonl.gz")  # a unit of several parts
    zipped.write_bytes(gzip.compress(("".join(rows[10:]) + "no row\n").encode(), mtime=0))
    config = PackConfig(
        on_error="skip",
        max_len=64,
        strategy="best-fit",
        unit_bytes=1250 if EVERY_WAY else 1750,
        val_fraction=0.2 if EVERY_WAY else 0.0,
        columns="all" if EVERY_WAY else "compact",
        tokenizer=str(tokenizer_dir),
    )
    options = RunOptions(workers=1, tokenizer_engine="tokenizers", max_bad=1)
    spec = tokenization.find_tokenizer(config, allow_network=False)
    choice = tokenization.choose_engine(spec, "tokenizers", [])

    def run(output):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenization, "choose_engine", lambda *arguments, **options: choice)
            return pipeline.pack([plain, zipped], output, config=config, options=options)

    return run


@pytest.fixture(scope="module")
def whole(pack, tmp_path_factory):
    """The output of a run in which nothing goes wrong, and every operation of it."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with Injector(output).installed() as injector:
        pack(output)
    assert len(list(output.glob("units/*.json"))) > 1
    assert (output / "rejected.jsonl").is_file()
    return output, tree_hash(output), injector.log


def left_over(output):
    return [path for path in output.rglob("*") if path.name.endswith(".tmp")]


def check_committed(output, whole):
    """Whatever has a sidecar is as in the run in which nothing went wrong."""
    for path in output.glob("units/[!.]*.json"):
        sidecar = read_sidecar(path)
        for file in (sidecar.file, *(info.file for info in sidecar.files)):
            assert (output / file).read_bytes() == (whole / file).read_bytes()
    if (output / "manifest.json").is_file():
        assert verify(output).problems == []


def test_the_points_are_all_there(whole):
    """The tests below would pass on nothing."""
    names = [name for name, _ in whole[2]]
    for name, least in (("open", 20), ("write", 20), ("fsync", 20), ("rename", 10)):
        assert names.count(name) >= least, names


@pytest.mark.parametrize("ways", [(errno.EIO,), (errno.ENOSPC,)] if EVERY_WAY else [(errno.EIO, errno.ENOSPC)])
def test_every_operation_fails_once(pack, whole, tmp_path, ways):
    expected, expected_hash, log = whole
    refused = 0
    for at in range(len(log)):
        how = ways[at % len(ways)]
        output = tmp_path / f"out{at}"
        error = None
        try:
            with Injector(output, at, how).installed():
                pack(output)
        except (OSError, errors.StorageError) as raised:
            error = raised if isinstance(raised, errors.StorageError) else storage_error(raised)
        if error is not None:
            refused += 1
            assert error.exit_code == 6
            assert how != errno.ENOSPC or "space" in str(error).lower(), error
            assert (output / "manifest.json").exists() == (at > log.index(("rename", "manifest.json"))), log[at]
        else:
            assert log[at][0] == "look" or log[at][1] in ("run.jsonl", "owner.json", "lock"), log[at]
        assert not left_over(output), log[at]
        check_committed(output, expected)
        pack(output)
        assert tree_hash(output) == expected_hash, log[at]
    assert refused > 0.9 * len(log)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["before", "after"] if EVERY_WAY else ["after"])  # before one is after the last
def test_the_process_dies_at_every_operation(pack, whole, tmp_path, how):
    expected, expected_hash, log = whole
    for at in range(len(log)):
        output = tmp_path / f"out{at}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fork, with threads of libraries about
            child = os.fork()
        if child == 0:
            code = 1
            try:
                with Injector(output, at, how).installed():
                    pack(output)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99, log[at]
        if output.exists():
            check_committed(output, expected)
        pack(output)
        assert not left_over(output), log[at]
        assert tree_hash(output) == expected_hash, log[at]
