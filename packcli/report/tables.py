"""Reports -> tables of figures, and tables -> Markdown and CSV. The terminal and the HTML page show the same tables."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from packcli.dataset import Histogram, Report, quantiles
from packcli.errors import printable

CSV_COLUMNS = ("table", "row", "column", "value", "low", "high")
"""One line a figure. low and high: the ends of the confidence interval of an estimate, else empty."""

Value = int | float | str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A value and how people read it: count, ratio, times, bytes or text."""

    value: Value
    kind: str = "text"
    key: str = ""
    """Its place in stats.json, such as derived.utilisation; empty when it is computed from other figures."""
    low: float | None = None
    high: float | None = None
    """Ends of its confidence interval, when it is an estimate."""

    def __str__(self) -> str:
        """What people read."""
        return "-" if self.value is None else _format(self.value, self.kind)

    @property
    def interval(self) -> str:
        """Its confidence interval, as people read it."""
        if self.low is None or self.high is None:
            return "-"
        return f"{_format(self.low, self.kind)} to {_format(self.high, self.kind)}"


def _format(value: Value, kind: str) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    if kind == "ratio":
        return f"{value:.2%}"
    if kind == "times":
        return f"{value:,.2f}"
    if kind == "bytes":
        for unit in ("B", "kB", "MB", "GB", "TB"):
            if value < 1000 or unit == "TB":
                break
            value /= 1000
        return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    return f"{round(value):,}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a title; the first column names the row."""

    name: str
    """For machines, such as `layouts`."""
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    note: str = ""
    """Explains the columns; empty where they need no explanation."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of a histogram: value ranges and how often they occur."""

    name: str
    title: str
    unit: str
    """What a value is: tokens, documents."""
    of: str
    """What is counted: segments, packs."""
    bars: list[tuple[int, int, int]] = field(default_factory=list)
    """(first value, last value, count)."""


FIGURES: tuple[tuple[str, str, str], ...] = (
    ("rows read", "totals.num_rows_read", "count"),
    ("rows rejected", "totals.num_rows_rejected", "count"),
    ("rows repaired", "totals.num_rows_repaired", "count"),
    ("documents", "totals.num_documents", "count"),
    ("documents packed", "totals.num_documents_packed", "count"),
    ("documents dropped: empty", "totals.num_documents_empty", "count"),
    ("documents dropped: too long", "totals.num_documents_overlong", "count"),
    ("documents dropped: no loss", "totals.num_documents_no_loss", "count"),
    ("documents dropped: no loss once truncated", "totals.num_documents_no_loss_left", "count"),
    ("documents truncated", "totals.num_documents_truncated", "count"),
    ("documents split", "totals.num_documents_split", "count"),
    ("tokens of text", "totals.num_tokens_in", "count"),
    ("special tokens added", "totals.num_tokens_special", "count"),
    ("tokens packed", "totals.num_tokens_packed", "count"),
    ("tokens with loss", "totals.num_tokens_loss", "count"),
    ("tokens truncated", "totals.num_tokens_truncated", "count"),
    ("tokens dropped: too long", "totals.num_tokens_overlong", "count"),
    ("tokens dropped: no loss", "totals.num_tokens_no_loss", "count"),
    ("tokens with loss cut off", "totals.num_tokens_loss_cut", "count"),
    ("padding", "totals.num_tokens_padding", "count"),
    ("packs", "totals.num_packs", "count"),
    ("packs above the proven minimum", "derived.num_packs_above_lower_bound", "count"),
    ("utilisation", "derived.utilisation", "ratio"),
    ("padding ratio", "derived.padding_ratio", "ratio"),
    ("padding ratio, one document a row", "derived.padding_ratio_unpacked", "ratio"),
    ("loss ratio", "derived.loss_ratio", "ratio"),
    ("tokens dropped or truncated", "derived.drop_ratio", "ratio"),
    ("documents split ratio", "derived.split_ratio", "ratio"),
    ("segments a pack, mean", "derived.mean_documents_per_pack", "times"),
    ("attention of full rows", "derived.attention_ratio", "ratio"),
    ("most expensive 8 rows, times the mean", "derived.group_cost_max_ratio", "times"),
)
"""Title of a figure, its place in stats.json, its kind."""

