"""Ids and masks of chats beside those of Transformers, on every template that TRL ships, and beside TRL's own
preprocessing for prompts. Needs transformers and trl, so `make integration-torch` runs it."""

import itertools
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import trl
from datasets import Dataset
from helpers import BUILTIN, ROOT
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from packcli import tokenization
from packcli.config import PackConfig
from packcli.errors import PackcliError
from packcli.readers import Fields
from packcli.tokenization import DocumentEncoder, RecordMarker, chat
from packcli.tokenization.chat import Renderer, render, skeleton

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Wéather of a <city>",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name"}},
                "required": ["city"],
            },
            "return": {"type": "string", "description": "what it is like"},
        },
    }
]


def call(arguments):
    return {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": arguments}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


CONVERSATIONS = {
    "single": [user("Hi"), assistant("Hello, you!")],
    "system": [{"role": "system", "content": "Be brief."}, user("a\n b "), assistant("c")],
    "turns": [user("One?"), assistant("1"), user(" Two? "), assistant("2\n\n2"), user("Three?"), assistant(" 3 ")],
    "tools": [
        user("Weather in Zürich?"),
        assistant("", tool_calls=[call({"city": "Zürich"})]),
        {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "sun"},
        assistant("Sunny."),
    ],
    "call with words": [
        {"role": "system", "content": "S"},
        user("Weather?"),
        assistant("I look.", tool_calls=[call({"city": "Bern", "days": 2})]),
        {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "rain"},
        assistant("Rain, alas."),
        user("Thanks"),
        assistant("No problem"),
    ],
    "reasoning": [user("17 * 24?"), assistant("408", reasoning_content="17 * 24 = 340 + 68")],
    "think tags": [user("2+2?"), assistant("<think>\nEasy.\n</think>\n\n4"), user("3+3?"), assistant("6")],
    "unicode": [user("Ünï 日本 👩‍👩‍👧‍👦 e\u0301 \u200b"), assistant("ﬁ 한국어 🇨🇭 \u0301x")],
    "empty content": [user(""), assistant("")],
    "no content": [user("call it"), assistant(None, tool_calls=[call({"city": "Genève"})])],
    "code": [user("```py\nx < 3 and y > 2\n```"), assistant("> quoted\n<b>no tag</b>")],
    "two systems": [{"role": "system", "content": "A"}, {"role": "system", "content": "B"}, user("q"), assistant("a")],
}


def control_literals(source):
    """What looks like a control token in a template, so that the tokenizer of this test has them all."""
    forms = r"<\|[\w:/ ]+\|>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|<\|\w+>|<\w+\|>|\[/?[A-Z_]+\]|<end_of_utterance>"
    return sorted({*re.findall(forms, source), "<s>", "</s>"})


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A tokenizer directory for each template: the builtin vocabulary, with the template's control tokens."""
    root = tmp_path_factory.mktemp("tokenizers")
    made = {}
    for path in TEMPLATES:
        source = path.read_text(encoding="utf-8")
        tokenizer = tokenizers.Tokenizer.from_file(str(BUILTIN))
        literals = control_literals(source)
        # Phi's tokens take the white space after them along, and <think> is a token that is not special.
        rstrip = path.stem.startswith("phi")
        tokenizer.add_special_tokens(
            [tokenizers.AddedToken(each, special=True, rstrip=rstrip, normalized=False) for each in literals]
        )
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
        directory = root / path.stem
        directory.mkdir()
        tokenizer.save(str(directory / "tokenizer.json"))
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<|pad|>", "chat_template": source}
        (directory / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}), encoding="utf-8"
        )
        made[path.stem] = directory
    return made


def make_maker(directory, format_="chat", loss="assistant", engine="fastokens"):
    """What makes documents of rows, with the tokenizer and the template of a directory."""
    config = PackConfig(tokenizer=str(directory), loss=loss).resolved(format_, "2026-01-31")
    spec = tokenization.find_tokenizer(config, allow_network=False)
    template = None
    parts = ("prompt", "completion", "tools", "chat_template_kwargs")
    if format_ == "chat":
        template = tokenization.find_template(None, directory, "test", "2026-01-31")
        parts = ("messages", "tools", "chat_template_kwargs")
    fields = Fields(parts, None, format_, tuple((part, part) for part in parts))
    made = tokenization.make_engine(engine, spec)
    return DocumentEncoder(RecordMarker(config, fields, spec, template), made, tokenization.SpotCheck(spec, made))


def ours(maker, messages, tools):
    """(ids, mask), or what is wrong."""
    try:
        batch = maker([(messages, tools, None)], lambda index: "row")
    except PackcliError as error:
        return str(error)
    if not batch.encoded:
        return [], []
    return batch.encoded[0].ids.tolist(), batch.encoded[0].loss.astype(int).tolist()


