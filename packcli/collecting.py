"""Committed parts, read back from their sidecars: which units are whole, and the sum of what they counted.

A million sidecars are tens of gigabytes. They are read in the order of their numbers, in processes, a range of units at
a time; what is kept of a unit is one bit, and what the manifest says about it is spooled to disk.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from packcli import stores
from packcli.engine import get_engine
from packcli.shards import ShardInfo
from packcli.sidecars import Sidecar, parse_sidecar, sidecar_file
from packcli.stats import Stats

Listed: TypeAlias = frozenset[tuple[str, int]]

RANGE_UNITS = 1000
"""Units that a process reads at a time."""

SIDECAR_NAME = re.compile(r"(\d{5,})-(\d{3,})\.json")


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


def read_unit(root: stores.Location, unit: int, listed: Listed | None = None) -> list[tuple[Sidecar, bytes]]:
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


def _is_there(root: stores.Location, shard: ShardInfo, listed: Listed | None) -> bool:
    if listed is not None:
        return (shard.file, shard.num_bytes) in listed
    try:
        return (root / shard.file).stat().st_size == shard.num_bytes
    except FileNotFoundError:
        return False


def _list_shards(root: stores.Location) -> Listed | None:
    """Name and size of every file of a remote output, from a few listings; None where a look at each is cheap."""
    if isinstance(root, Path):
        return None
    listed = set()
    for folder in ("", "train/", "validation/", "units/"):
        listed |= {(folder + name, entry.size) for name, entry in (root / folder.rstrip("/")).entries().items()}
    return frozenset(listed)


@dataclass(slots=True)
class _Range:
    """What a process read of a range of units."""

    stats: Stats = field(default_factory=Stats)
    sidecars: list[tuple[Sidecar, bytes]] = field(default_factory=list)
    """Without their counts, which are in the sum."""


def _read_range(
    root: stores.Location, keep: bool, listed: Listed | None, units: list[int], emit: Callable[[object], None]
) -> _Range:
    found = _Range()
    nothing = Stats()
    for parts in stores.concurrently(root, lambda unit: read_unit(root, unit, listed), units):
        for sidecar, sha256 in parts:
            found.stats += sidecar.stats
            short = Sidecar(
                sidecar.unit,
                sidecar.part,
                sidecar.is_last,
                sidecar.input_xxh3 if keep else "",
                sidecar.shards if keep else {},
                nothing,
                sidecar.rejected if keep else None,
            )
            found.sidecars.append((short, sha256))
    return found


def committed_units(root: stores.Location) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def collect(
    root: stores.Location,
    num_units: int,
    *,
    workers: int = 1,
    take: Callable[[Sidecar, bytes], None] | None = None,
) -> Committed:
    """Reads what is committed of units 0..num_units-1, in order of unit and part.

    Args:
        root: The output.
        num_units: Of the run.
        workers: Processes.
        take: Called with each sidecar (without its counts) and the sha256 of its file.
    """
    total = Committed(is_whole=np.zeros(num_units, dtype=np.bool_))
    there = np.unique(committed_units(root)[0])
    there = there[there < num_units]
    ranges = [there[first : first + RANGE_UNITS].tolist() for first in range(0, len(there), RANGE_UNITS)]
    num_processes = max(1, min(workers, len(ranges))) if isinstance(root, Path) else 1
    engine = get_engine("serial" if num_processes == 1 else "processes")
    work = functools.partial(_read_range, root, take is not None, _list_shards(root) if ranges else None)
    with contextlib.closing(engine(work, ranges, workers=num_processes, emit=lambda event: None)) as results:
        for found in results:
            total.stats += found.stats
            total.num_parts += len(found.sidecars)
            for sidecar, sha256 in found.sidecars:
                if take is not None:
                    take(sidecar, sha256)
                total.parts.add((sidecar.unit, sidecar.part))
                if sidecar.is_last:
                    total.is_whole[sidecar.unit] = True
                    total.parts.difference_update((sidecar.unit, part) for part in range(sidecar.part + 1))
    return total
