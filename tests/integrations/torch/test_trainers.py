"""packcli.training in real models: every document of a pack gives the logits, the loss and the gradients that it gives
alone; and each combination that training.py refuses is one in which documents see each other."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from helpers import SAMPLE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers import modeling_flash_attention_utils as flash

import packcli
from packcli import errors
from packcli.training import check_batch, check_trainer, collator
from packcli.training.collate import ContaminationError

MAX_LEN = 96
IMPLEMENTATIONS = {"sdpa": "sdpa", "eager": "eager", "flex": "flex_attention", "flash": "flash_attention_2"}

pytestmark = pytest.mark.filterwarnings("default")  # what torch and transformers deprecate is not our matter


@pytest.fixture(scope="module")
def packed(tokenizer_dir, tmp_path_factory):
    """Sentences of sample_data, several a row, and rows with padding."""
    folder = tmp_path_factory.mktemp("packed")
    words = [word for line in SAMPLE.read_bytes().split(b"\n") if line for word in json.loads(line)["text"].split()]
    lengths = np.random.default_rng(0).integers(1, 9, 1000)
    ends = np.cumsum(lengths)
    texts = [" ".join(words[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
    (folder / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = {"max_len": MAX_LEN, "workers": 1, "tokenizer": str(tokenizer_dir), "tokenizer_engine": "tokenizers"}
    for columns in ("all", "compact"):
        packcli.pack(folder / "docs.jsonl", folder / columns, strategy="next-fit", columns=columns, **given)
    return folder


def spans(row):
    """Where each document of a row begins and ends; sources say so, and nothing that is under test."""
    ends = np.cumsum([source["end"] - source["start"] for source in row["sources"]]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


@pytest.fixture(scope="module")
def rows(packed):
    """Three rows of several documents, one of them with padding, and with a mask of the kind that prompts get."""
    data = [row for row in load_from_disk(str(packed / "all")) if len(row["sources"]) >= 3]
    short = [row for row in data if spans(row)[-1][1] < MAX_LEN]
    full = [row for row in data if spans(row)[-1][1] == MAX_LEN]
    chosen = [short[0], full[0], short[1]]
    chosen[0]["labels"][4:8] = [-100] * 4
    return chosen


def make_model(attention="sdpa", **settings):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=304,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=MAX_LEN,
        initializer_range=0.2,  # logits that documents can disturb
        **settings,
    )
    model = LlamaForCausalLM(config)
    model.config._attn_implementation = IMPLEMENTATIONS[attention]
    return model


def varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False
):
    """What flash_attn_varlen_func computes, for any device: [T, H, D] and the ends of documents."""
    at = torch.arange(q.shape[0])
    doc = torch.searchsorted(cu_seqlens_q[1:].contiguous(), at, right=True)
    seen = (doc[:, None] == doc[None]) & (at[:, None] >= at[None])
    heads = (each.transpose(0, 1)[None] for each in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=seen, scale=softmax_scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def dense(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    heads = (each.transpose(1, 2) for each in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads, is_causal=causal, scale=softmax_scale, enable_gqa=True
    )
    return out.transpose(1, 2)


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """The kernels of FlashAttention need a GPU; all that Transformers does around them runs here."""
    monkeypatch.setattr(flash, "_loaded_implementation", "flash_attention_2")
    monkeypatch.setattr(flash, "_flash_fn", dense)
    monkeypatch.setattr(flash, "_flash_varlen_fn", varlen)
    monkeypatch.setattr(flash, "_process_flash_kwargs_fn", flash._lazy_define_process_function(varlen))
    monkeypatch.setattr(flash, "_process_with_kvcache_kwargs_fn", dict)


def alone(model, rows):
    """Every document on its own: its logits by (row, begin), and the sum of losses over all, with the count."""
    logits, total, count = {}, 0.0, 0
    for number, row in enumerate(rows):
        for begin, end in spans(row):
            ids, labels = (torch.tensor(row[name][begin:end]) for name in ("input_ids", "labels"))
            out = model(input_ids=ids[None], use_cache=False).logits[0]
            logits[number, begin] = out
            total = total + torch.nn.functional.cross_entropy(out[:-1], labels[1:], ignore_index=-100, reduction="sum")
            count += int((labels[1:] != -100).sum())
    assert count > 0
    return logits, total, count


def worst(model, rows, logits, expected):
    """The largest difference of a logit of any document from the one that it gives alone."""
    logits = logits.reshape(len(rows), MAX_LEN, -1)
    found = [
        (logits[number, begin:end] - expected[number, begin]).abs().max()
        for number, row in enumerate(rows)
        for begin, end in spans(row)
    ]
    assert len(found) >= len(rows)
    return float(torch.stack(found).detach().max())


def furthest(ours, theirs):
    return max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))


def gradients(model):
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


@pytest.mark.parametrize("attention", sorted(IMPLEMENTATIONS))
@pytest.mark.parametrize("batch_size", [1, 3])
def test_documents_of_a_pack_are_as_if_alone(attention, batch_size, rows):
    model = make_model(attention)
    assert model.config.use_cache  # as a model comes from the hub
    model.config._attn_implementation = "eager"
    expected, total, count = alone(model, rows)
    assert len(expected) >= 9
    assert count > 50
    total.backward()
    alone_gradients = gradients(model)
    model.config._attn_implementation = IMPLEMENTATIONS[attention]
    torch._dynamo.reset()  # a graph of flex for another batch size does not survive on a CPU
    model.requires_grad_(attention != "flex")  # compiled, it has no backward on a CPU: see test_gradients_of_flex
    collate = collator(attention)
    logits, loss = [], 0.0
    for first in range(0, len(rows), batch_size):
        batch = collate(rows[first : first + batch_size])
        check_batch(model, batch)
        out = model(**batch)
        logits.append(out.logits)
        kept = int((batch["labels"][:, 1:] != -100).sum())
        if attention != "flex":
            (out.loss * kept).backward()
        loss += float(out.loss.detach()) * kept
    assert worst(model, rows, torch.cat(logits).detach(), expected) < 1e-5
    assert abs(loss / count - float(total.detach()) / count) < 1e-5
    if attention != "flex":
        assert furthest(gradients(model), alone_gradients) / count < 1e-6


@pytest.fixture
def dense_flex(monkeypatch):
    """flex_attention in its dense form, which is all that torch has of its backward on a CPU, and refuses to be asked
    for; the masks that it was called with."""
    from torch.nn.attention import flex_attention as module

    masks = []

    def dense_form(*tensors, training=False, **given):
        masks.append(given["block_mask"])
        return module.flex_attention(*tensors, **given)

    monkeypatch.setattr(module, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", dense_form)
    torch._dynamo.reset()
    return masks


@pytest.mark.parametrize("layout", ["batch of 1", "batch of 3", "three rows as one"])
def test_gradients_of_flex(layout, rows, dense_flex):
    """With the mask_mod that Transformers makes of our positions, in float32; and the blocks that kernels would pass
    over hold nothing that the mask lets through. What a GPU's kernels make of both is not tested."""
    from torch.nn.attention.flex_attention import create_mask

    model = make_model("eager")
    expected, total, count = alone(model, rows)
    total.backward()
    alone_gradients = gradients(model)
    model.config._attn_implementation = "flex_attention"
    given = rows
    if layout == "three rows as one":  # more than a block of 128
        given = [{name: sum((row[name] for row in rows), []) for name in ("input_ids", "labels", "position_ids")}]
    size = 1 if layout == "batch of 1" else len(given)
    logits = []
    for first in range(0, len(given), size):
        batch = collator("flex")(given[first : first + size])
        check_batch(model, batch)
        out = model(**batch)
        logits.append(out.logits.detach())
        (out.loss * int((batch["labels"][:, 1:] != -100).sum())).backward()
    assert worst(model, rows, torch.cat(logits), expected) < 1e-5
    assert furthest(gradients(model), alone_gradients) / count < 1e-6
    num_passed_over = 0
    for mask in dense_flex:
        batch_size, _, length, _ = mask.shape
        lets_through = create_mask(mask.mask_mod, batch_size, 1, length, length, device="cpu")
        blocks = mask.to_dense().bool()
        in_block = blocks.repeat_interleave(mask.BLOCK_SIZE[0], 2).repeat_interleave(mask.BLOCK_SIZE[1], 3)
        assert not (lets_through & ~in_block[:, :, :length, :length]).any()
        num_passed_over += int((~blocks).sum())
    assert len(dense_flex) == 2 * len(logits)  # a layer each
    assert (num_passed_over > 0) == (layout == "three rows as one")


