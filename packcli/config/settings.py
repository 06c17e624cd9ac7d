"""The settings of a run, frozen, and their checks.

`PackConfig` holds every setting that can change a byte of the output, and nothing else. `RunOptions` says how the work
is carried out (workers, engines, network, limits). The first is part of the fingerprint, the second never is.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from dataclasses import dataclass
from typing import Any

from packcli.config.bad_rows import ON_ERROR, parse_max_bad
from packcli.config.choices import (
    BUILTIN_TOKENIZER,
    CANNOT_CAP_DOCS,
    COLUMNS,
    EFFORTS,
    KEEPS_ORDER,
    MAX_LINE_BYTES,
    OVERLONG,
    RUN_ENGINES,
    TOKENIZER_ENGINES,
    canonical_strategy,
    is_own_strategy,
    resolve_columns,
)
from packcli.config.mixture import EXAMPLE, parse_mix, split_mix
from packcli.config.record_shapes import FORMATS, LOSSES, split_mapping, template_fields
from packcli.errors import UsageError, unknown_name

MIN_UNIT_BYTES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """Everything that decides the bytes of the output, besides the input and the tokenizer's files."""

    max_len: int = 2048
    """Tokens a pack; at least 2."""
    strategy: str | None = None
    """How segments are put into packs, by the name without aliases; None: concat for text, best-fit for the other
    formats. module:function or file.py:function is one of the user's own."""
    strategy_sha256: str | None = None
    """SHA-256 of the source file of a strategy of the user's own. A run fills it in; if it is given, it must match."""
    overlong: str | None = None
    """Documents over max_len: split, truncate, drop, error; None: split for text, truncate for the other formats."""
    max_docs_per_pack: int = 0
    """Most segments in one pack; 0 means no limit."""
    effort: str = "normal"
    """How much work best-fit may take for fewer packs: fast, normal, max."""
    balance: bool = False
    """Order packs so that groups of eight consecutive ones carry the same attention cost."""
    seed: int = 0
    """Seed of every random choice: order of packs, which documents share a pack, validation split."""
    isolate: bool = True
    """Documents of one pack do not see each other: positions restart, first labels are masked."""
    columns: tuple[str, ...] = COLUMNS
    """Columns to write; without `labels` the rows are ragged and padding is not stored."""
    val_fraction: float = 0.0
    """Share of documents that goes to the validation split, 0 <= F < 1."""
    tokenizer: str = BUILTIN_TOKENIZER
    """A tokenizer.json, a directory with one, a hub name, or `builtin`."""
    add_eos: bool | None = None
    """Append EOS to documents. None: not to chats, whose templates end them, nor to tokenized documents, but to all
    others. True: chats and tokenized documents get it as well, unless they end with it."""
    eos_token: str | None = None
    """The EOS token, when the tokenizer does not name one or another is wanted."""
    add_bos: bool | None = None
    """Put BOS before documents; None: as the tokenizer does, but not before chats and tokenized documents."""
    pad_token: str | None = None
    """The token that fills packs; None takes the tokenizer's, else EOS."""
    allow_special: bool = False
    """Let special tokens written in the text become control tokens."""
    text_field: str | None = None
    """The field that holds the text; None finds it."""
    text_template: str | None = None
    """Builds the text from several fields: '{question}\\n{answer}'."""
    format: str | None = None
    """The record shape, one of FORMATS; None finds it."""
    field: tuple[str, ...] = ()
    """`part=field` pairs: parts of the record shape whose field has another name, or a template with braces."""
    loss: str | None = None
    """Which tokens carry loss: all, completion, assistant, last-assistant; None: as the record shape has it."""
    loss_on_eot: bool | None = None
    """Whether the token that ends a turn or a completion carries loss; None: as the generation tags of the
    template say, and yes where it has none."""
    chat_template: str | None = None
    """A template file, the name of a template of the tokenizer, or chatml; None: the template of the tokenizer."""
    date: str | None = None
    """The day that templates take for today, YYYY-MM-DD; None: the day of the first run."""
    split_on: str | None = None
    """Cuts a .txt file into documents at this string; None takes a file as one document."""
    on_error: str = "stop"
    """What happens at a row that cannot be used: stop ends the run, skip writes it to rejected.jsonl."""
    lenient: bool = False
    """Read bytes that are not UTF-8, and half surrogate pairs, as U+FFFD instead of rejecting the row."""
    mix: tuple[str, ...] = ()
    """`input=weight` pairs instead of inputs: each input's share of the tokens that are packed."""
    tokens: int | None = None
    """Tokens of a mixture; None: as many as there are without taking a document twice."""
    unit_bytes: int = 128 * 2**20
    """Text a unit holds, in bytes: the scope of planning, and what is in memory at once."""

    def __post_init__(self) -> None:
        """Checks every field alone and together with others; raises UsageError."""
        put = object.__setattr__
        if self.strategy is not None:
            put(self, "strategy", canonical_strategy(self.strategy))
        if self.strategy_sha256 is not None and not is_own_strategy(self.strategy):
            raise UsageError("strategy_sha256 is for a strategy of your own", "leave it out")
        put(self, "columns", resolve_columns(self.columns))
        put(self, "field", (self.field,) if isinstance(self.field, str) else tuple(self.field))
        put(self, "mix", split_mix(self.mix))
        parse_mix(self.mix)
        if self.tokens is not None and not self.mix:
            raise UsageError("--tokens says how large a mixture is, and there is none", EXAMPLE)
        if self.tokens is not None and self.tokens < 1:
            raise UsageError(f"--tokens {self.tokens} is below 1", "for example --tokens 10B")
        if self.max_len < 2:
            raise UsageError(f"--max-len {self.max_len}: a pack holds at least 2 tokens", "use --max-len 2048")
        if self.max_len > 2**24:
            raise UsageError(f"--max-len {self.max_len} is over {2**24} (16 Mi) tokens", "use a smaller --max-len")
        if self.overlong is not None and self.overlong not in OVERLONG:
            raise unknown_name("overlong policy", self.overlong, OVERLONG)
        if self.max_docs_per_pack < 0:
            raise UsageError(f"--max-docs-per-pack {self.max_docs_per_pack} is negative", "0 means no limit")
        if self.max_docs_per_pack and self.strategy in CANNOT_CAP_DOCS:
            raise UsageError(
                f"--max-docs-per-pack cannot be kept by strategy {self.strategy!r}",
                "use --strategy best-fit, shuffle-fit, first-fit, next-fit or pad",
            )
        if self.effort not in EFFORTS:
            raise unknown_name("effort", self.effort, EFFORTS)
        if self.balance and self.strategy in KEEPS_ORDER:
            raise UsageError(
                f"--balance cannot be kept by strategy {self.strategy!r}, whose packs stand in the order of the input",
                "use --strategy best-fit, shuffle-fit or pad",
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed} is not in 0..2^63-1")
        if not 0.0 <= self.val_fraction < 1.0:
            raise UsageError(f"--val-fraction {self.val_fraction} is not in 0 <= F < 1", "for example 0.01")
        if self.text_field is not None and self.text_template is not None:
            raise UsageError("--text-field and --text-template are both given", "keep one of them")
        if self.text_template is not None:
            template_fields(self.text_template)
        self._check_shape()
        if self.split_on == "":
            raise UsageError("--split-on is empty", "for example --split-on $'\\n\\n'")
        if self.on_error not in ON_ERROR:
            raise unknown_name("--on-error", self.on_error, ON_ERROR)
        if self.unit_bytes < MIN_UNIT_BYTES:
            raise UsageError(f"--unit-bytes {self.unit_bytes} is below {MIN_UNIT_BYTES}", "use --unit-bytes 128MiB")

    def _check_shape(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise unknown_name("format", self.format, FORMATS)
        for pair in self.field:
            split_mapping(pair)
        if (self.text_field is not None or self.text_template is not None) and (
            self.field or self.format not in (None, "text")
        ):
            raise UsageError(
                "--text-field and --text-template are for --format text",
                "map other parts with --field, for example --field prompt='Question: {question}'",
            )
        losses = {name for each in FORMATS for name in LOSSES[each]}
        if self.loss is not None and self.loss not in losses:
            raise unknown_name("loss", self.loss, losses)
        if self.date is not None and not _is_date(self.date):
            raise UsageError(f"--date {self.date!r} is not a date", "for example --date 2026-01-31")

    def resolved(self, format_: str, date: str) -> PackConfig:
        """The config with every default filled in that depends on the record shape.

        Args:
            format_: The record shape of the inputs.
            date: The day of the first run of the output.

        Raises:
            UsageError: a loss that the shape does not have.
        """
        loss = self.loss or LOSSES[format_][0]
        if loss not in LOSSES[format_]:
            raise UsageError(
                f"--loss {loss}: records of format {format_} have no such part",
                f"it takes {', '.join(LOSSES[format_])}",
            )
        masked = format_ != "text"
        packs_text = format_ in ("text", "prompt-completion", "alpaca")
        return dataclasses.replace(
            self,
            format=format_,
            loss=loss,
            strategy=self.strategy or ("best-fit" if masked else "concat"),
            overlong=self.overlong or ("truncate" if masked else "split"),
            add_eos=self.add_eos if self.add_eos is not None else packs_text,
            add_bos=self.add_bos if self.add_bos is not None or packs_text else False,
            date=self.date or date,
        )

    @property
    def masked(self) -> bool:
        """Whether labels carry a loss mask: some tokens have no loss, besides the first of a document and padding."""
        return self.format not in (None, "text")

    @property
    def ragged(self) -> bool:
        """Whether rows lack padding: a trainer that derives labels from input_ids would otherwise train on padding."""
        return "labels" not in self.columns

    @property
    def written_columns(self) -> tuple[str, ...]:
        """The columns of the shards: those of `columns`, and labels where they carry a mask."""
        return tuple(name for name in COLUMNS if name in self.columns or (name == "labels" and self.masked))

    def as_dict(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return {
            **dataclasses.asdict(self),
            "columns": list(self.columns),
            "field": list(self.field),
            "mix": list(self.mix),
        }

    def to_toml(self) -> str:
        """A packcli.toml that gives this config again (None is left out: TOML has none)."""
        lines = ["[pack]"]
        for name, value in self.as_dict().items():
            if value is not None:
                # JSON of these values is TOML too, but for two things: TOML wants DEL escaped, and does not take
                # the two escapes that JSON can make of a character past U+FFFF, so that one is not escaped at all.
                text = json.dumps(value, ensure_ascii=False)
                text = re.sub("[\x7f\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)
                lines.append(f"{name} = {text}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How the work is carried out; no byte of the output depends on it."""

    workers: int = 0
    """Processes, or threads of the tokenizer engine when there are fewer units; 0: as many as CPUs may be used."""
    engine: str = "auto"
    """What works on the units: serial, processes, ray; auto is processes for several units and workers."""
    ray_address: str | None = None
    """Address of a running Ray cluster: auto or host:port; None takes RAY_ADDRESS, else auto."""
    tokenizer_engine: str = "auto"
    """What tokenizes: auto, fastokens or tokenizers."""
    allow_network: bool = False
    """Whether a tokenizer may be fetched from the Hugging Face hub."""
    overwrite: bool = False
    """Replace an output of packcli that belongs to another run, finished or not."""
    restart: bool = False
    """Start an unfinished output of packcli again, whichever run it belongs to; a finished one is left alone."""
    max_line_bytes: int = MAX_LINE_BYTES
    """Longest row that is read, in bytes, which bounds memory. A longer row cannot be used."""
    max_bad: int | str | None = None
    """Most rows that on_error="skip" may skip: a number, or a share of the rows read such as "0.1%"; None: 1%."""

    def __post_init__(self) -> None:
        """Checks the fields; raises UsageError."""
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers} is negative", "0 takes every CPU")
        if self.max_line_bytes < 1:
            raise UsageError(f"--max-line-bytes {self.max_line_bytes} is below 1", "use --max-line-bytes 64MiB")
        if self.max_bad is not None:
            parse_max_bad(self.max_bad)
        if self.tokenizer_engine not in TOKENIZER_ENGINES:
            raise unknown_name("tokenizer engine", self.tokenizer_engine, TOKENIZER_ENGINES)
        if self.engine not in RUN_ENGINES:
            raise unknown_name("engine", self.engine, RUN_ENGINES)
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError(f"--ray-address {self.ray_address} without --engine ray", "give both, or neither")


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def reading_rules(config: PackConfig, options: RunOptions) -> dict[str, Any]:
    """Keywords for readers.find_sources; raises UsageError for max_bad without on_error skip."""
    skips = config.on_error == "skip"
    if options.max_bad is not None and not skips:
        raise UsageError("--max-bad says how many rows may be skipped, and none is skipped", "add --on-error skip")
    return {"max_row_bytes": options.max_line_bytes, "skip_bad": skips, "lenient": config.lenient}
