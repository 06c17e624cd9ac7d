"""One writer at a time in an object store, where nothing is freed when a process dies.

The lock is an object that is created only where none is (If-None-Match, a generation of 0). Its owner puts it again
every BEAT_S seconds. It is free again when its owner deletes it; when it has not been put for STALE_S seconds; and
when its owner was on this machine and is not there any more (`processes`).

That is a courtesy between people, not what keeps an output right: two who write the same run write the same bytes
under the same names, and another run is refused by its plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from packcli.errors import LockedError, PackcliError
from packcli.storage import processes
from packcli.storage.processes import is_alive
from packcli.storage.remote import RemotePath

_HELD: set[str] = set()
"""Tokens of the locks that this process holds."""

BEAT_S = 60.0
"""How often an owner says that it is alive."""

STALE_S = 300.0
"""A lock that is older than this has no owner; clocks may differ by some minutes less than it."""


def refuse_locked(lock: RemotePath) -> None:
    """Raises LockedError when somebody else holds the lock of an output; names it."""
    owner = owner_of(lock)
    if owner is not None:
        raise LockedError(
            f"{lock.parent.parent}: another packcli writes there now ({owner})",
            f"wait for it, or use another -o; if it is dead, its lock ends {STALE_S:.0f} s after its last sign of life",
        )


def owner_of(lock: RemotePath) -> str | None:
    """Who holds a lock, for messages; None when nobody who lives does."""
    owner = _read(lock)
    if owner is None or not _is_alive(owner):
        return None
    return f"process {owner['pid']} on {owner['host']}, since {owner.get('since')}"


@contextlib.contextmanager
def locked(lock: RemotePath) -> Iterator[None]:
    """Holds the lock.

    Raises:
        LockedError: somebody else holds it; names it.
    """
    me = {"token": uuid.uuid4().hex, **processes.this_process()}
    refuse_locked(lock)
    if not lock.create(_beat(me)):
        refuse_locked(lock)
        lock.unlink(missing_ok=True)  # of the dead
        if not lock.create(_beat(me)):
            refuse_locked(lock)
            raise LockedError(f"{lock}: another packcli began just now", "wait for it, or use another -o")
    _HELD.add(me["token"])
    done = threading.Event()
    heart = threading.Thread(target=_keep_alive, args=(lock, me, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        _HELD.discard(me["token"])
        with contextlib.suppress(PackcliError, OSError):  # what ended the run matters more; the lock ends by itself
            if (_read(lock) or {}).get("token") == me["token"]:
                lock.unlink(missing_ok=True)


def _keep_alive(lock: RemotePath, me: dict[str, Any], done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        with contextlib.suppress(PackcliError, OSError):  # a store that is away for long ends the run elsewhere
            if (_read(lock) or {}).get("token") != me["token"]:
                return  # it took so long that another one began
            lock.put(_beat(me))


def _beat(me: dict[str, Any]) -> bytes:
    return json.dumps({**me, "beat": time.time()}).encode()


def _read(lock: RemotePath) -> dict[str, Any] | None:
    try:
        return dict(json.loads(lock.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return {}  # nobody's


def _is_alive(owner: dict[str, Any]) -> bool:
    try:
        age = time.time() - float(owner["beat"])
        pid = int(owner["pid"])
    except (LookupError, ValueError, TypeError):
        return False
    if not is_alive(owner, age, STALE_S):
        return False
    return pid != os.getpid() or owner.get("token") in _HELD or owner.get("place") != processes.this_process()["place"]
