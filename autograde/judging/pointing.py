"""Point at what is wrong: the smallest case that fails, its arguments by name, and the first element that differs."""

from __future__ import annotations

import inspect
import itertools
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autograde.exercise import Case, Exercise, PerRank
from autograde.judging.calls import Failure, Outcome
from autograde.judging.comparing import describe, tensors


@dataclass(frozen=True)
class Pointed:
    """A case that fails: its inputs, the names of the positional ones, what is right, what came, and what is wrong.

    `expected` is None where the exercise has no oracle. `on_other_inputs` is the failure of a call that a law made,
    where the results are right.
    """

    exercise: Exercise
    case: Case
    names: tuple[str, ...]
    expected: Any
    outcome: Outcome
    note: str
    on_other_inputs: Failure | None = None

    @property
    def failure(self) -> Failure | None:
        """Why the call gave no value, or one that a law made on other inputs."""
        return self.outcome.failure or self.on_other_inputs

    @property
    def error(self) -> str:
        """The learner's lines and the error, where there was one."""
        return (self.failure.trace or self.failure.message) if self.failure else ""

    def rows(self) -> list[tuple[str, str]]:
        """What a learner needs to see of it, as (what, text) pairs."""
        one, exercise = self.case, self.exercise
        rows = [("case", one.label)] if one.label else []
        if one.ranks:
            rows.append(("ranks", str(one.ranks)))
        rows += [(name, shown(value)) for name, value in zip(self.names, one.args, strict=True)]
        rows += [(name, shown(value)) for name, value in one.kwargs.items()]
        if exercise.oracle is not None:
            rows.append(("expected", shown(self.expected)))
        if self.outcome.failure is None:
            value = list(self.outcome.value) if one.ranks else self.outcome.value
            rows.append(("got", shown(value)))
            if exercise.oracle is not None and not exercise.agrees:
                within = max(exercise.rtol, one.slack), max(exercise.atol, one.slack)
                first = first_wrong(self.expected, self.outcome.value, *within)
                rows += [("first wrong", first)] * bool(first)
            rows += [("so", self.note)] * (self.note != getattr(self.failure, "message", ""))
        return rows


def smallest(cases: Sequence[Case], notes: Sequence[str], got: Sequence[Outcome]) -> int | None:
    """Which failing case has the fewest numbers. One for which there was no time is none that fails."""
    failing = [i for i, note in enumerate(notes) if note and (got[i].failure is None or got[i].failure.trace)]
    failing = failing or [i for i, note in enumerate(notes) if note and got[i].failure.kind != "not tried"]
    return min(failing, key=lambda i: _size(cases[i]), default=None)


def _size(one: Case) -> int:
    return sum(x.numel() for x in tensors([list(one.args), one.kwargs]))


def argument_names(exercise: Exercise, implementation: Callable | None, one: Case) -> tuple[str, ...]:
    """The names of a case's positional arguments: the learner's own, else the oracle's, else "input 1" and so on.

    Where a probe calls the learner's object, the inputs are the probe's, and so are the names.
    """
    skip = 1 if exercise.probe else 0
    for function in [exercise.probe] if exercise.probe else [implementation, exercise.oracle]:
        try:
            signature = inspect.signature(function)
            signature.bind(*[None] * skip, *one.args, **one.kwargs)
        except (TypeError, ValueError):
            continue
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in signature.parameters.values() if p.kind in plain][skip : skip + len(one.args)]
        if len(names) == len(one.args):
            return tuple(names)
    return tuple(f"input {k + 1}" for k in range(len(one.args)))


def first_wrong(expected: Any, got: Any, rtol: float, atol: float, where: str = "") -> str:
    """The first place that differs, "[0, 2]: 0.31 instead of 0.29"; empty where shapes or types differ, or nothing."""
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)) and len(expected) == len(got):
        part = "rank" if isinstance(got, PerRank) else "item"
        pairs = [(f"{part} {i}", e, g) for i, (e, g) in enumerate(zip(expected, got, strict=True))]
    elif isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        pairs = [(repr(key), e, got[key]) for key, e in expected.items()]
    else:
        return _first_element(expected, got, rtol, atol, where)
    found = (first_wrong(e, g, rtol, atol, f"{where}{name}, ") for name, e, g in pairs)
    return next(filter(None, found), "")


def _first_element(expected: Any, got: Any, rtol: float, atol: float, where: str) -> str:
    if not all(isinstance(x, (torch.Tensor, numbers.Number)) for x in (expected, got)):
        return ""
    try:
        e, g = (torch.as_tensor(x).detach().cpu() for x in (expected, got))
    except (ValueError, RuntimeError, OverflowError):  # a whole number beyond torch's
        return ""
    if e.shape != g.shape or e.is_complex() or g.is_complex():
        return ""
    if not e.is_floating_point():
        rtol = atol = 0.0  # whole numbers agree with themselves alone
    e, g = e.double(), g.double()
    if g.numel() > 1 and g.isnan().all() and not e.isnan().all():
        return f"{where}all {g.numel()} values are NaN"
    places = (~torch.isclose(g, e, rtol=rtol, atol=atol)).nonzero()
    if not len(places):
        return ""
    at = tuple(places[0].tolist())
    right, wrong = float(e[at]), float(g[at])
    digits = next((n for n in (4, 8) if f"{right:.{n}g}" != f"{wrong:.{n}g}"), 17)
    place = f"{where}{list(at)}" if at else where.removesuffix(", ")
    return f"{place}: {wrong:.{digits}g} instead of {right:.{digits}g}".removeprefix(": ")


def shown(value: Any) -> str:
    """A value for a reader: what it is, and its first numbers."""
    if isinstance(value, torch.Tensor) and value.numel():
        numbers_ = value.detach().reshape(-1)[:6].tolist()
        head = ", ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in numbers_)
        return f"{describe(value)}: [{head}{', …' if value.numel() > 6 else ''}]"
    if isinstance(value, (list, tuple, dict)) and any(True for _ in tensors(value)):
        named = isinstance(value, dict)
        pairs = itertools.islice(value.items() if named else enumerate(value), 4)
        rows = [_row(f"{name}: " if named or isinstance(item, dict) else "", item) for name, item in pairs]
        return "\n".join([f"{describe(value)}:", *rows, *["…"] * (len(value) > 4)])
    if isinstance(value, (str, list, tuple, dict, int, float, bool)) or value is None:
        text = repr(value)
        return text if len(text) <= 300 else text[:300] + "…"
    return describe(value)


def _row(label: str, item: Any) -> str:
    """One item of a list or dict; what it holds itself stands under it, farther to the right."""
    first, *more = shown(item).split("\n")
    head = label.rstrip() if more and isinstance(item, dict) else label + first
    return "\n".join([head, *("  " + line for line in more)])
