"""The state of a run in .packcli."""

from __future__ import annotations

import os
from typing import Any

from packcli import storage
from packcli.readers import Source


def seen_input(source: Source) -> list[Any]:
    """What tells whether an input has changed: its place, its time, its size."""
    if storage.is_remote(source.path):
        return [source.path.encode().hex(), source.version, source.num_bytes]
    stat = os.stat(source.path)
    return [os.fsencode(os.path.realpath(source.path)).hex(), stat.st_mtime_ns, stat.st_size]
