"""`TensorParallelMLP`: The gated MLP of LLaMA, its hidden units cut over the ranks."""

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
    gate_wrongly,
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
    "TensorParallelMLP",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "A hidden unit is one row of gate, the same row of up, and the same column of down. Give each rank some units.",
        "gate and up are column-parallel, down is row-parallel, and nothing is said in between. x enters once, for "
        "both; the result leaves once.",
        "In __init__ clone gate.tensor_split(n)[rank], up alike, down.tensor_split(n, 1)[rank]. In forward: x = "
        "Region.enter(x); hidden = F.silu(F.linear(x, self.gate)) * F.linear(x, self.up); y = "
        "Region.leave(F.linear(hidden, self.down)); then the bias, once.",
    ],
)


@exercise.cases
def mlp_cases(g):
    def some(world, hidden, d, shape, label, bias=False, trained=True):
        whole = {"gate": spread(g, hidden, d, scale=1.5), "up": spread(g, hidden, d), "down": spread(g, d, hidden)}
        whole["bias"] = randn(g, d) if bias else None
        x, pull = randn(g, *shape, d), randn(g, *shape, d)
        return case(whole, [x] * world, [pull] * world, trained, ranks=world, label=label)

    d, h = pick(g, 3, 5), pick(g, 3, 4)
    yield some(2, 2 * h + 1, d, (2, 3), "an odd number of hidden units")
    yield some(2, 2 * h, d + 1, (3,), "a bias", bias=True)
    yield some(3, 3 * h + 1, d, (2, 2), "three ranks, a bias", bias=True)
    yield some(3, 3 * h + 2, d, (1,), "three ranks, one row that isn't trained", trained=False)


@exercise.oracle
def one_process(whole, xs, pulls, trained):
    world = len(xs)
    gate, up, down, bias, x = leaves(*whole.values(), xs[0])
    y = F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down, bias)
    (y * pulls[0]).sum().backward()
    beside = {} if bias is None else {"bias": bias.grad}

    def told(r):
        parts = {"gate": cut(gate.grad, 0, r, world), "up": cut(up.grad, 0, r, world)}
        parts |= {"down": cut(down.grad, 1, r, world)} | beside
        return {"y": y.detach(), "gradient of x": x.grad if trained else None, "gradients": parts}

    return [told(r) for r in range(world)]


exercise.probe(train_layer)
exercise.agrees(agree_on_layer(["y", "gradient of x", "gradients"], one_process))


def _shard(one, rank):
    whole, world = one.args[0], one.ranks
    parts = [cut(whole["gate"], 0, rank, world), cut(whole["up"], 0, rank, world), cut(whole["down"], 1, rank, world)]
    return parts if whole["bias"] is None else [*parts, whole["bias"]]


exercise.law("Each rank holds its own hidden units, and no more", essential=True)(holds_its_shard(_shard))


@exercise.law("One all-reduce forwards and one backwards, each of the size of x", essential=True)
@talks
def _talk(one, rank):
    message = ("all_reduce", size(one.args[1][0]))
    return [message], [message] * one.args[3]


class Units(nn.Module):
    """Right as it stands, in steps that the mistakes below replace one at a time."""

    def __init__(self, gate, up, down, bias=None):
        super().__init__()
        gate, up, down = self.parts(gate, up, down)
        self.gate, self.up, self.down = parameter(gate), parameter(up), parameter(down)
        self.bias = parameter(None if bias is None else bias.clone())

    def parts(self, gate, up, down):
        return self.part(gate), self.part(up), self.part(down, 1)

    def part(self, t, dim=0):
        return cut(t, dim, *place())

    def enter(self, x):
        x = enter(x)
        return x, x

    def hidden(self, x):
        a, b = self.enter(x)
        return self.gated(F.linear(a, self.gate), F.linear(b, self.up))

    def gated(self, a, b):
        return F.silu(a) * b

    def leave(self, y):
        return leave(y)

    def forward(self, x):
        y = self.leave(F.linear(self.hidden(x), self.down))
        return y if self.bias is None else y + self.bias


