"""Which documents an output over a mixture holds, and how often."""

import collections

from packcli.dataset import PackedDataset


def documents(root, splits=("train",)):
    """(source, row) -> tokens of it in all rows, and how many of its segments begin it."""
    tokens, copies = collections.Counter(), collections.Counter()
    contents = PackedDataset(root)
    for split in splits:
        for _, batches in contents.shards(split):
            for batch in batches:
                found = batch.sources
                for source, row, start, end in zip(
                    *(getattr(found, name).tolist() for name in ("source", "row", "start", "end")), strict=True
                ):
                    tokens[source, row] += end - start
                    copies[source, row] += start == 0
    return tokens, copies
