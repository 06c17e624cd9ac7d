"""The line from inputs to a finished dataset. Emits events, prints nothing.

`pack` prepares, lets an engine run `work.run_unit` over the units that are left, and finishes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packcli import chat, mixing, probe, readers, space, tokenizing
from packcli.config import PackConfig, RunOptions
from packcli.documents import DocumentMaker
from packcli.engine import RETRIES, Emit, LostWorkerError, get_engine
from packcli.errors import MismatchError, NoInputError, OutputError, PackcliError, TokenizerError, UsageError
from packcli.finishing import finish, total_of
from packcli.job import Job, folder_of, splits_of
from packcli.manifest import Output, describe_run, fingerprint
from packcli.report import Report
from packcli.sidecars import Sidecar, whole_units
from packcli.stats import Stats
from packcli.work import ENCODERS, run_unit


@dataclass(frozen=True, slots=True)
class Started:
    """Event: the work begins."""

    total_bytes: int
    done_bytes: int
    """Of units that an earlier run committed."""
    workers: int
    doing: str = ""
    """What is done, where it is not what the verb does."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Event: something that the user should know, and that is no error."""

    message: str


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
    if names and config.mix:
        raise UsageError(f"{names[0]}: inputs of a mixture have shares", "name all of them with --mix, or none")
    if not names and not config.mix:
        raise NoInputError("no input", "name a file, a directory, a quoted glob, or - for standard input")
    default = readers.default_output_name(names) if names else "mixture-packed"
    target = Output(Path(output if output is not None else default))
    target.check_ours()
    target.refuse_locked()  # at once, not after a look at the input
    line = _Line(config, options, target, on_event or (lambda event: None))
    if names == ["-"]:
        with target.locked():
            try:
                return line.guarded(
                    line.describe(
                        [readers.spool_stdin(sys.stdin.buffer, target.spool, max_row_bytes=options.max_line_bytes)]
                    )
                )
            finally:
                target.spool.unlink(missing_ok=True)
    if "-" in names:
        raise NoInputError("- is standard input and cannot be joined with other inputs", "pack it on its own")
    warnings: list[str] = []
    components: list[mixing.Component] = []
    if config.mix:
        sources, components = mixing.find_components(config, warnings, max_row_bytes=options.max_line_bytes)
    else:
        sources = readers.find_sources(names, warnings, max_row_bytes=options.max_line_bytes)
    _refuse_inside(sources, target.root)
    for message in warnings:
        line.emit(Warned(message))
    described = line.describe(sources, components)  # before the lock, which creates the directory
    with target.locked():
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


