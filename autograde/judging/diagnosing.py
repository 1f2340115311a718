"""Name the mistake: compare what a solution gave with what each known mistake gives on the same inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from autograde.exercise import Case, Exercise, Misconception, tolerance
from autograde.judging.calls import Failure, Outcome
from autograde.judging.comparing import compare, describe, tensors
from autograde.judging.running import Local, run_all

_FEW = 3  # cases of a rank exercise on which every misconception is tried


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong, in words. `misconception` is set when it is one that the exercise knows."""

    says: str
    hint: str = ""
    misconception: Misconception | None = None


def alike(a: Outcome, b: Outcome, exercise: Exercise, one: Case) -> bool:
    """Whether two outcomes are the same mistake: equal values (NaN included), or failures of one kind and type."""
    if a.failure or b.failure:
        kinds = [(o.failure.kind, o.failure.type, _gist(o.failure, exercise)) for o in (a, b) if o.failure]
        return len(kinds) == 2 and kinds[0] == kinds[1] and "too slow" not in kinds[0]
    if a.changed != b.changed:
        return False
    try:
        if exercise.agrees:
            return exercise.agrees(b.value, a.value, one) is True
        return compare(b.value, a.value, *tolerance(exercise, one), equal_nan=True) is None
    except Exception:  # values that can't even be compared
        return False


def _gist(failure: Failure, exercise: Exercise) -> str | list:
    """What tells failures of one type apart on ranks: who waits in what, or an error's words without its numbers."""
    if failure.type == "deadlock":
        return re.findall(r"rank (\d+) waits in (\w+)", failure.message)
    return re.sub(r"\d+", "", failure.message) if exercise.ranks and failure.kind == "raised" else ""


def disagreement(exercise: Exercise, one: Case, expected, got) -> str:
    """How a value differs from the expected one, as the exercise compares them, or an empty text."""
    try:
        if exercise.agrees:
            verdict = exercise.agrees(expected, got, one)
            return "" if verdict is True else verdict or "is not what was expected"
        mismatch = compare(expected, got, *tolerance(exercise, one))
        return mismatch.message if mismatch else ""
    except Exception:  # a value of such a kind or size that it can't even be compared
        return f"the result is {describe(got)}"


