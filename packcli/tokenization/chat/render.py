"""A conversation and a template -> text, with its control tokens and loss spans."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from packcli.errors import PackcliError, TokenizerError
from packcli.tokenization.chat.protect import Controls, Marks, Protector
from packcli.tokenization.chat.sandbox import LIMITS, MAX_CHARS, Environment, LimitError
from packcli.tokenization.chat.template import TemplateSpec
from packcli.tokenization.chat.turns import WORDS, Message, RewrittenError, common_length, find_spans

ASSISTANT = "assistant"

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_REASONING = frozenset({"reasoning_content", "thinking", "reasoning"})
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template"})
_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES = re.compile(f"[{_SPACE}]*")
_SPACES_AT_END = re.compile(f"[{_SPACE}]+\\Z")


class RenderError(Exception):
    """The template refuses the conversation, or no mask can be proven; `is_template`: not because of this record."""

    def __init__(self, message: str, hint: str = "", *, is_template: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.is_template = is_template


@dataclass(slots=True)
class Conversation:
    """One record, as a template takes it."""

    messages: list[Message]
    tools: list[Any] | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    """chat_template_kwargs of the record."""
    trained: tuple[bool, ...] | None = None
    """For each message whether it may carry loss; None: all may."""
    num_prompt: int | None = None
    """Messages that are prompt, when the record has a prompt and a completion."""


@dataclass(slots=True)
class Rendered:
    """A rendered conversation. Positions are characters of `text`; ranges are half open, in order, and apart."""

    text: str
    parts: list[str]
    """The text, cut at its control tokens: text and control token in turn, text first and last, which may be empty."""
    numbers: list[int]
    """The id of each control token."""
    spans: list[tuple[int, int]]
    """What carries loss."""
    roles: list[tuple[str, int, int]]
    """(role, start, end) of the messages' words."""
    has_literals: bool = False
    """Whether a string of the record spells a control token, or begins or ends with a part of one."""
    prompt_differs: bool = False
    """Whether the prompt, rendered on its own, is not the beginning of the whole text."""

    @property
    def controls(self) -> list[tuple[int, int, int]]:
        """(start, end, id) of every control token."""
        return _places(self.parts, self.numbers)


