"""What workers on other machines must share with this one: the output, the inputs, the tokenizer, the versions.

A cluster whose nodes have disks of their own would scatter the shards over them, or pack other rows of the same name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packcli.storage.files import committed, file_sha256

MOST_FILES = 32
"""Files that every node looks for: of more, these many, spread over all."""

PATIENCE_S = 10.0
"""How long a file may take until another machine sees it; caches of network file systems hold for seconds."""

PACKAGES = ("packcli", "fastokens", "tokenizers", "jinja2")
"""Packages that make ids and text: other versions may make others."""


@dataclass(frozen=True, slots=True)
class RequiredFile:
    """A file that must be the same everywhere."""

    path: str
    num_bytes: int
    sha256: str | None = None
    """None where the size must do."""


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node sees of the requirements."""

    place: str
    """Its machine."""
    problems: tuple[str, ...]
    wrote: str | None = None
    """The file that it wrote, to be seen from here."""


@dataclass(frozen=True, slots=True)
class NodeRequirements:
    """What every worker must see as this process does; travels to them."""

    folder: str
    """Of the output; the state directory in it. Files there come and go."""
    files: tuple[RequiredFile, ...]
    versions: tuple[tuple[str, str], ...]
    mark: str = ""
    """Name of a file in `folder`, and what stands in it: nobody else's directory holds it."""

    @classmethod
    def of(cls, folder: str | os.PathLike[str], files: Iterable[RequiredFile]) -> NodeRequirements:
        """The requirements of a run, with absolute paths. What lies in an object store (`s3://...`) needs no look."""
        local = [each for each in files if "://" not in each.path]
        step = max(1, -(-len(local) // MOST_FILES))
        kept = [dataclasses.replace(each, path=os.path.abspath(each.path)) for each in local[::step]]
        place = os.fspath(folder)
        return cls(place if "://" in place else os.path.abspath(place), tuple(kept), versions())

    @contextlib.contextmanager
    def marked(self) -> Iterator[NodeRequirements]:
        """Puts the mark into the folder; takes it away at the end, with those of the workers."""
        if "://" in self.folder:
            yield self
            return
        mark = f"ray-{uuid.uuid4().hex[:12]}"
        try:
            self._write(mark, mark)
            yield dataclasses.replace(self, mark=mark)
        finally:
            for path in Path(self.folder).glob(f"{mark}*"):
                path.unlink(missing_ok=True)

    def look(self, *, write: bool = False) -> NodeAnswer:
        """Looks at everything from where this is called.

        Args:
            write: Whether to leave a file in the folder, too.
        """
        problems = [
            f"{name} is {theirs} there and {ours} here"
            for (name, ours), (_, theirs) in zip(self.versions, versions(), strict=True)
            if ours != theirs
        ]
        wrote = None
        if self.mark and not sees(self.folder, self.mark):
            problems.append(f"it does not see the output: {self.folder} is not there, or another directory")
        elif self.mark and write:
            wrote = f"{self.mark}-{uuid.uuid4().hex[:12]}"
            try:
                self._write(wrote, self.mark)
            except OSError as error:
                problems.append(f"it cannot write to the output: {self.folder}: {error.strerror}")
        problems += filter(None, map(_problem_of, self.files))
        return NodeAnswer(platform.node(), tuple(problems), wrote)

    def _write(self, name: str, text: str) -> None:
        with committed(Path(self.folder) / name) as file:
            file.write(text.encode())


def sees(folder: str, name: str, mark: str | None = None, *, patience_s: float | None = None) -> bool:
    """Whether the file is there and holds the mark, by default its own name; waits for it."""
    until = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    while True:
        try:
            if (Path(folder) / name).read_bytes() == (mark or name).encode():
                return True
        except OSError:
            pass
        if time.monotonic() >= until:
            return False
        time.sleep(0.1)


def versions() -> tuple[tuple[str, str], ...]:
    """Python and the packages that decide the bytes, with their versions here; `none` where one is missing."""
    versions = [("Python", ".".join(platform.python_version_tuple()[:2]))]
    for package in PACKAGES:
        try:
            versions.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            versions.append((package, "none"))
    return tuple(versions)


def _problem_of(file: RequiredFile) -> str | None:
    try:
        num_bytes = os.stat(file.path).st_size
        if num_bytes != file.num_bytes:
            return f"{file.path} has {num_bytes:,} bytes there and {file.num_bytes:,} here"
        with open(file.path, "rb"):
            pass
        if file.sha256 is not None and file_sha256(Path(file.path))[0] != file.sha256:
            return f"{file.path} holds something else there"
    except OSError as error:
        return f"it cannot read {file.path}: {error.strerror}"
    return None
