"""A10.3: which regularization keeps the old task: a pull to zero, to the start, or to the start where it matters?"""

from __future__ import annotations

import torch

from experiments.forgetting import (
    RATES,
    best,
    digits,
    fisher,
    fresh,
    judged,
    learn,
    old_self,
    percent,
    points,
    pulled,
    replayed,
    state,
    task,
)
from labkit.experiment import Experiment

BEFORE, ALONE, DECAY, TO_START, EWC = "before", "no penalty", "pull to zero", "pull to the start (L2-SP)", "EWC"
SHUFFLED, ELSEWHERE, REPLAY, MEAN = "EWC, Fisher shuffled", "pull to a random start", "replay of 100", "average"
_WEAK, _STRONG = (1e-4, 1e-3, 1e-2), (30.0, 300.0, 3000.0)
_PULL = (0.01, 0.05, 0.2)

experiment = Experiment(
    claim="A10.3",
    question="Which penalty keeps the old task: a pull to zero, to the start, or to the start where it matters?",
    arms={
        BEFORE: {"to": "before"},
        ALONE: {},
        DECAY: {"to": "zero", "strengths": _WEAK},
        TO_START: {"to": "start", "strengths": _PULL},
        EWC: {"to": "start", "weigh": "fisher", "strengths": _STRONG},
        SHUFFLED: {"to": "start", "weigh": "shuffled", "strengths": _STRONG},
        ELSEWHERE: {"to": "elsewhere", "strengths": _PULL},
        REPLAY: {"to": "replay"},
        MEAN: {"to": "mean", "strengths": (0.3, 0.5, 0.7, 0.85)},
    },
    seeds=range(8),
    shows=REPLAY,
    shows_not=ELSEWHERE,
    live=(ALONE, 0),
    within={"old": 0.08, "new": 0.05, "both": 0.05, "rate": 1.0, "strength": 3000.0},
)


@experiment.measure
def measure(seed, to=None, weigh=None, strengths=(0.0,)):
    """Shares of old and new test digits that are read right; validation digits chose the rate and the strength."""
    before = old_self(seed)
    if to == "before":
        return judged(before, "test", seed) | {"rate": 0.0, "strength": 0.0}
    start = state(before)
    goals = {"zero": {n: torch.zeros_like(w) for n, w in start.items()}, "elsewhere": state(fresh(seed + 50))}
    weights = fisher(before, digits("old", seed)[0][:200]) if weigh else None
    if weigh == "shuffled":
        dice = torch.Generator().manual_seed(seed)
        weights = {
            n: w.flatten()[torch.randperm(w.numel(), generator=dice)].reshape(w.shape) for n, w in weights.items()
        }
    penalty = pulled(goals.get(to, start), weights)

    def loss(strength):
        if to == "replay":
            return replayed(seed, 100)
        if to in (None, "mean"):
            return lambda net, dice: task(net, seed, dice)
        return lambda net, dice: task(net, seed, dice) + strength * penalty(net)

    trials = []
    for rate in RATES:
        model = learn(before, loss(0.0), rate, seed=seed) if to == "mean" else None
        for strength in strengths:
            made = _between(before, model, strength) if to == "mean" else learn(before, loss(strength), rate, seed=seed)
            trials.append(({"rate": rate, "strength": strength}, made))
    return best(trials, seed)


def _between(before, after, share):
    """The model that lies a share of the way from one to the other."""
    made = fresh(0)
    ends = state(before), state(after)
    made.load_state_dict({n: w.lerp(ends[1][n], share) for n, w in ends[0].items()})
    return made


@experiment.conclude
def conclude(found):
    """Correct if DECAY surely reads more of both tasks than ALONE; imprecise if it doesn't, and TO_START or EWC
    do; else wrong."""
    kept = {arm: points(found, arm, "both", ALONE) for arm in found.arms}
    if kept[DECAY].above(0):
        word = "correct"
    else:
        word = "imprecise" if kept[TO_START].above(0) or kept[EWC].above(0) else "wrong"
    names = {
        "before": BEFORE,
        "alone": ALONE,
        "decay": DECAY,
        "start": TO_START,
        "ewc": EWC,
        "shuffled": SHUFFLED,
        "replay": REPLAY,
        "mean": MEAN,
    }
    return {
        "verdict": word,
        "controls": {"shows": kept[REPLAY].above(0), "shows_not": not kept[ELSEWHERE].above(0)},
        "numbers": {
            f"{name}_{of}": percent(found, arm, of) for name, arm in names.items() for of in ("old", "new", "both")
        },
    }
