"""Whether a result is off by no more than rounding explains: as far as the right answer itself moves under it.

A badly conditioned case (a softmax of large scores, a difference of near numbers) turns the last digit of an input into
the fourth one of the result, in whatever order somebody computes. Nobody is to lose points for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from autograde.exercise import Case, Exercise, tolerances
from autograde.judging.comparing import compare, rebuild

_TRIES = 3
_ROUNDINGS = 8  # how many roundings of an input a computation may be worth
_COARSE = 2  # the same where these are large already


def within_rounding(
    exercise: Exercise, one: Case, expected: Any, got: Any, answer: Callable[[Exercise, Case], Any]
) -> bool:
    """Whether `got`, which the comparison refuses, is as near to `expected` as rounding lets one come.

    answer: gives the right answer of a case. It is asked again for inputs that are moved by one rounding. What is a
    whole number gets no allowance, nor does anything where few digits may only be lost at the end.
    """
    how = tolerances(exercise, one)
    mismatch = None if exercise.agrees or one.ranks else compare(expected, got, **how)
    if mismatch is None or mismatch.kind != "value" or (exercise.precise and one.slack):
        return False
    right, found = _leaves(expected), _leaves(got)
    generator = torch.Generator().manual_seed(0)
    allowed = [torch.zeros(x.shape, dtype=torch.float64) for x in right]
    for _ in range(_TRIES):
        moved = _leaves(answer(exercise, _moved(one, generator)))
        if [x.shape for x in moved] != [x.shape for x in right]:
            return False
        apart = [(m - r).abs().double().nan_to_num(0.0, 0.0) for m, r in zip(moved, right, strict=True)]
        allowed = [torch.maximum(a, b) for a, b in zip(allowed, apart, strict=True)]
    roundings = _COARSE if one.slack else _ROUNDINGS
    return len(found) == len(right) and all(
        _near(f, r, how["rtol"], how["atol"] + roundings * a) for f, r, a in zip(found, right, allowed, strict=True)
    )


def _near(found: torch.Tensor, right: torch.Tensor, rtol: float, atol: torch.Tensor) -> bool:
    if found.shape != right.shape or not right.is_floating_point():
        return torch.equal(found, right)
    return bool(((found == right) | ((found - right).abs() <= atol + rtol * right.abs())).all())


def _leaves(value: Any) -> list[torch.Tensor]:
    """Every number in a value as a tensor, the floating-point ones in float64."""
    if isinstance(value, torch.Tensor):
        return [value.double() if value.is_floating_point() else value]
    if isinstance(value, float):
        return [torch.tensor(value, dtype=torch.float64)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=repr) for leaf in _leaves(value[key])]
    return []


def _moved(one: Case, generator: torch.Generator) -> Case:
    """The case with every number of its floating-point tensors moved by a last digit, up or down."""

    def change(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x
        sign = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
        return (x.double() * (1 + sign * torch.finfo(x.dtype).eps)).to(x.dtype)

    return replace(one, args=rebuild(one.args, change), kwargs=rebuild(one.kwargs, change))
