"""Shuffle-fit: few packs whose segments met by chance (fit), and what it costs (bias)."""

from __future__ import annotations
