"""Every figure of a report equals a recount from raw rows and documents, by code that shares nothing with packcli."""

import json

import numpy as np
import pyarrow as pa
import pytest
from helpers import SAMPLE
from slow_recount import chat_of, differences, prompt_of
from tokenizer_files import Oracle
from typer.testing import CliRunner

import packcli
from packcli import cli
from packcli.dataset import Stats, measure_baselines
from packcli.dataset.derived import BASELINES
from packcli.packing.strategies import STRATEGIES
from packcli.report import recount
from packcli.report.recount import COUNTED


def lengths_of(texts, tokenizer_dir):
    """Tokens of each text by `tokenizers` alone, EOS included."""
    engine = Oracle(tokenizer_dir / "tokenizer.json")
    return [len(each.ids) + 1 for each in map(engine.encode, texts)]


@pytest.fixture(scope="module")
def documents(tokenizer_dir):
    texts = [json.loads(line)["text"] for line in SAMPLE.read_bytes().splitlines()]
    return lengths_of(texts, tokenizer_dir)


def pack(out, tokenizer_dir, inputs=str(SAMPLE), **settings):
    settings = {"max_len": 512, "workers": 1, "tokenizer": str(tokenizer_dir), "add_bos": False, **settings}
    return packcli.pack(inputs, out, **settings)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
def test_every_figure_is_what_the_rows_say(tmp_path, tokenizer_dir, documents, strategy, overlong):
    report = pack(tmp_path / "out", tokenizer_dir, strategy=strategy, overlong=overlong)
    wrong, num_compared, loss = differences(tmp_path / "out", documents, num_empty=0, num_special=1)
    assert not wrong
    assert num_compared > 30
    assert report.stats.num_tokens_loss == loss
    counted = recount(report)
    assert (counted.differences, counted.not_counted, counted.num_tokens_loss) == ({}, "", loss)
    assert len(counted.totals) == len(COUNTED)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)


def engine_of(tokenizer_dir):
    return Oracle(tokenizer_dir / "tokenizer.json")


