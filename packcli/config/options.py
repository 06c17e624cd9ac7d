"""The table of options: one row for each setting of a run, for all three ways to give it.

    packcli pack --max-len 4096        cli.options   makes flags and their help from the rows
    packcli.pack(..., max_len=4096)    api           has the same names, which a test compares
    max-len = 4096                     toml          reads the same names in packcli.toml

The meaning, type and default of each setting are in `settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from packcli.config.bad_rows import DEFAULT_MAX_BAD
from packcli.config.choices import COLUMN_SETS, COLUMNS, EFFORTS, OVERLONG, RUN_ENGINES, TOKENIZER_ENGINES
from packcli.config.mixture import parse_count
from packcli.config.notation import parse_size, unescape
from packcli.config.record_shapes import FORMATS
from packcli.config.settings import PackConfig, RunOptions

OUTPUT = "Output"
INPUT = "Input"
PACKING = "Packing"
TOKENS = "Tokens"
LOSS = "Chats and loss"
BAD_ROWS = "Rows that cannot be used"
WORK = "How the work is done"


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table."""

    field: str
    """A field of PackConfig or RunOptions; also the keyword in Python and the key in packcli.toml."""
    flags: tuple[str, ...]
    """Its spellings on the command line; `--yes/--no` is a flag with its opposite. Empty: no flag sets it."""
    help: str
    panel: str
    """The heading under which help and manual show it."""
    kind: type = str
    """What a flag takes: str, int, float, bool; list for one that may be repeated."""
    metavar: str | None = None
    """What help shows for the value; None: the kind."""
    parse: Callable[[str], Any] | None = None
    """Turns text such as 64MiB into the value; None: the value is taken as it is."""
    escapes: bool = False
    r"""Whether \n and the like in a flag are read as escapes, because a shell does not do that."""

    def from_flag(self, given: Any) -> Any:
        """The value of the field, from what the command line gives; None (not given) stays None."""
        if isinstance(given, str):
            given = unescape(given) if self.escapes else given
        elif isinstance(given, list | tuple):
            return tuple(unescape(each) if self.escapes else each for each in given) or None
        return self.from_text(given)

    def from_text(self, given: Any) -> Any:
        """The value of the field, from a value that may be text such as '64MiB'. Raises UsageError."""
        return self.parse(given) if self.parse is not None and isinstance(given, str) else given


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


_DEFAULTS = PackConfig()

