"""Put results into nbgrader's own gradebook and folders. There is one writer: the process that runs `autograde grade`.

A score that a teacher gave by hand, a comment, and extra credit stay as they are: only `auto_score` is ever set.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import pathlib
import sqlite3
import sys
import warnings
from collections.abc import Iterator

import nbformat
from nbformat.v4 import new_code_cell

from autograde.classroom.folder import Course
from autograde.classroom.journal import exercises_of
from autograde.classroom.late import Lateness
from autograde.classroom.points import Points
from autograde.classroom.roster import Roster, first_and_last
from autograde.files import replace
from autograde.report import Line, Report

PATIENCE = 10.0  # seconds to wait for whoever else has the database


class Busy(ValueError):
    """The gradebook can't be used right now; the message says why."""


def api_of(course: Course):
    """nbgrader's API on a course folder, with this course's configuration. Raises Busy as `opened` does."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    from autograde.nbgrader_config import configure

    _look_at(course)
    programs = str(pathlib.Path(sys.executable).parent)  # nbgrader calls a bare `alembic`
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    config = Config()
    config.CourseDirectory.root = str(course.root)
    config.CourseDirectory.course_id = "transformers"
    configure(config)
    return NbGraderAPI(config=config)


@contextlib.contextmanager
def opened(course: Course) -> Iterator:
    """nbgrader's Gradebook. Raises Busy where the database is locked, old, damaged, read-only, or the disk is full."""
    from nbgrader.api import Gradebook, InvalidEntry
    from sqlalchemy.exc import DatabaseError, SAWarning

    if not course.database.exists():
        raise Busy(f"{course.database} is missing: run `autograde release SECTION` first.")
    _look_at(course)
    warnings.filterwarnings("ignore", category=SAWarning)  # nbgrader's own models cause some at every new submission
    try:
        with Gradebook(f"sqlite:///{course.database}?timeout={PATIENCE}", course_id="transformers") as gradebook:
            yield gradebook
    except DatabaseError as error:
        raise Busy(_in_words(str(error.orig), course)) from None
    except InvalidEntry as error:  # what nbgrader makes of an error of the database
        if "sqlite3." not in str(error):
            raise
        raise Busy(_in_words(str(error), course)) from None


def _look_at(course: Course) -> None:
    """Raises Busy for an older nbgrader's database, before nbgrader adds tables to it that its own upgrade makes."""
    from nbgrader.api import Base, app_log

    app_log.setLevel(logging.CRITICAL)  # what goes wrong with a database is our sentence, without nbgrader's traceback
    if not course.database.is_file() or not course.database.stat().st_size:
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(course.database)) as database:
        for name, table in Base.metadata.tables.items():
            there = {row[1] for row in database.execute(f'pragma table_info("{name}")')}
            if not {column.name for column in table.columns} <= there:
                raise Busy(
                    f"{course.database} is an older nbgrader's. Run `nbgrader db upgrade` in its folder, which keeps "
                    "a copy of it, then the same command again: nothing is lost."
                )


def _read_only(path: pathlib.Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)


def _in_words(said: str, course: Course) -> str:
    if "locked" in said:
        return (
            f"{course.database} is locked by another program (formgrader, or another grader). Close it and run the "
            "same command again: what is graded is kept."
        )
    if "full" in said or "disk I/O" in said:
        return f"The disk of {course.database} is full. Make room and run the same command again: nothing is lost."
    if "readonly" in said or "unable to open" in said:
        return f"{course.database} can't be written: check who owns it, then run the same command again."
    return f"{course.database} can't be used ({said}). Restore it from a copy."


