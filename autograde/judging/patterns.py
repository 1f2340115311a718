"""What can be said about a wrong result without knowing the exercise: a sign, an order, an argument without influence.

Each pattern has to hold on every case that fails.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from autograde.exercise import Case, Exercise
from autograde.judging.calls import Outcome
from autograde.judging.comparing import KINDS, compare, describe, tensors
from autograde.judging.diagnosing import Diagnosis, Tried, alike, is_all_nan, is_most
from autograde.judging.running import Local

_TRIES = 3  # cases on which an argument is changed, to see whether the result follows
_WRITES_INTO, _COPY = "Your function writes into its input", "work on a copy."
_WRITES = Diagnosis(f"{_WRITES_INTO}: {_COPY}")
_HANDS_BACK = Diagnosis(
    f"Your function hands its input back, or writes into it, where a new object is asked for: {_COPY}"
)
_OTHER_ERROR = Diagnosis("Where an error is asked for, your code fails in another way.")
_NO_ERROR = Diagnosis("Where an error is asked for, none is raised.")
_ERROR = Diagnosis("An error is raised where a result is asked for.")
_NONE = Diagnosis("Your function returns None: is a `return` missing?")
_ASKED = "where a torch.Tensor is asked for."
_SOME_ERROR = Diagnosis("On some inputs an error is raised where a result is asked for.")
_NO_TENSOR = Diagnosis(f"Your function returns something else, {_ASKED}")
_SIGN = Diagnosis("Every number has the right size and the wrong sign.")
_TRANSPOSE = Diagnosis("Your result is the transpose of the right one: the last two dimensions are swapped.")
_SHAPE = Diagnosis("The numbers are right and the shape is not.")
_FACTOR = Diagnosis("Every number is the same multiple of the right one.")
_FIRST_CALL = Diagnosis("Only the first call is right: does something stay from it, or hang on its sizes?")
CUT_OFF = Diagnosis(
    "The result is right, but cut off from the graph, so that nothing can be learned through it.",
    "What leads away from autograd: torch.no_grad, .detach(), .data, .item(), .numpy(), a new torch.tensor(…).",
)
NAN_GRADIENTS = Diagnosis(
    "The result is right, but learning through it goes wrong: some gradients are NaN or infinite.",
    "Zero times infinity is NaN: a division by 0 that is masked later, an exp that overflows on the way.",
)
OTHER_GRADIENTS = Diagnosis("The result is right, but learning through it goes wrong: its gradients differ.")


def generic(exercise: Exercise, tried: Tried, expected: Sequence) -> Diagnosis | None:
    """The first pattern that all wrong results show, or None. `expected` holds the right answer of every case."""
    changed = {tried.got[i].changed for i in tried.wrong}
    changed_or_shared = [tried.got[i].changed or exercise.fresh and tried.got[i].shared for i in tried.wrong]
    if changed and all(changed):
        return replace(_WRITES, shown=f"{_WRITES_INTO} ({', '.join(min(changed))}): {_COPY}")
    if changed_or_shared and all(changed_or_shared):
        return _HANDS_BACK
    refused = _refusals(tried, expected)
    if refused:
        return refused
    wrong = comparable(exercise, tried, expected)
    if not wrong or any(e is None for _, e in wrong):
        return None
    if all(g is None for g, _ in wrong):
        return _NONE
    asked_for_tensors = all(isinstance(e, torch.Tensor) for _, e in wrong)
    wrong = [(g, e) if isinstance(e, torch.Tensor) else (_as_tensor(g), _as_tensor(e)) for g, e in wrong]
    if not all(isinstance(e, torch.Tensor) for _, e in wrong):
        return None
    other = [g for g, _ in wrong if not isinstance(g, torch.Tensor)]
    if other and not asked_for_tensors:
        return None
    if any(_error_name(g) for g in other):
        return _SOME_ERROR
    if other:
        return replace(_NO_TENSOR, shown=f"Your function returns {describe(other[0])}, {_ASKED}")
    if any((mismatch := compare(e, g)) and mismatch.kind == "dtype" for g, e in wrong):
        return None  # complex numbers have no order, whole ones no sign to speak of
    return _tensor_pattern(exercise, wrong)


def comparable(exercise: Exercise, tried: Tried, expected: Sequence) -> list[tuple[Any, Any]]:
    """The wrong results that have a value, each with the right one; without those of few digits, if others are left."""
    numbers = [i for i in tried.wrong if tried.got[i].failure is None]
    numbers = [i for i in numbers if not tried.cases[i].slack] or numbers  # few digits hide a pattern
    wrong = [(tried.got[i].value, expected[i]) for i in numbers]
    return [(g, e) for g, e in wrong if compare(e, g, exercise.rtol, exercise.atol)]


def _refusals(tried: Tried, expected: Sequence) -> Diagnosis | None:
    """What to say where probes tell of an error by its name, and results differ in that."""
    each = [(tried.got[i], expected[i]) for i in tried.wrong]
    wanted = {_error_name(right) for _, right in each}
    given = {_error_name(got.value) for got, _ in each if not got.failure}
    raised = {got.failure.type if got.failure and got.failure.kind == "raised" else "" for got, _ in each}
    if all(raised) and len(raised) == len(wanted) == 1 and all(wanted):
        return _with_error(_OTHER_ERROR, *wanted)
    if any(raised):  # the error itself is told already
        return None
    if len(wanted) == 1 and all(wanted) and given == {""}:
        return _with_error(_NO_ERROR, *wanted)
    if wanted == {""} and len(given) == 1 and all(given):
        return _with_error(_ERROR, *given)
    return None


def _error_name(value: Any) -> str:
    """The text itself where it is the name of an error, else an empty one."""
    return value if isinstance(value, str) and value.isidentifier() and value.endswith("Error") else ""


def _with_error(diagnosis: Diagnosis, name: str) -> Diagnosis:
    """A sentence about an error, with its name where that may be told."""
    of_name = f"n {name}" if name[0] in "AEIO" else f" {name}"
    return replace(diagnosis, shown=re.sub(r"\b([Aa])n error\b", rf"\g<1>{of_name}", diagnosis.says))


def wrong_kind(exercise: Exercise, wrong: Sequence[tuple]) -> Diagnosis | None:
    """What to say where no result can even be compared, and all of them for the same reason.

    How they differ stands in the report's line, which a hidden check doesn't show: it may quote what a solution gave.
    """
    kinds = {compare(e, g, exercise.rtol, exercise.atol).kind for g, e in wrong}
    if exercise.agrees or len(kinds) != 1 or kinds == {"value"}:
        return None
    return _other_kind(kinds.pop())


def _other_kind(kind: str) -> Diagnosis:
    return Diagnosis(f"Wherever it is wrong, the {kind} is not what is asked for.")


def _as_tensor(value: Any) -> Any:
    """A list of plain numbers as a tensor, everything else as it is."""
    if isinstance(value, (list, tuple)) and value and all(type(x) in (int, float) for x in value):
        with contextlib.suppress(ValueError, RuntimeError, OverflowError):  # a whole number beyond all floats
            return torch.tensor(value, dtype=torch.float64)
    return value


def _tensor_pattern(exercise: Exercise, wrong: Sequence[tuple]) -> Diagnosis | None:
    def always(change: Callable) -> bool:
        return all(_fits(exercise, change, g, e) for g, e in wrong)

    if always(lambda g: -g):
        return _SIGN
    if always(lambda g: g.transpose(-1, -2)):
        return _TRANSPOSE
    if any(e.shape != g.shape for g, e in wrong):
        if all(e.numel() == g.numel() and _fits(exercise, lambda g, e=e: g.reshape(e.shape), g, e) for g, e in wrong):
            asked, given = tuple(wrong[0][1].shape), tuple(wrong[0][0].shape)
            return replace(_SHAPE, shown=f"{_SHAPE.says[:-1]}: {asked} is asked for, you return {given}.")
        return None
    factors = [_factor(g, e) for g, e in wrong]
    if (
        None not in factors
        and sum(e.numel() for _, e in wrong) > 1
        and max(factors) - min(factors) < 1e-3 * abs(factors[0])
        and always(lambda g: g / factors[0])
    ):
        return replace(_FACTOR, shown=f"Every number is {factors[0]:.4g} times the right one.")
    return next((found for holds, found in _ORDERS if _throughout(exercise, holds, wrong)), None)


def _throughout(exercise: Exercise, holds: Callable, wrong: Sequence[tuple]) -> bool:
    """Whether `holds(result, right, same)` on all wrong results that are large enough to show it, at least one."""

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return compare(b, a, exercise.rtol, exercise.atol) is None

    answers = [holds(g, e, same) for g, e in wrong]
    return True in answers and False not in answers


def _first_for_all(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
    if got.dim() == 0 or len(got) < 2 or all(same(row, right[0]) for row in right):
        return None
    return all(same(row, right[0]) for row in got)


def _moved(by: int, dim: int) -> Callable:
    """Whether everything stands `by` places too far along a dimension, counted from the end."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        n = right.shape[dim] if right.dim() >= -dim else 0
        if n < 3 or len(right.unique()) < 3:
            return None
        late, early = (x.narrow(dim, max(by * sign, 0), n - 1) for x, sign in ((got, 1), (right, -1)))
        return same(late, early)

    return holds