class TemplateRenderer:
    """Renders the conversations of a run, each by the template.

    Args:
        spec: The template.
        controls: The control tokens.
        loss: all, completion, assistant or last-assistant.
        loss_on_eot: Whether the token that ends a turn carries loss; None: as generation tags say, else yes.

    Raises:
        TokenizerError: the template is no Jinja template.
    """

    def __init__(self, spec: TemplateSpec, controls: Controls, *, loss: str, loss_on_eot: bool | None) -> None:
        self._spec, self._controls, self._loss, self._on_eot = spec, controls, loss, loss_on_eot
        self._environment = Environment(clock(spec.date))
        self._has_tags = {source: bool(_GENERATION.search(source)) for source in (spec.source, spec.tools_source or "")}
        self._template = self._compile(spec.source)
        self._tools_template = None if spec.tools_source is None else self._compile(spec.tools_source)
        self._protector = Protector(controls)
        overlapping = [other for other in controls.others if _can_cover(other, controls.ids)]
        literals = sorted((*controls.ids, *overlapping), key=len, reverse=True)
        self._literals = re.compile(f"({'|'.join(map(re.escape, literals)) or '(?!)'})")
        self._is_simple = not (overlapping or controls.lstrip or controls.rstrip)

    def _compile(self, source: str) -> jinja2.Template:
        try:
            return self._environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            place = f", line {line}" if line else ""
            raise TokenizerError(
                f"chat template {self._spec.name}{place}: {error}", "give another with --chat-template"
            ) from None

    def __call__(self, conversation: Conversation) -> Rendered:
        """Renders a conversation.

        Raises:
            RenderError: the template refuses it, exceeds its limits, or its turns cannot be told apart.
        """
        try:
            with LIMITS:
                return self._render(conversation)
        except LimitError as error:
            raise RenderError(f"the chat template was stopped: {str(error) or 'it ran for too long'}") from None
        except MemoryError:
            raise RenderError("the chat template was stopped: out of memory") from None
        except RewrittenError as error:
            raise RenderError(
                f"the chat template rewrites earlier turns ({error}), so no mask for all turns can be proven",
                "--loss last-assistant if only the last turn shall count, --loss all, or a template with "
                "{% generation %} tags by --chat-template FILE",
                is_template=True,
            ) from None

    def _render(self, conversation: Conversation) -> Rendered:
        reserved = _RESERVED.intersection(conversation.variables) if conversation.variables else None
        if reserved:
            raise RenderError(f"chat_template_kwargs cannot set {', '.join(sorted(reserved))}")
        messages = [_with_reasoning(each) for each in conversation.messages]
        for each in messages:
            if isinstance(each.get("content"), list):
                messages = self._fit_parts(messages)
                break
        tools, variables = conversation.tools, conversation.variables
        marks: Marks | None = None
        if self._protector.needs_marks([messages, tools, variables]):
            (messages, tools, variables), marks = self._protector.protect([messages, tools, variables])
        rendering = Rendering(self._environment, self._pick(tools), {**self._spec.variables, **variables}, tools)
        text, generated = rendering.tracked(messages)
        parts, numbers = self._cut(text)
        spans, differs = self._spans(conversation, rendering, messages, text, generated, parts, numbers)
        roles = find_words(_words(messages), text)
        if marks is None:
            return Rendered(text, parts, numbers, spans, roles, False, differs)

        def at(position: int) -> int:
            return marks.position(text, position)

        return Rendered(
            marks.restore(text),
            list(map(marks.restore, parts)),
            numbers,
            [(at(start), at(end)) for start, end in spans],
            [(role, at(start), at(end)) for role, start, end in roles],
            True,
            differs,
        )

    def _fit_parts(self, messages: list[Message]) -> list[Message]:
        """Content that is a list of text parts, as the template can write it: that list, one part, or a text."""
        if self._writes_parts(("\ue000a", "b\ue001")):
            return messages
        one_part = self._writes_parts(("\ue000b\ue001",))
        out = []
        for each in messages:
            if isinstance(each.get("content"), list):
                text = "".join(part["text"] for part in each["content"])
                each = {**each, "content": [{"type": "text", "text": text}] if one_part else text}
            out.append(each)
        return out

    @functools.cache  # noqa: B019 - a renderer lives as long as the run
    def _writes_parts(self, texts: tuple[str, ...]) -> bool:
        """Whether the template writes the text of all parts, and not the repr of the list."""
        rendering = Rendering(self._environment, self._template, dict(self._spec.variables), None)
        probe = [{"type": "text", "text": text} for text in texts]
        try:
            text = rendering([{"role": "user", "content": probe}, {"role": ASSISTANT, "content": probe}], False)
        except RenderError:
            return False
        return text.count("\ue000") == text.count("\ue001") == 2 and "'text'" not in text

    def _pick(self, tools: Any) -> jinja2.Template:
        return self._tools_template if tools is not None and self._tools_template is not None else self._template

    def _cut(self, text: str) -> tuple[list[str], list[int]]:
        """The text cut at its control tokens, and their ids."""
        ids = self._controls.ids
        if self._is_simple:
            parts = self._literals.split(text)
            return parts, [ids[literal] for literal in parts[1::2]]
        parts, numbers, done = [], [], 0
        for match in self._literals.finditer(text):
            literal, start, end = match[0], match.start(), match.end()
            if literal not in ids or start < done:
                continue
            if literal in self._controls.lstrip:
                space = _SPACES_AT_END.search(text, done, start)
                start = space.start() if space else start
            if literal in self._controls.rstrip:
                space = _SPACES.match(text, end)
                end = space.end() if space else end
            parts += (text[done:start], text[start:end])
            numbers.append(ids[literal])
            done = end
        return [*parts, text[done:]], numbers

    def _spans(
        self,
        conversation: Conversation,
        rendering: Rendering,
        messages: list[Message],
        text: str,
        generated: list[tuple[int, int]],
        parts: list[str],
        numbers: list[int],
    ) -> tuple[list[tuple[int, int]], bool]:
        """The loss spans, and whether the prompt, rendered on its own, is not the beginning of the text."""
        first, differs = 0, False
        # Computed only where the end of a turn is needed.
        has_tags = self._has_tags[self._source(rendering)]
        controls = _places(parts, numbers) if self._on_eot is not None or not has_tags else []
        if conversation.num_prompt is not None and self._loss != "all":
            prompt = rendering(messages[: conversation.num_prompt], True)
            first = common_length(prompt, text)
            differs = first < len(prompt)
        trained = conversation.trained
        if self._loss == "all" and (trained is None or all(trained)):
            return [(0, len(text))], False
        if self._loss == "completion":
            return self._without_eot([(first, len(text))], text, controls), differs
        turns = [index for index, message in enumerate(messages) if message["role"] == ASSISTANT]
        if self._loss == "all":  # less the turns that are not trained on
            wanted = [index for index in turns if trained is not None and not trained[index]]
        else:
            wanted = turns[-1:] if self._loss == "last-assistant" else turns
            wanted = [index for index in wanted if trained is None or trained[index]]
        if has_tags:
            spans = generated
            if wanted != turns:
                if len(generated) != len(turns):
                    raise RenderError(
                        f"the template marks {len(generated)} generations for {len(turns)} assistant messages: "
                        "which belongs to which cannot be told",
                        "leave the train flags out, or use --loss assistant",
                    )
                spans = [span for index, span in zip(turns, generated, strict=True) if index in wanted]
            if self._on_eot:
                spans = [self._with_eot(span, text, controls) for span in spans]
        else:
            ends = {end for _, end, _ in controls}
            spans = []
            for index, start, end in find_spans(rendering, messages, text, wanted):
                stripped = start + len(text[start:end].rstrip())
                # The new line after the end of turn is the template's, not the assistant's.
                end = stripped if stripped in ends and stripped > start else end
                if self._on_eot is False and not (controls and stripped in ends):
                    end = _end_of_words(messages[index], text, start, end)
                spans.append((start, end))
        if self._loss == "all":
            return _complement(spans, len(text)), differs
        if self._on_eot is False:
            spans = self._without_eot(spans, text, controls)
        return [(max(start, first), end) for start, end in spans if end > max(start, first)], differs

    def _source(self, rendering: Rendering) -> str:
        return self._spec.tools_source or "" if rendering.template is self._tools_template else self._spec.source

    def _with_eot(self, span: tuple[int, int], text: str, controls: list[tuple[int, int, int]]) -> tuple[int, int]:
        """The span, made longer by a control token right after it, unless it ends with one itself."""
        start, end = span
        if any(stop == start + len(text[start:end].rstrip()) for _, stop, _ in controls):
            return span
        return start, next((stop for begin, stop, _ in controls if begin == end), end)

    def _without_eot(
        self, spans: list[tuple[int, int]], text: str, controls: list[tuple[int, int, int]]
    ) -> list[tuple[int, int]]:
        """The spans without the control token that ends them, and what the template writes after it."""
        if self._on_eot is not False:
            return spans
        out = []
        for start, end in spans:
            last = next((each for each in reversed(controls) if start <= each[0] < end), None)
            if last is not None and not text[last[1] : end].strip():
                end = last[0]
            out.append((start, end))
        return [(start, end) for start, end in out if end > start]


