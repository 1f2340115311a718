"""What is to be graded, as plain values: light enough for the process that only hands it out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from autograde.classroom.sandbox.isolation import Limits
from autograde.classroom.submission import Outline
from autograde.report import Report

STAMP = "graded without a sandbox"
# What learners are told of a call that gave no value, by its kind. Of a solution's own words there are none: they could
# say what the hidden inputs are.
REASONS = {
    "needs": "On a hidden case it called another function, which isn't implemented yet.",
    "raised": "On a hidden case a call raised an error.",
    "too slow": "A call did not come to an end: it was too slow, used too much, or ended its process.",
    "not tried": "For a hidden case there was no time left.",
    "too large": "On a hidden case a call gave far more than the task needs.",
    "ranks": "On a hidden case the ranks did not come to an end together.",
}


@dataclass(frozen=True)
class Task:
    """Some notebooks of a student's section. `contents` has their bytes, `problems` why others have none.

    `digests` tell one submission of a notebook from another. `seeds` are this student's, one an exercise; the course's
    secret is not in here.
    """

    student: str
    section: str
    digests: dict[str, str]
    outlines: tuple[Outline, ...]
    contents: dict[str, bytes]
    problems: dict[str, str]
    seeds: dict[str, int]
    unsafe: bool = False
    limits: Limits = field(default_factory=Limits)


def seeds_of(secret: bytes, student: str, exercises: Sequence[str]) -> dict[str, int]:
    """A seed for each exercise, from the course's secret: the same at every regrade, another for every student."""
    made = {}
    for name in exercises:
        code = hmac.new(secret, f"{student}/{name}".encode(), hashlib.sha256).digest()
        made[name] = int.from_bytes(code[:8], "big") >> 1
    return made


def failed_result(task: Task, why: str) -> dict:
    """A result for a student whose grading did not come to an end: no points, and the reason."""
    return {
        "student": task.student,
        "section": task.section,
        "sandbox": STAMP if task.unsafe else "",
        "notebooks": {of.name: worthless(of, why) | {"digest": task.digests[of.name]} for of in task.outlines},
        "seconds": 0.0,
        "megabytes": 0.0,
    }


def worthless(of: Outline, why: str) -> dict:
    """A notebook's part of a result where nothing could be run: no points, and the reason."""
    reports = []
    for name, points in of.points.items():
        empty = Report(name, points, 0.0, "no points").to_dict()
        reports.append({"report": empty, "happened": why, "told": "", "ended": False, "seconds": 0.0})
    found = {"problem": why, "remarks": [], "cells": [], "exercises": reports, "solutions": {}, "added": []}
    return found | {"seconds": 0.0}
