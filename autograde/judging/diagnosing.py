"""Name the mistake: compare what a solution gave with what each known mistake gives on the same inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from autograde.exercise import Case, Exercise, Misconception, tolerances
from autograde.judging.calls import Failure, Outcome
from autograde.judging.comparing import Mismatch, compare, describe, tensors
from autograde.judging.running import Local, run_all

_ROUNDS = 3  # misconceptions that are tried on further cases
_FEW = 3  # cases of a rank exercise on which every misconception is tried
EXACTLY = "Your result is exactly"
MOSTLY = "On most of the cases that fail, your result is"
HERE = "On the cases that fail, your result is"
WHEREVER = "Wherever your result is wrong, it is exactly"
OPENINGS = (EXACTLY, MOSTLY, HERE, WHEREVER)


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong, in words. `misconception` is set when it is one that the exercise knows.

    `says` is one of a closed list (wording.py), so that it can be told of hidden cases as well; `shown`, with numbers,
    shapes, types and labels, stands in its place where the learner sees the inputs anyway.
    """

    says: str
    hint: str = ""
    misconception: Misconception | None = None
    shown: str = ""


@dataclass(frozen=True)
class Tried:
    """What a solution gave on some cases, and the numbers of those that are wrong."""

    cases: Sequence[Case] = ()
    got: Sequence[Outcome] = ()
    wrong: Sequence[int] = ()


def alike(a: Outcome, b: Outcome, exercise: Exercise, one: Case) -> bool:
    """Whether two outcomes are the same mistake: equal values (NaN included), or failures of one kind and type."""
    if a.failure or b.failure:
        both = [o.failure for o in (a, b) if o.failure]
        if len({(failure.kind, failure.type) for failure in both}) > 1 or len(both) < 2 or both[0].kind == "too slow":
            return False
        return not exercise.ranks or _gist(both[0]) == _gist(both[1])
    if a.changed != b.changed or (exercise.fresh and a.shared != b.shared):
        return False
    try:
        if exercise.agrees:
            return exercise.agrees(b.value, a.value, one) is True
        return compare(b.value, a.value, equal_nan=True, **tolerances(exercise, one)) is None
    except Exception:  # values that can't even be compared
        return False


def _gist(failure: Failure) -> str | list:
    """What tells failures of one type apart: on ranks who waits in what, else an error's words without its numbers."""
    if failure.type == "deadlock":
        return re.findall(r"rank (\d+) waits in (\w+)", failure.message)
    return re.sub(r"\d+", "", failure.message) if failure.kind == "raised" else ""


def difference(exercise: Exercise, one: Case, expected, got) -> Mismatch | None:
    """How a value differs from the expected one, as the exercise compares them. None where it agrees."""
    try:
        if not exercise.agrees:
            return compare(expected, got, **tolerances(exercise, one))
        verdict = exercise.agrees(expected, got, one)
        text = "" if verdict is True else verdict or "is not what was expected"
    except Exception:  # a value of such a kind or size that it can't even be compared
        text = f"the result is {describe(got)}"
    return Mismatch("verdict", lambda: text) if text else None


def match(
    exercise: Exercise,
    tried: Tried,
    further: Callable[[], Tried],
    breaks_alike: Callable[[Sequence[Outcome], Local], bool],
    runner: Callable = Local,
) -> Diagnosis | None:
    """The misconception whose outcomes explain the wrong cases, if it explains more than four in five of them.

    Ties go to the one that also agrees with the solution where the solution is right, then to the first in the list.
    A few cases may agree by chance, so the best one has to explain `further()` cases as well. Where every case is right
    and only laws are broken, a misconception explains that only if it keeps and breaks the same laws in the same way,
    which `breaks_alike(its outcomes, its runner)` tells.
    """
    evidence = _Evidence(replace(exercise, forbid=()), tried.cases, tried.got, tried.wrong or range(len(tried.cases)))
    suspects, more = _suspects(evidence, runner), None
    for _ in range(_ROUNDS):
        best, found = (0, 0, 0), None
        for suspect in suspects:
            score = suspect.score(best)
            if score and suspect.is_proof() and (tried.wrong or _is_the_same(suspect, score, breaks_alike)):
                best, found = score, suspect
        if found is None:
            return None
        if not tried.wrong:
            return named(EXACTLY, found.misconception)
        more = further() if more is None else more
        if diagnosis := _after(tried, best, found, more):
            return diagnosis
        suspects.remove(found)  # the next best may hold where this one doesn't
    return None


