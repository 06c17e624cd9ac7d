"""One split of one part: which documents it keeps, their plan, and the counts for the sidecar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packcli.config import PackConfig
from packcli.dataset import Stats, bucketed, histogram, measure_baselines
from packcli.packing import LossRuns, Plan, kept_lengths, make_plan
from packcli.packing.strategies import group_costs
from packcli.pipeline.custom_strategy import find_strategy


class Measured(Protocol):
    """Where documents begin and end, and which tokens carry loss: a TokenBatch, or lengths that were measured."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64[D+1]."""

    @property
    def loss(self) -> NDArray[np.bool_] | LossRuns | None:
        """bool[T], or runs; None: every token carries loss."""


@dataclass(frozen=True, slots=True)
class PlannedSplit:
    """The documents of one split of a part, and in which packs they go."""

    docs: NDArray[np.int64]
    """Indices of the documents that have a label; the plan numbers them 0, 1, 2 ..."""
    kept: NDArray[np.int64]
    """int64[D]: tokens of each of them that the overlong policy keeps."""
    plan: Plan
    stats: Stats
    """What becomes of all documents of the split."""
    num_cut: int
    """Documents that are split or truncated, or both."""


def plan_lengths(lengths: NDArray[np.int64], config: PackConfig, seed: int) -> Plan:
    """The plan of documents of these lengths, with the strategy and the limits of the settings."""
    return make_plan(
        lengths,
        config.max_len,
        strategy=find_strategy(config),
        overlong=str(config.overlong),
        max_docs_per_pack=config.max_docs_per_pack,
        effort=config.effort,
        seed=seed,
    )


def plan_split(documents: Measured, docs: NDArray[np.int64], config: PackConfig, seed: int) -> PlannedSplit:
    """Plans the documents of one split of a part.

    Args:
        documents: All documents of the part.
        docs: Indices of those of the split, in the order that the strategy gets them.
        config: Resolved.
        seed: See plan_seed.

    Raises:
        OverlongDocumentError: the policy is `error`, and one is longer than max_len.
    """
    docs, stats = with_loss(documents, docs, config)
    lengths = documents.offsets[docs + 1] - documents.offsets[docs]
    plan = plan_lengths(lengths, config, seed)
    kept = kept_lengths(lengths, config.max_len, str(config.overlong))
    is_dropped = kept == 0
    is_truncated = (kept < lengths) & ~is_dropped
    is_split = np.bincount(plan.segments.doc, minlength=len(lengths)) > 1
    stats += Stats(
        num_documents_packed=len(lengths) - int(is_dropped.sum()),
        num_documents_overlong=int(is_dropped.sum()),
        num_documents_truncated=int(is_truncated.sum()),
        num_documents_split=int(is_split.sum()),
        num_tokens_packed=plan.num_tokens,
        num_tokens_truncated=int((lengths - kept)[is_truncated].sum()),
        num_tokens_overlong=int(lengths[is_dropped].sum()),
        num_tokens_padding=plan.num_packs * config.max_len - plan.num_tokens,
        num_segments=len(plan.segments),
        num_packs=plan.num_packs,
        sum_lower_bound=plan.lower_bound,
    )
    stats += count_loss(plan, documents, docs, config)
    return PlannedSplit(docs, kept, plan, stats, int((is_split | is_truncated).sum()))


def count_rows(planned: PlannedSplit, plan: Plan, documents: Measured, config: PackConfig, split: str) -> Stats:
    """What the report shows of the rows beyond PlannedSplit.stats: histograms, cost of attention, baselines.

    Args:
        planned: The split.
        plan: Its plan in the order that is written: after `balance`, where that was asked for.
        documents: All documents of the part.
        config: Resolved.
        split: Its name.
    """
    lengths = documents.offsets[planned.docs + 1] - documents.offsets[planned.docs]
    costs = plan.pack_costs
    groups = group_costs(costs)
    groups_unbalanced = groups if planned.plan is plan else group_costs(planned.plan.pack_costs)
    counts = {
        "num_documents": planned.stats.num_documents_packed,
        "num_packs": plan.num_packs,
        "num_tokens_packed": plan.num_tokens,
    }
    return Stats(
        num_rows_unpacked=int((-(-planned.kept // config.max_len)).sum()),
        sum_squared_segments=int(costs.sum()),
        num_groups=len(groups),
        sum_group_cost=int(groups.sum()),
        max_group_cost=int(groups.max(initial=0)),
        max_group_cost_unbalanced=int(groups_unbalanced.max(initial=0)),
        documents_by_length=histogram(bucketed(lengths)),
        segments_by_length=histogram(bucketed(plan.segments.length.astype(np.int64))),
        packs_by_documents=histogram(plan.docs_per_pack),
        plans_by_planner={plan.found_by: 1} if plan.num_packs else {},
        layouts=measure_baselines(planned.kept, config.max_len),
        by_split={split: counts},
    )


def with_loss(documents: Measured, docs: NDArray[np.int64], config: PackConfig) -> tuple[NDArray[np.int64], Stats]:
    """The documents that have a label (a first token is none, when isolated), and counts of the others by cause."""
    if documents.loss is None:
        return docs, Stats()
    begin, end = documents.offsets[docs], documents.offsets[docs + 1]
    first = np.minimum(begin + config.isolate, end)
    left = np.minimum(end, begin + config.max_len) if config.overlong == "truncate" else end
    whole, kept = _count_true(documents.loss, first, end), _count_true(documents.loss, first, left)
    dropped = kept == 0
    lengths = end - begin
    return docs[~dropped], Stats(
        num_documents_no_loss=int((whole == 0).sum()),
        num_documents_no_loss_left=int((dropped & (whole > 0)).sum()),
        num_tokens_no_loss=int(lengths[dropped].sum()),
        num_tokens_loss_cut=int(whole[dropped].sum()),
        documents_by_length=histogram(bucketed(lengths[dropped])),
    )


def loss_of(documents: Measured, docs: NDArray[np.int64], config: PackConfig) -> NDArray[np.int64]:
    """Labels that each of these documents would have as a whole, int64[D]."""
    return loss_between(documents, documents.offsets[docs], documents.offsets[docs + 1], config)


def loss_between(
    documents: Measured, starts: NDArray[np.int64], ends: NDArray[np.int64], config: PackConfig
) -> NDArray[np.int64]:
    """Labels that the segments starts[i]..ends[i]-1 have, int64: the first token of an isolated one has none."""
    starts = np.minimum(starts + config.isolate, ends)
    return ends - starts if documents.loss is None else _count_true(documents.loss, starts, ends)


def count_loss(plan: Plan, documents: Measured, docs: NDArray[np.int64], config: PackConfig) -> Stats:
    """Labels that are not -100, and tokens with loss that the overlong policy takes away."""
    if documents.loss is None:
        return Stats(num_tokens_loss=plan.num_tokens - (len(plan.segments) if config.isolate else 0))
    starts = documents.offsets[docs][plan.segments.doc] + plan.segments.start
    ends = starts + plan.segments.length
    kept = int(_count_true(documents.loss, starts, ends).sum())
    on_first = int(_count_true(documents.loss, starts, starts + 1).sum()) if config.isolate else 0
    whole = int(_count_true(documents.loss, documents.offsets[docs], documents.offsets[docs + 1]).sum())
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
        # The sums stop at the clipped edge, so the last value of the mask is added where it belongs to a range. A range
        # that is this one value alone has both edges clipped: then reduceat gives the value itself.
        out[is_full] = sums + (at_end & (inside[:, 0] < inside[:, 1])) * mask[-1]
    return out
