"""T06.6 and T06.7: where the norm stands, by depth and rate, with and without warm-up, and what warm-up cures.

Grids and steps were chosen by a pilot with a seed that isn't among these, on validation text: with 200 steps twelve
layers of post-norm learn little at any rate, so they get 400, and smaller rates.
"""

from __future__ import annotations

import torch

from experiments.normed_lm import LanguageModel, draw, finite, loss_of, train
from labkit.experiment import Experiment, interval

LENGTH, ROWS = 32, 16
STEPS = {2: 200, 6: 200, 12: 400}  # by depth
WARMUP = 0.35  # of the steps
COUNTS = 0.05  # nats a letter: what a difference has to be to count. Stated in the chapter before the run.
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
POST_RATES = dict.fromkeys((2, 6), (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)) | {12: (5e-4, 7e-4, 1e-3, 1.4e-3, 2e-3, 3e-3)}
DEPTHS = tuple(STEPS)
JUDGED = (6, 12)  # depths at which the explanation is put to the test
WARM, BALANCED, ONE_SIZE = "warm-up", "layers balanced", "one size a step"
CHANGES = {BALANCED: "balanced", ONE_SIZE: "one size"}
SPOTS = ("each at its own best rate", "where warm-up helps most")


def named(place: str, depth: int, way: str = "") -> str:
    """An arm's name."""
    return f"{place}-norm, {depth} layers{f', {way}' if way else ''}"


def rates(place: str, depth: int) -> tuple[float, ...]:
    """The grid of a place of the norm at a depth."""
    return POST_RATES[depth] if place == "post" else RATES


experiment = Experiment(
    claim="T06.6",
    question="Does post-norm need warm-up because its gradients near the output are large?",
    arms={
        named(place, depth, way): {"place": place, "depth": depth, "warmup": bool(way)}
        for depth in DEPTHS
        for place in ("pre", "post")
        for way in ("", WARM)
    }
    | {
        named("post", depth, way): {"place": "post", "depth": depth, "change": change}
        for depth in JUDGED
        for way, change in CHANGES.items()
    }
    | {
        "pre-norm and QK-norm, 6 layers": {"place": "pre", "depth": 6, "qk": True},
        "sandwich, 6 layers": {"place": "sandwich", "depth": 6},
        "reordered and QK-norm, 6 layers": {"place": "reordered", "depth": 6, "qk": True},
    },
    seeds=range(4),
    shows=named("post", 6, WARM),
    shows_not=named("pre", 6, WARM),
    live=(named("post", 2), 0),
    within={"validation": 0.15, "test": 0.15},
)


@experiment.measure
def measure(seed: int, place: str, depth: int, warmup: bool = False, qk: bool = False, change: str = "") -> dict:
    """Validation and test loss after training, for every rate of the grid."""
    found = {"validation": [], "test": []}
    steps = STEPS[depth]
    for rate in rates(place, depth):
        torch.manual_seed(seed)
        net = LanguageModel(depth, 32, place=place, qk=qk, length=LENGTH)
        generator = torch.Generator().manual_seed(seed)
        changes = {"": None, "balanced": Balanced(), "one size": one_size}
        growing = round(WARMUP * steps) if warmup else 0
        train(net, rate, steps, lambda g=generator: (draw("train", ROWS, LENGTH, g),), growing, changes[change])
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


def most_helped(found, depth: int) -> int:
    """The place in the grid of the rate at which warm-up helps post-norm of a depth most, on validation."""
    raw, warm = (over_seeds(found, named("post", depth, way), "validation") for way in ("", WARM))
    return int((raw - warm).mean(0).argmax())


def gains(found, arm: str, at: int, over: str):
    """How much lower an arm's test loss is than another's at a rate of the grid, seed by seed: an interval."""
    return interval((over_seeds(found, over)[:, at] - over_seeds(found, arm)[:, at]).tolist())


def at_spot(found, depth: int, spot: str) -> dict[str, torch.Tensor]:
    """Test losses [seeds] of post-norm of a depth: as it is (""), with warm-up, and with each change."""
    arms = {way: named("post", depth, way) for way in ("", WARM, *CHANGES)}
    own, most = spot == SPOTS[0], most_helped(found, depth)
    return {way: over_seeds(found, arm)[:, best(found, arm) if own else most] for way, arm in arms.items()}


def won(losses: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """What warm-up and each change gain, seed by seed."""
    return {way: (losses[""] - each).tolist() for way, each in losses.items() if way}


def against_half(losses: dict[str, torch.Tensor]) -> list:
    """By how much each change gains more than half of what warm-up gains: intervals."""
    half = (losses[""] + losses[WARM]) / 2
    return [interval((half - losses[way]).tolist()) for way in CHANGES]


def decided(found) -> str:
    """The verdict by the chapter's rule: over all depths and spots at which warm-up surely gains something."""
    spots = [at_spot(found, depth, spot) for depth in JUDGED for spot in SPOTS]
    counting = [against_half(each) for each in spots if interval(won(each)[WARM]).above(COUNTS)]
    if not counting:
        return "unverifiable"
    if all(each.below(0) for halves in counting for each in halves):
        return "wrong"
    return "correct" if all(any(each.above(0) for each in halves) for halves in counting) else "imprecise"


@experiment.conclude
def conclude(found) -> dict:
    """See `decided`. The numbers are for the cards: of post-norm and of pre-norm, by depth."""
    numbers = {"largest": f"{RATES[-1]:g}"}
    for depth in JUDGED:
        numbers[f"rate_{depth}"] = f"{POST_RATES[depth][most_helped(found, depth)]:g}"
        for spot, short in zip(SPOTS, ("best", "most"), strict=True):
            for way, name in ((WARM, "warm"), (BALANCED, "balanced"), (ONE_SIZE, "one")):
                numbers[f"{name}_{short}_{depth}"] = _signed(interval(won(at_spot(found, depth, spot))[way]).mean)
        pre, warm = named("pre", depth), named("pre", depth, WARM)
        here = best(found, pre)
        for name, at in (("best", here), ("beyond", min(here + 1, len(RATES) - 1)), ("last", -1)):
            numbers[f"pre_{name}_{depth}"] = _signed(gains(found, warm, at, over=pre).mean)
    helped = gains(found, experiment.shows, most_helped(found, 6), over=named("post", 6))
    pre = named("pre", 6)
    return {
        "verdict": decided(found),
        "controls": {
            "shows": helped.mean > COUNTS and helped.low > 0,
            "shows_not": gains(found, experiment.shows_not, best(found, pre), over=pre).below(COUNTS),
        },
        "numbers": numbers,
    }


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00").replace("+0.00", "0.00")