def _is_the_same(suspect: _Suspect, score: tuple[int, int, int], breaks_alike: Callable) -> bool:
    """Whether a suspect gives what a solution gives whose results are all right, and breaks the same laws."""
    everything = len(suspect.evidence.cases)
    return score[1] == everything and breaks_alike(suspect.outcomes(), suspect.running)


def _after(tried: Tried, score: tuple[int, int, int], suspect: _Suspect, more: Tried) -> Diagnosis | None:
    """The name, as far as it still holds after more cases.

    Who gets more cases right that the misconception gets wrong than are explained by it makes another mistake. Of one
    that ranks wait in, nobody has tried where else it lets them wait.
    """
    if len(tried.cases) - score[1] > score[0] and not suspect.is_guessed:
        return None
    explained = suspect.explained_of(more)
    failing = len(tried.wrong) + len(more.wrong)
    if not is_most(score[0] + len(set(explained) & set(more.wrong)), failing):
        return None
    if score[0] < len(tried.wrong) or set(more.wrong) - set(explained):
        return named(MOSTLY, suspect.misconception)
    if failing < _FEW:
        return named(HERE, suspect.misconception)
    if score[1] < len(tried.cases) or len(explained) < len(more.cases):
        return named(WHEREVER, suspect.misconception)
    return named(EXACTLY, suspect.misconception)


def is_most(some: int, of: int) -> bool:
    """Whether some are so many that one may say: on most."""
    return 5 * some > 4 * of


def named(start: str, misconception: Misconception) -> Diagnosis:
    """A known mistake; `start` is one of OPENINGS."""
    return Diagnosis(f"{start} what comes out when {misconception.says}.", misconception.hint, misconception)


@dataclass(frozen=True)
class _Evidence:
    """What is to be explained: what a solution gave on every case, and the cases whose explanation counts most."""

    exercise: Exercise  # with nothing forbidden: the misconceptions are its own
    cases: Sequence[Case]
    got: Sequence[Outcome]
    judged: Sequence[int]

    @cached_property
    def order(self) -> list[int]:
        """The judged cases, then all others."""
        return [*self.judged, *sorted(set(range(len(self.cases))) - set(self.judged))]


