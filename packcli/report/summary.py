"""The closing table that a run prints, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packcli.config import REQUIRED
from packcli.dataset import Report, reached


def describe_records(text: Mapping[str, Any]) -> str:
    """Shape and fields of the records: 'prompt-completion (prompt from 'question', completion from 'answer')'."""
    fields = text["fields"]
    if text["format"] == "text":
        where = f"template {text['template']!r}" if text.get("template") else ", ".join(fields) or "whole files"
    else:
        needed = REQUIRED[text["format"]]
        parts = [(part, source) for part, source in fields.items() if part in needed or part != source]
        where = ", ".join(part if part == source else f"{part} from {source!r}" for part, source in parts)
    template = f"; template: {text['chat_template']['name']}" if text["chat_template"] else ""
    return f"{text['format']} ({where}){template}"


def closing_lines(report: Report, *, percentiles: bool = False) -> list[tuple[str, str]]:
    """The closing table: what was read, what was packed, what was lost on the way, and how it was done.

    Args:
        report: What to show.
        percentiles: Whether to add balance and attention cost.
    """
    return [
        *_read(report),
        *_packed(report),
        *_lost(report),
        *_noticed(report, percentiles),
        *_done(report),
        ("output", f"{report.output} ({report.status})"),
        ("load", report.load_line),
    ]


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _read(report: Report) -> Iterator[tuple[str, str]]:
    stats, manifest = report.stats, report.manifest
    yield "documents", f"{stats.num_documents:,} from {_count(len(manifest['inputs']), 'file')}"
    for each in reached(manifest["mix"], stats.by_source) if "mix" in manifest else ():
        share = f"{each['reached_ratio']:.2%} of the tokens, {each['wanted_ratio']:.2%} wanted"
        taken = f"{each['num_tokens']:,} of {each['num_tokens_available']:,}, {each['epochs']:.2f} epochs"
        yield "mix", f"{each['name']}: {share}; {taken}"
    if stats.num_rows_rejected:
        named = ", ".join(f"{number:,} {cause}" for cause, number in stats.rejected_by_cause.items())
        yield "rejected", f"{stats.num_rows_rejected:,} of {stats.num_rows_read:,} rows ({named}): rejected.jsonl"
    if stats.num_rows_repaired:
        yield "repaired", f"{_count(stats.num_rows_repaired, 'row')}: U+FFFD stands for what is no text"
    yield "records", describe_records(manifest["text"])
    yield "tokens", f"{stats.num_tokens_in:,} of text + {stats.num_tokens_special:,} special"
    if manifest["text"]["format"] != "text":
        share = f"{report.derived['loss_ratio']:.2%} of those packed"
        yield "loss", f"{manifest['config']['loss']}: {stats.num_tokens_loss:,} tokens, {share}"
        if stats.tokens_by_role:
            yield "words", ", ".join(f"{role} {number:,} tokens" for role, number in stats.tokens_by_role.items())


def _packed(report: Report) -> Iterator[tuple[str, str]]:
    stats, figures, config = report.stats, report.derived, report.manifest["config"]
    bound = figures["num_packs_above_lower_bound"]
    above = "" if config["strategy"] in ("concat", "pad") else f", {bound:,} above the proven minimum"
    planners = " + ".join(sorted(stats.plans_by_planner)) or config["strategy"]
    yield "packs", f"{stats.num_packs:,} of {config['max_len']:,} tokens ({planners}){above}"
    if stats.num_parts > 1 and config["strategy"] in ("best-fit", "shuffle-fit"):
        window = f"{stats.num_parts:,} parts of up to {config['unit_bytes'] / 2**20:,.4g} MiB"
        price = _count(figures["num_packs_for_windows"], "pack")
        yield "window", f"{window}, each planned on its own: {price} more than for the whole at most"
    if len(stats.by_split) > 1:
        splits = (f"{split} {_count(each['num_packs'], 'pack')}" for split, each in stats.by_split.items())
        yield "splits", ", ".join(splits)
    yield "utilisation", f"{figures['utilisation']:.2%}"
    unpacked = f"one document a row: {figures['padding_ratio_unpacked']:.2%}"
    yield "padding ratio", f"{figures['padding_ratio']:.2%}; {unpacked}"


def _lost(report: Report) -> Iterator[tuple[str, str]]:
    stats = report.stats
    causes = [
        ("empty", stats.num_documents_empty),
        (f"over {report.max_len} tokens", stats.num_documents_overlong),
        ("without loss", stats.num_documents_no_loss),
        ("without loss once truncated", stats.num_documents_no_loss_left),
    ]
    named = ", ".join(f"{number:,} {cause}" for cause, number in causes if number)
    num_lost = stats.num_tokens_overlong + stats.num_tokens_no_loss
    lost = f", {num_lost:,} tokens" if num_lost else ""
    dropped = stats.num_documents_dropped
    yield "dropped", _count(dropped, "document") + (f" ({named}{lost})" if dropped else "")
    cut = f", {stats.num_tokens_loss_cut:,} with loss" if stats.num_tokens_loss_cut else ""
    truncated = f" (lost {stats.num_tokens_truncated:,} tokens{cut})" if stats.num_documents_truncated else ""
    yield "truncated", _count(stats.num_documents_truncated, "document") + truncated
    yield "split", f"{_count(stats.num_documents_split, 'document')} over several packs"


def _noticed(report: Report, percentiles: bool) -> Iterator[tuple[str, str]]:
    """Figures that are worth a line only where they are not zero, or where they were asked for."""
    stats, figures, is_balanced = report.stats, report.derived, report.manifest["config"]["balance"]
    if is_balanced or percentiles:
        cost = f"the most expensive 8 rows cost {figures['group_cost_max_ratio']:.2f} times the mean"
        without = f"; without --balance {figures['group_cost_max_ratio_unbalanced']:.2f}" if is_balanced else ""
        yield "balance", cost + without
    if stats.num_eos_in_documents:
        yield "warning", f"{stats.num_eos_in_documents:,} EOS ids come from the text itself"
    if stats.num_prompts_cut:
        prompts = f"{_count(stats.num_prompts_cut, 'prompt')}, tokenized alone, would not begin the whole"
        yield "warning", f"{prompts}: loss starts with the first token of the completion"
    if stats.num_documents_literals:
        documents = _count(stats.num_documents_literals, "document")
        yield "control text", f"{documents}: what spells a control token stays text"
    if stats.num_tokens_padding_in:
        yield "padding in", f"{stats.num_tokens_padding_in:,} tokens of padding in the input left out"
    if percentiles:
        yield "attention cost", f"{figures['attention_ratio']:.2%} of full rows, when documents do not see each other"


def _done(report: Report) -> Iterator[tuple[str, str]]:
    run, manifest = report.run, report.manifest
    tokenizer = manifest["tokenizer"]
    own = " - give your model's own with --tokenizer" if tokenizer["name"] == "builtin" else ""
    special = f"EOS {tokenizer['eos_token'] or 'none'}, pad {tokenizer['pad_token']}"
    bos = f"BOS {tokenizer['bos_token']}, " if tokenizer["bos_token"] else ""
    yield "tokenizer", f"{tokenizer['name']} ({tokenizer['vocab_size']:,} ids, {bos}{special}){own}"
    if "merged" in manifest:
        links = ""
        if "num_shards_linked" in run:
            links = f": {run['num_shards_linked']:,} shards linked, {run['num_shards_copied']:,} copied"
        yield "merged", _count(len(manifest["merged"]), "output") + links
    if "tokenizer_engine" in run:
        engine = f"{run['tokenizer_engine']} {run['tokenizer_engine_version']}"
        yield "engine", f"{engine}: {run['tokenizer_engine_reason']}"
        speed = f"{run['tokens_per_second']:,} tokens/s"
        processes = _count(run["workers"], "process", "processes")
        together = f" of all {_count(run['ranks'], 'rank')} together" if "ranks" in run else ""
        place = f", {run['place']}" if run.get("place") else ""
        yield "time", f"{run['seconds']:.2f} s{together}, {speed}, {processes}{place}"
