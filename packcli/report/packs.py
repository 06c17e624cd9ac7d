"""Packs as people read them: which rows to show, and their text cut at boundaries and where loss begins or ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli.config.choices import IGNORE
from packcli.dataset import Output, PackedDataset, Row, RowSegment
from packcli.errors import UsageError, nearest, printable
from packcli.results import as_html
from packcli.seeds import permutation
from packcli.storage import Location
from packcli.tokenization import Decoder, find_decoder


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Tokens of one segment that all carry loss, or all do not."""

    text: str
    has_loss: bool
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ShownSegment:
    """A segment with its text, or the padding."""

    number: int
    """From 1, in the row; 0 is padding."""
    segment: RowSegment
    origin: str
    """Name of the input file; empty when the row does not say."""
    spans: tuple[TextSpan, ...]
    restarts: bool
    """Whether positions begin at 0 here."""
    first_position: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the segment."""
        return self.segment.end - self.segment.begin

    @property
    def where(self) -> str:
        """Where it comes from: file, row, tokens."""
        if self.segment.source is None:
            return ""
        start = self.segment.start or 0
        tokens = f"tokens {start:,} to {start + self.num_tokens - 1:,}"
        return f"{self.origin} row {self.segment.row:,}, {tokens}"

    @property
    def positions(self) -> str:
        """Which position_ids it has, and whether they restart."""
        last = self.first_position + self.num_tokens - 1
        how = "restart" if self.restarts else "run on"
        return f"positions {how}: {self.first_position:,} to {last:,}"


class Inspector:
    """Reads rows of an output and decodes them.

    Args:
        root: A finished output.
        tokenizer: Where its tokenizer is now, if it has moved since the output was made.

    Raises:
        PackcliError: not an output, or the tokenizer is not at hand.
    """

    def __init__(self, root: Location, tokenizer: str | None = None) -> None:
        self.packed = PackedDataset(root)
        remembered = Output(root).state.last_run().get("tokenizer_path")
        self.decoder: Decoder = find_decoder(self.packed.tokenizer, tokenizer, remembered)
        self._names = [each["name"] for each in self.packed.manifest["inputs"]]

    def at(self, split: str, index: int) -> Row:
        """Row `index` of a split; a negative one counts from the end."""
        return self.packed.row(split, index)

    def random(self, split: str, count: int, seed: int) -> Iterator[Row]:
        """`count` rows by chance, each once, in row order; the same for the same seed."""
        total = self.packed.num_rows.get(split, 0)
        for index in sorted(permutation(total, seed)[:count].tolist()):
            yield self.packed.row(split, index)

    def of_document(self, split: str, place: str) -> Iterator[Row]:
        """Every row with a segment of a document, named SOURCE:ROW; SOURCE is a file's name, its end, or its index."""
        name, _, number = place.rpartition(":")
        if not name or not number.isdigit():
            raise UsageError(f"--doc {place!r} is not SOURCE:ROW", "for example --doc data.jsonl:17")
        source, row = self._source(name), int(number)
        if "sources" not in self.packed.config.columns:
            raise UsageError("the rows have no column 'sources': nothing says where they come from", "use --search")
        for file, first, batch in self.packed.batches(split):
            sources = batch.sources
            if sources is None:
                continue
            hits = np.flatnonzero((sources.source == source) & (sources.row == row))
            numbers = np.unique(np.searchsorted(sources.offsets, hits, side="right") - 1).tolist()
            yield from self.packed.pick(split, file, first, batch, numbers)

    def _source(self, name: str) -> int:
        same = [index for index, each in enumerate(self._names) if each == name]
        if len(same) > 1:  # possible in a merged output
            raise UsageError(
                f"--doc: {len(same)} inputs are called {name!r}", f"name one by its number: {', '.join(map(str, same))}"
            )
        if same:
            return self._names.index(name)
        ends = [index for index, each in enumerate(self._names) if each.endswith(f"/{name}")]
        if len(ends) == 1:
            return ends[0]
        if name.isdigit() and int(name) < len(self._names):
            return int(name)
        close = nearest(name, self._names)
        meant = f"; did you mean {close!r}?" if close else ""
        raise UsageError(
            f"--doc: {name!r} is no input of this output{meant}", f"{len(self._names)} inputs in manifest.json"
        )

    def search(self, split: str, text: str) -> Iterator[Row]:
        """Rows with this text in one of their segments, case-sensitive; the text may cross boundaries of tokens."""
        if not text:
            raise UsageError("--search is empty")
        for file, first, batch in self.packed.batches(split):
            for row in self.packed.pick(split, file, first, batch):
                ids = [row.ids[each.begin : each.end].tolist() for each in row.segments if not each.is_padding]
                if any(text in each for each in self.decoder.texts(ids)):
                    yield row

    def show(self, row: Row) -> list[ShownSegment]:
        """A row as people read it."""
        shown = []
        for number, segment in enumerate(row.segments, 1):
            begin = int(row.positions[segment.begin])
            shown.append(
                ShownSegment(
                    0 if segment.is_padding else number,
                    segment,
                    self._name(segment.source),
                    () if segment.is_padding else tuple(self._spans(row, segment)),
                    begin == 0,
                    begin,
                )
            )
        return shown

    def _name(self, source: int | None) -> str:
        """The name of an input; empty where it is not known."""
        return self._names[source] if source is not None and source < len(self._names) else ""

    def _spans(self, row: Row, segment: RowSegment) -> Iterator[TextSpan]:
        has_loss = row.labels[segment.begin : segment.end] != IGNORE
        cuts = [0, *(np.flatnonzero(np.diff(has_loss)) + 1).tolist(), len(has_loss)]
        ids = row.ids[segment.begin : segment.end].tolist()
        # The text of the whole segment is cut, since a tokenizer may drop a space before the first token it decodes.
        whole = self.decoder.text(ids)
        ends = [len(self.decoder.text(ids[:cut])) for cut in cuts[1:-1]] + [len(whole)]
        begin = 0
        for (low, high), end in zip(itertools.pairwise(cuts), ends, strict=True):
            end = max(begin, min(end, len(whole)))
            yield TextSpan(whole[begin:end], bool(has_loss[low]), high - low)
            begin = end

    def tokens(self, row: Row) -> Iterator[tuple[int, int, str, int | None, int, int]]:
        """Every position of a row: place, id, text, label (None for -100), position id, segment (0 is padding)."""
        for number, segment in enumerate(row.segments, 1):
            for place in range(segment.begin, segment.end):
                label = int(row.labels[place])
                yield (
                    place,
                    int(row.ids[place]),
                    self.decoder.token(int(row.ids[place])),
                    None if label == IGNORE else label,
                    int(row.positions[place]),
                    0 if segment.is_padding else number,
                )


