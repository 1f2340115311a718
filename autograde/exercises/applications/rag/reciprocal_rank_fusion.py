"""`reciprocal_rank_fusion(rankings, k=60, weights=None)`: One ranking made of several, by the places alone."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.rag.shared import NAMES, ranking
from autograde.exercises.shared import integer

exercise = Draft(
    "reciprocal_rank_fusion",
    points=2,
    no_gradient="places in a list are no numbers to train through",
    hints=[
        "Scores of different searches can't be compared. What do all rankings have in common?",
        "Add weight / (k + place) for each item, with places from 1; then sort the items by their sums.",
        "`for weight, items in zip(weights, rankings): for place, item in enumerate(items, 1):` add if the item isn't "
        "in `items[: place - 1]`. `sorted(sums.items(), key=lambda pair: -pair[1])` keeps equal ones in order.",
    ],
)


def _clear(g, make):
    """Rankings whose fused scores differ clearly, or are equal because the same two numbers were added."""
    while True:
        asked = make()
        scores = [score for _, score in _exact(*asked)]
        if all(a - b > Fraction(1, 10**6) for a, b in pairwise(scores)):
            return asked


@exercise.cases
def fusion_cases(g):
    yield case(*_clear(g, lambda: ([ranking(g, NAMES, 6), ranking(g, NAMES, 6)],)), label="two rankings of six")
    yield case([["b", "a", "c"], ["a", "b", "d", "e"]], label="equal scores: who comes first, stays first")
    yield case([["x", "b", "a"], ["y", "a", "b"], ["z"]], 60, label="equal scores further down")
    yield case([["x", "b"], ["a"], ["b", "a"]], label="equal scores: first met in an earlier list, at a later place")
    yield case([[7, 3, 900, 4], [4, 11, 7]], label="numbers as items")
    few = _clear(g, lambda: ([ranking(g, NAMES, n) for n in (4, 1, 6)],))
    yield case(*few, label="rankings of different lengths")
    yield case(*_clear(g, lambda: ([ranking(g, NAMES, 7) for _ in range(3)], integer(g, 1, 6))), label="a small k")
    yield case([["a", "b", "c"], ["c", "b", "a"], ["b", "a"]], k=0, label="k = 0")
    yield case(*_clear(g, lambda: ([ranking(g, NAMES, 6) for _ in range(2)], 0.5)), label="k = 0.5")
    yield case([["x", "b"], ["x", "b"], ["a"]], k=0, label="equal scores: a better place further down")
    weighted = _clear(g, lambda: ([ranking(g, NAMES, 6) for _ in range(2)], 60, [0.3, 1.7]))
    yield case(*weighted, label="two weights")
    yield case([["a", "b"], ["c", "b", "z"], ["c", "a"]], weights=[2.0, 0.0, 0.5], label="a weight of 0")
    yield case([["b", "a"], ["a", "c"]], 60, [0.0, 0.0], label="all weights are 0")
    yield case([[5, 3, 2], [2, 3, 5]], label="equal scores of numbers")
    yield case([["a", "b", "a", "c"], ["c", "b", "b", "d"]], label="an item that stands there twice")
    yield case([["b", "a"], [], ["a", "c"]], label="an empty ranking")
    yield case([["only", "one", "list"]], label="one ranking")
    yield case([], label="no ranking")
    yield case([[], []], label="only empty rankings")
    yield case(*_clear(g, lambda: ([ranking(g, range(130), 120), ranking(g, range(90), 50)],)), label="120 items")


def _exact(rankings, k=60, weights=None):
    """The formula of Cormack, Clarke and Büttcher (2009) in exact fractions."""
    weights = [1] * len(rankings) if weights is None else weights
    sums: dict = {}
    for weight, items in zip(weights, rankings, strict=True):
        for place, item in enumerate(items, 1):
            if item not in items[: place - 1]:
                sums[item] = sums.get(item, 0) + Fraction(weight) / (k + place)
    return sorted(sums.items(), key=lambda pair: -pair[1])


@exercise.oracle
def exact(rankings, k=60, weights=None):
    return [(item, float(score)) for item, score in _exact(rankings, k, weights)]


def _are_pairs(found):
    return isinstance(found, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found)


@exercise.agrees
def agrees(expected, got, one):
    """The same items in the same order, with the same scores. Pairs may be lists."""
    if not _are_pairs(expected) or not _are_pairs(got):
        return expected == got or "a list of pairs (item, score) is wanted"
    wanted, found = ([item for item, _ in pairs] for pairs in (expected, got))
    if wanted != found:
        return f"the items should come as {wanted[:8]}, they come as {found[:8]}"
    try:
        scores = [[float(score) for _, score in pairs] for pairs in (expected, got)]
    except (TypeError, ValueError):
        return "a score is a number"
    return same(*scores) or f"the scores should be {scores[0][:4]}, they are {scores[1][:4]}"


def _asked(one):
    names = dict(zip(("rankings", "k", "weights"), one.args, strict=False)) | one.kwargs
    return names.pop("rankings"), names


@exercise.law("Every item comes once, best first")
def once_each(out, one, call):
    items, scores = [item for item, _ in out], [float(score) for _, score in out]
    known = {item for each in _asked(one)[0] for item in each}
    return len(items) == len(set(items)) and set(items) == known and scores == sorted(scores, reverse=True)


@exercise.law("One ranking alone keeps its order")
def alone(out, one, call):
    found = [[item for item, _ in call([each])] for each in _asked(one)[0]]
    return found == [list(dict.fromkeys(each)) for each in _asked(one)[0]]


@exercise.law("The same ranking twice doubles every score and moves nobody")
def doubled(out, one, call):
    rankings, knobs = _asked(one)
    if "weights" in knobs:
        knobs |= {"weights": [*knobs["weights"], *knobs["weights"]]}
    again = call([*rankings, *rankings], **knobs)
    halves = [(item, float(score) / 2) for item, score in again]
    return agrees(out, halves, one) is True


def _places(items):
    """(item, place) of each item where it stands first."""
    return [(item, place) for place, item in enumerate(items, 1) if item not in items[: place - 1]]


def _made(
    gain=lambda weight, k, place: weight / (k + place),
    places=_places,
    order=None,
    weigh=lambda weights, n: [1.0] * n if weights is None else weights,
):
    """A fusion in parts: what a place is worth, which places count, how the sums are ordered."""

    def reciprocal_rank_fusion(rankings, k=60, weights=None):
        sums = {}
        for weight, items in zip(weigh(weights, len(rankings)), rankings, strict=False):
            for item, place in places(items):
                sums[item] = sums.get(item, 0.0) + gain(weight, k, place)
        return order(sums) if order else sorted(sums.items(), key=lambda pair: pair[1], reverse=True)

    return reciprocal_rank_fusion


right = _made()

exercise.mistake("places are counted from 0", hint="The best item has place 1: 1 / (k + 1).")(
    _made(lambda weight, k, place: weight / (k + place - 1) if k + place > 1 else 1.0)
)

exercise.mistake("k is left out", hint="1 / (k + place). Without k the first place decides nearly everything.")(
    _made(lambda weight, k, place: weight / place)
)

exercise.mistake("k is always 60", hint="Use the k that you are given.")(
    _made(lambda weight, k, place: weight / (60 + place))
)

exercise.mistake("the weights are ignored", hint="weight / (k + place).")(
    _made(lambda weight, k, place: 1 / (k + place))
)

exercise.mistake("k + place is multiplied by the weight", hint="weight / (k + place).")(
    _made(lambda weight, k, place: 1 / (weight * (k + place)) if weight else 0.0)
)

exercise.mistake("places are added up", hint="An item that one list lacks would win. Add 1 / (k + place).")(
    _made(lambda weight, k, place: k + place)
)

exercise.mistake(
    "an item that stands in a ranking twice counts twice", hint="Each ranking gives an item one place, its best."
)(_made(places=lambda items: [(item, place) for place, item in enumerate(items, 1)]))

exercise.mistake("an item that stands in a ranking twice counts at its worse place", hint="Its best place counts.")(
    _made(places=lambda items: list({item: place for place, item in enumerate(items, 1)}.items()))
)

exercise.mistake(
    "repeated items are taken out before places are counted", hint="Items after a repeated one keep their places."
)(_made(places=lambda items: [(item, place) for place, item in enumerate(dict.fromkeys(items), 1)]))

exercise.mistake("items of score 0 are left out", hint="Each item that is ranked comes once, a weight of 0 or not.")(
    _made(order=lambda sums: [pair for pair in sorted(sums.items(), key=lambda pair: -pair[1]) if pair[1] > 0])
)

exercise.mistake("an item's best place alone counts", hint="The sum over the rankings that hold it.")(
    lambda rankings, k=60, weights=None: sorted(
        (
            (
                item,
                max(
                    (
                        w / (k + each.index(item) + 1)
                        for w, each in zip(weights or [1.0] * len(rankings), rankings, strict=True)
                        if item in each
                    )
                ),
            )
            for item in dict.fromkeys(item for each in rankings for item in each)
        ),
        key=lambda pair: -pair[1],
    )
)

exercise.mistake(
    "each weight is divided by the sum of all, given or not", hint="The plain weights; without any, 1 each."
)(_made(weigh=lambda weights, n: _shares([1.0] * n if weights is None else weights)))

exercise.mistake("weights that are all 0 count as none", hint="None alone means that each weighs 1.")(
    _made(weigh=lambda weights, n: weights if weights and any(weights) else [1.0] * n)
)


def _shares(weights):
    total = sum(weights)
    return [weight / total if total else weight for weight in weights]


exercise.mistake("places are counted from 2", hint="enumerate(ranking, 1) has counted from 1 already: k + place.")(
    _made(gain=lambda weight, k, place: weight / (k + place + 1))
)

exercise.mistake("the sums are divided by the sum of the weights", hint="The plain sums.")(
    lambda rankings, k=60, weights=None: [
        (item, score / (sum(weights) if weights else 1)) for item, score in right(rankings, k, weights)
    ]
)

exercise.mistake("the lowest score comes first", hint="Best first.")(
    _made(order=lambda sums: sorted(sums.items(), key=lambda pair: pair[1]))
)

exercise.mistake("items come in the order in which they were met", hint="Sort them by their sums.")(
    _made(order=lambda sums: list(sums.items()))
)

exercise.mistake("among equal scores the last met comes first", hint="sorted is stable, reverse=True included.")(
    _made(order=lambda sums: sorted(sums.items(), key=lambda pair: pair[1])[::-1])
)

exercise.mistake("among equal scores the alphabet decides", hint="Who is met first, reading list after list.")(
    _made(order=lambda sums: sorted(sums.items(), key=lambda pair: (-pair[1], str(pair[0]))))
)

exercise.mistake(
    "equal scores come as they are met place by place, all rankings side by side",
    hint="Who is met first, reading list after list.",
)(
    lambda rankings, k=60, weights=None: sorted(
        right(rankings, k, weights),
        key=lambda pair: (-pair[1], min((r.index(pair[0]), i) for i, r in enumerate(rankings) if pair[0] in r)),
    )
)

exercise.mistake("the scores are scaled so that they add up to 1", hint="The plain sums.")(
    _made(
        order=lambda sums: [
            (item, score / sum(sums.values()))
            for item, score in right([list(sums)]) and sorted(sums.items(), key=lambda pair: -pair[1])
        ]
    )
)


@exercise.mistake("the sums are divided by the number of rankings", hint="The plain sums.")
def fusion_mean(rankings, k=60, weights=None):
    return [(item, score / len(rankings)) for item, score in right(rankings, k, weights)]


@exercise.mistake("only items that stand in every ranking are kept", hint="What a ranking lacks gets nothing from it.")
def fusion_of_common(rankings, k=60, weights=None):
    return [(item, score) for item, score in right(rankings, k, weights) if all(item in each for each in rankings)]


@exercise.mistake("items alone are given back", hint="Pairs (item, score).")
def fusion_items(rankings, k=60, weights=None):
    return [item for item, _ in right(rankings, k, weights)]


exercise.mistake("rankings of different lengths are cut to the shortest", hint="Each one to its end.")(
    lambda rankings, k=60, weights=None: right([each[: min(map(len, rankings))] for each in rankings], k, weights)
)


@exercise.mistake("only the best ten are given back", hint="All items.")
def fusion_ten(rankings, k=60, weights=None):
    return right(rankings, k, weights)[:10]


exercise.alternative(right)


@exercise.alternative
def fusion_by_items(rankings, k=60, weights=None):
    """One item at a time."""
    weights = weights if weights is not None else [1] * len(rankings)
    known = list(dict.fromkeys(item for each in rankings for item in each))

    def score(item):
        return sum(w / (k + each.index(item) + 1) for w, each in zip(weights, rankings, strict=True) if item in each)

    return [[item, score(item)] for item in sorted(known, key=score, reverse=True)]
