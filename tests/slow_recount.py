"""The figures of stats.json counted again from raw rows, one by one: slow, obvious, and without packcli.

    recount_rows(directory)     what the rows tell
    recount_input(lengths, ..)  what the documents' lengths tell
    differences(directory, ..)  what stats.json says otherwise, empty when all is well

Run as a script on one's own data: tests/benchmarks/check_recount.py.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
from pathlib import Path

import pyarrow as pa


def rows_of(path):
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield from batch.to_pylist()


def bucket(value):
    """Down to 10 significant bits."""
    shift = max(value.bit_length() - 10, 0)
    return value >> shift << shift


def batches(rows, size):
    positions = squares = 0
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        positions += max(batch) * len(batch)
        squares += max(batch) ** 2 * len(batch)
    return {"num_positions": positions, "sum_squared_rows": squares}


def pieces_of(length, max_len):
    return [min(max_len, length - start) for start in range(0, length, max_len)]


def recount_rows(directory):
    """Totals that the rows tell, under their names in stats.json, and loss tokens."""
    directory = Path(directory)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    max_len = manifest["config"]["max_len"]
    total = collections.Counter()
    segments, packs = collections.Counter(), collections.Counter()
    layouts = {name: collections.Counter() for name in ("batch-8", "batch-32", "sorted-8", "sorted-32")}
    splits = {}
    group_costs = []
    num_loss = 0
    for split, shards in manifest["splits"].items():
        of_split = splits.setdefault(split, {"num_documents": 0, "num_packs": 0, "num_tokens_packed": 0})
        for shard in shards:
            documents = collections.defaultdict(list)
            costs = []
            for row in rows_of(directory / shard["file"]):
                lengths = [each["end"] - each["start"] for each in row["sources"]]
                assert len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"]) == max_len
                num_loss += sum(label != -100 for label in row["labels"])
                total["num_packs"] += 1
                total["num_segments"] += len(lengths)
                total["num_tokens_packed"] += sum(lengths)
                total["num_tokens_padding"] += max_len - sum(lengths)
                costs.append(sum(length**2 for length in lengths))
                packs[len(lengths)] += 1
                segments.update(bucket(length) for length in lengths)
                for each in row["sources"]:
                    documents[each["source"], each["row"]].append(each["end"] - each["start"])
                of_split["num_packs"] += 1
                of_split["num_tokens_packed"] += sum(lengths)
            of_split["num_documents"] += len(documents)
            total["num_documents_packed"] += len(documents)
            total["num_documents_split"] += sum(len(each) > 1 for each in documents.values())
            total["sum_squared_segments"] += sum(costs)
            group_costs += [sum(costs[first : first + 8]) for first in range(0, len(costs) - 7, 8)]
            alone = [piece for key in sorted(documents) for piece in pieces_of(sum(documents[key]), max_len)]
            total["num_rows_unpacked"] += len(alone)
            for name, found in layouts.items():
                kind, size = name.split("-")
                found.update(batches(sorted(alone) if kind == "sorted" else alone, int(size)))
    return {
        **total,
        "num_groups": len(group_costs),
        "sum_group_cost": sum(group_costs),
        "max_group_cost": max(group_costs, default=0),
        "segments_by_length": sorted(map(list, segments.items())),
        "packs_by_documents": sorted(map(list, packs.items())),
        "layouts": {name: dict(found) for name, found in layouts.items()},
        "by_split": splits,
    }, num_loss


def recount_input(lengths, *, num_empty, num_special, max_len, overlong):
    """Totals that the lengths of the documents tell.

    Args:
        lengths: Tokens of each document that is not empty, special ones included.
        num_empty: Documents without text.
        num_special: Special tokens of each document.
        max_len: Of the run.
        overlong: split, truncate or drop.
    """
    over = [length for length in lengths if length > max_len]
    dropped, truncated = (over, []) if overlong == "drop" else ([], over if overlong == "truncate" else [])
    return {
        "num_documents": len(lengths) + num_empty,
        "num_documents_empty": num_empty,
        "num_documents_overlong": len(dropped),
        "num_documents_truncated": len(truncated),
        "num_documents_packed": len(lengths) - len(dropped),
        "num_tokens_in": sum(lengths) - num_special * len(lengths),
        "num_tokens_special": num_special * len(lengths),
        "num_tokens_truncated": sum(length - max_len for length in truncated),
        "num_tokens_overlong": sum(dropped),
        "num_tokens_packed": sum(lengths) - sum(dropped) - sum(length - max_len for length in truncated),
        "documents_by_length": sorted(map(list, collections.Counter(map(bucket, lengths)).items())),
    }


def derive(totals, max_len):
    """Figures that people read, from the totals."""

    def ratio(part, whole):
        return round(part / whole, 6) if whole else 0.0

    def percentiles(pairs):
        values = list(itertools.chain.from_iterable([value] * count for value, count in pairs))
        ranks = {
            "p0": 0,
            "p1": 0.01,
            "p5": 0.05,
            "p25": 0.25,
            "p50": 0.5,
            "p75": 0.75,
            "p95": 0.95,
            "p99": 0.99,
            "p100": 1,
        }
        return {name: values[max(1, math.ceil(rank * len(values))) - 1] for name, rank in ranks.items()}

    positions = totals["num_packs"] * max_len
    alone = totals["num_rows_unpacked"] * max_len
    packed, cost = totals["num_tokens_packed"], totals["sum_squared_segments"]
    laid_out = {
        "packed": {"num_positions": positions, "sum_squared_rows": cost},
        "padded": {"num_positions": alone, "sum_squared_rows": alone * max_len},
        **totals["layouts"],
    }
    return {
        "utilisation": ratio(packed, positions),
        "padding_ratio": ratio(positions - packed, positions),
        "padding_ratio_unpacked": ratio(alone - packed, alone),
        "drop_ratio": ratio(
            totals["num_tokens_truncated"] + totals["num_tokens_overlong"],
            totals["num_tokens_in"] + totals["num_tokens_special"],
        ),
        "split_ratio": ratio(totals["num_documents_split"], totals["num_documents_packed"]),
        "attention_ratio": ratio(cost, totals["num_packs"] * max_len**2),
        "mean_documents_per_pack": ratio(totals["num_segments"], totals["num_packs"]),
        "mean_document_length": ratio(totals["num_tokens_in"] + totals["num_tokens_special"], totals["num_documents"]),
        "group_cost_max_ratio": ratio(totals["max_group_cost"] * totals["num_groups"], totals["sum_group_cost"]),
        "document_length": percentiles(totals["documents_by_length"]),
        "segment_length": percentiles(totals["segments_by_length"]),
        "documents_per_pack": percentiles(totals["packs_by_documents"]),
        "layouts": {
            name: {
                "num_positions": each["num_positions"],
                "padding_ratio": ratio(each["num_positions"] - packed, each["num_positions"]),
                "positions_of_packed": ratio(each["num_positions"], positions),
                "attention_of_packed": ratio(each["sum_squared_rows"], cost),
            }
            for name, each in laid_out.items()
        },
    }


def differences(directory, lengths, *, num_empty, num_special):
    """Figures of stats.json that a recount does not find: name -> (stats.json, recount). And how many were compared."""
    content = json.loads((Path(directory) / "stats.json").read_bytes())
    max_len = content["max_len"]
    rows, num_loss = recount_rows(directory)
    read = recount_input(
        lengths, num_empty=num_empty, num_special=num_special, max_len=max_len, overlong=content["overlong"]
    )
    assert rows["num_documents_packed"] == read["num_documents_packed"]
    assert rows["num_tokens_packed"] == read["num_tokens_packed"]
    totals = {**read, **rows}
    counted = {f"totals.{name}": value for name, value in totals.items()}
    counted |= {f"derived.{name}": value for name, value in derive(totals, max_len).items()}
    said = {f"{part}.{name}": content[part][name] for part in ("totals", "derived") for name in content[part]}
    if "num_tokens_loss" in content["totals"]:
        counted["totals.num_tokens_loss"] = num_loss
    wrong = {name: (said.get(name), value) for name, value in counted.items() if said.get(name) != value}
    return wrong, len(counted), num_loss