def match(
    exercise: Exercise,
    cases: Sequence[Case],
    got: Sequence[Outcome],
    right: Sequence[bool],
    breaks_alike: Callable[[Sequence[Outcome], Local], bool],
    runner: Callable = Local,
) -> Diagnosis | None:
    """The misconception whose outcomes explain most of the wrong cases, if it explains more than half of them.

    Ties go to the one that also agrees with the solution where the solution is right, then to the first in the list.
    Where every case is right and only laws are broken, a misconception explains that only if it keeps and breaks the
    same laws, which `breaks_alike(its outcomes, its runner)` tells.
    """
    wrong = [i for i, ok in enumerate(right) if not ok]
    evidence = _Evidence(replace(exercise, forbid=()), cases, got, wrong or list(range(len(cases))))
    best, found = (0, 0, 0), None
    for suspect in _suspects(evidence, runner):
        score = suspect.score(best)
        if score and (wrong or breaks_alike(suspect.outcomes(), suspect.running)):
            best, found = score, suspect.misconception
    if found is None:
        return None
    sometimes = "" if best[0] == len(evidence.judged) else "On most of the cases that fail, "
    start = "your result is exactly" if sometimes else "Your result is exactly"
    return Diagnosis(f"{sometimes}{start} what comes out when {found.says}.", found.hint, found)


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

    def learn(self, outcomes: dict[int, Outcome]) -> None:
        """What it gives on these cases is known from elsewhere."""
        self._known, self._alike = outcomes, {}

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

        None as soon as that can't be more than `best`, or half of the judged cases aren't explained.
        """
        judged, everything = len(self.evidence.judged), len(self.evidence.cases)
        for i in self.evidence.order:
            if not self.explains(i):
                judged, everything = judged - (i in self.evidence.judged), everything - 1
            score = judged, everything, -self.place
            if score <= best or 2 * judged <= len(self.evidence.judged) or _is_slow(self.outcome(i)):
                return None
        return score


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
        one.learn(dict.fromkeys(range(len(cases)), one.outcome(few[0])))
    run([one for one in likely if one not in stuck], range(len(cases)))
    return likely


def _is_deadlock(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.type == "deadlock"


def _is_slow(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.kind == "too slow"


def generic(exercise: Exercise, cases: Sequence[Case], got: Sequence[Outcome], expected: Sequence) -> Diagnosis | None:
    """A diagnosis that needs no knowledge of the exercise: a common factor, a sign, a transpose, a forgotten return."""
    values = [(g.value, e) for g, e in zip(got, expected, strict=True) if g.failure is None]
    wrong = [(g, e) for g, e in values if compare(e, g, exercise.rtol, exercise.atol)]
    if not wrong or any(e is None for _, e in wrong):
        return None
    if all(g is None for g, _ in wrong):
        return Diagnosis("Your function returns None: is a `return` missing?")
    if not all(isinstance(e, torch.Tensor) for _, e in wrong):
        return None
    other = [g for g, _ in wrong if not isinstance(g, torch.Tensor)]
    if other:
        got_one = "a text" if isinstance(other[0], str) else describe(other[0])  # a text could say the inputs
        return Diagnosis(f"Your function returns {got_one}, where a torch.Tensor is asked for.")
    return _tensor_pattern(exercise, wrong)


def _tensor_pattern(exercise: Exercise, wrong: Sequence[tuple]) -> Diagnosis | None:
    def always(change: Callable) -> bool:
        return all(_fits(exercise, change, g, e) for g, e in wrong)

    if always(lambda g: -g):
        return Diagnosis("Every number has the right size and the wrong sign.")
    if always(lambda g: g.transpose(-1, -2)):
        return Diagnosis("Your result is the transpose of the right one: the last two dimensions are swapped.")
    if any(e.shape != g.shape for g, e in wrong):
        if all(e.numel() == g.numel() and _fits(exercise, lambda g, e=e: g.reshape(e.shape), g, e) for g, e in wrong):
            return Diagnosis(
                "The numbers are right and the shape is not: "
                f"{tuple(wrong[0][1].shape)} is asked for, you return {tuple(wrong[0][0].shape)}."
            )
        return None
    factors = [_factor(g, e) for g, e in wrong]
    if (
        None not in factors
        and max(factors) - min(factors) < 1e-3 * abs(factors[0])
        and always(lambda g: g / factors[0])
    ):
        return Diagnosis(f"Every number is {factors[0]:.4g} times the right one.")
    return None


def _fits(exercise: Exercise, change: Callable, got: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        return compare(expected, change(got), exercise.rtol, exercise.atol) is None
    except (RuntimeError, IndexError):
        return False


def _factor(got: torch.Tensor, expected: torch.Tensor) -> float | None:
    """The number that `got` is of `expected`, read off where `expected` is largest; None where there is none."""
    if not expected.is_floating_point() or not expected.numel() or not torch.isfinite(expected).all():
        return None
    at = int(expected.abs().argmax())
    base = float(expected.reshape(-1)[at])
    ratio = float(got.reshape(-1)[at]) / base if base else 0.0
    return ratio if ratio and torch.isfinite(torch.tensor(ratio)) else None


def does_nothing(cases: Sequence[Case], got: Sequence[Outcome], expected: Sequence) -> Diagnosis | None:
    """Whether every result is an input handed back, its negative or double, or a constant, where that isn't right."""
    if any(g.failure for g in got):
        return None
    wrong = [(c, g.value) for c, g, e in zip(cases, got, expected, strict=True) if compare(e, g.value) is not None]
    for name, (of_input, make) in _TRIVIAL.items():
        if wrong and all(_is_trivial(of_input, make, c, value) for c, value in wrong):
            return Diagnosis(f"Your function {name}.")
    return None


# What a solution that does nothing gives: name -> (from an input or from the shape of the result, the value).
_TRIVIAL = {
    "gives back its input": (True, lambda x: x),
    "gives back its input with the other sign": (True, lambda x: -x),
    "gives back twice its input": (True, lambda x: 2 * x),
    "gives back zeros": (False, torch.zeros_like),
    "gives back ones": (False, torch.ones_like),
}


def _is_trivial(of_input: bool, make: Callable, one: Case, value) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    sources = tensors([list(one.args), one.kwargs]) if of_input else [value]
    return any(x.dtype is not torch.bool and compare(make(x), value) is None for x in sources)
