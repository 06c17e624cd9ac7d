"""Map over units: here, in processes, or on Ray. Knows nothing of what the work is."""

from __future__ import annotations

from packcli.pipeline.engines.base import RETRIES, Emit, LostWorkerError, MapFunction
from packcli.pipeline.engines.cluster_check import File, NodeRequirements
from packcli.pipeline.engines.executor import ENGINES, Executor, get_engine, local_executor, open_executor
from packcli.pipeline.engines.local import processes, serial

__all__ = [
    "ENGINES",
    "RETRIES",
    "Emit",
    "Executor",
    "File",
    "LostWorkerError",
    "MapFunction",
    "NodeRequirements",
    "get_engine",
    "local_executor",
    "open_executor",
    "processes",
    "serial",
]
