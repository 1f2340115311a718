"""T06.7: does pre-norm need warm-up? Twelve layers; two and six stand in T06.6. And T06.6's question at twelve layers.

Grids and steps were chosen by a pilot with a seed that isn't among these, on validation text: with 200 steps twelve
layers of post-norm learn little at any rate, so they get 400, and smaller rates.
"""

from __future__ import annotations

import torch

from experiments.normed_lm import LanguageModel, draw, finite, loss_of, train
from experiments.T06_6 import COUNTS, LENGTH, ROWS, best, gains, one_size, over_seeds
from labkit.experiment import Evidence, Experiment, Interval, evidence, interval

DEPTH, STEPS, WARMUP = 12, 400, 140
RATES = {"post": (5e-4, 7e-4, 1e-3, 2e-3), "pre": (1e-3, 3e-3, 1e-2)}
PLACES = ("post", "pre")
WARM = "warm-up"
CHANGES = ("layers balanced", "one size a step")
SHORT = "pre-norm, cut short"
SPOTS = ("each at its own best rate", "where warm-up helps most")


def named(place: str, depth: int, way: str = "") -> str:
    """An arm's name, as T06.6 has it, too."""
    return f"{place}-norm, {depth} layers{f', {way}' if way else ''}"


experiment = Experiment(
    claim="T06.7",
    question="Does pre-norm need warm-up, and why does post-norm, at twelve layers?",
    arms={
        named(place, DEPTH, way): {"place": place, "warmup": WARMUP if way else 0}
        for place in PLACES
        for way in ("", WARM)
    }
    | {
        named("post", DEPTH, CHANGES[1]): {"place": "post", "same": True},
        SHORT: {"place": "pre", "steps": STEPS // 10},
    },
    seeds=range(3),
    shows=named("post", DEPTH, WARM),
    shows_not="Warm-up in pre-norm is what is asked about; T06.6 holds the rates at which it must not help.",
    live=(SHORT, 0),
    within={"validation": 0.15, "test": 0.15},
)


@experiment.measure
def measure(seed: int, place: str, warmup: int = 0, same: bool = False, steps: int = STEPS) -> dict:
    """Validation and test loss after training, for every rate of the grid. same: gradients of one size in each step."""
    found = {"validation": [], "test": []}
    for rate in RATES[place]:
        torch.manual_seed(seed)
        net = LanguageModel(DEPTH, 32, place=place, length=LENGTH)
        generator = torch.Generator().manual_seed(seed)
        change = one_size if same else None
        train(net, rate, steps, lambda g=generator: (draw("train", ROWS, LENGTH, g),), warmup, change)
        for part, losses in found.items():
            pieces = draw(part, 400, LENGTH, torch.Generator().manual_seed(5))
            with torch.no_grad():
                losses.append(finite(loss_of(net, pieces).item()))
    return found


def most_helped(found: Evidence, depth: int) -> int:
    """The place in the grid of the rate at which warm-up helps post-norm most, on validation."""
    raw, warm = (over_seeds(found, named("post", depth, way), "validation") for way in ("", WARM))
    return int((raw - warm).mean(0).argmax())


def at_spot(found: Evidence, depth: int, spot: str) -> dict[str, torch.Tensor]:
    """Test losses [seeds] of post-norm: as it is (""), with warm-up, and with each change that was run."""
    arms = {way: named("post", depth, way) for way in ("", WARM, *CHANGES)}
    own, most = spot == SPOTS[0], most_helped(found, depth)
    return {
        way: over_seeds(found, arm)[:, best(found, arm) if own else most]
        for way, arm in arms.items()
        if arm in found.arms
    }


def won(losses: dict[str, torch.Tensor]) -> dict[str, Interval]:
    """What warm-up and each change gain against post-norm as it is, over the seeds."""
    return {way: interval((losses[""] - each).tolist()) for way, each in losses.items() if way}


def explained(found: Evidence, depth: int) -> list[str]:
    """What each spot at which warm-up surely gains something says of T06.6: *correct*, *wrong* or *imprecise*."""
    said = []
    for losses in (at_spot(found, depth, spot) for spot in SPOTS):
        if won(losses)[WARM].above(COUNTS):
            half = (losses[""] + losses[WARM]) / 2
            beyond = [interval((half - losses[way]).tolist()) for way in CHANGES if way in losses]
            some, none = any(each.above(0) for each in beyond), all(each.below(0) for each in beyond)
            said.append("correct" if some else "wrong" if none else "imprecise")
    return said


def helped(found: Evidence, depth: int) -> tuple[int, list[Interval]]:
    """Pre-norm's best rate in its grid; what warm-up gains there, at the next larger rate, and at the largest."""
    plain, warm = named("pre", depth), named("pre", depth, WARM)
    here, largest = best(found, plain), len(found.each(plain, "test")[0]) - 1
    return here, [gains(found, warm, at, over=plain) for at in (here, min(here + 1, largest), largest)]


@experiment.conclude
def conclude(found) -> dict:
    """Wrong if warm-up surely gains at some depth's best rate, correct if it surely doesn't, there and one rate on."""
    six = evidence("T06.6")
    gained = {depth: helped(six if depth < DEPTH else found, depth)[1] for depth in (2, 6, DEPTH)}
    some = any(there.above(COUNTS) for there, *_ in gained.values())
    none = all(gain.below(COUNTS) for there, beyond, _ in gained.values() for gain in (there, beyond))
    post = {spot: won(at_spot(found, DEPTH, spot)) for spot in SPOTS}
    numbers = {
        "rate": f"{RATES['post'][most_helped(found, DEPTH)]:g}",
        "pre_rate": f"{RATES['pre'][helped(found, DEPTH)[0]]:g}",
        "largest": f"{RATES['pre'][-1]:g}",
    }
    told = {
        "warm": post[SPOTS[1]][WARM],
        "one": post[SPOTS[1]][CHANGES[1]],
        "best": post[SPOTS[0]][WARM],
        "best_one": post[SPOTS[0]][CHANGES[1]],
    }
    told |= dict(zip(("pre_best", "pre_beyond", "pre_last"), gained[DEPTH], strict=True))
    for name, gain in told.items():
        numbers |= {name: _signed(f"{gain.mean:+.2f}"), f"{name}_interval": _signed(gain.text("+.2f"))}
    return {
        "verdict": "wrong" if some else "correct" if none else "imprecise",
        "controls": {"shows": told["warm"].above(COUNTS)},
        "numbers": numbers,
    }


def _signed(text: str) -> str:
    return text.replace("-", "−").replace("−0.00", "0.00").replace("+0.00", "0.00")
