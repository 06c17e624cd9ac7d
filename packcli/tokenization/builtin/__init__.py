"""The builtin tokenizer: data files, and train.py, which made them."""

from __future__ import annotations
