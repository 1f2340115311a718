"""What a mock interview asks: a coding task and two questions, drawn more often the weaker a learner was there."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autograde.practice.deck import chapters, on_topic
from autograde.practice.schedule import Drill, weakness
from autograde.practice.tasks import DIFFICULTIES, Task

__all__ = ["Drawn", "draw"]

QUESTIONS = 2


@dataclass(frozen=True)
class Drawn:
    """A coding task, two ids of questions, and why these in one line."""

    task: Task
    questions: list[str]
    why: str


def draw(
    among: Sequence[Task],
    bank,
    drill: Drill,
    results: Mapping[str, tuple[float, float]],
    past: Sequence[Mapping],
    seed: int,
    topic: str | None = None,
    difficulty: str | None = None,
) -> Drawn:
    """Draw from the tasks and the bank's questions on a topic.

    results: of the checks so far, (earned, points) by the exercise's name
    past:    earlier interviews, oldest first, with task, result and questions
    seed:    the same one draws the same from the same state

    A task that was tried and isn't solved counts three times a new one, one that the last interview left unsolved
    three times more; a solved one a fifth. A question counts by its ratings (see `weakness`). What the last interview
    asked comes again only where it went badly. Raises ValueError where nothing fits.
    """
    wanted, told = on_topic(topic, bank)
    here = [task for task in among if task.chapter in told]
    fitting = [task for task in here if difficulty in (None, task.difficulty)]
    if not fitting:
        there = [level for level in DIFFICULTIES if level in {task.difficulty for task in here}]
        raise ValueError(f"no coding task on {topic} is {difficulty}: there are {', '.join(there) or 'none'}.")
    dice = random.Random(seed)
    weighed = [(_task_weight(task, results, past), task) for task in fitting]
    (_, reason), task = dice.choices(weighed, [weight for (weight, _), _ in weighed])[0]
    near = [q for q in chapters(bank)[task.chapter] if q in wanted]
    chosen: list[tuple[str, str]] = []
    for number in range(QUESTIONS):
        taken = {name for name, _ in chosen}
        # The first belongs to the task, so that the interview has a subject; the second leads elsewhere.
        pool = [q for q in (near if number == 0 else wanted) if q not in taken]
        pool = pool or [q for q in bank.questions if q not in taken]
        weights = [_question_weight(q, drill, past) for q in pool]
        at = dice.choices(range(len(pool)), [weight for weight, _ in weights])[0]
        chosen.append((pool[at], weights[at][1]))
    parts = [f"{task.name} ({task.difficulty}, {reason})", *(f"{name} ({reason})" for name, reason in chosen)]
    return Drawn(task, [name for name, _ in chosen], ", ".join(parts))


def _task_weight(task: Task, results: Mapping, past: Sequence[Mapping]) -> tuple[float, str]:
    earned, points = results.get(task.name, (None, None))
    before = next((one for one in reversed(past) if one["task"] == task.name), None)
    if before and before["result"]["earned"] < before["result"]["points"]:
        return 9.0, "unsolved in an earlier interview"
    if before or (earned is not None and earned >= points):
        return 0.2, "solved before"
    return (1.0, "new") if earned is None else (3.0, "checked before, not solved")


def _question_weight(question: str, drill: Drill, past: Sequence[Mapping]) -> tuple[float, str]:
    weight, why = weakness(drill, question)
    just_asked = bool(past) and question in past[-1]["questions"]
    return (0.1, why) if just_asked and weight <= 1.0 else (weight, why)
