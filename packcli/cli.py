"""The command line: flags -> config -> pipeline -> console; errors -> exit codes. The only file that knows typer."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from packcli import __version__
from packcli.config import (
    COLUMN_SETS,
    COLUMNS,
    EFFORTS,
    OVERLONG,
    TOKENIZER_ENGINES,
    PackConfig,
    RunOptions,
    parse_size,
    read_toml,
)
from packcli.errors import PackcliError, StorageError

CONFIG_FILE = "packcli.toml"
EXPORT_FORMATS = (
    "parquet",
    "megatron-bridge",
    "megatron",
    "automodel",
    "llama-factory",
    "unpacked",
    "mds",
    "flat",
)
"""The keys of exports.EXPORTS, which would load pyarrow."""
DEFAULTS = PackConfig()

app = typer.Typer(
    name="packcli",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
    help="Turn raw text into packed training data: tokenized, packed, accounted for.",
    epilog="Exit codes: 0 ok, 1 internal, 2 usage, 3 mismatch, 4 bad row, 5 locked, 6 storage.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"packcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Nothing to do before a verb."""


def _text_option(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


@app.command(
    epilog="""Examples:

  packcli pack data.jsonl --max-len 2048

  packcli pack 'corpus/*.jsonl.zst' -o packed --tokenizer ./my-model --strategy best-fit

  cat data.jsonl | packcli pack - -o packed --text-template '{question}\\n{answer}'"""
)
def pack(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help=".jsonl .ndjson .json .txt (also .gz .zst), .parquet, .arrow, save_to_disk directories, "
            "directories, quoted globs, or - for JSONL on standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        _text_option("-o", "--output", metavar="DIR", help="Where to write [default: <first input>-packed]."),
    ] = None,
    max_len: Annotated[
        int | None, typer.Option(help=f"Tokens a pack [default: {DEFAULTS.max_len}].", show_default=False)
    ] = None,
    strategy: Annotated[
        str | None,
        _text_option(
            "--strategy",
            metavar="NAME",
            help=f"concat, best-fit, shuffle-fit, first-fit, next-fit, pad [default: {DEFAULTS.strategy}].",
        ),
    ] = None,
    overlong: Annotated[
        str | None,
        _text_option(
            "--overlong",
            metavar="POLICY",
            help=f"Documents over max-len: {', '.join(OVERLONG)} [default: {DEFAULTS.overlong}].",
        ),
    ] = None,
    max_docs_per_pack: Annotated[
        int | None, typer.Option(help="Most documents in a pack; 0 is no limit [default: 0].", show_default=False)
    ] = None,
    effort: Annotated[
        str | None,
        _text_option(
            "--effort",
            metavar="LEVEL",
            help=f"Work for fewer packs (best-fit): {', '.join(EFFORTS)} [default: normal].",
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
        _text_option(
            "--tokenizer", metavar="T", help="tokenizer.json, directory with one, or hub name [default: builtin]."
        ),
    ] = None,
    text_field: Annotated[
        str | None,
        _text_option("--text-field", metavar="NAME", help="Field of the text [default: text, or the only string]."),
    ] = None,
    text_template: Annotated[
        str | None,
        _text_option("--text-template", metavar="T", help="Join fields: '{question}\\n{answer}'."),
    ] = None,
    split_on: Annotated[
        str | None,
        _text_option("--split-on", metavar="STRING", help="Cut .txt files into documents here, such as '\\n\\n'."),
    ] = None,
    eos_token: Annotated[
        str | None, _text_option("--eos-token", metavar="TOKEN", help="EOS, if the tokenizer names none or another.")
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
        str | None, _text_option("--pad-token", metavar="TOKEN", help="Padding [default: the tokenizer's, else EOS].")
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
        _text_option(
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
    unit_bytes: Annotated[
        str | None,
        _text_option("--unit-bytes", metavar="SIZE", help="Text planned together, such as 64MiB [default: 128MiB]."),
    ] = None,
    tokenizer_engine: Annotated[
        str | None,
        _text_option("--tokenizer-engine", metavar="NAME", help=f"{', '.join(TOKENIZER_ENGINES)} [default: auto]."),
    ] = None,
    allow_network: Annotated[
        bool | None,
        typer.Option("--allow-network", help="Let a tokenizer be fetched from the hub.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool | None,
        typer.Option("--overwrite", help="Replace an output of packcli from another run.", show_default=False),
    ] = None,
    config: Annotated[
        str | None,
        _text_option("--config", metavar="FILE", help="Settings, flags win [default: packcli.toml if there]."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Tokenize text, pack it, and write Arrow shards with a report.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    with _Errors(debug) as errors:
        given = {
            "max_len": max_len,
            "strategy": strategy,
            "overlong": overlong,
            "max_docs_per_pack": max_docs_per_pack,
            "effort": effort,
            "balance": balance,
            "tokenizer": tokenizer,
            "text_field": text_field,
            "text_template": _unescape(text_template),
            "split_on": _unescape(split_on),
            "eos_token": eos_token,
            "add_eos": eos,
            "add_bos": bos,
            "pad_token": pad_token,
            "allow_special": allow_special,
            "isolate": isolate,
            "columns": columns,
            "val_fraction": val_fraction,
            "seed": seed,
            "workers": workers,
            "unit_bytes": None if unit_bytes is None else parse_size(unit_bytes),
            "tokenizer_engine": tokenizer_engine,
            "allow_network": allow_network,
            "overwrite": overwrite,
        }
        settings = _read_config(config) | {name: value for name, value in given.items() if value is not None}
        for one, other in (("text_field", "text_template"), ("text_template", "text_field")):
            if given[one] is not None and given[other] is None:  # a flag replaces either one of the file
                settings.pop(other, None)
        options = {name: settings.pop(name) for name in RunOptions.__dataclass_fields__ if name in settings}
        made_config, made_options = PackConfig(**settings), RunOptions(**options)

        from packcli import console, pipeline

        with console.ProgressDisplay(errors.console, quiet=quiet) as display:
            report = pipeline.pack(inputs, output, config=made_config, options=made_options, on_event=display)
        if json_:
            console.print_json(report.as_dict())
        if not quiet:
            console.show_report(errors.console, report)


@app.command(epilog="Example:\n\n  packcli stats data-packed")
def stats(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)],
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show the report of a packed directory: padding ratio, utilisation, documents per pack, lengths."""
    with _Errors(debug) as errors:
        from packcli import console, report

        found = report.read_report(directory)
        if json_:
            console.print_json(found.as_dict())
        else:
            console.show_report(errors.console, found, percentiles=True)


@app.command(
    epilog="""Examples:

  packcli export data-packed --to parquet

  packcli export data-packed --to megatron -o tokens"""
)
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)],
    to: Annotated[str, _text_option("--to", metavar="FORMAT", help=f"{', '.join(EXPORT_FORMATS)}.")],
    output: Annotated[
        str | None, _text_option("-o", "--output", metavar="OUT", help="Where to write [default: DIR-FORMAT].")
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Write also what the format cannot hold: EOS inside documents, masks.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export of something else, made by packcli.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write a packed directory in the format of another stack, and show the line that loads it there.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    with _Errors(debug) as errors:
        from packcli import console, exports

        found = exports.export(directory, to, output, lossy=lossy, overwrite=overwrite)
        if json_:
            console.print_json(found.as_dict())
        if not quiet:
            console.show_export(errors.console, found)


def _unescape(text: str | None) -> str | None:
    r"""\n, \t, \r, \0 and \\ in an option mean what they mean in C; a shell passes them on as they are."""
    if text is None:
        return None
    meant = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
    return re.sub(r"\\([ntr0\\])", lambda match: meant[match.group(1)], text)


def _read_config(path: str | None) -> dict[str, Any]:
    if path is not None:
        return read_toml(Path(path))
    return read_toml(Path(CONFIG_FILE)) if Path(CONFIG_FILE).is_file() else {}


class _Errors:
    """Turns deliberate errors and errors of the system into messages and exit codes; bugs keep their traceback."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug

    @property
    def console(self) -> Any:
        from packcli import console

        return console.make_console()

    def __enter__(self) -> _Errors:
        signal.signal(signal.SIGTERM, _terminate)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, BrokenPipeError):
            _leave_pipe()
        if isinstance(error, OSError):
            error = _storage_error(error)
        if isinstance(error, PackcliError) and not self._debug:
            from packcli import console

            console.show_error(self.console, error)
            raise typer.Exit(error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            self.console.print("interrupted: committed units are kept, the same command resumes")
            raise typer.Exit(143 if isinstance(error, _TerminatedError) else 130)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, made an exception so that temporary files go."""


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError


def _storage_error(error: OSError) -> StorageError:
    place = f"{error.filename}: " if error.filename else ""
    hint = "committed units are kept: the same command resumes"
    if error.errno == errno.ENOSPC:
        hint = f"free some space, or use another -o; {hint}"
    return StorageError(f"{place}{error.strerror or error}", hint)


def _leave_pipe() -> NoReturn:
    """Leaves as a program that SIGPIPE kills: 141, no traceback, not even from the interpreter's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(141)


def main() -> None:
    """The entry point `packcli`."""
    app()
