"""Plots as inline SVG. matplotlib draws them; colours are left to the style of the page, so that dark mode works."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from packcli.errors import UsageError

COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--line)",
    "#030303": "var(--one)",
    "#040404": "var(--two)",
    "#050505": "var(--three)",
    "#060606": "var(--four)",
    "#070707": "var(--five)",
}
"""Colour given to matplotlib -> CSS variable that replaces it. Near-blacks that no plot would use otherwise."""

INK, LINE, ONE, TWO, THREE, FOUR, FIVE = COLOURS

WIDTH, HEIGHT = 5.4, 2.6
"""Inches: at 72 points to the inch, letters of 10 points are readable when a phone shows the plot at its width."""


SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", SVG[1:-1])


def load_matplotlib() -> Any:
    """matplotlib; raises UsageError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            "--html draws with matplotlib, which is not installed", "pip install 'packcli[html]'"
        ) from None
    return matplotlib


def _figure(height: float = HEIGHT) -> tuple[Any, Any]:
    load_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=LINE, labelcolor=INK, labelsize=9)
    axes.set_axisbelow(True)
    return figure, axes


def to_svg(figure: Any, name: str, description: str) -> str:
    """The figure as an <svg> element that says what it shows; ids begin with `name`, unique on the page."""
    matplotlib = load_matplotlib()
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    for colour, variable in COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", text)  # the page's font
    root = ElementTree.fromstring(text)  # noqa: S314 - from matplotlib, a moment ago
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == XLINK and value.startswith("#"):
                del element.attrib[key]
                element.set("href", f"#{name}-{value[1:]}")
            else:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    for key in ("width", "height"):
        del root.attrib[key]
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def histogram(name: str, bars: Sequence[tuple[int, int, int]], *, unit: str, of: str) -> str:
    """Counts by ranges of values."""
    figure, axes = _figure()
    places = range(len(bars))
    single = all(low == high for low, high, _ in bars[:-1])  # a range of values has its label where it begins
    align = "center" if single else "edge"
    axes.bar(places, [count for *_, count in bars], width=0.9, align=align, color=ONE)
    step = -(-len(bars) // 8)
    axes.set_xticks(list(places)[::step], [f"{low:,}" for low, _, _ in bars][::step])
    axes.set_xlabel(unit, color=INK)
    axes.set_ylabel(of, color=INK)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.4)
    most = max(bars, key=lambda bar: bar[2])
    total = sum(count for *_, count in bars)
    return to_svg(
        figure,
        name,
        f"Histogram of {total:,} {of} by {unit}; most, {most[2]:,}, are between {most[0]:,} and {most[1]:,}.",
    )


def utilisation(name: str, shares: Sequence[float], num_packs: int) -> str:
    """Utilisation along the packs, from the first to the last: means of runs of packs, 0..1."""
    figure, axes = _figure()
    edges = [num_packs * place / len(shares) for place in range(len(shares) + 1)]
    axes.stairs([100 * share for share in shares], edges, color=ONE, fill=True, alpha=0.35)
    axes.stairs([100 * share for share in shares], edges, color=ONE, linewidth=1.2, baseline=None)
    axes.set_ylim(0, 104)
    axes.set_xlim(0, num_packs)
    axes.set_xlabel("pack", color=INK)
    axes.set_ylabel("utilisation, %", color=INK)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.4)
    return to_svg(
        figure, name, f"Utilisation of {num_packs:,} packs in row order, {min(shares):.1%} to {max(shares):.1%}."
    )


def comparison(
    name: str, names: Sequence[str], shares: Sequence[float], of: str = "padding, % of positions", *, first: bool = True
) -> str:
    """Shares of each way to lay documents out, 0..1; `first` has a colour of its own."""
    figure, axes = _figure(0.38 * len(names) + 0.7)
    colours = [TWO if first and place == 0 else ONE for place in range(len(names))]
    places = range(len(names))
    axes.barh(places, [100 * share for share in shares], color=colours, height=0.7)
    for place, share in zip(places, shares, strict=True):
        axes.annotate(
            f"{share:.2%}", (100 * share, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(100 * max(shares) * 1.2, 1))
    axes.set_xlabel(of, color=INK)
    shares_text = "; ".join(f"{each}: {share:.2%}" for each, share in zip(names, shares, strict=True))
    return to_svg(figure, name, f"{of.capitalize()}: {shares_text}.")
