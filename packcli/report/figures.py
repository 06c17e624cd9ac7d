"""What `stats` gives: the reports of packed directories, or what packing would give, as tables for people and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packcli.config import PackConfig, make_settings
from packcli.config.choices import canonical_strategy
from packcli.dataset import SCHEMA_VERSION, Report, read_report
from packcli.errors import NoInputError, UsageError
from packcli.pipeline import measure
from packcli.report.recount import Recount
from packcli.report.recount import recount as count_again
from packcli.report.tables import Table, report_tables, to_csv, to_markdown
from packcli.report.what_if import WhatIf, compare, what_if_tables
from packcli.results import Shown, as_html
from packcli.storage import locate

FOR_BOTH = frozenset({"tokenizer", "seed", "workers"})
"""Options that do not say whether packed directories or raw input are meant."""


@dataclass(frozen=True, slots=True, repr=False)
class Figures(Shown):
    """The figures of packed directories, or of raw input."""

    reports: tuple[Report, ...] = ()
    """A report for each packed directory."""
    recounts: tuple[Recount, ...] = ()
    """Where asked for, beside each report."""
    what_if: WhatIf | None = None
    """What packing raw input would give."""

    @property
    def tables(self) -> list[Table]:
        """Every figure, as `to_csv` and `to_markdown` have them."""
        return what_if_tables(self.what_if) if self.what_if is not None else report_tables(self.reports)

    @property
    def differences(self) -> dict[str, dict[str, tuple[Any, Any]]]:
        """Directory -> figure -> what the report says, what the rows say; empty when they agree."""
        pairs = zip(self.reports, self.recounts, strict=False)
        return {str(report.output): counted.differences for report, counted in pairs if counted.differences}

    def to_csv(self) -> str:
        """Every figure as CSV."""
        return to_csv(self.tables)

    def to_markdown(self) -> str:
        """The tables as Markdown."""
        return to_markdown(self.tables)

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        if self.what_if is not None:
            return {"schema_version": SCHEMA_VERSION, "what_if": self.what_if.as_dict()}
        reports = [report.as_dict() for report in self.reports]
        for each, counted in zip(reports, self.recounts, strict=False):
            each["recount"] = counted.as_dict()
        return reports[0] if len(reports) == 1 else {"schema_version": SCHEMA_VERSION, "reports": reports}

    def facts(self) -> list[tuple[str, str]]:
        """A line for each directory, or for each strategy."""
        facts = [
            (
                str(report.output),
                f"{report.stats.num_packs:,} packs of {report.max_len:,} tokens, "
                f"{report.derived['utilisation']:.2%} full",
            )
            for report in self.reports
        ]
        for each in self.what_if.outcomes if self.what_if is not None else ():
            lost = f"{each.num_documents_cut:,.0f} documents cut, {each.num_documents_dropped:,.0f} dropped"
            packs = f"{each.num_packs:,.0f} packs, {each.utilisation:.2%} full, {lost}"
            facts.append((f"{each.max_len:,} {each.strategy}", packs))
        return facts

    def _repr_html_(self) -> str:
        """The tables, for notebooks."""
        parts = []
        for table in self.tables:
            rows = [tuple(map(str, row)) for row in table.rows]
            parts.append(as_html([(table.title,)]) + as_html(rows, table.columns))
        return "\n".join(parts)


def asks_for_estimate(inputs: Sequence[str], given: Mapping[str, Any], *, of_directories: Mapping[str, Any]) -> bool:
    """Whether inputs are to be measured: they are no packed directories, or an option for raw input is given.

    Args:
        inputs: What the user names.
        given: Options for raw input, by name; None stands for one that was not given.
        of_directories: Options for packed directories, by name.

    Raises:
        UsageError: some inputs are packed and some are not, or options for both kinds are given.
    """
    packed = [_is_packed(path) for path in inputs]
    if all(packed) and not any(value is not None for name, value in given.items() if name not in FOR_BOTH):
        return False
    if any(packed) and not all(packed):
        raise UsageError(
            f"{inputs[packed.index(True)]} is packed and {inputs[packed.index(False)]} is not",
            "give packed directories, or input to pack, not both",
        )
    for name, value in of_directories.items():
        if value:
            raise UsageError(
                f"--{name} needs packed directories, without options for raw input", "packcli pack makes one"
            )
    return True


def _is_packed(path: str) -> bool:
    place = locate(path)
    return (place / "manifest.json").is_file() or (place / ".packcli").is_dir()


def read_figures(directories: Sequence[str], *, recount: bool = False) -> Figures:
    """The reports of packed directories; see packcli.stats."""
    reports = tuple(read_report(locate(directory)) for directory in directories)
    return Figures(reports, tuple(map(count_again, reports)) if recount else ())


def estimate(
    inputs: Sequence[str],
    settings: Mapping[str, Any],
    *,
    sample: float = 1.0,
    on_event: Callable[[object], None] | None = None,
) -> Figures:
    """What packing raw input would give; see packcli.stats.

    Args:
        inputs: Files, directories, globs.
        settings: Options of pack by name; max_len and strategy may be lists, and None stands for an option not given.
        sample: Share of the documents to tokenize.
        on_event: Called with Started, Progress and Warned events.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    lengths, strategies = given.pop("max_len", PackConfig().max_len), given.pop("strategy", ())
    max_lens = list(dict.fromkeys([lengths] if isinstance(lengths, int) else lengths))
    for each in max_lens:
        PackConfig(max_len=each)  # refuses what is too small or too large
    names = [canonical_strategy(name) for name in ([strategies] if isinstance(strategies, str) else strategies)]
    for name in ("balance", "strategy_sha256"):  # they change no figure, and some strategies refuse them
        given.pop(name, None)
    config, options = make_settings(given)
    try:
        measured = measure(inputs, config, options, sample=sample, emit=on_event or (lambda event: None))
    except NoInputError as error:
        raise NoInputError(f"{error.message}; and not an output of packcli", error.hint) from None
    return Figures(what_if=compare(measured, max_lens, names))
