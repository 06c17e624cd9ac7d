"""Best-fit: few packs, by several planners of which the best plan is taken (see portfolio)."""

from __future__ import annotations
