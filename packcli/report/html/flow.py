"""Where the tokens went, as a flow (a Sankey diagram): on the left what was read, on the right what became of it.

    text    |======== with loss
            |======== without loss
    special |======== truncated
    padding |======== padding

Which tokens of the text were truncated and which were special is not known, so text and special tokens are one bar, of
which each outcome takes a slice; padding comes in beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packcli.dataset import Report
from packcli.report.html.plots import FIVE, FOUR, INK, LINE, ONE, THREE, TWO, WIDTH, load_matplotlib, to_svg

CLASSES = {ONE: "one", TWO: "two", THREE: "three", FOUR: "four", FIVE: "five", LINE: "line", INK: "ink"}
"""Colour -> class of the page's style."""


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens that came in, or what became of some."""

    name: str
    count: int
    colour: str
    key: str
    """Its place in stats.json; empty when it is a difference of two figures."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Tokens in and out: the sums of both sides are equal."""

    read: tuple[Node, ...]
    """Text and special tokens."""
    became: tuple[Node, ...]
    padding: Node
    """Comes in, and stays."""

    @property
    def num_tokens(self) -> int:
        """Tokens read."""
        return sum(each.count for each in self.read)


def flow_of(report: Report) -> Flow:
    """The flow of a report; counts of zero are left out, except for text, packed tokens and padding."""
    stats = report.stats
    became = (
        Node("with loss", stats.num_tokens_loss, ONE, "totals.num_tokens_loss"),
        Node("without loss", stats.num_tokens_packed - stats.num_tokens_loss, FOUR, ""),
        Node("truncated", stats.num_tokens_truncated, TWO, "totals.num_tokens_truncated"),
        Node("dropped: too long", stats.num_tokens_overlong, THREE, "totals.num_tokens_overlong"),
        Node("dropped: no loss", stats.num_tokens_no_loss, THREE, "totals.num_tokens_no_loss"),
    )
    read = (
        Node("text", stats.num_tokens_in, INK, "totals.num_tokens_in"),
        Node("special", stats.num_tokens_special, FIVE, "totals.num_tokens_special"),
    )
    return Flow(
        tuple(each for place, each in enumerate(read) if each.count or not place),
        tuple(each for place, each in enumerate(became) if each.count or place < 2),
        Node("padding", stats.num_tokens_padding, LINE, "totals.num_tokens_padding"),
    )


POINTS = 72 * WIDTH
LEFT, RIGHT = 92.0, POINTS - 130.0
"""Where the bars stand, in points: their names are beside them."""
BAR = 9.0
TALL = 150.0
"""Height of all tokens and the padding."""
SLOT = 29.0
"""Height of a name and its number."""
THIN = 1.2
"""Least height of a bar, so that no count above zero is invisible."""


def draw_flow(name: str, flow: Flow) -> str:
    """The flow as SVG, see plots.to_svg."""
    load_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    total = max(flow.num_tokens + flow.padding.count, 1)

    def height(count: int) -> float:
        return max(TALL * count / total, THIN) if count else 0.0

    figure = Figure(figsize=(WIDTH, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    figure.patch.set_visible(False)

    def bar(x: float, top: float, node: Node) -> None:
        axes.add_patch(Rectangle((x, top), BAR, height(node.count), facecolor=node.colour, edgecolor="none"))

    def label(x: float, middle: float, node: Node, side: str, share_text: str = "") -> None:
        axes.text(x, middle - 7, node.name, color=INK, fontsize=10.5, ha=side, va="center", fontweight="bold")
        axes.text(x, middle + 7, f"{node.count:,}{share_text}", color=INK, fontsize=10.5, ha=side, va="center")

    # On the left: a bar of all tokens, then the padding. Every name has a slot of its own, so that none overlap.
    top = slot = 0.0
    for node in flow.read:
        middle = max(top + height(node.count) / 2, slot + SLOT / 2)
        bar(LEFT - BAR, top, node)
        label(LEFT - BAR - 6, middle, node, "right")
        top, slot = top + height(node.count), middle + SLOT / 2
    padding_top = max(top + 12, slot + SLOT / 2 - height(flow.padding.count) / 2 + 4)
    bar(LEFT - BAR, padding_top, flow.padding)
    padding_middle = padding_top + height(flow.padding.count) / 2
    label(LEFT - BAR - 6, padding_middle, flow.padding, "right")
    bottom = padding_middle + max(height(flow.padding.count), SLOT) / 2

    # On the right: every outcome in a slot of its own; the padding level with its bar on the left, or further down.
    share = TALL / total
    source = top_of_right = 0.0
    for node in (*flow.became, flow.padding):
        tall = max(height(node.count), SLOT)
        is_padding = node is flow.padding
        if is_padding:
            top_of_right = max(top_of_right + 6, padding_middle - tall / 2)
        begin = top_of_right + (tall - height(node.count)) / 2
        bar(RIGHT, begin, node)
        share_text = "" if is_padding or not flow.num_tokens else f" ({node.count / flow.num_tokens:.1%})"
        label(RIGHT + BAR + 6, top_of_right + tall / 2, node, "left", share_text)
        if node.count:
            start = padding_top if is_padding else source
            end = start + (height(node.count) if is_padding else share * node.count)
            axes.add_patch(_ribbon((LEFT, start, end), (RIGHT, begin, begin + height(node.count)), node.colour))
        source += 0.0 if is_padding else share * node.count
        top_of_right += tall + 5
    bottom = max(bottom, top_of_right)
    figure.set_figheight((bottom + 8) / 72)
    axes.set_xlim(0, POINTS)
    axes.set_ylim(bottom + 4, -4)
    return to_svg(
        figure,
        name,
        f"Tokens from input to packs. {_listed('Read', flow.read)} {_listed('Became', flow.became)} "
        f"Padding: {flow.padding.count:,}.",
    )


def _ribbon(left: tuple[float, float, float], right: tuple[float, float, float], colour: str) -> Any:
    """A band between two bars, each (x, top, bottom)."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (x0, top0, bottom0), (x1, top1, bottom1) = left, right
    half = (x0 + x1) / 2
    points = [(x0, top0), (half, top0), (half, top1), (x1, top1), (x1, bottom1), (half, bottom1), (half, bottom0)]
    curve = [Path.CURVE4] * 3
    path = Path([*points, (x0, bottom0), (x0, top0)], [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
    return PathPatch(path, facecolor=colour, edgecolor=colour, linewidth=0.4, alpha=0.35)


def _listed(title: str, nodes: Sequence[Node]) -> str:
    return f"{title}: {'; '.join(f'{each.name} {each.count:,}' for each in nodes)}."
