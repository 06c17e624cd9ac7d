"""Text files (.jsonl, .json, .txt) as chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from packcli.errors import StorageError
from packcli.readers.arrow_files import BATCH_ROWS
from packcli.readers.bad_rows import too_long
from packcli.readers.chunks import BytesChunk, LineChunk, LongRow, RawChunk
from packcli.readers.files import ReadProgress, begins_array, read_blocks, read_whole
from packcli.readers.json_decoder import DECODE_ERRORS
from packcli.readers.sources import Source, Span

_MARKS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)
"""Whole strings (also one without an end), and brackets and commas outside of them."""

BOM = b"\xef\xbb\xbf"

ARRAY_ROWS = 16
"""A compressed JSON array may hold this many times the longest row: 1 GiB."""


def split_array(data: bytes, source: Source) -> tuple[list[Any], list[int] | None]:
    """The elements of a JSON array, undecoded, and where each begins (None where that was not needed).

    Raises:
        StorageError: it is not one complete array.
    """
    try:
        return msgspec.json.decode(data.removeprefix(BOM), type=list[msgspec.Raw]), None
    except DECODE_ERRORS:
        walked = _walk(data)
        if isinstance(walked, str):
            raise StorageError(
                f"{source.name}: begins like a JSON array and is not one: {walked}",
                "packcli reads one array of objects, or one object a line",
            ) from None
        return walked


def _walk(data: bytes) -> tuple[list[Any], list[int]] | str:
    """The elements and where they begin, found by brackets and commas alone; or a message why it is not an array."""
    elements: list[Any] = []
    starts: list[int] = []
    depth = begin = 0
    for mark in _MARKS.finditer(data):
        at, char = mark.start(), data[mark.start()]
        if char in b"[{":
            depth += 1
            if depth == 1:
                begin = at + 1
            continue
        ends = char in b"]}" and depth == 1
        if ends or (char == 44 and depth == 1):
            element = data[begin:at]
            if not (ends and not elements and element.isspace() | (not element)):  # [] has no element
                lead = len(element) - len(element.lstrip())
                elements.append(element.strip())
                starts.append(begin + lead)
            begin = at + 1
        if char in b"]}":
            depth -= 1
            if depth == 0:
                rest = data[at + 1 :].strip()
                return f"it goes on after its end, at byte {at + 1:,}" if rest else (elements, starts)
    return f"it has no end; the last of its elements that is whole is number {len(elements):,}"


def read_json_file(span: Span, source: Source, progress: ReadProgress) -> Iterator[RawChunk]:
    """The lines or elements of a span as chunks."""
    pending: list[bytes] = []
    num_pending = 0
    row = span.first_row
    at = span.start  # byte of the file, after decompression, where `pending` begins
    at_start = span.start == 0
    long: LongRow | None = None
    for block in read_blocks(span, source, progress):
        if at_start:
            if begins_array(block):
                yield from _read_array(span, source, progress)
                return
            at += len(BOM) if block.startswith(BOM) else 0
            block = block.removeprefix(BOM)
            at_start = False
        if long is not None:
            end = block.find(b"\n")
            long.add(block if end < 0 else block[:end])
            if end < 0:
                continue
            chunk = long.chunk()
            yield chunk
            at += chunk.num_bytes + 1
            row += 1
            block = block[end + 1 :]
            long = None
            if not block:
                continue
        end = block.rfind(b"\n") + 1
        if not end:
            pending.append(block)
            num_pending += len(block)
            if num_pending > source.max_row_bytes:
                if not source.skip_bad:
                    raise too_long(source, row)
                long = LongRow(span.source, row, at)
                for block in pending:
                    long.add(block)
                pending, num_pending = [], 0
            continue
        lines = LineChunk(span.source, row, b"".join((*pending, block[:end])), at)
        row += len(lines.lines)
        at += len(lines.data)
        pending = [block[end:]] if end < len(block) else []
        num_pending = len(block) - end
        yield lines
    if long is not None:
        yield long.chunk()
    if pending:
        yield LineChunk(span.source, row, b"".join(pending), at)


def _read_array(span: Span, source: Source, progress: ReadProgress) -> Iterator[RawChunk]:
    """The elements of one JSON array, which is held in memory as a whole."""
    limit = ARRAY_ROWS * source.max_row_bytes if source.compression else 1 << 62  # a plain file is as large as it looks
    elements, starts = split_array(read_whole(read_blocks(span, source, progress), source, limit, "the array"), source)
    whole = BytesChunk(span.source, 0, elements, starts)
    for first in range(0, len(elements), BATCH_ROWS):
        yield whole.rows(first, min(first + BATCH_ROWS, len(elements)))


def read_txt(span: Span, source: Source, split_on: str | None, progress: ReadProgress) -> Iterator[RawChunk]:
    """The documents between separators; without a separator the whole file is one document."""
    separator = b"" if split_on is None else split_on.encode()
    row = at = 0
    pending: list[bytes] = []
    num_pending = 0
    long: LongRow | None = None
    for block in read_blocks(span, source, progress):
        if not separator:
            records, tail = [], block
        else:  # a separator may lie across two blocks
            *records, tail = b"".join((*pending, block)).split(separator)
            pending, num_pending = [], 0
        if long is not None and records:
            long.add(records.pop(0))
            at += (chunk := long.chunk()).num_bytes + len(separator)
            row += 1
            long = None
            yield chunk
        if records:
            starts = (at + np.cumsum([0, *(len(each) + len(separator) for each in records)])).tolist()
            yield BytesChunk(span.source, row, records, starts[:-1])
            row += len(records)
            at = starts[-1]
        pending.append(tail)
        num_pending += len(tail)
        if long is None and num_pending > source.max_row_bytes:
            if not source.skip_bad:
                raise too_long(source, row, "the row" if separator else "the document")
            long = LongRow(span.source, row, at)
        if long is not None:  # all but the last bytes, which may begin a separator
            held = b"".join(pending)
            keep = max(len(separator) - 1, 0)
            long.add(held[: len(held) - keep])
            pending = [held[len(held) - keep :]] if keep else []
            num_pending = keep
    if long is not None:
        for block in pending:
            long.add(block)
        yield long.chunk()
    elif num_pending or not separator:
        yield BytesChunk(span.source, row, [b"".join(pending)], [at])
