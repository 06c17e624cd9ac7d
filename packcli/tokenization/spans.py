r"""Texts with control tokens and spans -> ids and a loss mask, by the engine that encodes plain text.

Legend: D documents, T tokens. A text is cut at its control tokens; the pieces between them are encoded together,
as `tokenizers` would encode each stretch between special tokens; control tokens become their ids.

Spans become masks by where tokens lie in the text, counted in bytes:

    text      <|im_start|>assistant\nHi!<|im_end|>
    span                             ---------------
    tokens    <|im_start|> assistant \n Hi ! <|im_end|>
    mask      0            0         0  1  1 1

A token belongs to a span when it covers a byte of it. Token lengths come from the vocabulary: the ids of a byte-level
(or byte fallback) BPE spell the text byte by byte. Where they do not add up to the piece, such as after
normalization, the offsets come from `tokenizers` 0.x; from 1.0 on it gives none, and they follow from the NFC form.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.errors import EngineError, TokenizerError
from packcli.tokenization.engines import Engine, make_engine
from packcli.tokenization.guard import SPOT_CHECK_EVERY, SpotCheck, shown
from packcli.tokenization.offsets import WholeTexts, load_whole
from packcli.tokenization.spec import TokenizerSpec
from packcli.tokenization.vocabulary import never_prepend, read_vocabulary

CHECK_CHARS = 1 << 13
"""Characters of a text that is compared as a whole, at most."""


class Marked(Protocol):
    """A text with ranges of characters, half open and in order."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def parts(self) -> Sequence[str]:
        """The text cut at its control tokens: text and control token in turn, text first and last."""

    @property
    def numbers(self) -> Sequence[int]:
        """The id of each control token."""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """What carries loss."""

    @property
    def roles(self) -> Sequence[tuple[str, int, int]]:
        """(role, start, end) of what each role says."""


