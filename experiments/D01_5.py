"""D01.5: what are rules that somebody wrote down worth to a reward model, in labels?"""

from __future__ import annotations

import functools

import numpy as np
import torch

from experiments.preferring import (
    POOL,
    SIZES,
    UNLABELED,
    fitted,
    gain,
    images,
    pairs,
    pictures,
    points,
    pool,
    right,
    worth,
)
from labkit.experiment import Experiment

FEW, INK = 200, 0.35
ALONE, MAJORITY, WEIGHTED = "labels alone", "rules, one vote each", "rules, weighted by the labels"
TRUTH, CHANCE = "the truth, where a rule votes", "rules that vote by chance"

experiment = Experiment(
    claim="D01.5",
    question="What are rules that somebody wrote down worth to a reward model, in labels?",
    arms={
        ALONE: {},
        MAJORITY: {"rules": "majority"},
        WEIGHTED: {"rules": "weighted"},
        TRUTH: {"rules": "truth"},
        CHANCE: {"rules": "chance"},
        "cut short": {"rules": "weighted", "sizes": (100,)},
    },
    seeds=range(6),
    shows=TRUTH,
    shows_not=CHANCE,
    live=("cut short", 0),
    within={"right": 0.06, "covered": 0.1, "hold": 0.15},
)


@functools.cache
def read() -> torch.Tensor:
    """What each rule takes each picture for, int64 [rules, 1797]: a digit, or -1 where it says nothing."""
    from scipy import ndimage

    seen = pictures()[0]
    ink = seen > INK
    found = []
    for picture in ink.numpy():
        parts, count = ndimage.label(np.pad(~picture, 1, constant_values=True))  # a hole is paper cut off from outside
        inside = [np.nonzero(parts == part)[0] - 1 for part in range(1, count + 1) if part != parts[0, 0]]
        one = inside[0].mean() if len(inside) == 1 else np.nan
        wide = len(inside) == 1 and 2.8 <= one <= 4.2 and len(inside[0]) >= 3
        found.append([8 if len(inside) == 2 else -1, 0 if wide else -1, 9 if one < 2.8 else -1, 6 if one > 4.2 else -1])
    thin = torch.where(ink.any(1).sum(1) <= 4, 1, -1)
    bar = (seen[:, :2].sum(2).amax(1) > 3) & ~ink[:, 6:, 5:].any(2).any(1)
    return torch.cat([torch.tensor(found).T, torch.stack([thin, torch.where(bar, 7, -1)])])


def votes(couples: torch.Tensor) -> torch.Tensor:
    """What each rule says of pairs, int64 [pairs, rules]: 1 the first is more, 0 the second, -1 nothing.

    A rule that knows one of both pictures takes that for the larger digit if it is above 4, and else the other.
    """
    first, second = read()[:, couples[:, 0]].T, read()[:, couples[:, 1]].T
    one = (first >= 0) != (second >= 0)
    return torch.where(one, torch.where(first >= 0, first > 4, second < 5).long(), -1)


def weighted(said: torch.Tensor, accuracy: torch.Tensor) -> torch.Tensor:
    """The probability that the first is more, [pairs], if the rules err independently of one another."""
    weight = accuracy.logit()
    return torch.where(said < 0, 0.0, (2 * said - 1) * weight).sum(1).sigmoid()


@experiment.measure
def measure(seed, rules=None, sizes=SIZES):
    """Held-out pairs in the right order, by the number of labels; the share that rules cover, and their hits."""
    dice, couples, answers = pool(seed)
    spare = pairs(dice, UNLABELED, 0, POOL)
    digits, said = pictures()[1][spare], votes(spare)
    covered, truth = (said >= 0).any(1), (digits[:, 0] > digits[:, 1]).float()
    found = {"right": [], "hold": []}
    for size in sizes:
        known, label = images(couples[:size]), answers[:size]
        if rules:
            own = votes(couples[:size])
            hits = ((own == label[:, None]) & (own >= 0)).sum(0)
            accuracy = (hits + 2) / ((own >= 0).sum(0) + 3)  # as if each had been right twice in three earlier votes
            chance = {
                "majority": weighted(said, torch.full_like(accuracy, 0.75)),
                "weighted": weighted(said, accuracy),
                "truth": truth,
                "chance": torch.rand(len(truth)),
            }[rules][covered]
            found["hold"].append((((chance > 0.5) == truth[covered]) & (chance != 0.5)).float().mean().item())
            known, label = torch.cat([known, images(spare[covered])]), torch.cat([label, chance])
        found["right"].append(right(fitted(seed, known, label), "test"))
    return found | {"covered": covered.float().mean().item()} if rules else {"right": found["right"]}


@experiment.conclude
def conclude(found):
    """Correct if rules gain with few labels, weighted or not; wrong if both lose; imprecise otherwise."""
    gained = {arm: gain(found, arm, ALONE, FEW) for arm in (MAJORITY, WEIGHTED, TRUTH, CHANCE)}
    ways = [gained[MAJORITY], gained[WEIGHTED]]
    lost = all(way.below(0) for way in ways)
    return {
        "verdict": "correct" if any(way.above(0) for way in ways) else "wrong" if lost else "imprecise",
        "controls": {"shows": gained[TRUTH].above(0), "shows_not": not gained[CHANCE].above(0)},
        "numbers": {
            "majority": points(gained[MAJORITY]),
            "weighted": points(gained[WEIGHTED]),
            "late": points(gain(found, WEIGHTED, ALONE, SIZES[-1], above=FEW)),
            "weighted_of_25": f"{worth(found, WEIGHTED, SIZES[0]):.0f}",
            "weighted_of_25_range": found.factor(lambda seed: worth(seed, WEIGHTED, SIZES[0])).text(".0f"),
            "majority_of_25": f"{worth(found, MAJORITY, SIZES[0]):.0f}",
            "majority_of_25_range": found.factor(lambda seed: worth(seed, MAJORITY, SIZES[0])).text(".0f"),
            "covered": f"{np.mean(found.each(WEIGHTED, 'covered')):.0%}".replace("%", " %"),
            "hold": f"{np.mean(found.each(WEIGHTED, 'hold')):.0%}".replace("%", " %"),
        },
    }
