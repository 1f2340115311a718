"""`dropout(x, p, noise, training=True)`: Set numbers to zero and scale the rest up (inverted dropout)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "dropout",
    points=3,
    forbid=["torch.nn.functional.dropout"],
    hints=[
        "Three situations: evaluation, p = 1, and everything else.",
        "noise >= p is True where a number survives. What must a survivor be multiplied by, so that the mean stays?",
        "In training: x * (noise >= p) / (1 - p); zeros if p is 1; x itself in evaluation.",
    ],
)


def _rand(g, *shape):
    return torch.rand(shape, generator=g)


@exercise.cases
def dropout_cases(g):
    yield case(randn(g, 3, 4, 5), 0.3, _rand(g, 3, 4, 5), label="a batch of sentences")
    yield case(randn(g, 7), 0.5, _rand(g, 7), training=True, label="one vector")
    yield case(randn(g, 4, 6), 0.25, _rand(g, 4, 6), training=False, label="evaluation")
    yield case(randn(g, 2, 3), 0, torch.tensor([[0.3, 0.0, 0.9], [0.0, 0.6, 0.1]]), label="p = 0 drops nothing")
    yield case(randn(g, 2, 4), 1.0, _rand(g, 2, 4), label="p = 1 drops everything")
    yield case(randn(g, 5), 1.0, _rand(g, 5), training=False, label="p = 1 in evaluation")
    yield case(100 + 0.01 * randn(g, 130, 7), 0.1, _rand(g, 130, 7), label="many numbers, far from zero")
    yield case(randn(g, 1), 0.6, _rand(g, 1), label="a single number")
    yield case(randn(g, 3), 0.995, torch.tensor([0.997, 0.99, 0.2]), label="p near 1")
    noise = torch.tensor([[0.0, 0.25, 0.5, 0.75], [0.5, 0.4999, 0.5001, 0.5]])
    yield case(randn(g, 2, 4), 0.5, noise, label="noise exactly at p")
    yield case(randn(g, 6, 5).T * 1e3, 0.9, _rand(g, 5, 6), label="a transposed view, large numbers")


@exercise.oracle
def torch_dropout(x, p, noise, training=True):
    """torch's own dropout on the places that `noise` keeps: it decides by chance, so it is asked place by place."""
    if not training:
        return F.dropout(x, p, training=False)
    survivors = x * F.dropout(torch.ones(()), 0.0) / (1 - p) if p < 1 else F.dropout(x, 1.0)
    return torch.where(noise < p, torch.zeros_like(x), survivors)


@exercise.law("On average every number keeps its size")
def keeps_the_mean(out, one, call):
    p = one.args[1]
    if p == 1 or one.kwargs.get("training") is False:
        return None
    noise = (torch.arange(4_000) + 0.5) / 4_000  # every value of the noise once
    return same(call(torch.ones(4_000), p, noise).mean(), torch.tensor(1.0), rtol=2e-3)


@exercise.law("Evaluation changes nothing")
def same_in_evaluation(out, one, call):
    x, p, noise = one.args
    return same(call(x, p, noise, training=False), x)


@exercise.law("A share p of the numbers is dropped")
def drops_its_share(out, one, call):
    p = one.args[1]
    noise = (torch.arange(4_000) + 0.5) / 4_000
    gone = (call(torch.ones(4_000), p, noise) == 0).float().mean().item()
    return math.isclose(gone, p, abs_tol=1e-3) or f"{gone:.0%} of the numbers are dropped at p = {p}"


exercise.law("The result has the dtype of x")(keeps_dtype)


def dropping(
    keeps=lambda noise, p: noise >= p, scale=lambda p: 1 / (1 - p), in_eval=lambda x, p, noise: x, all_gone=True
):
    """`dropout` from its parts: what is kept, what the kept is multiplied by, and what evaluation does."""

    def dropout(x, p, noise, training=True):
        if not training:
            return in_eval(x, p, noise)
        if p == 1 and all_gone:
            return torch.zeros_like(x)
        return x * keeps(noise, p) * scale(p)

    return dropout


