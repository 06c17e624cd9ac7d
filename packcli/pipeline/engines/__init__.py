"""Map over units: here, in processes, or on Ray. Knows nothing of what the work is."""

from __future__ import annotations

from packcli.pipeline.engines.base import RETRIES, Emit, LostWorkerError, MapFunction
from packcli.pipeline.engines.cluster_check import File, Ground
from packcli.pipeline.engines.executor import ENGINES, Crew, get_engine, local_crew, open_crew
from packcli.pipeline.engines.local import processes, serial

__all__ = [
    "ENGINES",
    "RETRIES",
    "Crew",
    "Emit",
    "File",
    "Ground",
    "LostWorkerError",
    "MapFunction",
    "get_engine",
    "local_crew",
    "open_crew",
    "processes",
    "serial",
]
