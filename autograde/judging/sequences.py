"""How wrong lists and texts relate to the right ones: tables of sentences, each with the question whether it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

Pairs = Sequence[tuple[Any, Any]]  # (result, right answer) of each wrong case
Holds = Callable[[Any, Any, Callable], bool | None]


def first_that(table: Sequence[tuple[str, Holds]], wrong: Pairs, same: Callable, least: int = 1) -> str:
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
    except Exception:  # of another kind than it is about
        return False


# Sequences.


def items_of(value: Any) -> list:
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


def nesting(value: Any) -> Any:
    """How lists of whole numbers lie in each other; None where there is anything else."""
    if isinstance(value, (list, tuple)):
        inner = [nesting(item) for item in value]
        return None if None in inner else inner
    return 0 if type(value) is int else None


def flat(value: Any) -> list:
    return [x for item in value for x in flat(item)] if isinstance(value, (tuple, list)) else [value]


def _atoms(value: Any) -> list:
    """What lies in lists in lists. What has entries of several kinds, such as ("F", 1, 0), is one thing."""
    inner = value if isinstance(value, (tuple, list)) else ()
    if len({type(x) for x in inner}) > 1 and not any(isinstance(x, (tuple, list)) for x in inner):
        return [value]
    return [x for item in value for x in _atoms(item)] if isinstance(value, (tuple, list)) else [value]


def _same_items(got: Any, right: Any) -> bool:
    return Counter(_atoms(got)) == Counter(_atoms(right))


def _are_groups(right: list) -> bool:
    return any(len(_atoms(group)) > 1 for group in right)


def _each(got: list, right: list, holds: Callable) -> bool:
    """Whether as many things come in an order of which each is `holds` of the one that should stand there."""
    pairs = list(zip(_atoms(got), _atoms(right), strict=True))
    return got != right and len(pairs) > 2 and all(holds(g, e) for g, e in pairs)


def _lower(value: Any) -> list:
    return [x.lower() if isinstance(x, str) else x for x in flat(value)]


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


SEQUENCES = [
    ("Your result has the right values, but of another type.", lambda g, e, same: g == e),
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
        lambda g, e, same: g != e and len(_atoms(e)) > 2 and _atoms(g) == _atoms(e),
    ),
    (
        "Each list in your result has its right items, but not in the right order.",
        lambda g, e, same: _are_groups(e) and len(g) == len(e) and all(map(_same_items, g, e)),
    ),
    (
        "Your result has the right items, grouped in another way and in another order.",
        lambda g, e, same: _same_items(g, e) and not (len(g) == len(e) and all(map(_same_items, g, e))),
    ),
    ("Your result has the right items, some of them in wrong places.", lambda g, e, same: _same_items(g, e)),
    (
        "Some items of your result have their right entries in another order.",
        lambda g, e, same: _each(g, e, lambda g, e: Counter(flat(g)) == Counter(flat(e))),
    ),
    (
        "Your result is the right one but for capitals.",
        lambda g, e, same: _each(g, e, lambda g, e: _lower(g) == _lower(e)),
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


TEXTS = [
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
