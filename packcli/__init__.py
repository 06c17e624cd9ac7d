"""packcli: raw text in, packed Arrow shards out.

    packcli.pack("data.jsonl", "out", max_len=2048)   a Report; the same as `packcli pack`
    packcli.stats("out")                              its figures; of raw input, what packing would give
    packcli.inspect("out", row=17)                    packs as people read them
    packcli.verify("out", deep=True)                  a Verdict: is it whole and right
    packcli.units.plan, .run, .finish, .status        a run that is shared out to processes on any machines
    packcli.progress()                                shows events: with packcli.progress() as bar, on_event=bar
    packcli.plan(lengths, 2048)                       a Plan: pure NumPy, no file is opened
    packcli.load("out")                               datasets.Dataset or DatasetDict, mapped
    packcli.restore("out", 17)                        one row, made again from the inputs
    packcli.merge(["one", "two"], "out")              several outputs of one config as one; a Report
    packcli.export("out", "parquet")                  the same packs in the formats of other stacks
    packcli.pack_sequences(rows, 2048, 0)             lists, arrays or tensors in memory; also concatenate_and_pack
    packcli.stream_packs(samples, 2048)               a stream, window by window, with hooks; stops and goes on
    packcli.training                                  batches for torch in which documents do not see each other
    packcli.PackConfig, packcli.PackcliError

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packcli.api import units
    from packcli.api.inspect import inspect
    from packcli.api.pack import pack
    from packcli.api.stats import stats
    from packcli.api.verify import verify
    from packcli.cli.views.progress import progress
    from packcli.config.settings import PackConfig
    from packcli.errors import PackcliError
    from packcli.exports import export
    from packcli.packing.in_memory import concatenate_and_pack, pack_sequences
    from packcli.packing.plan import make_plan as plan
    from packcli.packing.stream import stream_packs
    from packcli.pipeline.merge import merge
    from packcli.training.load import load
    from packcli.verification.restore import restore

__version__ = "0.1.0"

__all__ = [
    "PackConfig",
    "PackcliError",
    "__version__",
    "concatenate_and_pack",
    "export",
    "inspect",
    "load",
    "merge",
    "pack",
    "pack_sequences",
    "plan",
    "progress",
    "restore",
    "stats",
    "stream_packs",
    "units",
    "verify",
]

_HOMES = {
    "PackConfig": ("packcli.config.settings", "PackConfig"),
    "PackcliError": ("packcli.errors", "PackcliError"),
    "concatenate_and_pack": ("packcli.packing.in_memory", "concatenate_and_pack"),
    "export": ("packcli.exports", "export"),
    "inspect": ("packcli.api.inspect", "inspect"),
    "load": ("packcli.training.load", "load"),
    "merge": ("packcli.pipeline.merge", "merge"),
    "pack": ("packcli.api.pack", "pack"),
    "pack_sequences": ("packcli.packing.in_memory", "pack_sequences"),
    "plan": ("packcli.packing.plan", "make_plan"),
    "progress": ("packcli.cli.views.progress", "progress"),
    "restore": ("packcli.verification.restore", "restore"),
    "stats": ("packcli.api.stats", "stats"),
    "stream_packs": ("packcli.packing.stream", "stream_packs"),
    "units": ("packcli.api.units", ""),
    "verify": ("packcli.api.verify", "verify"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'packcli' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    home = importlib.import_module(module)
    value = getattr(home, attribute) if attribute else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
