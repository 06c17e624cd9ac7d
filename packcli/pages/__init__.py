"""A report as one HTML page that needs nothing else: no script, no font, no network. The door to matplotlib.

plots    figures as SVG, drawn by matplotlib, coloured by the page's own style (light, dark, print)
packs    a handful of decoded packs with their masks
page     the page around them
"""

from packcli.pages.page import make_page, write_page

__all__ = ["make_page", "write_page"]
