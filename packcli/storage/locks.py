"""One writer at a time in an object store, where nothing is freed when a process dies.

The lock is a heartbeat that is created only where none is (If-None-Match, a generation of 0). It is free again when its
owner deletes it, and when its owner is dead, as for any heartbeat.

That is a courtesy between people, not what keeps an output right: two who write the same run write the same bytes
under the same names, and another run is refused by its plan.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator

from packcli.errors import LockedError
from packcli.storage.heartbeats import SILENCE_S, Heartbeat, Peer, read_heartbeat
from packcli.storage.processes import this_process
from packcli.storage.remote import RemotePath

_HELD: set[str] = set()
"""Tokens of the locks that this process holds."""


def refuse_locked(lock: RemotePath) -> None:
    """Raises LockedError when somebody else holds the lock of an output; names it."""
    owner = owner_of(lock)
    if owner is not None:
        ends = f"if it is dead, its lock ends {SILENCE_S:.0f} s after its last sign of life"
        raise LockedError(
            f"{lock.parent.parent}: another packcli writes there now ({owner})",
            f"wait for it, or use another -o; {ends}",
        )


def owner_of(lock: RemotePath) -> str | None:
    """Who holds a lock, for messages; None when nobody who is alive does."""
    owner = read_heartbeat(lock, time.time())
    return str(owner) if owner is not None and owner.is_alive and not _is_left_over(owner) else None


@contextlib.contextmanager
def locked(lock: RemotePath) -> Iterator[None]:
    """Holds the lock.

    Raises:
        LockedError: somebody else holds it; names it.
    """
    with _Lock(lock):
        yield


class _Lock(Heartbeat):
    """A heartbeat that is created only where none is, and left alone once it is another one's."""

    def __init__(self, lock: RemotePath) -> None:
        self._token = uuid.uuid4().hex
        super().__init__(lock, {"token": self._token})
        self._lock_path = lock

    def _create(self) -> None:
        lock = self._lock_path
        refuse_locked(lock)
        if not lock.create(self._text()):
            refuse_locked(lock)
            lock.unlink(missing_ok=True)  # its owner is dead
            if not lock.create(self._text()):
                refuse_locked(lock)
                raise LockedError(f"{lock}: another packcli began just now", "wait for it, or use another -o")
        _HELD.add(self._token)

    def _is_ours(self) -> bool:
        """False when this process was silent for so long that another one began."""
        owner = read_heartbeat(self._lock_path, time.time())
        return owner is not None and owner.data.get("token") == self._token

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        _HELD.discard(self._token)


def _is_left_over(owner: Peer) -> bool:
    """Whether a lock was left by this very process, or by one that had its number in its place: nobody holds it."""
    is_here = owner.data.get("pid") == os.getpid() and owner.data.get("place") == this_process()["place"]
    return is_here and owner.data.get("token") not in _HELD
