"""Whether wrong numbers are the right ones times a size of the inputs: a sum for a mean, a divisor that is missing."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from autograde.exercise import Case, Exercise
from autograde.judging.comparing import compare
from autograde.judging.diagnosing import Diagnosis, Tried

_FORMS = {
    "times {}": lambda n: n,
    "divided by {}": lambda n: 1 / n,
    "times the root of {}": lambda n: math.sqrt(n),
    "divided by the root of {}": lambda n: 1 / math.sqrt(n),
    "times the square of {}": lambda n: n * n,
    "times (n - 1) / n, where n is {}": lambda n: (n - 1) / n,
    "times n / (n - 1), where n is {}": lambda n: n / (n - 1),
    "times the root of (n - 1) / n, where n is {}": lambda n: math.sqrt((n - 1) / n),
    "times the root of n / (n - 1), where n is {}": lambda n: math.sqrt(n / (n - 1)),
    "times n / (n + 1), where n is {}": lambda n: n / (n + 1),
    "times 1 minus {}": lambda n: 1 - n,
    "divided by 1 minus {}": lambda n: 1 / (1 - n),
}


def scaled(exercise: Exercise, tried: Tried, expected: Sequence) -> Diagnosis | None:
    """The size that all wrong numbers are off by, in two cases at least in which it isn't the same."""
    if exercise.oracle is None:
        return None
    found: dict[str, list[tuple[float, float]]] = {}
    wrong = [i for i in tried.wrong if not tried.cases[i].slack] or tried.wrong
    factors = [_factor(exercise, expected[i], tried.got[i].value) for i in wrong if not tried.got[i].failure]
    cases = [tried.cases[i] for i in wrong if not tried.got[i].failure]
    if len(cases) < 2 or None in factors:
        return None
    for one, factor in zip(cases, factors, strict=True):
        for name, size in _sizes(exercise, one):
            found.setdefault(name, []).append((size, factor))
    for name, pairs in found.items():
        if len(pairs) == len(cases) and len({size for size, _ in pairs}) > 1:
            for text, form in _FORMS.items():
                if all(_is(form, size, factor) for size, factor in pairs):
                    return Diagnosis(_says(text, name))
    return None


def _says(text: str, name: str) -> str:
    return f"Every number is the right one {text.format(name)}."


def _is(form, size: float, factor: float) -> bool:
    try:
        return math.isclose(form(size), factor, rel_tol=1e-3)
    except (ZeroDivisionError, ValueError, OverflowError):
        return False


def _factor(exercise: Exercise, right: Any, got: Any) -> float | None:
    """The one number that every number of a result is of the right one; None where there is none such."""
    # Of an array torch would warn, and of a complex number it would take the real part.
    if not all(map(_is_real, tree_leaves((right, got)))):
        return None
    try:
        e, g = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (right, got))
    except (ValueError, TypeError, RuntimeError):
        return None
    if e.shape != g.shape or not e.numel() or not e.isfinite().all() or not g.isfinite().all():
        return None
    at = int(e.abs().argmax())
    base, there = float(e.reshape(-1)[at]), float(g.reshape(-1)[at])
    if not base or not there or compare(e, g * (base / there), exercise.rtol, exercise.atol):
        return None
    return there / base


def _is_real(value: Any) -> bool:
    return not value.is_complex() if isinstance(value, torch.Tensor) else isinstance(value, numbers.Real)


def _sizes(exercise: Exercise, one: Case) -> Iterator[tuple[str, float]]:
    """Numbers and sizes among the arguments of a case, by name."""
    given = dict(zip(inspect.signature(exercise.oracle).parameters, one.args, strict=False)) | one.kwargs
    if one.ranks:
        yield "the number of ranks", one.ranks
    for name, value in given.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"`{name}`", value
        elif isinstance(value, (list, tuple, str)):
            yield f"the length of `{name}`", len(value)
        elif isinstance(value, torch.Tensor):
            yield f"the count of numbers in `{name}`", value.numel()
            yield from ((f"dimension {d} of `{name}`", value.shape[d]) for d in range(-1, -1 - value.dim(), -1))
