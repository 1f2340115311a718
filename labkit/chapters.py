"""The chapters of the course, how far each is solved, and where to go next. It needs no torch.

What a chapter is stands in `chapters.json`, which `autograde build` makes from solutions/; what is solved, in
`labkit.progress`.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
from dataclasses import dataclass

from labkit import progress

_FILE = pathlib.Path(__file__).with_name("chapters.json")
START = "00_start_here"


@dataclass(frozen=True)
class Chapter:
    """A chapter: `path` is the notebook's below notebooks/, without the ending; `needs` are paths of other chapters.

    `minutes` is an estimate, `exercises` has the points of each by its name, in order.
    """

    path: str
    title: str
    minutes: int
    needs: tuple[str, ...]
    questions: tuple[str, ...]
    exercises: dict[str, float]

    @property
    def number(self) -> str:
        """Section and chapter, such as 1.4."""
        return ".".join(str(int(number)) for number in re.findall(r"(?:^|/)(\d+)_", self.path))

    @property
    def section(self) -> str:
        """The section's name for a reader, such as Data parallel."""
        return re.sub(r"^\d+_", "", self.path.split("/")[0]).replace("_", " ").capitalize()


@dataclass(frozen=True)
class Standing:
    """How far a chapter is solved. Points are those of today, also where a result is older than they are.

    begun:    whether an exercise of it was tried
    open:     its exercises that are not solved, in order
    revealed: those whose solution was shown before they were solved
    """

    chapter: Chapter
    earned: float
    points: float
    begun: bool
    open: tuple[str, ...]
    revealed: tuple[str, ...]

    @property
    def solved(self) -> bool:
        return not self.open


@functools.cache
def course() -> dict:
    """All that `chapters.json` says: repository, tag, questions and chapters."""
    return json.loads(_FILE.read_text(encoding="utf-8"))


@functools.cache
def chapters() -> tuple[Chapter, ...]:
    """Every chapter in order, the start page first."""
    lists = ("needs", "questions")
    return tuple(
        Chapter(**{key: tuple(value) if key in lists else value for key, value in chapter.items()})
        for chapter in course()["chapters"]
    )


def standings() -> list[Standing]:
    """Where the learner stands in each chapter, in order; the start page is none of them."""
    results, attempts = progress.results(), progress.all_attempts()
    return [_standing(chapter, results, attempts) for chapter in chapters() if chapter.path != START]


def _standing(chapter: Chapter, results: dict, attempts: dict) -> Standing:
    shares = {
        name: results[name][0] / results[name][1] if name in results and results[name][1] else 0.0
        for name in chapter.exercises
    }
    tried = [name for name in chapter.exercises if shares[name] > 0 or name in attempts]
    return Standing(
        chapter,
        earned=sum(shares[name] * points for name, points in chapter.exercises.items()),
        points=sum(chapter.exercises.values()),
        begun=bool(tried),
        open=tuple(name for name, share in shares.items() if share < 1),
        revealed=tuple(name for name in chapter.exercises if name in attempts and attempts[name].revealed),
    )


def suggestion(here: list[Standing]) -> Standing | None:
    """Where to go next: the first chapter begun, else the first whose prerequisites are solved. None if all are."""
    waiting = [standing for standing in here if not standing.solved]
    solved = {standing.chapter.path for standing in here if standing.solved}
    ready = [standing for standing in waiting if solved.issuperset(standing.chapter.needs)]
    return next((standing for standing in waiting if standing.begun), ready[0] if ready else None)
