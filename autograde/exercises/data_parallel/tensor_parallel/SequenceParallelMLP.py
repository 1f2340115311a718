"""`SequenceParallelMLP`: A norm on each rank's own tokens, and an MLP whose hidden units are cut over the ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.data_parallel.tensor_parallel.shared import (
    Talk,
    agree_on_layer,
    cut,
    cut_wrongly,
    enter,
    gate_wrongly,
    holds_its_shard,
    leaves,
    mean,
    parameter,
    plain_tensors,
    size,
    spread,
    total,
    train_layer,
)
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "SequenceParallelMLP",
    points=5,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "Where tokens come together (all-gather), gradients are added up and dealt out on the way back; where "
        "results are added up and dealt out (reduce-scatter), gradients come together on the way back.",
        "Two autograd functions, each the other's backward. And the norm's weight has met only this rank's tokens: "
        "Region.enter on the weight adds its gradient up.",
        "gather(x): parts = [torch.empty_like(x) …]; dist.all_gather(parts, x); torch.cat(parts, 1). scatter(y): parts "
        "= [p.contiguous() for p in y.chunk(n, 1)]; own = torch.empty_like(parts[0]); dist.reduce_scatter(own, parts). "
        "forward: gathering(F.rms_norm(x, (d,), Region.enter(self.norm), self.eps)), then the MLP, then scattering.",
    ],
)


@exercise.cases
def sequence_cases(g):
    def some(world, tokens, hidden, d, batch, label, scale=1.0, **options):
        whole = {"norm": 1 + 0.3 * randn(g, d), "gate": spread(g, hidden, d, scale=1.5), "up": spread(g, hidden, d)}
        whole["down"] = spread(g, d, hidden)
        x, pull = scale * randn(g, batch, world * tokens, d), randn(g, batch, world * tokens, d)
        given = ([c.clone() for c in t.chunk(world, 1)] for t in (x, pull))
        return case(whole, *given, True, options, ranks=world, label=label)

    d, h = pick(g, 3, 5), pick(g, 3, 4)
    yield some(2, 3, 2 * h + 1, d, 2, "an odd number of hidden units")
    yield some(2, 2, 2 * h, d + 1, 1, "small inputs, where eps counts", scale=0.1, eps=0.01)
    yield some(4, 2, 6, d, 2, "four ranks, six hidden units")
    yield some(4, 1, 5, d, 3, "four ranks, one token each")


@exercise.oracle
def one_process(whole, xs, pulls, trained, options):
    world = len(xs)
    norm, gate, up, down, x = leaves(*whole.values(), torch.cat(list(xs), 1))
    y = gated(F.rms_norm(x, norm.shape, norm, options.get("eps", 1e-5)), gate, up, down)
    (y * torch.cat(list(pulls), 1)).sum().backward()

    def told(r):
        parts = {"norm": norm.grad, "gate": cut(gate.grad, 0, r, world), "up": cut(up.grad, 0, r, world)}
        parts["down"] = cut(down.grad, 1, r, world)
        own = (t.chunk(world, 1)[r].clone() for t in (y.detach(), x.grad))
        return dict(zip(("y", "gradient of x"), own, strict=True)) | {"gradients": parts}

    return [told(r) for r in range(world)]


def gated(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


exercise.probe(train_layer)
exercise.agrees(agree_on_layer(["y", "gradient of x", "gradients"], one_process))


def _shard(one, rank):
    whole, world = one.args[0], one.ranks
    parts = [cut(whole["gate"], 0, rank, world), cut(whole["up"], 0, rank, world), cut(whole["down"], 1, rank, world)]
    return [*parts, whole["norm"]]


exercise.law("Each rank holds its own hidden units and the norm, and no more", essential=True)(holds_its_shard(_shard))


@exercise.law("Forwards one all-gather and one reduce-scatter, backwards too, and the norm's gradient", essential=True)
def _talk(out, one, call):
    own, norm = size(one.args[1][0]), size(one.args[0]["norm"])
    way_out = [f"all_gather of {own} bytes", f"reduce_scatter of {own * len(out)} bytes"]
    need = {"building": [], "forwards": way_out, "backwards": [*way_out, f"all_reduce of {norm} bytes"]}
    for rank, told in enumerate(out):
        for way, wanted in need.items():
            sent = [m.replace("_into_tensor", "").replace("_tensor", "") for m in told[way]]
            if sorted(sent) != sorted(wanted):
                says, asked = (", ".join(each) or "nothing" for each in (sent, wanted))
                return f"{one.label}: {way} rank {rank} sends {says}, and its task is {asked}"
    return True


def gather(x):
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(place()[1])]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts, 1)


def scatter(y):
    parts = [part.contiguous() for part in y.chunk(place()[1], 1)]
    own = torch.empty_like(parts[0])
    dist.reduce_scatter(own, parts)
    return own


def own_tokens(y):
    return y.chunk(place()[1], 1)[place()[0]].clone()


class Tokens(nn.Module):
    """Right as it stands, in steps that the mistakes below replace one at a time."""

    def __init__(self, norm, gate, up, down, eps=1e-5):
        super().__init__()
        self.eps = eps
        parts = self.parts(gate, up, down)
        self.norm, self.gate, self.up, self.down = parameter(norm.clone()), *map(parameter, parts)

    def parts(self, gate, up, down):
        return self.part(gate), self.part(up), self.part(down, 1)

    def part(self, t, dim=0):
        return cut(t, dim, *place())

    def weight(self):
        return enter(self.norm)

    def gather(self, x):
        return Talk.apply(x, gather, scatter)

    def mlp(self, x):
        x = self.gather(x)
        return F.linear(self.gated(F.linear(x, self.gate), F.linear(x, self.up)), self.down)

    def gated(self, a, b):
        return F.silu(a) * b

    def scatter(self, y):
        return Talk.apply(y, scatter, gather)

    def forward(self, x):
        return self.scatter(self.mlp(F.rms_norm(x, self.norm.shape, self.weight(), self.eps)))


exercise.alternative(Tokens)


@exercise.alternative
class TokensInOneTensor(nn.Module):
    """Right: the sequence in front, one tensor instead of a list, the norm written out and its gradient by a hook."""

    def __init__(self, norm, gate, up, down, eps=1e-5):
        super().__init__()
        (rank, n), self.eps = place(), eps
        self.gate, self.up = (nn.Parameter(w.tensor_split(n)[rank].clone()) for w in (gate, up))
        self.down = nn.Parameter(down.tensor_split(n, 1)[rank].clone())
        self.norm = nn.Parameter(norm)
        self.norm.register_hook(total)

    def forward(self, x):
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.norm
        x = Talk.apply(x.transpose(0, 1).contiguous(), _gather_in_front, _scatter_in_front)
        return Talk.apply(gated(x, self.gate, self.up, self.down), _scatter_in_front, _gather_in_front).transpose(0, 1)


def _gather_in_front(x):
    whole = x.new_empty(len(x) * place()[1], *x.shape[1:])
    dist.all_gather(list(whole.chunk(place()[1])), x.contiguous())
    return whole


def _scatter_in_front(y):
    own = torch.empty_like(y.chunk(place()[1])[0], memory_format=torch.contiguous_format)
    dist.reduce_scatter(own, list(y.contiguous().chunk(place()[1])))
    return own


@exercise.mistake(
    "the gradient of the norm's weight isn't added up over the ranks",
    hint="Each rank's norm has met its own tokens only. Region.enter on the weight adds its gradient up.",
)
class NormStaysLocal(Tokens):
    def weight(self):
        return self.norm


@exercise.mistake(
    "the gradient of the norm's weight is averaged over the ranks",
    hint="The tokens of all ranks belong to one sequence: their gradients are added up.",
)
class NormAverages(Tokens):
    def weight(self):
        return enter(self.norm, mean)


@exercise.mistake(
    "backwards each rank keeps its own tokens' part of its own gradient, and nothing is added up",
    hint="Every rank's hidden units have read every token: the way back through an all-gather is a reduce-scatter.",
)
class NoSumBack(Tokens):
    def gather(self, x):
        return Talk.apply(x, gather, own_tokens)


@exercise.mistake(
    "the results aren't added up: each rank keeps its own tokens of its own part",
    hint="Each rank has some terms of every token's output: reduce-scatter adds them up.",
)
class NoSum(Tokens):
    def scatter(self, y):
        return Talk.apply(y, own_tokens, gather)


@exercise.mistake(
    "the results are averaged over the ranks, not added up",
    hint="Each rank has some terms of every token's output: add up.",
)
class Averages(Tokens):
    def scatter(self, y):
        return Talk.apply(y, lambda t: scatter(t) / place()[1], gather)


@exercise.mistake(
    "every reduce-scatter is divided by the number of ranks, forwards and backwards",
    hint="Each rank has some terms of every token's output, and of its gradient: sums, no means.",
)
class AveragesBothWays(Tokens):
    def gather(self, x):
        return Talk.apply(x, gather, lambda g: scatter(g) / place()[1])

    def scatter(self, y):
        return Talk.apply(y, lambda t: scatter(t) / place()[1], gather)


@exercise.mistake(
    "an all-reduce makes the sum of all tokens, and the own ones are cut from it",
    hint="That moves twice the bytes. reduce_scatter hands each rank the sum of its own tokens.",
)
class AllReduces(Tokens):
    def scatter(self, y):
        return Talk.apply(y, lambda t: own_tokens(total(t)), gather)


@exercise.mistake(
    "backwards an all-reduce adds up the gradients of all tokens, and the own ones are cut from it",
    hint="That moves twice the bytes. reduce_scatter hands each rank the sum of its own tokens.",
)
class AllReducesBack(Tokens):
    def gather(self, x):
        return Talk.apply(x, gather, lambda g: own_tokens(total(g)))


@exercise.mistake(
    "gate and up each gather the tokens for themselves",
    hint="Gather once, and give the same tensor to gate and up.",
)
class GathersTwice(Tokens):
    def mlp(self, x):
        return F.linear(F.silu(F.linear(self.gather(x), self.gate)) * F.linear(self.gather(x), self.up), self.down)


@exercise.mistake(
    "each rank's units see this rank's tokens only",
    hint="A hidden unit lives on one rank, and every token needs it: the tokens have to come together before the MLP.",
)
class NeverGathers(Tokens):
    def gather(self, x):
        return x.repeat(1, place()[1], 1)


@exercise.mistake(
    "the whole result stands on every rank",
    hint="Each rank goes on with its own tokens: reduce_scatter, not all_reduce.",
)
class Everywhere(Tokens):
    def scatter(self, y):
        return Talk.apply(y, total, lambda g: g)


@exercise.mistake(
    "every rank holds the whole MLP and runs it on its own tokens",
    hint="Nothing is sent, but memory isn't saved either: cut the hidden units, as tensor parallelism does.",
)
class WholeWeights(Tokens):
    def parts(self, gate, up, down):
        return gate.clone(), up.clone(), down.clone()

    def gather(self, x):
        return x

    def scatter(self, y):
        return y


@exercise.mistake("the norm is left out", hint="F.rms_norm(x, (d,), weight, eps) comes first.")
class NoNorm(Tokens):
    def forward(self, x):
        return self.scatter(self.mlp(x * self.weight()))


@exercise.mistake("eps isn't used", hint="eps is an argument: hand it on to the norm.")
class FixedEps(Tokens):
    def __init__(self, norm, gate, up, down, eps=1e-5):
        super().__init__(norm, gate, up, down)


@exercise.mistake(
    "the parts are views of the whole matrices, which stay in memory with them",
    hint="tensor_split gives views: .clone() the parts.",
)
class Views(Tokens):
    def parts(self, gate, up, down):
        rank, n = place()
        return gate.tensor_split(n)[rank], up.tensor_split(n)[rank], down.tensor_split(n, 1)[rank]


plain_tensors(exercise, Tokens)
gate_wrongly(exercise, Tokens)
cut_wrongly(exercise, Tokens, "hidden units")


@exercise.mistake(
    "the tokens are gathered outside of the graph, so that no gradient comes back to x and to the norm",
    hint="autograd doesn't know all_gather: wrap it in a torch.autograd.Function whose backward is a reduce-scatter.",
)
class GatheredOutside(Tokens):
    def gather(self, x):
        return gather(x.detach())


@exercise.mistake(
    "the results are dealt out outside of the graph, so that nothing gets a gradient",
    hint="autograd doesn't know reduce_scatter: wrap it in a torch.autograd.Function whose backward is an all-gather.",
)
class ScatteredOutside(Tokens):
    def scatter(self, y):
        return scatter(y.detach())


@exercise.mistake(
    "where results are dealt out, each rank sends back the gradients of its own tokens only, and zeros for the others",
    hint="Each rank's units have a part in every token's result: back through a reduce-scatter goes an all-gather.",
)
class OwnGradientsBack(Tokens):
    def scatter(self, y):
        return Talk.apply(y, scatter, _among_zeros)


def _among_zeros(gradient):
    rank, n = place()
    return torch.cat([gradient if r == rank else torch.zeros_like(gradient) for r in range(n)], 1)


@exercise.mistake("the norm's weight isn't used", hint="F.rms_norm(x, (d,), norm, eps).")
class NoWeight(Tokens):
    def weight(self):
        return torch.ones_like(self.norm)


@exercise.mistake(
    "a LayerNorm is taken, which subtracts the mean", hint="F.rms_norm: nothing is subtracted, and there is no bias."
)
class SubtractsMean(Tokens):
    def forward(self, x):
        return self.scatter(self.mlp(F.layer_norm(x, self.norm.shape, self.weight(), None, self.eps)))


@exercise.mistake(
    "x's gradient is averaged over the ranks",
    hint="Every rank's units have read every token, and each sends back its part: add up, don't average.",
)
class MeanBack(Tokens):
    def gather(self, x):
        return Talk.apply(x, gather, lambda g: scatter(g) / place()[1])


@exercise.mistake(
    "the residual x is added to the result", hint="The block around this layer adds x; this layer gives down(…) alone."
)
class WithResidual(Tokens):
    def forward(self, x):
        return x + super().forward(x)
