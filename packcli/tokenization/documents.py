"""Rows of every format but text -> tokens with a loss mask.

prompt, completion      text of both, the completion is the span       -> MarkedText
messages, ...           chat.Renderer                                  -> Rendered
either of these         SpanEncoder, 128 rows a call                   -> ids, loss
input_ids, labels, ...  checked, and taken as they are                 -> ids, loss
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli import readers
from packcli.config import PackConfig
from packcli.config.choices import IGNORE, MAX_TOKEN_ID
from packcli.errors import BadRowError
from packcli.tokenization import chat
from packcli.tokenization.engines import Engine
from packcli.tokenization.guard import SpotCheck
from packcli.tokenization.marker import RecordMarker, bad_row
from packcli.tokenization.spans import Encoded, MarkedText, SpanEncoder

MASKS = ("attention_mask", "loss_mask", "completion_mask", "assistant_masks")
BATCH_ROWS = 128
"""Rows encoded together: most are short, and a call of NumPy costs nearly as much for few tokens as for many."""


@dataclass(slots=True)
class Batch:
    """The documents of some rows."""

    kept: list[int] = field(default_factory=list)
    """Which rows gave a document; the others were empty."""
    keys: list[bytes] = field(default_factory=list)
    """Bytes of each document that decide whether it goes to training or to validation."""
    encoded: list[Encoded] = field(default_factory=list)
    num_special: int = 0
    """BOS and EOS that were added."""
    num_literals: int = 0
    """Documents whose text spells a control token, which is encoded as text."""
    num_cut_prompts: int = 0
    """Prompts that end inside a token of the whole text, or that the template renders differently on their own."""
    num_tokens_padding: int = 0
    """Tokens that attention_mask says are padding: left out."""
    rejected: list[int] = field(default_factory=list)
    """Which rows cannot be used; `reject` has got them."""
    num_repaired: int = 0
    """Rows whose text held half of a surrogate pair, which was replaced by U+FFFD."""


Reject = Callable[[int, BadRowError], None]
"""Takes a row that cannot be used, by its index, and notes it, or raises the error."""


def stop(index: int, error: BadRowError) -> None:
    """The Reject that ends the run."""
    raise error


class DocumentEncoder:
    """Makes documents of rows.

    Args:
        marker: Gives the text and spans of a row.
        engine: The tokenizer engine.
        spot_check: Compares samples of its ids with `tokenizers`.
    """

    def __init__(self, marker: RecordMarker, engine: Engine, spot_check: SpotCheck) -> None:
        self._mark, self._config, self._tokenizer = marker, marker.config, marker.tokenizer
        self._engine, self._spot_check = engine, spot_check
        self._encoders: dict[bool, SpanEncoder] = {}

    def __call__(self, rows: Sequence[readers.Row], place: Callable[[int], str], reject: Reject = stop) -> Batch:
        """The documents of some rows of one source.

        Args:
            rows: The rows.
            place: Index of a row -> where it is, for messages.
            reject: Gets the rows that cannot be used.

        Raises:
            BadRowError: a row cannot be used, and `reject` ends the run.
            UsageError: the template cannot be used for any such row.
        """
        batch = Batch()
        for first in range(0, len(rows), BATCH_ROWS):
            if self._config.format == "tokenized":
                self._take(batch, rows[first : first + BATCH_ROWS], first, place, reject)
            else:
                self._encode(batch, rows[first : first + BATCH_ROWS], first, place, reject)
        return batch

    def compare(self, row: readers.Row, place: Callable[[], str]) -> bool:
        """Compares a row with what `tokenizers` gives for its whole text; returns whether it has control tokens.

        Raises:
            EngineError: they differ.
        """
        if self._config.format == "tokenized":
            return False
        marked = self._mark(row, place)
        if marked.text:
            encoder = self._encoder(bool(marked.numbers))
            encoder.compare(marked, encoder.encode([marked]), 0)
        return bool(marked.numbers)

    def _encoder(self, has_controls: bool) -> SpanEncoder:
        if has_controls not in self._encoders:
            self._encoders[has_controls] = SpanEncoder(
                self._tokenizer, self._engine, self._spot_check, has_controls=has_controls
            )
        return self._encoders[has_controls]

    def _encode(
        self, batch: Batch, rows: Sequence[readers.Row], first: int, place: Callable[[int], str], reject: Reject
    ) -> None:
        marked = self._mark_all(batch, rows, first, place, reject)
        while marked:
            scratch = Batch()
            encoded, num_cut = self._encode_texts(scratch, [text for _, text in marked])
            overlong = find_overlong(encoded.offsets, self._config)
            if not overlong:
                break
            for at, length in overlong.items():
                self._refuse(batch, marked[at][0], overlong_row(place(marked[at][0]), length, self._config), reject)
            marked = [each for at, each in enumerate(marked) if at not in overlong]
        else:  # no row is left
            return
        texts = [text for _, text in marked]
        rendered = [text for text in texts if isinstance(text, chat.Rendered)]
        batch.kept += [index for index, _ in marked]
        batch.num_special += scratch.num_special
        batch.num_literals += sum(text.has_literals for text in rendered)
        batch.num_cut_prompts += num_cut + sum(text.prompt_differs for text in rendered)
        if self._config.val_fraction:
            batch.keys += [text.text.encode() for text in texts]
        batch.encoded.append(encoded)

    def _mark_all(
        self, batch: Batch, rows: Sequence[readers.Row], first: int, place: Callable[[int], str], reject: Reject
    ) -> list[tuple[int, MarkedText | chat.Rendered]]:
        """The rows that have text, with their indices."""
        out: list[tuple[int, MarkedText | chat.Rendered]] = []
        index, before = first, self._mark.num_repaired

        def where() -> str:
            return place(index)

        for index, row in enumerate(rows, first):
            try:
                marked = self._mark(row, where)
            except BadRowError as error:
                self._refuse(batch, index, error, reject)
                continue
            if marked.text:
                out.append((index, marked))
        batch.num_repaired += self._mark.num_repaired - before
        return out

    def _encode_texts(self, batch: Batch, texts: list[MarkedText | chat.Rendered]) -> tuple[Encoded, int]:
        """Ids with BOS and EOS, and how many prompts end inside a token."""
        encoded = self._encoder(any(text.numbers for text in texts)).encode(texts)
        is_plain = np.array([isinstance(text, MarkedText) for text in texts], dtype=np.bool_)
        num_cut = int(encoded.is_cut.sum()) if self._config.loss == "completion" else 0
        return self._with_special(batch, encoded, is_plain), num_cut

    def _refuse(self, batch: Batch, index: int, error: BadRowError, reject: Reject) -> None:
        reject(index, error)
        batch.rejected.append(index)

    def _with_special(self, batch: Batch, encoded: Encoded, is_plain: NDArray[np.bool_]) -> Encoded:
        """BOS and EOS around the texts; chats and tokenized rows get what was asked for and is not there yet."""
        bos, eos = self._tokenizer.bos_id, self._tokenizer.eos_id
        if bos is None and eos is None:
            return encoded
        wants_bos = self._config.add_bos is True
        # For these formats eos_id is set only when EOS was asked for.
        wants_eos = self._config.format in ("chat", "sharegpt", "tokenized")
        starts, ends = encoded.offsets[:-1], encoded.offsets[1:]
        ids = np.append(encoded.ids, np.uint32(0))  # a text may have no token at all, even the last one
        first_ids, last_ids = ids[starts], ids[ends - 1]
        put_bos = (is_plain | (wants_bos & (first_ids != bos))) if bos is not None else np.zeros_like(is_plain)
        put_eos = (is_plain | (wants_eos & (last_ids != eos))) if eos is not None else np.zeros_like(is_plain)
        if not put_bos.any() and not put_eos.any():
            return encoded
        eos_loss = np.zeros_like(is_plain)
        if self._config.loss_on_eot is not False:
            eos_loss = np.append(encoded.loss, False)[ends - 1] | is_plain
        at = np.concatenate((starts[put_bos], ends[put_eos]))
        new_ids = np.concatenate((np.full(put_bos.sum(), bos or 0), np.full(put_eos.sum(), eos or 0))).astype(np.uint32)
        bos_loss = np.full(put_bos.sum(), self._config.loss == "all")
        new_loss = np.concatenate((bos_loss, eos_loss[put_eos]))
        # Sorted by place; of two at one place, the EOS of a document stands before the BOS of the next.
        is_bos = np.arange(len(at)) < put_bos.sum()
        order = np.lexsort((is_bos, at))
        batch.num_special += len(at)
        num_added = np.cumsum(put_bos.astype(np.int64) + put_eos)
        return Encoded(
            np.insert(encoded.ids, at[order], new_ids[order]),
            encoded.offsets + np.concatenate((np.zeros(1, dtype=np.int64), num_added)),
            np.insert(encoded.loss, at[order], new_loss[order]),
            encoded.is_cut,
            encoded.by_role,
        )

    def _take(
        self, batch: Batch, rows: Sequence[readers.Row], first: int, place: Callable[[int], str], reject: Reject
    ) -> None:
        """Adds rows that are token ids already."""
        for index, row in enumerate(rows, first):
            try:
                ids, loss, num_padding = check_tokenized(self._mark.parts(row), self._tokenizer.vocab_size)
            except ValueError as error:
                self._refuse(batch, index, bad_row(functools.partial(place, index), "wrong-tokens", str(error)), reject)
                continue
            offsets = np.array([0, len(ids)], dtype=np.int64)
            encoded = Encoded(ids, offsets, loss, np.zeros(1, dtype=np.bool_), {})
            scratch = Batch()
            if len(ids):
                encoded = self._with_special(scratch, encoded, np.zeros(1, dtype=np.bool_))
                overlong = find_overlong(encoded.offsets, self._config)
                if overlong:
                    self._refuse(batch, index, overlong_row(place(index), overlong[0], self._config), reject)
                    continue
            batch.num_tokens_padding += num_padding
            if not len(ids):
                continue
            batch.kept.append(index)
            batch.keys.append(ids.tobytes())
            batch.num_special += scratch.num_special
            batch.encoded.append(encoded)


def find_overlong(offsets: NDArray[np.int64], config: PackConfig) -> dict[int, int]:
    """Documents that the policy `error` refuses -> their length."""
    if config.overlong != "error":
        return {}
    lengths = np.diff(offsets)
    return {at: int(lengths[at]) for at in np.flatnonzero(lengths > config.max_len).tolist()}


def overlong_row(place: str, length: int, config: PackConfig) -> BadRowError:
    """The error of a document over max_len, under the policy `error`."""
    what = f"{length} tokens, over --max-len {config.max_len}"
    hint = "--overlong split, truncate or drop; or a larger --max-len"
    return BadRowError(f"{place}: {what}", hint, cause="overlong", what=what)


def check_tokenized(row: dict[str, Any], vocab_size: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_], int]:
    """Checks the lists of a tokenized row: ids uint32[T], loss bool[T], and how many tokens of padding were left out.

    Raises:
        ValueError: what is wrong.
    """
    ids = _integers(row["input_ids"], "input_ids")
    if len(ids) and (ids.min() < 0 or ids.max() >= min(vocab_size, MAX_TOKEN_ID + 1)):
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise ValueError(
            f"input_ids holds {wrong}, and the tokenizer has ids 0..{vocab_size - 1}: give the tokenizer that made "
            "them with --tokenizer"
        )
    loss = np.ones(len(ids), dtype=np.bool_)
    real = np.ones(len(ids), dtype=np.bool_)
    for name in MASKS:
        if row.get(name) is None:
            continue
        mask = _integers(row[name], name, len(ids))
        if len(mask) and (mask.min() < 0 or mask.max() > 1):
            packed = "; a row of several documents, as its numbers say, is packed already" if mask.max() > 1 else ""
            raise ValueError(f"{name} holds {int(mask.min() if mask.min() < 0 else mask.max())}, not 0 or 1{packed}")
        if name == "attention_mask":
            real = mask.astype(np.bool_)
        else:
            loss &= mask.astype(np.bool_)
    if row.get("labels") is not None:
        loss &= _labels(_integers(row["labels"], "labels", len(ids)), ids)
    places = np.flatnonzero(real)
    if len(places) and places[-1] - places[0] + 1 != len(places):
        raise ValueError("attention_mask is 0 between tokens that count: it can only say where padding is")
    kept = slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)
    return ids[kept].astype(np.uint32), loss[kept], len(ids) - len(places)


def _labels(labels: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where labels carry loss; they must be the ids, or -100."""
    counts = labels != IGNORE
    wrong = np.flatnonzero(counts & (labels != ids))
    if not len(wrong):
        return np.asarray(counts, dtype=np.bool_)
    shifted = counts[:-1] & (labels[:-1] != ids[1:])
    if not shifted.any():
        raise ValueError(
            "labels are shifted already: each is the next of input_ids. Transformers and TRL shift inside the loss, so "
            "these would be shifted twice; give labels that stand under their own token, or leave the column out"
        )
    at = int(wrong[0])
    raise ValueError(
        f"labels[{at}] is {labels[at]} and input_ids[{at}] is {ids[at]}: a label is the id itself, or {IGNORE} for none"
    )


def _integers(values: Any, name: str, length: int | None = None) -> NDArray[np.int64]:
    try:
        numbers = np.asarray(values, dtype=np.int64)
    except OverflowError:
        raise ValueError(f"{name} holds a number that is no token id") from None
    if length is not None and len(numbers) != length:
        raise ValueError(f"{name} has {len(numbers)} entries and input_ids {length}")
    return numbers
