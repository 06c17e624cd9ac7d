"""What packing chats, prompts and tokenized records would give: the very figures that packing then gives."""

import dataclasses
import json
import random

import numpy as np
import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from packcli import cli, pipeline
from packcli.config import PackConfig, RunOptions
from packcli.dataset import Stats, read_report
from packcli.packing import LengthBuffer, LossRuns, TokenBuffer
from packcli.packing.strategies import STRATEGIES
from packcli.pipeline import Lengths, measure
from packcli.pipeline.measure import PartLengths
from packcli.pipeline.plan_part import _count_true
from packcli.report import compare

OPTIONS = RunOptions(workers=1, tokenizer_engine="tokenizers")


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200", "NO_COLOR": "1"})


def words(count):
    return " ".join(random.Random(count).choices("the cat sat on a mat and 12 birds <|im_end|> sang".split(), k=count))


def chat(number, *, roles=("role", "content"), user="user", assistant="assistant"):
    """Conversations of all lengths; every 7th has no answer, every 11th no message, every 5th trains on one turn."""
    name, content = roles
    if number % 11 == 10:
        return []
    turns = [{name: user, content: words(number * 3 + 1)}]
    if number % 7 != 6:
        turns += [{name: assistant, content: words(number + 2)}, {name: user, content: "and?"}]
        turns.append({name: assistant, content: words(number % 13 + 1)})
        if number % 5 == 4 and name == "role":
            turns[1]["train"] = 0
    return turns


def tokenized(number):
    ids = [5 + place % 200 for place in range(number * 2)]
    return {
        "input_ids": ids,
        "loss_mask": [int(place % 5 > number % 4) * (number % 6 != 0) for place in range(len(ids))],
    }


SHAPES = {
    "chat": lambda number: {"messages": chat(number)},
    "sharegpt": lambda number: {"conversations": chat(number, roles=("from", "value"), user="human", assistant="gpt")},
    "prompt-completion": lambda number: {
        "prompt": words(number * 2),
        "completion": words(number % 9) if number % 7 else "",
    },
    "messages": lambda number: {
        "prompt": [{"role": "user", "content": words(number)}],
        "completion": [{"role": "assistant", "content": words(number * 2 + 1)}],
    },
    "alpaca": lambda number: {"instruction": words(number), "input": words(number % 3), "output": words(number + 1)},
    "tokenized": tokenized,
    "text": lambda number: {"text": words(number)},
}


