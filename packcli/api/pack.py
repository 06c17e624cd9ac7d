"""`packcli.pack`: the twin of `packcli pack`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from packcli import pipeline
from packcli.api.keywords import public
from packcli.config import make_settings
from packcli.dataset import Report


@public
def pack(
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
) -> Report:
    """Packs text into a dataset directory; resumes what was interrupted; does nothing when it is up to date.

    An input of several units starts processes: a script that calls this needs the usual
    `if __name__ == "__main__":`, or workers=1.

    Args:
        inputs: One or several files, directories, globs, or `-` for JSONL on standard input. None where `mix` names
            inputs with their shares: `mix={"web.jsonl": 0.7, "code/": 0.3}`.
        output: The directory to write; by default named after the first input, in the current directory.
        max_len, ...: The options of `packcli pack`; help() lists them.
        on_event: Called with Started, Progress and Warned events; `packcli.progress()` shows them.

    Raises:
        PackcliError: whatever is wrong; see packcli.errors.
    """
    config, options = make_settings(locals())
    return pipeline.pack(inputs, output, config=config, options=options, on_event=on_event)
