"""What packing would give: lengths, planned by every strategy at every max_len, part by part as `pack` would.

The figures are those that `pack` would report. With a sample they are estimates, with 95 % intervals
from the spread of random halves of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.config import PackConfig
from packcli.config.choices import CANNOT_CAP_DOCS, quick_effort, strategy_label
from packcli.dataset import Stats
from packcli.errors import UsageError
from packcli.packing import OverlongDocumentError, Plan, rows_per_batch
from packcli.packing.strategies import STRATEGIES
from packcli.pipeline import (
    Joined,
    Lengths,
    loss_between,
    loss_of,
    plan_lengths,
    plan_seed,
    plan_split,
    with_loss,
)
from packcli.seeds import derive

RESAMPLES = 40
"""Random halves of a sample: enough for the ends of a 95 % interval to two digits."""

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
    """Too long, or without loss. Empty ones are not among them."""
    num_documents_no_loss: float
    """Of those, dropped because no token carries loss, or truncation left none."""
    num_tokens_lost: float
    """Truncated, or dropped with their document."""
    num_loss_tokens: float
    """Labels that are not -100."""
    num_loss_tokens_lost: float
    """Labels that whole documents would have and packs have not: tokens lost, and the first of each further segment."""
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


ESTIMATED = (
    "num_packs",
    "utilisation",
    "padding_ratio",
    "num_documents_cut",
    "num_documents_dropped",
    "num_documents_no_loss",
    "num_tokens_lost",
    "num_loss_tokens",
    "num_loss_tokens_lost",
    "num_bytes",
)
"""Figures that get an interval."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All figures made of the lengths of an input. Those in dicts are JSON values."""

    lengths: Lengths
    config: PackConfig
    """What the plans have in common."""
    outcomes: list[Outcome]
    """Strategy x max_len."""
    caps: list[Outcome]
    """Limits of documents a pack, for next-fit: whether the limit or the packing leaves padding."""
    overlong: list[dict[str, Any]]
    """By max_len: what truncate and drop would lose of the documents that are too long."""
    sources: list[dict[str, Any]]
    """By source and max_len: lengths, what is too long, and how it would pack on its own."""
    orders: list[dict[str, Any]]
    """Greedy packing (next-fit) on other orders of the input, by max_len."""

    @property
    def is_masked(self) -> bool:
        """Whether some tokens carry no loss."""
        return self.config.masked

    def as_dict(self) -> dict[str, Any]:
        """The object under "what_if" of --json."""
        lengths, stats, scale = self.lengths, self.lengths.stats, self.lengths.scale
        num_loss = int(loss_of(lengths.joined, np.arange(len(lengths.all)), self.config).sum())
        return {
            "num_documents": lengths.num_documents,
            "num_documents_empty": round(stats.num_documents_empty * scale),
            "num_documents_measured": len(lengths.all),
            "num_tokens": round(int(lengths.all.sum()) * scale),
            "num_loss_tokens": round(num_loss * scale),
            "num_prompts_cut": round(stats.num_prompts_cut * scale),
            "num_documents_literals": round(stats.num_documents_literals * scale),
            "num_tokens_padding_in": round(stats.num_tokens_padding_in * scale),
            "tokens_by_role": {role: round(count * scale) for role, count in stats.tokens_by_role.items()},
            "sample": lengths.sample,
            "format": self.config.format,
            "loss": self.config.loss,
            "overlong_policy": self.config.overlong,
            "tokenizer": lengths.tokenizer,
            "outcomes": [each.as_dict() for each in self.outcomes],
            "caps": [each.as_dict() for each in self.caps],
            "overlong": self.overlong,
            "sources": self.sources,
            "orders": self.orders,
        }


def compare(lengths: Lengths, max_lens: Sequence[int], strategies: Sequence[str] = (), **settings: Any) -> WhatIf:
    """Plans the lengths by every strategy at every max_len.

    Args:
        lengths: From measure. Its config has the overlong policy, max_docs_per_pack, effort, isolate and seed.
        max_lens: At least one.
        strategies: Names; all when empty.
        settings: Fields of the config to replace: none that the tokens depend on.

    Raises:
        UsageError: the policy is `error` and a document is too long, or a strategy cannot keep max_docs_per_pack.
    """
    config = dataclasses.replace(lengths.config, strategy="best-fit", balance=False, **settings)
    wanted = [dataclasses.replace(config, max_len=each) for each in max_lens]
    names = list(strategies) or [
        name for name in STRATEGIES if not (config.max_docs_per_pack and name in CANNOT_CAP_DOCS)
    ]
    joined = lengths.joined
    outcomes = [
        _outcome(lengths, joined, dataclasses.replace(each, strategy=name)) for each in wanted for name in names
    ]
    caps = [
        _outcome(lengths, joined, dataclasses.replace(each, strategy="next-fit", max_docs_per_pack=cap), False)
        for each in wanted
        for cap in (*DOCUMENT_CAPS, 0)
    ]
    return WhatIf(
        lengths,
        config,
        outcomes,
        caps,
        [_overlong(joined, each, lengths.scale) for each in wanted],
        list(_sources(lengths, joined, wanted)),
        [_orders(joined, each) for each in wanted],
    )


