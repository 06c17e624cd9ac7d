"""Executors: they map a function over items in this process, in several, or on Ray, whatever the function does."""

from __future__ import annotations

from packcli.pipeline.engines.base import (
    LESS_MEMORY,
    Emit,
    LostWorkerError,
    MapFunction,
    Result,
    Work,
    lost_worker_explained,
)
from packcli.pipeline.engines.cluster_check import NodeRequirements, RequiredFile
from packcli.pipeline.engines.executor import LOCAL_ENGINES, Executor, get_engine, local_executor, open_executor
from packcli.pipeline.engines.local import processes, serial

__all__ = [
    "LESS_MEMORY",
    "LOCAL_ENGINES",
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
    "lost_worker_explained",
    "open_executor",
    "processes",
    "serial",
]
