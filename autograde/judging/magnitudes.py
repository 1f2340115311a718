"""How wrong numbers relate to the right ones: tables of sentences, each with what it asks of a result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from autograde.judging.comparing import compare
from autograde.judging.sequences import Holds, first_that

LEAST = 3  # numbers on which a relation between numbers has to hold
_WHEREVER = "Wherever your result is wrong,"


# Truth values.


TRUTHS = [
    (
        "True and False are exchanged in your result.",  # of one truth value that is wrong, that says nothing
        lambda g, e, same: torch.equal(g, ~e) if e.numel() > 1 else None,
    ),
    (
        "True and False are exchanged, and the result is transposed.",
        lambda g, e, same: e.dim() > 1 and torch.equal(g.mT, ~e),
    ),
    (f"{_WHEREVER} everything is True.", lambda g, e, same: g.numel() > 1 and bool(g.all())),
    (f"{_WHEREVER} everything is False.", lambda g, e, same: g.numel() > 1 and not bool(g.any())),
    ("Your result stands upside down: its rows are in reverse order.", lambda g, e, same: _flips(g, e, same, -2)),
    (
        "The rows of your result run the other way: their columns are in reverse order.",
        lambda g, e, same: _flips(g, e, same, -1),
    ),
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


FACTOR = "Every number is the right one times {}."
FACTORS = {
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


def factor_of(wrong: Sequence[tuple[torch.Tensor, torch.Tensor]], same: Callable) -> str:
    for name, factor in FACTORS.items():
        if all(same(e, g / factor) for g, e in wrong) and any(e.abs().max() > 0 for _, e in wrong if e.numel()):
            return FACTOR.format(name)
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
        return bool(bad.any() and hit.all()) and not bool(bad.all() and right.numel() > 1 and whose)

    return holds


def _bad(got: torch.Tensor, right: torch.Tensor, same: Callable) -> torch.Tensor:
    """Where the two differ by more than rounding (badly conditioned numbers as well), else where they differ at all."""
    if got.dtype is torch.bool:
        return got ^ right
    scale = float(right.abs().nan_to_num(0.0, 0.0, 0.0).max()) if right.numel() else 0.0
    far = ~torch.isclose(got, right, rtol=1e-3, atol=1e-3 * scale)
    near = ~torch.isclose(got, right, rtol=1e-4, atol=1e-5)
    return far if far.any() else near if near.any() else got != right


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
        if (finite.sum(dims) - 1).clamp(min=0).sum() < 2:
            return None  # one number alone is always off by one amount
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
        if _within_one_in(100)(got, right, compare):
            return torch.tensor([0.0, 1.0]), (0,)  # digits that get lost, which is no factor
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
        return same(torch.ones_like(got.sum(dim)), got.sum(dim)) and same(
            torch.ones_like(right.sum(other)), right.sum(other)
        )

    return holds


def _within_one_in(of: float) -> Holds:
    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        scale = right.abs().nan_to_num(0.0, 0.0, 0.0).max()
        return bool(_both_odd(got, right)) and bool(
            torch.isclose(got, right, rtol=1 / of, atol=float(scale) / of).all()
        )

    return holds


def _sided(sign: int) -> Holds:
    def holds(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool:
        bad = _bad(got, right, same)
        return bool(bad.any() and ((got - right)[bad] * sign > 0).all())

    return holds


def _permuted(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
    if right.dim() < 2:
        return None
    orders = itertools.permutations(range(right.dim()))
    moved = (got.permute(order) for order in orders)
    return any(x.shape == right.shape and same(right, x) for x in moved)


def _reordered(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
    return None if right.numel() < 3 else same(right.flatten().sort().values, got.flatten().sort().values)


_OTHER_DIMS = ("Your numbers are right, but the dimensions are in another order.", _permuted)
OFF_BY_ONE = [
    ("Every wrong number is 1 too large.", _one_apart(1.0)),
    ("Every wrong number is 1 too small.", _one_apart(-1.0)),
]
NUMBERS = [
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
    (
        "Your result is the right one after a log-softmax, which is not asked for.",
        _of_rows(lambda e: e.log_softmax(-1)),
    ),
    ("Your result has still to go through a softmax.", _of_rows(lambda g: g.softmax(-1), back=True)),
    ("Your result is the right one after a sigmoid, which is not asked for.", _map(torch.sigmoid)),
    ("Your result is the right one without its fraction, or rounded.", lambda g, e, same: _is_rounded(g, e)),
    ("Your result is right once it is rounded, down or to the nearest.", lambda g, e, same: _is_rounded(e, g)),
    ("Your result is the right one, added up along the last dimension.", lambda g, e, same: _grown(g, e, same)),
    ("Your numbers are right, but the rows are in reverse order.", lambda g, e, same: _flips(g, e, same, -2)),
    (
        "Your numbers are right, but in reverse order along the last dimension.",
        lambda g, e, same: _flips(g, e, same, -1),
    ),
    _OTHER_DIMS,
    ("Your result has the right numbers in another order.", _reordered),
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
    *OFF_BY_ONE,
    ("Your result never falls below a bound, where the right one does.", _clamped(True)),
    ("Your result never rises above a bound, where the right one does.", _clamped(False)),
]


def _is_rounded(got: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether `got` is a whole number near each `right`, which aren't all whole."""
    whole = torch.equal(got, got.round()) and not torch.equal(right, right.round())
    return whole and len(got.unique()) > 1 and bool(((got - right).abs() < 1).all())


