"""T06.5: BatchNorm's statistics shift between training and evaluation."""

from __future__ import annotations

import torch

from experiments.normed_lm import LENGTH, LanguageModel, draw, finite, loss_of, train
from labkit.experiment import Experiment

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
STEPS = 150
SHIFT = 0.02  # nats a letter: what a shift has to cost to be called one. Stated in the chapter before the run.
SIZES = {96: 2, 576: 12, 2304: 48}  # tokens a batch: rows of 48

experiment = Experiment(
    claim="T06.5",
    question="What does BatchNorm's change from batch statistics to running ones cost a trained language model?",
    arms={
        f"{name}, {tokens} tokens": {"kind": kind, "rows": rows}
        for tokens, rows in SIZES.items()
        for name, kind in (("BatchNorm", "batch"), ("LayerNorm", "layer"), ("RMSNorm", "rms"))
    }
    | {"BatchNorm, 6 tokens": {"kind": "batch", "rows": 2, "parts": 16}},
    seeds=range(4),
    shows="BatchNorm, 6 tokens",
    shows_not="LayerNorm, 96 tokens",
    live=("BatchNorm, 96 tokens", 0),
    within={"loss": 0.05, "loss in training mode": 0.05, "shift": 0.02, "rate": 0.03},
)


@experiment.measure
def measure(seed: int, kind: str, rows: int, parts: int = 1) -> dict:
    """The test loss in both modes, at the rate whose validation loss in evaluation mode is the lowest."""
    tried = {}
    for rate in RATES:
        torch.manual_seed(seed)
        net = LanguageModel(kind=kind, parts=parts)
        generator = torch.Generator().manual_seed(seed)
        train(net, rate, STEPS, lambda g=generator: (draw("train", rows, LENGTH, g),))
        tried[rate] = (losses(net, "validation", rows)[0], net)
    best = min(tried, key=lambda rate: tried[rate][0])
    evaluated, trained = losses(tried[best][1], "test", rows)
    return {"loss": evaluated, "loss in training mode": trained, "shift": abs(evaluated - trained), "rate": best}


@torch.no_grad()
def losses(net, part: str, rows: int, letters: int = 48 * 48 * 8) -> tuple[float, float]:
    """Mean loss on the same text in evaluation mode and in training mode, in batches of so many rows."""
    generator = torch.Generator().manual_seed(5)
    batches = [draw(part, rows, LENGTH, generator) for _ in range(letters // (rows * LENGTH))]
    found = []
    for training in (False, True):  # in training mode the running statistics go on, so it comes last
        net.train(training)
        found.append(sum(finite(loss_of(net, batch).item()) for batch in batches) / len(batches))
    return found[0], found[1]


@experiment.conclude
def conclude(found) -> dict:
    """Correct if the shift counts at every size, imprecise if at some of them, wrong if at none."""
    shifts = {tokens: found.interval(f"BatchNorm, {tokens} tokens", "shift") for tokens in SIZES}
    counts = [shift.above(SHIFT) for shift in shifts.values()]
    gaps = {
        tokens: found.interval(f"BatchNorm, {tokens} tokens", "loss", minus=f"LayerNorm, {tokens} tokens")
        for tokens in SIZES
    }
    tiny, layer = found.interval("BatchNorm, 6 tokens", "shift"), found.interval("LayerNorm, 96 tokens", "shift")
    return {
        "verdict": "correct" if all(counts) else "imprecise" if any(counts) or tiny.above(SHIFT) else "wrong",
        "controls": {"shows": tiny.above(SHIFT), "shows_not": abs(layer.mean) < 1e-4},
        "numbers": {f"shift{tokens}": f"{shift.mean:.3f}" for tokens, shift in shifts.items()}
        | {f"gap{tokens}": f"{gap.mean:+.2f}".replace("-", "−") for tokens, gap in gaps.items()}
        | {"tiny": f"{tiny.mean:.2f}"}
        | {
            name: f"{found.interval(arm, number).mean:.2f}"
            for name, arm, number in (
                ("leaking", "BatchNorm, 6 tokens", "loss in training mode"),
                ("honest", "LayerNorm, 96 tokens", "loss"),
            )
        },
    }
