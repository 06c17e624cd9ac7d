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
from packcli.pipeline.run import Run, run_facts
from packcli.pipeline.upkeep import cleaned_up, log_run
from packcli.pipeline.workers import Schedule, run_units
from packcli.results import Shown
from packcli.storage import Heartbeat, Location, RemotePath, locate


@dataclass(frozen=True, slots=True, repr=False)
class Ran(Shown):
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

    def facts(self) -> list[tuple[str, str]]:
        """What was done, and how long it took."""
        before = self.num_units - self.num_units_done
        return [
            ("rank", f"{self.rank} of {self.world_size}"),
            ("units", f"{self.num_units_done:,} of its {self.num_units:,} done, {before:,} were done already"),
            ("time", f"{self.seconds:,.1f} s"),
            ("output", str(self.output)),
        ]

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
    config, spec = describe_all(config, options, target, sources, emit)
    with target.lock.held():
        local = dataclasses.replace(options, engine="serial", ray_address=None)
        Run(config, local, target, emit).prepare(spec)  # its checks; ranks make their own choice of engine
        write_plan(target, spec, config, options)
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
        rank_plan = read_plan(target, slice(rank, None, world_size), input_root)
        if isinstance(target.root, RemotePath):  # workers open the tokenizer by its path
            rank_plan = fetch_tokenizer(rank_plan, stack.enter_context(tempfile.TemporaryDirectory(prefix="packcli-")))
        share = _Share(target, rank_plan, on_event or (lambda event: None))
        facts = {"state": "running", "num_units": len(rank_plan.spec.units)}
        note = stack.enter_context(target.lock.join_as_rank(rank, world_size, **facts))
        with cleaned_up(target, sweep=lambda: _sweep_alone(target, note)), _failure_noted(note):
            share.do(note, workers or num_cpus(), tokenizer_engine or rank_plan.tokenizer_engine)
        return Ran(
            target.root,
            rank,
            world_size,
            len(rank_plan.spec.units),
            share.num_done,
            share.num_bytes,
            time.perf_counter() - began,
        )


