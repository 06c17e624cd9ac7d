"""The output directory as a record of its run: what it is made from, which parts are committed, whether it is whole.

DIR/.packcli/           of this machine: lock, run log, settings, when the inputs were last seen. Never hashed
DIR/.packcli/plan.json  what the run is (its fingerprint), written before the first part
DIR/units/*.json        a sidecar for each committed part: the commit point of its shards
DIR/manifest.json       written last, with the sha256 of every other file: the output is whole

Sidecars and the manifest are sealed: their last key is the sha256 of all the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from packcli.config import FORMAT_VERSION, PackConfig
from packcli.errors import LockedError, MismatchError, OutputError
from packcli.readers import Source
from packcli.shards import LEFT_OVER, ShardInfo, committed, file_sha256, write_json
from packcli.sidecars import Sidecar, canonical, list_shards, read_sidecar, seal
from packcli.tokenizing import TokenizerSpec

STATE_DIRECTORY = ".packcli"
PLAN = "plan.json"
MIX = "mix.json"
OWNER = "owner.json"
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
OUR_PATTERNS = {
    "": ("data-*.arrow",),
    "units": ("*.json",),
    "train": ("data-*.arrow", "dataset_info.json", "state.json"),
    "validation": ("data-*.arrow", "dataset_info.json", "state.json"),
}
"""What packcli writes in each directory, besides OURS."""

LOCK_WAIT_S = 0.3
"""A lock that another process only looks at is free again in no time; a run holds it for longer."""


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
    for name in ("add_eos", "add_bos", "chat_template", "date", "mix", "tokens"):
        del settings[name]  # so are these
    run = {
        "format_version": FORMAT_VERSION,
        "config": settings,
        "text": dict(text),
        "tokenizer": tokenizer.identity(),
        "inputs": [{"name": source.name, "num_bytes": source.num_bytes} for source in sources],
        "num_units": num_units,
    }
    return {**run, "fingerprint": fingerprint(run)}


def fingerprint(run: Mapping[str, Any]) -> str:
    """The sha256 of what a run is."""
    return hashlib.sha256(canonical(run)).hexdigest()


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
        if not self.root.is_dir():
            return
        # A run that was killed before it began leaves .packcli alone; what came later beside it is not ours.
        begun = (self._state / PLAN).is_file()
        if not begun and any(path.name != STATE_DIRECTORY for path in self.root.iterdir()):
            raise OutputError(
                f"{self.root} is not empty and not an output of packcli: nothing in it was touched",
                "choose another directory with -o",
            )

    def refuse_locked(self) -> None:
        """Raises LockedError when another process writes here; looks only, and makes nothing."""
        if (self._state / "lock").is_file():
            with self._lock():
                pass

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the directory and holds its lock; the system frees it when the process dies, however it dies.

        Raises:
            LockedError: another process writes here; names it.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        with self._lock():
            me = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
            owner = self._state / OWNER
            with contextlib.suppress(OSError):  # for people only; whether the disk is full is said elsewhere
                owner.write_text(json.dumps(me), encoding="utf-8")
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    owner.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = filelock.FileLock(self._state / "lock", timeout=LOCK_WAIT_S, poll_interval=0.02)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LockedError(
                f"{self.root}: another packcli writes there now{self._owner()}", "wait for it, or use another -o"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _owner(self) -> str:
        """Who holds the lock, as far as it is known."""
        try:
            owner = json.loads((self._state / OWNER).read_bytes())
            return f" (process {int(owner['pid'])} on {owner['host']!s}, since {owner['since']!s})"
        except (OSError, ValueError, LookupError, TypeError):
            return ""

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
        return _read_json(self._state / PLAN)

    def recorded_date(self) -> str | None:
        """The day that chat templates took for today when this output was begun; None when nothing tells."""
        try:
            template = (self.recorded_run() or {})["text"]["chat_template"]
            return str(template["date"]) if template["date"] else None
        except (OutputError, LookupError, TypeError):  # damaged: that is told when the run begins
            return None

    def refuse_mismatch(self, run: Mapping[str, Any]) -> None:
        """Raises MismatchError when the output belongs to another run, naming the first field that differs."""
        try:
            recorded = self.recorded_run()
        except OutputError as error:
            raise MismatchError(error.message, self.way_out) from None
        if recorded is None or recorded == run:
            return
        place, then, now = first_difference(recorded, run) or ("fingerprint", "another", "this one")
        raise MismatchError(f"{self.root} belongs to another run: {place} was {then}, now it is {now}", self.way_out)

    @property
    def way_out(self) -> str:
        """What to do with an output that belongs to another run."""
        if self.is_finished:
            return "use another -o, or --overwrite to replace it"
        return "it is not finished: use another -o, or --restart to begin it anew"

    def begin(self, run: Mapping[str, Any], sources: Sequence[Source], config: PackConfig) -> None:
        """Makes the directory ready for the run, and sweeps what dead processes left half written.

        The settings are kept as a packcli.toml; it names the tokenizer by its path, so it is not hashed.
        """
        self.sweep()
        if self.recorded_run() is None:
            write_json(self._state / PLAN, run)  # first: without it, what lies beside it is a stranger's
        self._units.mkdir(exist_ok=True)
        self.saw_inputs(sources)
        (self.root / MANIFEST).unlink(missing_ok=True)  # not whole until it is written anew
        self.write_text(f"{STATE_DIRECTORY}/packcli.toml", config.to_toml())

    def sweep(self) -> None:
        """Removes what dead processes left half written. The lock is held, so nobody else writes here."""
        for directory in (self.root, self._state, *(self.root / name for name in OUR_DIRECTORIES)):
            if directory.is_dir():
                for left_over in directory.glob(LEFT_OVER):
                    left_over.unlink(missing_ok=True)

    def saw_inputs(self, sources: Sequence[Source]) -> None:
        """Remembers when the inputs were last changed."""
        write_json(self._state / "inputs.json", {source.name: _mtime(source) for source in sources})

    def changed_since(self, sources: Sequence[Source]) -> list[int]:
        """Indices of sources whose time of change differs from what was remembered: their rows must be compared."""
        seen = _read_json(self._state / "inputs.json") or {}
        return [index for index, source in enumerate(sources) if seen.get(source.name) != _mtime(source)]

    def remember_mix(self, asked: Mapping[str, Any], mix: Mapping[str, Any]) -> None:
        """Keeps what was counted for a mixture: the same command need not count again."""
        write_json(self._state / MIX, {"asked": asked, "mix": mix})

    def remembered_mix(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was counted for a mixture; None when that was another one."""
        with contextlib.suppress(OutputError):
            kept = _read_json(self._state / MIX) or {}
            return kept.get("mix") if kept.get("asked") == asked else None
        return None

    def clear(self) -> None:
        """Removes what packcli wrote here, and nothing else."""
        self.sweep()
        for folder, patterns in OUR_PATTERNS.items():
            for pattern in patterns:
                for path in (self.root / folder).glob(pattern):
                    path.unlink(missing_ok=True)
        for name in OURS:
            (self.root / name).unlink(missing_ok=True)
        for name in OUR_DIRECTORIES:
            with contextlib.suppress(OSError):  # it holds something else
                (self.root / name).rmdir()
        for name in ("inputs.json", MIX, PLAN):  # the plan last: until then the output is known for what it was
            (self._state / name).unlink(missing_ok=True)

    def commit(self, sidecar: Sidecar) -> None:
        """Commits a part: from here on it is done."""
        write_json(self.root / sidecar.file, seal(sidecar.as_dict()))

    def sidecars(self) -> list[Sidecar]:
        """Every committed part whose sidecar is sound and whose shards are there, by unit and part.

        What is not among them is done again.
        """
        if not self._units.is_dir():
            return []
        found = (read_sidecar(path) for path in self._units.glob("[!.]*.json"))
        present = [each for each in found if each and all(map(self._has_shard, each.shards.values()))]
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

    def write_manifest(self, run: Mapping[str, Any], sidecars: Sequence[Sidecar], files: Sequence[str]) -> None:
        """Writes manifest.json: the run, every shard, what each part read, and the sha256 of the other files."""
        names = [*files, *(each.file for each in sidecars)]
        hashes = {name: file_sha256(self.root / name)[0] for name in names}
        write_json(self.root / MANIFEST, seal({**run, **list_shards(sidecars), "files": hashes}))


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
    except (ValueError, TypeError, RecursionError) as error:
        raise OutputError(f"{path}: damaged: {error}", "--overwrite makes the output anew") from None