def theirs(tokenizer, messages, tools):
    try:
        out = tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return out["input_ids"], out["assistant_masks"]


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_ids_and_masks_are_those_of_transformers(path, directories, monkeypatch):
    source, directory = path.read_text(encoding="utf-8"), directories[path.stem]
    has_tags = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    freeze_date(monkeypatch)
    maker = make_maker(directory, loss="assistant" if has_tags else "all")
    compared = masked = 0
    for name, plain in CONVERSATIONS.items():
        # Templates of llava_next know content as a list of parts only.
        messages = [in_parts(each) for each in plain] if path.stem.startswith("llava_next") else plain
        for tools in (None, TOOLS):
            expected = theirs(tokenizer, messages, tools)
            found = ours(maker, [dict(each) for each in messages], tools)
            if isinstance(expected, str):
                assert isinstance(found, str), f"{name}: Transformers raises {expected}"
                continue
            assert not isinstance(found, str), f"{name}: {found}"
            assert found[0] == expected[0], f"{name}: ids"
            assert found[1] == (expected[1] if has_tags else [1] * len(found[0])), f"{name}: masks"
            compared, masked = compared + 1, masked + sum(found[1])
    assert compared >= 12
    assert masked > 50


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_skeletons_give_what_rendering_gives(path, monkeypatch):
    monkeypatch.setattr(skeleton, "DRAW_AT", 0)
    monkeypatch.setattr(Renderer, "_agrees", lambda *_: True)  # the proof alone
    source = path.read_text(encoding="utf-8")
    variables = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<|pad|>"}
    spec = tokenization.TemplateSpec(name=path.stem, source=source, variables=variables, date="2026-01-31")
    controls = chat.Controls(ids={each: number for number, each in enumerate(control_literals(source))})
    odd = [
        "x",
        " x ",
        "\n\nx\n",
        "é\u3000",
        "user",
        "assistant\n",
        "<think>\nx\n</think>\n\ny",
        "</think>",
        "x <|",
        "|> x",
    ]
    odd += ["<think>", "model\n", "System", "[INST]", ":", "x" * 3000, "\u2003\U000f0000\u2009", "<br>", "{}", ""]
    for loss, on_eot in itertools.product(("assistant", "last-assistant", "all"), (None, True, False)):
        fast, slow = (
            kind(spec, controls, loss=loss, loss_on_eot=on_eot) for kind in (Renderer, render.TemplateRenderer)
        )
        if fast._probe is None:  # nothing is ever filled in
            return
        for roles in (("user", "assistant"), ("system", "user", "assistant", "user", "assistant"), ("assistant",)):
            for first in range(len(odd)):
                contents = [odd[(first + 7 * index) % len(odd)] for index in range(len(roles))]
                messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
                assert rendered(fast, messages) == rendered(slow, messages)


def rendered(renderer, messages):
    try:
        return renderer(chat.make_conversation(messages))
    except chat.RenderError as error:
        return str(error)


def in_parts(message):
    if not isinstance(message["content"], str):
        return message
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def freeze_date(monkeypatch):
    """Templates that ask for the day get the same from both."""
    import datetime

    import transformers.utils.chat_template_utils as utils

    class Day(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 31)

    monkeypatch.setattr(utils, "datetime", Day)


PROMPTS = Path(os.environ.get("PACKCLI_PROMPTS", ROOT / "sample_data" / "prompt_completion.jsonl"))
"""A file of prompts and completions, or of questions and answers."""
TOKENIZERS = os.environ.get("PACKCLI_TOKENIZERS", str(BUILTIN.parent)).split(os.pathsep)


@pytest.mark.parametrize("directory", TOKENIZERS, ids=[Path(each).name for each in TOKENIZERS])
@pytest.mark.parametrize("joint", ["", " ", "\n"], ids=["nothing", "space", "newline"])
def test_prompt_masks_are_those_of_trl(directory, joint, monkeypatch):
    """Where they differ, TRL's prompt does not begin the whole, and ours counts it: there is no other reason."""
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").split("\n") if line]
    pairs = [(row.get("prompt", row.get("question")) + joint, row.get("completion", row.get("answer"))) for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    stub = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=True)
    args = SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=False,
        shuffle_dataset=False,
        max_length=None,
    )
    data = Dataset.from_dict({"prompt": [p for p, _ in pairs], "completion": [c for _, c in pairs]})
    trained = trl.SFTTrainer._prepare_dataset(stub, data, tokenizer, args, False, None, "train")
    maker = make_maker(Path(directory), "prompt-completion", "completion")
    num_different = num_cut = 0
    for (prompt, completion), expected in zip(pairs, trained, strict=True):
        batch = maker([(prompt, completion, None, None)], lambda index: "row")
        ids = batch.encoded[0].ids.tolist()
        labels = [token if kept else -100 for token, kept in zip(ids, batch.encoded[0].loss.tolist(), strict=True)]
        assert ids == list(expected["input_ids"])
        num_cut += batch.num_cut_prompts
        if labels != list(expected["labels"]):
            assert batch.num_cut_prompts == 1, (prompt, completion)
            num_different += 1
    print(f"{Path(directory).name} {joint!r}: {len(pairs)} rows, {num_different} masks differ, {num_cut} prompts cut")
    assert len(pairs) > 100
