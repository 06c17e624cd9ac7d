"""What functions of the public API give, shown in a few lines: at a prompt, by print, and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable

from packcli.errors import printable


class Shown:
    """A result with a short text in place of all its fields. Everything stays in the fields, and in as_dict()."""

    __slots__ = ()

    def facts(self) -> list[tuple[str, str]]:
        """What is worth knowing: name and value, a few of them."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'; '.join(f'{name} {printable(value)}' for name, value in self.facts())}>"

    def __str__(self) -> str:
        return as_text(self.facts())

    def _repr_html_(self) -> str:
        """For notebooks."""
        return as_html(self.facts())


def as_text(facts: Iterable[tuple[str, str]]) -> str:
    """One line each, values below each other."""
    lines = [(name, printable(value)) for name, value in facts]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in lines)


def as_html(rows: Iterable[tuple[str, ...]], head: Iterable[str] = ()) -> str:
    """A table; nothing in it is markup but the table itself."""
    lines = ["<table>"]
    if heads := "".join(f"<th>{html.escape(printable(each))}</th>" for each in head):
        lines.append(f"<tr>{heads}</tr>")
    for first, *others in rows:
        cells = "".join(f"<td>{html.escape(printable(each))}</td>" for each in others)
        lines.append(f'<tr><th style="text-align: left">{html.escape(printable(first))}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])
