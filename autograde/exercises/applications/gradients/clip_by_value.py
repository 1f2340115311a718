"""`clip_by_value(gradients, limit)`

Cut every entry off at the limit, and tell how far that has turned the gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import only, randn, value_keeps_dtypes

exercise = Draft(
    "clip_by_value",
    points=3,
    forbid=["torch.nn.utils.clip_grad_value_"],
    no_gradient="it works on gradients that are there already",
    fresh=True,
    atol=1e-6,
    dtypes=(torch.float64,),
    hints=[
        "clamp does the cutting. For the cosine think of all gradients as one long vector, before and after.",
        "a = torch.cat([g.flatten().double() for g in live]), b the same of the clipped ones: a·b / (|a| |b|).",
        "clipped = [None if g is None else g.clamp(-limit, limit) for g in gradients]; if no entry of a is different "
        "from 0, or there is none, the cosine is 1.0.",
    ],
)


@exercise.cases
def clip_value_cases(g):
    yield case([randn(g, 3, 4), randn(g, 5)], 1.0, label="a matrix and a vector")
    yield case([randn(g, 3, 4) * 1e-3, randn(g, 5) * 1e-3], 1.0, label="small ones")
    yield case([randn(g, 2, 3) * 200, randn(g, 4), randn(g, 2, 2, 2)], limit=0.5, label="one is much larger")
    yield case([randn(g, 4) * 3, None, randn(g, 3, 2)], 0.5, label="one parameter took no part")
    yield case([torch.zeros(3), torch.zeros(2, 2)], 1.0, label="all zero")
    yield case([None, None], 1.0, label="no gradient at all")
    yield case([torch.tensor(-3.0)], 0.25, label="a single number")
    yield case([randn(g, 3) * 1e30, randn(g, 2, 2)], 1.0, label="exploded")
    yield case([randn(g, 7) * 1e-30, randn(g, 3) * 1e-30], 1e-30, label="vanished")
    yield case([randn(g, 2, 3).double() * 40, randn(g, 4).double()], 2.0, label="float64")
    yield case([torch.tensor([1.0, -1.0, 3.0, 0.0]), torch.tensor([[2.0], [-4.0]])], 1.0, label="some on the limit")
    yield case([randn(g, 4, 6).T * 7, torch.zeros(0), randn(g, 1)], 3.0, label="not contiguous, and an empty one")
    yield case([randn(g, 3) * 2, None, randn(g, 40, 30) * 5], 1.5, label="a large matrix")
    yield case([randn(g, 9).abs() * 2 + 1, -randn(g, 4).abs() - 1], 0.75, label="every entry is too large")


@exercise.oracle
def torch_clipped_by_value(gradients, limit):
    """torch's clip_grad_value_, and the cosine of everything as one vector in float64."""
    parameters = [torch.zeros_like(g) for g in gradients if g is not None]
    before = [g for g in gradients if g is not None]
    for parameter, gradient in zip(parameters, before, strict=True):
        parameter.grad = gradient.clone()
    if parameters:
        torch.nn.utils.clip_grad_value_(parameters, limit)
    after = [p.grad for p in parameters]
    left = iter(after)
    clipped = [None if g is None else next(left) for g in gradients]
    long = [torch.cat([g.flatten().double() for g in part] or [torch.zeros(1)]) for part in (before, after)]
    return clipped, float(F.cosine_similarity(*long, dim=0, eps=0.0)) if long[0].any() else 1.0


def _flat(gradients):
    return torch.cat([g.flatten().double() for g in gradients if g is not None] or [torch.zeros(0).double()])


def _limit(one):
    return one.kwargs.get("limit") or one.args[1]


@exercise.law("No entry is larger than the limit")
def within_the_limit(out, one, call):
    return bool((_flat(out[0]).abs() <= _limit(one) * (1 + 1e-4)).all())


@exercise.law("Each entry is judged alone")
@only("a matrix and a vector")
def entry_by_entry(out, one, call):
    """What was within the limit stays, whatever stands beside it."""
    clipped, _ = call([torch.tensor([0.1, -0.2, 500.0]), torch.tensor([-90.0, 0.3])], 0.5)
    return same(clipped, [torch.tensor([0.1, -0.2, 0.5]), torch.tensor([-0.5, 0.3])])


@exercise.law("The cosine is that of the whole gradient's turn, at any size")
@only("a matrix and a vector")
def is_the_angle(out, one, call):
    """(3, 4) cut at 3 points along (1, 1); cut at 9 it stays. And 1e25 times as long, all stays as it is."""
    parts = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    cut, whole = call(parts, 3.0)[1], call(parts, 9.0)[1]
    long = call([part * 1e25 for part in parts], 3e25)[1]
    return same([float(cut), float(whole), float(long)], [7 / 50**0.5, 1.0, 7 / 50**0.5], atol=1e-4)


