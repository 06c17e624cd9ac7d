"""A Ray on this machine that ends with the process that asked for it, however that dies: `embedded` starts a keeper.

The keeper is a process of its own. It starts Ray, says where, waits for the end of its standard input, which comes
also when its parent is killed, and shuts Ray down. (Ray alone would leave some of its processes behind for a minute.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from packcli.engine.base import RETRIES
from packcli.errors import PackcliError, UsageError

STORE_BYTES = 80 * 2**20
"""Of the object store: descriptors need little, and Ray takes no less than 75 MiB."""

MOST_FOLDER_BYTES = 40
"""Of the path of Ray's files: the paths of its sockets, 60 bytes longer, must stay below 108."""

END_S = 20.0
"""How long Ray may take to end."""


@contextlib.contextmanager
def embedded(cpus: int) -> Iterator[str]:
    """Starts a Ray with so many CPUs on this machine and gives its address; at the end nothing is left of it.

    Raises:
        PackcliError: it does not start.
        UsageError: the program has imported Ray without connecting to one.
    """
    with _secured():
        yield from _embedded(cpus)


def _embedded(cpus: int) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="pk-", dir=_short_parent())
    command = [sys.executable, "-m", "packcli.engine.ray_keeper", folder, str(cpus)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    log = os.path.join(folder, "keeper.log")
    with open(log, "wb") as errors:
        keeper = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, who decides
        )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        address = keeper.stdout.readline().decode().strip()
        if not address:
            keeper.wait()
            with open(log, encoding="utf-8", errors="backslashreplace") as file:
                lines = file.read().strip().splitlines() or ["no reason given"]
            raise PackcliError(f"Ray does not start on this machine: {lines[-1]}", "--engine processes needs no Ray")
        yield address
    finally:
        keeper.stdin.close()
        try:
            keeper.wait(END_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        keeper.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Whoever reaches the ports of a Ray may run code, so ours takes orders from this process alone."""


@contextlib.contextmanager
def _secured() -> Iterator[None]:
    """Lets Ray here and the keeper find TOKEN, unless the user has settled it; Ray reads it once, when imported."""
    if "RAY_AUTH_MODE" in os.environ:
        yield
        return
    if "ray" in sys.modules and not _Imported.with_token:
        raise UsageError(
            "this program has imported Ray, but has no connection to one",
            "call ray.init() before packcli.pack, which then uses that one",
        )
    os.environ.update(TOKEN)
    try:
        import ray  # noqa: F401

        _Imported.with_token = True
        yield
    finally:
        for name in TOKEN:
            del os.environ[name]


class _Imported:
    with_token = False


def _short_parent() -> str:
    parent = tempfile.gettempdir()
    is_long = len(os.fsencode(parent)) + len("/pk-12345678") > MOST_FOLDER_BYTES
    return "/tmp" if is_long and os.path.isdir("/tmp") else parent  # noqa: S108 - mkdtemp makes a name of its own


def keep(folder: str, cpus: int) -> None:
    """What the keeper does."""
    import ray

    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=STORE_BYTES,
        _temp_dir=folder,
        # An item that takes too much memory is tried again as often as one that crashes, not for ever. And no history.
        _system_config={"task_oom_retries": RETRIES, "task_events_report_interval_ms": 0},
    )
    try:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"{ray.get_runtime_context().gcs_address}\n")
            sys.stdout.flush()
        sys.stdin.read()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)  # the parent may be dead


if __name__ == "__main__":
    keep(sys.argv[1], int(sys.argv[2]))
