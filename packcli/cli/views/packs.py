"""Packs on a terminal: the view of `packcli inspect`, on stdout.

With colours, segments alternate between two, and tokens without loss are dim. Without colours, tokens without
loss stand between marks.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from packcli.cli.views.console import PipedConsole
from packcli.errors import printable
from packcli.report import DecodedPack, ShownSegment

SEGMENT_STYLES = ("cyan", "green")
MASKED_STYLE = "dim"
MARKS = ("\u27ea", "\u27eb")
ASCII_MARKS = ("{{", "}}")


def make_output() -> Console:
    """A console on stdout for text that people read, page through or pipe."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    return PipedConsole(highlight=False, soft_wrap=not sys.stdout.isatty())  # a pager wraps for itself


@contextlib.contextmanager
def paged(console: Console, wanted: bool) -> Iterator[None]:
    """Through $PAGER (or less) on a terminal; as it is elsewhere."""
    if not (wanted and console.is_terminal):
        yield
        return
    os.environ.setdefault("LESS", "FRX")
    with console.pager(styles=console.color_system is not None and not console.no_color):
        yield


def show_pack(console: Console, pack: DecodedPack, find: str | None = None) -> None:
    """One pack: a line of figures, then every segment under its heading."""
    console.print(Text(printable(pack.heading), style="bold"))
    marks = _marks(console)
    legend = f"{marks[0]}no loss{marks[1]}" if marks else "dim: no loss"
    console.print(Text(legend, style="" if marks else MASKED_STYLE))
    for each in pack.segments:
        _show_segment(console, each, marks, find)
    console.print()


def _marks(console: Console) -> tuple[str, str] | None:
    if console.color_system is not None and not console.no_color:
        return None
    return ASCII_MARKS if console.options.ascii_only else MARKS


def _show_segment(console: Console, each: ShownSegment, marks: tuple[str, str] | None, find: str | None) -> None:
    rule = "--" if console.options.ascii_only else "\u2500\u2500"
    if each.segment.is_padding:
        console.print(Text(f"{rule} padding: {each.num_tokens:,} positions, no loss; {each.positions}", style="dim"))
        return
    style = SEGMENT_STYLES[each.number % 2]
    place = f"{printable(each.where)}; " if each.where else ""
    console.print(
        Text(f"{rule} {each.number}: {place}{each.num_tokens:,} tokens; {each.positions}", style=f"bold {style}")
    )
    body = Text()
    for span in each.spans:
        text = printable(span.text, keep="\n")
        if span.has_loss:
            body.append(text, style=style)
        elif marks:
            body.append(f"{marks[0]}{text}{marks[1]}")
        else:
            body.append(text, style=f"{MASKED_STYLE} {style}")
    if find:
        body.highlight_words([printable(find, keep="\n")], style="reverse")
    console.print(body, overflow="fold")


def show_tokens(console: Console, pack: DecodedPack) -> None:
    """One pack, one token a line: place, id, label, position, segment, text."""
    row = pack.row
    console.print(Text(f"{row.split} row {row.index:,} ({printable(row.file)})", style="bold"))
    console.print(Text(f"{'place':>7} {'id':>8} {'label':>8} {'position':>8} {'segment':>7}  text", style="bold"))
    for place, token, text, label, position, segment in pack.tokens():
        shown = "-" if label is None else str(label)
        number = str(segment) if segment else "pad"
        line = f"{place:>7} {token:>8} {shown:>8} {position:>8} {number:>7}  {printable(text)}"
        style = "dim" if label is None else SEGMENT_STYLES[segment % 2]
        mark = "> " if segment and position == 0 else ""
        console.print(Text(f"{mark}{line[len(mark) :]}", style=style), soft_wrap=True)
    console.print()
