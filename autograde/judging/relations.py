"""How wrong results relate to the right ones, whatever the exercise: a factor, an order, a part, a place.

Each sentence is an observation that holds on every wrong result that has a value. No number, text or type that a
solution chose stands in it; and of hidden inputs it isn't told at all (see `grading.OBSERVED`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from autograde.exercise import Exercise
from autograde.judging.comparing import compare
from autograde.judging.diagnosing import Diagnosis
from autograde.judging.magnitudes import (
    LEANINGS,
    LEAST,
    NUMBERS,
    OFF_BY_ONE,
    PLACES,
    SPREADS,
    TRUTHS,
    factor_of,
    of_shapes,
)
from autograde.judging.sequences import SEQUENCES, TEXTS, Pairs, first_that, flat, items_of, nesting


def related(exercise: Exercise, wrong: Pairs) -> Diagnosis | None:
    """What all wrong results have in common with the right ones, as a sentence, or None."""
    if not wrong:
        return None

    def same(right: Any, got: Any) -> bool:
        return compare(right, got, exercise.rtol, exercise.atol) is None

    says = ""
    with contextlib.suppress(Exception):  # whatever a solution may give
        says = _relation(wrong, same)
    return Diagnosis(says) if says else None


def on_ranks(exercise: Exercise, wrong: Pairs) -> tuple[str, Pairs]:
    """Of results with one value a rank: what can be said of where they are wrong, and a pair for each wrong rank."""
    if not exercise.ranks or any(not isinstance(x, list) for pair in wrong for x in pair):
        return "", wrong
    found, places = [], []
    atol = min(exercise.atol, 1e-6) if exercise.agrees else exercise.atol  # as exercises on ranks compare themselves
    for got, right in wrong:
        if len(got) != len(right):
            return "", wrong
        pairs = [_asked_for(g, e) for g, e in zip(got, right, strict=True)]
        bad = [r for r, (g, e) in enumerate(pairs) if compare(e, g, exercise.rtol, atol) is not None]
        found += [pairs[r] for r in bad]
        places.append((bad, len(pairs)))
    several = [(bad, n) for bad, n in places if n > 1]
    said = [says for says, where in _RANKS.items() if several and all(bad == where(n) for bad, n in several)]
    return next(iter(said), ""), found or wrong


def _asked_for(got: Any, right: Any) -> tuple[Any, Any]:
    """The two, without entries that only the laws look at."""
    if isinstance(got, dict) and isinstance(right, dict):
        got = {key: value for key, value in got.items() if key in right}
    return got, right


_RANKS = {
    "Rank 0 alone has the right result.": lambda n: list(range(1, n)),
    "The last rank alone has the right result.": lambda n: list(range(n - 1)),
    "Rank 0 alone has a wrong result.": lambda n: [0],
    "The last rank alone has a wrong result.": lambda n: [n - 1],
}


def _off(numbers: Sequence[tuple[torch.Tensor, torch.Tensor]], same: Callable) -> list:
    """The pairs in which some number is off: of a result that is wrong by its type alone they have nothing to say."""
    return [(g, e) for g, e in numbers if not same(e, g)]


def leaning(exercise: Exercise, wrong: Pairs) -> Diagnosis | None:
    """The little that can be said of numbers that nothing else explains: that they are near, too large or too small."""
    if says := _wrong_parts(exercise, wrong):
        return Diagnosis(says)
    numbers = [(_numbers(g), _numbers(e)) for g, e in wrong]
    if not wrong or any(x is None or x.dtype is torch.bool for pair in numbers for x in pair):
        return None
    if any(g.shape != e.shape for g, e in numbers) or sum(e.numel() for _, e in numbers) < LEAST:
        return None
    says = first_that(LEANINGS, [(g.double(), e.double()) for g, e in numbers], lambda right, got: False)
    return Diagnosis(says) if says else None


def _relation(wrong: Pairs, same: Callable) -> str:
    rights = [e for _, e in wrong]
    if all(isinstance(e, dict) for e in rights):
        return _of_dicts(wrong, same)
    if said := first_that(_KINDS, wrong, same):
        return said
    if all(isinstance(x, str) for pair in wrong for x in pair):
        return first_that(TEXTS, wrong, same)
    if _are_parts(wrong) and (said := _of_parts(wrong, same)):
        return said
    numbers = [(_numbers(g), _numbers(e)) for g, e in wrong]
    if any(x is None for pair in numbers for x in pair):
        return _of_sequences(wrong, same)
    if any(g.shape != e.shape for g, e in numbers):
        return _of_sequences(wrong, same) if all(x.dim() == 1 for pair in numbers for x in pair) else of_shapes(numbers)
    if all(e.dtype is torch.bool for _, e in numbers):
        return first_that(TRUTHS, numbers, same) or first_that(PLACES, numbers, same, 2)
    if sum(e.numel() for _, e in numbers) < LEAST:
        return ""
    numbers = _off([(g.double(), e.double()) for g, e in numbers], same)
    if not numbers:
        return ""
    found = factor_of(numbers, same) or first_that(NUMBERS + SPREADS, numbers, same)
    return found or first_that(PLACES, numbers, same, 2)


# Parts: the values of a dict with the same keys, the items of a short tuple.


_MISSING = "Keys are missing from your result; those that are there have the right values."
_EXTRA = "Your result has keys too many; those that are asked for have the right values."
_OTHER_KEYS = "Your result has other keys than those that are asked for."
_SOME_KEYS = "On some inputs your result has other keys than those that are asked for."


def _of_dicts(wrong: Pairs, same: Callable) -> str:
    if not all(isinstance(g, dict) for g, _ in wrong):
        return ""
    if all(g.keys() == e.keys() for g, e in wrong):
        return _of_parts(wrong, same)
    for says, smaller in ((_MISSING, 0), (_EXTRA, 1)):
        pairs = [pair if smaller == 0 else pair[::-1] for pair in wrong]
        if all(few.keys() < many.keys() and all(same(many[k], few[k]) for k in few) for few, many in pairs):
            return says
    return _OTHER_KEYS if all(g.keys() != e.keys() for g, e in wrong) else _SOME_KEYS


def _are_parts(wrong: Pairs) -> bool:
    if not all(isinstance(x, (list, tuple)) for pair in wrong for x in pair):
        return False
    lengths = {len(x) for pair in wrong for x in pair}
    return len(lengths) == 1 and 2 <= min(lengths) <= 6 and (all(isinstance(e, tuple) for _, e in wrong))


def _parts(value: Any) -> dict[str, Any]:
    """Name -> value of each part; empty where a value has none."""
    if isinstance(value, dict):
        return {f"`{key}`": item for key, item in value.items() if isinstance(key, str)}
    if isinstance(value, tuple) and 2 <= len(value) <= 6:
        return {f"item {i}": item for i, item in enumerate(value)}
    return {}


def _alone(name: str, bad: bool) -> str:
    return f"Only {name} of your result is {'wrong' if bad else 'right'}."


def _then(says: str) -> str:
    return f" In it: {says[0].lower()}{says[1:]}"


def _split(wrong: Pairs) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The parts of each result and of the right one; nothing where some result has others."""
    split = [(_parts(tuple(g) if isinstance(g, list) else g), _parts(e)) for g, e in wrong]
    return split if all(g.keys() == e.keys() for g, e in split) else []


