"""An output checked by itself: its files, then its rows."""

from __future__ import annotations

from packcli.dataset.checks.files import check_files
from packcli.dataset.checks.rows import CheckedShards, check_shards
from packcli.storage import Location


def check_output(output: Location) -> CheckedShards:
    """Looks at the files of an output, and at the rows where that makes sense."""
    packed, problems = check_files(output)
    checked = CheckedShards() if packed is None else check_shards(output, packed)
    checked.problems[:0] = problems
    return checked
