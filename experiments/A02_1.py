"""A02.1: quantization, distillation and pruning reduce the size *and the computation*. A layer's bytes, multiply-adds
and seconds, each against the same layer as it was, for one token (decoding) and for 256 (reading a prompt).
"""

from __future__ import annotations

import statistics
import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from labkit.experiment import Experiment, interval

WIDTH, HIDDEN, PROMPT, PAIRS = 1024, 4096, 256, 16

experiment = Experiment(
    claim="A02.1",
    question="Do 8-bit weights, zeros and fewer neurons each reduce the bytes and the multiply-adds of an MLP?",
    arms={
        "the same again": {"kind": "same"},
        "8-bit weights": {"kind": "int8"},
        "half of the weights zero": {"kind": "zeros"},
        "half of the neurons gone": {"kind": "narrow"},
    },
    seeds=range(5),
    shows="half of the neurons gone",
    shows_not="the same again",
    live=("half of the neurons gone", 0),
    within={"decode": 0.5, "prefill": 0.5},
)


class MLP(nn.Module):
    """Two matrices with a SiLU between them."""

    def __init__(self, hidden: int):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, hidden, bias=False), nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.up(x)))


def changed(mlp: MLP, kind: str) -> nn.Module:
    """The MLP as each technique leaves it. A distilled student and a structurally pruned model are both narrower."""
    if kind == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao.quantization is on its way to torchao
            return torch.ao.quantization.quantize_dynamic(mlp, {nn.Linear}, dtype=torch.qint8)
    other = MLP(HIDDEN // 2 if kind == "narrow" else HIDDEN)
    with torch.no_grad():
        if kind == "narrow":
            best = mlp.down.weight.norm(dim=0).topk(HIDDEN // 2).indices.sort().values
            other.up.weight.copy_(mlp.up.weight[best])
            other.down.weight.copy_(mlp.down.weight[:, best])
        else:
            other.load_state_dict(mlp.state_dict())
            for matrix in (other.up.weight, other.down.weight) if kind == "zeros" else ():
                matrix.mul_(matrix.abs() > matrix.abs().median())
    return other


def bytes_of(mlp: nn.Module) -> int:
    """What the weights take in memory as they are kept."""
    parts = [mlp.up.weight, mlp.down.weight] if isinstance(mlp, MLP) and isinstance(mlp.up, nn.Linear) else None
    if parts is None:
        parts = [mlp.up.weight(), mlp.down.weight()]
    return sum(x.numel() * x.element_size() for x in parts)


def multiply_adds(mlp: nn.Module) -> int:
    """For one token: one for each number in the two matrices, whatever its value and its type."""
    weights = [layer.weight() if callable(layer.weight) else layer.weight for layer in (mlp.up, mlp.down)]
    return sum(x.numel() for x in weights)


def seconds(mlp: nn.Module, x: torch.Tensor) -> float:
    """Of the processor, on one thread: what else the machine does is not counted."""
    start = time.process_time()
    mlp(x)
    return time.process_time() - start


def ratio(first: nn.Module, second: nn.Module, rows: int) -> float:
    """The second's time over the first's: the median of pairs, of which each begins in turn."""
    x, found = torch.randn(rows, WIDTH), []
    for turn in range(PAIRS + 2):
        if turn % 2:
            after, before = seconds(second, x), seconds(first, x)
        else:
            before, after = seconds(first, x), seconds(second, x)
        found.append(after / before)
    return statistics.median(found[2:])


@experiment.measure
def measure(seed: int, kind: str) -> dict:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            before = MLP(HIDDEN).eval()
            after = changed(before, kind).eval()
            return {
                "bytes": bytes_of(after) / bytes_of(before),
                "multiply_adds": multiply_adds(after) / multiply_adds(before),
                "decode": ratio(before, after, 1),
                "prefill": ratio(before, after, PROMPT),
            }
    finally:
        torch.set_num_threads(threads)


@experiment.conclude
def conclude(found) -> dict:
    arms = [arm for arm in found.arms if arm != experiment.shows_not]
    falls = {arm: [found.interval(arm, what).mean < 0.99 for what in ("bytes", "multiply_adds")] for arm in arms}
    word = "correct" if all(map(all, falls.values())) else "imprecise" if any(map(any, falls.values())) else "wrong"
    numbers = {}
    for arm in found.arms:
        name = arm.replace(" ", "_").replace("-", "_")
        for what in ("bytes", "multiply_adds"):
            numbers[f"{name}_{what}"] = f"{100 * found.interval(arm, what).mean:.0f} %"
        for what in ("decode", "prefill"):
            numbers[f"{name}_{what}"] = f"{100 * interval(found.each(arm, what)).mean:.0f} %"
    gone = found.interval(experiment.shows, "prefill")
    same = found.interval(experiment.shows_not, "prefill")
    return {
        "verdict": word,
        "controls": {"shows": gone.below(0.9), "shows_not": not (same.below(0.9) or same.above(1.1))},
        "numbers": numbers,
    }
