"""Where each token of a text begins and ends in it, by the `tokenizers` library.

Up to 0.23 `tokenizers` gives these offsets. From 1.0 on it gives none, and they are worked out from the bytes that
each token stands for.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.errors import EngineError, TokenizerError
from packcli.tokenization.guard import shown
from packcli.tokenization.reference import OLDER, load_reference
from packcli.tokenization.spec import TokenizerSpec, load_json
from packcli.tokenization.vocabulary import never_prepend, read_vocabulary


class _Text(Protocol):
    """A text with ranges of characters."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """What carries loss."""


@functools.lru_cache(maxsize=1)
def load_whole(spec: TokenizerSpec) -> WholeTexts:
    """The WholeTexts of a tokenizer, loaded once a process."""
    return WholeTexts(spec)


class WholeTexts:
    """Whole texts encoded by `tokenizers`: what the encoding in stretches must equal."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self._spec = spec
        self._split_special = not spec.allow_special
        self._vocabulary = read_vocabulary(spec)
        data = load_json(spec.load())
        data["post_processor"] = None  # it would trim spaces from the offsets
        self._text = json.dumps(data)
        self._whole = self._rest = load_reference(self._text, spec.path)
        if self._vocabulary.first_only:
            self._rest = load_reference(never_prepend(self._text), spec.path)

    def encode(self, text: _Text, *, with_controls: bool) -> tuple[NDArray[np.uint32], NDArray[np.bool_] | None]:
        """The ids of a whole text, and which of its tokens touch a span; None where their offsets are not known."""
        split_special = self._split_special and not with_controls
        with_places = self._whole.places(text.text, split_special=split_special)
        if with_places is not None:
            ids, places = with_places
            starts, ends = _monotone(places)
            spans = list(text.spans)
        else:
            ids = self._whole.encode([text.text], split_special=split_special)[0]
            spelled = None if self._vocabulary.lead else self._spelled(text.text, ids)
            if spelled is None:
                return ids, None
            starts, ends = spelled
            byte_at = _byte_places(text.text)
            spans = [(byte_at[start], byte_at[end]) for start, end in text.spans]
        mask = np.zeros(len(ids), dtype=np.bool_)
        for start, end in spans:
            mask[np.searchsorted(ends, start, side="right") : np.searchsorted(starts, end, side="left")] = True
        return ids, mask

    def _spelled(self, text: str, ids: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Starts and ends of tokens in bytes, from how they spell the text; None where they do not spell it."""
        vocabulary = self._vocabulary
        sizes = (vocabulary.num_bytes[ids] + 2 * vocabulary.num_marks[ids]).astype(np.int64)
        if (vocabulary.num_bytes[ids] < 0).any():
            return None
        if vocabulary.checks_nfc:
            clusters = _clusters(text)
            return places_in(clusters, [unicodedata.normalize("NFC", each) for each in clusters], sizes, 1)
        mark = "\u2581" if vocabulary.num_marks.any() else " "
        return places_in(list(text), [mark if each == " " else each for each in text], sizes, len(mark.encode()))

    def places(
        self, stretch: str, ids: NDArray[np.uint32], is_first: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the tokens of a stretch of text begin and end, in bytes.

        Raises:
            EngineError: the engine gave other ids than `tokenizers`.
            TokenizerError: this `tokenizers` gives no offsets, and the tokens do not spell the text.
        """
        reference = self._whole if is_first else self._rest
        with_places = reference.places(stretch, split_special=self._split_special)
        wanted = (
            reference.encode([stretch], split_special=self._split_special)[0] if with_places is None else with_places[0]
        )
        if not np.array_equal(wanted, ids):
            raise EngineError(
                f"the engine gives other ids than tokenizers for {shown(stretch)}",
                "start anew with --tokenizer-engine tokenizers --overwrite, and please report the text",
            )
        if with_places is not None:
            byte_at = np.array(_byte_places(stretch), dtype=np.int64)
            starts, ends = _monotone(with_places[1])
            return byte_at[starts], byte_at[ends]
        places = self._spelled(stretch, ids)
        if places is None:
            raise TokenizerError(
                f"tokenizer {self._spec.name}: tokenizers {reference.version} does not tell which characters its "
                f"tokens stand for, so that no loss mask can be made for {shown(stretch)}",
                OLDER,
            )
        return places


def places_in(
    before: list[str], after: list[str], sizes: NDArray[np.int64], lead: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Where tokens that spell the normal form of a text lie in the text itself, in bytes, int64[T] each.

        before    e U+0301 | b     places in bytes: 0 3 4
        after     U+00E9   | b                      0 2 3
        tokens    --------   -     in the text      0..3, 3..4

    A token that spells some of what normalization changed covers all of it.

    Args:
        before: The text, cut into parts.
        after: The normal form of each part.
        sizes: int64[T], bytes of each token.
        lead: Bytes that may have been put in front of the normal form.

    Returns:
        Starts and ends; None when the tokens do not spell the normal form.
    """
    old = np.cumsum([0, *(len(each.encode()) for each in before)], dtype=np.int64)
    new = np.cumsum([0, *(len(each.encode()) for each in after)], dtype=np.int64)
    is_same = np.array([one == other for one, other in zip(before, after, strict=True)], dtype=np.bool_)
    ends = np.cumsum(sizes)
    added = int(ends[-1] - new[-1]) if len(ends) else 0  # bytes in front
    if not before or added not in (0, lead):
        return None
    starts, ends = np.maximum(ends - sizes - added, 0), np.maximum(ends - added, 1)
    first = np.searchsorted(new, starts, side="right") - 1
    last = np.searchsorted(new, ends, side="left") - 1
    return (
        old[first] + np.where(is_same[first], starts - new[first], 0),
        np.where(is_same[last], old[last] + ends - new[last], old[last + 1]),
    )


def _clusters(text: str) -> list[str]:
    """A text cut into parts that NFC changes independently of each other."""
    clusters: list[str] = []
    for character in text:
        if clusters and _composes(clusters[-1], character):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _composes(cluster: str, character: str) -> bool:
    """Whether NFC may join a character to the cluster before it."""
    if character.isascii():
        return False
    normal = unicodedata.normalize
    apart = normal("NFC", cluster) + normal("NFC", character)
    return unicodedata.combining(character) != 0 or normal("NFC", cluster + character) != apart


def _byte_places(text: str) -> list[int]:
    """The byte at which each character begins; last, the number of bytes."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    places: list[int] = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes))).tolist()
    return places


def _monotone(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends, made non-decreasing: tokens that are bytes of one character all have its place."""
    return np.maximum.accumulate(places[:, 0]), np.maximum.accumulate(places[:, 1])
