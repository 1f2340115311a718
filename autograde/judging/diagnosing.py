"""Name the mistake: compare what a solution gave with what each known mistake gives on the same inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
    return not disagreement(exercise, one, b.value, a.value, equal_nan=True)


def _gist(failure: Failure, exercise: Exercise) -> str | list:
    """What tells failures of one type apart on ranks: who waits in what, or an error's words without its numbers."""
    if failure.type == "deadlock":
        return re.findall(r"rank (\d+) waits in (\w+)", failure.message)
    return re.sub(r"\d+", "", failure.message) if exercise.ranks and failure.kind == "raised" else ""


def disagreement(exercise: Exercise, one: Case, expected, got, equal_nan: bool = False) -> str:
    """How a value differs from another one, as the exercise compares them, or an empty text."""
    try:
        if exercise.agrees:
            verdict = exercise.agrees(expected, got, one)
            return "" if verdict is True else verdict or "is not what was expected"
        mismatch = compare(expected, got, *tolerance(exercise, one), equal_nan=equal_nan)
    except Exception:  # a value of such a kind or size that it can't even be compared
        return f"the result is {describe(got)}"
    return mismatch.message if mismatch else ""


def match(
    exercise: Exercise,
    cases: Sequence[Case],
    got: Sequence[Outcome],
    right: Sequence[bool],
    kept: Sequence[bool] = (),
    laws_kept: Callable[[Sequence[Outcome], Local], Sequence[bool]] | None = None,
    runner: Callable = Local,
) -> Diagnosis | None:
    """The misconception whose outcomes explain most of the wrong cases, if it explains more than half of them.

    Ties go to the one that also agrees with the solution where the solution is right, then to the first in the list.
    Where every case is right and only laws are broken (`kept` says which hold), a misconception explains that only
    if it keeps and breaks the same laws, which `laws_kept(its outcomes, its runner)` tells.
    """
    wrong = [i for i, ok in enumerate(right) if not ok]
    judged = wrong or list(range(len(cases)))
    best: tuple[float, float, Misconception] | None = None
    for suspect, running, theirs in _tried(exercise, cases, got, judged, runner):
        same = [alike(g, t, exercise, c) for g, t, c in zip(got, theirs, cases, strict=True)]
        explained = sum(same[i] for i in judged) / len(judged)
        if explained <= 0.5 or (best and (explained, sum(same)) <= best[:2]):
            continue
        if wrong or laws_kept is None or list(laws_kept(theirs, running)) == list(kept):
            best = (explained, sum(same), suspect)
    if best is None:
        return None
    sometimes = "" if best[0] == 1 else "On most of the cases that fail, "
    start = "your result is exactly" if sometimes else "Your result is exactly"
    return Diagnosis(f"{sometimes}{start} what comes out when {best[2].says}.", best[2].hint, best[2])


def _tried(exercise: Exercise, cases, got, judged: Sequence[int], runner: Callable) -> Iterator[tuple]:
    """(misconception, its runner, its outcomes on all cases) of those that may explain more than half of `judged`."""
    free = replace(exercise, forbid=())
    suspects = [(one, runner(one.implementation, free)) for one in _suspects(exercise, got, judged)]
    if exercise.ranks:
        yield from _tried_on_ranks(free, cases, got, judged, suspects, runner)
        return
    order = [*judged, *sorted(set(range(len(cases))) - set(judged))]
    for suspect, running in suspects:
        theirs, missed = {}, 0
        for i in order:
            theirs[i] = running.run([cases[i]])[0]
            missed += i in judged and not alike(got[i], theirs[i], exercise, cases[i])
            if 2 * missed >= len(judged) or _is_slow(theirs[i]):
                break
        else:
            yield suspect, running, [theirs[i] for i in range(len(cases))]


def _tried_on_ranks(exercise: Exercise, cases, got, judged, suspects: Sequence[tuple], runner: Callable):
    """As `_tried`. Starting ranks is what costs, so all suspects share a launch; a few cases say which to pursue."""

    def outcomes(of: Sequence[tuple], on: Sequence[Case]) -> list[list[Outcome]]:
        if runner is Local and not any(suspect.hangs for suspect, _ in of):
            return run_all([suspect.implementation for suspect, _ in of], exercise, on)
        return [running.run(on) for _, running in of]

    few = sorted(judged, key=lambda i: cases[i].ranks)
    few = [i for i in few if cases[i].ranks == cases[few[0]].ranks][:_FEW]
    tried = outcomes(suspects, [cases[i] for i in few])
    likely = []
    for one, theirs in zip(suspects, tried, strict=True):
        if not any(alike(got[i], t, exercise, cases[i]) for i, t in zip(few, theirs, strict=True)):
            continue
        if all(_is_deadlock(t) for t in theirs):  # another one would only be waited for again
            yield *one, [theirs[0]] * len(cases)
        else:
            likely.append(one)
    for (suspect, running), theirs in zip(likely, outcomes(likely, cases), strict=True):
        yield suspect, running, theirs


def _suspects(exercise: Exercise, got: Sequence[Outcome], judged: Sequence[int]) -> list[Misconception]:
    """The misconceptions worth running: on ranks, those that give no value if the solution gave none."""
    if not exercise.ranks:
        return list(exercise.misconceptions)
    failed = sum(got[i].failure is not None for i in judged)
    return [m for m in exercise.misconceptions if m.hangs == (2 * failed >= len(judged))]


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
