"""What packing would give: lengths, planned by every strategy at every max_len, part by part as `pack` would.

The figures are those that `pack` would report. With a sample they are estimates, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.assemble import rows_per_batch
from packcli.config import CANNOT_CAP_DOCS, PackConfig, strategy_label
from packcli.errors import UsageError
from packcli.hooks import find_strategy
from packcli.measuring import ANY_DATE, Lengths
from packcli.overlong import kept_lengths
from packcli.planner import Plan, make_plan
from packcli.strategies import STRATEGIES
from packcli.strategies.random import mix

RESAMPLES = 40
"""Resamples of the bootstrap: enough for the ends of a 95 % interval to two digits."""

DOCUMENT_CAPS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Limits of documents a pack that the table of caps tries."""

ORDERS = 5
"""Random orders that greedy packing is tried with."""

MAX_SOURCES_ALONE = 64
"""Sources that are planned on their own, at most: those with the most tokens."""

PACKED_BYTES = 4 * 3
"""Bytes of a position in input_ids, labels and position_ids."""
SOURCE_BYTES = 20
"""Bytes of an entry of sources."""
BATCH_BYTES, SHARD_BYTES = 790, 1660
"""Bytes of the header of a record batch and of a shard, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one strategy would give at one max_len. Counts are scaled up when only a sample was measured."""

    max_len: int
    strategy: str
    max_docs_per_pack: int
    num_packs: float
    num_packs_above_lower_bound: float
    utilisation: float
    padding_ratio: float
    num_documents_cut: float
    """Split or truncated."""
    num_documents_dropped: float
    num_tokens_lost: float
    """Truncated, or dropped with their document."""
    num_loss_tokens_lost: float
    """Labels that whole documents would have and packs have not: tokens lost, and the first of each further piece."""
    num_bytes: float
    """Of the shards with all columns, about."""
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """Figure -> ends of its 95 % interval; empty when everything was measured."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **dataclasses.asdict(self),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
        }


ESTIMATED = ("num_packs", "utilisation", "padding_ratio", "num_documents_cut", "num_tokens_lost", "num_bytes")
"""Figures that get an interval."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All that the lengths of an input say; JSON values but for outcomes."""

    lengths: Lengths
    outcomes: list[Outcome]
    """Strategy x max_len."""
    caps: list[Outcome]
    """Limits of documents a pack, for next-fit: whether the limit or the packing leaves padding."""
    overlong: list[dict[str, Any]]
    """By max_len: what truncate and drop would lose."""
    sources: list[dict[str, Any]]
    """By source and max_len: lengths, what is too long, and how it would pack on its own."""
    orders: list[dict[str, Any]]
    """Greedy packing (next-fit) on other orders of the input, by max_len."""

    def as_dict(self) -> dict[str, Any]:
        """The object under "what_if" of --json."""
        return {
            "num_documents": self.lengths.num_documents,
            "num_documents_empty": sum(part.num_empty for part in self.lengths.parts),
            "num_documents_measured": len(self.lengths.all),
            "num_tokens": round(int(self.lengths.all.sum()) * self.lengths.scale),
            "sample": self.lengths.sample,
            "tokenizer": self.lengths.tokenizer,
            "outcomes": [each.as_dict() for each in self.outcomes],
            "caps": [each.as_dict() for each in self.caps],
            "overlong": self.overlong,
            "sources": self.sources,
            "orders": self.orders,
        }


