"""One JSON record -> the values of its fields, fast. What is wrong with a bad record is found by `faults`.

Where a record has a key twice, JSON readers silently take the last value. To notice that, each field gets a type of its
own that msgspec does not know, so that it calls a hook for every value: twice where the key is there twice, in whatever
spelling (escapes included).
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from packcli.readers.faults import ESCAPES, Verdict, judge

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoders raise for a record that cannot be used; `faults.judge` finds the reason."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class RecordDecoder:
    """Decodes records into tuples of the values of their fields.

    Args:
        types: Field -> type of its value, a key of _TAKERS.
        optional: Fields that a record need not have; their values are None then.
    """

    def __init__(self, types: Mapping[str, Any], optional: frozenset[str] = frozenset()) -> None:
        self._types, self._optional = types, optional
        self._num_required = sum(name not in optional for name in types)
        kinds = {name: _stand_in(types[name], name in optional) for name in types}
        takers = {kinds[name]: _TAKERS[types[name]][0] for name in types if _TAKERS[types[name]][0] is not None}
        self._seen: list[Any] = []
        seen = self._seen.append

        def count(kind: Any, value: Any) -> Any:
            seen(kind)
            return value

        def count_and_take(kind: Any, value: Any) -> Any:
            seen(kind)
            take = takers.get(kind)
            return value if take is None else take(value)

        hook = count_and_take if takers else count
        self._decode = msgspec.json.Decoder(_struct(kinds, optional), dec_hook=hook).decode

    def all(self, records: list[Any]) -> list[Any] | None:
        """The records as structs with fields f0, f1, ...; None when they have to be decoded one by one.

        Every required field calls the hook at least once. So if there were exactly as many calls as required fields, no
        field was there twice (and no optional one was there).
        """
        self._seen.clear()
        decode = self._decode
        try:
            decoded = [decode(record) for record in records]
        except DECODE_ERRORS:
            return None
        return decoded if len(self._seen) == self._num_required * len(records) else None

    def one(self, record: Any) -> Any:
        """One record as a struct; None when it cannot be used."""
        seen = self._seen
        seen.clear()
        try:
            decoded = self._decode(record)
        except DECODE_ERRORS:
            return None
        has_duplicate = len(seen) > self._num_required and len(set(seen)) < len(seen)
        return None if has_duplicate else decoded

    def judge(self, record: bytes, *, mended: bool) -> Verdict:
        """Why a record cannot be used for which `one` gave None; `mended`: even after `repaired`."""
        return judge(record, self._types, self._optional, mended=mended)


def _struct(kinds: Mapping[str, Any], optional: frozenset[str]) -> Any:
    slots = [(f"f{index}", kinds[name], *([None] if name in optional else [])) for index, name in enumerate(kinds)]
    names = {f"f{index}": name for index, name in enumerate(kinds)}
    # Keywords only: optional ones may stand before required ones.
    return msgspec.defstruct("Row", slots, rename=names, kw_only=True, gc=False)


WRONG = object()
"""Stands for a value of the wrong type: no field accepts it, so that msgspec refuses the record."""


def _take_messages(value: Any) -> Any:
    if type(value) is list:
        for each in value:
            if type(each) is not dict:
                return WRONG
    return value


def _take_integers(value: Any) -> Any:
    """The integers as int64[T]; still as a list where one is too large, which the check of tokens refuses later."""
    if type(value) is not list:
        return WRONG
    try:
        made = np.array(value) if value else np.empty(0, dtype=np.int64)
    except (ValueError, OverflowError):
        return WRONG
    if made.ndim == 1 and made.dtype.kind in "ib":
        return made.astype(np.int64, copy=False)
    return value if all(type(each) in (int, bool) for each in value) else WRONG


_TAKERS: dict[Any, tuple[Callable[[Any], Any] | None, tuple[Any, ...]]] = {
    str: (None, (str,)),
    list[int | bool]: (_take_integers, (np.ndarray, list)),
    list[dict[str, Any]] | str: (_take_messages, (list, str)),
    list[Any] | str: (None, (list, str)),
    dict[str, Any] | str: (None, (dict, str)),
}
"""Type of a field -> what checks and converts a value (None: nothing), and the types that the result may have."""


def _stand_in(kind: Any, is_optional: bool) -> Any:
    """A class that msgspec does not know, in place of the type of a field, so that it calls the hook for each value."""
    made_of = (*_TAKERS[kind][1], *((type(None),) if is_optional else ()))
    if len(made_of) == 1:  # the check of the type itself, in C: faster than a registered class
        meta = type("Meta", (type,), {"__instancecheck__": made_of[0].__instancecheck__})
        return meta("Field", (), {})
    made = abc.ABCMeta("Field", (), {})
    for each in made_of:
        made.register(each)
    return made


def repaired(record: bytes) -> bytes:
    """The record with U+FFFD in place of bytes that are not UTF-8, and of half surrogate pairs."""
    text = record.decode("utf-8", "replace").encode()
    return ESCAPES.sub(_whole_escape, text) if _SURROGATE.search(text) else text


def _whole_escape(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["half"] is None else b"\\ufffd"
