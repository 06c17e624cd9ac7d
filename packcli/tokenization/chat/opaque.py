"""Shows that a template only passes content through: renders contents that no template can look at.

Nearly every template writes the contents of messages, perhaps trimmed, between texts of its own, and never looks at
them. A rendering of `Opaque` contents shows it: each stands for any text that is not only white space, and
whatever would give other results for other texts raises DependsError. What the rendering then says about these
contents holds for all.

Some operations of Python, written in C, read the characters of a str without calling a method of its class, so that
the class cannot refuse them. They are refused elsewhere: `~`, `in` between two texts, macros and captured blocks by
the syntax tree; formats, filters, tests, calls and subscripts by the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes

from packcli.tokenization.chat.sandbox import Environment
from packcli.tokenization.chat.turns import Message

FIRST_CORE, LAST_CORE = 0xF0000, 0xFFFFD
LEAD, TRAIL = "\u2003", "\u2009"
"""White space around the core of a stand-in, which trimming takes away."""


class DependsError(BaseException):
    """What the template writes depends on a content. No template can catch it."""


def stand_in(index: int) -> str:
    """What stands for the content of message `index`: a private-use character in white space."""
    return f"{LEAD}{chr(FIRST_CORE + index)}{TRAIL}"


def _refuse(*args: object, **kwargs: object) -> NoReturn:
    raise DependsError


class Opaque(str):
    """A text of which nothing is known, but that it is not only white space."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def __add__(self, other: str) -> Opaque:
        return Opaque(str.__add__(self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> Opaque:
        return Opaque(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def strip(self, *chars: Any) -> Opaque:
        """The text without white space around; DependsError unless it is one stand-in and nothing else."""
        text = plain(self)
        if chars or len(text.strip()) != 1 or not FIRST_CORE <= ord(text.strip()) <= LAST_CORE:
            raise DependsError
        return Opaque(text.strip())


_KEPT = {name for name in dir(object) if name not in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")}
_KEPT -= {"__hash__", "__str__", "__repr__", "__format__", "__sizeof__", "__reduce__", "__reduce_ex__", "__getstate__"}
for _name in {*dir(str), "__reversed__"} - _KEPT - {"__add__", "strip"}:
    setattr(Opaque, _name, _refuse)


def plain(text: str) -> str:
    """An ordinary str of a text that may be opaque."""
    return str.__add__(text, "")


def _holds_opaque(value: Any) -> bool:
    """Whether there is, or may be, an opaque text in the value."""
    if type(value) is Opaque:
        return True
    if value is None or type(value) in (str, int, float, bool) or isinstance(value, jinja2.Undefined):
        return False
    if type(value) in (list, tuple):
        return any(map(_holds_opaque, value))
    if type(value) is dict:
        return any(map(_holds_opaque, value.values()))  # an opaque text has no hash, so it is no key
    return True


_ON_TEXT = frozenset({"default", "d"})
_ON_LISTS = frozenset({"default", "d", "length", "count", "first", "last", "list", "reverse"})
"""Filters that do not look at the values they are given, or only at how many there are."""
_TESTS = frozenset({"string", "defined", "undefined", "none", "mapping"})
"""Tests of the kind of a value."""


def _guarded(name: str, original: Callable[..., Any], is_filter: bool) -> Callable[..., Any]:
    """A filter or test that raises DependsError when its result may depend on an opaque text."""
    passes = getattr(original, "jinja_pass_arg", None)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        value, *others = args[1:] if passes is not None else args
        if is_filter and name == "random":
            raise DependsError
        if type(value) is Opaque:
            if is_filter and name == "trim" and not others and not kwargs:
                return value.strip()
            allowed = name in (_ON_TEXT if is_filter else _TESTS)
        else:
            allowed = name in (_ON_LISTS if is_filter else _TESTS)
        if not allowed and any(map(_holds_opaque, (value, *others, *kwargs.values()))):
            raise DependsError
        result = original(*args, **kwargs)
        if hasattr(type(result), "__html__"):  # adding to such a text escapes what is added
            raise DependsError
        return result

    if passes is not None:
        guarded.jinja_pass_arg = passes  # type: ignore[attr-defined]
    return guarded


_KNOWN_NODES = frozenset(
    {
        *(nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign, nodes.Name, nodes.NSRef, nodes.Const),
        *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
        *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Mod, nodes.Div, nodes.FloorDiv, nodes.Pow, nodes.Neg, nodes.Pos),
        *(nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.Pair, nodes.Dict, nodes.List),
        *(nodes.Tuple, nodes.CallBlock, nodes.ExtensionAttribute, nodes.Break, nodes.Continue),
    }
)

_LISTS = (nodes.List, nodes.Tuple)


class ProbeEnvironment(Environment):
    """The environment of chat templates, for opaque contents: every content of the messages is made opaque."""

    def __init__(self, strftime_now: Callable[[str], str]) -> None:
        super().__init__(strftime_now)
        self.finalize = _written
        filters: dict[str, Any] = self.filters
        tests: dict[str, Any] = self.tests
        self.filters = {name: _guarded(name, each, True) for name, each in filters.items()}
        self.tests = {name: _guarded(name, each, False) for name, each in tests.items()}

    def compiled(self, source: str) -> jinja2.Template:
        """The template.

        Raises:
            DependsError: it has an operation that the class Opaque cannot refuse, or that is not known here.
        """
        for node in self.parse(source).find_all(nodes.Node):
            if type(node) not in _KNOWN_NODES:
                raise DependsError
            if isinstance(node, nodes.CallBlock) and not isinstance(node.call.node, nodes.ExtensionAttribute):
                raise DependsError  # not the generation tag
            if isinstance(node, nodes.Compare):
                left = node.expr
                for operand in node.ops:
                    is_search = operand.op in ("in", "notin")
                    if is_search and not isinstance(left, nodes.Const) and not isinstance(operand.expr, _LISTS):
                        raise DependsError
                    left = operand.expr
        return self.from_string(source)

    def given(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with opaque contents.

        Raises:
            DependsError: a content is not its stand-in: the caller tries other words, so the result depends on them.
        """
        for index, each in enumerate(messages):
            if each["content"] != stand_in(index):
                raise DependsError
        return [{**each, "content": Opaque(each["content"])} for each in messages]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute; of an opaque text `strip` only."""
        if type(obj) is Opaque and attribute != "strip":
            raise DependsError
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item; neither of an opaque text nor under one."""
        if type(obj) is Opaque or _holds_opaque(argument):
            raise DependsError
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiplication, powers and % formatting, of nothing opaque."""
        if _holds_opaque(left) or _holds_opaque(right):
            raise DependsError
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call; opaque texts may only go to `namespace`, `dict` and the generation tag, which just keep them."""
        is_keeper = __obj is __self.globals["namespace"] or __obj is __self.globals["dict"]
        is_tag = getattr(__obj, "__self__", None) is __self.generation
        if not is_keeper and not is_tag and any(map(_holds_opaque, (*args, *kwargs.values()))):
            raise DependsError
        return super().call(__context, __obj, *args, **kwargs)


def _written(value: Any) -> Any:
    """A value as it goes into the output, which no template can read."""
    return plain(value) if type(value) is Opaque else value
