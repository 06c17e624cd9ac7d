"""best-fit: several planners, of which the plan with the fewest packs is taken (see portfolio)."""

from __future__ import annotations
