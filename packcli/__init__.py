"""packcli: raw text in, packed Arrow shards out.

    packcli.pack("data.jsonl", "out", max_len=2048)   a Report; the same as `packcli pack`
    packcli.plan(lengths, 2048)                       a Plan: pure NumPy, no file is opened
    packcli.load("out")                               datasets.Dataset or DatasetDict, mapped
    packcli.export("out", "parquet")                  the same packs in the formats of other stacks
    packcli.training                                  batches for torch in which documents do not see each other
    packcli.PackConfig, packcli.PackcliError

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packcli.config import PackConfig
    from packcli.errors import PackcliError
    from packcli.exports import export
    from packcli.loading import load
    from packcli.pipeline import pack
    from packcli.planner import make_plan as plan

__version__ = "0.1.0"

__all__ = ["PackConfig", "PackcliError", "__version__", "export", "load", "pack", "plan"]

_HOMES = {
    "PackConfig": ("packcli.config", "PackConfig"),
    "PackcliError": ("packcli.errors", "PackcliError"),
    "export": ("packcli.exports", "export"),
    "load": ("packcli.loading", "load"),
    "pack": ("packcli.pipeline", "pack"),
    "plan": ("packcli.planner", "make_plan"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'packcli' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
