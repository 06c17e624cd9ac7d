"""Ranks: separate processes, on any machines, that share out the units of one output and need its directory only.

    plan     cuts the units, makes sure that the run can begin, and leaves what ranks need in the output
    run      does units rank, rank + world_size, rank + 2 world_size ...; what is committed is passed over
    finish   makes the shards a dataset, once every unit is done

Ranks never wait for each other and hold no lock. A rank that is started again, or twice at once, does no harm: a unit
gives the same bytes whoever does it, and is committed by a rename. Neighbouring units go to different ranks: a file's
units take about as long as each other, and files differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from packcli import readers, tokenization
from packcli.config import PackConfig, RunOptions
from packcli.dataset import (
    PLAN,
    RANKS,
    Committed,
    Limit,
    Output,
    Report,
    Stats,
    folder_of,
    make_limit,
    read_report,
    read_unit,
    splits_of,
)
from packcli.errors import MismatchError, OutputError, PackcliError, StorageError, UsageError
from packcli.pipeline import probe
from packcli.pipeline.engines import Emit, local_executor
from packcli.pipeline.events import Started, Warned
from packcli.pipeline.finish import finish as finish_output
from packcli.pipeline.prepare import (
    default_output,
    describe_all,
    find_inputs,
    input_names,
    num_cpus,
    refuse_changed_rows,
)
from packcli.pipeline.probe import text_bytes
from packcli.pipeline.ranks.plan import RankPlan, fetch_tokenizer, read_plan, write_plan
from packcli.pipeline.run import Run, log_entry
from packcli.pipeline.workers import Schedule, make_job, run_units
from packcli.storage import Heartbeat, Location, RemotePath, full_disk, is_full, locate


@dataclass(frozen=True, slots=True)
class Ran:
    """What a rank did."""

    output: Location
    rank: int
    world_size: int
    num_units: int
    """That are its own."""
    num_units_done: int
    """Done by this process; the others were committed already."""
    num_bytes: int
    """Of the input files that these cover, about."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {**dataclasses.asdict(self), "output": str(self.output), "seconds": round(self.seconds, 3)}


def plan(
    inputs: Sequence[str],
    output: str | None,
    *,
    config: PackConfig,
    options: RunOptions,
    on_event: Callable[[object], None] | None = None,
) -> Location:
    """Cuts the units of a run and leaves them, and all that a rank needs, in the output; does none of them.

    Goes on with an output of the same run, whoever began it: committed units stay.

    Returns:
        The output.

    Raises:
        PackcliError: as `pack`, whose checks at the start are made here.
    """
    inputs = input_names(inputs, config)
    if "-" in inputs:
        raise UsageError("ranks cannot read standard input", "write it to a file, or use packcli pack -")
    emit = on_event or (lambda event: None)
    target = Output(locate(output if output is not None else default_output(inputs, config)))
    target.check_ours()
    target.lock.refuse()
    sources = find_inputs(inputs, target, config, options, lambda message: emit(Warned(message)))
    config, described = describe_all(config, options, target, sources, emit)
    with target.lock.held():
        here = dataclasses.replace(options, engine="serial", ray_address=None)
        Run(config, here, target, emit).prepare(described)  # its checks; ranks make their own choice of engine
        write_plan(target, described, config, options)
    return target.root


