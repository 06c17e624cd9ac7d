"""Units of a mixture: every unit, and every part of it, holds all components in proportion.

    component   takes of unit 1 of 3                               part 0          part 1
    web         second third of web, thinned to 1/4                first half      second half
    code        second third of code, last third, thinned to 1/2   first half      second half

Epochs of a component follow each other in a unit, and each covers another stretch of it, so that copies of a document
lie in other units, or in one unit as far apart as they can be. A part ends for every component at the same share of
what the unit takes of it, which is known from the bytes of text that were counted before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packcli.readers.chunks import Chunk, RawChunk, ThinnedChunk
from packcli.readers.files import open_parquet
from packcli.readers.sources import Source, Span
from packcli.readers.units import Unit, cut_source
from packcli.seeds import ALL
from packcli.seeds import derive as mix_seeds

GRAINS = 16
"""Grains of a file that can be cut anywhere, for each unit."""

TOLERANCE = 0.1
"""Most by which what a unit takes of a component differs from its share; else there are fewer units."""

MIN_GRAIN = 1024
HASH_STREAM = 11
"""Keeps these hashes apart from other uses of the seed."""


@dataclass(frozen=True, slots=True)
class Take:
    """A span, and which of its rows are taken."""

    span: Span
    threshold: int
    """ALL, or rows with a hash below it."""
    text_bytes: int
    """What the span holds after decompression, about."""
    seed: int
    """Of the hash of its rows."""

    @property
    def weight(self) -> int:
        """What it gives, in bytes times ALL."""
        return self.text_bytes * self.threshold


@dataclass(frozen=True, slots=True)
class MixedUnit(Unit):
    """A unit whose components are read side by side."""

    components: tuple[tuple[Take, ...], ...]
    num_parts: int


@dataclass(frozen=True, slots=True)
class _Grain:
    span: Span
    text_bytes: int


def hash_seed(seed: int, source: int) -> int:
    """Seed of the hash of the rows of a source."""
    return mix_seeds(seed, HASH_STREAM, source)


def cut_mixed(sources: Sequence[Source], mix: Mapping[str, Any], unit_bytes: int, seed: int) -> list[MixedUnit]:
    """Cuts a mixture into units of about unit_bytes of what is taken.

    Args:
        sources: The inputs.
        mix: Of the manifest: components with epochs and threshold, and the text_bytes of every source.
        unit_bytes: Text a part takes, about.
        seed: Of the run.
    """
    text_bytes: Sequence[int] = mix["text_bytes"]
    passes: list[list[int]] = []
    sizes: list[int] = []
    for each in mix["components"]:
        passes.append([ALL] * each["epochs"] + [each["threshold"]] * (each["threshold"] > 0))
        sizes.append(sum(text_bytes[each["first_source"] : each["first_source"] + each["num_sources"]]))
    total = sum(size * threshold for size, taken in zip(sizes, passes, strict=True) for threshold in taken)
    wanted = max(1, -(-total // (unit_bytes * ALL)))
    grains = [
        _grains(sources, text_bytes, each, max(size // (GRAINS * wanted), MIN_GRAIN)) if taken else []
        for each, size, taken in zip(mix["components"], sizes, passes, strict=True)
    ]
    num_units = wanted
    while True:
        stretches = [_stretches(each, num_units) for each in grains]
        if num_units == 1 or all(_is_even(each) for each in stretches):
            break
        num_units -= max(1, num_units // 8)
    units = []
    for index in range(num_units):
        components = []
        for found, taken in zip(stretches, passes, strict=True):
            takes: list[Take] = []
            for number, threshold in enumerate(taken):
                stretch = found[(index + number * num_units // len(taken)) % num_units]
                takes += (
                    Take(grain.span, threshold, grain.text_bytes, hash_seed(seed, grain.span.source))
                    for grain in stretch
                )
            components.append(tuple(takes))
        weight = sum(take.weight for takes in components for take in takes)
        spans = tuple(take.span for takes in components for take in takes)
        units.append(MixedUnit(index, spans, tuple(components), max(1, -(-weight // (unit_bytes * ALL)))))
    return units


def _grains(
    sources: Sequence[Source], text_bytes: Sequence[int], component: Mapping[str, Any], grain: int
) -> list[_Grain]:
    """What a component can be cut into, in order."""
    grains: list[_Grain] = []
    for index in range(component["first_source"], component["first_source"] + component["num_sources"]):
        source = sources[index]
        if source.num_bytes == 0:
            continue
        spans = cut_source(index, source, grain) if source.num_bytes > grain else [Span(index)]
        if len(spans) == 1:
            sizes = [text_bytes[index]]
        elif source.format == "parquet":
            num_rows = open_parquet(source).metadata.num_rows
            firsts = [span.first_row for span in spans] + [num_rows]
            sizes = [text_bytes[index] * (after - first) // num_rows for first, after in itertools.pairwise(firsts)]
        else:
            sizes = [(span.stop if span.stop is not None else source.num_bytes) - span.start for span in spans]
        grains += map(_Grain, spans, sizes)
    return grains


def _stretches(grains: Sequence[_Grain], count: int) -> list[list[_Grain]]:
    """The grains in `count` stretches of about the same size; a grain goes where its middle is."""
    total = sum(grain.text_bytes for grain in grains)
    stretches: list[list[_Grain]] = [[] for _ in range(count)]
    begin = 0
    for grain in grains:
        middle = 2 * begin + grain.text_bytes
        stretch = stretches[min(middle * count // max(2 * total, 1), count - 1)]
        begin += grain.text_bytes
        last = stretch[-1] if stretch else None
        if last is not None and last.span.source == grain.span.source and last.span.stop == grain.span.start:
            whole = Span(last.span.source, last.span.start, grain.span.stop, last.span.first_row)
            stretch[-1] = _Grain(whole, last.text_bytes + grain.text_bytes)
        else:
            stretch.append(grain)
    return stretches


def _is_even(stretches: Sequence[Sequence[_Grain]]) -> bool:
    """Whether every stretch of a component has its share, nearly; a component of which nothing is taken has none."""
    sizes = [sum(grain.text_bytes for grain in stretch) for stretch in stretches]
    share = sum(sizes) / len(sizes)
    return not share or all(abs(size - share) <= TOLERANCE * share for size in sizes)


class MixedReader:
    """Reads the components of a unit side by side, part by part."""

    def __init__(self, unit: MixedUnit, read: Callable[[Span], Iterator[RawChunk]]) -> None:
        self._components = [_Component(takes, read) for takes in unit.components]
        self._num_parts = unit.num_parts
        self._part = 0
        self.pending: object = self
        """None when no part is left."""

    def take(self) -> Iterator[Chunk]:
        """The chunks of the next part."""
        self._part += 1
        is_last = self._part == self._num_parts
        for component in self._components:
            yield from component.until(None if is_last else (self._part, self._num_parts))
        if is_last:
            self.pending = None


class _Component:
    """The chunks of what a unit takes of one component, in order."""

    def __init__(self, takes: Sequence[Take], read: Callable[[Span], Iterator[RawChunk]]) -> None:
        self._total = sum(take.weight for take in takes)
        self._chunks = _with_places(takes, read)
        self._pending = next(self._chunks, None)

    def until(self, share: tuple[int, int] | None) -> Iterator[Chunk]:
        """What comes before share[0]/share[1] of all that is taken; None: all that is left."""
        while self._pending is not None:
            take, before, offset, chunk = self._pending
            head: RawChunk | None = chunk
            after: RawChunk | None = None
            if share is not None:
                # Where the part ends, in bytes of this take: a thinned one gives less for each of its bytes.
                end = (self._total * share[0] // share[1] - before) // take.threshold
                if offset + chunk.num_bytes > end:
                    head, after = chunk.split_at(max(end - offset, 0))
            if head is None:
                return
            size = head.num_bytes
            self._pending = (take, before, offset + size, after) if after is not None else next(self._chunks, None)
            yield head if take.threshold == ALL else ThinnedChunk(head, take.threshold, take.seed)
            if after is not None:
                return


def _with_places(
    takes: Sequence[Take], read: Callable[[Span], Iterator[RawChunk]]
) -> Iterator[tuple[Take, int, int, RawChunk]]:
    """(take, weight of the takes before it, bytes of it before the chunk, chunk)."""
    before = 0
    for take in takes:
        offset = 0
        for chunk in read(take.span):
            yield take, before, offset, chunk
            offset += chunk.num_bytes
        before += take.weight
