"""Text from strangers, made safe to show: control characters, bidi controls and escapes become visible."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    r"""The text with every character that does not print written as an escape: ESC -> \x1b, U+202E -> \u202e.

    Args:
        text: From a document, a file name, anywhere.
        keep: Characters that stay as they are, such as a newline.
    """
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)
