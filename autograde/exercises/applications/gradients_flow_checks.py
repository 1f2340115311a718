"""What stacks and clipping by value in 02_applications/10_gradients are judged by: GPT-2's way, torch's clip."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import case, same
from autograde.exercises.applications.gradients_checks import only


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


# ---- residual_stack -------------------------------------------------------------------------------------------------

def streams_and_gradient(stack, x, weights, eps=None):
    """The streams of a stack of small networks, and the gradient of a weighted sum of the last one at x.

    weights: [w_in, w_out, bias] for each branch, which is tanh(z @ w_in.T) @ w_out.T + bias.
    """
    import torch

    def branch(w_in, w_out, bias):
        return lambda z: torch.tanh(z @ w_in.T) @ w_out.T + bias

    x = x.clone().requires_grad_()
    branches = [branch(*each) for each in weights]
    streams = stack(x, branches) if eps is None else stack(x, branches, eps=eps)
    last = streams[-1]
    weighing = torch.linspace(-1, 2, last.numel(), dtype=last.dtype).reshape(last.shape)
    gradient = torch.autograd.grad((last * weighing).sum(), x)[0]
    return {"streams": streams, "gradient": gradient}


def gpt2_streams(x, weights, eps=1e-5):
    """As GPT-2 does it: an ordinary pre-norm stack, whose branches' last weights are 1/sqrt(n) times as large."""
    def stack(x, branches, eps=1e-5):
        norm = torch.nn.LayerNorm(x.shape[-1], eps=eps, elementwise_affine=False, dtype=x.dtype)
        streams = [x]
        for branch in branches:
            streams.append(streams[-1] + branch(norm(streams[-1])))
        return torch.stack(streams)

    n = math.sqrt(len(weights))
    scaled = [[w_in.double(), w_out.double() / n, bias.double() / n] for w_in, w_out, bias in weights]
    found = streams_and_gradient(stack, x.double(), scaled, eps)
    return {name: value.to(x.dtype) for name, value in found.items()}


def _branches(g, count, d, hidden=5, size=1.0):
    return [[_randn(g, hidden, d) * d**-0.5, _randn(g, d, hidden) * size * hidden**-0.5, _randn(g, d) * 0.3]
            for _ in range(count)]


def residual_cases(g):
    yield case(_randn(g, 3, 4), _branches(g, 2, 4), label="one layer: two branches")
    yield case(_randn(g, 2, 3, 6), _branches(g, 4, 6), label="a batch, four branches")
    yield case(_randn(g, 5), _branches(g, 3, 5), label="a single vector")
    yield case(_randn(g, 2, 4), _branches(g, 1, 4), label="one branch")
    yield case(_randn(g, 4, 4) * 30, _branches(g, 6, 4), label="a large stream")
    yield case(_randn(g, 2, 2, 3, 4) + 5, _branches(g, 2, 4), label="three batch dimensions, not centred")
    yield case(_randn(g, 3, 6) * 0.01, _branches(g, 3, 6), eps=1e-3, label="a small stream, eps 1e-3")
    yield case(_randn(g, 2, 8), _branches(g, 12, 8, size=2.0), label="twelve branches")
    yield case(_randn(g, 3, 5).double(), [[w.double() for w in b] for b in _branches(g, 2, 5)], label="float64")
    yield case(_randn(g, 4, 3).T, _branches(g, 2, 4), label="not contiguous")


def starts_with_x(out, one, call):
    x, weights = one.args[:2]
    streams = out["streams"]
    return streams.shape == (len(weights) + 1, *x.shape) and same(streams[0], x)


def _constant(count, d, value):
    return [[torch.zeros(2, d), torch.zeros(d, 2), torch.full((d,), value)] for _ in range(count)]


@only("one layer: two branches")
def grows_by_the_root(out, one, call):
    """16 branches that all say 1 move the stream by 4."""
    x = torch.arange(10.0).reshape(2, 5)
    return same(call(x, _constant(16, 5, 1.0))["streams"][-1], x + 4.0)


@only("one layer: two branches", "a batch, four branches")
def stays_on_the_main_road(out, one, call):
    """Silent branches leave the stream, and its gradient, as they are."""
    x = one.args[0].float()
    d = x.shape[-1]
    found = call(x, _constant(3, d, 0.0))
    weighing = torch.linspace(-1, 2, x.numel()).reshape(x.shape)
    return same(found["streams"], x.expand(4, *x.shape)) and same(found["gradient"], weighing)


