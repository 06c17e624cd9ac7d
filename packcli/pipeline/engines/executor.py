"""Which engine does the work, with how many workers: from the options and the number of units."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packcli.config import RunOptions
from packcli.errors import unknown_name
from packcli.pipeline.engines.base import MapFunction
from packcli.pipeline.engines.cluster_check import NodeRequirements
from packcli.pipeline.engines.local import processes, serial

LOCAL_ENGINES: dict[str, MapFunction] = {"serial": serial, "processes": processes}
"""Engines that need no more than this machine."""


def get_engine(name: str) -> MapFunction:
    """The engine of that name; raises UnknownNameError, naming the nearest."""
    if name not in LOCAL_ENGINES:
        raise unknown_name("engine", name, LOCAL_ENGINES)
    return LOCAL_ENGINES[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Executor:
    """An engine that is ready to work."""

    engine: str
    """serial, processes or ray."""
    run: MapFunction
    workers: int
    """Units that are worked on at a time."""
    threads: int
    """Threads of the engine of tokenization in each worker."""
    place: str = ""
    """Where it works, for people, when that is not this machine alone."""


def local_executor(workers: int, num_units: int, engine: str = "auto") -> Executor:
    """The executor on this machine for a number of units."""
    at_once = max(1, min(workers, num_units))
    if engine == "auto":
        engine = "serial" if at_once == 1 else "processes"
    if engine == "serial":
        at_once = 1
    return Executor(engine=engine, run=get_engine(engine), workers=at_once, threads=max(1, workers // at_once))


@contextlib.contextmanager
def open_executor(
    options: RunOptions,
    num_units: int,
    *,
    cpus: int,
    requirements: Callable[[], NodeRequirements],
    warn: Callable[[str], None],
) -> Iterator[Executor]:
    """The executor for a number of units; Ray is connected to, and left again at the end, however that comes.

    Args:
        options: engine, ray_address, workers.
        num_units: What there is to do; for nothing no engine is started.
        cpus: CPUs of this process.
        requirements: Makes what every node of a cluster must see.
        warn: Called with what the user should know.

    Raises:
        UsageError: Ray is not installed, not there, or its nodes do not see what they must.
    """
    if options.engine == "ray" and num_units:
        from packcli.pipeline.engines.ray import open_ray

        with open_ray(options.ray_address, limit=options.workers, requirements=requirements, warn=warn) as cluster:
            yield Executor(engine="ray", run=cluster.run, workers=cluster.workers, threads=1, place=cluster.place)
        return
    yield local_executor(options.workers or cpus, num_units, options.engine if num_units else "serial")
