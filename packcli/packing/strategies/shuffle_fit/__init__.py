"""shuffle-fit: few packs, with segments put together at random (fit) and lengths that do not correlate (bias)."""

from __future__ import annotations
