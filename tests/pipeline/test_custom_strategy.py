"""--strategy module:function and file.py:function: code of the user's own, checked, hashed, and run only when named."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from datasets import load_from_disk
from helpers import PACKCLI, SAMPLE, tree_hash
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import packcli
from packcli import cli, errors
from packcli.config import PackConfig
from packcli.config.choices import strategy_label
from packcli.pipeline import find_strategy, pin_strategy
from packcli.pipeline.custom_strategy import _load

LONGEST = '''
import numpy as np


def longest_first(lengths, capacity, *, seed=0, max_docs=0):
    """Next-fit over the longest first."""
    order, offsets, room, docs = np.argsort(-lengths, kind="stable"), [], 0, 0
    for at, length in enumerate(lengths[order].tolist()):
        if length > room or (max_docs and docs == max_docs):
            offsets.append(at)
            room, docs = capacity, 0
        room, docs = room - length, docs + 1
    return order, [*offsets, len(order)]
'''


def longest_first(lengths, capacity, *, seed=0, max_docs=0):
    scope = {}
    exec(LONGEST, scope)
    return scope["longest_first"](lengths, capacity, seed=seed, max_docs=max_docs)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with longest.py and data.jsonl, and the process in it."""
    (tmp_path / "longest.py").write_text(LONGEST)
    (tmp_path / "data.jsonl").write_bytes(SAMPLE.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = {"max_len": 256, "workers": 1, "tokenizer_engine": "fastokens"}


@given(
    st.lists(st.integers(0, 30), max_size=60),
    st.integers(1, 20),
    st.integers(0, 3),
    st.sampled_from(["split", "truncate", "drop"]),
)
def test_a_function_plans_like_a_strategy(lengths, max_len, limit, overlong):
    """The plan is what the function answers about the segments, and nothing else."""
    given_ = {"overlong": overlong, "max_docs_per_pack": limit}
    plan = packcli.plan(lengths, max_len, strategy=longest_first, **given_)
    order, offsets = longest_first(plan.segments.length, max_len, max_docs=limit)
    assert plan.order.tolist() == order.tolist()
    assert plan.pack_offsets.tolist() == (offsets if len(order) else [0])
    assert plan.segments.length.tolist() == packcli.plan(lengths, max_len, **given_).segments.length.tolist()
    assert plan.found_by == "longest_first"
    assert (plan.pack_tokens <= max_len).all()


def test_it_gets_what_it_takes_and_nothing_it_can_break():
    seen = []

    def everything(lengths, capacity, **keywords):
        seen.append((lengths.dtype, lengths.flags.writeable, capacity, keywords))
        return np.arange(len(lengths)), np.arange(len(lengths) + 1)

    def nothing(lengths, capacity):
        return list(range(len(lengths))), [0, *range(1, len(lengths) + 1)]

    assert packcli.plan([3, 4], 8, strategy=everything, seed=5, max_docs_per_pack=1, effort="max").num_packs == 2
    assert seen == [seen[0]] * len(seen)
    assert seen[0][:3] == (np.int32, False, 8)
    assert sorted(seen[0][3]) == ["effort", "max_docs", "seed"]
    assert (seen[0][3]["max_docs"], seen[0][3]["effort"]) == (1, "max")
    assert packcli.plan([3, 4], 8, strategy=nothing).num_packs == 2
    assert packcli.plan([], 8, strategy=everything).num_packs == 0
    rows = packcli.pack_sequences([[1, 2], [3]], 4, 0, strategy=nothing)
    assert rows == [[1, 2, 0, 0], [3, 0, 0, 0]]
    packs = list(packcli.stream_packs([[1, 2], [3]], 4, strategy=nothing))
    assert [each.sources for each in packs] == [(0,), (1,)]


def answer(order, offsets):
    return lambda lengths, capacity: (order, offsets)


RANDOM = np.random.default_rng()

WRONG = {
    "a segment twice": (answer([0, 0, 1], [0, 1, 2, 3]), "a segment is missing or stands twice"),
    "a segment missing": (answer([0, 1], [0, 1, 2]), "a segment is missing or stands twice"),
    "a segment that is none": (answer([0, 1, 7], [0, 1, 2, 3]), "a segment is missing or stands twice"),
    "a negative one": (answer([0, 1, -1], [0, 1, 2, 3]), "a segment is missing or stands twice"),
    "over capacity": (answer([0, 1, 2], [0, 1, 3]), "a pack is over max_len: pack 1 has 9 of 8"),
    "an empty pack": (answer([0, 1, 2], [0, 1, 1, 2, 3]), "a pack is empty"),
    "packs that end early": (answer([0, 1, 2], [0, 1, 2]), "pack_offsets do not cover"),
    "packs that begin late": (answer([0, 1, 2], [1, 2, 3]), "pack_offsets do not cover"),
    "offsets that go back": (answer([0, 1, 2], [0, 2, 1, 3]), "a pack is empty"),
    "no offset": (answer([0, 1, 2], []), "pack_offsets is empty"),
    "floats": (answer([0.0, 1.0, 2.0], [0, 1, 2, 3]), "order is float64[3], not a flat list of integers"),
    "a table": (answer([[0, 1, 2]], [0, 1, 2, 3]), "order is int64[1, 3], not a flat list"),
    "no pair": (lambda lengths, capacity: np.arange(3), "gave ndarray, not (order, pack_offsets)"),
    "nothing": (lambda lengths, capacity: None, "gave NoneType"),
    "an error": (lambda lengths, capacity: 1 // 0, "raised ZeroDivisionError: integer division or modulo by zero ("),
    "a change of the lengths": (lambda lengths, capacity: lengths.sort(), "raised ValueError: sort array is read-only"),
    "chance": (lambda lengths, capacity: (RANDOM.permutation(3), [0, 1, 2, 3]), "gives two plans for the same 3"),
    "one argument": (lambda lengths: None, "too many positional arguments"),
    "another argument": (lambda lengths, capacity, *, temperature: None, "argument: 'temperature'"),
    "no function": (dict.fromkeys, "strategy"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_an_error_that_names_the_function(case):
    function, message = WRONG[case]
    with pytest.raises(errors.UsageError) as caught:
        for _ in range(20):  # chance may answer alike
            packcli.plan([3, 4, 5], 8, strategy=function)
    assert message in caught.value.message
    assert f"strategy {function.__qualname__}" in caught.value.message
    assert caught.value.hint


def test_a_limit_that_it_does_not_take_or_keep():
    with pytest.raises(errors.UsageError, match="takes no max_docs, so it cannot keep --max-docs-per-pack 1"):
        packcli.plan([3], 8, strategy=answer([0], [0, 1]), max_docs_per_pack=1)
    with pytest.raises(errors.UsageError, match="a pack is over max_docs_per_pack: pack 0 has 2 of 1"):
        packcli.plan([3, 4], 8, max_docs_per_pack=1, strategy=lambda lengths, capacity, *, max_docs: ([0, 1], [0, 2]))


def test_pack_in_worker_processes_as_alone(place, tokenizer_dir):
    """Workers find the function on their own; the same bytes for any number, by file, by module, from anywhere."""
    given_ = {**GIVEN, "unit_bytes": 60_000, "tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers"}
    report = packcli.pack("data.jsonl", "file", strategy="longest.py:longest_first", **given_)
    assert report.stats.num_parts > 3
    expected = tree_hash(place / "file")
    for row in load_from_disk("file").select(range(5)):
        lengths = [source["end"] - source["start"] for source in row["sources"]]
        assert lengths == sorted(lengths, reverse=True)
    (place / "elsewhere").mkdir()
    line = ["../data.jsonl", "-q", "--max-len", "256", "--unit-bytes", "60000", "-w", "2"]
    line += ["--tokenizer", str(tokenizer_dir), "--tokenizer-engine", "tokenizers"]
    command = [*PACKCLI, "pack", *line, "-o", "../two", "--strategy", "../longest.py:longest_first"]
    subprocess.run(command, cwd=place / "elsewhere", check=True)
    assert tree_hash(place / "two") == expected
    manifest = json.loads((place / "file" / "manifest.json").read_text())
    assert manifest["config"]["strategy"] == "longest.py:longest_first"
    assert list(manifest["config"]["strategy_sha256"]) == ["longest.py:longest_first"]
    assert report.stats.plans_by_planner == {"longest.py:longest_first": report.stats.num_parts}
    # A module of the current directory is found by the command too, in its workers as well.
    console = [sys.executable, "-c", "from packcli.cli import main; main()"]  # like the script, without -m
    command = [*console, "pack", "data.jsonl", *line[1:], "-o", "module", "--strategy", "longest:longest_first"]
    subprocess.run(command, cwd=place, check=True)
    assert load_from_disk("module")[:] == load_from_disk("file")[:]


def test_a_changed_source_is_another_run(place):
    """Resuming with other code would give packs of two kinds; the refusal names it."""
    packcli.pack("data.jsonl", "out", strategy="longest.py:longest_first", **GIVEN)
    assert packcli.pack("data.jsonl", "out", strategy="longest.py:longest_first", **GIVEN).status == "up to date"
    (place / "longest.py").write_text(LONGEST + "# changed\n")
    with pytest.raises(errors.MismatchError, match=r"strategy_sha256.longest.py:longest_first was \"\w+\", now it is"):
        packcli.pack("data.jsonl", "out", strategy="longest.py:longest_first", **GIVEN)
    with pytest.raises(errors.MismatchError, match="strategy was "):
        packcli.pack("data.jsonl", "out", strategy="best-fit", **GIVEN)
    # The settings that the run kept pin the source that it had.
    _load.cache_clear()
    with pytest.raises(errors.MismatchError, match="is not the one that this run began with"):
        packcli.pack("data.jsonl", "other", **GIVEN, **pinned(place))


def pinned(place):
    from packcli.config import read_toml

    kept = read_toml(place / "out" / ".packcli" / "packcli.toml")
    return {name: kept[name] for name in ("strategy", "strategy_sha256")}


def test_settings_that_lie_around_run_no_code(place):
    """A packcli.toml in the current directory may be a stranger's; one that was named is the user's wish."""
    (place / "longest.py").write_text(LONGEST + "open('ran', 'w').close()\n")
    (place / "packcli.toml").write_text("[pack]\nstrategy = 'longest.py:longest_first'\nmax_len = 256\n")
    for verb in ("pack", "stats"):
        result = CliRunner().invoke(cli.app, [verb, "data.jsonl"])
        assert result.exit_code == 2
        assert "which is code, and nobody named this file" in result.stderr
        assert "--strategy longest.py:longest_first" in result.stderr
    assert not (place / "ran").exists()
    assert CliRunner().invoke(cli.app, ["pack", "data.jsonl", "-o", "best", "--strategy", "bfd", "-w1"]).exit_code == 0
    assert not (place / "ran").exists()
    line = ["pack", "data.jsonl", "-o", "own", "-w1", "--config", "packcli.toml"]
    assert CliRunner().invoke(cli.app, line).exit_code == 0
    assert (place / "ran").exists()


def test_reading_an_output_runs_no_code(place):
    """verify, stats, inspect and export look at a stranger's directory; what it names is a label to them."""
    packcli.pack("data.jsonl", "out", strategy="longest.py:longest_first", **GIVEN)
    _load.cache_clear()
    (place / "longest.py").write_text("open('ran', 'w').close()\n")
    for line in (
        ["verify", "out", "--deep"],
        ["stats", "out", "--recount"],
        ["inspect", "out"],
        ["export", "out", "--to", "parquet"],
    ):
        assert CliRunner().invoke(cli.app, line).exit_code == 0, line
    assert not (place / "ran").exists()


def test_what_if_takes_it(place):
    """The same packs as `pack` makes, beside ours."""
    report = packcli.pack("data.jsonl", "out", strategy="longest.py:longest_first", **GIVEN)
    line = ["stats", "data.jsonl", "--strategy", "longest.py:longest_first,bfd", "--max-len", "256", "--json", "-w1"]
    outcomes = json.loads(CliRunner().invoke(cli.app, line).stdout)["what_if"]["outcomes"]
    assert [each["strategy"] for each in outcomes] == ["longest.py:longest_first", "best-fit"]
    assert outcomes[0]["num_packs"] == report.stats.num_packs


MISTAKES = {
    "no.py:f": "no.py: No such file",
    "longest.py:longest_fist": "has no function 'longest_fist'; did you mean 'longest_first'?",
    "longest.py:np": "has no function 'np'",
    "nowhere_at_all:f": "there is no such module",
    "nowhere_at_all.inner:f": "No module named 'nowhere_at_all'",
    "math:floor": "it is no file of Python source",
    "broken.py:f": "cannot be loaded: SyntaxError",
    "raising.py:f": "cannot be loaded: KeyError: 'x' (",
    "borrowed.py:f": "is not defined in",
    "few.py:f": "too many positional arguments",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_is_written(name, place):
    (place / "broken.py").write_text("def f(:\n")
    (place / "raising.py").write_text("\n{}['x']\n")
    (place / "borrowed.py").write_text("from json import dumps as f\n")
    (place / "few.py").write_text("def f(lengths): ...\n")
    with pytest.raises(errors.UsageError) as caught:
        packcli.pack("data.jsonl", "out", strategy=name, **GIVEN)
    assert MISTAKES[name] in caught.value.message
    assert not (place / "out").exists()


def test_what_runs_is_what_was_hashed(place):
    """A stale module, a .pyc or a change between two looks would run other code than the fingerprint names."""
    config = PackConfig(strategy="longest:longest_first")
    first = pin_strategy(config)
    assert first.strategy_sha256 == hashlib.sha256((place / "longest.py").read_bytes()).hexdigest()
    (place / "longest.py").write_text("def longest_first(lengths, capacity):\n    return [1, 0], [0, 1, 2]\n")
    second = pin_strategy(config)
    assert second.strategy_sha256 != first.strategy_sha256
    assert packcli.plan([3, 4], 8, strategy=find_strategy(second)).order.tolist() == [1, 0]
    _load.cache_clear()
    with pytest.raises(errors.MismatchError, match="sha256 of .*longest.py was"):
        find_strategy(first)
    assert "longest" not in sys.modules


def test_a_package_imports_its_neighbours(place):
    (place / "mine").mkdir()
    (place / "mine" / "__init__.py").write_text("")
    (place / "mine" / "sizes.py").write_text("def one_a_pack(n):\n    return range(n), range(n + 1)\n")
    (place / "mine" / "plans.py").write_text(
        "from .sizes import one_a_pack\n"
        "def f(lengths, capacity):\n    return tuple(map(list, one_a_pack(len(lengths))))\n"
    )
    before = list(sys.path)
    plan = packcli.plan([1, 2], 8, strategy=find_strategy(PackConfig(strategy="mine.plans:f")))
    assert plan.num_packs == 2
    assert sys.path == before
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def test_labels():
    assert strategy_label("a/b/longest.py:f") == "longest.py:f"
    assert strategy_label("a.b:f") == "a.b:f"
    assert strategy_label("best-fit") == "best-fit"