class _Line:
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
        self._asked: dict[str, Any] = {}  # what a mixture was counted for

    def describe(self, sources: list[readers.Source], components: Sequence[mixing.Component] = ()) -> probe.Described:
        """Finds the record shape, the tokenizer and the template, cuts the units, and makes the fingerprint.

        From here on the config is resolved: what hangs on the record shape is filled in.
        """
        config = self.config
        fields = readers.find_fields(
            sources, config.text_field, config.text_template, format_=config.format, mapped=config.field
        )
        seen = self.target.recorded_date()
        config = config.resolved(fields.format, seen or time.strftime("%Y-%m-%d"))
        tokenizer = tokenizing.find_tokenizer(config, allow_network=self.options.allow_network)
        template = None
        if fields.has_messages:
            directory = Path(tokenizer.path).parent
            template = chat.find_template(config.chat_template, directory, tokenizer.name, str(config.date))
            if (
                config.chat_template == chat.CHATML
                and chat.CHATML_TURN not in tokenizing.read_vocabulary(tokenizer).special
            ):
                raise TokenizerError(
                    f"--chat-template chatml writes {chat.CHATML_TURN}, which is no special token of {tokenizer.name}",
                    "give a tokenizer that has it, or a template for this one",
                )
        elif config.chat_template is not None:
            raise UsageError(f"--chat-template: records of format {fields.format} hold no messages", "leave it out")
        identity = template.identity() if template is not None else None
        self.config = config = dataclasses.replace(config, date=identity["date"] if identity else None)
        units = readers.cut_units(sources, config.unit_bytes)
        text = {**fields.identity(), "chat_template": identity}
        run = describe_run(config, tokenizer, sources, text, len(units))
        described = probe.Described(sources, fields, units, tokenizer, template, run)
        return self._mixed(described, components) if components else described

    def _mixed(self, described: probe.Described, components: Sequence[mixing.Component]) -> probe.Described:
        """The run with its inputs mixed. Counts their tokens, unless this output knows them from an earlier run."""
        config, sources = self.config, described.sources
        asked = {
            "run": described.run,
            "tokens": config.tokens,
            "components": [dataclasses.asdict(c) for c in components],
        }
        mix = self.target.remembered_mix(asked) if not self.target.changed_since(sources) else None
        if mix is None:
            workers = self.options.workers or num_cpus()
            num_processes = max(1, min(workers, len(described.units)))
            threads = max(1, workers // num_processes)
            chosen = tokenizing.choose_engine(described.tokenizer, self.options.tokenizer_engine, [], threads=threads)
            job = self._job(described, chosen, threads, [])
            self.emit(Started(sum(source.num_bytes for source in sources), 0, num_processes, "counting"))
            encoder = (chosen.engine, chosen.spot_check)
            counts = mixing.count(job, components, described.units, num_processes, encoder, self.emit)
            mix = mixing.plan_mix(components, counts, config.tokens)
        self._asked = asked
        units = readers.cut_mixed(sources, mix, config.unit_bytes, config.seed)
        run = {name: value for name, value in described.run.items() if name not in ("num_units", "fingerprint")}
        run = {**run, "mix": mix, "num_units": len(units)}
        run["fingerprint"] = fingerprint(run)
        return dataclasses.replace(described, units=list(units), run=run)

    def _job(
        self, described: probe.Described, chosen: tokenizing.Choice, threads: int, sidecars: Sequence[Sidecar]
    ) -> Job:
        """What workers are told."""
        return Job(
            config=self.config,
            root=self.target.root,
            sources=tuple(described.sources),
            fields=described.fields,
            tokenizer=described.tokenizer,
            template=described.template,
            engine=chosen.engine.name,
            threads=threads,
            committed=frozenset((each.unit, each.part) for each in sidecars),
        )

    def guarded(self, described: probe.Described) -> Report:
        """`run`; when it fails no temporary file is left, and a full disk is called by its name."""
        try:
            return self.run(described)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.target.sweep()
            if space.is_full(error):
                raise space.full_disk(self.target.root, max(self._needed, 0)) from error
            raise

    def run(self, described: probe.Described) -> Report:
        """Does what is left to do. The lock is held."""
        target, run = self.target, described.run
        sidecars = self._committed(described)
        whole = whole_units(sidecars)
        todo = [unit for unit in described.units if unit.index not in whole]
        if target.is_finished and not todo:
            target.saw_inputs(described.sources)
            target.touch()
            return Report(target.root, run, total_of(sidecars, self.config), "up to date", target.last_run())
        num_resumed = len(sidecars)
        workers = self.options.workers or num_cpus()
        num_processes = max(1, min(workers, len(todo)))
        threads = max(1, workers // num_processes)
        sample, rows = probe.sample(described, self.config) if todo else ([], [])
        chosen = tokenizing.choose_engine(described.tokenizer, self.options.tokenizer_engine, sample, threads=threads)
        self._compare(described, rows[: probe.GUARD_ROWS], chosen)
        # Only now: what the first rows show to be wrong leaves no trace of this run.
        target.begin(run, described.sources, self.config)
        for split in splits_of(self.config):
            (target.root / folder_of(self.config, split)).mkdir(exist_ok=True)
        if "mix" in run:
            target.remember_mix(self._asked, run["mix"])
        job = self._job(described, chosen, threads, sidecars)
        total_bytes, left_bytes = sum(source.num_bytes for source in described.sources), _file_bytes(todo, described)
        if "mix" in run:
            total_bytes = _file_bytes(described.units, described)
        if todo:
            self._look_for_room(described, chosen.engine, left_bytes, total_bytes)
        self.emit(Started(total_bytes, total_bytes - left_bytes, num_processes))
        if num_processes == 1:
            ENCODERS[job.encoder_key] = (chosen.engine, chosen.spot_check)  # loaded already
        try:
            engine = get_engine("serial" if num_processes == 1 else "processes")
            work = functools.partial(run_unit, job)
            with contextlib.closing(engine(work, todo, workers=num_processes, emit=self.emit)) as results:
                for new in results:
                    sidecars += new
                    self._needed -= sum(shard.num_bytes for each in new for shard in each.shards.values())
        except LostWorkerError as lost:
            names = ", ".join(described.sources[span.source].name for span in lost.item.spans[:3])
            raise PackcliError(
                f"a worker process died {RETRIES + 1} times over unit {lost.item.index} (of {names}), "
                "perhaps for want of memory",
                "committed units are kept: the same command resumes, perhaps with another --workers; "
                "a smaller --unit-bytes takes less memory, and is another run",
            ) from None
        finally:
            ENCODERS.clear()
        sidecars.sort(key=lambda each: (each.unit, each.part))
        stats = self._finish(described, sidecars)
        seconds = time.perf_counter() - self._clock
        entry = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "seconds": round(seconds, 3),
            "tokens_per_second": round((stats.num_tokens_in + stats.num_tokens_special) / seconds),
            "resumed_parts": num_resumed,
            "workers": num_processes,
            "threads": threads,
            "tokenizer_engine": chosen.engine.name,
            "tokenizer_engine_version": chosen.engine.version,
            "tokenizer_engine_reason": chosen.reason,
            "tokenizer_path": os.path.abspath(described.tokenizer.path),
            "packcli": importlib.metadata.version("packcli"),
            "python": platform.python_version(),
            "host": platform.node(),
            "command": sys.argv,
        }
        target.log(**entry)
        return Report(target.root, run, stats, "resumed" if num_resumed else "packed", entry)

    def _compare(
        self, described: probe.Described, rows: list[tuple[readers.Row, Callable[[], str]]], chosen: tokenizing.Choice
    ) -> None:
        """Compares rows with what `tokenizers` gives for their whole text; raises EngineError."""
        if not rows:
            return
        maker = DocumentMaker(probe.marker_of(described, self.config), chosen.engine, chosen.spot_check)
        has_controls = [maker.compare(row, place) for row, place in rows]
        if described.template is not None and not any(has_controls):
            self.emit(Warned("the chat template writes no control token of this tokenizer: turns end as plain text"))

    def _committed(self, described: probe.Described) -> list[Sidecar]:
        """The parts that are done, after a look whether they belong to this run and these rows."""
        target = self.target
        try:
            target.refuse_mismatch(described.run)
            sidecars = target.sidecars()
            self._refuse_changed_rows(described, sidecars)
            if not self._begins_anew:
                return sidecars
        except MismatchError:
            if not (self.options.overwrite or self._begins_anew):
                raise
        target.clear()
        return []

    @property
    def _begins_anew(self) -> bool:
        return self.options.restart and not self.target.is_finished

    def _look_for_room(
        self, described: probe.Described, engine: tokenizing.Engine, left_bytes: int, total_bytes: int
    ) -> None:
        """Ends the run when the output cannot fit, before any work is done; warns when it may not."""
        if "mix" in described.run:  # its tokens were counted
            num_tokens = mixing.num_tokens(described.run["mix"]) * left_bytes // max(total_bytes, 1)
            self._needed = space.bytes_of_tokens(num_tokens, self.config)
        else:
            self._needed = probe.bytes_needed(described, self.config, engine, left_bytes)
        warning = space.look_for_room(self.target.root, self._needed)
        if warning is not None:
            self.emit(Warned(warning))

    def _refuse_changed_rows(self, described: probe.Described, sidecars: list[Sidecar]) -> None:
        """Raises MismatchError when the rows of a committed part are not those of the input any more.

        Only inputs whose time of change is not the one remembered are read; an input that was only touched passes.
        """
        changed = set(self.target.changed_since(described.sources)) if sidecars else set()
        if not changed:
            return
        recorded: dict[int, dict[int, str]] = {}
        for each in sidecars:
            recorded.setdefault(each.unit, {})[each.part] = each.input_xxh3
        for unit in described.units:
            names = [described.sources[span.source].name for span in unit.spans if span.source in changed]
            if unit.index not in recorded or not names:
                continue
            config = self.config
            digests = readers.digest_parts(
                unit,
                described.sources,
                described.fields,
                unit_bytes=config.unit_bytes,
                split_on=config.split_on,
            )
            for part, before in recorded[unit.index].items():
                now = digests[part] if part < len(digests) else "nothing"
                if now != before:
                    raise MismatchError(
                        f"{self.target.root} was made from other rows: {', '.join(names)} has changed "
                        f"(unit {unit.index} part {part}: XXH3 was {before[:12]}, now it is {now[:12]})",
                        self.target.way_out,
                    )

    def _finish(self, described: probe.Described, sidecars: list[Sidecar]) -> Stats:
        """Checks that every part is there, and finishes the output."""
        if whole_units(sidecars) != {unit.index for unit in described.units}:
            raise AssertionError("a unit is not done")
        return finish(self.target, described.run, self.config, described.tokenizer, sidecars)


def _refuse_inside(sources: Sequence[readers.Source], output: Path) -> None:
    """Raises OutputError when an input lies in the output: it would be packed into itself, or removed."""
    root = os.path.realpath(output)
    for source in sources:
        if os.path.realpath(source.path).startswith(os.path.join(root, "")):
            raise OutputError(f"{source.path} is an input, and lies in the output {output}", "choose another -o")


def _file_bytes(units: list[readers.Unit], described: probe.Described) -> int:
    """Bytes of the files that the units cover, about, for progress: spans of a file count alike."""
    if "mix" in described.run:
        return mixing.file_bytes(units, described.sources, described.run["mix"])
    num_spans = collections.Counter(span.source for unit in described.units for span in unit.spans)
    return sum(
        described.sources[span.source].num_bytes // num_spans[span.source] for unit in units for span in unit.spans
    )


def num_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
