"""The run: it prepares, works on units, and finishes. Emits events, prints nothing.

    inputs, settings   prepare               -> what the run is; probe: the first records; mixture: how often each
    a unit             unit.run_unit         -> read, tokenize, plan, assemble, commit; the same anywhere, any time
    a split of it      plan_part.plan_split  -> its documents, their plan, and what is counted
    all units          workers.for_each_unit -> in this process, in several, or on Ray (engines)
    by ranks           ranks                 -> separate processes, on any machines, that share out the units
    every part         finish.finish         -> index, report, manifest
    several outputs    merge.merge           -> one output
    lengths alone      measure.measure       -> what stats and what-if tables are made of

`pack` (in run) and `merge` are handed on by `packcli` itself.
"""

from __future__ import annotations

from packcli.pipeline.custom_strategy import find_strategy, pin_strategy
from packcli.pipeline.documents import read_documents
from packcli.pipeline.events import Progress, Started, Warned
from packcli.pipeline.job import Job, Recipe, RunSpec, plan_seed
from packcli.pipeline.measure import Joined, Lengths, measure
from packcli.pipeline.merge import merge
from packcli.pipeline.plan_part import loss_between, loss_of, plan_lengths, plan_split, with_loss
from packcli.pipeline.probe import text_bytes
from packcli.pipeline.run import pack
from packcli.pipeline.unit import run_unit

__all__ = [
    "Job",
    "Joined",
    "Lengths",
    "Progress",
    "Recipe",
    "RunSpec",
    "Started",
    "Warned",
    "find_strategy",
    "loss_between",
    "loss_of",
    "measure",
    "merge",
    "pack",
    "pin_strategy",
    "plan_lengths",
    "plan_seed",
    "plan_split",
    "read_documents",
    "run_unit",
    "text_bytes",
    "with_loss",
]
