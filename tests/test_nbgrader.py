"""Stock nbgrader on these notebooks, with a small class of honest and less honest students."""

from __future__ import annotations

import csv
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

from autograde.authoring.chapter import all_chapters
from autograde.classroom.course import make_course
from autograde.exercises import of_module
from autograde.nbgrader_config import configure
from autograde.repository import ROOT

pytestmark = pytest.mark.slow
SECTION, CHAPTER = "02_applications", "02_sampling"
MODULE = "applications.sampling"
EXERCISES = {e.name: e for e in of_module(MODULE)}
TOTAL = sum(e.points for e in EXERCISES.values())
MOST = max(len(e.misconceptions) for e in EXERCISES.values())


def solutions() -> dict[str, str]:
    chapter = next(c for c in all_chapters(ROOT) if c.path == f"{SECTION}/{CHAPTER}")
    return {cell.name: cell.source for cell in chapter.of("exercise")}


class Student:
    """Fills in a release: `put` a solution, `edit` whatever a student should not."""

    def __init__(self, release: Path):
        self.notebook = nbformat.read(release, as_version=4)

    def cell(self, name: str):
        return next(c for c in self.notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)

    def put(self, answers: dict[str, str]) -> Student:
        for name, text in answers.items():
            self.cell(name).source = text
        return self

    def edit(self, change) -> Student:
        change(self)
        return self

    def hand_in(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        nbformat.write(self.notebook, folder / f"{CHAPTER}.ipynb")


def solved(release):
    return Student(release).put(solutions())


def half_solved(release):
    names = list(EXERCISES)
    return Student(release).put({name: solutions()[name] for name in names[: len(names) // 2]})


def mistaken(i):
    """One misconception in every exercise: the i-th, where there are that many."""

    def make(release):
        return Student(release).put({name: wrong_cell(e, i) for name, e in EXERCISES.items()})

    return make


def wrong_cell(exercise, i: int) -> str:
    if i >= len(exercise.misconceptions):
        return solutions()[exercise.name]
    number = f"find({exercise.name!r}).misconceptions[{i}].implementation"
    return f"from autograde.exercises import find\n{exercise.name} = {number}"


def delete_tests(student):
    student.notebook.cells = [c for c in student.notebook.cells if not c.metadata.get("nbgrader", {}).get("grade")]


def edit_tests(student):
    for name in EXERCISES:
        student.cell(f"check_{name}").source = "4.0"
        student.cell(f"check_{name}").metadata.nbgrader.points = 1000


def retag(student):
    for cell in student.notebook.cells:
        cell.metadata.tags = ["skip-execution"]
        cell.outputs = (
            [nbformat.v4.new_output("execute_result", {"text/plain": "4.0"})] if cell.cell_type == "code" else []
        )


def shuffle(student):
    student.notebook.cells = student.notebook.cells[::-1] + student.notebook.cells[:8]


def warn(student):
    name = next(iter(EXERCISES))
    student.cell(name).source += "\nimport sys\nprint('harmless', file=sys.stderr)\n"
    noisy = f"_quiet = {name}\ndef {name}(*args, **kwargs):\n    import os\n    os.write(2, b'warning')\n"
    student.cell(name).source += noisy + "    return _quiet(*args, **kwargs)\n"


def show_markup(student):
    name = next(iter(EXERCISES))
    student.cell(
        name
    ).source += "\nfrom IPython.display import HTML, display\ndisplay(HTML('<script>stolen()</script>'))\n"


def add_helpers(student):
    at = student.notebook.cells.index(student.cell(next(iter(EXERCISES))))
    student.notebook.cells.insert(at, nbformat.v4.new_code_cell("my_own_constant = 1"))
    name = next(iter(EXERCISES))
    student.cell(name).source += "\nassert my_own_constant == 1\n"


CLASS = {
    "solved": solved,
    "unsolved": Student,
    "half": half_solved,
    **{f"mistake{i:02}": mistaken(i) for i in range(MOST)},
    "solved-deleted": lambda r: solved(r).edit(delete_tests),
    "unsolved-edited": lambda r: Student(r).edit(edit_tests),
    "unsolved-retagged": lambda r: Student(r).edit(retag),
    "solved-shuffled": lambda r: solved(r).edit(shuffle),
    "solved-warning": lambda r: solved(r).edit(warn),
    "solved-markup": lambda r: solved(r).edit(show_markup),
    "solved-helpers": lambda r: solved(r).edit(add_helpers),
    "dead": lambda r: Student(r).put({**solutions(), list(EXERCISES)[1]: "import os\nos._exit(0)"}),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The course folder after generate, release, autograde and feedback of the whole class."""
    folder = tmp_path_factory.mktemp("course") / "class"
    make_course(folder)
    for path in (folder / "source" / SECTION).glob("*.ipynb"):
        if path.stem != CHAPTER:
            path.unlink()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    c = Config()
    c.CourseDirectory.root = str(folder)
    c.CourseDirectory.course_id = "transformers"
    configure(c)
    api = NbGraderAPI(config=c)
    assert api.generate_assignment(SECTION)["success"]
    release = folder / "release" / SECTION / f"{CHAPTER}.ipynb"
    for name, make in CLASS.items():
        make(release).hand_in(folder / "submitted" / name / SECTION)
    failed = {name: r["log"] for name in CLASS if not (r := api.autograde(SECTION, name))["success"]}
    assert not failed
    assert api.generate_feedback(SECTION)["success"]
    return folder


def score(folder: Path, student: str) -> float:
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        return gradebook.find_submission(SECTION, student).score


def feedback(folder: Path, student: str) -> str:
    return (folder / "feedback" / student / SECTION / f"{CHAPTER}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("student", [s for s in CLASS if s.startswith("solved")])
def test_honest_work_gets_all_points_whatever_happened_around_it(graded, student):
    assert score(graded, student) == TOTAL


@pytest.mark.parametrize("student", [s for s in CLASS if s.startswith("unsolved")])
def test_nothing_solved_earns_nothing_whatever_was_smuggled_in(graded, student):
    assert score(graded, student) == 0


def test_half_of_the_exercises_earns_their_points(graded):
    names = list(EXERCISES)[: len(EXERCISES) // 2]
    assert score(graded, "half") == sum(EXERCISES[name].points for name in names)


@pytest.mark.parametrize("i", range(MOST))
def test_each_misconception_loses_points_and_is_named_in_the_feedback(graded, i):
    shown = re.sub(r"\s+", " ", unescaped(feedback(graded, f"mistake{i:02}")))
    with Gradebook(f"sqlite:///{graded}/gradebook.db") as gradebook:
        notebook = gradebook.find_submission_notebook(CHAPTER, SECTION, f"mistake{i:02}")
        earned = {grade.name: grade.score for grade in notebook.grades}
    for name, exercise in EXERCISES.items():
        if i < len(exercise.misconceptions):
            assert earned[f"check_{name}"] < exercise.points
            assert re.sub(r"\s+", " ", exercise.misconceptions[i].says) in shown


def unescaped(text: str) -> str:
    return html.unescape(text)


def test_a_kernel_that_dies_costs_the_rest_and_not_the_submission(graded):
    assert 0 < score(graded, "dead") < TOTAL


def test_feedback_has_no_hidden_test_and_no_live_markup(graded):
    for student in CLASS:
        text = feedback(graded, student)
        assert "hidden=True" not in unescaped(text) and "HIDDEN TESTS" not in text
    assert "<script>stolen()" not in feedback(graded, "solved-markup")


def test_the_release_has_no_hidden_test(graded):
    text = (graded / "release" / SECTION / f"{CHAPTER}.ipynb").read_text(encoding="utf-8")
    assert "hidden=True" not in text and "HIDDEN" not in text


def test_a_regrade_gives_the_same_scores(graded):
    before = score(graded, "mistake00")
    c = Config()
    c.CourseDirectory.root = str(graded)
    c.CourseDirectory.course_id = "transformers"
    configure(c)
    assert NbGraderAPI(config=c).autograde(SECTION, "mistake00", force=True)["success"]
    assert score(graded, "mistake00") == before


def test_export_lists_everybody(graded):
    command = [sys.executable, "-m", "nbgrader", "export", "--to", "grades.csv"]
    subprocess.run(command, cwd=graded, check=True, capture_output=True)
    with open(graded / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows == {student: score(graded, student) for student in CLASS}
