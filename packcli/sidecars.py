"""What a committed part leaves behind, sealed: the last key is the sha256 of all the rest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packcli.shards import ShardInfo
from packcli.stats import Stats


@dataclass(frozen=True, slots=True)
class CarryInfo:
    """The documents that a part hands on to the next; they are kept until that one is committed."""

    num_documents: int
    num_tokens: int
    sha256: str
    """Of `carrying.Carried.to_bytes`."""


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
    carry: CarryInfo | None = None
    """None when it hands nothing on."""

    @property
    def file(self) -> str:
        """Path below the output."""
        return self.file_of(self.unit, self.part)

    @staticmethod
    def file_of(unit: int, part: int) -> str:
        """Path below the output of the sidecar of a part."""
        return f"units/{unit:05d}-{part:03d}.json"

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **{name: getattr(self, name) for name in ("unit", "part", "is_last", "input_xxh3")},
            "shards": {split: dataclasses.asdict(shard) for split, shard in self.shards.items()},
            "stats": self.stats.as_dict(),
            "carry": None if self.carry is None else dataclasses.asdict(self.carry),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sidecar:
        """The inverse of as_dict."""
        shards = {split: ShardInfo(**shard) for split, shard in data["shards"].items()}
        stats = Stats.from_dict(data["stats"])
        carry = None if data["carry"] is None else CarryInfo(**data["carry"])
        return cls(data["unit"], data["part"], data["is_last"], data["input_xxh3"], shards, stats, carry)


def canonical(value: Any) -> bytes:
    """The bytes of a JSON value that are hashed: the same whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the sha256 of all of it as its last key."""
    return {**value, "sha256": hashlib.sha256(canonical(value)).hexdigest()}


def is_sealed(value: Any) -> bool:
    """Whether an object is what `seal` gave."""
    if not isinstance(value, dict) or "sha256" not in value:
        return False
    return seal({name: value[name] for name in value if name != "sha256"}) == value


def list_shards(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """What the manifest says about every part: its shards by split, and what it read."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for sidecar in sidecars:
        for split, shard in sidecar.shards.items():
            entry = {**dataclasses.asdict(shard), "unit": sidecar.unit, "part": sidecar.part}
            splits.setdefault(split, []).append(entry)
    parts = [{"unit": each.unit, "part": each.part, "input_xxh3": each.input_xxh3} for each in sidecars]
    return {"splits": splits, "parts": parts}


def read_sidecar(path: Path) -> Sidecar | None:
    """A committed part; None when the file is lost, damaged, or not the one that its name says."""
    try:
        data = json.loads(path.read_bytes())
        sidecar = Sidecar.from_dict(data) if is_sealed(data) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
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
