"""A10.2: what do frozen lower layers protect, where the tasks share their outputs and where they don't?"""

from __future__ import annotations

import copy

from experiments.forgetting import RATES, best, judged, learn, old_self, percent, points, replayed, task, widened
from labkit.experiment import Experiment

BEFORE, ALL, TOP, UPPER, BOTTOM = "before", "all layers", "top layer", "upper two", "bottom layer"
OWN_ALL, OWN_TOP = "all layers, own outputs", "top layer, own outputs"
REPLAY = "all layers, replay of 100"
_HIGH = (1e-2, 3e-2, 1e-1)  # a single layer may want larger steps

experiment = Experiment(
    claim="A10.2",
    question="Does tuning the top layers alone keep the old task, and what does it cost the new one?",
    arms={
        BEFORE: {"steps": 0},
        ALL: {},
        UPPER: {"trained": (2, 4)},
        TOP: {"trained": (4,)},
        BOTTOM: {"trained": (0,)},
        OWN_ALL: {"own": True},
        OWN_TOP: {"trained": (4,), "own": True},
        REPLAY: {"replay": 100},
    },
    seeds=range(8),
    shows=REPLAY,
    shows_not="None: every arm trains something, and which of them keep the old task is the question.",
    live=(TOP, 0),
    within={"old": 0.08, "new": 0.05, "both": 0.05, "rate": 1.0},
)


@experiment.measure
def measure(seed, steps=150, trained=(0, 2, 4), own=False, replay=0):
    """Shares of old and new test digits that are read right, with the rate that validation digits chose."""
    before = old_self(seed)
    if not steps:
        return judged(before, "test", seed) | {"rate": 0.0}
    start = widened(before, seed) if own else copy.deepcopy(before)
    for i, layer in enumerate(start):
        layer.requires_grad_(i in trained)
    loss = replayed(seed, replay) if replay else lambda net, dice: task(net, seed, dice, own)
    rates = (*RATES, *_HIGH)
    return best([({"rate": rate}, learn(start, loss, rate, steps, seed)) for rate in rates], seed, own)


@experiment.conclude
def conclude(found):
    """Correct if TOP surely reads more of both tasks than ALL, with shared and with own outputs; imprecise if in one;
    else wrong."""
    kept = {"shared": points(found, TOP, "both", ALL), "own": points(found, OWN_TOP, "both", OWN_ALL)}
    ways = sum(each.above(0) for each in kept.values())
    names = {
        "before": BEFORE,
        "all": ALL,
        "upper": UPPER,
        "top": TOP,
        "bottom": BOTTOM,
        "own_all": OWN_ALL,
        "own_top": OWN_TOP,
    }
    return {
        "verdict": {2: "correct", 1: "imprecise", 0: "wrong"}[ways],
        "controls": {"shows": points(found, REPLAY, "both", ALL).above(0)},
        "numbers": {
            f"{name}_{of}": percent(found, arm, of) for name, arm in names.items() for of in ("old", "new", "both")
        },
    }
