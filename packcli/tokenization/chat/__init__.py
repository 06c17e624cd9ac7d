"""Conversations -> text, with its loss spans and control tokens. The only package that imports jinja2.

--chat-template        template.find_template  -> TemplateSpec: the Jinja text and its variables
a record               conversation.make_conversation -> Conversation, from any of the known record shapes
its strings            protect.Protector       -> the record, with control tokens in its strings replaced by marks
record, template       render.TemplateRenderer -> Rendered: text, control tokens, loss spans, whose words they are
the same, cheaper      skeleton.Renderer       -> Rendered, where `opaque` shows that contents are only passed through
no generation tags     turns.find_spans        -> loss spans by rendering turn by turn, with proof

Nothing here knows token ids beyond those of control tokens.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from packcli.tokenization.chat.template import CHATML, CHATML_TURN, TemplateSpec, find_template

if TYPE_CHECKING:
    from packcli.tokenization.chat.conversation import alpaca_prompt, make_conversation
    from packcli.tokenization.chat.protect import Controls
    from packcli.tokenization.chat.render import Conversation, Rendered, RenderError
    from packcli.tokenization.chat.skeleton import Renderer

__all__ = [
    "CHATML",
    "CHATML_TURN",
    "Controls",
    "Conversation",
    "RenderError",
    "Rendered",
    "Renderer",
    "TemplateSpec",
    "alpaca_prompt",
    "find_template",
    "make_conversation",
]

_LATER = {
    "Controls": "protect",
    "Conversation": "render",
    "RenderError": "render",
    "Rendered": "render",
    "Renderer": "skeleton",
    "alpaca_prompt": "conversation",
    "make_conversation": "conversation",
}
"""Name -> module, imported when the name is first used: a run without chats does not load jinja2."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
