"""A mock interview as a value that outlives its process: what was drawn, how far it is, what came out.

`interviews.json` beside `progress.json` holds the one that is not finished, and those that are, for the next draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autograde.practice.draw import QUESTIONS, Drawn
from autograde.practice.kept import Kept
from autograde.practice.rubric import Point

__all__ = ["CODING", "Clock", "Interview", "Interviews", "clock_text"]

CODING = 0.6  # of the minutes; the questions share the rest
_MOST_PAST = 100


@dataclass
class Interview:
    """One mock interview.

    stage:   0 while coding, then the number of the question, and one more than there are when it is over
    spent:   seconds used in each stage
    result:  what the check said of the code, once it was checked
    answers: one a question: question, told (texts), missed (texts), rating
    """

    began: str
    seed: int
    lang: str
    minutes: float
    task: str
    chapter: str
    difficulty: str
    points: int
    questions: list[str]
    why: str
    file: str
    stage: int = 0
    spent: list[float] = field(default_factory=lambda: [0.0] * (QUESTIONS + 1))
    result: dict[str, Any] | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, drawn: Drawn, seed: int, lang: str, minutes: float, file: Path, began: datetime) -> Interview:
        task = drawn.task
        return cls(
            began.isoformat(timespec="minutes"),
            seed,
            lang,
            minutes,
            task.name,
            task.chapter,
            task.difficulty,
            task.points,
            drawn.questions,
            drawn.why,
            str(file),
        )

    @property
    def over(self) -> bool:
        return self.stage > len(self.questions)

    @property
    def question(self) -> str:
        """The question of this stage."""
        return self.questions[self.stage - 1]

    def limit(self, stage: int | None = None) -> float:
        """Seconds that a stage may take."""
        coding = (self.stage if stage is None else stage) == 0
        return 60 * self.minutes * (CODING if coding else (1 - CODING) / len(self.questions))

    def checked(self, result: dict[str, Any]) -> None:
        """Take the result of the code, and go on to the first question."""
        self.result = {**result, "points": float(self.points)}
        self.stage = 1

    def answered(self, points: list[Point], told: set[int], rating: int) -> None:
        """Take a question's answer, the numbers (from 1) of the points told and the rating, and go on."""
        texts = {number: point.text for number, point in enumerate(points, start=1)}
        self.answers.append(
            {
                "question": self.question,
                "told": [texts[number] for number in sorted(told)],
                "missed": [text for number, text in texts.items() if number not in told],
                "rating": rating,
            }
        )
        self.stage += 1


class Interviews:
    """The interviews of a learner."""

    def __init__(self):
        self._kept = Kept("interviews", _entry)

    def current(self) -> Interview | None:
        stored = self._kept.load().get("current")
        return Interview(**stored) if stored else None

    def past(self) -> list[dict[str, Any]]:
        """Those that are finished, oldest first: began, task, questions, result, answers."""
        return self._kept.load().get("past", [])

    def keep(self, interview: Interview | None) -> None:
        """Keep it as the one that is not finished; None for none."""

        def edit(state: dict[str, Any]) -> None:
            state["current"] = asdict(interview) if interview else None

        self._kept.change(edit)

    def finish(self, interview: Interview) -> None:
        """Move it to those that are finished."""

        def edit(state: dict[str, Any]) -> None:
            whole = asdict(interview)
            whole["result"] = {name: whole["result"][name] for name in ("earned", "points", "status", "told")}
            state["current"], state["past"] = None, [*state.get("past", []), whole][-_MOST_PAST:]

        self._kept.change(edit)


def _entry(entry: dict[str, Any] | list | None) -> dict[str, Any] | list | None:
    """The interview that is not finished, None or the list of those that are."""
    if isinstance(entry, list):
        for one in entry:
            one["task"] + one["began"], one["result"]["earned"] + one["result"]["points"], list(one["questions"])
    elif entry is not None:
        current = Interview(**entry)
        _ = current.minutes + current.stage + sum(current.spent)
    return entry


class Clock:
    """Counts the seconds of a stage into the interview, from when it is made until the stage is left.

    now:  gives seconds that only grow
    keep: called about every 15 s, so that little is lost where the process is killed
    """

    def __init__(self, interview: Interview, keep: Callable[[], None], now: Callable[[], float] = time.monotonic):
        self._interview, self._keep, self._now, self._stage = interview, keep, now, interview.stage
        self._last = self._kept_at = now()

    def left(self) -> float:
        """Seconds that are left; less than 0 when the time is over."""
        now, spent = self._now(), self._interview.spent
        spent[self._stage] += now - self._last
        self._last = now
        if now - self._kept_at > 15:
            self._kept_at = now
            self._keep()
        return self._interview.limit(self._stage) - spent[self._stage]


def clock_text(seconds: float) -> str:
    """Minutes and seconds, such as 26:05."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02}"
