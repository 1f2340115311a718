"""Checks the file of a coding task in a process of its own: `python -m autograde.practice.judge FILE NAME RESULT`.

RESULT becomes JSON: earned, points, status, text and html (the report), told (what is wrong, in a sentence or two).
"""

from __future__ import annotations

import json
import linecache
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def examined(name: str, implementation: Callable) -> dict[str, Any]:
    """What the chapter's check says of an implementation, as plain values."""
    from autograde.check import SECONDS, SECONDS_ON_RANKS
    from autograde.exercises import find
    from autograde.judging.grading import judged
    from autograde.judging.limits import budget

    exercise = find(name)
    with budget(SECONDS_ON_RANKS if exercise.ranks else SECONDS):
        report, _ = judged(exercise, implementation)
    told = " ".join(part for part in (report.diagnosis, report.hint) if part) or (
        "" if report.solved else report.headline
    )
    return {
        "earned": report.earned,
        "points": float(report.points),
        "status": report.status,
        "told": told,
        "text": report.text(),
        "html": report._repr_html_(),
    }


def of_file(path: Path, name: str) -> dict[str, Any]:
    """Run the file as a program of its own would run, and check what it calls `name`."""
    from autograde.practice.checking import nothing

    text = path.read_text(encoding="utf-8")
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    space: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    try:
        exec(compile(text, str(path), "exec"), space)
    except (Exception, SystemExit) as error:
        last = traceback.format_exception_only(error)[-1].strip()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        return nothing(name, f"The file does not run{f', line {line}' if line else ''}: {last}")
    if not callable(space.get(name)):
        return nothing(name, f"The file defines no `{name}`.")
    return examined(name, space[name])


if __name__ == "__main__":
    file, exercise, result = sys.argv[1:]
    Path(result).write_text(json.dumps(of_file(Path(file), exercise)), encoding="utf-8")
