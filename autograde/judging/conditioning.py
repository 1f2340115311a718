"""Whether a result is off by no more than rounding explains: as far as the right answer itself moves under it.

A badly conditioned case (a softmax of large scores, a difference of near numbers) turns the last digit of an input into
the fourth one of the result, in whatever order somebody computes. Nobody is to lose points for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from autograde.exercise import Case, Exercise, tolerances
from autograde.judging.comparing import compare, rebuild

_TRIES = 3
_ROUNDINGS = 8  # how many roundings of an input a computation may be worth
_COARSE = 2  # the same where these are large already
_MOST = 0.01  # of the largest number: what moves further jumps, as at a tie, and the edge itself is what is asked


def within_rounding(
    exercise: Exercise, one: Case, expected: Any, got: Any, kind: str, answer: Callable[[Exercise, Case], Any]
) -> bool:
    """Whether `got`, which the comparison refuses, is as near to `expected` as rounding lets one come.

    kind: of the difference that the comparison has found first.

    answer: gives the right answer of a case. It is asked again for inputs that are moved by one rounding. What is a
    whole number gets no allowance, nor does anything where few digits may only be lost at the end.
    """
    if kind != "value" or one.ranks or (exercise.precise and one.slack):
        return False
    how = tolerances(exercise, one)
    apart = not isinstance(expected, (list, tuple, dict))  # of a container some items may be right
    if not _near(got, expected, [], 0, how, apart):  # so far off that nothing will help: most wrong results are
        return False
    generator = torch.Generator().manual_seed(0)
    moved = [answer(exercise, _moved(one, generator)) for _ in range(_TRIES)]
    return _near(got, expected, moved, _COARSE if one.slack else _ROUNDINGS, how, apart)


def _near(got: Any, right: Any, moved: Sequence, roundings: int, how: dict[str, Any], apart: bool = False) -> bool:
    """Whether `got` is as near to `right` as to what it becomes when the inputs move, and else as `how` has it.

    With nothing in `moved`, whether it is near enough for any move. `apart`: the comparison has refused it already.
    """
    if isinstance(right, (list, tuple, dict)):
        parts = [_parts(value) for value in (got, right, *moved)]
        if any(keys != parts[1][0] for keys, _ in parts):
            return False
        items = zip(*[values for _, values in parts], strict=True)
        return all(_near(mine, yours, others, roundings, how) for mine, yours, *others in items)
    if not apart and compare(right, got, **how) is None:
        return True
    numbers = [torch.as_tensor(x, dtype=torch.float64) for x in (got, right, *moved) if _is_floating(x)]
    if len(numbers) < 2 + len(moved) or len({x.shape for x in numbers}) > 1:
        return False
    mine, yours, *others = numbers
    allowed = torch.tensor(_MOST * float(yours.abs().nan_to_num(0.0, 0.0).max()) if yours.numel() else 0.0)
    if others:
        moves = torch.stack([(other - yours).abs().nan_to_num(0.0, 0.0) for other in others]).amax(0)
        allowed = (moves * roundings).clamp(max=float(allowed))
    near = (mine - yours).abs() <= how["atol"] + how["rtol"] * yours.abs() + allowed
    return bool(((mine == yours) | near & yours.isfinite()).all())  # nothing is near an infinity


def _parts(value: Any) -> tuple[Any, list]:
    """The keys (or how many there are) and the items of a container; of anything else nothing."""
    if isinstance(value, dict):
        return set(value), [value[key] for key in sorted(value, key=repr)]
    return (len(value), list(value)) if isinstance(value, (list, tuple)) else (None, [])


def _is_floating(x: Any) -> bool:
    return x.is_floating_point() if isinstance(x, torch.Tensor) else isinstance(x, float)


def _moved(one: Case, generator: torch.Generator) -> Case:
    """The case with every number of its floating-point tensors moved by a last digit, up or down."""

    def change(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x
        sign = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
        return (x.double() * (1 + sign * torch.finfo(x.dtype).eps)).to(x.dtype)

    return replace(one, args=rebuild(one.args, change), kwargs=rebuild(one.kwargs, change))