BASELINE_NAMES = {
    "packed": "as packed",
    "padded": "one document a row, padded to max_len",
    "batch-8": "padded to the longest of a batch of 8",
    "batch-32": "padded to the longest of a batch of 32",
    "sorted-8": "sorted by length, batches of 8",
    "sorted-32": "sorted by length, batches of 32",
}


def report_tables(reports: Sequence[Report], *, max_sources: int | None = None) -> list[Table]:
    """Everything that the reports say, side by side where there are several.

    Args:
        reports: At least one.
        max_sources: Most rows of the table of sources; the rest is summed up in one row.
    """
    several = len(reports) > 1
    names = report_names(reports)
    tables = [_settings(reports, names), _figures(reports, names), _baselines(reports, names)]
    for report, name in zip(reports, names, strict=True):
        of = f": {name}" if several else ""
        tables.append(_percentiles(report, of))
        if len(report.stats.by_split) > 1:
            tables.append(_splits(report, of))
        tables.append(_sources(report, of, max_sources))
    return tables


def report_names(reports: Sequence[Report]) -> tuple[str, ...]:
    """What the reports are called: the names of their directories, or the whole paths where names are alike."""
    names = tuple(report.output.name or str(report.output) for report in reports)
    return names if len(set(names)) == len(names) else tuple(str(report.output) for report in reports)


def _settings(reports: Sequence[Report], names: tuple[str, ...]) -> Table:
    def row(title: str, values: list[Value], key: str = "") -> tuple[Cell, ...]:
        return (Cell(title), *(Cell(value, key=key) for value in values))

    configs = [report.manifest["config"] for report in reports]
    tokenizers = [report.manifest["tokenizer"] for report in reports]
    return Table(
        "settings",
        "Settings",
        ("", *names),
        [
            row("max_len", [str(config["max_len"]) for config in configs], "max_len"),
            row("strategy", [config["strategy"] for config in configs], "strategy"),
            row("overlong", [config["overlong"] for config in configs], "overlong"),
            row("tokenizer", [each["name"] for each in tokenizers], "tokenizer.name"),
            row("fingerprint", [report.manifest["fingerprint"][:16] for report in reports]),
        ],
    )


def _figures(reports: Sequence[Report], names: tuple[str, ...]) -> Table:
    contents = [{"totals": report.stats.as_dict(), "derived": report.derived} for report in reports]
    rows = [
        (Cell(title), *(Cell(_find(content, key), kind, key) for content in contents)) for title, key, kind in FIGURES
    ]
    for cause in sorted({cause for report in reports for cause in report.stats.rejected_by_cause}):
        counts = [report.stats.rejected_by_cause.get(cause, 0) for report in reports]
        key = f"totals.rejected_by_cause.{cause}"
        rows.append((Cell(f"rows rejected: {cause}"), *(Cell(each, "count", key) for each in counts)))
    roles = {role for report in reports for role in report.stats.tokens_by_role}
    for role in sorted(roles):
        counts = [report.stats.tokens_by_role.get(role, 0) for report in reports]
        key = f"totals.tokens_by_role.{role}"
        rows.append((Cell(f"tokens of words: {role}"), *(Cell(each, "count", key) for each in counts)))
    return Table("figures", "Figures", ("", *names), rows)


def _find(content: dict[str, Any], key: str) -> Any:
    for step in key.split("."):
        content = content[step]
    return content


def _baselines(reports: Sequence[Report], names: tuple[str, ...]) -> Table:
    """Padding and cost of every baseline (rows made without packing); of several reports the padding only."""
    compared = [report.derived["layouts"] for report in reports]
    known = [name for name in BASELINE_NAMES if any(name in each for each in compared)]

    def cells(place: int, layout: str, figures: tuple[str, ...]) -> list[Cell]:
        baseline = compared[place].get(layout, {})
        kinds = {"padding_ratio": "ratio"}
        return [
            Cell(baseline.get(figure), kinds.get(figure, "times"), f"derived.layouts.{layout}.{figure}")
            for figure in figures
        ]

    if len(reports) > 1:
        columns: tuple[str, ...] = ("padding ratio", *names)
        rows = [
            (Cell(BASELINE_NAMES[each]), *(cells(place, each, ("padding_ratio",))[0] for place in range(len(reports))))
            for each in known
        ]
    else:
        columns = ("rows", "padding", "positions", "attention")
        figures = ("padding_ratio", "positions_of_packed", "attention_of_packed")
        rows = [(Cell(BASELINE_NAMES[each]), *cells(0, each, figures)) for each in known]
    note = "" if len(reports) > 1 else "positions and attention: times what they are as packed, documents isolated"
    return Table("layouts", "Without packing", columns, rows, note)


