"""Labels: what is packed, unpacked and decoded is exactly what should carry loss."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from helpers import BUILTIN, ROOT, tree_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_documents import pack, unpacked, write_rows
from tokenizer_files import Oracle

import packcli
from packcli import errors
from packcli.packing import Assembler, Origin, RowLayout, make_plan
from packcli.packing.strategies import STRATEGIES
from packcli.pipeline.plan_part import _count_true

CHATS, PROMPTS = ROOT / "sample_data" / "chat.jsonl", ROOT / "sample_data" / "prompt_completion.jsonl"
IM_START, IM_END = 2, 3


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def runs(labels):
    """The runs of labels that are not -100."""
    out, run = [], []
    for label in [*labels, -100]:
        if label != -100:
            run.append(label)
        elif run:
            out.append(run)
            run = []
    return out


def test_loss_of_chats_decodes_to_the_answers_and_their_ends(tmp_path, builtin):
    report = pack(tmp_path / "out", CHATS)
    documents, rows = unpacked(tmp_path / "out"), rows_of(CHATS)
    assert sorted(documents) == list(range(len(rows)))
    for number, row in enumerate(rows):
        ids, labels = documents[number]
        answers = [m["content"] + "<|im_end|>" for m in row["messages"] if m["role"] == "assistant"]
        assert [builtin.decode(run) for run in runs(labels)] == answers
        assert ids.count(IM_END) == ids.count(IM_START) == len(row["messages"])
        whole = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["messages"])
        assert builtin.decode(ids) == whole
    stats = report.stats
    assert stats.num_documents_literals == 1
    assert stats.num_tokens_loss == sum(len(run) for _, labels in documents.values() for run in runs(labels))
    assert set(stats.tokens_by_role) == {"system", "user", "assistant"}
    assert stats.tokens_by_role["assistant"] + sum(len(row["messages"]) // 2 for row in rows) == pytest.approx(
        stats.num_tokens_loss, rel=0.02
    )


@pytest.mark.parametrize(("on_eot", "ending"), [(None, [0]), (False, [])])
def test_loss_of_prompts_decodes_to_the_completions(tmp_path, builtin, on_eot, ending):
    pack(tmp_path / "out", PROMPTS, loss_on_eot=on_eot)
    documents, rows = unpacked(tmp_path / "out"), rows_of(PROMPTS)
    assert len(documents) == len(rows) > 100
    for number, row in enumerate(rows):
        ids, labels = documents[number]
        whole = builtin.encode(row["prompt"] + row["completion"])
        assert ids == [*whole.ids, 0]
        border = len(row["prompt"])
        expected = [token for token, (_, end) in zip(whole.ids, whole.offsets, strict=True) if end > border]
        assert [token for run in runs(labels) for token in run] == expected + ending


def test_alpaca_and_mapped_fields_give_the_same_as_prompts(tmp_path):
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nQ{0}\n\n### Response:\n"
    )
    alpaca = write_rows(
        tmp_path / "a.jsonl", [{"instruction": f"Q{n}", "input": "", "output": f"A{n}"} for n in range(9)]
    )
    response = write_rows(tmp_path / "r.jsonl", [{"instruction": f"Q{n}", "response": f"A{n}"} for n in range(9)])
    plain = write_rows(tmp_path / "p.jsonl", [{"q": f"Q{n}", "a": f"A{n}"} for n in range(9)])
    template = prompt.replace("Q{0}", "{q}")
    made = [
        pack(tmp_path / "1", alpaca),
        pack(tmp_path / "2", response),
        pack(tmp_path / "3", plain, field=(f"prompt={template}", "completion=a")),
    ]
    packs = [load_from_disk(str(report.output)).to_dict() for report in made]
    assert packs[0] == packs[1] == packs[2]
    assert [report.manifest["text"]["format"] for report in made] == ["alpaca", "alpaca", "prompt-completion"]


def test_a_prompt_that_ends_inside_a_token_is_counted(tmp_path, builtin):
    """' word' is one token: the space of the prompt is in the first token of the completion."""
    source = write_rows(tmp_path / "p.jsonl", [{"prompt": "Say: ", "completion": "word"}] * 3)
    report = pack(tmp_path / "out", source)
    assert report.stats.num_prompts_cut == 3
    (labels,) = {tuple(labels) for _, labels in unpacked(tmp_path / "out").values()}
    assert builtin.decode([label for label in labels if label != -100]) == " word<|endoftext|>"


# Overlong documents.


def test_truncation_counts_the_loss_it_costs(tmp_path):
    rows = [
        {"prompt": "a " * 50, "completion": " b" * 50},  # its end is cut off
        {"prompt": "a " * 90, "completion": " b" * 5},  # nothing of the completion is left
        {"prompt": "short", "completion": " words"},
        {"prompt": "", "completion": ""},
    ]
    report = pack(tmp_path / "out", write_rows(tmp_path / "p.jsonl", rows), max_len=64)
    stats, documents = report.stats, unpacked(tmp_path / "out")
    assert sorted(documents) == [0, 2]
    assert (stats.num_documents_empty, stats.num_documents_truncated) == (1, 1)
    assert (stats.num_documents_no_loss, stats.num_documents_no_loss_left) == (0, 1)
    kept = sum(len(run) for _, labels in documents.values() for run in runs(labels))
    assert stats.num_tokens_loss == kept
    whole = pack(tmp_path / "whole", tmp_path / "p.jsonl", max_len=256).stats
    assert whole.num_tokens_loss == kept + stats.num_tokens_loss_cut


@pytest.mark.parametrize("overlong", ["split", "drop", "error"])
def test_the_other_policies_keep_the_mask(tmp_path, overlong):
    rows = [{"prompt": "a " * 20, "completion": " b" * 60}, {"prompt": "x", "completion": " y"}]
    source = write_rows(tmp_path / "p.jsonl", rows)
    whole = {row: labels for row, (_, labels) in unpacked(pack(tmp_path / "w", source).output).items()}
    if overlong == "error":
        with pytest.raises(errors.BadRowError, match="p.jsonl:1: 82 tokens, over --max-len 32"):
            pack(tmp_path / "out", source, max_len=32, overlong=overlong)
        return
    report = pack(tmp_path / "out", source, max_len=32, overlong=overlong)
    found = {row: labels for row, (_, labels) in unpacked(tmp_path / "out").items()}
    assert found[1] == whole[1]
    if overlong == "drop":
        assert (sorted(found), report.stats.num_tokens_loss_cut) == ([1], 61)
    else:  # each continued segment keeps its mask, but for its first token
        assert [label for at, label in enumerate(found[0]) if at % 32] == [
            label for at, label in enumerate(whole[0]) if at % 32
        ]
        assert set(found[0][::32]) == {-100}


def test_a_document_without_a_loss_token_is_dropped_and_counted(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "q"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": []},
    ]
    stats = pack(tmp_path / "out", write_rows(tmp_path / "c.jsonl", rows)).stats
    assert (stats.num_documents_packed, stats.num_documents_no_loss, stats.num_documents_empty) == (1, 1, 1)
    assert stats.num_tokens_no_loss > 0
    with pytest.raises(errors.NoInputError, match="1 without a token that carries loss"):
        pack(tmp_path / "none", write_rows(tmp_path / "n.jsonl", rows[:1]))


# Shards.


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_carries_the_mask(tmp_path, strategy):
    """Boundaries: the first label of every segment is -100, and no label is of another document."""
    settings = {"strategy": strategy, "overlong": "split", "max_len": 100}
    pack(tmp_path / "out", CHATS, **settings)
    whole = unpacked(pack(tmp_path / "whole", CHATS, strategy="pad").output)
    seen = 0
    for pack_row in load_from_disk(str(tmp_path / "out")):
        place = 0
        for source in pack_row["sources"]:
            ids, labels = (
                pack_row[name][place : place + source["end"] - source["start"]] for name in ("input_ids", "labels")
            )
            expected_ids, expected = (each[source["start"] : source["end"]] for each in whole[source["row"]])
            assert ids == expected_ids
            assert labels == [-100, *expected[1:]]
            place, seen = place + len(ids), seen + 1
    assert seen > 80


def test_compact_keeps_labels_that_carry_a_mask(tmp_path):
    pack(tmp_path / "all", CHATS)
    report = pack(tmp_path / "compact", CHATS, columns="compact")
    assert load_from_disk(str(tmp_path / "compact")).column_names == ["input_ids", "labels", "seq_lengths"]
    assert "packcli.load" in report.load_line
    for small, large in zip(packcli.load(tmp_path / "compact"), load_from_disk(str(tmp_path / "all")), strict=True):
        size = len(small["input_ids"])
        for name in ("input_ids", "labels", "position_ids"):
            assert small[name] == large[name][:size]


def test_same_bytes_for_any_workers_engine_and_resume(tmp_path):
    settings = {"unit_bytes": 8000, "val_fraction": 0.2, "max_len": 256}
    expected = tree_hash(pack(tmp_path / "1", CHATS, **settings).output)
    assert tree_hash(pack(tmp_path / "2", CHATS, **settings, workers=2).output) == expected
    assert tree_hash(pack(tmp_path / "3", CHATS, **settings, tokenizer_engine="tokenizers").output) == expected
    assert pack(tmp_path / "1", CHATS, **settings).status == "up to date"


def test_the_day_of_the_first_run_is_kept(tmp_path, monkeypatch):
    template = tmp_path / "t.jinja"
    template.write_text("{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    settings = {"chat_template": str(template), "loss": "all"}
    pack(tmp_path / "out", CHATS, **settings, date="2001-02-03")
    first = tree_hash(tmp_path / "out")
    assert pack(tmp_path / "out", CHATS, **settings).status == "up to date"
    assert tree_hash(tmp_path / "out") == first
    with pytest.raises(errors.MismatchError, match='date was "2001-02-03"'):
        pack(tmp_path / "out", CHATS, **settings, date="2001-02-04")


def test_a_template_that_cannot_be_used_leaves_no_trace(tmp_path):
    """The hint would lead to an output that belongs to another run."""
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] | upper if m['role'] == 'assistant' and not loop.last else m['content'] }}"
        "<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    settings = {"chat_template": str(template)}
    with pytest.raises(errors.UsageError, match=r"chat\.jsonl:1: the chat template rewrites earlier turns"):
        pack(tmp_path / "out", CHATS, **settings)
    report = pack(tmp_path / "out", CHATS, **settings, loss="last-assistant")
    answers = [row["messages"][-1]["content"] + "<|im_end|>" for row in rows_of(CHATS)]
    engine = Oracle(BUILTIN)
    documents = unpacked(report.output)
    for number, answer in enumerate(answers):
        assert [engine.decode(run) for run in runs(documents[number][1])] == [answer]


def test_chatml_needs_its_tokens(tmp_path):
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    text = BUILTIN.read_text(encoding="utf-8").replace("<|im_start|>", "<|begin_turn|>")
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    settings = {"tokenizer": str(directory)}
    with pytest.raises(errors.TokenizerError, match="has no chat template"):
        pack(tmp_path / "out", CHATS, **settings)
    with pytest.raises(errors.TokenizerError, match=r"writes <\|im_start\|>, which is no special token of tokenizer"):
        pack(tmp_path / "out", CHATS, **settings, chat_template="chatml")
    (directory / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    )
    warned = []
    pack(tmp_path / "out", CHATS, **settings, on_event=warned.append)
    assert any("no control token of this tokenizer" in getattr(event, "message", "") for event in warned)


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9))))
def test_counts_of_loss_equal_a_slow_twin(mask, ranges):
    ranges = sorted((min(start, len(mask)), min(start + size, len(mask))) for start, size in ranges)
    found = _count_true(np.array(mask), *(np.array([each[i] for each in ranges], dtype=np.int64) for i in (0, 1)))
    assert found.tolist() == [sum(mask[start:end]) for start, end in ranges]


# Against slow twins.


def slow_rows(plan, documents, pad):
    """Labels and ids of every pack, one token at a time."""
    for first, last in zip(plan.pack_offsets[:-1], plan.pack_offsets[1:], strict=True):
        ids, labels = [], []
        for segment in plan.order[first:last]:
            doc, start = int(plan.segments.doc[segment]), int(plan.segments.start[segment])
            for at in range(start, start + int(plan.segments.length[segment])):
                token, has_loss = documents[doc][at]
                ids.append(token)
                labels.append(token if has_loss and at != start else -100)
        rest = plan.max_len - len(ids)
        yield ids + [pad] * rest, labels + [-100] * rest


DOCUMENTS = st.lists(
    st.lists(st.tuples(st.integers(2, 99), st.booleans()), min_size=1, max_size=20), min_size=1, max_size=12
)


@settings(max_examples=60, derandomize=True)
@given(DOCUMENTS, st.integers(2, 12), st.sampled_from(sorted(STRATEGIES)))
def test_assembled_masks_equal_a_slow_twin(documents, max_len, strategy):
    lengths = np.array([len(each) for each in documents], dtype=np.int64)
    flat = [pair for each in documents for pair in each]
    ids, loss = np.array([t for t, _ in flat], dtype=np.uint32), np.array([b for _, b in flat], dtype=np.bool_)
    plan = make_plan(lengths, max_len, strategy=strategy)
    origin = Origin(np.zeros(len(lengths), dtype=np.int32), np.arange(len(lengths)))
    layout = RowLayout(columns=("input_ids", "labels"), pad_id=1, isolate=True, ragged=False)
    offsets = np.cumsum(lengths) - lengths
    (batch,) = Assembler(plan, ids, offsets, origin, layout, loss).batches()
    found = zip(
        batch.input_ids.values.reshape(-1, max_len).tolist(),
        batch.labels.values.reshape(-1, max_len).tolist(),
        strict=True,
    )
    assert [tuple(each) for each in found] == [tuple(each) for each in slow_rows(plan, documents, 1)]