FORCED = {
    "attention mask, sdpa": ("sdpa", 1, {"attention_mask": 1}, "attention_mask"),
    "attention mask, eager": ("eager", 3, {"attention_mask": 1}, "attention_mask"),
    "attention mask, flex": ("flex", 3, {"attention_mask": 1}, "attention_mask"),
    "cache, sdpa": ("sdpa", 3, {"use_cache": None}, "use_cache"),
    "no positions, sdpa": ("sdpa", 3, {"position_ids": None}, "position_ids"),
    "no positions, flash": ("flash", 1, {"position_ids": None, "cu_seq_lens_q": None}, "position_ids"),
    "flash without lengths": ("flash", 3, {"cu_seq_lens_q": None}, "batch size 3"),
    "flash, attention mask": ("flash", 3, {"attention_mask": 1, "cu_seq_lens_q": None}, "attention_mask"),
}


def test_a_model_that_does_not_say_its_attention_is_refused(rows):
    """Transformers has no public name for it: under another one, every batch for FlashAttention would pass."""
    with pytest.raises(errors.UsageError, match="does not say which attention it uses"):
        check_batch(SimpleNamespace(config=SimpleNamespace(use_cache=False)), collator("sdpa")(rows))
    wrapped = SimpleNamespace(module=make_model("sdpa"))  # as DistributedDataParallel does
    check_batch(wrapped, collator("sdpa")(rows))


