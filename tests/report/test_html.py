"""The page: its figures are those of stats.json, nothing comes from elsewhere, text is inert, it is small."""

import collections
import html
import html.parser
import json
import re
import sys

import pytest
from helpers import SAMPLE
from report.test_packs import HOSTILE
from typer.testing import CliRunner

import packcli
from packcli import cli
from packcli.config.choices import COLUMNS
from packcli.dataset import read_report
from packcli.report.html import make_page
from packcli.report.html.flow import draw_flow, flow_of
from packcli.report.html.page import MAX_REPORTS
from packcli.report.tables import FIGURES, Cell

MAX_PAGE_BYTES = 1_500_000


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200", "NO_COLOR": "1"})


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each element that has a data-key."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.figures, self.text, self.reports = [], [], [], []
        self._key = None
        self.open = collections.Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.open[tag] += 1
        if "data-key" in attributes:
            self._key = attributes
            self.reports.append(attributes.get("data-report"))

    def handle_endtag(self, tag):
        self.open[tag] -= 1

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)
        if self._key is not None:
            self.figures.append((self._key["data-key"], self._key["data-value"], data))
            self._key = None


def at(content, key):
    for step in key.split("."):
        content = content[int(step) if isinstance(content, list) else step]
    return content


def pack(out, tokenizer_dir, inputs=str(SAMPLE), **settings):
    return packcli.pack(inputs, out, **{"max_len": 256, "workers": 1, "tokenizer": str(tokenizer_dir), **settings})


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tokenizer_dir):
    out = tmp_path_factory.mktemp("pages") / "out"
    pack(out, tokenizer_dir, strategy="next-fit", overlong="truncate", val_fraction=0.2)
    return out


