"""One call of `pack`, from inputs to a finished dataset. Emits events, prints nothing.

It prepares, lets an executor run `unit.run_unit` over the units that are left, and finishes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from packcli import readers, storage, tokenization
from packcli.config import PackConfig, RunOptions, reading_rules
from packcli.dataset import Committed, Output, Report, Stats, folder_of, make_limit, splits_of
from packcli.errors import MismatchError, NoInputError
from packcli.pipeline import probe
from packcli.pipeline.engines import Emit, NodeRequirements, RequiredFile, local_executor, open_executor
from packcli.pipeline.events import Started, Warned
from packcli.pipeline.finish import collect, finish
from packcli.pipeline.job import RunSpec
from packcli.pipeline.prepare import (
    default_output,
    describe,
    describe_all,
    find_inputs,
    guard_first_rows,
    input_names,
    num_cpus,
    refuse_changed_rows,
    unit_sizes,
)
from packcli.pipeline.probe import GUARD_ROWS, bytes_needed, bytes_of_tokens, text_bytes
from packcli.pipeline.upkeep import cleaned_up, log_run
from packcli.pipeline.workers import Schedule, run_units
from packcli.storage import look_for_room


def pack(
    inputs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    output: str | os.PathLike[str] | None = None,
    *,
    config: PackConfig,
    options: RunOptions,
    on_event: Callable[[object], None] | None = None,
) -> Report:
    """What `packcli.pack` does, with its keywords made into settings.

    Args:
        inputs: As of packcli.pack.
        output: As of packcli.pack.
        config: What to make.
        options: How to carry it out.
        on_event: Called with Started, Progress and Warned events.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    names = [os.fspath(each) for each in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    names = input_names(names, config)
    target = Output(storage.locate(output if output is not None else default_output(names, config)))
    target.check_ours()
    target.lock.refuse()  # at once, not after a look at the input
    emit = on_event or (lambda event: None)
    run = Run(config, options, target, emit)
    if names == ["-"] and not config.mix:
        with target.lock.held():
            try:
                source = readers.spool_stdin(sys.stdin.buffer, target.state.spool, **reading_rules(config, options))
                run.config, spec = describe(config, options, target, [source])
                return run.carry_out(spec)
            finally:
                target.state.spool.unlink(missing_ok=True)
    if "-" in names:
        raise NoInputError("- is standard input and cannot be joined with other inputs", "pack it on its own")
    sources = find_inputs(names, target, config, options, lambda message: emit(Warned(message)))
    # Before the lock, which creates the directory.
    run.config, spec = describe_all(config, options, target, sources, emit)
    with target.lock.held():
        return run.carry_out(spec)


class Run:
    """One call of `pack`: what is to be made, where, and how far it has come."""

    def __init__(
        self,
        config: PackConfig,
        options: RunOptions,
        target: Output,
        emit: Emit,
    ) -> None:
        self.config, self.options, self.target, self.emit = config, options, target, emit
        self._started = time.time()
        self._clock = time.perf_counter()
        self._needed = 0  # bytes of output still to be written, about
        self._until_done = contextlib.ExitStack()  # ends the workers, before temporary files are removed

    def carry_out(self, spec: RunSpec) -> Report:
        """Does what is left to do. The lock is held."""
        with cleaned_up(self.target, needed=lambda: self._needed), self._until_done:
            schedule = self.prepare(spec)
            if schedule.choice is None:
                self.target.touch()
                return Report(
                    self.target.root, spec.run, schedule.done.stats, "up to date", self.target.state.last_run()
                )
            return self._pack(spec, schedule)

    def prepare(self, spec: RunSpec) -> Schedule:
        """Looks at what is done and at the first rows, and begins the output, unless it is up to date."""
        target, config = self.target, self.config
        workers = self.options.workers or num_cpus()
        done = self._committed(spec, workers)
        todo = [unit for unit in spec.units if not done.is_whole[unit.index]]
        limit = make_limit(config, self.options, spec.sources)
        limit.check(target.root, done.stats, is_all=not todo)
        if target.is_finished and not todo:
            done.stats.check(config.max_len)
            target.state.saw_inputs(spec.sources)
            return Schedule(done, [], None, local_executor(1, 0), 0, 0, limit)
        executor = self._until_done.enter_context(
            open_executor(
                self.options,
                len(todo),
                cpus=num_cpus(),
                requirements=lambda: self._requirements(spec),
                warn=lambda message: self.emit(Warned(message)),
            )
        )
        sample, rows = probe.sample(spec, config) if todo else ([], [])
        choice = tokenization.choose_engine(
            spec.tokenizer,
            self.options.tokenizer_engine,
            sample,
            num_bytes=text_bytes(spec.sources),
            threads=executor.threads,
        )
        guard_first_rows(spec, config, rows[:GUARD_ROWS], choice, lambda text: self.emit(Warned(text)))
        # Only now: what the first rows show to be wrong leaves no trace of this run.
        target.begin(spec.run, spec.sources, config)
        if spec.counted_for is not None:
            target.state.remember_mix(spec.counted_for, spec.run["mix"])
        for split in splits_of(config):
            (target.root / folder_of(config, split)).mkdir(exist_ok=True)
        sizes = unit_sizes(spec)
        total_bytes, left_bytes = sum(sizes), sum(sizes[unit.index] for unit in todo)
        if todo:
            self._look_for_room(spec, choice.engine, left_bytes, total_bytes)
        return Schedule(done, todo, choice, executor, total_bytes, left_bytes, limit)

    def _pack(self, spec: RunSpec, schedule: Schedule) -> Report:
        target = self.target
        self.emit(Started(schedule.total_bytes, schedule.total_bytes - schedule.left_bytes, schedule.executor.workers))
        with contextlib.closing(run_units(target, spec, self.config, schedule, schedule.todo, self.emit)) as results:
            counted = Stats() + schedule.done.stats
            for sidecars in results:
                for each in sidecars:
                    counted += each.stats
                schedule.limit.check(target.root, counted, is_all=False)
                self._needed -= sum(shard.num_bytes for each in sidecars for shard in each.shards.values())
        workers = self.options.workers or num_cpus()
        stats = finish(target, spec.run, self.config, spec.tokenizer, limit=schedule.limit, workers=workers)
        seconds = time.perf_counter() - self._clock
        entry = log_run(target, self._started, seconds, **run_facts(seconds, stats, spec, schedule))
        return Report(target.root, spec.run, stats, "resumed" if schedule.done.num_parts else "packed", entry)

    def _committed(self, spec: RunSpec, workers: int) -> Committed:
        """What is done, after a look whether it belongs to this run and these rows."""
        target = self.target
        try:
            target.refuse_mismatch(spec.run)
            refuse_changed_rows(target, spec, self.config)
            if not self._begins_anew:
                return collect(target.root, len(spec.units), workers=workers)
        except MismatchError:
            if not (self.options.overwrite or self._begins_anew):
                raise
        target.clear()
        return collect(target.root, len(spec.units))

    @property
    def _begins_anew(self) -> bool:
        return self.options.restart and not self.target.is_finished

    def _requirements(self, spec: RunSpec) -> NodeRequirements:
        """What workers on other machines must see as this one does."""
        tokenizer = spec.tokenizer.path
        files = [RequiredFile(tokenizer, os.path.getsize(tokenizer), spec.tokenizer.sha256)]
        files += [RequiredFile(source.path, source.num_bytes) for source in spec.sources]
        return NodeRequirements.of(str(self.target.state.folder), files)

    def _look_for_room(self, spec: RunSpec, engine: tokenization.Engine, left_bytes: int, total_bytes: int) -> None:
        """Ends the run when the output cannot fit, before any work is done; warns when it may not."""
        if "mix" in spec.run:  # its tokens were counted
            from packcli.pipeline import mixture

            num_tokens = mixture.num_tokens(spec.run["mix"]) * left_bytes // max(total_bytes, 1)
            self._needed = bytes_of_tokens(num_tokens, self.config)
        else:
            self._needed = bytes_needed(spec, self.config, engine, left_bytes)
        warning = look_for_room(self.target.root, self._needed)
        if warning is not None:
            self.emit(Warned(warning))


def run_facts(seconds: float, stats: Stats, spec: RunSpec, schedule: Schedule) -> dict[str, Any]:
    """How units were done, for the run log."""
    choice, executor = schedule.choice, schedule.executor
    if choice is None:
        raise AssertionError("nothing was done")
    return {
        "tokens_per_second": round((stats.num_tokens_in + stats.num_tokens_special) / seconds),
        "resumed_parts": schedule.done.num_parts,
        "engine": executor.engine,
        "place": executor.place,
        "workers": executor.workers,
        "threads": executor.threads,
        "tokenizer_engine": choice.engine.name,
        "tokenizer_engine_version": choice.engine.version,
        "tokenizer_engine_reason": choice.reason,
        "tokenizer_path": os.path.abspath(spec.tokenizer.path),
    }
