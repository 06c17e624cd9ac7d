"""The line from inputs to a finished dataset. Emits events, prints nothing.

`pack` prepares, lets an engine run `work.run_unit` over the units that are left, and finishes.
"""

from __future__ import annotations

import collections
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

from packcli import chat, readers, tokenizing
from packcli.config import PackConfig, RunOptions
from packcli.documents import DocumentMaker, Marker
from packcli.engine import Emit, get_engine
from packcli.errors import MismatchError, NoInputError, TokenizerError, UsageError
from packcli.manifest import Output, Sidecar, describe_run, whole_units
from packcli.report import Report, write_report
from packcli.shards import write_index, write_json, write_shard
from packcli.stats import Stats
from packcli.work import ENCODERS, Job, folder_of, make_extractor, run_schema, run_unit, splits_of

GUARD_SHARE = 500
"""The first 1/500 of the input is encoded by both engines at start, but no less and no more than these."""
GUARD_MIN_CHARS = 1 << 16
GUARD_MAX_CHARS = 1 << 20
GUARD_ROWS = 64
"""Rows with control tokens that are compared as a whole at start; a share of the others is during the run."""
GUARD_TEXT_CHARS = 1 << 12
"""Of one text, so that the sample holds many."""


@dataclass(frozen=True, slots=True)
class Started:
    """Event: the work begins."""

    total_bytes: int
    done_bytes: int
    """Of units that an earlier run committed."""
    workers: int


@dataclass(frozen=True, slots=True)
class Warned:
    """Event: something that the user should know, and that is no error."""

    message: str


