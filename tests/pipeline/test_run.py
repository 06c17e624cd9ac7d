"""The whole line, in process: what users rely on when they call packcli.pack or the command line."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from helpers import BUILTIN, SAMPLE, big_input, tree_hash
from sample_runs import pack
from tokenizer_files import IS_0, Oracle

from packcli import errors, pipeline
from packcli.config import PackConfig, RunOptions
from packcli.config.choices import COLUMNS
from packcli.dataset import Output
from packcli.packing.strategies import STRATEGIES
from packcli.pipeline import workers as pipeline_workers
from packcli.tokenization import guard
from packcli.tokenization.engines import FastEngine


def sample_texts():
    return [json.loads(line)["text"] for line in SAMPLE.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def reference():
    return Oracle(BUILTIN)


def test_concat_equals_ten_lines_of_tokenizers(tmp_path, reference):
    """Would miss any token lost, doubled or moved between the text and the shard, unit by unit."""
    report = pack(tmp_path / "out", unit_bytes=50_000)
    texts, next_row = sample_texts(), 0
    shards = sorted((tmp_path / "out").glob("data-*.arrow"))
    assert len(shards) > 3
    for shard in shards:
        table = pa.ipc.open_stream(shard.read_bytes()).read_all()
        rows = [source["row"] for pack in table.column("sources").to_pylist() for source in pack]
        assert rows[0] == next_row
        stream = []
        for text in texts[rows[0] : rows[-1] + 1]:
            stream += [*reference.encode(text).ids, 0]
        stream += [1] * (-len(stream) % 256)
        assert table.column("input_ids").to_pylist() == np.array(stream).reshape(-1, 256).tolist()
        next_row = rows[-1] + 1
    assert next_row == len(texts) == report.stats.num_documents


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("isolate", [True, False])
def test_every_row_of_every_strategy(tmp_path, strategy, isolate, reference):
    """The promises of the column table, on the rows that load_from_disk gives: lengths, labels, positions, sources,
    and each document once, equal to its text."""
    report = pack(tmp_path / "out", strategy=strategy, isolate=isolate)
    data = load_from_disk(str(tmp_path / "out"))
    assert data.column_names == list(COLUMNS)
    texts = sample_texts()
    pieces = {}
    for pack_row in data:
        ids, labels, lengths = pack_row["input_ids"], pack_row["labels"], pack_row["seq_lengths"]
        assert len(ids) == len(labels) == len(pack_row["position_ids"]) == sum(lengths) == 256
        real = sum(source["end"] - source["start"] for source in pack_row["sources"])
        spans = [source["end"] - source["start"] for source in pack_row["sources"]]
        tail = [256 - real] * (real < 256)
        assert lengths == ([*spans, *tail] if isolate else [real, *tail])
        assert ids[real:] == [1] * (256 - real)
        place, expected = 0, []
        for source, span in zip(pack_row["sources"], spans, strict=True):
            run = ids[place : place + span]
            pieces.setdefault(source["row"], []).append((source["start"], source["end"], run))
            expected += [-100, *run[1:]] if isolate else run
            place += span
        assert labels == expected + [-100] * (256 - real)
        positions = [at for length in lengths for at in range(length)] if isolate else list(range(256))
        assert pack_row["position_ids"] == positions
    assert sorted(pieces) == list(range(len(texts)))
    for row, found in pieces.items():
        found.sort()
        assert [start for start, _, _ in found] == [0, *(end for _, end, _ in found[:-1])]
        ids = [token for _, _, run in found for token in run]
        assert ids[-1] == 0
        assert reference.decode(ids[:-1]) == texts[row]
    stats = report.stats
    assert stats.num_tokens_in + stats.num_tokens_special == stats.num_tokens_packed
    assert stats.num_packs == len(data)


def test_order_is_kept_where_it_is_promised(tmp_path):
    """A curriculum would be shuffled."""
    for strategy in ("concat", "next-fit"):
        pack(tmp_path / strategy, strategy=strategy, unit_bytes=40_000)
        rows = [
            source["row"] for pack_row in load_from_disk(str(tmp_path / strategy)) for source in pack_row["sources"]
        ]
        assert rows == sorted(rows)
        assert len(rows) >= 300


@pytest.mark.parametrize("policy", ["truncate", "drop"])
def test_what_overlong_loses_is_counted(tmp_path, policy, reference):
    """Utilisation would look perfect while most of the text is gone."""
    stats = pack(tmp_path / "out", overlong=policy, strategy="best-fit").stats
    lengths = [len(reference.encode(text).ids) + 1 for text in sample_texts()]
    over = [length for length in lengths if length > 256]
    assert len(over) > 50
    if policy == "drop":
        assert (stats.num_documents_overlong, stats.num_tokens_overlong) == (len(over), sum(over))
    else:
        assert (stats.num_documents_truncated, stats.num_tokens_truncated) == (len(over), sum(over) - 256 * len(over))
    assert stats.num_tokens_packed == sum(lengths) - stats.num_tokens_dropped


def test_overlong_error_names_the_row(tmp_path):
    with pytest.raises(errors.BadRowError, match=r"docs\.jsonl:\d+: \d+ tokens, over --max-len 256"):
        pack(tmp_path / "out", overlong="error")


def test_a_seed_changes_best_fit_and_another_run_does_not(tmp_path):
    hashes = [
        tree_hash(pack(tmp_path / str(n), strategy="best-fit", seed=seed).output) for n, seed in enumerate((0, 0, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_compressed_and_plain_input_give_the_same_packs(tmp_path):
    """Units of plain files and parts of compressed ones are cut by the same rule (every strategy: test_parts)."""
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(SAMPLE.read_bytes()))
    plain = pack(tmp_path / "plain", unit_bytes=40_000)
    zipped = pack(tmp_path / "zipped", tmp_path / "docs.jsonl.gz", unit_bytes=40_000)
    assert len(plain.manifest["inputs"]) == 1
    assert plain.stats.num_parts == zipped.stats.num_parts > 3
    assert load_from_disk(str(plain.output)).to_dict() == load_from_disk(str(zipped.output)).to_dict()


def test_parts_of_a_compressed_file_are_resumed(tmp_path, monkeypatch):
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(SAMPLE.read_bytes()))
    whole = pack(tmp_path / "whole", tmp_path / "docs.jsonl.gz", unit_bytes=40_000)
    real, calls = Output.commit, []

    def dying_commit(self, sidecar):
        calls.append(sidecar.part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, sidecar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Output, "commit", dying_commit)
        pack(tmp_path / "out", tmp_path / "docs.jsonl.gz", unit_bytes=40_000)
    assert pack(tmp_path / "out", tmp_path / "docs.jsonl.gz", unit_bytes=40_000).run["resumed_parts"] == 2
    assert tree_hash(tmp_path / "out") == tree_hash(whole.output)


def test_json_parquet_and_arrow_of_the_same_documents_give_the_same_packs(tmp_path):
    expected = load_from_disk(str(pack(tmp_path / "jsonl").output)).to_dict()
    assert load_from_disk(str(pack(tmp_path / "parquet", SAMPLE.with_suffix(".parquet")).output)).to_dict() == expected
    Dataset.from_dict({"text": sample_texts()}).save_to_disk(str(tmp_path / "saved"))
    assert load_from_disk(str(pack(tmp_path / "arrow", tmp_path / "saved").output)).to_dict() == expected


def test_validation_split_goes_by_content_and_seed(tmp_path):
    """Duplicates on both sides of the split would leak; a split by position would change when rows are added."""
    texts = [f"document number {number} says hello" for number in range(400)]
    rows = [json.dumps({"text": text}) for text in texts + texts]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    report = pack(tmp_path / "out", tmp_path / "data.jsonl", val_fraction=0.2)
    data = load_from_disk(str(tmp_path / "out"))
    assert isinstance(data, DatasetDict)
    split_of = {}
    for split in ("train", "validation"):
        for pack_row in data[split]:
            for source in pack_row["sources"]:
                split_of.setdefault(texts[source["row"] % 400], set()).add(split)
    assert len(split_of) == 400
    assert all(len(splits) == 1 for splits in split_of.values())
    share = sum(splits == {"validation"} for splits in split_of.values()) / 400
    assert 0.1 < share < 0.3
    assert report.stats.by_split["validation"]["num_documents"] == round(share * 800)
    other = pack(tmp_path / "other", tmp_path / "data.jsonl", val_fraction=0.2, seed=1)
    assert other.stats.by_split != report.stats.by_split or tree_hash(other.output) != tree_hash(report.output)


def test_a_split_without_documents_can_be_loaded(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n')
    pack(tmp_path / "out", tmp_path / "data.jsonl", val_fraction=0.000001)
    data = load_from_disk(str(tmp_path / "out"))
    assert (len(data["train"]), len(data["validation"])) == (1, 0)
    assert data["validation"].column_names == list(COLUMNS)


def test_compact_stores_no_padding(tmp_path):
    """A trainer that derives labels from input_ids would train on stored padding."""
    pack(tmp_path / "compact", strategy="next-fit", columns="compact")
    stored = load_from_disk(str(tmp_path / "compact"))
    assert stored.column_names == ["input_ids", "seq_lengths"]
    assert any(len(row["input_ids"]) < 256 for row in stored)
    assert all(len(row["input_ids"]) == sum(row["seq_lengths"]) for row in stored)


def test_shards_are_mapped_without_a_copy(tmp_path):
    pack(tmp_path / "out", unit_bytes=100_000)
    before = pa.total_allocated_bytes()
    data = load_from_disk(str(tmp_path / "out"))
    assert len(data) > 100
    assert pa.total_allocated_bytes() == before
    stream = pa.ipc.open_stream(pa.memory_map(str(next((tmp_path / "out").glob("data-*.arrow")))))
    metadata = json.loads(stream.schema.metadata[b"packcli"])
    assert {"max_len": 256, "pad_id": 1, "eos_id": 0, "label_shift": 0, "format_version": 3}.items() <= metadata.items()
    assert len(metadata["tokenizer_sha256"]) == 64


def test_up_to_date_does_nothing_and_touches_the_manifest(tmp_path, monkeypatch):
    """A Makefile rule would run for ever, or not notice that the input changed."""
    source = tmp_path / "data.jsonl"
    source.write_bytes(SAMPLE.read_bytes())
    pack(tmp_path / "out", source)
    manifest = tmp_path / "out" / "manifest.json"
    before = tree_hash(tmp_path / "out")
    os.utime(manifest, (1, 1))
    os.utime(source, (2_000_000_000, 2_000_000_000))  # touched, and yet the same rows
    monkeypatch.setattr(pipeline_workers, "run_unit", None)
    assert pack(tmp_path / "out", source).status == "up to date"
    assert manifest.stat().st_mtime > 1
    assert tree_hash(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_len": 128}, "max_len was 256, now it is 128"),
        ({"strategy": "best-fit"}, 'strategy was "concat", now it is "best-fit"'),
        ({"add_eos": False}, "tokenizer.eos_token was"),
        ({"seed": 5}, "seed was 0, now it is 5"),
    ],
)
def test_another_run_is_refused_by_the_name_of_what_differs(tmp_path, settings, message):
    """A resume would mix rows of two runs in one dataset."""
    pack(tmp_path / "out")
    before = tree_hash(tmp_path / "out")
    with pytest.raises(errors.MismatchError, match=message) as caught:
        pack(tmp_path / "out", **settings)
    assert "--overwrite" in caught.value.hint
    assert tree_hash(tmp_path / "out") == before
    report = pack(tmp_path / "out", overwrite=True, **settings)
    assert report.status == "packed"
    assert tree_hash(tmp_path / "out") != before


def test_changed_rows_of_the_same_size_are_refused(tmp_path):
    source = tmp_path / "data.jsonl"
    source.write_bytes(SAMPLE.read_bytes())
    pack(tmp_path / "out", source)
    source.write_bytes(SAMPLE.read_bytes().replace(b"the", b"eht", 1))
    os.utime(source, (1, 1))
    with pytest.raises(errors.MismatchError, match=r"data\.jsonl has changed"):
        pack(tmp_path / "out", source)
    source.write_bytes(SAMPLE.read_bytes() + b'{"text": "more"}\n')
    with pytest.raises(errors.MismatchError, match=r"inputs\[0\]\.num_bytes was"):
        pack(tmp_path / "out", source)
    assert pack(tmp_path / "out", source, overwrite=True).stats.num_documents == 301


def test_a_foreign_directory_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(errors.OutputError, match="not an output of packcli"):
            pack(tmp_path / "out", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.OutputError, match="is a file"):
        pack(tmp_path / "file")


def test_overwrite_leaves_what_packcli_did_not_write(tmp_path):
    pack(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    pack(tmp_path / "out", max_len=64, overwrite=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_second_writer_is_refused(tmp_path):
    with Output(tmp_path / "out").lock.held(), pytest.raises(errors.LockedError):
        pack(tmp_path / "out")


def test_empty_documents_are_counted_and_give_no_eos_only_rows(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": ""}\n{"text": "a"}\n\n{"text": ""}\n{"text": " "}\n')
    report = pack(tmp_path / "out", tmp_path / "data.jsonl")
    assert (report.stats.num_documents, report.stats.num_documents_empty) == (4, 2)
    rows = [source["row"] for source in load_from_disk(str(tmp_path / "out"))[0]["sources"]]
    assert rows == [1, 4]  # line numbers from 0, blank lines counted: `sed -n 5p` shows the last
    (tmp_path / "data.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(errors.NoInputError, match="1 of them empty"):
        pack(tmp_path / "none", tmp_path / "data.jsonl")


def plant(monkeypatch, wrong):
    """Makes the fast engine give another first id for the texts that `wrong` picks."""
    real = FastEngine.encode

    def encode(self, texts):
        ids, offsets = real(self, texts)
        ids = ids.copy()
        for index, text in enumerate(texts):
            if text and wrong(text):
                ids[offsets[index]] ^= 1
        return ids, offsets

    monkeypatch.setattr(FastEngine, "encode", encode)


def test_a_wrong_engine_is_caught_at_start_and_the_output_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "is_released", lambda reference: True)  # else the difference ends the run
    monkeypatch.setattr(guard, "FAST_LOAD_SPEED", 1 << 40)  # else an input as small as this gets the reference
    expected = tree_hash(pack(tmp_path / "right").output)
    for number, wrong in enumerate((lambda text: "\u180e" in text, lambda text: "bicycle" in text)):
        with monkeypatch.context() as patch:
            plant(patch, wrong)
            report = pack(tmp_path / str(number))
        assert report.run["tokenizer_engine"] == "tokenizers"
        assert "it differs from tokenizers on" in report.run["tokenizer_engine_reason"]
        assert tree_hash(report.output) == expected


def test_an_engine_that_goes_wrong_later_ends_the_run_before_anything_wrong_is_committed(tmp_path, monkeypatch):
    source = big_input(tmp_path / "big.jsonl", copies=12)
    plant(monkeypatch, lambda text: text.startswith(("5 ", "6 ", "7 ", "8 ", "9 ", "10 ", "11 ")))
    with pytest.raises(errors.EngineError, match="gives other ids than tokenizers") as caught:
        pack(tmp_path / "out", source)
    assert caught.value.exit_code == 1
    assert not list((tmp_path / "out" / "units").iterdir())
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_both_engines_give_the_same_bytes(tmp_path):
    """The engine is not part of the fingerprint: a resume may use the other one."""
    hashes = {
        engine: tree_hash(pack(tmp_path / engine, tokenizer_engine=engine).output)
        for engine in ("fastokens", "tokenizers")
    }
    assert hashes["fastokens"] == hashes["tokenizers"]


def test_no_eos_and_templates(tmp_path, reference):
    report = pack(
        tmp_path / "out",
        SAMPLE.with_name("prompt_completion.jsonl"),
        text_template="{prompt}\n{completion}",
        add_eos=False,
        strategy="pad",
        max_len=2048,
    )
    rows = [
        json.loads(line)
        for line in SAMPLE.with_name("prompt_completion.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]
    data = load_from_disk(str(report.output))
    assert report.stats.num_tokens_special == 0
    for row, packed in zip(rows, data, strict=True):
        text = reference.decode(packed["input_ids"][: packed["seq_lengths"][0]])
        assert text == f"{row['prompt']}\n{row['completion']}"


def test_left_overs_of_dead_processes_are_swept(tmp_path):
    pack(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    left = [
        tmp_path / "out" / ".data-00000-000.arrow.1.0123456789ab.tmp",
        tmp_path / "out" / "units" / ".x.json.1.0123456789ab.tmp",
    ]
    for path in left:
        path.write_bytes(b"half")
    not_ours = tmp_path / "out" / ".notes.tmp"
    not_ours.write_text("somebody's")
    assert pack(tmp_path / "out").status == "resumed"
    assert not any(path.exists() for path in left)
    assert not_ours.exists()


@pytest.mark.parametrize("lost", ["data-00000-001.arrow", "units/00000-001.json", "units/00000-003.json"])
def test_what_is_lost_from_an_output_is_made_again(tmp_path, lost):
    """A finished output would stay "up to date" with a hole in it."""
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(SAMPLE.read_bytes()))
    output = pack(tmp_path / "out", tmp_path / "docs.jsonl.gz", unit_bytes=40_000).output
    expected = tree_hash(output)
    (output / lost).unlink()
    assert pack(output, tmp_path / "docs.jsonl.gz", unit_bytes=40_000).status == "resumed"
    assert tree_hash(output) == expected


def test_config_objects_and_keywords_are_the_same(tmp_path):
    config = PackConfig(max_len=256, strategy="bfd")
    pipeline.pack([SAMPLE], tmp_path / "a", config=config, options=RunOptions(workers=1))
    pack(tmp_path / "b", strategy="best-fit")
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")


def test_a_plain_pack_imports_only_what_it_needs(tmp_path):
    """Each of these costs a short run more than its documents."""
    later = "jinja2 datasets pandas huggingface_hub matplotlib ray pyarrow.parquet pyarrow.compute".split()
    later += [
        "packcli.pipeline.mixture",
        "packcli.tokenization.chat.render",
        "packcli.pipeline.engines.ray",
        "packcli.report.html",
    ]
    (tmp_path / "ten.jsonl").write_text('{"text": "the cat sat on the mat"}\n' * 10)
    later += ["fastokens"] * IS_0  # a pre-release of tokenizers is compared with it, however small the input
    code = f"import packcli, sys; packcli.pack('ten.jsonl', 'out'); print(sorted({{*{later}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
