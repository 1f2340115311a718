"""`l2_sp_penalty(params, start, strength=0.1, new_strength=0.01)`

Pull weights towards where they started, and those that are new towards zero.
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
    "l2_sp_penalty",
    points=3,
    precise=True,
    hints=[
        "Two groups of parameters: those whose name stands in `start`, and new ones. Where is each group pulled to?",
        "Go over the names of params, not over two lists side by side: the dicts needn't have the same order. A "
        "difference of bfloat16 numbers is taken after .float().",
        "for name, w in params.items(): the squares of w - start[name].detach() times strength / 2 if name in start, "
        "else the squares of w times new_strength / 2; add all up.",
    ],
)


@exercise.cases
def networks(g):
    start = tensors_of(g, body__weight=(4, 3), body__bias=(4,), head__weight=(2, 4))
    yield case(near(g, start), start, label="a network near its start")
    grown = near(g, start) | tensors_of(g, new__weight=(3, 4), new__bias=(3,))
    yield case(grown, start, 0.5, 0.2, label="with a new head")
    yield case(
        near(g, start) | tensors_of(g, new__weight=(5, 4)), start, strength=2.0, new_strength=0.05, label="by keyword"
    )
    smaller = near(g, {name: start[name] for name in ("body.weight", "body.bias")})
    yield case(smaller | tensors_of(g, new__weight=(3, 4)), start, 0.3, 0.1, label="the old head is gone")
    yield case(tensors_of(g, new__weight=(3, 4), new__bias=(3,)), start, 0.7, 0.3, label="nothing of the start is left")
    square = tensors_of(g, a=(3, 3), b=(3, 3), c=(3, 3))
    yield case(near(g, square), square, 1.0, 0.4, label="parameters of the same shape, in another order")
    yield case({name: x.clone() for name, x in start.items()}, start, label="exactly at the start")
    yield case(near(g, start) | {"new.bias": randn(g, 3)}, start, label="a new bias, and the usual strengths")
    yield case(near(g, start) | {"new.bias": randn(g, 3)}, start, 0.0, 0.6, label="strength 0")
    yield case(near(g, start) | {"new.bias": randn(g, 3)}, start, 0.6, 0, label="new_strength 0")
    far = {"w": 1000 + randn(g, 40, 5), "scale": 1000 + randn(g)}
    yield case(near(g, far, by=0.03), far, 3.0, label="weights around 1000 that moved by 0.03")
    large = tensors_of(g, embed=(300, 16), out=(16,))
    yield case(near(g, large, by=2.0) | {"new": randn(g, 16, 7)}, large, 0.02, 0.3, label="a large embedding")
    one = {"scale": randn(g)}
    yield case(near(g, one) | {"shift": randn(g)}, one, 0.9, 0.35, label="single numbers")


@exercise.oracle
def torchs_squared_errors(params, start, strength=0.1, new_strength=0.01):
    total = torch.zeros((), dtype=torch.float64)
    for name, w in params.items():
        goal, much = (start[name].detach(), strength) if name in start else (torch.zeros_like(w), new_strength)
        total = total + much / 2 * F.mse_loss(w.double(), goal.double(), reduction="sum")
    wide64 = any(w.dtype == torch.float64 for w in params.values())
    return total if wide64 else total.float()


exercise.law(WIDE)
exercise.law(stands_still(1, "the start"))
exercise.law(in_float32(1.0625, -1 / 256, lambda w, s: ({"w": w}, {"w": s}, 2.0)))


def _l2sp(
    old=lambda w, s: (wide(w) - wide(s.detach())).square(),
    new=lambda w: wide(w).square(),
    old_strength=lambda s, n: s / 2,
    new_strength=lambda s, n: n / 2,
    end=lambda total: total,
):
    """The penalty from its parts."""

    def l2_sp_penalty(params, start, strength=0.1, new_strength_=0.01, **knobs):
        much = knobs.get("new_strength", new_strength_)
        kept, grown = [n for n in params if n in start], [n for n in params if n not in start]
        known = pulled(lambda n: old(params[n], start[n]), kept, lambda total: total * old_strength(strength, much))
        fresh = pulled(lambda n: new(params[n]), grown, lambda total: total * new_strength(strength, much))
        return end(known + fresh)

    return l2_sp_penalty


right = _l2sp()

exercise.mistake(
    "everything is pulled to zero, as weight decay does", hint="What was learned is at `start`, not at 0."
)(_l2sp(old=lambda w, s: wide(w).square()))
exercise.mistake("new parameters aren't pulled at all", hint="Names that aren't in start are pulled towards zero.")(
    _l2sp(new=lambda w: wide(w) * 0)
)
exercise.mistake("new parameters are pulled with `strength`, too", hint="They have a strength of their own.")(
    _l2sp(new_strength=lambda s, n: s / 2)
)
exercise.mistake("the two strengths are swapped", hint="`strength` belongs to what has a start.")(
    _l2sp(old_strength=lambda s, n: n / 2, new_strength=lambda s, n: s / 2)
)
exercise.mistake("the factor ½ is missing", hint="strength / 2, so that the gradient is strength times the distance.")(
    _l2sp(old_strength=lambda s, n: s, new_strength=lambda s, n: n)
)
exercise.mistake("the factor ½ is missing for new parameters", hint="new_strength / 2.")(
    _l2sp(new_strength=lambda s, n: n)
)
exercise.mistake(
    "each tensor's squares are averaged, not summed", hint="A sum: else a weight of a large matrix hardly counts."
)(_l2sp(old=lambda w, s: (wide(w) - wide(s.detach())).square().mean(), new=lambda w: wide(w).square().mean()))
exercise.mistake("absolute distances are summed, not squares", hint="Squares.")(
    _l2sp(old=lambda w, s: (wide(w) - wide(s.detach())).abs(), new=lambda w: wide(w).abs())
)
exercise.mistake("lengths are added up, not their squares", hint="‖·‖² is the sum of squares, without a root.")(
    _l2sp(
        old=lambda w, s: torch.linalg.vector_norm(wide(w) - wide(s.detach())),
        new=lambda w: torch.linalg.vector_norm(wide(w)),
    )
)


@exercise.mistake(
    "parameters are paired by their order, not by name", hint="start[name]: dicts may have another order."
)
def side_by_side(params, start, strength=0.1, new_strength=0.01):
    pairs = list(zip(params.values(), start.values(), strict=False))
    rest = list(params.values())[len(pairs) :]
    known = sum(((wide(w) - wide(s.detach())).square().sum() for w, s in pairs), torch.zeros(()))
    return strength / 2 * known + new_strength / 2 * sum((wide(w).square().sum() for w in rest), torch.zeros(()))


exercise.mistake(
    "squares are subtracted: w² - start²", hint="The square of the difference, not the difference of the squares."
)(_l2sp(old=lambda w, s: wide(w).square() - wide(s.detach()).square()))
exercise.mistake("the square is multiplied out, which loses digits far from zero", hint="Subtract first, then square.")(
    _l2sp(old=lambda w, s: wide(w).square() - 2 * wide(w) * wide(s.detach()) + wide(s.detach()).square())
)
exercise.mistake("the distance is relative to the start", hint="The plain difference.")(
    _l2sp(old=lambda w, s: ((wide(w) - wide(s.detach())) / wide(s.detach())).square())
)


@exercise.mistake("biases and other vectors are left out", hint="All parameters, whatever their shape.")
def matrices_alone(params, start, strength=0.1, new_strength=0.01):
    return right(
        {n: w for n, w in params.items() if w.dim() > 1}, start, strength, new_strength=new_strength
    ) + 0 * sum(wide(w).sum() for w in params.values())


exercise.mistake("a gradient reaches the start", hint=CUT)(_l2sp(old=lambda w, s: (wide(w) - wide(s)).square()))
exercise.mistake("the result has the dtype of the parameters, bfloat16", hint="A float32 number: it is a sum of many.")(
    lambda params, *rest, **knobs: right(params, *rest, **knobs).to(next(iter(params.values())).dtype)
)
exercise.mistake("the result is float32, whatever came in", hint="float64 for float64 inputs.")(
    _l2sp(end=lambda total: total.float())
)


@exercise.alternative
def by_one_vector(params, start, strength=0.1, new_strength=0.01):
    first = next(iter(params.values()))
    kind = torch.float64 if first.dtype == torch.float64 else torch.float32
    moved = [w.to(kind) - start[n].detach().to(kind) for n, w in params.items() if n in start]
    grown = [w.to(kind) for n, w in params.items() if n not in start]

    def squared(parts):
        flat = torch.cat([p.reshape(-1) for p in parts]) if parts else torch.zeros(1, dtype=kind)
        return torch.dot(flat, flat)

    return 0.5 * (strength * squared(moved) + new_strength * squared(grown))


exercise.alternative(right)
