"""The site as the real Quarto makes it.

Quarto is no Python package, so no environment of this project brings it: the job `quarto` of the
workflow installs it and runs this file; `conftest.py` leaves it out where Quarto is missing.
"""

import os
import re
from pathlib import Path

import pytest
from conftest import copy_of_small
from test_browser import address, browser, shared_tab, tab  # noqa: F401 (fixtures)
from test_site import html_output, project

from retail_ci.report import finishing, site


def test_a_small_project_has_no_fault_and_its_folds_keep_their_titles(tmp_path):
    cells = (
        ("code", "#| export\ndef __getattr__(name): ..."),
        ("code", "#| chain\nscore(3)", [html_output("<b>4</b>")]),
    )
    root, run = project(tmp_path, *cells)
    out = site.build_site(run, root, renderer="quarto")
    text = (out / "02_features.html").read_text(encoding="utf-8")
    assert '<meta name="generator" content="quarto' in text and "cdn.jsdelivr.net" not in text
    assert re.search(r"<summary>Code: score, __getattr__", text)
    assert "house-search" in text and '<meta name="description" content="Five bins."' in text


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """The site of the small run, made by Quarto, and the run; or the two named by SITE and
    SITE_OF_RUN.
    """
    if os.environ.get("SITE"):
        return Path(os.environ["SITE"]), Path(os.environ["SITE_OF_RUN"])
    small = request.getfixturevalue("small")
    whole = copy_of_small(small, tmp_path_factory.mktemp("quarto") / "project")
    done = whole.call("site", "--config", "small", "--renderer", "quarto")
    assert done.returncode == 0, done.stderr
    return whole.root / "_site", whole.home("small") / "current"


def test_every_page_of_the_small_run_passes_the_check(made):
    pages = sorted(made[0].rglob("*.html"))
    assert len(pages) > 80 and finishing.check_site(made[0]) == []
    assert not [
        p.name
        for p in pages
        if '<meta name="generator" content="quarto' not in p.read_text(encoding="utf-8")
    ]


def test_search_works_from_a_folder(made, tab):  # noqa: F811
    page = tab(f"file://{made[0]}/customers.html")
    page.fill(".house-search input", "Champions")
    found = page.wait_for_selector(".search-result")
    assert "Champions" in found.inner_text() and not page.outside


def test_an_open_chart_follows_the_colours_of_the_page(made, tab):  # noqa: F811
    page = tab("sales.html")
    figure = page.locator("figure", has=page.locator("img[data-chart='01_revenue_trend']"))
    figure.get_by_role("button").click()
    page.wait_for_function(
        "figure => figure.querySelector('.main-svg text')",
        arg=figure.element_handle(),
        timeout=60_000,
    )
    before = figure.locator(".house-chart").bounding_box()
    page.click(".quarto-color-scheme-toggle")
    page.wait_for_function(
        "figure => getComputedStyle(figure.querySelector('.main-svg text')).fill === 'rgb(228, "
        "231, 235)'",
        arg=figure.element_handle(),
    )
    assert figure.locator(".house-chart").bounding_box()["height"] == before["height"] > 400
