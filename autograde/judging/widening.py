"""Cases that nobody has to write: the first ones in other dtypes, and one whose tensors aren't contiguous.

They come after the author's own, so that a learner meets these first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from autograde.judging.comparing import rebuild, tensors

_CAST = 2  # cases that are drawn in every further dtype
_TRAINED = 3  # cases on which gradients are compared, beside those that take another branch


def widened(cases: Sequence, dtypes: Sequence[torch.dtype], strides: bool, untrained: bool) -> list:
    """The cases, those on which gradients are compared marked as such, and after them the ones made from them.

    cases: of `autograde.exercise.Case`. dtypes: the first cases with float32 tensors are repeated in each of them.
    strides: whether one is repeated with tensors that aren't contiguous, if there is none yet. untrained: nothing is
    trained through the exercise, so that no case is marked.
    """
    floating = [i for i, one in enumerate(cases) if _held(one) and _is_floating(one, torch.float32)]
    compared, wild = (set(), set()) if untrained else (set(_compared(cases, floating)), _wildest(cases, floating))
    found = [replace(one, trained=i in compared | wild, wild=i in wild - compared) for i, one in enumerate(cases)]
    for dtype in dtypes:
        found += [_cast(cases[i], dtype) for i in floating[:_CAST]]
    return found + list(_scattered(cases) if strides else ())


def _compared(cases: Sequence, floating: Sequence[int]) -> Iterator[int]:
    """The first cases, and each that passes what none before it did: a gradient may be cut in one branch alone."""
    seen = set()
    for place, i in enumerate(floating):
        turned_on = _turned_on(cases[i])
        if place < _TRAINED or turned_on - seen:
            yield i
        seen |= turned_on


def _wildest(cases: Sequence, floating: Sequence[int]) -> set[int]:
    """The case with the largest numbers: there something may overflow on the way back only."""
    return {max(floating, key=lambda i: max(map(_largest, _held(cases[i]))))} if floating else set()


def _turned_on(one) -> set[tuple]:
    """Which arguments a case passes: numbers without their values, but for 0 and 1, where a formula may divide by 0."""
    given = [*enumerate(one.args), *one.kwargs.items()]
    return {(name, value if _is_told(value) else "") for name, value in given}


def _is_told(value) -> bool:
    return value is None or isinstance(value, bool | str) or (isinstance(value, int | float) and value in (0, 1))


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().nan_to_num(0.0, posinf=0.0).max()) if x.is_floating_point() and x.numel() else 0.0


def _held(one) -> list[torch.Tensor]:
    return list(tensors([list(one.args), one.kwargs]))


def _is_floating(one, dtype: torch.dtype) -> bool:
    """Whether all its floating-point tensors, of which there is one at least, have this dtype."""
    return {x.dtype for x in _held(one) if x.is_floating_point()} == {dtype}


def _cast(one, dtype: torch.dtype):
    def change(x: torch.Tensor) -> torch.Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    name = str(dtype).removeprefix("torch.")
    return _changed(one, change, name)


def _scattered(cases: Sequence) -> Iterator:
    """The first case with a matrix in it, every tensor laid out another way in memory; none if there is one already."""
    if any(not x.is_contiguous() for one in cases for x in _held(one)):
        return
    matrices = [one for one in cases if any(x.dim() > 1 and min(x.shape[-2:]) > 1 for x in _held(one))]
    yield from (_changed(one, _apart, "not contiguous") for one in matrices[:1])


def _apart(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, the last two dimensions swapped in memory; of a vector, every second place of a longer one."""
    if x.dim() > 1:
        return x.mT.contiguous().mT
    return torch.stack([x, x], -1)[..., 0] if x.dim() else x


def _changed(one, change, label: str):
    args, kwargs = rebuild(one.args, change), rebuild(one.kwargs, change)
    return replace(one, args=args, kwargs=kwargs, made=True, label=f"{label}: {one.label}" if one.label else label)
