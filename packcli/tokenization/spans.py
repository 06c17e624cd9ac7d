r"""Texts with control tokens and spans -> ids and a loss mask, by the engine that encodes plain text.

Legend: D documents, T tokens. A text is cut at its control tokens. The stretches of text between them are encoded
in one call, each as `tokenizers` encodes the text between two special tokens; control tokens become their ids.

Spans become masks by where tokens lie in the text, counted in bytes:

    text      <|im_start|>assistant\nHi!<|im_end|>
    span                             ---------------
    tokens    <|im_start|> assistant \n Hi ! <|im_end|>
    mask      0            0         0  1  1 1

A token belongs to a span when it covers a byte of it. Token lengths come from the vocabulary: the ids of a byte-level
(or byte fallback) BPE spell the text byte by byte. Where they do not add up to the stretch, such as after
normalization, module `offsets` finds the places.
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
"""Texts of more characters are not compared, as a whole, with what `tokenizers` gives."""


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
        """(role, start, end) of the contents of messages."""


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
        spot_check: Is shown the stretches and their ids.
        has_controls: Whether texts have control tokens.

    Raises:
        TokenizerError: texts cannot be cut at the control tokens of this tokenizer.
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
        self._due = 0  # characters since the last text that was compared as a whole
        self._turn = 0  # texts that were compared so far

    def encode(self, texts: Sequence[Marked]) -> Encoded:
        """Ids and loss mask of some texts, at least one.

        Raises:
            EngineError: the engine and `tokenizers` differ.
        """
        cut_texts = _CutTexts(texts)
        ids, offsets = self._encode_stretches(cut_texts)
        starts, ends = self._places(cut_texts, ids, offsets)
        if len(cut_texts.numbers):
            is_control = np.zeros(len(ids) + len(cut_texts.numbers), dtype=np.bool_)
            is_control[offsets[cut_texts.stretches_before] + np.arange(len(cut_texts.numbers))] = True
            ids = _merge(is_control, ids, cut_texts.numbers)
            starts = _merge(is_control, starts, cut_texts.control_start)
            ends = _merge(is_control, ends, cut_texts.control_end)
        doc_ends = offsets[cut_texts.stretches_end] + cut_texts.controls_end
        doc_offsets = np.concatenate((np.zeros(1, dtype=np.int64), doc_ends))
        loss, is_cut = _mask(cut_texts, starts, ends)
        encoded = Encoded(ids, doc_offsets, loss, is_cut, _count_roles(cut_texts, starts))
        self._check(texts, encoded)
        return encoded

    def _encode_stretches(self, cut_texts: _CutTexts) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        stretches = cut_texts.stretches
        if self._rest is self._engine:
            if not stretches:
                return np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
            ids, offsets = self._engine.encode(stretches)
            self._spot_check.look(stretches, ids, offsets)
            return ids, offsets.astype(np.int64, copy=False)
        arrays = []
        for stretch, is_first in zip(stretches, cut_texts.is_first, strict=True):
            arrays.append((self._engine if is_first else self._rest).encode([stretch])[0])
        ends = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
        return (np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint32)), ends

    def _places(
        self, cut_texts: _CutTexts, ids: NDArray[np.uint32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each token of the stretches begins and ends, in bytes over all texts, int64[T] each."""
        sizes = self._vocabulary.num_bytes[ids].astype(np.int64)
        sums = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
        added = np.diff(sums[offsets]) - cut_texts.stretch_bytes
        base = cut_texts.stretch_start
        # Of these the lengths of the tokens do not tell where they lie.
        slow = set(np.flatnonzero((added != 0) & (added != self._vocabulary.lead)).tolist())
        if (self._vocabulary.num_bytes[ids] < 0).any():
            slow.update((np.searchsorted(offsets, np.flatnonzero(sizes < 0), side="right") - 1).tolist())
        if self._vocabulary.checks_nfc:
            slow.update(
                index
                for index, stretch in enumerate(cut_texts.stretches)
                if not stretch.isascii() and not unicodedata.is_normalized("NFC", stretch)
            )
        ends = sums[1:] + np.repeat(base - sums[offsets[:-1]] - added, np.diff(offsets))
        starts = np.maximum(ends - sizes, np.repeat(base, np.diff(offsets)))
        if self._vocabulary.lead:
            # A space that was put in front counts as a part of the first character, even if it is a token of its own.
            first = offsets[:-1][(added != 0) & (np.diff(offsets) > 0)]
            ends[first] = np.maximum(ends[first], starts[first] + 1)
        for index in sorted(slow):
            tokens = slice(int(offsets[index]), int(offsets[index + 1]))
            stretch = cut_texts.stretches[index]
            starts[tokens], ends[tokens] = self._whole.places(stretch, ids[tokens], bool(cut_texts.is_first[index]))
            starts[tokens] += base[index]
            ends[tokens] += base[index]
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

        A text that holds a control token as plain text is passed over: in a whole text `tokenizers` cannot tell it
        from the real control tokens.
        """
        if len(text.text) > CHECK_CHARS or getattr(text, "has_literals", False):
            return
        tokens = slice(int(encoded.offsets[index]), int(encoded.offsets[index + 1]))
        ids, mask = self._whole.encode(text, with_controls=bool(text.numbers))
        if not np.array_equal(ids, encoded.ids[tokens]):
            raise EngineError(
                f"a text gets other ids when it is cut at its control tokens than as a whole: {shown(text.text)}",
                "please report the tokenizer and the text",
            )
        if mask is not None and not np.array_equal(mask, encoded.loss[tokens]):
            raise EngineError(
                f"the loss mask differs from what the offsets of tokenizers say: {shown(text.text)}",
                "please report the tokenizer and the text",
            )


class _CutTexts:
    """Marked texts cut at their control tokens; positions are bytes over all texts."""

    def __init__(self, texts: Sequence[Marked]) -> None:
        self.stretches: list[str] = []
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
            self.stretches += parts[::2]
            numbers += each.numbers
            num_parts.append(len(parts))
            bases.append(base)
            # In ASCII a character is a byte; this loop is most of the cost of cutting.
            if each.text.isascii():
                sizes += map(len, parts)
                for start, end in each.spans:
                    spans += (base + start, base + end, index)
                for role, start, end in each.roles:
                    words += (base + start, base + end, roles.setdefault(role, len(roles)))
                base += len(each.text)
            else:
                byte_at = _bytes_at(each)
                sizes += [len(part.encode()) for part in parts]
                for start, end in each.spans:
                    spans += (base + byte_at[start], base + byte_at[end], index)
                for role, start, end in each.roles:
                    words += (base + byte_at[start], base + byte_at[end], roles.setdefault(role, len(roles)))
                base += byte_at[len(each.text)]
        ends = np.cumsum(sizes, dtype=np.int64)
        starts = ends - np.array(sizes, dtype=np.int64)
        counts = np.array(num_parts, dtype=np.int64)
        in_text = np.arange(len(ends)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_stretch = (in_text & 1) == 0
        is_full = is_stretch & (ends > starts)
        if is_full.sum() < len(self.stretches):
            self.stretches = list(filter(None, self.stretches))
        self.stretch_start, self.stretch_bytes = starts[is_full], (ends - starts)[is_full]
        self.control_start, self.control_end = starts[~is_stretch], ends[~is_stretch]
        self.numbers = np.array(numbers, dtype=np.int64)
        before = np.cumsum(is_full)
        self.stretches_before = before[~is_stretch]  # of each control token
        self.stretches_end = before[np.cumsum(counts) - 1]
        self.controls_end = np.cumsum(counts >> 1)
        self.spans = np.array(spans, dtype=np.int64).reshape(-1, 3)
        self.words = np.array(words, dtype=np.int64).reshape(-1, 3)
        self.roles = list(roles)
        self.bases = np.array(bases, dtype=np.int64)

    @functools.cached_property
    def is_first(self) -> NDArray[np.bool_]:
        """Whether a stretch begins its text, bool[stretches]."""
        return np.isin(self.stretch_start, self.bases)


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
    """Both arrays in one, each in its order: `others` where is_other is True, `values` elsewhere."""
    out = np.empty(len(is_other), dtype=values.dtype)
    out[is_other] = others
    out[~is_other] = values
    return out


def _mask(
    cut_texts: _CutTexts, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tokens that touch a span, bool[T], and texts where a span begins inside a token, bool[D]."""
    is_cut = np.zeros(len(cut_texts.stretches_end), dtype=np.bool_)
    if not len(cut_texts.spans):
        return np.zeros(len(ends), dtype=np.bool_), is_cut
    begin, end, docs = cut_texts.spans.T
    first = np.searchsorted(ends, begin, side="right")
    after = np.maximum(np.searchsorted(starts, end, side="left"), first)
    edges = np.zeros(len(ends) + 1, dtype=np.int32)
    np.add.at(edges, first, 1)
    np.add.at(edges, after, -1)
    inside = first < after
    is_cut[docs[inside][starts[first[inside]] < begin[inside]]] = True
    return np.cumsum(edges[:-1]) > 0, is_cut


def _count_roles(cut_texts: _CutTexts, starts: NDArray[np.int64]) -> dict[str, int]:
    begin, end, codes = cut_texts.words.T
    numbers = np.searchsorted(starts, end, side="left") - np.searchsorted(starts, begin, side="left")
    counts = np.bincount(codes, weights=numbers, minlength=len(cut_texts.roles)).astype(np.int64)
    return dict(zip(cut_texts.roles, counts.tolist(), strict=True))
