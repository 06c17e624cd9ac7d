"""packcli, through huggingface_hub, against the API of the Hub on this machine. Run by `make integration-remote`."""

import os
import sys
import time
from types import SimpleNamespace

import pytest
from helpers import tree
from integrations.remote.fake_hub import TOKEN, FakeHub, Repository
from integrations.remote.fault_proxy import FaultProxy
from integrations.remote.runs import SETTINGS, check_every_verb, forget, run, start

from packcli import readers
from packcli.storage import RemotePath, filesystem, ranges

assert "huggingface_hub" not in sys.modules
HUB = FakeHub()
PROXY = FaultProxy(HUB.port)
os.environ["HF_ENDPOINT"] = PROXY.url  # is read when huggingface_hub is imported, so it cannot be another for each test

SEEDS = int(os.environ.get("PACKCLI_SEEDS", "1"))
"""Runs under faults by chance."""


@pytest.fixture
def mine(inputs, monkeypatch):
    """A repository that holds the inputs; and no half minutes of waiting."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import _http

    monkeypatch.setattr(filesystem, "WAIT_S", 0.0)
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 100)))
    assert HfFileSystem().endpoint == PROXY.url
    HUB.repositories.clear()
    PROXY.reset()
    forget("hf")
    made = HUB.repositories["datasets/me/mine"] = Repository()
    made.revisions["main"] = {f"in/{path.name}": path.read_bytes() for path in inputs.iterdir()}
    yield made
    PROXY.reset()
    forget("hf")


ROOT = RemotePath("hf://datasets/me/mine")


def test_the_same_tree_from_hf(tmp_path, mine, inputs, whole):
    """By folder and by pattern, also by another process."""
    code, said = run("pack", ROOT / "in", "-o", tmp_path / "folder", *SETTINGS)
    assert code == 0, said
    assert tree(tmp_path / "folder") == whole
    code, said = run("pack", ROOT / "in", "-o", tmp_path / "folder", *SETTINGS)
    assert (code, "up to date" in said) == (0, True), said
    process = start("pack", ROOT / "**" / "?.*", "-o", tmp_path / "pattern", *SETTINGS)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert tree(tmp_path / "pattern") == whole


def test_a_pinned_revision_stays(tmp_path, mine, whole):
    """The repository goes on; what was pinned gives the same bytes, by commit and by a branch with slashes."""
    mine.revisions["0f3a9c"] = mine.revisions["refs/convert/jsonl"] = mine.revisions["main"]
    mine.revisions["main"] = {"in/a.jsonl": b'{"text": "other"}\n'}
    for number, pinned in enumerate(("0f3a9c/in", "refs/convert/jsonl/*/*.*")):
        code, said = run("pack", f"{ROOT}@{pinned}", "-o", tmp_path / str(number), *SETTINGS)
        assert code == 0, said
        assert tree(tmp_path / str(number)) == whole
    code, said = run("pack", f"{ROOT}/in", "-o", tmp_path / "0", *SETTINGS)
    assert code == 3, said  # other rows


def test_every_verb_reads_an_output(tmp_path, mine):
    """Uploaded by hand, as its card says; its inputs there too."""
    code, said = run("pack", ROOT / "in" / "[ac].*", "-o", tmp_path / "out", *SETTINGS)
    assert code == 0, said
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    there = {f"out/{path.relative_to(tmp_path / 'out').as_posix()}": data for path, data in files.items()}
    mine.revisions["main"] |= there
    url = ROOT / "out"
    assert tree(url) == tree(tmp_path / "out")
    check_every_verb(url, tmp_path / "out")
    damaged = next(name for name in there if name.endswith(".arrow"))
    mine.revisions["main"][damaged] = there[damaged][:-100] + bytes(100)
    code, said = run("verify", url)
    assert (code, damaged.rpartition("/")[2] in said) == (3, True), said


def test_requests_of_a_unit(mine, monkeypatch):
    """No byte is asked for twice, and of Parquet only the wanted column of the wanted row groups."""
    monkeypatch.setattr(ranges, "FIRST_BYTES", 2_000)
    monkeypatch.setattr(ranges, "BLOCK_BYTES", 16_000)
    sources = readers.find_sources([str(ROOT / "in" / "a.jsonl"), str(ROOT / "in" / "d.parquet")], [])
    fields = readers.find_fields(sources, None, None)
    units = readers.cut_units(sources, 20_000)
    for unit, most in ((units[0], 20_500), ([unit for unit in units if unit.spans[0].source == 1][1], 30_000)):
        PROXY.reset()
        for part in readers.read_parts(unit, sources, fields, unit_bytes=20_000):
            part.skip()
        asked = [each.removeprefix("bytes=").split("-") for _, path, each in PROXY.requests if "/resolve/" in path]
        assert 2 <= len(asked) <= 4
        sizes = [int(stop) - int(start) + 1 for start, stop in asked]
        assert sum(sizes[sources[unit.spans[0].source].format == "parquet" :]) <= most  # the first is the footer


@pytest.mark.parametrize("seed", range(SEEDS))
def test_faults_by_chance_give_the_right_bytes(tmp_path, mine, whole, seed):
    """A quarter of the requests fails."""
    PROXY.reset(PROXY.random(seed, 0.25))
    code = -1
    while code != 0:
        code, said = run("pack", ROOT / "in", "-o", tmp_path / "out", *SETTINGS)
        assert code in (0, 6), said
        assert "Traceback" not in said
        assert code == 0 or "the same command" in said
    assert set(PROXY.injected) == {"500", "503", "reset", "cut", "lost"}
    assert tree(tmp_path / "out") == whole


@pytest.mark.parametrize("fault", ["500", "cut"])
def test_a_hub_that_is_gone_in_mid_run_is_exit_code_6(tmp_path, mine, whole, fault):
    """When it is back, the same command goes on. The signed place of a large file is nobody's business."""
    PROXY.reset(lambda method, path, number: fault if "/cdn/" in path else None)
    code, said = run("pack", ROOT / "in", "-o", tmp_path / "out", *SETTINGS)
    assert code == 6, said
    assert f"{ROOT}/in/" in said
    assert "the same command" in said
    assert "Traceback" not in said
    assert "s3cr3t" not in said
    PROXY.reset()
    code, said = run("pack", ROOT / "in", "-o", tmp_path / "out", *SETTINGS)
    assert code == 0, said
    assert tree(tmp_path / "out") == whole


