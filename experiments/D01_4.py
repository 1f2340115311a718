"""D01.4: what are unlabeled pictures worth to a reward model, and which pairs should be labeled next?"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from experiments.preferring import (
    CENTERS,
    POOL,
    RATES,
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
SURE = 0.95  # what a pseudo-label has to reach
ALONE, ITSELF, CLUSTERS = "labels alone", "pseudo-labels", "clusters of unlabeled pictures"
OWN = "clusters of the labeled pictures"  # the same model, and no picture without a label
PEOPLE, CHANCE = "the same pairs, labeled by people", "pseudo-labels, drawn"
CLOSEST = "active: the closest pairs"

experiment = Experiment(
    claim="D01.4",
    question="What are unlabeled pictures worth to a reward model, and which pairs should be labeled next?",
    arms={
        ALONE: {},
        ITSELF: {"by": "itself"},
        CLUSTERS: {"clusters": "of all"},
        OWN: {"clusters": "of the labeled"},
        PEOPLE: {"by": "people", "rounds": 1},
        CHANCE: {"by": "chance", "rounds": 1},
        CLOSEST: {"active": True},
        "cut short": {"by": "itself", "sizes": (100,)},
    },
    seeds=range(3),
    shows=PEOPLE,
    shows_not=CHANCE,
    live=("cut short", 0),
    within={"right": 0.08, "used": 0.3, "hold": 0.2},
)


@experiment.measure
def measure(seed, by=None, rounds=2, clusters=None, active=False, sizes=SIZES[:-1]):
    """Held-out pairs in the right order, by the number of labels; of pseudo-labels the share used, and that hold."""
    dice, couples, answers = pool(seed)
    if active:
        return {"right": _bought(seed, dice, couples, answers, sizes)}
    spare = pairs(dice, UNLABELED, 0, POOL)
    people, digits = asked(dice, spare), pictures()[1][spare]
    found = {"right": [], "used": [], "hold": []}
    for size in sizes:
        known, said = images(couples[:size]), answers[:size]
        make = {None: on_pixels, "of all": on_clusters, "of the labeled": _on_clusters_of(couples[:size])}[clusters]
        net = fitted(seed, known, said, make)
        for _ in range(rounds if by else 0):
            with torch.no_grad():
                chance = margins(net, images(spare)).sigmoid()
            used = torch.maximum(chance, 1 - chance) > SURE
            label = {"itself": chance, "people": people, "chance": torch.rand(len(people))}[by].round()[used]
            net = fitted(seed, torch.cat([known, images(spare[used])]), torch.cat([said, label]))
        if by:
            found["used"].append(used.float().mean().item())
            hold = label == (digits[used][:, 0] > digits[used][:, 1])
            found["hold"].append(hold.float().sum().item() / max(1, len(hold)))
        found["right"].append(right(net, "test"))
    return {name: values for name, values in found.items() if values}


class _Near(nn.Module):
    """How near a picture is to each of these centers, as shares of 1."""

    def __init__(self, centers):
        super().__init__()
        self.centers = centers

    def forward(self, x):
        return (-2 * torch.cdist(x, self.centers) ** 2).softmax(-1)


def _on_clusters_of(couples):
    """What makes a model as `on_clusters` does, of these pairs' pictures: as many clusters as those, if fewer."""

    def make():
        from sklearn.cluster import KMeans

        seen = pictures()[0][couples.unique()].flatten(1).numpy()
        found = KMeans(min(CENTERS, len(seen)), n_init=4, random_state=0).fit(seen).cluster_centers_
        head = nn.Linear(len(found), 1)
        nn.init.zeros_(head.weight)
        return nn.Sequential(nn.Flatten(-2), _Near(torch.tensor(found)), head, nn.Flatten(-2))

    RATES[make] = RATES[on_clusters]
    return make


def _bought(seed, dice, couples, answers, sizes):
    """Labels bought in rounds, each time for the pairs about which the model of the round before is least sure."""
    have, said, found, net = couples[: sizes[0]], answers[: sizes[0]], [], None
    for size in sizes:
        if size > len(have):
            offered = pairs(dice, UNLABELED + size, 0, POOL)
            with torch.no_grad():
                closest = margins(net, images(offered)).abs().argsort()[: size - len(have)]
            have, said = torch.cat([have, offered[closest]]), torch.cat([said, asked(dice, offered[closest])])
        net = fitted(seed, images(have), said)
        found.append(right(net, "test"))
    return found


@experiment.conclude
def conclude(found):
    """Correct if one of the ways gains with few labels, wrong if all lose, for whole intervals; imprecise otherwise.

    Clusters are held against the same model on the labeled pictures' own: labels alone go through another model.
    """
    gained = {arm: gain(found, arm, ALONE, FEW) for arm in found.arms if arm not in (ALONE, "cut short")}
    ways = [gained[ITSELF], gain(found, CLUSTERS, OWN, FEW)]
    lost = all(way.below(0) for way in ways)
    sure = {name: np.mean(found.each(ITSELF, name), axis=0)[SIZES.index(FEW)] for name in ("used", "hold")}
    return {
        "verdict": "correct" if any(way.above(0) for way in ways) else "wrong" if lost else "imprecise",
        "controls": {"shows": gained[PEOPLE].above(0), "shows_not": not gained[CHANCE].above(0)},
        "numbers": {
            "pseudo": points(gained[ITSELF]),
            "clusters": points(ways[1]),
            "clusters_over_alone": points(gained[CLUSTERS]),
            "own_over_alone": points(gained[OWN]),
            "people": points(gained[PEOPLE]),
            "closest": points(gain(found, CLOSEST, ALONE, SIZES[-2])),
            "closest_of_200": f"{worth(found, CLOSEST, FEW):.0f}",
            "closest_of_200_range": found.factor(lambda seed: worth(seed, CLOSEST, FEW)).text(".0f"),
            "pseudo_of_200": f"{worth(found, ITSELF, FEW):.0f}",
            "pseudo_of_200_range": found.factor(lambda seed: worth(seed, ITSELF, FEW)).text(".0f"),
            "used": f"{sure['used']:.0%}".replace("%", " %"),
            "hold": f"{sure['hold']:.0%}".replace("%", " %"),
        },
    }
