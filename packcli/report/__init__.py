"""Figures as people want them. Makes values and text; prints nothing.

a packed directory   tables.report_tables    -> tables, also as CSV and Markdown;  recount: counted again from the rows
lengths              what_if.compare         -> what packing would give;  what_if_tables: the same as tables
packs                packs.read_packs        -> segments and their text
either               figures.Figures         -> what `packcli.stats` gives
a report             html.write_page         -> one HTML page;  summary: lines of the closing table
"""

from __future__ import annotations

from packcli.report.figures import Figures, asks_for_estimate, estimate, read_figures
from packcli.report.packs import DecodedPack, DecodedPacks, Inspector, ShownSegment, read_packs
from packcli.report.recount import Recount, recount
from packcli.report.summary import closing_lines, describe_records
from packcli.report.tables import Chart, Table, report_charts, report_tables, to_csv, to_markdown
from packcli.report.what_if import WhatIf, compare, what_if_tables

__all__ = [
    "Chart",
    "DecodedPack",
    "DecodedPacks",
    "Figures",
    "Inspector",
    "Recount",
    "ShownSegment",
    "Table",
    "WhatIf",
    "asks_for_estimate",
    "closing_lines",
    "compare",
    "describe_records",
    "estimate",
    "read_figures",
    "read_packs",
    "recount",
    "report_charts",
    "report_tables",
    "to_csv",
    "to_markdown",
    "what_if_tables",
]
