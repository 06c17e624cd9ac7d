"""Inputs as the user names them -> sources, one a file, in an order that does not depend on the spelling."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import posixpath
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from packcli import storage
from packcli.config.choices import MAX_LINE_BYTES
from packcli.errors import NoInputError, StorageError, UsageError

STDIN = "-"

FILE_FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "txt",
}
"""Suffix -> format. A .json file holds lines or one array; its first character tells which."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Suffix -> codec; it follows the suffix of a JSON or text file, as in .jsonl.gz."""

FAMILIES = (
    frozenset({".jsonl", ".ndjson", ".parquet", ".arrow"}),
    frozenset({".json"}),
    frozenset({".txt"}),
)
"""Suffixes. In a directory, files of the first family that is there are the data; others mostly describe the data."""

OUTPUT_MARK = ".packcli"
"""Every output of packcli has this directory; a directory that has it is never read as an input."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input file."""

    name: str
    """Path relative to the deepest directory that holds all inputs, with /. The manifest names the source by it."""
    path: str
    """Where this machine finds it."""
    format: str
    """json, parquet, arrow or txt."""
    compression: str | None
    """gzip, zstd or None."""
    num_bytes: int
    """Size of the file."""
    max_row_bytes: int = MAX_LINE_BYTES
    """A row that is longer cannot be used."""
    skip_bad: bool = False
    """Whether rows that cannot be used are skipped and noted; else the first one ends the run."""
    lenient: bool = False
    """Whether bytes that are not UTF-8, and half surrogate pairs, are read as U+FFFD."""
    version: str = ""
    """The version of an object (such as its ETag), by which a change is noticed; empty for a file."""


