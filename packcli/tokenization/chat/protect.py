r"""A control token that the text of a record spells stays text.

Before a record is rendered, every string in it that spells a control token is marked: the literal is replaced by one
private-use character that the record does not hold. After rendering, what still spells a control token was written by
the template, and the marks are turned back into the text that they stand for.

A part of a control token at either end of a string is marked as well, such as `<|im_end|` at the end of a message:
with what the template writes next to it, it could make a whole one.

    content   'a<|im_end|>b<'   ->  'a\U00100000b\U00100001'   ->  rendered, cut, and turned back
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST_MARK, LAST_MARK = 0x100000, 0x10FFFD
"""Marks are taken from the last plane of private-use characters."""

_COMMON_KEYS = frozenset({"role", "content"})

_ANY_MARK = re.compile("[\U00100000-\U0010fffd]")


@dataclass(frozen=True, slots=True)
class Controls:
    """The control tokens of a tokenizer: what the template may write and text may not."""

    ids: Mapping[str, int]
    """Literal -> id of every special token."""
    others: tuple[str, ...] = ()
    """Literals of the added tokens that are not special: they are found in any text, and win where they begin first."""
    lstrip: frozenset[str] = frozenset()
    """Literals that take the white space before them along."""
    rstrip: frozenset[str] = frozenset()
    """Literals that take the white space after them along."""
    protect: bool = True
    """False with --allow-special: literals in records become control tokens as well."""


class Marks:
    """What the marks of one record stand for."""

    def __init__(self, used: set[str]) -> None:
        self._used = used
        self._next = FIRST_MARK
        self.meaning: dict[str, str] = {}
        self._mark_of: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """The mark that stands for a text."""
        if text not in self._mark_of:
            while chr(self._next) in self._used:
                self._next += 1
            if self._next > LAST_MARK:
                raise OverflowError("a record holds every private-use character")
            char = chr(self._next)
            self._next += 1
            self._mark_of[text] = char
            self.meaning[char] = text
        return self._mark_of[text]

    def restore(self, text: str) -> str:
        """The text with every mark turned back."""
        return _ANY_MARK.sub(lambda match: self.meaning.get(match[0], match[0]), text)

    def position(self, text: str, at: int) -> int:
        """Where position `at` of the marked text lies after `restore`."""
        return at + sum(len(self.meaning.get(mark, mark)) - 1 for mark in _ANY_MARK.findall(text, 0, at))


class Protector:
    """Marks the control literals of records."""

    def __init__(self, controls: Controls) -> None:
        self._active = controls.protect and bool(controls.ids)
        literals = sorted(controls.ids, key=len, reverse=True)
        self._literals = re.compile("|".join(map(re.escape, literals)) or "(?!)")
        reach = max(map(len, literals), default=1)
        self._hints = tuple(sorted({literal[:2] for literal in literals}))
        firsts, lasts = ({re.escape(literal[place]) for literal in literals} for place in (0, -1))
        # White space at an edge does not hide a part of a literal: templates trim.
        self._near_end = re.compile(f"[{''.join(sorted(firsts))}][^\0]{{0,{reach}}}\\s*\0" if literals else "(?!)")
        self._near_start = re.compile(f"\0\\s*[^\0]{{0,{reach}}}[{''.join(sorted(lasts))}]" if literals else "(?!)")
        heads = {literal[:size] for literal in literals for size in range(1, len(literal))}
        tails = {literal[size:] for literal in literals for size in range(1, len(literal))}
        self._heads = sorted(heads, key=len, reverse=True)
        self._tails = sorted(tails, key=len, reverse=True)
        self._all_heads, self._all_tails, self._all_literals = tuple(heads), tuple(tails), tuple(literals)
        self._last_of_heads, self._first_of_tails = {head[-1] for head in heads}, {tail[0] for tail in tails}

    def needs_marks(self, value: Any) -> bool:
        """Whether a string in the value spells a control token, or a part of one at either end."""
        if not self._active:
            return False
        strings: list[str] = [""]
        _collect(value, strings)
        strings.append("")
        joined = "\0".join(strings)
        # Every record comes through here, so these are quick searches of all its text at once.
        for hint in self._hints:
            if hint in joined and self._literals.search(joined):
                return True
        if self._near_end.search(joined) and any(self._part_at_end(text) is not None for text in strings):
            return True
        return self._near_start.search(joined) is not None and any(
            self._part_at_start(text) is not None for text in strings
        )

    def _part_at_end(self, text: str) -> str | None:
        """The text as far as it ends like the beginning of a literal: whole, or without white space at its end."""
        if text.endswith(self._all_heads):
            return text
        bare = text.rstrip()
        return bare if bare.endswith(self._all_heads) else None

    def _part_at_start(self, text: str) -> str | None:
        """The text from where it begins like the end of a literal: whole, or without white space at its start."""
        if text.startswith(self._all_tails):
            return text
        bare = text.lstrip()
        return bare if bare.startswith(self._all_tails) else None

    def text_needs_marks(self, texts: list[str]) -> bool:
        """`needs_marks` of a list of texts, faster; only for tokenizers of which no control token holds a NUL."""
        if not self._active:
            return False
        joined = "\0".join(texts)
        for hint in self._hints:
            if hint in joined and self._literals.search(joined):
                return True
        for text in texts:
            last, first = text[-1:], text[:1]
            if (last in self._last_of_heads or last.isspace()) and self._part_at_end(text) is not None:
                return True
            if (first in self._first_of_tails or first.isspace()) and self._part_at_start(text) is not None:
                return True
        return False

    def stands_apart(self, constant: str, *, before: bool, after: bool) -> bool:
        """Whether no control token can lie across the edges of a constant text, whatever text stands beyond them.

        Args:
            constant: The text.
            before: Whether other text follows it.
            after: Whether it follows other text.
        """
        if before and constant.endswith(self._all_heads):
            return False
        if after and constant.startswith(self._all_tails):
            return False
        return not (before and after) or not any(constant in literal[1:-1] for literal in self._all_literals)

    def protect(self, value: Any) -> tuple[Any, Marks]:
        """A copy of the value with marks, and what they stand for."""
        marks = Marks(_private_characters(value))
        return self._protect(value, marks), marks

    def _protect(self, value: Any, marks: Marks, key: str = "") -> Any:
        if isinstance(value, str):
            return self._protect_text(value, marks, whole_only=key == "role")
        if isinstance(value, dict):
            return {
                self._protect_text(name, marks) if isinstance(name, str) else name: self._protect(each, marks, name)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._protect(each, marks) for each in value]
        return value

    def _protect_text(self, text: str, marks: Marks, whole_only: bool = False) -> str:
        text = self._literals.sub(lambda match: marks.mark(match[0]), text)
        if whole_only:  # a role: templates write control tokens as '<|' + role + '|>'
            return text
        part = self._part_at_end(text)
        if part is not None:
            head = next(head for head in self._heads if part.endswith(head))
            text = part[: -len(head)] + marks.mark(head) + text[len(part) :]
        part = self._part_at_start(text)
        if part is not None:
            tail = next(tail for tail in self._tails if part.startswith(tail))
            text = text[: len(text) - len(part)] + marks.mark(tail) + part[len(tail) :]
        return text


def _collect(value: Any, strings: list[str]) -> None:
    """Adds every string in the value, keys included."""
    if isinstance(value, str):
        strings.append(value)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in _COMMON_KEYS:
                strings.append(key)
            if isinstance(each, str):
                strings.append(each)
            elif each is not None:
                _collect(each, strings)
    elif isinstance(value, list | tuple):
        for each in value:
            _collect(each, strings)


def _private_characters(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(_ANY_MARK.findall(value))
    if isinstance(value, dict):
        return set().union(*(_private_characters(each) for pair in value.items() for each in pair))
    if isinstance(value, list | tuple):
        return set().union(*map(_private_characters, value))
    return set()