@only("one layer: two branches", "a large stream")
def branches_see_a_norm(out, one, call):
    """The first branch says the same to 20 + 3x as to x."""
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 4.0, -1.0, 2.0]], dtype=one.args[0].dtype)
    said = [call(y, one.args[1])["streams"][:2] for y in (x, 20 + 3 * x)]
    return same(said[0][1] - said[0][0], said[1][1] - said[1][0], rtol=1e-3, atol=1e-3)


# ---- clip_by_value --------------------------------------------------------------------------------------------------

def torch_clipped_by_value(gradients, limit):
    """torch's clip_grad_value_, and the cosine of everything as one vector in float64."""
    parameters = [torch.zeros_like(g) for g in gradients if g is not None]
    before = [g for g in gradients if g is not None]
    for parameter, gradient in zip(parameters, before, strict=True):
        parameter.grad = gradient.clone()
    if parameters:
        torch.nn.utils.clip_grad_value_(parameters, limit)
    after = [p.grad for p in parameters]
    left = iter(after)
    clipped = [None if g is None else next(left) for g in gradients]
    long = [torch.cat([g.flatten().double() for g in part] or [torch.zeros(1)]) for part in (before, after)]
    return clipped, float(F.cosine_similarity(*long, dim=0, eps=0.0)) if long[0].any() else 1.0


def clip_value_cases(g):
    yield case([_randn(g, 3, 4), _randn(g, 5)], 1.0, label="a matrix and a vector")
    yield case([_randn(g, 3, 4) * 1e-3, _randn(g, 5) * 1e-3], 1.0, label="small ones")
    yield case([_randn(g, 2, 3) * 200, _randn(g, 4), _randn(g, 2, 2, 2)], limit=0.5, label="one is much larger")
    yield case([_randn(g, 4) * 3, None, _randn(g, 3, 2)], 0.5, label="one parameter took no part")
    yield case([torch.zeros(3), torch.zeros(2, 2)], 1.0, label="all zero")
    yield case([None, None], 1.0, label="no gradient at all")
    yield case([torch.tensor(-3.0)], 0.25, label="a single number")
    yield case([_randn(g, 3) * 1e30, _randn(g, 2, 2)], 1.0, label="exploded")
    yield case([_randn(g, 7) * 1e-30, _randn(g, 3) * 1e-30], 1e-30, label="vanished")
    yield case([_randn(g, 2, 3).double() * 40, _randn(g, 4).double()], 2.0, label="float64")
    yield case([torch.tensor([1.0, -1.0, 3.0, 0.0]), torch.tensor([[2.0], [-4.0]])], 1.0, label="some on the limit")
    yield case([_randn(g, 4, 6).T * 7, torch.zeros(0), _randn(g, 1)], 3.0, label="not contiguous, and an empty one")
    yield case([_randn(g, 9).abs() * 2 + 1, -_randn(g, 4).abs() - 1], 0.75, label="every entry is too large")


def _flat(gradients):
    return torch.cat([g.flatten().double() for g in gradients if g is not None] or [torch.zeros(0).double()])


def _limit(one):
    return one.kwargs.get("limit") or one.args[1]


def within_the_limit(out, one, call):
    return bool((_flat(out[0]).abs() <= _limit(one) * (1 + 1e-4)).all())


@only("a matrix and a vector")
def entry_by_entry(out, one, call):
    """What was within the limit stays, whatever stands beside it."""
    clipped, _ = call([torch.tensor([0.1, -0.2, 500.0]), torch.tensor([-90.0, 0.3])], 0.5)
    return same(clipped, [torch.tensor([0.1, -0.2, 0.5]), torch.tensor([-0.5, 0.3])])


@only("a matrix and a vector")
def is_the_angle(out, one, call):
    """(3, 4) cut at 3 points along (1, 1); cut at 9 it stays. And 1e25 times as long, all stays as it is."""
    parts = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    cut, whole = call(parts, 3.0)[1], call(parts, 9.0)[1]
    long = call([part * 1e25 for part in parts], 3e25)[1]
    return same([float(cut), float(whole), float(long)], [7 / 50**0.5, 1.0, 7 / 50**0.5], atol=1e-4)


@only("a matrix and a vector", "one parameter took no part", "every entry is too large")
def tiny_limits_leave_signs(out, one, call):
    parts = [g for g in one.args[0] if g is not None and g.numel()]
    limit = float(_flat(parts).abs().min()) / 2
    clipped, cosine = call(parts, limit)
    long = _flat(parts)
    wanted = long.abs().sum() / (long.norm() * (long != 0).sum().sqrt())
    return same([c / limit for c in clipped], [p.sign() for p in parts]) and same(float(cosine), float(wanted))


def value_keeps_dtypes(out, one, call):
    return all(a is None or a.dtype == b.dtype for a, b in zip(out[0], one.args[0], strict=True))
