"""How wrong results relate to the right ones, whatever the exercise: a factor, an order, a part, a place.

Each sentence is an observation that holds on every wrong result that has a value, and one of a closed list (`sayings`):
no number, text or type that a solution chose stands in it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from autograde.exercise import Exercise
from autograde.judging.comparing import compare
from autograde.judging.diagnosing import Diagnosis

_LEAST = 3  # numbers on which a relation between numbers has to hold
_WHEREVER = "Wherever your result is wrong,"

Pairs = Sequence[tuple[Any, Any]]  # (result, right answer) of each wrong case
Holds = Callable[[Any, Any, Callable], bool | None]


def related(exercise: Exercise, wrong: Pairs) -> Diagnosis | None:
    """What all wrong results have in common with the right ones, as a sentence, or None."""
    if not wrong:
        return None

    def same(right: Any, got: Any) -> bool:
        return compare(right, got, exercise.rtol, exercise.atol) is None

    says = _relation(wrong, same)
    return Diagnosis(says) if says else None


def leaning(exercise: Exercise, wrong: Pairs) -> Diagnosis | None:
    """The little that can be said of numbers that nothing else explains: that they are near, too large or too small."""
    numbers = [(_numbers(g), _numbers(e)) for g, e in wrong]
    if not wrong or any(x is None or x.dtype is torch.bool for pair in numbers for x in pair):
        return None
    if any(g.shape != e.shape for g, e in numbers) or sum(e.numel() for _, e in numbers) < _LEAST:
        return None
    says = _first_that(_LAST, [(g.double(), e.double()) for g, e in numbers], lambda right, got: False)
    return Diagnosis(says) if says else None


def sayings(exercise: Exercise) -> list[str]:
    """All that `related` can say."""
    own = [says for says, _ in (*_KINDS, *_SEQUENCES, *_TEXTS, *_TRUTHS, *_NUMBERS, *_SPREADS, *_PLACES, *_LAST, *_SHAPES, *_COUNTS)]
    own += [_FACTOR.format(name) for name in _FACTORS] + [_MISSING, _EXTRA, _OTHER_KEYS, _SOME_KEYS]
    if exercise.oracle is None:
        return own
    parts = dict.fromkeys(_part_names(exercise))
    return own + [f"{_alone(name, bad)}{rest}" for name in parts for bad in (True, False) for rest in ("", *map(_then, own))]


def _part_names(exercise: Exercise) -> Iterator[str]:
    from autograde.judging.grading import right_answer

    for one in exercise.draw(0):
        yield from _parts(right_answer(exercise, one))


def _relation(wrong: Pairs, same: Callable) -> str:
    rights = [e for _, e in wrong]
    if all(isinstance(e, dict) for e in rights):
        return _of_dicts(wrong, same)
    if said := _first_that(_KINDS, wrong, same):
        return said
    if all(isinstance(x, str) for pair in wrong for x in pair):
        return _first_that(_TEXTS, wrong, same)
    if _are_parts(wrong) and (said := _of_parts(wrong, same)):
        return said
    numbers = [(_numbers(g), _numbers(e)) for g, e in wrong]
    if any(x is None for pair in numbers for x in pair):
        return _of_sequences(wrong, same)
    if any(g.shape != e.shape for g, e in numbers):
        return _of_sequences(wrong, same) if all(x.dim() == 1 for pair in numbers for x in pair) else _of_shapes(numbers)
    if all(e.dtype is torch.bool for _, e in numbers):
        return _first_that(_TRUTHS, numbers, same) or _first_that(_PLACES, numbers, same, 2)
    if sum(e.numel() for _, e in numbers) < _LEAST:
        return ""
    numbers = [(g.double(), e.double()) for g, e in numbers]
    found = _factor(numbers, same) or _first_that(_NUMBERS + _SPREADS, numbers, same)
    return found or _first_that(_PLACES, numbers, same, 2)


def _first_that(table: Sequence[tuple[str, Holds]], wrong: Pairs, same: Callable, least: int = 1) -> str:
    """The first sentence that at least so many wrong results show and none contradicts."""
    for says, holds in table:
        seen = 0
        for got, right in wrong:
            answer = _asked(holds, got, right, same)
            if answer is False:
                break
            seen += bool(answer)
        else:
            if seen >= least:
                return says
    return ""


def _asked(holds: Holds, got: Any, right: Any, same: Callable) -> bool | None:
    try:
        return holds(got, right, same)
    except (TypeError, ValueError, RuntimeError, IndexError, OverflowError):  # of another kind than it is about
        return False


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


def _of_parts(wrong: Pairs, same: Callable) -> str:
    split = [(_parts(tuple(g) if isinstance(g, list) else g), _parts(e)) for g, e in wrong]
    if any(g.keys() != e.keys() for g, e in split):
        return ""
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


# What is of another kind than is asked for, and yet right.


def _as_truth(got: Any, right: Any, same: Callable) -> bool:
    return _is_truth(right) and not _is_truth(got) and same(_numbers(right).double(), _numbers(got).double())


def _as_additive(got: Any, right: Any, same: Callable) -> bool:
    if not _is_truth(right) or _is_truth(got):
        return False
    return torch.equal(_numbers(got) == 0, _numbers(right)) and bool((_numbers(got) <= 0).all())


def _as_text(got: Any, right: Any, same: Callable) -> bool:
    return isinstance(got, str) != isinstance(right, str) and str(got) == str(right)


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
    return all(isinstance(x, (list, tuple, torch.Tensor)) for x in (got, right)) and _items(got) == _items(right)


_KINDS = [
    ("Your result has the right values, as a tensor for a list, or the reverse.", _as_container),
    ("Your result has the right values, but as numbers, where True and False are asked for.", _as_truth),
    ("Your result is a mask to be added (0 and below), where True and False are asked for.", _as_additive),
    ("Your result is right, but as a text (or the reverse).", _as_text),
    ("Your result is one part of the right one alone.", _only_one),
    ("Your result has more parts than are asked for; the right one is among them.", _wrapped),
    ("Your result has the right values, but of another kind of number.", _as_another_number),
]


def _is_truth(value: Any) -> bool:
    numbers = _numbers(value)
    return numbers is not None and numbers.dtype is torch.bool


# Sequences.


def _items(value: Any) -> list:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return [_frozen(item) for item in value]


def _frozen(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _frozen(value.tolist())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((repr(k), _frozen(v)) for k, v in value.items()))
    return round(value, 5) if isinstance(value, float) else value


def _of_sequences(wrong: Pairs, same: Callable) -> str:
    if not all(isinstance(x, (list, tuple, torch.Tensor)) for pair in wrong for x in pair):
        return ""
    if any(isinstance(g, torch.Tensor) != isinstance(e, torch.Tensor) for g, e in wrong):
        return ""
    pairs = [(_items(g), _items(e)) for g, e in wrong]
    shapes = [(_nesting(g), _nesting(e)) for g, e in pairs]
    if all(e is not None and g == e for g, e in shapes):
        numbers = [(torch.tensor(_flat(g)).double(), torch.tensor(_flat(e)).double()) for g, e in pairs]
        if said := _first_that(_OFF_BY_ONE, numbers, same):
            return said
    return _first_that(_SEQUENCES, pairs, same)


def _nesting(value: Any) -> Any:
    """How lists of whole numbers lie in each other; None where there is anything else."""
    if isinstance(value, (list, tuple)):
        inner = [_nesting(item) for item in value]
        return None if None in inner else inner
    return 0 if type(value) is int else None


def _flat(value: Any) -> list:
    return [x for item in value for x in _flat(item)] if isinstance(value, (tuple, list)) else [value]


def _prefix(few: Sequence, many: Sequence) -> bool:
    return 0 < len(few) < len(many) and few == many[: len(few)]


def _suffix(few: Sequence, many: Sequence) -> bool:
    return 0 < len(few) < len(many) and few == many[len(many) - len(few) :]


def _every(got: list, right: list, change: Callable) -> bool | None:
    return None if len(right) < 2 else got != right and change(got, right)


def _within(few: list, many: list) -> bool:
    return len(few) < len(many) and not Counter(few) - Counter(many)


def _first_wrong(got: list, right: list) -> int:
    return next((i for i, (g, e) in enumerate(zip(got, right, strict=False)) if g != e), min(len(got), len(right)))


_SEQUENCES = [
    ("Your result is empty, where it should not be.", lambda g, e, same: not len(g) and bool(len(e))),
    ("Your result has the right items in reverse order.", lambda g, e, same: _every(g, e, lambda g, e: g == e[::-1])),
    (
        "Your result has the right items, but sorted, which is not asked for.",
        lambda g, e, same: _every(g, e, lambda g, e: g == sorted(e) or g == sorted(e, reverse=True)),
    ),
    (
        "Your result has the right items, which are still to be sorted.",
        lambda g, e, same: _every(g, e, lambda g, e: sorted(g) == e or sorted(g, reverse=True) == e),
    ),
    (
        "Your result has the right items in another order.",
        lambda g, e, same: _every(g, e, lambda g, e: Counter(g) == Counter(e)),
    ),
    ("Your result begins as the right one does, and ends too early.", lambda g, e, same: _prefix(g, e)),
    ("Your result begins as the right one does, and goes on too long.", lambda g, e, same: _prefix(e, g)),
    ("Your result ends as the right one does; its beginning is missing.", lambda g, e, same: _suffix(g, e)),
    ("Your result ends as the right one does; something too much stands before.", lambda g, e, same: _suffix(e, g)),
    (
        "Your result has each right item once, where some are asked for more often.",
        lambda g, e, same: len(g) == len(set(g)) and set(g) == set(e) and len(e) > len(g),
    ),
    (
        "Your result has right items more often than is asked for, and no wrong ones.",
        lambda g, e, same: set(g) == set(e) and len(g) > len(e),
    ),
    ("Right items are missing from your result; those that it has are right.", lambda g, e, same: _within(g, e)),
    ("Your result has items too many; none of the right ones is missing.", lambda g, e, same: _within(e, g)),
    (
        "Your result has the right items, grouped in another way.",
        lambda g, e, same: len(_flat(e)) > 2 and _flat(g) == _flat(e),
    ),
    (
        "Your result has the right items, grouped in another way and in another order.",
        lambda g, e, same: len(_flat(e)) > 2 and Counter(_flat(g)) == Counter(_flat(e)),
    ),
    (
        "Only the last item of your result is wrong.",
        lambda g, e, same: len(g) == len(e) > 1 and _first_wrong(g, e) == len(e) - 1,
    ),
    (
        "Only the first item of your result is wrong.",
        lambda g, e, same: len(g) == len(e) > 1 and g[0] != e[0] and g[1:] == e[1:],
    ),
    (
        "Your result begins right and goes wrong later on.",
        lambda g, e, same: len(e) > 1 and _first_wrong(g, e) > 0 if len(e) > 1 else None,
    ),
    ("Your result has too few items.", lambda g, e, same: len(g) < len(e)),
    ("Your result has too many items.", lambda g, e, same: len(g) > len(e)),
]


# Texts.


def _bare(text: str) -> str:
    return "".join(text.split())


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


_TEXTS = [
    (
        "Your text is the right one but for white space at its ends.",
        lambda g, e, same: bool(e.strip()) and g.strip() == e.strip(),
    ),
    ("Your text is the right one but for white space.", lambda g, e, same: bool(_bare(e)) and _bare(g) == _bare(e)),
    ("Your text is the right one but for capitals.", lambda g, e, same: g.lower() == e.lower()),
    ("Your text begins as the right one does, and ends too early.", lambda g, e, same: _prefix(g, e)),
    ("Your text begins as the right one does, and goes on too long.", lambda g, e, same: _prefix(e, g)),
    ("Your text ends as the right one does; its beginning is missing.", lambda g, e, same: _suffix(g, e)),
    ("Your text ends as the right one does; something too much stands before.", lambda g, e, same: _suffix(e, g)),
    (
        "Your text is the right one but for marks (quotes, brackets, punctuation) and white space.",
        lambda g, e, same: len(_letters(e)) > 2 and _letters(g) == _letters(e),
    ),
    (
        "Your text has the right lines in another order.",
        lambda g, e, same: len(e.splitlines()) > 1 and sorted(g.splitlines()) == sorted(e.splitlines()),
    ),
    (
        "A piece is missing inside your text; what stands before and after it is right.",
        lambda g, e, same: _has_gap(g, e),
    ),
    (
        "Your text has a piece too much inside; what stands before and after it is right.",
        lambda g, e, same: _has_gap(e, g),
    ),
    (
        "Your text begins and ends as the right one does, and differs in between.",
        lambda g, e, same: len(g) > 1 and len(e) > 1 and g[:2] == e[:2] and g[-2:] == e[-2:],
    ),
    ("Your text begins as the right one does, and differs later on.", lambda g, e, same: len(e) > 3 and g[:4] == e[:4]),
    ("Your text ends as the right one does, and differs before.", lambda g, e, same: len(e) > 3 and g[-4:] == e[-4:]),
]


def _has_gap(few: str, many: str) -> bool:
    """Whether one text is the other without one piece."""
    if not 0 < len(few) < len(many):
        return False
    head = next((i for i, (a, b) in enumerate(zip(few, many, strict=False)) if a != b), len(few))
    return many.endswith(few[head:]) and 0 < head < len(few)


# Truth values.


_TRUTHS = [
    ("True and False are exchanged in your result.", lambda g, e, same: torch.equal(g, ~e)),
    (
        "True and False are exchanged, and the result is transposed.",
        lambda g, e, same: e.dim() > 1 and torch.equal(g.mT, ~e),
    ),
    (f"{_WHEREVER} everything is True.", lambda g, e, same: g.numel() > 1 and bool(g.all())),
    (f"{_WHEREVER} everything is False.", lambda g, e, same: g.numel() > 1 and not bool(g.any())),
    ("Your result stands upside down: its rows are in reverse order.", lambda g, e, same: _flips(g, e, same, -2)),
    ("The rows of your result run the other way: their columns are in reverse order.", lambda g, e, same: _flips(g, e, same, -1)),
    (
        "Your result has a True too many on one diagonal, and is right elsewhere.",
        lambda g, e, same: not bool((e & ~g).any()) and _on_one_diagonal(g ^ e),
    ),
    (
        "Your result lacks a True on one diagonal, and is right elsewhere.",
        lambda g, e, same: not bool((g & ~e).any()) and _on_one_diagonal(g ^ e),
    ),
    (
        f"{_WHEREVER} it is True where False is right, never the reverse.",
        lambda g, e, same: not bool((e & ~g).any()),
    ),
    (
        f"{_WHEREVER} it is False where True is right, never the reverse.",
        lambda g, e, same: not bool((g & ~e).any()),
    ),
]


def _on_one_diagonal(bad: torch.Tensor) -> bool:
    places = bad.nonzero()
    return bad.dim() > 1 and len(places) > 0 and len((places[:, -1] - places[:, -2]).unique()) == 1


def _flips(got: torch.Tensor, right: torch.Tensor, same: Callable, dim: int) -> bool | None:
    if right.dim() < -dim or right.shape[dim] < 2:
        return None
    return same(right, got.flip(dim))


# Numbers.


_FACTOR = "Every number is the right one times {}."
_FACTORS = {
    "100": 100.0,
    "1000": 1000.0,
    "10": 10.0,
    "1/10": 0.1,
    "1/100": 0.01,
    "2": 2.0,
    "1/2": 0.5,
    "3": 3.0,
    "1/3": 1 / 3,
    "4": 4.0,
    "1/4": 0.25,
    "8": 8.0,
    "1/8": 0.125,
    "ln 2 (a logarithm to base 2 for a natural one, or the reverse)": math.log(2),
    "1 / ln 2 (a logarithm to base 2 for a natural one, or the reverse)": 1 / math.log(2),
    "ln 10 (a logarithm to base 10 for a natural one, or the reverse)": math.log(10),
    "1 / ln 10 (a logarithm to base 10 for a natural one, or the reverse)": 1 / math.log(10),
    "pi": math.pi,
    "2 pi": 2 * math.pi,
    "pi / 180": math.pi / 180,
    "180 / pi": 180 / math.pi,
    "the root of 2": math.sqrt(2),
    "1 / the root of 2": math.sqrt(0.5),
    "-1": -1.0,
    "-2": -2.0,
    "-1/2": -0.5,
}


def _factor(wrong: Sequence[tuple[torch.Tensor, torch.Tensor]], same: Callable) -> str:
    for name, factor in _FACTORS.items():
        if all(same(e, g / factor) for g, e in wrong) and any(e.abs().max() > 0 for _, e in wrong if e.numel()):
            return _FACTOR.format(name)
    return ""


def _map(change: Callable) -> Holds:
    """Whether the result is the right one, changed."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        return same(change(right), got)

    return holds


