"""`quantize_affine(x, bits=8)`

Asymmetric rounding: codes from 0 on, a scale, and the code that stands for zero.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.quantization.shared import ROUNDS, beside, codes, has_dtypes
from autograde.exercises.shared import pick

exercise = Draft(
    "quantize_affine",
    points=3,
    no_gradient=ROUNDS,
    dtypes=(torch.float64,),
    atol=0.0,
    forbid=["torch.quantize_per_tensor", "torch.fake_quantize_per_tensor_affine", "torch.ao"],
    hints=[
        "Which interval do the codes 0 … 2 ** bits - 1 have to cover, if zero has to be in it as well?",
        "low = min(x.min(), 0), high = max(x.max(), 0); scale = (high - low) / (2 ** bits - 1). Which code, a whole "
        "number, is zero?",
        "zero_point = (-low / scale).round(); codes = ((x / scale).round() + zero_point).clamp(0, 2 ** bits - 1), as "
        "uint8. If all of x is zero: scale 1, zero point 0.",
    ],
)


def ranged(g, bits, zero, *shape, step=None):
    """Numbers whose zero point is `zero`, though it has to be rounded, and of which none lies between two codes."""
    most = 2**bits - 1
    step = float(torch.exp(torch.randn((), generator=g))) if step is None else step
    sign = 1 if int(torch.randint(2, (), generator=g)) else -1
    exact = zero + sign * (0.15 + 0.25 * float(torch.rand((), generator=g)))
    low, high = -exact * step, (most - exact) * step
    whole = codes(g, -zero + 1, most - zero - 1, torch.Size(shape).numel())
    numbers = beside(g, whole, most=0.3) * step
    places = torch.randperm(len(numbers), generator=g)[:2]
    numbers[places] = torch.tensor([low, high])
    return numbers.reshape(shape)


def one_sided(g, bits, *shape):
    """Positive numbers, all away from zero."""
    most = 2**bits - 1
    whole = beside(g, codes(g, most // 2, most - 1, torch.Size(shape).numel()), most=0.3)
    whole[int(torch.randint(len(whole), (), generator=g))] = most
    return whole.reshape(shape) * 0.01


@exercise.cases
def affine_cases(g):
    yield case(ranged(g, 8, pick(g, 40, 90), 4, 9), label="a matrix, 8 bits")
    yield case(ranged(g, 4, pick(g, 10, 12), 3, 8), 4, label="4 bits, mostly negative")
    yield case(ranged(g, 4, pick(g, 3, 5), 2, 3, 7), bits=4, label="4 bits, mostly positive")
    yield case(one_sided(g, 8, 3, 5), label="all positive")
    yield case(-one_sided(g, 5, 2, 9), 5, label="all negative, 5 bits")
    yield case(ranged(g, 2, 1, 12), 2, label="a vector, 2 bits")
    yield case(ranged(g, 8, pick(g, 150, 220), 5, 6, step=1e-5), label="tiny numbers")
    yield case(ranged(g, 6, pick(g, 20, 40), 5, 6, step=1e4), 6, label="large numbers, 6 bits")
    yield case(torch.zeros(3, 2), label="nothing but zeros")
    yield case(torch.tensor([[0.37]]), 8, label="one positive number")
    yield case(torch.tensor([-2.5, -2.5, -2.5]), 4, label="one negative number, three times")
    yield case(ranged(g, 8, pick(g, 90, 160), 60, 40), label="2,400 numbers")


@exercise.oracle
def torch_observer(x, bits=8):
    """Scale and zero point by torch's own observer, codes by its own rounding."""
    import warnings

    most = 2**bits - 1
    if not x.any():
        return torch.zeros_like(x, dtype=torch.uint8), torch.ones((), dtype=x.dtype), torch.tensor(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is on its way out, to torchao
        from torch.ao.quantization import MinMaxObserver

        watch = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=most, eps=1e-12)
    watch(x.float())
    scale, zero = watch.calculate_qparams()
    near = torch.fake_quantize_per_tensor_affine(x.double(), float(scale), int(zero), 0, most)
    whole = (near / scale.double()).round() + zero
    return whole.to(torch.uint8), scale.to(x.dtype).reshape(()), zero.long().reshape(())


