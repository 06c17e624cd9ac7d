"""Makes again what README.md shows: the closing table of a real run, and a screenshot of a real report.

python tests/docs/make.py          the table, and tests/docs/report.png (needs Chromium, or PACKCLI_CHROMIUM)
python tests/docs/make.py --check  fails when the table in README.md is not what packcli prints today (but for times)
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
COMMAND = "packcli pack data.jsonl --max-len 2048"
BLOCK = re.compile(rf"(?<=```console\n\$ {re.escape(COMMAND)}\n).*?(?=```)", re.DOTALL)
CHANGING = ("engine", "time")
"""Lines that differ from machine to machine."""
WIDTH, HEIGHT = 1180, 960


def run(folder: Path, *arguments: str) -> str:
    """What packcli says on stderr."""
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "packcli", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {result.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in result.stderr.splitlines())


def steady(table: str) -> list[str]:
    """The lines that are the same on every machine."""
    return [line for line in table.splitlines() if not line.startswith(CHANGING)]


def screenshot(page: Path, image: Path) -> None:
    """The top of a page, by headless Chromium."""
    chromium = os.environ.get("PACKCLI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium: install chromium, or name one in PACKCLI_CHROMIUM")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
    command = [chromium, *options, f"--screenshot={image}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    found = BLOCK.search(text)
    if found is None:
        raise SystemExit(f"README.md has no block that begins with $ {COMMAND}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(ROOT / "sample_data" / "docs.jsonl", folder / "data.jsonl")
        table = run(folder, *COMMAND.split()[1:])
        if check:
            if steady(table) != steady(found[0]):
                raise SystemExit(f"README.md shows another table; make docs. Today:\n{table}")
            return
        if steady(table) != steady(found[0]):  # else only the times differ
            README.write_text(BLOCK.sub(lambda _: table, text), encoding="utf-8")
        shown = ["data.jsonl", "--max-len", "512", "--strategy", "best-fit", "--overlong", "truncate", "-o", "report"]
        run(folder, "pack", *shown, "-q")
        run(folder, "stats", "report", "--html", "report.html")
        screenshot(folder / "report.html", ROOT / "tests" / "docs" / "report.png")


if __name__ == "__main__":
    main()