@pytest.fixture(scope="module", params=SHAPES)
def source(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / f"{request.param}.jsonl"
    path.write_text("".join(json.dumps(SHAPES[request.param](number)) + "\n" for number in range(90)))
    return path


@pytest.fixture(scope="module")
def small(source, tokenizer_dir):
    """Settings that name the small tokenizer, which is loaded in no time."""
    has_messages = source.stem in ("chat", "sharegpt", "messages")
    return {"tokenizer": str(tokenizer_dir), "chat_template": "chatml" if has_messages else None, "add_bos": False}


@pytest.mark.parametrize(
    ("max_len", "settings"),
    [
        (320, {}),
        (384, {"overlong": "split", "isolate": False}),
        (640, {"overlong": "drop", "val_fraction": 0.3, "unit_bytes": 1 << 14}),
    ],
    ids=str,
)
def test_the_figures_are_those_of_packing(tmp_path, source, small, max_len, settings):
    settings = {**small, **settings}
    measured = measure([str(source)], PackConfig(max_len=max_len, **settings), OPTIONS, emit=lambda event: None)
    found = compare(measured, [max_len])
    assert [each.strategy for each in found.outcomes] == list(STRATEGIES)
    what_if = found.as_dict()
    assert (source.stem == "text") == (measured.parts[0].loss is None)
    first = (list(SHAPES).index(source.stem) + max_len // 32) % 3  # in all, every shape by every strategy
    for told in found.outcomes[first::3]:
        out = tmp_path / told.strategy
        made = PackConfig(max_len=max_len, strategy=told.strategy, **settings)
        report = pipeline.pack(str(source), out, config=made, options=OPTIONS)
        stats = report.stats
        no_loss = stats.num_documents_no_loss + stats.num_documents_no_loss_left
        assert told.num_packs == stats.num_packs
        assert told.num_packs_above_lower_bound == report.derived["num_packs_above_lower_bound"]
        assert round(told.utilisation, 6) == report.derived["utilisation"]
        assert told.num_documents_no_loss == no_loss
        assert told.num_documents_dropped == stats.num_documents_overlong + no_loss
        assert told.num_tokens_lost == stats.num_tokens_dropped
        assert told.num_loss_tokens == stats.num_tokens_loss
        if settings.get("isolate") is False:  # then no label is lost but with its token
            assert told.num_loss_tokens_lost == stats.num_tokens_loss_cut
        cut = (stats.num_documents_split, stats.num_documents_truncated)
        assert max(cut) <= told.num_documents_cut <= sum(cut)
        assert what_if["num_documents"] == stats.num_documents - stats.num_documents_empty
        assert what_if["num_tokens"] == stats.num_tokens_in + stats.num_tokens_special
        assert what_if["format"] == made.resolved(measured.config.format, "2026-01-01").format
        for name in ("num_documents_empty", "num_prompts_cut", "num_documents_literals", "tokens_by_role"):
            assert what_if[name] == getattr(stats, name)
        assert told.num_bytes == pytest.approx(sum(path.stat().st_size for path in out.rglob("*.arrow")), rel=0.25)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_shapes_have_what_is_counted(tmp_path, tokenizer_dir):
    """Else the equalities above could hold of nothing."""
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(SHAPES["chat"](number)) + "\n" for number in range(90)))
    config = PackConfig(tokenizer=str(tokenizer_dir), chat_template="chatml")
    measured = measure([str(path)], config, OPTIONS, emit=lambda event: None)
    (split, truncate) = (
        compare(measured, [64], ["pad"], overlong=policy).outcomes[0] for policy in ("split", "truncate")
    )
    assert split.num_documents_no_loss == len([n for n in range(90) if n % 7 == 6 and n % 11 != 10]) > 5
    assert truncate.num_documents_no_loss > split.num_documents_no_loss
    told = compare(measured, [64]).as_dict()
    assert told["num_documents_empty"] == 8
    assert told["num_documents_literals"] > 5
    assert told["overlong"][0]["num_documents_no_loss_left"] > 5


def masked(docs, loss, *, sample=1.0, total=None, sources=None):
    """Lengths of chats from the lengths of documents and the place where the loss of each begins."""
    docs = np.array(docs, dtype=np.int64)
    ends = np.cumsum(docs)
    has = loss < docs
    runs = LossRuns((ends - docs + loss)[has], ends[has])
    where = np.zeros(len(docs), dtype=np.int32) if sources is None else np.array(sources, dtype=np.int32)
    read = len(docs) if total is None else total
    part = PartLengths(0, 0, docs, where, read, runs, stats=Stats(num_documents=len(docs)))
    config = PackConfig().resolved("chat", "2026-01-01")
    names = [f"{index}.jsonl" for index in range(int(where.max()) + 1)]
    return Lengths([part], names, config, sample, "some", "fastokens")


def test_an_audit_of_truncation_by_hand():
    """Question 5 of marin-community/marin#4426: what truncation takes of the answers, from either end.

    Four documents of 10, 12, 4 and 9 tokens, answers from place 2, 10, 3 and 9 on (the last has none), packs of 8.
    """
    lengths = masked([10, 12, 4, 9], np.array([2, 10, 3, 9]))
    found = compare(lengths, [8], ["pad"])
    (over,) = found.overlong
    assert (over["num_documents_over"], over["num_tokens_truncated"], over["num_tokens_dropped"]) == (3, 7, 31)
    assert over["num_loss_tokens_truncated"] == 2 + 2  # of 8 and 2 labels 6 and 0 stay
    assert over["num_loss_tokens_left_truncated"] == 1  # tokens 2..9 of the first: its label 2 is the first of a pack
    assert over["num_loss_tokens_dropped"] == 10
    assert over["num_documents_no_loss_left"] == 1
    assert over["loss_truncated_ratio"] == round(4 / 11, 6)
    (told,) = found.outcomes  # chats are truncated: the second and the last are left without loss
    assert (told.num_packs, told.num_documents_no_loss, told.num_documents_dropped) == (2, 2, 2)
    assert (told.num_loss_tokens, told.num_loss_tokens_lost, told.num_tokens_lost) == (7, 4, 2 + 12 + 9)
    assert told.num_documents_cut == 1
    (split,) = compare(lengths, [8], ["pad"], overlong="split").outcomes
    assert (split.num_packs, split.num_documents_no_loss, split.num_loss_tokens) == (2 + 2 + 1, 1, 7 + 2 + 1)


