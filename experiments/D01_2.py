"""D01.2: do changed copies of labeled pairs stand in for labels that nobody bought?"""

from __future__ import annotations

from experiments.preferring import CHANGES, SIZES, copied, fitted, gain, images, points, pool, right, worth
from labkit.experiment import Experiment

ALONE, TWICE, SAME = "labels alone", "as many real labels again", "copies, unchanged"

experiment = Experiment(
    claim="D01.2",
    question="Do changed copies of labeled pairs stand in for labels that nobody bought?",
    arms={
        ALONE: {},
        **{change: {"change": change} for change in CHANGES},
        TWICE: {"times": 2},
        SAME: {"copies": 2},
        "cut short": {"change": "moved by a pixel", "sizes": (100,)},
    },
    seeds=range(8),
    shows=TWICE,
    shows_not=SAME,
    live=("cut short", 0),
    within={"right": 0.06},
)


@experiment.measure
def measure(seed, change=None, times=1, copies=1, sizes=SIZES[:-1]):
    """Held-out pairs in the right order, by the number of labels."""
    _, couples, answers = pool(seed)
    found = []
    for size in sizes:
        seen, wanted = images(couples[: size * times]), answers[: size * times]
        if change:
            seen, wanted = copied(seen, wanted, change)
        found.append(right(fitted(seed, seen.repeat(copies, 1, 1, 1), wanted.repeat(copies)), "test"))
    return {"right": found}


@experiment.conclude
def conclude(found):
    """Correct if all changes gain, wrong if none does, each for its whole interval; imprecise otherwise."""
    gained = {change: gain(found, change, ALONE, SIZES[-2]) for change in CHANGES}
    twice, same = (gain(found, arm, ALONE, SIZES[-2]) for arm in (TWICE, SAME))
    every, none = all(each.above(0) for each in gained.values()), not any(each.above(0) for each in gained.values())
    return {
        "verdict": "correct" if every else "wrong" if none else "imprecise",
        "controls": {"shows": twice.above(0), "shows_not": not same.above(0)},
        "numbers": {change.replace(" ", "_"): points(each) for change, each in gained.items()}
        | {"twice": points(twice), "unchanged": points(same)}
        | {"worth_of_200": f"{worth(found, 'moved by a pixel', 200):.0f}"}
        | {"worth_of_200_range": found.factor(lambda seed: worth(seed, "moved by a pixel", 200)).text(".0f")},
    }
