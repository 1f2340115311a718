"""`RowParallelLinear`: A linear layer of which each rank holds the columns that its own inputs need."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.data_parallel.tensor_parallel.shared import (
    agree_on_layer,
    cut,
    enter,
    gathered,
    holds_its_shard,
    leave,
    leave_wrongly,
    leaves,
    parameter,
    plain_tensors,
    size,
    spread,
    talks,
    total_at_rank_0,
    total_by_gathering,
    train_layer,
)
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "RowParallelLinear",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "A rank has some of the inputs. Which columns of weight meet them, and what has to happen to the ranks' "
        "products?",
        "Own columns, cloned; a product without a bias; Region.leave adds up the ranks' products. The bias belongs to "
        "the sum, so it is added once, after it.",
        "In __init__: self.weight = nn.Parameter(weight.tensor_split(n, 1)[rank].clone()), self.bias the whole bias "
        "(or None). In forward: y = Region.leave(F.linear(x, self.weight)); return y if self.bias is None else y + "
        "self.bias.",
    ],
)


@exercise.cases
def row_cases(g):
    def some(world, outputs, inputs, shape, label, bias=True):
        whole = {"weight": spread(g, outputs, inputs), "bias": randn(g, outputs) if bias else None}
        xs = randn(g, *shape, inputs).tensor_split(world, -1)
        return case(whole, list(xs), [randn(g, *shape, outputs)] * world, ranks=world, label=label)

    d, h = pick(g, 3, 5), pick(g, 3, 4)
    yield some(2, d, 2 * h + 1, (3,), "an odd number of inputs")
    yield some(2, d + 1, 2 * h, (2, 3), "without a bias", bias=False)
    yield some(2, 1, 2 * h, (3,), "a single output")
    yield some(4, d, 6, (2, 2), "four ranks, six inputs")
    yield some(4, d, 4 * h + 1, (), "four ranks, a single vector")


@exercise.oracle
def one_process(whole, xs, pulls):
    world = len(xs)
    weight, bias, x = leaves(whole["weight"], whole["bias"], torch.cat(list(xs), -1))
    y = F.linear(x, weight, bias)
    (y * pulls[0]).sum().backward()
    beside = {} if bias is None else {"bias": bias.grad}
    return [
        {
            "y": y.detach(),
            "gradient of x": cut(x.grad, -1, r, world),
            "gradients": {"weight": cut(weight.grad, 1, r, world)} | beside,
        }
        for r in range(world)
    ]


exercise.probe(train_layer)
exercise.agrees(agree_on_layer(["y", "gradient of x", "gradients"], one_process))


def _shard(one, rank):
    whole, xs = one.args[:2]
    return [cut(whole["weight"], 1, rank, len(xs)), *([] if whole["bias"] is None else [whole["bias"]])]


exercise.law("Each rank holds its own columns of the weight and the bias, and no more", essential=True)(
    holds_its_shard(_shard)
)


@exercise.law("One all-reduce of the output forwards, and nothing is sent backwards", essential=True)
@talks
def _talk(one, rank):
    return [("all_reduce", size(one.args[2][0]))], []


class Rows(nn.Module):
    """Right as it stands, in steps that the mistakes below replace one at a time."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight, self.bias = parameter(self.part(weight)), parameter(None if bias is None else bias.clone())

    def part(self, t):
        return cut(t, 1, *place())

    def leave(self, y):
        return leave(y)

    def product(self, x):
        return F.linear(x, self.weight)

    def forward(self, x):
        y = self.leave(self.product(x))
        return y if self.bias is None else y + self.bias


exercise.alternative(Rows)


@exercise.alternative
class RowsByHand(nn.Module):
    """Right: the transposed weight's rows, einsum, and the bias added to the sum in float64."""

    def __init__(self, weight, bias=None):
        super().__init__()
        rank, n = place()
        each, more = divmod(weight.shape[1], n)
        start = rank * each + min(rank, more)
        self.weight = nn.Parameter(weight[:, start : start + each + (rank < more)].contiguous().clone())
        self.bias = parameter(bias)

    def forward(self, x):
        part = torch.einsum("...i,oi->...o", x.double(), self.weight.double()).to(x.dtype)
        y = leave(part)
        return y if self.bias is None else torch.add(y, self.bias)


@exercise.mistake(
    "the result has the bias as many times as there are ranks",
    hint="What is added before the sum, or goes through it, counts once a rank. Add the bias as it is, after the sum.",
)
class BiasEverywhere(Rows):
    def forward(self, x):
        return self.leave(F.linear(x, self.weight, self.bias))


@exercise.mistake(
    "every rank adds its share of the bias, so that its gradient is a share as well",
    hint="bias / n on n ranks gives the right sum, but a gradient that is n times too small. Add the bias once, after "
    "the sum.",
)
class BiasInShares(Rows):
    def forward(self, x):
        return self.leave(F.linear(x, self.weight, None if self.bias is None else self.bias / place()[1]))


