"""Packing a stream of samples of any kind, window by window, with hooks; it can stop and go on at any pack.

Samples are numbered 0, 1, ... as they are read. A window of `buffer_size` samples is read, `select` makes groups of
them, and `pack` makes a pack of each group, or several. The next window is read when all groups are packed. A sample
that no group took is dropped, counted and named; with `carry` it stays for the next window instead.

    windows of 5:    0 1 2 3 4 | 5 6 7 8 9 | 10 11 12
    with carry, when 3 was left:    0 1 2 3 4 | 3 5 6 7 8 | 9 10 11 12

Every pack has a key, the numbers of its samples: `restore` makes it anew, and the state of a packer is nothing but
numbers. They depend only on the stream and the settings, so a pack is the same in any process.
"""

from __future__ import annotations

import collections
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli.config.choices import IGNORE
from packcli.errors import MismatchError, UsageError
from packcli.packing.arrays import ranges
from packcli.packing.plan import make_plan

Select = Callable[[list[Any]], Iterable[Sequence[Any]]]
Pack = Callable[[Sequence[Any]], Any]

FULL = 0.99
"""With carry, packs this full leave the window. Emptier ones wait, once half of the samples have left."""


@dataclass(frozen=True, slots=True)
class StreamPack:
    """A pack and where it comes from."""

    value: Any
    """What the hook `pack` gave."""
    index: int
    """Number of the group, from 0."""
    part: int
    """Number of the pack inside its group: 0 unless the hook gives several."""
    sources: tuple[int, ...]
    """Numbers of the samples in it."""


def stream_packs(
    samples: Iterable[Any],
    max_len: int,
    *,
    buffer_size: int = 1000,
    select: Select | None = None,
    pack: Pack | None = None,
    carry: bool = False,
    strategy: str | Callable[..., Any] = "best-fit",
    pad_id: int = 0,
    workers: tuple[int, int] | None = None,
) -> StreamPacker:
    """Packs a stream; iterate over what it returns.

    Args:
        samples: An iterable that gives the same samples each time; a Sequence resumes without reading it again.
        max_len: L, positions of a pack; the default hooks keep to it.
        buffer_size: Most samples in memory: the window.
        select: Samples of a window -> groups of them. By default the strategy plans the window.
        pack: A group -> a pack, or an iterator of packs. By default a dict of arrays with the columns of a packed row.
        carry: Whether samples that no group took wait for the next window. The default select then also holds
            back groups that are not full.
        strategy: For the default select; as in packcli.plan.
        pad_id: For the default pack.
        workers: (this one, how many): group g is packed by worker g modulo their number. By default taken from
            torch's data loader. All of them read the whole stream; with batch_size=None, a data loader of any number of
            workers gives the same packs in the same order.

    Raises:
        UsageError: a buffer of no sample, or a worker that is not one of its number.
    """
    if buffer_size < 1:
        raise UsageError(f"buffer_size {buffer_size}: a window holds at least one sample")
    if workers is not None and not 0 <= workers[0] < workers[1]:
        raise UsageError(f"workers {workers}: (this one, how many), counted from 0")
    hooks = select or _Plan(max_len, strategy, carry), pack or _Row(max_len, pad_id)
    return StreamPacker(samples, buffer_size, *hooks, carry, workers)


