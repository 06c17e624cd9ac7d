"""Text that spells control tokens, over the kinds of tokenizers that there are, in every worker.

The suite makes small tokenizers of these kinds; PACKCLI_TOKENIZERS names a directory that holds the real ones.
"""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
from datasets import load_from_disk
from tokenizer_files import Oracle, added, sentencepiece, with_controls

import packcli

KINDS = {
    "gpt2": ["<|endoftext|>"],
    "dolma2": ["<|endoftext|>", "<|fim_prefix|>", "<|im_end|>", "<|pad|>"],
    "neox20b": ["<|endoftext|>", "<|padding|>"],
    "llama2": ["</s>", "<s>", "<unk>"],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"],
}
"""Kind of tokenizer -> its control tokens, EOS first."""


def make(kind, directory):
    """A tokenizer with the front, the model and the control tokens of a kind: a small one, or the real one."""
    controls = KINDS[kind]
    if "PACKCLI_TOKENIZERS" in os.environ:
        directory.mkdir()
        shutil.copy(Path(os.environ["PACKCLI_TOKENIZERS"], kind, "tokenizer.json"), directory)
        data = json.loads((directory / "tokenizer.json").read_text())
        return directory, with_names(directory, data, controls)
    data = sentencepiece(controls) if kind == "llama2" else with_controls(controls)
    if kind == "neox20b":
        data["normalizer"] = {"type": "NFC"}
        first = len(data["model"]["vocab"])
        spaces = [" " * count for count in range(24, 1, -1)]
        data["added_tokens"] += [
            added(text, first + index, special=False, normalized=True) for index, text in enumerate(spaces)
        ]
    directory.mkdir()
    (directory / "tokenizer.json").write_text(json.dumps(data))
    return directory, with_names(directory, data, controls)


def with_names(directory, data, controls):
    """Names EOS and padding; only these controls are special."""
    for token in data["added_tokens"]:
        assert token["special"] or token["content"] not in controls
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": controls[0], "pad_token": controls[-1]}))
    return data


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


def pack_rows(tmp_path, directory, rows, engine, workers, max_len):
    """Packs records, one a pack, in several units, by as many workers as are asked for."""
    source = tmp_path / "data.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = packcli.pack(
        source,
        tmp_path / "out",
        tokenizer=str(directory),
        tokenizer_engine=engine,
        strategy="pad",
        max_len=max_len,
        workers=workers,
        unit_bytes=max_len,
    )
    assert report.run["workers"] == workers
    return report


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
    report = pack_rows(tmp_path, directory, [{"text": text} for text in texts], engine, workers, 1024)
    controls = {token["id"] for token in data["added_tokens"] if token["special"]}
    assert len(controls) >= len(KINDS[kind])
    reference = Oracle(data)
    rows = load_from_disk(str(report.output))
    assert len(rows) == 100
    for row in rows:
        length = row["seq_lengths"][0]
        *ids, eos = row["input_ids"][:length]
        assert eos == reference.token_to_id(KINDS[kind][0])
        assert not controls & set(ids)
        assert reference.decode(ids) == texts[row["sources"][0]["row"]]
    assert report.stats.num_eos_in_documents == 0


@pytest.mark.parametrize(
    ("kind", "engine", "workers"),
    [(kind, engine, 1) for kind in KINDS for engine in ("auto", "tokenizers")]
    + [("chatml", "auto", 2), ("gpt2", "tokenizers", 2)],
)
def test_no_spelling_in_a_chat_becomes_a_control_token(tmp_path, kind, engine, workers):
    """The only control tokens of a conversation are those that the template writes, whoever speaks."""
    directory, data = make(kind, tmp_path / "model")
    texts = spellings(KINDS[kind])
    begin, end = KINDS[kind][-1], KINDS[kind][0]
    template = "{% for m in messages %}{{ '" + begin + "' + m.role + ': ' + m.content + '" + end + "' }}{% endfor %}"
    (directory / "chat_template.jinja").write_text(template)
    turns = [[("system", text), ("user", text), ("assistant", "the cat " + text)] for text in texts]
    chats = [{"messages": [{"role": role, "content": content} for role, content in turn]} for turn in turns]
    report = pack_rows(tmp_path, directory, chats, engine, workers, 4096)
    reference = Oracle(data)
    controls = {token["id"] for token in data["added_tokens"] if token["special"]}
    marks = [reference.token_to_id(begin), reference.token_to_id(end)]
    rows = load_from_disk(str(report.output))
    assert len(rows) == 100
    for row in rows:
        ids = row["input_ids"][: row["seq_lengths"][0]]
        number = row["sources"][0]["row"]
        assert [each for each in ids if each in controls] == marks * 3, texts[number]
        whole = "".join(f"{begin}{role}: {content}{end}" for role, content in turns[number])
        # A decoder that strips the space at the front does so behind every control token: only words count here.
        assert reference.decode(ids).replace(" ", "") == whole.replace(" ", "")


def test_allowed_they_become_control_tokens(tmp_path):
    directory, data = make("chatml", tmp_path / "model")
    id_of = {token["content"]: token["id"] for token in data["added_tokens"]}
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
    assert (ids[1], ids[3]) == (id_of["<|im_end|>"], id_of["<|endoftext|>"])
    assert report.stats.num_eos_in_documents == 1
