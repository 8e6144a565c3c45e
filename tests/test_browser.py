"""The site of a small run in a real browser: nothing fails, nothing is fetched from elsewhere, and
everything that can be touched answers.
"""

import ast
import csv
import functools
import http.server
import io
import json
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from conftest import PATIENCE

from retail_ci.core.formats import amount, count, money, share, use_locale
from retail_ci.report import shop_facts
from retail_ci.report.finishing import _pack
from retail_ci.report.page_parts import facts_of, glossary
from retail_ci.report.pages import PAGES

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on this machine (Debian package chromium)"
)
BUSINESS = ["index", *PAGES, "segment-champions"]
LOOKS = {  # how wide a page is: on a desk, on a phone, and on A4 within its margins
    "desk": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
    "print": {"width": 688, "height": 1000},
}


# Far below what the window shows a page is loaded, styled and laid out as in a window of its
# frame's size, and not painted, which would cost as much again.
BELOW = """<!doctype html><html lang="en"><meta name="color-scheme" content="light dark">
<title>Pages</title><link rel="icon" href="data:,">
<style>iframe { position: absolute; top: 40000px; left: 0; border: 0; }</style>
<body></body></html>"""
EMPTY = "document.body.replaceChildren()"
PLACE = """([address, size]) => {
  const frame = document.createElement("iframe");
  document.body.append(Object.assign(frame, { name: "page", src: address, ...size }));
}"""
READY = """() => {  // and the images have come or failed that a reader sees only further down
  const page = document.querySelector("iframe").contentDocument;
  if (page?.readyState !== "complete" || page.documentElement.dataset.house !== "ready")
    return false;
  for (const image of page.images) image.loading = "eager";
  return [...page.images].every((image) => image.complete);
}"""
# playwright itself would bring its script into each page anew
ASK = """([script, argument]) =>
  document.querySelector("iframe").contentWindow.eval(`(${script})`)(argument)"""
RESIZE = """(size) => new Promise((done) => {  // a page acts on it as it is drawn after that
  Object.assign(document.querySelector("iframe"), size);
  requestAnimationFrame(() => requestAnimationFrame(done));
})"""


@pytest.fixture(scope="module")
def made(request, tmp_path_factory) -> tuple[Path, Path]:
    """The site of the small run, under a plain name, and the run; or the two named by SITE and
    SITE_OF_RUN.
    """
    if os.environ.get("SITE"):
        return Path(os.environ["SITE"]), Path(os.environ["SITE_OF_RUN"])
    small = request.getfixturevalue("small")
    assert small.ran.returncode == 0, small.ran.stderr
    assert small.built.returncode == 0, small.built.stderr
    site = tmp_path_factory.mktemp("browser") / "site"
    site.symlink_to(small.project.root / "_site")
    return site, small.run


