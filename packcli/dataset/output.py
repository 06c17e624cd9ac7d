"""The output directory as a record of its run: what it is made from, which parts are committed, whether it is whole.

DIR/.packcli/           of this machine: lock, run log, settings, when the inputs were last seen. Never hashed
DIR/.packcli/plan.json  what the run is (its fingerprint), written before the first part
DIR/.packcli/ranks/     notes of the ranks that work on it, see heartbeats; what they begin with is beside it, see ranks
DIR/units/*.json        a sidecar for each committed part: the commit point of its shards
DIR/manifest.json       written last, with the sha256 of every other file: the output is whole

DIR may be a prefix of an object store; .packcli/ is there then too, so that any machine can go on.

Sidecars and the manifest are sealed: the last key is the sha256 of all the rest: bytes of the one, values of the other.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from packcli import storage
from packcli.config import PackConfig
from packcli.dataset.fingerprint import first_difference, sealed_bytes
from packcli.dataset.lock import LOCK_WAIT_S
from packcli.dataset.paths import (
    MANIFEST,
    MIX,
    OUR_DIRECTORIES,
    OUR_PATTERNS,
    OURS,
    OWNER,
    PLAN,
    RANK_FILES,
    RANKS,
    STATE_DIRECTORY,
)
from packcli.dataset.sidecar import Sidecar
from packcli.dataset.state import seen_input
from packcli.errors import LockedError, MismatchError, OutputError
from packcli.readers import Source
from packcli.storage import SILENCE_S, Heartbeat, Peer, read_heartbeat, read_heartbeats
from packcli.storage.files import LEFT_OVER, committed, read_json, write_json


class Output:
    """An output directory. Everything that writes below it goes through here or through files.committed."""

    def __init__(self, root: storage.Location) -> None:
        self.root = root
        self._state = root / STATE_DIRECTORY
        self._units = root / "units"

    def check_ours(self) -> None:
        """Raises OutputError when the directory is a file, or holds something that packcli did not write."""
        if isinstance(self.root, storage.RemotePath):
            self.root.check_writable()
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

    @property
    def state(self) -> storage.Location:
        """The directory for what is of this machine, or of this run while it lasts."""
        return self._state

    def refuse_locked(self) -> None:
        """Raises LockedError when another process writes here; looks only, and makes nothing."""
        if isinstance(self._state, storage.RemotePath):
            storage.refuse_locked(self._state / "lock")
        elif (self._state / "lock").is_file():
            with self._lock():
                pass
        self._refuse_ranks(time.time())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the directory and holds its lock; the system frees it when the process dies, however it dies.

        Raises:
            LockedError: another process writes here; names it.
        """
        if isinstance(self._state, storage.RemotePath):
            with storage.locked(self._state / "lock"):
                self._refuse_ranks(time.time())
                yield
            return
        self._state.mkdir(parents=True, exist_ok=True)
        with self._lock(), contextlib.ExitStack() as stack:
            now = time.time()
            with contextlib.suppress(OSError):  # whether the disk is full is said elsewhere
                now = stack.enter_context(Heartbeat(self._state / OWNER)).now
            self._refuse_ranks(now)
            yield

    @contextlib.contextmanager
    def beside(self, rank: int, world_size: int, **facts: Any) -> Iterator[Heartbeat]:
        """Announces a rank, which works beside other ranks; gives its note.

        Raises:
            LockedError: a process that works here alone does so now.
        """
        host = re.sub(r"[^\w.-]", "_", platform.node())
        name = f"{rank:05d}-{world_size:05d}.{host}.{os.getpid()}.{uuid.uuid4().hex[:6]}.json"
        note = Heartbeat(self._state / RANKS / name, {"rank": rank, "world_size": world_size, **facts})
        with note:
            owner = self.exclusive_owner(note.now)
            if owner is not None:
                raise LockedError(f"{self.root}: another packcli works there alone now ({owner})", "wait for it")
            for each in self.ranks(note.now):  # it is tried again: what went wrong before is past
                if not each.is_alive and (each.data.get("rank"), each.data.get("world_size")) == (rank, world_size):
                    each.path.unlink(missing_ok=True)
            yield note

    def exclusive_owner(self, now: float) -> str | None:
        """Who works here alone, if anybody does: pack, plan or finish. `now` is the time of the filesystem."""
        if isinstance(self._state, storage.RemotePath):
            return storage.owner_of(self._state / "lock")
        owner = read_heartbeat(self._state / OWNER, now)
        return str(owner) if owner is not None and owner.is_alive else None

    def ranks(self, now: float) -> list[Peer]:
        """The notes of ranks: of those that run, failed or died. `now` is the time of the filesystem."""
        return read_heartbeats(self._state / RANKS, now)

    def _refuse_ranks(self, now: float) -> None:
        alive = [each for each in self.ranks(now) if each.is_alive]
        if alive:
            first = alive[0]
            others = f", and {len(alive) - 1} more" if len(alive) > 1 else ""
            raise LockedError(
                f"{self.root}: a rank still runs there: rank {first.data.get('rank')} of "
                f"{first.data.get('world_size')} ({first}){others}",
                f"wait for it; one on another machine that died counts as gone {SILENCE_S:.0f} s after its last sign",
            )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = filelock.FileLock(str(self._state / "lock"), timeout=LOCK_WAIT_S)
        try:
            lock.acquire(poll_interval=0.02)
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

    @functools.cached_property
    def spool(self) -> Path:
        """Where standard input is kept while it is packed: on this machine."""
        if isinstance(self._state, storage.RemotePath):
            return Path(tempfile.gettempdir()) / f"packcli-{uuid.uuid4().hex}.jsonl"
        return self._state / "stdin.jsonl"

    def log(self, file_name: str = "run.jsonl", /, **entry: Any) -> None:
        """Appends a line to the run log: times, workers, paths, versions; nothing that is hashed."""
        path = self._state / file_name
        line = json.dumps(entry) + "\n"
        if isinstance(path, storage.RemotePath):  # nothing can be appended there; nobody else writes this file
            path.put((path.read_bytes() if path.is_file() else b"") + line.encode())
            return
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)

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
        return read_json(self._state / PLAN)

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
        for path in self.left_over():
            path.unlink(missing_ok=True)

    def left_over(self) -> list[Path]:
        """Files that are half written: by processes that died, or that write them now. None in an object store."""
        if isinstance(self.root, storage.RemotePath) or isinstance(self._state, storage.RemotePath):
            return []
        places = (self.root, self._state, self._state / RANKS, *(self.root / name for name in OUR_DIRECTORIES))
        return [path for place in places if place.is_dir() for path in place.glob(LEFT_OVER)]

    def saw_inputs(self, sources: Sequence[Source]) -> None:
        """Remembers when the inputs were last changed."""
        write_json(self._state / "inputs.json", {source.name: seen_input(source) for source in sources})

    def changed_since(self, sources: Sequence[Source]) -> list[int]:
        """Indices of sources whose time of change differs from what was remembered: their rows must be compared."""
        seen = read_json(self._state / "inputs.json") or {}
        return [index for index, source in enumerate(sources) if seen.get(source.name) != seen_input(source)]

    def remember_mix(self, asked: Mapping[str, Any], mix: Mapping[str, Any]) -> None:
        """Keeps what was counted for a mixture: the same command need not count again."""
        write_json(self._state / MIX, {"asked": asked, "mix": mix})

    def remembered_mix(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was counted for a mixture; None when that was another one."""
        with contextlib.suppress(OutputError):
            kept = read_json(self._state / MIX) or {}
            return kept.get("mix") if kept.get("asked") == asked else None
        return None

    def clear(self) -> None:
        """Removes what packcli wrote here, and nothing else."""
        self.sweep()
        for folder, patterns in OUR_PATTERNS.items():
            for pattern in patterns:
                found = (self.root / folder).glob(pattern)
                for _ in storage.concurrently(self.root, functools.partial(_unlink, missing_ok=True), found):
                    pass
        for name in OURS:
            (self.root / name).unlink(missing_ok=True)
        for name in OUR_DIRECTORIES:
            with contextlib.suppress(OSError):  # it holds something else
                (self.root / name).rmdir()
        for pattern in ("*.json", "*.jsonl"):
            for each in (self._state / RANKS).glob(pattern):
                each.unlink(missing_ok=True)
        for name in (*RANK_FILES, "inputs.json", MIX, PLAN):  # the plan last: until then it is known for what it was
            (self._state / name).unlink(missing_ok=True)

    def commit(self, sidecar: Sidecar) -> None:
        """Commits a part: from here on it is done."""
        with committed(self.root / sidecar.file) as file:
            file.write(sealed_bytes(sidecar.as_dict()))

    def touch(self) -> None:
        """Marks the manifest as new, so that make does not ask again."""
        if isinstance(self.root, Path):
            os.utime(self.root / MANIFEST)

    def write_text(self, name: str, text: str) -> None:
        """Commits a text file."""
        with committed(self.root / name) as file:
            file.write(text.encode())


def _unlink(path: storage.Location, *, missing_ok: bool) -> None:
    path.unlink(missing_ok=missing_ok)
