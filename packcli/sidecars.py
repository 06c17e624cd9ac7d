"""What a committed part leaves behind, sealed: its last line is the sha256 of all bytes before it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from packcli import stores
from packcli.shards import ShardInfo, to_json
from packcli.stats import HISTOGRAMS, Stats


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


def sidecar_file(unit: int, part: int) -> str:
    """Where the sidecar of a part is, below the output. Past 99,999 units the names do not sort as the numbers do."""
    return f"units/{unit:05d}-{part:03d}.json"


def rejects_file(unit: int, part: int) -> str:
    """Where the rejected rows of a part are, below the output."""
    return sidecar_file(unit, part).removesuffix(".json") + ".rejected.jsonl"


def _flat(stats: dict[str, Any]) -> dict[str, Any]:
    """Histograms as value, count, value, count: a million sidecars are read three times as fast without the pairs."""
    return {**stats, **{name: [number for pair in stats[name] for number in pair] for name in HISTOGRAMS}}


def _unflat(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of _flat, with dicts."""
    return {**stats, **{name: dict(zip(stats[name][::2], stats[name][1::2], strict=True)) for name in HISTOGRAMS}}


def canonical(value: Any) -> bytes:
    """The bytes of a JSON value that are hashed: the same whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def list_shards(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """What the manifest says about every part: its shards by split, and what it read."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for sidecar in sidecars:
        for split, shard in sidecar.shards.items():
            entry = {**dataclasses.asdict(shard), "unit": sidecar.unit, "part": sidecar.part}
            splits.setdefault(split, []).append(entry)
    parts = [{"unit": each.unit, "part": each.part, "input_xxh3": each.input_xxh3} for each in sidecars]
    return {"splits": splits, "parts": parts}


_SEAL = b',\n "sha256": "'


def write_sealed(file: IO[bytes], texts: Iterable[str]) -> None:
    """Writes the JSON text of an object, given in pieces; its last key becomes the sha256 of the bytes before.

    Sidecars and the manifest end so. The seal is over bytes: to check it the values need not be written again.
    """
    digest, last = hashlib.sha256(), b""
    for text in texts:
        file.write(last)
        digest.update(last)
        last = text.encode("utf-8", "surrogatepass")
    last = last.removesuffix(b"\n}")
    digest.update(last)
    file.write(last + _SEAL + digest.hexdigest().encode() + b'"\n}\n')


def sealed_bytes(value: Mapping[str, Any]) -> bytes:
    """The file of an object, given as JSON values without a seal."""
    file = io.BytesIO()
    write_sealed(file, [to_json(dict(value))])
    return file.getvalue()


def is_sealed(raw: bytes) -> bool:
    """Whether a file is as write_sealed left it."""
    text, _, seal = raw.rpartition(_SEAL)
    return seal == hashlib.sha256(text).hexdigest().encode() + b'"\n}\n'


def parse_sidecar(raw: bytes) -> Sidecar | None:
    """A sidecar; None when it is not what was written any more."""
    if not is_sealed(raw):
        return None
    try:
        return Sidecar.from_dict(json.loads(raw))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def read_sidecar(path: stores.Location) -> Sidecar | None:
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