@dataclass(slots=True)
class MarkedText:
    """The simplest Marked: a text without control tokens."""

    text: str
    spans: Sequence[tuple[int, int]]
    roles: Sequence[tuple[str, int, int]] = ()
    numbers: Sequence[int] = ()

    @property
    def parts(self) -> Sequence[str]:
        """The whole text."""
        return (self.text,)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of D marked texts."""

    ids: NDArray[np.uint32]
    """uint32[T]."""
    offsets: NDArray[np.int64]
    """int64[D+1]."""
    loss: NDArray[np.bool_]
    """bool[T]: tokens that touch a span."""
    is_cut: NDArray[np.bool_]
    """bool[D]: a span begins inside a token."""
    by_role: dict[str, int]
    """Tokens that begin in the words of each role."""


class SpanEncoder:
    """Encodes marked texts.

    Args:
        spec: The tokenizer.
        engine: Its engine.
        spot_check: Sees every piece.
        has_controls: Whether texts have control tokens.

    Raises:
        TokenizerError: control tokens of this tokenizer cannot be told from text by cutting.
    """

    def __init__(self, spec: TokenizerSpec, engine: Engine, spot_check: SpotCheck, *, has_controls: bool) -> None:
        self._spec, self._engine, self._spot_check = spec, engine, spot_check
        self._vocabulary = vocabulary = read_vocabulary(spec)
        if has_controls and vocabulary.unsafe is not None:
            raise TokenizerError(
                f"tokenizer {spec.name}: {vocabulary.unsafe}, so that chats cannot be encoded with certainty",
                "use a tokenizer.json whose special tokens have normalized and single_word false",
            )
        self._rest = engine
        if has_controls and vocabulary.first_only:
            self._rest = make_engine(engine.name, spec, text=never_prepend(spec.load()))
        self._due = self._turn = 0

    def encode(self, texts: Sequence[Marked]) -> Encoded:
        """Ids and loss mask of some texts, at least one.

        Raises:
            EngineError: the engine and `tokenizers` differ.
        """
        layout = _CutTexts(texts)
        ids, offsets = self._encode_pieces(layout)
        starts, ends = self._places(layout, ids, offsets)
        if len(layout.numbers):
            is_control = np.zeros(len(ids) + len(layout.numbers), dtype=np.bool_)
            is_control[offsets[layout.pieces_before] + np.arange(len(layout.numbers))] = True
            ids = _merge(is_control, ids, layout.numbers)
            starts = _merge(is_control, starts, layout.control_start)
            ends = _merge(is_control, ends, layout.control_end)
        doc_ends = offsets[layout.pieces_end] + layout.controls_end
        doc_offsets = np.concatenate((np.zeros(1, dtype=np.int64), doc_ends))
        loss, is_cut = _mask(layout, starts, ends)
        encoded = Encoded(ids, doc_offsets, loss, is_cut, _count_roles(layout, starts))
        self._check(texts, encoded)
        return encoded

    def _encode_pieces(self, layout: _CutTexts) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        pieces = layout.pieces
        if self._rest is self._engine:
            if not pieces:
                return np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
            ids, offsets = self._engine.encode(pieces)
            self._spot_check.look(pieces, ids, offsets)
            return ids, offsets.astype(np.int64, copy=False)
        arrays = []
        for piece, is_first in zip(pieces, layout.is_first, strict=True):
            arrays.append((self._engine if is_first else self._rest).encode([piece])[0])
        ends = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
        return (np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint32)), ends

    def _places(
        self, layout: _CutTexts, ids: NDArray[np.uint32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each token of the pieces begins and ends, in bytes over all texts, int64[T] each."""
        sizes = self._vocabulary.num_bytes[ids].astype(np.int64)
        sums = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
        more = np.diff(sums[offsets]) - layout.piece_bytes
        base = layout.piece_start
        slow = set(np.flatnonzero((more != 0) & (more != self._vocabulary.lead)).tolist())
        if (self._vocabulary.num_bytes[ids] < 0).any():
            slow.update((np.searchsorted(offsets, np.flatnonzero(sizes < 0), side="right") - 1).tolist())
        if self._vocabulary.checks_nfc:
            slow.update(
                index
                for index, piece in enumerate(layout.pieces)
                if not piece.isascii() and not unicodedata.is_normalized("NFC", piece)
            )
        ends = sums[1:] + np.repeat(base - sums[offsets[:-1]] - more, np.diff(offsets))
        starts = np.maximum(ends - sizes, np.repeat(base, np.diff(offsets)))
        if self._vocabulary.lead:
            # A space that was put in front counts as a part of the first character, even if it is a token of its own.
            first = offsets[:-1][(more != 0) & (np.diff(offsets) > 0)]
            ends[first] = np.maximum(ends[first], starts[first] + 1)
        for index in sorted(slow):
            here = slice(int(offsets[index]), int(offsets[index + 1]))
            piece = layout.pieces[index]
            starts[here], ends[here] = self._whole.places(piece, ids[here], bool(layout.is_first[index]))
            starts[here] += base[index]
            ends[here] += base[index]
        return starts, ends

    @property
    def _whole(self) -> WholeTexts:
        return load_whole(self._spec)

    def _check(self, texts: Sequence[Marked], encoded: Encoded) -> None:
        """Compares about 0.1 % of the texts, whole, with what `tokenizers` gives for them."""
        self._due += sum(len(each.text) for each in texts)
        if self._due < SPOT_CHECK_EVERY:
            return
        self._due %= SPOT_CHECK_EVERY
        self._turn += 1
        self.compare(texts[self._turn % len(texts)], encoded, self._turn % len(texts))

    def compare(self, text: Marked, encoded: Encoded, index: int) -> None:
        """Raises EngineError unless a text, encoded as a whole by `tokenizers`, has these ids and this mask.

        Texts of which a string spells a control token are passed over: there `tokenizers` has no notion of text
        that stays text.
        """
        if len(text.text) > CHECK_CHARS or getattr(text, "has_literals", False):
            return
        here = slice(int(encoded.offsets[index]), int(encoded.offsets[index + 1]))
        ids, mask = self._whole.encode(text, with_controls=bool(text.numbers))
        if not np.array_equal(ids, encoded.ids[here]):
            raise EngineError(
                f"a text gets other ids when it is cut at its control tokens than as a whole: {shown(text.text)}",
                "please report the tokenizer and the text",
            )
        if mask is not None and not np.array_equal(mask, encoded.loss[here]):
            raise EngineError(
                f"the loss mask differs from what the offsets of tokenizers say: {shown(text.text)}",
                "please report the tokenizer and the text",
            )


