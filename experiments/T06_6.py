"""T06.6 and T06.7: where the norm stands, by depth and rate, with and without warm-up, and what warm-up cures."""

from __future__ import annotations

import torch

from experiments.normed_lm import LanguageModel, draw, finite, loss_of, train
from labkit.experiment import Experiment, interval

LENGTH, ROWS, STEPS, WARMUP = 32, 16, 200, 70
COUNTS = 0.05  # nats a letter: what a difference has to be to count. Stated in the chapter before the run.
RATES = {"post": (1e-3, 3e-3, 1e-2), "other": (3e-3, 1e-2, 3e-2)}
DEPTHS = (2, 6)
RAW, WARM = "post-norm, 6 layers", "post-norm, 6 layers, warm-up"
BALANCED, ONE_SIZE = "post-norm, 6 layers, layers balanced", "post-norm, 6 layers, one size a step"

experiment = Experiment(
    claim="T06.6",
    question="Does post-norm need warm-up because its gradients near the output are large?",
    arms={
        f"{place}-norm, {depth} layers{', warm-up' if warmup else ''}": {
            "place": place,
            "depth": depth,
            "warmup": warmup,
        }
        for depth in DEPTHS
        for place in ("pre", "post")
        for warmup in (0, WARMUP)
    }
    | {
        BALANCED: {"place": "post", "depth": 6, "change": "balanced"},
        ONE_SIZE: {"place": "post", "depth": 6, "change": "one size"},
        "pre-norm and QK-norm, 6 layers": {"place": "pre", "depth": 6, "qk": True},
        "sandwich, 6 layers": {"place": "sandwich", "depth": 6},
        "reordered and QK-norm, 6 layers": {"place": "reordered", "depth": 6, "qk": True},
    },
    seeds=range(3),
    shows=WARM,
    shows_not="pre-norm, 6 layers, warm-up",
    live=("post-norm, 2 layers", 0),
    within={"validation": 0.15, "test": 0.15},
)


@experiment.measure
def measure(seed: int, place: str, depth: int, warmup: int = 0, qk: bool = False, change: str = "") -> dict:
    """Validation and test loss after training, for every rate of the grid."""
    found = {"validation": [], "test": []}
    for rate in RATES.get(place, RATES["other"]):
        torch.manual_seed(seed)
        net = LanguageModel(depth, 32, place=place, qk=qk, length=LENGTH)
        generator = torch.Generator().manual_seed(seed)
        changes = {"": None, "balanced": Balanced(), "one size": one_size}
        train(net, rate, STEPS, lambda g=generator: (draw("train", ROWS, LENGTH, g),), warmup, changes[change])
        for part, losses in found.items():
            pieces = draw(part, 400, LENGTH, torch.Generator().manual_seed(5))
            with torch.no_grad():
                losses.append(finite(loss_of(net, pieces).item()))
    return found


def sizes(net) -> torch.Tensor:
    """The norm of each layer's whole gradient."""
    return torch.stack([torch.stack([p.grad.norm() for p in block.parameters()]).norm() for block in net.blocks])


class Balanced:
    """Divides each layer's gradient by its size in the first step: then all layers have gradients of one size there."""

    def __init__(self):
        self.first = None

    def __call__(self, net) -> None:
        if self.first is None:
            self.first = sizes(net)
        for block, size in zip(net.blocks, self.first, strict=True):
            for p in block.parameters():
                p.grad /= size


def one_size(net) -> None:
    """Divides all layers' gradients by one number, the size of all together: no step has a larger gradient."""
    size = sizes(net).norm()
    for p in net.blocks.parameters():
        p.grad /= size


def over_seeds(found, arm: str, part: str = "test") -> torch.Tensor:
    """Losses [seeds, rates] of an arm."""
    return torch.tensor(found.each(arm, part))


def best(found, arm: str) -> int:
    """The place in the grid of the rate whose validation loss is the lowest, in the mean over the seeds."""
    return int(over_seeds(found, arm, "validation").mean(0).argmin())


def most_helped(found) -> int:
    """The place in the grid of the rate at which warm-up helps the six layers of post-norm most, on validation."""
    return int((over_seeds(found, RAW, "validation") - over_seeds(found, WARM, "validation")).mean(0).argmax())


def gains(found, arm: str, at: int, over: str = RAW):
    """How much lower an arm's test loss is than another's at a rate of the grid, seed by seed: an interval."""
    return interval((over_seeds(found, over)[:, at] - over_seeds(found, arm)[:, at]).tolist())


@experiment.conclude
def conclude(found) -> dict:
    """By each spot, here and at T06.7's twelve layers, that counts: all *wrong*, all *correct*, or *imprecise*."""
    import experiments.T06_7 as deep  # no `from`: it measures nothing of this experiment and is no part of its digest
    from labkit.experiment import evidence

    at = most_helped(found)
    warm, balanced, one = (gains(found, arm, at) for arm in (WARM, BALANCED, ONE_SIZE))
    said = deep.explained(found, 6) + deep.explained(evidence("T06.7"), deep.DEPTH)
    word = said[0] if len(set(said)) == 1 else "imprecise" if said else "unverifiable"
    pre = "pre-norm, 6 layers"
    here = best(found, pre)
    unhelped = gains(found, f"{pre}, warm-up", here, over=pre)
    beyond = gains(found, f"{pre}, warm-up", min(here + 1, len(RATES["other"]) - 1), over=pre)
    last = gains(found, f"{pre}, warm-up", -1, over=pre)
    return {
        "verdict": word,
        "controls": {"shows": warm.mean > COUNTS and warm.low > 0, "shows_not": unhelped.below(COUNTS)},
        "numbers": {"rate": f"{RATES['post'][at]:g}", "largest": f"{RATES['other'][-1]:g}"}
        | {
            name: _signed(gain.mean).replace("−0.00", "0.00")
            for name, gain in (
                ("warm", warm),
                ("balanced", balanced),
                ("one", one),
                ("post_best", gains(found, WARM, best(found, RAW))),
                ("pre_best", unhelped),
                ("pre_beyond", beyond),
                ("pre_last", last),
            )
        },
    }


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
