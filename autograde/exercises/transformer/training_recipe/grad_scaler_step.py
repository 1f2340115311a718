"""`grad_scaler_step(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000)`

Unscale gradients, look for an overflow, and choose the next scale.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import only, randn
from autograde.exercises.transformer.shared import Still

exercise = Draft(
    "grad_scaler_step",
    points=4,
    forbid=["torch.amp", "torch.optim"],
    atol=1e-12,
    dtypes=[torch.float16],
    precise=True,
    no_gradient="gradients themselves aren't trained through",
    hints=[
        "First decide: is every entry of every tensor finite? Everything else hangs on that.",
        "With an overflow: (None, scale * backoff_factor, 0). Without: count this step; is the interval full?",
        "[g.float() / scale for g in scaled], and (scale * growth_factor, 0) if good_steps + 1 == growth_interval, "
        "else (scale, good_steps + 1).",
    ],
)


@exercise.cases
def scaler_cases(g):
    def some(*shapes, dtype=torch.float32, size=1.0):
        return [(randn(g, *shape) * size).to(dtype) for shape in shapes]

    def spoilt(value, at=0, dtype=torch.float32):
        gradients = some((3, 2), (4,), dtype=dtype)
        gradients[at].view(-1)[1] = value
        return gradients

    yield case(some((2, 3), (4,), size=1e-3), 1024.0, 7, label="a clean step")
    yield case(some((5,)), 512.0, 3, growth_interval=4, label="the last clean step of the interval")
    yield case([*some((200, 30), (7,)), spoilt(math.inf)[0]], 4096.0, 19, growth_interval=20, label="one of thousands")
    yield case(some((5,)), 512.0, 2, growth_interval=4, label="the last but one")
    yield case(spoilt(math.inf), 65536.0, 30, label="an infinity")
    yield case(spoilt(-math.inf, at=1), 256.0, 0, backoff_factor=0.25, label="minus infinity, in the last tensor")
    yield case(spoilt(math.nan, at=1), 128.0, 11, growth_factor=4.0, growth_interval=12, label="a NaN")
    yield case(some((3, 3), (2,), dtype=torch.float16, size=1e-4), 65536.0, 1, label="tiny float16 gradients")
    yield case(spoilt(math.inf, dtype=torch.float16), 64.0, 1, growth_interval=2, label="a float16 overflow")
    yield case(spoilt(-math.inf), 1.0, 0, label="minus infinity at a scale of 1")
    yield case(some((2,), size=100.0), 8.0, 0, growth_factor=3.0, growth_interval=1, label="grows every step")
    yield case([torch.tensor([3e38, 2e38, -1e30]), torch.zeros(2)], 2.0, 5, label="large, but finite")
    large = torch.tensor([6e4, 5e4, 6e4, 1.0], dtype=torch.float16)
    yield case([torch.zeros(3, dtype=torch.float16), large], 8.0, 2, label="large, but finite, in float16")
    yield case(some((2, 3), size=1e4), 3001.0, 4, label="a scale that is no power of two")
    yield case(some((3,)), 0.375, 4, label="a scale below 1")
    yield case(some((1,)), 0.5, 1999, label="a scale below 1, and the default interval ends")


@exercise.oracle
def torch_scaler(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
    """torch's GradScaler, on float32 copies: it unscales float32 gradients only."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    state = {
        "scale": scale,
        "growth_factor": growth_factor,
        "backoff_factor": backoff_factor,
        "growth_interval": growth_interval,
        "_growth_tracker": good_steps,
    }
    scaler.load_state_dict(state)
    scaler.scale(torch.zeros(1))  # makes the scale's tensor
    parameters = [torch.zeros(gradient.shape, requires_grad=True) for gradient in scaled]
    for parameter, gradient in zip(parameters, scaled, strict=True):
        parameter.grad = gradient.float().clone()
    optimizer = Still(parameters)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    after = scaler.state_dict()
    clean = all(gradient.isfinite().all() for gradient in scaled)
    return [p.grad for p in parameters] if clean else None, after["scale"], after["_growth_tracker"]


@exercise.law("Clean gradients are divided by the scale, tiny ones as well")
def divides_by_the_scale(out, one, call):
    scaled, scale, _ = one.args
    if out[0] is None:
        return not all(gradient.isfinite().all() for gradient in scaled)
    return same(out[0], [gradient.float() / scale for gradient in scaled], rtol=1e-3, atol=1e-12)


