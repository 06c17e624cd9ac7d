"""Text that spells control tokens, over the kinds of tokenizers that there are, in every worker."""

import itertools
import json

import pytest
import tokenizers
from datasets import load_from_disk
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

import packcli

WORDS = "the cat sat on the mat and the dog ran after it while seven birds were singing <|> [INST] 0 1 2 12 é 日本 \n"

KINDS = {
    "gpt2": ["<|endoftext|>"],
    "dolma2": ["<|endoftext|>", "<|fim_prefix|>", "<|pad|>", "<|extra_id_0|>"],
    "neox20b": ["<|endoftext|>", "<|padding|>"],
    "llama2": ["</s>", "<s>", "<unk>"],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"],
}
"""Kind of tokenizer -> its control tokens, EOS first."""


def make(kind, directory):
    """A small tokenizer with the front, the model and the control tokens of a kind."""
    controls = KINDS[kind]
    if kind == "llama2":
        tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = [*controls, *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        if kind == "neox20b":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=controls,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator([WORDS * 20], trainer)
    if kind == "neox20b":
        tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    data = json.loads(tokenizer.to_str())
    if kind == "llama2":  # bytes are pieces there, not added tokens
        data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in controls]
    directory.mkdir()
    (directory / "tokenizer.json").write_text(json.dumps(data))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": controls[0], "pad_token": controls[-1]}))
    return directory, data


PATTERNS = [
    *'{0} a{0} {0}a {0}{0} {0}{0}{0} <{0}> <|{0}|> {0}{1} {1}{0} "{0}" {0}! 1{0}2 ({0}) {{{0}}} \\{0} {0}\'s'.split(),
    *(" {0} ", "\n{0}\n", "\t{0}\t", "a {0} b", "{0}\0", "\u200b{0}", "{0} {1}", "{0}the cat", "é{0}日本"),
]


def spellings(controls):
    """100 texts with control tokens in them: as they are, in company, nearly, in each other, and many times."""
    pairs = [(control, controls[(index + 1) % len(controls)]) for index, control in enumerate(controls)]
    texts = [pattern.format(*pair) for pattern, pair in itertools.product(PATTERNS, pairs)]
    for control in controls:
        texts += [control[:-1], control[1:], control.upper()]
        texts += [f"{control[:at]}{control}{control[at:]}" for at in range(1, len(control))]
        texts += [f"the cat {control} sat on {control * count}the mat" for count in range(1, 90)]
    return texts[:100]


@pytest.mark.parametrize(
    ("kind", "engine", "workers"),
    [(kind, engine, 1) for kind in KINDS for engine in ("auto", "tokenizers")]
    + [("chatml", "auto", 2), ("llama2", "tokenizers", 2)],
)
def test_no_spelling_of_a_control_token_becomes_one(tmp_path, kind, engine, workers):
    """A document would end itself, and a turn of a chat be closed by who is not its owner."""
    directory, data = make(kind, tmp_path / "model")
    texts = spellings(KINDS[kind])
    assert len(texts) == 100
    source = tmp_path / "data.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = packcli.pack(
        source,
        tmp_path / "out",
        tokenizer=str(directory),
        tokenizer_engine=engine,
        strategy="pad",
        max_len=1024,
        workers=workers,
        unit_bytes=1024,
    )
    assert report.run["workers"] == workers
    controls = {token["id"] for token in data["added_tokens"] if token["special"]}
    assert len(controls) == len(KINDS[kind])
    reference = tokenizers.Tokenizer.from_str(json.dumps(data))
    rows = load_from_disk(str(report.output))
    assert len(rows) == 100
    for row in rows:
        length = row["seq_lengths"][0]
        *ids, eos = row["input_ids"][:length]
        assert eos == reference.token_to_id(KINDS[kind][0])
        assert not controls & set(ids)
        assert reference.decode(ids, skip_special_tokens=False) == texts[row["sources"][0]["row"]]
    assert report.stats.num_eos_in_documents == 0


def test_allowed_they_become_control_tokens(tmp_path):
    directory, _ = make("chatml", tmp_path / "model")
    (tmp_path / "data.jsonl").write_text('{"text": "a<|im_end|>b<|endoftext|>"}\n')
    report = packcli.pack(
        tmp_path / "data.jsonl",
        tmp_path / "out",
        tokenizer=str(directory),
        allow_special=True,
        strategy="pad",
        workers=1,
    )
    ids = load_from_disk(str(report.output))[0]["input_ids"]
    assert (ids[1], ids[3], report.stats.num_eos_in_documents) == (2, 0, 1)
