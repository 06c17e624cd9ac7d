"""Units of several parts, which compressed files give: each part is packed on its own, like a unit of a plain file."""

import gzip
import io
import shutil
import sys

import pyarrow as pa
import pytest
from helpers import SAMPLE, tree_hash
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from packcli import pipeline, tokenization
from packcli.config import PackConfig, RunOptions
from packcli.dataset import read_report, read_unit
from packcli.packing.strategies import STRATEGIES
from packcli.pipeline import measure
from packcli.report import compare, recount
from packcli.verification import verify


@pytest.fixture(scope="module")
def zipped(tmp_path_factory):
    path = tmp_path_factory.mktemp("parts") / "docs.jsonl.gz"
    path.write_bytes(gzip.compress(SAMPLE.read_bytes(), mtime=0))
    return path


@pytest.fixture(scope="module")
def pack(tokenizer_dir):
    """Packs with a small tokenizer, which is loaded once."""
    spec = tokenization.find_tokenizer(PackConfig(tokenizer=str(tokenizer_dir)), allow_network=False)
    choice = tokenization.choose_engine(spec, "tokenizers", [])

    def run(source, output, **config):
        config = {"max_len": 256, "strategy": "best-fit", "unit_bytes": 20_000, **config}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenization, "choose_engine", lambda *arguments, **options: choice)
            made = PackConfig(tokenizer=str(tokenizer_dir), **config)
            return pipeline.pack(source, output, config=made, options=RunOptions(workers=1))

    return run


def shards_of(output):
    """The bytes of the shards in order. The names differ, data-00003-000 of a plain file and data-00000-003."""
    return [path.read_bytes() for path in sorted(output.glob("**/data-*.arrow"))]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("kind", [".gz", ".zst", "pipe"])
def test_the_same_rows_give_the_same_packs(pack, tmp_path, monkeypatch, strategy, kind):
    """However they are compressed: who unpacks a corpus, or pipes it in, packs it as before."""
    config = {"strategy": strategy, "val_fraction": 0.1, "balance": strategy in ("best-fit", "shuffle-fit", "pad")}
    source, data = tmp_path / f"docs.jsonl{kind}", SAMPLE.read_bytes()
    if kind == "pipe":
        source = "-"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    elif kind == ".gz":
        source.write_bytes(gzip.compress(data))
    else:
        with pa.CompressedOutputStream(str(source), "zstd") as file:
            file.write(data)
    plain = pack(SAMPLE, tmp_path / "plain", **config)
    other = pack(source, tmp_path / "other", **config)
    assert plain.stats.num_parts == other.stats.num_parts > 5
    assert plain.manifest["num_units"] == (plain.stats.num_parts)
    assert other.manifest["num_units"] == (plain.stats.num_parts if kind == "pipe" else 1)
    assert shards_of(tmp_path / "plain") == shards_of(tmp_path / "other")
    assert plain.stats.num_packs == other.stats.num_packs


def documents(output):
    """(source, row) -> the spans of every document in the packs."""
    found = {}
    for shard in sorted(output.glob("**/data-*.arrow")):
        for row in pa.ipc.open_stream(shard.read_bytes()).read_all().column("sources").to_pylist():
            for each in row:
                found.setdefault((each["source"], each["row"]), []).append((each["start"], each["end"]))
    return found


