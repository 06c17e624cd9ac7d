"""Who works on an output now: a note a process, touched while it lives. No lock that a network filesystem must keep.

Any number of ranks work side by side, on any machines; what may not run beside them (pack, units plan, units finish)
looks at their notes, and they at its note. Each writes its own note before it looks at those of others, so that of
two who come at once at least one sees the other.

A note is alive while its process is, where that can be seen (the same machine, since it was started, in the same
container); from elsewhere, while it was touched within SILENCE_S. Ages are differences of times that the filesystem
itself gave, so clocks of machines need not agree. In an object store a note is put again instead, with the time in it,
and clocks must agree within some minutes. NFS may show a new note to another machine a minute late: whoever
comes between can lose a temporary file to a sweep, and fails; what is committed is right all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packcli.errors import PackcliError
from packcli.storage.location import Location, concurrently, names_in
from packcli.storage.processes import is_alive, this_process
from packcli.storage.remote import RemotePath

TOUCH_S = 20.0
"""How often a living process touches its note."""

BEAT = "beat"
"""Key of a note in an object store: when it was put."""

SILENCE_S = 300.0
"""A note of another machine that was not touched for so long is that of a dead process."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A note, as another process finds it."""

    path: Location
    data: dict[str, Any]
    age_s: float
    """Since it was touched."""
    is_alive: bool

    def __str__(self) -> str:
        """Who it is, for messages."""
        get = self.data.get
        return f"process {get('pid')} on {get('host')}, since {get('since')}, last seen {self.age_s:.0f} s ago"


class Heartbeat:
    """The note of this process, while the context lasts.

    Args:
        path: Of the note.
        facts: What it says besides who wrote it.
    """

    def __init__(self, path: Location, facts: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.facts: dict[str, Any] = {**this_process(), **(facts or {})}
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._remains = False

    def __enter__(self) -> Heartbeat:
        if isinstance(self.path, RemotePath):
            self._put(self.path)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Whoever reads it half written wrote its own before, and that is read next.
            self.path.write_text(json.dumps(self.facts), encoding="utf-8")
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def tell(self, **facts: Any) -> None:
        """Writes more into the note."""
        with self._lock:
            self.facts.update(facts)
            if isinstance(self.path, RemotePath):
                self._put(self.path)
                return
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp")
            try:
                temporary.write_text(json.dumps(self.facts), encoding="utf-8")  # no fsync: it dies with the machine
                os.replace(temporary, self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def leave(self, **facts: Any) -> None:
        """As `tell`, and the note stays when the process has gone: what went wrong is to be seen."""
        self._remains = True
        self.tell(**facts)

    @property
    def now(self) -> float:
        """The time of the filesystem, at about the last touch; of an object store, this machine's."""
        self._touch_once()
        return time.time() if isinstance(self.path, RemotePath) else self.path.stat().st_mtime

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        with self._lock:
            if not self._remains:
                with contextlib.suppress(PackcliError, OSError):
                    self.path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._done.wait(TOUCH_S):
            self._touch_once()

    def _touch_once(self) -> None:
        with self._lock, contextlib.suppress(PackcliError, OSError):
            if not isinstance(self.path, RemotePath):
                os.utime(self.path)
            elif not self._done.is_set():  # else it would be there again
                self._put(self.path)

    def _put(self, path: RemotePath) -> None:
        path.put(json.dumps({**self.facts, BEAT: time.time()}).encode())


def read_heartbeat(path: Location, now: float) -> Peer | None:
    """A note; None when there is none, or it is not one.

    Args:
        path: Where it is.
        now: The time of the filesystem.
    """
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            return None
        age = now - (float(data[BEAT]) if isinstance(path, RemotePath) else path.stat().st_mtime)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    works = data.get("state") != "failed" and is_alive(data, age, SILENCE_S)
    return Peer(path, data, max(age, 0.0), works)


def read_heartbeats(directory: Location, now: float) -> list[Peer]:
    """Every note in a directory, by name."""
    names = sorted(name for name in names_in(directory) if name.endswith(".json") and name[0] != ".")
    found = concurrently(directory, lambda name: read_heartbeat(directory / name, now), names)
    return [seen for seen in found if seen is not None]
