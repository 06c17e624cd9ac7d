"""The plan for ranks, which `units plan` leaves in an output: everything about the run but the inputs themselves.

DIR/.packcli/job.json         sources, fields, tokenizer, template and settings, as this packcli resolved them
DIR/.packcli/units.jsonl      a unit a line: [bytes, [[source, start, stop, first row], ...]]
                              of a mixture: [bytes, parts, [[[span, threshold, bytes of text, seed], ...], ...]]
DIR/.packcli/tokenizer.json   a copy of the tokenizer: ranks need no other
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packcli import readers, tokenization
from packcli.config import PackConfig, RunOptions
from packcli.config.choices import FORMAT_VERSION
from packcli.dataset import RANK_FILES, Output
from packcli.errors import MismatchError, OutputError, StorageError
from packcli.pipeline.job import RunSpec
from packcli.pipeline.prepare import unit_sizes
from packcli.storage import Location, is_remote, locate
from packcli.storage.files import committed, file_sha256

JOB, UNITS, TOKENIZER = RANK_FILES


@dataclasses.dataclass(frozen=True, slots=True)
class RankPlan:
    """A plan, read back by a rank."""

    config: PackConfig
    spec: RunSpec
    """With the units of the rank only."""
    sizes: list[int]
    """Bytes of the input files that each of these units covers, about."""
    tokenizer_engine: str
    """The option of `units plan`: auto, fastokens or tokenizers."""
    max_bad: int | str | None
    """How many rows may be skipped: the option of `units plan`."""
    tokenizer_path: str
    """Where the tokenizer was; the plan has a copy of it."""


def write_plan(target: Output, spec: RunSpec, config: PackConfig, options: RunOptions) -> None:
    """Writes what ranks need; the output was begun (see Output.begin) with the same run."""
    state = target.state.folder
    with committed(state / TOKENIZER) as file:
        file.write(Path(spec.tokenizer.path).read_bytes())
    with committed(state / UNITS) as file:
        for unit, size in zip(spec.units, unit_sizes(spec), strict=True):
            file.write(json.dumps([size, *_unit_values(unit)], separators=(",", ":")).encode() + b"\n")
    directories = [os.path.dirname(source.path) for source in spec.sources if not is_remote(source.path)]
    root = os.path.commonpath(directories) if directories else ""
    sources = [
        {
            **dataclasses.asdict(source),
            "path": source.path if is_remote(source.path) else os.path.relpath(source.path, root),
        }
        for source in spec.sources
    ]
    job = {
        "fingerprint": spec.run["fingerprint"],
        "config": config.as_dict(),
        "input_root": root,
        "sources": sources,
        "fields": dataclasses.asdict(spec.fields),
        "tokenizer": dataclasses.asdict(spec.tokenizer),
        "template": None if spec.template is None else dataclasses.asdict(spec.template),
        "tokenizer_engine": options.tokenizer_engine,
        "max_bad": options.max_bad,
    }
    with committed(state / JOB) as file:  # last; paths that are no Unicode go as escapes
        file.write((json.dumps(job, indent=1, default=sorted) + "\n").encode())


def read_plan(target: Output, units: slice, input_root: str | None = None) -> RankPlan:
    """The plan of an output, with some of its units.

    Args:
        target: The output.
        units: Which.
        input_root: Where the deepest directory that holds all inputs is now; None: where it was. URLs stay.

    Raises:
        OutputError: there is no plan, or a damaged one.
        MismatchError: it is that of another run, or of another version of packcli.
        StorageError: the copy of the tokenizer is damaged.
    """
    state = target.state.folder
    run = target.state.recorded_run()
    if run is None or not (state / JOB).is_file():
        raise OutputError(f"{target.root}: no plan for ranks", "packcli units plan INPUT... -o DIR makes one")
    if run.get("format_version") != FORMAT_VERSION:
        raise MismatchError(
            f"{target.root} was planned for format version {run.get('format_version')}, this packcli writes "
            f"{FORMAT_VERSION}",
            "use the same version of packcli for the plan and every rank",
        )
    try:
        job = json.loads((state / JOB).read_bytes())
        rank_plan = _from_json(job, run, state, input_root, units)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{state / JOB}: damaged, or of another version of packcli: {error}", "make it again with units plan"
        ) from None
    if job["fingerprint"] != run["fingerprint"]:
        raise MismatchError(
            f"{target.root}: the plan for ranks is not that of the run begun there",
            "make it again with units plan",
        )
    if file_sha256(state / TOKENIZER)[0] != rank_plan.spec.tokenizer.sha256:
        raise StorageError(f"{state / TOKENIZER}: not the tokenizer of the run", "make the plan again with units plan")
    return rank_plan


def fetch_tokenizer(rank_plan: RankPlan, folder: str) -> RankPlan:
    """The plan with its copy of the tokenizer in a directory of this machine, where it was in an object store."""
    tokenizer = rank_plan.spec.tokenizer
    path = Path(folder) / TOKENIZER
    path.write_bytes(locate(tokenizer.path).read_bytes())
    spec = dataclasses.replace(rank_plan.spec, tokenizer=dataclasses.replace(tokenizer, path=str(path)))
    return dataclasses.replace(rank_plan, spec=spec)


def _from_json(
    job: dict[str, Any], run: dict[str, Any], state: Location, input_root: str | None, units: slice
) -> RankPlan:
    root = job["input_root"] if input_root is None else os.path.abspath(input_root)
    units_and_sizes = list(read_units(state / UNITS, units))

    def place(path: str) -> str:
        return path if is_remote(path) else os.path.join(root, path)

    spec = RunSpec(
        [readers.Source(**{**each, "path": place(each["path"])}) for each in job["sources"]],
        readers.Fields(**{**_tuples(job["fields"]), "optional": frozenset(job["fields"]["optional"])}),
        [unit for unit, _ in units_and_sizes],
        tokenization.TokenizerSpec(**{**_tuples(job["tokenizer"]), "path": str(state / TOKENIZER)}),
        None if job["template"] is None else tokenization.TemplateSpec(**job["template"]),
        run,
    )
    sizes = [size for _, size in units_and_sizes]
    tokenizer_path = os.path.abspath(job["tokenizer"]["path"])
    return RankPlan(
        PackConfig(**_tuples(job["config"])), spec, sizes, job["tokenizer_engine"], job["max_bad"], tokenizer_path
    )


def _tuples(value: Any) -> Any:
    """A value read from JSON, with tuples in place of lists."""
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_units(path: Location, units: slice) -> Iterator[tuple[readers.Unit, int]]:
    """Units of a plan, each with its bytes; the lines of others are passed over."""
    with open(path, "rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes()) as file:
        for index, line in itertools.islice(enumerate(file), units.start, units.stop, units.step):
            size, *values = json.loads(line)
            yield _unit_of(index, values), size


def _unit_values(unit: readers.Unit) -> list[Any]:
    """What a line says of a unit, beside its bytes."""
    if not isinstance(unit, readers.MixedUnit):
        return [[_span_values(span) for span in unit.spans]]
    components = [
        [[_span_values(take.span), take.threshold, take.text_bytes, take.seed] for take in takes]
        for takes in unit.components
    ]
    return [unit.num_parts, components]


def _span_values(span: readers.Span) -> list[int | None]:
    return [span.source, span.start, span.stop, span.first_row]


def _unit_of(index: int, values: list[Any]) -> readers.Unit:
    """The inverse of _unit_values."""
    if len(values) == 1:
        return readers.Unit(index, tuple(readers.Span(*span) for span in values[0]))
    num_parts, components = values
    takes = tuple(tuple(readers.Take(readers.Span(*span), *rest) for span, *rest in each) for each in components)
    spans = tuple(take.span for each in takes for take in each)
    return readers.MixedUnit(index, spans, takes, num_parts)
