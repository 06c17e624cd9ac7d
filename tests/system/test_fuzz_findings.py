"""Files that the fuzzers found, on which packcli once ended with a traceback, or was ended by the system."""

import subprocess
import sys
from pathlib import Path

import pytest

FOUND = sorted(Path(__file__).parents[1].joinpath("fuzz").joinpath("found").iterdir())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_a_file_that_once_broke_the_reader(path, tmp_path):
    """As a process of its own: a length that Arrow believed aborted the interpreter."""
    command = [sys.executable, "-m", "packcli", "pack", str(path), "-o", str(tmp_path / "out"), "-w", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 6, (done.returncode, done.stderr)
    assert path.name in done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_some():
    assert len(FOUND) >= 5