def _of_rows(change: Callable, back: bool = False) -> Holds:
    """Whether one is the other, changed row by row; rows of one number show nothing."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        if not right.dim() or right.shape[-1] < 2:
            return None
        return same(right, change(got)) if back else same(change(right), got)

    return holds


def _one_apart(by: float) -> Holds:
    """Whether wrong whole numbers are all off by the same amount."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        off = (got - right)[got != right]
        return bool((right == right.round()).all()) and bool((off == by).all())

    return holds


def _filled(value: float, whose: int) -> Holds:
    """Whether, wherever it is wrong, the result (0) or the right answer (1) is one value, and not everywhere."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        bad = _bad(got, right, same)
        at = (got, right)[whose][bad]
        hit = at.isnan() if math.isnan(value) else at == value
        return bool(hit.all()) and not bool(bad.all() and right.numel() > 1 and whose)

    return holds


def _bad(got: torch.Tensor, right: torch.Tensor, same: Callable) -> torch.Tensor:
    """Where the two differ by more than rounding, of badly conditioned numbers as well; else where they differ at all."""
    if got.dtype is torch.bool:
        return got ^ right
    scale = float(right.abs().nan_to_num(0.0, 0.0, 0.0).max()) if right.numel() else 0.0
    far = ~torch.isclose(got, right, rtol=1e-3, atol=1e-3 * scale)
    return far if far.any() else ~torch.isclose(got, right, rtol=1e-4, atol=1e-5)


def _finite_right(got: torch.Tensor, right: torch.Tensor) -> bool:
    both = got.isfinite() & right.isfinite()
    return bool(both.any()) and bool(torch.isclose(got, right, rtol=1e-4, atol=1e-5)[both].all())


def _infinities(more: bool | None) -> Holds:
    """Whether the finite numbers are right and there are too many, too few, or other infinities."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        if got.isnan().any() or not _finite_right(got, right):
            return False
        extra, lacking = (got.isinf() & ~right.isinf()).any(), (right.isinf() & ~got.isinf()).any()
        return bool(extra or lacking) if more is None else bool(extra if more else lacking) and not (extra and lacking)

    return holds


