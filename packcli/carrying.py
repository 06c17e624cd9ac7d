"""Which documents of a part wait for the next one, and the bytes that keep them meanwhile (`carry_files`).

A unit of several parts (a compressed file, say) is planned part by part, and what fills no pack at the end of one part
may fill one in the next. Strategies that pair documents freely carry the documents of badly filled packs over, as if
they were read there. With packs of 10, and plans that put 6 beside 4:

    part 0    6 4 | 6 4 | 6        the last document waits
    part 1    6 + 4 4 6 ...        and meets a 4

Documents go whole: of one that is cut, the full packs go along. How much waits is bounded, and how often, so that
memory and the work of planning are, whatever the lengths: of documents of 1,025 tokens in packs of 2,048 every pack is
bad.

Legend: D documents, S segments, P packs, T tokens.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packcli.assemble import Origin
from packcli.config import is_own_strategy
from packcli.overlong import Segments
from packcli.planner import Plan, lower_bound
from packcli.strategies import get_strategy
from packcli.tokens import TokenBatch

FULL_PERCENT = 99
"""Packs that are as full as this are written; 98 and 99.5 gave no fewer packs over all the sets that were tried."""

MAX_SHARE = 4
"""At most a quarter of the tokens that the part read itself waits: an eighth left more packs, a half few less."""

MAX_TOKENS = 1 << 21
"""And no more than this, 8 MB of ids; of a part of 128 MiB of text it is a twentieth."""

MIN_PACKS = 4
"""But as many packs as this, however small the part."""

MAX_MOVES = 4
"""A document is carried this often at most. Once left twice as many packs over the minimum, eight times hardly less."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Documents on their way from a part to the next, in the order in which they were read."""

    tokens: TokenBatch
    """With their BOS and EOS."""
    origin: Origin
    split: NDArray[np.uint8]
    """uint8[D]: index of the split."""
    moves: NDArray[np.uint8]
    """uint8[D]: how often each has been carried, this time included: 1..MAX_MOVES."""

    def __len__(self) -> int:
        """The number of documents D."""
        return len(self.tokens)

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.tokens.ids)

    def to_bytes(self) -> bytes:
        """A line of JSON and the arrays, the same on every machine; b"" for no document."""
        if not len(self):
            return b""
        head = {"num_documents": len(self), "num_tokens": self.num_tokens, "masked": self.tokens.loss is not None}
        arrays = [
            self.tokens.lengths.astype("<i8"),
            self.origin.row.astype("<i8"),
            self.origin.source.astype("<i4"),
            self.tokens.ids.astype("<u4"),
            self.split,
            self.moves,
        ]
        if self.tokens.loss is not None:
            arrays.append(self.tokens.loss.view(np.uint8))
        return json.dumps(head).encode() + b"\n" + b"".join(each.tobytes() for each in arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> Carried:
        """The inverse of to_bytes; the content is known to be whole, by its digest."""
        if not content:
            return cls.nothing()
        head = json.loads(content[: content.index(b"\n")])
        num_docs, num_tokens, place = head["num_documents"], head["num_tokens"], content.index(b"\n") + 1

        def take(kind: str, count: int) -> NDArray[np.generic]:
            nonlocal place
            found = np.frombuffer(content, dtype=kind, count=count, offset=place)
            place += found.nbytes
            return found

        lengths, row = take("<i8", num_docs), take("<i8", num_docs).astype(np.int64)
        source, ids = take("<i4", num_docs).astype(np.int32), take("<u4", num_tokens).astype(np.uint32)
        split, moves = take("u1", num_docs).astype(np.uint8), take("u1", num_docs).astype(np.uint8)
        loss = take("u1", num_tokens).view(np.bool_) if head["masked"] else None
        offsets = np.zeros(num_docs + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(TokenBatch(ids, offsets, loss), Origin(source, row), split, moves)

    @classmethod
    def nothing(cls) -> Carried:
        """No document."""
        none = np.empty(0, dtype=np.uint8)
        tokens = TokenBatch(np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64))
        return cls(tokens, Origin(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)), none, none)


