"""Templates may come from anybody: what they may call, and how long and how much they may compute.

Jinja's immutable sandbox keeps a template away from Python. This adds limits, so that it can neither run for ever nor
fill the memory: single operations that multiply text are refused beyond MAX_CHARS, and a watching thread ends what
takes too long, which loops cannot escape. Signals would not do: they reach the main thread only.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

MAX_CHARS = 1 << 26
"""Characters that a rendering, or one operation in it, may give."""
MAX_SECONDS = 20.0
"""Of one rendering."""
MAX_GROWTH = 1 << 30
"""Bytes by which the process may grow while one rendering runs."""
LOOK_EVERY_S = 0.05
"""Seconds between two looks at the renderings that are running."""


class LimitError(BaseException):
    """A rendering went on for too long, or took too much memory. No template can catch it."""


class _Watch:
    """Ends renderings that exceed their limits, from a thread of its own.

    An exception is set in the rendering thread; it comes between two operations of Python, so that neither nested
    loops nor recursion escape it. Single operations are bounded by the environment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, list[Any]] = {}  # thread -> [when it began, bytes at the first look]
        self._ended: dict[int, str] = {}  # thread -> why its rendering was ended
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        """From here on the limits hold for this thread."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, name="packcli-template-watch", daemon=True)
            self._thread.start()
        this_thread = threading.get_ident()
        self._ended.pop(this_thread, None)
        self._running[this_thread] = [time.monotonic(), None]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raises LimitError with the reason when a limit was exceeded."""
        this_thread = threading.get_ident()
        with self._lock:
            self._running.pop(this_thread, None)
            reason = self._ended.pop(this_thread, None)
        if reason is not None:
            # The exception is set, but perhaps not raised yet.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(this_thread), None)
            raise LimitError(reason) from None

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            with self._lock:
                for thread, entry in list(self._running.items()):
                    running = time.monotonic() - entry[0]
                    if running < LOOK_EVERY_S:
                        continue
                    size = _resident_bytes()
                    if entry[1] is None:
                        entry[1] = size
                    if running > MAX_SECONDS:
                        self._end(thread, f"it ran for more than {MAX_SECONDS:g} s")
                    elif size - entry[1] > MAX_GROWTH:
                        self._end(thread, f"it took more than {MAX_GROWTH >> 20} MiB of memory")

    def _end(self, thread: int, reason: str) -> None:
        """Once only: the next look must not hit what the thread does after this rendering."""
        del self._running[thread]
        self._ended[thread] = reason
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(LimitError))


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


LIMITS = _Watch()
"""`with LIMITS:` around a rendering; raises LimitError."""


class Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: what the model is trained to write.

    The spans are found as Transformers finds them: by the length of what was written before. The text of each block is
    kept as well, so that a block inside a macro or a captured variable, where that rule is wrong, is noticed.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 asks for it

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.written: list[str] | None = None
        self.spans: list[tuple[int, str]] = []

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """The tag and its body as a call of `_block`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_block"), [], [], body).set_lineno(line)

    def _block(self, caller: Callable[[], str]) -> str:
        text = caller()
        if self.written is not None:
            self.spans.append((sum(map(len, self.written)), text))
        return text


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment of chat templates, with the names and options that Transformers gives them."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, strftime_now: Callable[[str], str]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
        self.generation: Generation = self.extensions[Generation.identifier]  # type: ignore[assignment]
        self.filters["tojson"] = _tojson
        for name in _GROWING_FILTERS:
            self.filters[name] = _bounded_filter(name, self.filters[name])
        self.globals.update(
            raise_exception=_raise_exception, strftime_now=strftime_now, dict=_TemplateDict(), namespace=_Namespace
        )
        for name in ("lipsum", "cycler", "joiner"):  # lipsum is random; Transformers' templates use none of them
            self.globals.pop(name, None)
        self.names = dict(self.globals)
        """What templates find besides the variables of a record."""

    def given(self, messages: Sequence[Any]) -> list[Any]:
        """The messages of a record, as templates get them."""
        return list(messages)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiplication, powers and % formatting, within bounds."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if hasattr(one, "__len__") and isinstance(other, int):
                    _bound(len(one) * max(other, 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _bound(left.bit_length() * max(right, 0))
        elif operator == "%" and isinstance(left, str):
            _bound_format(left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call from a template; methods of strings that make long ones are held to MAX_CHARS."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _bound_method(owner, getattr(__obj, "__name__", ""), args)
        if not __self.is_safe_callable(__obj):
            raise jinja2.exceptions.SecurityError(f"{__obj!r} is not safely callable")
        return __context.call(__obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        """str.format as Jinja guards it, without widths that a template could fill the memory with."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _bound_format(value.__self__, ())
        return wrapped


