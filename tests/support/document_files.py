"""The same documents in files of every kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DOCS = [
    "plain",
    "",
    " ",
    "é ü 日本語 👩‍👩‍👧‍👦 \U0010ffff",
    "line\nbreak\r\nand\ttab",
    "\u2028 line separator \u0085 next line \u2029 \x1c \x0b \x0c",
    "nul \x00 inside",
    'quote " backslash \\ slash / {brace} {{two}}',
    "<|endoftext|>",
    "\ufeffmark at the start",
    "x" * 5000,
    "last",
]


def lines(docs: Sequence[str], *, ascii_only: bool = False) -> bytes:
    return b"".join(json.dumps({"id": 1, "text": doc}, ensure_ascii=ascii_only).encode() + b"\n" for doc in docs)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


STREAMS: dict[str, tuple[str, Callable[[bytes], list[bytes]]]] = {
    "plain": ("", lambda data: [data]),
    "gzip": (".gz", lambda data: [gzip.compress(data)]),
    "gzip, two members": (".gz", lambda data: [gzip.compress(half) for half in halves(data)]),
    "gzip, an empty member first": (".gz", lambda data: [gzip.compress(b""), gzip.compress(data)]),
    "zstd": (".zst", lambda data: [zstd(data)]),
    "zstd, two frames": (".zst", lambda data: [zstd(half) for half in halves(data)]),
    "zstd, an empty frame first": (".zst", lambda data: [zstd(b""), zstd(data)]),
    "zstd, skippable frames": (".zst", lambda data: [SKIPPABLE, zstd(data), SKIPPABLE]),
}
"""Name -> suffix, and the members or frames that hold the data."""

SKIPPABLE = b"\x50\x2a\x4d\x18\x03\0\0\0abc"


def table_of(docs: Sequence[str | None], kind: pa.DataType) -> pa.Table:
    column = pa.array(docs, pa.string())
    return pa.table({"id": pa.array(range(len(docs))), "text": column.cast(kind)})


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=5)


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def write_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


COLUMNAR: dict[str, tuple[str, Callable[[Path, pa.Table], None]]] = {
    "parquet": (".parquet", write_parquet),
    "arrow stream": (".arrow", write_stream),
    "arrow file": (".arrow", write_file),
}

# --- damage ---

MANY = [f"document {index} {index * 7919 % 1000}" for index in range(300)]