TABLE = (
    Option(
        "columns",
        ("--columns",),
        f"Columns to write: {_names(COLUMNS)}; or {_names(COLUMN_SETS)} [default: all].",
        OUTPUT,
        metavar="NAMES",
    ),
    Option("restart", ("--restart",), "Begin an unfinished output of packcli anew.", OUTPUT, bool),
    Option("overwrite", ("--overwrite",), "Replace an output of packcli from another run.", OUTPUT, bool),
    Option(
        "mix",
        ("--mix",),
        "Instead of INPUT: an input and its share of tokens; repeatable.",
        INPUT,
        list,
        "INPUT=WEIGHT",
    ),
    Option(
        "tokens",
        ("--tokens",),
        "Size of the mixture in tokens, such as 10B [default: as many as there are without repeats].",
        INPUT,
        metavar="N",
        parse=parse_count,
    ),
    Option("format", ("--format",), f"Record shape: {_names(FORMATS)} [default: found].", INPUT, metavar="NAME"),
    Option(
        "field",
        ("--field",),
        "Where a part of the record is: prompt=question, or prompt='Question: {question}'; repeatable.",
        INPUT,
        list,
        "PART=FIELD",
        escapes=True,
    ),
    Option(
        "text_field",
        ("--text-field",),
        "The field that holds the text [default: text, or the only string].",
        INPUT,
        metavar="NAME",
    ),
    Option(
        "text_template",
        ("--text-template",),
        "The text, made of several fields: '{question}\\n{answer}'.",
        INPUT,
        metavar="T",
        escapes=True,
    ),
    Option(
        "split_on",
        ("--split-on",),
        "Cut .txt files into documents here, such as '\\n\\n'.",
        INPUT,
        metavar="STRING",
        escapes=True,
    ),
    Option("max_len", ("--max-len",), f"Tokens a pack [default: {_DEFAULTS.max_len}].", PACKING, int),
    Option(
        "strategy",
        ("--strategy",),
        "How packs are planned: concat, best-fit, shuffle-fit, first-fit, next-fit, pad [default: concat for text, "
        "else best-fit]; or a function of yours: module:function, file.py:function.",
        PACKING,
        metavar="NAME",
    ),
    Option(
        "strategy_sha256",
        (),
        "Of the file with a strategy of yours: another one is refused [default: not compared].",
        PACKING,
    ),
    Option(
        "overlong",
        ("--overlong",),
        f"Documents over max-len: {_names(OVERLONG)} [default: split for text, else truncate].",
        PACKING,
        metavar="POLICY",
    ),
    Option(
        "max_docs_per_pack",
        ("--max-docs-per-pack",),
        "Most documents in a pack; 0 is no limit [default: 0].",
        PACKING,
        int,
    ),
    Option(
        "effort",
        ("--effort",),
        f"Work for fewer or (shuffle-fit) unbiased packs: {_names(EFFORTS)} [default: {_DEFAULTS.effort}].",
        PACKING,
        metavar="LEVEL",
    ),
    Option(
        "balance",
        ("--balance/--no-balance",),
        "Order packs so that every 8 rows cost the same attention [default: no-balance].",
        PACKING,
        bool,
    ),
    Option(
        "isolate",
        ("--isolate/--no-isolate",),
        "Documents of a pack do not see each other [default: isolate].",
        PACKING,
        bool,
    ),
    Option(
        "val_fraction",
        ("--val-fraction",),
        "Share of documents for a validation split [default: 0].",
        PACKING,
        float,
    ),
    Option(
        "unit_bytes",
        ("--unit-bytes",),
        "Text that is read and planned together, such as 64MiB [default: 128MiB].",
        PACKING,
        metavar="SIZE",
        parse=parse_size,
    ),
    Option("seed", ("--seed",), f"Seed of all shuffles [default: {_DEFAULTS.seed}].", PACKING, int),
    Option(
        "tokenizer",
        ("--tokenizer",),
        "A tokenizer.json, a directory with one, or a name from the hub [default: builtin].",
        TOKENS,
        metavar="T",
    ),
    Option(
        "allow_network",
        ("--allow-network",),
        "Let a tokenizer be fetched from the hub.",
        TOKENS,
        bool,
    ),
    Option(
        "eos_token",
        ("--eos-token",),
        "The EOS token, where the tokenizer names none or another one is wanted.",
        TOKENS,
        metavar="TOKEN",
    ),
    Option("add_eos", ("--eos/--no-eos",), "EOS after documents [default: eos for text and prompts].", TOKENS, bool),
    Option("add_bos", ("--bos/--no-bos",), "BOS before documents [default: as the tokenizer does].", TOKENS, bool),
    Option(
        "pad_token",
        ("--pad-token",),
        "The token that fills packs [default: the tokenizer's, else EOS].",
        TOKENS,
        metavar="TOKEN",
    ),
    Option(
        "allow_special",
        ("--allow-special",),
        "Special tokens that are spelled in the text become control tokens.",
        TOKENS,
        bool,
    ),
    Option(
        "loss",
        ("--loss",),
        "Which tokens carry loss: all, completion, assistant, last-assistant [default: by record shape].",
        LOSS,
        metavar="WHAT",
    ),
    Option(
        "loss_on_eot",
        ("--loss-on-eot/--no-loss-on-eot",),
        "Loss on the token that ends a turn [default: as the template's generation tags say, else yes].",
        LOSS,
        bool,
    ),
    Option(
        "chat_template",
        ("--chat-template",),
        "A Jinja file, the name of a template, or chatml [default: the tokenizer's own].",
        LOSS,
        metavar="T",
    ),
    Option(
        "date",
        ("--date",),
        "What chat templates take for today [default: the day of the first run].",
        LOSS,
        metavar="YYYY-MM-DD",
    ),
    Option(
        "on_error",
        ("--on-error",),
        "A row that cannot be used: stop, or skip to keep it in rejected.jsonl [default: stop].",
        BAD_ROWS,
        metavar="WHAT",
    ),
    Option(
        "max_bad",
        ("--max-bad",),
        f"With skip: more such rows end the run with exit code 4 [default: {DEFAULT_MAX_BAD}].",
        BAD_ROWS,
        metavar="N|P%",
    ),
    Option(
        "lenient",
        ("--lenient/--no-lenient",),
        "Read bytes that are not UTF-8, and half surrogates, as U+FFFD [default: no-lenient].",
        BAD_ROWS,
        bool,
    ),
    Option(
        "max_line_bytes",
        ("--max-line-bytes",),
        "Longest row that is read [default: 64MiB].",
        BAD_ROWS,
        metavar="SIZE",
        parse=parse_size,
    ),
    Option("workers", ("-w", "--workers"), "Processes [default: every CPU].", WORK, int),
    Option(
        "engine",
        ("--engine",),
        f"What works on the units: {_names(RUN_ENGINES)} [default: auto].",
        WORK,
        metavar="NAME",
    ),
    Option(
        "ray_address",
        ("--ray-address",),
        "A Ray that runs: auto or host:port [default: RAY_ADDRESS, else auto].",
        WORK,
        metavar="ADDRESS",
    ),
    Option(
        "tokenizer_engine",
        ("--tokenizer-engine",),
        f"What tokenizes: {_names(TOKENIZER_ENGINES)} [default: auto].",
        WORK,
        metavar="NAME",
    ),
)
"""Every field of PackConfig and RunOptions, in the order of help and manual."""

OPTIONS = {option.field: option for option in TABLE}
"""The rows of TABLE by field."""


def make_settings(given: Mapping[str, Any]) -> tuple[PackConfig, RunOptions]:
    """The two groups of settings (see `settings`) from one mapping.

    Args:
        given: Field -> value, also as text with a unit. Names of no field are ignored.

    Raises:
        UsageError: a value is not allowed, alone or together with others.
    """
    values = {name: OPTIONS[name].from_text(value) for name, value in given.items() if name in OPTIONS}
    options = {name: values.pop(name) for name in RunOptions.__dataclass_fields__ if name in values}
    return PackConfig(**values), RunOptions(**options)
