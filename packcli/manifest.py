"""The output directory as a record of its run: what it is made from, which parts are committed, whether it is whole.

DIR/.packcli/           of this machine: lock, run log, settings, when the inputs were last seen. Never hashed
DIR/.packcli/plan.json  what the run is (its fingerprint), written before the first part
DIR/units/*.json        a sidecar for each committed part: the commit point of its shards
DIR/manifest.json       written last: the output is whole
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from packcli.config import FORMAT_VERSION, PackConfig
from packcli.errors import LockedError, MismatchError, OutputError
from packcli.readers import Source
from packcli.shards import ShardInfo, committed, write_json
from packcli.stats import Stats
from packcli.tokenizing import TokenizerSpec

STATE_DIRECTORY = ".packcli"
MANIFEST = "manifest.json"
OURS = (
    "manifest.json",
    "stats.json",
    "README.md",
    "dataset_info.json",
    "state.json",
    "dataset_dict.json",
)
OUR_DIRECTORIES = ("units", "train", "validation")


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

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **{name: getattr(self, name) for name in ("unit", "part", "is_last", "input_xxh3")},
            "shards": {split: dataclasses.asdict(shard) for split, shard in self.shards.items()},
            "stats": self.stats.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sidecar:
        """The inverse of as_dict."""
        shards = {split: ShardInfo(**shard) for split, shard in data["shards"].items()}
        stats = Stats.from_dict(data["stats"])
        return cls(data["unit"], data["part"], data["is_last"], data["input_xxh3"], shards, stats)


def describe_run(
    config: PackConfig, tokenizer: TokenizerSpec, sources: Sequence[Source], text: Mapping[str, Any], num_units: int
) -> dict[str, Any]:
    """What a run is, in JSON values; `fingerprint` is the sha256 of all the rest.

    The spelling of paths is not part of it: the tokenizer is its sha256, an input its name and size. (That
    an input of the same size holds the same rows is checked by `Output.changed_since`.)
    """
    settings = {**config.as_dict(), "columns": list(config.written_columns), "ragged": config.ragged}
    for name in ("tokenizer", "eos_token", "pad_token", "text_field", "text_template", "format", "field"):
        del settings[name]  # resolved: they stand under "tokenizer" and "text"
    for name in ("add_eos", "add_bos", "chat_template", "date"):
        del settings[name]  # so are these
    run = {
        "format_version": FORMAT_VERSION,
        "config": settings,
        "text": dict(text),
        "tokenizer": tokenizer.identity(),
        "inputs": [{"name": source.name, "num_bytes": source.num_bytes} for source in sources],
        "num_units": num_units,
    }
    canonical = json.dumps(run, sort_keys=True, ensure_ascii=False).encode()
    return {**run, "fingerprint": hashlib.sha256(canonical).hexdigest()}


class Output:
    """An output directory. Everything that writes below it goes through here or through shards.committed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._state = root / STATE_DIRECTORY
        self._units = root / "units"

    def check_ours(self) -> None:
        """Raises OutputError when the directory is a file, or holds something that packcli did not write."""
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"{self.root} is a file", "choose a directory with -o")
        if self.root.is_dir() and not self._state.is_dir() and any(self.root.iterdir()):
            raise OutputError(
                f"{self.root} is not empty and not an output of packcli: nothing in it was touched",
                "choose another directory with -o",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the directory and holds its lock; the system frees it when the process dies.

        Raises:
            LockedError: another process writes here.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._state / "lock", timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise LockedError(
                f"{self.root}: another packcli writes there now", "wait for it, or use another -o"
            ) from None

    @property
    def spool(self) -> Path:
        """Where standard input is kept while it is packed."""
        return self._state / "stdin.jsonl"

    def log(self, **entry: Any) -> None:
        """Appends a line to the run log: times, workers, paths, versions; nothing that is hashed."""
        with open(self._state / "run.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def last_run(self) -> dict[str, Any]:
        """The newest entry of the run log; empty when there is none."""
        try:
            lines = (self._state / "run.jsonl").read_text(encoding="utf-8").splitlines()
            return dict(json.loads(lines[-1]))
        except (OSError, ValueError, IndexError):
            return {}

    @property
    def is_finished(self) -> bool:
        """Whether the last file of a run is there."""
        return (self.root / MANIFEST).is_file()

    def recorded_run(self) -> dict[str, Any] | None:
        """What describe_run gave for the run that this output belongs to."""
        return _read_json(self._state / "plan.json")

    def refuse_mismatch(self, run: Mapping[str, Any]) -> None:
        """Raises MismatchError when the output belongs to another run, naming the first field that differs."""
        recorded = self.recorded_run()
        if recorded is None or recorded["fingerprint"] == run["fingerprint"]:
            return
        place, then, now = _first_difference(recorded, run) or ("fingerprint", "another", "this one")
        raise MismatchError(
            f"{self.root} belongs to another run: {place} was {then}, now it is {now}",
            "use another -o, or --overwrite to replace it",
        )

    def begin(self, run: Mapping[str, Any], sources: Sequence[Source], config: PackConfig) -> None:
        """Makes the directory ready for the run, and sweeps what dead processes left half written.

        The settings are kept as a packcli.toml; it names the tokenizer by its path, so it is not hashed.
        """
        for directory in (self.root, *(self.root / name for name in OUR_DIRECTORIES)):
            if directory.is_dir():
                for left_over in directory.glob(".*.tmp"):
                    left_over.unlink(missing_ok=True)
        self._units.mkdir(exist_ok=True)
        if self.recorded_run() is None:
            write_json(self._state / "plan.json", run)
        self.saw_inputs(sources)
        (self.root / MANIFEST).unlink(missing_ok=True)  # not whole until it is written anew
        self.write_text(f"{STATE_DIRECTORY}/packcli.toml", config.to_toml())

    def saw_inputs(self, sources: Sequence[Source]) -> None:
        """Remembers when the inputs were last changed."""
        write_json(self._state / "inputs.json", {source.name: _mtime(source) for source in sources})

    def changed_since(self, sources: Sequence[Source]) -> list[int]:
        """Indices of sources whose time of change differs from what was remembered: their rows must be compared."""
        seen = _read_json(self._state / "inputs.json") or {}
        return [index for index, source in enumerate(sources) if seen.get(source.name) != _mtime(source)]

    def clear(self) -> None:
        """Removes what packcli wrote here, and nothing else."""
        for name in OUR_DIRECTORIES:
            shutil.rmtree(self.root / name, ignore_errors=True)
        for path in (*(self.root / name for name in OURS), *self.root.glob("data-*.arrow")):
            path.unlink(missing_ok=True)
        for name in ("plan.json", "inputs.json"):
            (self._state / name).unlink(missing_ok=True)

    def commit(self, sidecar: Sidecar) -> None:
        """Commits a part: from here on it is done."""
        write_json(self._units / f"{sidecar.unit:05d}-{sidecar.part:03d}.json", sidecar.as_dict())

    def sidecars(self) -> list[Sidecar]:
        """Every committed part whose shards are there, by unit and part."""
        if not self._units.is_dir():
            return []
        found = [Sidecar.from_dict(json.loads(path.read_bytes())) for path in self._units.glob("[!.]*.json")]
        present = [each for each in found if all(map(self._has_shard, each.shards.values()))]
        return sorted(present, key=lambda sidecar: (sidecar.unit, sidecar.part))

    def _has_shard(self, shard: ShardInfo) -> bool:
        try:
            return (self.root / shard.file).stat().st_size == shard.num_bytes
        except FileNotFoundError:
            return False

    def touch(self) -> None:
        """Marks the manifest as new, so that make does not ask again."""
        os.utime(self.root / MANIFEST)

    def write_text(self, name: str, text: str) -> None:
        """Commits a text file."""
        with committed(self.root / name) as file:
            file.write(text.encode())

    def write_manifest(self, run: Mapping[str, Any], sidecars: Sequence[Sidecar]) -> None:
        """Writes manifest.json: the run, every shard, and what each part read."""
        splits: dict[str, list[dict[str, Any]]] = {}
        for sidecar in sidecars:
            for split, shard in sidecar.shards.items():
                entry = {**dataclasses.asdict(shard), "unit": sidecar.unit, "part": sidecar.part}
                splits.setdefault(split, []).append(entry)
        parts = [{"unit": each.unit, "part": each.part, "input_xxh3": each.input_xxh3} for each in sidecars]
        write_json(self.root / MANIFEST, {**run, "splits": splits, "parts": parts})


def whole_units(sidecars: Sequence[Sidecar]) -> set[int]:
    """Units of which every part is committed, up to the last."""
    parts: dict[int, set[int]] = {}
    last: dict[int, int] = {}
    for each in sidecars:
        parts.setdefault(each.unit, set()).add(each.part)
        if each.is_last:
            last[each.unit] = each.part
    return {unit for unit, part in last.items() if len(parts[unit]) == part + 1}


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a finished output; raises OutputError when there is none."""
    manifest = _read_json(root / MANIFEST)
    if manifest is None:
        state = "a run that is not finished" if (root / STATE_DIRECTORY).is_dir() else "not an output of packcli"
        raise OutputError(f"{root}: no {MANIFEST}: {state}", "packcli pack makes one; the same command resumes one")
    return manifest


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputError(f"{path}: damaged: {error}", "--overwrite makes the output anew") from None


def _mtime(source: Source) -> list[Any]:
    stat = os.stat(source.path)
    return [os.fsencode(os.path.realpath(source.path)).hex(), stat.st_mtime_ns, stat.st_size]


def _first_difference(then: Any, now: Any, place: str = "") -> tuple[str, str, str] | None:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in (*then, *(key for key in now if key not in then)) if key != "fingerprint"]
        steps = [(f"{place}.{key}" if place else key, then.get(key), now.get(key)) for key in keys]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        steps = [(f"{place}[{index}]", *pair) for index, pair in enumerate(zip(then, now, strict=True))]
    else:
        return None if then == now else (place.removeprefix("config."), _shown(then), _shown(now))
    for step in steps:
        different = _first_difference(step[1], step[2], step[0])
        if different is not None:
            return different
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}..."
