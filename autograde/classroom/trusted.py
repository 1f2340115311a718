"""Grade one student's section: the trusted side, which knows cases, oracles, laws and misconceptions.

`grade_student` takes a task of plain values and gives a result of plain values, so that it can run in a thread, in
another process, or on another machine.
"""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Sequence

from autograde.classroom.budget import budget
from autograde.classroom.sandbox.isolation import NoSandbox, engine
from autograde.classroom.sandbox.process import SandboxFailed
from autograde.classroom.sandbox.session import Session
from autograde.classroom.submission import Outline, Taken, Unreadable, cells_of, take
from autograde.classroom.task import REASONS, STAMP, Task, worthless
from autograde.exercise import Exercise
from autograde.exercises import find, names
from autograde.judging.calls import Failure, Outcome
from autograde.judging.grading import grade
from autograde.judging.limits import TimeLimit
from autograde.judging.suspecting import suspicions
from autograde.report import Report
from autograde.wording import NOT_JUDGED

_MOST_HAPPENED = 600
_MOST_SECONDS = 900.0  # for all notebooks of one student
_one_at_a_time = threading.Lock()  # torch's random state and the captured output belong to the whole process


def grade_student(task: Task) -> dict:
    """The result of a task, as numbers, texts, lists and dicts. What a submission does never raises here.

    Raises NoSandbox and SandboxFailed, which are the machine's fault and not a student's.
    """
    with _one_at_a_time:
        return _grade_student(task)


def _grade_student(task: Task) -> dict:
    start = time.monotonic()
    kind = engine(task.unsafe)
    session = Session(kind, _imports(task.outlines), task.limits)
    notebooks = {}
    try:
        for of in task.outlines:
            late = time.monotonic() - start > _MOST_SECONDS
            found = _given_up(of) if late else _graded(task, of, session)
            notebooks[of.name] = found | {"digest": task.digests[of.name]}
    finally:
        session.close()
    return {
        "student": task.student,
        "section": task.section,
        "sandbox": STAMP if task.unsafe else kind,
        "notebooks": notebooks,
        "seconds": round(time.monotonic() - start, 3),
        "megabytes": round(session.peak / 1e6, 1),
    }


def _graded(task: Task, of: Outline, session: Session) -> dict:
    start = time.monotonic()
    if of.name not in task.contents:
        return worthless(of, task.problems.get(of.name, "It was not handed in."))
    try:
        taken = take(cells_of(task.contents[of.name]), of)
    except Unreadable as error:
        return worthless(of, str(error))
    exercises = {name: find(name) for name in of.points if name in names()}
    happened = session.begin(taken.steps, exercises)
    found = [_checked(exercise, task.seeds[name], session) for name, exercise in exercises.items()]
    return {
        "problem": "",
        "remarks": list(taken.remarks),
        "suspicions": suspicions(taken.solutions, _added(taken), exercises),  # for teachers alone
        "cells": [{"cell": label, "happened": told[:_MOST_HAPPENED]} for label, told in happened],
        "exercises": found,
        "solutions": dict(taken.solutions),
        "added": [source for _, source in _added(taken)],
        "seconds": round(time.monotonic() - start, 3),
    }


def _added(taken: Taken) -> list[tuple[str, str]]:
    return [(step.label, step.source) for step in taken.steps if step.kind == "added"]


def _checked(exercise: Exercise, seed: int, session: Session) -> dict:
    """One exercise's report without its hidden inputs; what happened, for teachers; what learners are told of that."""
    start = time.monotonic()
    watching = _Watching(session)
    try:
        with budget():
            report = grade(exercise, _stand_in, seed, runner=watching.runner)
    except (SandboxFailed, NoSandbox):
        raise
    except (Exception, TimeLimit) as error:  # a value that an oracle's, a law's or a diagnosis' code could not take
        if isinstance(error, TimeLimit):
            session.close()  # it may have been in the middle of a message
        watching.note = f"{NOT_JUDGED[:-1]} ({type(error).__name__})."
        report = Report(exercise.name, exercise.points, 0.0, "no points", secret_diagnosis=NOT_JUDGED)
    return {
        "report": report.hidden().to_dict(),
        "happened": (watching.note or _first_note(report))[:_MOST_HAPPENED],
        "told": REASONS.get("too slow" if watching.ended else watching.kind, ""),
        "ended": watching.ended,
        "seconds": round(time.monotonic() - start, 3),
    }


def _stand_in(*args, **kwargs):
    raise NotImplementedError


class _Watching:
    """Notes the first failure among a session's outcomes, for the row that says what happened."""

    def __init__(self, session: Session):
        self.session, self.note, self.kind, self.ended = session, "", "", False

    def runner(self, implementation, exercise):
        remote = self.session.runner(implementation, exercise)
        run = remote.run

        def watched(cases) -> list[Outcome]:
            outcomes = run(cases)
            failure: Failure | None = next((o.failure for o in outcomes if o.failure), None)
            if failure and not self.note and failure.kind != "not implemented":
                self.note, self.kind = f"{failure.kind}: {failure.message}", failure.kind
                self.ended = failure.type == "Ended"
            return outcomes

        remote.run = watched
        return remote


def _first_note(report: Report) -> str:
    return next((f"{line.name}: {line.note}" for line in report.lines if not line.passed and line.note), "")


def _given_up(of: Outline) -> dict:
    return worthless(of, f"The notebooks before it took more than {_MOST_SECONDS / 60:.0f} minutes.")


def _imports(outlines: Sequence[Outline]) -> str:
    """The import statements of all setup cells: the sandbox runs them once for all notebooks."""
    found: dict[str, None] = {}
    for of in outlines:
        for step in of.steps:
            if step.kind == "setup":
                tree = ast.parse(step.source)
                found |= {ast.unparse(n): None for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))}
    return "\n".join(found)
