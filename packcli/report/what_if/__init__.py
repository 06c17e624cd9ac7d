"""What packing would give, from the lengths of documents alone.

lengths      comparison.compare        -> WhatIf: figures of every strategy at every max_len
WhatIf       tables.what_if_tables     -> the same as tables
"""

from __future__ import annotations

from packcli.report.what_if.comparison import DOCUMENT_CAPS, Outcome, WhatIf, compare
from packcli.report.what_if.tables import what_if_tables

__all__ = ["DOCUMENT_CAPS", "Outcome", "WhatIf", "compare", "what_if_tables"]
