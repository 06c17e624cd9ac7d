"""An object as a file to read, for those who take files: pyarrow, hashlib, loops over blocks."""

from __future__ import annotations

import concurrent.futures
import io
from collections import deque
from typing import Any

from packcli.storage.remote import RemotePath

FIRST_BYTES = 1 << 20
"""Bytes of the first request of a stream. It is small, since often only the first rows are wanted."""

BLOCK_BYTES = 16 << 20
"""Bytes of every later request: a unit of 128 MiB takes nine."""

AHEAD = 2
"""How many blocks are fetched ahead while one is read."""


class _Remote(io.RawIOBase):
    """What both kinds of files share: a position, and a size that is known."""

    def __init__(self, path: RemotePath, size: int) -> None:
        self._path, self._size, self._at = path, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Asks the store nothing."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads up to the length of the buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """The rest."""
        kept = []
        while data := self.read(BLOCK_BYTES):
            kept.append(data)
        return b"".join(kept)


class _Random(_Remote):
    """Each read is one request for just these bytes: for Parquet, whose reader knows what it wants."""

    def read(self, size: int = -1, /) -> bytes:
        """Bytes from here on."""
        stop = self._size if size < 0 else min(self._at + size, self._size)
        data = self._path.read_range(self._at, stop)
        self._at = max(stop, self._at)
        return data


class _Stream(_Remote):
    """Reads block by block, the next ones on their way; a jump begins anew."""

    def __init__(self, path: RemotePath, size: int, start: int, stop: int) -> None:
        super().__init__(path, size)
        self._at, self._stop = start, stop
        self._block, self._begin = b"", start
        self._coming: deque[tuple[int, concurrent.futures.Future[bytes]]] = deque()
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes from here on, fewer at the end only: pyarrow takes a short answer for the end."""
        if size < 0:
            return self.readall()
        data = self._some(size)
        if len(data) == size or not data:
            return data
        blocks, left = [data], size - len(data)
        while left and (data := self._some(left)):
            blocks.append(data)
            left -= len(data)
        return b"".join(blocks)

    def _some(self, size: int) -> bytes:
        """Up to `size` bytes of one block."""
        if not self._begin <= self._at < self._begin + len(self._block):
            if self._at >= self._size:
                return b""
            self._fetch()
        offset = self._at - self._begin
        data = self._block[offset : offset + size]
        self._at += len(data)
        return data

    def _fetch(self) -> None:
        goes_on = bool(self._block) and self._at == self._begin + len(self._block)
        if not goes_on:
            self._forget()
            limit = self._stop if self._at < self._stop else self._size
            self._block = self._path.read_range(self._at, min(self._at + FIRST_BYTES, limit))
            self._begin = self._at
            return
        if not self._coming:
            self._ask(self._at)
        begin, future = self._coming.popleft()
        last = self._coming[-1][0] if self._coming else begin
        for _ in range(AHEAD - len(self._coming)):
            last += BLOCK_BYTES
            if last < self._stop:
                self._ask(last)
        self._block, self._begin = future.result(), begin

    def _ask(self, begin: int) -> None:
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(AHEAD + 1, "packcli-read")
        limit = self._stop if begin < self._stop else self._size
        future = self._pool.submit(self._path.read_range, begin, min(begin + BLOCK_BYTES, limit))
        self._coming.append((begin, future))

    def _forget(self) -> None:
        while self._coming:
            self._coming.pop()[1].cancel()

    def close(self) -> None:
        """Drops what is on its way."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        super().close()


def open_stream(path: RemotePath, size: int, start: int = 0, stop: int | None = None) -> io.RawIOBase:
    """An object to be read from front to back, beginning at `start`; nothing after `stop` is fetched ahead."""
    return _Stream(path, size, start, size if stop is None else stop)


def open_random(path: RemotePath, size: int) -> io.RawIOBase:
    """An object of which parts are read, each with a request."""
    return _Random(path, size)
