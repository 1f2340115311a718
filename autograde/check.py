"""`check(fn)`: what a learner calls under an exercise."""

from __future__ import annotations

import inspect
import os
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace

from autograde import helping
from autograde.asking import MISSING, exercise_of, unrun
from autograde.exercise import Exercise
from autograde.exercises import names
from autograde.judging.forbidding import EXERCISES, dont_call, is_ready_made
from autograde.judging.grading import grade, judged, public_seed
from autograde.judging.limits import budget
from autograde.judging.pointing import Pointed
from autograde.report import Points, Report
from labkit.display import show_html

__all__ = ["check", "grade", "public_seed", "show"]

SECONDS, SECONDS_ON_RANKS = 20.0, 60.0
_OF_SETUP = ("torch", "F", "nn", "math", "dist", "np", "labkit")  # what most setup cells bind


def check(implementation: Callable = MISSING, *, hidden: bool = False) -> float:
    """Check a solution, show what was found, and return the points, a float.

    implementation: the learner's function or class, or whatever else can be called: a partial, a module, a compiled
                    function (which is run as the Python that it was compiled from). The exercise is found by its name,
                    or by that of the variable that holds it. Anything else is answered by one sentence and 0.0.
    hidden:         draws other cases (from the course's secret seed, environment variable AUTOGRADE_SEED) and shows no
                    inputs, nor does `failing` hand any over: nbgrader's hidden tests call it.

    An unsolved exercise scores 0.0. Nothing that the solution does raises here. A check ends by itself: one call may
    take the exercise's `limit` (5 s), all of them together 20 s, on ranks 60 s; after that the verdict is on what was
    tried, and says so. Interrupted, it scores 0.0. It runs in the surroundings of a fresh kernel (see
    `autograde.judging.surroundings`), whatever the notebook has set, and leaves those as they were.
    """
    exercise, sentence = exercise_of(implementation, inspect.currentframe().f_back, "check")
    if exercise and is_ready_made(implementation):
        exercise, sentence = None, f"check: {dont_call(EXERCISES)}"
    if exercise is None:
        print(sentence)
        return Points(0.0)
    output = sys.stdout, sys.stderr
    try:
        with budget(SECONDS_ON_RANKS if exercise.ranks else SECONDS):
            report, pointed = judged(exercise, implementation, _secret_seed(exercise) if hidden else None)
    except KeyboardInterrupt:
        sys.stdout, sys.stderr = output  # it may have come just before they were set back
        print(f"{exercise.name}: the check was interrupted, so there is no result.")
        return Points(0.0)
    helping.remember(exercise.name, None if hidden else pointed)
    if hidden:
        show(report.hidden())
        return Points(report.earned)
    notice = unrun(implementation, exercise.name) or _elsewhere(exercise, pointed)
    show(replace(report, notice=notice, more=helping.offered(pointed) if pointed else ""))
    _record(report)
    return Points(report.earned)


def show(report: Report) -> None:
    """A table in a notebook, plain text anywhere else."""
    if not show_html(report._repr_html_(), report.text()):
        print(report.text())


def _elsewhere(exercise: Exercise, pointed: Pointed | None) -> str:
    """One sentence where a name is missing that another cell makes, or an empty text."""
    failure = pointed.failure if pointed else None
    lacking = re.search(r"^NameError: name '(\w+)' is not defined", failure.message) if failure else None
    name = lacking[1] if lacking else ""
    if name in names():
        return f"`{exercise.name}` calls `{name}`, whose cell was not run: run that first."
    return f"`{name}` is made by the setup cell at the top: run that first." if name in _OF_SETUP else ""


def _secret_seed(exercise: Exercise) -> int:
    secret = os.environ.get("AUTOGRADE_SEED", "hidden")
    return zlib.crc32(f"{secret}/{exercise.name}".encode()) + 2**32


def _record(report: Report) -> None:
    from labkit import progress

    progress.record(report.exercise, report.earned, report.points)
    if report.status == "wrong":
        progress.record_attempt(report.exercise)
