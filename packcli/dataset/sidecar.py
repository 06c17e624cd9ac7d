"""What a committed part leaves behind, sealed: its last line is the sha256 of all bytes before it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packcli import storage
from packcli.dataset.fingerprint import is_sealed
from packcli.dataset.paths import sidecar_file
from packcli.dataset.shards import ShardInfo
from packcli.dataset.stats import HISTOGRAMS, Stats


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What one part of a unit gave."""

    unit: int
    part: int
    is_last: bool
    """Whether the unit ends with this part."""
    input_xxh3: str
    """XXH3-128 of the rows that were read: raw lines, or the text columns."""
    shards: dict[str, ShardInfo]
    """By split; a split without rows has no shard."""
    stats: Stats
    rejected: ShardInfo | None = None
    """The file of rejected rows; None when there are none."""

    @property
    def file(self) -> str:
        """Path below the output."""
        return sidecar_file(self.unit, self.part)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **{name: getattr(self, name) for name in ("unit", "part", "is_last", "input_xxh3")},
            "shards": {split: dataclasses.asdict(shard) for split, shard in self.shards.items()},
            "rejected": None if self.rejected is None else dataclasses.asdict(self.rejected),
            "stats": _flat(self.stats.as_dict()),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sidecar:
        """The inverse of as_dict."""
        shards = {split: ShardInfo(**shard) for split, shard in data["shards"].items()}
        stats = Stats.from_dict(_unflat(data["stats"]))
        rejected = None if data["rejected"] is None else ShardInfo(**data["rejected"])
        return cls(data["unit"], data["part"], data["is_last"], data["input_xxh3"], shards, stats, rejected)

    @property
    def files(self) -> list[ShardInfo]:
        """Every file that must be there for the part to be done."""
        return [*self.shards.values(), *([] if self.rejected is None else [self.rejected])]


def _flat(stats: dict[str, Any]) -> dict[str, Any]:
    """Histograms as value, count, value, count: a million sidecars are read three times as fast without the pairs."""
    return {**stats, **{name: [number for pair in stats[name] for number in pair] for name in HISTOGRAMS}}


def _unflat(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of _flat, with dicts."""
    return {**stats, **{name: dict(zip(stats[name][::2], stats[name][1::2], strict=True)) for name in HISTOGRAMS}}


def parse_sidecar(raw: bytes) -> Sidecar | None:
    """A sidecar; None when it is damaged."""
    if not is_sealed(raw):
        return None
    try:
        return Sidecar.from_dict(json.loads(raw))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def read_sidecar(path: storage.Location) -> Sidecar | None:
    """A committed part; None when the file is lost, damaged, or not the one that its name says."""
    try:
        sidecar = parse_sidecar(path.read_bytes())
    except OSError:
        return None
    return sidecar if sidecar is not None and Path(sidecar.file).name == path.name else None


def whole_units(sidecars: Sequence[Sidecar]) -> set[int]:
    """Units of which every part is committed, up to the last."""
    parts: dict[int, set[int]] = {}
    last: dict[int, int] = {}
    for each in sidecars:
        parts.setdefault(each.unit, set()).add(each.part)
        if each.is_last:
            last[each.unit] = each.part
    return {unit for unit, part in last.items() if len(parts[unit]) == part + 1}
