"""Who works on an output now: a file for each process, which it touches while it is alive.

No lock that a network filesystem would have to keep is needed. Any number of ranks work side by side, on any machines.
What may not run beside them (pack, units plan, units finish) reads their heartbeats, and they read its heartbeat. Each
writes its own before it reads those of the others, so that of two who start at the same moment at least one sees the
other.

Whether a process is alive is asked of the system where that is possible: on the same machine, since it was started, in
the same container. A process elsewhere counts as alive while its file was touched within SILENCE_S. Ages are
differences of times that the filesystem itself gave, so the clocks of machines need not agree. In an object store the
file is written again instead of touched, with the time in it, and clocks must agree within some minutes.

NFS may show a new file to another machine a minute late. A process that starts in between can take a temporary file of
the first one for one that was left over, and remove it: the first one fails then. What is committed stays right.
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
"""How often a process touches its heartbeat."""

BEAT = "beat"
"""Key of a heartbeat in an object store: when it was written."""

SILENCE_S = 300.0
"""A heartbeat of another machine that was not touched for so long is that of a dead process."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A process by its heartbeat, as another process reads it."""

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
    """The heartbeat of this process, while the context lasts.

    Args:
        path: Where to write it.
        facts: What it says besides who wrote it.
    """

    def __init__(self, path: Location, facts: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.facts: dict[str, Any] = {**this_process(), **(facts or {})}
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._remains = False

    def __enter__(self) -> Heartbeat:
        self._create()
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def _create(self) -> None:
        """Writes the file for the first time."""
        if isinstance(self.path, RemotePath):
            self.path.put(self._text())
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Not by a rename: who reads a half written file takes it for none, but has written its own already, which
        # this process will read.
        self.path.write_text(json.dumps(self.facts), encoding="utf-8")

    def _is_ours(self) -> bool:
        """Whether the file is still that of this process."""
        return True

    def tell(self, **facts: Any) -> None:
        """Writes more facts into the heartbeat."""
        with self._lock:
            self.facts.update(facts)
            if isinstance(self.path, RemotePath):
                self.path.put(self._text())
                return
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp")
            try:
                temporary.write_text(json.dumps(self.facts), encoding="utf-8")  # no fsync: it dies with the machine
                os.replace(temporary, self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def leave(self, **facts: Any) -> None:
        """As `tell`, and the file stays when the process has ended, so that others see what went wrong."""
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
                with contextlib.suppress(PackcliError, OSError):  # what ended the run matters more
                    if self._is_ours():
                        self.path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._done.wait(TOUCH_S):
            self._touch_once()

    def _touch_once(self) -> None:
        with self._lock, contextlib.suppress(PackcliError, OSError):
            if not isinstance(self.path, RemotePath):
                os.utime(self.path)
            elif not self._done.is_set() and self._is_ours():  # once it is removed it must not come back
                self.path.put(self._text())

    def _text(self) -> bytes:
        """What an object store holds."""
        return json.dumps({**self.facts, BEAT: time.time()}).encode()


def read_heartbeat(path: Location, now: float) -> Peer | None:
    """The heartbeat of a process; None when there is no file, or it is not a heartbeat.

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
    """Every heartbeat in a directory, by name."""
    names = sorted(name for name in names_in(directory) if name.endswith(".json") and name[0] != ".")
    peers = concurrently(directory, lambda name: read_heartbeat(directory / name, now), names)
    return [peer for peer in peers if peer is not None]
