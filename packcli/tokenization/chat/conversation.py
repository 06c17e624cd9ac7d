"""Records of the known shapes -> conversations and prompts. What is wrong with a record is a ValueError."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from packcli.tokenization.chat.render import ASSISTANT, Conversation
from packcli.tokenization.chat.turns import Message

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    ASSISTANT: ASSISTANT,
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "function_call": ASSISTANT,
}
"""ShareGPT's `from` -> role."""

FLAGS = ("train", "weight")
"""Keys of a message that say whether it carries loss."""

_COMMON_ROLES = frozenset(ROLES.values())
_ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ./:-]*")
_ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def alpaca_prompt(instruction: str, input_: str | None) -> str:
    """The prompt of Stanford's Alpaca, with or without an input."""
    if input_:
        return _ALPACA_INPUT.format(instruction=instruction, input=input_)
    return _ALPACA.format(instruction=instruction)


def make_conversation(
    messages: Any, tools: Any = None, variables: Any = None, *, system: str | None = None, completion: Any = None
) -> Conversation:
    """A conversation from the parts of a record; each part may also be JSON in a string.

    Args:
        messages: Objects with role and content, or with ShareGPT's from and value.
        tools: What the template gets as tools.
        variables: chat_template_kwargs.
        system: A system message to put first.
        completion: Messages that follow; `messages` are then the prompt.

    Raises:
        ValueError: what is wrong with it.
    """
    prompt = _messages(messages, "messages")
    if system:
        prompt = [{"role": "system", "content": system}, *prompt]
    whole = prompt if completion is None else [*prompt, *_messages(completion, "completion")]
    trained = None
    for message in whole:
        if "train" in message or "weight" in message:
            trained = tuple(_flag(each, index) is not False for index, each in enumerate(whole))
            whole = [{key: value for key, value in each.items() if key not in FLAGS} for each in whole]
            break
    parsed_tools = _parsed(tools, "tools", list)
    parsed_variables = _parsed(variables, "chat_template_kwargs", dict)
    return Conversation(
        whole, parsed_tools, parsed_variables or {}, trained, len(prompt) if completion is not None else None
    )


def _messages(value: Any, part: str) -> list[Message]:
    messages = _parsed(value, part, list)
    if messages is None:
        raise ValueError(f"{part} is missing")
    return [
        each
        if type(each) is dict and each.get("role") in _COMMON_ROLES and type(each.get("content")) is str  # as most are
        else _message(each, part, index)
        for index, each in enumerate(messages)
    ]


def _message(value: Any, part: str, index: int) -> Message:
    place = f"{part}[{index}]"
    if not isinstance(value, dict):
        raise ValueError(f"{place} is not an object")
    if "role" not in value and "from" in value:
        return _from_sharegpt(value, place)
    role = value.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise ValueError(f"{place} has no role: {role!r}" if role is not None else f"{place} has no role")
    content = value.get("content")
    if isinstance(content, list):
        for text_part in content:
            if not isinstance(text_part, dict) or not isinstance(text_part.get("text"), str):
                raise ValueError(f"{place} has content that is not text; packcli packs text only")
    elif content is not None and not isinstance(content, str):
        raise ValueError(f"{place} has content that is neither text nor a list of text parts")
    return value


def _from_sharegpt(value: Message, place: str) -> Message:
    known = ROLES.get(value["from"]) if isinstance(value["from"], str) else None
    if known is None:
        raise ValueError(f"{place} is from {value['from']!r}; known: {', '.join(ROLES)}")
    words = value.get("value", value.get("content"))
    if not isinstance(words, str):
        raise ValueError(f"{place} has no value that is text")
    rest = {key: each for key, each in value.items() if key not in ("from", "value", "content")}
    if value["from"] == "function_call":
        call = _call(words)
        if call is not None:
            return {"role": known, "content": "", "tool_calls": call, **rest}
    return {"role": known, "content": words, **rest}


def _call(words: str) -> list[dict[str, Any]] | None:
    """The tool calls of a ShareGPT function_call; None when it is not JSON of that kind."""
    try:
        calls = json.loads(words)
    except (ValueError, RecursionError):
        return None
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return [
        {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}
        for call in calls
    ]


def _flag(message: Mapping[str, Any], index: int) -> bool | None:
    """Whether the flags of a message say that it is trained on; None when it has no flag."""
    flags: list[bool] = []
    for key in FLAGS:
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise ValueError(f"message {index + 1} has {key} {value!r}; packcli takes true, false, 0 and 1")
        flags.append(bool(value))
    if not flags:
        return None
    trained = all(flags)
    if trained and message["role"] != ASSISTANT:
        raise ValueError(
            f"message {index + 1} ({message['role']}) has {_flag_of(message)} set: "
            "loss is on messages of the assistant only"
        )
    return trained


def _flag_of(message: Mapping[str, Any]) -> str:
    """The flag that a message has."""
    return next(key for key in FLAGS if message.get(key) is not None)


def _parsed(value: Any, part: str, kind: type) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{part} is a string, and not JSON: {error}") from None
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{part} is no {'list' if kind is list else 'object'}")
    return value
