"""`ewc_penalty(params, start, fisher, strength=1.0)`

Pull each weight towards where it started, as hard as the old task needs it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case
from autograde.exercises.applications.forgetting.shared import (
    CUT,
    WIDE,
    in_float32,
    near,
    pulled,
    stands_still,
    tensors_of,
    wide,
)
from autograde.exercises.shared import randn

exercise = Draft(
    "ewc_penalty",
    points=3,
    precise=True,
    hints=[
        "It is L2-SP with a strength for each single weight. Which names have one?",
        "Over the names of fisher: the square of params[name] - start[name], times fisher[name], all summed. Subtract "
        "in float32.",
        "sum((f.float() * (params[n].float() - start[n].detach().float()) ** 2).sum() for n, f in fisher.items()) * "
        "strength / 2, and float64 stays float64.",
    ],
)


def matter(g, start):
    """How much each weight matters: most hardly, some a lot, some not at all; in an order of names of its own."""
    names = list(start)[2:] + list(start)[:2]
    some = {n: torch.rand(start[n].shape, generator=g) ** 3 * 4 for n in names}
    return {n: torch.where(torch.rand(f.shape, generator=g) < 0.2, 0.0, f) if f.dim() else f for n, f in some.items()}


@exercise.cases
def networks(g):
    start = tensors_of(g, body__weight=(4, 3), body__bias=(4,), head__weight=(2, 4))
    yield case(near(g, start), start, matter(g, start), label="a network near its start")
    yield case(near(g, start), start, matter(g, start), 5.0, label="a strength of 5")
    grown = near(g, start) | tensors_of(g, new__weight=(3, 4))
    yield case(grown, start, matter(g, start), strength=0.3, label="a new head, which nothing holds back")
    partly = {n: f for n, f in matter(g, start).items() if n != "head.weight"}
    yield case(near(g, start), start, partly, 2.0, label="the head has a start, but no Fisher information")
    square = tensors_of(g, a=(3, 3), b=(3, 3), c=(3, 3), d=(3, 3))
    yield case(near(g, square), square, matter(g, square), 1.5, label="parameters of the same shape, in other orders")
    yield case({n: x.clone() for n, x in start.items()}, start, matter(g, start), 3.0, label="exactly at the start")
    yield case(near(g, start), start, {n: 0 * f for n, f in matter(g, start).items()}, label="nothing matters")
    yield case(near(g, start), start, matter(g, start), 0.0, label="strength 0")
    far = {"w": 1000 + randn(g, 40, 5), "v": 1000 + randn(g, 3), "scale": 1000 + randn(g)}
    yield case(near(g, far, by=0.03), far, matter(g, far), 300.0, label="weights around 1000 that moved by 0.03")
    large = tensors_of(g, embed=(300, 16), out=(16,), one=())
    yield case(near(g, large), large, matter(g, large), 40, label="a large embedding, and a single number")


@exercise.oracle
def torchs_weighted_errors(params, start, fisher, strength=1.0):
    total = torch.zeros((), dtype=torch.float64)
    for name, f in fisher.items():
        pair = params[name].double(), start[name].detach().double()
        total = total + F.mse_loss(*pair, reduction="sum", weight=f.detach().double())
    wide64 = any(w.dtype == torch.float64 for w in params.values())
    return strength / 2 * (total if wide64 else total.float())


exercise.law(WIDE)
exercise.law(stands_still(1, "the start"))
exercise.law(stands_still(2, "the Fisher information"))
exercise.law(in_float32(1.0625, -1 / 256, lambda w, s: ({"w": w}, {"w": s}, {"w": torch.ones_like(w)}, 2.0)))


@exercise.law("A weight without Fisher information is free to move")
def free_to_move(out, one, call):
    params, start, fisher, *rest = one.args
    if one.made or float(max(w.abs().max() for w in params.values())) > 50:
        return None
    moved = {n: torch.where(fisher[n] == 0, w + 9, w) if n in fisher else w - 9 for n, w in params.items()}
    there = call(moved, start, fisher, *rest, **one.kwargs)
    return abs(float(there) - float(out)) <= 1e-4 * abs(float(out)) + 1e-5


def _ewc(
    weigh=lambda f: f,
    distance=lambda w, s: (wide(w) - wide(s)).square(),
    names=lambda params, start, fisher: list(fisher),
    strength_=lambda s: s / 2,
    end=lambda total: total,
    still=True,
):
    """The penalty from its parts."""

    def ewc_penalty(params, start, fisher, strength=1.0):
        chosen = names(params, start, fisher)
        known = {n: wide(fisher[n].detach()) if n in fisher else torch.ones(()) for n in chosen}
        goal = {n: (start[n].detach() if still else start[n]) if n in start else torch.zeros(()) for n in chosen}
        each = pulled(lambda n: weigh(known[n]) * distance(params[n], goal[n]), chosen, lambda total: total)
        return end(strength_(strength) * each)

    return ewc_penalty


right = _ewc()

exercise.mistake("all weights matter alike: that is L2-SP", hint="Multiply each square by fisher[name].")(
    _ewc(weigh=torch.ones_like)
)
exercise.mistake("everything is pulled to zero", hint="Towards start: params[name] - start[name].")(
    _ewc(distance=lambda w, s: wide(w).square())
)
exercise.mistake("the factor ½ is missing", hint="strength / 2.")(_ewc(strength_=lambda s: s))
exercise.mistake("strength has no influence", hint="strength / 2 times the sum.")(_ewc(strength_=lambda s: 0.5))
exercise.mistake("strength is squared", hint="strength / 2, once.")(_ewc(strength_=lambda s: s * s / 2))
exercise.mistake(
    "the root of the Fisher information is taken", hint="It is a curvature already: multiply by it as it is."
)(_ewc(weigh=torch.sqrt))
exercise.mistake("the Fisher information is squared once more", hint="It holds squared gradients already.")(
    _ewc(weigh=torch.square)
)
exercise.mistake(
    "weights that matter are pulled less: divided by the Fisher information", hint="F is a strength: times."
)(_ewc(weigh=lambda f: 1 / (f + 1e-8)))
exercise.mistake(
    "each tensor's Fisher information is scaled to add up to 1", hint="As it is: it says how much in all."
)(_ewc(weigh=lambda f: f / f.sum().clamp(min=1e-12)))
exercise.mistake("each tensor counts by the mean of its Fisher information", hint="Every single weight has its own.")(
    _ewc(weigh=lambda f: f.mean())
)
exercise.mistake("each tensor's terms are averaged, not summed", hint="A sum over all weights.")(
    lambda params, start, fisher, strength=1.0: right(
        params, start, {n: wide(f) / f.numel() for n, f in fisher.items()}, strength
    )
)
exercise.mistake(
    "what has no Fisher information is pulled as if it had 1",
    hint="Only names that stand in fisher: the old task doesn't know the others.",
)(_ewc(names=lambda params, start, fisher: list(params)))
exercise.mistake("absolute distances are weighed, not squares", hint="(w - start) squared.")(
    _ewc(distance=lambda w, s: (wide(w) - wide(s)).abs())
)
exercise.mistake("squares are subtracted: w² - start²", hint="Subtract first, then square.")(
    _ewc(distance=lambda w, s: wide(w).square() - wide(s).square())
)
exercise.mistake("the square is multiplied out, which loses digits far from zero", hint="Subtract first, then square.")(
    _ewc(distance=lambda w, s: wide(w).square() - 2 * wide(w) * wide(s) + wide(s).square())
)


@exercise.mistake(
    "the Fisher information is paired by order, not by name", hint="fisher[name] belongs to params[name]."
)
def side_by_side(params, start, fisher, strength=1.0):
    total = torch.zeros(())
    for (name, w), f in zip(params.items(), fisher.values(), strict=False):
        if name in start and f.shape == w.shape:
            total = total + (wide(f.detach()) * (wide(w) - wide(start[name].detach())).square()).sum()
    return strength / 2 * total


@exercise.mistake("the start is paired by order, not by name", hint="start[name] belongs to params[name].")
def start_by_order(params, start, fisher, strength=1.0):
    paired = dict(zip(params, start.values(), strict=False))
    fitting = {n: paired[n] if paired[n].shape == params[n].shape else start[n] for n in fisher if n in paired}
    return right(params, start | fitting, fisher, strength)


exercise.mistake("a gradient reaches the start", hint=CUT)(_ewc(still=False))
exercise.mistake("a gradient reaches the Fisher information", hint=CUT)(
    lambda params, start, fisher, strength=1.0: (
        strength
        / 2
        * sum((wide(f) * (wide(params[n]) - wide(start[n].detach())).square()).sum() for n, f in fisher.items())
    )
)
exercise.mistake("the result has the dtype of the parameters, bfloat16", hint="A float32 number: it is a sum of many.")(
    lambda params, *rest, **knobs: right(params, *rest, **knobs).to(next(iter(params.values())).dtype)
)
exercise.mistake("the result is float32, whatever came in", hint="float64 for float64 inputs.")(
    _ewc(end=lambda total: total.float())
)


@exercise.alternative
def by_einsum(params, start, fisher, strength=1.0):
    total = 0
    for name in params:
        if name in fisher:
            f, w, s = (wide(x.reshape(-1)) for x in (fisher[name].detach(), params[name], start[name].detach()))
            total = total + torch.einsum("i,i,i->", f, w - s, w - s)
    return 0.5 * strength * total


exercise.alternative(right)
