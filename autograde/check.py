"""`check(fn)`: what a learner calls under an exercise."""

from __future__ import annotations

import inspect
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable

from autograde.exercise import Exercise
from autograde.exercises import find, names
from autograde.judging.forbidding import EXERCISES, dont_call, is_ready_made
from autograde.judging.grading import grade, public_seed
from autograde.report import Report

__all__ = ["check", "grade", "public_seed"]

_attempts: Counter[str] = Counter()


def check(implementation: Callable, *, hidden: bool = False) -> float:
    """Check a solution, show what was found, and return the points as a float.

    The exercise is found by the name of the function or class, or of the variable that holds it. `hidden=True` draws
    other cases (from the course's secret seed, environment variable AUTOGRADE_SEED) and shows no inputs: nbgrader's
    hidden tests call it. An unsolved exercise scores 0.0; nothing that the solution does raises here.
    """
    exercise = _exercise_of(implementation, inspect.currentframe().f_back)
    if exercise is None:
        _show_text(
            "check: this is none of the course's exercises. Pass the function itself, under its own name, as in "
            "check(apply_rope)."
        )
        return 0.0
    if is_ready_made(implementation):
        _show_text(f"check: {dont_call(EXERCISES)}")
        return 0.0
    _attempts[exercise.name] += not hidden
    report = grade(
        exercise, implementation, _secret_seed(exercise) if hidden else None, attempt=_attempts[exercise.name]
    )
    if report.status == "not implemented":
        _attempts[exercise.name] -= not hidden
    show(report.hidden() if hidden else report)
    if not hidden:
        _record(report)
    return float(report.earned)


def show(report: Report) -> None:
    """A table in a notebook, plain text anywhere else."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        print(report.text())
        return
    from IPython.display import display

    display({"text/html": report._repr_html_(), "text/plain": report.text()}, raw=True)


def _show_text(text: str) -> None:
    print(text)


def _exercise_of(implementation, frame) -> Exercise | None:
    known = names()
    own = getattr(implementation, "__name__", "")
    if own in known:
        return find(own)
    scope = {**frame.f_globals, **frame.f_locals} if frame else {}
    held = [name for name, value in scope.items() if value is implementation and name in known]
    return find(held[0]) if held else None


def _secret_seed(exercise: Exercise) -> int:
    secret = os.environ.get("AUTOGRADE_SEED", "hidden")
    return zlib.crc32(f"{secret}/{exercise.name}".encode()) + 2**32


def _record(report: Report) -> None:
    from labkit import progress

    progress.record(report.exercise, report.earned, report.points)
