"""What people see: closing tables, progress, warnings, errors. The only file that knows rich.

Everything here goes to stderr; stdout holds results for machines only (`print_json`).
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from packcli.errors import PackcliError
from packcli.formats import REQUIRED
from packcli.pipeline import Started, Warned
from packcli.repeats import reached
from packcli.report import Report
from packcli.verify import Absent, Verdict
from packcli.visible import visible
from packcli.work import Progress as ProgressEvent

if TYPE_CHECKING:
    from packcli.exports import Exported

LOG_EVERY_S = 10.0
PLAIN_WIDTH = 200
"""Columns of a log file; a terminal knows its own."""


class PipedConsole(Console):
    """A console that leaves the end of a pipe to the command line; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        """A pager that was left, or head."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def make_console() -> Console:
    """A console on stderr that honours NO_COLOR and never fails on a character that the terminal lacks."""
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="backslashreplace")
    return PipedConsole(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PLAIN_WIDTH)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, indent=1) + "\n")
    sys.stdout.flush()  # a closed pipe is noticed here, not at exit


def show_error(console: Console, error: PackcliError) -> None:
    """What is wrong, and what to do about it."""
    console.print(f"[bold red]error:[/] {escape(_clean(error.message))}")
    if error.hint:
        console.print(f"  {escape(_clean(error.hint))}")


def show_interrupted(console: Console, command: list[str] | None) -> None:
    """One line, with the command that resumes, to be copied; None where nothing is to be resumed."""
    resume = "" if command is None else f": committed units are kept, resume with: {shlex.join(command)}"
    console.print(f"interrupted{escape(_clean(resume))}", soft_wrap=True)


ABSENT_SHOWN = 10
"""Documents that are in no pack, for each cause; --json has them all."""


def show_verdict(console: Console, verdict: Verdict) -> None:
    """What `packcli verify` found: one line a problem, then what was looked at, or what became of a row."""
    for problem in verdict.problems:
        place = f"{problem.file}: " if problem.file else ""
        console.print(f"[bold red]wrong:[/] {escape(_clean(place + problem.what))}", soft_wrap=True)
    if verdict.restored is not None:
        row = verdict.restored
        way = "from its sources" if row.way == "sources" else f"by packing its unit again ({row.reason})"
        differs = any(problem.what.startswith("row ") for problem in verdict.problems)
        same = ("not " if differs else "") + f"the same bytes in {len(row)} columns"
        state = same if row.is_compared else "not compared: --json prints it"
        line = f"{verdict.output}: row {row.row} of {row.split} made again {way}: {state} ({verdict.seconds:.2f} s)"
        console.print(escape(_clean(line)), soft_wrap=True)
        return
    by_cause: dict[str, list[Absent]] = {}
    for document in verdict.absent:
        by_cause.setdefault(document.cause.split(":")[0], []).append(document)
    for cause, documents in by_cause.items():
        console.print(f"in no pack: {len(documents):,} documents, {escape(cause)}")
        for each in documents[:ABSENT_SHOWN]:
            console.print(f"  {escape(_clean(f'{each.source} row {each.row}: {each.cause}'))}", soft_wrap=True)
    looked = f"{verdict.num_shards:,} shards, {verdict.num_rows:,} rows, {verdict.num_tokens:,} tokens"
    if verdict.num_documents_compared:
        looked += f"; {verdict.num_documents_compared:,} documents tokenized again"
    if verdict.same_as is not None:
        looked += f"; compared with {verdict.same_as}"
    state = "sound" if verdict.is_sound else f"{len(verdict.problems):,} problems"
    console.print(escape(_clean(f"{verdict.output}: {state} ({looked}; {verdict.seconds:.2f} s)")), soft_wrap=True)


def show_warning(console: Console, message: str) -> None:
    """Something that the user should know, and that is no error."""
    console.print(f"[yellow]warning:[/] {escape(_clean(message))}")


def _clean(text: str) -> str:
    """Control characters of names and of text from strangers, made visible.

    Only a new line with our own indent is one: a name that holds a newline cannot begin a line.
    """
    lines = text.split("\n    ")
    return "\n    ".join(map(visible, lines))


class ProgressDisplay:
    """Shows events: a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet."""

    def __init__(self, console: Console, *, quiet: bool, doing: str = "packing") -> None:
        self._console = console
        self._quiet = quiet
        self._doing = self._now = doing
        self._bar: Progress | None = None
        self._total = self._bytes = self._documents = 0
        self._began = self._logged = time.monotonic()
        self._begin_bytes = 0

    def __enter__(self) -> ProgressDisplay:
        """Nothing is drawn before the first event."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: object) -> None:
        """Takes an event of the pipeline."""
        if isinstance(event, Warned) and not self._quiet:
            show_warning(self._console, event.message)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, ProgressEvent):
            self._advance(event)

    def _start(self, event: Started) -> None:
        self._total, self._bytes = event.total_bytes, event.done_bytes
        self._begin_bytes = event.done_bytes
        self._began = self._logged = time.monotonic()
        self._documents = 0
        self._now = event.doing or self._doing
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._quiet or not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn(self._now),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[documents]:,} documents"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bar.add_task("packing", total=event.total_bytes, completed=event.done_bytes, documents=0)
        self._bar.start()

    def _advance(self, event: ProgressEvent) -> None:
        self._bytes += event.file_bytes
        self._documents += event.num_documents
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._bytes, documents=self._documents)
        elif not self._quiet and time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            speed = (self._bytes - self._begin_bytes) / (self._logged - self._began)
            left = (self._total - self._bytes) / speed if speed else 0.0
            self._console.print(
                f"{self._now}: {self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
                f"{self._documents:,} documents, {speed / 1e6:,.1f} MB/s, {left:,.0f} s left"
            )


