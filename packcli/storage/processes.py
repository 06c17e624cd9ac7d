"""Who a process is, and whether it is alive: by its id where ids mean the same as here, else by its last heartbeat."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Who this process is."""
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "place": _place(),
        "born": _born(os.getpid()),
    }


def is_alive(process: Mapping[str, Any], age_s: float, silence_s: float) -> bool:
    """Whether a process is alive.

    Args:
        process: What it wrote about itself, see `this_process`; any key may be missing.
        age_s: Seconds since its last heartbeat.
        silence_s: After so many seconds without one, a process of another machine is dead.
    """
    pid, own_place, place = process.get("pid"), _place(), str(process.get("place"))
    if own_place and place == own_place and isinstance(pid, int):
        return _exists(pid) and process.get("born") == _born(pid)
    (host, *boot), (own_host, *own_boot) = place.split("/"), own_place.split("/")
    if own_place and host == own_host and boot[:1] != own_boot[:1]:
        return False  # this machine was started anew since
    return age_s < silence_s


def _exists(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _place() -> str:
    """Where process ids mean the same as here: a machine since it was started, and a container on it; '' if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process of this machine was started, so that a new one with an old id is another; '' if unknown.

    A process that has ended and is not yet waited for is as good as gone.
    """
    try:
        fields = re.sub(r"^.*\) ", "", Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")).split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""
