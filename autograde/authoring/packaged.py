"""What the build puts into the packages beside notebooks/: the map's data, and every exercise's cell with its solution.

They are package data because an installed copy of the course, as on Colab, has neither solutions/ nor notebooks/.
"""

from __future__ import annotations

import json
import math
import pathlib

from autograde import repository
from autograde.authoring import bank
from autograde.authoring.chapter import Chapter, all_chapters, lines_of_solution
from autograde.authoring.lint import exercises_of
from autograde.files import replace
from autograde.regions import stubbed
from autograde.repository import ROOT

MAP, REFERENCE = "labkit/chapters.json", "autograde/reference.json"
# The pace of somebody who knows Python and torch: words read, lines of code looked through or written.
_WORDS, _LINES_READ, _LINES_WRITTEN = 180, 30, 1  # a minute
_EXERCISE = 5  # minutes to understand what an exercise asks, besides writing it
_STEP = 15  # minutes: an estimate has no finer ones


def build(root: pathlib.Path = ROOT) -> list[str]:
    """Write both files. Returns the paths that changed, below the repository's root."""
    wanted = files(root)
    changed = stale(root, wanted)
    for path in changed:
        replace(root / path, wanted[path])
    return changed


def stale(root: pathlib.Path = ROOT, wanted: dict[str, str] | None = None) -> list[str]:
    """Those of the files that are missing or out of date."""
    wanted = files(root) if wanted is None else wanted
    return [path for path, text in wanted.items() if not _is(root / path, text)]


def files(root: pathlib.Path = ROOT) -> dict[str, str]:
    """Both files as text, by their path below the repository's root. The chapters have to be in order."""
    chapters, questions = all_chapters(root), bank.load(root).questions
    used = sorted({question for chapter in chapters for question in chapter.questions})
    known = {
        "repository": repository.slug(root),
        "tag": repository.tag(root),
        "questions": {question: questions[question]["en"] for question in used},
        "chapters": [_described(chapter) for chapter in chapters],
    }
    made = stubbed if not repository.reveals(root) else str
    cells = {cell.name: made(cell.source) for chapter in chapters for cell in chapter.of("exercise")}
    return {MAP: _as_text(known), REFERENCE: _as_text(cells)}


def minutes(chapter: Chapter) -> int:
    """How long a chapter takes, to a quarter of an hour: reading, looking through the demos, solving the exercises."""
    words = sum(len(cell.source.split()) for cell in chapter.of("markdown"))
    shown = [cell for cell in chapter.cells if cell.kind in ("demo", "claim", "payoff")]
    read = sum(bool(line.strip()) for cell in shown for line in cell.source.splitlines())
    exercises = chapter.of("exercise")
    written = sum(bool(line.strip()) for cell in exercises for line in lines_of_solution(cell))
    taken = words / _WORDS + read / _LINES_READ + written / _LINES_WRITTEN + _EXERCISE * len(exercises)
    return _STEP * math.ceil(taken / _STEP)


def _described(chapter: Chapter) -> dict:
    return {
        "path": chapter.path,
        "title": chapter.title,
        "minutes": minutes(chapter),
        "needs": chapter.needs,
        "questions": chapter.questions,
        "exercises": {name: exercise.points for name, exercise in exercises_of(chapter).items()},
    }


def _as_text(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _is(path: pathlib.Path, text: str) -> bool:
    return path.is_file() and path.read_bytes().decode("utf-8", "replace") == text
