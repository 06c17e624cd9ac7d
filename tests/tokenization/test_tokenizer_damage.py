"""Damaged and hostile tokenizer files: a clean error, or a tokenizer that works; never a panic or a dead process."""

import json
import os
import subprocess
import sys

DAMAGES = int(os.environ.get("PACKCLI_DAMAGES", "100"))
"""Damaged files that a child loads; `make stress` asks for 10,000."""

DAMAGER = """
import json, random, sys
from pathlib import Path
from packcli.config import PackConfig
from packcli.errors import PackcliError
from packcli.tokenization import choose_engine, find_tokenizer, make_engine

source, target, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
dice = random.Random(count)
raw = (source / "tokenizer.json").read_bytes()
ODD = [None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 1e308, "", "x", "\\0", "(", "[", "a" * 9999, [], [[]], {}]
ODD += [{"type": "BPE"}, {"Regex": "("}, {"Regex": "(a*)*b"}, "ByteLevel", ["a"], [0], {"": ""}]


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 20)):
            yield from places(value[index], (*path, index))


def damage():
    if dice.random() < 0.2:
        data = bytearray(raw)
        for _ in range(dice.randint(1, 5)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data[: dice.choice([len(data), dice.randrange(len(data))])])
    data = json.loads(raw)
    found = [place for place in places(data) if place]
    few = [place for place in found if place[:2] != ("model", "vocab") and place[:2] != ("model", "merges")]
    for _ in range(dice.randint(1, 3)):
        at = data
        place = dice.choice(dice.choice([found, few]))
        try:
            for key in place[:-1]:
                at = at[key]
            if dice.random() < 0.3:
                del at[place[-1]]
            else:
                at[place[-1]] = dice.choice(ODD)
        except (LookupError, TypeError):
            continue
    return json.dumps(data).encode()


outcomes = {"works": 0}
for number in range(count):
    (target / "tokenizer.json").write_bytes(damage())
    try:
        spec = find_tokenizer(PackConfig(tokenizer=str(target)), allow_network=False)
        choice = choose_engine(spec, "auto", ["the cat sat on the mat, 12 <|endoftext|> x"])
        ids, _ = choice.engine.encode(["the cat", "", "\\0 x <|endoftext|>", "ab" * 100])
        outcomes["works"] += 1
    except PackcliError as error:
        name = type(error).__name__
        outcomes[name] = outcomes.get(name, 0) + 1
        assert str(error), "says nothing"
        assert len(str(error)) < 5000, len(str(error))
    except BaseException as error:
        print(f"{number}: {type(error).__mro__} {error!s:.300}")
        (target / f"crash-{number}.json").write_bytes((target / "tokenizer.json").read_bytes())
        raise
print(json.dumps(outcomes))
"""


def test_damaged_tokenizer_files_are_clean_errors(tmp_path, tokenizer_dir):
    """tokenizers panics on some of them, which is no Exception; and a stranger may have made them."""
    (tmp_path / "tokenizer_config.json").write_bytes((tokenizer_dir / "tokenizer_config.json").read_bytes())
    arguments = [sys.executable, "-c", DAMAGER, str(tokenizer_dir), str(tmp_path), str(DAMAGES)]
    child = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=3600)
    assert child.returncode == 0, (child.stdout[-1000:], child.stderr[-2000:])
    outcomes = json.loads(child.stdout.splitlines()[-1])
    assert outcomes["works"] > DAMAGES // 20
    assert outcomes["TokenizerError"] > DAMAGES // 4
