"""Reads packcli.toml; flags win over it. (PackConfig.to_toml writes it.)"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packcli.config.choices import is_own_strategy
from packcli.config.options import OPTIONS
from packcli.config.settings import PackConfig, RunOptions
from packcli.errors import UsageError, nearest

CONFIG_FILE = "packcli.toml"
"""The file in the current directory that is read when no --config is given."""


def read_settings(path: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a file, by default packcli.toml if it exists, and of flags, which win; None is a flag not given."""
    if path is None and not Path(CONFIG_FILE).is_file():
        settings: dict[str, Any] = {}
    else:
        settings = read_toml(Path(path or CONFIG_FILE))
    if path is None and given.get("strategy") is None and is_own_strategy(settings.get("strategy")):
        raise UsageError(
            f"{CONFIG_FILE} asks for the strategy {settings['strategy']}, which is code, and nobody named this file",
            f"if you trust it: --config {CONFIG_FILE}, or --strategy {settings['strategy']}",
        )
    if given.get("strategy") is not None:
        settings.pop("strategy_sha256", None)
    settings |= {name: value for name, value in given.items() if value is not None}
    for one, other in (("text_field", "text_template"), ("text_template", "text_field")):
        if given.get(one) is not None and given.get(other) is None:  # a flag replaces either of the two in the file
            settings.pop(other, None)
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """The [pack] table of a packcli.toml: PackConfig and RunOptions fields by name.

    Names may be written with dashes or underscores. Raises UsageError for a file that is not TOML,
    an unknown key (naming the nearest) or a value of the wrong type.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "--config takes a TOML file with a [pack] table") from None
    extra = [name for name in tables if name != "pack"]
    if extra or not isinstance(tables.get("pack", {}), dict):
        raise UsageError(f"{path}: unknown {extra[0] if extra else 'pack'!r} at top level", "settings go under [pack]")
    types_of = {**typing.get_type_hints(PackConfig), **typing.get_type_hints(RunOptions)}
    settings: dict[str, Any] = {}
    for key, value in tables.get("pack", {}).items():
        name = key.replace("-", "_")
        if name not in types_of:
            close = nearest(name, types_of)
            raise UsageError(f"{path}: unknown key {key!r}" + (f"; did you mean {close!r}?" if close else ""))
        if name in settings:
            raise UsageError(f"{path}: {name} is given twice, with dashes and with underscores", "keep one of them")
        if OPTIONS[name].parse is not None:
            try:
                value = OPTIONS[name].from_text(value)
            except UsageError as error:
                raise UsageError(f"{path}: {key}: {error.message}", error.hint) from None
        settings[name] = _toml_value(path, key, value, types_of[name])
    return settings


def _toml_value(path: Path, key: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        if isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise UsageError(f"{path}: {key} takes a string or a list of strings, not {value!r}")
    union = isinstance(hint, types.UnionType)
    kinds = tuple(kind for kind in (typing.get_args(hint) if union else (hint,)) if kind is not type(None))
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != (bool in kinds) or not isinstance(value, kinds):
        raise UsageError(f"{path}: {key} takes {' or '.join(kind.__name__ for kind in kinds)}, not {value!r}")
    return value
