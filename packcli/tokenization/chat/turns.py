"""Loss spans for templates without `{% generation %}`: render turn by turn, and prove where each turn begins and ends.

For the assistant's message i, with R(n) the rendering of the first n messages and R+(n) the same with the header of the
assistant's next turn (add_generation_prompt):

    whole     <user>Hi</user><assistant>Hello</assistant>
    R+(i)     <user>Hi</user><assistant>                        must begin the whole: here the turn begins
    R(i + 1)  <user>Hi</user><assistant>Hello</assistant>       must begin the whole: here it ends

Where either is not so, the template rewrites what came before (some drop the reasoning of earlier turns). A mask
would be a guess then, so it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Message = dict[str, Any]
Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether to add the header of the assistant's next turn) -> text."""

WORDS = ("content", "reasoning_content", "thinking", "reasoning")
"""Keys of a message that hold its words."""

_ONE, _OTHER = "\ue000", "\ue001"


class RewrittenError(Exception):
    """What the template writes for the first messages is not the beginning of what it writes for all."""


def find_spans(
    render: Render, messages: Sequence[Message], whole: str, wanted: Iterable[int]
) -> list[tuple[int, int, int]]:
    """(message, start, end) of the turns that are wanted, in order; the header of the turn is left out.

    Raises:
        RewrittenError: the template rewrites earlier turns.
    """
    spans = []
    for index in wanted:
        start = _start(render, messages, index, whole)
        end = len(whole)
        if index + 1 < len(messages):
            after = render(messages[: index + 1], False)
            if not whole.startswith(after):
                raise RewrittenError(f"what it writes up to message {index + 1} is not how it begins with all of them")
            end = len(after)
        if end < start:
            raise RewrittenError(f"the turn of message {index + 1} ends before it begins")
        spans.append((index, start, end))
    return spans


def _start(render: Render, messages: Sequence[Message], index: int, whole: str) -> int:
    before = messages[:index]
    plain = render(before, False) if before else ""
    header = render(before, True) if before else ""
    if len(header) > len(plain) and whole.startswith(header):
        return len(header)
    if not whole.startswith(plain):
        raise RewrittenError(f"what it writes before message {index + 1} is not how it begins with all messages")
    # add_generation_prompt adds nothing, or something that the turn does not begin with (such as <think>): the header
    # is then what stays the same with two other texts in place of the assistant's words.
    message = messages[index]
    words = [key for key in WORDS if isinstance(message.get(key), str) and message[key]]
    if not words:
        if header == plain:
            return len(plain)
        raise RewrittenError(f"message {index + 1} does not begin as the generation prompt says")
    one, other = (render([*before, {**message, **dict.fromkeys(words, mark)}], False) for mark in (_ONE, _OTHER))
    start = common_length(one, other)
    if not whole.startswith(one[:start]) or start < len(plain):
        raise RewrittenError(f"what stands before the words of message {index + 1} depends on them")
    return start


def common_length(one: str, other: str) -> int:
    """How many characters both texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
