"""A course of two tiny chapters and a class of made-up learners: for the tests of the classroom."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path

import nbformat

from autograde.authoring.cells import nbgrader_marks
from autograde.classroom.course import CONFIG
from autograde.classroom.folder import Course
from autograde.classroom.gradebook import api_of, opened
from autograde.classroom.run import grade_section
from autograde.classroom.sandbox.isolation import Limits

SECTION, CHAPTER, OTHER = "01_one", "01_chapter", "02_other"
SOLVED = "def softmax(x):\n    e = (x - x.amax(-1, keepdim=True)).exp()\n    return e / e.sum(-1, keepdim=True)"
MASK = "def causal_mask(n, past=0):\n    return torch.arange(past + n)[None] <= torch.arange(n)[:, None] + past"
POINTS = {"softmax": 2.0, "causal_mask": 2.0}
QUICK = Limits(cell=2.0, grace=1.0, memory=1_500, per_process=1_000)
STUBS = {CHAPTER: ("softmax", "def softmax(x):"), OTHER: ("causal_mask", "def causal_mask(n, past=0):")}


def make(folder: Path) -> Course:
    """A course folder with both chapters, released."""
    course = unreleased(folder)
    result = api_of(course).generate_assignment(SECTION)
    assert result["success"], result["log"]
    return course


def unreleased(folder: Path) -> Course:
    """The same before its release: enough for what needs no gradebook."""
    root = folder / "class"
    (root / "source" / SECTION).mkdir(parents=True)
    for chapter, (name, head) in STUBS.items():
        nbformat.write(_source(name, head), root / "source" / SECTION / f"{chapter}.ipynb")
    (root / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    (root / "secret").write_text("a secret")
    return Course(root)


def _source(name: str, head: str) -> nbformat.NotebookNode:
    cells = [
        nbformat.v4.new_markdown_cell("# A chapter"),
        _code("import torch\nfrom autograde import check", "setup", locked=True),
        nbformat.v4.new_code_cell("raise SystemExit('a demo was run')", metadata={"tags": ["demo"]}),
        _code(f"{head}\n    ### BEGIN SOLUTION\n    SECRET_SOLUTION = 1\n    ### END SOLUTION", name, solution=True),
        _code(f"check({name})", f"check_{name}", grade=True, locked=True),
    ]
    cells[-1].metadata.nbgrader["points"] = POINTS[name]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _code(text: str, grade_id: str, **options) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(text, metadata={"nbgrader": nbgrader_marks(grade_id, **options)})


class Notebook:
    """A released notebook that a learner works on."""

    def __init__(self, course: Course, name: str = CHAPTER):
        self.nb = nbformat.read(course.root / "release" / SECTION / f"{name}.ipynb", as_version=4)

    @property
    def cells(self) -> list:
        return self.nb.cells

    def cell(self, grade_id: str):
        return next(c for c in self.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)

    def answer(self, name: str, text: str) -> Notebook:
        self.cell(name).source = text
        return self

    def add(self, text: str, before: str) -> Notebook:
        self.cells.insert(self.cells.index(self.cell(before)), nbformat.v4.new_code_cell(text))
        return self

    def copy(self, cell):
        return nbformat.from_dict(copy.deepcopy(dict(cell)))

    def text(self) -> str:
        return json.dumps(self.nb)  # as it is, valid or not


def hand_in(course: Course, student: str, content: str | bytes, name: str = CHAPTER) -> Path:
    """Put a notebook into submitted/."""
    path = course.root / "submitted" / student / SECTION / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def honest(course: Course, student: str) -> None:
    """A student who solved both chapters."""
    hand_in(course, student, Notebook(course).answer("softmax", SOLVED).text())
    hand_in(course, student, Notebook(course, OTHER).answer("causal_mask", MASK).text(), OTHER)


def graded(course: Course, **options) -> tuple[dict[str, dict], str]:
    """(the results, what was printed) of `autograde grade`."""
    out = io.StringIO()
    results = grade_section(course, SECTION, out=out, **{"jobs": 2, "limits": QUICK} | options)
    return results, out.getvalue()


def in_gradebook(course: Course) -> dict[str, dict[str, float]]:
    """student -> exercise -> what nbgrader says."""
    found: dict[str, dict[str, float]] = {}
    with opened(course) as gradebook:
        for submission in gradebook.assignment_submissions(SECTION):
            grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
            found[submission.student.id] = {g.name.removeprefix("check_"): g.score for g in grades}
    return found


@contextlib.contextmanager
def manual(course: Course, student: str, name: str) -> Callable:
    """nbgrader's grade of one exercise, to be changed by hand."""
    with opened(course) as gradebook:
        for notebook in gradebook.find_submission(SECTION, student).notebooks:
            for grade in notebook.grades:
                if grade.name == f"check_{name}":
                    yield grade
                    gradebook.db.commit()
