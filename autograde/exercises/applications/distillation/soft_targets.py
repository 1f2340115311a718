"""`soft_targets(logits, temperature=1.0, k=None)`: The teacher's probabilities at a temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.distillation.shared import DETACH, randn, teacher_is_still
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "soft_targets",
    points=2,
    no_gradient="the teacher isn't trained: that nothing flows is asked by a law",
    fresh=True,
    dtypes=(torch.float64,),
    hints=[
        "Divide the logits, not the probabilities. What is left of a class that isn't among the k likeliest?",
        "Logits of -inf become probabilities of 0 in a softmax, and the others share the 1. topk finds the k largest.",
        "z = logits.detach() / temperature; with k: top = z.topk(k, -1) and "
        "z = torch.full_like(z, -torch.inf).scatter(-1, top.indices, top.values); then z.softmax(-1).",
    ],
)


def apart(g, *shape, scale=2.0):
    """Logits no two of which are alike in a row."""
    return randn(g, *shape, scale=scale) + 1e-3 * torch.rand(shape, generator=g).argsort(-1)


@exercise.cases
def teachers(g):
    yield case(apart(g, 3, 7), 2.0, label="three tokens, T = 2")
    yield case(apart(g, 2, 4, 6), 3.0, 2, label="a batch, the two likeliest")
    yield case(apart(g, 5), label="one token, as it is")
    yield case(apart(g, 4, 8), temperature=0.5, k=3, label="T below 1, three of eight, by keyword")
    yield case(apart(g, 3, 9), k=4, label="four of nine at T = 1")
    yield case(apart(g, 2, 5), 2.5, 5, label="all of them, by k")
    yield case(apart(g, 2, 6), 4.0, 1, label="the likeliest alone")
    yield case(apart(g, 2, 3, 6, scale=300.0) + 500, 8.0, label="huge logits")
    yield case(apart(g, 2, 2, 3, 5) - 40, 1.5, 3, label="logits far below zero, three dimensions before the classes")
    yield case(apart(g, 2, 5, scale=100.0) + 500, 90.0, label="hundreds apart, and as hot")
    yield case(apart(g, 3, 5) + torch.tensor([[400.0], [0.0], [-400.0]]), 1.5, 4, label="rows far from each other")
    yield case(apart(g, 1), 2.0, 1, label="a single class")
    yield case(apart(g, 6), 1.5, 2, label="one token, two of six")
    yield case(apart(g, 300, 40), 5.0, 20, label="300 tokens, 20 of 40 classes")
    yield case(apart(g, 6, 4).mT, 1.7, 2, label="not contiguous")


@exercise.oracle
def warped(logits, temperature=1.0, k=None):
    """The processors of transformers' generate(), and a softmax in float64."""
    rows = logits.double().reshape(-1, logits.shape[-1])
    rows = logits_processor("TemperatureLogitsWarper")(float(temperature))(None, rows)
    rows = rows if k is None else logits_processor("TopKLogitsWarper")(k)(None, rows)
    return rows.softmax(-1).reshape(logits.shape).to(logits.dtype).detach()


def _knobs(one):
    return dict(zip(("temperature", "k"), one.args[1:], strict=False)) | one.kwargs


@exercise.law("Each row adds up to 1")
def adds_up(out, one, call):
    return same(out.sum(-1), torch.ones(out.shape[:-1]))


@exercise.law("With k, k classes of each row have a probability")
def k_are_left(out, one, call):
    k = _knobs(one).get("k")
    return None if k is None or one.args[0].abs().max() > 100 else bool(((out > 0).sum(-1) == k).all())


@exercise.law("Ratios of two probabilities are those of T = 1, to the power 1 / T")
def ratios(out, one, call):
    logits, knobs = one.args[0], _knobs(one)
    if knobs.get("k") or logits.abs().max() > 100:
        return None
    return same(out.log().diff(dim=-1) * knobs.get("temperature", 1.0), call(logits).log().diff(dim=-1), 1e-3, 1e-3)


exercise.law(teacher_is_still(0))
exercise.law("The result has the dtype of the logits")(keeps_dtype)


def _cut(z, k):
    if k is None:
        return z
    top = z.topk(k, -1)
    return torch.full_like(z, -torch.inf).scatter(-1, top.indices, top.values)


def _soft(warm=lambda z, t: z / t, cut=_cut, end=lambda z: z.softmax(-1), still=True):
    """Soft targets from their parts."""

    def soft_targets(logits, temperature=1.0, k=None):
        return end(cut(warm(logits.detach() if still else logits, temperature), k))

    return soft_targets


right = _soft()

