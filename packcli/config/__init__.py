"""What may be asked for: settings, the names that options take, and packcli.toml. Checked before anything is read.

    flags, keywords, packcli.toml   toml.read_settings    -> one mapping
    the mapping                     settings.PackConfig   -> what decides bytes, checked
                                    settings.RunOptions   -> what does not

    choices         names, aliases and defaults that options take
    record_shapes   the parts of each shape of record
    mixture         INPUT=WEIGHT, and counts such as 10B
    bad_rows        causes, and how many rows may be skipped

Pure, and without NumPy: `packcli --help` reads this package.
"""

from __future__ import annotations

from packcli.config.bad_rows import DEFAULT_MAX_BAD, MaxBad, commonest, parse_max_bad
from packcli.config.mixture import parse_count, parse_mix
from packcli.config.record_shapes import FORMATS, OPTIONAL, REQUIRED, is_template, split_mapping, template_fields
from packcli.config.settings import PackConfig, RunOptions, reading_rules
from packcli.config.toml import parse_size, read_settings, read_toml, unescape

__all__ = [
    "DEFAULT_MAX_BAD",
    "FORMATS",
    "OPTIONAL",
    "REQUIRED",
    "MaxBad",
    "PackConfig",
    "RunOptions",
    "commonest",
    "is_template",
    "parse_count",
    "parse_max_bad",
    "parse_mix",
    "parse_size",
    "read_settings",
    "read_toml",
    "reading_rules",
    "split_mapping",
    "template_fields",
    "unescape",
]
