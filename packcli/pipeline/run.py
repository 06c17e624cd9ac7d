"""The line from inputs to a finished dataset. Emits events, prints nothing.

`pack` prepares, lets an engine run `unit.run_unit` over the units that are left, and finishes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from packcli import readers, storage, tokenization
from packcli.config import PackConfig, RunOptions, reading_rules
from packcli.dataset import Committed, Output, Report, Stats, folder_of, make_limit, splits_of
from packcli.errors import MismatchError, NoInputError
from packcli.pipeline import probe
from packcli.pipeline.engines import Emit, File, NodeRequirements, local_executor, open_executor
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
from packcli.pipeline.workers import Schedule, make_job, run_units
from packcli.storage import full_disk, is_full, look_for_room


def pack(
    inputs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    output: str | os.PathLike[str] | None = None,
    *,
    config: PackConfig | None = None,
    options: RunOptions | None = None,
    on_event: Callable[[object], None] | None = None,
    **settings: Any,
) -> Report:
    """Packs text into a dataset directory; resumes what was interrupted; does nothing when it is up to date.

    An input of several units starts processes: a script that calls this needs the usual
    `if __name__ == "__main__":`, or workers=1.

    Args:
        inputs: One or several files, directories, globs, or `-` for JSONL on standard input. None where the setting
            `mix` names inputs with their shares: `mix={"web.jsonl": 0.7, "code/": 0.3}`.
        output: The directory to write; by default named after the first input, in the current directory.
        config: What to make. Or give its fields as keyword arguments: `max_len=4096, strategy="best-fit"`.
        options: How to carry it out. Or give its fields as keyword arguments: `workers=4`.
        on_event: Called with Started, Progress and Warned events.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    config, options = _settings(config, options, settings)
    names = [os.fspath(each) for each in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    names = input_names(names, config)
    target = Output(storage.locate(output if output is not None else default_output(names, config)))
    target.check_ours()
    target.lock.refuse()  # at once, not after a look at the input
    emit = on_event or (lambda event: None)
    line = Run(config, options, target, emit)
    if names == ["-"] and not config.mix:
        with target.lock.held():
            try:
                source = readers.spool_stdin(sys.stdin.buffer, target.state.spool, **reading_rules(config, options))
                line.config, described = describe(config, options, target, [source])
                return line.guarded(described)
            finally:
                target.state.spool.unlink(missing_ok=True)
    if "-" in names:
        raise NoInputError("- is standard input and cannot be joined with other inputs", "pack it on its own")
    sources = find_inputs(names, target, config, options, lambda message: emit(Warned(message)))
    # Before the lock, which creates the directory.
    line.config, described = describe_all(config, options, target, sources, emit)
    with target.lock.held():
        return line.guarded(described)


def _settings(
    config: PackConfig | None, options: RunOptions | None, settings: dict[str, Any]
) -> tuple[PackConfig, RunOptions]:
    option_names = set(RunOptions.__dataclass_fields__)
    for_options = {name: value for name, value in settings.items() if name in option_names}
    for_config = {name: value for name, value in settings.items() if name not in option_names}
    if (config and for_config) or (options and for_options):
        raise TypeError("give either config and options or their fields as keyword arguments, not both")
    return config or PackConfig(**for_config), options or RunOptions(**for_options)


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
        self._until_done = contextlib.ExitStack()  # what `guarded` closes: the workers, before it sweeps

    def guarded(self, described: RunSpec) -> Report:
        """`run`; when it fails no temporary file is left, and a full disk is called by its name."""
        try:
            with self._until_done:
                return self.run(described)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.target.sweep()
            if is_full(error):
                raise full_disk(self.target.root, max(self._needed, 0)) from error
            raise

    def prepare(self, described: RunSpec) -> Schedule:
        """Looks at what is done and at the first rows, and begins the output, unless it is up to date."""
        target, config = self.target, self.config
        workers = self.options.workers or num_cpus()
        done = self._committed(described, workers)
        todo = [unit for unit in described.units if not done.is_whole[unit.index]]
        limit = make_limit(config, self.options, described.sources)
        limit.check(target.root, done.stats, is_all=not todo)
        if target.is_finished and not todo:
            done.stats.check(config.max_len)
            target.state.saw_inputs(described.sources)
            return Schedule(done, [], None, local_executor(1, 0), 0, 0, limit)
        crew = self._until_done.enter_context(
            open_executor(
                self.options,
                len(todo),
                cpus=num_cpus(),
                ground=lambda: self._ground(described),
                warn=lambda message: self.emit(Warned(message)),
            )
        )
        sample, rows = probe.sample(described, config) if todo else ([], [])
        chosen = tokenization.choose_engine(
            described.tokenizer,
            self.options.tokenizer_engine,
            sample,
            num_bytes=text_bytes(described.sources),
            threads=crew.threads,
        )
        guard_first_rows(described, config, rows[:GUARD_ROWS], chosen, lambda text: self.emit(Warned(text)))
        # Only now: what the first rows show to be wrong leaves no trace of this run.
        target.begin(described.run, described.sources, config)
        if described.counted is not None:
            target.state.remember_mix(described.counted, described.run["mix"])
        for split in splits_of(config):
            (target.root / folder_of(config, split)).mkdir(exist_ok=True)
        sizes = unit_sizes(described)
        total_bytes, left_bytes = sum(sizes), sum(sizes[unit.index] for unit in todo)
        if todo:
            self._look_for_room(described, chosen.engine, left_bytes, total_bytes)
        return Schedule(done, todo, chosen, crew, total_bytes, left_bytes, limit)

    def run(self, described: RunSpec) -> Report:
        """Does what is left to do. The lock is held."""
        target, run = self.target, described.run
        ready = self.prepare(described)
        if ready.chosen is None:
            target.touch()
            return Report(target.root, run, ready.done.stats, "up to date", target.state.last_run())
        job = make_job(target, described, self.config, ready)
        self.emit(Started(ready.total_bytes, ready.total_bytes - ready.left_bytes, ready.crew.workers))
        with contextlib.closing(run_units(job, ready.todo, ready, self.emit)) as results:
            counted = Stats() + ready.done.stats
            for new in results:
                for each in new:
                    counted += each.stats
                ready.limit.check(target.root, counted, is_all=False)
                self._needed -= sum(shard.num_bytes for each in new for shard in each.shards.values())
        workers = self.options.workers or num_cpus()
        stats = finish(target, run, self.config, described.tokenizer, limit=ready.limit, workers=workers)
        seconds = time.perf_counter() - self._clock
        entry = log_entry(self._started, seconds, stats, described, ready)
        target.state.log(**entry)
        return Report(target.root, run, stats, "resumed" if ready.done.num_parts else "packed", entry)

    def _committed(self, described: RunSpec, workers: int) -> Committed:
        """What is done, after a look whether it belongs to this run and these rows."""
        target = self.target
        try:
            target.refuse_mismatch(described.run)
            refuse_changed_rows(target, described, self.config)
            if not self._begins_anew:
                return collect(target.root, len(described.units), workers=workers)
        except MismatchError:
            if not (self.options.overwrite or self._begins_anew):
                raise
        target.clear()
        return collect(target.root, len(described.units))

    @property
    def _begins_anew(self) -> bool:
        return self.options.restart and not self.target.is_finished

    def _ground(self, described: RunSpec) -> NodeRequirements:
        """What workers on other machines must see as this one does."""
        tokenizer = described.tokenizer.path
        files = [File(tokenizer, os.path.getsize(tokenizer), described.tokenizer.sha256)]
        files += [File(source.path, source.num_bytes) for source in described.sources]
        return NodeRequirements.of(str(self.target.state.folder), files)

    def _look_for_room(
        self, described: RunSpec, engine: tokenization.Engine, left_bytes: int, total_bytes: int
    ) -> None:
        """Ends the run when the output cannot fit, before any work is done; warns when it may not."""
        if "mix" in described.run:  # its tokens were counted
            from packcli.pipeline import mixture

            num_tokens = mixture.num_tokens(described.run["mix"]) * left_bytes // max(total_bytes, 1)
            self._needed = bytes_of_tokens(num_tokens, self.config)
        else:
            self._needed = bytes_needed(described, self.config, engine, left_bytes)
        warning = look_for_room(self.target.root, self._needed)
        if warning is not None:
            self.emit(Warned(warning))


def log_entry(started: float, seconds: float, stats: Stats, described: RunSpec, ready: Schedule) -> dict[str, Any]:
    """A line of the run log: how units were done. Nothing of it is hashed."""
    chosen = ready.chosen
    if chosen is None:
        raise AssertionError("nothing was done")
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(seconds, 3),
        "tokens_per_second": round((stats.num_tokens_in + stats.num_tokens_special) / seconds),
        "resumed_parts": ready.done.num_parts,
        "engine": ready.crew.engine,
        "place": ready.crew.place,
        "workers": ready.crew.workers,
        "threads": ready.crew.threads,
        "tokenizer_engine": chosen.engine.name,
        "tokenizer_engine_version": chosen.engine.version,
        "tokenizer_engine_reason": chosen.reason,
        "tokenizer_path": os.path.abspath(described.tokenizer.path),
        "packcli": importlib.metadata.version("packcli"),
        "python": platform.python_version(),
        "host": platform.node(),
        "command": sys.argv,
    }
