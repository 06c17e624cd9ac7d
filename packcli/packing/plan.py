"""Plan: which tokens stand in which pack, made from lengths alone.

Legend: D documents, S segments, P packs, L max_len.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packcli.config.choices import CANNOT_CAP_DOCS, EFFORTS, KEEPS_ORDER, OVERLONG, canonical_strategy
from packcli.errors import UsageError, unknown_name
from packcli.packing.arrays import offsets, ranges
from packcli.packing.overlong import Segments, cut_stream, kept_lengths, split_documents
from packcli.packing.strategies import Strategy, count_bound, get_strategy, own_strategy
from packcli.packing.strategies.balance import balanced_order
from packcli.packing.strategies.patterns import count_lengths, index_type
from packcli.seeds import derive, permutation

REORDERED = 1 << 16
"""Packs that `_reorder` moves at once."""


class PlanError(AssertionError):
    """A plan breaks an invariant: a bug in a strategy. (make_plan gives a UsageError for a strategy of the user's.)"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Pack p holds the segments `order[pack_offsets[p]:pack_offsets[p+1]]`."""

    max_len: int
    """Capacity L of a pack, in tokens."""
    segments: Segments
    """doc, start and length of every segment, in input order."""
    order: NDArray[np.int32] | NDArray[np.int64]
    """[S]: segments, pack by pack; int32 from the planners that save memory."""
    pack_offsets: NDArray[np.int64]
    """int64[P+1]."""
    lower_bound: int
    """Proven: no packing of these segments has fewer packs."""
    found_by: str
    """The strategy, and which planner of its portfolio: "next-fit", "best-fit: filling"."""
    max_docs_per_pack: int = 0
    """The limit that the plan keeps; 0 means none."""

    @property
    def num_packs(self) -> int:
        """P."""
        return len(self.pack_offsets) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens in all packs, padding excluded."""
        return int(self.segments.length.sum(dtype=np.int64))

    @property
    def utilisation(self) -> float:
        """Real tokens / (packs x max_len), 0..1; 0 when there is no pack."""
        return self.num_tokens / (self.num_packs * self.max_len) if self.num_packs else 0.0

    @property
    def pack_tokens(self) -> NDArray[np.int64]:
        """Real tokens of each pack, int64[P]."""
        return self._sums(self.segments.length)

    @property
    def pack_costs(self) -> NDArray[np.int64]:
        """Attention cost of each pack, documents isolated: the sum of squared segment lengths, int64[P]."""
        return self._sums(self.segments.length.astype(np.int64) ** 2)

    def _sums(self, values: NDArray[np.integer]) -> NDArray[np.int64]:
        return np.diff(offsets(values[self.order])[self.pack_offsets])

    @property
    def docs_per_pack(self) -> NDArray[np.int64]:
        """Segments in each pack, int64[P]."""
        return np.diff(self.pack_offsets)

    def cu_seqlens(self, pack: int) -> NDArray[np.int32]:
        """Where each segment of a pack begins, and the end of the last: 3 and 2 tokens give 0 3 5, int32[n+1]."""
        begin, end = self._range(pack)
        return offsets(self.segments.length[self.order[begin:end]]).astype(np.int32)

    def segment_ids(self, pack: int) -> NDArray[np.int32]:
        """The segment of each position, from 1; 0 is padding: 3 and 2 tokens of 6 give 1 1 1 2 2 0, int32[L]."""
        begin, end = self._range(pack)
        ids = np.zeros(self.max_len, dtype=np.int32)
        real = np.repeat(np.arange(1, end - begin + 1, dtype=np.int32), self.segments.length[self.order[begin:end]])
        ids[: len(real)] = real
        return ids

    def _range(self, pack: int) -> tuple[int, int]:
        if not 0 <= pack < self.num_packs:
            raise IndexError(f"pack {pack} of a plan of {self.num_packs}")
        return int(self.pack_offsets[pack]), int(self.pack_offsets[pack + 1])


def make_plan(
    lengths: ArrayLike,
    max_len: int,
    *,
    strategy: str | Strategy | Callable[..., Any] = "best-fit",
    overlong: str = "split",
    max_docs_per_pack: int = 0,
    effort: str = "normal",
    balance: bool = False,
    seed: int = 0,
) -> Plan:
    """Plans packs for documents of the given lengths.

    Args:
        lengths: Tokens of each document, integers [D]; 0 gives no segment.
        max_len: Capacity of a pack.
        strategy: Name or alias, as on the command line; or a function (lengths, capacity, *, max_docs, seed, effort)
            -> (order, pack_offsets), whose answers are checked.
        overlong: What becomes of documents longer than max_len.
        max_docs_per_pack: Most segments in one pack; 0 means no limit.
        effort: How much work best-fit may take for fewer packs: fast, normal, max. With fast,
            shuffle-fit does not check whether lengths of pack mates correlate.
        balance: Put packs in an order in which groups of eight cost the same, see `balance_plan`.
        seed: Seed of every random choice.

    Raises:
        UsageError: an unknown name, a negative length or limit, an option that the strategy cannot keep, or what a
            function of the user's own raises or gets wrong.
        OverlongDocumentError: overlong is "error" and a document is too long.
    """
    if isinstance(strategy, str):
        name = canonical_strategy(strategy)
        chosen = get_strategy(name)
    else:
        chosen = strategy if isinstance(strategy, Strategy) else own_strategy(strategy)
        name = chosen.own_name
    if max_docs_per_pack and name in CANNOT_CAP_DOCS:
        raise UsageError(f"strategy {name!r} cannot keep max_docs_per_pack")
    if balance and name in KEEPS_ORDER:
        raise UsageError(f"strategy {name!r} keeps the order of the input, so it cannot balance")
    if overlong not in OVERLONG:
        raise unknown_name("overlong policy", overlong, OVERLONG)
    if effort not in EFFORTS:
        raise unknown_name("effort", effort, EFFORTS)
    # As Python's integers: strategies shift bits by them, and NumPy's would overflow.
    max_len, max_docs_per_pack, seed = map(operator.index, (max_len, max_docs_per_pack, seed))
    if max_len < 1 or max_docs_per_pack < 0:
        raise UsageError("max_len must be at least 1, and max_docs_per_pack at least 0")
    docs = np.asarray(lengths)
    if docs.ndim != 1 or (len(docs) and (docs.dtype.kind not in "iu" or docs.min() < 0)):
        raise UsageError("lengths must be a flat list of integers that are not negative")
    if docs.dtype not in (np.int32, np.int64):  # smaller and unsigned types would overflow in sums
        docs = docs.astype(np.int64)
    kept = kept_lengths(docs, max_len, overlong)
    segments = cut_stream(kept, max_len) if chosen.cuts_stream else split_documents(kept, max_len)
    packs = chosen.function(segments.length, max_len, max_docs=max_docs_per_pack, seed=derive(seed, 1), effort=effort)
    bound = packs.lower_bound or lower_bound(segments.length, max_len, max_docs_per_pack)
    found_by = f"{name}: {packs.found_by}" if packs.found_by else name
    plan = Plan(max_len, segments, packs.order, packs.pack_offsets, bound, found_by, max_docs_per_pack)
    if chosen.own_name:
        try:
            check_plan(plan, kept.astype(np.int64, copy=False))
        except PlanError as error:
            raise UsageError(
                f"strategy {name}: {error}",
                "order holds every segment once; pack p is order[pack_offsets[p]:pack_offsets[p+1]], within capacity",
            ) from None
    if chosen.shuffles_packs:
        plan = _reorder(plan, permutation(plan.num_packs, derive(seed, 2)).astype(index_type(plan.num_packs)))
    return balance_plan(plan, seed) if balance else plan


def balance_plan(plan: Plan, seed: int = 0) -> Plan:
    """The same packs in another order: every group of eight consecutive ones costs nearly the same (`pack_costs`)."""
    return _reorder(plan, balanced_order(plan.pack_costs, derive(seed, 3)))


def _reorder(plan: Plan, packs: NDArray[Any]) -> Plan:
    pack_offsets = offsets(plan.docs_per_pack[packs])
    order = np.empty_like(plan.order)
    # In parts: an index of everything would take more memory than the order.
    for first in range(0, len(packs), REORDERED):
        part = slice(first, first + REORDERED)
        begin, end = int(pack_offsets[first]), int(pack_offsets[min(first + REORDERED, len(packs))])
        num_segments = np.diff(pack_offsets[first : first + REORDERED + 1])
        order[begin:end] = plan.order[ranges(plan.pack_offsets[packs[part]], num_segments)]
    return dataclasses.replace(plan, order=order, pack_offsets=pack_offsets)


def lower_bound(lengths: NDArray[np.int32], max_len: int, max_docs: int = 0) -> int:
    """No packing of the segments needs fewer packs (the Martello-Toth bound, see strategies.bounds)."""
    return count_bound(count_lengths(lengths, max_len), max_len, max_docs)


def check_plan(plan: Plan, kept: NDArray[np.int64]) -> None:
    """Checks every invariant of a plan; raises PlanError.

    Args:
        plan: The plan.
        kept: int64[D], tokens of each document that the overlong policy keeps.
    """
    segments, pack_offsets = plan.segments, plan.pack_offsets

    def must(holds: bool | np.bool_, what: str) -> None:
        if not holds:
            raise PlanError(what)

    must(np.array_equal(np.sort(plan.order), np.arange(len(segments))), "a segment is missing or stands twice")
    must(pack_offsets[0] == 0 and pack_offsets[-1] == len(plan.order), "pack_offsets do not cover the segments")
    must((np.diff(pack_offsets) > 0).all(), "a pack is empty")
    must((segments.length > 0).all(), "a segment is empty")
    must(*_within("max_len", plan.pack_tokens, plan.max_len))
    if plan.max_docs_per_pack:
        must(*_within("max_docs_per_pack", plan.docs_per_pack, plan.max_docs_per_pack))
    # Segments tile the documents: each starts where the one before it ends, or at 0 in the next document.
    ends = segments.start + segments.length
    same = np.diff(segments.doc) == 0
    must((np.diff(segments.doc) >= 0).all(), "segments are not in the documents' order")
    must((segments.start[1:] == np.where(same, ends[:-1], 0)).all(), "segments leave a gap or overlap")
    must(len(segments) == 0 or segments.start[0] == 0, "the first segment does not start a document")
    covered = np.bincount(segments.doc, weights=segments.length, minlength=len(kept)).astype(np.int64)
    must(np.array_equal(covered, kept), "segments do not cover the documents")
    must(plan.num_packs >= plan.lower_bound, "the lower bound is above the plan: the bound is wrong")


def _within(limit: str, values: NDArray[np.int64], most: int) -> tuple[bool, str]:
    """Whether no pack is over the limit, and what to say about the first that is."""
    over = np.flatnonzero(values > most)[:1].tolist()
    return not over, "".join(f"a pack is over {limit}: pack {pack} has {values[pack]:,} of {most:,}" for pack in over)
