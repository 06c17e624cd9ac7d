"""Conversations -> text, with what of it is loss and what is a control token. The door to jinja2.

--chat-template        template.find_template  -> TemplateSpec: the Jinja text and its variables
a record               convert.make_conversation -> Conversation, from any of the shapes that people have
its strings            protect.Protector       -> the record, with control tokens in its strings marked
record, template       render.Renderer         -> Rendered: text, control tokens, loss spans, whose words they are
the same, cheaper      skeleton.Renderer       -> Rendered, filled in where `opaque` shows that words only pass through
no generation tags     turns.find_spans        -> loss spans by rendering turn by turn, with proof

Nothing here knows token ids beyond those of control tokens.
"""

import importlib
from typing import TYPE_CHECKING, Any

from packcli.chat.template import CHATML, CHATML_TURN, TemplateSpec, find_template

if TYPE_CHECKING:
    from packcli.chat.convert import alpaca_prompt, make_conversation
    from packcli.chat.protect import Controls
    from packcli.chat.render import Conversation, Rendered, RenderError
    from packcli.chat.skeleton import Renderer

_LATER = {
    "Controls": "protect",
    "Conversation": "render",
    "RenderError": "render",
    "Rendered": "render",
    "Renderer": "skeleton",
    "alpaca_prompt": "convert",
    "make_conversation": "convert",
}
"""Name -> module: read when it is first asked for, so that a run without chats starts without jinja2."""

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


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'packcli.chat' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"packcli.chat.{_LATER[name]}"), name)
    globals()[name] = value
    return value
