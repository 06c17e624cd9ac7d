"""Engines of this machine: one after the other, or in processes."""

from __future__ import annotations

import collections
import concurrent.futures.process
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterable
from typing import Any, Generic

from packcli.pipeline.engines.base import POLL_S, RETRIES, Emit, Item, LostWorkerError, Result, Results, Work

_BROKEN = concurrent.futures.process.BrokenProcessPool


def serial(work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit) -> Results[Result]:
    """One after the other, in this process."""
    for item in items:
        yield work(item, emit)


def processes(work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit) -> Results[Result]:
    """In `workers` fresh processes. `work`, the items and the results must be picklable.

    Events that the work emits reach `emit` in this process. Workers die with their parent. When a worker
    dies, nobody knows over which item: those that were not done are tried again, one at a time, up to
    RETRIES times each.

    Raises:
        LostWorkerError: workers died over an item again and again.
    """
    waiting: collections.deque[tuple[Item, concurrent.futures.Future[Result]]] = collections.deque()
    pool = _Pool(work, workers, emit)
    try:
        todo = iter(items)
        more = True
        while more or waiting:
            while more and len(waiting) < 2 * workers:  # enough to keep all busy, few to cancel
                for item in todo:
                    waiting.append((item, pool.submit(item)))
                    break
                else:
                    more = False
            if waiting:
                item, future = waiting[0]
                try:
                    result = pool.wait(future)
                except _BROKEN:
                    pool.stop()
                    pool = _Pool(work, 1, emit)
                    while waiting:
                        item, future = waiting.popleft()
                        if future.cancelled() or isinstance(future.exception(), _BROKEN):
                            yield _retry(pool, item)
                        else:
                            yield future.result()
                    pool.stop()
                    pool = _Pool(work, workers, emit)
                else:
                    waiting.popleft()
                    yield result
        pool.stop()
    except BaseException:  # an error, or nobody wants the rest
        pool.kill()
        raise


def _retry(pool: _Pool[Item, Result], item: Item) -> Result:
    """Works on an item over which a worker may have died, with nobody beside it."""
    for _ in range(RETRIES):
        try:
            return pool.wait(pool.submit(item))
        except _BROKEN:
            pool.stop()
            pool.start()
    raise LostWorkerError(item)


class _Pool(Generic[Item, Result]):
    """Worker processes, and the queue on which their events come."""

    def __init__(self, work: Work[Item, Result], workers: int, emit: Emit) -> None:
        self._work, self._workers, self._emit = work, workers, emit
        self.start()

    def start(self) -> None:
        """Starts the workers; after `stop`, new ones."""
        context = multiprocessing.get_context("spawn")
        self._others = set(multiprocessing.active_children())
        self._events: Any = context.Queue()
        self._pool = concurrent.futures.ProcessPoolExecutor(
            self._workers, context, initializer=_start_worker, initargs=(self._work, self._events)
        )

    def submit(self, item: Item) -> concurrent.futures.Future[Result]:
        """Hands an item to a worker; a pool that is broken says so in the future."""
        try:
            return self._pool.submit(_run, item)
        except _BROKEN as error:
            failed: concurrent.futures.Future[Result] = concurrent.futures.Future()
            failed.set_exception(error)
            return failed

    def wait(self, future: concurrent.futures.Future[Result]) -> Result:
        """The result, passing events on meanwhile."""
        while not future.done():
            concurrent.futures.wait([future], timeout=POLL_S)
            _drain(self._events, self._emit)
        _drain(self._events, self._emit)
        return future.result()

    def stop(self) -> None:
        """Ends the workers, who have nothing left to do."""
        self._pool.shutdown(cancel_futures=True)
        self._events.close()
        self._events.cancel_join_thread()

    def kill(self) -> None:
        """Ends the workers, whatever they do."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.kill()
        self.stop()


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