def _percentiles(report: Report, of: str) -> Table:
    figures = report.derived
    kinds = ("document_length", "segment_length", "documents_per_pack")
    places = list(figures["segment_length"])
    rows = [
        (Cell(place), *(Cell(figures[kind].get(place), "count", f"derived.{kind}.{place}") for kind in kinds))
        for place in places
    ]
    return Table("percentiles", f"Percentiles{of}", ("", "document", "segment", "segments a pack"), rows)


def _splits(report: Report, of: str) -> Table:
    keys = ("num_documents", "num_packs", "num_tokens_packed")
    rows = [
        (Cell(split), *(Cell(each[key], "count", f"totals.by_split.{split}.{key}") for key in keys))
        for split, each in report.stats.by_split.items()
    ]
    return Table("splits", f"Splits{of}", ("split", "documents", "packs", "tokens"), rows)


def _sources(report: Report, of: str, most: int | None) -> Table:
    nothing = {"num_documents": 0, "num_tokens_in": 0}
    counts = [report.stats.by_source.get(index, nothing) for index in range(len(report.manifest["inputs"]))]
    order = list(range(len(counts)))
    if most is not None and len(order) > most:
        order = sorted(order, key=lambda index: -counts[index]["num_tokens_in"])[: most - 1]
    total = max(report.stats.num_tokens_in, 1)

    def row(name: str, documents: int, tokens: int, key: str) -> tuple[Cell, ...]:
        return (
            Cell(name),
            Cell(documents, "count", f"{key}num_documents" if key else ""),
            Cell(tokens, "count", f"{key}num_tokens_in" if key else ""),
            Cell(tokens / total, "ratio"),
            Cell(tokens / documents if documents else None, "times"),
        )

    rows = [
        row(
            report.manifest["inputs"][index]["name"],
            counts[index]["num_documents"],
            counts[index]["num_tokens_in"],
            f"sources.{index}.",
        )
        for index in order
    ]
    left = set(range(len(counts))) - set(order)
    if left:
        documents = sum(counts[index]["num_documents"] for index in left)
        rows.append(row(f"{len(left):,} others", documents, sum(counts[index]["num_tokens_in"] for index in left), ""))
    return Table("sources", f"Sources{of}", ("file", "documents", "tokens", "share", "tokens a document"), rows)


def report_charts(report: Report, *, most: int = 16) -> list[Chart]:
    """Histograms of segment lengths and of segments a pack, in at most `most` bars."""
    stats = report.stats
    return [
        Chart("segment_length", "Segment lengths", "tokens", "segments", bars(stats.segments_by_length, most)),
        Chart("documents_per_pack", "Segments a pack", "segments", "packs", bars(stats.packs_by_documents, most)),
    ]


def bars(counts: Histogram, most: int) -> list[tuple[int, int, int]]:
    """Bars of equal width, a round number, from the smallest value to the largest: (first, last, count).

    A long tail, the last hundredth of the counts, stands in the last bar. 3, 4, 4, 11 in at most 3 bars: width 5
    gives (0, 4, 3), (5, 9, 0), (10, 11, 1).
    """
    if not counts:
        return []
    low, top = min(counts), max(counts)
    high = min(top, 2 * quantiles(counts)["p99"])
    width = next(
        step * 10**power for power in range(12) for step in (1, 2, 5) if _num_bars(low, high, step * 10**power) <= most
    )
    begin = low // width
    heights = [0] * _num_bars(low, high, width)
    for value, count in counts.items():
        heights[min(value // width - begin, len(heights) - 1)] += count
    equal = [((begin + place) * width, (begin + place + 1) * width - 1, each) for place, each in enumerate(heights)]
    return [*equal[:-1], (equal[-1][0], top, equal[-1][2])]


def _num_bars(low: int, high: int, width: int) -> int:
    return high // width - low // width + 1


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
    """The tables in GitHub's Markdown; all text is escaped, since names come from the user's files."""
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
    return re.sub(r"[\\<>&|`*_\[\]#~]", _entity, printable(text))


def _entity(match: re.Match[str]) -> str:
    """An entity for characters of HTML, a backslash before those of Markdown."""
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[0], f"\\{match[0]}")