@pytest.mark.parametrize("name", ["a.jsonl", "d.parquet"])
def test_a_file_that_changes_while_it_is_read_ends_the_run(tmp_path, mine, name):
    """Of the same size: only the id of the blob tells."""

    def plan(method, path, number):
        if ("/resolve/" in path or "/cdn/" in path) and len(PROXY.requests) > 1:
            files = mine.revisions["main"]
            files[f"in/{name}"] = files[f"in/{name}"].replace(b"document 699", b"DOCUMENT 699")
            PROXY.plan = lambda *request: None

    PROXY.reset(plan)
    code, said = run("pack", ROOT / "in" / name, "-o", tmp_path / "out", *SETTINGS)
    assert (code, name in said, "changed while it was read" in said) == (6, True, True), said


def test_a_private_repository_is_read_with_a_token(tmp_path, mine, whole, monkeypatch):
    """And the token is in nothing that others see."""
    mine.private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, said = run("pack", ROOT / "in", "-o", tmp_path / "out", *SETTINGS)
    assert code == 0, said
    assert tree(tmp_path / "out") == whole
    held = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert TOKEN.encode() not in held + said.encode()


def test_what_is_not_there_is_said(tmp_path, mine):
    """A user's first mistakes: each says what, without a traceback."""
    HUB.repositories["datasets/me/private"] = Repository({"main": {"x.jsonl": b"{}"}}, private=True)
    HUB.repositories["datasets/me/gated"] = Repository({"main": {"x.jsonl": b"{}"}}, gated=True)
    for url, exit_code, what in (
        (f"{ROOT}/in/none.jsonl", 2, "there is no such object"),
        (f"{ROOT}/none/*.jsonl", 2, "no object matches"),
        (f"{ROOT}@none/in", 2, "there is no such object"),
        ("hf://datasets/me/none", 2, "there is no such object"),
        ("hf://datasets/me/private", 2, "without HF_TOKEN a private repository looks as if it were not there"),
        ("hf://datasets/me/private/*.jsonl", 2, "without HF_TOKEN a private repository"),
        ("hf://datasets/me/gated", 6, "credentials from where"),
        ("hf://datasets/me", 2, "no repository"),
        ("hf://datasets/me/*/x.jsonl", 2, "no repository"),
    ):
        PROXY.reset()
        code, said = run("pack", url, "-o", tmp_path / "out", *SETTINGS)
        assert (code, what in " ".join(said.split())) == (exit_code, True), said
        assert url in said.replace("\n", "")


def test_a_model_repository_is_read_by_both_its_names(tmp_path, mine):
    """hf://models/me/mine is found as hf://me/mine: its walk went on for ever."""
    HUB.repositories["me/mine"] = Repository({"main": {"in/deep/a.jsonl": mine.revisions["main"]["in/a.jsonl"]}})
    code, said = run("pack", "hf://models/me/mine/in", "-o", tmp_path / "out", *SETTINGS)
    assert code == 0, said
    code, said = run("pack", "hf://me/mine/in", "-o", tmp_path / "out", *SETTINGS)
    assert (code, "up to date" in said) == (0, True), said


def test_nothing_is_written(mine, inputs):
    """Every file would be a commit: refused before anything is asked for."""
    PROXY.reset()
    code, said = run("pack", inputs, "-o", ROOT / "out", *SETTINGS)
    assert (code, "packcli reads hf:// and does not write there" in said) == (2, True), said
    assert not PROXY.requests