class _CutTexts:
    """Marked texts cut at their control tokens; positions are bytes over all texts."""

    def __init__(self, texts: Sequence[Marked]) -> None:
        self.pieces: list[str] = []
        sizes: list[int] = []  # of every part
        numbers: list[int] = []
        num_parts: list[int] = []
        spans: list[int] = []  # start, end and text of each
        words: list[int] = []  # start, end and role of each
        roles: dict[str, int] = {}
        bases: list[int] = []
        base = 0
        for index, each in enumerate(texts):
            parts = each.parts
            self.pieces += parts[::2]
            numbers += each.numbers
            num_parts.append(len(parts))
            bases.append(base)
            # In ASCII a character is a byte; this loop is most of what a layout costs.
            if each.text.isascii():
                sizes += map(len, parts)
                for start, end in each.spans:
                    spans += (base + start, base + end, index)
                for role, start, end in each.roles:
                    words += (base + start, base + end, roles.setdefault(role, len(roles)))
                base += len(each.text)
            else:
                at = _bytes_at(each)
                sizes += [len(part.encode()) for part in parts]
                for start, end in each.spans:
                    spans += (base + at[start], base + at[end], index)
                for role, start, end in each.roles:
                    words += (base + at[start], base + at[end], roles.setdefault(role, len(roles)))
                base += at[len(each.text)]
        ends = np.cumsum(sizes, dtype=np.int64)
        starts = ends - np.array(sizes, dtype=np.int64)
        counts = np.array(num_parts, dtype=np.int64)
        in_text = np.arange(len(ends)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_piece = (in_text & 1) == 0
        is_full = is_piece & (ends > starts)
        if is_full.sum() < len(self.pieces):
            self.pieces = list(filter(None, self.pieces))
        self.piece_start, self.piece_bytes = starts[is_full], (ends - starts)[is_full]
        self.control_start, self.control_end = starts[~is_piece], ends[~is_piece]
        self.numbers = np.array(numbers, dtype=np.int64)
        before = np.cumsum(is_full)
        self.pieces_before = before[~is_piece]  # of each control token
        self.pieces_end = before[np.cumsum(counts) - 1]
        self.controls_end = np.cumsum(counts >> 1)
        self.spans = np.array(spans, dtype=np.int64).reshape(-1, 3)
        self.words = np.array(words, dtype=np.int64).reshape(-1, 3)
        self.roles = list(roles)
        self.bases = np.array(bases, dtype=np.int64)

    @functools.cached_property
    def is_first(self) -> NDArray[np.bool_]:
        """Whether a piece begins its text, bool[pieces]."""
        return np.isin(self.piece_start, self.bases)


def _bytes_at(each: Marked) -> dict[int, int]:
    """Place in the text -> place in its UTF-8 bytes, for every place that a range begins or ends at."""
    text, places, done, size = each.text, {0, len(each.text)}, 0, 0
    for _, start, end in each.roles:
        places |= {start, end}
    for start, end in each.spans:
        places |= {start, end}
    at = {}
    for place in sorted(places):
        size += len(text[done:place].encode())
        done = place
        at[place] = size
    return at


def _merge(is_other: NDArray[np.bool_], values: NDArray[Any], others: NDArray[np.int64]) -> NDArray[Any]:
    """The values in their order, with the others where is_other says."""
    out = np.empty(len(is_other), dtype=values.dtype)
    out[is_other] = others
    out[~is_other] = values
    return out


def _mask(
    layout: _CutTexts, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tokens that touch a span, bool[T], and texts where one begins inside a token, bool[D]."""
    is_cut = np.zeros(len(layout.pieces_end), dtype=np.bool_)
    if not len(layout.spans):
        return np.zeros(len(ends), dtype=np.bool_), is_cut
    begin, end, docs = layout.spans.T
    first = np.searchsorted(ends, begin, side="right")
    after = np.maximum(np.searchsorted(starts, end, side="left"), first)
    edges = np.zeros(len(ends) + 1, dtype=np.int32)
    np.add.at(edges, first, 1)
    np.add.at(edges, after, -1)
    inside = first < after
    is_cut[docs[inside][starts[first[inside]] < begin[inside]]] = True
    return np.cumsum(edges[:-1]) > 0, is_cut


def _count_roles(layout: _CutTexts, starts: NDArray[np.int64]) -> dict[str, int]:
    begin, end, codes = layout.words.T
    numbers = np.searchsorted(starts, end, side="left") - np.searchsorted(starts, begin, side="left")
    counts = np.bincount(codes, weights=numbers, minlength=len(layout.roles)).astype(np.int64)
    return dict(zip(layout.roles, counts.tolist(), strict=True))