exercise.mistake(
    "the survivors are not scaled up",
    hint="With a share p gone, the next layer's sums shrink. Divide the survivors by 1 - p.",
)(dropping(scale=lambda p: 1.0))

exercise.mistake(
    "the survivors are multiplied by 1 - p instead of divided",
    hint="They have to make up for what is gone: they get larger.",
)(dropping(scale=lambda p: 1 - p))

exercise.mistake("the survivors are divided by p", hint="p is the share that goes; 1 - p remains.")(
    dropping(scale=lambda p: 1 / p if p else 1.0)
)

exercise.mistake(
    "p is taken for the share that stays", hint="Drop where the noise is below p; keep where it is p or more."
)(dropping(keeps=lambda noise, p: noise < p))

exercise.mistake("noise that equals p is dropped, too", hint="Dropped is what lies *below* p: noise < p.")(
    dropping(keeps=lambda noise, p: noise > p)
)

exercise.mistake(
    "numbers are dropped in evaluation as well", hint="With training=False the input comes back as it is."
)(dropping(in_eval=dropping()))

exercise.mistake(
    "training leaves the size alone, and evaluation multiplies by 1 - p",
    hint="That is the first paper's dropout. Today's scales in training, so that evaluation is free.",
)(dropping(scale=lambda p: 1.0, in_eval=lambda x, p, noise: x * (1 - p)))


@exercise.mistake("p = 1 drops everything in evaluation as well", hint="First of all: training=False changes nothing.")
def drops_all_in_evaluation(x, p, noise, training=True):
    return torch.zeros_like(x) if p == 1 else dropping()(x, p, noise, training)


exercise.mistake("evaluation scales by 1 / (1 - p)", hint="With training=False the input comes back as it is.")(
    dropping(in_eval=lambda x, p, noise: x if p == 1 else x / (1 - p))
)

exercise.mistake(
    "what is kept is scaled by the share that was really kept", hint="By 1 - p, whatever the noise came to."
)(
    lambda x, p, noise, training=True: (
        x * (noise >= p) / (noise >= p).to(x.dtype).mean().clamp(min=1e-9) if training else x
    )
)


@exercise.mistake("the result is float32, whatever x is", hint="Leave the dtype alone.")
def drops_in_float32(x, p, noise, training=True):
    return dropping()(x.float(), p, noise, training)


exercise.mistake("whole rows are dropped", hint="Every number has its own noise: use all of `noise`.")(
    dropping(keeps=lambda noise, p: (noise >= p)[..., :1])
)


@exercise.mistake("p = 1 divides by zero", hint="0 / 0 is NaN. With p = 1 everything is dropped: zeros.")
def drop_nan_at_one(x, p, noise, training=True):
    return x * (noise >= p) / torch.tensor(1.0 - p) if training else x


@exercise.mistake(
    "with p = 1 the result is right, but its gradient is 0 / 0",
    hint="torch.where computes x / (1 - p) all the same, and its gradient becomes NaN. Return zeros first.",
)
def drop_nan_gradient(x, p, noise, training=True):
    return torch.where(noise < p, torch.zeros_like(x), x / (1 - p)) if training else x


@exercise.mistake(
    "dropped numbers become -inf", hint="-inf is for masking scores before a softmax. Dropout sets activations to 0."
)
def drop_to_minus_infinity(x, p, noise, training=True):
    return (x / max(1 - p, 1e-9)).masked_fill(noise < p, -torch.inf) if training else x


@exercise.alternative
def drop_by_where(x, p, noise, training=True):
    if not training or p == 0:
        return x.clone()
    zeros = torch.zeros((), dtype=x.dtype)
    return zeros.expand_as(x).clone() if p == 1 else torch.where(noise.lt(p), zeros, x.div(1 - p))


@exercise.alternative
def drop_by_loop(x, p, noise, training=True):
    pairs = zip(x.flatten(), noise.flatten(), strict=True)
    kept = [v if not training else v / (1 - p) if n >= p else 0 * v for v, n in pairs]
    return torch.stack(kept).reshape(x.shape)
