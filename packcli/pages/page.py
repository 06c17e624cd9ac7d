"""The page around plots, tables and packs."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from packcli.contents import Contents
from packcli.errors import PackcliError
from packcli.inspecting import Inspector, ShownPiece
from packcli.pages import plots
from packcli.planner import make_plan
from packcli.recount import kept_of_documents
from packcli.report import Report
from packcli.shards import committed
from packcli.strategies import STRATEGIES
from packcli.tables import LAYOUT_NAMES, Cell, Table, report_charts, report_tables
from packcli.visible import visible

MAX_SOURCES = 50
"""Rows of the table of sources."""
MAX_TEXT = 300
"""Characters of a name or a setting."""
NUM_PACKS = 3
"""Packs shown decoded."""
MAX_SEGMENTS, MAX_SEGMENT_TEXT = 6, 500
"""Of a pack: segments, and characters of each. A page must stay small whatever the input."""
NUM_SHARES = 120
"""Steps of the plot of utilisation over packs."""
MAX_PLANNED = 200_000
"""Documents with which the strategies are compared."""

SHORT_LAYOUTS = {
    "packed": "as packed",
    "padded": "padded to max_len",
    "batch-8": "batches of 8",
    "batch-32": "batches of 32",
    "sorted-8": "sorted, batches of 8",
    "sorted-32": "sorted, batches of 32",
}


def write_page(path: Path, report: Report, tokenizer: str | None = None) -> None:
    """Writes the page; it appears whole, or not at all.

    Args:
        path: The file.
        report: From read_report.
        tokenizer: Where the tokenizer is, to decode packs, when it is not where it was.

    Raises:
        PackcliError: matplotlib is not installed, or a shard is damaged.
    """
    text = make_page(report, tokenizer)
    with committed(path) as file:
        file.write(text.encode())


def make_page(report: Report, tokenizer: str | None = None) -> str:
    """The page as HTML."""
    style = (importlib.resources.files("packcli.pages") / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Nothing runs, nothing is fetched. Plots have styles in attributes, which only colour and place.
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; style-src-attr 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = f"{_text(report.output.name or str(report.output))}: packed training data"
    body = "\n".join(_sections(report, tokenizer))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _sections(report: Report, tokenizer: str | None) -> Iterator[str]:
    contents = Contents(report.output)
    config, figures, stats = report.manifest["config"], report.derived, report.stats
    tables = {table.name: table for table in report_tables([report], max_sources=MAX_SOURCES)}
    yield f"""<header>