def words(number):
    return " ".join(
        ["the cat", "sat on", "12 mats,", "\u00e9t\u00e9", "<|im_end|>"][place % 5] for place in range(number)
    )


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_masks_are_what_the_answers_say(tmp_path, tokenizer_dir, strategy):
    """Every label of every row; labels, words and losses by cause; for chats, and for prompts cut inside a token."""
    overlong = dict(zip(sorted(STRATEGIES), ["truncate", "split", "drop"] * 2, strict=True))[strategy]
    engine, source = engine_of(tokenizer_dir), tmp_path / "chat.jsonl"
    (tmp_path / "chatml.jinja").write_text(CHATML)
    chats = []
    for number in range(80):
        turns = [("user", words(number)), ("assistant", words(number % 9)), ("user", "on"), ("assistant", words(3))]
        chats.append([{"role": role, "content": text} for role, text in turns[: 1 if number % 8 == 7 else 4]])
    source.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    settings = {"strategy": strategy, "overlong": overlong, "max_len": 256}
    report = pack(
        tmp_path / "chats", tokenizer_dir, str(source), chat_template=str(tmp_path / "chatml.jinja"), **settings
    )
    documents = {(0, row): chat_of(engine, chat) for row, chat in enumerate(chats)}
    wrong, num_compared, loss = differences(tmp_path / "chats", documents)
    assert not wrong
    assert num_compared > 40
    assert report.stats.num_tokens_loss == loss > 500
    assert report.stats.num_documents_no_loss == 10
    assert set(report.stats.tokens_by_role) == {"user", "assistant"}
    assert not recount(report).differences

    rows = [{"prompt": f"{words(number)} th", "completion": f"e {words(number % 30)}"} for number in range(80)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = pack(tmp_path / "prompts", tokenizer_dir, str(tmp_path / "prompts.jsonl"), **settings)
    eos = engine.token_to_id("<|endoftext|>")
    documents = {(0, row): prompt_of(engine, each["prompt"], each["completion"], eos) for row, each in enumerate(rows)}
    wrong, _, loss = differences(tmp_path / "prompts", documents)
    assert not wrong
    assert report.stats.num_tokens_loss == loss > 500
    assert report.stats.num_prompts_cut > 40


def test_units_and_splits_are_summed(tmp_path, tokenizer_dir, documents):
    """Groups, batches and documents end with a unit; empty documents are counted."""
    source = tmp_path / "docs.jsonl"
    source.write_bytes(SAMPLE.read_bytes() + b'{"text": ""}\n{"text": ""}\n')
    report = pack(
        tmp_path / "out", tokenizer_dir, str(source), strategy="best-fit", unit_bytes=50_000, val_fraction=0.2
    )
    assert report.stats.num_parts > 3
    assert len(report.stats.by_split) == 2
    wrong, num_compared, _ = differences(tmp_path / "out", documents, num_empty=2, num_special=1)
    assert not wrong
    assert num_compared > 30
    assert not recount(report).differences


def test_compact_rows_tell_what_they_can(tmp_path, tokenizer_dir):
    report = pack(tmp_path / "out", tokenizer_dir, columns="compact")
    counted = recount(report)
    assert list(counted.totals) == ["num_packs"]
    assert counted.num_tokens_loss is None
    assert "sources" in counted.not_counted


def test_masks_are_counted_from_the_labels(tmp_path, tokenizer_dir):
    """More -100 than boundaries and padding: what masked chats look like."""
    report = pack(tmp_path / "out", tokenizer_dir)
    (shard,) = (tmp_path / "out").glob("*.arrow")
    with pa.OSFile(str(shard)) as file, pa.ipc.open_stream(file) as reader:
        schema, table = reader.schema, reader.read_all()
    labels = table.column("labels").to_pylist()
    expected = sum(label != -100 for row in labels for label in row)
    masked = [[-100 if place % 2 else label for place, label in enumerate(row)] for row in labels]
    left = sum(label != -100 for row in masked for label in row)
    assert left < expected * 0.6
    changed = table.set_column(1, schema.field("labels"), pa.array(masked, schema.field("labels").type))
    with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        writer.write_table(changed.cast(schema))
    assert recount(report).num_tokens_loss == left


def test_a_report_that_lies_is_found(tmp_path, tokenizer_dir):
    pack(tmp_path / "out", tokenizer_dir)
    path = tmp_path / "out" / "stats.json"
    content = json.loads(path.read_bytes())
    content["totals"]["num_segments"] += 1
    path.write_text(json.dumps(content))
    result = CliRunner().invoke(cli.app, ["stats", str(tmp_path / "out"), "--recount"], env={"COLUMNS": "200"})
    assert result.exit_code == 3
    assert "num_segments" in result.stderr
    found = CliRunner().invoke(cli.app, ["stats", str(tmp_path / "out"), "--recount", "--json"])
    assert list(json.loads(found.stdout)["recount"]["differences"]) == ["num_segments"]


def test_a_damaged_shard_is_an_error_with_its_name(tmp_path, tokenizer_dir):
    pack(tmp_path / "out", tokenizer_dir)
    (shard,) = (tmp_path / "out").glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-2000])
    result = CliRunner().invoke(cli.app, ["stats", str(tmp_path / "out"), "--recount"], env={"COLUMNS": "200"})
    assert result.exit_code == 6
    assert shard.name in result.stderr


def test_layouts_by_hand():
    """The example of the module: rows of 3, 9, 4, 1 tokens."""
    found = measure_baselines(np.array([3, 9, 4, 1]), 10)
    assert set(found) == set(BASELINES)
    assert all(found[name] == {"num_positions": 36, "sum_squared_rows": 324} for name in BASELINES)
    many = measure_baselines(np.array([3, 9, 4, 1, 2, 2, 2, 2, 25, 0, 5]), 10)
    # rows in order: 3 9 4 1 2 2 2 2 | 10 10 5 5; sorted: 1 2 2 2 2 3 4 5 | 5 9 10 10
    assert many["batch-8"] == {"num_positions": 8 * 9 + 4 * 10, "sum_squared_rows": 8 * 81 + 4 * 100}
    assert many["sorted-8"] == {"num_positions": 8 * 5 + 4 * 10, "sum_squared_rows": 8 * 25 + 4 * 100}
    assert many["batch-32"] == many["sorted-32"] == {"num_positions": 120, "sum_squared_rows": 1200}
    assert measure_baselines(np.array([], dtype=np.int64), 10)["batch-8"] == {"num_positions": 0, "sum_squared_rows": 0}


def test_layouts_add_up():
    one, other = (
        Stats(layouts=measure_baselines(np.array([3, 9]), 10)),
        Stats(layouts=measure_baselines(np.array([4]), 10)),
    )
    assert (one + other).layouts["batch-8"] == {"num_positions": 22, "sum_squared_rows": 178}
    assert (Stats() + one).layouts == one.layouts
