"""What a report on hidden cases may say: a closed list, which no solution can add a word to.

A learner's code sees the hidden inputs. Whatever it can choose (a type's name, a length, a number, an error's text)
could carry them out, so that none of it is repeated: only names of laws, diagnoses that are written in this package or
in the exercise, hints, and scores that the exercise can give.
"""

from __future__ import annotations

import functools
import inspect
import itertools

from autograde.exercise import Exercise
from autograde.exercises import find, names
from autograde.judging.diagnosing import OPENINGS, named
from autograde.judging.forbidding import UNNAMED, always_forbidden, dont_call
from autograde.judging.grading import NEEDS, OBSERVED, OVER, UNFINISHED, one_law, rows_of, some_laws
from autograde.judging.patterns import SAYINGS, no_influence
from autograde.report import Line, Report

NOT_JUDGED = "The result could not be judged."


def kept(name: str, text: str) -> str:
    """Of a text that claims to be reports on an exercise, the last report, as far as hidden reports can say it.

    Nothing of it where the exercise is not the course's. Order, repetition and space are not the text's, but ours.
    """
    if name not in names():
        return ""
    heads, others = lines_of(find(name))
    said = [" ".join(line.split()) for line in text.splitlines()]
    starts = [i for i, line in enumerate(said) if line in heads]
    if not starts:
        return ""
    report = set(said[starts[-1] :])
    return "\n".join([said[starts[-1]], *(line for line in others if " ".join(line.split()) in report)])


def is_score(name: str, points: float) -> bool:
    """Whether the check of this exercise can give so many points. Of an exercise that isn't the course's: always."""
    return name not in names() or any(abs(points - possible) < 1e-3 for possible in scores(find(name)))


@functools.lru_cache(maxsize=256)
def scores(exercise: Exercise) -> tuple[float, ...]:
    """All that a solution may earn: some of the lines, or everything."""
    worths = [worth for _, worth in rows_of(exercise)]
    sums = {round(sum(some), 4) for n in range(len(worths) + 1) for some in itertools.combinations(worths, n)}
    return tuple(sorted(sums | {float(exercise.points)}))


@functools.lru_cache(maxsize=256)
def lines_of(exercise: Exercise) -> tuple[list[str], list[str]]:
    """All lines of text that hidden reports on an exercise have: headlines, and the others."""
    name, points = exercise.name, exercise.points
    heads = [Report(name, points, score, "wrong").headline for score in scores(exercise)]
    heads.append(Report(name, points, 0.0, "not implemented").headline)
    states = ((True, True), (True, False), (False, False))  # passed and worth something; a worthless one may pass
    rows = [Line(row, passed, worth, worth * good) for row, worth in rows_of(exercise) for passed, good in states]
    told = [*diagnoses(exercise), *(f"Hint: {hint}" for hint in hints(exercise))]
    table = Report(name, points, 0.0, "wrong", rows).text().splitlines()[1:]
    return heads, [*table, *(line for text in told for line in text.splitlines())]


def hints(exercise: Exercise) -> list[str]:
    """Every hint that a report can give."""
    own = [*(one.hint for one in exercise.misconceptions), *(one.hint for one in SAYINGS)]
    return [hint for hint in own if hint]


def diagnoses(exercise: Exercise) -> list[str]:
    """Every diagnosis that a report on hidden cases can give."""
    mistakes = [named(start, one).says for start in OPENINGS for one in exercise.misconceptions]
    forbidden = [dont_call(name) for name in (*always_forbidden(exercise.forbid), UNNAMED)]
    laws = [told(law.name).says for law in exercise.laws for told in (one_law, some_laws)]
    found = [*mistakes, *laws, OBSERVED, *(one.says for one in SAYINGS), *_without_influence(exercise)]
    return [NOT_JUDGED, UNFINISHED, NEEDS, *forbidden, *found, OVER, *(f"{OVER} {says}" for says in found)]


def _without_influence(exercise: Exercise) -> list[str]:
    if exercise.oracle is None:
        return []
    given = list(inspect.signature(exercise.oracle).parameters)
    given += [key for one in exercise.draw(0) for key in one.kwargs]
    found = list(dict.fromkeys(given))
    some = [group for n in range(1, len(found) + 1) for group in itertools.combinations(found, n)]
    return [no_influence(group).says for group in some]