_FAR = 1e-3  # beside a part that is wrong by more, one that is off by less is a matter of rounding


def _wrong_parts(exercise: Exercise, wrong: Pairs) -> str:
    """Which parts are wrong somewhere, by more than rounding, where that is not all of them."""
    split = _split(wrong) if all(isinstance(e, (dict, tuple)) for _, e in wrong) else []
    rtol, atol = max(exercise.rtol, _FAR), max(exercise.atol, _FAR)
    bad: dict[str, bool] = {}
    for g, e in split:
        far = {name for name in e if compare(e[name], g[name], rtol, atol) is not None}
        if not far:  # all of it is near: then it counts how near
            far = {name for name in e if compare(e[name], g[name], exercise.rtol, exercise.atol) is not None}
        bad |= {name: bad.get(name, False) or name in far for name in e}
    named = [name for name in bad if bad[name]]
    if not 1 < len(named) < len(bad):
        return ""
    return f"Of the parts of your result these are wrong: {', '.join(named)}."


def _of_parts(wrong: Pairs, same: Callable) -> str:
    split = _split(wrong)
    names = list(dict.fromkeys(name for _, e in split for name in e))
    bad = {name for g, e in split for name in e if not same(e[name], g[name])}
    if len(names) < 2 or not bad or len(bad) == len(names):
        return ""
    if len(bad) == 1:
        (name,) = bad
        there = [(g[name], e[name]) for g, e in split if name in e and not same(e[name], g[name])]
        rest = _relation(there, same)
        return _alone(name, True) + (_then(rest) if rest else "")
    good = [name for name in names if name not in bad]
    return _alone(good[0], False) if len(good) == 1 else ""


