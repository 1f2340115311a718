"""D01.4: what are unlabeled pictures worth to a reward model, and which pairs should be labeled next?"""

from __future__ import annotations

import numpy as np
import torch

from experiments.preferring import (
    POOL,
    SIZES,
    UNLABELED,
    asked,
    fitted,
    gain,
    images,
    margins,
    on_clusters,
    on_pixels,
    pairs,
    pictures,
    points,
    pool,
    right,
    worth,
)
from labkit.experiment import Experiment

FEW = 200  # labels: up to here they count as few
SURE, COMMITTEE = 0.95, 4
ALONE, ITSELF, ALL, CLUSTERS = "labels alone", "pseudo-labels", "pseudo-labels, all", "clusters of unlabeled pictures"
PEOPLE, CHANCE = "the same pairs, labeled by people", "pseudo-labels, drawn"
CLOSEST, DISAGREE = "active: closest pairs", "active: models disagree"

experiment = Experiment(
    claim="D01.4",
    question="What are unlabeled pictures worth to a reward model, and which pairs should be labeled next?",
    arms={
        ALONE: {},
        ITSELF: {"by": "itself"},
        ALL: {"by": "itself", "sure": 0.5},
        CLUSTERS: {"clusters": True},
        PEOPLE: {"by": "people", "rounds": 1},
        CHANCE: {"by": "chance", "rounds": 1},
        CLOSEST: {"committee": 1},
        DISAGREE: {"committee": COMMITTEE},
        "cut short": {"by": "itself", "sizes": (100,)},
    },
    seeds=range(6),
    shows=PEOPLE,
    shows_not=CHANCE,
    live=("cut short", 0),
    within={"right": 0.08, "used": 0.3, "hold": 0.2},
)


@experiment.measure
def measure(seed, by=None, sure=SURE, rounds=2, clusters=False, committee=0, sizes=SIZES):
    """Held-out pairs in the right order, by the number of labels; of pseudo-labels the share used, and that hold."""
    dice, couples, answers = pool(seed)
    if committee:
        return {"right": _bought(seed, dice, couples, answers, committee, sizes)}
    spare = pairs(dice, UNLABELED, 0, POOL)
    people, digits = asked(dice, spare), pictures()[1][spare]
    found = {"right": [], "used": [], "hold": []}
    for size in sizes:
        known, said = images(couples[:size]), answers[:size]
        net = fitted(seed, known, said, on_clusters if clusters else on_pixels)
        for _ in range(rounds if by else 0):
            with torch.no_grad():
                chance = margins(net, images(spare)).sigmoid()
            used = torch.maximum(chance, 1 - chance) > sure
            label = {"itself": chance, "people": people, "chance": torch.rand(len(people))}[by].round()[used]
            net = fitted(seed, torch.cat([known, images(spare[used])]), torch.cat([said, label]))
        if by:
            found["used"].append(used.float().mean().item())
            hold = label == (digits[used][:, 0] > digits[used][:, 1])
            found["hold"].append(hold.float().sum().item() / max(1, len(hold)))
        found["right"].append(right(net, "test"))
    return {name: values for name, values in found.items() if values}


def _bought(seed, dice, couples, answers, committee, sizes):
    """Labels bought in rounds: each time for the pairs about which the models are least sure, or least agreed."""
    have, said, found = couples[: sizes[0]], answers[: sizes[0]], []
    for size in sizes:
        if size > len(have):
            offered = pairs(dice, UNLABELED + size, 0, POOL)
            nets = [fitted(seed + 100 * k, images(have), said) for k in range(committee)]
            with torch.no_grad():
                chance = torch.stack([margins(net, images(offered)).sigmoid() for net in nets])
            unsure = _entropy(chance.mean(0)) - (_entropy(chance).mean(0) if committee > 1 else 0)
            new = offered[unsure.argsort(descending=True)[: size - len(have)]]
            have, said = torch.cat([have, new]), torch.cat([said, asked(dice, new)])
        found.append(right(fitted(seed, images(have), said), "test"))
    return found


def _entropy(chance):
    return torch.special.entr(chance) + torch.special.entr(1 - chance)


@experiment.conclude
def conclude(found):
    """Correct if one of the ways gains with few labels, wrong if all lose, for whole intervals; imprecise otherwise."""
    gained = {arm: gain(found, arm, ALONE, FEW) for arm in found.arms if arm not in (ALONE, "cut short")}
    ways = [gained[arm] for arm in (ITSELF, ALL, CLUSTERS)]
    lost = all(way.below(0) for way in ways)
    sure = {name: np.mean(found.each(ITSELF, name), axis=0)[SIZES.index(FEW)] for name in ("used", "hold")}
    return {
        "verdict": "correct" if any(way.above(0) for way in ways) else "wrong" if lost else "imprecise",
        "controls": {"shows": gained[PEOPLE].above(0), "shows_not": not gained[CHANCE].above(0)},
        "numbers": {
            "pseudo": points(gained[ITSELF]),
            "pseudo_all": points(gained[ALL]),
            "clusters": points(gained[CLUSTERS]),
            "people": points(gained[PEOPLE]),
            "closest": points(gain(found, CLOSEST, ALONE, SIZES[-1])),
            "disagree": points(gain(found, DISAGREE, ALONE, SIZES[-1])),
            "clusters_of_200": f"{worth(found, CLUSTERS, FEW):.0f}",
            "closest_of_200": f"{worth(found, CLOSEST, FEW):.0f}",
            "used": f"{sure['used']:.0%}".replace("%", " %"),
            "hold": f"{sure['hold']:.0%}".replace("%", " %"),
        },
    }