def _mtime(source: Source) -> list[Any]:
    stat = os.stat(source.path)
    return [os.fsencode(os.path.realpath(source.path)).hex(), stat.st_mtime_ns, stat.st_size]


def first_difference(then: Any, now: Any, place: str = "") -> tuple[str, str, str] | None:
    """Where two descriptions of runs differ first, and both values as JSON; None when they are equal."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in (*then, *(key for key in now if key not in then)) if key != "fingerprint"]
        steps = [(f"{place}.{key}" if place else key, then.get(key), now.get(key)) for key in keys]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        steps = [(f"{place}[{index}]", *pair) for index, pair in enumerate(zip(then, now, strict=True))]
    else:
        return None if then == now else (place.removeprefix("config."), _shown(then), _shown(now))
    for step in steps:
        different = first_difference(step[1], step[2], step[0])
        if different is not None:
            return different
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}..."


def config_of(manifest: Mapping[str, Any]) -> PackConfig:
    """The settings of a manifest, whose columns are those written: a mask may have added labels.

    Raises:
        ValueError: they contradict one another.
    """
    settings = dict(manifest["config"])
    written, ragged = settings.pop("columns"), settings.pop("ragged")
    columns = tuple(name for name in written if not (ragged and name == "labels"))
    config = PackConfig(**settings, columns=columns, format=manifest["text"]["format"])
    if config.ragged is not ragged or list(config.written_columns) != written:
        raise ValueError(f"columns {written} and ragged {ragged}")
    return config
