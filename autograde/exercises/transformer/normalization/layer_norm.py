"""`layer_norm(x, weight=None, bias=None, eps=1e-05)`

Layer norm over the last dimension: (x - mean) / sqrt(variance + eps) * weight + bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import pick, randn
from autograde.exercises.transformer.normalization.shared import READY_MADE, affine, far, ordinary, own_row, tight

exercise = Draft(
    "layer_norm",
    points=3,
    forbid=READY_MADE,
    dtypes=[torch.float64],
    hints=[
        "Each token has d features. Which two numbers of those d tell you where they lie and how far they spread?",
        "mean = x.mean(-1, keepdim=True), and the variance is the mean of (x - mean) ** 2 over the same dimension.",
        "y = (x - mean) / torch.sqrt(variance + eps); then y * weight if weight is not None, and + bias likewise.",
    ],
)


@exercise.cases
def layer_cases(g):
    d = pick(g, 3, 5) * 2 + 1
    yield case(randn(g, 3, 4, d) * 3, randn(g, d), randn(g, d), label="a batch of sentences")
    yield case(randn(g, d) * 2, label="one vector, neither weight nor bias")
    yield case(randn(g, 2, 1, 3, d + 1), randn(g, d + 1), label="two leading dimensions, weight only")
    yield case(randn(g, 4, d), bias=randn(g, d), label="bias only")
    yield case(randn(g, 3, 1), randn(g, 1), randn(g, 1), label="a single feature")
    yield case(randn(g, 2, 3, d) * 3e-3, label="tiny numbers, where eps counts")
    yield case(randn(g, 3, d), randn(g, d), randn(g, d), eps=0.1, label="eps=0.1")
    # So small that a mean which is off in its last digit still counts for nothing beside eps.
    yield case(torch.full((2, d), 0.025), randn(g, d), randn(g, d), label="rows of equal numbers")
    yield case(randn(g, 3, d).double(), randn(g, d).double(), label="float64")
    yield case(randn(g, 2, 2, d) * 1e4, randn(g, d), label="large numbers")
    yield case(randn(g, d, 5).T - 10, label="a transposed view, far from zero")
    yield case(far(g, 20, d), randn(g, d), label="numbers around 100 that differ by 0.1")
    yield case(randn(g, 130, d), randn(g, d), randn(g, d), label="130 tokens")
    yield case(randn(g, 1, 300) * 2 + 1, bias=randn(g, 300), label="300 features")


@exercise.oracle
def torch_layer_norm(x, weight=None, bias=None, eps=1e-5):
    """torch's own in float64."""
    wide, w, b = (v if v is None else v.double() for v in (x, weight, bias))
    return F.layer_norm(wide, x.shape[-1:], w, b, eps).to(x.dtype)


@exercise.law("Adding one number to a whole row changes nothing")
def layer_shift(out, one, call):
    x = one.args[0]
    return tight(call(x + 3), call(x)) if ordinary(x) else None


exercise.law("Every row is normalized by itself")(own_row)


@exercise.law("Without weight and bias a row has mean 0, and its squares have mean 1")
def layer_moments(out, one, call):
    x = one.args[0]
    plain = call(x)
    if not same(plain.mean(-1), torch.zeros(x.shape[:-1]), atol=1e-3):
        return "a row's mean isn't 0"
    ones = same(plain.square().mean(-1), torch.ones(x.shape[:-1]), rtol=2e-3, atol=1e-3)
    return ones or "the mean of a row's squares isn't 1" if ordinary(x) else True


@exercise.law("First the weight stretches, then the bias shifts")
def layer_affine(out, one, call):
    x = one.args[0]
    weight, bias = torch.arange(1.0, x.shape[-1] + 1), torch.full((x.shape[-1],), -2.0)
    return tight(call(x, weight, bias), call(x) * weight - 2)


exercise.law("Gives back the dtype of x")(keeps_dtype)


def layer(over=lambda x: -1, unbiased=False, center=True, scale=None, affine=affine, fixed_eps=None, summed=False):
    """`layer_norm` from its parts. `scale(variance, eps)` is what is divided by."""
    scale = scale or (lambda variance, eps: (variance + eps).sqrt())

    def layer_norm(x, weight=None, bias=None, eps=1e-5):
        dims = over(x)
        centered = x - x.mean(dims, keepdim=True)
        count = x.numel() // x.mean(dims, keepdim=True).numel()
        variance = centered.square().sum(dims, keepdim=True) / (1 if summed else count - unbiased)
        y = (centered if center else x) / scale(variance, eps if fixed_eps is None else fixed_eps)
        return affine(y, weight, bias)

    return layer_norm


exercise.mistake(
    "the variance is the unbiased one, divided by d - 1",
    hint="Tensor.var and .std divide by d - 1 unless you pass correction=0. Normalization divides by d.",
)(layer(unbiased=True))


