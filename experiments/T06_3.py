"""T06.3: is BatchNorm hard to parallelize? A batch is cut up among ranks that don't exchange their statistics."""

from __future__ import annotations

import torch

from experiments.normed_lm import LENGTH, LanguageModel, draw, finite, loss_of, train
from labkit.experiment import Experiment

RATES, ROWS, STEPS = (3e-3, 1e-2, 3e-2), 12, 150
COUNTS = 0.02  # nats a letter: what cutting has to cost to count. Stated in the chapter before the run.
CUTS = (4, 12)  # ranks among which the 12 rows are spread: 144 and 48 tokens each

experiment = Experiment(
    claim="T06.3",
    question="What does it cost to cut a batch among ranks whose BatchNorms don't talk to each other?",
    arms={
        "BatchNorm, 1 rank": {"ranks": 1},
        "BatchNorm, 4 ranks": {"ranks": 4},
        "BatchNorm, 12 ranks": {"ranks": 12},
        "BatchNorm, 96 ranks": {"ranks": 96},
    },
    seeds=range(3),
    shows="BatchNorm, 96 ranks",
    shows_not="LayerNorm sums within a token, so cutting changes no number: there is nothing to run.",
    live=("BatchNorm, 1 rank", 0),
    within={"loss": 0.05, "rate": 0.03},
)


@experiment.measure
def measure(seed: int, ranks: int) -> dict:
    """The test loss in evaluation mode, at the rate whose validation loss is the lowest."""
    tried = {}
    for rate in RATES:
        torch.manual_seed(seed)
        net = LanguageModel(kind="batch", parts=ranks)
        generator = torch.Generator().manual_seed(seed)
        train(net, rate, STEPS, lambda g=generator: (draw("train", ROWS, LENGTH, g),)).eval()
        tried[rate] = [_loss(net, part) for part in ("validation", "test")]
    best = min(tried, key=lambda rate: tried[rate][0])
    return {"loss": tried[best][1], "rate": best}


@torch.no_grad()
def _loss(net, part: str) -> float:
    return finite(loss_of(net, draw(part, 400, LENGTH, torch.Generator().manual_seed(5))).item())


@experiment.conclude
def conclude(found) -> dict:
    """Correct if already four ranks cost more than COUNTS, wrong if not even twelve do, else imprecise."""
    cost = {n: found.interval(f"BatchNorm, {n} ranks", "loss", minus="BatchNorm, 1 rank") for n in (*CUTS, 96)}
    all_free = all(cost[n].below(COUNTS) for n in CUTS)
    return {
        "verdict": "correct" if cost[4].above(COUNTS) else "wrong" if all_free else "imprecise",
        "controls": {"shows": cost[96].above(COUNTS)},
        "numbers": {f"cost{n}": f"{cost[n].mean:+.2f}".replace("-", "−") for n in cost},
    }
