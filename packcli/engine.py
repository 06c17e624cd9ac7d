"""Ordered map over units: here, or in processes. Knows nothing of what the work is."""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from packcli.errors import PackcliError, unknown_name

Item = TypeVar("Item")
Result = TypeVar("Result")
Emit = Callable[[Any], None]
Work = Callable[[Item, Emit], Result]

POLL_S = 0.1


class MapFunction(Protocol):
    """What an engine is."""

    def __call__(
        self, work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit
    ) -> Iterator[Result]:
        """Yields work(item, emit) for each item, in order of the items."""


def serial(work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit) -> Iterator[Result]:
    """One after the other, in this process."""
    for item in items:
        yield work(item, emit)


def processes(work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit) -> Iterator[Result]:
    """In `workers` fresh processes. `work`, the items and the results must be picklable.

    Events that the work emits reach `emit` in this process. Workers die with their parent.

    Raises:
        PackcliError: a worker died without an exception, such as for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    events: Any = context.Queue()
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(work, events))
    try:
        todo = iter(items)
        more = True
        while more or waiting:
            while more and len(waiting) < 2 * workers:  # enough to keep all busy, few to cancel
                for item in todo:
                    waiting.append(pool.submit(_run, item))
                    break
                else:
                    more = False
            if waiting:
                while not waiting[0].done():
                    concurrent.futures.wait([waiting[0]], timeout=POLL_S)
                    _drain(events, emit)
                _drain(events, emit)
                yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        raise PackcliError(
            "a worker process died, perhaps for want of memory",
            "committed units are kept: run the same command again, with fewer --workers or a smaller --unit-bytes",
        ) from None
    finally:
        if waiting or sys.exc_info()[0] is not None:  # an error, or nobody wants the rest
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)
        events.close()
        events.cancel_join_thread()


ENGINES: dict[str, MapFunction] = {"serial": serial, "processes": processes}


def get_engine(name: str) -> MapFunction:
    """The engine of that name; raises UnknownNameError, naming the nearest."""
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    return ENGINES[name]


class _Worker(Generic[Item, Result]):
    """What a worker process was told at its start."""

    work: Work[Any, Any] | None = None
    events: Any = None


def _start_worker(work: Work[Any, Any], events: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A parent that is killed cannot tell its workers, and they would go on writing.
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _Worker.work, _Worker.events = staticmethod(work), events


def _die_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _run(item: Any) -> Any:
    if _Worker.work is None:
        raise AssertionError("the worker was not started by _start_worker")
    return _Worker.work(item, _Worker.events.put)


def _drain(events: Any, emit: Emit) -> None:
    while True:
        try:
            event = events.get_nowait()
        except queue.Empty:
            return
        emit(event)
