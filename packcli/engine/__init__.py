"""Map over units: here, in processes, or on Ray. Knows nothing of what the work is."""

from packcli.engine.base import RETRIES, Emit, LostWorkerError, MapFunction
from packcli.engine.crew import ENGINES, Crew, get_engine, local_crew, open_crew
from packcli.engine.ground import File, Ground
from packcli.engine.local import processes, serial

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