def run(
    output: str | os.PathLike[str] | Location,
    rank: int,
    world_size: int,
    *,
    workers: int = 0,
    input_root: str | None = None,
    tokenizer_engine: str | None = None,
    on_event: Callable[[object], None] | None = None,
) -> Ran:
    """Does the units of one rank that are not done.

    Args:
        output: A directory for which `plan` was made.
        rank: 0..world_size-1.
        world_size: How many ranks share the units; another number for the ranks that are left over is fine.
        workers: Processes; 0 takes the CPUs of this process.
        input_root: Where the deepest directory that holds all inputs is on this machine; None: where it was for `plan`.
        tokenizer_engine: auto, fastokens or tokenizers; None: as for `plan`.
        on_event: Called with Started, Progress and Warned events.

    Raises:
        UsageError: no such rank.
        LockedError: pack, plan or finish works there now.
        PackcliError: what went wrong; it is in the note of the rank as well, for `status`.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"--rank {rank} is not in 0..{world_size - 1}", "ranks are counted from 0")
    began = time.perf_counter()
    target = Output(locate(output))
    _refuse_no_output(target)
    with contextlib.ExitStack() as stack:
        planned = read_plan(target, slice(rank, None, world_size), input_root)
        if isinstance(target.root, RemotePath):  # workers open the tokenizer by its path
            planned = fetch_tokenizer(planned, stack.enter_context(tempfile.TemporaryDirectory(prefix="packcli-")))
        share = _Share(target, planned, on_event or (lambda event: None))
        facts = {"state": "running", "num_units": len(planned.described.units)}
        note = stack.enter_context(target.lock.join_as_rank(rank, world_size, **facts))
        try:
            share.do(note, workers or num_cpus(), tokenizer_engine or planned.tokenizer_engine)
        except BaseException as error:
            with contextlib.suppress(PackcliError, OSError):  # a full disk has no room for it
                note.leave(state="failed", error=_said(error), ended=time.strftime("%Y-%m-%d %H:%M:%S %z"))
            with contextlib.suppress(PackcliError, OSError):
                _sweep_alone(target, note)
            if is_full(error):
                raise full_disk(target.root, 0) from error
            raise
        return Ran(
            target.root,
            rank,
            world_size,
            len(planned.described.units),
            share.num_done,
            share.num_bytes,
            time.perf_counter() - began,
        )


class _Share:
    """The units of one rank."""

    def __init__(self, target: Output, planned: RankPlan, emit: Emit) -> None:
        self._target, self._planned, self._emit = target, planned, emit
        self._plan = self._plan_mark()
        self.num_done = self.num_bytes = 0

    def do(self, note: Heartbeat, workers: int, tokenizer_engine: str) -> None:
        """Does what is left of them."""
        began, started = time.perf_counter(), time.time()
        planned, described, config = self._planned, self._planned.described, self._planned.config
        self._refuse_other_inputs()
        refuse_changed_rows(self._target, described, config)
        done, todo = self._committed()
        sizes = {unit.index: size for unit, size in zip(described.units, planned.sizes, strict=True)}
        left = sum(sizes[unit.index] for unit in todo)
        note.tell(num_units_left=len(todo), num_bytes=left, num_units_done=0, num_bytes_done=0, seconds=0.0)
        if not todo:
            return
        crew = local_executor(workers, len(todo))
        note.tell(workers=crew.workers)
        mine = dataclasses.replace(described, units=todo)
        sample, _ = probe.sample(mine, config)
        chosen = tokenization.choose_engine(
            described.tokenizer,
            tokenizer_engine,
            sample,
            num_bytes=text_bytes(described.sources),
            threads=crew.threads,
        )
        ready = Schedule(done, todo, chosen, crew, sum(planned.sizes), left, limit_of(planned))
        for split in splits_of(config):
            (self._target.root / folder_of(config, split)).mkdir(exist_ok=True)
        self._emit(Started(ready.total_bytes, ready.total_bytes - left, crew.workers))
        stats = Stats()
        job = make_job(self._target, described, config, ready)
        with contextlib.closing(run_units(job, self._hand_out(todo), ready, self._emit)) as results:
            for new in results:
                for each in new:
                    stats += each.stats
                self.num_done += 1
                self.num_bytes += sizes[new[0].unit]
                seconds = round(time.perf_counter() - began, 3)
                note.tell(num_units_done=self.num_done, num_bytes_done=self.num_bytes, seconds=seconds)
        entry = {
            **log_entry(started, time.perf_counter() - began, stats, described, ready),
            "tokenizer_path": planned.tokenizer_path,
            **{name: note.facts[name] for name in ("rank", "world_size")},
        }
        self._target.state.log(f"{RANKS}/{entry['rank']:05d}-{entry['world_size']:05d}.jsonl", **entry)

    def _committed(self) -> tuple[Committed, list[readers.Unit]]:
        """What is done of these units, and those that are not: by a look at their sidecars, and at no others."""
        described = self._planned.described
        done = Committed(is_whole=np.zeros(described.run["num_units"], dtype=np.bool_))
        todo = []
        for unit in described.units:
            parts = [sidecar for sidecar, _ in read_unit(self._target.root, unit.index)]
            done.num_parts += len(parts)
            if parts and parts[-1].is_last:
                done.is_whole[unit.index] = True
            else:
                done.parts.update((unit.index, each.part) for each in parts)
                todo.append(unit)
        return done, todo

    def _hand_out(self, todo: list[readers.Unit]) -> Iterator[readers.Unit]:
        """The units, one by one, but for those that another process has done meanwhile.

        Raises:
            MismatchError: the output was begun anew: what this rank would write is not part of it.
        """
        for number, unit in enumerate(todo):
            if self._plan_mark() != self._plan:
                raise MismatchError(f"{self._target.root} was begun anew while this rank ran", "start the rank again")
            if number:
                parts = read_unit(self._target.root, unit.index)
                if parts and parts[-1][0].is_last:
                    continue
            yield unit

    def _plan_mark(self) -> object:
        """What changes when the output is begun anew."""
        path = self._target.state.folder / PLAN
        try:
            if isinstance(path, RemotePath):
                return path.stat()
            stat = path.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _refuse_other_inputs(self) -> None:
        """Raises when an input of these units is not there, or is not as long as it was."""
        described = self._planned.described
        for index in sorted({span.source for unit in described.units for span in unit.spans}):
            source = described.sources[index]
            try:
                size = locate(source.path).stat().st_size
            except OSError as error:
                raise StorageError(
                    f"{source.path}: {error.strerror}", "--input-root says where the inputs are on this machine"
                ) from None
            if size != source.num_bytes:
                raise MismatchError(
                    f"{source.path} has {size:,} bytes, and had {source.num_bytes:,} when the units were planned",
                    "plan again, into another -o or with --overwrite",
                )


def finish(output: str | os.PathLike[str] | Location, *, workers: int = 0) -> Report:
    """Makes the shards of ranks a dataset, once every unit is done.

    Args:
        output: A directory for which `plan` was made.
        workers: Processes that read sidecars; 0 takes the CPUs of this process.

    Raises:
        UnfinishedError: a unit is not done.
        LockedError: a rank still runs, or another finish.
    """
    began = time.perf_counter()
    target = Output(locate(output))
    _refuse_no_output(target)
    target.lock.refuse()
    with target.lock.held():
        if target.is_finished:
            report = read_report(target.root)
            return dataclasses.replace(report, status="up to date")
        planned = read_plan(target, slice(0, 0))
        run = planned.described.run
        try:
            stats = finish_output(
                target,
                run,
                planned.config,
                planned.described.tokenizer,
                limit=limit_of(planned),
                workers=workers or num_cpus(),
            )
        except BaseException as error:
            with contextlib.suppress(OSError):
                target.sweep()
            if is_full(error):
                raise full_disk(target.root, 0) from error
            raise
        entry = _log_of_ranks(target, stats, time.perf_counter() - began)
        if entry:
            target.state.log(**entry)
        return Report(target.root, run, stats, "finished", entry)


def limit_of(planned: RankPlan) -> Limit:
    """How many rows the run may skip."""
    return make_limit(planned.config, RunOptions(max_bad=planned.max_bad), planned.described.sources)


def _log_of_ranks(target: Output, stats: Stats, seconds: float) -> dict[str, Any]:
    """One line for the run log out of those of the ranks: their sums, and the engine of the last one."""
    entries = []
    paths: Iterable[Location] = (target.state.folder / RANKS).glob("*.jsonl")
    for path in sorted(paths, key=str):
        with contextlib.suppress(OSError, ValueError):
            entries += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not entries:
        return {}
    last = max(entries, key=lambda each: str(each["started"]))
    busy = sum(float(each["seconds"]) for each in entries)
    return {
        **{name: value for name, value in last.items() if name not in ("rank", "world_size")},
        "started": min(str(each["started"]) for each in entries),
        "seconds": round(busy + seconds, 3),
        "tokens_per_second": round((stats.num_tokens_in + stats.num_tokens_special) / max(busy, 1e-9)),
        "workers": max(int(each["workers"]) for each in entries),
        "ranks": len({(each["rank"], each["world_size"]) for each in entries}),
    }


def _refuse_no_output(target: Output) -> None:
    if not target.state.folder.is_dir():
        raise OutputError(f"{target.root}: not an output of packcli", "packcli units plan INPUT... -o DIR makes one")


def _sweep_alone(target: Output, note: Heartbeat) -> None:
    """Removes what was left half written here, when nobody else could be writing it.

    What is there is listed first: whoever comes between the list and the look round has written none of it.
    """
    left_over = target.left_over()
    if not any(each.is_alive for each in target.lock.ranks(note.now)):  # this one has failed, and so is not among them
        for path in left_over:
            path.unlink(missing_ok=True)


def _said(error: BaseException) -> str:
    if isinstance(error, PackcliError):
        return error.message
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "exit_code", 130) - 128
        return f"interrupted by signal {number}"
    return f"{type(error).__name__}: {error}"
