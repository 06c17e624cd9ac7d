"""`packcli.units`: the twins of `packcli units`, for a run that is shared out to ranks.

packcli.units.plan("corpus/*.jsonl", "out")          once
packcli.units.run("out", rank=3, world_size=16)      on every machine, or in every process
packcli.units.finish("out")                          once, when all are done
    packcli.units.status("out")                          how far they are
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from packcli import storage
from packcli.api.keywords import public
from packcli.config import RunOptions, make_settings
from packcli.dataset import Report
from packcli.errors import UsageError
from packcli.pipeline import ranks
from packcli.pipeline.ranks import Ran, Status

__all__ = ["finish", "plan", "run", "status"]


@public
def plan(
    inputs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    output: str | os.PathLike[str] | None = None,
    *,
    columns: str | Sequence[str] = "all",
    restart: bool = False,
    overwrite: bool = False,
    mix: Mapping[str, float] | str | Sequence[str] = (),
    tokens: int | str | None = None,
    format: str | None = None,
    field: str | Sequence[str] = (),
    text_field: str | None = None,
    text_template: str | None = None,
    split_on: str | None = None,
    max_len: int = 2048,
    strategy: str | None = None,
    strategy_sha256: str | None = None,
    overlong: str | None = None,
    max_docs_per_pack: int = 0,
    effort: str = "normal",
    balance: bool = False,
    isolate: bool = True,
    val_fraction: float = 0.0,
    unit_bytes: int | str = "128MiB",
    seed: int = 0,
    tokenizer: str = "builtin",
    allow_network: bool = False,
    eos_token: str | None = None,
    add_eos: bool | None = None,
    add_bos: bool | None = None,
    pad_token: str | None = None,
    allow_special: bool = False,
    loss: str | None = None,
    loss_on_eot: bool | None = None,
    chat_template: str | None = None,
    date: str | None = None,
    on_error: str = "stop",
    max_bad: int | str | None = None,
    lenient: bool = False,
    max_line_bytes: int | str = "64MiB",
    workers: int = 0,
    engine: str = "auto",
    ray_address: str | None = None,
    tokenizer_engine: str = "auto",
    on_event: Callable[[object], None] | None = None,
) -> Status:
    """Cuts the units of a run, and leaves them and all that ranks need in the output; does none of them.

    Goes on with an output of the same run: committed units stay.

    Args:
        inputs: As of `packcli.pack`, but for standard input.
        output: As of `packcli.pack`.
        max_len, ...: The options of `packcli pack`; help() lists them.
        on_event: Called with Started, Progress and Warned events.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    config, options = make_settings(locals())
    names = [os.fspath(each) for each in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    place = None if output is None else os.fspath(output)
    return ranks.status(ranks.plan(names, place, config=config, options=options, on_event=on_event))


@public
def run(
    directory: str | os.PathLike[str] | storage.RemotePath,
    rank: int | None = None,
    world_size: int | None = None,
    *,
    workers: int = 0,
    input_root: str | None = None,
    tokenizer_engine: str | None = None,
    on_event: Callable[[object], None] | None = None,
) -> Ran:
    """Does the units of one rank. Units that are committed are passed over; start a rank again whenever it died.

    Args:
        directory: An output for which `plan` was run.
        rank: Which rank this is, from 0; None: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX says.
        world_size: How many ranks share the units; None: the size of the Slurm array.
        workers: Processes; 0 takes every CPU.
        input_root: Where the deepest directory that holds all inputs is on this machine; None: where it was for `plan`.
        tokenizer_engine: auto, fastokens or tokenizers; None: as for `plan`.
        on_event: Called with Started, Progress and Warned events.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    RunOptions(workers=workers, tokenizer_engine=tokenizer_engine or "auto")  # refuses what cannot be
    number, count = find_rank(rank, world_size, os.environ)
    return ranks.run(
        directory,
        number,
        count,
        workers=workers,
        input_root=input_root,
        tokenizer_engine=tokenizer_engine,
        on_event=on_event,
    )


@public
def finish(directory: str | os.PathLike[str] | storage.RemotePath, *, workers: int = 0) -> Report:
    """Makes the shards of ranks a dataset with its report.

    Args:
        directory: An output for which `plan` was run.
        workers: Processes; 0 takes every CPU.

    Raises:
        UnfinishedError: units are left.
        LockedError: a rank runs, or another finish.
    """
    RunOptions(workers=workers)  # refuses what cannot be
    return ranks.finish(directory, workers=workers)


@public
def status(directory: str | os.PathLike[str] | storage.RemotePath) -> Status:
    """How far the ranks have come: units, speed, what failed. Reads only, from any machine.

    Raises:
        OutputError: no run was begun there.
    """
    return ranks.status(directory)


def find_rank(rank: int | None, world_size: int | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which rank of how many this is: as told, else as Slurm (array jobs) or Kubernetes (indexed Jobs) tell.

    A Slurm array whose size is not told must be without gaps, and need not begin at 0.

    Raises:
        UsageError: nobody tells, or what is told is no rank.
    """

    def number(name: str) -> int | None:
        text = environment.get(name)
        if text is None or text == "":
            return None
        if not text.isdecimal():
            raise UsageError(f"{name}={text!r} is not a rank", "give --rank and --world-size")
        return int(text)

    first = 0
    array = number("SLURM_ARRAY_TASK_ID")
    if world_size is None and rank is None and array is not None:
        count, low, high = (number(f"SLURM_ARRAY_TASK_{name}") for name in ("COUNT", "MIN", "MAX"))
        if count is None or low is None or high is None or high - low + 1 != count:
            raise UsageError(
                "the indices of this Slurm array do not tell how many ranks share the units",
                "give --world-size: the number of ranks of the first submission",
            )
        first, world_size = low, count
    if rank is None:
        found = array if array is not None else number("JOB_COMPLETION_INDEX")
        if found is None:
            raise UsageError(
                "no --rank, and neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set",
                "give --rank 0 --world-size 1 to do all units here",
            )
        rank = found - first
    if world_size is None:
        raise UsageError("no --world-size", "say how many ranks share the units")
    return rank, world_size