@pytest.mark.parametrize("case", FORCED)
def test_what_is_refused_would_contaminate(case, rows):
    attention, batch_size, changes, message = FORCED[case]
    model = make_model(attention)
    rows = rows[:batch_size]
    model.config._attn_implementation = "eager"
    expected, _, _ = alone(model, rows)
    model.config._attn_implementation = IMPLEMENTATIONS[attention]
    batch = collator(attention)(rows)
    check_batch(model, batch)
    for name, value in changes.items():
        if name == "attention_mask":
            batch[name] = torch.ones_like(batch["input_ids"])
        elif value is None:
            del batch[name]
        else:
            batch[name] = value
    with pytest.raises(ContaminationError, match=message):
        check_batch(model, batch)
    with torch.no_grad():
        logits = model(**batch).logits
    assert worst(model, rows, logits, expected) > 1e-2


def arguments(folder, **settings):
    given = {"max_steps": -1, "num_train_epochs": 1, "learning_rate": 0.0, "report_to": [], "use_cpu": True}
    given |= {"save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return {"output_dir": str(folder), **given, **settings}


def mean_losses(model, rows, batch_size):
    """The loss of each batch, from its documents alone."""
    with torch.no_grad():
        found = [alone(model, rows[first : first + batch_size]) for first in range(0, len(rows), batch_size)]
    return [float(total) / count for _, total, count in found]


def in_order(trainer):
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    return trainer


@pytest.mark.parametrize("attention", sorted(IMPLEMENTATIONS))
@pytest.mark.parametrize("batch_size", [1, 3])
def test_two_lines_train_a_transformers_model(attention, batch_size, packed, tmp_path, dense_flex):
    """Full and compact directories; the Trainer takes away the columns that the model does not know."""
    model = make_model("eager")
    stored = list(load_from_disk(str(packed / "all")).select(range(6)))
    expected = np.mean(mean_losses(model, stored, batch_size))
    model.config._attn_implementation = IMPLEMENTATIONS[attention]
    given = TrainingArguments(**arguments(tmp_path, per_device_train_batch_size=batch_size))
    for columns in ("all", "compact"):
        data = packcli.load(packed / columns).select(range(6))
        trainer = in_order(Trainer(model, given, train_dataset=data, data_collator=collator(attention)))
        check_trainer(trainer)
        assert abs(trainer.train().training_loss - expected) < 1e-5


def test_a_default_collator_does_for_full_rows_but_for_flash(packed, tmp_path):
    model = make_model("sdpa")
    given = TrainingArguments(**arguments(tmp_path, per_device_train_batch_size=3))
    trainer = Trainer(model, given, train_dataset=packcli.load(packed / "compact"))
    before = torch.random.get_rng_state()
    check_trainer(trainer)
    assert torch.equal(torch.random.get_rng_state(), before)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ContaminationError, match="batch size 3"):
        check_trainer(trainer)
    model.config._attn_implementation = "sdpa"
    given = TrainingArguments(**arguments(tmp_path, per_device_train_batch_size=3, use_cache=True))
    with pytest.raises(ContaminationError, match="use_cache"):
        check_trainer(Trainer(model, given, train_dataset=packcli.load(packed / "compact")))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_dir / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def sft_trainer(model, data, tokenizer, folder, **settings):
    from trl import SFTConfig, SFTTrainer

    if data.format["type"] == "custom":  # rows that packcli makes on the fly: TRL wants to be told that they are ready
        settings["dataset_kwargs"] = {"skip_prepare_dataset": True}
    given = {"per_device_train_batch_size": 3, "packing": False, "padding_free": True, "max_length": None}
    config = SFTConfig(**arguments(folder, **{**given, **settings}), bf16=False, gradient_checkpointing=False)
    return in_order(SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer))


