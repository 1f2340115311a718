"""`Region`: The two borders of a region in which every rank computes a part of a layer."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.tensor_parallel.shared import (
    agree_on_layer,
    as_it_is,
    enter,
    from_rank_0,
    leave,
    mean,
    total,
    total_at_rank_0,
    total_by_gathering,
    total_in_place,
)
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "Region",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "Each border does something in one direction and nothing in the other. A torch.autograd.Function says what its "
        "forward does, and what its backward does.",
        "enter: forward hands x on (x.view_as(x)), backward all-reduces a copy of the gradient. leave: forward "
        "all-reduces a copy of x, backward hands the gradient on.",
        "class Enter(torch.autograd.Function): forward(ctx, x) returns x.view_as(x); backward(ctx, gradient): total = "
        "gradient.clone(memory_format=torch.contiguous_format); dist.all_reduce(total); return total. Then "
        "Enter.apply(x); leave is the same with the two bodies swapped.",
    ],
)


@exercise.cases
def border_cases(g):
    def some(world, shape, label, trained=True, scale=1.0, **options):
        return case(scale * randn(g, world, *shape), randn(g, world, *shape), trained, ranks=world, label=label)

    d = pick(g, 3, 5)
    yield some(2, (2, d), "a matrix")
    yield some(2, (d,), "an input that isn't trained", trained=False)
    yield some(3, (), "three ranks, a single number")
    x, pulls = randn(g, 3, 2, d, 4).transpose(1, 3), randn(g, 3, 2, d, 4).transpose(1, 3)
    yield case(x, pulls, True, ranks=3, label="not contiguous, and neither is the gradient")
    yield some(3, (1, d), "larger numbers", scale=10.0)


@exercise.oracle
def one_process(xs, pulls, trained):
    back = pulls.sum(0) if trained else None
    same = {"back through enter": back, "left": xs.sum(0), "back through leave": pulls[0], "left alone": True}
    return [same | {"entered": xs[r], "back beside enter": pulls[r]} for r in range(len(xs))]


@exercise.probe
def through_both_borders(region, xs, pulls, trained):
    """Send xs[rank], which is trained if `trained`, through enter, and xs[rank] through leave; and gradients back."""
    import torch
    import torch.distributed as dist

    from labkit import record_traffic

    rank, traffic = dist.get_rank(), {}
    borders = region if isinstance(region, type) else region()  # a class is asked as it is: its functions are static

    def listened(way, function):
        with record_traffic() as messages:
            value = function()
        traffic[way] = [f"{m.op} of {m.bytes} bytes" for m in messages]
        return value

    x, pull = xs[rank].clone().requires_grad_(trained), pulls[rank].clone()
    other = torch.zeros_like(x).requires_grad_()
    beside = other.clone()
    entered = listened("entering", lambda: borders.enter(x))
    if entered.shape == beside.shape:
        both = entered + beside  # in the backward pass the two parts are given one and the same tensor
        listened("back through enter", lambda: (both * pull).sum().backward())
    part = xs[rank].clone().requires_grad_()
    left = listened("leaving", lambda: borders.leave(part))
    if left.requires_grad and left.shape == part.shape:  # else the report says which shape it should have
        listened("back through leave", lambda: (left * pulls[0]).sum().backward())
    return {
        "entered": entered,
        "back through enter": x.grad,
        "back beside enter": other.grad,
        "left": left,
        "back through leave": part.grad,
        "left alone": torch.equal(part, xs[rank]) and torch.equal(x, xs[rank]),
        "traffic": traffic,
    }


_NUMBERS = ["entered", "back through enter", "back beside enter", "left", "back through leave", "left alone"]
exercise.agrees(agree_on_layer(_NUMBERS, one_process))


@exercise.law("One all-reduce on the way back through enter, one on the way out through leave, no more", essential=True)
def _one_each(out, one, call):
    x, trained = one.args[0][0], one.args[2]
    sum_of_x = [f"all_reduce of {x.numel() * x.element_size()} bytes"]
    need = {"entering": [], "back through enter": sum_of_x * trained, "leaving": sum_of_x, "back through leave": []}
    for rank, told in enumerate(out):
        for way, wanted in need.items():
            sent = told["traffic"].get(way, [])
            if sent != wanted:
                says, asked = (", ".join(each) or "nothing" for each in (sent, wanted))
                return f"{one.label}: {way} rank {rank} sends {says}, and its task is {asked}"
    return True


@exercise.law("All ranks leave with the same bits")
def _same_bits(out, one, call):
    return all(torch.equal(told["left"], out[0]["left"]) for told in out)


def _in_contiguous(x):
    return total_in_place(x.contiguous())


def region(enters=enter, leaves=leave):
    """A class with these two functions."""
    return type("Region", (), {"enter": staticmethod(enters), "leave": staticmethod(leaves)})


def _wrong(says, hint, name, **borders):
    made = region(**borders)
    made.__name__ = made.__qualname__ = name
    exercise.mistake(says, hint=hint)(made)


exercise.alternative(region())


@exercise.alternative
class ByHooks:
    """Right: a hook on the tensor that entered, and a second way to write the sum."""

    @staticmethod
    def enter(x):
        y = x.view_as(x)
        if y.requires_grad:
            y.register_hook(total)
        return y

    @staticmethod
    def leave(x):
        y = total(x.detach())
        if x.requires_grad:
            y.requires_grad_()
            return _Handed.apply(x, y)
        return y


class _Handed(torch.autograd.Function):
    """y forwards, its gradient back to x."""

    @staticmethod
    def forward(ctx, x, y):
        return y.detach().clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


_wrong(
    "enter does nothing in the backward pass either, so that x has this rank's share of the gradient only",
    "Every rank has used x, so its gradient has a part on every rank. Who adds them up?",
    "EnterForgetsTheWayBack",
    enters=lambda x: enter(x, as_it_is),
)
_wrong(
    "leave all-reduces in the backward pass as well, and the gradient comes out as many times as there are ranks",
    "The gradient of a sum is 1 for each of its parts. After leave all ranks hold the same result and the same "
    "gradient: it is handed on, not added up.",
    "LeaveSumsTheWayBack",
    leaves=lambda x: leave(x, total, total),
)
_wrong(
    "the two borders are swapped",
    "enter does nothing forwards, leave does nothing backwards.",
    "Swapped",
    enters=lambda x: leave(x),
    leaves=lambda x: enter(x),
)
_wrong(
    "enter averages the gradient over the ranks",
    "Each rank's part of the layer adds its own part of the gradient: a sum, no mean.",
    "EnterAverages",
    enters=lambda x: enter(x, mean),
)
_wrong(
    "leave averages over the ranks",
    "The parts are to be added up: a sum, no mean.",
    "LeaveAverages",
    leaves=lambda x: leave(x, mean),
)
_wrong(
    "leave divides the gradient by the number of ranks",
    "The gradient of a sum is 1 for each of its parts.",
    "LeaveDividesTheWayBack",
    leaves=lambda x: leave(x, backward=lambda g: g / dist.get_world_size()),
)
_wrong(
    "leave adds up in place, and the input is overwritten",
    "all_reduce changes the tensor that it gets. Hand it a copy: others may still need x.",
    "LeaveInPlace",
    leaves=lambda x: leave(x, total_in_place),
)
_wrong(
    "enter adds up the arriving gradient in place, which a branch beside it reads, too",
    "The gradient that backward gets may belong to others as well (a residual connection hands one tensor to both of "
    "its branches): all-reduce a copy.",
    "EnterInPlace",
    enters=lambda x: enter(x, lambda g: total_in_place(g if g.is_contiguous() else g.contiguous())),
)
_wrong(
    "enter makes all ranks take rank 0's input",
    "The ranks hold the same x already: nothing has to be sent.",
    "EnterBroadcasts",
    enters=lambda x: enter(from_rank_0(x)) if not x.requires_grad else leave(x, from_rank_0, total),
)
_wrong(
    "enter adds up in the forward pass as well",
    "x is the same on all ranks, and is handed on as it is.",
    "EnterSumsForwards",
    enters=lambda x: leave(x, total, total),
)
_wrong(
    "only rank 0 gets the sum when leaving",
    "After reduce one rank has the result, after all_reduce all have it.",
    "LeaveToRank0",
    leaves=lambda x: leave(x, total_at_rank_0),
)
_wrong(
    "everybody's parts are gathered everywhere and added there",
    "all_reduce adds on the way: gathered parts are as many tensors as there are ranks.",
    "Gathers",
    enters=lambda x: enter(x, total_by_gathering),
    leaves=lambda x: leave(x, total_by_gathering),
)
_wrong(
    "no gradient comes back through leave",
    "autograd doesn't know all_reduce: wrap it in a torch.autograd.Function, and let its backward return the gradient.",
    "LeaveDetached",
    leaves=lambda x: total(x.detach()),
)
_wrong(
    "no gradient comes back through enter",
    "x.detach() has no way back: hand on x.view_as(x) inside a torch.autograd.Function. And backward has to return the "
    "sum: what all_reduce returns is None.",
    "EnterDetached",
    enters=lambda x: x.detach().requires_grad_(x.requires_grad),
)


_wrong(
    "neither border does anything",
    "Forwards the ranks' terms are added up where they leave, backwards their gradients where x entered.",
    "Nothing",
    enters=lambda x: x.view_as(x),
    leaves=lambda x: x.view_as(x),
)
_wrong(
    "both sums are made in place, in the input and in the arriving gradient",
    "all_reduce changes the tensor that it gets, which may belong to others as well: hand it a copy. (Megatron-LM does "
    "without, and knows where it may.)",
    "BothInPlace",
    enters=lambda x: enter(x, _in_contiguous),
    leaves=lambda x: leave(x, _in_contiguous),
)


def _with_a_barrier(x):
    dist.barrier()
    return leave(x)


_wrong(
    "the ranks meet at a barrier as well",
    "all_reduce waits for everybody by itself.",
    "WithABarrier",
    leaves=_with_a_barrier,
)


def _wants_a_gradient(x):
    return enter(x.requires_grad_())


_wrong(
    "enter makes its input require a gradient",
    "Where x needs no gradient nobody asks for one, and nothing is sent backwards: leave x as it is.",
    "EnterAsksForAGradient",
    enters=_wants_a_gradient,
)


_TOO_LATE = ".contiguous() copies only what isn't contiguous, and else hands back the tensor itself: clone it."
_wrong(
    "leave copies by .contiguous(), and an input that is contiguous already is overwritten",
    _TOO_LATE,
    "LeaveContiguous",
    leaves=lambda x: leave(x, _in_contiguous),
)
_wrong(
    "enter divides the sum of the gradients and leave the sum of the terms by the number of ranks",
    "Both are sums: nothing is averaged at either border.",
    "BothAverage",
    enters=lambda x: enter(x, mean),
    leaves=lambda x: leave(x, mean),
)