_ORDERS = [
    (
        _first_for_all,
        Diagnosis("Every row of your result is the right first row: the others need numbers of their own."),
    ),
    *(
        (_moved(by, dim), Diagnosis(f"Every number stands one place too {side} along dimension {dim}."))
        for dim, (by, side) in itertools.product((-1, -2), ((1, "late"), (-1, "early")))
    ),
]


def first_alone(tried: Tried, further: Callable[[], Tried]) -> Diagnosis | None:
    """Whether all but the first call is wrong, and of `further()` draws the case that came first is wrong, too."""
    if len(tried.cases) < 4 or list(tried.wrong) != list(range(1, len(tried.cases))):
        return None
    more = further()
    alike_first = [i for i, one in enumerate(more.cases) if one.label == tried.cases[0].label and not one.made]
    return _FIRST_CALL if set(alike_first) <= set(more.wrong) else None


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


def without_influence(
    exercise: Exercise, tried: Tried, expected: Sequence, running: Local, answer: Callable[[Exercise, Case], Any]
) -> Diagnosis | None:
    """Arguments that the right result follows and this one doesn't, found by changing one at a time."""
    names = dict.fromkeys(name for one in tried.cases for name in _given(exercise, one))
    changes = {name: _changes(exercise, name, tried, expected, answer) for name in names}
    changed = set()
    for _ in range(_TRIES):  # an argument that is followed once needs no further look
        found = {name: change for name, each in changes.items() if (change := next(each, None))}
        changed |= set(found)
        outcomes = _each(exercise, [other for _, other, _ in found.values()], running)
        for (name, (one, _, got)), outcome in zip(found.items(), outcomes, strict=True):
            if not alike(outcome, got, exercise, one):
                del changes[name]
    ignored = [name for name in changes if name in changed]
    return no_influence(ignored) if ignored else None


