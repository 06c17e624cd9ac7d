"""Strategies of the user's own: code that was asked for by name is found, hashed, and loaded. No other module runs it.

    --strategy my_strategies:longest_first          a module, also one of the current directory
    --strategy tools/longest.py:longest_first       a file

A name comes from the command line, from a settings file that was named there, or from a call in Python; never from a
manifest, and never from a packcli.toml that happens to lie around. What runs is the very bytes that were hashed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from packcli.config import PackConfig
from packcli.config.choices import OWN_STRATEGY, is_own_strategy, strategy_label
from packcli.errors import MismatchError, UsageError, nearest
from packcli.packing.strategies import Strategy, own_strategy

A_FILE = "a file is named by its path: path/to/file.py:function"


def find_strategy(config: PackConfig) -> str | Strategy:
    """What `make_plan` takes for the strategy of a config: the name of a built-in one, or the user's function.

    Raises:
        UsageError: no such file, module or function, or it cannot be loaded.
        MismatchError: its source is not the one that the config names.
    """
    if not is_own_strategy(config.strategy):
        return str(config.strategy)
    pinned = config if config.strategy_sha256 is not None else pin_strategy(config)
    return _load(str(pinned.strategy), str(pinned.strategy_sha256))


def pin_strategy(config: PackConfig) -> PackConfig:
    """The config with the place of the user's strategy spelled out, and its sha256; loads it, to fail at once.

    Raises:
        UsageError, MismatchError: as find_strategy.
    """
    if not is_own_strategy(config.strategy):
        return config
    name = str(config.strategy)
    place, function = _split(name)
    if place.endswith(".py"):
        name = f"{os.path.abspath(place)}:{function}"
    sha256 = config.strategy_sha256 or hashlib.sha256(_read(name, _locate(name)[0])).hexdigest()
    _load(name, sha256)
    return dataclasses.replace(config, strategy=name, strategy_sha256=sha256)


@functools.lru_cache(maxsize=8)
def _load(name: str, sha256: str) -> Strategy:
    path, package = _locate(name)
    source = _read(name, path)
    digest = hashlib.sha256(source).hexdigest()
    if digest != sha256:
        raise MismatchError(
            f"the source of strategy {strategy_label(name)} is not the one that this run began with: "
            f"sha256 of {path} was {sha256[:12]}, now it is {digest[:12]}",
            "bring the old source back, or begin anew with another -o",
        )
    module = types.ModuleType(f"packcli_strategy_{sha256[:16]}")
    module.__file__, module.__package__ = path, package
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    try:
        with _current_directory():
            exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - the user named it
    except Exception as error:
        del sys.modules[module.__name__]
        what = f"{type(error).__name__}: {error}{_place_in(path, error)}"
        raise UsageError(
            f"strategy {strategy_label(name)} cannot be loaded: {what}", "--debug shows the traceback"
        ) from error
    return own_strategy(_pick(module, name, path), strategy_label(name))


def _pick(module: types.ModuleType, name: str, path: str) -> Any:
    wanted = _split(name)[1]
    there = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("__")}
    if wanted not in there:
        close = nearest(wanted, there)
        raise UsageError(f"{path} has no function {wanted!r}" + (f"; did you mean {close!r}?" if close else ""))
    function = there[wanted]
    home = getattr(function, "__module__", None)
    if isinstance(function, types.FunctionType) and home != module.__name__:
        raise UsageError(
            f"strategy {strategy_label(name)} is not defined in {path}, but in the module {home}",
            f"name it there, so that its source is the one that is hashed: --strategy {home}:{function.__name__}",
        )
    return function


def _split(name: str) -> tuple[str, str]:
    match = OWN_STRATEGY.fullmatch(name)
    if match is None:
        raise AssertionError("the config checks the name")
    return match["place"], match["function"]


def _locate(name: str) -> tuple[str, str]:
    """The file of a strategy, and the package that its relative imports start from."""
    place, _ = _split(name)
    if place.endswith(".py"):
        return place, ""
    with _current_directory():
        try:
            spec = importlib.util.find_spec(place)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--strategy {name}: {error}", A_FILE) from None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        why = "there is no such module" if spec is None else "it is no file of Python source"
        raise UsageError(f"--strategy {name}: {why}", A_FILE)
    return spec.origin, spec.parent or ""


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"--strategy {name}: {path}: {error.strerror}", "check the path") from None


@contextlib.contextmanager
def _current_directory() -> Iterator[None]:
    """Inside, modules of the current directory can be imported too: last, so that they hide none that is installed."""
    directory = os.getcwd()
    sys.path.append(directory)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(directory)]


def _place_in(path: str, error: Exception) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f" ({path}:{line})" if line else ""
