"""What a format is, and where it writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from packcli.dataset import PackedDataset
from packcli.errors import UsageError
from packcli.packing import offsets
from packcli.results import Shown
from packcli.storage.files import committed, write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedFile:
    """A written file."""

    name: str
    """Path below the output, with /."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportPart:
    """What one shard gave."""

    split: str
    index: int
    files: tuple[ExportedFile, ...]
    counts: dict[str, Any]
    """num_tokens, and whatever the format needs to join its parts."""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Exported(Shown):
    """What an export gave. `packcli.export` returns it, and the closing table shows it."""

    output: Path
    format: str
    status: str
    """exported, resumed or up to date."""
    rows_are: str
    """packs or documents."""
    num_rows: int
    num_tokens: int
    num_bytes: int
    files: tuple[ExportedFile, ...]
    load: str
    """The lines that load it in its stack."""

    def facts(self) -> list[tuple[str, str]]:
        """The lines of the closing table."""
        return [
            ("format", self.format),
            (self.rows_are, f"{self.num_rows:,}, {self.num_tokens:,} tokens"),
            ("files", f"{len(self.files):,}, {self.num_bytes / 1e6:,.1f} MB"),
            ("output", f"{self.output} ({self.status})"),
            *(("" if number else "load", line) for number, line in enumerate(self.load.split("\n"))),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {
            "output": str(self.output),
            "format": self.format,
            "status": self.status,
            "rows_are": self.rows_are,
            "num_rows": self.num_rows,
            "num_tokens": self.num_tokens,
            "num_bytes": self.num_bytes,
            "files": [file.name for file in self.files],
            "load": self.load,
        }


class Sink:
    """Commits files below the output, and remembers them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[ExportedFile] = []

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name whole, or not at all."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with committed(path) as file:
            yield file
        self._add(name)

    def json(self, name: str, value: Any) -> None:
        """A JSON file."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(self.root / name, value)
        self._add(name)

    def join(self, name: str, parts: Sequence[str]) -> None:
        """A file that holds others one after the other."""
        with self.open(name) as out:
            for part in parts:
                with open(self.root / part, "rb") as file:
                    while block := file.read(1 << 22):
                        out.write(block)

    def _add(self, name: str) -> None:
        digest = hashlib.sha256()
        with open(self.root / name, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        self.files.append(
            ExportedFile(name=name, num_bytes=(self.root / name).stat().st_size, sha256=digest.hexdigest())
        )


class Export(ABC):
    """A format. Its methods get the packed directory, and a sink for files."""

    rows_are = "packs"
    """What a row of the format is: packs or documents."""
    ends_by_eos = False
    """Whether the stack finds the ends of documents by looking for EOS."""

    def check(self, packed: PackedDataset, lossy: bool) -> None:
        """Raises UsageError for what the format cannot hold, as far as the report says so."""
        stats = packed.stats
        if self.rows_are == "documents":
            packed.refuse_lost_documents()
        if lossy:
            return
        if self.ends_by_eos:
            if packed.tokenizer.eos_id is None:
                raise _cannot("documents do not end with EOS, by which this format's readers know them")
            if stats.num_eos_in_documents:
                raise _cannot(
                    f"{stats.num_eos_in_documents} EOS stand inside documents: this format's readers would cut there"
                )

    @abstractmethod
    def write_part(self, packed: PackedDataset, split: str, index: int, sink: Sink, lossy: bool) -> dict[str, Any]:
        """Writes what becomes of one shard; returns counts, `num_rows` and `num_tokens` among them."""

    @abstractmethod
    def finish(self, packed: PackedDataset, parts: Mapping[str, Sequence[ExportPart]], sink: Sink) -> None:
        """Writes what joins the parts of each split."""

    @abstractmethod
    def load_lines(self, packed: PackedDataset, output: str) -> str:
        """The lines that load it in its stack."""


def refuse_hidden_ends(
    ids: NDArray[np.int32],
    begin: NDArray[np.int64],
    length: NDArray[np.int64],
    eos_id: int | None,
    is_last: NDArray[np.bool_] | bool,
    lossy: bool,
) -> None:
    """Raises UsageError when EOS does not stand at the end of every document, and there only.

    Args:
        ids: int32[T].
        begin, length: int64[S], the documents in ids; none is empty.
        eos_id: EOS.
        is_last: bool[S], or one for all: documents whose end is known without EOS, such as the last one of a row.
        lossy: Whether it may be written all the same.
    """
    if lossy:
        return
    num_eos = offsets(ids == eos_id)  # before each token
    inside = num_eos[begin + length - 1] - num_eos[begin]
    if inside.any():
        raise _cannot(f"{int(inside.sum())} EOS stand inside documents: this format's readers would cut there")
    hidden = (ids[begin + length - 1] != eos_id) & ~np.asarray(is_last)
    if hidden.any():
        raise _cannot(
            f"{int(hidden.sum())} documents do not end with EOS (they were truncated, or end in another row), and this "
            "format's readers would join them with the next"
        )


def refuse_masks(has_mask: bool, lossy: bool) -> None:
    """Raises UsageError when tokens without loss would be lost."""
    if has_mask and not lossy:
        raise _cannot("labels are masked inside documents, which this format cannot hold")


def _cannot(what: str) -> UsageError:
    return UsageError(what, "choose another --to, or --lossy to write it all the same")


def quoted(path: str) -> str:
    """A path as a Python string literal."""
    return json.dumps(path, ensure_ascii=False)
