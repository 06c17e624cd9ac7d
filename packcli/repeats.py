"""How often each document of a mixture is taken, and which copies the segments of repeated documents belong to.

A component of A tokens of which W are wanted is taken W // A times whole, and once more in part: those documents whose
hash, a number in 0..2^32 made of seed, file and row, is below a threshold. With weights 0.75 and 0.25:

    component   tokens   wanted of 1,000   whole epochs   of the next
    web         3,000    750               0              a quarter of the documents
    code        100      250               2              half of them

The threshold is found on sums of tokens by hash, not on the number of documents, so that the share of tokens is met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 32
ALL = 1 << HASH_BITS
"""A threshold that every document is below."""

NUM_BUCKETS = 1 << 12
"""Ranges of hashes for which tokens are summed: the share is met to about one document's chance in 4,096."""

Ints = NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15


def row_hashes(rows: Ints, seed: int) -> Ints:
    """A number in 0..2^32 for each row, int64[D]: SplitMix64, the same wherever it runs."""
    value = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(seed)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    hashes: Ints = (value >> np.uint64(64 - HASH_BITS)).astype(np.int64)
    return hashes


def buckets_of(hashes: Ints) -> Ints:
    """Which of NUM_BUCKETS ranges each hash is in, int64[D]."""
    return hashes >> (HASH_BITS - NUM_BUCKETS.bit_length() + 1)


def largest_total(shares: Sequence[float], available: Sequence[int]) -> int:
    """Tokens of the largest mixture that takes nothing twice: the scarcest component is taken whole."""
    return int(min(tokens / share for share, tokens in zip(shares, available, strict=True)))


def plan_repeats(wanted: int, tokens: Ints) -> tuple[int, int]:
    """Whole epochs of a component, and the threshold of the epoch that is taken in part (0: none).

    Args:
        wanted: Tokens wanted of it.
        tokens: int64[NUM_BUCKETS], its tokens by hash.
    """
    available = int(tokens.sum())
    epochs, left = divmod(wanted, available)
    if not left:
        return epochs, 0
    ends = np.cumsum(tokens)
    bucket = int(np.searchsorted(ends, left, side="right"))
    before = int(ends[bucket - 1]) if bucket else 0
    width = ALL // NUM_BUCKETS
    return epochs, min(bucket * width + width * (left - before) // max(int(tokens[bucket]), 1), ALL - 1)


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


def number_copies(source: NDArray[np.integer], row: Ints, start: NDArray[np.integer], end: NDArray[np.integer]) -> Ints:
    """Which copy of its document each segment belongs to, int64[S], from 0.

    Copies of a document have the same tokens, and may be cut at other places. A segment goes on where another one of
    the same document ends; where several end, in order. What follows no segment begins a copy of its own.

        start, end   0 5   5 9   0 2   2 9   0 9
        copy         0     0     1     1     2        (or 0 and 1 the other way round)
    """
    size = len(row)
    if not size:
        return np.zeros(0, dtype=np.int64)
    by_document = np.lexsort((row, source))
    is_first = np.ones(size, dtype=np.bool_)
    is_first[1:] = (np.diff(source[by_document]) != 0) | (np.diff(row[by_document]) != 0)
    document = np.empty(size, dtype=np.int64)
    document[by_document] = np.cumsum(is_first) - 1
    width = int(end.max()) + 1
    begins, ends = document * width + start, document * width + end
    by_begin, by_end = np.lexsort((end, begins)), np.lexsort((start, ends))
    rank = np.empty(size, dtype=np.int64)  # among segments of the document that begin where this one does
    sorted_begins, sorted_ends = begins[by_begin], ends[by_end]
    rank[by_begin] = np.arange(size) - np.searchsorted(sorted_begins, sorted_begins)
    place = np.searchsorted(sorted_ends, begins) + rank
    follows = (start > 0) & (place < np.searchsorted(sorted_ends, begins, side="right"))
    root = np.where(follows, by_end[np.minimum(place, size - 1)], np.arange(size))
    while True:
        higher = root[root]
        if np.array_equal(higher, root):
            return rank[root]
        root = higher
