"""What does pruning do to time and memory? Half of a model's weights set to zero, or taken away, against the whole."""

import copy
import statistics
import time

import torch
from torch import nn

from experiments.pruned import smallest_gone, without
from labkit import smollm
from labkit.experiment import Experiment

SAVES = 0.9  # a ratio surely below it is a saving
LAYERS, PROMPT, HEAD, GROUP = 10, 128, 64, 3
SAME, ZEROS, SPARSE = "the same again", "half the weights zero", "half the weights zero, as CSR"
NEURONS, HEADS, HALF = "half the neurons gone", "a third of the heads gone", "half the layers gone"

experiment = Experiment(
    claim="A05.5",
    question="What does pruning do to the time and the memory of a real model on this processor?",
    arms={kind: {"kind": kind} for kind in (SAME, ZEROS, SPARSE, NEURONS, HEADS, HALF)},
    seeds=(0, 1, 2, 3, 4),
    shows=HALF,
    shows_not=SAME,
    live=(NEURONS, 0),
    within={"prompt": 0.3, "token": 0.4, "bytes": 0.01},
)


class Sparse(nn.Module):
    """A linear layer whose weights are stored row by row: each row's values, and in which columns they stand."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight.to_sparse_csr()

    def forward(self, x):
        """The layer's output for x: [..., inputs]."""
        return (self.weight @ x.flatten(0, -2).T).T.reshape(*x.shape[:-1], -1)


@experiment.measure
def measure(seed, kind):
    """Ratios to the whole model, the two timed in turn: ten layers read a prompt, or one token; and their bytes."""
    model, _ = smollm()
    with without(range(LAYERS, len(model.model.layers))) as short, torch.inference_mode():
        whole = short.model.layers
        other = _pruned(whole, kind)
        dice = torch.Generator().manual_seed(seed)
        text = torch.randint(1_000, 40_000, (1, PROMPT), generator=dice)
        return {
            "prompt": _ratio(short.model, whole, other, text, 7),
            "token": _ratio(short.model, whole, other, text[:, :1], 31),
            "bytes": _bytes(other) / _bytes(whole),
        }


def _pruned(whole, kind):
    if kind == SAME:
        return whole
    if kind == HALF:
        return whole[: LAYERS // 2]
    layers = copy.deepcopy(whole)
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        if kind == NEURONS:
            stay = mlp.gate_proj.weight.norm(dim=1).argsort(descending=True)[: mlp.gate_proj.out_features // 2]
            mlp.gate_proj, mlp.up_proj = _linear(mlp.gate_proj.weight[stay]), _linear(mlp.up_proj.weight[stay])
            mlp.down_proj = _linear(mlp.down_proj.weight[:, stay])
        elif kind == HEADS:  # a key head goes with the three query heads that read it
            queries, keys = 2 * GROUP * HEAD, 2 * HEAD
            attention.q_proj, attention.o_proj = (
                _linear(attention.q_proj.weight[:queries]),
                _linear(attention.o_proj.weight[:, :queries]),
            )
            attention.k_proj, attention.v_proj = (
                _linear(part.weight[:keys]) for part in (attention.k_proj, attention.v_proj)
            )
        else:
            for part in (attention, mlp):
                for name, linear in list(part.named_children()):
                    if isinstance(linear, nn.Linear):
                        weight = smallest_gone(linear.weight.abs(), linear.weight, 0.5)
                        setattr(part, name, Sparse(weight) if kind == SPARSE else _linear(weight))
    return layers


def _linear(weight):
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return made


def _ratio(model, whole, other, text, rounds):
    """The median of the ratios of two runs, one after the other."""
    ratios = []
    for _ in range(rounds + 1):  # the first one warms up
        seconds = []
        for layers in (whole, other):
            model.layers = layers
            start = time.perf_counter()
            model(text, use_cache=False)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios[1:])


def _bytes(layers):
    parts = [part.weight for part in layers.modules() if isinstance(getattr(part, "weight", None), torch.Tensor)]
    return sum(sum(x.nbytes for x in _stored(weight)) for weight in parts)


def _stored(weight):
    sparse = weight.layout == torch.sparse_csr
    return (weight.values(), weight.col_indices(), weight.crow_indices()) if sparse else (weight,)


def percent(each):
    """A ratio for a sentence: "48 to 53 %"."""
    return f"{100 * each.low:.0f} to {100 * each.high:.0f} %"


@experiment.conclude
def conclude(found):
    def saves(arm):
        return found.interval(arm, "prompt").below(SAVES)

    zeros = found.interval(ZEROS, "prompt")
    gone = saves(NEURONS) or saves(HALF)
    names = {"zeros": ZEROS, "csr": SPARSE, "neurons": NEURONS, "heads": HEADS, "half": HALF}
    numbers = {name: percent(found.interval(arm, "prompt")) for name, arm in names.items()}
    numbers |= {f"{name}_token": percent(found.interval(arm, "token")) for name, arm in names.items()}
    numbers |= {f"{name}_bytes": f"{100 * found.interval(arm, 'bytes').mean:.0f} %" for name, arm in names.items()}
    return {
        "verdict": "correct" if saves(ZEROS) else "imprecise" if gone and zeros.above(SAVES) else "wrong",
        "controls": {"shows": saves(HALF), "shows_not": found.interval(SAME, "prompt").within(SAVES, 2 - SAVES)},
        "numbers": numbers,
    }
