"""`fake_quantize(x, scale, bits=8)`

What rounding would leave of x, with a gradient that lets one train through it.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.quantization.shared import beside, codes

exercise = Draft(
    "fake_quantize",
    points=3,
    dtypes=(torch.float64,),
    atol=1e-9,
    no_gradient="the probe asks for it, so that its mistakes can be told apart",
    forbid=["torch.fake_quantize_per_tensor_affine", "torch.fake_quantize_per_channel_affine", "torch.ao"],
    hints=[
        "torch.round has the gradient 0 everywhere, so nothing would be learned. Which gradient would x itself have?",
        "x + (rounded - x).detach() has the value of `rounded` and the gradient of x. And where the code had to be "
        "clamped, moving x changes nothing: there the gradient is 0.",
        "whole = (x / scale).round(); y = whole.clamp(low, high) * scale; kept = torch.where((whole >= low) & "
        "(whole <= high), x, x.detach()); return kept + (y - kept).detach().",
    ],
)


def numbers(g, bits, scale, *shape, beyond=1.6):
    """Numbers of which some lie beyond the codes, and none half-way between two of them."""
    half = 2 ** (bits - 1)
    whole = codes(g, -int(beyond * half) - 2, int(beyond * half) + 2, *shape)
    flat = whole.reshape(-1)
    places = torch.randperm(len(flat), generator=g)[:4]
    edges = torch.tensor([-half, half - 1, half, -half - 1])
    flat[places] = edges[: len(places)]
    return beside(g, whole) * scale


@exercise.cases
def fake_cases(g):
    yield case(numbers(g, 4, 0.25, 5, 7), 0.25, 4, label="4 bits, some beyond the codes")
    yield case(numbers(g, 8, 0.03, 3, 40), 0.03, label="8 bits")
    yield case(numbers(g, 3, 1.7, 2, 3, 5), scale=1.7, bits=3, label="3 bits, a large scale")
    yield case(numbers(g, 2, 0.4, 9), 0.4, 2, label="2 bits")
    yield case(numbers(g, 4, 1e-5, 4, 8), 1e-5, 4, label="tiny numbers")
    yield case(torch.zeros(2, 3), 0.5, 4, label="zeros")
    yield case(numbers(g, 5, 100.0, 1, 1, beyond=0.5), 100.0, 5, label="one number")
    yield case(40 * torch.randn(3, 4, generator=g).sign(), 0.1, 8, label="all beyond")
    yield case(numbers(g, 6, 0.07, 130, 12), 0.07, 6, label="130 rows")


@exercise.probe
def value_and_gradient(fake_quantize, x, *args, **kwargs):
    """The result, and what reaches x if its numbers are pulled at with 1 … 2; None where it is cut off."""
    import torch

    with torch.enable_grad():
        x = x.detach().requires_grad_()  # the same memory: x may not be written into
        y = fake_quantize(x, *args, **kwargs)
        # A sum, not grad_outputs: with these torch first imports sympy, which may take longer than a call's limit.
        total = (y * torch.linspace(1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()
        reaches = torch.autograd.grad(total, x, allow_unused=True)[0] if y.requires_grad else None
    return {"value": y.detach(), "gradient": reaches}


@exercise.oracle
def torch_fake_quantize(x, scale, bits=8):
    """torch's own: a straight-through gradient inside the codes, 0 outside."""
    half = 2 ** (bits - 1)
    return value_and_gradient(torch.fake_quantize_per_tensor_affine, x, scale, 0, -half, half - 1)


exercise.law("The result has the dtype of x")(keeps_dtype)


def _bits(one):
    return one.args[2] if len(one.args) > 2 else one.kwargs.get("bits", 8)


def _scale(one):
    return one.args[1] if len(one.args) > 1 else one.kwargs["scale"]


@exercise.law("There are no more than 2 ** bits different numbers, all multiples of the scale")
def on_the_grid(out, one, call):
    steps = out["value"].double() / _scale(one)
    bits = _bits(one)
    whole = bool(((steps - steps.round()).abs() < 1e-3).all())
    return whole and -(2 ** (bits - 1)) <= steps.round().min() and steps.round().max() < 2 ** (bits - 1)


@exercise.law("Inside the codes x has the gradient of the result, beyond them none", essential=True)
def straight_through(out, one, call):
    if out["gradient"] is None:
        return "no gradient reaches x: the result is cut off from the graph"
    half = 2 ** (_bits(one) - 1)
    whole = (one.args[0].double() / _scale(one)).round()
    pull = torch.linspace(1, 2, whole.numel(), dtype=torch.float64).reshape(whole.shape)
    return same(out["gradient"].double(), pull * ((whole >= -half) & (whole < half)))


@exercise.law("Rounding what was rounded changes nothing")
def twice(out, one, call):
    return same(call(out["value"], *one.args[1:], **one.kwargs)["value"], out["value"])


