"""How far ranks have come, on a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape

from packcli.cli.views.results import show_lines
from packcli.errors import printable
from packcli.pipeline.ranks import Ran, RankStatus, Status

MAX_RANKS = 20
"""Ranks that are shown one by one; --json has them all."""


def show_status(console: Console, status: Status) -> None:
    """Units, bytes, speed, and the ranks that run, failed or died."""
    share = status.num_bytes_done / status.num_bytes if status.num_bytes else 1.0
    running = f", {status.num_units_running:,} in work" if status.num_units_running else ""
    lines = [
        ("units", f"{status.num_units_done:,} of {status.num_units:,} done{running}"),
        ("input", f"{status.num_bytes_done / 1e6:,.1f} of {status.num_bytes / 1e6:,.1f} MB ({share:.1%})"),
    ]
    if status.bytes_per_second:
        lines.append(("speed", f"{status.bytes_per_second / 1e6:,.1f} MB/s"))
    if status.eta_s is not None and status.num_units_done < status.num_units:
        lines.append(("left", f"about {_duration(status.eta_s)}"))
    states = [each.state for each in status.ranks]
    if states:
        counts = (f"{states.count(state)} {state}" for state in ("running", "failed", "died") if state in states)
        lines.append(("ranks", ", ".join(counts)))
    if status.alone:
        lines.append(("alone", status.alone))
    show_lines(console, [*lines, ("output", f"{status.output} ({NEXT.get(status.state, status.state)})")])
    ranks = sorted(status.ranks, key=lambda each: each.state == "running")  # what went wrong comes first
    for each in ranks[:MAX_RANKS]:
        console.print(escape(printable(_describe_rank(each))), soft_wrap=True)
    if len(ranks) > MAX_RANKS:
        console.print(f"... and {len(ranks) - MAX_RANKS:,} more: --json shows them all")


NEXT = {
    "planned": "planned: packcli units run does the units",
    "stopped": "stopped: units are left and nobody works; run the ranks that failed or died again",
    "complete": "complete: packcli units finish makes it a dataset",
}
"""State of an output -> the state, and what to do next."""


def _describe_rank(each: RankStatus) -> str:
    begun = f"rank {each.rank} of {each.world_size} {each.state}"
    done = f"{each.num_units_done:,} of {each.num_units_left:,} units done"
    where = f"process {each.pid} on {each.host}, seen {_duration(each.seen_s_ago)} ago"
    return f"{begun}: {done}; {where}" + (f": {each.error}" if each.error else "")


def _duration(seconds: float) -> str:
    """'2 d 03:04:05', '03:04:05', '42 s'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    days, rest = divmod(int(seconds), 86_400)
    return (f"{days} d " if days else "") + time.strftime("%H:%M:%S", time.gmtime(rest))


def show_ran(console: Console, ran: Ran) -> None:
    """The closing line of a rank."""
    speed = f", {ran.num_bytes / ran.seconds / 1e6:,.1f} MB/s" if ran.num_units_done and ran.seconds else ""
    before = ran.num_units - ran.num_units_done
    console.print(
        f"rank {ran.rank} of {ran.world_size}: {ran.num_units_done:,} of its {ran.num_units:,} units done"
        + (f", {before:,} were done already" if before else "")
        + f", {_duration(ran.seconds)}{speed}"
    )


def show_planned(console: Console, status: Status) -> None:
    """What `units plan` has made, and what comes next."""
    console.print(
        f"{status.num_units:,} units of {status.num_bytes / 1e6:,.1f} MB planned, {status.num_units_done:,} are done"
    )
    output = escape(printable(str(status.output)))
    console.print(f"next: packcli units run {output} --rank R --world-size N, for R in 0..N-1", soft_wrap=True)
    console.print(f"then: packcli units finish {output}", soft_wrap=True)
