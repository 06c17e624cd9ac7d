"""README.md of an output: the card that the hub shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packcli.dataset.derived import derived, reached
from packcli.dataset.schema import features
from packcli.dataset.stats import Stats
from packcli.errors import printable


def dataset_card(manifest: Mapping[str, Any], stats: Stats) -> str:
    """A README.md for the dataset, as the Hub reads it: files and columns, figures, provenance, how to train on it."""
    config, tokenizer = manifest["config"], manifest["tokenizer"]
    figures = derived(stats, config["max_len"], config["max_docs_per_pack"])
    columns = config["columns"]
    split_table = "\n".join(
        f"| {split} | {counts['num_documents']:,} | {counts['num_packs']:,} | {counts['num_tokens_packed']:,} |"
        for split, counts in stats.by_split.items()
    )
    padding = figures["layouts"].get("batch-8", figures["layouts"]["padded"])["padding_ratio"]
    inputs = manifest["inputs"]
    mixed = "".join(
        f"\n- {_code(each['name'])}: {each['reached_ratio']:.2%} of the tokens ({each['wanted_ratio']:.2%} wanted), "
        f"{each['num_tokens']:,}, {each['epochs']:.2f} epochs"
        for each in (reached(manifest["mix"], stats.by_source) if "mix" in manifest else ())
    )
    merged = f", merged from {len(manifest['merged']):,} outputs" if "merged" in manifest else ""
    return f"""{_card_head(config, stats)}
# Packed training data

{stats.num_packs:,} packs of {config["max_len"]:,} tokens, made by packcli (strategy {config["strategy"]}, \
overlong documents: {config["overlong"]}) with the tokenizer {_code(tokenizer["name"])}.

| split | documents | packs | tokens |
|---|---|---|---|
{split_table}

- utilisation {figures["utilisation"]:.2%}, padding {figures["padding_ratio"]:.2%} \
(one document a row: {figures["padding_ratio_unpacked"]:.2%}; in batches of 8, padded to the longest: {padding:.2%})
{_window(config, stats, figures)}\
{_rejected_line(stats)}- dropped: {stats.num_documents_dropped:,} documents, {stats.num_tokens_dropped:,} tokens; \
truncated {stats.num_documents_truncated:,} and split {stats.num_documents_split:,} documents
- loss: {config["loss"]}, {stats.num_tokens_loss:,} tokens ({figures["loss_ratio"]:.2%}); \
{stats.num_tokens_loss_cut:,} more were cut off
- documents per pack: {figures["mean_documents_per_pack"]:.2f} on average; attention costs \
{figures["attention_ratio"]:.2%} of full rows when documents do not see each other
- columns: {", ".join(f"`{name}`" for name in columns)}
- tokenizer sha256 `{tokenizer["sha256"]}`; EOS {_code(tokenizer["eos_token"])} ({tokenizer["eos_id"]}), \
BOS {_code(tokenizer["bos_token"])} ({tokenizer["bos_id"]}), pad {_code(tokenizer["pad_token"])} ({tokenizer["pad_id"]})
- made from {stats.num_documents:,} documents in {len(inputs):,} {"file" if len(inputs) == 1 else "files"} \
({sum(each["num_bytes"] for each in inputs):,} bytes){merged}; fingerprint `{manifest["fingerprint"]}`. manifest.json \
has the settings, the inputs and the sha256 of every shard, stats.json every figure{mixed}

{_training(columns, config["isolate"], config["ragged"])}"""


def _window(config: Mapping[str, Any], stats: Stats, figures: Mapping[str, Any]) -> str:
    """What was planned apart, and what it costs; nothing where packs are not paired freely or all was one part."""
    if stats.num_parts <= 1 or config["strategy"] not in ("best-fit", "shuffle-fit"):
        return ""
    return (
        f"- planned in {stats.num_parts:,} parts of up to {config['unit_bytes']:,} bytes of input; "
        f"at most {figures['num_packs_for_windows']:,} packs more than for the whole\n"
    )


def _card_head(config: Mapping[str, Any], stats: Stats) -> str:
    """The YAML that the Hub reads: which files are which split, what a row holds, how many rows there are."""
    rows = stats.num_packs
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    size = next((name for limit, name in sizes if rows < limit), "n>1M")
    folders = {split: f"{split}/" if len(stats.by_split) > 1 else "" for split in stats.by_split}
    files = "\n".join(f"  - split: {split}\n    path: {folder}data-*.arrow" for split, folder in folders.items())
    splits = "\n".join(
        f"  - name: {split}\n    num_examples: {each['num_packs']}" for split, each in stats.by_split.items()
    )
    kinds = "\n".join(_yaml_feature(name, each["feature"]) for name, each in features(config["columns"]).items())
    return f"""---
tags:
- packed
- tokenized
task_categories:
- text-generation
size_categories:
- {size}
configs:
- config_name: default
  data_files:
{files}
dataset_info:
  features:
{kinds}
  splits:
{splits}
---
"""


def _yaml_feature(name: str, feature: Mapping[str, Any]) -> str:
    """A column as `datasets` writes it in cards: lists of numbers, or of structs."""
    if "dtype" in feature:
        return f"  - name: {name}\n    list: {feature['dtype']}"
    inner = "\n".join(f"    - name: {field}\n      dtype: {kind['dtype']}" for field, kind in feature.items())
    return f"  - name: {name}\n    list:\n{inner}"


def _rejected_line(stats: Stats) -> str:
    """A line about rows that were passed over, or read with U+FFFD in them; nothing when there are none."""
    lines = []
    if stats.num_rows_rejected:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in stats.rejected_by_cause.items())
        lines.append(
            f"- rejected: {stats.num_rows_rejected:,} of {stats.num_rows_read:,} rows ({causes}): rejected.jsonl\n"
        )
    if stats.num_rows_repaired:
        lines.append(f"- repaired: {stats.num_rows_repaired:,} rows, in which U+FFFD stands for what is no text\n")
    return "".join(lines)


def _code(text: str | None) -> str:
    """A stranger's word as code in Markdown, which it cannot end."""
    return "`" + printable(str(text)).replace("`", "'") + "`"


def _training(columns: list[str], isolate: bool, ragged: bool) -> str:
    if ragged:
        return """## Load

Rows are ragged: padding is not stored.

```python
import packcli

dataset = packcli.load("PATH")  # adds labels and position_ids
```
"""
    if not isolate or "position_ids" not in columns or "seq_lengths" not in columns:
        return """## Load

```python
from datasets import load_from_disk

dataset = load_from_disk("PATH").with_format("torch")
```
"""
    return """## Train

Labels are not shifted; they are -100 on padding and on the first token of each document. Documents of one
pack do not see each other as long as no attention_mask is passed.

```python
from datasets import load_from_disk
from transformers import Trainer, TrainingArguments

# attention sdpa, eager or flex_attention, any batch size. In a loop of your own: model(**batch, use_cache=False)
dataset = load_from_disk("PATH").with_format("torch", columns=["input_ids", "labels", "position_ids"])
Trainer(model, TrainingArguments("out", per_device_train_batch_size=4), train_dataset=dataset).train()
```

```python
from trl import SFTConfig, SFTTrainer

# seq_lengths tells TRL where documents end; padding_free is needed for it
args = SFTConfig("out", packing=False, padding_free=True, max_length=None)
SFTTrainer(model, args, train_dataset=load_from_disk("PATH")).train()
```
"""