def _parts(out):
    return out[0].double(), torch.as_tensor(out[1]).double(), int(out[2])


exercise.law("The codes are uint8, the scale has the dtype of x, the zero point is int64")(
    has_dtypes(codes=torch.uint8, scale=None, zero_point=torch.int64)
)


@exercise.law("(codes - zero_point) * scale is nowhere more than one step from x")
def near_x(out, one, call):
    x = one.args[0]
    whole, scale, zero = _parts(out)
    if whole.shape != x.shape:
        return "the codes should have the shape of x"
    return bool((((whole - zero) * scale - x).abs() <= 1.0001 * scale).all()) if x.any() else None


@exercise.law("Zero comes back as exactly zero")
def zero_is_exact(out, one, call):
    if not one.args[0].any() or one.args[0].dim() != 2:
        return None
    with_zero = torch.cat([one.args[0].flatten(), torch.zeros(1, dtype=one.args[0].dtype)])
    whole, _, zero = _parts(call(with_zero, *one.args[1:], **one.kwargs))
    return bool(whole[-1] == zero)


@exercise.law("Numbers that reach as far up as down stay near themselves")
def no_wrap(out, one, call):
    """Both ends lie half-way between two codes: rounded up, both, they are one code too many, which must be clamped."""
    x, bits = torch.tensor([-127.5, 127.5, 5.2, -9.1], dtype=one.args[0].dtype), 8
    whole, scale, zero = _parts(call(x, bits))
    return whole.shape == x.shape and bool((((whole - zero) * scale - x).abs() <= 1.0001 * scale).all())


def affine(
    most=lambda bits: 2**bits - 1,
    low=lambda x: x.amin().clamp(max=0),
    high=lambda x: x.amax().clamp(min=0),
    zero=lambda low, scale, most: (-low / scale).round(),
    whole=lambda x, scale, zero, low: (x / scale).round() + zero,
    dtypes=(torch.uint8, None, torch.int64),
    empty=1.0,
    clamped=True,
):
    """`quantize_affine` from its parts."""

    def quantize_affine(x, bits=8):
        bottom, top = low(x), high(x)
        scale = (top - bottom) / most(bits)
        scale = torch.where(scale == 0, empty, scale)
        point = zero(bottom, scale, most(bits))
        found = whole(x, scale, point, bottom).nan_to_num(0)
        found = found.clamp(0, 2**bits - 1) if clamped else found.long()
        return found.to(dtypes[0]), scale.to(dtypes[1] or x.dtype), point.nan_to_num(0).to(dtypes[2])

    return quantize_affine


exercise.mistake(
    "the range need not hold zero", hint="Padding and ReLU give exact zeros: stretch the range so that 0 is in it."
)(affine(low=lambda x: x.amin(), high=lambda x: x.amax()))

exercise.mistake(
    "there is one step too many: the range is divided by 2 ** bits",
    hint="2 ** bits codes have 2 ** bits - 1 steps between them.",
)(affine(most=lambda bits: 2**bits))

exercise.mistake("8 bits are taken, whatever is asked", hint="Is `bits` used?")(affine(most=lambda bits: 255))

exercise.mistake("the zero point is rounded down", hint="To the nearest code: .round(), not .floor() or .int().")(
    affine(zero=lambda low, scale, most: (-low / scale).floor())
)

exercise.mistake("the zero point is rounded up", hint="To the nearest code: .round(), not .ceil().")(
    affine(zero=lambda low, scale, most: (-low / scale).ceil())
)

exercise.mistake(
    "the codes count from the smallest number, not from the zero point",
    hint="Round x / scale by itself and add the rounded zero point: only then is 0 a code exactly.",
)(affine(whole=lambda x, scale, zero, low: ((x - low) / scale).round()))