@exercise.mistake(
    "rank 0 adds the bias before the sum, and the other ranks' bias gets no gradient",
    hint="Then rank 0's bias is trained and the others' isn't. All ranks hold it: add it on all, after the sum.",
)
class BiasOnRank0(Rows):
    def forward(self, x):
        return self.leave(F.linear(x, self.weight, None if place()[0] else self.bias))


@exercise.mistake("the bias is left out", hint="Without it the layer is another one. Add it after the sum.")
class NoBias(Rows):
    def forward(self, x):
        return self.leave(self.product(x))


@exercise.mistake(
    "every rank holds the whole weight and uses its columns only",
    hint="Cut in __init__, and keep nothing but the part: memory is what this is done for.",
)
class WholeWeight(Rows):
    def part(self, t):
        return t.clone()

    def product(self, x):
        return F.linear(x, cut(self.weight, 1, *place()))


@exercise.mistake(
    "all inputs and the whole weight come to every rank, which computes alone",
    hint="Send the sums of products, not the inputs; hold your columns only.",
)
class GathersInputs(Rows):
    def part(self, t):
        return t.clone()

    def leave(self, y):
        return y

    def product(self, x):
        return F.linear(leave(x, gathered, lambda g: cut(g, -1, *place())), self.weight)


@exercise.mistake(
    "the part is a view of the whole weight, which stays in memory with it",
    hint="weight.tensor_split(n, 1)[rank] shares the memory of weight: .clone() it.",
)
class AView(Rows):
    def part(self, t):
        return t.tensor_split(place()[1], 1)[place()[0]]


@exercise.mistake(
    "the part is made contiguous, which copies nothing where it is contiguous already",
    hint="With a single output the columns are one piece of memory, and .contiguous() gives the view: .clone() it.",
)
class MadeContiguous(Rows):
    def part(self, t):
        return t.tensor_split(place()[1], 1)[place()[0]].contiguous()


@exercise.mistake(
    "the whole weight is kept in an attribute, beside the part",
    hint="Everything that the module can reach stays in memory. Keep the part only.",
)
class KeptBeside(Rows):
    def __init__(self, weight, bias=None):
        super().__init__(weight, bias)
        self.whole = weight.clone()


@exercise.mistake(
    "only rank 0 gets the sum", hint="After reduce one rank has the result, after all_reduce all have it."
)
class OnRank0(Rows):
    def leave(self, y):
        return leave(y, total_at_rank_0)


@exercise.mistake(
    "the ranks' products are gathered on every rank and added there",
    hint="all_reduce adds on the way: gathered products are as many tensors as there are ranks.",
)
class GathersProducts(Rows):
    def leave(self, y):
        return leave(y, total_by_gathering)


@exercise.mistake(
    "the sum is made with Region.enter, which adds up backwards instead of forwards",
    hint="enter stands where x goes into the region, leave where the ranks' results come together.",
)
class Enters(Rows):
    def leave(self, y):
        return enter(y)


@exercise.mistake("the ranks meet at a barrier as well", hint="all_reduce waits for everybody by itself.")
class WithABarrier(Rows):
    def leave(self, y):
        dist.barrier()
        return leave(y)


@exercise.mistake(
    "columns are dealt out in turns, every n-th to a rank",
    hint="A rank's inputs stand together, as tensor_split cuts; so do its columns.",
)
class InTurns(Rows):
    def part(self, t):
        rank, n = place()
        return t[:, rank::n].clone()


@exercise.mistake(
    "every rank takes the first columns, as many as it has inputs",
    hint="Which columns are yours says dist.get_rank(): tensor_split(n, 1)[rank].",
)
class FirstPart(Rows):
    def part(self, t):
        return t[:, : cut(t, 1, *place()).shape[1]].clone()


leave_wrongly(exercise, Rows)
plain_tensors(exercise, Rows)


@exercise.mistake(
    "the bias goes through Region.enter, and its gradient comes out as many times as there are ranks",
    hint="After the sum all ranks have the same gradient, and it is the bias's whole one already.",
)
class BiasEnters(Rows):
    def forward(self, x):
        y = self.leave(self.product(x))
        return y if self.bias is None else y + enter(self.bias)


@exercise.mistake(
    "every rank keeps its share of the bias, bias / n, which then learns n times as fast",
    hint="bias / n on n ranks gives the right sum and the right gradient, and a step of each of them moves the sum n "
    "times. Keep the bias whole, and add it once, after the sum.",
)
class ShareKept(Rows):
    def __init__(self, weight, bias=None):
        super().__init__(weight, None if bias is None else bias / place()[1])

    def forward(self, x):
        return self.leave(F.linear(x, self.weight, self.bias))


@exercise.mistake(
    "only rank 0 adds the bias to the sum, and the ranks' results differ",
    hint="After the sum every rank goes on with the whole result: all add the bias, once.",
)
class BiasAfterOnRank0(Rows):
    def forward(self, x):
        y = self.leave(self.product(x))
        return y if self.bias is None or place()[0] else y + self.bias