class Rendering:
    """Renders the messages of one record, all or the first of them, with the same template, variables and tools."""

    def __init__(
        self, environment: Environment, template: jinja2.Template, variables: dict[str, Any], tools: Any
    ) -> None:
        self._environment, self.template, self._variables, self._tools = environment, template, variables, tools

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The text."""
        return "".join(self._blocks(messages, add_generation_prompt, []))

    def tracked(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the span of every generation block."""
        generation = self._environment.generation
        written: list[str] = []
        generation.written, generation.spans = written, []
        try:
            text = "".join(self._blocks(messages, False, written))
        finally:
            generation.written = None
        if len(text) > MAX_CHARS:
            raise RenderError(f"the chat template makes more than {MAX_CHARS >> 20} Mi characters of this record")
        spans = []
        for start, block in generation.spans:
            if not text.startswith(block, start):
                raise RenderError(
                    "the chat template has a {% generation %} tag inside a macro, a captured block or another tag, "
                    "where its place cannot be told",
                    is_template=True,
                )
            spans.append((start, start + len(block)))
        return text, spans

    def _blocks(self, messages: Sequence[Message], add_generation_prompt: bool, written: list[str]) -> list[str]:
        variables = {
            **self._environment.names,
            "documents": None,
            **self._variables,
            "messages": self._environment.given(messages),
            "tools": self._tools,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            # `shared` keeps jinja from adding the names of the environment once more, which takes long.
            for block in self.template.root_render_func(self.template.new_context(variables, shared=True)):
                written.append(block)  # one by one: generation tags need what was written before them
        except (PackcliError, MemoryError):
            raise
        except Exception as error:  # whatever a template does wrong with a record
            kind = "" if type(error) is jinja2.TemplateError else f"{type(error).__name__}: "
            raise RenderError(f"the chat template refuses it: {kind}{error}") from None
        return written


def _places(parts: Sequence[str], numbers: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, id) of the control tokens of a text that is cut at them."""
    ends = list(itertools.accumulate(map(len, parts)))
    return list(zip(ends[::2], ends[1::2], numbers, strict=False))


def _with_reasoning(message: Message) -> Message:
    """The message without keys that are null, and with its reasoning under every name that templates look for."""
    if None in message.values():
        message = {key: value for key, value in message.items() if value is not None}
    if _REASONING.isdisjoint(message):
        return message
    for key in ("reasoning_content", "thinking", "reasoning"):
        if key in message:
            return {"thinking": message[key], **message, "reasoning_content": message[key]}
    return message


def _words(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """(role, words) of every text of the messages, without white space around."""
    words_of_roles = []
    for message in messages:
        content = message.get("content")
        for words in (content,) if isinstance(content, str) else [part["text"] for part in content or ()]:
            words_of_roles.append((message["role"], words.strip()))
    return words_of_roles


def find_words(words_of_roles: Iterable[tuple[str, str]], text: str) -> list[tuple[str, int, int]]:
    """Where the words of each role stand; those that the template has changed are left out."""
    places, at = [], 0
    for role, words in words_of_roles:
        start = text.find(words, at) if words else -1
        if start >= 0:
            at = start + len(words)
            places.append((role, start, at))
    return places


def _end_of_words(message: Message, text: str, start: int, end: int) -> int:
    """Where the words of a turn end, in a template that ends turns without a control token."""
    for key in WORDS:
        words = message.get(key)
        if isinstance(words, str) and words.strip():
            place = text.rfind(words.strip(), start, end)
            if place >= 0:
                return place + len(words.strip())
    return start + len(text[start:end].rstrip())


def _complement(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    edges = [0, *(edge for span in spans for edge in span), size]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def _can_cover(other: str, literals: Any) -> bool:
    """Whether an added token that is not special can match text that overlaps a control token."""
    return any(
        literal in other or any(other.endswith(literal[:size]) for size in range(1, len(literal)))
        for literal in literals
    )


def clock(date: str) -> Any:
    """The strftime_now that templates call: it always formats `date`, so that a run can be repeated on another day."""
    import datetime

    moment = datetime.datetime.fromisoformat(date or "1970-01-01")

    def strftime_now(form: str) -> str:
        return moment.strftime(form)

    return strftime_now
