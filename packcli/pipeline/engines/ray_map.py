"""Core tasks of Ray, one an item: what this process does, and what the workers do.

Descriptors travel, data never: the work goes to every worker process once, an item is a few numbers, and what comes
back is a record of what was written. So the memory of this process does not grow with the number of items, and
neither does what Ray keeps: at most two items for each CPU are under way.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from packcli.errors import PackcliError, UsageError
from packcli.pipeline.engines.base import POLL_S, RETRIES, Emit, Item, LostWorkerError, Result, Results, Work, merged
from packcli.pipeline.engines.cluster_check import NodeRequirements
from packcli.storage import is_full

REPORT_S = 5.0
"""Seconds between two reports of a worker during a long item; the last one comes with its result."""

LAST_S = 5.0
"""Seconds that the last reports are waited for."""

ROOM_S = 10.0
"""Seconds between two looks at the size of the cluster, which may grow and shrink."""

SHARED = (
    "inputs, tokenizer and output must be on storage that every node mounts at the same path, such as NFS or Lustre, "
    "and every node needs the same packcli; --engine processes needs this machine alone"
)


def num_cpus() -> int:
    """CPUs of the cluster, busy ones included."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def refuse(problems: list[str]) -> None:
    """Raises UsageError when there are any."""
    if problems:
        more = f"\n    and {len(problems) - 3} more" if len(problems) > 3 else ""
        listed = "".join(f"\n    {each}" for each in problems[:3])
        raise UsageError(f"the Ray cluster cannot do this work:{listed}{more}", SHARED)


def first_line(error: BaseException) -> str:
    """The first line of what an error of Ray says, which may be a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class RayMap:
    """The map function of a Ray that is connected."""

    def __init__(self, limit: int, requirements: NodeRequirements) -> None:
        self._limit, self._requirements = limit, requirements

    def __call__(self, work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit) -> Results[Result]:
        """Yields work(item, emit) for each item, as they are done. `workers` is what was found; the cluster may grow.

        A task is tried again, RETRIES times, when its worker or node dies and when it raises OSError.

        Raises:
            LostWorkerError: workers died over an item again and again.
        """
        import ray

        reports = _Reports(emit)
        context = _TaskContext([ray.put((work, self._requirements))], reports.reporter)
        run = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=[OSError])(_run)
        room = _Room(self._limit)
        in_flight: dict[concurrent.futures.Future[Any], tuple[Item, Any]] = {}
        done: queue.SimpleQueue[concurrent.futures.Future[Any]] = queue.SimpleQueue()
        todo, more = iter(items), True
        try:
            while more or in_flight:
                while more and len(in_flight) < room():
                    for item in todo:
                        reference = run.remote(context, item)
                        future = reference.future()
                        in_flight[future] = item, reference
                        future.add_done_callback(done.put)
                        break
                    else:
                        more = False
                reports.pass_on()
                try:  # not ray.wait, which would turn the exception of a signal handler into one of its own
                    future = done.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                outcome = _outcome(future, in_flight.pop(future)[0])
                for event in outcome.events:
                    emit(event)
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.result
            reports.finish()
        finally:  # after an error, nobody wants the rest, and it would go on writing
            for _, reference in in_flight.values():
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True)


class _Room:
    """How many items may be in flight: enough to keep all CPUs busy, and to show an autoscaler that more are wanted."""

    def __init__(self, limit: int) -> None:
        self._limit, self._asked, self._room = limit, 0.0, limit

    def __call__(self) -> int:
        if not self._limit and (time.monotonic() - self._asked > ROOM_S or not self._asked):
            self._asked, self._room = time.monotonic(), max(2, 2 * num_cpus())
        return self._room


@dataclass(slots=True)
class _Outcome:
    """What comes back from a task. An error that another try cannot mend is a result like any other."""

    events: list[Any]
    result: Any = None
    error: Exception | None = None


def _outcome(future: concurrent.futures.Future[Any], item: Item) -> _Outcome:
    from ray import exceptions

    try:
        outcome: _Outcome = future.result()
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError):
            raise error.cause from None
        raise  # a bug; its text holds the traceback of the worker
    except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError):
        raise LostWorkerError(item) from None
    except exceptions.RayError as error:
        raise PackcliError(
            f"Ray: {type(error).__name__}: {first_line(error)}",
            "committed units are kept: the same command resumes",
        ) from None
    return outcome


class _Reports:
    """Passes on what workers report during long items."""

    def __init__(self, emit: Emit) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.reporter = ray.remote(num_cpus=0)(_Reporter).options(scheduling_strategy=this_node).remote()
        self._emit, self._asked = emit, time.monotonic()
        self._answer: concurrent.futures.Future[list[Any]] | None = None

    def pass_on(self) -> None:
        """Emits what has come, and asks for more now and then."""
        if self._answer is not None and self._answer.done():
            events = [] if self._answer.exception() else self._answer.result()
            self._answer = None
            for event in events:
                self._emit(event)
        elif self._answer is None and time.monotonic() - self._asked > REPORT_S / 2:
            self._asked, self._answer = time.monotonic(), self.reporter.take.remote().future()

    def finish(self) -> None:
        """Emits what is left. It is for people only: when it does not come, that is no error."""
        import ray

        answers = [each for each in (self._answer, self.reporter.take.remote().future()) if each is not None]
        with contextlib.suppress(ray.exceptions.RayError, concurrent.futures.TimeoutError):
            for answer in answers:
                for event in answer.result(timeout=LAST_S):
                    self._emit(event)


class _Reporter:
    """An actor on the node of this process, where the events of long items are added up."""

    def __init__(self) -> None:
        self._events: list[Any] = []

    def add(self, events: list[Any]) -> None:
        """What a worker has done since its last report."""
        for event in events:
            self._events = merged(self._events, event)

    def take(self) -> list[Any]:
        """What has come since the last call."""
        events, self._events = self._events, []
        return events


# --- in the workers ---


@dataclass(frozen=True, slots=True)
class _TaskContext:
    """What every task is given besides its item."""

    work: list[Any]
    """A reference to the work and the requirements: in a list, so that Ray does not fetch it for every task anew."""
    reporter: Any


class _Fetched:
    """What this worker process has fetched."""

    work: tuple[Any, Work[Any, Any]] | None = None


def _run(context: _TaskContext, item: Any) -> _Outcome:
    events = _Events(context.reporter)
    result: Any = None
    failure: Exception | None = None
    try:
        result = _work_of(context)(item, events)
    except PackcliError as error:
        failure = error
    except OSError as error:
        if not is_full(error):
            raise
        failure = error
    return _Outcome(events.left, result, failure)


def _work_of(context: _TaskContext) -> Work[Any, Any]:
    """The work, fetched once a process: so what it loads stays from item to item. A node that joined late looks around.

    Raises:
        UsageError: this node does not see what it must.
    """
    import ray

    (reference,) = context.work
    if _Fetched.work is None or _Fetched.work[0] != reference:
        work, requirements = ray.get(reference)
        answer = requirements.look()
        refuse([f"{answer.place}: {each}" for each in answer.problems])
        _Fetched.work = reference, work
    return _Fetched.work[1]


class _Events:
    """Adds events up; reports them during a long item, and leaves the rest for its end."""

    def __init__(self, reporter: Any) -> None:
        self._reporter, self._reported = reporter, time.monotonic()
        self._events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self._events = merged(self._events, event)
        if time.monotonic() - self._reported > REPORT_S:
            self._reporter.add.remote(self._events)
            self._reported, self._events = time.monotonic(), []

    @property
    def left(self) -> list[Any]:
        """What is not reported yet."""
        return self._events
