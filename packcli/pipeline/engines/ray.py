"""The engine on Ray: it joins a Ray that runs, whose nodes see what this machine sees, and starts none."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from packcli.errors import UsageError
from packcli.pipeline.engines.base import MapFunction
from packcli.pipeline.engines.cluster_check import NodeAnswer, NodeRequirements, sees
from packcli.pipeline.engines.ray_map import RayMap, first_line, num_cpus, refuse

ANSWER_S = 120.0
"""Seconds that a node may take to start a worker and look around."""

START = "start one with `ray start --head`, or say where one runs with --ray-address: auto or host:port"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayCluster:
    """A Ray that is ready to work."""

    run: MapFunction
    workers: int
    place: str


@contextlib.contextmanager
def open_ray(
    address: str | None, *, limit: int, requirements: Callable[[], NodeRequirements], warn: Callable[[str], None]
) -> Iterator[RayCluster]:
    """Connects to a Ray and looks whether it can do the work; leaves it at the end.

    Args:
        address: Of a Ray that runs; None takes RAY_ADDRESS from the environment, else auto: one on this machine.
        limit: Units at a time; 0 for as many as it has CPUs.
        requirements: Makes what every node must see.
        warn: Called with what the user should know.

    Raises:
        UsageError: Ray is not installed or not there, or a node does not see what it must.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray", "pip install 'packcli[ray]'")
    with contextlib.ExitStack() as stack:
        if not _is_connected():
            stack.enter_context(_connection(address or os.environ.get("RAY_ADDRESS") or "auto"))
        marked = stack.enter_context(requirements().marked())
        num_nodes = _refuse_unfit(marked)
        cpus = num_cpus()
        if not cpus:
            warn("the Ray cluster has no CPU now: the work waits until a node with one has joined")
        workers = max(1, min(limit or cpus, cpus))
        place = f"Ray on {num_nodes:,} node{'' if num_nodes == 1 else 's'}"
        yield RayCluster(run=RayMap(limit, marked), workers=workers, place=place)


def _is_connected() -> bool:
    """Whether the program has a connection of its own: it is used, and kept."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextlib.contextmanager
def _connection(address: str) -> Iterator[None]:
    """Holds a connection."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray-address {address}: Ray Client is not supported: results would travel through it",
            "run packcli on a node of the cluster, by `ray job submit` for example, with --ray-address auto",
        )
    if address == "local":  # to Ray: start one
        raise UsageError("--ray-address local: packcli joins a Ray that runs, and starts none", START)
    import ray

    try:
        _connect(address)
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """ray.init, without output, and with the program's own handler of SIGTERM kept."""
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)
    in_main = threading.current_thread() is threading.main_thread() and on_terminate is not None
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"--ray-address {address}: {first_line(error)}",
            f"{START}; Ray and Python must be those of the cluster",
        ) from None
    except SystemExit:  # what Ray makes of SIGTERM
        if in_main:
            signal.signal(signal.SIGTERM, on_terminate)
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, on_terminate)


def _refuse_unfit(requirements: NodeRequirements) -> int:
    """Lets every node with a CPU check the requirements.

    Returns:
        How many there are.

    Raises:
        UsageError: one sees something else than this process, or is silent.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    nodes = {each["NodeID"]: each["NodeManagerHostname"] for each in _nodes()}
    node_of = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(requirements): node
        for node in nodes
    }
    answered, silent = ray.wait(list(node_of), num_returns=len(node_of), timeout=ANSWER_S) if node_of else ([], [])
    problems = [f"{nodes[node_of[each]]}: it has not answered for {ANSWER_S:.0f} s" for each in silent]
    for each in answered:
        place = nodes[node_of[each]]
        try:
            answer: NodeAnswer = ray.get(each)
        except ray.exceptions.RayError as error:
            if node_of[each] not in {node["NodeID"] for node in _nodes()}:
                continue  # it has left
            lines = [line for line in str(error).strip().splitlines() if line]
            problems.append(f"{place}: {lines[-1].strip()}")  # such as: No module named 'packcli'
            continue
        problems += [f"{place}: {problem}" for problem in answer.problems]
        is_written = answer.wrote is not None and not answer.problems
        if is_written and not sees(requirements.folder, str(answer.wrote), requirements.mark):
            problems.append(f"{place}: a file that it wrote to {requirements.folder} is not to be seen here")
    refuse(problems)
    return len(nodes)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [each for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU")]


def _look(requirements: NodeRequirements) -> NodeAnswer:
    return requirements.look(write=True)
