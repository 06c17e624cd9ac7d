"""What every run does for its output at its end: a line of the run log, or the removal of temporary files."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from packcli import __version__
from packcli.dataset import Output
from packcli.errors import PackcliError
from packcli.storage import full_disk, is_full


@contextlib.contextmanager
def cleaned_up(
    target: Output, *, needed: Callable[[], int] = lambda: 0, sweep: Callable[[], None] | None = None
) -> Iterator[None]:
    """When what is inside fails, no temporary file is left, and a full disk is called by its name.

    Args:
        target: The output.
        needed: Gives the bytes that were still to be written, about; asked for when the disk is full.
        sweep: Removes temporary files; by default all of the output: the lock is held, so nobody else writes there.

    Raises:
        StorageError: the disk is full.
    """
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(PackcliError, OSError):
            (sweep or target.sweep)()
        if is_full(error):
            raise full_disk(target.root, max(needed(), 0)) from error
        raise


def log_run(
    target: Output, started: float, seconds: float, /, *, file_name: str = "run.jsonl", **facts: Any
) -> dict[str, Any]:
    """Writes a line of the run log, of which nothing is hashed.

    Args:
        target: The output.
        started: When the run began, in seconds since 1970.
        seconds: How long it took.
        file_name: Of the log.
        facts: What is particular to this run.

    Returns:
        The line.
    """
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(seconds, 3),
        **facts,
        "packcli": __version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "command": sys.argv,
    }
    target.state.log(file_name, **entry)
    return entry
