"""A file that is there whole or not at all, its sha256, and JSON in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from packcli.errors import OutputError
from packcli.storage.location import Location, uploaded
from packcli.storage.ranges import open_stream
from packcli.storage.remote import RemotePath

LEFT_OVER = f".*.*.{'?' * 12}.tmp"
"""A pattern for what `committed` leaves when the process dies in it."""

HASH_BYTES = 1 << 20


def read_json(path: Location) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise OutputError(f"{path}: damaged: {error}", "--overwrite makes the output anew") from None


@contextlib.contextmanager
def committed(path: Location) -> Iterator[IO[bytes]]:
    """Opens a file that appears under its name whole, or not at all.

    Written as `.NAME.<pid>.<uuid>.tmp` beside it, fsynced, renamed; then the directory is fsynced. Two
    processes that write the same name do no harm when they write the same bytes. In an object store the
    upload, once it is whole, is the commit.
    """
    if isinstance(path, RemotePath):
        with uploaded(path) as remote:
            yield remote
        return
    temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Makes sure that names in a directory survive a crash."""
    if os.name == "nt":  # a directory cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Location, value: Any) -> None:
    """Commits a JSON file; the same bytes for the same value."""
    with committed(path) as file:
        file.write((to_json(value) + "\n").encode())


def to_json(value: Any, depth: int = 3) -> str:
    """JSON with objects indented down to `depth`, and the rest on one line; keys keep their order.

    People look at the upper levels; histograms below them would be thousands of lines, slowly made.
    """
    if isinstance(value, dict) and value and depth:
        lines = [f"{json.dumps(key)}: {to_json(value[key], depth - 1)}" for key in value]
        inner = ",\n".join(lines).replace("\n", "\n ")
        return "{\n " + inner + "\n}"
    return json.dumps(value, ensure_ascii=False)


def file_sha256(path: Location) -> tuple[str, int]:
    """sha256 and size in bytes of a file, read in blocks."""
    digest, size = hashlib.sha256(), 0
    block = memoryview(bytearray(HASH_BYTES))
    with open_plain(path) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            size += count
    return digest.hexdigest(), size


def open_plain(path: Location) -> Any:
    """A file without a buffer, to read from front to back."""
    if isinstance(path, RemotePath):
        return open_stream(path, path.stat().st_size)
    return open(path, "rb", buffering=0)