def show_export(console: Console, found: Exported) -> None:
    """The closing table of an export."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (
        ("format", found.format),
        (found.rows_are, f"{found.num_rows:,}, {found.num_tokens:,} tokens"),
        ("files", f"{len(found.files):,}, {found.num_bytes / 1e6:,.1f} MB"),
        ("output", f"{found.output} ({found.status})"),
        ("load", found.load),
    ):
        table.add_row(name, escape("\n".join(map(_clean, value.split("\n")))))
    console.print(table)


def show_report(console: Console, report: Report, *, percentiles: bool = False) -> None:
    """The closing table.

    Args:
        console: Where to.
        report: What to show.
        percentiles: Whether to add balance and attention cost, as `packcli stats` does.
    """
    stats, figures, manifest = report.stats, report.derived, report.manifest
    config, tokenizer = manifest["config"], manifest["tokenizer"]
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        table.add_row(name, escape(_clean(value)))

    def count(number: int, noun: str) -> str:
        return f"{number:,} {noun}{'' if number == 1 else 's'}"

    row("documents", f"{stats.num_documents:,} from {count(len(manifest['inputs']), 'file')}")
    for each in reached(manifest["mix"], stats.by_source) if "mix" in manifest else ():
        share = f"{each['reached_ratio']:.2%} of the tokens, {each['wanted_ratio']:.2%} wanted"
        taken = f"{each['num_tokens']:,} of {each['num_tokens_available']:,}, {each['epochs']:.2f} epochs"
        row("mix", f"{each['name']}: {share}; {taken}")
    if stats.num_rows_rejected:
        named = ", ".join(f"{number:,} {cause}" for cause, number in stats.rejected_by_cause.items())
        row("rejected", f"{stats.num_rows_rejected:,} of {stats.num_rows_read:,} rows ({named}): rejected.jsonl")
    if stats.num_rows_repaired:
        row("repaired", f"{count(stats.num_rows_repaired, 'row')}: U+FFFD stands for what is no text")
    row("records", describe_records(manifest["text"]))
    row("tokens", f"{stats.num_tokens_in:,} of text + {stats.num_tokens_special:,} special")
    if manifest["text"]["format"] != "text":
        row("loss", f"{config['loss']}: {stats.num_tokens_loss:,} tokens, {figures['loss_ratio']:.2%} of those packed")
        if stats.tokens_by_role:
            row("words", ", ".join(f"{role} {number:,} tokens" for role, number in stats.tokens_by_role.items()))
    bound = figures["num_packs_above_lower_bound"]
    above = "" if config["strategy"] in ("concat", "pad") else f", {bound:,} above the proven minimum"
    planners = " + ".join(sorted(stats.plans_by_planner)) or config["strategy"]
    row("packs", f"{stats.num_packs:,} of {config['max_len']:,} tokens ({planners}){above}")
    if stats.num_parts > 1 and config["strategy"] in ("best-fit", "shuffle-fit"):
        window = f"{stats.num_parts:,} parts of up to {config['unit_bytes'] / 2**20:,.4g} MiB"
        price = count(figures["num_packs_for_windows"], "pack")
        row("window", f"{window}, each planned on its own: {price} more than for the whole at most")
    if len(stats.by_split) > 1:
        row(
            "splits", ", ".join(f"{split} {count(each['num_packs'], 'pack')}" for split, each in stats.by_split.items())
        )
    row("utilisation", f"{figures['utilisation']:.2%}")
    row("padding ratio", f"{figures['padding_ratio']:.2%}; one document a row: {figures['padding_ratio_unpacked']:.2%}")
    dropped = stats.num_documents_dropped
    causes = [
        ("empty", stats.num_documents_empty),
        (f"over {config['max_len']} tokens", stats.num_documents_overlong),
        ("without loss", stats.num_documents_no_loss),
        ("without loss once truncated", stats.num_documents_no_loss_left),
    ]
    named = ", ".join(f"{number:,} {cause}" for cause, number in causes if number)
    num_lost = stats.num_tokens_overlong + stats.num_tokens_no_loss
    lost = f", {num_lost:,} tokens" if num_lost else ""
    row("dropped", count(dropped, "document") + (f" ({named}{lost})" if dropped else ""))
    cut = f", {stats.num_tokens_loss_cut:,} with loss" if stats.num_tokens_loss_cut else ""
    truncated = f" (lost {stats.num_tokens_truncated:,} tokens{cut})" if stats.num_documents_truncated else ""
    row("truncated", count(stats.num_documents_truncated, "document") + truncated)
    row("split", f"{count(stats.num_documents_split, 'document')} over several packs")
    if config["balance"] or percentiles:
        cost = f"the most expensive 8 rows cost {figures['group_cost_max_ratio']:.2f} times the mean"
        without = f"; without --balance {figures['group_cost_max_ratio_unbalanced']:.2f}" if config["balance"] else ""
        row("balance", cost + without)
    if stats.num_eos_in_documents:
        row("warning", f"{stats.num_eos_in_documents:,} EOS ids come from the text itself")
    if stats.num_prompts_cut:
        row(
            "warning",
            f"{count(stats.num_prompts_cut, 'prompt')}, tokenized alone, would not begin the whole: "
            "loss starts with the first token of the completion",
        )
    if stats.num_documents_literals:
        row(
            "control text", f"{count(stats.num_documents_literals, 'document')}: what spells a control token stays text"
        )
    if stats.num_tokens_padding_in:
        row("padding in", f"{stats.num_tokens_padding_in:,} tokens of padding in the input left out")
    if percentiles:
        row("attention cost", f"{figures['attention_ratio']:.2%} of full rows, when documents do not see each other")
    own = " - give your model's own with --tokenizer" if tokenizer["name"] == "builtin" else ""
    special = f"EOS {tokenizer['eos_token'] or 'none'}, pad {tokenizer['pad_token']}"
    bos = f"BOS {tokenizer['bos_token']}, " if tokenizer["bos_token"] else ""
    row("tokenizer", f"{tokenizer['name']} ({tokenizer['vocab_size']:,} ids, {bos}{special}){own}")
    run = report.run
    if "merged" in manifest:
        links = ""
        if "num_shards_linked" in run:
            links = f": {run['num_shards_linked']:,} shards linked, {run['num_shards_copied']:,} copied"
        row("merged", count(len(manifest["merged"]), "output") + links)
    if "tokenizer_engine" in run:
        row("engine", f"{run['tokenizer_engine']} {run['tokenizer_engine_version']}: {run['tokenizer_engine_reason']}")
        speed = f"{run['tokens_per_second']:,} tokens/s"
        processes = count(run["workers"], "process").replace("processs", "processes")
        together = f" of all {count(run['ranks'], 'rank')} together" if "ranks" in run else ""
        place = f", {run['place']}" if run.get("place") else ""
        row("time", f"{run['seconds']:.2f} s{together}, {speed}, {processes}{place}")
    row("output", f"{report.output} ({report.status})")
    row("load", report.load_line)
    console.print(table)


def describe_records(text: Mapping[str, Any]) -> str:
    """'prompt-completion (prompt from question, completion from answer)'."""
    fields = text["fields"]
    if text["format"] == "text":
        where = f"template {text['template']!r}" if text["template"] else ", ".join(fields) or "whole files"
    else:
        needed = REQUIRED[text["format"]]
        parts = [(part, source) for part, source in fields.items() if part in needed or part != source]
        where = ", ".join(part if part == source else f"{part} from {source!r}" for part, source in parts)
    template = f"; template: {text['chat_template']['name']}" if text["chat_template"] else ""
    return f"{text['format']} ({where}){template}"
