"""The elements of a JSON array; one that is malformed is an element like the others, to be judged on its own."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from packcli.errors import StorageError
from packcli.readers.decoding import DECODE_ERRORS
from packcli.readers.sources import Source

_MARKS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)
"""Strings as a whole, one that does not end included, and what stands around them."""

_MARK = b"\xef\xbb\xbf"


def split_array(data: bytes, source: Source) -> tuple[list[Any], list[int] | None]:
    """The elements of a JSON array, undecoded, and where each begins, None when nobody looked.

    Raises:
        StorageError: it is not one whole array.
    """
    try:
        return msgspec.json.decode(data.removeprefix(_MARK), type=list[msgspec.Raw]), None
    except DECODE_ERRORS:
        found = _walk(data)
        if isinstance(found, str):
            raise StorageError(
                f"{source.name}: begins like a JSON array and is not one: {found}",
                "packcli reads one array of objects, or one object a line",
            ) from None
        return found


def _walk(data: bytes) -> tuple[list[Any], list[int]] | str:
    """Elements and where they begin, found by brackets and commas alone; a string says why there is no array."""
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
