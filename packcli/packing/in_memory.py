"""Packing in memory: lists, NumPy arrays or tensors in, rows of the same kind out.

pack_sequences([[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11, 12]], max_length=8, pad_token_id=0)
[[1, 2, 3, 4, 5, 0, 0, 0], [6, 7, 8, 9, 10, 11, 12, 0]]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packcli.errors import UsageError
from packcli.packing.arrays import offsets
from packcli.packing.plan import Plan, make_plan

Strategy = str | Callable[..., Any]
"""A name, or a function of the user's own, as in packcli.plan."""


class Boundary(NamedTuple):
    """Where a segment of a sequence stands: row[start:end] is sequence[offset:offset + end - start]."""

    row: int
    start: int
    end: int
    sequence: int
    offset: int


def pack_sequences(
    sequences: Sequence[Any],
    max_length: int,
    pad_token_id: int,
    *,
    strategy: Strategy = "next-fit",
    overlong: str = "split",
    seed: int = 0,
    return_boundaries: bool = False,
) -> Any:
    """Packs sequences into rows of max_length. Only padding is added, and no token is lost unless `overlong` says so.

    Args:
        sequences: Flat lists, 1-D arrays or 1-D tensors of integers; empty ones give nothing.
        max_length: L, positions of a row.
        pad_token_id: What fills rows.
        strategy: Which sequences share a row, as in packcli.plan; next-fit keeps their order.
        overlong: What becomes of sequences longer than a row: split, truncate, drop, error.
        seed: Seed of every random choice.
        return_boundaries: Whether to return (rows, boundaries), a Boundary for each segment, row by row.

    Returns:
        P rows: a list of lists, an array [P, L], or a tensor [P, L] with dtype and device of the first one.

    Raises:
        UsageError: a sequence that is not flat, or not of integers; or an option that makes no sense.
        OverlongDocumentError: overlong is "error" and a sequence is too long.
    """
    arrays = _arrays("sequences", sequences)
    plan = _plan(arrays, max_length, strategy, overlong, seed)
    rows = _like(sequences, _rows(plan, arrays, pad_token_id))
    return (rows, _boundaries(plan)) if return_boundaries else rows


def concatenate_and_pack(
    input_ids: Sequence[Any],
    labels: Sequence[Any],
    attention_masks: Sequence[Any],
    max_length: int,
    pad_token_id: int,
    label_pad_id: int = -100,
    *,
    strategy: Strategy = "next-fit",
    overlong: str = "split",
    seed: int = 0,
) -> tuple[Any, Any, Any]:
    """Packs sequences, and lays out their labels and masks in the same places.

    Labels stay as they are given: mask the first one of each sequence, or it is predicted from the one before it.

    Args:
        input_ids: Like `sequences` of pack_sequences.
        labels: As long as input_ids, each one.
        attention_masks: Likewise; padding gets 0.
        max_length, pad_token_id: As in pack_sequences.
        label_pad_id: The label of padding.
        strategy, overlong, seed: As in pack_sequences.

    Returns:
        (input_ids, labels, attention_mask), rows as pack_sequences gives them.

    Raises:
        UsageError: as pack_sequences; or labels or masks of another length.
    """
    given = {"input_ids": input_ids, "labels": labels, "attention_masks": attention_masks}
    arrays = {name: _arrays(name, sequences) for name, sequences in given.items()}
    lengths = [len(array) for array in arrays["input_ids"]]
    for name in ("labels", "attention_masks"):
        other = [len(array) for array in arrays[name]]
        if other != lengths:
            where = next((at for at, pair in enumerate(zip(lengths, other, strict=False)) if pair[0] != pair[1]), None)
            what = f"{len(other)} against {len(lengths)} sequences" if where is None else f"at sequence {where}"
            raise UsageError(f"{name} and input_ids differ in length: {what}")
    plan = _plan(arrays["input_ids"], max_length, strategy, overlong, seed)
    fills = {"input_ids": pad_token_id, "labels": label_pad_id, "attention_masks": 0}
    ids, packed_labels, masks = (_like(given[name], _rows(plan, arrays[name], fills[name])) for name in given)
    return ids, packed_labels, masks


def _plan(arrays: list[NDArray[Any]], max_length: int, strategy: Strategy, overlong: str, seed: int) -> Plan:
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    return make_plan(lengths, max_length, strategy=strategy, overlong=overlong, seed=seed)


def _arrays(name: str, sequences: Sequence[Any]) -> list[NDArray[Any]]:
    arrays = []
    for at, sequence in enumerate(sequences):
        array = np.asarray(sequence.cpu() if hasattr(sequence, "cpu") else sequence)
        if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
            raise UsageError(f"{name}[{at}] is not a flat sequence of integers")
        arrays.append(array if len(array) else array.astype(np.int64))
    return arrays


def _segments(plan: Plan) -> tuple[NDArray[np.int64], ...]:
    """Of every segment, row by row: row, start in the row, length, sequence, offset in the sequence."""
    order, segments = plan.order, plan.segments
    length = segments.length[order].astype(np.int64)
    row = np.repeat(np.arange(plan.num_packs), plan.docs_per_pack)
    begin = offsets(length)[:-1]
    start = begin - begin[plan.pack_offsets[row]] if len(row) else begin
    return row, start, length, segments.doc[order], segments.start[order]


def _rows(plan: Plan, arrays: list[NDArray[Any]], fill: int) -> NDArray[Any]:
    kind = np.result_type(*arrays) if arrays else np.dtype(np.int64)
    rows = np.full((plan.num_packs, plan.max_len), fill, dtype=kind)
    for row, start, length, sequence, offset in zip(*(each.tolist() for each in _segments(plan)), strict=True):
        rows[row, start : start + length] = arrays[sequence][offset : offset + length]
    return rows


def _boundaries(plan: Plan) -> list[Boundary]:
    segments = zip(*(each.tolist() for each in _segments(plan)), strict=True)
    return [Boundary(row, start, start + length, sequence, offset) for row, start, length, sequence, offset in segments]


def _like(sequences: Sequence[Any], rows: NDArray[Any]) -> Any:
    first = sequences[0] if len(sequences) else []
    if hasattr(first, "new_tensor"):  # a tensor of torch, which is not imported here
        return first.new_tensor(rows)
    return rows if isinstance(first, np.ndarray) else rows.tolist()