exercise.alternative(Units)


@exercise.alternative
class UnitsStacked(nn.Module):
    """Right: own rows of gate and up in one product."""

    def __init__(self, gate, up, down, bias=None):
        super().__init__()
        rank, n = place()
        self.gate, self.up = (nn.Parameter(w.tensor_split(n)[rank].clone()) for w in (gate, up))
        self.down = nn.Parameter(down.tensor_split(n, dim=1)[rank].clone())
        self.register_parameter("bias", parameter(bias))

    def forward(self, x):
        both = enter(x) @ torch.cat([self.gate, self.up]).T
        a, b = both.chunk(2, -1)
        y = leave((a * torch.sigmoid(a) * b) @ self.down.T)
        return y + self.bias if self.bias is not None else y


@exercise.mistake(
    "gate and up each have x enter for themselves: two all-reduces backwards where one is enough",
    hint="Let x enter once, and give the same tensor to gate and up: autograd adds their gradients before the message.",
)
class EntersTwice(Units):
    def enter(self, x):
        return enter(x), enter(x)


@exercise.mistake(
    "x's gradient isn't added up over the ranks",
    hint="Each rank's units send their own part of the gradient back to x. Region.enter adds them up.",
)
class NoWayBack(Units):
    def enter(self, x):
        return x, x


@exercise.mistake(
    "only the gate's part of x's gradient is added up over the ranks", hint="up reads x, too: give it what entered."
)
class OnlyTheGateEnters(Units):
    def enter(self, x):
        return enter(x), x


@exercise.mistake(
    "the result has the bias as many times as there are ranks",
    hint="What is added before the sum, or goes through it, counts once a rank. Add the bias as it is, after the sum.",
)
class BiasEverywhere(Units):
    def forward(self, x):
        return self.leave(F.linear(self.hidden(x), self.down, self.bias))


@exercise.mistake("the bias is left out", hint="bias belongs to the result: add it once, after the sum.")
class NoBias(Units):
    def forward(self, x):
        return self.leave(F.linear(self.hidden(x), self.down))


@exercise.mistake(
    "the hidden units are gathered on every rank, and down is held whole",
    hint="silu and the product act on each unit by itself, so nothing has to be sent before down.",
)
class GathersUnits(Units):
    def parts(self, gate, up, down):
        return cut(gate, 0, *place()), cut(up, 0, *place()), down.clone()

    def hidden(self, x):
        return leave(super().hidden(x), gathered, lambda g: cut(g, -1, *place()))

    def leave(self, y):
        return y


@exercise.mistake(
    "the hidden units are gathered on every rank, only to be cut again",
    hint="down's own columns need this rank's units only: they are there already.",
)
class GathersForNothing(Units):
    def hidden(self, x):
        return leave(super().hidden(x), lambda h: cut(gathered(h), -1, *place()))


@exercise.mistake(
    "every rank holds the whole matrices and uses its own units only",
    hint="Cut in __init__, and keep nothing but the parts: memory is what this is done for.",
)
class WholeWeights(Units):
    def parts(self, gate, up, down):
        return gate.clone(), up.clone(), down.clone()

    def hidden(self, x):
        a, b = self.enter(x)
        return F.silu(F.linear(a, cut(self.gate, 0, *place()))) * F.linear(b, cut(self.up, 0, *place()))

    def forward(self, x):
        y = self.leave(F.linear(self.hidden(x), cut(self.down, 1, *place())))
        return y if self.bias is None else y + self.bias


@exercise.mistake(
    "every rank computes the whole layer by itself",
    hint="Then nothing is saved: neither memory nor work. Give each rank some of the hidden units.",
)
class Alone(Units):
    def parts(self, gate, up, down):
        return gate.clone(), up.clone(), down.clone()

    def enter(self, x):
        return x, x

    def leave(self, y):
        return y


