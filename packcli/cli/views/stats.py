"""Tables and histograms on a terminal: the views of `packcli stats`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from packcli.cli.views.results import show_lines, show_report
from packcli.dataset import Report
from packcli.errors import printable
from packcli.report import (
    Chart,
    Figures,
    Recount,
    Table,
    WhatIf,
    describe_records,
    report_charts,
    report_tables,
    what_if_tables,
)

MAX_SOURCES = 20
"""Rows of the table of sources on a terminal; --csv, --markdown and --json have them all."""
BAR_WIDTH = 40


def print_text(text: str) -> None:
    """Text for files and pipes, on stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


def show_figures(console: Console, figures: Figures) -> None:
    """What `stats` found."""
    if figures.what_if is not None:
        show_what_if(console, figures.what_if)
    else:
        show_reports(console, figures.reports, figures.recounts)


def show_reports(console: Console, reports: Sequence[Report], recounts: Sequence[Recount]) -> None:
    """One report in full, or several side by side."""
    tables = report_tables(reports, max_sources=MAX_SOURCES)
    if len(reports) == 1:
        show_report(console, reports[0], percentiles=True)
        for chart in report_charts(reports[0]):
            show_chart(console, chart)
        tables = [table for table in tables if table.name not in ("settings", "figures")]
    else:
        tables = [table for table in tables if table.name in ("settings", "figures", "layouts")]
    show_tables(console, tables)
    for report, counted in zip(reports, recounts, strict=False):
        show_recount(console, report, counted)


def show_tables(console: Console, tables: Sequence[Table]) -> None:
    """Each under its title. Columns that do not fit beside the others stand below them; nothing is cut."""
    for table in tables:
        console.print(f"\n[bold]{escape(printable(table.title))}[/]")
        if table.note:
            console.print(escape(printable(table.note)))
        for number, columns in enumerate(_blocks(table, console.width)):
            if number:
                console.print()
            console.print(_grid(table, columns))


def _blocks(table: Table, width: int) -> list[list[int]]:
    """The columns in as many blocks as the width asks for, each with the first column, which may be folded."""
    widths = [max(map(len, each)) for each in zip(table.columns, *_shown(table), strict=True)]
    first = min(widths[0], max(width // 2, 16))
    blocks: list[list[int]] = [[0]]
    used = first
    for place in range(1, len(widths)):
        if used + 2 + widths[place] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = first
        blocks[-1].append(place)
        used += 2 + widths[place]
    return blocks


def _shown(table: Table) -> list[list[str]]:
    return [[printable(str(cell)) for cell in row] for row in table.rows]


def _grid(table: Table, columns: Sequence[int]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for place in columns:
        is_text = place == 0 or all(row[place].kind == "text" for row in table.rows)
        grid.add_column(
            escape(printable(table.columns[place])),
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=place > 0,
        )
    for row in _shown(table):
        grid.add_row(*(escape(row[place]) for place in columns))
    return grid


def show_chart(console: Console, chart: Chart) -> None:
    """A histogram as horizontal bars, as wide as the terminal allows."""
    if not chart.bars:
        return
    console.print(f"\n[bold]{chart.title}[/] ({chart.of} by {chart.unit})")
    ranges = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high, _ in chart.bars]
    total, most = sum(count for *_, count in chart.bars), max(count for *_, count in chart.bars)
    left, middle = max(map(len, ranges)), max(len(f"{count:,}") for *_, count in chart.bars)
    width = max(min(BAR_WIDTH, console.width - left - middle - 12), 5)
    mark = "#" if console.options.ascii_only else "\u2588"
    for name, (*_, count) in zip(ranges, chart.bars, strict=True):
        bar = mark * max(round(width * count / most), 1 if count else 0)
        console.print(f"{name:>{left}}  {count:>{middle},}  {count / total:>6.1%}  [cyan]{bar}[/]", soft_wrap=True)


def show_recount(console: Console, report: Report, recount: Recount) -> None:
    """Whether the rows say what the report says."""
    loss = "" if recount.num_tokens_loss is None else f"; {recount.num_tokens_loss:,} tokens with loss"
    console.print(f"\n[bold]Recount[/] of {escape(printable(str(report.output)))}")
    if recount.not_counted:
        console.print(f"  not counted: {escape(recount.not_counted)}")
    for name, (reported, in_rows) in recount.differences.items():
        console.print(f"  [bold red]differs:[/] {name}: the report says {_short(reported)}, the rows {_short(in_rows)}")
    if not recount.differences:
        console.print(f"  {len(recount.totals)} figures are what the rows say{loss}")


def _short(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= 60 else f"{text[:60]}...")


def show_what_if(console: Console, what_if: WhatIf) -> None:
    """What packing would give: what was read, then the tables."""
    figures = what_if.as_dict()
    part = "" if figures["sample"] >= 1 else f", {figures['num_documents_measured']:,} of them measured"
    lines = [("documents", f"{figures['num_documents']:,}{part}"), ("tokens", f"{figures['num_tokens']:,}")]
    if what_if.is_masked:
        share = figures["num_loss_tokens"] / max(figures["num_tokens"], 1)
        lines.append(("records", describe_records(what_if.lengths.text)))
        lines.append(("loss", f"{figures['loss']}: {figures['num_loss_tokens']:,} tokens, {share:.2%}"))
        if roles := figures["tokens_by_role"]:
            lines.append(("words", ", ".join(f"{role} {count:,} tokens" for role, count in roles.items())))
    lines += [("overlong", figures["overlong_policy"]), ("tokenizer", figures["tokenizer"])]
    lines += [(name, f"{figures[key]:,} {what}") for key, (name, what) in NOTICES.items() if figures[key]]
    show_lines(console, lines)
    show_tables(console, what_if_tables(what_if, max_sources=MAX_SOURCES))


NOTICES = {
    "num_documents_empty": ("empty", "documents, which are not among the others"),
    "num_prompts_cut": ("warning", "prompts end inside a token, or are rendered otherwise on their own"),
    "num_documents_literals": ("control text", "documents: what spells a control token stays text"),
    "num_tokens_padding_in": ("padding in", "tokens of padding in the input are left out"),
}
"""Key of the what-if -> title and what it says, where there are any."""


def show_written(console: Console, path: Path) -> None:
    """A file that was written."""
    console.print(f"wrote {escape(printable(str(path)))}", soft_wrap=True)