def test_subsets_tell_which_of_them_loses_answers():
    """Questions 4 and 7: lengths and truncation by source; packed alone are only documents that would be packed."""
    lengths = masked([10, 12, 4, 9, 8], np.array([2, 10, 3, 9, 1]), sources=[0, 0, 1, 1, 1])
    first, second = compare(lengths, [8], ["pad"]).sources
    assert (first["num_documents"], first["num_loss_tokens"], first["loss_truncated_ratio"]) == (2, 10, 0.4)
    assert (second["num_documents_over"], second["num_loss_tokens"], second["loss_truncated_ratio"]) == (1, 8, 0.0)
    assert first["utilisation_alone"] == 1.0
    assert second["utilisation_alone"] == 12 / 16


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """25 populations of 2000 chats, a fifth of each: 95 % intervals should hold labels and documents without loss."""
    names = ("num_packs", "num_loss_tokens", "num_loss_tokens_lost", "num_documents_no_loss", "num_documents_dropped")
    held = dict.fromkeys(names, 0)
    for seed in range(25):
        generator = np.random.default_rng(seed)
        docs = np.minimum(np.exp(generator.normal(5.0, 0.8, 2000)).astype(np.int64) + 2, 4000)
        loss = (docs * generator.uniform(0.2, 1.1, 2000)).astype(np.int64)
        taken = np.sort(generator.choice(2000, 400, replace=False))
        (truth,) = compare(masked(docs, loss), [256], ["next-fit"]).outcomes
        (told,) = compare(masked(docs[taken], loss[taken], sample=0.2, total=2000), [256], ["next-fit"]).outcomes
        for name in held:
            low, high = told.intervals[name]
            held[name] += low <= getattr(truth, name) <= high
    assert all(20 <= count <= 25 for count in held.values()), held


def test_a_sample_of_chats(tmp_path, tokenizer_dir):
    """The same documents for any number of workers; counts are scaled up to all rows, empty ones included."""
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(SHAPES["chat"](number % 90)) + "\n" for number in range(450)))
    config = PackConfig(tokenizer=str(tokenizer_dir), chat_template="chatml", max_len=256, unit_bytes=1 << 16)
    one, two = (
        measure([str(path)], config, dataclasses.replace(OPTIONS, workers=workers), sample=0.3, emit=lambda event: None)
        for workers in (1, 2)
    )
    assert [part.lengths.tolist() for part in one.parts] == [part.lengths.tolist() for part in two.parts]
    assert [part.loss.starts.tolist() for part in one.parts] == [part.loss.starts.tolist() for part in two.parts]
    assert len(one.parts) > 2
    whole = compare(measure([str(path)], config, OPTIONS, emit=lambda event: None), [256], ["next-fit", "pad"])
    found = compare(one, [256], ["next-fit", "pad"])
    for told, truth in zip(found.outcomes, whole.outcomes, strict=True):
        for name in ("num_loss_tokens", "num_documents_no_loss", "num_tokens_lost"):
            low, high = told.intervals[name]
            wide = 2 * (high - low)  # one sample of many: twice the interval is all but certain
            assert low - wide <= getattr(truth, name) <= high + wide
    assert found.as_dict()["num_documents_empty"] > 20
    assert one.num_documents == pytest.approx(450 - 40, rel=0.05)


