"""A10.1: does a model that is held to its old self keep the old task, and about which inputs must it be held?"""

from __future__ import annotations

import torch

from experiments.forgetting import (
    RATES,
    best,
    digits,
    fresh,
    judged,
    keeps_to,
    learn,
    old_self,
    percent,
    points,
    replayed,
    task,
    widened,
)
from labkit.experiment import Experiment

STRENGTHS = (0.03, 0.3, 1.0, 3.0, 10.0, 30.0)
LOST = 5.0  # points of old accuracy: what is surely less than that counts as kept. Stated before the run.
BEFORE, ALONE, ON_NEW, ON_NOISE, ON_OLD = "before", "new task alone", "on new inputs", "on noise", "on old inputs"
OWN, OWN_ALONE = "on new inputs, own outputs", "new task alone, own outputs"
NOBODY, REPLAY = "on old inputs, an untrained self", "replay of 100 labelled"

experiment = Experiment(
    claim="A10.1",
    question="Does distilling from the old self keep the old task, and on which inputs?",
    arms={
        BEFORE: {"steps": 0},
        ALONE: {},
        ON_NEW: {"inputs": "new"},
        ON_NOISE: {"inputs": "noise"},
        ON_OLD: {"inputs": "old"},
        OWN_ALONE: {"own": True},
        OWN: {"inputs": "new", "own": True},
        NOBODY: {"inputs": "old", "untrained": True},
        REPLAY: {"replay": 100},
    },
    seeds=range(8),
    shows=REPLAY,
    shows_not=NOBODY,
    live=(ALONE, 0),
    within={"old": 0.08, "new": 0.05, "both": 0.05, "rate": 1.0, "strength": 30.0},
)


@experiment.measure
def measure(seed, steps=150, inputs=None, own=False, untrained=False, replay=0):
    """Shares of old and new test digits that are read right; validation digits chose the rate and the strength."""
    before = old_self(seed)
    if not steps:
        return judged(before, "test", seed) | {"rate": 0.0, "strength": 0.0}
    start = widened(before, seed) if own else before
    teacher = fresh(seed + 50) if untrained else before
    upright, turned = digits("old", seed)[0], digits("train", seed)[1]
    noise = torch.rand(600, 64, generator=torch.Generator().manual_seed(seed))
    shown = {"old": upright, "new": turned, "noise": noise, None: None}[inputs]

    def loss(strength):
        def of(net, dice):
            if replay:
                return replayed(seed, replay)(net, dice)
            first = task(net, seed, dice, own)
            return first if shown is None else first + strength * keeps_to(teacher, shown, dice)(net)

        return of

    knobs = [(rate, strength) for rate in RATES for strength in (STRENGTHS if inputs else (0.0,))]
    trials = [({"rate": r, "strength": s}, learn(start, loss(s), r, steps, seed)) for r, s in knobs]
    return best(trials, seed, own)


@experiment.conclude
def conclude(found):
    """Correct if ON_NEW surely loses less than LOST; imprecise if it doesn't, and ON_OLD surely reads more of both
    than ALONE; else wrong."""
    lost = points(found, BEFORE, "old", ON_NEW)
    kept = {arm: points(found, arm, "both", ALONE) for arm in (ON_NEW, ON_NOISE, ON_OLD, NOBODY, REPLAY)}
    word = "correct" if lost.below(LOST) else "imprecise" if kept[ON_OLD].above(0) else "wrong"
    names = {
        "before": BEFORE,
        "alone": ALONE,
        "on_new": ON_NEW,
        "on_noise": ON_NOISE,
        "on_old": ON_OLD,
        "own": OWN,
        "own_alone": OWN_ALONE,
        "replay": REPLAY,
    }
    return {
        "verdict": word,
        "controls": {"shows": kept[REPLAY].above(0), "shows_not": not kept[NOBODY].above(0)},
        "numbers": {
            f"{name}_{of}": percent(found, arm, of) for name, arm in names.items() for of in ("old", "new", "both")
        },
    }
