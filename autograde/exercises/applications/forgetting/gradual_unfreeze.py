"""`gradual_unfreeze(groups, step, every, rate, decay=2.6)`

The learning rate of each group of layers at a step: from the top, one group after the other thaws.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "gradual_unfreeze",
    points=2,
    no_gradient="rates aren't trained",
    strict=True,
    rtol=1e-9,
    atol=0.0,
    hints=[
        "How many groups are trained at this step? One at the start, one more after every `every` steps.",
        "Count from the top: the last group is 0 groups below the top, the first groups - 1. The rate falls by `decay` "
        "with each group below the top, whether or not others are trained.",
        "thawed = 1 + step // every; below = groups - 1 - i; rate / decay**below if below < thawed else 0.0.",
    ],
)


@exercise.cases
def schedules(g):
    every = pick(g, 3, 9)
    yield case(4, 0, every, 0.01, label="the first step")
    yield case(4, every - 1, every, 0.01, label="the last step of the first stage")
    yield case(4, every, every, 0.01, label="the first step of the second stage")
    yield case(5, 2 * every + 1, every, 0.003, 2.0, label="three of five")
    yield case(5, 14, 8, 0.02, 1.7, label="late in the second stage")
    yield case(3, 2 * every, every, 0.1, decay=3.0, label="all of three, just now")
    yield case(3, 50 * every, every, 0.02, label="long after all have thawed")
    yield case(6, every * 3 - 1, every, 0.5, 1.0, label="the same rate for all")
    yield case(2, pick(g, 0, 3), 1, 1.0, 1.5, label="a group a step")
    yield case(1, pick(g, 0, 40), every, 0.05, label="one group")
    yield case(30, 17 * every + pick(g, 0, every - 1), every, 2e-5, 1.1, label="thirty layers")


@exercise.oracle
def torchs_groups(groups, step, every, rate, decay=2.6):
    """A scheduler of torch with a function for each group."""
    tensors = [[torch.nn.Parameter(torch.zeros(1))] for _ in range(groups)]
    optimizer = torch.optim.SGD([{"params": some} for some in tensors], lr=float(rate))

    def factor(below):
        return lambda now: math.pow(decay, -below) if now >= below * every else 0.0

    torch.optim.lr_scheduler.LambdaLR(optimizer, [factor(groups - 1 - i) for i in range(groups)], last_epoch=-1)
    for group, below in zip(optimizer.param_groups, reversed(range(groups)), strict=True):
        group["lr"] = group["initial_lr"] * factor(below)(step)
    return [float(group["lr"]) for group in optimizer.param_groups]


@exercise.law("A list of Python floats, one a group")
def floats(out, one, call):
    return isinstance(out, list) and len(out) == one.args[0] and all(isinstance(x, float) for x in out)


@exercise.law("What has thawed is never frozen again")
def stays_thawed(out, one, call):
    groups, step, every, *rest = one.args
    later = call(groups, step + every, every, *rest, **one.kwargs)
    return all(after >= now for now, after in zip(out, later, strict=True))


@exercise.law("The top group has the full rate, always")
def top_is_full(out, one, call):
    return math.isclose(out[-1], one.args[3])


def _rates(
    thawed=lambda step, every, groups: 1 + step // every,
    place=lambda i, groups, thawed: groups - 1 - i,
    trained=lambda below, thawed: below < thawed,
    value=lambda rate, decay, below: rate / decay**below,
    end=list,
):
    """`gradual_unfreeze` from its parts; `place` says how many groups lie above one."""

    def gradual_unfreeze(groups, step, every, rate, decay=2.6):
        count = thawed(step, every, groups)
        places = [place(i, groups, count) for i in range(groups)]
        return end([value(rate, decay, below) if trained(below, count) else 0.0 for below in places])

    return gradual_unfreeze


right = _rates()

exercise.mistake("groups thaw from the bottom", hint="Group 0 is the lowest. The top, the last one, comes first.")(
    lambda *given, **knobs: right(*given, **knobs)[::-1]
)
exercise.mistake(
    "nothing is trained in the first stage", hint="At step 0 the top group is trained: 1 + step // every."
)(_rates(thawed=lambda step, every, groups: step // every))
exercise.mistake("each stage begins one step late", hint="At step `every` the second group is trained.")(
    _rates(thawed=lambda step, every, groups: 1 + max(step - 1, 0) // every)
)
exercise.mistake(
    "each stage begins one step late, the first one too: nothing is trained at step 0",
    hint="At step 0 the top group is trained, at step `every` the second: 1 + step // every.",
)(_rates(thawed=lambda step, every, groups: 1 + (step - 1) // every))
exercise.mistake("each stage begins half a stage early: step / every is rounded", hint="Round down: step // every.")(
    _rates(thawed=lambda step, every, groups: 1 + round(step / every))
)
exercise.mistake("each stage begins one step early", hint="Steps 0 to every - 1 are the first stage.")(
    _rates(thawed=lambda step, every, groups: 1 + (step + 1) // every)
)
exercise.mistake(
    "a group that thaws takes the turn of the one above, which freezes again",
    hint="What has thawed goes on: all groups from the top down are trained.",
)(_rates(trained=lambda below, thawed: below == thawed - 1))
exercise.mistake("all groups thaw at once, after the first stage", hint="One more group a stage.")(
    _rates(thawed=lambda step, every, groups: groups if step >= every else 1)
)
exercise.mistake("everything is trained from the start", hint="Groups that haven't thawed have a rate of 0.0.")(
    _rates(trained=lambda below, thawed: True)
)
exercise.mistake("all trained groups have the same rate", hint="Each group below the top: divided by `decay` again.")(
    _rates(value=lambda rate, decay, below: rate)
)
exercise.mistake("lower groups have the larger rates", hint="Divide: what is general should move least.")(
    _rates(value=lambda rate, decay, below: rate * decay**below)
)
exercise.mistake("every group below the top is divided by decay just once", hint="decay to the power of the distance.")(
    _rates(value=lambda rate, decay, below: rate / decay if below else rate)
)
exercise.mistake("rates fall linearly with the distance from the top", hint="A power: rate / decay**below.")(
    _rates(value=lambda rate, decay, below: rate / (decay * below) if below else rate)
)
exercise.mistake("the top group is divided by decay, too", hint="The top is 0 groups below the top: decay**0.")(
    _rates(value=lambda rate, decay, below: rate / decay ** (below + 1))
)
exercise.mistake("decay has no influence: it is always 2.6", hint="Use the argument.")(
    _rates(value=lambda rate, decay, below: rate / 2.6**below)
)
exercise.mistake(
    "the lowest trained group has the full rate, and what lies above it more",
    hint="The top has the full rate at every step, so its rate doesn't change when others thaw.",
)(
    lambda groups, step, every, rate, decay=2.6: [
        r * decay ** (min(groups, 1 + step // every) - 1) for r in right(groups, step, every, rate, decay)
    ]
)
exercise.mistake(
    "rates shrink each time that a group thaws", hint="A group's rate depends on its place alone, once it has thawed."
)(
    lambda groups, step, every, rate, decay=2.6: [
        r / decay ** (min(groups, 1 + step // every) - 1) for r in right(groups, step, every, rate, decay)
    ]
)
exercise.mistake("only the trained groups come back", hint="One rate a group: 0.0 for those that are frozen.")(
    _rates(end=lambda rates: [r for r in rates if r])
)
exercise.mistake("frozen groups have None for a rate", hint="0.0: an optimizer wants numbers.")(
    _rates(end=lambda rates: [r or None for r in rates])
)
exercise.mistake("rates come back as float32 numbers of a tensor", hint="A list of Python floats.")(
    _rates(end=lambda rates: torch.tensor(rates).tolist())
)
exercise.mistake("a tensor comes back", hint="A list of Python floats.")(_rates(end=torch.tensor))


@exercise.alternative
def from_the_top(groups, step, every, rate, decay=2.6):
    rates, now = [], float(rate)
    for stage in range(groups):
        rates.insert(0, now if step >= stage * every else 0.0)
        now = now / decay
    return rates


exercise.alternative(right)