def test_the_command_line_takes_the_options_of_shapes(tmp_path):
    path = tmp_path / "gsm.jsonl"
    rows = [{"question": words(number + 1), "answer": words(number % 17 + 1)} for number in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [path, "--field", "prompt=Q: {question}\\n", "--field", "completion=answer", "--no-loss-on-eot"]
    result = invoke("stats", *arguments, "--max-len", 64, "-w", 1, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)["what_if"]
    assert invoke("pack", *arguments, "--max-len", 64, "-o", tmp_path / "out", "-q", "-w", 1).exit_code == 0
    report = read_report(tmp_path / "out")
    (best,) = (each for each in told["outcomes"] if each["strategy"] == "best-fit")
    assert best["num_loss_tokens"] == report.stats.num_tokens_loss
    assert best["num_packs"] == report.stats.num_packs
    assert (told["format"], told["loss"], told["overlong_policy"]) == ("prompt-completion", "completion", "truncate")
    shown = invoke("stats", *arguments, "--max-len", 64, "-w", 1).stderr
    assert "prompt-completion (prompt from 'Q: {question}" in shown
    assert "Loss in documents over max_len" in shown
    assert f"{told['num_loss_tokens']:,} tokens" in shown
    assert "--loss last-assistant needs messages" in invoke("stats", *arguments, "--loss", "last-assistant").stderr
    result = invoke("stats", ROOT / "sample_data" / "chat.jsonl", "--loss", "last-assistant", "-w", 1)
    assert "last-assistant: " in result.stderr


# Masks as runs.


def test_runs_by_hand():
    """The example of the module."""
    runs = LossRuns.of_mask(np.array([0, 0, 1, 1, 1, 0, 1, 0], dtype=np.bool_))
    assert (runs.starts.tolist(), runs.ends.tolist()) == ([2, 6], [5, 7])
    assert runs.count(np.array([3, 0, 5, 7]), np.array([7, 8, 6, 3])).tolist() == [3, 4, 0, 0]


@given(masks=st.lists(st.lists(st.booleans(), max_size=12), max_size=4), data=st.data())
def test_runs_count_as_masks_do(masks, data):
    joined = np.array([each for mask in masks for each in mask], dtype=np.bool_)
    firsts = np.cumsum([0, *map(len, masks)]).tolist()
    parts = [
        LossRuns.of_mask(np.array(mask, dtype=np.bool_), first) for mask, first in zip(masks, firsts, strict=False)
    ]
    runs = LossRuns.join(parts)
    places = st.integers(0, len(joined))
    pairs = np.array(data.draw(st.lists(st.tuples(places, places), max_size=8)), dtype=np.int64).reshape(-1, 2)
    expected = [int(joined[start:end].sum()) for start, end in pairs.tolist()]
    assert runs.count(pairs[:, 0], pairs[:, 1]).tolist() == expected
    assert _count_true(joined, pairs[:, 0], pairs[:, 1]).tolist() == expected
    assert runs.moved(3).count(pairs[:, 0] + 3, pairs[:, 1] + 3).tolist() == expected


@given(calls=st.lists(st.lists(st.lists(st.booleans(), max_size=5), min_size=1, max_size=3), max_size=4))
def test_a_buffer_of_lengths_counts_as_one_of_tokens(calls):
    whole, lean = TokenBuffer(masked=True), LengthBuffer(masked=True)
    for docs in calls:
        loss = np.array([each for doc in docs for each in doc], dtype=np.bool_)
        offsets = np.cumsum([0, *map(len, docs)])
        for buffer in (whole, lean):
            buffer.append_masked(np.zeros(len(loss), dtype=np.uint32), offsets, loss, len(docs))
    batch = whole.finish()
    lengths, runs = lean.measured()
    assert lengths.tolist() == batch.lengths.tolist()
    assert runs.count(batch.offsets[:-1], batch.offsets[1:]).sum() == batch.loss.sum()
    assert (lean.num_tokens, lean.num_special) == (len(batch.ids), whole.num_special)


def test_a_buffer_of_text_counts_special_tokens():
    whole, lean = TokenBuffer(bos=1, eos=2), LengthBuffer(bos=1, eos=2)
    for buffer in (whole, lean):
        buffer.append(np.zeros(5, dtype=np.uint32), np.array([0, 2, 5]))
    assert lean.measured()[0].tolist() == whole.finish().lengths.tolist() == [4, 5]
    assert (lean.num_tokens, lean.num_special) == (9, 4)
    with pytest.raises(AssertionError, match="lengths only"):
        lean.finish()
