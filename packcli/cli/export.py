"""`packcli export`: a packed directory in another format."""

from __future__ import annotations

from typing import Annotated

import packcli
from packcli.cli.options import Directory, Json, Quiet, plain_option, verb

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


@verb(resumes=True)
def export(
    directory: Directory,
    to: Annotated[str, plain_option("--to", metavar="FORMAT", help=f"{', '.join(EXPORT_FORMATS)}.")],
    output: Annotated[
        str | None, plain_option("-o", "--output", metavar="OUT", help="Where to write [default: DIR-FORMAT].")
    ] = None,
    lossy: Annotated[
        bool, plain_option("--lossy", help="Write also what the format cannot hold: EOS inside documents, masks.")
    ] = False,
    overwrite: Annotated[
        bool, plain_option("--overwrite", help="Replace an export of something else, made by packcli.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a packed directory in the format of another stack, and show the line that loads it there.

    Running the same command again resumes what was interrupted, and does nothing when it is up to date.
    """
    from packcli.cli.views.console import show_result
    from packcli.cli.views.results import show_export

    found = packcli.export(directory, to, output, lossy=lossy, overwrite=overwrite)
    show_result(found, show_export, json_=json_, quiet=quiet)
