"""Prints pins, name==version, one a line. `make lock` keeps them.

lock.py REPORT             what `pip install --dry-run --report REPORT` would have installed
lock.py REPORT --oldest    the oldest version that each requirement of packcli admits, extras too
"""

import json
import re
import sys
from pathlib import Path


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


packages = [each["metadata"] for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["install"]]
if sys.argv[2:] == ["--oldest"]:
    (packcli,) = (each for each in packages if each["name"] == "packcli")
    bounds = (re.match(r"([\w.-]+)[^;]*>=([\w.]+)", each) for each in packcli["requires_dist"])
    pins = {normal(bound[1]): bound[2] for bound in reversed([*bounds]) if bound}  # an extra may ask for a newer one
else:  # torch 2.13.0+cpu, a local build, is torch 2.13.0 elsewhere
    pins = {normal(each["name"]): each["version"].split("+")[0] for each in packages if each["name"] != "packcli"}
print(*sorted(f"{name}=={version}" for name, version in pins.items()), sep="\n")