def test_every_figure_is_that_of_stats_json(packed, tmp_path):
    result = invoke("stats", packed, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    content = json.loads((packed / "stats.json").read_bytes())
    page = Page(text)
    kinds = {key: kind for _, key, kind in FIGURES}
    seen = set()
    assert set(page.reports) == {None}
    for key, value, shown in page.figures:
        assert json.loads(value) == (str(at(content, key)) if key == "max_len" else at(content, key)), key
        if key in kinds:
            assert shown == str(Cell(at(content, key), kinds[key]))
        seen.add(key)
    assert {key for _, key, _ in FIGURES} <= seen
    assert {f"derived.layouts.{name}.padding_ratio" for name in content["derived"]["layouts"]} <= seen
    assert {"sources.0.num_documents", "totals.by_split.validation.num_packs", "derived.segment_length.p99"} <= seen


@pytest.fixture(scope="module")
def text(packed):
    return make_page([read_report(packed)])


def test_nothing_comes_from_elsewhere_and_nothing_runs(text):
    page = Page(text)
    tags = collections.Counter(tag for tag, _ in page.tags)
    assert not tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert tags["svg"] == 6
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "action", "data", "srcset"):
                assert value.startswith("#"), (tag, name, value)
            assert "url(" not in (value or "") or re.search(r"url\(#", value), (tag, name, value)
    assert not re.search(r"@import|https?://(?!www\.w3\.org/2000/svg)", text)
    (policy,) = (a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert all(count == 0 for tag, count in page.open.items() if tag != "meta")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used <= set(ids)
    assert used


def test_plots_are_named_and_take_their_colours_from_the_page(text):
    page = Page(text)
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(each["role"] == "img" and re.search(r"\d", each["aria-label"]) for each in plots)
    styles = " ".join(attributes.get("style", "") for _, attributes in page.tags)
    assert "var(--one)" in styles
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", styles)


def test_the_same_page_for_the_same_report(packed, text):
    assert make_page([read_report(packed)]) == text


def test_text_from_strangers_is_inert(tmp_path, tokenizer_dir):
    source = tmp_path / "<script>alert(1)\x1b[31m\u202e.jsonl"
    hostile = {"text": HOSTILE + "</pre><script>alert(2)</script>\"'"}
    try:
        source.write_text("".join(json.dumps(hostile) + "\n" for _ in range(20)), encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes no such name")
    out = tmp_path / "<b>out"
    pack(out, tokenizer_dir, str(source))
    text = make_page([read_report(out)])
    page = Page(text)
    tags = collections.Counter(tag for tag, _ in page.tags)
    assert tags["script"] == tags["b"] - 6 == 0  # the six cards
    for char in "\x1b\x07\x9b\u202e\u2066":
        assert char not in text
    assert any("<script>alert(2)</script>" in data for data in page.text)
    markdown = invoke("stats", out, "--markdown").stdout
    assert "<script" not in markdown
    assert "\x1b" not in markdown
    assert "\x1b" not in invoke("stats", out).stderr


def test_it_stays_small_whatever_the_input(tmp_path, tokenizer_dir):
    """Many files with long names, many kinds of lengths, long documents."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows = SAMPLE.read_bytes().splitlines(keepends=True)
    for number in range(400):
        name = f"{number:03d}-" + "x" * 200
        (folder / f"{name}.jsonl").write_bytes(rows[number % 300])
    pack(tmp_path / "out", tokenizer_dir, str(folder), max_len=4096, strategy="best-fit")
    text = make_page([read_report(tmp_path / "out")])
    assert len(text.encode()) < MAX_PAGE_BYTES / 5
    assert "351 others" in text
    assert "350 others" not in text


@pytest.fixture(scope="module")
def several(packed, tmp_path_factory, tokenizer_dir):
    """Three directories: text that is truncated, another of the same name, and prompts with masks."""
    folder = tmp_path_factory.mktemp("several")
    rows = [{"prompt": "the cat " * number, "completion": "sat " * (number % 9)} for number in range(60)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack(folder / "out", tokenizer_dir, strategy="pad")
    pack(folder / "masks", tokenizer_dir, str(folder / "in.jsonl"), overlong="drop", max_len=128, loss_on_eot=False)
    return [packed, folder / "out", folder / "masks"]


def test_several_directories_stand_side_by_side_and_then_each_alone(several, tmp_path):
    """Every figure names its report; ids are used once; the comparison has a column for each."""
    result = invoke("stats", *several, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    contents = [json.loads((each / "stats.json").read_bytes()) for each in several]
    assert len(page.reports) == len(page.figures)
    seen = collections.Counter()
    for report, (key, value, _) in zip(page.reports, page.figures, strict=True):
        content = contents[int(report)]
        if at_or_none(content, key) is None and key.startswith("totals.tokens_by_role."):
            assert json.loads(value) == 0  # the text beside it has no roles
            continue
        assert json.loads(value) == (str(at(content, key)) if key == "max_len" else at(content, key)), key
        seen[report, key] += 1
    for report in "012":
        assert seen[report, "derived.utilisation"] == 3  # compared, as a key figure, in the table
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"report-0", "report-1", "report-2"} <= set(ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used <= set(ids)
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert str(several[0]) in text  # two are called out
    labels = [attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "region"]
    assert len(labels) == len(set(labels)) > 12
    assert all(count == 0 for tag, count in page.open.items() if tag != "meta")
    assert len(text.encode()) < 3 * MAX_PAGE_BYTES / 8


def at_or_none(content, key):
    try:
        return at(content, key)
    except KeyError:
        return None


def test_a_page_takes_so_many_directories_and_no_more(several, tmp_path):
    result = invoke("stats", *several * 3, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "at most 8 directories on a page, and 9 are given" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_the_largest_page_is_small_enough(tmp_path, tokenizer_dir):
    """Many files with long names that grow when they are escaped, long segments that do: eight of such reports."""
    folder = tmp_path / "in"
    folder.mkdir()
    row = json.dumps({"text": "\"'<&\u202e" * 2000}) + "\n"
    for number in range(60):
        (folder / f"{number:03d}-{'&' * 240}.jsonl").write_text(row)
    pack(tmp_path / "out", tokenizer_dir, str(folder), max_len=64, strategy="best-fit")
    report = read_report(tmp_path / "out")
    assert len(make_page([report] * MAX_REPORTS).encode()) < MAX_PAGE_BYTES


def test_the_flow_has_every_token(several):
    """The sums of both sides are equal, and every cause that occurred has a node."""
    names = set()
    for each in several:
        report = read_report(each)
        flow = flow_of(report)
        stats = report.stats
        assert (
            flow.num_tokens == sum(node.count for node in flow.became) == stats.num_tokens_in + stats.num_tokens_special
        )
        assert flow.padding.count == stats.num_tokens_padding
        told = {node.key: node.count for node in (*flow.read, *flow.became, flow.padding) if node.key}
        content = {"totals": stats.as_dict()}
        assert all(at(content, key) == count for key, count in told.items())
        names |= {node.name for node in flow.became}
        svg = draw_flow("x", flow)
        assert all(f">{node.count:,}" in svg and node.name in svg for node in flow.became)
    assert names == {"with loss", "without loss", "truncated", "dropped: too long", "dropped: no loss"}


@pytest.mark.parametrize("columns", ["compact", ",".join(COLUMNS[:4])])
def test_without_sources_it_shows_what_there_is(tmp_path, tokenizer_dir, columns):
    pack(tmp_path / "out", tokenizer_dir, columns=columns)
    page = Page(make_page([read_report(tmp_path / "out")]))
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    assert any("row" in text and "positions" in text for text in page.text)


def test_without_its_tokenizer_it_says_so(tmp_path, tokenizer_dir):
    pack(tmp_path / "out", tokenizer_dir)
    (tmp_path / "out" / ".packcli" / "run.jsonl").unlink()
    text = make_page([read_report(tmp_path / "out")])
    assert "Not decoded: the tokenizer" in text
    assert "not recorded on this machine" in text


def test_without_matplotlib_it_says_what_to_install(packed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("stats", packed, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "pip install 'packcli[html]'" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_place_that_cannot_be_written(packed, tmp_path):
    result = invoke("stats", packed, "--html", tmp_path / "no" / "page.html")
    assert result.exit_code == 6
    assert "--html takes a file" in result.stderr


def test_only_html_loads_matplotlib(packed):
    import subprocess

    code = f"""
from typer.testing import CliRunner
from packcli import cli
import sys
assert CliRunner().invoke(cli.app, ["stats", {str(packed)!r}]).exit_code == 0
print({{"matplotlib", "datasets", "pandas", "tokenizers"}} & {{*sys.modules}})"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
