"""`softmax(x)`: Probabilities from scores, along the last dimension."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same

exercise = Draft(
    "softmax",
    points=2,
    forbid=["torch.softmax", "torch.nn.functional.softmax", "torch.nn.Softmax", "scipy.special"],
    dtypes=[torch.float64, torch.bfloat16, torch.float16],
    hints=[
        "Which number can you subtract from a whole row without changing its softmax?",
        "x.amax(-1, keepdim=True) is each row's largest number, in a shape that broadcasts.",
        "e = (x - x.amax(-1, keepdim=True)).exp(), then e / e.sum(-1, keepdim=True).",
    ],
)


@exercise.cases
def _cases(g):
    def randn(*shape):
        return torch.randn(*shape, generator=g) * 3

    yield case(randn(5), label="one row")
    yield case(randn(3, 3), label="as many rows as columns")
    yield case(randn(2, 3, 4), label="two leading dimensions")
    yield case(randn(1), label="a single number")
    yield case(randn(2, 4) * 2_000, label="scores of thousands")
    yield case(randn(4, 3).T, label="a transposed view")
    yield case(torch.zeros(3), label="all alike")
    yield case(randn(4) - 2_000, label="large negative numbers")
    yield case(randn(2, 4) + torch.tensor([[1_000.0], [-1_000.0]]), label="a huge row and a tiny one")
    yield case(torch.tensor([[3.0, -torch.inf, 1.0], [0.5, 2.0, -1.0]]), label="one -inf")
    yield case(torch.stack([randn(4), randn(4) / 50 - 10_000, randn(4) + 9_990]).double(), label="scores of +-10,000")
    yield case(randn(70, 3), label="70 rows")
    yield case(randn(2, 300), label="300 columns")


exercise.oracle(lambda x: F.softmax(x.double(), dim=-1).to(x.dtype))


@exercise.law("Every row adds up to 1")
def _adds_up(out, one, call):
    return same(out.sum(-1), torch.ones(out.shape[:-1], dtype=out.dtype))


exercise.law("The result has the dtype of x")(keeps_dtype)


@exercise.law("The largest number gets the largest share")
def _keeps_order(out, one, call):
    x = one.args[0]
    return x.shape[-1] == 1 or bool((out.argmax(-1) == x.argmax(-1)).all()) and not same(out, x)


@exercise.mistake(
    "exp meets the plain numbers, and e**1000 is infinite",
    hint="Subtract each row's largest number first. The result is the same, and no power is above 1.",
)
def _unstable(x):
    return x.exp() / x.exp().sum(-1, keepdim=True)


def _over(x, dim):
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


exercise.mistake(
    "the sum runs over the first dimension", hint="The numbers to compare stand along the last dimension: dim=-1."
)(lambda x: _over(x, 0))


@exercise.mistake(
    "the sum runs over the whole tensor",
    hint="Each row is a distribution of its own. Sum along dim=-1 with keepdim=True.",
)
def _over_everything(x):
    e = (x - x.max()).exp()
    return e / e.sum()


@exercise.mistake(
    "each row's largest number is subtracted, but the sum runs over the whole tensor",
    hint="Each row is a distribution of its own. Sum along dim=-1 with keepdim=True.",
)
def _one_sum_for_all(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum()


exercise.mistake("the sum runs over dimension 1, whatever that is", hint="Count from the end: dim=-1.")(
    lambda x: _over(x, min(1, x.dim() - 1))
)


@exercise.mistake("each row's least number is subtracted", hint="Then all powers are above 1. Subtract the largest.")
def _least_subtracted(x):
    e = (x - x.amin(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@exercise.mistake("-inf counts as 0", hint="e**-inf is 0, without any help: leave -inf as it is.")
def _infinity_is_zero(x):
    return _over(x.masked_fill(x == -torch.inf, 0.0), -1)


@exercise.mistake("the largest number gets all", hint="Each number has its share: e**x, divided by the sum of e**x.")
def _hardest(x):
    best = (x == x.amax(-1, keepdim=True)).to(x.dtype)
    return best + 0 * x.nan_to_num()


exercise.mistake("each number goes through a sigmoid", hint="The numbers of a row compete: they add up to 1.")(
    torch.sigmoid
)


@exercise.mistake(
    "the maximum of the whole tensor is subtracted from every row",
    hint="Beside a row of thousands, a row of small numbers becomes all zeros: take each row's own maximum.",
)
def _one_maximum_for_all(x):
    e = (x - x.max()).exp()
    return e / e.sum(-1, keepdim=True)


@exercise.mistake(
    "each row's mean is subtracted, not its largest number",
    hint="A number that lies 1,000 above the mean is still too large for exp. Subtract the largest.",
)
def _mean_subtracted(x):
    e = (x - x.mean(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@exercise.mistake("the numbers themselves are divided by their sum", hint="e**x first: scores may be negative.")
def _no_powers(x):
    return x / x.sum(-1, keepdim=True)


@exercise.mistake(
    "powers of 2 are taken instead of powers of e", hint="torch.exp, with e = 2.718…: softmax is about e**x."
)
def _powers_of_two(x):
    e = torch.exp2(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


@exercise.mistake(
    "the result comes in float32, whatever x is", hint="Stay in the dtype of x, or end with .to(x.dtype)."
)
def _in_float32(x):
    return _over(x.float(), -1)


@exercise.mistake("the powers are not divided by their sum", hint="Each row should add up to 1.")
def _not_divided(x):
    return (x - x.amax(-1, keepdim=True)).exp()


@exercise.mistake("the logarithm of the softmax is returned", hint="Probabilities, not their logarithms.")
def _logarithm(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


@exercise.mistake("the numbers have the wrong sign", hint="The largest number gets the largest share.")
def _backwards(x):
    return _over(-x, -1)


@exercise.alternative
def _by_logsumexp(x):
    return (x - torch.logsumexp(x, -1, keepdim=True)).exp()


@exercise.alternative
def _by_loop(x):
    rows = x.reshape(-1, x.shape[-1])
    made = []
    for row in rows:
        powers = [torch.exp(value - max(row)) for value in row]
        made.append(torch.stack(powers) / sum(powers))
    return torch.stack(made).reshape(x.shape)
