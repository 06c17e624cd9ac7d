"""Room on the disk: an estimate before the work starts, and words for a disk that is full."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from packcli.errors import StorageError
from packcli.storage.location import Location
from packcli.storage.remote import RemotePath

FULL = (errno.ENOSPC, errno.EDQUOT)


def look_for_room(root: Location, needed: int) -> str | None:
    """A warning when an output may not fit. An object store has room.

    Raises:
        StorageError: less than half of what it needs is free.
    """
    if isinstance(root, RemotePath):
        return None
    free = _free(root)
    what = f"{root}: the output needs about {_shown(needed)}, {_shown(free)} is free"
    if free < needed // 2:
        raise StorageError(what, "free some space, use another -o, or --columns compact")
    return what if free < needed else None


def is_full(error: BaseException) -> bool:
    """Whether the disk or the quota is used up."""
    return isinstance(error, OSError) and error.errno in FULL


def full_disk(root: Location, needed: int) -> StorageError:
    """The error for a disk that ran full."""
    if isinstance(root, RemotePath):
        place = tempfile.gettempdir()
        return StorageError(
            f"{place}: no space left: a shard is kept there until it is in {root}",
            "committed units are kept: set TMPDIR to a larger disk, then the same command resumes",
        )
    return StorageError(
        f"{root}: no space left: the rest of the output needs about {_shown(needed)}, {_shown(_free(root))} is free",
        "committed units are kept: free some space, then the same command resumes",
    )


def _free(root: Path) -> int:
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return 0


def _shown(num_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes / 1000:,.1f} kB"