@dataclass(frozen=True, slots=True, repr=False)
class DecodedPack:
    """One pack with its text."""

    row: Row
    """Its ids, labels and positions, as they are stored."""
    segments: tuple[ShownSegment, ...]
    """With their text; the padding, when there is any, is the last."""
    inspector: Inspector
    """What read it."""

    @property
    def text(self) -> str:
        """The text of all segments, with nothing between them."""
        return "".join(span.text for each in self.segments for span in each.spans)

    @property
    def num_padding(self) -> int:
        """Positions that hold no token of a document."""
        return sum(each.num_tokens for each in self.segments if each.segment.is_padding)

    @property
    def heading(self) -> str:
        """What it is, in a line."""
        number = sum(not each.segment.is_padding for each in self.segments)
        return (
            f"{self.row.split} row {self.row.index:,}: {len(self.row.ids) - self.num_padding:,} tokens in {number:,} "
            f"{'segment' if number == 1 else 'segments'}, {self.row.num_loss:,} with loss, "
            f"{self.num_padding:,} padding ({self.row.file})"
        )

    def tokens(self) -> Iterator[tuple[int, int, str, int | None, int, int]]:
        """Every position: place, id, text, label (None for -100), position id, segment (0 is padding)."""
        return self.inspector.tokens(self.row)

    def as_dict(self) -> dict[str, Any]:
        """A row as --json prints it."""
        row = self.row
        return {
            "split": row.split,
            "row": row.index,
            "file": row.file,
            "num_tokens_loss": row.num_loss,
            "segments": [
                {
                    "source": each.origin,
                    "row": each.segment.row,
                    "start": each.segment.start,
                    "begin": each.segment.begin,
                    "end": each.segment.end,
                    "is_padding": each.segment.is_padding,
                    "position_restarts": each.restarts,
                    "runs": [{"text": span.text, "has_loss": span.has_loss} for span in each.spans],
                }
                for each in self.segments
            ],
            "input_ids": row.ids.tolist(),
            "labels": row.labels.tolist(),
            "position_ids": row.positions.tolist(),
        }

    def __repr__(self) -> str:
        return f"<DecodedPack: {printable(self.heading)}>"

    def __str__(self) -> str:
        lines = [self.heading]
        real = [each for each in self.segments if not each.segment.is_padding]
        lines += [f"{each.number}: {each.where}\n{_words(each)}" for each in real]
        return "\n".join(printable(line, keep="\n") for line in lines)

    def _repr_html_(self) -> str:
        """For notebooks: a line for each segment."""
        rows = [(str(each.number), each.where, _words(each)) for each in self.segments if not each.segment.is_padding]
        return as_html([(self.heading,)]) + as_html(rows, ("segment", "from", "text"))


SHOWN_CHARS = 300
"""Characters of a segment that str() and notebooks show."""


def _words(each: ShownSegment) -> str:
    text = "".join(span.text for span in each.spans)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


class DecodedPacks(list[DecodedPack]):
    """Packs, shown below each other."""

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))

    def _repr_html_(self) -> str:
        """For notebooks."""
        return "\n".join(each._repr_html_() for each in self)

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {"rows": [each.as_dict() for each in self]}


def read_packs(
    root: Location,
    *,
    row: int | None = None,
    random: int | None = None,
    doc: str | None = None,
    search: str | None = None,
    limit: int = 5,
    split: str = "train",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Iterator[DecodedPack]:
    """Some packs of an output, one by one; a search gives each pack as soon as it is found.

    Args:
        root: A finished output.
        row, random, doc, search, limit, split, seed, tokenizer: As of packcli.inspect.

    Raises:
        UsageError: no such rows, or two ways to choose them; raised by the call, before the first pack is taken.
        PackcliError: not an output, or the tokenizer is not at hand.
    """
    if sum(each is not None for each in (row, random, doc, search)) > 1:
        raise UsageError("--row, --random, --doc and --search choose rows: give one of them")
    if limit < 1 or (random is not None and random < 1):
        raise UsageError("--limit and --random take a number of rows, at least 1")
    inspector = Inspector(root, tokenizer)
    if split not in inspector.packed.num_rows:
        raise UsageError(f"--split {split!r}: no rows", f"it has {', '.join(inspector.packed.num_rows)}")
    if row is not None:
        rows = iter([inspector.at(split, row)])
    elif doc is not None:
        rows = itertools.islice(inspector.of_document(split, doc), limit)
    elif search is not None:
        rows = itertools.islice(inspector.search(split, search), limit)
    else:
        rows = inspector.random(split, random or 1, seed)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{root}: no row of {split} holds {doc if doc is not None else repr(search)}")
    return (DecodedPack(each, tuple(inspector.show(each)), inspector) for each in itertools.chain([first], rows))
