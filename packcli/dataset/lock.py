"""Who may write an output, and which ranks do."""

from __future__ import annotations

LOCK_WAIT_S = 0.3
"""A lock that another process only looks at is free again in no time; a run holds it for longer."""
