"""What packing would give, as tables like those that report.tables makes of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packcli.report.tables import Cell, Table
from packcli.report.what_if.comparison import Outcome, WhatIf


def what_if_tables(what_if: WhatIf, *, max_sources: int | None = None) -> list[Table]:
    """Everything that the lengths of an input say.

    Args:
        what_if: From `compare`.
        max_sources: Most rows of the table of sources.
    """
    tables = [
        Table(
            "strategies",
            "Strategies",
            ("max_len, strategy", *(title for title, _, _ in OUTCOME_COLUMNS)),
            [_outcome_row(each) for each in what_if.outcomes],
            "tokens lost: truncated, or dropped with their document",
        ),
        Table(
            "loss",
            "Labels lost",
            ("max_len, strategy", *(title for title, _, _ in LOSS_COLUMNS)),
            [_outcome_row(each, LOSS_COLUMNS) for each in what_if.outcomes],
            "tokens with loss that are lost, and the first token of every further segment of a document that is cut",
        ),
        _table(
            "overlong",
            "Documents over max_len",
            what_if.overlong,
            ("max_len",),
            {
                "documents": ("num_documents_over", "count"),
                "share": ("documents_over_ratio", "ratio"),
                "truncate loses": ("num_tokens_truncated", "count"),
                "of tokens": ("truncated_ratio", "ratio"),
                "drop loses": ("num_tokens_dropped", "count"),
                "of all tokens": ("dropped_ratio", "ratio"),
            },
        ),
        *_overlong_loss(what_if),
        _caps(what_if),
        _table(
            "orders",
            "Greedy packing and the order of the input: utilisation",
            what_if.orders,
            ("max_len", "strategy"),
            {
                "as given": ("utilisation", "ratio"),
                "shuffled, least": ("shuffled_low", "ratio"),
                "shuffled, most": ("shuffled_high", "ratio"),
                "longest first": ("longest_first", "ratio"),
            },
        ),
        _table(
            "sources",
            "Sources",
            what_if.sources if max_sources is None else what_if.sources[:max_sources],
            ("max_len", "name"),
            {
                "documents": ("num_documents", "count"),
                "tokens": ("num_tokens", "count"),
                "p50": ("length_p50", "count"),
                "p95": ("length_p95", "count"),
                "p99": ("length_p99", "count"),
                "longest": ("length_max", "count"),
                "over": ("num_documents_over", "count"),
                "truncate loses": ("truncated_ratio", "ratio"),
                **({"of loss": ("loss_truncated_ratio", "ratio")} if what_if.is_masked else {}),
                "packed alone": ("utilisation_alone", "ratio"),
            },
            "packed alone: utilisation of best-fit when the source is packed on its own",
        ),
    ]
    if what_if.lengths.sample < 1.0:
        tables.insert(1, _intervals("intervals", "95 % intervals of the estimates above", tables[0]))
        tables.insert(3, _intervals("loss_intervals", "95 % intervals of the labels above", tables[2]))
    return [table for table in tables if table.rows]


OUTCOME_COLUMNS = (
    ("packs", "num_packs", "count"),
    ("utilisation", "utilisation", "ratio"),
    ("padding", "padding_ratio", "ratio"),
    ("docs cut", "num_documents_cut", "count"),
    ("tokens lost", "num_tokens_lost", "count"),
    ("size", "num_bytes", "bytes"),
    ("above min", "num_packs_above_lower_bound", "count"),
)
"""Title, field of Outcome, kind."""

LOSS_COLUMNS = (
    ("labels", "num_loss_tokens", "count"),
    ("labels lost", "num_loss_tokens_lost", "count"),
    ("docs dropped", "num_documents_dropped", "count"),
    ("without loss", "num_documents_no_loss", "count"),
)


def _outcome_row(each: Outcome, columns: Sequence[tuple[str, str, str]] = OUTCOME_COLUMNS) -> tuple[Cell, ...]:
    def cell(name: str, kind: str) -> Cell:
        low, high = each.intervals.get(name, (None, None))
        return Cell(getattr(each, name), kind, "", low, high)

    return (Cell(f"{each.max_len} {each.strategy}"), *(cell(name, kind) for _, name, kind in columns))


def _overlong_loss(what_if: WhatIf) -> list[Table]:
    """What carries loss in documents that are too long; of text that is nearly every token."""
    if not what_if.is_masked:
        return []
    columns = {
        "truncate loses": ("num_loss_tokens_truncated", "count"),
        "of loss": ("loss_truncated_ratio", "ratio"),
        "keeping ends": ("num_loss_tokens_left_truncated", "count"),
        "of all loss": ("loss_left_truncated_ratio", "ratio"),
        "drop loses": ("num_loss_tokens_dropped", "count"),
        "none left": ("num_documents_no_loss_left", "count"),
    }
    note = (
        "labels; keeping ends: if truncation cut off the beginnings; none left: documents without loss once truncated"
    )
    return [_table("overlong_loss", "Loss in documents over max_len", what_if.overlong, ("max_len",), columns, note)]


def _intervals(name: str, title: str, table: Table) -> Table:
    places = [place for place, cell in enumerate(table.rows[0]) if cell.low is not None]
    return Table(
        name,
        title,
        (table.columns[0], *(table.columns[place] for place in places)),
        [(row[0], *(Cell(row[place].interval) for place in places)) for row in table.rows],
    )


def _caps(what_if: WhatIf) -> Table:
    """One row a max_len and strategy, one column a limit."""
    limits = list(dict.fromkeys(each.max_docs_per_pack for each in what_if.caps))
    rows: dict[str, dict[int, float]] = {}
    for each in what_if.caps:
        rows.setdefault(f"{each.max_len} {each.strategy}", {})[each.max_docs_per_pack] = each.padding_ratio
    return Table(
        "caps",
        "Padding ratio by most documents a pack",
        ("max_len, strategy", *(str(limit) if limit else "no limit" for limit in limits)),
        [(Cell(name), *(Cell(each[limit], "ratio") for limit in limits)) for name, each in rows.items()],
    )


def _table(
    name: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    keys: tuple[str, ...],
    columns: dict[str, tuple[str, str]],
    note: str = "",
) -> Table:
    """Columns: title -> (key of a row, kind)."""
    return Table(
        name,
        title,
        (", ".join(keys), *columns),
        [
            (Cell(" ".join(str(row[key]) for key in keys)), *(Cell(row[key], kind) for key, kind in columns.values()))
            for row in rows
        ],
        note,
    )
