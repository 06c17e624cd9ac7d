"""`packcli export`: a packed directory in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from packcli.cli.exit import ExitCodes
from packcli.cli.options import Debug, Json, Quiet, text_option

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

EXPORT_EPILOG = """Examples:

  packcli export data-packed --to parquet

  packcli export data-packed --to megatron -o tokens"""


def export(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)],
    to: Annotated[str, text_option("--to", metavar="FORMAT", help=f"{', '.join(EXPORT_FORMATS)}.")],
    output: Annotated[
        str | None, text_option("-o", "--output", metavar="OUT", help="Where to write [default: DIR-FORMAT].")
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Write also what the format cannot hold: EOS inside documents, masks.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export of something else, made by packcli.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a packed directory in the format of another stack, and show the line that loads it there.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    with ExitCodes(debug, resumes=True) as errors:
        from packcli import exports
        from packcli.cli.views.console import print_json
        from packcli.cli.views.results import show_export

        found = exports.export(directory, to, output, lossy=lossy, overwrite=overwrite)
        if json_:
            print_json(found.as_dict())
        if not quiet:
            show_export(errors.console, found)
