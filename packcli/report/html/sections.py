"""The sections of one report: key figures, flow, plots, tables, packs, provenance."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli.config.choices import quick_effort
from packcli.dataset import PackedDataset, Report, kept_of_documents
from packcli.errors import PackcliError, printable
from packcli.packing import make_plan, offsets
from packcli.packing.strategies import STRATEGIES
from packcli.report.html.flow import CLASSES, Node, draw_flow, flow_of
from packcli.report.html.plots import comparison, histogram, utilisation
from packcli.report.packs import Inspector, ShownSegment
from packcli.report.tables import BASELINE_NAMES, Cell, Table, report_charts, report_tables

MAX_SOURCES = 50
"""Rows of the table of sources."""
MAX_TEXT = 300
"""Characters of a name or a setting."""
NUM_PACKS = 3
"""Packs shown decoded, of a report alone."""
NUM_PACKS_BESIDE, MAX_SOURCES_BESIDE = 1, 20
"""Packs, and rows of the table of sources, of a report beside others."""
MAX_SEGMENTS, MAX_SEGMENT_TEXT = 6, 500
"""Of a pack: segments, and characters of each. A page must stay small whatever the input."""
NUM_SHARES = 120
"""Steps of the plot of utilisation over packs."""
MAX_PLANNED = 200_000
"""Most documents that the strategies are compared on."""

SHORT_BASELINES = {
    "packed": "as packed",
    "padded": "padded to max_len",
    "batch-8": "batches of 8",
    "batch-32": "batches of 32",
    "sorted-8": "sorted, batches of 8",
    "sorted-32": "sorted, batches of 32",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the page a report stands."""

    report: int = 0
    """Its number; figures name it when there are several."""
    num_reports: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether the page is about this report only."""
        return self.num_reports == 1

    @property
    def prefix(self) -> str:
        """What ids begin with."""
        return "" if self.is_alone else f"report-{self.report}-"

    def heading(self, text: str, deeper: int = 0) -> str:
        """A heading; `text` is HTML."""
        level = (2 if self.is_alone else 3) + deeper
        return f"<h{level}>{text}</h{level}>"


def report_sections(report: Report, place: Place, tokenizer: str | None) -> Iterator[str]:
    """Everything about a report, as HTML.

    Args:
        report: From read_report.
        place: Where it stands.
        tokenizer: Where the tokenizer is now, if it has moved since the output was made; packs are decoded with it.
    """
    packed = PackedDataset(report.output)
    config, figures = report.manifest["config"], report.derived
    max_sources = MAX_SOURCES if place.is_alone else MAX_SOURCES_BESIDE
    tables = {table.name: table for table in report_tables([report], max_sources=max_sources)}
    prefix = place.prefix
    yield _cards(report, place)
    yield _flow(report, place)
    pictures = [
        (chart.title, histogram(f"{prefix}plot-{chart.name}", chart.bars, unit=chart.unit, of=chart.of), "")
        for chart in report_charts(report, most=24)
        if chart.bars
    ]
    lengths = _DocumentsOfRows(packed)
    if lengths.shares:
        pictures.append(
            (
                "Utilisation over packs",
                utilisation(f"{prefix}plot-utilisation", lengths.shares, lengths.num_packs),
                "",
            )
        )
    compared = figures["layouts"]
    known = [name for name in BASELINE_NAMES if name in compared]
    padding = [compared[name]["padding_ratio"] for name in known]
    picture = comparison(f"{prefix}plot-layouts", [SHORT_BASELINES[name] for name in known], padding)
    pictures.append(("Without packing", picture, "Documents on their own, as batches pad them."))
    if lengths.kept:
        pictures.append(_strategies(lengths, config, prefix))
    yield '<section class="plots">' + "".join(_picture(*each, place) for each in pictures) + "</section>"
    for name in ("figures", "layouts", "percentiles", "splits", "sources", "settings"):
        if name in tables:
            yield table_section(tables[name], place)
    yield _packs(report, tokenizer, place)
    yield _provenance(report, place)


def _cards(report: Report, place: Place) -> str:
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
        f"<div><dt>{name}</dt><dd><b{_data(cell, place)}>{escaped(str(cell))}</b> <span>{escaped(note)}</span></dd>"
        "</div>"
        for name, cell, note in cards
    )
    return f'<section>{place.heading("Key figures")}<dl class="cards">{items}</dl></section>'


def _bound(report: Report) -> str:
    if report.manifest["config"]["strategy"] in ("concat", "pad"):
        return f"of {report.max_len:,} tokens"
    return f"{report.derived['num_packs_above_lower_bound']:,} above the proven minimum"


def _flow(report: Report, place: Place) -> str:
    flow = flow_of(report)
    total = max(flow.num_tokens, 1)

    def legend(title: str, nodes: tuple[Node, ...]) -> str:
        items = "".join(
            f'<li><i class="{CLASSES[each.colour]}"></i> {each.name}: '
            f"<span{_data(Cell(each.count, 'count', each.key), place)}>{each.count:,}</span> "
            f"({each.count / total:.2%})</li>"
            for each in nodes
        )
        return f"{place.heading(title, 1)}<ul>{items}</ul>"

    kept = report.derived["padding_ratio"]
    return (
        f'<section class="flow">{place.heading("Where the tokens went")}{draw_flow(f"{place.prefix}plot-flow", flow)}'
        f'<div class="legend"><div>{legend("Read", flow.read)}</div><div>{legend("Became", flow.became)}</div>'
        f'<p><i class="line"></i> padding: <span{_data(Cell(flow.padding.count, "count", flow.padding.key), place)}>'
        f"{flow.padding.count:,}</span> ({kept:.2%} of positions)</p></div></section>"
    )


class _DocumentsOfRows:
    """How full packs are, and the lengths of documents, for the plots; read from the column `sources` alone."""

    def __init__(self, packed: PackedDataset) -> None:
        self.kept: list[Any] = []
        """int64[D] by shard: kept tokens of each document, in input order; of the first MAX_PLANNED documents."""
        self.shares: list[float] = []
        self.num_packs = sum(packed.num_rows.values())
        used: list[Any] = []
        num_documents = 0
        if "sources" not in packed.config.columns:
            return
        for split in packed.num_rows:
            for _, batches in packed.shards(split):
                read = [batch.sources for batch in batches if batch.sources is not None]
                for each in read:
                    used.append(np.diff(offsets(each.end - each.start)[each.offsets]))
                if num_documents < MAX_PLANNED:
                    self.kept.append(kept_of_documents(read)[0][: MAX_PLANNED - num_documents])
                    num_documents += len(self.kept[-1])
        tokens = np.concatenate(used)
        edges = np.unique(np.linspace(0, len(tokens), NUM_SHARES + 1).round().astype(np.int64))
        sums = np.add.reduceat(tokens, edges[:-1])
        self.shares = (sums / np.diff(edges) / packed.config.max_len).tolist()


def _strategies(lengths: _DocumentsOfRows, config: dict[str, Any], prefix: str) -> tuple[str, str, str]:
    names, padding = [], []
    max_len, most = config["max_len"], config["max_docs_per_pack"]
    for name in STRATEGIES:
        effort = quick_effort(name, config["effort"])
        plans = [make_plan(kept, max_len, strategy=name, effort=effort, seed=config["seed"]) for kept in lengths.kept]
        positions = sum(plan.num_packs for plan in plans) * max_len
        names.append(name)
        padding.append(1 - sum(plan.num_tokens for plan in plans) / positions)
    num_documents = sum(map(len, lengths.kept))
    note = f"{num_documents:,} of these documents by every strategy, planned from their lengths"
    note += f", without the limit of {most} a pack." if most else "."
    return "Strategies compared", comparison(f"{prefix}plot-strategies", names, padding), note


def _picture(title: str, svg: str, note: str, place: Place) -> str:
    caption = f"<figcaption>{escaped(note)}</figcaption>" if note else ""
    return f"<figure>{place.heading(escaped(title))}{svg}{caption}</figure>"


def table_section(table: Table, place: Place) -> str:
    """A table of one report; or, under `place` number -1, of all side by side, a column each."""
    are_text = [all(row[place].kind == "text" for row in table.rows) for place in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{" class=text" if is_text else ""}>{escaped(column) or "figure"}</th>'
        for column, is_text in zip(table.columns, are_text, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{escaped(str(row[0]))}</th>'
        + "".join(
            f'<td class="{"text" if cell.kind == "text" else "number"}"{_data(cell, place, column)}>'
            f"{escaped(str(cell))}</td>"
            for column, cell in enumerate(row[1:])
        )
        + "</tr>"
        for row in table.rows
    )
    note = f"<p>{escaped(table.note)}</p>" if table.note else ""
    title = escaped(table.title)
    of = "" if place.is_alone else " compared" if place.report < 0 else f" of report {place.report + 1}"
    return (
        f'<section>{place.heading(title)}{note}<div class="scroll" role="region" aria-label="{title}{of}, table" '
        f'tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _data(cell: Cell, place: Place, column: int = 0) -> str:
    """Attributes with the place of the figure in stats.json and its value there, so that it can be checked."""
    if not cell.key:
        return ""
    number = column if place.report < 0 else place.report
    of = "" if place.is_alone else f' data-report="{number}"'
    return f' data-key="{escaped(cell.key)}" data-value="{escaped(json.dumps(cell.value))}"{of}'


def _packs(report: Report, tokenizer: str | None, place: Place) -> str:
    try:
        inspector = Inspector(report.output, tokenizer)
    except PackcliError as error:
        return f"<section>{place.heading('Packs')}<p>Not decoded: {escaped(error.message)}.</p></section>"
    split = next(iter(inspector.packed.num_rows))
    parts: list[str] = []
    for row in inspector.random(split, NUM_PACKS if place.is_alone else NUM_PACKS_BESIDE, seed=0):
        segments = inspector.show(row)
        shown = "".join(_segment(each, place) for each in segments[:MAX_SEGMENTS])
        left = len(segments) - MAX_SEGMENTS
        more = f"<p>and {left:,} more segments</p>" if left > 0 else ""
        opened = "" if parts else " open"
        parts.append(
            f"<details{opened}><summary>{escaped(split)} row {row.index:,}: {len(row.ids):,} positions, "
            f"{row.num_loss:,} tokens with loss</summary>{shown}{more}</details>"
        )
    return (
        f'<section class="packs">{place.heading("Packs")}<p>By chance. <span class="masked">Tokens without loss</span> '
        f"are underlined with dots. packcli inspect shows all.</p>{''.join(parts)}</section>"
    )


def _segment(each: ShownSegment, place: Place) -> str:
    if each.segment.is_padding:
        return (
            f"{place.heading('padding', 1)}<p>{each.num_tokens:,} positions without loss; {escaped(each.positions)}</p>"
        )
    left = MAX_SEGMENT_TEXT
    text = []
    for span in each.spans:
        shown = escaped(span.text[:left], keep="\n", most=MAX_SEGMENT_TEXT)
        text.append(shown if span.has_loss else f'<span class="masked">{shown}</span>')
        left -= len(span.text)
        if left <= 0:
            text.append(" ...")
            break
    where = f"{escaped(each.where)}; " if each.where else ""
    title = f"{each.number}: {where}{each.num_tokens:,} tokens; {escaped(each.positions)}"
    return f'{place.heading(title, 1)}<pre class="{"even" if each.number % 2 else "odd"}">{"".join(text)}</pre>'


def _provenance(report: Report, place: Place) -> str:
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
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value if isinstance(value, str) else json.dumps(value))}</dd></div>"
        for name, value in lines
    )
    command = run.get("command")
    command_text = shlex.join(["packcli", *map(str, command[1:])]) if command else "not recorded on this machine"
    return (
        f'<section>{place.heading("How it was made")}<pre class="command">{escaped(command_text, most=2000)}</pre>'
        f'<dl class="lines">{items}</dl></section>'
    )


def escaped(value: str, keep: str = "", most: int = MAX_TEXT) -> str:
    """Text from anywhere, for HTML: inert, and not too long."""
    cut = value if len(value) <= most else f"{value[:most]}..."
    return html.escape(printable(cut, keep=keep), quote=True)
