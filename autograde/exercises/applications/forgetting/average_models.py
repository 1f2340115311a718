"""`average_models(states, weights=None)`: One model from several: the weighted mean of their weights."""

from __future__ import annotations

import math

import numpy as np
import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import randn
from autograde.judging.comparing import tensors

exercise = Draft(
    "average_models",
    points=3,
    forbid=["torch.optim.swa_utils"],
    no_gradient="it comes after training",
    precise=True,
    fresh=True,
    hints=[
        "What has to add up to 1? And what would the mean of two counters be?",
        "For each name: a sum of share * tensor over the models, in float32, then back to the dtype. Tensors that hold "
        "whole numbers or booleans are copied from the first model.",
        "shares = [w / sum(weights) for w in weights]; for name, t in states[0].items(): sum(s * state[name].float() "
        "for s, state in zip(shares, states)).to(t.dtype) if t.is_floating_point() else t.clone(), with double() for "
        "float64.",
    ],
)


@exercise.cases
def models(g):
    def some(count, seen=False, offset=0.0, spread=1.0, shuffled=False):
        shapes = {"body.weight": (4, 3), "body.bias": (4,), "scale": ()}
        base = {name: offset + randn(g, *shape) for name, shape in shapes.items()}
        states = []
        for i in range(count):
            state = {name: t + spread * randn(g, *t.shape) for name, t in base.items()}
            if seen:
                state |= {"norm.num_batches_tracked": torch.tensor(7 + 13 * (i + 1) ** 2), "mask": randn(g, 5) > 0}
            names = list(state)
            states.append(
                {n: state[n] for n in (names[i % len(names) :] + names[: i % len(names)] if shuffled else names)}
            )
        return states

    yield case(some(2), label="two models")
    yield case(some(3), [0.5, 0.2, 0.3], label="three models with weights")
    yield case(some(2, seen=True), [0.3, 0.7], label="a counter and a mask")
    yield case(some(3), weights=[1, 2, 5], label="weights that add up to 8")
    yield case(some(4, seen=True, shuffled=True), label="names in different orders")
    yield case(some(2), [0.0, 1.0], label="all weight on the second")
    yield case(some(2), [-0.5, 1.5], label="beyond the second model")
    yield case(some(1, seen=True), label="one model")
    yield case(some(5, offset=100.0, spread=0.01), label="five models that hardly differ")
    yield case([{"w": x} for x in (randn(g, 300, 8), randn(g, 300, 8), randn(g, 300, 8))], [3, 1, 0.5], label="large")
    half = [{n: t.to(torch.bfloat16) for n, t in state.items()} for state in some(200, offset=3.0)]
    yield case(half, label="two hundred models in bfloat16")
    mixed = [state | {"norm": (1 + state["scale"]).to(torch.float16)} for state in some(3)]
    yield case(mixed, [2.0, 1.0, 1.0], label="tensors of different dtypes")
    yield case([{"w": randn(g, 1, 3), "b": randn(g, 1)} for _ in range(2)], label="a layer with one output")


@exercise.oracle
def numpys_average(states, weights=None):
    found = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            stacked = np.stack([state[name].double().numpy() for state in states])
            found[name] = torch.as_tensor(np.average(stacked, axis=0, weights=weights)).to(first.dtype)
        else:
            found[name] = first.clone()
    return found


@exercise.law("Each tensor has the dtype that it has in the first model")
def own_dtypes(out, one, call):
    apart = [n for n, t in one.args[0][0].items() if out[n].dtype != t.dtype]
    return not apart or f"not so of {apart[0]}"


@exercise.law("Copies of one model average to that model")
def copies(out, one, call):
    if one.made or len(tensors_of(one)) > 9:
        return None
    first = one.args[0][0]
    mean = call([first] * 3, [1, 2, 3])
    return all(torch.allclose(mean[n].double(), t.double(), rtol=1e-2, atol=1e-5) for n, t in first.items())


def tensors_of(one):
    return list(tensors(one.args[0]))


def _wide(t):
    return t if t.dtype == torch.float64 else t.float()


def _average(
    shares=lambda weights: [w / sum(weights) for w in weights],
    default=lambda n: [1] * n,
    mean=lambda parts, shares: sum(s * _wide(p) for s, p in zip(shares, parts, strict=True)),
    whole=lambda parts: parts[0].clone(),
    is_float=lambda t: t.is_floating_point(),
    back=lambda t, first: t.to(first.dtype),
    names=lambda states: list(states[0]),
):
    """`average_models` from its parts."""

    def average_models(states, weights=None):
        each = shares(default(len(states)) if weights is None else weights)
        found = {}
        for name in names(states):
            parts = [state[name] for state in states]
            found[name] = back(mean(parts, each), parts[0]) if is_float(parts[0]) else whole(parts)
        return found

    return average_models


right = _average()

exercise.mistake("weights aren't divided by their sum", hint="[1, 2, 5] means shares of 1/8, 2/8 and 5/8.")(
    _average(shares=lambda weights: weights, default=lambda n: [1 / n] * n)
)
exercise.mistake("the sum comes back where no weights are given", hint="The mean: shares of 1 / number of models.")(
    _average(
        shares=lambda weights: [
            w / (sum(weights) if sum(weights) != len(weights) or len(weights) == 1 else 1) for w in weights
        ]
    )
)
exercise.mistake("weights have no influence", hint="Each model counts by its share.")(
    _average(shares=lambda weights: [1 / len(weights)] * len(weights))
)
exercise.mistake("the weighted sum is divided by the number of models", hint="By the sum of the weights.")(
    _average(shares=lambda weights: [w / len(weights) for w in weights])
)


