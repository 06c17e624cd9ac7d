"""`packcli.stats`: the twin of `packcli stats`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from packcli.api.keywords import public
from packcli.config import OPTIONS
from packcli.report import Figures, asks_for_estimate, estimate, read_figures
from packcli.storage import RemotePath


@public
def stats(
    inputs: Sequence[str | os.PathLike[str] | RemotePath] | str | os.PathLike[str] | RemotePath,
    *,
    recount: bool = False,
    max_len: int | Sequence[int] | None = None,
    strategy: str | Sequence[str] | None = None,
    sample: float | None = None,
    format: str | None = None,
    field: str | Sequence[str] | None = None,
    text_field: str | None = None,
    text_template: str | None = None,
    split_on: str | None = None,
    overlong: str | None = None,
    max_docs_per_pack: int | None = None,
    seed: int | None = None,
    tokenizer: str | None = None,
    loss: str | None = None,
    loss_on_eot: bool | None = None,
    chat_template: str | None = None,
    workers: int | None = None,
    on_event: Callable[[object], None] | None = None,
) -> Figures:
    """The figures of packed directories; or, of raw input, what packing would give.

    Args:
        inputs: One or several packed directories, or what `packcli.pack` reads. Options for raw input are of use
            with the latter only; None is the default of `packcli.pack`.
        recount: Of packed directories: count again from the rows; `differences` names what is not as reported.
        max_len: Lengths of packs to plan, one or several.
        strategy: Strategies to plan, one or several; None: all of them.
        sample: Share of the documents to tokenize; None: all of them.
        max_len, ...: The options of `packcli pack`; help() lists them.
        on_event: Called with Started, Progress and Warned events.

    Returns:
        `reports` of packed directories, or `what_if` of raw input; `tables` of either, `to_csv()`, `to_markdown()`.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    arguments = locals()
    given = {name: arguments[name] for name in OPTIONS if arguments.get(name) is not None}
    if sample is not None:
        given["sample"] = sample
    paths = [inputs] if isinstance(inputs, str | os.PathLike | RemotePath) else inputs
    names = [str(each) if isinstance(each, RemotePath) else os.fspath(each) for each in paths]
    if asks_for_estimate(names, given, of_directories={"recount": recount}):
        return estimate(names, given, sample=1.0 if sample is None else sample, on_event=on_event)
    return read_figures(names, recount=recount)