def _bound(size: int) -> None:
    if size > MAX_CHARS:
        raise jinja2.exceptions.SecurityError(f"the template makes more than {MAX_CHARS >> 20} Mi characters at once")


_WIDE = re.compile(r"\{[^{}]*:[^{}]*(\{|\d{5})|%[-+ #0]*(\*|\d{5})|%[^a-zA-Z%]*\.(\*|\d{5})")


def _bound_format(text: str, values: Any) -> None:
    """Refuses formats with widths of five digits, or widths that are values themselves."""
    if _WIDE.search(text):
        raise jinja2.exceptions.SecurityError("the template formats with a computed or very large width")
    if isinstance(values, str):
        _bound(len(values))


def _bound_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    if name in ("center", "ljust", "rjust", "zfill", "expandtabs") and args and isinstance(args[0], int):
        _bound(args[0] * (owner.count("\t") if name == "expandtabs" else 1))
    elif name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        _bound(len(owner) + owner.count(args[0]) * max(len(args[1]) - len(args[0]), 0))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _bound(sum(len(each) + len(owner) for each in args[0] if isinstance(each, str)))
    elif name == "translate":
        raise jinja2.exceptions.SecurityError("the template calls str.translate")


def _size_of_join(value: Any, d: Any = "", *args: Any, **kwargs: Any) -> int:
    if not isinstance(value, list | tuple):
        return 0
    return sum(len(each) + len(str(d)) for each in value if isinstance(each, str))


def _size_of_replace(text: Any, old: Any = "", new: Any = "", *args: Any, **kwargs: Any) -> int:
    return len(str(text)) + str(text).count(str(old)) * max(len(str(new)) - len(str(old)), 0)


def _size_of_indent(text: Any, width: Any = 4, *args: Any, **kwargs: Any) -> int:
    step = width if isinstance(width, int) else len(str(width))
    return len(str(text)) + (str(text).count("\n") + 1) * step


def _size_of_first(value: Any, number: Any = 0, *args: Any, **kwargs: Any) -> int:
    numbers = [each for each in (number, *args, *kwargs.values()) if isinstance(each, int)]
    return max(numbers, default=0)


def _size_of_format(text: Any, *args: Any, **kwargs: Any) -> int:
    _bound_format(str(text), ())
    return 0


_GROWING_FILTERS: dict[str, Callable[..., int]] = {
    "join": _size_of_join,
    "replace": _size_of_replace,
    "indent": _size_of_indent,
    "center": _size_of_first,
    "wordwrap": _size_of_first,
    "batch": _size_of_first,
    "slice": _size_of_first,
    "truncate": _size_of_first,
    "format": _size_of_format,
}
"""Filters that can give much more than they take -> about how many characters."""


def _bounded_filter(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    passes = getattr(original, "jinja_pass_arg", None)

    def bounded(*args: Any, **kwargs: Any) -> Any:
        _bound(_GROWING_FILTERS[name](*(args[1:] if passes is not None else args), **kwargs))
        return original(*args, **kwargs)

    if passes is not None:
        bounded.jinja_pass_arg = passes  # type: ignore[attr-defined]
    return bounded


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """json.dumps, as in Transformers: jinja's own escapes HTML."""
    if isinstance(indent, int):
        _bound(indent * 1024)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if ensure_ascii:  # the marks of packcli.tokenization.chat.protect stand for text, and are no text to be escaped
        text = re.sub(r"\\udb([c-f][0-9a-f])\\ud([c-f][0-9a-f]{2})", _mark, text)
    return text


def _mark(match: re.Match[str]) -> str:
    char = (b"".join(int(half, 16).to_bytes(2, "big") for half in (f"db{match[1]}", f"d{match[2]}"))).decode(
        "utf-16-be"
    )
    return char if char >= "\U00100000" else match[0]


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _TemplateDict:
    """`dict` for templates, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """As dict.fromkeys."""
        return dict.fromkeys(keys, value)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` for templates; names that begin with an underscore would reach Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `namespace(self=...)` is a name too
        self, rest = args[0], args[1:]
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a template cannot store {name!r} in a namespace")
