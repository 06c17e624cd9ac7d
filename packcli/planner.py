"""Plan: the data answer to "which tokens stand in which pack", made from lengths alone.

Legend: D documents, S segments, P packs, L max_len.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packcli.config import CANNOT_CAP_DOCS, OVERLONG, canonical_strategy
from packcli.errors import UsageError, unknown_name
from packcli.overlong import Segments, cut_stream, kept_lengths, split_documents
from packcli.strategies import get_strategy
from packcli.strategies.random import mix, permutation


class PlanError(AssertionError):
    """A plan breaks an invariant: a bug in a strategy, never a user's mistake."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Pack p holds the segments `order[pack_offsets[p]:pack_offsets[p+1]]`."""

    max_len: int
    """Capacity L of a pack, in tokens."""
    segments: Segments
    """doc, start and length of every segment, in input order."""
    order: NDArray[np.int64]
    """int64[S]: segments, pack by pack."""
    pack_offsets: NDArray[np.int64]
    """int64[P+1]."""
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
    def lower_bound(self) -> int:
        """No packing of these segments has fewer packs."""
        return lower_bound(self.segments.length, self.max_len, self.max_docs_per_pack)

    @property
    def pack_tokens(self) -> NDArray[np.int64]:
        """Real tokens of each pack, int64[P]."""
        ends = np.zeros(len(self.order) + 1, dtype=np.int64)
        np.cumsum(self.segments.length[self.order], out=ends[1:])
        return np.diff(ends[self.pack_offsets])

    @property
    def docs_per_pack(self) -> NDArray[np.int64]:
        """Segments in each pack, int64[P]."""
        return np.diff(self.pack_offsets)


def make_plan(
    lengths: ArrayLike,
    max_len: int,
    *,
    strategy: str = "best-fit",
    overlong: str = "split",
    max_docs_per_pack: int = 0,
    seed: int = 0,
) -> Plan:
    """Plans packs for documents of the given lengths.

    Args:
        lengths: Tokens of each document, integers [D]; 0 gives no segment.
        max_len: Capacity of a pack.
        strategy: Name or alias, as on the command line.
        overlong: What becomes of documents longer than max_len.
        max_docs_per_pack: Most segments in one pack; 0 means no limit.
        seed: Seed of every random choice.

    Raises:
        UsageError: an unknown name, a negative length or limit, or a limit that the strategy cannot keep.
        OverlongDocumentError: overlong is "error" and a document is too long.
    """
    name = canonical_strategy(strategy)
    chosen = get_strategy(name)
    if max_docs_per_pack and name in CANNOT_CAP_DOCS:
        raise UsageError(f"strategy {name!r} cannot keep max_docs_per_pack")
    if overlong not in OVERLONG:
        raise unknown_name("overlong policy", overlong, OVERLONG)
    # Strategies shift Python's integers by them: NumPy's would overflow.
    max_len, max_docs_per_pack, seed = map(operator.index, (max_len, max_docs_per_pack, seed))
    if max_len < 1 or max_docs_per_pack < 0:
        raise UsageError("max_len must be at least 1, and max_docs_per_pack at least 0")
    found = np.asarray(lengths)
    if found.ndim != 1 or (len(found) and (found.dtype.kind not in "iu" or found.min() < 0)):
        raise UsageError("lengths must be a flat list of integers that are not negative")
    docs = np.asarray(found, dtype=np.int64)
    kept = kept_lengths(docs, max_len, overlong)
    segments = cut_stream(kept, max_len) if chosen.cuts_stream else split_documents(kept, max_len)
    order, pack_offsets = chosen.function(segments.length, max_len, max_docs=max_docs_per_pack, seed=mix(seed, 1))
    if chosen.shuffles_packs:
        order, pack_offsets = _reorder(order, pack_offsets, permutation(len(pack_offsets) - 1, mix(seed, 2)))
    return Plan(max_len, segments, order, pack_offsets, max_docs_per_pack)


def _reorder(
    order: NDArray[np.int64], pack_offsets: NDArray[np.int64], packs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.diff(pack_offsets)[packs]
    moved = np.zeros_like(pack_offsets)
    np.cumsum(counts, out=moved[1:])
    return order[np.repeat(pack_offsets[packs] - moved[:-1], counts) + np.arange(len(order))], moved


def lower_bound(lengths: NDArray[np.int32], max_len: int, max_docs: int = 0) -> int:
    """The Martello-Toth L2 bound: no packing of the segments needs fewer packs.

    For a threshold a <= L/2: segments over L - a share a pack with nothing of a tokens or more; those over L/2 need
    a pack each; what of the segments of a..L/2 does not fit beside the latter needs more packs. The
    bound is the best over all a; a = 0 gives ceil(tokens / L). (Martello and Toth 1990, section 8.3.)
    """
    if not len(lengths):
        return 0
    histogram = np.bincount(lengths, minlength=max_len + 1).astype(np.int64)
    count = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(histogram)))
    tokens = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(histogram * np.arange(max_len + 1))))
    middle = max_len // 2 + 1
    a = np.arange(max_len // 2 + 1)
    top = max_len - a + 1  # lengths >= top stand alone, apart from those below a
    alone = count[-1] - count[top]
    halves = count[top] - count[middle]
    room = halves * max_len - (tokens[top] - tokens[middle])
    small = tokens[middle] - tokens[a]
    best = int((alone + halves + np.maximum(0, -(-(small - room) // max_len))).max())
    return max(best, -(-len(lengths) // max_docs)) if max_docs else best


def check_plan(plan: Plan, kept: NDArray[np.int64]) -> None:
    """Checks every invariant of a plan; raises PlanError.

    Args:
        plan: The plan.
        kept: int64[D], tokens of each document that the overlong policy keeps.
    """
    segments, offsets = plan.segments, plan.pack_offsets

    def must(holds: bool | np.bool_, what: str) -> None:
        if not holds:
            raise PlanError(what)

    must(np.array_equal(np.sort(plan.order), np.arange(len(segments))), "a segment is missing or stands twice")
    must(offsets[0] == 0 and offsets[-1] == len(plan.order), "pack_offsets do not cover the segments")
    must((np.diff(offsets) > 0).all(), "a pack is empty")
    must((segments.length > 0).all(), "a segment is empty")
    must((plan.pack_tokens <= plan.max_len).all(), "a pack is over max_len")
    if plan.max_docs_per_pack:
        must((plan.docs_per_pack <= plan.max_docs_per_pack).all(), "a pack is over max_docs_per_pack")
    # Segments tile the documents: each starts where the one before it ends, or at 0 in the next document.
    ends = segments.start + segments.length
    same = np.diff(segments.doc) == 0
    must((np.diff(segments.doc) >= 0).all(), "segments are not in the documents' order")
    must((segments.start[1:] == np.where(same, ends[:-1], 0)).all(), "segments leave a gap or overlap")
    must(len(segments) == 0 or segments.start[0] == 0, "the first segment does not start a document")
    covered = np.bincount(segments.doc, weights=segments.length, minlength=len(kept)).astype(np.int64)
    must(np.array_equal(covered, kept), "segments do not cover the documents")
    must(plan.num_packs >= plan.lower_bound, "the lower bound is above the plan: the bound is wrong")