def _plan(lengths: NDArray[np.int64], config: PackConfig) -> Plan:
    with _overlong_explained(config):
        return plan_lengths(lengths, config, plan_seed(config, 0, 0, 0))


@contextlib.contextmanager
def _overlong_explained(config: PackConfig) -> Iterator[None]:
    """Turns an OverlongDocumentError into the UsageError that `compare` raises."""
    try:
        yield
    except OverlongDocumentError as error:
        raise UsageError(
            f"--overlong error: a document of {error.length:,} tokens is over --max-len {config.max_len}",
            "--overlong split, truncate or drop",
        ) from None


def _outcome(lengths: Lengths, joined: Joined, config: PackConfig, intervals: bool = True) -> Outcome:
    scale = lengths.scale
    outcome = _sum_up(joined, joined.together, config, scale)
    num_docs = len(joined.lengths)
    half_docs = num_docs // 2
    if lengths.sample >= 1.0 or not intervals or not half_docs:
        return outcome
    generator = np.random.Generator(np.random.PCG64(derive(config.seed, 8)))
    quick = dataclasses.replace(config, effort=quick_effort(config.strategy, config.effort))
    drawn = []
    for _ in range(RESAMPLES):
        is_drawn = np.zeros(num_docs, dtype=np.bool_)
        is_drawn[generator.permutation(num_docs)[:half_docs]] = True
        half = [(docs[is_drawn[docs]], place) for docs, place in joined.together]
        drawn.append(_sum_up(joined, half, quick, scale * num_docs / half_docs))
    # Halves vary as much as the sample does (a little more or less when its count is odd). A bootstrap would draw
    # documents twice, and two copies of one pack otherwise than two documents. The factor with `scale` corrects for a
    # finite population: the larger the share that was measured, the less is uncertain.
    shrink = float(np.sqrt(half_docs / (num_docs - half_docs) * max(1.0 - 1.0 / scale, 0.0)))
    intervals_of: dict[str, tuple[float, float]] = {}
    for name in ESTIMATED:
        value = getattr(outcome, name)
        margin = 1.96 * float(np.std([getattr(each, name) for each in drawn], ddof=1)) * shrink
        most = 1.0 if name in ("utilisation", "padding_ratio") else float("inf")
        intervals_of[name] = (max(value - margin, 0.0), min(value + margin, most))
    return dataclasses.replace(outcome, intervals=intervals_of)


