"""The figures that people read, made of counts; and packing compared with baselines, which do not pack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.dataset.stats import Histogram, Stats
from packcli.packing import split_documents
from packcli.packing.strategies import count_bound

BATCH_SIZES = (8, 32)

BASELINES = {f"{kind}-{size}": (kind == "sorted", size) for kind in ("batch", "sorted") for size in BATCH_SIZES}
"""Name -> whether rows are sorted by length first, and the rows of a batch."""

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def measure_baselines(kept: NDArray[np.integer], max_len: int) -> dict[str, dict[str, int]]:
    """Positions and attention cost of documents of these lengths in each of BASELINES.

    Args:
        kept: integers [D], tokens of each document that the overlong policy keeps; 0 gives no row.
        max_len: Longest row.

    Returns:
        By baseline: num_positions, and sum_squared_rows over rows padded to the longest of their batch.
    """
    rows = split_documents(kept, max_len).length.astype(np.int64)
    # Counting sorts: lengths are small numbers.
    in_order = np.repeat(np.arange(max_len + 1), np.bincount(rows, minlength=max_len + 1)) if len(rows) else rows
    baselines = {}
    for name, (is_sorted, size) in BASELINES.items():
        widths = _longest(in_order if is_sorted else rows, size)
        baselines[name] = {"num_positions": int(widths.sum()), "sum_squared_rows": int((widths**2).sum())}
    return baselines


def compare_baselines(
    measured: Mapping[str, Mapping[str, int]],
    max_len: int,
    *,
    num_tokens: int,
    num_packs: int,
    num_rows: int,
    sum_squared_segments: int,
) -> dict[str, dict[str, float]]:
    """As packed, one document a row padded to max_len, and each of the baselines that were measured.

    Args:
        measured: From measure_baselines; sums over units.
        max_len: Positions of a pack.
        num_tokens: Tokens that every baseline holds.
        num_packs: Packs of max_len positions.
        num_rows: Rows without packing.
        sum_squared_segments: Attention cost as packed, documents isolated.

    Returns:
        By baseline: num_positions, padding_ratio, and positions and attention cost as multiples of those as packed.
    """
    packed = {"num_positions": num_packs * max_len, "sum_squared_rows": sum_squared_segments}
    padded = {"num_positions": num_rows * max_len, "sum_squared_rows": num_rows * max_len**2}
    return {
        name: {
            "num_positions": each["num_positions"],
            "padding_ratio": _ratio(each["num_positions"] - num_tokens, each["num_positions"]),
            "positions_of_packed": _ratio(each["num_positions"], packed["num_positions"]),
            "attention_of_packed": _ratio(each["sum_squared_rows"], packed["sum_squared_rows"]),
        }
        for name, each in {"packed": packed, "padded": padded, **measured}.items()
    }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def _longest(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """For each row, the longest of its batch of `size` consecutive ones, int64[R]; the last batch may be smaller."""
    if not len(rows):
        return rows
    starts = np.arange(0, len(rows), size)
    return np.repeat(np.maximum.reduceat(rows, starts), np.diff(np.append(starts, len(rows))))


def reached(mix: Mapping[str, Any], by_source: Mapping[int, Mapping[str, int]]) -> list[dict[str, Any]]:
    """What became of the shares, by component.

    Args:
        mix: Of the manifest.
        by_source: Of the stats: counts of every input file.
    """
    counted = []
    for each in mix["components"]:
        files = range(each["first_source"], each["first_source"] + each["num_sources"])
        counts = [by_source.get(index, {}) for index in files]
        counted.append([sum(count.get(key, 0) for count in counts) for key in ("num_documents", "num_tokens_packed")])
    total = max(sum(tokens for _, tokens in counted), 1)
    return [
        {
            "name": each["name"],
            "wanted_ratio": round(each["share"], 6),
            "reached_ratio": round(tokens / total, 6),
            "epochs": round(tokens / each["num_tokens"], 6),
            "num_documents": documents,
            "num_tokens": tokens,
            "num_documents_available": each["num_documents"],
            "num_tokens_available": each["num_tokens"],
        }
        for each, (documents, tokens) in zip(mix["components"], counted, strict=True)
    ]


def quantiles(counts: Histogram) -> dict[str, int]:
    """The values at QUANTILES (nearest rank), keyed p0, p1, ... p100; empty for no values."""
    if not counts:
        return {}
    values = sorted(counts)
    ranks = np.cumsum([counts[value] for value in values])
    total = int(ranks[-1])
    return {
        f"p{quantile * 100:g}": values[int(np.searchsorted(ranks, max(1, int(np.ceil(quantile * total)))))]
        for quantile in QUANTILES
    }


def derived(stats: Stats, max_len: int, max_docs: int = 0) -> dict[str, Any]:
    """The figures that people read, from the sums. Ratios lie in 0..1 (but for group costs) and have 6 decimals."""

    def ratio(part: float, whole: float) -> float:
        return round(part / whole, 6) if whole else 0.0

    positions = stats.num_packs * max_len
    alone = stats.num_rows_unpacked * max_len
    total = stats.num_tokens_in + stats.num_tokens_special
    return {
        "utilisation": ratio(stats.num_tokens_packed, positions),
        "padding_ratio": ratio(stats.num_tokens_padding, positions),
        "padding_ratio_unpacked": ratio(alone - stats.num_tokens_packed, alone),
        "num_packs_above_lower_bound": stats.num_packs - stats.sum_lower_bound,
        "num_packs_for_windows": _window_packs(stats, max_len, max_docs),
        "drop_ratio": ratio(stats.num_tokens_dropped, total),
        "loss_ratio": ratio(stats.num_tokens_loss, stats.num_tokens_packed),
        "split_ratio": ratio(stats.num_documents_split, stats.num_documents_packed),
        "group_cost_max_ratio": ratio(stats.max_group_cost * stats.num_groups, stats.sum_group_cost),
        "group_cost_max_ratio_unbalanced": ratio(
            stats.max_group_cost_unbalanced * stats.num_groups, stats.sum_group_cost
        ),
        "attention_ratio": ratio(stats.sum_squared_segments, stats.num_packs * max_len**2),
        "mean_documents_per_pack": ratio(stats.num_segments, stats.num_packs),
        "mean_document_length": ratio(total, stats.num_documents),
        "document_length": quantiles(stats.documents_by_length),
        "segment_length": quantiles(stats.segments_by_length),
        "documents_per_pack": quantiles(stats.packs_by_documents),
        "layouts": compare_baselines(
            stats.layouts,
            max_len,
            num_tokens=stats.num_tokens_packed,
            num_packs=stats.num_packs,
            num_rows=stats.num_rows_unpacked,
            sum_squared_segments=stats.sum_squared_segments,
        ),
    }


def _window_packs(stats: Stats, max_len: int, max_docs: int) -> int:
    """What planning part by part costs at most: packs that the parts need, less those that the whole needs."""
    if stats.num_parts <= 1:
        return 0
    lengths = np.zeros(max_len + 1, dtype=np.int64)
    for length, count in stats.segments_by_length.items():
        lengths[length] = count  # long ones stand in a bucket of shorter ones: the bound is a little too low
    whole = max(count_bound(lengths, max_len, max_docs), -(-stats.num_tokens_packed // max_len))
    return max(stats.sum_lower_bound - whole, 0)
