"""The page around the sections of one report, or of several with a comparison on top."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator, Sequence
from pathlib import Path

from packcli.dataset import Report
from packcli.errors import UsageError, printable
from packcli.report.html.plots import comparison
from packcli.report.html.sections import Place, escaped, report_sections, table_section
from packcli.report.tables import report_names, report_tables
from packcli.storage.files import committed

MAX_REPORTS = 8
"""Reports on one page: so many keep it under 1.5 MB whatever they hold."""


def write_page(path: Path, reports: Sequence[Report], tokenizer: str | None = None) -> None:
    """Writes the page; it appears whole, or not at all.

    Args:
        path: The file.
        reports: From read_report, at least one.
        tokenizer: Where the tokenizer is now, if it has moved since the output was made; packs are decoded with it.

    Raises:
        UsageError: more than MAX_REPORTS, or matplotlib is not installed.
        PackcliError: a shard is damaged.
    """
    text = make_page(reports, tokenizer)
    with committed(path) as file:
        file.write(text.encode())


def make_page(reports: Sequence[Report], tokenizer: str | None = None) -> str:
    """The page as HTML; see write_page."""
    if len(reports) > MAX_REPORTS:
        raise UsageError(
            f"--html shows at most {MAX_REPORTS} directories on a page, and {len(reports)} are given",
            "run it for some of them; without --html the figures of any number stand side by side",
        )
    style = (importlib.resources.files("packcli.report.html") / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # No script runs and nothing is fetched. The SVG of plots has style attributes, which can only set their look.
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; style-src-attr 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    names = report_names(reports)
    subject = names[0] if len(names) == 1 else f"{len(names)} directories compared"
    body = "\n".join(_one(reports[0], tokenizer) if len(reports) == 1 else _several(reports, names, tokenizer))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(subject)}: packed training data</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{escaped(subject)}</h1>
{body}
</main>
<footer><p>Made by packcli. Nothing on this page comes from the network.</p></footer>
</body>
</html>
"""


def _one(report: Report, tokenizer: str | None) -> Iterator[str]:
    yield f"{_summary(report)}\n</header>\n<main>"
    yield from report_sections(report, Place(), tokenizer)


def _several(reports: Sequence[Report], names: Sequence[str], tokenizer: str | None) -> Iterator[str]:
    number = len(reports)
    links = "".join(f'<li><a href="#report-{place}">{escaped(name)}</a></li>' for place, name in enumerate(names))
    yield f'<nav aria-label="Directories"><ol>{links}</ol></nav>\n</header>\n<main>'
    yield '<section id="comparison"><h2>Side by side</h2>'
    padding = [report.derived["padding_ratio"] for report in reports]
    lost = [report.derived["drop_ratio"] for report in reports]
    short = [name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 3]}..." for name in map(printable, names)]
    pictures = (
        ("Padding", comparison("plot-padding", short, padding, first=False)),
        ("Tokens truncated or dropped", comparison("plot-lost", short, lost, "% of tokens read", first=False)),
    )
    yield '<div class="plots">'
    for title, svg in pictures:
        yield f"<figure><h3>{title}</h3>{svg}</figure>"
    yield "</div>"
    for table in report_tables(reports):
        if table.name in ("figures", "layouts", "settings"):
            yield table_section(table, Place(-1, number))
    yield "</section>"
    for place, (report, name) in enumerate(zip(reports, names, strict=True)):
        yield f'<article id="report-{place}"><h2>{escaped(name)}</h2>{_summary(report)}'
        yield from report_sections(report, Place(place, number), tokenizer)
        yield "</article>"


MAX_LABEL = 24
"""Characters of a name beside a plot."""


def _summary(report: Report) -> str:
    stats, manifest = report.stats, report.manifest
    config, num_inputs = manifest["config"], len(manifest["inputs"])
    return (
        f"<p>{stats.num_packs:,} packs of {config['max_len']:,} tokens by {escaped(config['strategy'])}, "
        f"tokenizer {escaped(manifest['tokenizer']['name'])}, from {num_inputs:,} "
        f"{'file' if num_inputs == 1 else 'files'}.</p>"
    )
