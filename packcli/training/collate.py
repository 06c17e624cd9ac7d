"""From packed rows to a model: batches in which documents do not see each other. torch is imported at the first use.

    from packcli import load, training

    trainer = Trainer(model, args, train_dataset=load("data-packed"), data_collator=training.collator("sdpa"))
    training.check_trainer(trainer)

What a model needs, so that the documents of a row do not see each other:

    sdpa, eager, flex    position_ids that restart; no attention_mask; no cache
    flash                cu_seq_lens_q/k and max_length_q/k; position_ids alone do at batch size 1 only
    linear attention     seq_idx, and the above
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from packcli.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import torch


ATTENTIONS = ("sdpa", "eager", "flex", "flash")
"""What a batch can be made for; flash stands for every FlashAttention."""

_LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


class ContaminationError(UsageError):
    """Documents of one row would see each other: training would go on without any other sign of it."""


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows -> a batch; see `collator`. Picklable, for data loaders with workers."""

    attention: str
    max_docs_per_row: int
    seq_idx: bool

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Stacks rows.

        Args:
            rows: B rows with input_ids, labels, and position_ids or seq_lengths; lists, arrays or tensors.

        Raises:
            ContaminationError: a row does not say where its documents end, or carries an attention_mask.
            UsageError: rows of different lengths, or more documents in one than max_docs_per_row.
        """
        import torch

        for name in ("input_ids", "labels"):
            if name not in rows[0]:
                raise UsageError(f"rows lack {name}", "packcli.load gives rows with every column")
        if "attention_mask" in rows[0]:
            raise ContaminationError(
                "rows carry an attention_mask: with one, models do not look where documents end", "remove the column"
            )
        if len({len(row["input_ids"]) for row in rows}) > 1:
            raise UsageError("rows have different lengths", "packcli.load pads the rows of compact directories")
        batch: dict[str, Any] = {
            name: torch.stack([_tensor(row[name]) for row in rows]) for name in ("input_ids", "labels")
        }
        positions = torch.stack([_positions(row) for row in rows])
        batch["position_ids"] = positions
        batch["use_cache"] = False  # with a cache, models do not look where documents end
        is_first = positions == 0
        if self.seq_idx:
            batch["seq_idx"] = (is_first.cumsum(1) - 1).to(torch.int32)
        if self.attention == "flash":
            batch |= self._lengths(is_first)
        return batch

    def _lengths(self, is_first: torch.Tensor) -> dict[str, Any]:
        import torch

        num_rows, max_len = is_first.shape
        most = int(is_first.sum(1).max())
        starts = is_first.flatten().nonzero().flatten()
        size = num_rows * self.max_docs_per_row + 1 if self.max_docs_per_row else len(starts) + 1
        if len(starts) >= size or (self.max_docs_per_row and most > self.max_docs_per_row):
            raise UsageError(
                f"a row holds {most} documents (padding counts as one), over max_docs_per_row={self.max_docs_per_row}",
                "take the p100 of documents per pack in the report, and one more",
            )
        # Filled up with empty documents, so that the shape, and with it a compiled graph, stays the same.
        ends = torch.full((size,), num_rows * max_len, dtype=torch.int32)
        ends[: len(starts)] = starts
        return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": max_len, "max_length_k": max_len}


def collator(attention: str = "sdpa", *, max_docs_per_row: int = 0, seq_idx: bool = False) -> Collator:
    """A data collator for packed rows, for any batch size.

    Args:
        attention: What the model uses: sdpa, eager, flex, or flash (FlashAttention 2, 3, 4).
        max_docs_per_row: For flash under torch.compile: pads cu_seq_lens to this many documents a row, so that one
            graph does for every packing; padding counts as a document. 0 leaves it as long as the batch needs.
        seq_idx: Whether to add seq_idx (int32 [B, L], from 0 in each row), which linear-attention layers read.

    Returns:
        A function of B rows that gives input_ids, labels, position_ids (int64 [B, L]) and use_cache=False; for flash
        also cu_seq_lens_q and cu_seq_lens_k (int32 [documents + 1], over the flattened batch), max_length_q and
        max_length_k (L, a constant).

    Raises:
        UnknownNameError: no such attention.
    """
    if attention not in ATTENTIONS:
        raise unknown_name("attention", attention, ATTENTIONS)
    if max_docs_per_row and attention != "flash":
        raise UsageError(f"max_docs_per_row is for flash, not for {attention}")
    return Collator(attention, max_docs_per_row, seq_idx)


def check_batch(model: Any, batch: Mapping[str, Any]) -> None:
    """Raises ContaminationError when documents of one row would see each other in `model(**batch)`.

    Args:
        model: A Transformers model, wrapped for several GPUs or not; its config says which attention it uses, and
            whether it caches.
        batch: What the model would be called with; tensors [B, L].

    Raises:
        ContaminationError: they would.
        UsageError: the config does not say which attention the model uses.
    """
    model = getattr(model, "module", model)  # wrapped by DistributedDataParallel and the like
    config = getattr(model, "config", model)
    # Transformers has no public name for it. Without this check, were it renamed, unsafe batches would pass.
    if not hasattr(config, "_attn_implementation"):
        raise UsageError(
            f"the config of this model ({type(config).__name__}) does not say which attention it uses",
            "check_batch is for models of Transformers; if this is one, its version is too new for this packcli",
        )
    is_flash = "flash" in str(config._attn_implementation)
    rows = batch["input_ids"].shape[0]
    has_lengths = all(batch.get(name) is not None for name in _LENGTHS)
    if batch.get("attention_mask") is not None:
        raise ContaminationError(
            "the batch carries an attention_mask: with one, even of ones, models do not look where documents end",
            "use packcli.training.collator, or remove the mask",
        )
    if is_flash and has_lengths:
        return
    if is_flash and rows > 1:
        raise ContaminationError(
            f"FlashAttention at batch size {rows} without cu_seq_lens takes every row for one document",
            'use packcli.training.collator("flash")',
        )
    if batch.get("position_ids") is None:
        raise ContaminationError(
            "the batch has no position_ids: nothing says where documents end",
            "keep the column, or use packcli.training.collator",
        )
    use_cache = batch.get("use_cache")
    if not is_flash and (getattr(config, "use_cache", False) if use_cache is None else use_cache):
        raise ContaminationError(
            "use_cache is on: with a cache, the model does not look where documents end",
            "model(**batch, use_cache=False), or TrainingArguments(use_cache=False)",
        )


def check_trainer(trainer: Any) -> None:
    """Raises ContaminationError when a Transformers Trainer or a TRL SFTTrainer would let documents see each other.

    Checks the first batch that the trainer makes; torch's random state stays as it was.
    """
    import torch

    columns = getattr(trainer.train_dataset, "column_names", None) or ()
    if hasattr(trainer, "padding_free"):  # TRL
        if not trainer.padding_free:
            raise ContaminationError(
                "TRL without padding_free takes every row for one document",
                "SFTConfig(padding_free=True, packing=False, max_length=None)",
            )
        if "seq_lengths" not in columns:
            raise ContaminationError(
                "TRL knows documents by the column seq_lengths, and the dataset has none", "keep seq_lengths"
            )
    with torch.random.fork_rng(devices=[]):
        batch = next(iter(trainer.get_train_dataloader()))
    check_batch(trainer.model, batch)


def _tensor(values: Any) -> torch.Tensor:
    import torch

    if isinstance(values, torch.Tensor):
        return values.long()
    return torch.from_numpy(np.asarray(values, dtype=np.int64))


def _positions(row: Mapping[str, Any]) -> torch.Tensor:
    import torch

    if "position_ids" in row:
        return _tensor(row["position_ids"])
    if "seq_lengths" not in row:
        raise ContaminationError(
            "rows have neither position_ids nor seq_lengths: nothing says where their documents end",
            "keep one of the columns",
        )
    lengths = _tensor(row["seq_lengths"])
    size = len(row["input_ids"])
    if int(lengths.sum()) != size:
        raise UsageError(f"seq_lengths sum to {int(lengths.sum())} in a row of {size}", "padding is their last entry")
    return torch.arange(size) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
