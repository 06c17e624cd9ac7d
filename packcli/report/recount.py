"""The figures of a report, counted again from the rows: what `stats --recount` compares the sidecars with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli.config.choices import IGNORE
from packcli.dataset import PackedDataset, Report, Stats, bucketed, histogram, kept_of_documents, measure_baselines
from packcli.packing import Sources, offsets
from packcli.packing.strategies import group_costs


@dataclass(frozen=True, slots=True)
class Recount:
    """What the rows say, and where the report says otherwise."""

    totals: dict[str, Any]
    """Counted from the rows, under the names of stats.json."""
    num_tokens_loss: int | None
    """Labels that are not -100; None without the column."""
    differences: dict[str, tuple[Any, Any]]
    """Name -> what the report says, what the rows say."""
    not_counted: str
    """Why the other figures cannot be counted from the rows; empty when all can."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "num_figures": len(self.totals),
            "num_tokens_loss": self.num_tokens_loss,
            "differences": {name: {"report": pair[0], "rows": pair[1]} for name, pair in self.differences.items()},
            "not_counted": self.not_counted,
        }


def recount(report: Report, emit: Callable[[int], None] = lambda num_rows: None) -> Recount:
    """Reads every row of a finished output.

    Args:
        report: The report that the rows are compared with.
        emit: Called with the number of rows read so far.

    Raises:
        StorageError: a shard is damaged.
    """
    packed = PackedDataset(report.output)
    total, num_loss, num_rows = Stats(), 0, 0
    for split in packed.num_rows:
        for _, batches in packed.shards(split):  # packs are planned shard by shard, so groups never cross one
            read: list[Sources] = []
            for batch in batches:
                num_rows += batch.num_rows
                if batch.labels is not None:
                    num_loss += int(np.count_nonzero(batch.labels.values != IGNORE))
                if batch.sources is not None:
                    read.append(batch.sources)
                emit(num_rows)
            if read:
                total += _count(read, split, packed.config.max_len)
    has_labels = "labels" in packed.config.written_columns
    if "sources" in packed.config.columns:
        is_mixed = "mix" in packed.manifest
        unknown = {"num_tokens_loss": not has_labels, "layouts": is_mixed}
        names = tuple(name for name in COUNTED if not unknown.get(name))
        missing, total.num_tokens_loss = "a mixture has no order of input" if is_mixed else "", num_loss
    else:
        total.num_packs = num_rows
        names, missing = ("num_packs",), "the rows have no column 'sources'"
    counted, reported = total.as_dict(), report.stats.as_dict()
    reported["by_split"] = {split: each for split, each in reported["by_split"].items() if each["num_packs"]}
    differences = {name: (reported[name], counted[name]) for name in names if reported[name] != counted[name]}
    return Recount({name: counted[name] for name in names}, num_loss if has_labels else None, differences, missing)


COUNTED: tuple[str, ...] = (
    "num_documents_packed",
    "num_documents_split",
    "num_tokens_packed",
    "num_tokens_padding",
    "num_tokens_loss",
    "num_rows_unpacked",
    "num_segments",
    "num_packs",
    "sum_squared_segments",
    "num_groups",
    "sum_group_cost",
    "max_group_cost",
    "segments_by_length",
    "packs_by_documents",
    "layouts",
    "by_split",
)
"""Figures of stats.json that follow from rows with the column `sources`."""


def _count(read: Sequence[Sources], split: str, max_len: int) -> Stats:
    lengths = np.concatenate([each.end - each.start for each in read]).astype(np.int64)
    counts = np.concatenate([np.diff(each.offsets) for each in read])
    kept, num_segments = kept_of_documents(read)
    costs = np.diff(offsets(lengths**2)[offsets(counts)])
    groups = group_costs(costs)
    num_tokens, num_packs = int(lengths.sum()), len(counts)
    return Stats(
        num_documents_packed=len(kept),
        num_documents_split=int((num_segments > 1).sum()),
        num_tokens_packed=num_tokens,
        num_tokens_padding=num_packs * max_len - num_tokens,
        num_rows_unpacked=int((-(-kept // max_len)).sum()),
        num_segments=len(lengths),
        num_packs=num_packs,
        sum_squared_segments=int(costs.sum()),
        num_groups=len(groups),
        sum_group_cost=int(groups.sum()),
        max_group_cost=int(groups.max(initial=0)),
        segments_by_length=histogram(bucketed(lengths)),
        packs_by_documents=histogram(counts),
        layouts=measure_baselines(kept, max_len),
        by_split={split: {"num_documents": len(kept), "num_packs": num_packs, "num_tokens_packed": num_tokens}},
    )
