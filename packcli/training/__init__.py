"""From packed rows to a model: load, collate, check. Only this package imports datasets and torch.

an output    load.load                  -> datasets.Dataset or DatasetDict, mapped, with every column
rows         collate.collator           -> batches in which documents do not see each other
a trainer    collate.check_trainer      -> refuses what would mix them;  check_batch: the same for one batch
"""

from __future__ import annotations

from packcli.training.collate import check_batch, check_trainer, collator
from packcli.training.load import load

__all__ = ["check_batch", "check_trainer", "collator", "load"]