def compare(lengths: Lengths, config: PackConfig, max_lens: Sequence[int], strategies: Sequence[str] = ()) -> WhatIf:
    """Plans the lengths by every strategy at every max_len.

    Args:
        lengths: From measure.
        config: Overlong policy, max_docs_per_pack, effort, isolate, seed.
        max_lens: At least one.
        strategies: Names; all when empty.

    Raises:
        UsageError: the policy is `error` and a document is too long, or a strategy cannot keep max_docs_per_pack.
    """
    config = config.resolved("text", ANY_DATE)
    longest = int(lengths.all.max())
    if config.overlong == "error" and longest > min(max_lens):
        raise UsageError(
            f"--overlong error: a document of {longest:,} tokens is over --max-len {min(max_lens)}",
            "--overlong split, truncate or drop",
        )
    wanted = [dataclasses.replace(config, max_len=each, strategy="best-fit", balance=False) for each in max_lens]
    names = list(strategies) or [
        name for name in STRATEGIES if not (config.max_docs_per_pack and name in CANNOT_CAP_DOCS)
    ]
    outcomes = [_outcome(lengths, dataclasses.replace(each, strategy=name)) for each in wanted for name in names]
    caps = [
        _outcome(lengths, dataclasses.replace(each, strategy="next-fit", max_docs_per_pack=cap), False)
        for each in wanted
        for cap in (*DOCUMENT_CAPS, 0)
    ]
    return WhatIf(
        lengths,
        outcomes,
        caps,
        [_overlong(lengths, each.max_len) for each in wanted],
        list(_sources(lengths, wanted)),
        [_orders(lengths, each) for each in wanted],
    )


def _plan(lengths: NDArray[np.int64], config: PackConfig, *place: int) -> Plan:
    return make_plan(
        lengths,
        config.max_len,
        strategy=find_strategy(config),
        overlong=str(config.overlong),
        max_docs_per_pack=config.max_docs_per_pack,
        effort=config.effort,
        seed=mix(config.seed, *place),
    )


def _outcome(lengths: Lengths, config: PackConfig, intervals: bool = True) -> Outcome:
    scale = lengths.scale
    parts = [part.lengths for part in lengths.parts]
    plans = [_plan(part.lengths, config, part.unit, part.part, 0) for part in lengths.parts]
    outcome = _sum_up(parts, plans, config, scale)
    if lengths.sample >= 1.0 or not intervals:
        return outcome
    generator = np.random.Generator(np.random.PCG64(mix(config.seed, 8)))
    drawn = []
    for _ in range(RESAMPLES):
        # Sorted indices: documents stay in the order of the input.
        again = [part[np.sort(generator.integers(0, len(part), len(part)))] if len(part) else part for part in parts]
        fast = dataclasses.replace(config, effort="fast")
        drawn.append(_sum_up(again, [_plan(each, fast, 0, 0, 0) for each in again], config, scale))
    # The middle of resamples is biased: documents that are drawn twice pack worse. Their spread is not.
    # A sample of F of all documents knows F of them: the correction for a finite population.
    shrink = float(np.sqrt(max(1.0 - 1.0 / scale, 0.0)))
    found: dict[str, tuple[float, float]] = {}
    for name in ESTIMATED:
        value = getattr(outcome, name)
        half = 1.96 * float(np.std([getattr(each, name) for each in drawn], ddof=1)) * shrink
        most = 1.0 if name in ("utilisation", "padding_ratio") else float("inf")
        found[name] = (max(value - half, 0.0), min(value + half, most))
    return dataclasses.replace(outcome, intervals=found)


def _sum_up(parts: Sequence[NDArray[np.int64]], plans: Sequence[Plan], config: PackConfig, scale: float) -> Outcome:
    max_len = config.max_len
    num_packs = 0.0
    num_cut = num_dropped = num_lost = num_kept = num_segments = above = num_packed = num_bytes = 0
    for lengths, plan in zip(parts, plans, strict=True):
        kept = kept_lengths(lengths, max_len, str(config.overlong))
        pieces = np.bincount(plan.segments.doc, minlength=len(lengths))
        num_cut += int(((pieces > 1) | ((kept < lengths) & (kept > 0))).sum())
        num_dropped += int((kept == 0).sum())
        num_kept += int((kept > 0).sum())
        num_lost += int((lengths - kept).sum())
        num_segments += len(plan.segments)
        num_packs += plan.num_packs
        if scale > 1.0 and config.strategy != "pad" and plan.num_packs:
            # The one pack that is part-filled belongs to the sample: more documents would fill it.
            num_packs -= 1.0 - int(plan.pack_tokens.min()) / max_len
        above += plan.num_packs - plan.lower_bound
        num_packed += plan.num_tokens
        num_bytes += shard_bytes(plan)
    further = (num_segments - num_kept) if config.isolate else 0
    positions = num_packs * max_len
    utilisation = num_packed / positions if positions else 0.0
    # The first token of a dropped document would have no label either.
    lost_labels = num_lost - (num_dropped if config.isolate else 0)
    return Outcome(
        max_len=max_len,
        strategy=strategy_label(str(config.strategy)),
        max_docs_per_pack=config.max_docs_per_pack,
        num_packs=num_packs * scale,
        num_packs_above_lower_bound=above * scale,
        utilisation=utilisation,
        padding_ratio=1.0 - utilisation if positions else 0.0,
        num_documents_cut=num_cut * scale,
        num_documents_dropped=num_dropped * scale,
        num_tokens_lost=num_lost * scale,
        num_loss_tokens_lost=(lost_labels + further) * scale,
        num_bytes=num_bytes * scale,
    )


