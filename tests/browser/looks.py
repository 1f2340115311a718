"""How a page looks, measured in the browser: contrast, what is cut off, what it loads, what its console says."""

from __future__ import annotations

from learner import CELLS, Learner
from selenium.webdriver.common.by import By

LEAST = 4.5  # contrast of text with its ground: WCAG 2.2, 1.4.3

# Every text under an element with its color, and the ground that is painted behind it, half-transparent ones mixed.
CONTRASTS = """
const numbers = color => { const n = color.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
const ground = element => element === null ? [255, 255, 255, 1]
    : over(numbers(getComputedStyle(element).backgroundColor), ground(element.parentElement));
const light = color => color.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const texts = document.createTreeWalker(arguments[0], NodeFilter.SHOW_TEXT);
const found = [];
while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("style, script")) continue;
    const behind = ground(element), ink = over(numbers(getComputedStyle(element).color), behind);
    const [low, high] = [light(ink), light(behind)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), text]);
}
return found;
"""

# What a learner would have to scroll sideways for: an element whose content is wider than its frame.
CUT_OFF = """
const frames = ".jp-OutputArea-output, .jp-RenderedHTMLCommon, .jp-RenderedHTMLCommon *, .cm-scroller";
const found = [];
for (const cell of document.querySelectorAll(arguments[0]))
    for (const frame of cell.querySelectorAll(frames))
        if (frame.checkVisibility() && frame.scrollWidth > frame.clientWidth + 1 && frame.clientWidth
                && getComputedStyle(frame).display != "inline" && getComputedStyle(frame).overflowX != "visible")
            found.push(frame.innerText.slice(0, 80));
return found;
"""


def pale(learner: Learner, place: int) -> list[tuple[float, str]]:
    """Each text that is seen in a cell's output and stands out from its ground by less than `LEAST` (of 1 to 21)."""
    outputs = learner.cell(place).find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output")
    found = [pair for output in outputs for pair in learner.ask(CONTRASTS, output)]
    assert found, "no text is seen"
    return [(round(value, 2), text) for value, text in found if value < LEAST]


def cut_off(learner: Learner) -> list[str]:
    """The beginnings of the texts in the open notebook that are wider than their place."""
    return learner.ask(CUT_OFF, CELLS)


def strangers(learner: Learner) -> list[str]:
    """What the page has loaded, or tried to, from anywhere but its own server."""
    loaded = learner.ask("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    return [name for name in loaded if not name.startswith((learner.lab.address, "data:", "blob:"))]


def complaints(learner: Learner) -> list[str]:
    """The errors in the browser's console since the last time somebody looked, but for one that only tests cause:

    that they leave a page with changes unsaved, of which Chromium can't ask a test whether it means it.
    """
    errors = [entry["message"] for entry in learner.page.get_log("browser") if entry["level"] == "SEVERE"]
    return [error for error in errors if "beforeunload" not in error]