@exercise.law("The gradients are float32")
def is_float32(out, one, call):
    return None if out[0] is None else all(gradient.dtype == torch.float32 for gradient in out[0])


@exercise.law("An overflow: no step, a lower scale, a new count")
def an_overflow_is_skipped(out, one, call):
    """An infinity anywhere: no gradients, a lower scale, and the count starts again."""
    scaled, scale, _ = one.args
    spoilt = [*scaled, torch.tensor([0.0, math.inf])]
    gradients, lower, count = call(spoilt, scale, 9, backoff_factor=0.125)
    return gradients is None and lower == scale / 8 and count == 0


@exercise.law("After each interval of clean steps the scale grows once")
@only("a clean step")
def grows_after_the_interval(out, one, call):
    """Ten clean steps in a row with an interval of 4: the scale grows twice."""
    scale, count = 16.0, 0
    for _ in range(10):
        _, scale, count = call([torch.ones(2)], scale, count, growth_factor=2.0, growth_interval=4)
    return scale == 64.0 and count == 2


def _is_clean(gradients):
    return all(bool(gradient.isfinite().all()) for gradient in gradients)


def _divided(scaled, scale):
    return [gradient.float() / scale for gradient in scaled]


def _back(scale, count, factor):
    return scale * factor, 0


def _on(scale, count, factor, interval):
    return (scale * factor, 0) if count + 1 == interval else (scale, count + 1)