@settings(max_examples=6)
@given(
    unit_bytes=st.integers(1024, 60_000),
    max_len=st.sampled_from([32, 256, 2048]),
    strategy=st.sampled_from(["best-fit", "shuffle-fit"]),
    overlong=st.sampled_from(["split", "truncate", "drop"]),
    val_fraction=st.sampled_from([0.0, 0.2]),
    max_docs=st.sampled_from([0, 3]),
)
def test_every_document_is_in_exactly_one_pack(
    pack, tmp_path_factory, unit_bytes, max_len, strategy, overlong, val_fraction, max_docs
):
    assume((max_len, overlong) != (32, "drop"))  # it leaves nothing
    folder = tmp_path_factory.mktemp("any")
    rows = SAMPLE.read_bytes().splitlines(keepends=True)[:80]
    source = folder / "docs.jsonl.gz"
    source.write_bytes(gzip.compress(b"".join(rows), mtime=0))
    config = {"unit_bytes": unit_bytes, "max_len": max_len, "strategy": strategy, "overlong": overlong}
    report = pack(source, folder / "out", val_fraction=val_fraction, max_docs_per_pack=max_docs, **config)
    verdict = verify(folder / "out", against=[str(source)], tokenizer_engine="tokenizers")
    assert verdict.problems == []
    assert verdict.num_documents_compared == len(rows)
    found = documents(folder / "out")
    assert len(found) == report.stats.num_documents_packed == len(rows) - report.stats.num_documents_overlong
    for spans in found.values():
        spans.sort()
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert recount(read_report(folder / "out")).differences == {}
    shutil.rmtree(folder)


def test_masks_go_along(pack, tmp_path):
    """A mask that is off by a part would train on prompts."""
    rows = SAMPLE.with_name("prompt_completion.jsonl").read_bytes()
    source = tmp_path / "rows.jsonl.gz"
    source.write_bytes(gzip.compress(rows, mtime=0))
    config = {"max_len": 512, "unit_bytes": 4000, "val_fraction": 0.1}
    report = pack(source, tmp_path / "out", **config)
    assert report.stats.num_parts > 5
    assert verify(tmp_path / "out", against=[str(source)], tokenizer_engine="tokenizers").problems == []
    plain = pack(SAMPLE.with_name("prompt_completion.jsonl"), tmp_path / "plain", **config)
    assert report.stats.num_tokens_loss == plain.stats.num_tokens_loss > 0
    assert recount(read_report(tmp_path / "out")).differences == {}


@pytest.mark.parametrize("n", range(1, 6))
def test_a_sample_reads_its_parts_only(pack, zipped, tmp_path_factory, n):
    output = tmp_path_factory.getbasetemp() / "sampled"
    if not output.exists():
        pack(zipped, output, val_fraction=0.2)
    counts = [sidecar.stats.num_documents for sidecar, _ in read_unit(output, 0)]
    assert len(counts) > 5
    verdict = verify(output, deep=True, sample=(n, 5), tokenizer_engine="tokenizers")
    assert verdict.problems == []
    assert verdict.num_documents_compared == sum(counts[n - 1 :: 5])


def test_what_if_plans_part_by_part_too(pack, zipped, tmp_path, tokenizer_dir):
    config = PackConfig(tokenizer=str(tokenizer_dir), unit_bytes=20_000)
    lengths = measure([str(zipped)], config, RunOptions(workers=1), emit=lambda event: None)
    for told in compare(lengths, [256], ["best-fit", "shuffle-fit", "concat"]).outcomes:
        stats = pack(zipped, tmp_path / told.strategy, strategy=told.strategy).stats
        assert told.num_packs == stats.num_packs
        assert told.num_packs_above_lower_bound == stats.num_packs - stats.sum_lower_bound
        assert told.num_documents_cut == stats.num_documents_split


def test_parts_before_a_lost_one_stay(pack, zipped, tmp_path):
    """Each part stands on its own: the first that is lost is where the work begins again."""
    output = tmp_path / "out"
    report = pack(zipped, output, val_fraction=0.2)
    whole = tree_hash(output)
    assert report.stats.num_parts > 6
    (output / "units/00000-003.json").unlink()
    (output / "units/00000-005.json").write_text("{}")
    assert [sidecar.part for sidecar, _ in read_unit(output, 0)] == [0, 1, 2]
    assert pack(zipped, output, val_fraction=0.2).run["resumed_parts"] == 3
    assert tree_hash(output) == whole
