"""Tables -> Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from packcli.tables import Table
from packcli.visible import visible

CSV_COLUMNS = ("table", "row", "column", "value", "low", "high")
"""One line a figure. low and high: the ends of the confidence interval of an estimate, else empty."""


def to_csv(tables: Iterable[Table]) -> str:
    """All figures as CSV (RFC 4180), one a line, unrounded; the columns are CSV_COLUMNS."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for name, *cells in table.rows:
            for column, cell in zip(table.columns[1:], cells, strict=True):
                title = f"{table.name}{table.title.partition(':')[2]}"
                writer.writerow([_inert(each) for each in (title, name.value, column, cell.value, cell.low, cell.high)])
    return out.getvalue()


def _inert(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front, as spreadsheets write it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def to_markdown(tables: Iterable[Table]) -> str:
    """The tables in GitHub's Markdown; text from strangers is escaped."""
    parts = []
    for table in tables:
        head = [f"## {_escape(table.title)}", ""] if table.title else []
        if table.note:
            head += [_escape(table.note), ""]
        rule = "|".join(["---", *("---:" for _ in table.columns[1:])])
        lines = ["| " + " | ".join(map(_escape, table.columns)) + " |", f"|{rule}|"]
        lines += ["| " + " | ".join(_escape(str(cell)) for cell in row) + " |" for row in table.rows]
        parts.append("\n".join(head + lines))
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"[\\<>&|`*_\[\]#~]", _entity, visible(text))


def _entity(match: re.Match[str]) -> str:
    """HTML's entities for what is HTML, a backslash for what is Markdown."""
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[0], f"\\{match[0]}")
