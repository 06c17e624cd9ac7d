"""Work for the engine: in a module that workers of Ray can import."""

import os
import time

from packcli import errors
from packcli.pipeline import Progress


def fail(item, emit):
    """Fails as its item says, and counts its tries in a file."""
    path, kind, failures = item
    tries = len(path.read_text()) if path.exists() else 0
    with open(path, "a") as file:
        file.write("x")
    for _ in range(3):
        emit(Progress(1, 2))
    if tries < failures:
        if kind == "row":
            raise errors.BadRowError("a row", "a hint")
        if kind == "bug":
            raise ZeroDivisionError("a bug")
        if kind == "full":
            raise OSError(28, "No space left on device", "somewhere")
        raise OSError(5, "Input/output error", "somewhere")
    return path.name, os.getpid()


def slow(item, emit):
    for _ in range(24):
        emit(Progress(1, 0))
        time.sleep(0.5)


class Counted:
    """Work that notes when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return load, (self.path,)

    def __call__(self, item, emit):
        return os.getpid(), item


def load(path):
    with open(path, "a") as file:
        file.write("x")
    return Counted(path)
