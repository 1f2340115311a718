"""A learner opens the course with `python course.py lab` and works in it, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import looks
import pytest
from learner import Learner
from selenium.webdriver.common.by import By
from served import Lab

from autograde.exercises import find, order
from autograde.repository import ROOT

START, CHAPTER = "00_start_here.ipynb", "01_transformer/01_attention.ipynb"
EXERCISE = "scaled_dot_product_attention"


@pytest.fixture(scope="module")
def learner(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Learner]:
    """One learner for all of these tests, whose course remembers what they did."""
    lab = Lab(tmp_path_factory.mktemp("learner"))
    try:
        lab.start()
        yield Learner(browser, lab)
    finally:
        lab.stop()


def solution(name: str, chapter: str = CHAPTER) -> str:
    """An exercise's solution as a learner would write it: without the marks around it."""
    book = jupytext.read(ROOT / "solutions" / Path(chapter).with_suffix(".py"), fmt="py:percent")
    (source,) = [cell.source for cell in book.cells if cell.metadata.get("exercise") == name]
    return "\n".join(line for line in source.split("\n") if not line.strip().startswith("### "))


def wrong(name: str) -> str:
    """The same without the division by the root of d."""
    return solution(name).replace(" / math.sqrt(q.shape[-1])", "")


def test_the_start_page_opens_by_itself_and_nothing_is_in_the_way(learner):
    learner.start(START)
    assert learner.title() == "Start here"
    menus = [menu.text for menu in learner.all(".lm-MenuBar-item")]
    assert "Settings" in menus and "Nbgrader" not in menus
    assert not learner.all(".jp-Dialog, .Toastify__toast")
    assert looks.cut_off(learner) == []


def test_a_wrong_solution_is_named_and_the_right_one_gets_its_points(learner):
    learner.open(CHAPTER)
    exercise, check = learner.index(EXERCISE), learner.index(f"check_{EXERCISE}")
    learner.run(learner.index("setup"))
    learner.run(exercise)
    assert "not implemented yet" in learner.run(check).text
    rows = learner.cell(check).find_elements(By.CSS_SELECTOR, ".jp-OutputArea-child")
    assert [bool(row.text) for row in rows if row.is_displayed()] == [True], "the report, and no empty row under it"
    assert len(rows) == 2, "the points are there, for nbgrader"
    learner.write(exercise, wrong(EXERCISE))
    learner.run(exercise)
    said = learner.run(check)
    assert "Your result is exactly what comes out when the scores aren't divided by sqrt(d)." in said.text
    for theme in ("Light", "Dark"):
        learner.wear(theme)
        assert looks.pale(learner, check) == []
    learner.write(exercise, solution(EXERCISE))
    learner.run(exercise)
    said = learner.run(check)
    assert "4 of 4 points" in said.text and "fail" not in said.text
    for theme in ("Dark", "Light"):
        learner.wear(theme)
        assert looks.pale(learner, check) == []
    assert looks.cut_off(learner) == []


def test_a_slider_draws_another_figure(learner):
    learner.open(CHAPTER)
    learner.run(learner.index("setup"))
    place = learner.find("knobs(draw_lookup")
    learner.run(place)
    assert len(learner.figures(place)) == 1, "the figure says without a slider what it has to say"
    for _ in range(2):
        before = learner.figures(place)
        learner.turn(place)
        learner.until(lambda before=before: learner.figures(place) not in ([], before), "another figure")
        assert len(learner.figures(place)) == 2
    assert all(alt.startswith("Left: five arrows") for alt, _ in learner.figures(place))
    assert looks.pale(learner, place) == []


def test_validate_says_what_is_open_and_what_is_solved(learner):
    learner.open(START)
    learner.press("Validate")
    said = learner.dialog()
    assert "check(softmax)" in said and "Success" not in said
    learner.answer("Ok")
    learner.write(learner.index("softmax"), solution("softmax", START))
    learner.press("Validate")
    assert "Success! Your notebook passes all the tests." in learner.dialog()
    learner.answer("Ok")


def test_nobody_else_is_asked_and_nothing_is_complained_about(learner):
    """The course's pages come whole from this machine; the browser's console has no error of theirs."""
    learner.open(CHAPTER)
    assert looks.strangers(learner) == []
    assert looks.complaints(learner) == []


def test_the_buttons_reset_hint_and_reveal(learner):
    """Of an exercise that nobody has tried: a hint at once, the solution after a try, and the stub at the end."""
    name = "causal_mask"
    learner.open(CHAPTER)
    learner.run(learner.index("setup"))
    place = learner.index(name)
    stub = learner.read(place)
    learner.focus(place)
    learner.press("Reveal the solution")
    learner.reads(place, f"Try {name} first")
    learner.press("Hint")
    learner.reads(place, f"Hint 1 of 3: {find(name).hints[0][:20]}")
    written = stub.replace("raise NotImplementedError", "return torch.ones(n, past + n, dtype=torch.bool)")
    learner.write(place, written)
    learner.run(place)
    learner.run(learner.index(f"check_{name}"))
    learner.focus(place)
    learner.press("Reveal the solution")
    learner.reads(place, f"A solution of {name}")
    assert looks.pale(learner, place) == [] and looks.cut_off(learner) == []
    learner.press("Reset this exercise")
    learner.reads(place, f"{name}: here is the stub. Your text is kept")
    assert learner.read(place) == stub


def test_progress_is_on_the_map_after_a_restart(learner):
    name = "padding_mask"
    learner.open(CHAPTER)
    learner.run(learner.index("setup"))
    learner.write(learner.index(name), solution(name))
    learner.run(learner.index(name))
    assert (
        f"{name}: {find(name).points} of {find(name).points} points" in learner.run(learner.index(f"check_{name}")).text
    )
    learner.lab.stop()
    learner.lab.start()
    learner.open(START)
    place = learner.find("show_map()")
    rows = [row.text for row in learner.run(place).find_elements("tag name", "tr")]
    (row,) = [row for row in rows if "1.1 Attention" in row]
    earned, points = re.search(r"([\d.]+) of ([\d.]+)", row).groups()
    assert find(name).points <= float(earned) <= float(points)
    assert float(points) == sum(find(each).points for each in order("transformer.attention"))
    for theme in ("Dark", "Light"):
        learner.wear(theme)
        assert looks.pale(learner, place) == []
    assert looks.cut_off(learner) == []
    learner.follow(place, "1.1 Attention")
    assert learner.title() == "Attention"