class _Suspect:
    """A misconception, run and compared with the evidence case by case, and only as far as it takes to decide."""

    def __init__(self, evidence: _Evidence, place: int, misconception: Misconception, running: Local):
        self.evidence, self.place, self.misconception, self.running = evidence, place, misconception, running
        self.learn({})

    def learn(self, outcomes: dict[int, Outcome], are_guessed: bool = False) -> None:
        """What it gives on these cases is known from elsewhere, or taken to be so."""
        self._known, self._alike, self.is_guessed = outcomes, {}, are_guessed

    def outcome(self, i: int) -> Outcome:
        if i not in self._known:
            self._known[i] = self.running.run([self.evidence.cases[i]])[0]
        return self._known[i]

    def outcomes(self) -> list[Outcome]:
        return [self.outcome(i) for i in range(len(self.evidence.cases))]

    def explains(self, i: int) -> bool:
        """Whether what the solution gave on case `i` is what the misconception gives."""
        if i not in self._alike:
            e = self.evidence
            self._alike[i] = alike(e.got[i], self.outcome(i), e.exercise, e.cases[i])
        return self._alike[i]

    def score(self, best: tuple) -> tuple[int, int, int] | None:
        """How many judged cases are explained, how many cases in all, and how early in the list the misconception is.

        None as soon as that can't be more than `best`, or too few of the judged cases are explained.
        """
        judged, everything = len(self.evidence.judged), len(self.evidence.cases)
        for i in self.evidence.order:
            if not self.explains(i):
                judged, everything = judged - (i in self.evidence.judged), everything - 1
            score = judged, everything, -self.place
            if score <= best or not is_most(judged, len(self.evidence.judged)) or _is_slow(self.outcome(i)):
                return None
        return score

    def is_proof(self) -> bool:
        """Whether what it explains is more than NaN or an error of a type, to which many roads lead.

        That is numbers, an error's very words, or all cases where only some are NaN or end in an error.
        """
        judged, everything = self.evidence.judged, self.evidence.order
        if any(self.explains(i) and self._says_much(i) for i in judged):
            return True
        return len(judged) < len(everything) and all(map(self.explains, everything))

    def _says_much(self, i: int) -> bool:
        own, got = self.outcome(i), self.evidence.got[i]
        if own.failure and got.failure:
            return _gist(own.failure) == _gist(got.failure)
        return not is_all_nan(own.value)

    def explained_of(self, tried: Tried) -> list[int]:
        """Which of other cases it explains, right ones included."""
        outcomes = self.running.run(tried.cases) if tried.cases else []
        exercise, each = self.evidence.exercise, zip(tried.cases, tried.got, outcomes, strict=True)
        return [i for i, (one, got, own) in enumerate(each) if alike(got, own, exercise, one)]


def _suspects(evidence: _Evidence, runner: Callable) -> list[_Suspect]:
    """The misconceptions that may explain the evidence, the likeliest first."""
    exercise = evidence.exercise
    suspects = [
        _Suspect(evidence, place, one, runner(one.implementation, exercise))
        for place, one in enumerate(exercise.misconceptions)
    ]
    if exercise.ranks:
        return _pursued_on_ranks(evidence, suspects, runner)
    # One that fails the first judged case can hardly beat one that doesn't, and then need not be run any further.
    return sorted(suspects, key=lambda suspect: not suspect.explains(evidence.order[0]))


def _pursued_on_ranks(evidence: _Evidence, suspects: Sequence[_Suspect], runner: Callable) -> list[_Suspect]:
    """The suspects to pursue, with their outcomes.

    Only those that give no value are worth running if the solution gave none, and only the others if it gave some.
    Starting ranks is what costs, so all suspects share a launch; a few cases say which to pursue.
    """
    cases, judged = evidence.cases, evidence.judged

    def run(some: Sequence[_Suspect], on: Sequence[int]) -> None:
        drawn = [cases[i] for i in on]
        if runner is Local and not any(one.misconception.hangs for one in some):
            found = run_all([one.misconception.implementation for one in some], evidence.exercise, drawn)
        else:
            found = [one.running.run(drawn) for one in some]
        for one, outcomes in zip(some, found, strict=True):
            one.learn(dict(zip(on, outcomes, strict=True)))

    failed = sum(evidence.got[i].failure is not None for i in judged)
    suspects = [one for one in suspects if one.misconception.hangs == (2 * failed >= len(judged))]
    few = sorted(judged, key=lambda i: cases[i].ranks)
    few = [i for i in few if cases[i].ranks == cases[few[0]].ranks][:_FEW]
    run(suspects, few)
    likely = [one for one in suspects if any(one.explains(i) for i in few)]
    stuck = [one for one in likely if all(_is_deadlock(one.outcome(i)) for i in few)]
    for one in stuck:  # it would only be waited for again
        one.learn(dict.fromkeys(range(len(cases)), one.outcome(few[0])), are_guessed=True)
    run([one for one in likely if one not in stuck], range(len(cases)))
    return likely


def _is_deadlock(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.type == "deadlock"


def is_all_nan(value: Any) -> bool:
    """Whether a value is tensors that hold nothing but NaN."""
    held = [x for x in tensors(value) if x.numel()]
    return bool(held) and all(x.is_floating_point() and bool(x.isnan().all()) for x in held)


def _is_slow(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.kind == "too slow"
