"""`clip_grad_norm(gradients, max_norm)`: Shorten gradients whose common length is above a limit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import integer, randn, value_keeps_dtypes

exercise = Draft(
    "clip_grad_norm",
    points=3,
    forbid=["torch.nn.utils.clip_grad_norm_", "torch.nn.utils.clip_grads_with_norm_"],
    no_gradient="gradients themselves aren't trained through",
    hints=[
        "Think of all gradients as one long vector. How long is it?",
        "torch.stack([g.norm() for g in live]).norm() is the norm of the whole, since squares add up.",
        "factor = (max_norm / (norm + 1e-6)).clamp(max=1.0); [None if g is None else g * factor for g in gradients]",
    ],
)


@exercise.cases
def clip_cases(g):
    yield case([randn(g, 3, 4), randn(g, 5)], 1.0, label="a matrix and a vector")
    yield case([randn(g, 3, 4) * 1e-3, randn(g, 5) * 1e-3], 1.0, label="small ones")
    yield case([randn(g, 2, 3) * 200, randn(g, 4), randn(g, 2, 2, 2)], max_norm=5.0, label="one is much larger")
    yield case([randn(g, 4), None, randn(g, 3, 2)], 0.5, label="one parameter took no part")
    yield case([None, randn(g, 5) * 3, None, randn(g, 2, 2), None], 0.75, label="the first and the last took no part")
    yield case([torch.zeros(3), torch.zeros(2, 2)], 1.0, label="all zero")
    yield case([torch.tensor(-3.0)], 0.25, label="a single number")
    yield case([randn(g, 3), randn(g, 3)], 1000.0, label="a generous limit")
    many = [randn(g, 100, 40), *(randn(g, integer(g, 1, 30)) for _ in range(20))]
    yield case(many, 7.0, label="many tensors")
    yield case([torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [-4.0]])], 5.0, label="exactly on the limit")
    yield case([randn(g, 4, 6).T * 7, torch.zeros(0), randn(g, 1)], 3.0, label="not contiguous, and an empty one")


@exercise.oracle
def torch_clipped(gradients, max_norm):
    parameters = [None if g is None else torch.zeros_like(g).requires_grad_() for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter is not None:
            parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_([p for p in parameters if p is not None], max_norm)
    return [None if p is None else p.grad for p in parameters], norm


def _norm(gradients):
    return torch.cat([gradient.flatten().double() for gradient in gradients if gradient is not None]).norm()


@exercise.law("The clipped gradients are no longer than max_norm")
def is_short_enough(out, one, call):
    max_norm = one.kwargs.get("max_norm") or one.args[1]
    return bool(_norm(out[0]) <= max_norm * (1 + 1e-4))


@exercise.law("Their direction stays")
def keeps_the_direction(out, one, call):
    """All entries are multiplied by one and the same positive number."""
    before, after = (torch.cat([g.flatten().double() for g in part if g is not None]) for part in (one.args[0], out[0]))
    return None if not before.any() else bool(F.cosine_similarity(before, after, dim=0) > 1 - 1e-5)


@exercise.law("Short gradients stay as they are, and their norm is told")
def small_ones_stay(out, one, call):
    gradients = one.args[0]
    clipped, norm = call(gradients, float(_norm(gradients)) * 1.5 + 1.0)
    return same(clipped, gradients, rtol=1e-5, atol=0.0) and same(float(norm), float(_norm(gradients)))


exercise.law("Each keeps its dtype")(value_keeps_dtypes)


def _live(gradients):
    return [gradient for gradient in gradients if gradient is not None]


def _total(gradients):
    return torch.stack([gradient.norm() for gradient in _live(gradients)]).norm()


@exercise.mistake("every entry is cut off at max_norm", hint="That changes the direction. Multiply all by one factor.")
def clipped_by_value(gradients, max_norm):
    return [None if g is None else g.clamp(-max_norm, max_norm) for g in gradients], _total(gradients)


def _factor(norm, max_norm):
    return (max_norm / (norm + 1e-6)).clamp(max=1.0)


@exercise.mistake("each tensor is clipped by itself", hint="One norm over all of them, one factor for all of them.")
def clipped_one_by_one(gradients, max_norm):
    return [None if g is None else g * _factor(g.norm(), max_norm) for g in gradients], _total(gradients)


def _scaled(gradients, factor):
    return [None if gradient is None else gradient * factor for gradient in gradients]


def _clipping(norm=_total, factor=_factor):
    """Multiply by `factor(norm(gradients), max_norm)` and tell the norm."""

    def clip(gradients, max_norm):
        size = norm(gradients)
        return _scaled(gradients, factor(size, max_norm)), size

    return clip


exercise.mistake("short gradients are made longer", hint="The factor is at most 1.")(
    _clipping(factor=lambda norm, max_norm: max_norm / (norm + 1e-6))
)

exercise.mistake("the factor is upside down", hint="max_norm / norm, at most 1.")(
    _clipping(factor=lambda norm, max_norm: (norm / max_norm).clamp(max=1.0))
)

exercise.mistake("the root is missing: the norm is squared", hint="norm = sqrt(sum of all squares).")(
    _clipping(norm=lambda gradients: _total(gradients) ** 2)
)

exercise.mistake("the tensors' norms are added", hint="Squares add up, norms don't: sqrt(norm1² + norm2² + …).")(
    _clipping(norm=lambda gradients: sum(gradient.norm() for gradient in _live(gradients)))
)

exercise.mistake("the largest tensor's norm is taken", hint="One norm over all entries.")(
    _clipping(norm=lambda gradients: torch.stack([g.norm() for g in _live(gradients)]).max())
)

exercise.mistake("the first tensor's norm is taken", hint="One norm over all entries of all tensors.")(
    _clipping(norm=lambda gradients: _live(gradients)[0].norm())
)

exercise.mistake("the last tensor's norm is taken", hint="One norm over all entries of all tensors.")(
    _clipping(norm=lambda gradients: _live(gradients)[-1].norm())
)

exercise.mistake("the mean of the tensors' norms is taken", hint="Squares add up: sqrt(norm1² + norm2² + …).")(
    _clipping(norm=lambda gradients: torch.stack([g.norm() for g in _live(gradients)]).mean())
)

exercise.mistake("the sum of absolute values is taken", hint="norm = sqrt(sum of all squares).")(
    _clipping(norm=lambda gradients: sum(gradient.abs().sum() for gradient in _live(gradients)))
)

exercise.mistake("the root of the mean square is taken", hint="Sum the squares, no mean.")(
    _clipping(norm=lambda gradients: torch.cat([g.flatten() for g in _live(gradients)]).square().mean().sqrt())
)

exercise.mistake("the largest entry is taken for the norm", hint="norm = sqrt(sum of all squares).")(
    _clipping(norm=lambda gradients: torch.cat([g.flatten() for g in _live(gradients)]).abs().max())
)

exercise.mistake("gradients of length zero become NaN", hint="0 / 0. They are short: they stay as they are.")(
    _clipping(factor=lambda norm, max_norm: norm.clamp(max=max_norm) / norm)
)

exercise.mistake("the limit is always 1", hint="max_norm / norm.")(
    _clipping(factor=lambda norm, max_norm: _factor(norm, 1.0) if norm > max_norm else torch.ones(()))
)

exercise.mistake("nothing is clipped", hint="Multiply by max_norm / norm where that is below 1.")(
    _clipping(factor=lambda norm, max_norm: 1.0)
)

exercise.mistake("gradients that are too long become zero", hint="They get shorter: multiply by max_norm / norm.")(
    _clipping(factor=lambda norm, max_norm: (norm <= max_norm).to(norm.dtype))
)

clipped = _clipping()


@exercise.mistake("gradients come back in float32", hint="Each keeps its dtype.")
def clipped_in_float32(gradients, max_norm):
    return clipped([None if g is None else g.float() for g in gradients], max_norm)


@exercise.mistake("the norm after the clipping is returned", hint="The norm before it: that is the one worth plotting.")
def clipped_norm_told(gradients, max_norm):
    """The norm after the clipping is told instead of the one before."""
    after = clipped(gradients, max_norm)[0]
    return after, _total(after)


@exercise.mistake("None becomes a zero", hint="A parameter that took no part keeps its None.")
def none_as_zero(gradients, max_norm):
    return [torch.zeros(1) if gradient is None else gradient for gradient in clipped(gradients, max_norm)[0]], _total(
        gradients
    )


@exercise.mistake("None is left out of the list", hint="Every entry keeps its place.")
def none_left_out(gradients, max_norm):
    after, norm = clipped(gradients, max_norm)
    return _live(after), norm


@exercise.mistake(
    "the gradients that came in are changed",
    hint="torch's clip_grad_norm_ does that, with its underscore. Here: new tensors.",
)
def clipped_in_place(gradients, max_norm):
    norm = _total(gradients)
    for gradient in _live(gradients):
        gradient.mul_(_factor(norm, max_norm))
    return gradients, norm


exercise.alternative(clipped)


@exercise.alternative
def clipped_flat(gradients, max_norm):
    """All entries as one long vector, and an if."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients if gradient is not None])
    norm = math.sqrt(float((flat.double() ** 2).sum()))
    factor = max_norm / norm if norm > max_norm else 1.0
    return tuple(None if gradient is None else gradient * factor for gradient in gradients), norm