class Book:
    """The gradebook of one section, open for writing."""

    def __init__(self, gradebook, course: Course, section: str):
        """Raises Busy where the section was never released."""
        from nbgrader.api import MissingEntry

        self.gradebook, self.course, self.section = gradebook, course, section
        self.points, self.late = Points(course, section), Lateness(course)
        self._read: dict[str, str] = {}
        try:
            self.assignment = gradebook.find_assignment(section)
        except MissingEntry:
            raise Busy(f"{section} was never released: run `autograde release {section}` first.") from None

    def write(self, result: dict) -> None:
        """Set the automatic scores of one student, and write autograded/. All or nothing."""
        student = result["student"]
        self.gradebook.update_or_create_student(student)
        submission = self.gradebook.update_or_create_submission(self.section, student)
        submission.timestamp = _time(self.course.submitted_at(student, self.section))
        for notebook in submission.notebooks:
            if notebook.name in result["notebooks"]:
                self._score(notebook, result["notebooks"][notebook.name])
        self.late.apply(submission)
        self.gradebook.db.commit()
        for name, notebook in result["notebooks"].items():
            self._autograded(student, name, notebook)

    def _score(self, notebook, found: dict) -> None:
        scores = {f"check_{e['report']['exercise']}": e["report"] for e in found["exercises"]}
        notebook.score_needs_update = True
        for grade in notebook.grades:
            if grade.name in scores:
                # a corrected exercise may be worth something else, and a teacher may say what it is worth
                grade.cell.max_score, grade.auto_score = self.points.worth(scores[grade.name])
                grade.needs_manual_grade = False

    def enter_students(self) -> None:
        """Put the roster's students, with their names and e-mails, into the gradebook."""
        for row in Roster(self.course).rows:
            first, last = first_and_last(row.get("name", ""))
            known = {"first_name": first, "last_name": last, "email": row.get("email")}
            known["lms_user_id"] = row.get("canvas_id")
            self.gradebook.update_or_create_student(row["id"], **{key: value for key, value in known.items() if value})

    def set_points(self, exercise: str, points: float, results: dict[str, dict]) -> None:
        """What an exercise is worth, from now on and in all that is graded. 0 drops it, with what was given by hand.

        What was given by hand comes back when it is worth something again. `results` are the latest. Raises ValueError
        where there is no such exercise.
        """
        everything = {
            cell.name.removeprefix("check_"): cell for n in self.assignment.notebooks for cell in n.grade_cells
        }
        if exercise not in everything:
            raise ValueError(f"{self.section} has no exercise {exercise!r}. There are {', '.join(sorted(everything))}.")
        before, self.points.changed[exercise] = everything[exercise].max_score, points
        found = [(s, e["report"]) for s, result in results.items() for e in exercises_of(result)]
        reports = {student: report for student, report in found if report["exercise"] == exercise}
        kept = self.points.kept.setdefault(exercise, {})
        for submission in self.assignment.submissions:
            student = submission.student.id
            for grade in [g for n in submission.notebooks for g in n.grades if g.name == f"check_{exercise}"]:
                if student in reports:
                    grade.auto_score = self.points.worth(reports[student])[1]
                elif grade.auto_score is not None:  # nbgrader's own run
                    grade.auto_score *= points / before if before else 0.0
                if points == 0 and (grade.manual_score is not None or grade.extra_credit):
                    kept[student] = [grade.manual_score, grade.extra_credit]
                    grade.manual_score = grade.extra_credit = None
                elif points and not before and student in kept:
                    grade.manual_score, grade.extra_credit = kept[student]
            self.late.apply(submission)
        everything[exercise].max_score = points
        self.points.save()
        self.gradebook.db.commit()
        if points:  # not before the gradebook has it again
            del self.points.kept[exercise]
            self.points.save()

    def again_points(self) -> None:
        """After a release, which entered the source's points: what a teacher has changed."""
        for notebook in self.assignment.notebooks:
            for cell in notebook.grade_cells:
                cell.max_score = self.points.changed.get(cell.name.removeprefix("check_"), cell.max_score)
        self.gradebook.db.commit()

    def set_due(self, due: datetime.datetime | None) -> None:
        """The section's due date, in UTC without a zone, or None."""
        self.assignment.duedate = due
        self._all_late()

    def extend(self, student: str, hours: float) -> None:
        """Give a student so many hours more than the due date, in all; 0 takes an extension back. Raises ValueError."""
        known = {*Roster(self.course).ids(), *self.course.folders(), *(one.id for one in self.gradebook.students)}
        if student not in known:
            raise ValueError(f"There is no student {student!r}: neither in the roster nor in submitted/.")
        self.gradebook.update_or_create_student(student)
        self.gradebook.update_or_create_submission(self.section, student)
        self.gradebook.grant_extension(self.section, student, hours=hours)
        self._all_late()

    def _all_late(self) -> None:
        for submission in self.assignment.submissions:
            self.late.apply(submission)
        self.gradebook.db.commit()

    def _autograded(self, student: str, name: str, found: dict) -> None:
        """The notebook that formgrader shows: the release with the learner's code, and our reports as its output."""
        source = json.loads(self._sources(name))
        reports = {f"check_{e['report']['exercise']}": e for e in found["exercises"]}
        for cell in source["cells"]:
            marks = cell["metadata"].get("nbgrader", {})
            if marks.get("solution"):
                cell["source"] = found["solutions"].get(marks["grade_id"], "")
            elif marks.get("grade_id") in reports:
                cell["outputs"] = _outputs(reports[marks["grade_id"]], found["problem"])
        source["cells"] += [new_code_cell(text, id=f"added-{i}") for i, text in enumerate(found["added"])]
        folder = self.course.root / "autograded" / student / self.section
        replace(folder / f"{name}.ipynb", json.dumps(source, ensure_ascii=False) + "\n")
        stamp = self.course.submitted_at(student, self.section)
        if stamp:
            replace(folder / "timestamp.txt", stamp + "\n")

    def _sources(self, name: str) -> str:
        """A notebook of source/ as it is written into autograded/, looked through once for the whole class."""
        if name not in self._read:
            path = self.course.root / "source" / self.section / f"{name}.ipynb"
            self._read[name] = json.dumps(nbformat.read(path, as_version=4), ensure_ascii=False)
        return self._read[name]


def _outputs(found: dict, problem: str) -> list[dict]:
    """What learners may be shown, since nbgrader makes its feedback of it: nothing that their code could say."""
    text = "\n\n".join(filter(None, [report_of(found).text(), problem, found.get("told", "")]))
    points = {"text/plain": str(float(found["report"]["earned"]))}
    shown = {"output_type": "stream", "name": "stdout", "text": text + "\n"}
    return [shown, {"output_type": "execute_result", "data": points, "metadata": {}, "execution_count": 1}]


def report_of(found: dict) -> Report:
    """The report of one exercise of a result."""
    fields = dict(found["report"])
    fields["lines"] = [Line(**line) for line in fields["lines"]]
    return Report(**fields)


def _time(stamp: str) -> datetime.datetime | None:
    """nbgrader's time stamp ("2026-11-25 12:00:00.000000 UTC") as it stores it, or None."""
    from nbgrader.utils import parse_utc

    try:
        return parse_utc(stamp) if stamp else None
    except (ValueError, OverflowError):
        return None
