"""`TensorParallelAttention`: Causal attention with grouped queries, its heads cut over the ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.data_parallel.tensor_parallel.shared import (
    agree_on_layer,
    cut,
    cut_wrongly,
    enter,
    gathered,
    holds_its_shard,
    leave,
    leave_wrongly,
    leaves,
    mean,
    parameter,
    plain_tensors,
    size,
    spread,
    talks,
    train_layer,
)
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "TensorParallelAttention",
    points=5,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "A query head needs its key-value head on the same rank. What is the smallest piece that can be cut off?",
        "Cut the key-value heads over the ranks; the query heads of a group go with their key-value head, and so do "
        "their columns of o. Cut [kv heads, rows of a group, width], not rows.",
        "kv = len(k) // head_dim. q.reshape(kv, -1, d).tensor_split(n)[rank].flatten(0, 1) are this rank's rows of q, "
        "k and v alike; o.reshape(d, kv, -1).tensor_split(n, 1)[rank].flatten(1) its columns of o. Clone. Then enter "
        "once; view(b, length, -1, head_dim).transpose(1, 2); F.scaled_dot_product_attention(q, k, v, is_causal=True, "
        "enable_gqa=True); back to [b, length, own width]; leave with F.linear(…, self.o).",
    ],
)


@exercise.cases
def attention_cases(g):
    def some(world, kv, group, head_dim, d, shape, label, trained=True):
        rows, few = kv * group * head_dim, kv * head_dim
        whole = {"q": spread(g, rows, d, scale=2), "k": spread(g, few, d, scale=2), "v": spread(g, few, d)}
        whole["o"] = spread(g, d, rows)
        x, pull = randn(g, *shape, d), randn(g, *shape, d)
        options = {"head_dim": head_dim}
        return case(whole, [x] * world, [pull] * world, trained, options, ranks=world, label=label)

    d, h = pick(g, 5, 6), pick(g, 2, 3)
    yield some(2, 3, 3, h, d, (2, 4), "3 key-value heads on 2 ranks, 9 query heads")
    yield some(2, 2, 1, h, d + 1, (1, 5), "as many key-value heads as query heads")
    yield some(3, 4, 2, h, d, (2, 3), "three ranks, 4 key-value heads, groups of 2")
    yield some(3, 3, 2, 1, d, (3, 2), "three ranks, heads of width 1, an input that isn't trained", trained=False)


def _heads(x, weight, head_dim):
    return F.linear(x, weight).unflatten(-1, (-1, head_dim)).transpose(-2, -3)


def attended(x, q, k, v, o, head_dim, causal=True, seen=None):
    """What these heads of an attention give, before anything is added up over the ranks; `seen`: another mask."""
    q, k, v = (_heads(each, w, head_dim) for each, w in zip(x, (q, k, v), strict=True))
    y = F.scaled_dot_product_attention(q, k, v, seen, is_causal=causal and seen is None, enable_gqa=True)
    return F.linear(y.transpose(-2, -3).flatten(-2), o)


def _own(q, k, v, o, head_dim, rank, world):
    """What belongs to a rank's key-value heads: rows of q, k, v and columns of o."""
    kv = len(k) // head_dim
    q, k, v = (_own_rows(w, kv, rank, world) for w in (q, k, v))
    return q, k, v, o.reshape(len(o), kv, -1).tensor_split(world, 1)[rank].flatten(1).clone()


def _own_rows(weight, kv, rank, world):
    return weight.reshape(kv, -1, weight.shape[1]).tensor_split(world)[rank].flatten(0, 1).clone()


@exercise.oracle
def one_process(whole, xs, pulls, trained, options):
    world, head_dim = len(xs), options["head_dim"]
    *weights, x = leaves(*whole.values(), xs[0])
    y = attended([x] * 3, *weights, head_dim)
    (y * pulls[0]).sum().backward()

    def told(r):
        parts = dict(zip("qkvo", _own(*(w.grad for w in weights), head_dim, r, world), strict=True))
        return {"y": y.detach(), "gradient of x": x.grad if trained else None, "gradients": parts}

    return [told(r) for r in range(world)]