def find_sources(
    inputs: Sequence[str],
    warn: list[str],
    *,
    max_row_bytes: int = MAX_LINE_BYTES,
    skip_bad: bool = False,
    lenient: bool = False,
) -> list[Source]:
    """Every file that the inputs mean.

    Explicit inputs keep their order, matches of a glob and files of a directory are sorted by path. A
    file that is named twice, also through a link, is read once.

    Args:
        inputs: Files, directories, globs. `-` is not among them: see spool_stdin.
        warn: Gets a line for everything that is left out.
        max_row_bytes: Longest row that is read.
        skip_bad: Whether rows that cannot be used are skipped.
        lenient: Whether bytes that are not UTF-8, and half surrogate pairs, are read as U+FFFD.

    Raises:
        NoInputError: nothing is there, or nothing matches.
        UsageError: a file whose suffix names no format.
        StorageError: no permission to read a file or to list a directory.
    """
    if not inputs:
        raise NoInputError("no input", "name a file, a directory, a quoted glob, or - for standard input")
    paths: list[str] = []
    known: dict[str, storage.Entry] = {}  # objects that a listing has described: no second request
    for each in inputs:
        paths += _expand(each, warn, known)
    seen: set[str] = set()
    unique = []
    for path in paths:
        remote = storage.is_remote(path)
        real = path if remote else os.path.realpath(path)
        if real in seen:
            warn.append(f"{path} is named twice: it is read once")
            continue
        seen.add(real)
        # Links and .. are resolved in the directory alone: a cache may link data.jsonl to a file without a suffix.
        unique.append(path if remote else os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
    names = _names(unique)
    rules: dict[str, Any] = {"max_row_bytes": max_row_bytes, "skip_bad": skip_bad, "lenient": lenient}
    sources = [
        dataclasses.replace(_source(name, path, known), **rules) for name, path in zip(names, unique, strict=True)
    ]
    for source in sources:
        if source.num_bytes == 0:
            warn.append(f"{source.name} is empty")
    if all(source.num_bytes == 0 for source in sources):
        raise NoInputError(f"{_list(inputs)}: every input file is empty")
    return sources


def _expand(each: str, warn: list[str], known: dict[str, storage.Entry]) -> list[str]:
    path = storage.locate(each)
    if not isinstance(path, Path):
        return _expand_remote(path, warn, known)
    if path.is_dir():
        files = _expand_directory(path, warn, known)
        if not files:
            raise NoInputError(f"{each}: no file that packcli reads in this directory", f"it reads {_suffixes()}")
        return files
    if path.exists():
        if not path.is_file():
            raise UsageError(f"{each} is not a regular file", "use - to read JSONL from standard input")
        return [each]
    if glob.has_magic(each):
        matches = sorted(glob.glob(each, recursive=True))
        if not matches:
            raise NoInputError(f"{each}: no file matches", "check the pattern; quote it so that packcli expands it")
        return [file for match in matches for file in _expand(match, warn, known)]
    close = _nearest_file(path)
    raise NoInputError(f"{each}: no such file or directory" + (f"; did you mean {close}?" if close else ""))


def _expand_remote(path: storage.RemotePath, warn: list[str], known: dict[str, storage.Entry]) -> list[str]:
    entry = path.find()
    if entry is not None and not entry.is_directory:
        known[path.url] = entry
        return [path.url]
    if entry is not None:
        files = _expand_directory(path, warn, known)
        if not files:
            raise NoInputError(f"{path}: no object that packcli reads is under it", f"it reads {_suffixes()}")
        return files
    if not glob.has_magic(path.url):
        raise NoInputError(f"{path}: there is no such object, and nothing under it", _hidden(path))
    matches = path.matches()
    if not matches:
        raise NoInputError(f"{path}: no object matches", _hidden(path) or "check the pattern; ** goes through folders")
    known |= matches
    folders = {url for url, match in matches.items() if match.is_directory}
    return [
        file
        for url in matches
        for file in (_expand_directory(storage.RemotePath(url), warn, known) if url in folders else [url])
    ]


def _hidden(path: storage.RemotePath) -> str:
    return "without HF_TOKEN a private repository looks as if it were not there" if path.scheme == "hf" else ""


def _nearest_file(path: Path) -> str | None:
    from packcli.errors import nearest

    if not path.parent.is_dir():
        return None
    close = nearest(path.name, (entry.name for entry in path.parent.iterdir()))
    return str(path.parent / close) if close else None


def _expand_directory(root: storage.Location, warn: list[str], known: dict[str, storage.Entry]) -> list[str]:
    files: list[str] = []

    def refuse(error: OSError) -> None:
        raise StorageError(f"{error.filename}: {error.strerror}") from error

    join = os.path.join if isinstance(root, Path) else posixpath.join
    for folder, folders, names in storage.walk(root, known, refuse):
        if OUTPUT_MARK in folders:
            warn.append(f"{folder} is an output of packcli: passed over")
            folders.clear()
            continue
        saved = (
            _saved_dataset(storage.locate(folder)) if "state.json" in names or "dataset_dict.json" in names else None
        )
        if saved is not None:  # its shards in the order of their rows, and no other file, such as a cache
            if folder == str(root):
                return saved
            files += saved
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        files += [join(folder, name) for name in names if not name.startswith((".", "_"))]
    by_family: list[list[str]] = [[] for _ in FAMILIES]
    for file in files:
        suffix = _split_suffix(file)[0]
        for family, members in enumerate(FAMILIES):
            if suffix in members:
                by_family[family].append(file)
    for family, data_files in enumerate(by_family):
        if data_files:
            left_out = sum(map(len, by_family[family + 1 :]))
            if left_out:
                warn.append(f"{root}: {left_out} .json or .txt files left out beside {len(data_files)} data files")
            return sorted(data_files)
    return []


def _saved_dataset(root: storage.Location) -> list[str] | None:
    """The shards of a directory made by datasets' save_to_disk, in row order; None for other directories."""
    splits_file, state_file = root / "dataset_dict.json", root / "state.json"
    try:
        if splits_file.is_file():
            splits = json.loads(splits_file.read_bytes())["splits"]
            if len(splits) != 1:
                raise UsageError(f"{root} holds the splits {', '.join(splits)}", f"name one: {root / splits[0]}")
            return _saved_dataset(root / splits[0])
        if state_file.is_file() and (root / "dataset_info.json").is_file():
            return [str(root / each["filename"]) for each in json.loads(state_file.read_bytes())["_data_files"]]
    except (ValueError, LookupError, TypeError) as error:
        raise StorageError(f"{root}: damaged save_to_disk directory ({error})") from None
    return None


def _split_suffix(path: str) -> tuple[str, str | None]:
    """'x.jsonl.gz' -> ('.jsonl', 'gzip')."""
    stem, last = os.path.splitext(path.lower())
    if last in COMPRESSIONS:
        inner = os.path.splitext(stem)[1]
        return inner, COMPRESSIONS[last]
    return last, None


def _source(name: str, path: str, known: dict[str, storage.Entry]) -> Source:
    suffix, compression = _split_suffix(path)
    format_ = FILE_FORMATS.get(suffix)
    if format_ is None or (compression and format_ not in ("json", "txt")):
        raise UsageError(f"{path}: cannot tell the format from the name", f"packcli reads {_suffixes()}")
    location = storage.locate(path)
    if not isinstance(location, Path):
        entry = known.get(path) or location.find()
        if entry is None:
            raise StorageError(f"{path}: there is no such object", "check the URL")
        return Source(name, path, format_, compression, entry.size, version=entry.version)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
            raise UsageError(f"{path} is not a regular file", "use - to read JSONL from standard input")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", "check the path and its permissions") from None
    return Source(name, path, format_, compression, status.st_size)


def _suffixes() -> str:
    return ".jsonl .ndjson .json .txt (each also .gz .zst), .parquet, .arrow, and save_to_disk directories"


def _names(paths: list[str]) -> list[str]:
    paths = [f"/{path.replace('://', ':/', 1)}" if storage.is_remote(path) else path for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = (os.path.relpath(path, root).replace(os.sep, "/") for path in paths)
    # From the bytes of the name: as text it depends on the locale.
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]


def _list(inputs: Iterable[str]) -> str:
    return ", ".join(inputs)


def default_output_name(inputs: Sequence[str]) -> str:
    """`data.jsonl.zst` -> `data-packed`; a directory gives its own name, - gives stdin."""
    first = inputs[0]
    if first == STDIN:
        return "stdin-packed"
    base = os.path.basename(os.path.abspath(first))
    if glob.has_magic(first) and not os.path.exists(first):
        base = os.path.basename(os.path.dirname(os.path.abspath(first.split("*")[0] + "x"))) or base
    elif not os.path.isdir(first):
        base = base.split(".")[0] or base
    return f"{base or 'data'}-packed"


def spool_stdin(stream: BinaryIO, path: Path, **rules: Any) -> Source:
    """Copies standard input to a file, so that it can be cut into units, resumed and verified like any other.

    `rules` are the keywords of find_sources.
    """
    try:
        with open(path, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        raise StorageError(f"cannot keep standard input in {path}: {error.strerror}") from error
    size = path.stat().st_size
    if size == 0:
        raise NoInputError("standard input is empty")
    return Source("stdin.jsonl", str(path), "json", None, size, **rules)


@dataclass(frozen=True, slots=True)
class Span:
    """A slice of one source: bytes for plain JSONL, row groups for Parquet, else the whole file."""

    source: int
    """Index of the source."""
    start: int = 0
    stop: int | None = None
    """None reads to the end."""
    first_row: int = 0
    """Row number, in the source, of the first row of the span."""
