"""Opening a source: its bytes, block by block, and how far a reader is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import pyarrow as pa

from packcli import storage
from packcli.errors import StorageError
from packcli.readers.bad_rows import too_long
from packcli.readers.sources import Source, Span

if TYPE_CHECKING:
    import pyarrow.parquet as pq


BLOCK_BYTES = 1 << 20
"""Bytes read at once: so few that a block, its lines and its texts fit in the cache of a processor."""


@dataclass(slots=True)
class ReadProgress:
    """How many bytes of the files have been read; only for display."""

    file_bytes: int = 0


def read_whole(blocks: Iterable[bytes], source: Source, limit: int, what: str) -> bytes:
    """All blocks as one, up to a limit: a few bytes of .zst can decompress to a terabyte."""
    kept: list[bytes] = []
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise too_long(source, 0, what)
        kept.append(block)
    return b"".join(kept)


def read_blocks(span: Span, source: Source, progress: ReadProgress) -> Iterator[bytes]:
    """The bytes of a span after decompression, block by block."""
    if source.compression:
        # pyarrow notices a stream that is cut short; python-zstandard's streaming readers do not.
        before = progress.file_bytes
        with open_plain(source) as file, pa.CompressedInputStream(file, source.compression) as stream:
            while block := stream.read(BLOCK_BYTES):
                progress.file_bytes = before + file.tell()
                yield block
        return
    with open_source(source, span.start, span.stop) as file:
        left = (source.num_bytes if span.stop is None else span.stop) - span.start
        while left > 0:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"it has become shorter than {source.num_bytes} bytes while it was read")
            left -= len(block)
            progress.file_bytes += len(block)
            yield block


def open_plain(source: Source) -> pa.NativeFile:
    """Opens a source for pyarrow, without decompression."""
    if storage.is_remote(source.path):
        return pa.PythonFile(open_source(source), mode="r")
    return pa.OSFile(source.path)


def open_parquet(source: Source) -> pq.ParquetFile:
    """Opens a Parquet file; raises StorageError when it is damaged or not one."""
    import pyarrow.parquet as pq  # imported late: most inputs are JSON

    try:
        location = storage.locate(source.path)
        if isinstance(location, storage.RemotePath):  # pre_buffer: few requests, each for several columns
            file = pa.PythonFile(storage.open_random(location, source.num_bytes), mode="r")
            return pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
        return pq.ParquetFile(source.path, memory_map=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{source.path}: not a readable Parquet file ({first_line(error)})") from None


def open_source(source: Source, start: int = 0, stop: int | None = None) -> IO[bytes]:
    """Opens a source at byte `start`, without a buffer; from a store nothing after `stop` is fetched ahead."""
    location = storage.locate(source.path)
    if isinstance(location, storage.RemotePath):
        return cast(IO[bytes], storage.open_stream(location, source.num_bytes, start, stop))
    file = cast(IO[bytes], open(source.path, "rb", buffering=0))  # noqa: SIM115 - the caller closes it
    file.seek(start)
    return file


def is_json_array(source: Source) -> bool:
    """Whether a plain json file holds one array instead of lines."""
    location = storage.locate(source.path)
    if isinstance(location, storage.RemotePath):
        return begins_array(location.read_range(0, min(4096, source.num_bytes)))
    with open(source.path, "rb") as file:
        return begins_array(file.read(4096))


def begins_array(head: bytes) -> bool:
    """Whether JSON text begins with an array."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
