"""Whether a wrong result is the right answer to another question: for an argument that is one larger, or sorted …

Only the oracle is asked, so that this needs no list of an exercise's mistakes.
"""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from autograde.exercise import Case, Exercise
from autograde.judging.calls import Outcome
from autograde.judging.comparing import compare, rebuild, weight
from autograde.judging.diagnosing import Diagnosis, Tried, alike, is_all_nan
from autograde.judging.limits import left

_SIZE = 12  # how much has to be in the results of all wrong cases: less agrees by chance
_MOST = 4  # times an argument that is a whole number
_SECONDS = 0.5  # for all questions together: some oracles simulate a good deal
_OPENING = "Wherever your result is wrong, it is the right one"
_NOTHING = object()


def instead(
    exercise: Exercise,
    tried: Tried,
    expected: Sequence,
    further: Callable[[], Tried],
    answer: Callable[[Exercise, Case], Any],
) -> Diagnosis | None:
    """The change of one argument for which all wrong results would be right, on `further()` draws as well."""
    wrong = [i for i in tried.wrong if tried.got[i].failure is None and not tried.cases[i].slack]
    known = {i: _information(tried.got[i].value, expected[i]) for i in wrong}
    if not _is_enough(known, wrong):
        return None
    wrong.sort(key=lambda i: weight([list(tried.cases[i].args), tried.cases[i].kwargs]))
    if any(is_all_nan(tried.got[i].value) for i in wrong):
        return None
    end = time.monotonic() + _SECONDS
    for says, change in _changes(exercise, tried):
        if not left() or time.monotonic() > end:
            return None
        if _explains(exercise, tried, known, change, answer) and _holds_on(exercise, further(), change, answer):
            return Diagnosis(f"{_OPENING} {says}.")
    return None


def _is_enough(known: dict[int, int], some: Sequence[int]) -> bool:
    return len(some) > 1 and sum(known[i] for i in some) >= _SIZE


def _information(value: Any, right: Any) -> int:
    """How much it says that a value is another answer: a truth value little, a number with a fraction more.

    Parts of it that are right say nothing.
    """
    if isinstance(value, (list, tuple)):
        others = right if isinstance(right, (list, tuple)) and len(right) == len(value) else [_NOTHING] * len(value)
        return sum(map(_information, value, others))
    if isinstance(value, dict):
        others = right if isinstance(right, dict) else {}
        return sum(_information(part, others.get(key, _NOTHING)) for key, part in value.items())
    if right is not _NOTHING and compare(right, value) is None:
        return 0
    floating = isinstance(value, float) or (isinstance(value, torch.Tensor) and value.is_floating_point())
    return weight(value) * (4 if floating else 1)


def _explains(exercise: Exercise, tried: Tried, known: dict[int, int], change: Callable, answer: Callable) -> bool:
    """Whether all wrong results that there is another right answer for are that answer, and enough of them."""
    wrong, explained = list(known), []
    for i in wrong:
        verdict = _answers(exercise, tried, i, change, answer)
        if verdict is False:
            return False
        explained += [i] * bool(verdict)
    return 3 * len(explained) > 2 * len(wrong) and _is_enough(known, explained)


def _holds_on(exercise: Exercise, more: Tried, change: Callable, answer: Callable) -> bool:
    wrong = [i for i in more.wrong if more.got[i].failure is None and not more.cases[i].slack]
    return not any(_answers(exercise, more, i, change, answer) is False for i in wrong)


def _answers(exercise: Exercise, tried: Tried, i: int, change: Callable, answer: Callable) -> bool | None:
    """Whether a wrong result is the right one for the changed case; None where there is no answer to that."""
    try:
        other = change(tried.cases[i])
        right = None if other is None else answer(exercise, other)
    except Exception:  # the arguments can't be that
        return None
    return None if other is None else alike(tried.got[i], Outcome(right), exercise, tried.cases[i])


def _changes(exercise: Exercise, tried: Tried) -> Iterator[tuple[str, Callable[[Case], Case | None]]]:
    signature = inspect.signature(exercise.oracle)
    names = list(signature.parameters)
    for name in names:
        default = signature.parameters[name].default
        if default is not inspect.Parameter.empty:
            yield _FOR.format(name, _DEFAULT), _changing(names, name, lambda value, default=default: default)
        for words, change in _CHANGES.items():
            yield _FOR.format(name, words), _changing(names, name, change)
    for a, b in itertools.combinations(names, 2):
        yield _SWAPPED.format(a, b), _swapping(names, a, b)
    yield _FEW_DIGITS, _coarse


def _bound(names: Sequence[str], one: Case) -> dict[str, Any]:
    return dict(zip(names, one.args, strict=False)) | one.kwargs


def _with(names: Sequence[str], one: Case, given: dict[str, Any]) -> Case:
    args = tuple(given[name] for name in names[: len(one.args)])
    return replace(one, args=args, kwargs={key: value for key, value in given.items() if key not in names[: len(args)]})


def _changing(names: Sequence[str], name: str, change: Callable) -> Callable[[Case], Case | None]:
    def changed(one: Case) -> Case | None:
        given = _bound(names, one)
        if name not in given:
            return None
        value = change(given[name])
        return None if value is _NOTHING else _with(names, one, given | {name: value})

    return changed


