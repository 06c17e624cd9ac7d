"""Every name in a packed directory."""

from __future__ import annotations

import re

from packcli.config import PackConfig

SIDECAR_NAME = re.compile(r"(\d{5,})-(\d{3,})\.json")

SHARD_NAME = re.compile(r"(?:(?:train|validation)/)?data-\d{5,}-\d{3,}\.arrow")
"""Nothing else is opened as a shard, whatever a manifest or a sidecar says."""

TRAIN, VALIDATION = "train", "validation"

STATE_DIRECTORY = ".packcli"
PLAN = "plan.json"
MIX = "mix.json"
OWNER = "owner.json"
RANKS = "ranks"
"""The folder of the heartbeats of ranks."""
MANIFEST = "manifest.json"
RANK_FILES = ("job.json", "units.jsonl", "tokenizer.json")
"""What `units plan` writes for ranks to begin with."""
OURS = (
    "manifest.json",
    "stats.json",
    "README.md",
    "rejected.jsonl",
    "dataset_info.json",
    "state.json",
    "dataset_dict.json",
)
OUR_DIRECTORIES = ("units", "train", "validation")
OUR_PATTERNS = {
    "": ("data-*.arrow",),
    "units": ("*.json", "*.rejected.jsonl"),
    "train": ("data-*.arrow", "dataset_info.json", "state.json"),
    "validation": ("data-*.arrow", "dataset_info.json", "state.json"),
}
"""What packcli writes in each directory, besides OURS."""

REJECTED = "rejected.jsonl"
"""All rejected rows of a run, in the order of the input."""

STATS = "stats.json"
CARD = "README.md"


EMPTY_SHARD = "data-empty.arrow"
"""The shard of a split without rows: every split can be loaded."""

INDEX_FILES = ("dataset_info.json", "state.json")
"""What write_index writes."""

SPLITS_FILE = "dataset_dict.json"


def splits_of(config: PackConfig) -> tuple[str, ...]:
    """The splits of a run, in order."""
    return (TRAIN, VALIDATION) if config.val_fraction else (TRAIN,)


def folder_of(config: PackConfig, split: str) -> str:
    """Where the shards of a split are, below the output: '' or 'train/'."""
    return f"{split}/" if config.val_fraction else ""


def sidecar_file(unit: int, part: int) -> str:
    """Where the sidecar of a part is, below the output. Past 99,999 units the names do not sort as the numbers do."""
    return f"units/{unit:05d}-{part:03d}.json"


def rejects_file(unit: int, part: int) -> str:
    """Where the rejected rows of a part are, below the output."""
    return sidecar_file(unit, part).removesuffix(".json") + ".rejected.jsonl"
