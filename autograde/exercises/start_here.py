"""The exercise of 00_start_here: a softmax that survives large numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Exercise, Law, Misconception, case, same


def _cases(g):
    def randn(*shape):
        return torch.randn(*shape, generator=g) * 3

    yield case(randn(5), label="one row")
    yield case(randn(1), label="a single number")
    yield case(randn(3, 3), label="as many rows as columns")
    yield case(randn(2, 3, 4), label="two leading dimensions")
    yield case(randn(4, 3).T, label="a transposed view")
    yield case(torch.zeros(3), label="all alike")
    yield case(randn(4) - 2_000, label="large negative numbers")
    yield case(randn(2, 4) + torch.tensor([[1_000.0], [-1_000.0]]), label="a huge row and a tiny one")
    yield case(torch.tensor([3.0, -torch.inf, 1.0]), label="one -inf")


def _adds_up(out, one, call):
    return same(out.sum(-1), torch.ones(out.shape[:-1], dtype=out.dtype))


def _keeps_order(out, one, call):
    x = one.args[0]
    return x.shape[-1] == 1 or bool((out.argmax(-1) == x.argmax(-1)).all()) and not same(out, x)


def _unstable(x):
    return x.exp() / x.exp().sum(-1, keepdim=True)


def _over(x, dim):
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


def _over_everything(x):
    e = (x - x.max()).exp()
    return e / e.sum()


def _one_maximum_for_all(x):
    e = (x - x.max()).exp()
    return e / e.sum(-1, keepdim=True)


def _not_divided(x):
    return (x - x.amax(-1, keepdim=True)).exp()


def _logarithm(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


def _backwards(x):
    return _over(-x, -1)


def _by_logsumexp(x):
    return (x - torch.logsumexp(x, -1, keepdim=True)).exp()


def _by_loop(x):
    rows = x.reshape(-1, x.shape[-1])
    made = []
    for row in rows:
        powers = [torch.exp(value - max(row)) for value in row]
        made.append(torch.stack(powers) / sum(powers))
    return torch.stack(made).reshape(x.shape)


softmax = Exercise(
    name="softmax",
    points=2,
    cases=_cases,
    oracle=lambda x: F.softmax(x, dim=-1),
    laws=[
        Law("Every row adds up to 1", _adds_up),
        Law("The largest number gets the largest share", _keeps_order),
    ],
    misconceptions=[
        Misconception(
            "exp meets the plain numbers, and e**1000 is infinite",
            _unstable,
            "Subtract each row's largest number first. The result is the same, and no power is above 1.",
        ),
        Misconception(
            "the sum runs over the first dimension",
            lambda x: _over(x, 0),
            "The numbers to compare stand along the last dimension: dim=-1.",
        ),
        Misconception(
            "the sum runs over the whole tensor",
            _over_everything,
            "Each row is a distribution of its own. Sum along dim=-1 with keepdim=True.",
        ),
        Misconception(
            "the maximum of the whole tensor is subtracted from every row",
            _one_maximum_for_all,
            "Beside a row of thousands, a row of small numbers becomes all zeros: take each row's own maximum.",
        ),
        Misconception("the powers are not divided by their sum", _not_divided, "Each row should add up to 1."),
        Misconception("the logarithm of the softmax is returned", _logarithm, "Probabilities, not their logarithms."),
        Misconception("the numbers have the wrong sign", _backwards, "The largest number gets the largest share."),
    ],
    alternatives=[_by_logsumexp, _by_loop],
    forbid=["torch.softmax", "torch.nn.functional.softmax", "torch.nn.Softmax", "scipy.special"],
    dtypes=[torch.float64],
    hints=[
        "Which number can you subtract from a whole row without changing its softmax?",
        "x.amax(-1, keepdim=True) is each row's largest number, in a shape that broadcasts.",
        "e = (x - x.amax(-1, keepdim=True)).exp(), then e / e.sum(-1, keepdim=True).",
    ],
)
