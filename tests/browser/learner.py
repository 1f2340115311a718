"""What a learner does in JupyterLab, with mouse and keyboard, and what they read there."""

from __future__ import annotations

import json
from collections.abc import Callable

from chromium import PATIENCE
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from served import TOKEN, Lab

PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
CELLS = f"{PANEL} .jp-Notebook-cell"
BUTTONS = f"{PANEL} .jp-NotebookPanel-toolbar .jp-Toolbar-item"
NOT_YET = (AttributeError, IndexError, StopIteration, TypeError)
PASTE = """
const data = new DataTransfer();
data.setData("text/plain", arguments[1]);
const event = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
arguments[0].dispatchEvent(event);
"""


class Learner:
    """Somebody who sits in front of the browser `page`, which shows the JupyterLab `lab`.

    Nothing here sleeps: each act waits until what it needs is there, and fails after `PATIENCE` seconds.
    """

    def __init__(self, page, lab: Lab):
        self.page, self.lab, self.path = page, lab, ""

    def until(self, what: Callable, told: str):
        """What `what()` gives once it is true; errors count as not yet."""
        waiting = WebDriverWait(self.page, PATIENCE, 0.05, ignored_exceptions=[WebDriverException, *NOT_YET])
        try:
            return waiting.until(lambda _: what())
        except TimeoutException:
            seen = self.all(".jp-Dialog-content, .jp-mod-active .jp-Cell-outputArea")
            read = " / ".join(element.text for element in seen)[:1000]
            raise AssertionError(f"waited in vain for {told}; in front: {read}") from None

    def all(self, selector: str) -> list[WebElement]:
        return self.page.find_elements(By.CSS_SELECTOR, selector)

    def ask(self, script: str, *arguments):
        return self.page.execute_script(script, *arguments)

    # -- notebooks and their cells ----------------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Open a notebook, alone, and wait until its kernel is ready."""
        self.path = path
        self.page.get(f"{self.lab.address}/lab/tree/{path}?reset&token={TOKEN}")
        self.ready()

    def start(self, path: str) -> None:
        """Follow the link that the server prints, which should lead to the notebook `path`."""
        self.path = path
        self.page.get(f"{self.lab.address}/?token={TOKEN}")
        self.ready()

    def title(self) -> str:
        """The first heading of the notebook."""
        return self.until(lambda: self.all(f"{CELLS} h1")[0].text.rstrip("¶"), "a heading")

    def ready(self) -> None:
        count = len(self.written())
        self.until(lambda: len(self.all(CELLS)) == count, f"the {count} cells of {self.path}")
        self.idle()

    def idle(self) -> None:
        """Wait until the kernel of the notebook in front has nothing to do."""
        self.until(lambda: self.all(f"{PANEL} .jp-Notebook-ExecutionIndicator[data-status=idle]"), "an idle kernel")

    def written(self) -> list[dict]:
        """The cells of the notebook's file, as it was saved last."""
        return json.loads((self.lab.notebooks / self.path).read_text(encoding="utf-8"))["cells"]

    def index(self, name: str) -> int:
        """The place of the cell that nbgrader knows as `name`."""
        marks = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in self.written()]
        return marks.index(name)

    def find(self, part: str) -> int:
        """The place of the first code cell whose source has `part` in it."""
        code = enumerate(self.written())
        return next(i for i, cell in code if cell["cell_type"] == "code" and part in "".join(cell["source"]))

    def cell(self, place: int) -> WebElement:
        """A cell, in the middle of the window, with its editor."""
        cell = self.until(lambda: self.all(CELLS)[place], f"cell {place}")
        self.ask("arguments[0].scrollIntoView({block: 'center'})", cell)
        return cell

    def focus(self, place: int) -> WebElement:
        """Click into a cell's editor."""
        cell = self.cell(place)
        editor = self.until(lambda: cell.find_element(By.CSS_SELECTOR, ".cm-content"), f"the editor of cell {place}")
        self.until(lambda: editor.click() or True, "a click")
        return self.until(lambda: self.ask("return document.activeElement == arguments[0]", editor) and editor, "focus")

    def write(self, place: int, text: str) -> None:
        """Replace what stands in a cell, by select all and paste."""
        editor = self.focus(place)
        self.keys(Keys.CONTROL, "a")
        self.ask(PASTE, editor, text)
        self.until(lambda: self.read(place) == text, f"the new text in cell {place}")

    def read(self, place: int) -> str:
        """The text in a cell's editor."""
        lines = "return [...arguments[0].querySelectorAll('.cm-line')].map(line => line.textContent).join('\\n')"
        return self.ask(lines, self.all(CELLS)[place])

    def run(self, place: int) -> WebElement:
        """Run a cell, wait until it has ended, and give the element with its outputs."""
        self.focus(place)
        before = self.prompt(place)
        self.keys(Keys.CONTROL, Keys.ENTER)
        ended = lambda: self.prompt(place) not in (before, "[*]:", "[ ]:")  # noqa: E731
        self.until(ended, f"the end of cell {place}")
        return self.cell(place).find_element(By.CSS_SELECTOR, ".jp-Cell-outputArea")

    def figures(self, place: int) -> list[list[str]]:
        """The figures in a cell's output: text for readers who can't see them, and picture."""
        pictures = self.all(CELLS)[place].find_elements(By.CSS_SELECTOR, ".jp-Cell-outputArea img")
        return [[picture.get_attribute("alt"), picture.get_attribute("src")] for picture in pictures]

    def turn(self, place: int, by: str = Keys.ARROW_RIGHT) -> None:
        """Move the first slider in a cell's output by a key."""
        handle = self.until(lambda: self.cell(place).find_element(By.CSS_SELECTOR, ".noUi-handle"), "a slider")
        handle.send_keys(by)

    def reads(self, place: int, text: str) -> None:
        """Wait until `text` stands in a cell's output."""
        area = self.cell(place).find_element(By.CSS_SELECTOR, ".jp-Cell-outputArea")
        self.until(lambda: text in area.text, f"{text!r} under cell {place}")

    def follow(self, place: int, link: str) -> None:
        """Click on a link in a cell's output, and wait until the notebook that it leads to is in front."""
        before = self.title()
        self.cell(place).find_element(By.LINK_TEXT, link).click()
        self.until(lambda: self.title() != before, f"where {link!r} leads to")
        self.idle()

    def prompt(self, place: int) -> str:
        return self.all(CELLS)[place].find_element(By.CSS_SELECTOR, ".jp-InputPrompt").get_attribute("textContent")

    def keys(self, *held_then_key: str) -> None:
        *held, key = held_then_key
        chain = ActionChains(self.page, duration=0)
        for each in held:
            chain.key_down(each)
        chain.send_keys(key)
        for each in held:
            chain.key_up(each)
        chain.perform()

    # -- around the notebook ----------------------------------------------------------------------------------

    def press(self, label: str) -> None:
        """Press a button of the notebook's toolbar."""

        def button():
            return next((b for b in self.all(BUTTONS) if label in (b.text, b.get_attribute("title"))), None)

        self.until(lambda: button().click() or True, f"the button {label!r}")

    def dialog(self) -> str:
        """What a dialog says, once there is one."""
        return self.until(lambda: self.all(".jp-Dialog-content")[0].text, "a dialog")

    def answer(self, label: str) -> None:
        """Press a button of the dialog and wait until that is gone."""
        buttons = [b for b in self.all(".jp-Dialog-button") if b.text == label]
        buttons[0].click()
        self.until(lambda: not self.all(".jp-Dialog"), "the dialog's end")

    def menu(self, *labels: str) -> None:
        """Choose from the menus, such as menu("Settings", "Theme", "JupyterLab Dark")."""
        first, *rest = labels
        self.until(lambda: self._labeled(".lm-MenuBar-itemLabel", first).click() or True, f"the menu {first}")
        for label in rest:
            self.until(lambda label=label: self._labeled(".lm-Menu-itemLabel", label).click() or True, label)

    def _labeled(self, selector: str, label: str) -> WebElement:
        return next(e for e in self.all(selector) if e.text == label)

    def wear(self, theme: str) -> None:
        """Choose Light or Dark."""
        if self.ask("return document.body.dataset.jpThemeName") != f"JupyterLab {theme}":
            self.menu("Settings", "Theme", f"JupyterLab {theme}")
        self.until(lambda: self.ask("return document.body.dataset.jpThemeName") == f"JupyterLab {theme}", theme)
        self.until(lambda: not self.all("#jupyterlab-splash"), "the splash's end")
