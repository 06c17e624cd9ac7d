"""Counters and histograms that add up: every unit counts for itself, the report is the sum (of a maximum, the maximum).

Conservation, checked on every unit and again on the sum:

    num_tokens_in + num_tokens_special == num_tokens_packed + num_tokens_dropped
    num_packs * max_len               == num_tokens_packed + num_tokens_padding
    num_rows_read                     == num_documents + num_rows_rejected (which is the sum of its causes)
    num_documents                     == num_documents_packed + those dropped by each cause
    num_tokens_loss                   <= num_tokens_packed
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Histogram = dict[int, int]
"""Value -> how often. Long documents fall into buckets, see `bucketed`."""


@dataclass(slots=True)
class Stats:
    """Totals of some units; `a + b` is the totals of both. All counts; lengths are in tokens."""

    num_parts: int = 0
    """Parts of units: one a shard and split."""
    num_input_bytes: int = 0
    """Bytes of input read: lines or text, after decompression."""
    num_rows_read: int = 0
    """Records of the input; blank lines are none."""
    num_rows_rejected: int = 0
    """Passed over, because they could not be used."""
    num_rows_repaired: int = 0
    """Read with U+FFFD for what is no text."""
    num_documents: int = 0
    """Rows that could be used."""
    num_documents_packed: int = 0
    num_documents_empty: int = 0
    """Dropped: no text."""
    num_documents_overlong: int = 0
    """Dropped: longer than max_len, under the policy `drop`."""
    num_documents_no_loss: int = 0
    """Dropped: not one token that carries loss."""
    num_documents_no_loss_left: int = 0
    """Dropped: truncation left no token that carries loss."""
    num_documents_truncated: int = 0
    num_documents_split: int = 0
    """Packed in more than one segment."""
    num_tokens_in: int = 0
    """Tokens of the text."""
    num_tokens_special: int = 0
    """BOS and EOS that packcli added."""
    num_tokens_packed: int = 0
    num_tokens_truncated: int = 0
    """Dropped from the ends of truncated documents."""
    num_tokens_overlong: int = 0
    """Dropped with overlong documents."""
    num_tokens_no_loss: int = 0
    """Dropped with documents that carry no loss, or of which truncation left none."""
    num_tokens_loss: int = 0
    """Labels that are not -100."""
    num_tokens_loss_cut: int = 0
    """Tokens with loss among the truncated and the overlong ones."""
    num_tokens_padding_in: int = 0
    """Padding of tokenized input, as attention_mask has it: left out, and not counted in num_tokens_in."""
    num_documents_literals: int = 0
    """Documents whose text spells a control token (or a part of one at an end): it stays text."""
    num_prompts_cut: int = 0
    """Prompts that end inside a token of the whole, or that a template renders otherwise on their own."""
    num_tokens_padding: int = 0
    num_eos_in_documents: int = 0
    """EOS ids that come from the text itself: consumers that look for EOS would see a boundary there."""
    num_rows_unpacked: int = 0
    """Rows if every document had its own, padded to max_len, long ones cut: what packing is compared with."""
    num_segments: int = 0
    num_packs: int = 0
    sum_lower_bound: int = 0
    """Sum over units of the fewest packs that any packing of the unit needs."""
    sum_squared_segments: int = 0
    """Sum of squared segment lengths: attention cost of isolated documents."""
    num_groups: int = 0
    """Groups of eight consecutive rows."""
    sum_group_cost: int = 0
    """Attention cost of all groups."""
    max_group_cost: int = 0
    """Attention cost of the most expensive group."""
    max_group_cost_unbalanced: int = 0
    """max_group_cost of the same packs in the order that they have without `balance`."""
    documents_by_length: Histogram = field(default_factory=dict)
    """Tokens of a document (special ones included), before the overlong policy."""
    segments_by_length: Histogram = field(default_factory=dict)
    packs_by_documents: Histogram = field(default_factory=dict)
    """Segments in a pack."""
    plans_by_planner: dict[str, int] = field(default_factory=dict)
    """Strategy, and planner of its portfolio -> how many plans it found."""
    rejected_by_cause: dict[str, int] = field(default_factory=dict)
    """Why rows were rejected -> how many: keys of bad_rows.CAUSES."""
    by_source: dict[int, dict[str, int]] = field(default_factory=dict)
    """Per input file: documents and tokens in (special ones excluded)."""
    tokens_by_role: dict[str, int] = field(default_factory=dict)
    """Tokens of the words of each role; what templates write around them is in none. Empty for text."""
    layouts: dict[str, dict[str, int]] = field(default_factory=dict)
    """What packing is compared with, see `derived.measure_baselines`."""
    by_split: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per split: documents, packs and tokens packed."""

    def __add__(self, other: Stats) -> Stats:
        """Totals of both."""
        merged: dict[str, Any] = {}
        for each in dataclasses.fields(Stats):
            add = max if each.name.startswith("max_") else _add
            merged[each.name] = add(getattr(self, each.name), getattr(other, each.name))
        return Stats(**merged)

    def __iadd__(self, other: Stats) -> Stats:
        """Adds the other to this one: a sum over units costs no copy of what was summed before."""
        for each in dataclasses.fields(Stats):
            mine, its = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, dict):
                _add_into(mine, its)
            else:
                setattr(self, each.name, max(mine, its) if each.name.startswith("max_") else mine + its)
        return self

    @property
    def num_tokens_dropped(self) -> int:
        """Tokens that are in no pack."""
        return self.num_tokens_truncated + self.num_tokens_overlong + self.num_tokens_no_loss

    @property
    def num_documents_dropped(self) -> int:
        """Documents that are in no pack."""
        no_loss = self.num_documents_no_loss + self.num_documents_no_loss_left
        return self.num_documents_empty + self.num_documents_overlong + no_loss

    def check(self, max_len: int) -> None:
        """Raises AssertionError when the sums of the module docstring do not hold: a bug, whatever the input."""
        if self.num_tokens_in + self.num_tokens_special != self.num_tokens_packed + self.num_tokens_dropped:
            raise AssertionError("tokens in + special != packed + dropped")
        if self.num_packs * max_len != self.num_tokens_packed + self.num_tokens_padding:
            raise AssertionError("packs * max_len != packed + padding")
        if self.num_documents != self.num_documents_packed + self.num_documents_dropped:
            raise AssertionError("documents != packed + dropped")
        if self.num_rows_read != self.num_documents + self.num_rows_rejected:
            raise AssertionError("rows read != documents + rejected")
        if self.num_rows_rejected != sum(self.rejected_by_cause.values()):
            raise AssertionError("rejected != the sum of its causes")
        if self.num_tokens_loss > self.num_tokens_packed:
            raise AssertionError("more labels than tokens")

    def as_dict(self) -> dict[str, Any]:
        """JSON values; histograms become sorted [value, count] pairs."""
        out: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name in HISTOGRAMS:
                value = [[key, value[key]] for key in sorted(value)]
            elif each.name == "by_source":
                value = {str(key): value[key] for key in sorted(value)}
            elif each.name == "rejected_by_cause":
                value = {key: value[key] for key in sorted(value)}
            out[each.name] = value
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stats:
        """The inverse of as_dict; histograms may be dicts already."""
        values = dict(data)
        for name in HISTOGRAMS:
            if not isinstance(values[name], dict):
                values[name] = {int(key): int(count) for key, count in values[name]}
        values["by_source"] = {int(key): dict(counts) for key, counts in values["by_source"].items()}
        return cls(**values)


HISTOGRAMS = ("documents_by_length", "segments_by_length", "packs_by_documents")


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, dict):
        out = {key: dict(value) if isinstance(value, dict) else value for key, value in left.items()}
        for key, value in right.items():
            out[key] = _add(out[key], value) if key in out else value
        return out
    return left + right


def _add_into(mine: dict[Any, Any], its: Mapping[Any, Any]) -> None:
    for key, value in its.items():
        if isinstance(value, dict):
            _add_into(mine.setdefault(key, {}), value)
        else:
            mine[key] = mine.get(key, 0) + value


def histogram(values: NDArray[np.integer]) -> Histogram:
    """Counts of each value that is there."""
    if not len(values):
        return {}
    distinct, counts = np.unique(values, return_counts=True)
    return dict(zip(distinct.tolist(), counts.tolist(), strict=True))


def bucketed(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rounds values of 1024 and more down to 10 significant bits (0.2 %), so that histograms stay small."""
    _, exponent = np.frexp(values.astype(np.float64))
    shift = np.maximum(exponent.astype(np.int64) - 10, 0)
    return (values >> shift) << shift
