"""A network that reads upright digits learns to read them turned by 90 degrees: what the experiments on A10 share.

Both tasks can be learned together, since no picture belongs to both. The new task has the old one's ten outputs, or ten
of its own beside them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

STEPS, ROWS, RATES = 150, 48, (1e-3, 3e-3)
OLD_STEPS, OLD_RATE = 300, 3e-3
_PARTS = {"old": (0, 600), "train": (600, 1000), "validation": (1000, 1300), "test": (1300, 1797)}

Loss = Callable[[nn.Module, torch.Generator], torch.Tensor]


@functools.cache
def digits(part: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures of a part, upright and turned [n, 64], and what they show [n]; a seed shuffles before it cuts."""
    from sklearn.datasets import load_digits

    pixels, shown = (torch.tensor(x) for x in load_digits(return_X_y=True))
    mixed = torch.randperm(len(shown), generator=torch.Generator().manual_seed(seed))
    mixed = mixed[slice(*_PARTS[part])]
    pictures = (pixels.float() / 16).reshape(-1, 8, 8)[mixed]
    return pictures.flatten(1), pictures.rot90(1, (1, 2)).flatten(1), shown[mixed]


def fresh(seed: int) -> nn.Sequential:
    """A network of three layers with random weights and ten outputs."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def some(
    x: torch.Tensor, y: torch.Tensor, dice: torch.Generator, rows: int = ROWS
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of examples, drawn with replacement."""
    at = torch.randint(len(x), (rows,), generator=dice)
    return x[at], y[at]


def learn(model: nn.Module, loss: Loss, rate: float, steps: int = STEPS, seed: int = 0, rates=None) -> nn.Module:
    """A copy of the model after some steps of Adam on `loss(model, dice)`.

    Parameters without requires_grad stay. rates: `rates(step)` gives a learning rate for each layer, the lowest first.
    """
    model = copy.deepcopy(model)
    groups = [[p for p in layer.parameters() if p.requires_grad] for layer in model if isinstance(layer, nn.Linear)]
    optimizer = torch.optim.Adam([{"params": group} for group in groups], rate)
    dice = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if rates is not None:
            for group, now in zip(optimizer.param_groups, rates(step), strict=True):
                group["lr"] = now
        optimizer.zero_grad()
        loss(model, dice).backward()
        optimizer.step()
    return model


@functools.lru_cache(maxsize=1)
def old_self(seed: int) -> nn.Sequential:
    """The network that has learned the old task."""
    upright, _, shown = digits("old", seed)
    made = learn(fresh(seed), lambda net, dice: _ce(net, *some(upright, shown, dice)), OLD_RATE, OLD_STEPS, seed)
    return made.eval()


def _ce(net, x, y):
    return F.cross_entropy(net(x), y)


def widened(model: nn.Sequential, seed: int) -> nn.Sequential:
    """The same network with ten more outputs, whose weights are random."""
    torch.manual_seed(seed)
    wide = copy.deepcopy(model)
    wide[-1] = nn.Linear(64, 20)
    with torch.no_grad():
        wide[-1].weight[:10], wide[-1].bias[:10] = model[-1].weight, model[-1].bias
    return wide


def task(net: nn.Module, seed: int, dice: torch.Generator, own: bool = False, rows: int = ROWS) -> torch.Tensor:
    """Cross-entropy of turned digits, by the shared outputs or by their own ten."""
    _, turned, shown = digits("train", seed)
    x, y = some(turned, shown, dice, rows)
    return F.cross_entropy(net(x)[:, 10:] if own else net(x), y)


@torch.no_grad()
def judged(net: nn.Module, part: str, seed: int, own: bool = False) -> dict[str, float]:
    """The share of upright (old) and of turned (new) digits that are read right, and the mean of the two (both)."""
    upright, turned, shown = digits(part, seed)
    said = {"old": net(upright)[:, :10], "new": net(turned)[:, 10:] if own else net(turned)}
    right = {name: (logits.argmax(1) == shown).float().mean().item() for name, logits in said.items()}
    return right | {"both": sum(right.values()) / 2}


def best(trials: Sequence[tuple[dict, nn.Module]], seed: int, own: bool = False) -> dict[str, float]:
    """What the model reads that reads most of both kinds of *validation* digits; reported is what it reads in the test.

    trials: pairs of what was set (numbers) and the model that came out.
    """
    knobs, model = max(trials, key=lambda trial: judged(trial[1], "validation", seed, own)["both"])
    return judged(model, "test", seed, own) | knobs


def pulled(to: dict, weights: dict | None = None) -> Callable[[nn.Module], torch.Tensor]:
    """Half the squared distance of a model's parameters to given ones, each square times a weight."""

    def penalty(net):
        squares = {n: (p - to[n]).square() for n, p in net.named_parameters()}
        return sum((s if weights is None else weights[n] * s).sum() for n, s in squares.items()) / 2

    return penalty


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters as they are now, cut off from the graph."""
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def fisher(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information: squared gradients of log-probabilities, by the model's own odds."""

    def log_p(weights, row):
        return torch.func.functional_call(net, weights, row[None])[0].log_softmax(-1)

    weights = state(net)
    jacobian = torch.func.vmap(torch.func.jacrev(log_p), (None, 0))(weights, x)
    odds = net(x).detach().softmax(-1)
    return {n: torch.einsum("nc,nc...->...", odds, j.square()) / len(x) for n, j in jacobian.items()}


def keeps_to(teacher: nn.Module, x: torch.Tensor, dice: torch.Generator, temperature: float = 2.0):
    """`loss(net)`: T² KL from the teacher's opinion to the model's, about a batch of x, over the ten old outputs."""
    batch = x[torch.randint(len(x), (ROWS,), generator=dice)]
    with torch.no_grad():
        said = (teacher(batch)[:, :10] / temperature).log_softmax(-1)

    def loss(net):
        now = (net(batch)[:, :10] / temperature).log_softmax(-1)
        return temperature**2 * F.kl_div(now, said, log_target=True, reduction="batchmean")

    return loss


def replayed(seed: int, count: int, share: float = 0.25) -> Loss:
    """The new task with a share of old examples in each batch, of which `count` were kept."""
    upright, _, shown = digits("old", seed)

    def loss(net, dice):
        few = round(share * ROWS)
        x, y = some(upright[:count], shown[:count], dice, few)
        return (1 - share) * task(net, seed, dice, rows=ROWS - few) + share * _ce(net, x, y)

    return loss


def points(found, arm: str, number: str, minus: str):
    """How many percentage points an arm has more than another, as an interval over the seeds."""
    each = found.interval(arm, number, minus=minus)
    return type(each)(100 * each.mean, 100 * each.low, 100 * each.high, each.n)


def percent(found, arm: str, number: str) -> str:
    """An arm's mean over the seeds, for a sentence."""
    return f"{100 * found.interval(arm, number).mean:.0f} %"
