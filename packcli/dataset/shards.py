"""PackBatch -> Arrow shard, and what makes a directory of shards a dataset. The door to pyarrow's writers.

A shard is an uncompressed Arrow IPC stream: `datasets.load_from_disk` maps it without a copy.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packcli.dataset.schema import SOURCE, TYPES, features
from packcli.errors import StorageError
from packcli.packing import Lists, PackBatch, Sources
from packcli.storage import Location, RemotePath
from packcli.storage.files import HASH_BYTES, committed, fsync_directory, open_plain, to_json, write_json


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A written shard, as its sidecar and the manifest record it."""

    file: str
    """Path below the output directory, with /."""
    num_rows: int
    num_bytes: int
    sha256: str
    first_source: int = 0
    """What is added to the numbers of inputs in its rows; not 0 in merged outputs only."""


class _HashingFile:
    """Writes to a file and hashes what is written, while it is in the cache."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        size = len(data)
        self.num_bytes += size
        self._file.write(data)
        return size

    def flush(self) -> None:
        pass


def write_shard(root: Location, name: str, schema: pa.Schema, batches: Iterable[PackBatch]) -> ShardInfo:
    """Streams batches into a shard and commits it.

    Args:
        root: The output directory.
        name: Path of the shard below it.
        schema: From make_schema.
        batches: At least none: a shard without rows is valid.
    """
    num_rows = 0
    with committed(root / name) as file:
        sink = _HashingFile(file)
        with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
            for batch in batches:
                writer.write_batch(to_arrow(batch, schema))
                num_rows += batch.num_rows
    return ShardInfo(name, num_rows, sink.num_bytes, sink.sha256.hexdigest())


def to_arrow(batch: PackBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch as Arrow columns, without a copy."""
    return pa.record_batch([_column(getattr(batch, name)) for name in schema.names], schema=schema)


def _column(column: Lists | Sources) -> pa.ListArray:
    if isinstance(column, Lists):
        return pa.ListArray.from_arrays(_wrap(column.offsets, pa.int32()), _wrap(column.values, pa.int32()))
    values = pa.StructArray.from_arrays(
        [_wrap(getattr(column, field.name), field.type) for field in SOURCE], fields=list(SOURCE)
    )
    return pa.ListArray.from_arrays(_wrap(column.offsets, pa.int32()), values)


def _wrap(values: NDArray[np.integer], kind: pa.DataType) -> pa.Array:
    """The array as it lies in memory. (pa.array would import pandas first, which takes half a second.)"""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends an Arrow IPC stream: without it, a stream that is cut between two batches reads as a shorter one."""


def open_arrow(path: Location) -> pa.NativeFile:
    """A shard as pyarrow reads it: mapped where it is a file."""
    if isinstance(path, RemotePath):
        return pa.PythonFile(open_plain(path), mode="r")
    return pa.memory_map(str(path))


def adopt_shard(origin: Path, root: Path, shard: ShardInfo) -> bool:
    """Commits a shard of another output under another name: one file with two names, or a copy where that cannot be.

    Args:
        origin: The shard as it is.
        root: The output directory.
        shard: The shard as it shall be, below it.

    Returns:
        Whether it is one file with two names.

    Raises:
        StorageError: what was copied is not what the sha256 says.
    """
    path = root / shard.file
    temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        os.link(os.path.realpath(origin), temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with committed(path) as file, open(origin, "rb", buffering=0) as read:
            sink = _HashingFile(file)
            while block := read.read(HASH_BYTES):
                sink.write(block)
            if sink.sha256.hexdigest() != shard.sha256:
                raise StorageError(f"{origin} has changed since it was packed", "packcli verify says more") from None
        return False
    try:
        path.unlink(missing_ok=True)  # os.replace does nothing where both names are the same file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return True


NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of os.link: another file system, one without links, one with too many, or a file of another user."""


