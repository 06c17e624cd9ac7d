"""Figures as people want them. Makes values and text; prints nothing.

a packed directory   tables.report_tables    -> tables, also as CSV and Markdown; recount: counted anew
lengths              what_if.compare         -> what packing would give; what_if_tables: as tables
packs                packs.Inspector         -> segments and their text
a report             html.write_page         -> one HTML page;  summary: lines of the closing table
"""

from __future__ import annotations

from packcli.report.packs import Inspector, ShownSegment
from packcli.report.recount import Recount, recount
from packcli.report.summary import describe_records
from packcli.report.tables import Chart, Table, report_charts, report_tables, to_csv, to_markdown
from packcli.report.what_if import WhatIf, compare
from packcli.report.what_if_tables import what_if_tables

__all__ = [
    "Chart",
    "Inspector",
    "Recount",
    "ShownSegment",
    "Table",
    "WhatIf",
    "compare",
    "describe_records",
    "recount",
    "report_charts",
    "report_tables",
    "to_csv",
    "to_markdown",
    "what_if_tables",
]
