"""The figures of stats.json counted again from raw rows, one by one: slow, obvious, and without packcli.

    Marked                        a document with a loss mask, as prompt_of and chat_of make it with `tokenizers`
    recount_rows(directory)       what the rows tell
    recount_input(documents, ..)  what the documents tell
    differences(directory, ..)    what stats.json says otherwise, empty when all is well

Run as a script on one's own data: tests/benchmarks/check_recount.py.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

IGNORE = -100


class Marked(NamedTuple):
    """A document whose tokens carry loss or not."""

    ids: list
    loss: list
    """True or False for each id."""
    roles: dict
    """Tokens that begin in the words of each role."""
    is_cut: bool = False
    """A token spans the border between prompt and completion."""
    num_special: int = 0


def prompt_of(engine, prompt, completion, eos):
    """A prompt and its completion, which carries loss, and EOS. Offsets come from `tokenizers`."""
    border = len(prompt)
    encoding = engine.encode(prompt + completion)
    begin_in_prompt = sum(start < border for start, _ in encoding.offsets)
    loss = [end > border for _, end in encoding.offsets]
    is_cut = any(start < border < end for start, end in encoding.offsets)
    roles = {"prompt": begin_in_prompt, "completion": len(loss) - begin_in_prompt}
    return Marked([*encoding.ids, eos], [*loss, True], roles, is_cut, 1)


def chat_of(engine, messages):
    """A conversation as <|im_start|>role, newline, content, <|im_end|>; the answers and their ends carry loss."""
    ids, loss, roles = [], [], collections.Counter()
    for message in messages:
        head = len(message["role"]) + 1
        encoding = engine.encode(f"{message['role']}\n{message['content']}")
        answers = message["role"] == "assistant"
        ids += [engine.token_to_id("<|im_start|>"), *encoding.ids, engine.token_to_id("<|im_end|>")]
        loss += [False, *(answers and end > head for _, end in encoding.offsets), answers]
        roles[message["role"]] += sum(start >= head for start, _ in encoding.offsets)
    return Marked(ids, loss, dict(roles))


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


def recount_rows(directory, marked=None):
    """Totals that the rows tell, under their names in stats.json, and loss tokens.

    With marked, (source, row) -> Marked, every id and label of every row is compared with its document.
    """
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
                num_loss += sum(label != IGNORE for label in row["labels"])
                if marked is not None:
                    compare_row(row, marked, max_len)
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


def compare_row(row, documents, max_len):
    """Every segment holds the ids of its document, and labels where that has loss, but for its first token."""
    place = 0
    for each in row["sources"]:
        document = documents[each["source"], each["row"]]
        here = slice(each["start"], each["end"])
        ids, loss = document.ids[here], [False, *document.loss[here][1:]]
        end = place + len(ids)
        assert row["input_ids"][place:end] == ids
        assert row["labels"][place:end] == [token if has else IGNORE for token, has in zip(ids, loss, strict=True)]
        assert row["position_ids"][place:end] == list(range(len(ids)))
        place = end
    assert row["labels"][place:] == [IGNORE] * (max_len - place)


def recount_input(documents, *, num_empty, num_special, max_len, overlong):
    """Totals that the documents tell.

    Args:
        documents: Tokens of each document that is not empty, special ones included; or Marked.
        num_empty: Documents without text.
        num_special: Special tokens of each document, where they are not Marked.
        max_len: Of the run.
        overlong: split, truncate or drop.
    """
    total = collections.Counter()
    by_length, roles = collections.Counter(), collections.Counter()
    for document in documents:
        is_marked = isinstance(document, Marked)
        length = len(document.ids) if is_marked else document
        special = document.num_special if is_marked else num_special
        loss = document.loss if is_marked else [True] * length
        kept = length
        if length > max_len and overlong != "split":
            kept = max_len if overlong == "truncate" else 0
        total["num_documents"] += 1
        total["num_tokens_in"] += length - special
        total["num_tokens_special"] += special
        by_length[bucket(length)] += 1
        if is_marked:
            total["num_prompts_cut"] += document.is_cut
            roles.update(document.roles)
            # A first token is never predicted, so a document with loss there only has none.
            if not any(loss[1:]) or (overlong == "truncate" and not any(loss[1:kept])):
                total["num_documents_no_loss_left" if any(loss[1:]) else "num_documents_no_loss"] += 1
                total["num_tokens_no_loss"] += length
                total["num_tokens_loss_cut"] += sum(loss[1:])
                continue
            total["num_tokens_loss_cut"] += sum(loss[kept:])
        if not kept:
            total["num_documents_overlong"] += 1
            total["num_tokens_overlong"] += length
            continue
        total["num_documents_packed"] += 1
        total["num_documents_truncated"] += kept < length
        total["num_tokens_truncated"] += length - kept
        total["num_tokens_packed"] += kept
    names = ("no_loss", "no_loss_left", "overlong", "truncated", "packed")
    zeros = dict.fromkeys([f"num_documents_{name}" for name in names], 0)
    zeros |= dict.fromkeys([f"num_tokens_{name}" for name in ("no_loss", "loss_cut", "truncated", "overlong")], 0)
    return {
        **zeros,
        "num_prompts_cut": 0,
        **total,
        "num_documents": total["num_documents"] + num_empty,
        "num_documents_empty": num_empty,
        "documents_by_length": sorted(map(list, by_length.items())),
        "tokens_by_role": dict(roles),
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
            totals["num_tokens_truncated"] + totals["num_tokens_overlong"] + totals["num_tokens_no_loss"],
            totals["num_tokens_in"] + totals["num_tokens_special"],
        ),
        "loss_ratio": ratio(totals["num_tokens_loss"], packed),
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


def differences(directory, documents, *, num_empty=0, num_special=0):
    """Figures of stats.json that a recount does not find: name -> (stats.json, recount). And how many were compared.

    Args:
        directory: The output.
        documents: Lengths, or (source, row) -> Marked, in the order of the input.
        num_empty: Documents without text.
        num_special: Special tokens of each document, where they are lengths.
    """
    content = json.loads((Path(directory) / "stats.json").read_bytes())
    max_len = content["max_len"]
    is_marked = isinstance(documents, dict)
    rows, num_loss = recount_rows(directory, documents if is_marked else None)
    read = recount_input(
        documents.values() if is_marked else documents,
        num_empty=num_empty,
        num_special=num_special,
        max_len=max_len,
        overlong=content["overlong"],
    )
    assert rows["num_documents_packed"] == read["num_documents_packed"]
    assert rows["num_tokens_packed"] == read["num_tokens_packed"]
    totals = {**read, **rows, "num_tokens_loss": num_loss}
    counted = {f"totals.{name}": value for name, value in totals.items()}
    counted |= {f"derived.{name}": value for name, value in derive(totals, max_len).items()}
    said = {f"{part}.{name}": content[part][name] for part in ("totals", "derived") for name in content[part]}
    wrong = {name: (said.get(name), value) for name, value in counted.items() if said.get(name) != value}
    return wrong, len(counted), num_loss