def _scaling(clean=_is_clean, unscale=_divided, back=None, on=None, spoilt=None):
    """GradScaler in parts: the look for overflow, the division, and the new (scale, count) after either outcome."""

    def step(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
        if not clean(scaled):
            kept = spoilt(unscale(scaled, scale)) if spoilt else None
            return kept, *(back or _back)(scale, good_steps, backoff_factor)
        return unscale(scaled, scale), *(on or _on)(scale, good_steps, growth_factor, growth_interval)

    return step


exercise.mistake(
    "the division happens in float16, or its result is rounded to float16",
    hint="There small gradients become zero, and that's what the scale was for. Convert first.",
)(_scaling(unscale=lambda scaled, scale: [(gradient / scale).float() for gradient in scaled]))

exercise.mistake(
    "the gradients that came in are divided in place", hint=".float() of a float32 tensor is that tensor: don't write."
)(_scaling(unscale=lambda scaled, scale: [gradient.float().div_(scale) for gradient in scaled]))

exercise.mistake("only the last tensor is looked at", hint="All of them.")(
    _scaling(clean=lambda gradients: _is_clean(gradients[-1:]))
)

exercise.mistake("the gradients are multiplied by the scale", hint="The loss was: now divide.")(
    _scaling(unscale=lambda scaled, scale: [gradient.float() * scale for gradient in scaled])
)

exercise.mistake("the gradients aren't divided", hint="They are `scale` times too large.")(
    _scaling(unscale=lambda scaled, scale: [gradient.float() for gradient in scaled])
)

exercise.mistake("nobody looks for an overflow", hint="One infinity, and the weights are lost. Test isfinite().")(
    _scaling(clean=lambda gradients: True)
)

exercise.mistake("only NaN is looked for", hint="isfinite() sees infinities as well.")(
    _scaling(clean=lambda gradients: not any(bool(g.isnan().any()) for g in gradients))
)

exercise.mistake("only infinities are looked for", hint="isfinite() sees NaN as well.")(
    _scaling(clean=lambda gradients: not any(bool(g.isinf().any()) for g in gradients))
)

exercise.mistake("minus infinity isn't looked for", hint="The largest entry tells of +inf only: isfinite().")(
    _scaling(clean=lambda gradients: all(bool(g.max().isfinite()) for g in gradients))
)

exercise.mistake("only the first tensor is looked at", hint="All of them.")(
    _scaling(clean=lambda gradients: _is_clean(gradients[:1]))
)

exercise.mistake(
    "large finite gradients are taken for an overflow",
    hint="A sum of squares can overflow where no entry does. Ask each entry: isfinite().",
)(_scaling(clean=lambda gradients: all(bool((g.float() ** 2).sum().isfinite()) for g in gradients)))

exercise.mistake(
    "a sum that overflows is taken for an overflow",
    hint="A sum can be infinite where no entry is. Ask each entry: isfinite().",
)(_scaling(clean=lambda gradients: all(bool(g.sum().isfinite()) for g in gradients)))

exercise.mistake(
    "after an overflow the gradients are used all the same", hint="None in their place: the caller skips the step."
)(_scaling(spoilt=lambda gradients: gradients))

exercise.mistake(
    "after an overflow the gradients are zeros", hint="None. Zeros would still move Adam's moments and apply the decay."
)(_scaling(spoilt=lambda gradients: [torch.zeros_like(gradient) for gradient in gradients]))

exercise.mistake(
    "infinities and NaN are patched with zeros", hint="The other entries can't be trusted, either. None: skip the step."
)(_scaling(spoilt=lambda gradients: [g.nan_to_num(0.0, 0.0, 0.0) for g in gradients]))

exercise.mistake(
    "the scale stays after an overflow", hint="Then the next step overflows as well: multiply by backoff_factor."
)(_scaling(back=lambda scale, count, factor: (scale, 0)))

exercise.mistake(
    "the scale is divided by backoff_factor, and grows", hint="backoff_factor is below 1: multiply by it."
)(_scaling(back=lambda scale, count, factor: (scale / factor, 0)))

exercise.mistake("an overflow doesn't restart the count", hint="growth_interval counts clean steps *in a row*.")(
    _scaling(back=lambda scale, count, factor: (scale * factor, count))
)

exercise.mistake("an overflow is counted as a clean step", hint="growth_interval counts clean steps in a row: 0.")(
    _scaling(back=lambda scale, count, factor: (scale * factor, count + 1))
)

exercise.mistake("the scale never falls below 1", hint="It falls as far as it takes: scale * backoff_factor.")(
    _scaling(back=lambda scale, count, factor: (max(1.0, scale * factor), 0))
)

scaled_step = _scaling()


exercise.mistake(
    "1 / scale is rounded to float16 before it multiplies",
    hint="float32 throughout: the scale is a float, and divides float32 numbers.",
)(_scaling(unscale=lambda scaled, scale: [g.float() * torch.tensor(1 / scale).half() for g in scaled]))


@exercise.mistake(
    "the new scale divides the gradients",
    hint="The loss was multiplied by the old one. Divide first, then choose the next.",
)
def divided_by_the_next(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
    """The scale is renewed first, and the new one divides."""
    gradients, new, count = scaled_step(scaled, scale, good_steps, growth_factor, backoff_factor, growth_interval)
    return (None if gradients is None else _divided(scaled, new)), new, count


exercise.mistake("`backoff_factor` is always a half", hint="It is a parameter.")(
    _scaling(back=lambda scale, count, factor: (scale / 2, 0))
)

exercise.mistake("the scale grows after every clean step", hint="Only after growth_interval clean steps in a row.")(
    _scaling(on=lambda scale, count, factor, interval: (scale * factor, 0))
)

exercise.mistake(
    "the last clean step of an interval doesn't make the scale grow",
    hint="This step counts as well: it grows where good_steps + 1 == growth_interval.",
)(_scaling(on=lambda scale, count, factor, interval: (scale, count + 1)))

exercise.mistake("the scale grows one clean step too early", hint="good_steps + 1 == growth_interval.")(
    _scaling(on=lambda scale, count, factor, n: (scale * factor, 0) if count + 2 >= n else (scale, count + 1))
)

exercise.mistake("a clean step isn't counted", hint="Without growth the count becomes good_steps + 1.")(
    _scaling(on=lambda scale, count, factor, n: (scale * factor, 0) if count + 1 == n else (scale, count))
)

exercise.mistake("after growing the count isn't restarted", hint="It would never equal the interval again: 0.")(
    _scaling(on=lambda scale, count, factor, interval: (scale * (factor if count + 1 == interval else 1), count + 1))
)

exercise.mistake("`growth_factor` is always 2", hint="It is a parameter.")(
    _scaling(on=lambda scale, count, factor, interval: (scale * 2, 0) if count + 1 == interval else (scale, count + 1))
)

exercise.alternative(scaled_step)


@exercise.alternative
def scaled_by_inverse(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
    """Divide first, look afterwards: an infinity stays one."""
    inverse = 1.0 / scale
    gradients = tuple(gradient.to(torch.float32).mul(inverse) for gradient in scaled)
    bad = sum(float((~torch.isfinite(gradient)).sum()) for gradient in scaled)
    if bad:
        return None, backoff_factor * scale, 0
    good_steps += 1
    grown = good_steps >= growth_interval
    return list(gradients), scale * growth_factor if grown else scale, 0 if grown else good_steps
