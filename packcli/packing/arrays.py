"""Lists that lie one after the other in an array: where each begins, and the positions of some of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Where each list begins when lists of these lengths follow one another, and where the last one ends.

    Args:
        lengths: Numbers, [N].

    Returns:
        int64[N + 1]: lengths 3, 2 give 0, 3, 5.
    """
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def ranges(begin: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """The positions of several ranges, one range after the other.

    Args:
        begin: First position of each range, int[N].
        lengths: How many positions each has, int[N].

    Returns:
        int64[sum of lengths]: begin 7, 2 and lengths 3, 2 give 7, 8, 9, 2, 3.
    """
    ends = np.cumsum(lengths)
    out = np.repeat(begin - (ends - lengths), lengths)
    out += np.arange(len(out))
    return out