def fake(
    rounding=torch.round,
    low=lambda half: -half,
    high=lambda half: half - 1,
    through=lambda x, y, whole, low, high: torch.where((whole >= low) & (whole <= high), x, x.detach()),
    bits_of=lambda bits: bits,
    back=lambda codes, scale: codes * scale,
):
    """`fake_quantize` from its parts; `through` gives that whose gradient counts."""

    def fake_quantize(x, scale, bits=8):
        half = 2 ** (bits_of(bits) - 1)
        bottom, top = low(half), high(half)
        whole = rounding(x / scale)
        y = back(whole.clamp(bottom, top), scale)
        kept = through(x, y, whole, bottom, top)
        return kept + (y - kept).detach()

    return fake_quantize


exercise.mistake(
    "the gradient passes also where the code was clamped",
    hint="Beyond the last code a small change of x changes nothing: there the gradient is 0.",
)(fake(through=lambda x, y, whole, low, high: x))

exercise.mistake(
    "the gradient is that of round: zero everywhere",
    hint="x + (y - x).detach() has the value of y and the gradient of x.",
)(fake(through=lambda x, y, whole, low, high: y + 0 * x))

exercise.mistake(
    "the gradient passes only where the code was clamped", hint="It is the other way round: inside it passes."
)(fake(through=lambda x, y, whole, low, high: torch.where((whole >= low) & (whole <= high), x.detach(), x)))


@exercise.mistake(
    "x is clamped before it is rounded, so that the gradient ends half a step too early",
    hint="What rounds to the last code is still inside: ask the rounded x / scale, not x, whether to clamp.",
)
def clamped_first(x, scale, bits=8):
    half = 2 ** (bits - 1)
    cut = x.clamp(-half * scale, (half - 1) * scale)
    return cut + ((cut / scale).round() * scale - cut).detach()


@exercise.mistake(
    "the gradient is divided by the scale",
    hint="x is divided by the scale and the codes are multiplied by it again: together that is 1.",
)
def gradient_of_codes(x, scale, bits=8):
    y = fake()(x, scale, bits)
    return y.detach() + (y - y.detach()) / scale


exercise.mistake("the codes are not clamped", hint="There are 2 ** bits codes: clamp them.")(
    fake(low=lambda half: -(10**9), high=lambda half: 10**9)
)

exercise.mistake(
    "the range of codes is symmetric",
    hint="Two's complement: from -2 ** (bits - 1) to 2 ** (bits - 1) - 1, one more below zero.",
)(fake(low=lambda half: 1 - half))

exercise.mistake("the range has one code too many", hint="The largest code is 2 ** (bits - 1) - 1.")(
    fake(high=lambda half: half)
)

exercise.mistake("8 bits are taken, whatever is asked", hint="Is `bits` used?")(fake(bits_of=lambda bits: 8))

exercise.mistake("the codes are cut off instead of rounded", hint="To the nearest: .round().")(
    fake(rounding=torch.trunc)
)

exercise.mistake("the codes are rounded down", hint="To the nearest: .round(), not .floor().")(
    fake(rounding=torch.floor)
)

exercise.mistake("the codes themselves are returned", hint="Fake: back to the size of x, codes times scale.")(
    fake(back=lambda codes, scale: codes * 1.0)
)


exercise.mistake("4 bits are taken if nobody says otherwise", hint="The default is 8.")(
    lambda x, scale, bits=4: fake()(x, scale, bits)
)


@exercise.mistake("the scale is multiplied where it divides", hint="x / scale is the code.")
def multiplied(x, scale, bits=8):
    return fake()(x, 1 / scale, bits)


@exercise.mistake(
    "the result is cut off from the graph", hint="Only (rounded - x) is detached; x itself stays in the sum."
)
def cut_off(x, scale, bits=8):
    return fake()(x.detach(), scale, bits)


@exercise.mistake("nothing is rounded, only clamped", hint="Round to a code between the division and the clamp.")
def clamped_only(x, scale, bits=8):
    half = 2 ** (bits - 1)
    return x.clamp(-half * scale, (half - 1) * scale)


@exercise.mistake("the result is left in float32", hint="The result has the dtype of x.")
def in_float32(x, scale, bits=8):
    return fake()(x.float(), scale, bits)


exercise.alternative(fake())


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, half):
        whole = torch.floor(x * (1 / scale) + 0.5)
        ctx.save_for_backward((whole >= -half) & (whole < half))
        return whole.clamp(-half, half - 1) * scale

    @staticmethod
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


@exercise.alternative
def by_function(x, scale, bits=8):
    """A function of one's own with its backward."""
    return _Straight.apply(x, scale, 2 ** (bits - 1))


@exercise.alternative
def by_mask(x, scale, bits=8):
    half = 2 ** (bits - 1)
    with torch.no_grad():
        whole = (x / scale).round()
        y, inside = whole.clamp(-half, half - 1) * scale, whole == whole.clamp(-half, half - 1)
    return y + (x - x.detach()) * inside
