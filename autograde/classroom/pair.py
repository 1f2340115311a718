"""The pair that the benchmark prints: `nbgrader autograde` and `autograde grade` on the same submissions."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from autograde.classroom.course import make_course
from autograde.classroom.folder import Course, source_cells
from autograde.classroom.gradebook import api_of, opened
from autograde.classroom.journal import Journal
from autograde.classroom.submission import grade_id, marks_of

SECTION = "01_transformer"
_TIMES = 3  # starting up is paid once a class, so that ours gets each submission from three students


@dataclass
class Pair:
    """Seconds a student of both, at how many jobs, with what memory inside, and whether the scores were the same.

    `students` handed in to nbgrader, and `copies` times as many, with the same notebooks, to ours.
    """

    students: int
    copies: int
    notebooks: int
    nbgrader: float
    one_job: float
    all_jobs: float
    jobs: int
    megabytes: float
    same_scores: bool

    @property
    def text(self) -> str:
        """The pair as lines."""
        same = "the same scores" if self.same_scores else "DIFFERENT scores"
        return "\n".join(
            [
                f"grading {SECTION}: {self.students} students with {self.notebooks} notebooks each "
                f"(ours: each {self.copies} times), {same}",
                f"  nbgrader autograde       {self.nbgrader:7.1f} s a student",
                f"  autograde grade, 1 job   {self.one_job:7.1f} s a student  ({self.nbgrader / self.one_job:.1f} x)",
                f"  autograde grade, {self.jobs} jobs  {self.all_jobs:7.1f} s a student  "
                f"({self.nbgrader / self.all_jobs:.1f} x), {self.megabytes:.0f} MB in the sandbox",
            ]
        )


def measure(folder: pathlib.Path) -> Pair:
    """Grade a small honest class with both, in a new folder."""
    make_course(folder / "ours")
    course = Course(folder / "ours")
    api = api_of(course)
    released = api.generate_assignment(SECTION)
    if not released["success"]:
        raise ValueError(released["log"] or "nbgrader could not release the section")
    students = _hand_in(course)
    shutil.copytree(course.root, folder / "theirs")
    theirs = Course(folder / "theirs")
    api = api_of(theirs)
    for student in students:
        for number in range(1, _TIMES):
            shutil.copytree(course.root / "submitted" / student, course.root / "submitted" / f"{student}-{number}")
    slow = _timed(lambda: [api.autograde(SECTION, student) for student in students])
    jobs = os.cpu_count() or 1
    command = [sys.executable, "-m", "autograde.cli", "grade", SECTION, "--course", str(course.root), "--regrade"]
    seconds = {n: _timed(lambda n=n: subprocess.run([*command, "--jobs", str(n)], check=True)) for n in (1, jobs)}
    results, n = Journal(course, SECTION).latest(), len(students)
    ours = n * _TIMES
    memory = max(result["megabytes"] for result in results.values())
    notebooks = len(results[students[0]]["notebooks"])
    same = _scores(course, students) == _scores(theirs, students)
    return Pair(n, _TIMES, notebooks, slow / n, seconds[1] / ours, seconds[jobs] / ours, jobs, memory, same)


def _timed(work: Callable) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _hand_in(course: Course) -> list[str]:
    """Four students: all solved, one half of the exercises, the other half, nothing. Gives their names."""
    keep = {"all": lambda number: True, "even": lambda number: number % 2 == 0, "odd": lambda number: number % 2 == 1}
    keep |= {"nothing": lambda number: False}
    for path in sorted((course.root / "source" / SECTION).glob("*.ipynb")):
        solutions = {grade_id(c): c["source"] for c in source_cells(path) if marks_of(c).get("solution")}
        for student, kept in keep.items():
            notebook = json.loads((course.root / "release" / SECTION / path.name).read_text(encoding="utf-8"))
            solved = [name for number, name in enumerate(solutions) if kept(number)]
            for cell in notebook["cells"]:
                if grade_id(cell) in solved:
                    cell["source"] = solutions[grade_id(cell)]
            target = course.root / "submitted" / student / SECTION / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(notebook), encoding="utf-8")
    return sorted(keep)


def _scores(course: Course, students: list[str]) -> dict[str, dict[str, float]]:
    found = {}
    with opened(course) as gradebook:
        for student in students:
            notebooks = gradebook.find_submission(SECTION, student).notebooks
            found[student] = {g.name: round(float(g.score), 3) for notebook in notebooks for g in notebook.grades}
    return found
