"""What a mixture may be asked for: shares and counts, however they are spelled."""

import pytest

from packcli.config import PackConfig, parse_count, parse_mix
from packcli.config.mixture import split_mix
from packcli.errors import UsageError


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (["x.jsonl"], "is not INPUT=WEIGHT"),
        (["x.jsonl=0"], "is not INPUT=WEIGHT"),
        (["x.jsonl=nan"], "is not INPUT=WEIGHT"),
        (["=1"], "is not INPUT=WEIGHT"),
        (["x.jsonl=1", "x.jsonl=2"], "names x.jsonl twice"),
    ],
)
def test_mistakes_in_shares(mix, message):
    with pytest.raises(UsageError, match=message):
        PackConfig(mix=mix)


def test_spellings_of_shares_and_counts():
    assert parse_mix(split_mix({"a=b": 3, "c": 1.0})) == [("a=b", 0.75), ("c", 0.25)]
    assert [parse_count(text) for text in ("10B", "1.5M", "2k", "7", "1T", "3G")] == [
        10**10,
        1_500_000,
        2000,
        7,
        10**12,
        3 * 10**9,
    ]
    with pytest.raises(UsageError):
        parse_count("10 GiB")
