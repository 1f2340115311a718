"""A10.4: does thawing one layer after the other keep more of the old task than training all of them at once?"""

from __future__ import annotations

from experiments.forgetting import STEPS, best, judged, learn, old_self, percent, points, replayed, task, widened
from labkit.experiment import Experiment

DECAY = 2.6
BEFORE, AT_ONCE, GRADUAL, RATES_ALONE = "before", "all at once", "gradual", "lower rates below, all at once"
OWN_AT_ONCE, OWN_GRADUAL = "all at once, own outputs", "gradual, own outputs"
REPLAY = "all at once, replay of 100"
_RATES = (1e-3, 3e-3, 1e-2, 3e-2)

experiment = Experiment(
    claim="A10.4",
    question="Does gradual unfreezing keep more of the old task than training all layers at once?",
    arms={
        BEFORE: {"steps": 0},
        AT_ONCE: {},
        RATES_ALONE: {"every": 0},
        GRADUAL: {"every": STEPS // 3},
        OWN_AT_ONCE: {"own": True},
        OWN_GRADUAL: {"every": STEPS // 3, "own": True},
        REPLAY: {"replay": 100},
    },
    seeds=range(8),
    shows=REPLAY,
    shows_not="None: the arms differ in the order of training alone, and whether that keeps anything is the question.",
    live=(GRADUAL, 0),
    within={"old": 0.08, "new": 0.05, "both": 0.05, "rate": 1.0},
)


@experiment.measure
def measure(seed, steps=STEPS, every=None, own=False, replay=0):
    """Shares of old and new test digits that are read right, with the rate that validation digits chose."""
    before = old_self(seed)
    if not steps:
        return judged(before, "test", seed) | {"rate": 0.0}
    start = widened(before, seed) if own else before
    loss = replayed(seed, replay) if replay else lambda net, dice: task(net, seed, dice, own)

    def rates(top):
        """Layers above have the larger rates; with `every` steps a stage, lower ones wait for their turn."""
        if every is None:
            return None
        return lambda step: [top / DECAY**below if step >= below * every else 0.0 for below in (2, 1, 0)]

    trials = [({"rate": rate}, learn(start, loss, rate, steps, seed, rates(rate))) for rate in _RATES]
    return best(trials, seed, own)


@experiment.conclude
def conclude(found):
    """Correct if GRADUAL surely reads more of both tasks, with shared and with own outputs; imprecise if so in one."""
    kept = {"shared": points(found, GRADUAL, "both", AT_ONCE), "own": points(found, OWN_GRADUAL, "both", OWN_AT_ONCE)}
    ways = sum(each.above(0) for each in kept.values())
    names = {
        "before": BEFORE,
        "at_once": AT_ONCE,
        "gradual": GRADUAL,
        "rates": RATES_ALONE,
        "own_at_once": OWN_AT_ONCE,
        "own_gradual": OWN_GRADUAL,
    }
    return {
        "verdict": {2: "correct", 1: "imprecise", 0: "wrong"}[ways],
        "controls": {"shows": points(found, REPLAY, "both", AT_ONCE).above(0)},
        "numbers": {
            f"{name}_{of}": percent(found, arm, of) for name, arm in names.items() for of in ("old", "new", "both")
        },
    }
