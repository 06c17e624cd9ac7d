"""How many bad rows are too many, and how they are counted."""

import pytest

from packcli import errors
from packcli.config import RunOptions, commonest, parse_max_bad

# --- how many are too many ---


@pytest.mark.parametrize(
    ("limit", "num_bad", "num_rows", "allowed"),
    [("0", 0, 9, True), ("0", 1, 9, False), (3, 3, 9, True), ("3", 4, 10**9, False)]
    + [("1%", 3, 399, True), ("1%", 4, 399, False), ("1%", 4, 400, True), ("0.1%", 1, 999, False)]
    + [("0.1%", 1, 1000, True), ("100%", 9, 9, True), ("0%", 1, 9, False), ("33.3 %", 333, 1000, True)],
)
def test_the_limit_is_exact(limit, num_bad, num_rows, allowed):
    assert parse_max_bad(limit).allows(num_bad, num_rows) is allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "%", "1e3", "many", "1 000", True])
def test_a_limit_that_is_none_is_refused(text):
    with pytest.raises(errors.UsageError, match="is neither a number of rows nor a share of them"):
        RunOptions(max_bad=text)


def test_the_commonest_cause_does_not_hang_on_the_order():
    assert commonest({"null": 2, "not-json": 2, "overlong": 1}) == commonest({"not-json": 2, "null": 2}) == "not-json"
