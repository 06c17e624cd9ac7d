r"""Renders a skeleton once for each shape of conversation, and fills it in for all others of that shape.

The shape is the roles of the messages. Where the template only passes contents through, which `opaque` shows, what it
writes for a shape is always the same but for the contents themselves:

    shape      user, assistant
    skeleton   <|im_start|>user\n [0] <|im_end|>\n<|im_start|>assistant\n [1] <|im_end|>\n
    a span     from there                                                    to here ->|

Control tokens and spans of a skeleton come from the code that every conversation goes through, run on stand-ins.
They hold for any contents that neither spell a part of a control token nor are only white space; all other
conversations are rendered one by one. Before a skeleton is used it is compared with rendered conversations, and while
it is used one in CHECK_EVERY is compared again.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from packcli.tokenization.chat import render
from packcli.tokenization.chat.opaque import (
    FIRST_CORE,
    LAST_CORE,
    LEAD,
    TRAIL,
    DependsError,
    ProbeEnvironment,
    stand_in,
)
from packcli.tokenization.chat.protect import Controls
from packcli.tokenization.chat.render import Conversation, Rendered, RenderError, Rendering, clock, find_words
from packcli.tokenization.chat.sandbox import LIMITS, MAX_CHARS, LimitError
from packcli.tokenization.chat.template import TemplateSpec
from packcli.tokenization.chat.turns import RewrittenError

MAX_SHAPES = 256
"""Shapes that are remembered; conversations of others are rendered one by one."""
DRAW_AT = 32
"""Conversations of a shape that are rendered before its skeleton is made, which costs about as much as these."""
CHECK_EVERY = 256
"""One of so many conversations that are filled in is rendered as well, and compared."""
MAX_MESSAGES = 1000
"""Messages of a shape with a skeleton, at most: each needs a private-use character."""

_KEYS = ["role", "content"]
_CORE = f"[{chr(FIRST_CORE)}-{chr(LAST_CORE)}]"
_STAND_IN = re.compile(f"{LEAD}({_CORE}){TRAIL}|({_CORE})")
_PART_OF_ONE = re.compile(f"[{LEAD}{TRAIL}]|{_CORE}")

_AWKWARD = ("x", " x ", "\n\nx\n\n", "x\n", "é  ", "\u2003\u00a0x", "user", "assistant\n", "x\x00", "y" * 2000)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Skeleton:
    """What the template writes for a shape. Contents are numbered: as they are, then without white space around."""

    parts: tuple[str, ...]
    """Those of Rendered; of a part that holds contents, what stands before the first of them."""
    fills: tuple[tuple[int, tuple[tuple[int, str], ...]], ...]
    """For each part that holds contents: its index, and (content, what stands after it) for each of them."""
    order: tuple[int, ...]
    """The contents, in the order in which they stand in the text."""
    numbers: tuple[int, ...]
    spans: tuple[tuple[int, int, int, int], ...]
    """(characters of the template, contents) before the start, and before the end."""

    def fill(self, roles: Sequence[str], contents: list[str], words: list[str]) -> Rendered:
        """The rendered conversation; `words` are the contents without white space around."""
        values = contents + words
        parts = list(self.parts)
        for place, rest in self.fills:
            part = parts[place]
            for content, after in rest:
                part += values[content] + after
            parts[place] = part
        text = "".join(parts)
        sizes = [0, *itertools.accumulate([len(values[content]) for content in self.order])]
        spans = [(start + sizes[first], end + sizes[last]) for start, first, end, last in self.spans]
        role_places = find_words(zip(roles, words, strict=True), text)
        return Rendered(text, parts, list(self.numbers), spans, role_places)


class Renderer(render.TemplateRenderer):
    """Renders the conversations of a run, by skeletons where they hold.

    Args:
        spec: The template.
        controls: The control tokens.
        loss: all, completion, assistant or last-assistant.
        loss_on_eot: Whether the token that ends a turn carries loss; None: as generation tags say, else yes.

    Raises:
        TokenizerError: the template is no Jinja template.
    """

    def __init__(self, spec: TemplateSpec, controls: Controls, *, loss: str, loss_on_eot: bool | None) -> None:
        super().__init__(spec, controls, loss=loss, loss_on_eot=loss_on_eot)
        self._shapes: dict[tuple[str, ...], _Skeleton | int | None] = {}
        self.num_filled = 0
        """Conversations that were filled in."""
        # Without tags, --no-loss-on-eot looks for the words of a turn in the text.
        looks_for_words = loss_on_eot is False and not self._has_tags[spec.source]
        can_be = self._is_simple and (controls.protect or not controls.ids) and not looks_for_words
        self._probe: tuple[ProbeEnvironment, jinja2.Template] | None = None
        if can_be and not any("\0" in literal for literal in controls.ids):
            environment = ProbeEnvironment(clock(spec.date))
            with contextlib.suppress(DependsError, jinja2.TemplateError, RecursionError):
                self._probe = environment, environment.compiled(spec.source)

    def __call__(self, conversation: Conversation) -> Rendered:
        """Renders a conversation.

        Raises:
            RenderError: the template refuses it, exceeds its limits, or its turns cannot be told apart.
        """
        if self._probe is None:
            return super().__call__(conversation)
        filled = self._fill(conversation)
        if filled is None:
            return super().__call__(conversation)
        self.num_filled += 1
        if self.num_filled % CHECK_EVERY == 0 and filled != super().__call__(conversation):
            raise AssertionError(
                "a skeleton of the chat template differs from the template; please report the template"
            )
        return filled

    def _fill(self, conversation: Conversation) -> Rendered | None:
        """The conversation, filled into the skeleton of its shape; None where there is none, or it does not hold."""
        if (
            conversation.tools is not None
            or conversation.variables
            or conversation.trained is not None
            or conversation.num_prompt is not None
        ):
            return None
        roles, contents, words = [], [], []
        for message in conversation.messages:
            if [*message] != _KEYS:
                return None
            content = message["content"]
            stripped = content.strip() if type(content) is str else ""
            if not stripped:
                return None
            roles.append(message["role"])
            contents.append(content)
            words.append(stripped)
        shape = tuple(roles)
        skeleton = self._shapes.get(shape, 0)
        if isinstance(skeleton, int):
            if skeleton < DRAW_AT:
                if skeleton or len(self._shapes) < MAX_SHAPES:
                    self._shapes[shape] = skeleton + 1
                return None
            skeleton = self._shapes[shape] = self._draw(shape, contents)
        if skeleton is None or self._protector.text_needs_marks(contents):
            return None
        filled = skeleton.fill(roles, contents, words)
        return filled if len(filled.text) <= MAX_CHARS else None

    def _draw(self, shape: tuple[str, ...], contents: list[str]) -> _Skeleton | None:
        """Makes the skeleton of a shape and tries it with these contents; None where the template allows none."""
        if self._probe is None or len(shape) > MAX_MESSAGES or self._protector.needs_marks(shape):
            return None
        environment, template = self._probe
        messages = [{"role": role, "content": stand_in(index)} for index, role in enumerate(shape)]
        rendering = Rendering(environment, template, dict(self._spec.variables), None)
        try:
            with LIMITS:
                text, generated = rendering.tracked(messages)
                parts, numbers = self._cut(text)
                spans, _ = self._spans(
                    Conversation(messages), rendering, messages, _Beginning(text), generated, parts, numbers
                )
            skeleton = self._take_apart(len(shape), text, parts, numbers, spans)
            if skeleton is not None and self._agrees(skeleton, shape, contents):
                return skeleton
        except (DependsError, RenderError, RewrittenError, LimitError, MemoryError):
            pass
        return None

    def _take_apart(
        self, size: int, text: str, parts: list[str], numbers: list[int], spans: list[tuple[int, int]]
    ) -> _Skeleton | None:
        """The skeleton of rendered stand-ins; None when a control token or a span may depend on contents."""
        slots = [(each.start(), each.end(), _content(each, size)) for each in _STAND_IN.finditer(text)]
        edges = [0, *(edge for start, end, _ in slots for edge in (start, end)), len(text)]
        between = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        for index, constant in enumerate(between):
            if _PART_OF_ONE.search(constant) or not self._protector.stands_apart(
                constant, before=index < len(slots), after=index > 0
            ):
                return None
        starts, fills = [], []
        for place, part in enumerate(parts):
            stand_ins = list(_STAND_IN.finditer(part))
            if place % 2 and stand_ins:
                return None
            ends = [*(each.start() for each in stand_ins[1:]), len(part)]
            starts.append(part[: stand_ins[0].start()] if stand_ins else part)
            if stand_ins:
                pairs = zip(stand_ins, ends, strict=True)
                rest = [(_content(each, size), part[each.end() : end]) for each, end in pairs]
                fills.append((place, tuple(rest)))
        places = []
        for span in spans:
            counted: list[int] = []
            for position in span:
                if any(start < position < end for start, end, _ in slots):
                    return None
                before = [end - start for start, end, _ in slots if end <= position]
                counted += (position - sum(before), len(before))
            places.append((counted[0], counted[1], counted[2], counted[3]))
        return _Skeleton(
            parts=tuple(starts),
            fills=tuple(fills),
            order=tuple(content for _, _, content in slots),
            numbers=tuple(numbers),
            spans=tuple(places),
        )

    def _agrees(self, skeleton: _Skeleton, shape: tuple[str, ...], contents: list[str]) -> bool:
        """Whether the skeleton gives what rendering gives, for these contents and for awkward ones."""
        for trial in _trials(skeleton, contents):
            if self._protector.text_needs_marks(trial):
                continue
            messages = [{"role": role, "content": content} for role, content in zip(shape, trial, strict=True)]
            whole = super().__call__(Conversation(messages))
            if skeleton.fill(shape, trial, [content.strip() for content in trial]) != whole:
                return False
        return True


class _Beginning(str):
    """A rendering of stand-ins. A text that begins it does so for any contents; one that does not may for some."""

    __slots__ = ()

    def startswith(self, prefix: Any, *bounds: Any) -> bool:
        """True, or raises DependsError: never False."""
        if not str.startswith(self, prefix, *bounds):
            raise DependsError
        return True


def _content(match: re.Match[str], size: int) -> int:
    """The number of the content that a stand-in is for; a stand-in that was stripped counts from `size` on."""
    return ord(match[1]) - FIRST_CORE if match[1] else ord(match[2]) - FIRST_CORE + size


def _trials(skeleton: _Skeleton, contents: list[str]) -> Iterator[list[str]]:
    """Contents to try a skeleton with: as they came, all the same, awkward ones, and words of the template."""
    size = len(contents)
    yield contents
    yield [contents[0]] * size
    yield contents[::-1]
    own = {*skeleton.parts, *(after for _, rest in skeleton.fills for _, after in rest)}
    odd = [*_AWKWARD, *sorted(text for text in own if text.strip())[:16]]
    for first in range(len(odd)):
        yield [odd[(first + index) % len(odd)] for index in range(size)]
    for text in odd[:6]:
        yield [text] * size