def _each(exercise: Exercise, cases: Sequence[Case], running: Local) -> list[Outcome]:
    """One outcome a case, whatever becomes of the others. On ranks a launch for all, unless it fails: each costs."""
    if exercise.ranks and cases:
        outcomes = running.run(cases)
        if len(cases) == 1 or not any(outcome.failure for outcome in outcomes):
            return outcomes
    return [running.run([one])[0] for one in cases]


def no_influence(ignored: Sequence[str]) -> Diagnosis:
    """What to say of arguments that a result does not follow: what was seen, for rounding may hide an influence."""
    told = " or ".join(f"`{name}`" for name in ignored)
    return Diagnosis(f"Where {told} alone changed, your result stayed the same; the right one doesn't.")


def _changes(exercise, name, tried, expected, answer) -> Iterator[tuple[Case, Case, Outcome]]:
    """The first cases in which the right result follows a change of the argument, each with that change.

    After the case comes the changed one, and then what the solution gave without the change.
    """
    for one, got, right in zip(tried.cases, tried.got, expected, strict=True):
        if got.failure or is_all_nan(got.value):
            break
        for other in _with_another(exercise, one, name):
            try:
                moves = not alike(Outcome(answer(exercise, other)), Outcome(right), exercise, one)
            except Exception:  # the argument can't be that
                continue
            if moves:
                yield one, other, got
                break


def _given(exercise: Exercise, one: Case) -> dict[str, Any]:
    parameters = list(inspect.signature(exercise.oracle).parameters)
    return dict(zip(parameters, one.args, strict=False)) | one.kwargs


def _with_another(exercise: Exercise, one: Case, name: str) -> Iterator[Case]:
    """The case with other values of one argument."""
    given = _given(exercise, one)
    for value in _others(given.get(name)):
        if name in one.kwargs:
            yield replace(one, kwargs=one.kwargs | {name: value})
        else:
            at = list(given).index(name)
            yield replace(one, args=(*one.args[:at], value, *one.args[at + 1 :]))


def _others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 2 * value)
    elif isinstance(value, float):
        yield from (1.5 * value + 0.1, value / 2)
    elif isinstance(value, tuple) and all(isinstance(x, float) for x in value):
        yield tuple(x / 2 for x in value)
    elif isinstance(value, torch.Tensor) and value.numel():
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
        if value.is_floating_point():
            yield value + (noise * (1 + value.abs().double().mean())).to(value.dtype)
        else:
            yield ~value if value.dtype is torch.bool else value.flip(-1) if value.dim() else value + 1


def does_nothing(tried: Tried, expected: Sequence) -> Diagnosis | None:
    """Whether every result is an input handed back, its negative or double, or a constant, where that isn't right.

    One that is right on many cases and gives, say, zeros on a few does something; and of no number none is zero.
    """
    if any(g.failure for g in tried.got):
        return None
    every = [(c, g.value) for c, g in zip(tried.cases, tried.got, strict=True)]
    wrong = [i for i, ((_, value), e) in enumerate(zip(every, expected, strict=True)) if compare(e, value) is not None]
    if not any(x.numel() for i in wrong for x in tensors(every[i][1])):
        return None
    for name, (of_input, make) in _TRIVIAL.items():
        trivial = {i for i, (c, value) in enumerate(every) if _is_trivial(of_input, make, c, value)}
        if trivial.issuperset(wrong) and is_most(len(trivial), len(every)):
            return _nothing(name)
    return None


def _nothing(name: str) -> Diagnosis:
    return Diagnosis(f"Your function {name}.")


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


# All that can be said of a result by this module, with no number, name or text of a solution's in it.
SAYINGS = (
    *(_WRITES, _HANDS_BACK, _OTHER_ERROR, _NO_ERROR, _ERROR, _SOME_ERROR),
    *(_NONE, _NO_TENSOR, _SIGN, _TRANSPOSE, _SHAPE, _FACTOR, _FIRST_CALL, CUT_OFF, NAN_GRADIENTS, OTHER_GRADIENTS),
    *(found for _, found in _ORDERS),
    *map(_nothing, _TRIVIAL),
    *(_other_kind(kind) for kind in KINDS if kind != "value"),
)
