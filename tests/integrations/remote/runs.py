"""Runs of packcli against a store, and what they leave there: shared by the checks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import fsspec
from helpers import tree
from integrations.remote.fault_proxy import FaultProxy
from typer.testing import CliRunner

from packcli import cli
from packcli.storage import RemotePath
from packcli.storage.filesystem import filesystem

PACKCLI = [sys.executable, "-m", "packcli"]
SETTINGS = ["--max-len", "64", "--unit-bytes", "20kB", "-w", "1", "--tokenizer-engine", "tokenizers"]
TWO_WORKERS = [*SETTINGS[:-3], "2", *SETTINGS[-2:]]


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PACKCLI, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_until(bucket: RemotePath, num_units: int, *arguments: object) -> subprocess.Popen[str]:
    """A run that has committed so many units into bucket/out."""
    process = start(*arguments)
    deadline = time.monotonic() + 120
    while len((bucket / "out" / "units").entries()) < num_units:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def run(*arguments: object) -> tuple[int, str]:
    """The command line in this process: (exit code, what it said)."""
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def forget(scheme: str) -> None:
    """Connections keep the credentials and the address that they were made with."""
    fsspec.get_filesystem_class(scheme).clear_instance_cache()
    filesystem.cache_clear()


def upload(inputs: Path, root: RemotePath) -> RemotePath:
    for path in sorted(inputs.iterdir()):
        (root / path.name).put(path.read_bytes())
    return root


def check_every_verb(url: object, local: Path) -> None:
    """An output is read where it is by all that reads one; it is that of a directory."""
    for arguments in (
        ["verify", url, "--deep", "--same-as", local],
        ["stats", url],
        ["inspect", url, "--row", "0"],
        ["export", url, "--to", "parquet", "-o", local.with_name("parquet")],
    ):
        code, said = run(*arguments)
        assert code == 0, said


def check_gone_and_back(proxy: FaultProxy, bucket: RemotePath, whole: dict[str, bytes]) -> None:
    """A run whose store goes away after two commits, as the proxy is told, is exit code 6; then it goes on."""
    code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
    assert code == 6, said
    assert "the same command resumes" in said
    assert "Traceback" not in said
    proxy.reset()
    there = tree(bucket / "out")
    assert "manifest.json" not in there
    assert {"units/00000-000.json", "units/00001-000.json"} <= set(there)
    assert all(whole[name] == data for name, data in there.items())
    code, said = run("pack", bucket / "in", "-o", bucket / "out", *SETTINGS)
    assert code == 0, said
    assert "resumed" in said
    assert tree(bucket / "out") == whole
