"""Preferences whose truth is known: of two handwritten digits people prefer the one that stands for more.

Labels follow Bradley and Terry with the digit as strength, so that 3 against 4 is often judged wrong and 1 against 9
never. A reward model sees pixels alone. It is tested on pairs of other pictures, against the truth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from labkit.experiment import Evidence, Interval, interval

SIZES = (25, 50, 100, 200, 400, 800, 1600)
UNLABELED = 2000  # pairs that nobody has been asked about
POOL, VALIDATION = 900, 300  # pictures to learn from, and to choose rates and stopping by; the rest is the test
STEPS, EVERY, BATCH = 240, 20, 512
CENTERS = 60


@functools.cache
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """All of scikit-learn's digits in one shuffled order: float32 [1797, 8, 8] from 0 to 1, int64 [1797]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return torch.tensor(found.images[order] / 16, dtype=torch.float32), torch.tensor(found.target[order])


def pairs(dice: np.random.Generator, count: int, low: int, high: int) -> torch.Tensor:
    """[count, 2] pictures between low and high, of different digits."""
    digits, found = pictures()[1], []
    while len(found) < count:
        a, b = dice.integers(low, high, 2).tolist()
        if digits[a] != digits[b]:
            found.append((a, b))
    return torch.tensor(found)


def asked(dice: np.random.Generator, couples: torch.Tensor) -> torch.Tensor:
    """What people answer, float32 [count]: 1 if they prefer the first picture."""
    gap = pictures()[1][couples].float()
    chance = torch.sigmoid(gap[:, 0] - gap[:, 1])
    return (torch.tensor(dice.random(len(couples)), dtype=torch.float32) < chance).float()


def images(couples: torch.Tensor) -> torch.Tensor:
    """[count, 2, 8, 8]."""
    return pictures()[0][couples]


@functools.cache
def held_out(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that no arm learns from: their pictures, and whether the first digit is the larger one."""
    low, high = {"validation": (POOL, POOL + VALIDATION), "test": (POOL + VALIDATION, 1797)}[name]
    couples = pairs(np.random.default_rng(high), 2000, low, high)
    digits = pictures()[1][couples]
    return images(couples), digits[:, 0] > digits[:, 1]


def on_pixels() -> nn.Module:
    """A reward model that starts from nothing: a picture in, one number out."""
    return nn.Sequential(nn.Flatten(-2), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(-2))


def on_clusters() -> nn.Module:
    """One that starts from what the pool's pictures look like, without any label: a linear model of near clusters."""
    head = nn.Linear(CENTERS, 1)
    nn.init.zeros_(head.weight)
    return nn.Sequential(nn.Flatten(-2), _Nearness(), head, nn.Flatten(-2))


class _Nearness(nn.Module):
    """How near a picture is to each cluster of the pool, as shares of 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (-2 * torch.cdist(x, _centers()) ** 2).softmax(-1)


@functools.cache
def _centers() -> torch.Tensor:
    from sklearn.cluster import KMeans

    seen = pictures()[0][:POOL].flatten(1).numpy()
    return torch.tensor(KMeans(CENTERS, n_init=4, random_state=0).fit(seen).cluster_centers_)


RATES = {on_pixels: (3e-3, 1e-2), on_clusters: (3e-2, 3e-1)}


def margins(net: nn.Module, seen: torch.Tensor) -> torch.Tensor:
    """The first picture's reward minus the second's, [count]."""
    rewards = net(seen)
    return rewards[:, 0] - rewards[:, 1]


def right(net: nn.Module, name: str) -> float:
    """The share of held-out pairs that a reward model puts in the right order."""
    seen, truth = held_out(name)
    with torch.no_grad():
        return ((margins(net, seen) > 0) == truth).float().mean().item()


def fitted(seed: int, seen: torch.Tensor, wanted: torch.Tensor, make: Callable[[], nn.Module] = on_pixels) -> nn.Module:
    """A reward model, the best of both rates and of all stops by the validation pairs. `wanted`: probabilities."""
    best, kept = -1.0, None
    for rate in RATES[make]:
        torch.manual_seed(seed)
        net = make()
        optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.01)
        for step in range(1, STEPS + 1):
            at = torch.randperm(len(seen))[:BATCH]
            loss = F.binary_cross_entropy_with_logits(margins(net, seen[at]), wanted[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % EVERY == 0 and (score := right(net, "validation")) > best:
                best, kept = score, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(kept)
    return net


def pool(seed: int) -> tuple[np.random.Generator, torch.Tensor, torch.Tensor]:
    """The dice of a seed, as many random pairs as the largest number of labels, and what people said of them."""
    dice = np.random.default_rng([seed, 1])
    couples = pairs(dice, SIZES[-1], 0, POOL)
    return dice, couples, asked(dice, couples)


def gain(found: Evidence, arm: str, minus: str, upto: int, above: int = 0) -> Interval:
    """What an arm gains over another, in points, averaged over numbers of labels above `above` and up to `upto`."""
    chosen = slice(sum(size <= above for size in SIZES), sum(size <= upto for size in SIZES))
    over = zip(found.each(arm, "right"), found.each(minus, "right"), strict=True)
    return interval([100 * float(np.mean(a[chosen]) - np.mean(b[chosen])) for a, b in over])


def worth(found: Evidence, arm: str, size: int, alone: str = "labels alone") -> float:
    """How many labels alone do as well as an arm with `size` of them; means over the seeds, between sizes by their log.

    Beyond the curve of labels alone it is the largest or the smallest number there.
    """
    curve = np.maximum.accumulate(np.mean(found.each(alone, "right"), axis=0))
    reached = np.mean(found.each(arm, "right"), axis=0)[SIZES.index(size)]
    return float(np.exp(np.interp(reached, curve, np.log(SIZES[: len(curve)]))))


def points(gained: Interval) -> str:
    """An interval of points for a sentence."""
    return gained.text("+.1f").replace("-", "−")


def moved(seen: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Pictures moved by whole pixels; what comes in is empty."""
    return F.pad(seen, (1, 1, 1, 1))[..., 1 - down : 9 - down, 1 - right : 9 - right]


def turned(seen: torch.Tensor, degrees: float) -> torch.Tensor:
    """Pictures [count, 2, 8, 8] turned about their middle."""
    angle = torch.tensor(degrees * torch.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin, cos * 0]), torch.stack([sin, cos, cos * 0])])
    flat = seen.flatten(0, 1)[:, None]
    grid = F.affine_grid(matrix.expand(len(flat), 2, 3), flat.shape, align_corners=False)
    return F.grid_sample(flat, grid, align_corners=False).view_as(seen)


def cropped(seen: torch.Tensor) -> torch.Tensor:
    """The middle six by six pixels, made large again."""
    inner = seen.flatten(0, 1)[:, None, 1:7, 1:7]
    return F.interpolate(inner, size=(8, 8), mode="bilinear", align_corners=False).view_as(seen)


CHANGES = {
    "moved by a pixel": lambda x: [moved(x, *by) for by in ((0, 1), (0, -1), (1, 0), (-1, 0))],
    "turned by 10 degrees": lambda x: [turned(x, 10), turned(x, -10)],
    "cropped": lambda x: [cropped(x)],
    "mirrored": lambda x: [x.flip(-1)],
    "turned by 180 degrees": lambda x: [x.flip(-1, -2)],
}


def copied(seen: torch.Tensor, wanted: torch.Tensor, change: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs, and changed copies of them with the same label."""
    copies = [seen, *CHANGES[change](seen)]
    return torch.cat(copies), wanted.repeat(len(copies))
