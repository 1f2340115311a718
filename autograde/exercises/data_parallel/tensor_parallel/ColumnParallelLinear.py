"""`ColumnParallelLinear`: A linear layer of which each rank computes its own outputs."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.data_parallel.tensor_parallel.shared import (
    agree_on_layer,
    as_it_is,
    cut,
    cut_wrongly,
    enter,
    gathered,
    holds_its_shard,
    leave,
    leaves,
    mean,
    parameter,
    plain_tensors,
    size,
    spread,
    talks,
    total,
    train_layer,
)
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "ColumnParallelLinear",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "Which rows of weight make this rank's outputs, and which entries of bias belong to them?",
        "weight.tensor_split(world)[rank] is a view, and a view keeps the whole weight in memory: clone it. And x goes "
        "through Region.enter, so that its gradient is added up.",
        "In __init__: self.weight = nn.Parameter(weight.tensor_split(n)[rank].clone()), bias alike or None. In "
        "forward: return F.linear(Region.enter(x), self.weight, self.bias).",
    ],
)


@exercise.cases
def column_cases(g):
    def some(world, outputs, inputs, shape, label, bias=True, trained=True):
        whole = {"weight": spread(g, outputs, inputs), "bias": randn(g, outputs) if bias else None}
        pull = randn(g, *shape, outputs)
        pulls = list(pull.tensor_split(world, -1))
        return case(whole, [randn(g, *shape, inputs)] * world, pulls, trained, ranks=world, label=label)

    d, h = pick(g, 3, 5), pick(g, 3, 4)
    yield some(2, 2 * h + 1, d, (3,), "an odd number of outputs")
    yield some(2, 2 * h, d + 1, (2, 3), "without a bias", bias=False)
    yield some(3, 3 * h + 2, d, (1,), "three ranks, one row that isn't trained", trained=False)
    yield some(3, 3 * h + 1, d, (), "three ranks, a single vector")


@exercise.oracle
def one_process(whole, xs, pulls, trained):
    world = len(xs)
    weight, bias, x = leaves(whole["weight"], whole["bias"], xs[0])
    trainable = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    y = F.linear(x, weight, bias)
    (y * torch.cat(pulls, -1)).sum().backward()
    return [
        {
            "y": cut(y.detach(), -1, r, world),
            "gradient of x": x.grad if trained else None,
            "gradients": {name: cut(p.grad, 0, r, world) for name, p in trainable.items()},
        }
        for r in range(world)
    ]


exercise.probe(train_layer)
exercise.agrees(agree_on_layer(["y", "gradient of x", "gradients"], one_process))


def _shard(one, rank):
    whole, xs = one.args[:2]
    return [cut(t, 0, rank, len(xs)) for t in whole.values() if t is not None]


exercise.law("Each rank holds its own rows of the weight, and no more", essential=True)(holds_its_shard(_shard))


@exercise.law("Nothing is sent forwards, and one all-reduce of x's gradient backwards", essential=True)
@talks
def _talk(one, rank):
    return [], [("all_reduce", size(one.args[1][0]))] * one.args[3]


class Columns(nn.Module):
    """Right as it stands, in steps that the mistakes below replace one at a time."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight, self.bias = parameter(self.part(weight)), parameter(None if bias is None else self.part(bias))

    def part(self, t, dim=0):
        return cut(t, dim, *place())

    def enter(self, x):
        return enter(x)

    def forward(self, x):
        return F.linear(self.enter(x), self.weight, self.bias)


exercise.alternative(Columns)


@exercise.alternative
class ColumnsInALinear(nn.Module):
    """Right: rows counted by hand, a product of matrices, the sum of gradients by a hook."""

    def __init__(self, weight, bias=None):
        super().__init__()
        rank, n = place()
        each, more = divmod(len(weight), n)
        start = rank * each + min(rank, more)
        rows = range(start, start + each + (rank < more))
        self.register_parameter("weight", nn.Parameter(weight[list(rows)]))
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias[list(rows)]))

    def forward(self, x):
        x = x.view_as(x)
        if x.requires_grad:
            x.register_hook(total)
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


@exercise.mistake(
    "x's gradient isn't added up over the ranks",
    hint="Each rank's outputs send their own part of the gradient back to x. Region.enter adds them up.",
)
class NoWayBack(Columns):
    def enter(self, x):
        return x


@exercise.mistake(
    "x's gradient is averaged over the ranks", hint="The ranks' outputs all belong to one layer: add up, don't average."
)
class MeanBack(Columns):
    def enter(self, x):
        return enter(x, mean)


@exercise.mistake(
    "every rank holds the whole weight and uses its rows only",
    hint="Cut in __init__, and keep nothing but the part: memory is what this is done for.",
)
class WholeWeight(Columns):
    def part(self, t):
        return t.clone()

    def forward(self, x):
        bias = None if self.bias is None else cut(self.bias, 0, *place())
        return F.linear(self.enter(x), cut(self.weight, 0, *place()), bias)


