"""`rms_norm(x, weight=None, eps=1e-06)`

Divide every token by its root mean square: x / sqrt(mean(x ** 2) + eps) * weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import pick, randn
from autograde.exercises.transformer.normalization.shared import READY_MADE, affine, coarse, ordinary, own_row, tight

exercise = Draft(
    "rms_norm",
    points=2,
    forbid=[*READY_MADE, "transformers"],
    precise=True,
    hints=[
        "Read the name backwards: square, mean, root.",
        "x.square().mean(-1, keepdim=True) is one number a token. eps is added to it, before the root.",
        "With wide = x.float(): y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps), times the weight "
        "if there is one, then .to(x.dtype).",
    ],
)


@exercise.cases
def rms_cases(g):
    d = pick(g, 3, 5) * 2 + 1
    yield case(randn(g, 3, 4, d) * 3, randn(g, d), label="a batch of sentences")
    yield case(randn(g, d) * 2, label="one vector, no weight")
    yield case(randn(g, 2, 1, 3, d + 1) - 2, randn(g, d + 1), label="two leading dimensions, mostly negative")
    yield case(randn(g, 3, 1) * 2, randn(g, 1), label="a single feature")
    yield case(randn(g, 2, 3, d) * 1e-3, randn(g, d), label="tiny numbers, where eps counts")
    yield case(randn(g, 1, 3, d), randn(g, d), eps=0.1, label="a batch of one, eps=0.1")
    yield case(torch.zeros(2, d), randn(g, d), label="rows of zeros")
    yield case(randn(g, 2, 2, d) * 1e4, label="large numbers")
    yield case(randn(g, d, 5).T + 10, weight=randn(g, d), label="a transposed view, far from zero")
    yield case(randn(g, 2, 130, d), randn(g, d), label="130 tokens")
    yield case(randn(g, 2, 400) * 2 + 1, weight=randn(g, 400), label="400 features")
    yield case((randn(g, 3, d) * 1e3).half(), randn(g, d).half(), label="float16, where squares overflow")


@exercise.oracle
def torch_rms_norm(x, weight=None, eps=1e-6):
    wide = F.rms_norm(x.double(), x.shape[-1:], None if weight is None else weight.double(), eps)
    return wide.to(x.dtype)


@exercise.law("A row ten times as large gives the same answer")
def rms_scale(out, one, call):
    x = one.args[0]
    return None if coarse(x) else tight(call(10 * x), call(x)) if bool((x.square().mean(-1) > 0.05).all()) else None


@exercise.law("Without weight the squares of a row have mean 1")
def rms_moment(out, one, call):
    x = one.args[0]
    ones = torch.ones(x.shape[:-1])
    if coarse(x) or bool((x.square().mean(-1) <= 0.05).any()):
        return None
    return same(call(x).square().mean(-1), ones, 2e-3, 1e-3)


exercise.law("Every row is normalized by itself")(own_row)


@exercise.law("Nothing is subtracted: a shifted row gives another answer")
def rms_feels_shift(out, one, call):
    x = one.args[0]
    return not tight(call(x + 20), call(x)) if ordinary(x) and bool((x.abs() < 100).all()) else None


exercise.law("Gives back the dtype of x")(keeps_dtype)


def rms(over=lambda x: -1, scale=None, affine=affine, prepare=lambda x: x.float(), fixed_eps=None, back=True):
    """`rms_norm` from its parts. `scale(mean of squares, eps)` is what is divided by."""
    scale = scale or (lambda square, eps: (square + eps).sqrt())

    def rms_norm(x, weight=None, eps=1e-6):
        wide = prepare(x)
        square = wide.square().mean(over(x), keepdim=True)
        y = affine(wide / scale(square, eps if fixed_eps is None else fixed_eps), weight)
        return y.to(x.dtype) if back else y

    return rms_norm


exercise.mistake(
    "the mean is subtracted first, as in LayerNorm", hint="RMSNorm leaves the mean alone: that is what it saves."
)(rms(prepare=lambda x: x.float() - x.float().mean(-1, keepdim=True)))


@exercise.mistake(
    "the squares are summed instead of averaged, which makes vectors of length 1",
    hint="The M of RMS is a mean: divide the sum of squares by d.",
)
def rms_of_sum(x, weight=None, eps=1e-6):
    wide = x.float()
    return affine(wide / (wide.square().sum(-1, keepdim=True) + eps).sqrt(), weight).to(x.dtype)


@exercise.mistake(
    "the row is divided by its standard deviation", hint="The squares are those of the numbers as they are: x ** 2."
)
def rms_by_deviation(x, weight=None, eps=1e-6):
    wide = x.float()
    return affine(wide / (wide.var(-1, correction=0, keepdim=True) + eps).sqrt(), weight).to(x.dtype)


@exercise.mistake(
    "the mean square is cut off from the graph",
    hint="It depends on x, and autograd has to know it: no detach(), no .data, no torch.no_grad().",
)
def rms_detached(x, weight=None, eps=1e-6):
    wide = x.float()
    square = wide.detach().square().mean(-1, keepdim=True)
    return affine(wide / (square + eps).sqrt(), weight).to(x.dtype)


exercise.mistake("the row is divided by the mean square, without the root", hint="The R of RMS is a root.")(
    rms(scale=lambda square, eps: square + eps)
)

exercise.mistake("eps is added outside the root", hint="sqrt(mean of squares + eps): inside the root.")(
    rms(scale=lambda square, eps: square.sqrt() + eps)
)

exercise.mistake("there is no eps", hint="A row of zeros would be divided by zero.")(
    rms(scale=lambda square, eps: square.sqrt())
)

exercise.mistake("eps is always 1e-6, whatever is passed", hint="`eps` is a parameter: use it.")(rms(fixed_eps=1e-6))

exercise.mistake("the mean square runs over all positions of an example", hint="Every token by itself: dim=-1.")(
    rms(over=lambda x: tuple(range(1, x.ndim)) or -1)
)

exercise.mistake(
    "one mean square serves the whole tensor",
    hint="mean() without a dim runs over everything. Use dim=-1, keepdim=True.",
)(rms(over=lambda x: tuple(range(x.ndim))))

exercise.mistake("the mean square runs over the first dimension", hint="Features are the last dimension.")(
    rms(over=lambda x: 0)
)

exercise.mistake("the weight is left out", hint="Multiply with `weight` where it is given.")(rms(affine=lambda y, w: y))

exercise.mistake(
    "the row is multiplied by 1 + weight", hint="Gemma stores weights that way. LLaMA's weight is the factor itself."
)(rms(affine=lambda y, w: affine(y, None if w is None else 1 + w)))

exercise.mistake("the weight is added", hint="The weight is a factor.")(
    rms(affine=lambda y, w: y if w is None else y + w)
)

exercise.mistake("the row is divided by the weight", hint="The weight is a factor.")(
    rms(affine=lambda y, w: y if w is None else y / w)
)

exercise.mistake(
    "the squares are taken in the dtype of x, and overflow in float16",
    hint="float16 ends at 65,504, which 300 squared exceeds. Start with x.float().",
)(rms(prepare=lambda x: x))

exercise.mistake(
    "the numbers are right, but a float16 x comes back as float32",
    hint="Compute in float32, but end with .to(x.dtype): the next layer expects what came in.",
)(rms(back=False))


@exercise.alternative
def rms_by_norm(x, weight=None, eps=1e-6):
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    y = x.float() * torch.rsqrt(length**2 / x.shape[-1] + eps)
    return affine(y, None if weight is None else weight.float()).to(x.dtype)


@exercise.alternative
def rms_by_einsum(x, weight=None, eps=1e-6):
    """As transformers does it: back to the dtype of x before the weight is multiplied."""
    wide = x.double()
    square = torch.einsum("...i,...i->...", wide, wide) / x.shape[-1]
    y = (wide / (square + eps).pow(0.5).unsqueeze(-1)).to(x.dtype)
    return y if weight is None else torch.einsum("...i,i->...i", y, weight)
