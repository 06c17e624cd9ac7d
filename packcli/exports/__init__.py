"""A packed directory in the formats of other stacks.

    a format, an output   run.run_export   -> locked, resumed, committed
                          base.Export      -> what it cannot hold, one part for each shard, and what joins the parts

A format is one file here and one line below.
"""

from __future__ import annotations

import os

from packcli import storage
from packcli.errors import UsageError, unknown_name
from packcli.exports.base import Export, Exported
from packcli.exports.directories import Automodel, LlamaFactory, Unpacked
from packcli.exports.flat import Flat
from packcli.exports.mds import Mds
from packcli.exports.megatron import Megatron
from packcli.exports.megatron_bridge import MegatronBridge
from packcli.exports.parquet import Parquet
from packcli.exports.run import run_export

__all__ = ["EXPORTS", "Exported", "export", "get_export"]


EXPORTS: dict[str, Export] = {
    "parquet": Parquet(),
    "megatron-bridge": MegatronBridge(),
    "megatron": Megatron(),
    "automodel": Automodel(),
    "llama-factory": LlamaFactory(),
    "unpacked": Unpacked(),
    "mds": Mds(),
    "flat": Flat(),
}


def get_export(name: str) -> Export:
    """The format of that name; raises UnknownNameError, naming the nearest."""
    if name not in EXPORTS:
        raise unknown_name("format", name, EXPORTS)
    return EXPORTS[name]


def export(
    directory: str | os.PathLike[str] | storage.RemotePath,
    to: str,
    output: str | os.PathLike[str] | None = None,
    *,
    lossy: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Writes a packed directory in another format; resumes what was interrupted, does nothing when it is up to date.

    Args:
        directory: An output of packcli.
        to: A key of EXPORTS.
        output: Where to write, on this machine; by default the directory's name with the format behind it.
        lossy: Write also what the format cannot hold in full, such as documents with EOS inside.
        overwrite: Replace an export of ours that was made of something else.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    source = storage.locate(directory)
    place = f"{source.name if isinstance(source, storage.RemotePath) else os.path.normpath(source)}-{to}"
    target = storage.locate(place if output is None else output)
    if isinstance(target, storage.RemotePath):
        raise UsageError(f"{target}: an export is written on this machine", "give a directory with -o, then upload it")
    return run_export(get_export(to), to, source, target, lossy=lossy, overwrite=overwrite)
