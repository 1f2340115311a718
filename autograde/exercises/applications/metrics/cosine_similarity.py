"""`cosine_similarity(a, b)`: The cosine of every row of a with every row of b."""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.metrics.shared import randn, remembered

exercise = Draft(
    "cosine_similarity",
    points=2,
    forbid=["sklearn", "torch.nn.functional.cosine_similarity"],
    no_gradient="a metric: nothing is trained through it",
    dtypes=(torch.float64, torch.bfloat16),
    hints=[
        "If all vectors had length 1, one matrix product would do.",
        "Divide each row by its norm(dim=-1, keepdim=True). What should happen where that is 0?",
        "a = a / a.norm(dim=-1, keepdim=True).clamp(min=1e-12), the same for b, then a @ b.T",
    ],
)


@exercise.cases
def cosine_cases(g):
    a, b = randn(g, 3, 4), randn(g, 5, 4)
    hollow = randn(g, 3, 4)
    hollow[1] = 0.0
    yield case(a, b, label="three against five")
    yield case(randn(g, 4, 6, scale=30.0) + 9, randn(g, 4, 6), label="four against four, of other lengths")
    yield case(a=randn(g, 1, 7), b=randn(g, 1, 7), label="one against one, by keyword")
    yield case(hollow, b, label="a vector of zeros")
    yield case(b, hollow, label="a vector of zeros in b")
    yield case(randn(g, 4, 1), randn(g, 3, 1), label="one dimension: only the sign is left")
    yield case(randn(g, 6, 3).T, randn(g, 6, 2).T, label="not contiguous")
    yield case(randn(g, 2, 64, scale=1e4), randn(g, 3, 64, scale=1e-2), label="large against small")
    yield case(randn(g, 4, 5, scale=1e-3), randn(g, 3, 5, scale=1e-2), label="small against small")


@exercise.oracle
@remembered
def sklearn_cosine(a, b):
    from sklearn.metrics import pairwise

    return torch.from_numpy(pairwise.cosine_similarity(a.double().numpy(), b.double().numpy())).to(a.dtype)


def _two(one):
    return one.args if one.args else (one.kwargs["a"], one.kwargs["b"])


@exercise.law("Lengths don't count, only directions")
def lengths_dont_count(out, one, call):
    a, b = _two(one)
    return same(call(a * 7, b / 3), out, rtol=1e-3, atol=1e-3)


@exercise.law("A vector has similarity 1 with itself, and 0 if it is zero")
def with_itself(out, one, call):
    a = _two(one)[0]
    wanted = (a != 0).any(-1).to(out.dtype)
    return same(call(a, a).diagonal(), wanted, rtol=1e-3, atol=1e-3)


@exercise.law("The opposite vector has the opposite similarity")
def opposite(out, one, call):
    a, b = _two(one)
    return same(call(a, -b), -out, rtol=1e-3, atol=1e-3)


@exercise.law("Rows belong to a, columns to b")
def exchanged(out, one, call):
    a, b = _two(one)
    return out.shape == (len(a), len(b)) and same(call(b, a), out.T, rtol=1e-3, atol=1e-3)


@exercise.law("Gives back the dtype of a")
def keeps_kind(out, one, call):
    return out.dtype == _two(one)[0].dtype if one.kwargs else keeps_dtype(out, one, call)


def _unit(x, dim=-1):
    norm = x.norm(dim=dim, keepdim=True)
    return x / torch.where(norm > 0, norm, 1)


@exercise.alternative
def cosine_right(a, b):
    return _unit(a) @ _unit(b).T


@exercise.mistake(
    "the vectors are not scaled to length 1", hint="The dot product grows with the lengths: divide by both."
)
def dot_products(a, b):
    return a @ b.T


@exercise.mistake("only b is scaled to length 1", hint="Divide by the length of a as well.")
def cosine_only_b_scaled(a, b):
    return a @ _unit(b).T


@exercise.mistake("it is divided by the squared lengths", hint="Take the roots.")
def cosine_of_squares(a, b):
    return (a @ b.T) / (a.square().sum(-1)[:, None] * b.square().sum(-1)).clamp(min=1e-12)


exercise.mistake("the result is float32", hint="It has the dtype of a.")(
    lambda a, b: cosine_right(a.float(), b.float())
)

exercise.mistake("lengths are sums of absolute values", hint="The root of the sum of squares.")(
    lambda a, b: a @ b.T / (a.abs().sum(-1)[:, None] * b.abs().sum(-1)).clamp(min=1e-12)
)

exercise.mistake("everything is compared with the first row of b", hint="Every row of a with every row of b.")(
    lambda a, b: cosine_right(a, b[:1]).expand(len(a), len(b))
)

exercise.mistake("a product of lengths below 1 is raised to 1", hint="Keep clear of 0 alone: clamp(min=1e-12).")(
    lambda a, b: a @ b.T / (a.norm(dim=-1)[:, None] * b.norm(dim=-1)).clamp(min=1)
)


@exercise.mistake("a vector of zeros gives NaN", hint="Its similarity with everything is 0 here.")
def cosine_nan(a, b):
    return (a / a.norm(dim=-1, keepdim=True)) @ (b / b.norm(dim=-1, keepdim=True)).T


@exercise.mistake("it is the cosine distance", hint="The similarity, without 1 -.")
def cosine_distance(a, b):
    return 1 - cosine_right(a, b)


@exercise.mistake("the sign is lost", hint="Opposite vectors have similarity -1.")
def cosine_without_sign(a, b):
    return cosine_right(a, b).abs()


@exercise.mistake("each vector's mean is subtracted first", hint="That is Pearson's correlation.")
def cosine_of_centered(a, b):
    return cosine_right(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True))


@exercise.mistake("lengths are taken over the columns", hint="A vector is a row: dim=-1.")
def cosine_over_columns(a, b):
    return _unit(a, dim=0) @ _unit(b, dim=0).T


@exercise.mistake("one length is taken of the whole batch", hint="Each row has its own.")
def cosine_of_whole(a, b):
    return a @ b.T / (a.norm() * b.norm()).clamp(min=1e-12)


@exercise.mistake("rows belong to b, columns to a", hint="[n, m]: entry [i, j] is a[i] with b[j].")
def cosine_turned(a, b):
    return cosine_right(b, a)


@exercise.mistake("only row i with row i is compared", hint="Every row of a with every row of b: a matrix product.")
def cosine_couples(a, b):
    n = min(len(a), len(b))
    return (_unit(a[:n]) * _unit(b[:n])).sum(-1)


@exercise.mistake("it is the Euclidean distance", hint="Scale to length 1 and multiply.")
def euclidean(a, b):
    return torch.cdist(a, b)


@exercise.alternative
def cosine_by_loop(a, b):
    def one(x, y):
        product = sum(u * u for u in x) * sum(v * v for v in y)
        return sum(u * v for u, v in zip(x, y, strict=True)) / math.sqrt(product) if product else 0.0

    rows = [[one(x, y) for y in b.tolist()] for x in a.tolist()]
    return torch.tensor(rows, dtype=a.dtype)


@exercise.alternative
def cosine_by_normalize(a, b):
    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (a, b))
    return torch.einsum("id,jd->ij", a, b)