class _Share:
    """The units of one rank."""

    def __init__(self, target: Output, rank_plan: RankPlan, emit: Emit) -> None:
        self._target, self._rank_plan, self._emit = target, rank_plan, emit
        self._plan = self._plan_identity()
        self.num_done = self.num_bytes = 0

    def do(self, note: Heartbeat, workers: int, tokenizer_engine: str) -> None:
        """Does what is left of them."""
        began, started = time.perf_counter(), time.time()
        rank_plan, spec, config = self._rank_plan, self._rank_plan.spec, self._rank_plan.config
        self._refuse_other_inputs()
        refuse_changed_rows(self._target, spec, config)
        done, todo = self._committed()
        sizes = {unit.index: size for unit, size in zip(spec.units, rank_plan.sizes, strict=True)}
        left = sum(sizes[unit.index] for unit in todo)
        note.tell(num_units_left=len(todo), num_bytes=left, num_units_done=0, num_bytes_done=0, seconds=0.0)
        if not todo:
            return
        executor = local_executor(workers, len(todo))
        note.tell(workers=executor.workers)
        sample, _ = probe.sample(dataclasses.replace(spec, units=todo), config)
        choice = tokenization.choose_engine(
            spec.tokenizer,
            tokenizer_engine,
            sample,
            num_bytes=text_bytes(spec.sources),
            threads=executor.threads,
        )
        schedule = Schedule(done, todo, choice, executor, sum(rank_plan.sizes), left, limit_of(rank_plan))
        for split in splits_of(config):
            (self._target.root / folder_of(config, split)).mkdir(exist_ok=True)
        self._emit(Started(schedule.total_bytes, schedule.total_bytes - left, executor.workers))
        stats = Stats()
        units = self._hand_out(todo)
        with contextlib.closing(run_units(self._target, spec, config, schedule, units, self._emit)) as results:
            for sidecars in results:
                for each in sidecars:
                    stats += each.stats
                self.num_done += 1
                self.num_bytes += sizes[sidecars[0].unit]
                seconds = round(time.perf_counter() - began, 3)
                note.tell(num_units_done=self.num_done, num_bytes_done=self.num_bytes, seconds=seconds)
        rank, world_size, seconds = note.facts["rank"], note.facts["world_size"], time.perf_counter() - began
        facts = {
            **run_facts(seconds, stats, spec, schedule),
            "tokenizer_path": rank_plan.tokenizer_path,
            "rank": rank,
            "world_size": world_size,
        }
        file_name = f"{RANKS}/{rank:05d}-{world_size:05d}.jsonl"
        log_run(self._target, started, seconds, file_name=file_name, **facts)

    def _committed(self) -> tuple[Committed, list[readers.Unit]]:
        """What is done of these units, and those that are not done; only their own sidecars are read."""
        spec = self._rank_plan.spec
        done = Committed(is_whole=np.zeros(spec.run["num_units"], dtype=np.bool_))
        todo = []
        for unit in spec.units:
            parts = [sidecar for sidecar, _ in read_unit(self._target.root, unit.index)]
            done.num_parts += len(parts)
            if parts and parts[-1].is_last:
                done.is_whole[unit.index] = True
            else:
                done.parts.update((unit.index, each.part) for each in parts)
                todo.append(unit)
        return done, todo

    def _hand_out(self, todo: list[readers.Unit]) -> Iterator[readers.Unit]:
        """The units, one by one, without those that another process has done meanwhile.

        Raises:
            MismatchError: the output was begun anew: what this rank would write is not part of it.
        """
        for number, unit in enumerate(todo):
            if self._plan_identity() != self._plan:
                raise MismatchError(f"{self._target.root} was begun anew while this rank ran", "start the rank again")
            if number:
                parts = read_unit(self._target.root, unit.index)
                if parts and parts[-1][0].is_last:
                    continue
            yield unit

    def _plan_identity(self) -> object:
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
        spec = self._rank_plan.spec
        for index in sorted({span.source for unit in spec.units for span in unit.spans}):
            source = spec.sources[index]
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
        rank_plan = read_plan(target, slice(0, 0))
        run = rank_plan.spec.run
        with cleaned_up(target):
            stats = finish_output(
                target,
                run,
                rank_plan.config,
                rank_plan.spec.tokenizer,
                limit=limit_of(rank_plan),
                workers=workers or num_cpus(),
            )
        entry = _log_of_ranks(target, stats, time.perf_counter() - began)
        if entry:
            target.state.log(**entry)
        return Report(target.root, run, stats, "finished", entry)


def limit_of(rank_plan: RankPlan) -> Limit:
    """How many rows the run may skip."""
    return make_limit(rank_plan.config, RunOptions(max_bad=rank_plan.max_bad), rank_plan.spec.sources)


def _log_of_ranks(target: Output, stats: Stats, seconds: float) -> dict[str, Any]:
    """One line for the run log, made of the lines of the ranks: their sums, and the rest as in the newest of them."""
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
    """Removes temporary files here, unless another rank runs that could be writing them.

    What is there is listed first: a rank that begins after the list has written none of it.
    """
    left_over = target.left_over()
    if not any(each.is_alive for each in target.lock.ranks(note.now)):  # this one has failed, and so is not among them
        for path in left_over:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _failure_noted(note: Heartbeat) -> Iterator[None]:
    """What goes wrong inside stands in the note of the rank, for `status`."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(PackcliError, OSError):  # a full disk has no room for it
            note.leave(state="failed", error=_message_of(error), ended=time.strftime("%Y-%m-%d %H:%M:%S %z"))
        raise


def _message_of(error: BaseException) -> str:
    if isinstance(error, PackcliError):
        return error.message
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "exit_code", 130) - 128
        return f"interrupted by signal {number}"
    return f"{type(error).__name__}: {error}"
