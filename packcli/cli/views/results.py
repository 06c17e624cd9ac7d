"""What a verb gave: the closing tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from packcli.cli.views.console import clean
from packcli.dataset import Report
from packcli.report import closing_lines
from packcli.verification import Absent, Verdict

if TYPE_CHECKING:
    from packcli.exports import Exported


ABSENT_SHOWN = 10
"""Documents that are in no pack, for each cause; --json has them all."""


def show_verdict(console: Console, verdict: Verdict) -> None:
    """What `packcli verify` found: one line a problem, then what was looked at, or what became of a row."""
    for problem in verdict.problems:
        place = f"{problem.file}: " if problem.file else ""
        console.print(f"[bold red]wrong:[/] {escape(clean(place + problem.what))}", soft_wrap=True)
    if verdict.restored is not None:
        row = verdict.restored
        way = "from its sources" if row.way == "sources" else f"by packing its unit again ({row.reason})"
        differs = any(problem.what.startswith("row ") for problem in verdict.problems)
        same = ("not " if differs else "") + f"the same bytes in {len(row)} columns"
        state = same if row.is_compared else "not compared: --json prints it"
        line = f"{verdict.output}: row {row.row} of {row.split} made again {way}: {state} ({verdict.seconds:.2f} s)"
        console.print(escape(clean(line)), soft_wrap=True)
        return
    by_cause: dict[str, list[Absent]] = {}
    for document in verdict.absent:
        by_cause.setdefault(document.cause.split(":")[0], []).append(document)
    for cause, documents in by_cause.items():
        console.print(f"in no pack: {len(documents):,} documents, {escape(cause)}")
        for each in documents[:ABSENT_SHOWN]:
            console.print(f"  {escape(clean(f'{each.source} row {each.row}: {each.cause}'))}", soft_wrap=True)
    looked = f"{verdict.num_shards:,} shards, {verdict.num_rows:,} rows, {verdict.num_tokens:,} tokens"
    if verdict.num_documents_compared:
        looked += f"; {verdict.num_documents_compared:,} documents tokenized again"
    if verdict.same_as is not None:
        looked += f"; compared with {verdict.same_as}"
    state = "sound" if verdict.is_sound else f"{len(verdict.problems):,} problems"
    console.print(escape(clean(f"{verdict.output}: {state} ({looked}; {verdict.seconds:.2f} s)")), soft_wrap=True)


def show_export(console: Console, found: Exported) -> None:
    """The closing table of an export."""
    show_lines(console, found.facts())


def show_report(console: Console, report: Report, *, percentiles: bool = False) -> None:
    """The closing table of a run.

    Args:
        console: Where to.
        report: What to show.
        percentiles: Whether to add balance and attention cost, as `packcli stats` does.
    """
    show_lines(console, closing_lines(report, percentiles=percentiles))


def show_lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    """Names in bold, and beside each what there is to say."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(name, escape(clean(value)))
    console.print(table)
