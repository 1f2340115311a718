"""`residual_stack(x, branches, eps=1e-05)`

Run a stream through pre-norm branches that are scaled for their number.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import only, randn

exercise = Draft(
    "residual_stack",
    points=3,
    dtypes=(torch.float64,),
    no_gradient="the gradient at x is one of the results",
    hints=[
        "Two roads: the stream goes straight on, and a branch reads a normed copy of it. Where does the factor belong?",
        "x = x + branch(norm(x)) / len(branches) ** 0.5, and keep every x in a list.",
        "norm = lambda x: F.layer_norm(x, x.shape[-1:], eps=eps); streams = [x]; in the loop "
        "streams.append(streams[-1] + branch(norm(streams[-1])) / len(branches) ** 0.5); torch.stack(streams).",
    ],
)


def _branches(g, count, d, hidden=5, size=1.0):
    return [
        [randn(g, hidden, d) * d**-0.5, randn(g, d, hidden) * size * hidden**-0.5, randn(g, d) * 0.3]
        for _ in range(count)
    ]


@exercise.cases
def residual_cases(g):
    yield case(randn(g, 3, 4), _branches(g, 2, 4), label="one layer: two branches")
    yield case(randn(g, 2, 3, 6), _branches(g, 4, 6), label="a batch, four branches")
    yield case(randn(g, 5), _branches(g, 3, 5), label="a single vector")
    yield case(randn(g, 2, 4), _branches(g, 1, 4), label="one branch")
    yield case(randn(g, 4, 4) * 30, _branches(g, 6, 4), label="a large stream")
    yield case(randn(g, 2, 2, 3, 4) + 5, _branches(g, 2, 4), label="three batch dimensions, not centered")
    yield case(randn(g, 3, 6) * 0.01, _branches(g, 3, 6), eps=1e-3, label="a small stream, eps 1e-3")
    yield case(randn(g, 2, 8), _branches(g, 12, 8, size=2.0), label="twelve branches")
    yield case(randn(g, 3, 5).double(), [[w.double() for w in b] for b in _branches(g, 2, 5)], label="float64")
    yield case(randn(g, 4, 3).T, _branches(g, 2, 4), label="not contiguous")
    yield case(randn(g, 1, 6), _branches(g, 2, 6), label="one token")


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
    lives = last.requires_grad  # else the result is cut off from the graph
    gradient = torch.autograd.grad((last * weighing).sum(), x)[0] if lives else torch.zeros_like(x)
    return {"streams": streams, "gradient": gradient}


@exercise.oracle
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


exercise.probe(streams_and_gradient)


@exercise.law("The streams begin with x, one more than branches")
def starts_with_x(out, one, call):
    x, weights = one.args[:2]
    streams = out["streams"]
    return streams.shape == (len(weights) + 1, *x.shape) and same(streams[0], x)


@exercise.law("The streams have the dtype of x")
def streams_keep_dtype(out, one, call):
    return out["streams"].dtype is one.args[0].dtype or f"{one.args[0].dtype} went in, {out['streams'].dtype} came out"


def _constant(count, d, value):
    return [[torch.zeros(2, d), torch.zeros(d, 2), torch.full((d,), value)] for _ in range(count)]


@exercise.law("16 branches that agree move the stream by 4, not by 16")
@only("one layer: two branches")
def grows_by_the_root(out, one, call):
    """16 branches that all say 1 move the stream by 4."""
    x = torch.arange(10.0).reshape(2, 5)
    return same(call(x, _constant(16, 5, 1.0))["streams"][-1], x + 4.0)


@exercise.law("Silent branches leave the stream and the gradient alone")
@only("one layer: two branches", "a batch, four branches")
def stays_on_the_main_road(out, one, call):
    """Silent branches leave the stream, and its gradient, as they are."""
    x = one.args[0].float()
    d = x.shape[-1]
    found = call(x, _constant(3, d, 0.0))
    weighing = torch.linspace(-1, 2, x.numel()).reshape(x.shape)
    return same(found["streams"], x.expand(4, *x.shape)) and same(found["gradient"], weighing)


@exercise.law("A branch doesn't see how large the stream is")
@only("one layer: two branches", "a large stream")
def branches_see_a_norm(out, one, call):
    """The first branch says the same to 20 + 3x as to x."""
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 4.0, -1.0, 2.0]], dtype=one.args[0].dtype)
    said = [call(y, one.args[1])["streams"][:2] for y in (x, 20 + 3 * x)]
    return same(said[0][1] - said[0][0], said[1][1] - said[1][0], rtol=1e-3, atol=1e-3)


def _layer_norm(x, eps):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _stack(
    join=lambda x, branch, norm, root: x + branch(norm(x)) / root,
    norm=_layer_norm,
    root=lambda branches: math.sqrt(len(branches)),
    end=torch.stack,
    fixed_eps=None,
):
    """A `residual_stack` with some of its parts exchanged."""

    def residual_stack(x, branches, eps=1e-5):
        streams, divisor = [x], root(branches)
        for branch in branches:
            streams.append(join(streams[-1], branch, lambda z: norm(z, fixed_eps or eps), divisor))
        return end(streams)

    return residual_stack


exercise.mistake("the branches aren't scaled", hint="Divide what each says by sqrt(n).")(
    _stack(root=lambda branches: 1.0)
)

exercise.mistake("the branches are divided by n", hint="Variances add up, so the root is enough: sqrt(n).")(
    _stack(root=len)
)

exercise.mistake(
    "every branch is counted twice",
    hint="A layer has two branches, attention and MLP. Here the branches are counted already.",
)(_stack(root=lambda branches: math.sqrt(2 * len(branches))))

exercise.mistake(
    "two branches are counted once", hint="Every branch adds variance of its own: sqrt(number of branches)."
)(_stack(root=lambda branches: math.sqrt(len(branches) / 2)))

exercise.mistake("the branches are multiplied by sqrt(n)", hint="Divide.")(
    _stack(root=lambda branches: 1 / math.sqrt(len(branches)))
)

exercise.mistake(
    "the sum is divided, not the branch",
    hint="Then the stream shrinks in every layer: divide what the branch says, alone.",
)(_stack(lambda x, branch, norm, root: (x + branch(norm(x))) / root))

exercise.mistake("the stream is divided, not the branch", hint="The main road stays as it is.")(
    _stack(lambda x, branch, norm, root: x / root + branch(norm(x)))
)

exercise.mistake(
    "the input of the branch is divided, not its output",
    hint="The branch reads the normed stream; scale what it answers.",
)(_stack(lambda x, branch, norm, root: x + branch(norm(x) / root)))

exercise.mistake("the norm comes after the addition", hint="That is post-norm, and its norms stand on the main road.")(
    _stack(lambda x, branch, norm, root: norm(x + branch(x) / root))
)

exercise.mistake("there is no norm", hint="The branch reads norm(x).")(
    _stack(lambda x, branch, norm, root: x + branch(x) / root)
)

exercise.mistake(
    "the normed stream is what the branch is added to", hint="norm(x) is for the branch; the sum takes x itself."
)(_stack(lambda x, branch, norm, root: norm(x) + branch(norm(x)) / root))

exercise.mistake("the branch's answer is normed, not what it reads", hint="x + branch(norm(x)) / sqrt(n).")(
    _stack(lambda x, branch, norm, root: x + norm(branch(x)) / root)
)

exercise.mistake("the residual connection is missing", hint="x + …")(
    _stack(lambda x, branch, norm, root: branch(norm(x)) / root)
)

exercise.mistake(
    "the gradient is cut off on the main road",
    hint="detach() there takes away the very thing that residual connections are for.",
)(_stack(lambda x, branch, norm, root: x.detach() + branch(norm(x)) / root))

exercise.mistake(
    "the gradient is cut off before the norm", hint="No detach(): the gradient runs through the branches, too."
)(_stack(lambda x, branch, norm, root: x + branch(norm(x.detach())) / root))

exercise.mistake(
    "the mean isn't subtracted", hint="That is RMSNorm. GPT-2 has LayerNorm: subtract the mean of the features first."
)(_stack(norm=lambda x, eps: F.rms_norm(x, x.shape[-1:], eps=eps)))

exercise.mistake(
    "the norm runs over all tokens at once", hint="Mean and variance of each token's own features: the last dimension."
)(_stack(norm=lambda x, eps: F.layer_norm(x, x.shape, eps=eps)))


def _unbiased(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt()


exercise.mistake("the variance divides by d - 1", hint="LayerNorm's variance divides by d.")(_stack(norm=_unbiased))


def _eps_outside(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + eps)


exercise.mistake("eps is added outside the root", hint="sqrt(variance + eps).")(_stack(norm=_eps_outside))

exercise.mistake("eps is always 1e-5", hint="It is a parameter.")(_stack(fixed_eps=1e-5))

exercise.mistake("only the last stream is returned", hint="All of them, x first: n + 1 along a new first dimension.")(
    _stack(end=lambda streams: streams[-1])
)

exercise.mistake("x isn't among the streams", hint="n + 1 streams, x first.")(
    _stack(end=lambda streams: torch.stack(streams[1:]))
)

exercise.mistake(
    "the streams are stacked along a new last dimension", hint="Along a new first one: torch.stack(streams)."
)(_stack(end=lambda streams: torch.stack(streams, -1)))


@exercise.mistake("every branch reads x", hint="Each branch reads what those before it have left in the stream.")
def stack_in_parallel(x, branches, eps=1e-5):
    """Every branch reads x itself, as if there were a single layer."""
    z, streams = _layer_norm(x, eps), [x]
    for branch in branches:
        streams.append(streams[-1] + branch(z) / math.sqrt(len(branches)))
    return torch.stack(streams)


@exercise.mistake("every branch is added to x, and the others forgotten", hint="It is added to the stream so far.")
def stack_from_the_start(x, branches, eps=1e-5):
    """Each branch is added to x, not to the stream."""
    streams = [x]
    for branch in branches:
        streams.append(x + branch(_layer_norm(streams[-1], eps)) / math.sqrt(len(branches)))
    return torch.stack(streams)


@exercise.mistake(
    "the root is that of the branches so far", hint="The same factor for all: sqrt(number of all branches)."
)
def stack_by_position(x, branches, eps=1e-5):
    """The root of the branches so far."""
    streams = [x]
    for i, branch in enumerate(branches, 1):
        streams.append(streams[-1] + branch(_layer_norm(streams[-1], eps)) / math.sqrt(i))
    return torch.stack(streams)


right_stack = _stack()


@exercise.mistake(
    "the last stream is normed", hint="GPT-2 does so before its head. Here the stream itself is asked for."
)
def stack_final_norm(x, branches, eps=1e-5):
    streams = right_stack(x, branches, eps)
    return torch.cat([streams[:-1], _layer_norm(streams[-1:], eps)])


@exercise.mistake(
    "the streams are cut off from the graph", hint="Something leads away from autograd: no_grad, detach, a new tensor."
)
@torch.no_grad()
def stack_without_graph(x, branches, eps=1e-5):
    return _stack()(x, branches, eps)


def _detached_norm(x, eps):
    mean, variance = x.mean(-1, keepdim=True).detach(), x.var(-1, keepdim=True, correction=0).detach()
    return (x - mean) / (variance + eps).sqrt()


exercise.mistake(
    "gradients don't pass through the norm's mean and variance", hint="Both are made of x: nothing is detached."
)(_stack(norm=_detached_norm))

exercise.mistake("the streams are float32", hint="They have the dtype of x.")(
    lambda x, branches, eps=1e-5: _stack()(x, branches, eps).float()
)

exercise.alternative(right_stack)


@exercise.alternative
def stack_by_hand(x, branches, eps=1e-5):
    """The norm by hand, the streams as running sums."""
    said, stream = [torch.zeros_like(x)], x
    for branch in branches:
        centered = stream - stream.mean(-1, keepdim=True)
        said.append(branch(centered * (centered.square().mean(-1, keepdim=True) + eps).rsqrt()) * len(branches) ** -0.5)
        stream = stream + said[-1]
    return x + torch.stack(said).cumsum(0)
