"""A Ray on this machine, started by Ray's own command and ended with it: other Rays here are left alone."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
START_S = 120.0

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
"""Without tokens: `ray start` asks for one when some other Ray has left one in the home directory."""


@contextlib.contextmanager
def ray_head(cpus=2):
    """Yields the pid of `ray start`, below which all of this Ray lives, and the address."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: sockets lie below it
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Without the guard of tests/support/children: Ray asks whether it is in a cloud, and ends when it may not.
    environment |= QUIET | {"PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[1] / "support")))}
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port=0", f"--num-cpus={cpus}"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        with open(folder / "start.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            deadline = time.monotonic() + START_S
            while (found := re.search(r"--address='([^']+)'", (folder / "start.log").read_text())) is None:
                assert process.poll() is None, (folder / "start.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process.pid, found[1]
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