def read_shard(path: Location, schema: pa.Schema, first_source: int = 0) -> Iterator[PackBatch]:
    """The rows of a shard, mapped; trusts nothing in it.

    Args:
        path: The shard.
        schema: That of the run.
        first_source: What is added to the numbers of inputs: `ShardInfo.first_source`.

    Raises:
        StorageError: not a whole Arrow stream of this schema, its metadata included, or one with offsets
            that lead out of its buffers, or with nulls.
    """
    try:
        with open_arrow(path) as mapped, pa.ipc.open_stream(mapped) as reader:
            if not reader.schema.equals(schema, check_metadata=True):
                raise StorageError("its schema or the metadata of the schema is not that of the run")
            for batch in reader:
                batch.validate(full=True)  # offsets come from the file, so they are checked before a buffer is touched
                rows = _from_arrow(batch)
                yield shift_sources(rows, first_source) if first_source else rows
            end = mapped.tell()
            mapped.seek(max(end - len(END_OF_STREAM), 0))
            if mapped.read() != END_OF_STREAM:
                raise StorageError("it is cut short, or goes on after its end")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise StorageError(f"not a readable Arrow stream: {lines[0]}") from None


def shift_sources(batch: PackBatch, first_source: int) -> PackBatch:
    """Rows that name inputs as the output numbers them, not as the one that packed them did."""
    if batch.sources is None:
        return batch
    moved = batch.sources.source + np.int32(first_source)
    return dataclasses.replace(batch, sources=dataclasses.replace(batch.sources, source=moved))


def shift_column(column: pa.ChunkedArray, shards: Iterable[tuple[int, int]]) -> pa.Table:
    """The column `sources` of several shards, as shift_sources has it; all but the numbers of inputs stays mapped.

    Args:
        column: The rows of all shards, in order.
        shards: Rows and first_source of each.
    """
    arrays: list[pa.ListArray] = []
    row = 0
    for num_rows, first_source in shards:
        for chunk in column.slice(row, num_rows).chunks:
            source, *others = chunk.values.flatten()
            moved = _wrap(_as_numpy(source) + np.int32(first_source), pa.int32())
            values = pa.StructArray.from_arrays([moved, *others], fields=list(SOURCE))
            arrays.append(pa.ListArray.from_arrays(chunk.offsets, values))
        row += num_rows
    return pa.table({"sources": pa.chunked_array(arrays, TYPES["sources"])})


def _from_arrow(batch: pa.RecordBatch) -> PackBatch:
    columns: dict[str, Any] = dict.fromkeys(TYPES)
    columns |= zip(batch.schema.names, map(_unwrap, batch.columns), strict=True)
    return PackBatch(batch.num_rows, **columns)


def _unwrap(column: pa.ListArray) -> Lists | Sources:
    """The inverse of _column, without a copy; elements before the first row and after the last are left out."""
    values = column.values
    inner = values.flatten() if pa.types.is_struct(values.type) else [values]
    if column.null_count or values.null_count or any(each.null_count for each in inner):
        raise ValueError("a column has nulls")
    offsets = _as_numpy(column.offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    arrays = [_as_numpy(each)[first:last] for each in inner]
    offsets = offsets - offsets[0]
    if len(arrays) == 1:
        return Lists(arrays[0], offsets)
    source, row, start, end = arrays
    return Sources(source, row, start, end, offsets)


def _as_numpy(array: pa.Array) -> NDArray[Any]:
    kind = np.dtype(str(array.type))
    data = array.buffers()[-1]
    return np.frombuffer(
        data if data is not None else b"", dtype=kind, count=len(array), offset=array.offset * kind.itemsize
    )


def write_index(
    directory: Location, split: str, files: Iterable[str], columns: Iterable[str], fingerprint: str
) -> None:
    """Writes what `load_from_disk` reads: dataset_info.json, then state.json.

    Args:
        directory: Where the shards of the split are.
        split: Its name.
        files: Names of the shards below the directory, in row order; taken one by one.
        columns: Names of columns.
        fingerprint: 16 hex digits: they key what `datasets` caches about the dataset.
    """
    info = {"citation": "", "description": "", "features": features(columns), "homepage": "", "license": ""}
    write_json(directory / "dataset_info.json", info)
    rest: dict[str, Any] = {
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    with committed(directory / "state.json") as file:
        file.write(b'{\n "_data_files": [')
        for number, name in enumerate(files):
            file.write(((", " if number else "") + json.dumps({"filename": name}, ensure_ascii=False)).encode())
        file.write(("]," + to_json(rest).removeprefix("{") + "\n").encode())