exercise.probe(train_layer)
exercise.agrees(agree_on_layer(["y", "gradient of x", "gradients"], one_process))


def _shard(one, rank):
    return _own(*one.args[0].values(), one.args[4]["head_dim"], rank, one.ranks)


exercise.law("Each rank holds its own heads, and no more", essential=True)(holds_its_shard(_shard))


@exercise.law("One all-reduce forwards and one backwards, each of the size of x", essential=True)
@talks
def _talk(one, rank):
    message = ("all_reduce", size(one.args[1][0]))
    return [message], [message] * one.args[3]


class Heads(nn.Module):
    """Right as it stands, in steps that the mistakes below replace one at a time."""

    causal = True

    def __init__(self, q, k, v, o, head_dim):
        super().__init__()
        self.head_dim = head_dim
        self.q, self.k, self.v, self.o = map(parameter, self.parts(q, k, v, o))

    def parts(self, q, k, v, o):
        heads = len(k) // self.head_dim
        q, k, v = (self.part(w.unflatten(0, (heads, -1))).flatten(0, 1) for w in (q, k, v))
        return q, k, v, self.part(o.unflatten(1, (heads, -1)), 1).flatten(1)

    def part(self, t, dim=0):
        return cut(t, dim, *place())

    def enter(self, x):
        return [enter(x)] * 3

    def leave(self, y):
        return leave(y)

    def forward(self, x):
        return self.leave(attended(self.enter(x), self.q, self.k, self.v, self.o, self.head_dim, self.causal))


exercise.alternative(Heads)