@exercise.mistake(
    "each model is averaged with what came before", hint="Of three models each counts a third, not 1/4, 1/4, 1/2."
)
def one_after_the_other(states, weights=None):
    found = right(states[:1])
    for state in states[1:]:
        found = right([found, state])
    return found


exercise.mistake("weights belong to the models in reverse", hint="weights[i] belongs to states[i].")(
    _average(shares=lambda weights: [w / sum(weights) for w in weights][::-1])
)
exercise.mistake("weights go through a softmax", hint="Divide them by their sum.")(
    _average(shares=lambda weights: torch.tensor([float(w) for w in weights], dtype=torch.float64).softmax(0).tolist())
)
exercise.mistake("negative weights are cut off at 0", hint="Any numbers whose sum isn't 0.")(
    _average(shares=lambda weights: [max(w, 0) / sum(max(v, 0) for v in weights) for w in weights])
)
exercise.mistake("absolute weights are used", hint="A negative weight subtracts.")(
    _average(shares=lambda weights: [w / sum(map(abs, weights)) for w in weights])
)
exercise.mistake(
    "models are averaged one after the other, so that the last counts half",
    hint="((a + b) / 2 + c) / 2 isn't the mean of three.",
)(
    lambda states, weights=None: (
        right(states, [2.0 ** max(i - len(states), 1 - len(states)) for i in range(len(states))])
        if weights is None
        else right(states, weights)
    )
)
exercise.mistake("the last model is left out", hint="All of states.")(
    lambda states, weights=None: right(
        states[:-1] or states, None if weights is None or sum(weights[:-1]) == 0 else weights[:-1]
    )
)
exercise.mistake("the first two models alone are averaged", hint="All of states, as many as there are.")(
    lambda states, weights=None: right(states[:2], None if weights is None or sum(weights[:2]) == 0 else weights[:2])
)
exercise.mistake(
    "models are mixed in one after the other by their shares, so that later ones count more",
    hint="Each step shrinks what came before. A sum of share * tensor over all models.",
)(_average(mean=lambda parts, shares: _mixed_in(parts, shares)))


def _mixed_in(parts, shares):
    total = _wide(parts[0])
    for share, part in zip(shares[1:], parts[1:], strict=True):
        total = total + share * (_wide(part) - total)
    return total


exercise.mistake("the median is taken", hint="The mean.")(
    _average(mean=lambda parts, shares: _wide(torch.stack([_wide(p) for p in parts])).median(0).values)
)
exercise.mistake("weights are applied to squares: the root of a mean square", hint="The plain mean.")(
    _average(
        mean=lambda parts, shares: sum(s * _wide(p).square() for s, p in zip(shares, parts, strict=True)).abs().sqrt()
    )
)
exercise.mistake("tensors are paired by their order, not by name", hint="state[name] of every model.")(
    lambda states, weights=None: right(
        [
            dict(
                zip(
                    states[0],
                    [t if t.shape == u.shape else u for t, u in zip(s.values(), states[0].values(), strict=True)],
                    strict=True,
                )
            )
            for s in states
        ],
        weights,
    )
)
exercise.mistake("counters and masks are averaged, too", hint="Whole numbers and booleans come from the first model.")(
    _average(is_float=lambda t: True)
)
exercise.mistake("counters and masks come from the last model", hint="From the first one.")(
    _average(whole=lambda parts: parts[-1].clone())
)
exercise.mistake("counters and masks are left out", hint="Every name of the first model: else it can't be loaded.")(
    lambda states, weights=None: {n: t for n, t in right(states, weights).items() if t.is_floating_point()}
)
exercise.mistake("counters and masks share memory with the first model", hint="New tensors: clone().")(
    _average(whole=lambda parts: parts[0])
)
exercise.mistake(
    "the result is float32, whatever came in", hint="Each tensor has the dtype that it has in the first model."
)(_average(back=lambda t, first: t.float()))
exercise.mistake("few digits are added up: the sum runs in bfloat16", hint="Add up in float32, and round once.")(
    _average(mean=lambda parts, shares: _rounded(parts, shares))
)


def _rounded(parts, shares):
    total = torch.zeros_like(parts[0])
    for share, part in zip(shares, parts, strict=True):
        total = total + share * part
    return total


@exercise.mistake("the first model is changed", hint="New tensors; the models stay as they are.")
def in_place(states, weights=None):
    found = right(states, weights)
    for name, t in states[0].items():
        t.copy_(found[name])
    return {n: t.clone() for n, t in found.items()}


@exercise.alternative
def by_stack(states, weights=None):
    total = math.fsum(weights) if weights else len(states)
    shares = torch.tensor([float(w) / total for w in weights or [1.0] * len(states)], dtype=torch.float64)
    found = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            found[name] = first.detach().clone()
            continue
        stacked = torch.stack([state[name].double() for state in states], -1)
        found[name] = (stacked @ shares).to(first.dtype)
    return found


exercise.alternative(right)
