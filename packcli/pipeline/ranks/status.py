"""How far the ranks of an output have come, from what they leave there: sidecars and notes. Nothing is written.

A unit is done when its sidecar is there; which parts are whole stands in the first bytes of a sidecar, so that none is
read to its end. Speed and errors come from the notes of the ranks.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli.dataset import Output, committed_units, sidecar_file
from packcli.errors import OutputError
from packcli.pipeline.ranks.plan import UNITS, read_units
from packcli.results import Shown
from packcli.storage import Location, Peer, RemotePath, concurrently, locate

HEAD_BYTES = 256
"""Of a sidecar: unit, part and whether it is the last one."""

_IS_LAST = re.compile(rb'"is_last": true')


@dataclass(frozen=True, slots=True)
class RankStatus:
    """One rank, as its note has it."""

    rank: int
    world_size: int
    state: str
    """running, failed (its error is known) or died (it left none)."""
    host: str
    pid: int
    since: str
    seen_s_ago: float
    num_units: int
    """That are its own."""
    num_units_left: int
    """Of these, when it was started."""
    num_units_done: int
    """Of these, by now."""
    bytes_per_second: float | None
    error: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Status(Shown):
    """How far an output has come."""

    output: Location
    state: str
    """planned, running, stopped (units are left, nobody works), complete (to be finished), finished."""
    num_units: int
    num_units_done: int
    num_units_running: int
    """In work now, about: one for each worker of a running rank."""
    num_bytes: int
    """Of the input files, about."""
    num_bytes_done: int
    bytes_per_second: float | None
    """Of all living ranks together; None when none of them has done a unit."""
    eta_s: float | None
    ranks: list[RankStatus]
    """Those that run, failed or died; a rank that is done leaves no note."""
    alone: str | None
    """Who works there alone: pack, plan or finish."""

    def facts(self) -> list[tuple[str, str]]:
        """How far it has come; `ranks` has the ranks one by one."""
        states = [each.state for each in self.ranks]
        counts = ", ".join(f"{states.count(state)} {state}" for state in sorted({*states})) or "none at work"
        return [
            ("units", f"{self.num_units_done:,} of {self.num_units:,} done"),
            ("input", f"{self.num_bytes_done / 1e6:,.1f} of {self.num_bytes / 1e6:,.1f} MB"),
            ("ranks", counts),
            ("output", f"{self.output} ({self.state})"),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {**dataclasses.asdict(self), "output": str(self.output)}


def status(output: str | os.PathLike[str] | Location) -> Status:
    """Looks at an output.

    Raises:
        OutputError: no run was begun there.
    """
    target = Output(locate(output))
    root = target.root
    run = target.state.recorded_run()
    if run is None:
        raise OutputError(f"{output}: no run was begun there", "packcli units plan INPUT... -o DIR begins one")
    now = time.time()
    num_units = int(run["num_units"])
    is_whole = _whole_units(root, num_units)
    num_bytes, num_bytes_done = _bytes(target, run, is_whole)
    notes = [each for each in target.lock.ranks(now) if each.is_alive or not _is_replaced(each, is_whole)]
    ranks, running = [_rank(each) for each in notes], [each for each in notes if each.is_alive]
    num_done, left = int(np.count_nonzero(is_whole)), num_bytes - num_bytes_done
    in_work = sum(
        min(int(each.data.get("workers", 0)), int(each.data.get("num_units_left", 0)) - _done(each)) for each in running
    )
    speeds = [each.bytes_per_second for each in ranks if each.state == "running" and each.bytes_per_second]
    speed = sum(speeds) if speeds else None
    alone = target.lock.exclusive_owner(now)
    if target.is_finished:
        state = "finished"
    elif running or alone:
        state = "running"
    elif num_done == num_units:
        state = "complete"
    else:
        state = "stopped" if num_done or ranks else "planned"
    return Status(
        output=root,
        state=state,
        num_units=num_units,
        num_units_done=num_done,
        num_units_running=max(0, min(in_work, num_units - num_done)),
        num_bytes=num_bytes,
        num_bytes_done=num_bytes_done,
        bytes_per_second=None if speed is None else round(speed, 1),
        eta_s=None if speed is None else round(left / speed, 1),
        ranks=ranks,
        alone=alone,
    )


def _whole_units(root: Location, num_units: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool[units]: the part with the highest number is the last, and none before it is missing."""
    is_whole = np.zeros(num_units, dtype=np.bool_)
    units, parts = committed_units(root)
    highest = np.flatnonzero(np.append(units[1:] != units[:-1], len(units) > 0))
    counts = np.diff(highest, prepend=-1)
    highest = highest[(counts == parts[highest] + 1) & (units[highest] < num_units)]
    last_parts = zip(units[highest].tolist(), parts[highest].tolist(), strict=True)
    for unit, is_last in concurrently(root, functools.partial(_is_last, root), last_parts):
        is_whole[unit] = is_last
    return is_whole


def _is_last(root: Location, unit_part: tuple[int, int]) -> tuple[int, bool]:
    """Whether the sidecar of a part says that it is the last one: (unit, that)."""
    unit, part = unit_part
    path = root / sidecar_file(unit, part)
    try:
        if isinstance(path, RemotePath):
            head = path.read_bytes()[:HEAD_BYTES]
        else:
            with open(path, "rb") as file:
                head = file.read(HEAD_BYTES)
    except OSError:
        return unit, False
    return unit, _IS_LAST.search(head) is not None


def _bytes(target: Output, run: dict[str, Any], is_whole: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int]:
    """Bytes of the input, and of the units that are done: as in the plan for ranks, or in proportion without one."""
    total = done = 0
    try:
        for unit, size in read_units(target.state.folder / UNITS, slice(None)):
            total += size
            done += size if unit.index < len(is_whole) and is_whole[unit.index] else 0
    except (OSError, ValueError, TypeError):
        total = sum(int(each["num_bytes"]) for each in run["inputs"])
        done = int(total * is_whole.mean()) if len(is_whole) else 0
    return total, done


def _is_replaced(each: Peer, is_whole: np.ndarray[Any, np.dtype[np.bool_]]) -> bool:
    """Whether all units of a rank that failed or died are done: by it, or by others."""
    rank, world_size = int(each.data.get("rank", 0)), int(each.data.get("world_size", 1))
    return bool(is_whole[rank :: max(world_size, 1)].all())


def _done(each: Peer) -> int:
    return int(each.data.get("num_units_done", 0))


def _rank(each: Peer) -> RankStatus:
    data = each.data
    seconds = float(data.get("seconds", 0.0))
    failed = data.get("state") == "failed"
    return RankStatus(
        rank=int(data.get("rank", -1)),
        world_size=int(data.get("world_size", 0)),
        state="failed" if failed else "running" if each.is_alive else "died",
        host=str(data.get("host")),
        pid=int(data.get("pid", 0)),
        since=str(data.get("since")),
        seen_s_ago=round(each.age_s, 1),
        num_units=int(data.get("num_units", 0)),
        num_units_left=int(data.get("num_units_left", 0)),
        num_units_done=_done(each),
        bytes_per_second=round(float(data.get("num_bytes_done", 0)) / seconds, 1) if seconds else None,
        error=str(data["error"]) if failed and "error" in data else None,
    )