def _swapping(names: Sequence[str], a: str, b: str) -> Callable[[Case], Case | None]:
    def swapped(one: Case) -> Case | None:
        given = _bound(names, one)
        if a not in given or b not in given or type(given[a]) is not type(given[b]):
            return None
        if isinstance(given[a], int) and max(given[a], given[b]) > _MOST * max(min(given[a], given[b]), 1):
            return None  # a million in the place of a few: the oracle would work for hours
        return _with(names, one, given | {a: given[b], b: given[a]})

    return swapped


def _coarse(one: Case) -> Case | None:
    """The case with floating-point numbers of few digits."""

    def coarse(x: torch.Tensor) -> torch.Tensor:
        return x.bfloat16().to(x.dtype) if x.is_floating_point() else x

    return replace(one, args=rebuild(one.args, coarse), kwargs=rebuild(one.kwargs, coarse))


def _of(kind: type | tuple, change: Callable) -> Callable:
    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else _NOTHING

    return changed


def _of_tensors(change: Callable, least: int = 0, floating: bool | None = None) -> Callable:
    """The change of a tensor of at least so many dimensions; of floating-point (or whole) numbers only."""

    def changed(value: Any) -> Any:
        fits = isinstance(value, torch.Tensor) and value.dim() >= least and value.numel() > 0
        if not fits or value.dtype is torch.bool or (floating is not None and value.is_floating_point() != floating):
            return _NOTHING
        return change(value)

    return changed


def _of_truths(change: Callable) -> Callable:
    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, torch.Tensor) and value.dtype is torch.bool else _NOTHING

    return changed


def _of_items(change: Callable) -> Callable:
    """The change of a list or a text of two items or more."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, (list, str, tuple)) and len(value) > 1 else _NOTHING

    return changed


def _of_lists(change: Callable) -> Callable:
    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, list) and len(value) > 1 else _NOTHING

    return changed


def _lower(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower()
    if isinstance(value, (list, tuple)):
        return type(value)(_lower(item) for item in value)
    return value


_FOR = "for `{}` {}"
_DEFAULT = "at its default"
_SWAPPED = "for `{}` and `{}` exchanged"
_FEW_DIGITS = "for inputs of few digits (as in bfloat16)"
_CHANGES = {
    "one larger": _of(int, lambda x: x + 1),
    "one smaller": _of(int, lambda x: x - 1),
    "two larger": _of(int, lambda x: x + 2),
    "two smaller": _of(int, lambda x: x - 2),
    "twice as large": _of((int, float), lambda x: 2 * x),
    "half as large": _of((int, float), lambda x: x // 2 if isinstance(x, int) else x / 2),
    "0": _of((int, float), lambda x: 0 * x),
    "1": _of((int, float), lambda x: 0 * x + 1),
    "of the other sign": _of((int, float), lambda x: -x),
    "squared": _of(float, lambda x: x * x),
    "under a root": _of(float, lambda x: x**0.5),
    "1 divided by it": _of(float, lambda x: 1 / x),
    "1 minus it": _of(float, lambda x: 1 - x),
    "the other truth value": _of(bool, lambda x: not x),
    "None": lambda value: _NOTHING if value is None else None,
    "inverted (True for False)": _of_truths(lambda x: ~x),
    "True everywhere": _of_truths(torch.ones_like),
    "False everywhere": _of_truths(torch.zeros_like),
    "transposed": _of_tensors(lambda x: x.mT, 2),
    "negated": _of_tensors(lambda x: -x, floating=True),
    "without its signs": _of_tensors(lambda x: x.abs(), floating=True),
    "in reverse order along its last dimension": _of_tensors(lambda x: x.flip(-1), 1),
    "in reverse order along its first dimension": _of_tensors(lambda x: x.flip(0), 2),
    "sorted": lambda value: _sorted(value),
    "one larger everywhere": _of_tensors(lambda x: x + 1),
    "one smaller everywhere": _of_tensors(lambda x: x - 1),
    "twice as large everywhere": _of_tensors(lambda x: 2 * x, floating=True),
    "moved on by one place": _of_tensors(lambda x: x.roll(1, -1), 1),
    "moved back by one place": _of_tensors(lambda x: x.roll(-1, -1), 1),
    "in its first row alone, for all rows": _of_tensors(lambda x: x[:1].expand_as(x).clone(), 2),
    "in its first matrix alone, for all": _of_tensors(lambda x: x.flatten(0, -3)[:1].expand(x.shape).clone(), 3),
    "zero everywhere": _of_tensors(torch.zeros_like),
    "one everywhere": _of_tensors(torch.ones_like),
    "after a softmax": _of_tensors(lambda x: x.softmax(-1), 1, floating=True),
    "rounded to whole numbers": _of_tensors(torch.round, floating=True),
    "in reverse order": _of_items(lambda x: x[::-1]),
    "without its first item": _of_items(lambda x: x[1:]),
    "without its last item": _of_items(lambda x: x[:-1]),
    "without repeats": _of_lists(lambda x: [item for i, item in enumerate(x) if item not in x[:i]]),
    "its first item alone": _of_lists(lambda x: x[:1]),
    "its last item alone": _of_lists(lambda x: x[-1:]),
    "in small letters": lambda value: _lower(value) if isinstance(value, (str, list)) else _NOTHING,
    "stripped of white space": _of(str, str.strip),
    "empty": lambda value: type(value)() if isinstance(value, (str, list)) else _NOTHING,
}


def _sorted(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        return value.sort(-1).values
    return sorted(value) if isinstance(value, list) else _NOTHING
