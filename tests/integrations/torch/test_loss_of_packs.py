"""Packed rows in a real model: the loss is that of the separate documents. `make integration-torch`.

Without it, documents of a pack could see each other, or labels be off by one, and every other test would still pass.
"""

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from helpers import SAMPLE
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, default_data_collator

import packcli

MAX_LEN = 128
COLUMNS = ["input_ids", "labels", "position_ids"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=32768,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_LEN,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module", params=["concat", "best-fit"])
def packed(request, tmp_path_factory):
    output = tmp_path_factory.mktemp("packed") / "out"
    packcli.pack(SAMPLE, output, max_len=MAX_LEN, strategy=request.param, workers=1)
    return load_from_disk(str(output))


def separate_loss(model, rows):
    """Mean loss over every token that has one before it in its own segment, each segment on its own."""
    total, count = 0.0, 0
    for row in rows:
        ends = np.cumsum([source["end"] - source["start"] for source in row["sources"]])
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            ids = torch.tensor([row["input_ids"][begin:end]])
            if ids.shape[1] > 1:
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
                total, count = total + loss.item() * (ids.shape[1] - 1), count + ids.shape[1] - 1
    assert count > 100
    return total / count


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_loss_of_packs_is_the_loss_of_their_documents(model, packed, batch_size):
    indices = [*range(8), *range(len(packed) - 4, len(packed))]  # the last ones hold padding
    rows = packed.select(indices)
    batches = [
        default_data_collator(list(rows.select(range(at, at + batch_size)).with_format("torch", columns=COLUMNS)))
        for at in range(0, len(rows), batch_size)
    ]
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            kept = int((batch["labels"][:, 1:] != -100).sum())
            total, count = total + model(**batch, use_cache=False).loss.item() * kept, count + kept
        assert abs(total / count - separate_loss(model, rows)) < 1e-4


def test_trainer_takes_the_directory_as_it_is(model, packed, tmp_path):
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, max_steps=2, report_to=[], use_cpu=True, save_strategy="no"
    )
    trainer = Trainer(model, arguments, train_dataset=packed.with_format("torch", columns=COLUMNS))
    assert np.isfinite(trainer.train().training_loss)


def test_the_classic_stream_is_one_document_to_the_model(model, tmp_path):
    """--no-isolate: positions run through, so the loss is that of the row as one text."""
    packcli.pack(SAMPLE, tmp_path / "out", max_len=MAX_LEN, isolate=False, workers=1)
    rows = load_from_disk(str(tmp_path / "out")).select(range(4)).with_format("torch", columns=COLUMNS)
    batch = default_data_collator(list(rows))
    with torch.no_grad():
        loss = model(**batch, use_cache=False).loss
        plain = model(input_ids=batch["input_ids"], labels=batch["input_ids"], use_cache=False).loss
    assert abs(loss - plain) < 1e-5
