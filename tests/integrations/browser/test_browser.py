"""Pages of text, of chats with masks, and of several directories, in headless Chromium: `make integration-browser`."""

import json
import os
import shutil

import axe_core_python.sync_playwright as axe
import playwright.sync_api as playwright
import pytest
from report.test_packs import HOSTILE

import packcli
from packcli.dataset import read_report
from packcli.report.html import write_page

CHROMIUM = os.environ.get("PACKCLI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
assert CHROMIUM is not None, "no Chromium: apt-get install chromium, or name one in PACKCLI_CHROMIUM"

# Root needs the first; without the others Chromium asks the network for updates, at every start.
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()

FIGURES = """() => [...document.querySelectorAll("[data-key]")].map(
    each => [each.dataset.key, JSON.parse(each.dataset.value), each.innerText, Number(each.dataset.report || 0)])"""

CUT = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter(each => {
        const box = each.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
            || box.bottom > frame.bottom + 1;
    }).map(each => each.textContent);
})"""
"""Words of plots that reach over their edge, where they are cut off."""

COVERED = """() => [...document.querySelectorAll("svg[aria-label^='Tokens from input']")].flatMap(svg => {
    const boxes = [...svg.querySelectorAll("text")].map(each => [each.textContent, each.getBoundingClientRect()]);
    return boxes.flatMap(([word, one], place) => boxes.slice(place + 1).filter(([, other]) =>
        one.left < other.right && other.left < one.right && one.top + 2 < other.bottom && other.top + 2 < one.bottom
    ).map(([other]) => [word, other]));
})"""
"""Words of the flow that cover each other."""

HOSTILE_TEXT = f"{HOSTILE}</pre></style><img src=x onerror=alert(1)>"


def text_rows():
    return [{"text": f"{HOSTILE_TEXT} {number} " * (number % 7 + 1)} for number in range(60)]


def chat_rows():
    """Conversations, some without an answer."""
    for number in range(80):
        turns = [("user", f"{HOSTILE_TEXT} {number}"), ("assistant", f"{HOSTILE_TEXT} so " * (number % 3 + 1))]
        yield {"messages": [{"role": role, "content": text} for role, text in turns[: 1 if number % 9 == 8 else 2]]}


@pytest.fixture(scope="module")
def directories(tmp_path_factory, tokenizer_dir):
    folder = tmp_path_factory.mktemp("browser")
    small = {"tokenizer": str(tokenizer_dir), "workers": 1}
    for name, rows in (("text", text_rows()), ("chat", chat_rows())):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    packcli.pack(str(folder / "text.jsonl"), folder / "text", max_len=512, strategy="best-fit", **small)
    chats = {"max_len": 400, "chat_template": "chatml", "add_bos": False}
    packcli.pack(str(folder / "chat.jsonl"), folder / "chat", overlong="truncate", **chats, **small)
    packcli.pack(str(folder / "chat.jsonl"), folder / "<b>drop", overlong="drop", **chats, **small)
    return [folder / "text", folder / "chat", folder / "<b>drop"]


PAGES = {"text": slice(0, 1), "chat": slice(1, 2), "several": slice(0, 3)}


@pytest.fixture(scope="module")
def written(request, directories):
    """A page, and the stats.json of its directories."""
    chosen = directories[PAGES[request.param]]
    path = directories[0].parent / f"{request.param}.html"
    write_page(path, [read_report(each) for each in chosen])
    return path, [json.loads((each / "stats.json").read_bytes()) for each in chosen]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.mark.parametrize(
    ("written", "width", "dark"),
    [("text", 390, False), ("text", 820, True), ("text", 1400, False), ("chat", 390, True), ("chat", 1400, False)]
    + [("several", 390, True), ("several", 820, False)],
    indirect=["written"],
)
def test_the_page_in_a_browser(browser, written, width, dark):
    """No console error, no request but for the page, no scrolling sideways, figures as in stats.json, axe content."""
    page_file, contents = written
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    figures = page.evaluate(FIGURES)
    assert len(figures) > 60 * len(contents)
    for key, value, shown, report in figures:
        found = contents[report]
        for step in key.split("."):
            if key.startswith("totals.tokens_by_role") and step not in found:
                found = 0  # the text beside it has no roles
                break
            found = found[int(step) if isinstance(found, list) else step]
        assert value == (str(found) if key == "max_len" else found)
        assert shown
    assert page.evaluate(CUT) == []
    assert page.evaluate(COVERED) == []
    assert page.locator("script, img, b:not([data-key])").count() == 0
    assert page.locator("pre", has_text="<script>alert(1)</script>").count() > 0
    assert page.evaluate(
        "[...document.querySelectorAll('svg')].every(each => each.getBoundingClientRect().height > 50)"
    )
    assert asked == [page_file.as_uri()]
    assert said == []
    context.close()

    # axe is a script, which the page refuses: only for it the policy is lifted.
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(page_file.as_uri())
    found = axe.Axe().run(page)
    assert len(found["passes"]) > 10
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    context.close()


@pytest.mark.parametrize("written", ["several"], indirect=True)
def test_the_page_on_paper(browser, written, tmp_path):
    page = browser.new_page()
    page.goto(written[0].as_uri())
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