def _sum_up(
    joined: Joined,
    together: Sequence[tuple[NDArray[np.int64], tuple[int, int, int]]],
    config: PackConfig,
    scale: float,
) -> Outcome:
    """Plans the documents of each split of each part, as pipeline.unit.run_unit does, and adds up the figures."""
    max_len = config.max_len
    stats = Stats()
    num_unfilled = 0.0
    num_cut = num_bytes = num_labels = 0
    for docs, place in together:
        with _overlong_explained(config):
            planned = plan_split(joined, docs, config, plan_seed(config, *place))
        stats += planned.stats
        num_cut += planned.num_cut
        num_bytes += shard_bytes(planned.plan)
        num_labels += int(loss_of(joined, docs, config).sum())
        if scale > 1.0 and config.strategy != "pad" and planned.plan.num_packs:
            # The emptiest pack is the last one of the sample: more documents would fill it, so only its tokens count.
            num_unfilled += 1.0 - int(planned.plan.pack_tokens.min()) / max_len
    num_packs = stats.num_packs - num_unfilled
    positions = num_packs * max_len
    utilisation = stats.num_tokens_packed / positions if positions else 0.0
    return Outcome(
        max_len=max_len,
        strategy=strategy_label(str(config.strategy)),
        max_docs_per_pack=config.max_docs_per_pack,
        num_packs=num_packs * scale,
        num_packs_above_lower_bound=(stats.num_packs - stats.sum_lower_bound) * scale,
        utilisation=utilisation,
        padding_ratio=1.0 - utilisation if positions else 0.0,
        num_documents_cut=num_cut * scale,
        num_documents_dropped=stats.num_documents_dropped * scale,
        num_documents_no_loss=(stats.num_documents_no_loss + stats.num_documents_no_loss_left) * scale,
        num_tokens_lost=stats.num_tokens_dropped * scale,
        num_loss_tokens=stats.num_tokens_loss * scale,
        num_loss_tokens_lost=(num_labels - stats.num_tokens_loss) * scale,
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


def _overlong(docs: Joined, config: PackConfig, scale: float) -> dict[str, Any]:
    """What becomes of documents that are too long, by each policy; also for a truncation that kept their ends."""
    max_len = config.max_len
    over = np.flatnonzero(docs.lengths > max_len)
    lengths = docs.lengths[over]
    ends = docs.offsets[over + 1]
    begins = ends - lengths
    whole = loss_between(docs, begins, ends, config)
    first, last = (
        loss_between(docs, begins, begins + max_len, config),
        loss_between(docs, ends - max_len, ends, config),
    )
    num_tokens, num_loss = int(docs.lengths.sum()), int(loss_of(docs, np.arange(len(docs.lengths)), config).sum())

    def share(part: int, all_: int) -> float:
        return round(part / all_, 6) if all_ else 0.0

    return {
        "max_len": max_len,
        "num_documents_over": round(len(over) * scale),
        "documents_over_ratio": share(len(over), len(docs.lengths)),
        "num_tokens_truncated": round(int((lengths - max_len).sum()) * scale),
        "truncated_ratio": share(int((lengths - max_len).sum()), num_tokens),
        "num_tokens_dropped": round(int(lengths.sum()) * scale),
        "dropped_ratio": share(int(lengths.sum()), num_tokens),
        "num_loss_tokens_truncated": round(int((whole - first).sum()) * scale),
        "loss_truncated_ratio": share(int((whole - first).sum()), num_loss),
        "num_loss_tokens_left_truncated": round(int((whole - last).sum()) * scale),
        "loss_left_truncated_ratio": share(int((whole - last).sum()), num_loss),
        "num_loss_tokens_dropped": round(int(whole.sum()) * scale),
        "loss_dropped_ratio": share(int(whole.sum()), num_loss),
        "num_documents_no_loss_left": round(int(((whole > 0) & (first == 0)).sum()) * scale),
    }


def _sources(lengths: Lengths, docs: Joined, configs: Sequence[PackConfig]) -> Iterator[dict[str, Any]]:
    scale = lengths.scale
    order = np.argsort(docs.source, kind="stable")
    ends = np.cumsum(np.bincount(docs.source, minlength=len(lengths.names)))
    groups = np.split(order, ends[:-1])
    there = [index for index, mine in enumerate(groups) if len(mine)]
    largest = sorted(there, key=lambda index: -int(docs.lengths[groups[index]].sum()))[:MAX_SOURCES_ALONE]
    offsets = docs.offsets
    for index in sorted(largest):
        mine = docs.lengths[groups[index]]
        p50, p95, p99 = np.percentile(mine, [50, 95, 99], method="inverted_cdf").tolist()
        loss = loss_of(docs, groups[index], configs[0])
        for config in configs:
            is_over = mine > config.max_len
            over = groups[index][is_over]
            first = loss_between(docs, offsets[over], offsets[over] + config.max_len, config)
            alone = None
            if len(largest) > 1:
                fitting = docs.lengths[with_loss(docs, groups[index], config)[0]]
                alone = _plan(fitting, dataclasses.replace(config, effort="fast")).utilisation
            yield {
                "name": lengths.names[index],
                "max_len": config.max_len,
                "num_documents": round(len(mine) * scale),
                "num_tokens": round(int(mine.sum()) * scale),
                "num_loss_tokens": round(int(loss.sum()) * scale),
                "length_p50": int(p50),
                "length_p95": int(p95),
                "length_p99": int(p99),
                "length_max": int(mine.max()),
                "num_documents_over": round(len(over) * scale),
                "truncated_ratio": round(float((mine[is_over] - config.max_len).sum() / mine.sum()), 6),
                "loss_truncated_ratio": round(float((loss[is_over] - first).sum() / max(int(loss.sum()), 1)), 6),
                "utilisation_alone": None if alone is None else round(alone, 6),
            }


def _orders(docs: Joined, config: PackConfig) -> dict[str, Any]:
    """Utilisation of next-fit in the order of the input, in random orders, and with the longest first."""
    config = dataclasses.replace(config, strategy="next-fit")
    lengths = docs.lengths[with_loss(docs, np.arange(len(docs.lengths)), config)[0]]
    generator = np.random.Generator(np.random.PCG64(derive(config.seed, 9)))
    shuffled = sorted(_plan(generator.permutation(lengths), config).utilisation for _ in range(ORDERS))
    return {
        "max_len": config.max_len,
        "strategy": "next-fit",
        "utilisation": round(_plan(lengths, config).utilisation, 6),
        "shuffled_low": round(shuffled[0], 6),
        "shuffled_high": round(shuffled[-1], 6),
        "longest_first": round(_plan(np.sort(lengths)[::-1], config).utilisation, 6),
    }
