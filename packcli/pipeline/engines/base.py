"""What an engine is, and what engines have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from packcli.errors import PackcliError

Item = TypeVar("Item")
Result = TypeVar("Result")
Emit = Callable[[Any], None]
Work = Callable[[Item, Emit], Result]

Results = Generator[Result, None, None]

POLL_S = 0.1
"""Seconds between two looks for events while work goes on."""

RETRIES = 2
"""How often an item is tried again after its worker died."""


class LostWorkerError(Exception):
    """Worker processes died over `item`, at its first try and at every other."""

    def __init__(self, item: Any) -> None:
        super().__init__(item)
        self.item = item


LESS_MEMORY = "fewer --workers take less memory"


@contextlib.contextmanager
def lost_worker_explained(name_of: Callable[[Any], str], hint: str = LESS_MEMORY) -> Iterator[None]:
    """Makes of a LostWorkerError a message for people.

    Args:
        name_of: Gives the name of the item over which workers died.
        hint: What to do about it.

    Raises:
        PackcliError: worker processes died over an item again and again.
    """
    try:
        yield
    except LostWorkerError as lost:
        raise PackcliError(
            f"a worker process died {RETRIES + 1} times over {name_of(lost.item)}, perhaps for want of memory", hint
        ) from None


class MapFunction(Protocol):
    """What an engine does."""

    def __call__(self, work: Work[Item, Result], items: Iterable[Item], *, workers: int, emit: Emit) -> Results[Result]:
        """Yields work(item, emit) for each item, in order of the items; Ray as they are done, so callers sort."""


def merged(events: list[Any], event: Any) -> list[Any]:
    """The events with one more, which is added to the last one where events of its kind can be added up.

    Their number is what travels and what is kept, so it must not grow with the work.
    """
    if events and type(events[-1]) is type(event) and hasattr(event, "__add__"):
        return [*events[:-1], events[-1] + event]
    return [*events, event]
