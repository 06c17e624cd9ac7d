"""`packcli inspect`: packs as text, or token by token."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from packcli.cli.options import Debug, Json, plain_option
from packcli.errors import UsageError

INSPECT_EPILOG = """Examples:

  packcli inspect data-packed

  packcli inspect data-packed --row 17 --tokens

  packcli inspect data-packed --doc data.jsonl:42 --pager

  packcli inspect data-packed --search 'once upon a time'"""


def inspect(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A packed directory.", show_default=False)],
    row: Annotated[int | None, plain_option("--row", metavar="N", help="This row; -1 is the last.")] = None,
    random: Annotated[int | None, plain_option("--random", metavar="K", help="K rows by chance [default: 1].")] = None,
    doc: Annotated[str | None, plain_option("--doc", metavar="SOURCE:ROW", help="Rows with this document.")] = None,
    search: Annotated[str | None, plain_option("--search", metavar="TEXT", help="Rows that hold this text.")] = None,
    limit: Annotated[
        int, plain_option("--limit", metavar="K", help="Most rows of --doc and --search [default: 5].")
    ] = 5,
    split: Annotated[
        str, plain_option("--split", metavar="NAME", help="train or validation [default: train].")
    ] = "train",
    tokens: Annotated[bool, plain_option("--tokens", help="One token a line: id, label, position, segment.")] = False,
    seed: Annotated[int, plain_option("--seed", help="Seed of --random [default: 0].")] = 0,
    tokenizer: Annotated[
        str | None, plain_option("--tokenizer", metavar="T", help="The tokenizer, when it is not where it was.")
    ] = None,
    pager: Annotated[bool, plain_option("--pager", help="Page through $PAGER on a terminal.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show packs as people read them: text, where segments come from, tokens without loss, padding."""
    given = [each for each in (row, random, doc, search) if each is not None]
    if len(given) > 1:
        raise UsageError("--row, --random, --doc and --search choose rows: give one of them")
    if limit < 1 or (random is not None and random < 1):
        raise UsageError("--limit and --random take a number of rows, at least 1")

    from packcli.cli.views.console import print_json
    from packcli.cli.views.packs import make_output, paged, show_row, show_tokens
    from packcli.report import Inspector
    from packcli.storage import locate

    inspector = Inspector(locate(directory), tokenizer)
    if split not in inspector.packed.num_rows:
        raise UsageError(f"--split {split!r}: no rows", f"it has {', '.join(inspector.packed.num_rows)}")
    if row is not None:
        rows = iter([inspector.at(split, row)])
    elif doc is not None:
        rows = itertools.islice(inspector.of_document(split, doc), limit)
    elif search is not None:
        rows = itertools.islice(inspector.search(split, search), limit)
    else:
        rows = inspector.random(split, random or 1, seed)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{directory}: no row of {split} holds {doc if doc is not None else repr(search)}")
    found = itertools.chain([first], rows)
    if json_:
        print_json({"rows": [inspector.as_dict(each) for each in found]})
        return
    output = make_output()
    with paged(output, pager):
        for each in found:
            if tokens:
                show_tokens(output, inspector, each)
            else:
                show_row(output, inspector, each, search)
