"""Who may write an output: one process alone, or ranks side by side.

On a disk a process that works alone holds `lock`, which the system frees when it dies, and shows itself by `owner.json`
for ranks on other machines; in an object store its lock is a heartbeat. Ranks write a heartbeat each, in `ranks/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import filelock

from packcli import storage
from packcli.dataset.paths import OWNER, RANKS
from packcli.errors import LockedError
from packcli.storage import SILENCE_S, Heartbeat, Peer, read_heartbeat, read_heartbeats

LOCK_WAIT_S = 0.3
"""A lock that another process only looks at is free again in no time; a run holds it for longer."""


class OutputLock:
    """Who may write an output.

    Args:
        root: The output, for messages.
        folder: Its state directory.
    """

    def __init__(self, root: storage.Location, folder: storage.Location) -> None:
        self._root = root
        self._folder = folder

    def refuse(self) -> None:
        """Raises LockedError when another process writes here; looks only, and makes nothing."""
        if isinstance(self._folder, storage.RemotePath):
            storage.refuse_locked(self._folder / "lock")
        elif (self._folder / "lock").is_file():
            with self._file_lock():
                pass
        self._refuse_ranks(time.time())

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Creates the directory and holds its lock; the system frees it when the process dies, however it dies.

        Raises:
            LockedError: another process writes here; names it.
        """
        if isinstance(self._folder, storage.RemotePath):
            with storage.locked(self._folder / "lock"):
                self._refuse_ranks(time.time())
                yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file_lock(), contextlib.ExitStack() as stack:
            now = time.time()
            with contextlib.suppress(OSError):  # a full disk is reported by what writes next
                now = stack.enter_context(Heartbeat(self._folder / OWNER)).now
            self._refuse_ranks(now)
            yield

    @contextlib.contextmanager
    def join_as_rank(self, rank: int, world_size: int, **facts: Any) -> Iterator[Heartbeat]:
        """Announces a rank, which works beside other ranks; gives its heartbeat.

        Raises:
            LockedError: a process that works here alone does so now.
        """
        host = re.sub(r"[^\w.-]", "_", platform.node())
        name = f"{rank:05d}-{world_size:05d}.{host}.{os.getpid()}.{uuid.uuid4().hex[:6]}.json"
        heartbeat = Heartbeat(self._folder / RANKS / name, {"rank": rank, "world_size": world_size, **facts})
        with heartbeat:
            owner = self.exclusive_owner(heartbeat.now)
            if owner is not None:
                raise LockedError(f"{self._root}: another packcli works there alone now ({owner})", "wait for it")
            for each in self.ranks(heartbeat.now):  # this rank is tried again: how it ended before does not matter
                if not each.is_alive and (each.data.get("rank"), each.data.get("world_size")) == (rank, world_size):
                    each.path.unlink(missing_ok=True)
            yield heartbeat

    def exclusive_owner(self, now: float) -> str | None:
        """Who works here alone, if anybody does: pack, plan or finish. `now` is the time of the filesystem."""
        if isinstance(self._folder, storage.RemotePath):
            return storage.owner_of(self._folder / "lock")
        owner = read_heartbeat(self._folder / OWNER, now)
        return str(owner) if owner is not None and owner.is_alive else None

    def ranks(self, now: float) -> list[Peer]:
        """The ranks that run, failed or died. `now` is the time of the filesystem."""
        return read_heartbeats(self._folder / RANKS, now)

    def _refuse_ranks(self, now: float) -> None:
        alive = [each for each in self.ranks(now) if each.is_alive]
        if alive:
            first = alive[0]
            others = f", and {len(alive) - 1} more" if len(alive) > 1 else ""
            raise LockedError(
                f"{self._root}: a rank still runs there: rank {first.data.get('rank')} of "
                f"{first.data.get('world_size')} ({first}){others}",
                f"wait for it; one on another machine that died counts as gone {SILENCE_S:.0f} s after its last sign",
            )

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        lock = filelock.FileLock(str(self._folder / "lock"), timeout=LOCK_WAIT_S)
        try:
            lock.acquire(poll_interval=0.02)
        except filelock.Timeout:
            raise LockedError(
                f"{self._root}: another packcli writes there now{self._owner()}", "wait for it, or use another -o"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _owner(self) -> str:
        """Who holds the lock, as far as it is known."""
        try:
            owner = json.loads((self._folder / OWNER).read_bytes())
            return f" (process {int(owner['pid'])} on {owner['host']!s}, since {owner['since']!s})"
        except (OSError, ValueError, LookupError, TypeError):
            return ""
