"""`packcli inspect`: packs as text, or token by token."""

from __future__ import annotations

from typing import Annotated

from packcli.cli.options import Directory, Json, plain_option, verb

INSPECT_EPILOG = """Examples:

  packcli inspect data-packed

  packcli inspect data-packed --row 17 --tokens

  packcli inspect data-packed --doc data.jsonl:42 --pager

  packcli inspect data-packed --search 'once upon a time'"""


@verb()
def inspect(
    directory: Directory,
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
) -> None:
    """Show packs as people read them: text, where segments come from, tokens without loss, padding."""
    from packcli.cli.views.console import print_json
    from packcli.cli.views.packs import make_output, paged, show_pack, show_tokens
    from packcli.report import DecodedPacks, read_packs
    from packcli.storage import locate

    packs = read_packs(
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
    if json_:
        print_json(DecodedPacks(packs).as_dict())
        return
    output = make_output()
    with paged(output, pager):
        for each in packs:  # shown as soon as it is found
            if tokens:
                show_tokens(output, each)
            else:
                show_pack(output, each, search)