exercise.mistake("the logits are multiplied by T", hint="A temperature above 1 makes them softer: divide.")(
    _soft(warm=lambda z, t: z * t)
)
exercise.mistake("T has no influence", hint="Divide the logits by the temperature, before the softmax.")(
    _soft(warm=lambda z, t: z)
)
exercise.mistake(
    "the probabilities are divided by T instead of the logits", hint="Softmax comes last: softmax(logits / T)."
)(lambda logits, temperature=1.0, k=None: right(logits, 1.0, k) / temperature)
exercise.mistake("the logits are divided by T squared", hint="T, once. (T squared belongs to the loss.)")(
    _soft(warm=lambda z, t: z / t**2)
)
exercise.mistake("log-probabilities are returned", hint="Targets are probabilities: softmax, not log_softmax.")(
    _soft(end=lambda z: z.log_softmax(-1))
)
exercise.mistake("the logits are returned, without a softmax", hint="Targets are probabilities: softmax.")(
    _soft(end=lambda z: z)
)
exercise.mistake(
    "all weight lies on the likeliest class", hint="That is a hard target. The others hold the knowledge."
)(_soft(end=lambda z: F.one_hot(z.argmax(-1), z.shape[-1]).to(z.dtype)))
exercise.mistake("k has no influence", hint="With k, the other classes get a probability of 0.")(
    _soft(cut=lambda z, k: z)
)
exercise.mistake("what is left by k isn't made to add up to 1", hint="Cut before the softmax, or divide by the sum.")(
    lambda logits, temperature=1.0, k=None: right(logits, temperature) * (right(logits, temperature, k) > 0)
)
exercise.mistake("the k least likely classes are kept", hint="The likeliest: topk gives the largest.")(
    _soft(cut=lambda z, k: z if k is None else -_cut(-z, k).masked_fill(_cut(-z, k).isinf(), torch.inf))
)
exercise.mistake("one class too many is kept", hint="The k likeliest, the k-th included and no more.")(
    _soft(cut=lambda z, k: z if k is None else _cut(z, min(k + 1, z.shape[-1])))
)
exercise.mistake("one class too few is kept", hint="The k likeliest, the k-th included.")(
    _soft(cut=lambda z, k: z if k is None else _cut(z, max(k - 1, 1)))
)
exercise.mistake("classes that are cut get a logit of 0", hint="exp(0) is 1: cut with -inf, which becomes 0.")(
    _soft(cut=lambda z, k: _cut(z, k).masked_fill(_cut(z, k).isinf(), 0.0))
)
exercise.mistake("only the k likeliest classes come back", hint="All classes, those that are cut with 0: scatter.")(
    lambda logits, temperature=1.0, k=None: right(logits if k is None else logits.topk(k, -1).values, temperature)
)
exercise.mistake("the k classes of the first row are kept in all rows", hint="Each row has its own k likeliest.")(
    _soft(cut=lambda z, k: z.masked_fill(_cut(z.reshape(-1, z.shape[-1])[0], k).isinf(), -torch.inf))
)


@exercise.mistake("the softmax runs over another dimension than the classes", hint="Classes are the last dimension.")
def over_tokens(logits, temperature=1.0, k=None):
    return _cut(logits.detach() / temperature, k).softmax(0)


exercise.mistake("the whole tensor shares one softmax", hint="Every token has its own distribution: dim=-1.")(
    _soft(end=lambda z: z.flatten().softmax(0).reshape(z.shape))
)
exercise.mistake(
    "exp is taken of the logits as they are", hint="exp(90) is infinite in float32; softmax subtracts the largest."
)(_soft(end=lambda z: z.exp() / z.exp().sum(-1, keepdim=True)))
exercise.mistake(
    "the probabilities are taken to the power 1 / T", hint="What has become 0 in a softmax stays 0: divide the logits."
)(
    _soft(
        warm=lambda z, t: z.softmax(-1).pow(1 / t),
        cut=lambda p, k: p if k is None else _cut(p, k).clamp(min=0),
        end=lambda p: p / p.sum(-1, keepdim=True),
    )
)
exercise.mistake(
    "the largest logit of all rows is subtracted, not that of each row",
    hint="A row far below the others then becomes 0 / 0: amax(-1, keepdim=True).",
)(_soft(end=lambda z: (z - z.max()).exp() / (z - z.max()).exp().sum(-1, keepdim=True)))
exercise.mistake("the targets hang on the teacher's graph", hint=DETACH)(_soft(still=False))
exercise.mistake("the result is always float32", hint="The dtype of the logits.")(
    lambda logits, temperature=1.0, k=None: right(logits.float(), temperature, k)
)
exercise.mistake("the logits are changed in place", hint="The teacher's logits may be used again: a new tensor.")(
    lambda logits, temperature=1.0, k=None: right(logits.div_(temperature), 1.0, k)
)

exercise.alternative(right)


@exercise.alternative
def by_sorting(logits, temperature=1.0, k=None):
    with torch.no_grad():
        weights = (logits - logits.max(-1, keepdim=True).values).double().div(temperature).exp()
        if k is not None:
            weights = weights * (logits.argsort(-1, descending=True).argsort(-1) < k)
        return (weights / weights.sum(-1, keepdim=True)).to(logits.dtype)


@exercise.alternative
def by_threshold(logits, temperature=1.0, k=None):
    z = logits.clone().detach()
    if k is not None:
        z[z < z.topk(k, dim=-1).values[..., -1:]] = -torch.inf
    return torch.softmax(z / temperature, dim=-1)
