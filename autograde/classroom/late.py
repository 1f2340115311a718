"""Being late: a due date, extensions, and what nbgrader's plugin takes off for it."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator
from functools import cached_property

from autograde.classroom.folder import Course


class Lateness:
    """nbgrader's plugin for penalties, as the course's nbgrader_config.py sets it."""

    def __init__(self, course: Course):
        self.course = course

    @cached_property
    def _steps(self):
        from nbgrader.preprocessors import AssignLatePenalties
        from traitlets.config.loader import PyFileConfigLoader

        with _importing_from(str(self.course.root)):
            config = PyFileConfigLoader("nbgrader_config.py", path=str(self.course.root)).load_config()
            steps = AssignLatePenalties(config=config)
            steps.init_plugin()
        return steps

    def apply(self, submission) -> None:
        """Set the penalties of a submission's notebooks, as nbgrader's own step does."""
        late = submission.total_seconds_late
        for notebook in submission.notebooks:
            penalty = None
            if late > 0:
                score = sum(counts(grade) for grade in notebook.grades)
                penalty = self._steps.plugin_inst.late_submission_penalty(submission.student.id, score, late)
            if penalty is not None:
                penalty = min(max(0.0, float(penalty)), max(0.0, score))
            if notebook.late_submission_penalty != penalty:
                notebook.late_submission_penalty = penalty


def counts(grade) -> float:
    """What a grade counts: the manual score in place of the automatic one, and extra credit."""
    found = grade.auto_score if grade.manual_score is None else grade.manual_score
    return float(found or 0.0) + float(grade.extra_credit or 0.0)


@contextlib.contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """A plugin may stand in the course folder."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def moment(text: str) -> datetime.datetime | None:
    """A time that a teacher writes, as nbgrader stores it: without a zone, in UTC. "none" is None.

    Without a zone in it, it is one of this computer's. Raises ValueError.
    """
    if text.casefold() == "none":
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write it as 2026-11-01T23:59, or with a zone, 2026-11-01T23:59+01:00."
        ) from None
    return found.astimezone(datetime.UTC).replace(tzinfo=None)
