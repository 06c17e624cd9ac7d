"""`packcli.verify`: the twin of `packcli verify`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from packcli import verification
from packcli.api.keywords import public
from packcli.config import RunOptions
from packcli.errors import UsageError
from packcli.pipeline import Warned
from packcli.storage import RemotePath, locate
from packcli.verification import Verdict


@public
def verify(
    directory: str | os.PathLike[str] | RemotePath,
    *,
    deep: bool = False,
    sample: str | tuple[int, int] = "1/1",
    against: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    row: int | None = None,
    split: str = "train",
    replay: bool = False,
    strategy: str | None = None,
    same_as: str | os.PathLike[str] | RemotePath | None = None,
    tokenizer_engine: str = "auto",
    on_event: Callable[[object], None] | None = None,
) -> Verdict:
    """Checks a packed directory: every file, every row, every document.

    Args:
        directory: A packed directory.
        deep: Tokenize the inputs again and compare.
        sample: For `deep`: every T-th part, from the N-th, as "N/T" or (N, T).
        against: As `deep`, with the inputs named here; lists documents that are in no pack.
        row: Make this row again and compare it, and look at nothing else; -1 is the last.
        split: For `row`: train or validation.
        replay: For `row`: pack its unit again, which a lost shard takes anyway.
        strategy: For `row`: the function of yours that planned the packs, as of pack. No other code is run.
        same_as: Another output, which must hold the same rows.
        tokenizer_engine: For `deep`: auto, fastokens or tokenizers.
        on_event: Called with Warned events.

    Returns:
        What was found: `is_sound`, and the `problems`.

    Raises:
        PackcliError: nothing can be checked, as when this is no output of packcli.
    """
    RunOptions(tokenizer_engine=tokenizer_engine)  # refuses what cannot be
    emit = on_event or (lambda event: None)
    root = locate(directory)
    inputs = [os.fspath(each) for each in ([against] if isinstance(against, str | os.PathLike) else against)]
    chosen = verification.parse_sample(sample if isinstance(sample, str) else "/".join(map(str, sample)))

    def warn(message: str) -> None:
        emit(Warned(message))

    if row is None:
        if replay or strategy is not None or split != "train":
            raise UsageError("--replay, --strategy and --split say how a row is made again", "name one with --row")
        other = None if same_as is None else locate(same_as)
        return verification.verify(
            root,
            deep=deep,
            sample=chosen,
            against=inputs,
            same_as=other,
            tokenizer_engine=tokenizer_engine,
            warn=warn,
        )
    if same_as is not None or chosen != (1, 1):
        raise UsageError("--row looks at one row: --same-as and --sample have no say", "give one of them")
    return verification.verify_row(
        root,
        row,
        split=split,
        replay=replay,
        strategy=strategy,
        against=inputs,
        tokenizer_engine=tokenizer_engine,
        warn=warn,
    )