@exercise.law("A tiny limit leaves nothing but signs")
@only("a matrix and a vector", "one parameter took no part", "every entry is too large")
def tiny_limits_leave_signs(out, one, call):
    parts = [g for g in one.args[0] if g is not None and g.numel()]
    limit = float(_flat(parts).abs().min()) / 2
    clipped, cosine = call(parts, limit)
    long = _flat(parts)
    wanted = long.abs().sum() / (long.norm() * (long != 0).sum().sqrt())
    return same([c / limit for c in clipped], [p.sign() for p in parts]) and same(float(cosine), float(wanted))


exercise.law("Each keeps its dtype")(value_keeps_dtypes)


def _live(gradients):
    return [g for g in gradients if g is not None]


def _long(gradients):
    return torch.cat([g.flatten().double() for g in gradients] or [torch.zeros(0, dtype=torch.float64)])


def _cosine(before, after):
    a, b = _long(before), _long(after)
    return a @ b / (a.norm() * b.norm()) if a.any() else torch.tensor(1.0)


def _clip(change=lambda g, limit, live: g.clamp(-limit, limit), told=_cosine, none=lambda: None):
    """A `clip_by_value` with some of its parts exchanged."""

    def clip_by_value(gradients, limit):
        live = _live(gradients)
        clipped = [none() if g is None else change(g, limit, live) for g in gradients]
        return clipped, told(live, _live(clipped))

    return clip_by_value


def _shortened(g, limit, live):
    return g * (limit / _long(live).norm().clamp(min=limit)).to(g.dtype)


exercise.mistake("gradients that need no cut are handed back themselves", hint="New tensors, always: clone().")(
    _clip(lambda g, limit, live: g if bool((g.abs() <= limit).all()) else g.clamp(-limit, limit))
)

exercise.mistake(
    "the whole gradient is made shorter", hint="That is clipping by norm. Here each entry is cut off at the limit."
)(_clip(_shortened))


def _shortened_alone(g, limit, live):
    return g * (limit / g.double().norm().clamp(min=limit)).to(g.dtype)


exercise.mistake(
    "each tensor is made shorter",
    hint="That is clipping by norm, tensor by tensor. Here each entry is cut off at the limit.",
)(_clip(_shortened_alone))


def _scaled_by_largest(g, limit, live):
    largest = max((float(x.abs().max()) for x in live if x.numel()), default=0.0)
    return g * min(1.0, limit / largest) if largest else g


exercise.mistake(
    "all is divided until the largest entry fits",
    hint="That keeps the direction. Clipping by value doesn't: entries within the limit stay.",
)(_clip(_scaled_by_largest))

exercise.mistake("only large positive entries are cut", hint="From -limit to limit.")(
    _clip(lambda g, limit, live: g.clamp(max=limit))
)

exercise.mistake("negative entries become zero", hint="From -limit to limit.")(
    _clip(lambda g, limit, live: g.clamp(0, limit))
)

exercise.mistake("only the signs are left", hint="Entries within the limit stay as they are.")(
    _clip(lambda g, limit, live: g.sign() * limit)
)

exercise.mistake("entries that are too large become zero", hint="They become the limit, with their sign.")(
    _clip(lambda g, limit, live: g.masked_fill(g.abs() > limit, 0.0))
)

exercise.mistake("negative entries that are too large become +limit", hint="They keep their sign: -limit.")(
    _clip(lambda g, limit, live: torch.where(g.abs() > limit, torch.full_like(g, limit), g))
)

exercise.mistake("entries are squashed smoothly", hint="Entries within the limit stay as they are: clamp.")(
    _clip(lambda g, limit, live: limit * torch.tanh(g / limit))
)

exercise.mistake("the limit is always 1", hint="It is a parameter.")(_clip(lambda g, limit, live: g.clamp(-1, 1)))


@exercise.mistake(
    "the gradients that came in are changed",
    hint="torch's clip_grad_value_ does that, with its underscore. Here: new tensors.",
)
def value_in_place(gradients, limit):
    before = [None if g is None else g.clone() for g in gradients]
    for g in _live(gradients):
        g.clamp_(-limit, limit)
    return gradients, _cosine(_live(before), _live(gradients))


exercise.mistake("None becomes a zero", hint="A parameter that took no part keeps its None.")(
    _clip(none=lambda: torch.zeros(()))
)

