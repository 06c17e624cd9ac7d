"""Room on the disk: an estimate before the work starts, and words for a disk that is full."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packcli import stores
from packcli.config import PackConfig
from packcli.errors import StorageError
from packcli.tokenizing import BATCH_DOCUMENTS, Engine

BYTES_A_TOKEN = {"input_ids": 4, "labels": 4, "position_ids": 4}
"""What a token takes on disk; the other columns are a few bytes a document."""

COMPRESSION_GUESS = 3
"""Bytes of text for a byte of a compressed file; rather too few, since a wrong refusal is worse than a late one."""

SAMPLE_CHARS = 4096
"""Of a text, for the estimate."""

FULL = (errno.ENOSPC, errno.EDQUOT)


def bytes_needed(engine: Engine, texts: Sequence[str], row_bytes: int, left_bytes: int, config: PackConfig) -> int:
    """Bytes of shards that the rest of the input gives, about, padding not counted.

    Args:
        engine: Encodes some of the texts.
        texts: Of some rows.
        row_bytes: What these rows take in the input.
        left_bytes: What is left of the input.
        config: Its columns.
    """
    cuts = [text[:SAMPLE_CHARS] for text in texts[:BATCH_DOCUMENTS]]
    chars = sum(map(len, cuts))
    if not chars or not row_bytes:
        return 0
    tokens_a_char = len(engine.encode(cuts)[0]) / chars
    chars_a_byte = sum(map(len, texts)) / row_bytes
    return bytes_of_tokens(left_bytes * chars_a_byte * tokens_a_char, config)


def bytes_of_tokens(num_tokens: float, config: PackConfig) -> int:
    """Bytes of shards that hold some tokens, about."""
    return round(num_tokens * sum(BYTES_A_TOKEN.get(column, 0) for column in config.written_columns))


def look_for_room(root: stores.Location, needed: int) -> str | None:
    """A warning when an output may not fit. An object store has room.

    Raises:
        StorageError: less than half of what it needs is free.
    """
    if isinstance(root, stores.RemotePath):
        return None
    free = _free(root)
    what = f"{root}: the output needs about {_shown(needed)}, {_shown(free)} is free"
    if free < needed // 2:
        raise StorageError(what, "free some space, use another -o, or --columns compact")
    return what if free < needed else None


def is_full(error: BaseException) -> bool:
    """Whether the disk or the quota is used up."""
    return isinstance(error, OSError) and error.errno in FULL


def full_disk(root: stores.Location, needed: int) -> StorageError:
    """The error for a disk that ran full."""
    if isinstance(root, stores.RemotePath):
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