def shard_bytes(plan: Plan) -> int:
    """Bytes of the shard of a plan with all columns, documents isolated, about."""
    num_padded = int((plan.pack_tokens < plan.max_len).sum())
    values = plan.num_packs * plan.max_len * PACKED_BYTES + 4 * (len(plan.segments) + num_padded)
    num_batches = -(-plan.num_packs // rows_per_batch(plan.max_len))
    offsets = 4 * 5 * (plan.num_packs + num_batches)
    headers = BATCH_BYTES * num_batches + (SHARD_BYTES if num_batches else 0)
    return values + SOURCE_BYTES * len(plan.segments) + offsets + headers


def _overlong(lengths: Lengths, max_len: int) -> dict[str, Any]:
    docs, scale = lengths.all, lengths.scale
    over = docs[docs > max_len]
    return {
        "max_len": max_len,
        "num_documents_over": round(len(over) * scale),
        "documents_over_ratio": round(len(over) / len(docs), 6),
        "num_tokens_truncated": round(int((over - max_len).sum()) * scale),
        "truncated_ratio": round(float((over - max_len).sum() / docs.sum()), 6),
        "num_tokens_dropped": round(int(over.sum()) * scale),
        "dropped_ratio": round(float(over.sum() / docs.sum()), 6),
    }


def _sources(lengths: Lengths, configs: Sequence[PackConfig]) -> Iterator[dict[str, Any]]:
    docs, scale = lengths.all, lengths.scale
    order = np.argsort(lengths.sources, kind="stable")
    ends = np.cumsum(np.bincount(lengths.sources, minlength=len(lengths.names)))
    groups = np.split(docs[order], ends[:-1])
    there = [index for index, mine in enumerate(groups) if len(mine)]
    largest = sorted(there, key=lambda index: -int(groups[index].sum()))[:MAX_SOURCES_ALONE]
    for index in sorted(largest):
        mine = groups[index]
        p50, p95, p99 = np.percentile(mine, [50, 95, 99], method="inverted_cdf").tolist()
        for config in configs:
            over = mine[mine > config.max_len]
            alone = _plan(mine, dataclasses.replace(config, effort="fast"), 0).utilisation if len(largest) > 1 else None
            yield {
                "name": lengths.names[index],
                "max_len": config.max_len,
                "num_documents": round(len(mine) * scale),
                "num_tokens": round(int(mine.sum()) * scale),
                "length_p50": int(p50),
                "length_p95": int(p95),
                "length_p99": int(p99),
                "length_max": int(mine.max()),
                "num_documents_over": round(len(over) * scale),
                "truncated_ratio": round(float((over - config.max_len).sum() / mine.sum()), 6),
                "utilisation_alone": None if alone is None else round(alone, 6),
            }


def _orders(lengths: Lengths, config: PackConfig) -> dict[str, Any]:
    """Utilisation of next-fit in the order of the input, in random orders, and with the longest first."""
    config = dataclasses.replace(config, strategy="next-fit")
    docs = lengths.all
    generator = np.random.Generator(np.random.PCG64(mix(config.seed, 9)))
    shuffled = sorted(_plan(generator.permutation(docs), config, 0).utilisation for _ in range(ORDERS))
    return {
        "max_len": config.max_len,
        "strategy": "next-fit",
        "utilisation": round(_plan(docs, config, 0).utilisation, 6),
        "shuffled_low": round(shuffled[0], 6),
        "shuffled_high": round(shuffled[-1], 6),
        "longest_first": round(_plan(np.sort(docs)[::-1], config, 0).utilisation, 6),
    }