@pytest.mark.parametrize("columns", ["all", "compact"])
@pytest.mark.parametrize("attention", ["sdpa", "flash"])
def test_trl_padding_free(columns, attention, packed, tokenizer, tmp_path):
    model = make_model("eager")
    stored = list(load_from_disk(str(packed / "all")).select(range(6)))
    expected, total, count = alone(model, stored[:3])
    total.backward()
    alone_gradients = gradients(model)
    means = mean_losses(model, stored, 3)
    model.config._attn_implementation = IMPLEMENTATIONS[attention]
    trainer = sft_trainer(model, packcli.load(packed / columns).select(range(6)), tokenizer, tmp_path)
    check_trainer(trainer)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape == (1, 3 * MAX_LEN)
    out = model(**batch)
    assert worst(model, stored[:3], out.logits.detach(), expected) < 1e-5
    assert abs(float(out.loss.detach()) - means[0]) < 1e-5
    out.loss.backward()
    assert furthest(gradients(model), [each / count for each in alone_gradients]) < 1e-6
    assert abs(trainer.train().training_loss - np.mean(means)) < 1e-5


@pytest.mark.parametrize("change", ["padding_free", "seq_lengths"])
def test_trl_refused_and_forced(change, packed, tokenizer, tmp_path):
    model = make_model("sdpa")
    stored = list(load_from_disk(str(packed / "all")).select(range(3)))
    expected, _, _ = alone(model, stored)
    data = packcli.load(packed / "all").select(range(3))
    if change == "seq_lengths":
        data = data.remove_columns(["seq_lengths"])
    trainer = sft_trainer(model, data, tokenizer, tmp_path, padding_free=change != "padding_free")
    with pytest.raises(ContaminationError, match=change):
        check_trainer(trainer)
    with torch.no_grad():
        logits = model(**next(iter(trainer.get_train_dataloader()))).logits
    assert worst(model, stored, logits, expected) > 1e-2


@pytest.mark.parametrize("attention", ["sdpa", "flash"])
def test_one_graph_for_every_packing(attention, packed, monkeypatch):
    """Recompiling for every batch would cost more than packing saves."""
    # Warns that inputs are float32, which no graph can hold; real kernels get half precision, and no warning.
    monkeypatch.setattr(flash, "fa_peft_integration_check", lambda q, k, v, target_dtype=None: (q, k, v))
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model = make_model("eager")
    stored = list(load_from_disk(str(packed / "all")).select(range(40)))
    assert len({len(row["seq_lengths"]) for row in stored}) > 3
    batches = [stored[first : first + 2] for first in range(0, 40, 2)]
    expected = [mean_losses(model, rows, 2)[0] for rows in batches]
    model.config._attn_implementation = IMPLEMENTATIONS[attention]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    settings = {"max_docs_per_row": max(len(row["seq_lengths"]) for row in stored)} if attention == "flash" else {}
    collate = collator(attention, **settings)
    for rows, mean in zip(batches, expected, strict=True):
        with torch.no_grad():
            assert abs(float(compiled(**collate(rows)).loss) - mean) < 1e-5
    assert len(batches) == 20
    assert counter.frame_count == 1