class Onward:
    """Collects the documents of a part that wait for the next, split by split.

    Args:
        carried: What the part before handed over: the first documents of this one.
        num_documents: D, of all splits.
    """

    def __init__(self, carried: Carried, num_documents: int) -> None:
        self._moves = np.zeros(num_documents, dtype=np.uint8)
        self._moves[: len(carried)] = carried.moves
        self._split = np.zeros(num_documents, dtype=np.uint8)
        self._goes = np.zeros(num_documents, dtype=np.bool_)

    def divide(
        self, plan: Plan, docs: NDArray[np.int64], lengths: NDArray[np.int64], split: int
    ) -> tuple[Plan, NDArray[np.int64]]:
        """Divides the plan of a split, see `divide`; `docs` and `lengths` are what it was made of.

        Returns:
            The plan of the documents that stay, and these.
        """
        plan, goes = divide(plan, lengths, self._moves[docs])
        self._goes[docs[goes]], self._split[docs[goes]] = True, split
        return plan, docs[~goes]

    def finish(self, tokens: TokenBatch, origin: Origin) -> Carried:
        """What goes, out of all documents of the part."""
        docs = np.flatnonzero(self._goes)
        where = Origin(origin.source[docs], origin.row[docs])
        return Carried(tokens.take(docs), where, self._split[docs], self._moves[docs] + np.uint8(1))


def may_carry(strategy: str) -> bool:
    """Whether a strategy pairs documents freely; the others keep the order of the input, or one document a pack."""
    return not is_own_strategy(strategy) and get_strategy(strategy).shuffles_packs


def divide(plan: Plan, lengths: NDArray[np.int64], moves: NDArray[np.uint8]) -> tuple[Plan, NDArray[np.bool_]]:
    """Takes the documents of badly filled packs out of a plan, the emptiest packs first.

    A pack goes when none of its documents has been carried MAX_MOVES times, and while the bounds of this module allow.

    Args:
        plan: The plan of a part, which is not the last of its unit.
        lengths: int64[D], tokens of each document, before the overlong policy.
        moves: uint8[D], how often each has been carried; 0 for those that the part itself read.

    Returns:
        The plan of the documents that stay, numbered anew, and which documents go: bool[D].
    """
    goes = np.zeros(len(lengths), dtype=np.bool_)
    tokens = plan.pack_tokens
    bad = np.flatnonzero(tokens * 100 < FULL_PERCENT * plan.max_len)
    if not len(bad):
        return plan, goes
    segments, starts = plan.segments, plan.pack_offsets[:-1]
    doc = segments.doc[plan.order]  # int64[S], pack by pack
    # A segment of max_len is a pack of its own. So a document has one segment in a pack with room, at most.
    has_room = segments.length[plan.order] < plan.max_len
    cost = np.add.reduceat(np.where(has_room, lengths[doc], 0), starts)
    bad = bad[np.maximum.reduceat(moves[doc], starts)[bad] < MAX_MOVES]
    bad = bad[np.argsort(tokens[bad], kind="stable")]
    limit = max(min(int(lengths[moves == 0].sum()) // MAX_SHARE, MAX_TOKENS), MIN_PACKS * plan.max_len)
    chosen = np.zeros(plan.num_packs, dtype=np.bool_)
    chosen[bad[np.cumsum(cost[bad]) <= limit]] = True
    goes[doc[np.repeat(chosen, plan.docs_per_pack)]] = True
    return _without(plan, goes), goes


def _without(plan: Plan, goes: NDArray[np.bool_]) -> Plan:
    """The plan without some documents, whose segments have their packs to themselves."""
    segments = plan.segments
    stays = ~goes[segments.doc]  # bool[S]
    in_order = stays[plan.order]
    packs = in_order[plan.pack_offsets[:-1]]  # bool[P]
    pack_offsets = np.zeros(int(packs.sum()) + 1, dtype=np.int64)
    np.cumsum(plan.docs_per_pack[packs], out=pack_offsets[1:])
    number = (np.cumsum(stays) - 1).astype(plan.order.dtype)
    order: NDArray[Any] = number[plan.order[in_order]]
    pieces = None
    if segments.pieces is not None:
        pieces = (np.cumsum(~goes) - 1)[segments.doc[stays]], segments.start[stays]
    length = segments.length[stays]
    # Packing all of them takes no more packs than packing these, and the packs that were taken out.
    bound = max(
        lower_bound(length, plan.max_len, plan.max_docs_per_pack),
        plan.lower_bound - (plan.num_packs - len(pack_offsets) + 1),
    )
    return dataclasses.replace(
        plan,
        segments=Segments(length, pieces),
        order=order,
        pack_offsets=pack_offsets,
        lower_bound=bound,
    )
