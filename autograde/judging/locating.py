"""On which cases a solution is wrong: what tells them from the others, or their labels.

The last resort of a diagnosis, and always true: it says where to look, not what is wrong there.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from autograde.exercise import Case, Exercise
from autograde.judging.diagnosing import Diagnosis, Tried, is_most

_FEW = 4  # labels that are told
_EVERY_ERROR = "Your code ends in an error, whatever the input."
_SOME_ERRORS = "Your code ends in an error on some inputs, and is right on the others."
_ON_RANKS = "Your code ends in an error in at least one case on {}."
_MIXED = "Your code ends in an error on some inputs, and is wrong on others."
_ERRORS = "Your code ends in an error on most inputs, and is wrong on others."
_RIGHT_BUT = {
    False: "Your result is right but for a few cases",
    True: "Your code ends in an error on a few cases, and is right on the others",
}
_ONLY_RIGHT = "Your result is right on a few cases alone"
_WHERE = {
    False: "Your result is wrong wherever {}, and right elsewhere.",
    True: "Your code ends in an error wherever {}, and is right elsewhere.",
}
_DEFAULT = (
    "Your result is right wherever the caller gives `{}`, and wrong on most inputs where it is left out: "
    "is your default the one that is asked for?"
)
_ONE_LAW = "Of all properties that are checked, one alone doesn't hold: {}."


def located(exercise: Exercise, tried: Tried, broken: Sequence[str]) -> Diagnosis | None:
    """What the wrong cases have in common, or which they are, or the only law that is broken (of names in `broken`)."""
    errors = [i for i in tried.wrong if tried.got[i].failure]
    if worlds := _of_launches(tried):
        return Diagnosis(_ON_RANKS.format(" and on ".join(f"{world} ranks" for world in worlds)))
    if len(errors) == len(tried.cases):
        return Diagnosis(_EVERY_ERROR)
    fails = len(errors) == len(tried.wrong)
    if told := _trait(exercise, tried):
        return Diagnosis(_WHERE[fails].format(told))
    wrong, right = _labels(tried, tried.wrong), _labels(tried, sorted({*range(len(tried.cases))} - {*tried.wrong}))
    if wrong and len(wrong) <= _FEW and not set(wrong) & set(right) and 2 * len(tried.wrong) < len(tried.cases):
        return _listed(_RIGHT_BUT[fails], wrong)
    if fails:
        return Diagnosis(_SOME_ERRORS)
    if 2 * len(errors) > len(tried.cases):
        return Diagnosis(_ERRORS)
    if len(broken) == 1 and len(exercise.laws) > 1:
        return Diagnosis(_ONE_LAW.format(broken[0]))
    return None


def at_default(exercise: Exercise, tried: Tried) -> Diagnosis | None:
    """The argument whose default seems to be another one: all is right where the caller gives it."""
    if exercise.oracle is None or _of_launches(tried):
        return None
    parameters = list(inspect.signature(exercise.oracle).parameters.values())
    for at, parameter in enumerate(parameters):
        if type(parameter.default) not in (int, float):  # None and the truth values are modes of their own
            continue
        given = {i for i, one in enumerate(tried.cases) if len(one.args) > at or parameter.name in one.kwargs}
        left = len(tried.cases) - len(given)
        if len(given) > 1 and len(tried.wrong) > 1 and not given & {*tried.wrong} and is_most(len(tried.wrong), left):
            return Diagnosis(_DEFAULT.format(parameter.name))
    return None


def elsewhere(tried: Tried) -> Diagnosis | None:
    """The few cases that come out right; else that there are errors and wrong results, where there are both."""
    wrong, right = _labels(tried, tried.wrong), _labels(tried, sorted({*range(len(tried.cases))} - {*tried.wrong}))
    if right and len(right) <= _FEW and not _of_launches(tried) and not set(wrong) & set(right):
        return _listed(_ONLY_RIGHT, right)
    return Diagnosis(_MIXED) if {bool(tried.got[i].failure) for i in tried.wrong} == {True, False} else None


def _of_launches(tried: Tried) -> list[int]:
    """With how many ranks a launch failed as a whole, so that one outcome stands for cases that may not have failed.

    One that got stuck stands for larger numbers of ranks, too, which were never tried.
    """
    worlds: dict[int, list[int]] = {}
    for i in tried.wrong:
        if tried.got[i].failure and tried.cases[i].ranks:
            worlds.setdefault(id(tried.got[i]), []).append(tried.cases[i].ranks)
    return sorted({min(each) for each in worlds.values()}) if any(len(each) > 1 for each in worlds.values()) else []


def _listed(says: str, labels: Sequence[str]) -> Diagnosis:
    return Diagnosis(f"{says}.", shown=f"{says}: {'; '.join(labels)}.")


def _labels(tried: Tried, some: Any) -> list[str]:
    labels = [tried.cases[i].label for i in some]
    return list(dict.fromkeys(f"`{label}`" for label in labels)) if all(labels) else []


def _trait(exercise: Exercise, tried: Tried) -> str:
    """What all wrong cases have and no right one, or the reverse; empty where there is nothing such."""
    judged = [i for i, one in enumerate(tried.cases) if not one.slack] if _any_exact(tried) else range(len(tried.cases))
    wrong = [i for i in judged if i in set(tried.wrong)]
    if len(wrong) < 2 or len(judged) - len(wrong) < 2:
        return ""
    traits = {i: _traits(exercise, tried.cases[i]) for i in judged}
    every = list(dict.fromkeys(trait for i in judged for trait in traits[i]))
    for trait in sorted(every, key=_how_plain):
        has = [i for i in judged if trait in traits[i]]
        if has == wrong:
            return trait
        if sorted({*judged} - {*has}) == wrong:
            return _reverse(trait)
    return ""


def _any_exact(tried: Tried) -> bool:
    return any(not tried.cases[i].slack for i in tried.wrong)


def _how_plain(trait: str) -> int:
    if trait.endswith(" is None"):
        return 0
    return 2 if any(word in trait for word in (" above ", " below ", " same as ")) else 1


def _reverse(trait: str) -> str:
    return trait.replace(" is ", " isn't ", 1).replace(" has ", " doesn't have ", 1)


def _traits(exercise: Exercise, one: Case) -> list[str]:
    """What can be said of a case's arguments, the plainest first."""
    function = exercise.oracle or exercise.probe
    given: dict[str, Any] = {}
    if function is not None:
        parameters = list(inspect.signature(function).parameters.values())
        skip = 0 if exercise.oracle else 1
        given = {p.name: p.default for p in parameters[skip:] if p.default is not p.empty}
        given |= dict(zip([p.name for p in parameters[skip:]], one.args, strict=False))
    told = [f"`{name}` is given by the caller" for name in one.kwargs] + [
        f"`{name}` is given by the caller" for name in list(given)[: len(one.args)]
    ]
    given |= one.kwargs
    if one.ranks:
        given["the number of ranks"] = one.ranks
    for name, value in given.items():
        told += [f"{name if ' ' in name else f'`{name}`'} {what}" for what in _of_value(value)]
    return told + list(_compared(given))


