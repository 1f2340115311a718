"""Stock nbgrader on a real chapter, from generate to export, with a class that makes every mistake the course knows.

What a submission may change, and which outputs are believed, is tested in test_nbgrader_steps.py.
"""

from __future__ import annotations

import ast
import csv
import html
import inspect
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from real_course import chapters
from toy_course import feedback, nbgrader_class, score, scores

from autograde.exercises import find, order

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]
SECTION, CHAPTER = "01_transformer", "04_rope"
EXERCISES = {name: find(name) for name in order("transformer.rope")}
TOTAL = sum(e.points for e in EXERCISES.values())
MOST = max(len(e.misconceptions) for e in EXERCISES.values())
SOLUTIONS = {
    cell.name: cell.source for c in chapters() if c.path == f"{SECTION}/{CHAPTER}" for cell in c.of("exercise")
}
HALF = list(EXERCISES)[: len(EXERCISES) // 2]


def mistaken(exercise, number: int) -> str:
    """A cell with one of the exercise's misconceptions, or the solution where there are fewer.

    The exercises themselves are forbidden to every solution: a cell runs a copy of their files' text.
    """
    if number >= len(exercise.misconceptions):
        return SOLUTIONS[exercise.name]
    copied = f"exec(compile({text_of(exercise)!r}, '<a copy>', 'exec'), mine)"
    wrong = f"mine['exercise'].finished().misconceptions[{number}].implementation"
    return f"mine = {{'__name__': 'mine'}}\n{copied}\n{exercise.name} = {wrong}"


def text_of(exercise) -> str:
    """The text of an exercise's file, and above it that of what it shares with others."""
    path = Path(inspect.getfile(exercise.cases))
    shared = path.with_name("shared.py")
    body = [node for file in (shared, path) for node in ast.parse(file.read_text(encoding="utf-8")).body]
    kept = [node for node in body if not (getattr(node, "module", None) or "").startswith(("autograde.ex", "__future"))]
    return "from __future__ import annotations\nfrom autograde.exercise import *\n" + ast.unparse(kept)


CLASS = {
    "solved": SOLUTIONS,
    "unsolved": {},
    "half": {name: SOLUTIONS[name] for name in HALF},
    **{f"mistake{n:02}": {name: mistaken(e, n) for name, e in EXERCISES.items()} for n in range(MOST)},
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The course folder after the whole class went through generate, autograde and feedback."""
    folder = tmp_path_factory.mktemp("course") / "class"
    api = nbgrader_class(folder)
    for path in (folder / "source" / SECTION).glob("*.ipynb"):
        if path.stem != CHAPTER:
            path.unlink()
    assert api.generate_assignment(SECTION)["success"]
    for student, answers in CLASS.items():
        notebook = nbformat.read(folder / "release" / SECTION / f"{CHAPTER}.ipynb", as_version=4)
        for cell in notebook.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            cell.source = answers.get(name, cell.source)
        target = folder / "submitted" / student / SECTION / f"{CHAPTER}.ipynb"
        target.parent.mkdir(parents=True)
        nbformat.write(notebook, target)
    failed = {student: r["log"] for student in CLASS if not (r := api.autograde(SECTION, student))["success"]}
    assert not failed, "\n".join(failed.values())
    assert api.generate_feedback(SECTION)["success"]
    return folder


@pytest.mark.parametrize(
    ("student", "points"), [("solved", TOTAL), ("unsolved", 0), ("half", sum(EXERCISES[n].points for n in HALF))]
)
def test_each_exercise_earns_its_points(graded, student, points):
    assert score(graded, SECTION, student) == points


@pytest.mark.parametrize("number", range(MOST))
def test_each_misconception_loses_points_and_is_named_in_the_feedback(graded, number):
    page = words(feedback(graded, SECTION, f"mistake{number:02}"))
    earned = scores(graded, SECTION, f"mistake{number:02}")
    for name, exercise in EXERCISES.items():
        if number < len(exercise.misconceptions):
            assert earned[f"check_{name}"] < exercise.points
            assert words(exercise.misconceptions[number].says) in page
        else:
            assert earned[f"check_{name}"] == exercise.points


def test_feedback_and_release_have_no_hidden_test(graded):
    pages = [feedback(graded, SECTION, student) for student in CLASS]
    pages.append((graded / "release" / SECTION / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))
    for page in map(html.unescape, pages):
        assert "hidden=True" not in page and "HIDDEN" not in page


def test_export_lists_everybody(graded):
    command = [sys.executable, "-m", "nbgrader", "export", "--to", "grades.csv"]
    subprocess.run(command, cwd=graded, check=True, capture_output=True)
    with open(graded / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows == {student: score(graded, SECTION, student) for student in CLASS}


def words(text: str) -> str:
    return " ".join(html.unescape(text).split())
