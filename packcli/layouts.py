"""What the same documents would take without packing, in ways that people train: one document a row.

Rows are what `split_documents` makes of the kept tokens: a document longer than max_len gives several. Example with
max_len 10, rows of 3, 9, 4, 1 tokens and batches of two:

    padded to max_len     10 10 10 10     40 positions for 17 tokens
    batches of 2           9  9 |  4  4   26
    sorted, batches of 2   3  3 |  9  9   24   (1 3 | 4 9)

Packing is compared with these: positions are what the linear layers work on, squared row lengths what attention does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from packcli.overlong import split_documents

BATCH_SIZES = (8, 32)

LAYOUTS = {f"{kind}-{size}": (kind == "sorted", size) for kind in ("batch", "sorted") for size in BATCH_SIZES}
"""Name -> whether rows are sorted by length first, and the rows of a batch."""


def measure_layouts(kept: NDArray[np.integer], max_len: int) -> dict[str, dict[str, int]]:
    """Positions and attention cost of documents of these lengths in each of LAYOUTS.

    Args:
        kept: integers [D], tokens of each document that the overlong policy keeps; 0 gives no row.
        max_len: Longest row.

    Returns:
        By layout: num_positions, and sum_squared_rows over rows padded to the longest of their batch.
    """
    rows = split_documents(kept, max_len).length.astype(np.int64)
    # Counting sorts: lengths are small numbers.
    in_order = np.repeat(np.arange(max_len + 1), np.bincount(rows, minlength=max_len + 1)) if len(rows) else rows
    found = {}
    for name, (is_sorted, size) in LAYOUTS.items():
        widths = _longest(in_order if is_sorted else rows, size)
        found[name] = {"num_positions": int(widths.sum()), "sum_squared_rows": int((widths**2).sum())}
    return found


def compare_layouts(
    layouts: Mapping[str, Mapping[str, int]],
    max_len: int,
    *,
    num_tokens: int,
    num_packs: int,
    num_rows: int,
    sum_squared_segments: int,
) -> dict[str, dict[str, float]]:
    """As packed, one document a row padded to max_len, and each of the layouts measured.

    Args:
        layouts: From measure_layouts; sums over units.
        max_len: Positions of a pack.
        num_tokens: Tokens that every layout holds.
        num_packs: Packs of max_len positions.
        num_rows: Rows without packing.
        sum_squared_segments: Attention cost as packed, documents isolated.

    Returns:
        By layout: num_positions, padding_ratio, and positions and attention cost as multiples of those as packed.
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
        for name, each in {"packed": packed, "padded": padded, **layouts}.items()
    }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def _longest(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """For each row, the longest of its batch of `size` consecutive ones, int64[R]; the last batch may be smaller."""
    if not len(rows):
        return rows
    starts = np.arange(0, len(rows), size)
    return np.repeat(np.maximum.reduceat(rows, starts), np.diff(np.append(starts, len(rows))))