@pytest.fixture(scope="module")
def address(made, tmp_path_factory):
    """The site on a server of this machine, which keeps a connection, and of which a browser keeps
    what pages share; beside it is the page for the others to lie below.
    """
    below = tmp_path_factory.mktemp("below") / "below.html"
    below.write_text(BELOW)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def translate_path(self, path):
            return str(below) if path == "/below.html" else super().translate_path(path)

        def end_headers(self):
            self.send_header("Cache-Control", "max-age=86400")
            super().end_headers()

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(made[0]))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def new_tab(browser, address: str):
    """A page in a context of its own that remembers what went wrong and what was asked of whom."""
    context = browser.new_context(viewport=LOOKS["desk"], accept_downloads=True)
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    page.faults = []
    page.outside = []
    page.on(
        "console",
        lambda m: (
            page.faults.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda e: page.faults.append(str(e)))
    page.on("requestfailed", lambda r: page.faults.append(f"{r.url} failed"))
    page.on(
        "request",
        lambda r: (
            page.outside.append(r.url)
            if not r.url.startswith((address, "blob:", "data:", "file:", "about:"))
            else None
        ),
    )
    page.on(
        "response",
        lambda r: page.faults.append(f"{r.status} {r.url}") if r.status >= 400 else None,
    )
    return page


@pytest.fixture(scope="module")
def shared_tab(browser, address):
    """A page that tests use one after the other: a new one takes half a second of a processor."""
    page = new_tab(browser, address)
    yield page
    page.context.close()


def as_new(page, address: str) -> None:
    """Leave nothing of a test in a page: no address, choice, route, look or message."""
    page.unroute_all()
    page.goto("about:blank")
    page.mouse.move(0, 0)
    page.emulate_media(media="null", color_scheme="light")
    page.set_viewport_size(LOOKS["desk"])
    session = page.context.new_cdp_session(page)
    for origin in (address, "file://"):
        session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    session.detach()
    page.faults.clear()
    page.outside.clear()


@pytest.fixture
def tab(browser, address, shared_tab):
    """A way to open a page as if for the first time, in one tab for all tests; in a tab `apart`
    for who listens to more, or asks how much is fetched.
    """
    opened = []

    def open_tab(
        path: str = "index.html", phone: bool = False, dark: bool = False, apart: bool = False
    ):
        if shared_tab in opened and not apart:
            as_new(shared_tab, address)
        page = new_tab(browser, address) if apart else shared_tab
        opened.append(page)
        if phone:
            page.set_viewport_size(LOOKS["phone"])
        if dark:
            page.emulate_media(color_scheme="dark")
        page.goto(path if "://" in path else f"{address}/{path}")
        page.wait_for_selector("html[data-house=ready]")
        return page

    yield open_tab
    for page in opened:
        if page is not shared_tab:
            page.context.close()
    as_new(shared_tab, address)


@pytest.fixture(scope="module")
def screenshots() -> Path | None:
    """Where pictures of the pages go; only who asks for them waits for them."""
    if not os.environ.get("SCREENSHOTS"):
        return None
    folder = Path(os.environ["SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def place(window, address: str, dark: bool = False) -> None:
    """Open a page below a window, as on a desk."""
    window.evaluate(EMPTY)
    window.emulate_media(media="screen", color_scheme="dark" if dark else "light")
    window.evaluate(PLACE, [address, LOOKS["desk"]])
    window.wait_for_function(READY, polling=20)


def look_at(window, look: str, dark: bool = False) -> None:
    """Give the page below a window a size and colours, on paper or on a screen."""
    media = "print" if look == "print" else "screen"
    window.emulate_media(media=media, color_scheme="dark" if dark else "light")
    window.evaluate(RESIZE, LOOKS[look])


def ask(window, script: str, argument: object = None):
    """What a function answers within the page below a window."""
    return window.evaluate(ASK, [script, argument])


def tables_of(window) -> dict[str, list[dict]]:
    """The tables of the page below a window, which is open as on a desk, in each look; it is so
    afterwards.
    """
    if not ask(window, "() => document.querySelectorAll('main table').length"):
        return {}
    found = {"desk": ask(window, TABLES)}
    for look in ("phone", "print"):
        look_at(window, look)
        found[look] = ask(window, TABLES, look == "print")
    look_at(window, "desk")
    return found


TABLES = """(print) => {
  const inTwo = (head) => {  // whether a word of it stands on two lines
    const texts = document.createTreeWalker(head, NodeFilter.SHOW_TEXT);
    const lines = (text, word) => {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
      return new Set(boxes.map((box) => Math.round(box.top))).size;
    };
    for (let text = texts.nextNode(); text; text = texts.nextNode())
      for (const word of text.data.matchAll(/[^\\s\\-\\/\u200b]+/g))
        if (lines(text, word) > 1) return true;
    return false;
  };
  const end = document.querySelector("main").getBoundingClientRect().right;
  const shown = [...document.querySelectorAll("main table")].filter((table) => table.offsetParent);
  return shown.map((table) => {
    const box = table.closest(".table-box"), head = table.tHead && table.tHead.offsetParent;
    const last = Math.max(...[...table.rows].filter((row) => row.offsetParent)
      .map((row) => row.cells[row.cells.length - 1].getBoundingClientRect().right));
    const cells = [...table.querySelectorAll("tbody td:not(:first-child)")];
    return {
      cut: Math.round(Math.max(box ? box.scrollWidth - box.clientWidth : 0, last - end)),
      fit: box ? box.dataset.fit || "" : "no box",
      split: print && head ? [...table.tHead.querySelectorAll("th")].filter(inTwo).length : 0,
      named: Boolean(head) || cells.every((cell) => cell.dataset.label || !cell.textContent.trim()),
      text: table.innerText.slice(0, 60),
    };
  });
}"""


SAID = """() => {
  const main = document.querySelector("main");
  const terms = [...document.querySelectorAll("a.term")].map((link) => link.hash.slice(1));
  const figures = [...main.querySelectorAll("figure")].map(
    (figure) => [figure.querySelector("img")?.alt, figure.querySelector("figcaption")?.innerText]);
  const code = Boolean(main.querySelector("details, pre")), text = main.innerText;
  main.querySelectorAll("code, tbody").forEach((node) => node.remove());  // names of the data
  return { text, code, terms, figures, prose: main.innerText };
}"""
COLOURS = ("light", "dark", "phone", "phone-dark")
SEEN_IN_COLOURS = [*BUSINESS, "02_features", "05_evaluation", "notebooks", "start"]
SEEN_IN_COLOURS += ["reference/config"]
READ_ALOUD = [*BUSINESS, "02_features", "notebooks"]
SERIOUS = ("serious", "critical")


COLOURED = """(dark) => {
  const page = document.querySelector("iframe").contentDocument;
  return page.documentElement.classList.contains("quarto-dark") === dark;
}"""
SEEN = """() => {  // the paper of a page, and how much wider than the window it is
  const root = document.documentElement;
  const paper = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
  return { paper: paper.slice(0, 3), overflow: root.scrollWidth - root.clientWidth };
}"""


def barriers(page, dark: bool) -> list[str]:
    """What axe finds serious; in the dark pages are the same but for their colours."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {"runOnly": ["color-contrast"]} if dark else {}
    rules |= {"resultTypes": ["violations"]}  # the others are not read
    return [
        f"{v['impact']} {v['id']} {v['nodes'][0]['html'][:120]}"
        for v in Axe().run(page, options=rules).response["violations"]
        if v["impact"] in SERIOUS
    ]


def in_colours(window) -> dict[str, dict]:
    """The page below a window in both colours, on a desk and on a phone."""
    found = {}
    for look in COLOURS:
        dark = "dark" in look
        look_at(window, "phone" if "phone" in look else "desk", dark)
        window.wait_for_function(COLOURED, arg=dark, polling=20)
        found[look] = ask(window, SEEN)
    return found


def pictures(page, address: str, name: str, folder: Path) -> None:
    """Pictures of a page, in both colours and on a phone, for who wants to see it."""
    for look in ("light", "dark", "phone"):
        page.emulate_media(color_scheme="dark" if look == "dark" else "light")
        page.set_viewport_size(LOOKS["phone" if look == "phone" else "desk"])
        page.goto(f"{address}/{name}.html")
        page.wait_for_selector("html[data-house=ready]")
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        page.wait_for_function("[...document.images].every(i => i.complete)")
        page.screenshot(path=folder / f"{name.replace('/', '-')}-{look}.png", full_page=True)


def redirects(site: Path) -> dict[Path, str]:
    """The pages at old addresses, and where they lead."""
    found = {}
    for file in sorted(site.rglob("*.html")):
        text = file.read_text(encoding="utf-8")
        if there := re.search(r'<meta http-equiv="refresh" content="0; url=([^"]+)"', text):
            found[file] = there[1]
    return found


def visit(window, address: str, name: str) -> dict:
    """A page for readers below a window: in both colours, what axe finds, and what is said."""
    found: dict = {}
    assert not ask(window, "() => matchMedia('print').matches || innerWidth < 1280")
    if name in READ_ALOUD:
        found["light barriers"] = barriers(window.frame("page"), dark=False)
    found["looks"] = in_colours(window)
    if name in READ_ALOUD:  # as a reader opens it who has chosen these colours
        place(window, f"{address}/{name}.html", dark=True)
        found["dark barriers"] = barriers(window.frame("page"), dark=True)
    look_at(window, "desk")
    return found | {"said": ask(window, SAID)}


@pytest.fixture(scope="module")
def visited(made, browser, address, screenshots) -> dict[str, dict]:
    """Every page, and one of the old addresses, opened once: what went wrong, what it asked of
    others, its tables in each look; and of those for readers what `visit` finds.
    """
    window = new_tab(browser, address)
    window.goto(f"{address}/below.html")
    found = {}
    old = redirects(made[0])
    for file in sorted({*made[0].rglob("*.html")} - {*list(old)[1:]}):
        name = file.relative_to(made[0]).as_posix()
        place(window, f"{address}/{name}")
        found[name] = {"title": ask(window, "() => document.title")}
        found[name]["tables"] = {} if file in old else tables_of(window)
        stem = name.removesuffix(".html")
        if stem in SEEN_IN_COLOURS:
            found[name] |= visit(window, address, stem)
        found[name] |= {"faults": [*window.faults], "outside": [*window.outside]}
        window.faults.clear()
        window.outside.clear()
    for name in SEEN_IN_COLOURS if screenshots else ():
        pictures(window, address, name, screenshots)
    window.context.close()
    return found


def test_every_page_loads_without_an_error_or_an_outside_request(visited):
    for name, page in visited.items():
        assert (page["faults"], page["outside"]) == ([], []), name
    assert {f"{p}.html" for p in BUSINESS} | {
        "notebooks.html",
        "start.html",
        "reference/index.html",
        "02_features.html",
    } <= set(visited)


def test_an_old_address_leads_to_its_page(made, visited):
    """One is opened in the browser; the others differ from it in where they lead alone."""
    old = redirects(made[0])
    first, *_ = old
    assert len(old) > 20 and visited[first.relative_to(made[0]).as_posix()]["title"] != "Moved"
    shapes = set()
    for file, there in old.items():
        assert (file.parent / there).is_file(), file
        text = file.read_text(encoding="utf-8").replace(there, "THERE")
        shapes.add(text.replace(there.removesuffix(".html"), "THERE"))
    assert len(shapes) == 1, shapes


@pytest.mark.parametrize("look", LOOKS)
def test_no_table_is_wider_than_its_page(visited, look):
    tables = [
        (name, table) for name, page in visited.items() for table in page["tables"].get(look, [])
    ]
    assert len(tables) > 300
    assert [(name, table) for name, table in tables if table["cut"] > 1] == []


def test_print_splits_no_head_of_a_table_within_a_word(visited):
    tables = [
        (name, table) for name, page in visited.items() for table in page["tables"].get("print", [])
    ]
    assert len(tables) > 300 and [(name, t) for name, t in tables if t["split"]] == []


def test_a_wide_table_becomes_cards_on_a_phone_that_name_each_value(visited):
    tables = [table for page in visited.values() for table in page["tables"].get("phone", [])]
    cards = [table for table in tables if table["fit"] == "cards"]
    assert len(cards) > 50 and [c for c in cards if not c["named"]] == []
    desk = [table for page in visited.values() for table in page["tables"].get("desk", [])]
    assert sum(table["fit"] == "cards" for table in desk) == 0


def test_the_site_is_small_and_the_home_page_smaller(made, tab, address):
    site = made[0]
    whole = sum(p.stat().st_size for p in site.rglob("*") if p.is_file())
    fetched = []
    page = tab(apart=True)
    page.on("response", lambda r: fetched.append(int(r.headers.get("content-length", 0))))
    page.goto(f"{address}/index.html", wait_until="networkidle")
    page.mouse.wheel(0, 20_000)
    page.wait_for_function("[...document.images].every(i => i.complete)")
    print(f"site {whole:,} bytes; home {sum(fetched):,} bytes in {len(fetched)} files")
    assert whole < 8_000_000 and sum(fetched) < 1_500_000


# A fixed sum, about a tenth of a second of a usual processor.
PACE = """() => {
  const began = performance.now();
  let sum = 0;
  for (let i = 0; i < 5_000_000; i++) sum = (sum + i * i) % 1_000_003;
  return (performance.now() - began) / 1000 + 0 * sum;
}"""


def test_the_home_page_answers_within_a_second(tab, address):
    """A second of a usual processor, with nothing else to do."""
    page = tab()
    seconds = []
    paces = []
    for _ in range(3):  # the best of three: what the page costs, and not what else the machine does
        paces.append(page.evaluate(PACE))
        page.goto(f"{address}/index.html")
        page.wait_for_selector("html[data-house=ready]")
        seconds.append(
            page.evaluate(
                "(() => { const n = performance.getEntriesByType('navigation')[0], p = "
                "performance.getEntriesByName('first-contentful-paint')[0]; return "
                "Math.max(n.domInteractive, p ? p.startTime : 0) / 1000; })()"
            )
        )
    print(f"interactive after {min(seconds):.2f} s; the sum took {min(paces):.2f} s")
    assert min(seconds) < 10 * min(paces)


def test_the_figures_of_the_home_page_are_those_of_the_run(made, tab):
    insights = json.loads((made[1] / "metrics/insights.json").read_text())
    currency = insights["currency"]
    page = tab()
    shown = {
        node.get_attribute("data-figure-name"): node.inner_text()
        for node in page.query_selector_all(".key-number")
    }
    assert shown == {
        f["name"]: money(f["value"], currency)
        if f["name"] in ("revenue", "basket_value")
        else count(f["value"])
        for f in insights["figures"]
    }
    rows = {
        r[0]: r[2:]
        for r in page.eval_on_selector_all(
            ".actions tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))"
        )
    }
    expected = {s["segment"]: s["value_90"] for s in insights["worth"].get("segments", [])}
    assert rows == {
        s["segment"]: [
            count(s["customers"]),
            f"{100 * s['revenue_share']:.0f}%",
            *([amount(expected[s["segment"]], currency)] if expected else []),
        ]
        for s in insights["segments"]
    }
    months = [m.inner_text() for m in page.query_selector_all("span.key-change")]
    against = r"[+−]\d+\.\d% in [A-Z][a-z]+ against [A-Z][a-z]+( \d{4}|, season included)"
    assert months and all(re.fullmatch(against, m) for m in months)
    strips = [m.inner_text() for m in page.query_selector_all(".figure-strip")]
    assert len(strips) == len(months) and all(s.count(";") == 2 for s in strips)
    for link in page.eval_on_selector_all(
        "a.key-figure", "links => links.map(a => a.getAttribute('href'))"
    ):
        assert (made[0] / link).exists()


@pytest.mark.parametrize("way", ["served", "from a folder"])
def test_search_finds_a_segment(made, tab, way):
    page = tab("customers.html" if way == "served" else f"file://{made[0]}/customers.html")
    page.fill(".smalldocs-search input", "Champions")
    found = page.wait_for_selector(".search-result")
    assert (
        found.inner_text().startswith("Champions\n")
        and found.get_attribute("href").endswith("segment-champions.html")
        and not page.faults
        and not page.outside
    )
    found.click()
    page.wait_for_selector("html[data-house=ready]")
    assert "Champions" in page.inner_text("main")


SEARCHES = {  # what somebody types: the page that comes first, and what kind it is
    "movement": "Movement",
    "consent": "Campaigns",
    "return": "Products and categories",
    "gift set": ("Products and categories", "Recommendations"),
    "ndcg": "Glossary\nNDCG",
    "recency": "Glossary\nRecency",
    "copies of another": "Data quality\nCopies of another line, counted once",
    "open_run": "runs\nopen_run",
    "bootstrap": None,
}


def test_search_shows_pages_terms_and_rows_before_notebooks_and_reference(tab):
    page = tab("sales.html")
    box = ".smalldocs-search input"
    for words, first in SEARCHES.items():
        page.fill(box, words)
        page.wait_for_selector(".search-result")
        page.wait_for_function(
            "words => document.querySelector('.search-result').dataset.words === words", arg=words
        )
        found = page.eval_on_selector_all(
            ".search-result", "links => links.map(a => [a.innerText, a.getAttribute('href')])"
        )
        if first:
            assert found[0][0].startswith(first), (words, found[:3])
        else:  # no page, term or row: notebooks before the reference
            kinds = ["reference/" in href for _, href in found]
            assert kinds.index(True) > 0 and not kinds[0], found
    page.fill(box, "champoins")  # two letters changed places
    page.wait_for_selector(".search-none")
    page.fill(box, "chmpions")
    page.wait_for_selector(".search-result")
    assert "Champions" in page.inner_text(".search-result")
    assert not page.faults and not page.outside


def test_a_term_explains_itself_where_it_stands(tab):
    page = tab("02_features.html")
    term = page.locator("main a.term").first
    term.focus()
    page.wait_for_selector(".house-tip:not([hidden])")
    anchor = term.get_attribute("href").partition("#")[2]
    words = {
        re.sub(r"[^a-z0-9]+", "-", w.lower()).strip("-"): told for w, told in glossary().items()
    }
    assert page.inner_text(".house-tip") == words[anchor]
    assert term.get_attribute("aria-describedby") == "house-tip"
    page.keyboard.press("Escape")
    page.wait_for_selector(".house-tip", state="hidden")
    assert not page.faults and not page.outside


def test_the_list_of_pages_shows_where_one_is(tab):
    page = tab("reference/runner.html")
    page.set_viewport_size({"width": 1280, "height": 420})
    page.reload()
    page.wait_for_selector("html[data-house=ready]")
    assert page.evaluate(
        "(() => { const side = document.querySelector('#quarto-sidebar').getBoundingClientRect(), "
        "here = document.querySelector('#quarto-sidebar .active').getBoundingClientRect(); "
        "return here.top >= side.top && here.bottom <= innerHeight; })()"
    )


ROWS = (
    """table => [...table.tBodies[0].rows].map((row) => [...row.cells].map((c) => c.innerText))"""
)


def test_the_share_held_back_moves_the_effect_that_would_show(made, tab):
    page = tab("campaigns.html")
    told = json.loads((made[1] / "metrics/campaigns.json").read_text())
    table = page.locator("#effect table")
    before = table.evaluate(ROWS)
    slider = page.locator(".house-held input")
    slider.fill(str(round(100 * told["control"])))
    slider.dispatch_event("input")
    assert table.evaluate(ROWS) == before, "the script computes what the run has computed"
    slider.fill("50")
    half = table.evaluate(ROWS)
    for row, segment in zip(half[:-1], told["segments"]):
        reach = segment["control"] + segment["send"]
        assert row[2:4] == [count((reach + 1) // 2), count(reach // 2)]
    assert half != before and not page.faults


@pytest.mark.parametrize("locale", ["de", "de-AT", "de-CH", "es", "fr", "iso", "pl"])
def test_the_slider_writes_numbers_as_the_page_does(tab, tmp_path, locale):
    row = {"customers": 9000, "suppressed": 0, "no_consent": 0, "control": 900, "send": 8100}
    row |= {"buys_anyway": 0.41, "smallest_lift": 0.05}
    segments = [{"segment": name, **row} for name in ("Champions", "All")]
    (tmp_path / "metrics").mkdir()
    told = {"days": 30, "control": 0.1, "notes": [], "segments": segments}
    (tmp_path / "metrics/campaigns.json").write_text(json.dumps(told))
    shutil.copy(Path(__file__).parents[1] / "assets/house.js", tmp_path)
    use_locale(locale)
    try:
        parts = PAGES["campaigns"].builder(facts_of(tmp_path))
        wanted = [share(0.41), count(4500), count(4500), share(0.5)]
    finally:
        use_locale()
    blocks = "".join(re.findall(r"```\{=html\}\n(.*?)\n```", "\n".join(parts), flags=re.S))
    slider = blocks.index('<label class="house-held"')
    body = f'<section id="effect">{blocks[slider:]}</section><script src="house.js"></script>'
    (tmp_path / "page.html").write_text(f'<!doctype html><meta charset="utf-8">{body}')
    page = tab(f"file://{tmp_path}/page.html")
    before = page.locator("#effect table").first.evaluate(ROWS)
    page.locator(".house-held input").fill("10")
    assert page.locator("#effect table").first.evaluate(ROWS)[0][:4] == before[0][:4]
    page.locator(".house-held input").fill("50")
    half = page.locator("#effect table").first.evaluate(ROWS)[0]
    assert [*half[1:4], page.locator("output").inner_text()] == wanted
    assert half[4].startswith(f"from {wanted[0]} to ")


def packed_at(route, folder: Path) -> Path:
    """The script in a folder that a page asks for."""
    return folder / "packed" / route.request.url.rpartition("/")[2].partition("?")[0]


def test_a_list_is_two_clicks_from_home(made, tab, tmp_path, monkeypatch):
    """With `report.customers: true`: the table of the campaigns page then has the buttons."""
    told = json.loads((made[1] / "metrics/campaigns.json").read_text())["segments"][0]
    monkeypatch.setattr(shop_facts, "names_customers", lambda run_dir: True)
    for name, text in shop_facts.list_files(made[1]).items():
        _pack(text, f"list-{name}", tmp_path)
    built = "".join(PAGES["campaigns"].builder(facts_of(made[1])))
    tables = re.findall(r"<table.*?</table>", built, flags=re.S)
    (listed,) = (table for table in tables if "house-list" in table)
    plain = (made[0] / "campaigns.html").read_text(encoding="utf-8")
    place = re.search(r"(?<=<div class=table-box>)<table.*?</table>", plain, flags=re.S)
    shown = plain.replace(place[0], listed)
    page = tab()
    page.route(
        "**/campaigns.html", lambda route: route.fulfill(body=shown, content_type="text/html")
    )
    page.route("**/packed/list-*.js", lambda route: route.fulfill(path=packed_at(route, tmp_path)))
    page.click("#quarto-sidebar a:has-text('Campaigns')")
    page.wait_for_selector("html[data-house=ready]")
    with page.expect_download() as download:
        page.locator(".house-list button").first.click()
    rows = list(
        csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig")))
    )
    name = told["segment"].lower().replace(" ", "-")
    assert download.value.suggested_filename == f"campaign-{name}.csv"
    assert rows[0][:2] == ["customer_id", "segment"] and len(rows) == told["send"] + 1
    assert {row[1] for row in rows[1:]} == {told["segment"]}
    assert not page.faults and not page.outside


def test_the_brief_is_two_pages_of_paper(tab):
    pdf = tab("brief.html").pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2


@pytest.mark.parametrize("name", ["index", "brief"])
def test_a_phone_says_what_each_number_of_an_action_is(tab, name):
    told = tab(f"{name}.html", phone=True).evaluate(
        """() => {
          const table = document.querySelector(".actions table");
          const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
          const after = (cell) => getComputedStyle(cell, "::after").content;
          return [...table.tBodies[0].rows[0].cells].map((cell, i) => [heads[i], after(cell)]);
        }"""
    )
    said = {head: after.strip('"').strip() for head, after in told[2:]}
    words = {"Customers": "customers", "Of known revenue": "of known revenue"}
    words |= {"Expected in 90 days": "expected", "Can be written to": "can be written to"}
    assert said == {head: words[head] for head in said} and len(said) == 3


def test_a_phone_gets_the_panels_of_the_dashboard_one_by_one(tab):
    page = tab(phone=True)
    image = page.locator("img[data-figure='05_business_dashboard']")
    image.scroll_into_view_if_needed()
    page.wait_for_function("i => i.complete && i.naturalWidth", arg=image.element_handle())
    shown, wide, high = image.evaluate("i => [i.currentSrc, i.naturalWidth, i.naturalHeight]")
    assert shown.endswith("05_business_dashboard-narrow.webp") and wide < 700 and high > 3 * wide


@pytest.mark.parametrize("way", ["served", "from a folder"])
def test_a_table_sorts_searches_and_downloads(made, tab, way):
    page = tab(
        "recommendations.html" if way == "served" else f"file://{made[0]}/recommendations.html"
    )
    table = page.locator("table", has=page.locator("th", has_text="On how many lists"))

    def numbers():
        return [
            int(t.replace(",", ""))
            for t in table.locator("tbody tr td:nth-child(3)").all_inner_texts()
        ]

    before = numbers()
    table.locator("th", has_text="On how many lists").click()
    page.wait_for_function(
        "table => table.querySelector('.dt-ordering-asc')", arg=table.element_handle()
    )
    assert numbers() == sorted(before)
    table.locator("th", has_text="On how many lists").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "table => table.querySelector('.dt-ordering-desc')", arg=table.element_handle()
    )
    assert numbers() == sorted(before, reverse=True)
    name = table.locator("tbody tr td:first-child").first.inner_text()
    tools = page.locator(
        ".table-tools", has=page.get_by_label("Search: The products that are on the most lists.")
    )
    tools.locator("input").fill(name)
    page.wait_for_function(
        "table => [...table.tBodies[0].rows].length === 1", arg=table.element_handle()
    )
    assert table.locator("tbody tr td:first-child").all_inner_texts() == [name]
    tools.locator("input").fill("")
    page.wait_for_function(
        "table => [...table.tBodies[0].rows].length > 1", arg=table.element_handle()
    )
    with page.expect_download() as download:
        tools.get_by_role("button").click()
    rows = list(
        csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig")))
    )
    assert (
        download.value.suggested_filename.endswith(".csv")
        and len(rows) == len(before) + 1
        and rows[0][0].startswith("Product")
        and name in {r[0] for r in rows}
    )
    assert download.value.suggested_filename == "recommendations-top.csv"
    assert [int(r[2]) for r in rows[1:]] == before
    assert all(0 <= float(r[3]) <= 1 for r in rows[1:]), "a share is a fraction"
    assert not page.faults and not page.outside


@pytest.mark.parametrize(
    "page_name, figures",
    [
        ("sales", ("01_revenue_trend", "01_category_analysis", "01_pareto")),
        ("movement", ("03_migration",)),
    ],
)
def test_a_figure_becomes_a_chart_and_a_picture_again(made, tab, page_name, figures):
    page = tab(f"file://{made[0]}/{page_name}.html")
    assert page.evaluate("typeof window.Plotly") == "undefined"  # nobody has asked for it yet
    for figure in figures:
        shown = page.locator("figure", has=page.locator(f"img[data-chart='{figure}']"))
        shown.get_by_role("button").click()
        page.wait_for_function(
            "figure => figure.querySelector('.main-svg')", arg=shown.element_handle()
        )
        assert (
            shown.locator("img").is_hidden()
            and "picture" in shown.locator(".house-explore").inner_text()
        )
        shown.locator(".house-explore").click()
        assert shown.locator("img").is_visible() and shown.locator(".house-chart").is_hidden()
    assert not page.faults and not page.outside


BOXES = """figure => {
  const box = (what) => figure.querySelector(what).getBoundingClientRect().toJSON();
  return {
    chart: box(".house-chart"), drawn: box(".main-svg"),
    button: box(".house-explore"), caption: box("figcaption"),
  };
}"""
FITS = """figure => {
  const width = figure.querySelector(".house-chart").clientWidth;
  const drawn = figure.querySelector(".main-svg").getBoundingClientRect().width;
  return width > 0 && Math.abs(width - drawn) < 1;
}"""
COVERED = """figure => {  // labels of axes on which the legend or a button lies
  const all = (what) => [...figure.querySelectorAll(`.main-svg :is(${what})`)];
  const meet = (a, b) => a.left < b.right && b.left < a.right
    && a.top + 1 < b.bottom && b.top + 1 < a.bottom;
  const covers = (one, other) => meet(one.getBoundingClientRect(), other.getBoundingClientRect());
  const above = all(".legendtext, .updatemenu-button");
  return all(".xtick, .ytick, .xtitle, .ytitle, .xtick text, .ytick text")
    .filter((label) => above.some((node) => covers(node, label))).map((label) => label.textContent);
}"""
CUT = """figure => {  // titles of axes that do not lie within the chart
  const box = figure.querySelector(".house-chart").getBoundingClientRect();
  const within = (a) => a.left >= box.left && a.right <= box.right
    && a.top >= box.top && a.bottom <= box.bottom;
  const titles = ".main-svg :is(.xtitle, .ytitle, .y2title, [class*=cb] [class*=title] text)";
  return [...figure.querySelectorAll(titles)]
    .filter((node) => !within(node.getBoundingClientRect())).map((node) => node.textContent);
}"""
INKS = """figure => {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "var(--house-ink)";
  const page = getComputedStyle(probe).color;
  probe.remove();
  const named = ".xtick text, .ytick text, .legendtext text, .updatemenu-item-text text";
  const itself = "text.legendtext, text.updatemenu-item-text";
  const texts = [...figure.querySelectorAll(`.main-svg :is(${named}, ${itself})`)];
  const turned = getComputedStyle(figure.querySelector(".house-chart")).filter;
  return { page, turned, chart: [...new Set(texts.map((text) => getComputedStyle(text).fill))] };
}"""


def open_chart(page, figure: str):
    """Open the chart of a figure; the figure."""
    shown = page.locator("figure", has=page.locator(f"img[data-chart='{figure}']"))
    shown.locator(".house-explore").click()
    page.wait_for_function(
        "figure => figure.querySelector('.main-svg')", arg=shown.element_handle()
    )
    return shown


def same_box(page, figure, height: float) -> None:
    """The chart fills its box, which has the height that it had, and what follows stands
    below it.
    """
    page.wait_for_function(FITS, arg=figure.element_handle())
    boxes = figure.evaluate(BOXES)
    chart = boxes["chart"]
    drawn = boxes["drawn"]
    assert abs(chart["height"] - height) < 1 and chart["height"] > 400
    assert chart["left"] <= drawn["left"] and drawn["right"] <= chart["right"]
    assert (
        chart["top"] <= drawn["top"]
        and drawn["bottom"] <= chart["bottom"]
        and drawn["height"] > 400
    )
    assert chart["bottom"] <= boxes["button"]["top"]
    assert boxes["caption"]["bottom"] <= chart["top"], "the finding stands above"
    assert (figure.evaluate(COVERED), figure.evaluate(CUT)) == ([], [])


def same_ink(page, figure, ink: str) -> None:
    """The page has this ink, and the chart is turned where the page is dark; its own ink is
    that of white paper.
    """
    turned = TURNED if ink == DARK else "none"
    page.wait_for_function(
        f"figure => {{ const inks = ({INKS})(figure); return inks.chart.length === 1 && "
        f"inks.page === '{ink}' && inks.turned === '{turned}'; }}",
        arg=figure.element_handle(),
    )
    assert figure.evaluate(INKS) == {"page": ink, "turned": turned, "chart": [LIGHT]}


# the ink of the house style, and how the browser turns what is drawn for white paper
LIGHT = "rgb(43, 47, 54)"
DARK = "rgb(228, 231, 235)"
TURNED = "invert(0.9) hue-rotate(180deg)"


def turned_round(colour: list[int]) -> list[float]:
    """A colour after TURNED, by the formulas of the Filter Effects Module: inverted, and its hue
    half a circle on.
    """
    rows = ((-0.574, 1.430, 0.144), (0.426, 0.430, 0.144), (0.426, 1.430, -0.856))
    inverted = [0.9 * 255 - 0.8 * part for part in colour]
    mixed = [sum(w * part for w, part in zip(row, inverted)) for row in rows]
    return [min(max(part, 0), 255) for part in mixed]


EACH_ALONE = ((390, LIGHT), (390, DARK), (800, DARK), (1280, DARK), (1280, LIGHT), (390, LIGHT))
BOTH_AT_ONCE = ((390, DARK), (800, DARK), (1280, LIGHT))


def toggle(page) -> None:
    """Change the colours, by a button that lies in a folded menu on a phone."""
    page.evaluate("document.querySelector('.quarto-color-scheme-toggle').click()")


def try_open_charts(page, figures: tuple[str, ...], steps: tuple[tuple[int, str], ...]) -> list:
    """Open charts, resize the window and change the colours, with the charts in sight and out of
    it; the charts.
    """
    charts = [open_chart(page, figure) for figure in figures]
    heights = [shown.evaluate(BOXES)["chart"]["height"] for shown in charts]

    def all_the_same(ink: str) -> None:
        for shown, height in zip(charts, heights):
            same_ink(page, shown, ink)
            same_box(page, shown, height)

    all_the_same(LIGHT)
    for width, ink in steps:
        before = page.evaluate("getComputedStyle(document.body).color")
        page.set_viewport_size({"width": width, "height": 900})
        if before != ink:
            toggle(page)
        all_the_same(ink)
    for shown in charts:
        shown.locator(".house-explore").click()
    page.set_viewport_size({"width": 1280, "height": 900})
    toggle(page)
    page.wait_for_function(f"getComputedStyle(document.body).color === '{DARK}'")
    for shown in charts:
        shown.locator(".house-explore").click()
    all_the_same(DARK)
    assert not page.faults and not page.outside
    return charts


@pytest.mark.parametrize(
    "page_name, figures",
    [
        ("sales", ("01_revenue_trend",)),
        ("customers", ("02_rfm_heatmap", "03_pca_clusters")),
        ("sure", ("05_backtest",)),
    ],
)
def test_an_open_chart_keeps_its_box_and_takes_the_colours_of_the_page(tab, page_name, figures):
    try_open_charts(tab(f"{page_name}.html"), figures, BOTH_AT_ONCE)


def test_an_open_chart_keeps_what_the_reader_has_chosen(tab):
    """Its box and colours as well, also where the width and the colours change one by one."""
    page = tab("recommendations.html")
    (shown,) = try_open_charts(page, ("05_recommender_metrics",), EACH_ALONE)
    shown.locator(".updatemenu-button", has_text="Recall").click()
    page.wait_for_function(
        "figure => figure.querySelector('.ytitle').textContent === 'Recall'",
        arg=shown.element_handle(),
    )
    bars = "figure => figure.querySelector('.house-chart').data.map(trace => trace.y)"
    before = shown.evaluate(bars)
    for ink in (LIGHT, DARK):
        toggle(page)
        same_ink(page, shown, ink)
        assert shown.evaluate(bars) == before
        assert shown.locator(".ytitle").text_content() == "Recall"


def test_a_colour_means_the_same_on_a_picture_and_on_its_chart_in_the_dark(tab):
    """Both are turned alike, so that no two segments change their blues, and that cells with little
    have nearly the colour of the page.
    """
    page = tab("customers.html", dark=True)
    shown = open_chart(page, "02_rfm_heatmap")
    look = "place => getComputedStyle(document.querySelector(place)).filter"

    def rgb(text):
        return [int(text[i : i + 2], 16) for i in (1, 3, 5)]

    def far_from_page(end: int, seen=list) -> float:
        colour = shown.evaluate(
            f"figure => figure.querySelector('.house-chart')._fullData[0].colorscale.at({end})[1]"
        )
        paper = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
        )
        return sum(abs(a - b) for a, b in zip(seen(rgb(colour)), paper))

    same_ink(page, shown, DARK)
    chart, picture, dot = (
        page.evaluate(look, place) for place in (".house-chart:not([hidden])", "figure img", ".dot")
    )
    assert chart == picture == dot == TURNED
    assert far_from_page(0, turned_round) < 120 and far_from_page(-1, turned_round) > 300
    page.emulate_media(color_scheme="light")
    same_ink(page, shown, LIGHT)
    assert page.evaluate(look, ".house-chart:not([hidden])") == "none"
    assert far_from_page(0) < 120 and far_from_page(-1) > 300


@pytest.fixture(scope="module")
def in_quarto_shape(made, tmp_path_factory):
    """A page in the shape of Quarto's, finished with the charts of the run."""
    from quarto_stand_in import quarto_page, write_libraries

    from retail_ci.report.finishing import check_site, finish

    root = Path(__file__).parents[1]
    folder = tmp_path_factory.mktemp("quarto") / "site"
    shutil.copytree(root / "assets", folder / "assets")
    (folder / "figures").mkdir()
    shutil.copy(made[1] / "figures/01_revenue_trend.png", folder / "figures")
    figure = (
        '<figure class="figure"><a href="figures/01_revenue_trend.png"><img class="figure-img" '
        'data-figure="01_revenue_trend" alt="The year" src="figures/01_revenue_trend.png"></a>'
        "<figcaption>The year.</figcaption></figure><p>What follows.</p>"
    )
    page = quarto_page(
        "Sales",
        "What sells, and when.",
        figure,
        head=(root / "assets/head.html").read_text(encoding="utf-8"),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "search.json").write_text(
        json.dumps(
            [
                {
                    "href": "index.html#result",
                    "title": "Sales",
                    "section": "Result",
                    "text": "the year in <b>months</b>",
                }
            ]
        )
    )
    write_libraries(folder)
    finish(folder, made[1])
    assert check_site(folder) == []
    return folder


def test_an_open_chart_on_a_page_of_quarto(in_quarto_shape, tab):
    page = tab(f"file://{in_quarto_shape}/index.html")
    try_open_charts(page, ("01_revenue_trend",), EACH_ALONE)


def test_search_from_a_folder_on_a_page_of_quarto(in_quarto_shape, tab):
    page = tab(f"file://{in_quarto_shape}/index.html", apart=True)
    page.on("dialog", lambda dialog: page.faults.append(dialog.message))
    page.keyboard.press("/")
    page.keyboard.type("months")
    found = page.wait_for_selector(".search-result")
    assert found.inner_text().split("\n") == ["Sales", "Result", "the year in <b>months</b>"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/index.html#result")
    page.fill(".house-search input", "qqqqqq")
    page.wait_for_selector(".search-none")
    page.keyboard.press("Escape")
    page.wait_for_selector(".smalldocs-search-results", state="hidden")
    assert not page.faults and not page.outside


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility_on_a_page_of_quarto(in_quarto_shape, tab, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = tab(f"file://{in_quarto_shape}/index.html")
    if scheme == "dark":
        page.evaluate("window.quartoToggleColorScheme()")
    assert page.evaluate("document.body.classList.contains('quarto-dark')") == (scheme == "dark")
    found = [
        f"{v['impact']} {v['id']} {v['nodes'][0]['html'][:120]}"
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", SEEN_IN_COLOURS)
def test_dark_and_phone_have_no_overflow(visited, name):
    looks = visited[f"{name}.html"]["looks"]
    assert list(looks) == list(COLOURS)
    for look, seen in looks.items():
        assert (max(seen["paper"]) < 80) == ("dark" in look), (look, seen)
        assert seen["overflow"] <= 0, look


def test_dark_mode_can_be_chosen_and_stays(tab):
    page = tab("sales.html")
    page.click(".quarto-color-scheme-toggle")
    page.wait_for_selector("html.quarto-dark")
    page.click("a:has-text('Data quality')")
    page.wait_for_selector("html.quarto-dark")


def test_the_keyboard_reaches_the_page_first(tab):
    page = tab("movement.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip-link"
    page.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    assert page.url.endswith("#quarto-document-content") and page.query_selector(
        "main#quarto-document-content"
    )
    page.keyboard.press("Tab")
    inside, outline = page.evaluate(
        "[!!document.activeElement.closest('main'), "
        "getComputedStyle(document.activeElement).outlineStyle]"
    )
    assert inside and outline != "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", READ_ALOUD)
def test_no_serious_fault_of_accessibility(visited, name, scheme):
    assert visited[f"{name}.html"][f"{scheme} barriers"] == []


def test_pictures_say_what_they_show(visited):
    figures = [(name, *f) for name in BUSINESS for f in visited[f"{name}.html"]["said"]["figures"]]
    assert len(figures) > 10
    for name, alt, caption in figures:
        assert len(alt) > 40 and len(caption) > 40 and re.search(r"\d", caption), (
            name,
            alt,
            caption,
        )


@pytest.mark.parametrize("name", BUSINESS)
def test_business_pages_hold_no_code_no_repr_and_no_unexplained_abbreviation(visited, name):
    said = visited[f"{name}.html"]["said"]
    assert said["text"] and not said["code"]
    assert not re.search(
        r"\d\.\d{6,}|\bNaN\b|\bNone\b|<NA>|dtype|Warning|Traceback|\{\{|\bnull\b", said["text"]
    ), re.findall(r".{20}\d\.\d{6,}|\bNaN\b|\bNone\b", said["text"])
    known = {part for word in glossary() for part in re.split(r"[ /-]", word)} | {"MBG", "NBD"}
    words = set(re.findall(r"\b[A-Z]{2,}\b", said["prose"]))
    assert words - known <= {"OK", "UK", "USD", "EUR", "GBP", "PDF"}, words - known
    terms = {re.sub(r"[^a-z0-9]+", "-", w.lower()).strip("-") for w in glossary()}
    assert set(said["terms"]) <= terms


def test_no_page_shows_code_a_raw_table_or_a_long_number_unasked(made):
    from test_site import unasked

    assert unasked(made[0]) == []


def test_print_leaves_the_navigation_out_and_the_figures_whole(tab, screenshots):
    page = tab("customers.html", dark=True)
    page.emulate_media(media="print")
    hidden = page.evaluate(
        "['#quarto-header', '#quarto-sidebar', '.skip-link', '.table-tools', "
        "'.house-explore'].filter(s => { const n = document.querySelector(s); return n && "
        "getComputedStyle(n).display !== 'none'; })"
    )
    assert hidden == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    assert page.evaluate(
        "[...document.querySelectorAll('figure')].every(f => getComputedStyle(f).breakInside === "
        "'avoid')"
    )
    pdf = page.pdf(path=screenshots and screenshots / "customers.pdf", format="A4")
    assert pdf.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8


def test_without_scripts_everything_can_still_be_read(browser, address, made):
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    page.goto(f"{address}/customers.html")
    assert (
        "Champions" in page.inner_text("main")
        and page.locator("main figure img").count() >= 3
        and page.locator("main table").count() >= 2
    )
    context.close()


ODD = [
    'Crème "n°5", 100 ml',
    "Line\nbreak",
    "Emoji 💊",
    "عطر الورد",
    "<script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked=1">',
    "**bold** `code` $x$",
    "[link](javascript:alert(1))",
    "a|b & c",
    "```{=html}\n<script>window.hacked = 1</script>\n```",
    "&lt;b&gt;",
    "</script><script>window.hacked=1</script>",
    "{{< include /etc/hostname >}}",
    "=cmd()|A1",
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A site whose products, segments and labels have names that look like code."""
    import pandas as pd
    from test_site import html_output, project

    from retail_ci.core.show import show_table
    from retail_ci.report.site import build_site

    shown = show_table(pd.DataFrame({"Product": ODD, "Lists": range(len(ODD))}), ODD[4])
    root, run = project(
        tmp_path_factory.mktemp("odd"),
        ("code", "#| chain\nshow_table(products)", [html_output(shown)]),
    )
    (run / "metrics").mkdir()
    products = [
        {"product_id": f"P{i}", "product_name": name, "lists": 20 - i} for i, name in enumerate(ODD)
    ]
    profiles = [
        {
            "segment": name,
            "customers": 5,
            "share": 0.1,
            "revenue": 10.0,
            "revenue_share": 0.1,
            "recency": 1.0,
            "frequency": 2.0,
            "basket_value": 3.0,
            "action": name,
        }
        for name in ODD[:6]
    ]
    facts = {
        "insights": {
            "currency": "€",
            "recommendations": {
                "customers": 20,
                "lines": 200,
                "products": 14,
                "personal_share": 1.0,
                "top_products": products,
            },
            "labels": {f"m{i}": name for i, name in enumerate(ODD)},
        },
        "segments": {"profiles": profiles},
        "ranking": {
            "production": "m0",
            "protocol": {"cut": "2025-01-01", "days": 30},
            "summary": {
                "any": {"leaders": [f"m{i}" for i in range(len(ODD))], "verdict": " ".join(ODD)}
            },
            "any": {
                f"m{i}": {"ndcg": {"value": 0.1, "low": 0.0, "high": 0.2}} for i in range(len(ODD))
            },
        },
    }
    for kind, fact in facts.items():
        (run / f"metrics/{kind}.json").write_text(json.dumps(fact))
    return build_site(run, root, renderer="smalldocs")


def test_odd_names_are_shown_as_text_and_never_run(odd, tab):
    def plain(text):
        return " ".join(text.replace("\\n", " ").split())  # pandas writes a line break as \\n

    for name, wanted in (
        ("recommendations", ODD),
        ("customers", ODD[:6]),
        ("02_features", ODD),
        ("model-card", ODD),
        ("sure", []),
    ):
        page = tab(f"file://{odd}/{name}.html")
        cells = {
            plain(t)
            for t in page.eval_on_selector_all(
                "main td", "cells => cells.map(c => c.textContent.replace(' (published)', ''))"
            )
        }
        assert {plain(w) for w in wanted} <= cells, ({plain(w) for w in wanted} - cells, name)
        assert (
            page.evaluate("window.hacked") is None
            and not page.query_selector("main img[src=x], main td b b, main a[href^='javascript']")
            and not page.faults
        )
    headings = set()
    for file in odd.glob("segment-*.html"):
        page = tab(f"file://{file}")
        headings.add(plain(page.text_content("h1")))
        assert page.evaluate("window.hacked") is None and not page.faults
        assert not page.query_selector("img[src=x], h1 > *, a[href^='javascript']")
    assert headings == {plain(name) for name in ODD[:6]}
    page = tab(f"file://{odd}/recommendations.html")
    page.fill(".smalldocs-search input", "onerror")
    page.wait_for_selector(".smalldocs-search-results.show")
    page.fill(".smalldocs-search input", "")  # what was found lies above the table
    page.wait_for_selector(".smalldocs-search-results:not(.show)", state="attached")
    tools = page.locator(
        ".table-tools", has=page.get_by_label("Search: The products that are on the most lists.")
    )
    with page.expect_download() as download:
        tools.get_by_role("button").click()
    rows = list(
        csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig")))
    )
    assert [plain(r[0]).lstrip("'") for r in rows[1:]] == [plain(n) for n in ODD] and {
        r[0] for r in rows if "cmd" in r[0]
    } == {"'=cmd()|A1"}
    assert page.evaluate("window.hacked") is None


def test_who_borrows_these_fixtures_borrows_what_they_need():
    def functions(path: Path) -> list[ast.FunctionDef]:
        return [f for f in ast.parse(path.read_text()).body if isinstance(f, ast.FunctionDef)]

    needs = {
        f.name: {a.arg for a in f.args.args}
        for f in functions(Path(__file__))
        if any("fixture" in ast.unparse(d) for d in f.decorator_list)
    }
    borrowers = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module == "test_browser":
                borrowers[path] = {name.name for name in node.names}
    assert any("tab" in borrowed for borrowed in borrowers.values())
    for path, borrowed in borrowers.items():
        there = borrowed | {f.name for f in functions(path)}
        needed = set().union(*(needs[name] for name in borrowed & needs.keys()))
        assert needed & needs.keys() <= there, path.name
