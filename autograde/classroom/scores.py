"""One total: what each student has in a section. Pages, report, tables and the platforms' files all ask here.

It is nbgrader's arithmetic on its gradebook, as `nbgrader export` does it: a manual score in place of the automatic
one, extra credit on top, less the penalty for being late, and never below zero.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autograde.classroom.folder import Course
from autograde.classroom.gradebook import opened
from autograde.classroom.late import Lateness, counts
from autograde.classroom.roster import Roster


@dataclass(frozen=True)
class Mark:
    """One exercise of one student. `manual` and `comment` are a teacher's; `score` is what counts."""

    notebook: str
    exercise: str
    score: float
    most: float
    manual: float | None = None
    extra: float = 0.0
    comment: str = ""


@dataclass(frozen=True)
class Standing:
    """All of one student. `penalties` are by notebook, in points; `late` in seconds after the student's due date."""

    student: str
    marks: tuple[Mark, ...] = ()
    penalties: tuple[tuple[str, float], ...] = ()
    late: float = 0.0
    most: float = 0.0

    @property
    def total(self) -> float:
        """The points that count."""
        penalty = sum(points for _, points in self.penalties)
        return round(max(0.0, sum(mark.score for mark in self.marks) - penalty), 4)

    @property
    def penalty(self) -> float:
        """The points taken off for being late."""
        return round(sum(points for _, points in self.penalties), 4)

    def of(self, notebook: str) -> tuple[float, float]:
        """(the points that count, those that there are) in a notebook. As on nbgrader's page they may be below zero."""
        marks = [mark for mark in self.marks if mark.notebook == notebook]
        penalty = dict(self.penalties).get(notebook, 0.0)
        return round(sum(mark.score for mark in marks) - penalty, 4), sum(mark.most for mark in marks)

    def by_exercise(self) -> dict[str, Mark]:
        """exercise -> its mark."""
        return {mark.exercise: mark for mark in self.marks}


def standings(course: Course, section: str, students: Collection[str] = ()) -> dict[str, Standing]:
    """Every student of the course: of the roster, the gradebook and submitted/, and of `students`, in order.

    Penalties are those of today's due date, extensions and scores. Raises Busy.
    """
    with opened(course) as gradebook:
        everybody = {*Roster(course).ids(), *course.students(section)[0], *students}
        everybody |= {student.id for student in gradebook.students}
        late = Lateness(course)
        for submission in gradebook.assignment_submissions(section):
            late.apply(submission)
        gradebook.db.commit()
        return {student: standing(gradebook, section, student) for student in sorted(everybody)}


def standing(gradebook, section: str, student: str) -> Standing:
    """One student's, from the open gradebook."""
    from nbgrader.api import MissingEntry

    notebooks = gradebook.find_assignment(section).notebooks
    there = float(sum(cell.max_score for notebook in notebooks for cell in notebook.grade_cells))
    try:
        submission = gradebook.find_submission(section, student)
    except MissingEntry:
        return Standing(student, most=there)
    marks, penalties = [], []
    for notebook in submission.notebooks:
        comments = {c.name.removeprefix("check_"): c.comment for c in notebook.comments if c.comment}
        penalties.append((notebook.name, float(notebook.late_submission_penalty or 0.0)))
        for grade in notebook.grades:
            name = grade.name.removeprefix("check_")
            manual = None if grade.manual_score is None else float(grade.manual_score)
            extra = float(grade.extra_credit or 0.0)
            most = float(grade.cell.max_score)
            marks.append(Mark(notebook.name, name, counts(grade), most, manual, extra, comments.get(name, "")))
    return Standing(student, tuple(marks), tuple(penalties), float(submission.total_seconds_late), there)