right_clip = _clip()


@exercise.mistake("None is left out of the list", hint="Every entry keeps its place.")
def value_none_left_out(gradients, limit):
    return right_clip(_live(gradients), limit)


def _angle(before, after):
    return torch.acos(_cosine(before, after).clamp(-1, 1))


exercise.mistake("the angle is returned, not its cosine", hint="The cosine: 1 for no turn.")(_clip(told=_angle))


def _mean_cosine(before, after):
    found = [_cosine([a], [b]) for a, b in zip(before, after, strict=True)]
    return torch.stack([one.double() for one in found]).mean() if found else torch.tensor(1.0)


exercise.mistake(
    "the cosines of the tensors are averaged",
    hint="All gradients together are one vector: one dot product, two lengths.",
)(_clip(told=_mean_cosine))


def _single_cosine(before, after):
    """Adds squares in float32."""
    a, b = (_long(part).float() for part in (before, after))
    return a @ b / (a.norm() * b.norm()) if a.any() else torch.tensor(1.0)


exercise.mistake(
    "the cosine is computed in float32", hint="1e30 squared is inf there, and 1e-30 squared is 0. Use float64."
)(_clip(told=_single_cosine))


def _library_cosine(before, after):
    """F.cosine_similarity in float32; its eps hides short vectors."""
    a, b = (_long(part).float() for part in (before, after))
    return F.cosine_similarity(a, b, dim=0) if a.any() else torch.tensor(1.0)


exercise.mistake(
    "the cosine is computed in float32, with an eps under the fraction",
    hint="That hides short vectors, and long ones overflow. Use float64.",
)(_clip(told=_library_cosine))


def _unguarded_cosine(before, after):
    a, b = _long(before), _long(after)
    return a @ b / (a.norm() * b.norm())


exercise.mistake("a gradient of zero length isn't expected", hint="0 / 0 is NaN. A gradient of zeros isn't turned: 1.")(
    _clip(told=_unguarded_cosine)
)


def _zero_cosine(before, after):
    return _cosine(before, after) if _long(before).any() else torch.tensor(0.0)


exercise.mistake("a gradient of zeros gets the cosine 0", hint="It isn't turned: 1.")(_clip(told=_zero_cosine))


def _share_cut(before, after):
    a, b = _long(before), _long(after)
    return (a == b).double().mean() if len(a) else torch.tensor(1.0)


exercise.mistake(
    "the share of untouched entries is returned", hint="The cosine of the angle between before and after."
)(_clip(told=_share_cut))

exercise.mistake("the norm is returned", hint="The cosine of the angle between before and after.")(
    _clip(told=lambda before, after: _long(before).norm())
)

exercise.mistake("the dot product isn't divided by the lengths", hint="cos = a·b / (|a| |b|).")(
    _clip(told=lambda before, after: _long(before) @ _long(after))
)

exercise.mistake("the lengths are compared, not the directions", hint="cos = a·b / (|a| |b|).")(
    _clip(told=lambda before, after: _long(after).norm() / _long(before).norm().clamp(min=1e-300))
)


@exercise.mistake("only the gradients are returned", hint="A pair: gradients, cosine.")
def value_gradients_only(gradients, limit):
    return right_clip(gradients, limit)[0]


exercise.mistake(
    "the gradients come back in float64", hint="float64 is for the cosine. Each gradient keeps its dtype."
)(_clip(lambda g, limit, live: g.double().clamp(-limit, limit)))

exercise.alternative(right_clip)


@exercise.alternative
def value_by_sums(gradients, limit):
    """min and max, plain sums of products, a float."""
    bound = [
        None if g is None else torch.minimum(torch.maximum(g, -torch.full_like(g, limit)), torch.full_like(g, limit))
        for g in gradients
    ]
    dot = sum(float((a.double() * b.double()).sum()) for a, b in zip(_live(gradients), _live(bound), strict=True))
    sizes = [math.hypot(*(float(x.double().norm()) for x in _live(part)), 0.0) for part in (gradients, bound)]
    return bound, dot / (sizes[0] * sizes[1]) if sizes[0] else 1.0


@exercise.alternative
def value_by_numpy(gradients, limit):
    """Through numpy, the cosine of unit vectors."""
    import numpy as np

    out = [None if g is None else torch.as_tensor(np.clip(g.numpy(), -limit, limit)) for g in gradients]
    a, b = (
        np.concatenate([np.zeros(0), *(g.numpy().astype(np.float64).ravel() for g in _live(part))])
        for part in (gradients, out)
    )
    if not a.any():
        return out, 1.0
    return out, float((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)))
