"""What a user may ask for: settings, the names that options take, and packcli.toml. Checked before any input is read.

    flags and packcli.toml   toml.read_settings      -> one mapping: name of an option -> value
    the mapping              options.make_settings   -> settings.PackConfig, which decides the bytes of the output,
                                                        and settings.RunOptions, which does not; both checked

    options         one row for each option: its flags, its name, its help
    choices         names, aliases and defaults that options take
    record_shapes   the parts of each shape of record
    mixture         INPUT=WEIGHT, and counts such as 10B
    bad_rows        why rows cannot be used, and how many of them may be skipped
    notation        sizes with a unit, escapes

It does not import NumPy, so that `packcli --help` is quick.
"""

from __future__ import annotations

from packcli.config.bad_rows import DEFAULT_MAX_BAD, MaxBad, commonest, parse_max_bad
from packcli.config.mixture import parse_count, parse_mix
from packcli.config.notation import parse_size
from packcli.config.options import OPTIONS, TABLE, Option, make_settings
from packcli.config.record_shapes import FORMATS, OPTIONAL, REQUIRED, is_template, split_mapping, template_fields
from packcli.config.settings import PackConfig, RunOptions, reading_rules
from packcli.config.toml import read_settings, read_toml

__all__ = [
    "DEFAULT_MAX_BAD",
    "FORMATS",
    "OPTIONAL",
    "OPTIONS",
    "REQUIRED",
    "TABLE",
    "MaxBad",
    "Option",
    "PackConfig",
    "RunOptions",
    "commonest",
    "is_template",
    "make_settings",
    "parse_count",
    "parse_max_bad",
    "parse_mix",
    "parse_size",
    "read_settings",
    "read_toml",
    "reading_rules",
    "split_mapping",
    "template_fields",
]