def _clamped(low: bool) -> Holds:
    """Whether the result never goes below (or above) a bound, and is right within."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        bound = got.min() if low else got.max()
        return right.numel() > 2 and same(right.clamp(min=bound) if low else right.clamp(max=bound), got)

    return holds


def _apart_by_one_amount(over: Callable) -> Holds:
    """Whether differences (or ratios) are the same within each call, row or column."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        value = over(got, right)
        if value is None:
            return None
        apart, dims = value
        finite = apart.isfinite()
        if not finite.any():
            return False
        low = apart.masked_fill(~finite, math.inf).amin(dims, keepdim=True)
        high = apart.masked_fill(~finite, -math.inf).amax(dims, keepdim=True)
        near = (high - low)[(low <= high)] <= 1e-3 * torch.maximum(high.abs(), low.abs())[low <= high]
        return bool(near.all()) and bool(_both_odd(got, right))

    return holds


def _both_odd(got: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Whether what isn't finite stands in the same places."""
    return (got.isfinite() == right.isfinite()).all()


def _differences(dims: tuple[int, ...] | None) -> Callable:
    def over(got: torch.Tensor, right: torch.Tensor):
        if not _enough(right, dims):
            return None
        return got - right, dims if dims else tuple(range(right.dim()))

    return over


def _ratios(dims: tuple[int, ...] | None) -> Callable:
    def over(got: torch.Tensor, right: torch.Tensor):
        if not _enough(right, dims):
            return None
        small = right.abs() < 1e-3 * right.abs().nan_to_num(0.0, 0.0, 0.0).max()
        if bool(((got.abs() > 1e-2 * got.abs().nan_to_num(0.0, 0.0, 0.0).max()) & small).any()):
            return None if small.all() else (torch.tensor([0.0, 1.0]), (0,))
        return torch.where(small, math.nan, got / right), dims if dims else tuple(range(right.dim()))

    return over


def _enough(right: torch.Tensor, dims: tuple[int, ...] | None) -> bool:
    if dims is None:
        return right.numel() > 2
    return right.dim() >= 2 and right.shape[dims[0]] > 2 and right.numel() > right.shape[dims[0]]


def _summed(dim: int) -> Holds:
    """Whether rows sum to 1 along another dimension than they should."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        if right.dim() < 2 or min(right.shape[-2:]) < 2:
            return None
        other = -3 - dim
        return same(torch.ones_like(got.sum(dim)), got.sum(dim)) and same(torch.ones_like(right.sum(other)), right.sum(other))

    return holds


def _within_one_in(of: float) -> Holds:
    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        scale = right.abs().nan_to_num(0.0, 0.0, 0.0).max()
        return bool(_both_odd(got, right)) and bool(torch.isclose(got, right, rtol=1 / of, atol=float(scale) / of).all())

    return holds


def _sided(sign: int) -> Holds:
    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        bad = _bad(got, right, same)
        return bool(((got - right)[bad] * sign > 0).all())

    return holds


def _permuted(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
    if right.dim() < 3:
        return None
    orders = itertools.permutations(range(right.dim()))
    moved = (got.permute(order) for order in orders)
    return any(x.shape == right.shape and same(right, x) for x in moved)


_OFF_BY_ONE = [
    ("Every wrong number is 1 too large.", _one_apart(1.0)),
    ("Every wrong number is 1 too small.", _one_apart(-1.0)),
]
_NUMBERS = [
    ("Your result is 1 minus the right one.", _map(lambda e: 1 - e)),
    ("Your result is 1 plus the right one.", _map(lambda e: 1 + e)),
    ("Your result is the right one less 1.", _map(lambda e: e - 1)),
    ("Your result is the square of the right one.", _map(torch.square)),
    ("Your result is the square root of the right one.", _map(torch.sqrt)),
    ("Your result is 1 divided by the right one.", _map(torch.reciprocal)),
    ("Your result is the right one without its signs.", _map(torch.abs)),
    ("Your result has the right sizes; some signs are wrong.", lambda g, e, same: same(e.abs(), g.abs())),
    ("Your result is exp of the right one: a logarithm is asked for.", _map(torch.exp)),
    ("Your result is the logarithm of the right one.", _map(torch.log)),
    ("Your result is the right one after a softmax, which is not asked for.", _of_rows(lambda e: e.softmax(-1))),
    ("Your result is the right one after a log-softmax, which is not asked for.", _of_rows(lambda e: e.log_softmax(-1))),
    ("Your result has still to go through a softmax.", _of_rows(lambda g: g.softmax(-1), back=True)),
    ("Your result is the right one after a sigmoid, which is not asked for.", _map(torch.sigmoid)),
    ("Your result is the right one without its fraction, or rounded.", lambda g, e, same: _is_rounded(g, e)),
    ("Your result is right once it is rounded, down or to the nearest.", lambda g, e, same: _is_rounded(e, g)),
    ("Your result is the right one, added up along the last dimension.", lambda g, e, same: _grown(g, e, same)),
    ("Your numbers are right, but the rows are in reverse order.", lambda g, e, same: _flips(g, e, same, -2)),
    ("Your numbers are right, but in reverse order along the last dimension.", lambda g, e, same: _flips(g, e, same, -1)),
    ("Your numbers are right, but the dimensions are in another order.", _permuted),
    ("Your rows sum to 1 along the last dimension, where they should along the one before it.", _summed(-1)),
    ("Your numbers sum to 1 along the last but one dimension, where they should along the last.", _summed(-2)),
    (f"{_WHEREVER} it is NaN.", _filled(math.nan, 0)),
    ("Your finite numbers are right, but too many are infinite.", _infinities(True)),
    ("Your finite numbers are right, but too few are infinite.", _infinities(False)),
    ("Your finite numbers are right, but others are infinite than should be.", _infinities(None)),
    (f"{_WHEREVER} it is 0.", _filled(0.0, 0)),
    (f"{_WHEREVER} -inf is right.", _filled(-math.inf, 1)),
    (f"{_WHEREVER} 0 is right.", _filled(0.0, 1)),
    (f"{_WHEREVER} 1 is right.", _filled(1.0, 1)),
    (f"{_WHEREVER} -100 is right.", _filled(-100.0, 1)),
    *_OFF_BY_ONE,
    ("Your result never falls below a bound, where the right one does.", _clamped(True)),
    ("Your result never rises above a bound, where the right one does.", _clamped(False)),
]


def _is_rounded(got: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether `got` is a whole number near each `right`, which aren't all whole."""
    whole = torch.equal(got, got.round()) and not torch.equal(right, right.round())
    return whole and len(got.unique()) > 1 and bool(((got - right).abs() < 1).all())


def _grown(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
    return None if not right.dim() or right.shape[-1] < 2 else same(right.cumsum(-1), got)


_SPREADS = [
    ("In each call your numbers are off by one and the same factor.", _apart_by_one_amount(_ratios(None))),
    ("In each call your numbers are too large, or too small, by one and the same amount.", _apart_by_one_amount(_differences(None))),
    ("Each row of your result is off by a factor of its own, the same for all of the row.", _apart_by_one_amount(_ratios((-1,)))),
    ("Each row of your result is off by an amount of its own, the same for all of the row.", _apart_by_one_amount(_differences((-1,)))),
    ("Each column of your result is off by a factor of its own, the same for all of the column.", _apart_by_one_amount(_ratios((-2,)))),
    ("Each column of your result is off by an amount of its own, the same for all of the column.", _apart_by_one_amount(_differences((-2,)))),
]


# Places.


def _at(dim: int, where: Callable) -> Holds:
    """Whether what is wrong stands where `where(size)` says, by index along a dimension, and nowhere else.

    `where` gives the indices that are wrong; each of them has to be. Along a dimension of fewer than 3 nothing shows.
    """

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        if right.dim() < abs(dim + 0.5) + 0.5 or right.shape[dim] < 3:
            return None
        bad = _bad(got, right, same).movedim(dim, 0).flatten(1).any(1) if right.dim() > 1 else _bad(got, right, same)
        wanted = torch.zeros_like(bad)
        wanted[where(len(bad))] = True
        return torch.equal(bad, wanted)

    return holds


def _some_at(dim: int, where: Callable) -> Holds:
    """As `_at`, where not all of these places need be wrong."""

    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        if right.dim() < abs(dim + 0.5) + 0.5 or right.shape[dim] < 3:
            return None
        bad = _bad(got, right, same).movedim(dim, 0).flatten(1).any(1) if right.dim() > 1 else _bad(got, right, same)
        kept = torch.ones_like(bad)
        kept[where(len(bad))] = False
        return not bool((bad & kept).any())

    return holds


_DIMS = {-1: "the last dimension", -2: "the last but one dimension", -3: "the last but two dimension"}
_WHERE = {
    "only the first place is wrong": (_at, lambda n: slice(0, 1)),
    "only the last place is wrong": (_at, lambda n: slice(n - 1, n)),
    "only the first place is right": (_at, lambda n: slice(1, n)),
    "only the last place is right": (_at, lambda n: slice(0, n - 1)),
    "only the second half is wrong": (_some_at, lambda n: slice(n // 2, n)),
    "only the first half is wrong": (_some_at, lambda n: slice(0, n // 2)),
    "only places 1, 3, 5, … are wrong": (_at, lambda n: slice(1, n, 2)),
    "only places 0, 2, 4, … are wrong": (_at, lambda n: slice(0, n, 2)),
}


def _side(keep: Callable) -> Holds:
    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
        if right.dim() < 2 or right.shape[-1] != right.shape[-2] or len(right) < 3:
            return None
        bad = _bad(got, right, same)
        return bool(bad.sum() > 1) and not bool((bad & ~keep(torch.ones_like(bad))).any())

    return holds


_PLACES = [
    ("Only the diagonal of your result is wrong.", _side(lambda x: x.tril().triu())),
    ("Your result is wrong above its diagonal only.", _side(lambda x: x.triu(1))),
    ("Your result is wrong below its diagonal only.", _side(lambda x: x.tril(-1))),
    *(
        (f"Along {name} of your result, {says}.", kind(dim, where))
        for says, (kind, where) in _WHERE.items()
        for dim, name in _DIMS.items()
    ),
]
_LAST = [
    ("Your result is near the right one, within 1 %: look for a small term, or digits that get lost.", _within_one_in(100)),
    (f"{_WHEREVER} it is too large.", _sided(1)),
    (f"{_WHEREVER} it is too small.", _sided(-1)),
]


# Shapes.


_SHAPES = [
    (
        f"Your result is right at its {end} along {name}, and {says}.",
        (lambda g, e, same, dim=dim, start=start, few=few: _cut(*((g, e) if few else (e, g)), same, dim, start)),
    )
    for dim, name in _DIMS.items()
    for end, start in (("beginning", True), ("end", False))
    for says, few in (("too short", True), ("too long", False))
] + [
    (
        f"A {what} over {name} is missing: after it your result is right.",
        (lambda g, e, same, dim=dim, over=over: same(e, over(g, dim))),
    )
    for dim, name in {**_DIMS, 0: "the first dimension"}.items()
    for what, over in (("sum", torch.sum), ("mean", torch.mean))
] + [
    (
        f"Your result is the right one's {what} over {name}, which is not asked for.",
        (lambda g, e, same, dim=dim, over=over: same(over(e, dim), g) or same(over(e, dim, keepdim=True), g)),
    )
    for dim, name in {**_DIMS, 0: "the first dimension"}.items()
    for what, over in (("sum", torch.sum), ("mean", torch.mean))
]
_COUNTS = [
    (f"Your result has a dimension too {'many' if more else 'few'}.", (lambda g, e, same, more=more: (g.dim() > e.dim()) == more and g.dim() != e.dim()))
    for more in (True, False)
]


def _cut(few: torch.Tensor, many: torch.Tensor, same: Callable, dim: int, start: bool) -> bool:
    """Whether one tensor is the other's beginning or end along a dimension."""
    n, m = few.shape[dim], many.shape[dim]
    return 0 < n < m and same(many.narrow(dim, 0 if start else m - n, n), few)


def _of_shapes(wrong: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> str:
    def same(right: torch.Tensor, got: torch.Tensor) -> bool:
        return compare(right.double(), got.double()) is None

    doubles = [(g.double(), e.double()) for g, e in wrong]
    return _first_that(_SHAPES + _COUNTS, doubles, same)


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
