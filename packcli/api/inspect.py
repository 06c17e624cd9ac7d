"""`packcli.inspect`: the twin of `packcli inspect`."""

from __future__ import annotations

import os

from packcli.api.keywords import public
from packcli.report import DecodedPacks, read_packs
from packcli.storage import RemotePath, locate


@public
def inspect(
    directory: str | os.PathLike[str] | RemotePath,
    *,
    row: int | None = None,
    random: int | None = None,
    doc: str | None = None,
    search: str | None = None,
    limit: int = 5,
    split: str = "train",
    seed: int = 0,
    tokenizer: str | None = None,
) -> DecodedPacks:
    """Packs as people read them: text, where segments come from, tokens without loss, padding.

    Args:
        directory: A packed directory.
        row: This row; -1 is the last.
        random: So many rows by chance; one where nothing says which rows.
        doc: Rows with this document, SOURCE:ROW.
        search: Rows that hold this text.
        limit: Most rows of `doc` and `search`.
        split: train or validation.
        seed: Of `random`.
        tokenizer: The tokenizer, when it is not where it was.

    Returns:
        A list of packs, each with `segments`, `input_ids`, `labels`, `position_ids`.

    Raises:
        PackcliError: no such row, not an output, or its tokenizer is not at hand.
    """
    found = read_packs(
        locate(directory),
        row=row,
        random=random,
        doc=doc,
        search=search,
        limit=limit,
        split=split,
        seed=seed,
        tokenizer=tokenizer,
    )
    return DecodedPacks(found)
