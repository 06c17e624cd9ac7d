"""Bars while the work goes on, or lines where there is no terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from packcli.cli.views.console import make_console, show_warning
from packcli.pipeline import Progress as ProgressEvent
from packcli.pipeline import Started, Warned

LOG_EVERY_S = 10.0


def progress() -> ProgressDisplay:
    """What shows the events of a run: `with packcli.progress() as shown: packcli.pack(..., on_event=shown)`.

    On a terminal a bar, which goes away at the end; elsewhere, as in a notebook, a line every ten seconds. Warnings
    are shown in either.
    """
    return ProgressDisplay(make_console(), quiet=False)


class ProgressDisplay:
    """Shows events: a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet."""

    def __init__(self, console: Console, *, quiet: bool, doing: str = "packing") -> None:
        self._console = console
        self._quiet = quiet
        self._doing = self._now = doing
        self._bar: Progress | None = None
        self._draws = False
        self._total = self._bytes = self._documents = 0
        self._began = self._logged = time.monotonic()
        self._begin_bytes = 0

    def __enter__(self) -> ProgressDisplay:
        """From here to the end of the block bars may be drawn; none is before the first event."""
        self._draws = True
        return self

    def __exit__(self, *exc: object) -> None:
        """Takes the bar away."""
        self._draws = False
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: object) -> None:
        """Takes an event of the pipeline."""
        if isinstance(event, Warned) and not self._quiet:
            show_warning(self._console, event.message)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, ProgressEvent):
            self._advance(event)

    def _start(self, event: Started) -> None:
        self._total, self._bytes = event.total_bytes, event.done_bytes
        self._begin_bytes = event.done_bytes
        self._began = self._logged = time.monotonic()
        self._documents = 0
        self._now = event.doing or self._doing
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._quiet or not (self._draws and self._console.is_terminal):
            return
        self._bar = Progress(
            TextColumn(self._now),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[documents]:,} documents"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bar.add_task("packing", total=event.total_bytes, completed=event.done_bytes, documents=0)
        self._bar.start()

    def _advance(self, event: ProgressEvent) -> None:
        self._bytes += event.file_bytes
        self._documents += event.num_documents
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._bytes, documents=self._documents)
        elif not self._quiet and time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            speed = (self._bytes - self._begin_bytes) / (self._logged - self._began)
            left = (self._total - self._bytes) / speed if speed else 0.0
            self._console.print(
                f"{self._now}: {self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
                f"{self._documents:,} documents, {speed / 1e6:,.1f} MB/s, {left:,.0f} s left"
            )