exercise.mistake("the zero point has the wrong sign", hint="low is negative or zero: the zero point is -low / scale.")(
    affine(zero=lambda low, scale, most: (low / scale).round())
)

exercise.mistake("the zero point is subtracted", hint="codes = round(x / scale) + zero_point.")(
    affine(whole=lambda x, scale, zero, low: (x / scale).round() - zero)
)

exercise.mistake("the zero point is left out of the codes", hint="codes = round(x / scale) + zero_point.")(
    affine(whole=lambda x, scale, zero, low: (x / scale).round())
)

exercise.mistake("the zero point is a number like x instead of a code", hint="Divide by the scale: which code is 0?")(
    affine(zero=lambda low, scale, most: (-low).round())
)

exercise.mistake("the codes are cut off instead of rounded", hint="To the nearest code: .round() before the cast.")(
    affine(whole=lambda x, scale, zero, low: (x / scale).trunc() + zero)
)

exercise.mistake(
    "the range is symmetric around zero", hint="From the smallest to the largest number, and zero: no |x| here."
)(affine(low=lambda x: -x.abs().amax(), high=lambda x: x.abs().amax()))

exercise.mistake(
    "the codes are not clamped, and one beyond the last wraps around to 0",
    hint="Where both ends are rounded up there is one code too many: clamp before the cast.",
)(affine(clamped=False))

exercise.mistake("zeros alone have a scale of zero", hint="The docstring says what x of zeros gives.")(
    affine(empty=0.0)
)

exercise.mistake("the codes are int64", hint="One byte a code: .to(torch.uint8).")(
    affine(dtypes=(torch.int64, None, torch.int64))
)

exercise.mistake("the codes are left as floating-point numbers", hint="Whole numbers: .to(torch.uint8).")(
    affine(dtypes=(torch.float32, None, torch.int64))
)

exercise.mistake("the zero point is left as a floating-point number", hint="It is a code: a whole number, int64.")(
    affine(dtypes=(torch.uint8, None, torch.float32))
)

exercise.mistake("the scale of float64 numbers is float32", hint="The scale has the dtype of x.")(
    affine(dtypes=(torch.uint8, torch.float32, torch.int64))
)


@exercise.mistake("each row has its own range", hint="One scale and one zero point for the whole tensor.")
def by_row(x, bits=8):
    if x.dim() < 2 or not x.any():
        return affine()(x, bits)
    rows = [affine()(row, bits) for row in x.reshape(-1, x.shape[-1])]
    return torch.stack([row[0] for row in rows]).reshape(x.shape), rows[0][1], rows[0][2]


@exercise.mistake(
    "signed codes are taken, from -2 ** (bits - 1) on", hint="The codes begin at 0 here: unsigned, 0 to 2 ** bits - 1."
)
def signed(x, bits=8):
    whole, scale, zero = affine()(x, bits)
    half = 2 ** (bits - 1)
    return (whole.long() - half).to(torch.int8), scale, zero - half


@exercise.alternative
def by_floats(x, bits=8):
    """Plain Python for the three numbers, the reciprocal for the codes."""
    least, most = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (most - least) / (2**bits - 1) or 1.0
    zero = round(-least / step)
    whole = torch.floor(x.double() * (1 / step) + zero + 0.5)
    return whole.clamp(0, 2**bits - 1).to(torch.uint8), torch.tensor(step, dtype=x.dtype), torch.tensor(zero)


@exercise.alternative
def by_aminmax(x, bits=8):
    low, high = torch.cat([x.flatten(), x.new_zeros(1)]).aminmax()
    scale = (high - low).div(2**bits - 1)
    scale = scale if scale > 0 else torch.ones_like(scale)
    zero = torch.round(low.neg() / scale).long()
    whole = torch.round(x / scale).long().add(zero)
    return torch.clamp(whole, 0, 2**bits - 1).byte(), scale, zero
