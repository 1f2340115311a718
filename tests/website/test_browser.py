"""The site in a real browser: search in both languages, light and dark, wide and narrow, no error, no serious fault."""

import importlib.resources
import time

import pytest
from chromium import PATIENCE
from small_site import KEPT, RUN

pytestmark = pytest.mark.slow
KINDS = ["index", RUN, KEPT, "drill/index", "drill/T05", "verdicts", "teaching", "contributing", "search"]
AXE = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SERIOUS = """
const done = arguments[0];
for (const fold of document.querySelectorAll("details")) fold.open = true;
document.head.append(Object.assign(document.createElement("style"), {textContent: "* {transition: none !important}"}));
axe.run(document, {resultTypes: ["violations"]}).then((found) => done(found.violations
  .filter((fault) => ["serious", "critical"].includes(fault.impact))
  .map((fault) => [fault.id, fault.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))])));
"""


def open_page(browser, html, name, scheme="light", width=1280, query=""):
    """Open a page as a file, as somebody does who has built the site and has no server."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get_log("browser")
    browser.get(f"{(html / name).as_uri()}.html{query}")


def errors(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def results(browser, html, query: str) -> list[str]:
    """The pages that the search finds, in the page's own JavaScript."""
    open_page(browser, html, "search", query=f"?q={query}")
    deadline, read = (
        time.monotonic() + PATIENCE,
        "return document.querySelector('#search-results p, .search-summary')?.innerText",
    )
    while not (browser.execute_script(read) or "").startswith(("Search finished", "Your search")):
        assert time.monotonic() < deadline, browser.execute_script(read)
        time.sleep(0.1)
    time.sleep(0.5)  # results come one by one
    links = "return [...document.querySelectorAll('#search-results li a')].map((link) => link.getAttribute('href'))"
    return [link.partition(".html")[0] for link in browser.execute_script(links)]


BOTH = [(name, scheme) for name in KINDS for scheme in ("light", "dark") if (name, scheme) != (KEPT, "light")]


@pytest.mark.parametrize(("name", "scheme"), BOTH)  # two chapters are enough in the dark; they are long
def test_no_error_no_serious_fault(browser, html, name, scheme):
    open_page(browser, html, name, scheme)
    assert browser.execute_script("return document.documentElement.dataset.theme") == scheme
    assert errors(browser) == []
    browser.execute_script(AXE)
    assert browser.execute_async_script(SERIOUS) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_phone_needs_no_sideways_scrolling(browser, html, name):
    open_page(browser, html, name, width=400)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize(
    ("query", "found", "missed"),
    [
        ("旋转位置编码", {"drill/T05"}, {"drill/A07"}),
        ("位置", {"drill/T05", "drill/T03"}, {"teaching"}),
        ("rotations", {KEPT}, set()),  # the page has "rotation"
        ("RoPE 旋转", {"drill/T05"}, {"teaching"}),
        ("编转旋置", set(), {"drill/T05", KEPT}),
    ],
)
def test_the_search_finds_english_and_chinese(browser, html, query, found, missed):
    pages = set(results(browser, html, query))
    assert found <= pages and not missed & pages


def test_figures_stay_as_they_are_in_the_dark(browser, html):
    look = """return [...document.querySelectorAll("a.course-figure")].map((plate) => {
      const image = getComputedStyle(plate.querySelector("img"));
      return [getComputedStyle(plate).backgroundColor, image.filter];
    })"""
    open_page(browser, html, KEPT, "dark")
    plates = browser.execute_script(look)
    assert plates and all(plate == ["rgb(255, 255, 255)", "none"] for plate in plates), plates
    open_page(browser, html, KEPT, "light")
    assert browser.execute_script(look)[0][1] == "none"


def test_the_drill_s_list_can_be_filtered(browser, html):
    open_page(browser, html, "drill/index")
    rows = "[...document.querySelectorAll('tbody tr')]"
    shown = f"return {rows}.filter((row) => row.offsetParent).map((row) => row.innerText)"
    everything = browser.execute_script(shown)
    browser.find_element("id", "course-filter").send_keys("llama")
    kept = browser.execute_script(shown)
    assert len(everything) == 26 and 0 < len(kept) < 5
    assert all("llama" in row.lower() for row in kept)