class StreamPacker:
    """What stream_packs returns. An iteration over it is one pass; `state_dict` tells how far it is."""

    def __init__(
        self,
        samples: Iterable[Any],
        buffer_size: int,
        select: Select,
        pack: Pack,
        carry: bool,
        workers: tuple[int, int] | None,
    ) -> None:
        self._samples, self._buffer_size = samples, buffer_size
        self._select, self._pack, self._carry, self._workers = select, pack, carry, workers
        self._waiting: list[int] = []  # carried from the last window
        self._groups: collections.deque[tuple[int, ...]] = collections.deque()  # selected, not packed yet
        self._held: dict[int, Any] = {}  # number -> sample, of _waiting and _groups
        self._num_read = self._num_groups = self._part = 0
        self._dropped: list[int] = []
        self._ended = False

    @property
    def dropped(self) -> tuple[int, ...]:
        """Numbers of the samples that no group took, so far."""
        return tuple(self._dropped)

    @property
    def num_dropped(self) -> int:
        """How many samples no group took, so far."""
        return len(self._dropped)

    def __iter__(self) -> Iterator[StreamPack]:
        """The packs that are left, from where the state stands."""
        worker, num_workers = self._workers or _torch_workers()
        source = self._source()
        while True:
            while self._groups:
                sources = self._groups[0]
                index = self._num_groups
                if index % num_workers == worker:
                    first = self._part
                    for part, value in enumerate(self._values([self._held[at] for at in sources])):
                        if part >= first:
                            self._part = part + 1
                            yield StreamPack(value, index, part, sources)
                self._groups.popleft()
                for at in sources:
                    self._held.pop(at, None)
                self._num_groups, self._part = index + 1, 0
            if self._ended:
                return
            self._next_window(source)

    def _source(self) -> Iterator[tuple[int, Any]]:
        """Numbered samples from the next unread one; those that the state needs are read again on the way."""
        needed = {at for group in self._groups for at in group} | set(self._waiting)
        missing = needed - self._held.keys()
        first = self._num_read
        if isinstance(self._samples, Sequence):
            samples = self._samples
            self._held |= {at: samples[at] for at in missing}
            return ((at, samples[at]) for at in range(first, len(samples)))
        numbered = enumerate(self._samples)
        for at, sample in numbered if first else ():
            if at in missing:
                self._held[at] = sample
            if at + 1 == first:
                break
        if needed - self._held.keys():
            raise MismatchError("the stream ends before the samples that the state names", "give it the same stream")
        return numbered

    def _next_window(self, source: Iterator[tuple[int, Any]]) -> None:
        window = self._waiting
        while len(window) < self._buffer_size:
            for at, sample in source:
                window.append(at)
                self._held[at] = sample
                self._num_read = at + 1
                break
            else:
                self._ended = True
                break
        self._waiting = []
        if not window:
            return
        samples = [self._held[at] for at in window]
        if isinstance(self._select, _Plan):
            chosen = self._select.groups(samples, self._ended)
        else:
            chosen = _numbered(self._select(samples), samples)
        groups = [tuple(window[place] for place in group) for group in chosen if group]
        taken = {at for group in groups for at in group}
        left = [at for at in window if at not in taken]
        if self._carry and not self._ended:
            if len(left) == self._buffer_size:
                raise UsageError(
                    f"select took none of {len(left)} samples, and the window is full", "use a larger buffer_size"
                )
            self._waiting = left
        else:
            self._dropped += left
            for at in left:
                del self._held[at]
        self._groups.extend(groups)

    def _values(self, group: list[Any]) -> Iterator[Any]:
        packed = self._pack(group)
        if isinstance(packed, Iterator):
            yield from packed
        else:
            yield packed

    def restore(self, pack: StreamPack | Mapping[str, Any]) -> Any:
        """The value of a pack, made anew from its samples.

        Args:
            pack: A StreamPack of this stream, or a mapping with its `sources` and `part`.
        """
        sources, wanted = (pack.sources, pack.part) if isinstance(pack, StreamPack) else (pack["sources"], pack["part"])
        needed: dict[int, Any] = dict.fromkeys(sources)
        if isinstance(self._samples, Sequence):
            needed = {at: self._samples[at] for at in needed}
        else:
            last = max(needed, default=-1)
            for at, sample in enumerate(self._samples):
                if at in needed:
                    needed[at] = sample
                if at >= last:
                    break
        values = self._values([needed[at] for at in sources])
        return next(value for part, value in enumerate(values) if part == wanted)

    def state_dict(self) -> dict[str, Any]:
        """How far it is, in JSON values: the next pack of a packer with this state is the next one of this packer."""
        return {
            "buffer_size": self._buffer_size,
            "carry": self._carry,
            "num_read": self._num_read,
            "num_groups": self._num_groups,
            "part": self._part,
            "groups": [list(group) for group in self._groups],
            "waiting": list(self._waiting),
            "dropped": list(self._dropped),
            "ended": self._ended,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called, over the same stream with the same settings.

        Raises:
            MismatchError: the state is of a packer with other settings.
        """
        for name, mine in (("buffer_size", self._buffer_size), ("carry", self._carry)):
            if state[name] != mine:
                raise MismatchError(f"the state was made with {name}={state[name]}, this packer has {mine}")
        self._num_read, self._num_groups, self._part = state["num_read"], state["num_groups"], state["part"]
        self._groups = collections.deque(tuple(group) for group in state["groups"])
        self._waiting, self._dropped = list(state["waiting"]), list(state["dropped"])
        self._ended = state["ended"]
        self._held = {}


def _numbered(groups: Iterable[Sequence[Any]], samples: list[Any]) -> list[list[int]]:
    """Groups of samples -> groups of their places in the window; samples are told apart by identity, not equality."""
    places: dict[int, collections.deque[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(id(sample), collections.deque()).append(place)
    out = []
    for group in groups:
        places_of_group = []
        for sample in group:
            if not places.get(id(sample)):
                raise UsageError("select gave a sample that is not in the window, or one twice")
            places_of_group.append(places[id(sample)].popleft())
        out.append(places_of_group)
    return out


def _torch_workers() -> tuple[int, int]:
    torch = sys.modules.get("torch")
    info = torch.utils.data.get_worker_info() if torch is not None else None
    return (info.id, info.num_workers) if info is not None else (0, 1)


def _ids(sample: Any) -> Any:
    return sample["input_ids"] if isinstance(sample, Mapping) else sample


@dataclass(frozen=True, slots=True)
class _Plan:
    """The default select: a strategy plans the window."""

    max_len: int
    strategy: str | Callable[..., Any]
    carry: bool

    def __call__(self, samples: list[Any]) -> list[list[Any]]:
        return [[samples[at] for at in group] for group in self.groups(samples, True)]

    def groups(self, samples: list[Any], is_last: bool) -> list[list[int]]:
        """Groups of places in the window; empty samples are in none."""
        lengths = [len(_ids(sample)) for sample in samples]
        if max(lengths, default=0) > self.max_len:
            raise UsageError(
                f"a sample of {max(lengths)} tokens does not fit a pack of {self.max_len}",
                "cut or leave out long samples before they are packed, or use a larger max_len",
            )
        plan = make_plan(lengths, self.max_len, strategy=self.strategy)
        docs, bounds = plan.segments.doc[plan.order], plan.pack_offsets.tolist()
        groups = [sorted(docs[begin:end].tolist()) for begin, end in itertools.pairwise(bounds)]
        if self.carry and not is_last:
            by_fill = np.argsort(-plan.pack_tokens, kind="stable").tolist()
            chosen: list[list[int]] = []
            num_samples = 0
            for at in by_fill:
                if chosen and plan.pack_tokens[at] < FULL * self.max_len and num_samples >= len(samples) // 2:
                    break
                chosen.append(groups[at])
                num_samples += len(groups[at])
            groups = chosen
        return sorted(groups)


@dataclass(frozen=True, slots=True)
class _Row:
    """The default pack: the columns of a packed row, int64 arrays."""

    max_len: int
    pad_id: int

    def __call__(self, group: Sequence[Any]) -> dict[str, Any]:
        ids = [np.asarray(_ids(sample), dtype=np.int64) for sample in group]
        lengths = [len(each) for each in ids]
        total = sum(lengths)
        if total > self.max_len:
            raise UsageError(f"a group of {total} tokens does not fit a pack of {self.max_len}")
        row = np.full(self.max_len, self.pad_id, dtype=np.int64)
        labels = np.full(self.max_len, IGNORE, dtype=np.int64)
        begin = 0
        for sample, each in zip(group, ids, strict=True):
            row[begin : begin + len(each)] = each
            given = sample.get("labels") if isinstance(sample, Mapping) else None
            labels[begin : begin + len(each)] = each if given is None else given
            labels[begin : begin + 1] = IGNORE
            begin += len(each)
        runs = np.array([*lengths, *([self.max_len - total] if total < self.max_len else [])], dtype=np.int64)
        positions = ranges(np.zeros_like(runs), runs)
        return {"input_ids": row, "labels": labels, "position_ids": positions, "seq_lengths": runs}
