"""One JSON record -> the values of its fields; fast where it is as it should be, and what is wrong where it is not.

Of a key that stands twice every JSON reader takes the last, in silence. A field's type here is a class of its own, for
which msgspec calls a hook: it is called twice where the field stands twice, however the key is spelled.
"""

from __future__ import annotations

import abc
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for a record that cannot be used."""

_ESCAPES = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Escapes of JSON; a pair of surrogates is one."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class DuplicateError(ValueError):
    """A field stands twice in a record."""


class Decoder:
    """Decodes records into tuples of the values of their fields.

    Args:
        types: Field -> type of its value, as msgspec takes it.
        optional: Fields that a record need not have; their values are None then.
    """

    def __init__(self, types: Mapping[str, Any], optional: frozenset[str] = frozenset()) -> None:
        self._num_required = sum(name not in optional for name in types)
        kinds = {name: _stand_in(name, types[name], name in optional) for name in types}
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
        plain = {name: kind | None if name in optional else kind for name, kind in types.items()}
        self._decode_plain = msgspec.json.Decoder(_struct(plain, optional)).decode

    def all(self, records: list[Any]) -> list[Any] | None:
        """The records as structs with fields f0, f1, ...; None when one of them has to be looked at on its own.

        As many calls as there are required fields leave none for a second time, nor for an optional one.
        """
        self._seen.clear()
        decode = self._decode
        try:
            decoded = [decode(record) for record in records]
        except DECODE_ERRORS:
            return None
        return decoded if len(self._seen) == self._num_required * len(records) else None

    def __call__(self, record: Any) -> Any:
        """One record as a struct.

        Raises:
            DuplicateError: a field stands twice.
            msgspec.DecodeError, UnicodeDecodeError, RecursionError: it cannot be used.
        """
        seen = self._seen
        seen.clear()
        try:
            decoded = self._decode(record)
        except DECODE_ERRORS:
            decoded = self._decode_plain(record)  # says what is wrong in the words of the real types
        if len(seen) > self._num_required and len(set(seen)) < len(seen):
            twice = next(kind for kind in seen if seen.count(kind) > 1)
            raise DuplicateError(f"the field {twice.field!r} stands {seen.count(twice)} times")
        return decoded


def _struct(kinds: Mapping[str, Any], optional: frozenset[str]) -> Any:
    slots = [(f"f{index}", kinds[name], *([None] if name in optional else [])) for index, name in enumerate(kinds)]
    names = {f"f{index}": name for index, name in enumerate(kinds)}
    # Keywords only: optional ones may stand before required ones.
    return msgspec.defstruct("Row", slots, rename=names, kw_only=True, gc=False)


WRONG = object()
"""What no type takes."""


def _take_messages(value: Any) -> Any:
    if type(value) is list:
        for each in value:
            if type(each) is not dict:
                return WRONG
    return value


def _take_integers(value: Any) -> Any:
    """int64[T]; a list still where a number is too large for that, which is judged later."""
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
"""Type -> what checks and converts a value, and what it must be then, one of these."""


def _stand_in(name: str, kind: Any, is_optional: bool) -> Any:
    """The class that stands for the type of a field: what msgspec does not know it gives to the hook."""
    made_of = (*_TAKERS[kind][1], *((type(None),) if is_optional else ()))
    if len(made_of) == 1:  # the method of the type itself, so that no Python is run for the check
        meta = type("Meta", (type,), {"__instancecheck__": made_of[0].__instancecheck__})
        return meta("Field", (), {"field": name})
    made = abc.ABCMeta("Field", (), {"field": name})
    for each in made_of:
        made.register(each)
    return made


def judge(record: bytes, error: Exception) -> tuple[str, str]:
    """Why a record cannot be used: a key of CAUSES, and words for people."""
    if isinstance(error, DuplicateError):
        return "duplicate-field", str(error)
    if isinstance(error, UnicodeDecodeError):
        return "not-utf8", f"not UTF-8: {error.reason} at byte {_first_bad_byte(record)} of the row"
    if isinstance(error, msgspec.ValidationError):
        return judge_type(str(error)), str(error)
    if isinstance(error, RecursionError):
        return "too-deep", "not readable JSON: nested too deeply"
    if _holds_lone_surrogate(record):
        return "lone-surrogate", "a \\ud800..\\udfff escape without its other half is no character"
    return "not-json", f"not valid JSON: {error}" if record else "not valid JSON: nothing stands there"


def judge_type(words: str) -> str:
    """The cause that msgspec's words for a value of the wrong type mean."""
    if words.startswith("Object missing required field"):
        return "missing-field"
    if "got `null`" in words and " - at `$" in words:
        return "null"
    return "not-object" if words.startswith("Expected `object`") and " - at" not in words else "wrong-type"


def _first_bad_byte(raw: bytes) -> int:
    """Where a line stops being UTF-8; msgspec counts from the beginning of the string."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _holds_lone_surrogate(raw: bytes) -> bool:
    """Whether the line is JSON but for a lone surrogate, which msgspec calls truncated."""
    if not _SURROGATE.search(raw):
        return False
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False


def repaired(record: bytes) -> bytes:
    """A record in which U+FFFD stands for what is no UTF-8 and for half surrogate pairs."""
    text = record.decode("utf-8", "replace").encode()
    return _ESCAPES.sub(_whole_escape, text) if _SURROGATE.search(text) else text


def _whole_escape(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["half"] is None else b"\\ufffd"
