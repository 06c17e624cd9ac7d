"""The page in headless Chromium at three widths: `make test-browser`. Skipped where there is no browser."""

import json
import os
import shutil

import pytest
from test_inspect import HOSTILE

import packcli
from packcli.pages import write_page
from packcli.report import read_report

playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")
axe = pytest.importorskip("axe_core_python.sync_playwright", reason="make test-browser installs it")
CHROMIUM = os.environ.get("PACKCLI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or PACKCLI_CHROMIUM")

FIGURES = """() => [...document.querySelectorAll("[data-key]")].map(
    each => [each.dataset.key, JSON.parse(each.dataset.value), each.innerText])"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, tokenizer_dir):
    folder = tmp_path_factory.mktemp("browser")
    rows = [
        {"text": f"{HOSTILE}</pre></style><img src=x onerror=alert(1)> {number} " * (number % 7 + 1)}
        for number in range(60)
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"max_len": 512, "strategy": "best-fit", "tokenizer": str(tokenizer_dir), "workers": 1}
    packcli.pack(str(folder / "in.jsonl"), folder / "out", **settings)
    write_page(folder / "page.html", read_report(folder / "out"))
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 820, 1400])
def test_the_page_in_a_browser(browser, page_file, width, dark):
    """No console error, no request but for the page, no scrolling sideways, figures as in stats.json, axe content."""
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
    content = json.loads((page_file.parent / "out" / "stats.json").read_bytes())
    figures = page.evaluate(FIGURES)
    assert len(figures) > 60
    for key, value, shown in figures:
        found = content
        for step in key.split("."):
            found = found[int(step) if isinstance(found, list) else step]
        assert value == (str(found) if key == "max_len" else found)
        assert shown
    assert page.locator("script, img").count() == 0
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


def test_the_page_on_paper(browser, page_file, tmp_path):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
