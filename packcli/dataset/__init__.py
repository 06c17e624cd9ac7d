"""The packed directory: shards, the sidecars that commit them, the manifest that seals them. Pyarrow's writers.

rows of a part      shards.write_shard    -> a shard, with the `schema` of the run
what a part gave    output.Output.commit  -> its sidecar, sealed: the part is there
all sidecars        committed             -> which parts are there;  manifest: the whole, sealed
counts              stats.Stats           -> sums; derived: the figures that people read; report, card: shown
a directory         reader                -> every column, stored or derived (rows); documents of segments
the same            checks                -> is it sound, by itself, without its inputs

paths   every name in it;  members   outputs in one output;  rejects   rejected rows;  fingerprint   what a run is
"""

from __future__ import annotations

from packcli.dataset.checks.files import Problem, check_files
from packcli.dataset.checks.output import check_output
from packcli.dataset.checks.same import check_same
from packcli.dataset.committed import Committed, Listed, committed_units, list_shards, read_unit
from packcli.dataset.derived import measure_baselines, quantiles, reached
from packcli.dataset.documents import WholeDocuments, kept_of_documents
from packcli.dataset.fingerprint import describe_run, fingerprint, first_difference
from packcli.dataset.manifest import Manifest, ManifestWriter, ShardEntry, read_head, read_manifest
from packcli.dataset.members import MERGED, MIX, cut_units, find_again, members_of, path_of, remembered_inputs
from packcli.dataset.output import Output
from packcli.dataset.paths import (
    CARD,
    EMPTY_SHARD,
    INDEX_FILES,
    MANIFEST,
    PLAN,
    RANK_FILES,
    RANKS,
    SPLITS_FILE,
    STATE_DIRECTORY,
    STATS,
    TRAIN,
    VALIDATION,
    folder_of,
    rejects_file,
    sidecar_file,
    splits_of,
)
from packcli.dataset.reader import PackedDataset, Row, RowSegment
from packcli.dataset.rejects import NO_LIMIT, Limit, RejectsFile, join_rejects, make_limit
from packcli.dataset.report import SCHEMA_VERSION, Report, read_report, write_report
from packcli.dataset.rows import Rows, labels_of, lists_of, padded, padded_positions, positions_of, segments_of
from packcli.dataset.schema import Schema, make_schema, run_schema
from packcli.dataset.shards import ShardInfo, adopt_shard, read_shard, shift_column, write_index, write_shard
from packcli.dataset.sidecar import Sidecar
from packcli.dataset.stats import Histogram, Stats, bucketed, histogram

__all__ = [
    "CARD",
    "EMPTY_SHARD",
    "INDEX_FILES",
    "MANIFEST",
    "MERGED",
    "MIX",
    "NO_LIMIT",
    "PLAN",
    "RANKS",
    "RANK_FILES",
    "SCHEMA_VERSION",
    "SPLITS_FILE",
    "STATE_DIRECTORY",
    "STATS",
    "TRAIN",
    "VALIDATION",
    "Committed",
    "Histogram",
    "Limit",
    "Listed",
    "Manifest",
    "ManifestWriter",
    "Output",
    "PackedDataset",
    "Problem",
    "RejectsFile",
    "Report",
    "Row",
    "RowSegment",
    "Rows",
    "Schema",
    "ShardEntry",
    "ShardInfo",
    "Sidecar",
    "Stats",
    "WholeDocuments",
    "adopt_shard",
    "bucketed",
    "check_files",
    "check_output",
    "check_same",
    "committed_units",
    "cut_units",
    "describe_run",
    "find_again",
    "fingerprint",
    "first_difference",
    "folder_of",
    "histogram",
    "join_rejects",
    "kept_of_documents",
    "labels_of",
    "list_shards",
    "lists_of",
    "make_limit",
    "make_schema",
    "measure_baselines",
    "members_of",
    "padded",
    "padded_positions",
    "path_of",
    "positions_of",
    "quantiles",
    "reached",
    "read_head",
    "read_manifest",
    "read_report",
    "read_shard",
    "read_unit",
    "rejects_file",
    "remembered_inputs",
    "run_schema",
    "segments_of",
    "shift_column",
    "sidecar_file",
    "splits_of",
    "write_index",
    "write_report",
    "write_shard",
]
