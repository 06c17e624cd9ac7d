"""Map over units: here, in processes, or on Ray. Knows nothing of what the work is."""

from __future__ import annotations

from packcli.pipeline.engines.base import RETRIES, Emit, LostWorkerError, MapFunction, Result, Work
from packcli.pipeline.engines.cluster_check import NodeRequirements, RequiredFile
from packcli.pipeline.engines.executor import ENGINES, Executor, get_engine, local_executor, open_executor
from packcli.pipeline.engines.local import processes, serial

__all__ = [
    "ENGINES",
    "RETRIES",
    "Emit",
    "Executor",
    "LostWorkerError",
    "MapFunction",
    "NodeRequirements",
    "RequiredFile",
    "Result",
    "Work",
    "get_engine",
    "local_executor",
    "open_executor",
    "processes",
    "serial",
]