@exercise.mistake(
    "gate and up are stacked first and cut then, so that units of gate meet other units of up",
    hint="Of [gate; up], cut in n, the first ranks get gate only. Cut each by itself.",
)
class StackedThenCut(Units):
    def parts(self, gate, up, down):
        half, own = len(cut(gate, 0, *place())), cut(torch.cat([gate, up]), 0, *place())
        return own[:half].clone(), own[-half:].clone(), cut(down, 1, *place())


@exercise.mistake(
    "the parts are views of the whole matrices, which stay in memory with them",
    hint="tensor_split gives views: .clone() the parts.",
)
class Views(Units):
    def parts(self, gate, up, down):
        rank, n = place()
        return gate.tensor_split(n)[rank], up.tensor_split(n)[rank], down.tensor_split(n, 1)[rank]


@exercise.mistake(
    "x is cut off from the graph, so that it gets no gradient",
    hint="What stands before this layer is trained through x: let it enter, don't detach it.",
)
class XDetached(Units):
    def enter(self, x):
        return x.detach(), x.detach()


@exercise.mistake(
    "the bias goes through Region.enter, and its gradient comes out as many times as there are ranks",
    hint="After the sum all ranks have the same gradient, and it is the bias's whole one already.",
)
class BiasEnters(Units):
    def forward(self, x):
        y = self.leave(F.linear(self.hidden(x), self.down))
        return y if self.bias is None else y + enter(self.bias)


@exercise.mistake(
    "a stack of gate and up is kept in an attribute, beside the parts",
    hint="Everything that the module can reach stays in memory. Stack them when you need them, or not at all.",
)
class StackKept(Units):
    def __init__(self, gate, up, down, bias=None):
        super().__init__(gate, up, down, bias)
        self.stack = torch.cat([self.gate.detach(), self.up.detach()])


gate_wrongly(exercise, Units)
leave_wrongly(exercise, Units, "the products of down")
plain_tensors(exercise, Units)
cut_wrongly(exercise, Units, "hidden units")


@exercise.mistake(
    "every rank adds its share of the bias, so that its gradient is a share as well",
    hint="bias / n on n ranks gives the right sum, but a gradient that is n times too small. Add the bias once, after "
    "the sum.",
)
class BiasInShares(Units):
    def forward(self, x):
        bias = None if self.bias is None else self.bias / place()[1]
        return self.leave(F.linear(self.hidden(x), self.down, bias))


@exercise.mistake(
    "rank 0 adds the bias before the sum, and the other ranks' bias gets no gradient",
    hint="Then rank 0's bias is trained and the others' isn't. All ranks hold it: add it on all, after the sum.",
)
class BiasOnRank0(Units):
    def forward(self, x):
        return self.leave(F.linear(self.hidden(x), self.down, None if place()[0] else self.bias))


@exercise.mistake(
    "x's gradient is averaged over the ranks", hint="The ranks' units all belong to one layer: add up, don't average."
)
class MeanBack(Units):
    def enter(self, x):
        x = enter(x, mean)
        return x, x


@exercise.mistake(
    "hidden units are dealt out in turns, every n-th to a rank",
    hint="The result is the same, but a rank's units stand together, as tensor_split cuts.",
)
class InTurns(Units):
    def parts(self, gate, up, down):
        rank, n = place()
        return gate[rank::n].clone(), up[rank::n].clone(), down[:, rank::n].clone()


@exercise.mistake(
    "every part has as many units as fit, rounded up, and the last ranks get what is left",
    hint="The result is the same, but parts differ by at most one unit: tensor_split, not chunk.",
)
class RoundedUp(Units):
    def parts(self, gate, up, down):
        rank, n = place()
        each = -(-len(gate) // n)
        mine = slice(rank * each, (rank + 1) * each)
        return gate[mine].clone(), up[mine].clone(), down[:, mine].clone()


@exercise.mistake(
    "every rank takes the first units, rank 0's", hint="Which are yours says dist.get_rank(): tensor_split(n)[rank]."
)
class FirstPart(Units):
    def parts(self, gate, up, down):
        each = 0, place()[1]
        return cut(gate, 0, *each), cut(up, 0, *each), cut(down, 1, *each)


