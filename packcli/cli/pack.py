"""`packcli pack`: flags -> config -> pipeline -> views."""

from __future__ import annotations

from typing import Annotated

import typer

from packcli.cli.exit import ExitCodes
from packcli.cli.options import Debug, Json, Quiet, text_option
from packcli.cli.units import plan
from packcli.config import (
    DEFAULT_MAX_BAD,
    FORMATS,
    PackConfig,
    RunOptions,
    parse_count,
    parse_size,
    read_settings,
    unescape,
)
from packcli.config.choices import COLUMN_SETS, COLUMNS, EFFORTS, ENGINES, OVERLONG, TOKENIZER_ENGINES

DEFAULTS = PackConfig()

PACK_EPILOG = """Examples:

  packcli pack data.jsonl --max-len 2048

  packcli pack 'corpus/*.jsonl.zst' -o packed --tokenizer ./my-model --strategy best-fit

  packcli pack chats.jsonl --tokenizer ./my-model --loss last-assistant

  packcli pack gsm8k.jsonl --field prompt='Question: {question}\\n' --field completion=answer

  packcli pack --mix web.jsonl.zst=0.7 --mix code/=0.3 --tokens 10B

  cat data.jsonl | packcli pack - -o packed --text-template '{question}\\n{answer}'"""