def _of_value(value: Any) -> Iterator[str]:
    if value is None:
        yield "is None"
    elif isinstance(value, bool):
        yield f"is {value}"
    elif isinstance(value, (int, float)):
        yield from _of_number(value)
    elif isinstance(value, str):
        yield from _of_text(value)
    elif isinstance(value, torch.Tensor):
        yield from _of_tensor(value)
    elif isinstance(value, (list, tuple, dict)):
        yield from _of_list(value)


def _of_number(value: float) -> Iterator[str]:
    tests = {
        "is 0": value == 0,
        "is 1": value == 1,
        "is below 0": value < 0,
        "is above 1": value > 1,
        "is a whole number": value == int(value) if abs(value) < 1e18 else False,
        "is odd": isinstance(value, int) and value % 2 == 1,
    }
    yield from (text for text, holds in tests.items() if holds)


def _of_text(value: str) -> Iterator[str]:
    if value.isidentifier() and len(value) < 20:
        yield f'is "{value}"'
    tests = {
        "is empty": not value,
        "has several lines": "\n" in value,
        "has letters beyond ASCII": not value.isascii(),
        "has capitals": value != value.lower(),
        "has white space at an end": value != value.strip(),
    }
    yield from (text for text, holds in tests.items() if holds)


def _of_tensor(value: torch.Tensor) -> Iterator[str]:
    tests = {
        "is empty": not value.numel(),
        "is float64": value.dtype is torch.float64,
        "is float32": value.dtype is torch.float32,
        "is of whole numbers": not value.is_floating_point() and value.dtype is not torch.bool,
        "is not contiguous": not value.is_contiguous(),
        **{f"has {n} dimension{'s' * (n != 1)}": value.dim() == n for n in range(5)},
        **{f"has size 1 along dimension {d}": value.dim() >= -d and value.shape[d] == 1 for d in (-1, -2, -3)},
        "has size 1 along its first dimension": value.dim() > 0 and value.shape[0] == 1,
    }
    yield from (text for text, holds in tests.items() if holds)
    if value.numel() and not value.is_complex():
        yield from _of_numbers(value)


