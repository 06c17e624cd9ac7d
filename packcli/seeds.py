"""Seeded random order that never changes: SplitMix64 in NumPy.

NumPy keeps the stream of a Generator only within a version (NEP 19), and the order of packs is part of
the bytes that packcli promises. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014; constants as in the reference C code by Vigna.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 32
ALL = 1 << HASH_BITS
"""A threshold that every number of row_hashes is below."""

Ints = NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

CHUNK = 1 << 16
"""Numbers made at once: they stay in the cache, and need no second array."""


def derive(*parts: int) -> int:
    """One 64-bit seed from several integers: derive(seed, unit, part) differs when any of them does."""
    state = 0
    for part in parts:
        state = (state + part + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def random_uint64(count: int, seed: int) -> NDArray[np.uint64]:
    """The first `count` outputs of SplitMix64 seeded with `seed`, uint64[count]."""
    out = np.arange(1, count + 1, dtype=np.uint64)
    for first in range(0, count, CHUNK):
        state = out[first : first + CHUNK]
        state *= np.uint64(_GOLDEN)
        state += np.uint64(seed & _MASK)
        _scramble(state)
    return out


def permutation(count: int, seed: int) -> NDArray[np.int64]:
    """A random order of range(count), count < 2^32, int64[count]; the same for ever for the same seed.

    Sorted by the upper 32 bits; equal ones (one pair in 2^32) stay in order. The number of each stands below its bits:
    so all values differ, any sort gives the same, and NumPy's sort of values is faster than that of indices.
    """
    keys = random_uint64(count, seed)
    keys &= np.uint64(0xFFFFFFFF << 32)
    for first in range(0, count, CHUNK):
        keys[first : first + CHUNK] |= np.arange(first, min(first + CHUNK, count), dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    return keys.view(np.int64)


def hash16(count: int, seed: int, part: int) -> NDArray[np.uint16]:
    """uint16[count] random keys to sort by."""
    keys: NDArray[np.uint16] = (random_uint64(count, derive(seed, part)) >> np.uint64(48)).astype(np.uint16)
    return keys


def row_hashes(rows: Ints, seed: int) -> Ints:
    """A number in 0..2^32 for each row, int64[D]: SplitMix64, the same wherever it runs."""
    value = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(seed)
    _scramble(value)
    hashes: Ints = (value >> np.uint64(64 - HASH_BITS)).astype(np.int64)
    return hashes


def sample_rows(rows: Ints, seed: int, share: float) -> NDArray[np.bool_]:
    """Which rows are in a random sample of about `share` of them, bool[D]; a row is in or out wherever it is read.

    Not by row_hashes: these choose in steps of 2^-32, a share is exact to 2^-53.
    """
    value = (rows.astype(np.uint64) + np.uint64(seed)) * np.uint64(_GOLDEN)
    _scramble(value)
    taken: NDArray[np.bool_] = (value >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return taken


def _scramble(state: NDArray[np.uint64]) -> None:
    """What SplitMix64 makes of its state to give a number, in place."""
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