@exercise.alternative
class HeadsByHand(nn.Module):
    """Right: one head after the other, softmax written out."""

    def __init__(self, q, k, v, o, head_dim):
        super().__init__()
        (rank, n), self.head_dim = place(), head_dim
        kv = len(k) // head_dim
        self.group = len(q) // len(k)
        mine = torch.arange(kv).tensor_split(n)[rank].tolist()
        rows = [i for head in mine for i in range(head * head_dim, (head + 1) * head_dim)]
        wide = self.group * head_dim
        more = [i for head in mine for i in range(head * wide, (head + 1) * wide)]
        self.k, self.v = nn.Parameter(k[rows]), nn.Parameter(v[rows])
        self.q, self.o = nn.Parameter(q[more]), nn.Parameter(o[:, more].contiguous())

    def forward(self, x):
        x = enter(x)
        q, k, v = ((x @ w.T).split(self.head_dim, -1) for w in (self.q, self.k, self.v))
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        out = []
        for i, one in enumerate(q):
            scores = one @ k[i // self.group].mT / self.head_dim**0.5
            out.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v[i // self.group])
        return leave(torch.cat(out, -1) @ self.o.T)


@exercise.mistake(
    "q, k and v each have x enter for themselves: three all-reduces backwards where one is enough",
    hint="Let x enter once, and give the same tensor to all three: autograd adds their gradients before the message.",
)
class EntersThrice(Heads):
    def enter(self, x):
        return [enter(x) for _ in range(3)]


@exercise.mistake(
    "x's gradient isn't added up over the ranks",
    hint="Each rank's heads send their own part of the gradient back to x. Region.enter adds them up.",
)
class NoWayBack(Heads):
    def enter(self, x):
        return [x] * 3


@exercise.mistake(
    "only the queries' part of x's gradient is added up", hint="k and v read x, too: give them what entered."
)
class OnlyQueriesEnter(Heads):
    def enter(self, x):
        return [enter(x), x, x]


@exercise.mistake(
    "every rank holds all heads and uses its own only",
    hint="Cut in __init__, and keep nothing but the parts: memory is what this is done for.",
)
class WholeWeights(Heads):
    def parts(self, q, k, v, o):
        return q.clone(), k.clone(), v.clone(), o.clone()

    def forward(self, x):
        own = _own(self.q, self.k, self.v, self.o, self.head_dim, *place())
        return self.leave(attended(self.enter(x), *own, self.head_dim))


@exercise.mistake(
    "the query heads are cut, but every rank holds all key-value heads",
    hint="Only where there are fewer key-value heads than ranks do they have to be copied. Cut them, too.",
)
class AllKeysAndValues(Heads):
    def parts(self, q, k, v, o):
        q, _, _, o = super().parts(q, k, v, o)
        return q, k.clone(), v.clone(), o

    def forward(self, x):
        k, v = (_own_rows(w, len(w) // self.head_dim, *place()) for w in (self.k, self.v))
        return self.leave(attended(self.enter(x), self.q, k, v, self.o, self.head_dim))


@exercise.mistake(
    "every rank computes the whole layer by itself",
    hint="Then nothing is saved: neither memory nor work. Give each rank some of the heads.",
)
class Alone(WholeWeights):
    def forward(self, x):
        return attended([x] * 3, self.q, self.k, self.v, self.o, self.head_dim)


@exercise.mistake(
    "all heads' results are gathered on every rank, and o is held whole",
    hint="o's own columns need this rank's heads only. Multiply first, then add up.",
)
class GathersHeads(Heads):
    def parts(self, q, k, v, o):
        return *super().parts(q, k, v, o)[:3], o.clone()

    def forward(self, x):
        own = torch.eye(len(self.q), dtype=self.q.dtype)
        heads = attended(self.enter(x), self.q, self.k, self.v, own, self.head_dim)
        return F.linear(leave(heads, gathered, self.mine), self.o)

    def mine(self, gradient):
        (rank, n), wide = place(), len(self.q) // (len(self.k) // self.head_dim)
        return gradient.unflatten(-1, (-1, wide)).tensor_split(n, -2)[rank].flatten(-2)


@exercise.mistake(
    "query heads are dealt out in turns, away from their key-value heads",
    hint="Query heads i * group … of a group read key-value head i: they belong on its rank, side by side.",
)
class QueriesInTurns(Heads):
    def parts(self, q, k, v, o):
        _, k2, v2, _ = super().parts(q, k, v, o)
        group, heads = len(q) // len(k), len(q) // self.head_dim
        own = len(k2) // self.head_dim * group
        rank, n = place()
        chosen = torch.arange(heads).roll(-rank)[::n].repeat(2)[:own]  # as many as there is room for
        rows = torch.cat([torch.arange(self.head_dim) + self.head_dim * i for i in chosen])
        return q[rows], k2, v2, o[:, rows].clone()


@exercise.mistake(
    "o is cut along its rows, as q is",
    hint="o reads the heads: they are its columns. Cut rows, and its outputs would be spread over the ranks.",
)
class RowsOfO(Heads):
    def parts(self, q, k, v, o):
        q2, k2, v2, _ = super().parts(q, k, v, o)
        return q2, k2, v2, o[:, : len(q2)].clone()


@exercise.mistake("every token sees the later ones, too", hint="is_causal=True.")
class NotCausal(Heads):
    causal = False


@exercise.mistake(
    "the parts are views of the whole matrices, which stay in memory with them",
    hint="reshape and tensor_split give views: .clone() the parts.",
)
class Views(Heads):
    def parts(self, q, k, v, o):
        (rank, n), kv = place(), len(k) // self.head_dim
        own = [w.reshape(kv, -1, w.shape[1]).tensor_split(n)[rank].flatten(0, 1) for w in (q, k, v)]
        return *own, o.reshape(len(o), kv, -1).tensor_split(n, 1)[rank].flatten(1)


@exercise.mistake(
    "the scores are scaled by the width of all heads on the rank, not of one",
    hint="1 / sqrt(head_dim): scaled_dot_product_attention does it where the last dimension is one head's.",
)
class WrongScale(Heads):
    def forward(self, x):
        heads = len(self.q) // self.head_dim
        return self.leave(attended(self.enter(x), self.q / heads**0.5, self.k, self.v, self.o, self.head_dim))


@exercise.mistake(
    "x is cut off from the graph, so that it gets no gradient",
    hint="What stands before this layer is trained through x: let it enter, don't detach it.",
)
class XDetached(Heads):
    def enter(self, x):
        return [x.detach()] * 3


_SCALED = {
    "the scores aren't scaled": (
        "1 / sqrt(head_dim): scaled_dot_product_attention does it by itself.",
        lambda head_dim, width: head_dim**0.5,
    ),
    "the scores are scaled by the width of x, not of a head": (
        "1 / sqrt(head_dim): scaled_dot_product_attention does it by itself.",
        lambda head_dim, width: (head_dim / width) ** 0.5,
    ),
    "the scores are divided by head_dim": (
        "By its root: 1 / sqrt(head_dim).",
        lambda head_dim, width: head_dim**-0.5,
    ),
}
for _says, (_hint, _factor) in _SCALED.items():

    @exercise.mistake(_says, hint=_hint)
    class Scaled(Heads):
        def forward(self, x, factor=_factor):
            q = self.q * factor(self.head_dim, x.shape[-1])
            return self.leave(attended(self.enter(x), q, self.k, self.v, self.o, self.head_dim))


@exercise.mistake("a token sees the one after it, too", hint="Token t sees tokens 0 … t: is_causal=True.")
class SeesTheNext(Heads):
    def forward(self, x):
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(1)
        return self.leave(attended(self.enter(x), self.q, self.k, self.v, self.o, self.head_dim, seen=seen))


leave_wrongly(exercise, Heads, "the products of o")
plain_tensors(exercise, Heads)
cut_wrongly(exercise, Heads, "key-value heads")


def _by_hand(layer, x, heads, spread_out, back):
    """The layer with other ways to lay out heads, to give each query head its keys, and to put heads together."""
    q, k, v = (heads(F.linear(each, w)) for each, w in zip(layer.enter(x), (layer.q, layer.k, layer.v), strict=True))
    k, v = (spread_out(t, q.shape[1] // t.shape[1]) for t in (k, v))
    return layer.leave(F.linear(back(F.scaled_dot_product_attention(q, k, v, is_causal=True)), layer.o))


def _together(y):
    return y.transpose(1, 2).flatten(2)


@exercise.mistake(
    "key-value heads are repeated in turns, so that query heads of one group read different ones",
    hint="Query heads i * g … (i + 1) * g - 1 read key-value head i: repeat_interleave, or enable_gqa=True.",
)
class RepeatedInTurns(Heads):
    def forward(self, x):
        def heads(y):
            return y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        return _by_hand(self, x, heads, lambda t, group: t.repeat(1, group, 1, 1), _together)


@exercise.mistake(
    "the projections are viewed as [batch, heads, tokens, head_dim] straight away, which mixes heads and tokens",
    hint="A token's heads stand side by side: view as [batch, tokens, heads, head_dim] first, then transpose(1, 2).",
)
class ViewedStraight(Heads):
    def forward(self, x):
        def heads(y):
            return y.reshape(y.shape[0], -1, y.shape[1], self.head_dim)

        return _by_hand(self, x, heads, lambda t, group: t.repeat_interleave(group, 1), _together)


@exercise.mistake(
    "heads and tokens aren't swapped back before o",
    hint="From [batch, heads, tokens, head_dim] transpose(1, 2) first, then put a token's heads side by side.",
)
class NotSwappedBack(Heads):
    def forward(self, x):
        def heads(y):
            return y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        def back(y):
            return y.reshape(*x.shape[:2], -1)

        return _by_hand(self, x, heads, lambda t, group: t.repeat_interleave(group, 1), back)


@exercise.mistake(
    "x's gradient is averaged over the ranks", hint="The ranks' heads all belong to one layer: add up, don't average."
)
class MeanBack(Heads):
    def enter(self, x):
        return [enter(x, mean)] * 3


@exercise.mistake(
    "every rank takes the first heads, rank 0's", hint="Which are yours says dist.get_rank(): tensor_split(n)[rank]."
)
class FirstHeads(Heads):
    def parts(self, q, k, v, o):
        return _own(q, k, v, o, self.head_dim, 0, place()[1])


@exercise.mistake("k and v are swapped", hint="Scores are made with k, and what they weight is v.")
class Swapped(Heads):
    def parts(self, q, k, v, o):
        return super().parts(q, v, k, o)