@exercise.mistake(
    "the variance is the mean of the squares less the square of the mean",
    hint="Far from zero these two are nearly equal, and float32 loses what is between them. Subtract the mean first.",
)
def layer_difference_of_squares(x, weight=None, bias=None, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    variance = x.square().mean(-1, keepdim=True) - mean.square()
    return affine((x - mean) / (variance + eps).sqrt(), weight, bias)


exercise.mistake("the squares are summed and not divided by d", hint="The variance is a mean.")(layer(summed=True))


@exercise.mistake(
    "mean and variance are cut off from the graph",
    hint="They depend on x, and autograd has to know it: no detach(), no .data, no torch.no_grad().",
)
def layer_detached(x, weight=None, bias=None, eps=1e-5):
    fixed = x.detach()
    mean, variance = fixed.mean(-1, keepdim=True), fixed.var(-1, correction=0, keepdim=True)
    return affine((x - mean) / (variance + eps).sqrt(), weight, bias)


exercise.mistake(
    "eps is added to the standard deviation, outside the root",
    hint="sqrt(variance + eps): eps belongs to the variance.",
)(layer(scale=lambda variance, eps: variance.sqrt() + eps))

exercise.mistake("there is no eps", hint="A row of equal numbers has variance 0. What is 0 / 0?")(
    layer(scale=lambda variance, eps: variance.sqrt())
)

exercise.mistake("eps is always 1e-5, whatever is passed", hint="`eps` is a parameter: use it.")(layer(fixed_eps=1e-5))

exercise.mistake(
    "the row is divided by its variance rather than by the root of it",
    hint="Variance has the unit of x squared. Take its root.",
)(layer(scale=lambda variance, eps: variance + eps))

exercise.mistake(
    "the statistics run over all positions of an example",
    hint="In a Transformer every token is normalized alone: over the last dimension only.",
)(layer(over=lambda x: tuple(range(1, x.ndim)) or -1))

exercise.mistake(
    "one mean and one variance serve the whole tensor",
    hint="mean() without a dim runs over everything. Use dim=-1, keepdim=True.",
)(layer(over=lambda x: tuple(range(x.ndim))))

exercise.mistake(
    "the statistics run over the first dimension, as in BatchNorm",
    hint="LayerNorm never looks at other examples: dim=-1.",
)(layer(over=lambda x: 0))

exercise.mistake("the statistics run over dimension 1, whatever that is", hint="Count from the end: dim=-1.")(
    layer(over=lambda x: min(1, x.ndim - 1))
)

exercise.mistake(
    "the statistics run over the positions",
    hint="The features are the last dimension, the positions the one before it.",
)(layer(over=lambda x: -2 if x.ndim > 1 else -1))

exercise.mistake(
    "the mean isn't subtracted from x, although the variance is taken about it",
    hint="Center first: x - mean, then divide.",
)(layer(center=False))


@exercise.mistake(
    "the row is divided by its root mean square, and no mean is subtracted",
    hint="That is RMSNorm, which comes next. LayerNorm subtracts the mean first.",
)
def layer_root_mean_square(x, weight=None, bias=None, eps=1e-5):
    return affine(x / (x.square().mean(-1, keepdim=True) + eps).sqrt(), weight, bias)


exercise.mistake(
    "the bias is added before the weight is multiplied", hint="normalized * weight + bias, in this order."
)(layer(affine=lambda y, w, b: affine(y if b is None else y + b, w)))

exercise.mistake("the bias is left out where there is no weight", hint="Each of the two may be there alone.")(
    layer(affine=lambda y, w, b: y if w is None else affine(y, w, b))
)

exercise.mistake(
    "weight and bias are used only where both are given", hint="Each of the two may be there alone: ask for each."
)(layer(affine=lambda y, w, b: y if w is None or b is None else affine(y, w, b)))

exercise.mistake("the bias is left out", hint="Where a bias is given, add it at the end.")(
    layer(affine=lambda y, w, b: affine(y, w))
)

exercise.mistake("the weight is left out", hint="Multiply by `weight` where it is given.")(
    layer(affine=lambda y, w, b: affine(y, None, b))
)

exercise.mistake(
    "the row is multiplied by 1 + weight", hint="Gemma stores weights that way. Here the weight is the factor itself."
)(layer(affine=lambda y, w, b: affine(y, None if w is None else 1 + w, b)))


@exercise.mistake(
    "the numbers are right, but in another precision than x",
    hint="float32 in, float32 out; float64 in, float64 out: end with .to(x.dtype).",
)
def layer_in_float64(x, weight=None, bias=None, eps=1e-5):
    return layer()(x.double(), weight, bias, eps)


@exercise.alternative
def layer_by_loop(x, weight=None, bias=None, eps=1e-5):
    rows = []
    for row in x.reshape(-1, x.shape[-1]).double():
        mean = sum(row) / len(row)
        spread = sum((v - mean) ** 2 for v in row) / len(row)
        rows.append(torch.stack([(v - mean) / (spread + eps) ** 0.5 for v in row]))
    return affine(torch.stack(rows).reshape(x.shape), weight, bias).to(x.dtype)


@exercise.alternative
def layer_by_var_mean(x, weight=None, bias=None, eps=1e-5):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    y = torch.rsqrt(variance + eps) * (x - mean)
    weight = torch.ones_like(y) if weight is None else weight
    return torch.addcmul(torch.zeros_like(y) if bias is None else bias, y, weight)


@exercise.alternative
def layer_by_second_moment(x, weight=None, bias=None, eps=1e-5):
    wide = x.double()
    mean = wide.mean(-1, keepdim=True)
    variance = wide.square().mean(-1, keepdim=True) - mean.square()
    return affine((wide - mean) / (variance.clamp(min=0) + eps).sqrt(), weight, bias).to(x.dtype)
