"""Name the mistake: compare what a solution gave with what each known mistake gives on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from autograde.compare import compare, describe, tensors
from autograde.exercise import Case, Exercise, Misconception, tolerance
from autograde.running import Local, Outcome, run_all


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong, in words. `misconception` is set when it is one that the exercise knows."""

    says: str
    hint: str = ""
    misconception: Misconception | None = None


def alike(a: Outcome, b: Outcome, exercise: Exercise, one: Case) -> bool:
    """Whether two outcomes are the same mistake: equal values (NaN included), or failures of one kind and type."""
    if a.failure or b.failure:
        kinds = [(o.failure.kind, o.failure.type) for o in (a, b) if o.failure]
        return len(kinds) == 2 and kinds[0] == kinds[1] and "too slow" not in kinds[0]
    if a.changed != b.changed:
        return False
    if exercise.agrees:
        return exercise.agrees(b.value, a.value, one) is True
    return compare(b.value, a.value, *tolerance(exercise, one), equal_nan=True) is None


def match(
    exercise: Exercise,
    cases: Sequence[Case],
    got: Sequence[Outcome],
    right: Sequence[bool],
    runner: Callable = Local,
) -> Diagnosis | None:
    """The misconception whose outcomes explain most of the wrong cases, if it explains more than half of them.

    Ties go to the one that also agrees with the solution where the solution is right, then to the first in the list.
    """
    wrong = [i for i, ok in enumerate(right) if not ok] or list(range(len(cases)))
    best: tuple[float, float, Misconception] | None = None
    suspects = _suspects(exercise, got)
    implementations = [suspect.implementation for suspect in suspects]
    free = replace(exercise, forbid=())
    if runner is Local and not any(g.failure for g in got):
        results = run_all(implementations, free, cases)
    else:
        results = [runner(one, free).run(cases) for one in implementations]
    for misconception, theirs in zip(suspects, results, strict=True):
        same = [alike(g, t, exercise, c) for g, t, c in zip(got, theirs, cases, strict=True)]
        explained = sum(same[i] for i in wrong) / len(wrong)
        if explained > 0.5 and (best is None or (explained, sum(same)) > best[:2]):
            best = (explained, sum(same), misconception)
    if best is None:
        return None
    sometimes = "" if best[0] == 1 else "On most of the cases that fail, "
    start = "your result is exactly" if sometimes else "Your result is exactly"
    return Diagnosis(f"{sometimes}{start} what comes out when {best[2].says}.", best[2].hint, best[2])


def _suspects(exercise: Exercise, got: Sequence[Outcome]) -> list[Misconception]:
    """The misconceptions worth running: those that hang only where the solution came to nothing on the ranks, too."""
    failed = any(g.failure and g.failure.kind == "ranks" for g in got)
    return [m for m in exercise.misconceptions if failed or not m.hangs]


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
        return Diagnosis(f"Your function returns {describe(other[0])}, where a torch.Tensor is asked for.")
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
