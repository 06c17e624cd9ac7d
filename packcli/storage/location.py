"""Paths and URLs -> locations, and what is done with a location wherever it is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

from packcli.errors import UsageError, unknown_name
from packcli.storage.filesystem import SCHEMES, Entry
from packcli.storage.remote import RemotePath

Given = TypeVar("Given")
Found = TypeVar("Found")

SMALL_BYTES = 8 << 20
"""Objects up to here are put from memory, in one request."""

AT_ONCE = 16
"""Small requests that are under way at the same time."""

_SIGNED = re.compile(r"[?&](x-amz-|x-goog-|signature=|sig=|token=|awsaccesskeyid=)", re.IGNORECASE)
_KIND = re.compile(r"^(datasets|spaces|kernels|buckets)/")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@|/|$)")
Location: TypeAlias = Path | RemotePath
"""Where a file is."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def locate(path: str | os.PathLike[str] | RemotePath) -> Location:
    """The location that a path or a URL means; what is remote is not asked yet.

    Raises:
        UsageError: no such scheme, no bucket, or a URL that holds a secret: those are written into logs.
    """
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if not is_remote(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    scheme = {"gcs": "gs"}.get(scheme.lower(), scheme.lower())
    if scheme not in SCHEMES:
        raise unknown_name("scheme", f"{scheme}://", [f"{name}://" for name in SCHEMES if name != "memory"])
    bucket = rest.partition("/")[0]
    if (scheme != "hf" and "@" in bucket) or _SIGNED.search(rest):
        raise UsageError(
            f"{scheme}://...: the URL holds credentials, which would stand in logs and error messages",
            "leave them out: packcli takes them from where the store's own tools do (environment, profile, role)",
        )
    if not bucket:
        raise UsageError(f"{text}: no bucket", f"for example {scheme}://bucket/folder")
    if scheme == "hf":
        rest = rest.removeprefix("models/")  # as its file system names what it finds
        if not _REPOSITORY.match(_KIND.sub("", rest)):
            raise UsageError(f"{text}: no repository", "for example hf://datasets/me/mine/*.parquet")
    return RemotePath(f"{scheme}://{rest.rstrip('/')}")


def walk(root: Location, entries: dict[str, Entry], onerror: Callable[[OSError], None]) -> Iterator[Any]:
    """os.walk, also over objects: (folder, folders, names), whose folders may be pruned.

    Args:
        root: Where to begin.
        entries: Gets what is known about each object, by URL.
        onerror: As os.walk has it.
    """
    if isinstance(root, Path):
        yield from os.walk(root, onerror=onerror)
        return
    below: dict[str, tuple[dict[str, None], list[str]]] = {}
    tree = root.tree()
    entries |= tree
    for url in tree:
        folder, name = posixpath.split(url)
        below.setdefault(folder, ({}, []))[1].append(name)
        while folder != root.url:
            folder, name = posixpath.split(folder)
            below.setdefault(folder, ({}, []))[0][name] = None
    waiting = [root.url] if below else []
    while waiting:
        folder = waiting.pop()
        folders = list(below[folder][0])
        yield folder, folders, below[folder][1]
        waiting += [posixpath.join(folder, name) for name in reversed(folders)]


@contextlib.contextmanager
def uploaded(path: RemotePath) -> Iterator[IO[bytes]]:
    """A file to write to; when it was written without an error, its content appears as an object, whole.

    It is kept in the directory for temporary files (TMPDIR) until then: an upload that breaks off can begin anew.
    """
    with tempfile.TemporaryDirectory(prefix="packcli-") as folder:
        kept = Path(folder) / "object"
        with open(kept, "wb") as file:
            yield file
        size = kept.stat().st_size
        if size <= SMALL_BYTES:
            path.put(kept.read_bytes())
        else:
            path.put_file(str(kept), size)


def names_in(folder: Location) -> list[str]:
    """Names of what is one level below, in no order; none when there is nothing."""
    if isinstance(folder, RemotePath):
        return list(folder.entries())
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def concurrently(root: Location, function: Callable[[Given], Found], items: Iterable[Given]) -> Iterator[Found]:
    """map(function, items); where `root` is remote, several at a time."""
    if isinstance(root, Path):
        yield from map(function, items)
        return
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(function, items)


def is_inside(path: str, root: Location) -> bool:
    """Whether a file lies below a root; links are followed."""
    if isinstance(root, RemotePath) or is_remote(path):
        return path.startswith(f"{root}/")
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(root), ""))