def test_two_hundred_steps_packed_and_unpacked(packed):
    """The same documents a step, each on its own or in rows: the same curve, not only the same first loss."""
    unpacked = make_model("eager")
    model = copy.deepcopy(unpacked)
    model.config._attn_implementation = "sdpa"
    stored = list(load_from_disk(str(packed / "all")))
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-3) for each in (model, unpacked)]
    collate = collator("sdpa")
    curves = [[], []]
    for step in range(200):
        rows = [stored[(2 * step + at) % len(stored)] for at in range(2)]
        _, total, count = alone(unpacked, rows)
        losses = model(**collate(rows)).loss, total / count
        for curve, optimizer, loss in zip(curves, optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
    assert np.mean(curves[0][-20:]) < np.mean(curves[0][:20]) - 0.5  # it learned
    assert np.abs(np.subtract(*curves)).max() < 1e-4


def test_seq_idx_numbers_the_documents_of_a_row(rows):
    """Linear-attention layers reset their state where it changes."""
    batch = collator("flash", seq_idx=True)(rows)
    assert batch["seq_idx"].dtype == torch.int32
    for number, row in enumerate(rows):
        expected = np.repeat(np.arange(len(row["seq_lengths"])), row["seq_lengths"])
        assert batch["seq_idx"][number].tolist() == expected.tolist()
    assert batch["cu_seq_lens_q"].tolist() == [0, *np.cumsum([length for row in rows for length in row["seq_lengths"]])]
    assert (batch["max_length_q"], batch["max_length_k"]) == (MAX_LEN, MAX_LEN)


def test_positions_are_made_from_lengths(rows):
    bare = [{name: row[name] for name in ("input_ids", "labels", "seq_lengths")} for row in rows]
    for ours, theirs in zip(collator("flash")(bare).items(), collator("flash")(rows).items(), strict=True):
        assert ours[0] == theirs[0]
        assert torch.equal(torch.as_tensor(ours[1]), torch.as_tensor(theirs[1]))


def test_mistakes_are_named(rows):
    with pytest.raises(errors.UnknownNameError, match="did you mean 'flash'"):
        collator("flsh")
    with pytest.raises(errors.UsageError, match="max_docs_per_row is for flash"):
        collator("sdpa", max_docs_per_row=4)
    collate = collator("flash", max_docs_per_row=2)
    with pytest.raises(errors.UsageError, match="over max_docs_per_row=2"):
        collate(rows)
    for change, kind, message in (
        ({"attention_mask": [1] * MAX_LEN}, ContaminationError, "attention_mask"),
        ({"position_ids": None, "seq_lengths": None}, ContaminationError, "neither position_ids"),
        ({"labels": None}, errors.UsageError, "lack labels"),
        ({"position_ids": None, "seq_lengths": [3]}, errors.UsageError, "sum to 3"),
    ):
        row = {name: value for name, value in {**rows[0], **change}.items() if value is not None}
        with pytest.raises(kind, match=message):
            collator("sdpa")([row])
    with pytest.raises(errors.UsageError, match="different lengths"):
        collator("sdpa")([rows[0], {name: value[:-1] for name, value in rows[1].items()}])


def test_tensors_are_packed_into_tensors():
    """The documented example of fast-axolotl, with the tensors that it shows."""
    sequences = [torch.tensor(each) for each in ([1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11, 12])]
    packed = packcli.pack_sequences(sequences, max_length=8, pad_token_id=0)
    assert packed.dtype == torch.int64
    assert packed.tolist() == [[1, 2, 3, 4, 5, 0, 0, 0], [6, 7, 8, 9, 10, 11, 12, 0]]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        stream = [{"input_ids": list(range(1, 2 + at % 17))} for at in range(200)]
        for each in packcli.stream_packs(stream, 32, buffer_size=40, carry=True):
            yield list(each.sources)


def test_a_stream_is_the_same_for_any_number_of_workers():
    alone = list(Stream())
    for num_workers in (1, 2, 3):
        loader = torch.utils.data.DataLoader(Stream(), batch_size=None, num_workers=num_workers)
        assert list(loader) == alone