def _of_sequences(wrong: Pairs, same: Callable) -> str:
    if not all(isinstance(x, (list, tuple, torch.Tensor)) for pair in wrong for x in pair):
        return ""
    if any(isinstance(g, torch.Tensor) != isinstance(e, torch.Tensor) for g, e in wrong):
        return ""
    pairs = [(items_of(g), items_of(e)) for g, e in wrong]
    shapes = [(nesting(g), nesting(e)) for g, e in pairs]
    if all(e is not None and g == e for g, e in shapes):
        numbers = [(torch.tensor(flat(g)).double(), torch.tensor(flat(e)).double()) for g, e in pairs]
        if said := first_that(OFF_BY_ONE, _off(numbers, same), same):
            return said
    return first_that(SEQUENCES, pairs, same)


# What is of another kind than is asked for, and yet right.


def _as_truth(got: Any, right: Any, same: Callable) -> bool:
    return _is_truth(right) and not _is_truth(got) and same(_numbers(right).double(), _numbers(got).double())


def _as_additive(got: Any, right: Any, same: Callable) -> bool:
    if not _is_truth(right) or _is_truth(got):
        return False
    return torch.equal(_numbers(got) == 0, _numbers(right)) and bool((_numbers(got) <= 0).all())


def _as_text(got: Any, right: Any, same: Callable) -> bool:
    kinds = {isinstance(x, str) for x in (got, right)}
    return len(kinds) == 2 and all(isinstance(x, (str, int, float)) for x in (got, right)) and str(got) == str(right)


def _only_one(got: Any, right: Any, same: Callable) -> bool:
    """Whether a part is given alone, or within something more."""
    if isinstance(right, tuple) and not isinstance(got, (tuple, list)):
        return any(same(part, got) for part in right)
    return False


def _wrapped(got: Any, right: Any, same: Callable) -> bool:
    return isinstance(got, (tuple, list)) and not isinstance(right, (tuple, list)) and any(same(right, x) for x in got)


def _as_another_number(got: Any, right: Any, same: Callable) -> bool:
    g, e = _numbers(got), _numbers(right)
    return g is not None and e is not None and g.dtype != e.dtype and same(e.double(), g.double())


def _as_container(got: Any, right: Any, same: Callable) -> bool:
    """Whether a tensor is given for a list, or the reverse, of the same numbers."""
    if isinstance(got, torch.Tensor) == isinstance(right, torch.Tensor):
        return False
    return all(isinstance(x, (list, tuple, torch.Tensor)) for x in (got, right)) and items_of(got) == items_of(right)


_KINDS = [
    ("Your result has the right values, as a tensor for a list, or the reverse.", _as_container),
    ("Your result has the right values, but as numbers, where True and False are asked for.", _as_truth),
    ("Your result is a mask to be added (0 and below), where True and False are asked for.", _as_additive),
    ("Your result is right, but as a text for a number, or the reverse.", _as_text),
    ("Your result is one part of the right one alone.", _only_one),
    ("Your result has more parts than are asked for; the right one is among them.", _wrapped),
    ("Your result has the right values, but of another kind of number.", _as_another_number),
]


def _is_truth(value: Any) -> bool:
    numbers = _numbers(value)
    return numbers is not None and numbers.dtype is torch.bool


def _numbers(value: Any) -> torch.Tensor | None:
    """A number, a tensor or a list of numbers as a tensor; None for everything else."""
    if isinstance(value, torch.Tensor):
        return None if value.is_complex() else value.detach().cpu()
    if isinstance(value, (bool, int, float)) or (_is_list(value) and len(_kinds(value)) == 1):
        try:
            return torch.tensor(value, dtype=torch.float64 if _kinds(value) == {float} else None)
        except (ValueError, RuntimeError, OverflowError, TypeError):
            return None
    if _is_list(value) and _kinds(value) == {int, float}:
        return torch.tensor([float(x) for x in value], dtype=torch.float64)
    return None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(type(x) in (bool, int, float) for x in value)


def _kinds(value: Any) -> set[type]:
    return {type(x) for x in value} if isinstance(value, (list, tuple)) else {type(value)}