def pack(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help=".jsonl .ndjson .json .txt (also .gz .zst), .parquet, .arrow, save_to_disk directories, "
            "directories, quoted globs, or - for JSONL on standard input.",
            show_default=False,
        ),
    ] = None,
    mix: Annotated[
        list[str] | None,
        text_option(
            "--mix", metavar="INPUT=WEIGHT", help="Instead of INPUT: an input and its share of tokens; repeatable."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        text_option("--tokens", metavar="N", help="Tokens of the mixture, such as 10B [default: no repeats]."),
    ] = None,
    output: Annotated[
        str | None,
        text_option("-o", "--output", metavar="DIR", help="Where to write [default: <first input>-packed]."),
    ] = None,
    max_len: Annotated[
        int | None, typer.Option(help=f"Tokens a pack [default: {DEFAULTS.max_len}].", show_default=False)
    ] = None,
    strategy: Annotated[
        str | None,
        text_option(
            "--strategy",
            metavar="NAME",
            help="concat, best-fit, shuffle-fit, first-fit, next-fit, pad [default: concat for text, else best-fit]; "
            "or a function of yours: module:function, file.py:function.",
        ),
    ] = None,
    overlong: Annotated[
        str | None,
        text_option(
            "--overlong",
            metavar="POLICY",
            help=f"Documents over max-len: {', '.join(OVERLONG)} [default: split for text, else truncate].",
        ),
    ] = None,
    max_docs_per_pack: Annotated[
        int | None, typer.Option(help="Most documents in a pack; 0 is no limit [default: 0].", show_default=False)
    ] = None,
    effort: Annotated[
        str | None,
        text_option(
            "--effort",
            metavar="LEVEL",
            help=f"Work for fewer or (shuffle-fit) unbiased packs: {', '.join(EFFORTS)} [default: normal].",
        ),
    ] = None,
    balance: Annotated[
        bool | None,
        typer.Option(
            "--balance/--no-balance",
            help="Order packs so that every 8 rows cost the same attention [default: no-balance].",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        text_option(
            "--tokenizer", metavar="T", help="tokenizer.json, directory with one, or hub name [default: builtin]."
        ),
    ] = None,
    format_: Annotated[
        str | None,
        text_option("--format", metavar="NAME", help=f"Record shape: {', '.join(FORMATS)} [default: found]."),
    ] = None,
    field: Annotated[
        list[str] | None,
        text_option(
            "--field",
            metavar="PART=FIELD",
            help="Where a part of the record is: prompt=question, or prompt='Question: {question}'; repeatable.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        text_option(
            "--loss", metavar="WHAT", help="all, completion, assistant, last-assistant [default: by record shape]."
        ),
    ] = None,
    loss_on_eot: Annotated[
        bool | None,
        typer.Option(
            "--loss-on-eot/--no-loss-on-eot",
            help="Loss on the token that ends a turn [default: as the template's generation tags say, else yes].",
            show_default=False,
        ),
    ] = None,
    chat_template: Annotated[
        str | None,
        text_option("--chat-template", metavar="T", help="Jinja file, name, or chatml [default: the tokenizer's own]."),
    ] = None,
    date: Annotated[
        str | None, text_option("--date", metavar="YYYY-MM-DD", help="Today, to templates [default: the first run's].")
    ] = None,
    text_field: Annotated[
        str | None,
        text_option("--text-field", metavar="NAME", help="Field of the text [default: text, or the only string]."),
    ] = None,
    text_template: Annotated[
        str | None,
        text_option("--text-template", metavar="T", help="Join fields: '{question}\\n{answer}'."),
    ] = None,
    split_on: Annotated[
        str | None,
        text_option("--split-on", metavar="STRING", help="Cut .txt files into documents here, such as '\\n\\n'."),
    ] = None,
    eos_token: Annotated[
        str | None, text_option("--eos-token", metavar="TOKEN", help="EOS, if the tokenizer names none or another.")
    ] = None,
    eos: Annotated[
        bool | None, typer.Option("--eos/--no-eos", help="EOS after documents [default: eos].", show_default=False)
    ] = None,
    bos: Annotated[
        bool | None,
        typer.Option(
            "--bos/--no-bos", help="BOS before documents [default: as the tokenizer does].", show_default=False
        ),
    ] = None,
    pad_token: Annotated[
        str | None, text_option("--pad-token", metavar="TOKEN", help="Padding [default: the tokenizer's, else EOS].")
    ] = None,
    allow_special: Annotated[
        bool | None,
        typer.Option("--allow-special", help="Special tokens in the text become control tokens.", show_default=False),
    ] = None,
    isolate: Annotated[
        bool | None,
        typer.Option(
            "--isolate/--no-isolate",
            help="Documents of a pack do not see each other [default: isolate].",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        text_option(
            "--columns", metavar="NAMES", help=f"{', '.join(COLUMNS)}; or {', '.join(COLUMN_SETS)} [default: all]."
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="Share of documents for a validation split [default: 0].", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help=f"Seed of all shuffles [default: {DEFAULTS.seed}].", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option("-w", "--workers", help="Processes [default: every CPU].", show_default=False)
    ] = None,
    on_error: Annotated[
        str | None,
        text_option(
            "--on-error",
            metavar="WHAT",
            help="A row that cannot be used: stop, or skip to keep it in rejected.jsonl [default: stop].",
        ),
    ] = None,
    max_bad: Annotated[
        str | None,
        text_option(
            "--max-bad",
            metavar="N|P%",
            help=f"With skip: more bad rows are exit code 4 [default: {DEFAULT_MAX_BAD}].",
        ),
    ] = None,
    lenient: Annotated[
        bool | None,
        typer.Option(
            "--lenient/--no-lenient",
            help="Bytes that are not UTF-8, half surrogates: U+FFFD [default: no-lenient].",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        text_option("--engine", metavar="NAME", help=f"What works on units: {', '.join(ENGINES)} [default: auto]."),
    ] = None,
    ray_address: Annotated[
        str | None,
        text_option(
            "--ray-address",
            metavar="ADDRESS",
            help="A Ray that runs: auto or host:port [default: RAY_ADDRESS, else auto].",
        ),
    ] = None,
    unit_bytes: Annotated[
        str | None,
        text_option("--unit-bytes", metavar="SIZE", help="Text planned together, such as 64MiB [default: 128MiB]."),
    ] = None,
    max_line_bytes: Annotated[
        str | None,
        text_option("--max-line-bytes", metavar="SIZE", help="Longest row that is read [default: 64MiB]."),
    ] = None,
    tokenizer_engine: Annotated[
        str | None,
        text_option("--tokenizer-engine", metavar="NAME", help=f"{', '.join(TOKENIZER_ENGINES)} [default: auto]."),
    ] = None,
    allow_network: Annotated[
        bool | None,
        typer.Option("--allow-network", help="Let a tokenizer be fetched from the hub.", show_default=False),
    ] = None,
    restart: Annotated[
        bool | None,
        typer.Option("--restart", help="Begin an unfinished output of packcli anew.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool | None,
        typer.Option("--overwrite", help="Replace an output of packcli from another run.", show_default=False),
    ] = None,
    config: Annotated[
        str | None,
        text_option("--config", metavar="FILE", help="Settings, flags win [default: packcli.toml if there]."),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tokenize text, pack it, and write Arrow shards with a report.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    with ExitCodes(debug, resumes=True) as errors:
        given = {
            "mix": tuple(mix) if mix else None,
            "tokens": None if tokens is None else parse_count(tokens),
            "max_len": max_len,
            "strategy": strategy,
            "overlong": overlong,
            "max_docs_per_pack": max_docs_per_pack,
            "effort": effort,
            "balance": balance,
            "tokenizer": tokenizer,
            "format": format_,
            "field": tuple(unescape(pair) or "" for pair in field) if field else None,
            "loss": loss,
            "loss_on_eot": loss_on_eot,
            "chat_template": chat_template,
            "date": date,
            "text_field": text_field,
            "text_template": unescape(text_template),
            "split_on": unescape(split_on),
            "eos_token": eos_token,
            "add_eos": eos,
            "add_bos": bos,
            "pad_token": pad_token,
            "allow_special": allow_special,
            "isolate": isolate,
            "columns": columns,
            "val_fraction": val_fraction,
            "seed": seed,
            "on_error": on_error,
            "max_bad": max_bad,
            "lenient": lenient,
            "workers": workers,
            "engine": engine,
            "ray_address": ray_address,
            "unit_bytes": None if unit_bytes is None else parse_size(unit_bytes),
            "max_line_bytes": None if max_line_bytes is None else parse_size(max_line_bytes),
            "tokenizer_engine": tokenizer_engine,
            "allow_network": allow_network,
            "restart": restart,
            "overwrite": overwrite,
        }
        settings = read_settings(config, given)
        options = {name: settings.pop(name) for name in RunOptions.__dataclass_fields__ if name in settings}
        made_config, made_options = PackConfig(**settings), RunOptions(**options)

        from packcli import pipeline
        from packcli.cli.views.console import print_json
        from packcli.cli.views.progress import ProgressDisplay
        from packcli.cli.views.results import show_report

        if context.command.name == "plan":
            plan(errors.console, inputs or (), output, made_config, made_options, json_=json_, quiet=quiet)
            return
        with ProgressDisplay(errors.console, quiet=quiet) as display:
            report = pipeline.pack(inputs or (), output, config=made_config, options=made_options, on_event=display)
        if json_:
            print_json(report.as_dict())
        if not quiet:
            show_report(errors.console, report)
