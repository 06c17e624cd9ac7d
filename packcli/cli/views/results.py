"""What a verb gave: the closing tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from packcli.cli.views.console import clean
from packcli.dataset import Report, reached
from packcli.report import describe_records
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
        table.add_row(name, escape("\n".join(map(clean, value.split("\n")))))
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
        table.add_row(name, escape(clean(value)))

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
