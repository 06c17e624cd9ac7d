"""Stats -> stats.json and the dataset card; and back again for `packcli stats`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packcli.dataset.card import dataset_card
from packcli.dataset.derived import derived, reached
from packcli.dataset.manifest import read_head
from packcli.dataset.output import Output
from packcli.dataset.paths import CARD, STATS
from packcli.dataset.stats import Stats
from packcli.errors import OutputError
from packcli.results import Shown
from packcli.storage import Location
from packcli.storage.files import to_json

SCHEMA_VERSION = 1
"""Version of the keys of stats.json and of --json."""


@dataclass(frozen=True, slots=True, repr=False)
class Report(Shown):
    """What a run gave. `packcli.pack` returns it, and the closing table shows it."""

    output: Location
    manifest: Mapping[str, Any]
    stats: Stats
    status: str
    """packed, merged, resumed or up to date; `recorded` when read from a directory."""
    run: dict[str, Any]
    """How this run was carried out: seconds, workers, engine and why. Empty when nothing is known."""

    @property
    def max_len(self) -> int:
        """Positions of a pack."""
        return int(self.manifest["config"]["max_len"])

    @property
    def derived(self) -> dict[str, Any]:
        """Utilisation, padding ratio, percentiles: see derived.derived."""
        return derived(self.stats, self.max_len, self.manifest["config"]["max_docs_per_pack"])

    @property
    def load_line(self) -> str:
        """The line of Python that loads the dataset."""
        path = json.dumps(str(self.output))
        whole = not self.manifest["config"]["ragged"]
        return f"datasets.load_from_disk({path})" if whole else f"packcli.load({path})"

    def facts(self) -> list[tuple[str, str]]:
        """What is worth a look; `stats`, `derived` and `manifest` have everything."""
        figures, stats = self.derived, self.stats
        return [
            ("documents", f"{stats.num_documents:,}, {stats.num_documents_dropped:,} dropped"),
            ("tokens", f"{stats.num_tokens_in:,} of text + {stats.num_tokens_special:,} special"),
            ("packs", f"{stats.num_packs:,} of {self.max_len:,} tokens by {self.manifest['config']['strategy']}"),
            ("utilisation", f"{figures['utilisation']:.2%}"),
            ("output", f"{self.output} ({self.status})"),
            ("load", self.load_line),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints: what stats.json holds, and how it came about."""
        return {
            "output": str(self.output),
            "status": self.status,
            **stats_file(self.manifest, self.stats),
            "fingerprint": self.manifest["fingerprint"],
            "load": self.load_line,
            "run": self.run,
        }


def stats_file(manifest: Mapping[str, Any], stats: Stats) -> dict[str, Any]:
    """The content of stats.json: settings, totals, and the figures derived from them."""
    config, tokenizer = manifest["config"], manifest["tokenizer"]
    totals = stats.as_dict()
    by_source = totals.pop("by_source")
    mixture = {"mix": reached(manifest["mix"], stats.by_source)} if "mix" in manifest else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "max_len": config["max_len"],
        "strategy": config["strategy"],
        "overlong": config["overlong"],
        "format": manifest["text"]["format"],
        "loss": config["loss"],
        "tokenizer": {"name": tokenizer["name"], "sha256": tokenizer["sha256"]},
        "derived": derived(stats, config["max_len"], config["max_docs_per_pack"]),
        "totals": totals,
        "sources": [
            {"name": source["name"], **by_source.get(str(index), {"num_documents": 0, "num_tokens_in": 0})}
            for index, source in enumerate(manifest["inputs"])
        ],
        **mixture,
    }


def write_report(output: Output, manifest: Mapping[str, Any], stats: Stats) -> None:
    """Writes stats.json and README.md."""
    content = stats_file(manifest, stats)
    output.write_text(STATS, to_json(content) + "\n")
    output.write_text(CARD, dataset_card(manifest, stats))


def read_report(root: Location) -> Report:
    """The report of a finished output.

    Raises:
        OutputError: not a finished output, or a damaged one.
    """
    manifest = read_head(root)
    try:
        content = json.loads((root / STATS).read_bytes())
        by_source = {index: {**each} for index, each in enumerate(content["sources"])}
        for each in by_source.values():
            del each["name"]
        stats = Stats.from_dict({**content["totals"], "by_source": by_source})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{root / STATS}: missing or damaged: {error}", "pack again with --overwrite") from None
    return Report(root, manifest, stats, "recorded", Output(root).state.last_run())
