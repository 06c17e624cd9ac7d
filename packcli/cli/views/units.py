"""How far ranks have come, on a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from packcli.errors import printable
from packcli.pipeline.ranks import Ran, RankStatus, Status

MAX_RANKS = 20
"""Ranks that are shown one by one; --json has them all."""


def show_status(console: Console, found: Status) -> None:
    """Units, bytes, speed, and the ranks that run, failed or died."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        table.add_row(name, escape(printable(value)))

    share = found.num_bytes_done / found.num_bytes if found.num_bytes else 1.0
    running = f", {found.num_units_running:,} in work" if found.num_units_running else ""
    row("units", f"{found.num_units_done:,} of {found.num_units:,} done{running}")
    row("input", f"{found.num_bytes_done / 1e6:,.1f} of {found.num_bytes / 1e6:,.1f} MB ({share:.1%})")
    if found.bytes_per_second:
        row("speed", f"{found.bytes_per_second / 1e6:,.1f} MB/s")
    if found.eta_s is not None and found.num_units_done < found.num_units:
        row("left", f"about {_duration(found.eta_s)}")
    states = [each.state for each in found.ranks]
    if states:
        counts = ", ".join(
            f"{states.count(state)} {state}" for state in ("running", "failed", "died") if state in states
        )
        row("ranks", counts)
    if found.alone:
        row("alone", found.alone)
    row("output", f"{found.output} ({_say_state(found)})")
    console.print(table)
    wrong = [each for each in found.ranks if each.state != "running"]
    shown = [*wrong, *(each for each in found.ranks if each.state == "running")]
    for each in shown[:MAX_RANKS]:
        console.print(escape(printable(_say_rank(each))), soft_wrap=True)
    if len(shown) > MAX_RANKS:
        console.print(f"... and {len(shown) - MAX_RANKS:,} more: --json shows them all")


def _say_state(found: Status) -> str:
    return {
        "planned": "planned: packcli units run does the units",
        "stopped": "stopped: units are left and nobody works; run the ranks that failed or died again",
        "complete": "complete: packcli units finish makes it a dataset",
    }.get(found.state, found.state)


def _say_rank(each: RankStatus) -> str:
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


def show_ran(console: Console, found: Ran) -> None:
    """The closing line of a rank."""
    speed = f", {found.num_bytes / found.seconds / 1e6:,.1f} MB/s" if found.num_units_done and found.seconds else ""
    before = found.num_units - found.num_units_done
    console.print(
        f"rank {found.rank} of {found.world_size}: {found.num_units_done:,} of its {found.num_units:,} units done"
        + (f", {before:,} were done already" if before else "")
        + f", {_duration(found.seconds)}{speed}"
    )


def show_planned(console: Console, found: Status) -> None:
    """What `units plan` has made, and what comes next."""
    console.print(
        f"{found.num_units:,} units of {found.num_bytes / 1e6:,.1f} MB planned, {found.num_units_done:,} are done"
    )
    output = escape(printable(str(found.output)))
    console.print(f"next: packcli units run {output} --rank R --world-size N, for R in 0..N-1", soft_wrap=True)
    console.print(f"then: packcli units finish {output}", soft_wrap=True)
