"""One split of one part: which documents stay, and what a plan does to them, counted for the sidecar."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.config import PackConfig
from packcli.dataset import Stats, bucketed, histogram, measure_baselines
from packcli.packing import LossRuns, Plan, kept_lengths
from packcli.packing.strategies import group_costs


class Measured(Protocol):
    """Documents of which is known where they begin and end, and which tokens carry loss: a TokenBatch, or lengths."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64[D+1]."""

    @property
    def loss(self) -> NDArray[np.bool_] | LossRuns | None:
        """bool[T], or runs; None: every token carries loss."""


def count_plan(plan: Plan, unbalanced: Plan, lengths: NDArray[np.int64], config: PackConfig, split: str) -> Stats:
    """What a plan does to the documents of a split; `unbalanced` is it before `balance`."""
    kept = kept_lengths(lengths, config.max_len, str(config.overlong))
    too_long = lengths > config.max_len
    truncated, dropped = too_long & (kept > 0) & (kept < lengths), kept == 0
    segments_of_doc = np.bincount(plan.segments.doc, minlength=len(lengths))
    num_tokens, num_packed = plan.num_tokens, int((~dropped).sum())
    costs = plan.pack_costs
    groups = group_costs(costs)
    groups_unbalanced = groups if unbalanced is plan else group_costs(unbalanced.pack_costs)
    return Stats(
        num_documents_packed=num_packed,
        num_documents_overlong=int(dropped.sum()),
        num_documents_truncated=int(truncated.sum()),
        num_documents_split=int((segments_of_doc > 1).sum()),
        num_tokens_packed=num_tokens,
        num_tokens_truncated=int((lengths - kept)[truncated].sum()),
        num_tokens_overlong=int(lengths[dropped].sum()),
        num_tokens_padding=plan.num_packs * config.max_len - num_tokens,
        num_rows_unpacked=int((-(-kept // config.max_len)).sum()),
        num_segments=len(plan.segments),
        num_packs=plan.num_packs,
        sum_lower_bound=plan.lower_bound,
        sum_squared_segments=int(costs.sum()),
        num_groups=len(groups),
        sum_group_cost=int(groups.sum()),
        max_group_cost=int(groups.max(initial=0)),
        max_group_cost_unbalanced=int(groups_unbalanced.max(initial=0)),
        documents_by_length=histogram(bucketed(lengths)),
        segments_by_length=histogram(bucketed(plan.segments.length.astype(np.int64))),
        packs_by_documents=histogram(plan.docs_per_pack),
        plans_by_planner={plan.found_by: 1} if plan.num_packs else {},
        layouts=measure_baselines(kept, config.max_len),
        by_split={split: {"num_documents": num_packed, "num_packs": plan.num_packs, "num_tokens_packed": num_tokens}},
    )


def with_loss(batch: Measured, docs: NDArray[np.int64], config: PackConfig) -> tuple[NDArray[np.int64], Stats]:
    """The documents that have a label: a first token has none. The others are counted, by cause."""
    if batch.loss is None:
        return docs, Stats()
    begin, end = batch.offsets[docs], batch.offsets[docs + 1]
    first = np.minimum(begin + config.isolate, end)
    left = np.minimum(end, begin + config.max_len) if config.overlong == "truncate" else end
    whole, kept = _count_true(batch.loss, first, end), _count_true(batch.loss, first, left)
    dropped = kept == 0
    lengths = end - begin
    return docs[~dropped], Stats(
        num_documents_no_loss=int((whole == 0).sum()),
        num_documents_no_loss_left=int((dropped & (whole > 0)).sum()),
        num_tokens_no_loss=int(lengths[dropped].sum()),
        num_tokens_loss_cut=int(whole[dropped].sum()),
        documents_by_length=histogram(bucketed(lengths[dropped])),
    )


def loss_of(batch: Measured, docs: NDArray[np.int64], config: PackConfig) -> NDArray[np.int64]:
    """Labels that each of these documents would have as a whole, int64[D]."""
    return loss_between(batch, batch.offsets[docs], batch.offsets[docs + 1], config)


def loss_between(
    batch: Measured, starts: NDArray[np.int64], ends: NDArray[np.int64], config: PackConfig
) -> NDArray[np.int64]:
    """Labels that the segments starts[i]..ends[i]-1 have, int64: the first token of an isolated one has none."""
    starts = np.minimum(starts + config.isolate, ends)
    return ends - starts if batch.loss is None else _count_true(batch.loss, starts, ends)


def count_loss(plan: Plan, batch: Measured, docs: NDArray[np.int64], config: PackConfig) -> Stats:
    """Labels that are not -100, and tokens with loss that the overlong policy takes away."""
    if batch.loss is None:
        return Stats(num_tokens_loss=plan.num_tokens - (len(plan.segments) if config.isolate else 0))
    starts = batch.offsets[docs][plan.segments.doc] + plan.segments.start
    ends = starts + plan.segments.length
    kept = int(_count_true(batch.loss, starts, ends).sum())
    on_first = int(_count_true(batch.loss, starts, starts + 1).sum()) if config.isolate else 0
    whole = int(_count_true(batch.loss, batch.offsets[docs], batch.offsets[docs + 1]).sum())
    return Stats(num_tokens_loss=kept - on_first, num_tokens_loss_cut=whole - kept)


def _count_true(
    mask: NDArray[np.bool_] | LossRuns, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many of mask[starts[i]:ends[i]] are true, int64; no array as long as the mask is made."""
    if isinstance(mask, LossRuns):
        return mask.count(starts, ends)
    is_full = starts < ends
    edges = np.stack((starts[is_full], ends[is_full]), axis=1)
    out = np.zeros(len(starts), dtype=np.int64)
    if len(edges):
        inside = np.minimum(edges, len(mask) - 1)  # reduceat takes no edge at the very end
        sums = np.add.reduceat(mask.view(np.uint8), inside.ravel(), dtype=np.int64)[::2]
        at_end = edges[:, 1] == len(mask)
        # Up to the clipped edge, and the last one of the mask. Where both edges are it, reduceat gives that one itself.
        out[is_full] = sums + (at_end & (inside[:, 0] < inside[:, 1])) * mask[-1]
    return out