@exercise.mistake(
    "every rank computes the whole layer, and its own outputs are cut from the result",
    hint="Then each rank has all the work. Cut the weight, not the result.",
)
class WholeWork(Columns):
    def part(self, t):
        return t.clone()

    def forward(self, x):
        return F.linear(x, self.weight, self.bias).tensor_split(place()[1], -1)[place()[0]]


@exercise.mistake(
    "the part is a view of the whole weight, which stays in memory with it",
    hint="weight.tensor_split(n)[rank] shares the memory of weight: .clone() it.",
)
class AView(Columns):
    def part(self, t):
        return t.tensor_split(place()[1])[place()[0]]


@exercise.mistake(
    "the whole weight is kept in an attribute, beside the part",
    hint="Everything that the module can reach stays in memory. Keep the part only.",
)
class KeptBeside(Columns):
    def __init__(self, weight, bias=None):
        super().__init__(weight, bias)
        self.whole = weight.clone()


@exercise.mistake(
    "the weight is cut along its columns, the inputs",
    hint="weight is [outputs, inputs]: a rank's outputs are rows. (Column-parallel is named after the transposed one.)",
)
class InputsCut(Columns):
    def __init__(self, weight, bias=None):
        super().__init__(weight)
        self.weight, self.bias = parameter(cut(weight, 1, *place())), parameter(bias)

    def forward(self, x):
        return leave(F.linear(cut(self.enter(x), -1, *place()), self.weight)) + (0 if self.bias is None else self.bias)


@exercise.mistake(
    "rows are dealt out in turns, every n-th to a rank", hint="A rank's rows stand together, as tensor_split cuts."
)
class InTurns(Columns):
    def part(self, t):
        rank, n = place()
        return t[rank::n].clone()


@exercise.mistake(
    "the larger parts go to the last ranks", hint="As tensor_split cuts: the first ranks have one row more."
)
class LargerLast(Columns):
    def part(self, t):
        rank, n = place()
        return t[len(t) * rank // n : len(t) * (rank + 1) // n].clone()


@exercise.mistake(
    "every part has as many rows as fit, rounded up, and the last ranks get what is left",
    hint="Parts differ by at most one row: tensor_split, not chunk.",
)
class RoundedUp(Columns):
    def part(self, t):
        rank, n = place()
        each = -(-len(t) // n)
        return t[rank * each : (rank + 1) * each].clone()


@exercise.mistake("the bias is left out", hint="A rank's outputs have their own entries of the bias.")
class NoBias(Columns):
    def forward(self, x):
        return F.linear(self.enter(x), self.weight)


@exercise.mistake(
    "all ranks' outputs are gathered on every rank",
    hint="A row-parallel layer that follows wants its own inputs only: gathering costs for nothing.",
)
class Gathers(Columns):
    def forward(self, x):
        return leave(super().forward(x), gathered, lambda g: cut(g, -1, *place()))


@exercise.mistake(
    "gathers all outputs, to cut its own from them again", hint="The outputs are right where they were computed."
)
class GathersForNothing(Columns):
    def forward(self, x):
        return leave(super().forward(x), lambda y: cut(gathered(y), -1, *place()), as_it_is)


@exercise.mistake("x is broadcast from rank 0 first", hint="All ranks have the same x already.")
class Broadcasts(Columns):
    def forward(self, x):
        dist.broadcast(x.detach().clone(), 0)
        return super().forward(x)


@exercise.mistake(
    "x is cut off from the graph, so that it gets no gradient",
    hint="What stands before this layer is trained through x: let it enter, don't detach it.",
)
class XDetached(Columns):
    def enter(self, x):
        return x.detach()


@exercise.mistake(
    "every rank takes the first part, rank 0's", hint="Which part is yours says dist.get_rank(): tensor_split(n)[rank]."
)
class FirstPart(Columns):
    def part(self, t):
        return cut(t, 0, 0, place()[1])


plain_tensors(exercise, Columns)
cut_wrongly(exercise, Columns, "rows")


@exercise.mistake(
    "every rank holds the whole bias and uses its own entries only",
    hint="The bias is cut as the rows are: bias.tensor_split(n)[rank], cloned.",
)
class WholeBias(Columns):
    def __init__(self, weight, bias=None):
        super().__init__(weight)
        self.bias = parameter(None if bias is None else bias.clone())

    def forward(self, x):
        return F.linear(self.enter(x), self.weight, None if self.bias is None else cut(self.bias, 0, *place()))


@exercise.mistake(
    "only rank 0 adds its bias",
    hint="Each rank's outputs have entries of the bias of their own, which no other rank adds.",
)
class BiasOnRank0(Columns):
    def forward(self, x):
        return F.linear(self.enter(x), self.weight, None if place()[0] else self.bias)