def _grown(got: torch.Tensor, right: torch.Tensor, same: Callable) -> bool | None:
    return None if not right.dim() or right.shape[-1] < 2 else same(right.cumsum(-1), got)


SPREADS = [
    ("In each call your numbers are off by one and the same factor.", _apart_by_one_amount(_ratios(None))),
    (
        "In each call your numbers are too large, or too small, by one and the same amount.",
        _apart_by_one_amount(_differences(None)),
    ),
    (
        "Each row of your result is off by a factor of its own, the same for all of the row.",
        _apart_by_one_amount(_ratios((-1,))),
    ),
    (
        "Each row of your result is off by an amount of its own, the same for all of the row.",
        _apart_by_one_amount(_differences((-1,))),
    ),
    (
        "Each column of your result is off by a factor of its own, the same for all of the column.",
        _apart_by_one_amount(_ratios((-2,))),
    ),
    (
        "Each column of your result is off by an amount of its own, the same for all of the column.",
        _apart_by_one_amount(_differences((-2,))),
    ),
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


PLACES = [
    ("Only the diagonal of your result is wrong.", _side(lambda x: x.tril().triu())),
    ("Your result is wrong above its diagonal only.", _side(lambda x: x.triu(1))),
    ("Your result is wrong below its diagonal only.", _side(lambda x: x.tril(-1))),
    *(
        (f"Along {name} of your result, {says}.", kind(dim, where))
        for says, (kind, where) in _WHERE.items()
        for dim, name in _DIMS.items()
    ),
]
LEANINGS = [
    (
        "Your result is near the right one, within 1 %: look for a small term, or digits that get lost.",
        _within_one_in(100),
    ),
    (f"{_WHEREVER} it is too large.", _sided(1)),
    (f"{_WHEREVER} it is too small.", _sided(-1)),
]


# Shapes.


SHAPES = (
    [_OTHER_DIMS, ("Your numbers are right, and the shape is not.", lambda g, e, same: same(e, g.reshape(e.shape)))]
    + [
        (
            f"Your result is right at its {end} along {name}, and {says}.",
            (lambda g, e, same, dim=dim, start=start, few=few: _cut(*((g, e) if few else (e, g)), same, dim, start)),
        )
        for dim, name in _DIMS.items()
        for end, start in (("beginning", True), ("end", False))
        for says, few in (("too short", True), ("too long", False))
    ]
    + [
        (
            f"A {what} over {name} is missing: after it your result is right.",
            (lambda g, e, same, dim=dim, over=over: same(e, over(g, dim))),
        )
        for dim, name in {**_DIMS, 0: "the first dimension"}.items()
        for what, over in (("sum", torch.sum), ("mean", torch.mean))
    ]
    + [
        (
            f"Your result is the right one's {what} over {name}, which is not asked for.",
            (lambda g, e, same, dim=dim, over=over: same(over(e, dim), g) or same(over(e, dim, keepdim=True), g)),
        )
        for dim, name in {**_DIMS, 0: "the first dimension"}.items()
        for what, over in (("sum", torch.sum), ("mean", torch.mean))
    ]
)
COUNTS = [
    (
        f"Your result has a dimension too {'many' if more else 'few'}.",
        (lambda g, e, same, more=more: (g.dim() > e.dim()) == more and g.dim() != e.dim()),
    )
    for more in (True, False)
]


def _cut(few: torch.Tensor, many: torch.Tensor, same: Callable, dim: int, start: bool) -> bool:
    """Whether one tensor is the other's beginning or end along a dimension."""
    n, m = few.shape[dim], many.shape[dim]
    return 0 < n < m and same(many.narrow(dim, 0 if start else m - n, n), few)


def of_shapes(wrong: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> str:
    def same(right: torch.Tensor, got: torch.Tensor) -> bool:
        return compare(right.double(), got.double()) is None

    doubles = [(g.double(), e.double()) for g, e in wrong]
    return first_that(SHAPES + COUNTS, doubles, same)
