"""Committed parts, read back from their sidecars: which units are whole, and the sum of what they counted.

A million sidecars are tens of gigabytes. They are read in the order of their numbers, in processes, a range of units at
a time; what is kept of a unit is one bit, and what the manifest says about it is spooled to disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from packcli import storage
from packcli.dataset.paths import SIDECAR_NAME, sidecar_file
from packcli.dataset.shards import ShardInfo
from packcli.dataset.sidecar import Sidecar, parse_sidecar
from packcli.dataset.stats import Stats

Listed: TypeAlias = frozenset[tuple[str, int]]


@dataclass(slots=True)
class Committed:
    """What is committed of some units."""

    stats: Stats = field(default_factory=Stats)
    """Sum over the parts that are there."""
    num_parts: int = 0
    is_whole: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """bool[units]: every part of the unit is there, up to the last."""
    parts: set[tuple[int, int]] = field(default_factory=set)
    """(unit, part) of parts that are there, of units that are not whole."""

    @property
    def num_whole(self) -> int:
        """Units that are whole."""
        return int(np.count_nonzero(self.is_whole))


def read_unit(root: storage.Location, unit: int, listed: Listed | None = None) -> list[tuple[Sidecar, bytes]]:
    """The committed parts of a unit, up to the first that is not there, each with the sha256 of its sidecar.

    A part counts when its sidecar is sound and its files are there; what does not is done again.

    Args:
        root: The output.
        unit: Which.
        listed: Name and size of every shard that is there, where that is known already.
    """
    parts: list[tuple[Sidecar, bytes]] = []
    while not parts or not parts[-1][0].is_last:
        try:
            raw = (root / sidecar_file(unit, len(parts))).read_bytes()
        except FileNotFoundError:
            break
        sidecar = parse_sidecar(raw)
        if sidecar is None or (sidecar.unit, sidecar.part) != (unit, len(parts)):
            break
        if not all(_is_there(root, shard, listed) for shard in sidecar.files):
            break
        parts.append((sidecar, hashlib.sha256(raw).digest()))
    return parts


def _is_there(root: storage.Location, shard: ShardInfo, listed: Listed | None) -> bool:
    if listed is not None:
        return (shard.file, shard.num_bytes) in listed
    try:
        return (root / shard.file).stat().st_size == shard.num_bytes
    except FileNotFoundError:
        return False


def list_shards(root: storage.Location) -> Listed | None:
    """Name and size of every file of a remote output, from a few listings; None where a look at each is cheap."""
    if isinstance(root, Path):
        return None
    listed = set()
    for folder in ("", "train/", "validation/", "units/"):
        listed |= {(folder + name, entry.size) for name, entry in (root / folder.rstrip("/")).entries().items()}
    return frozenset(listed)


def committed_units(root: storage.Location) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Unit and part of what looks like a sidecar, by number: int64[F] each. Names only: nothing is opened."""
    folder = root / "units"
    if isinstance(folder, Path):
        flat = np.zeros(0, dtype=np.int64)
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            flat = np.fromiter(_numbers(entry.name for entry in entries), dtype=np.int64)
    else:
        flat = np.fromiter(_numbers(folder.entries()), dtype=np.int64)
    order = np.lexsort((flat[1::2], flat[::2]))
    return flat[::2][order], flat[1::2][order]


def _numbers(names: Iterable[str]) -> Iterator[int]:
    for name in names:
        match = SIDECAR_NAME.fullmatch(name)
        if match is not None:
            yield int(match[1])
            yield int(match[2])
