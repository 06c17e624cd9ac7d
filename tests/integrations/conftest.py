"""packcli beside other software: a folder each, which is the marker of its tests and has an environment of its own.

A folder is collected when it is asked for, by its path or by its marker, and not otherwise: elsewhere what its tests
import is not installed. Asked for, it has to run: what is missing is an error, and a run in which no test passes fails.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def folder_of(path: Path) -> str | None:
    """The name of the integration that a path belongs to."""
    parts = path.relative_to(HERE).parts if path.is_relative_to(HERE) else ()
    return parts[0] if parts else None


def is_asked_for(name: str, config: pytest.Config) -> bool:
    paths = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    by_marker = re.search(rf"(?<!\bnot )\b{name}\b", config.option.markexpr)
    return by_marker is not None or any(folder_of(path.resolve()) == name for path in paths)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.is_dir() and collection_path.parent == HERE:
        return not is_asked_for(collection_path.name, config) or None
    return None


@pytest.hookimpl(tryfirst=True)  # before -m chooses among them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (name := folder_of(item.path)) is not None:
            item.add_marker(name)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tests that were all skipped show nothing."""
    config = session.config
    if exitstatus != pytest.ExitCode.OK or config.option.collectonly or hasattr(config, "workerinput"):
        return
    if any(is_asked_for(folder.name, config) for folder in HERE.iterdir()):
        passed = config.pluginmanager.get_plugin("terminalreporter").stats.get("passed")
        session.exitstatus = exitstatus if passed else pytest.ExitCode.NO_TESTS_COLLECTED
