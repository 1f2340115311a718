"""A course of one small chapter, and an nbgrader class made of a course: for the tests of build and nbgrader."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

from autograde.classroom.course import make_course
from autograde.nbgrader_config import configure
from autograde.repository import ROOT

HEADER = """\
# ---
# jupyter:
#   course:
#     title: "A chapter"
#     exercises: start_here
#     questions: []
# ---

# %% [markdown]
# # A chapter

# %% tags=["setup"]
import torch
from autograde import check
secret_recipe = torch.nn.functional.softmax

"""
EXERCISE = """\
# %% exercise="softmax"
def softmax(x):
    \"\"\"Probabilities.\"\"\"
    ### BEGIN SOLUTION
    return secret_recipe(x)
    ### END SOLUTION

"""
CHECK = """\
# %% check="softmax"
check(softmax)

"""
DEMO = '# %% tags=["demo"]\nshown = 1\n\n'
GOOD = HEADER + EXERCISE + CHECK


def course(root: pathlib.Path, text: str, name: str = "01_one/01_chapter") -> pathlib.Path:
    """A course of one chapter below `root`."""
    path = root / "solutions" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    (root / "interview").mkdir(exist_ok=True)
    for section in ("transformer", "applications", "data_parallel"):
        (root / "interview" / f"{section}.yaml").write_text("[]\n")
    shutil.copy(ROOT / "requirements-models.txt", root)
    return root


def nbgrader_class(folder: pathlib.Path, root: pathlib.Path = ROOT, **options):
    """An nbgrader course folder made of a course, and nbgrader's API on it."""
    make_course(folder, root)
    return nbgrader_api(folder, **options)


def nbgrader_api(folder: pathlib.Path, **options):
    """nbgrader's API on a course folder, with this course's configuration."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    bin_folder = str(pathlib.Path(sys.executable).parent)  # nbgrader calls a bare `alembic`
    if bin_folder not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    c = Config()
    c.CourseDirectory.root = str(folder)
    c.CourseDirectory.course_id = "transformers"
    configure(c, **options)
    return NbGraderAPI(config=c)


def scores(folder: pathlib.Path, section: str, student: str) -> dict[str, float]:
    """A student's points by the name of the check cell, over all notebooks of a section."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        notebooks = gradebook.find_submission(section, student).notebooks
        return {grade.name: grade.score for notebook in notebooks for grade in notebook.grades}


def score(folder: pathlib.Path, section: str, student: str) -> float:
    """A student's points in a section."""
    return sum(scores(folder, section, student).values())


def feedback(folder: pathlib.Path, section: str, student: str) -> str:
    """The pages that a student gets back."""
    pages = sorted((folder / "feedback" / student / section).glob("*.html"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)
