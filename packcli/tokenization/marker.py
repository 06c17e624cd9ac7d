"""A record -> its text, with the ranges that carry loss and the control tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from packcli import readers
from packcli.config import PackConfig
from packcli.errors import BadRowError, UsageError
from packcli.tokenization import chat
from packcli.tokenization.spans import MarkedText
from packcli.tokenization.spec import TokenizerSpec
from packcli.tokenization.vocabulary import read_vocabulary

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair."""


class _HalfPairError(ValueError):
    """The text of a record holds half of a surrogate pair."""


class RecordMarker:
    """Rows -> texts with spans; knows no engine.

    Args:
        config: A resolved config.
        fields: Which parts a row has.
        tokenizer: The tokenizer.
        template: The chat template, where records hold messages.
    """

    def __init__(
        self,
        config: PackConfig,
        fields: readers.Fields,
        tokenizer: TokenizerSpec,
        template: chat.TemplateSpec | None,
    ) -> None:
        self.config, self.tokenizer = config, tokenizer
        self._template = template
        self._parts = [part for part, _ in fields.parts]
        self._renderer: chat.Renderer | None = None
        self.num_repaired = 0
        """Rows so far whose text held half of a surrogate pair."""

    def parts(self, row: readers.Row) -> dict[str, Any]:
        """The parts of a row by name."""
        return dict(zip(self._parts, row, strict=True))

    def stretches(self, row: readers.Row, place: Callable[[], str]) -> list[str]:
        """The stretches of text between a row's control tokens, on which engines are compared."""
        if self.config.format == "tokenized":
            return []
        return [part for part in self(row, place).parts[::2] if part]

    def __call__(self, values: readers.Row, place: Callable[[], str]) -> MarkedText | chat.Rendered:
        """The text of one row with its spans; `place` says where it is, for messages.

        Raises:
            BadRowError: the row cannot be used.
            UsageError: the template cannot be used for any such row.
        """
        row = self.parts(values)
        try:
            if self.config.format == "alpaca":
                return self._pair(chat.alpaca_prompt(row["instruction"], row["input"]), row["output"])
            if self.config.format == "prompt-completion":
                prompt, completion = row["prompt"], row["completion"]
                if isinstance(prompt, str) and isinstance(completion, str):
                    return self._pair(prompt, completion)
                if isinstance(prompt, str) or isinstance(completion, str):
                    raise ValueError("of prompt and completion one is text and the other a list of messages")
                conversation = chat.make_conversation(
                    prompt, row["tools"], row["chat_template_kwargs"], completion=completion
                )
            else:
                messages = row["messages"] if "messages" in row else row["conversations"]
                conversation = chat.make_conversation(
                    messages, row["tools"], row["chat_template_kwargs"], system=row.get("system")
                )
            if not conversation.messages:
                return MarkedText("", ())
            return self._render(conversation)
        except chat.RenderError as error:
            if error.is_template:
                raise UsageError(f"{place()}: {error}", error.hint or "give another with --chat-template") from None
            raise bad_row(place, "template", str(error), error.hint) from None
        except _HalfPairError as error:
            raise bad_row(place, "lone-surrogate", str(error)) from None
        except ValueError as error:
            raise bad_row(place, "wrong-content", str(error)) from None

    def _pair(self, prompt: str, completion: str) -> MarkedText:
        if self.config.loss not in ("all", "completion"):
            raise ValueError(f"--loss {self.config.loss} needs messages, and prompt and completion are text")
        text, border = prompt + completion, len(prompt)
        spans = [(0 if self.config.loss == "all" else border, len(text))]
        return MarkedText(text, spans, (("prompt", 0, border), ("completion", border, len(text))))

    def _render(self, conversation: chat.Conversation) -> chat.Rendered:
        if self._renderer is None:
            if self._template is None:
                raise ValueError("it holds messages, and the first record holds text")
            vocabulary = read_vocabulary(self.tokenizer)
            controls = chat.Controls(
                ids=vocabulary.special,
                others=vocabulary.others,
                lstrip=vocabulary.lstrip,
                rstrip=vocabulary.rstrip,
                protect=not self.tokenizer.allow_special,
            )
            self._renderer = chat.Renderer(
                self._template,
                controls,
                loss=str(self.config.loss),
                loss_on_eot=self.config.loss_on_eot,
            )
        rendered = self._renderer(conversation)
        if not rendered.text.isascii() and _HALF.search(rendered.text):  # from JSON in a string of the record
            if not self.config.lenient:
                raise _HalfPairError("a \\ud800..\\udfff escape without its other half is no character")
            self.num_repaired += 1
            rendered.text = _HALF.sub("\ufffd", rendered.text)
            rendered.parts = [_HALF.sub("\ufffd", part) for part in rendered.parts]
        return rendered


def bad_row(place: Callable[[], str], cause: str, what: str, hint: str = "") -> BadRowError:
    """The error for a record that cannot be used."""
    return BadRowError(f"{place()}: {what}", hint or readers.HINT, cause=cause, what=what)
