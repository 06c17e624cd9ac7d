"""A report as one HTML page that needs nothing else: no script, no font, no network.

Only this package imports matplotlib.

plots      figures as SVG, drawn by matplotlib, coloured by the page's own style (light, dark, print)
flow       where the tokens went, as a Sankey diagram
sections   all about one report: figures, plots, tables, a handful of decoded packs with their masks
page       the page around one or several
"""

from __future__ import annotations

from packcli.report.html.page import make_page, write_page

__all__ = ["make_page", "write_page"]