def pack(
    inputs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
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
        inputs: One or several files, directories, globs, or `-` for JSONL on standard input.
        output: The directory to write; by default named after the first input, in the current directory.
        config: What to make. Or give its fields as keyword arguments: `max_len=4096, strategy="best-fit"`.
        options: How to carry it out. Or give its fields as keyword arguments: `workers=4`.
        on_event: Called with Started, Progress and Warned events.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    config, options = _settings(config, options, settings)
    names = [os.fspath(each) for each in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    if not names:
        raise NoInputError("no input", "name a file, a directory, a quoted glob, or - for standard input")
    target = Output(Path(output if output is not None else readers.default_output_name(names)))
    target.check_ours()
    line = _Line(config, options, target, on_event or (lambda event: None))
    if names == ["-"]:
        with target.locked():
            try:
                return line.run(line.describe([readers.spool_stdin(sys.stdin.buffer, target.spool)]))
            finally:
                target.spool.unlink(missing_ok=True)
    if "-" in names:
        raise NoInputError("- is standard input and cannot be joined with other inputs", "pack it on its own")
    warnings: list[str] = []
    sources = readers.find_sources(names, warnings)
    for message in warnings:
        line.emit(Warned(message))
    described = line.describe(sources)  # before the lock, which creates the directory
    with target.locked():
        return line.run(described)


def _settings(
    config: PackConfig | None, options: RunOptions | None, settings: dict[str, Any]
) -> tuple[PackConfig, RunOptions]:
    option_names = set(RunOptions.__dataclass_fields__)
    for_options = {name: value for name, value in settings.items() if name in option_names}
    for_config = {name: value for name, value in settings.items() if name not in option_names}
    if (config and for_config) or (options and for_options):
        raise TypeError("give either config and options or their fields as keyword arguments, not both")
    return config or PackConfig(**for_config), options or RunOptions(**for_options)


@dataclass(frozen=True, slots=True)
class _Described:
    """A run before it is carried out."""

    sources: list[readers.Source]
    fields: readers.Fields
    units: list[readers.Unit]
    tokenizer: tokenizing.TokenizerSpec
    template: chat.TemplateSpec | None
    run: dict[str, Any]


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

    def describe(self, sources: list[readers.Source]) -> _Described:
        """Finds the record shape, the tokenizer and the template, cuts the units, and makes the fingerprint.

        From here on the config is resolved: what hangs on the record shape is filled in.
        """
        config = self.config
        fields = readers.find_fields(
            sources, config.text_field, config.text_template, format_=config.format, mapped=config.field
        )
        recorded = self.target.recorded_run() or {}
        seen = (recorded.get("text", {}).get("chat_template") or {}).get("date")
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
        return _Described(sources, fields, units, tokenizer, template, run)

    def run(self, described: _Described) -> Report:
        """Does what is left to do. The lock is held."""
        target, run = self.target, described.run
        sidecars = self._committed(described)
        whole = whole_units(sidecars)
        todo = [unit for unit in described.units if unit.index not in whole]
        if target.is_finished and not todo:
            target.saw_inputs(described.sources)
            target.touch()
            return Report(target.root, run, _total(sidecars, self.config), "up to date", target.last_run())
        num_resumed = len(sidecars)
        workers = self.options.workers or _num_cpus()
        num_processes = max(1, min(workers, len(todo)))
        threads = max(1, workers // num_processes)
        sample, rows = _sample(described, self.config) if todo else ([], [])
        chosen = tokenizing.choose_engine(described.tokenizer, self.options.tokenizer_engine, sample, threads=threads)
        self._compare(described, rows[:GUARD_ROWS], chosen)
        # Only now: what the first rows show to be wrong leaves no trace of this run.
        target.begin(run, described.sources, self.config)
        for split in splits_of(self.config):
            (target.root / folder_of(self.config, split)).mkdir(exist_ok=True)
        job = Job(
            config=self.config,
            root=target.root,
            sources=tuple(described.sources),
            fields=described.fields,
            tokenizer=described.tokenizer,
            template=described.template,
            engine=chosen.engine.name,
            threads=threads,
            committed=frozenset((each.unit, each.part) for each in sidecars),
        )
        total_bytes = sum(source.num_bytes for source in described.sources)
        self.emit(Started(total_bytes, total_bytes - _file_bytes(todo, described), num_processes))
        if num_processes == 1:
            ENCODERS[job.encoder_key] = (chosen.engine, chosen.spot_check)  # loaded already
        try:
            engine = get_engine("serial" if num_processes == 1 else "processes")
            for new in engine(functools.partial(run_unit, job), todo, workers=num_processes, emit=self.emit):
                sidecars += new
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
        self, described: _Described, rows: list[tuple[readers.Row, Callable[[], str]]], chosen: tokenizing.Choice
    ) -> None:
        """Compares rows with what `tokenizers` gives for their whole text; raises EngineError."""
        if not rows:
            return
        maker = DocumentMaker(_marker(described, self.config), chosen.engine, chosen.spot_check)
        has_controls = [maker.compare(row, place) for row, place in rows]
        if described.template is not None and not any(has_controls):
            self.emit(Warned("the chat template writes no control token of this tokenizer: turns end as plain text"))

    def _committed(self, described: _Described) -> list[Sidecar]:
        """The parts that are done, after a look whether they belong to this run and these rows."""
        target = self.target
        try:
            target.refuse_mismatch(described.run)
            sidecars = target.sidecars()
            self._refuse_changed_rows(described, sidecars)
        except MismatchError:
            if not self.options.overwrite:
                raise
            target.clear()
            return []
        return sidecars

    def _refuse_changed_rows(self, described: _Described, sidecars: list[Sidecar]) -> None:
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
                        "use another -o, or --overwrite to replace it",
                    )

    def _finish(self, described: _Described, sidecars: list[Sidecar]) -> Stats:
        """Checks that every part is there, and writes what makes the shards a dataset; manifest.json last."""
        config, target, run = self.config, self.target, described.run
        if whole_units(sidecars) != {unit.index for unit in described.units}:
            raise AssertionError("a unit is not done")
        stats = _total(sidecars, config)
        if stats.num_documents_packed == 0:
            raise NoInputError(f"no document to pack: {stats.num_documents} read, {_drops(stats)}")
        schema = run_schema(config, described.tokenizer)
        for split in splits_of(config):
            folder = folder_of(config, split)
            shards = [each.shards[split].file for each in sidecars if split in each.shards]
            if not shards:  # every split can be loaded
                shards = [write_shard(target.root, f"{folder}data-empty.arrow", schema, []).file]
            files = [file.removeprefix(folder) for file in shards]
            write_index(target.root / folder, split, files, config.written_columns, run["fingerprint"][:16])
        if len(splits_of(config)) > 1:
            write_json(target.root / "dataset_dict.json", {"splits": list(splits_of(config))})
        write_report(target, run, stats)
        target.write_manifest(run, sidecars)
        return stats


def _marker(described: _Described, config: PackConfig) -> Marker:
    return Marker(config, described.fields, described.tokenizer, described.template)


def _sample(described: _Described, config: PackConfig) -> tuple[list[str], list[tuple[readers.Row, Callable[[], str]]]]:
    """Texts from the beginning of the input for the guard, long ones cut, about 1/500 of the input.

    Of records with a loss mask they are the pieces between control tokens, and the rows that gave them come as well,
    each with its place.
    """
    if config.format == "tokenized":
        return [], []
    size = sum(source.num_bytes * (1 if source.compression is None else 4) for source in described.sources)
    left = min(max(size // GUARD_SHARE, GUARD_MIN_CHARS), GUARD_MAX_CHARS)
    extract = make_extractor(described.fields, described.sources)
    marker = _marker(described, config) if config.masked else None
    texts: list[str] = []
    rows: list[tuple[readers.Row, Callable[[], str]]] = []
    for part in readers.read_parts(
        described.units[0],
        described.sources,
        described.fields,
        unit_bytes=config.unit_bytes,
        split_on=config.split_on,
        hashed=False,
    ):
        for chunk in part.chunks():
            for document, row in zip(*extract(chunk), strict=True):
                if marker is None:
                    found = [document]
                else:
                    place = functools.partial(readers.place_of, described.sources, chunk.source, int(row))
                    rows.append((document, place))
                    found = marker.pieces(document, place)
                for text in found:
                    texts.append(text[: min(left, GUARD_TEXT_CHARS)])
                    left -= len(texts[-1])
                    if left <= 0:
                        return texts, rows
    return texts, rows


def _total(sidecars: list[Sidecar], config: PackConfig) -> Stats:
    total = Stats()
    for sidecar in sidecars:
        total += sidecar.stats
    total.check(config.max_len)
    return total


def _drops(stats: Stats) -> str:
    no_loss = stats.num_documents_no_loss + stats.num_documents_no_loss_left
    with_loss = f", {no_loss} without a token that carries loss" if no_loss else ""
    return f"{stats.num_documents_empty} of them empty, {stats.num_documents_overlong} too long{with_loss}"


def _file_bytes(units: list[readers.Unit], described: _Described) -> int:
    """Bytes of the files that the units cover, about, for progress: spans of a file count alike."""
    num_spans = collections.Counter(span.source for unit in described.units for span in unit.spans)
    return sum(
        described.sources[span.source].num_bytes // num_spans[span.source] for unit in units for span in unit.spans
    )


def _num_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
