"""Names, aliases and defaults of options. Whatever a user asks for by name is listed here, and only here."""

from __future__ import annotations

import re
from pathlib import Path

from packcli.errors import UsageError, unknown_name

IGNORE = -100
"""The label of a token without loss, as PyTorch has it."""

FORMAT_VERSION = 3
"""Version of the output: as long as it stays, the same input and config give the same bytes."""

COLUMNS = ("input_ids", "labels", "position_ids", "seq_lengths", "sources")
"""Every column of a packed dataset, in the order in which it is written."""

COLUMN_SETS = {"all": COLUMNS, "compact": ("input_ids", "seq_lengths")}
"""Names for sets of columns."""

OVERLONG = ("split", "truncate", "drop", "error")
"""Policies for documents longer than max_len."""

STRATEGY_ALIASES = {
    "concat": "concat",
    "wrapped": "concat",
    "best-fit": "best-fit",
    "bfd": "best-fit",
    "shuffle-fit": "shuffle-fit",
    "ffs": "shuffle-fit",
    "first-fit": "first-fit",
    "ff": "first-fit",
    "next-fit": "next-fit",
    "sequential": "next-fit",
    "pad": "pad",
    "none": "pad",
}
"""Every name of a strategy -> the name that packcli uses for it."""

CANNOT_CAP_DOCS = frozenset({"concat"})
"""Strategies that cannot honour `max_docs_per_pack`: concat cuts a stream wherever a pack is full."""

KEEPS_ORDER = frozenset({"concat", "first-fit", "next-fit"})
"""Strategies whose packs stand in the order of the input: they cannot honour `balance`."""

EFFORTS = ("fast", "normal", "max")
"""How much work best-fit may do for fewer packs; with fast, shuffle-fit does not look for unbiased packs."""

BUILTIN_TOKENIZER = "builtin"
"""The name of the tokenizer that ships with packcli."""

OWN_STRATEGY = re.compile(r"(?P<place>.+\.py|[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)", re.DOTALL)
"""A function of the user's own: `module:function` or `path/to/file.py:function`."""

MAX_LINE_BYTES = 64 * 2**20
"""Default of the longest row that is read."""

RUN_ENGINES = ("auto", "serial", "processes", "ray")
"""Choices of `RunOptions.engine`."""

TOKENIZER_ENGINES = ("auto", "fastokens", "tokenizers")
"""Choices of `RunOptions.tokenizer_engine`."""

MAX_TOKEN_ID = 2**31 - 1
"""Largest token id: shards store ids as int32."""


def quick_effort(strategy: str | None, effort: str) -> str:
    """The effort for an estimate: best-fit takes fast, where more changes little; others as given, as plans differ."""
    return "fast" if strategy == "best-fit" else effort


def is_own_strategy(name: str | None) -> bool:
    """Whether a strategy is code of the user's own."""
    return name is not None and ":" in name


def strategy_label(name: str) -> str:
    """A strategy as reports and manifests name it: without directories, which differ between machines."""
    match = OWN_STRATEGY.fullmatch(name)
    return f"{Path(match['place']).name}:{match['function']}" if match else name


def canonical_strategy(name: str) -> str:
    """The name that packcli uses for a strategy: `bfd` -> `best-fit`; one of the user's own stays as it is.

    Raises:
        UnknownNameError: no such strategy; names the nearest.
        UsageError: it has a colon, but is neither module:function nor file.py:function.
    """
    if is_own_strategy(name):
        if OWN_STRATEGY.fullmatch(name) is None:
            raise UsageError(f"strategy {name!r} is no function", "module:function, or path/to/file.py:function")
        return name
    if name.lower() not in STRATEGY_ALIASES:
        raise unknown_name("strategy", name, STRATEGY_ALIASES)
    return STRATEGY_ALIASES[name.lower()]


def resolve_columns(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """`all`, `compact`, or names joined by commas -> the columns, in the order of COLUMNS."""
    parts = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    chosen: set[str] = set()
    for part in parts:
        if part in COLUMN_SETS:
            chosen.update(COLUMN_SETS[part])
        elif part in COLUMNS:
            chosen.add(part)
        else:
            raise unknown_name("column", part, (*COLUMNS, *COLUMN_SETS))
    if "input_ids" not in chosen:
        raise UsageError("the columns lack 'input_ids': the packs would hold no tokens", "add it to --columns")
    return tuple(column for column in COLUMNS if column in chosen)
