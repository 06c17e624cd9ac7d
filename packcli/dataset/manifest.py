"""The manifest: what an output holds, sealed; written without holding it, read with its seal checked."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packcli import storage
from packcli.dataset.fingerprint import write_sealed
from packcli.dataset.paths import MANIFEST, STATE_DIRECTORY
from packcli.dataset.sidecar import Sidecar
from packcli.errors import OutputError
from packcli.storage import Location
from packcli.storage.files import committed, read_json

SPOOL_BYTES = 1 << 24
"""A list of the manifest that is longer waits on disk."""

DEPTH = 3
"""Objects are indented so deep: see files.to_json."""


class SpooledList:
    """A list of JSON objects that is written and read again in order, on disk once it is long."""

    def __init__(self, directory: Path | None) -> None:
        self._file = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=None if directory is None else str(directory))  # noqa: SIM115 - see ManifestWriter.close

    def append(self, value: Any) -> None:
        """Adds an object at the end."""
        self._file.write((json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))

    def __iter__(self) -> Iterator[str]:
        """The JSON text of each."""
        self._file.seek(0)
        for line in self._file:
            yield line[:-1].decode("utf-8", "surrogatepass")

    def close(self) -> None:
        """Frees what it takes."""
        self._file.close()


class Hashes:
    """Name -> sha256, in the order of adding; about 150 bytes a file in memory."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._digests = bytearray()

    def add(self, name: str, digest: bytes) -> None:
        """Adds a file."""
        self._names.append(name)
        self._digests += digest

    def items(self) -> Iterator[tuple[str, str]]:
        """Names and digests in hex."""
        for index, name in enumerate(self._names):
            yield name, self._digests[32 * index : 32 * index + 32].hex()


class ManifestWriter:
    """What the manifest lists: shards by split, parts, files.

    Args:
        directory: Where long lists wait; None is that for temporary files.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._spools: list[SpooledList] = []
        self._lists: dict[str, Any] = list_shards([])
        for name, value in self._lists.items():
            if isinstance(value, list):
                self._lists[name] = self._spool()
        self._sidecars = Hashes()
        self.rejects: list[str] = []
        """Files of rejected rows, in the order of the parts."""
        self._rejects = Hashes()

    def _spool(self) -> SpooledList:
        self._spools.append(SpooledList(self._directory))
        return self._spools[-1]

    def close(self) -> None:
        """Frees what it takes; see contextlib.closing."""
        for each in self._spools:
            each.close()

    def add(self, sidecar: Sidecar, digest: bytes) -> None:
        """Adds a part, after those before it, with the sha256 of its sidecar."""
        for name, value in list_shards([sidecar]).items():
            for key, entries in value.items() if isinstance(value, dict) else [(None, value)]:
                if key is not None and key not in self._lists[name]:
                    self._lists[name][key] = self._spool()
                spooled = self._lists[name] if key is None else self._lists[name][key]
                for each in entries:
                    spooled.append(each)
        self._sidecars.add(sidecar.file, digest)
        if sidecar.rejected is not None:
            self.rejects.append(sidecar.rejected.file)
            self._rejects.add(sidecar.rejected.file, bytes.fromhex(sidecar.rejected.sha256))

    def has_shards(self, split: str) -> bool:
        """Whether a part gave rows of the split."""
        return split in self._lists["splits"]

    def shards(self, split: str) -> Iterator[str]:
        """The files of a split, in row order."""
        for line in self._lists["splits"].get(split, ()):
            yield json.loads(line)["file"]

    def write(self, path: Location, run: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Commits the manifest, with the sha256 of all of it as its last key.

        Args:
            path: Where.
            run: What describe_run gave.
            files: Digests of the files beside shards and sidecars.
        """
        hashes = Hashes()
        for name, digest in files.items():
            hashes.add(name, digest)
        for name, sha256 in (*self._rejects.items(), *self._sidecars.items()):
            hashes.add(name, bytes.fromhex(sha256))
        with committed(path) as file:
            write_sealed(file, _written({**run, **self._lists, "files": hashes}, DEPTH, ""))


def _written(value: Any, depth: int, indent: str) -> Iterator[str]:
    """The text of files.to_json, piece by piece."""
    if isinstance(value, SpooledList):
        yield "["
        for number, line in enumerate(value):
            yield (", " if number else "") + line
        yield "]"
    elif isinstance(value, Hashes) or (isinstance(value, dict) and value and depth):
        number = -1
        for number, (key, each) in enumerate(value.items()):
            yield (",\n" if number else "{\n") + f"{indent} {json.dumps(key)}: "
            yield from _written(each, depth - 1, f"{indent} ")
        yield f"\n{indent}}}"
    else:
        yield json.dumps(value, ensure_ascii=False)


def read_manifest(root: storage.Location, *, head: bool = False) -> dict[str, Any]:
    """The manifest of a finished output; raises OutputError when there is none.

    Args:
        root: The output.
        head: Only what describes the run: the lists of shards, parts and files, which grow with it, are left out.
    """
    manifest = _read_head(root / MANIFEST) if head and isinstance(root, Path) else None
    if manifest is None:
        manifest = read_json(root / MANIFEST)
    if manifest is None:
        state = "a run that is not finished" if (root / STATE_DIRECTORY).is_dir() else "not an output of packcli"
        raise OutputError(f"{root}: no {MANIFEST}: {state}", "packcli pack makes one; the same command resumes one")
    return manifest


def _read_head(path: Path) -> dict[str, Any] | None:
    """The keys before `splits`, when the file is as we write it: no line within a value begins like that."""
    lines: list[bytes] = []
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(b' "splits": '):
                    return dict(json.loads(b"".join(lines).rstrip().removesuffix(b",") + b"}"))
                lines.append(line)
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    return None


def list_shards(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """What the manifest says about every part: its shards by split, and what it read."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for sidecar in sidecars:
        for split, shard in sidecar.shards.items():
            entry = {**dataclasses.asdict(shard), "unit": sidecar.unit, "part": sidecar.part}
            splits.setdefault(split, []).append(entry)
    parts = [{"unit": each.unit, "part": each.part, "input_xxh3": each.input_xxh3} for each in sidecars]
    return {"splits": splits, "parts": parts}