def _of_numbers(value: torch.Tensor) -> Iterator[str]:
    if value.dtype is torch.bool:
        tests = {"is True everywhere": value.all(), "is False everywhere": not value.any()}
        if value.dim():
            tests["has a row without True"] = not value.any(-1).all()
    else:
        finite = value[value.isfinite()]
        tests = {
            "has infinite numbers": value.isinf().any(),
            "has NaN": value.isnan().any(),
            "has numbers below 0": (value < 0).any(),
            "has numbers beyond 100": finite.numel() > 0 and (finite.abs() > 100).any(),
            "has -100 in it": (value == -100).any(),
            "has a 0 in it": (value == 0).any(),
            "has the same number twice": value.numel() < 10_000 and len(value.unique()) < value.numel(),
            "has one number throughout": value.numel() > 1 and (value == value.flatten()[0]).all(),
        }
    yield from (text for text, holds in tests.items() if holds)


def _of_list(value: Any) -> Iterator[str]:
    items = list(value.values()) if isinstance(value, dict) else list(value)
    sized = [item for item in items if isinstance(item, (list, tuple, dict, str))]
    tests = {
        "is empty": not items,
        "has one item": len(items) == 1,
        "has several items": len(items) > 1,
        "has an empty item": any(not item for item in sized),
        "has items of different sizes": len({len(item) for item in sized}) > 1,
        "has the same item twice": len({repr(item) for item in items}) < len(items),
    }
    yield from (text for text, holds in tests.items() if holds)


def _compared(given: dict[str, Any]) -> Iterator[str]:
    """Which of two arguments is larger: whole numbers, and lengths."""
    sizes: dict[str, int] = {}
    for name, value in given.items():
        if isinstance(value, int) and not isinstance(value, bool):
            sizes[f"`{name}`"] = value
        elif isinstance(value, torch.Tensor) and value.dim():
            sizes |= {f"dimension {d} of `{name}`": value.shape[d] for d in range(-min(value.dim(), 3), 0)}
        elif isinstance(value, (list, tuple, str)):
            sizes[f"the length of `{name}`"] = len(value)
    for (a, x), (b, y) in itertools.combinations(sizes.items(), 2):
        if x > y:
            yield f"{a} is above {b}"
        elif x < y:
            yield f"{a} is below {b}"
        else:
            yield f"{a} is the same as {b}"