<h1>{_text(report.output.name or str(report.output))}</h1>
<p>{stats.num_packs:,} packs of {config["max_len"]:,} tokens by {_text(config["strategy"])}, \
tokenizer {_text(report.manifest["tokenizer"]["name"])}, from {len(report.manifest["inputs"]):,} \
{"file" if len(report.manifest["inputs"]) == 1 else "files"}.</p>
</header>
<main>"""
    yield _cards(report)
    yield _flow(report)
    pictures = [
        (chart.title, plots.histogram(f"plot-{chart.name}", chart.bars, unit=chart.unit, of=chart.of), "")
        for chart in report_charts(report, most=24)
        if chart.bars
    ]
    lengths = _DocumentsOfRows(contents)
    if lengths.shares:
        pictures.append(
            ("Utilisation over packs", plots.utilisation("plot-utilisation", lengths.shares, lengths.num_packs), "")
        )
    compared = figures["layouts"]
    known = [name for name in LAYOUT_NAMES if name in compared]
    padding = [compared[name]["padding_ratio"] for name in known]
    picture = plots.comparison("plot-layouts", [SHORT_LAYOUTS[name] for name in known], padding)
    pictures.append(("Without packing", picture, "Documents on their own, as batches pad them."))
    if lengths.kept:
        pictures.append(_strategies(lengths, config))
    yield '<section class="plots">' + "".join(_picture(*each) for each in pictures) + "</section>"
    for name in ("figures", "layouts", "percentiles", "splits", "sources", "settings"):
        if name in tables:
            yield _table(tables[name])
    yield _packs(report, tokenizer)
    yield _provenance(report)
    yield "</main>\n<footer><p>Made by packcli. Nothing on this page comes from the network.</p></footer>"


def _cards(report: Report) -> str:
    figures, stats = report.derived, report.stats
    cards = (
        ("utilisation", Cell(figures["utilisation"], "ratio", "derived.utilisation"), "of all positions hold a token"),
        (
            "padding",
            Cell(figures["padding_ratio"], "ratio", "derived.padding_ratio"),
            f"one document a row: {figures['padding_ratio_unpacked']:.2%}",
        ),
        ("packs", Cell(stats.num_packs, "count", "totals.num_packs"), _bound(report)),
        ("tokens", Cell(stats.num_tokens_packed, "count", "totals.num_tokens_packed"), "packed"),
        (
            "documents",
            Cell(stats.num_documents_packed, "count", "totals.num_documents_packed"),
            f"{stats.num_documents - stats.num_documents_packed:,} dropped, "
            f"{stats.num_documents_truncated:,} truncated, {stats.num_documents_split:,} split",
        ),
        (
            "attention",
            Cell(figures["attention_ratio"], "ratio", "derived.attention_ratio"),
            "of full rows, when documents do not see each other",
        ),
    )
    items = "".join(
        f"<div><dt>{name}</dt><dd><b{_data(cell)}>{_text(str(cell))}</b> <span>{_text(note)}</span></dd></div>"
        for name, cell, note in cards
    )
    return f'<section><h2>Key figures</h2><dl class="cards">{items}</dl></section>'


def _bound(report: Report) -> str:
    if report.manifest["config"]["strategy"] in ("concat", "pad"):
        return f"of {report.max_len:,} tokens"
    return f"{report.derived['num_packs_above_lower_bound']:,} above the proven minimum"


def _flow(report: Report) -> str:
    stats = report.stats
    loss = stats.num_tokens_loss
    read = [("text", stats.num_tokens_in, "line"), ("special tokens added", stats.num_tokens_special, "four")]
    became = [
        ("packed, with loss", loss, "one"),
        ("packed, without loss", stats.num_tokens_packed - loss, "four"),
        ("truncated", stats.num_tokens_truncated, "two"),
        ("dropped", stats.num_tokens_overlong + stats.num_tokens_no_loss, "three"),
    ]
    total = max(sum(count for _, count, _ in read), 1)
    told = "; ".join(f"{name} {count:,}" for name, count, _ in (*read, *became) if count)
    picture = plots.flow(
        "plot-flow",
        [count for _, count, _ in read],
        [count for _, count, _ in became],
        f"Tokens from input to packs: {told}.",
    )

    def legend(title: str, parts: list[tuple[str, int, str]]) -> str:
        items = "".join(
            f'<li><i class="{colour}"></i> {name}: {count:,} ({count / total:.2%})</li>'
            for name, count, colour in parts
        )
        return f"<h3>{title}</h3><ul>{items}</ul>"

    return (
        f'<section class="flow"><h2>Where the tokens went</h2>{picture}<div class="legend"><div>'
        f"{legend('Read', read)}</div><div>{legend('Became', became)}</div></div></section>"
    )


class _DocumentsOfRows:
    """What plots need of the rows: how full packs are, and the lengths of documents; from `sources` alone."""

    def __init__(self, contents: Contents) -> None:
        self.kept: list[Any] = []
        """int64[D] by shard: kept tokens of each document, in input order; of the first MAX_PLANNED documents."""
        self.shares: list[float] = []
        self.num_packs = sum(contents.splits.values())
        used: list[Any] = []
        num_documents = 0
        if "sources" not in contents.config.columns:
            return
        for split in contents.splits:
            for _, batches in contents.shards(split):
                read = [batch.sources for batch in batches if batch.sources is not None]
                for each in read:
                    ends = np.concatenate(([0], np.cumsum((each.end - each.start).astype(np.int64))))
                    used.append(np.diff(ends[each.offsets]))
                if num_documents < MAX_PLANNED:
                    self.kept.append(kept_of_documents(read)[0][: MAX_PLANNED - num_documents])
                    num_documents += len(self.kept[-1])
        tokens = np.concatenate(used)
        edges = np.unique(np.linspace(0, len(tokens), NUM_SHARES + 1).round().astype(np.int64))
        sums = np.add.reduceat(tokens, edges[:-1])
        self.shares = (sums / np.diff(edges) / contents.config.max_len).tolist()


def _strategies(lengths: _DocumentsOfRows, config: dict[str, Any]) -> tuple[str, str, str]:
    names, padding = [], []
    max_len, most = config["max_len"], config["max_docs_per_pack"]
    for name in STRATEGIES:
        plans = [make_plan(kept, max_len, strategy=name, effort="fast", seed=config["seed"]) for kept in lengths.kept]
        positions = sum(plan.num_packs for plan in plans) * max_len
        names.append(name)
        padding.append(1 - sum(plan.num_tokens for plan in plans) / positions)
    num_documents = sum(map(len, lengths.kept))
    note = f"{num_documents:,} of these documents by every strategy, planned from their lengths"
    note += f", without the limit of {most} a pack." if most else "."
    return "Strategies compared", plots.comparison("plot-strategies", names, padding), note


def _picture(title: str, svg: str, note: str) -> str:
    caption = f"<figcaption>{_text(note)}</figcaption>" if note else ""
    return f"<figure><h2>{_text(title)}</h2>{svg}{caption}</figure>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(column) or "figure"}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{_text(str(row[0]))}</th>'
        + "".join(
            f'<td class="{"text" if cell.kind == "text" else "number"}"{_data(cell)}>{_text(str(cell))}</td>'
            for cell in row[1:]
        )
        + "</tr>"
        for row in table.rows
    )
    note = f"<p>{_text(table.note)}</p>" if table.note else ""
    title = _text(table.title)
    return (
        f'<section><h2>{title}</h2>{note}<div class="scroll" role="region" aria-label="{title}, table" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _data(cell: Cell) -> str:
    """Where the figure stands in stats.json, and its value there: whoever doubts the page can look."""
    if not cell.key:
        return ""
    return f' data-key="{_text(cell.key)}" data-value="{_text(json.dumps(cell.value))}"'


def _packs(report: Report, tokenizer: str | None) -> str:
    try:
        inspector = Inspector(report.output, tokenizer)
    except PackcliError as error:
        return f"<section><h2>Packs</h2><p>Not decoded: {_text(error.message)}.</p></section>"
    split = next(iter(inspector.contents.splits))
    parts: list[str] = []
    for row in inspector.random(split, NUM_PACKS, seed=0):
        pieces = inspector.show(row)
        shown = "".join(_piece(each) for each in pieces[:MAX_SEGMENTS])
        left = len(pieces) - MAX_SEGMENTS
        more = f"<p>and {left:,} more pieces</p>" if left > 0 else ""
        opened = "" if parts else " open"
        parts.append(
            f"<details{opened}><summary>{_text(split)} row {row.index:,}: {len(row.ids):,} positions, "
            f"{row.num_loss:,} tokens with loss</summary>{shown}{more}</details>"
        )
    return (
        '<section class="packs"><h2>Packs</h2><p>By chance. <span class="masked">Tokens without loss</span> '
        f"are underlined with dots. packcli inspect shows all.</p>{''.join(parts)}</section>"
    )


def _piece(each: ShownPiece) -> str:
    if each.piece.is_padding:
        return f"<h3>padding</h3><p>{each.num_tokens:,} positions without loss; {_text(each.positions)}</p>"
    left = MAX_SEGMENT_TEXT
    text = []
    for run in each.runs:
        shown = _text(run.text[:left], keep="\n", most=MAX_SEGMENT_TEXT)
        text.append(shown if run.has_loss else f'<span class="masked">{shown}</span>')
        left -= len(run.text)
        if left <= 0:
            text.append(" ...")
            break
    place = f"{_text(each.where)}; " if each.where else ""
    return (
        f"<h3>{each.number}: {place}{each.num_tokens:,} tokens; {_text(each.positions)}</h3>"
        f'<pre class="{"even" if each.number % 2 else "odd"}">{"".join(text)}</pre>'
    )


def _provenance(report: Report) -> str:
    manifest, run = report.manifest, report.run
    lines: list[tuple[str, Any]] = [
        ("fingerprint", manifest["fingerprint"]),
        ("tokenizer sha256", manifest["tokenizer"]["sha256"]),
        *((name, value) for name, value in manifest["config"].items()),
    ]
    for name in ("started", "seconds", "packcli", "tokenizer_engine", "tokenizer_engine_version", "workers"):
        if name in run:
            lines.append((name, run[name]))
    items = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value if isinstance(value, str) else json.dumps(value))}</dd></div>"
        for name, value in lines
    )
    command = run.get("command")
    told = shlex.join(["packcli", *map(str, command[1:])]) if command else "not recorded on this machine"
    return (
        f'<section><h2>How it was made</h2><pre class="command">{_text(told, most=2000)}</pre>'
        f'<dl class="lines">{items}</dl></section>'
    )


def _text(value: str, keep: str = "", most: int = MAX_TEXT) -> str:
    """Text from anywhere, for HTML: inert, and not too long."""
    cut = value if len(value) <= most else f"{value[:most]}..."
    return html.escape(visible(cut, keep=keep), quote=True)
