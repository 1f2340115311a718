"""`quantize_absmax(x, bits=8, group=None)`

Symmetric rounding: whole numbers, and one scale for each block.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.quantization.shared import ROUNDS, beside, codes, has_dtypes

exercise = Draft(
    "quantize_absmax",
    points=3,
    no_gradient=ROUNDS,
    dtypes=(torch.float64,),
    atol=0.0,
    forbid=["torch.quantize_per_tensor", "torch.quantize_per_channel", "torch.fake_quantize_per_channel_affine"],
    hints=[
        "Which number of a block has to become 127, so that all 8-bit codes are used and none is too small?",
        "Make blocks of it: x.reshape(1, -1), or x.reshape(-1, group). The scale of a row is its amax of |x|, over "
        "2 ** (bits - 1) - 1.",
        "scale = blocks.abs().amax(-1, keepdim=True) / most, 1 where that is 0; codes = (blocks / scale).round(), as "
        "int8 and in the shape of x. The scales: reshape(()) or reshape(*x.shape[:-1], -1).",
    ],
)


def _most(bits):
    return 2 ** (bits - 1) - 1


def block(g, bits, size, step, sign=1):
    """A block of numbers near whole multiples of `step`; the one that decides is the only one at the end."""
    most = _most(bits)
    whole = beside(g, codes(g, -max(most - 1, 1), max(most - 1, 1), size))
    whole[int(torch.randint(size, (), generator=g))] = sign * most
    return whole * step


def blocks(g, bits, group, *shape):
    """Blocks whose steps differ, the largest numbers of either sign: `shape`, the last dimension in groups."""
    count = torch.Size(shape).numel() // group
    steps = torch.exp(torch.randn(count, generator=g))
    made = [block(g, bits, group, steps[i], sign=1 if i % 2 else -1) for i in range(count)]
    return torch.stack(made).reshape(shape)


@exercise.cases
def absmax_cases(g):
    yield case(blocks(g, 8, 35, 5, 7), label="a matrix, 8 bits")
    yield case(blocks(g, 4, 6, 3, 12), 4, 6, label="groups of 6, 4 bits")
    yield case(-blocks(g, 8, 9, 9), label="a vector, the largest number positive")
    yield case(blocks(g, 5, 4, 2, 3, 8), bits=5, group=4, label="groups in a batch of matrices, 5 bits")
    yield case(blocks(g, 4, 10, 4, 10), bits=4, group=10, label="a group is a row")
    yield case(blocks(g, 3, 24, 2, 12), bits=3, label="3 bits, one block")
    yield case(blocks(g, 2, 5, 3, 15), 2, 5, label="2 bits")
    zeros = blocks(g, 4, 4, 3, 8)
    zeros[1, 4:] = 0
    yield case(zeros, 4, 4, label="a group of zeros")
    yield case(torch.zeros(2, 3), label="nothing but zeros")
    yield case(1e-6 * blocks(g, 8, 8, 2, 16), group=8, label="tiny numbers")
    yield case(1e4 * blocks(g, 6, 3, 6), 6, 3, label="large numbers in a vector")
    yield case(blocks(g, 4, 2, 1, 2), 4, 2, label="a single group")
    yield case(blocks(g, 7, 1, 2, 3), 7, 1, label="groups of one number")
    yield case(blocks(g, 4, 32, 130, 64), 4, 32, label="130 rows")
    yield case(blocks(g, 8, 6, 3, 6).abs(), 8, 6, label="no negative number")


@exercise.oracle
def torch_fake_quantize(x, bits=8, group=None):
    """torch rounds, given the scales of torch.ao's symmetric observers: largest number / qmax."""
    most, flat = _most(bits), x.double().reshape(-1, x.numel() if group is None else group)
    scale = torch.linalg.vector_norm(flat, ord=torch.inf, dim=-1) / most
    scale = torch.where(scale > 0, scale, 1.0)
    zero = torch.zeros(len(scale), dtype=torch.int32)
    near = torch.fake_quantize_per_channel_affine(flat, scale.float(), zero, 0, -most, most)
    whole = (near / scale.float().double()[:, None]).round().to(torch.int8).reshape(x.shape)
    return whole, scale.to(x.dtype).reshape(() if group is None else (*x.shape[:-1], -1))


exercise.law("The codes are int8, the scales have the dtype of x")(has_dtypes(codes=torch.int8, scale=None))


def _given(one):
    bits = one.args[1] if len(one.args) > 1 else one.kwargs.get("bits", 8)
    return bits, one.args[2] if len(one.args) > 2 else one.kwargs.get("group")


@exercise.law("codes * scale is nowhere more than half a step from x")
def half_a_step(out, one, call):
    x, (whole, scale) = one.args[0].double(), out
    if whole.shape != x.shape:
        return "the codes should have the shape of x"
    each = scale.double().reshape(-1, 1).expand(-1, x.numel() // scale.numel()).reshape(x.shape)
    return bool(((whole * each - x).abs() <= each * 0.5001).all())


@exercise.law("Every block that isn't all zeros has a code of the largest size")
def all_used(out, one, call):
    x, (bits, group) = one.args[0], _given(one)
    size = x.numel() if group is None else group
    kept = (x.reshape(-1, size) != 0).any(-1)
    return bool((out[0].reshape(-1, size).abs().amax(-1)[kept] == _most(bits)).all())


@exercise.law("Twice x has the same codes and twice the scales")
def scales_with_x(out, one, call):
    if not one.args[0].any(-1).all() or "zeros" in one.label:
        return None
    again = call(2 * one.args[0], *one.args[1:], **one.kwargs)
    return same(again, (out[0], 2 * out[1]), atol=0)


def absmax(
    most=_most,
    rounding=torch.round,
    size=lambda rows: rows.abs().amax(-1, keepdim=True),
    spread=lambda x, group: x.reshape(1, -1) if group is None else x.reshape(-1, group),
    guard=lambda scale: torch.where(scale == 0, 1, scale),
    dtypes=(torch.int8, None),
    finish=lambda scale: scale,
):
    """`quantize_absmax` from its parts."""

    def quantize_absmax(x, bits=8, group=None):
        rows = spread(x, group)
        scale = guard(size(rows) / most(bits))
        whole = rounding(rows / scale).to(dtypes[0]).reshape(x.shape)
        told = finish(scale).reshape(() if len(scale) == 1 and group is None else (*x.shape[:-1], -1))
        return whole, told.to(dtypes[1] or x.dtype)

    return quantize_absmax


exercise.mistake(
    "the scale is divided by 2 ** (bits - 1), so that the largest code is never used or one too large",
    hint="8-bit codes go from -127 to 127: the largest number becomes 127, which is 2 ** (bits - 1) - 1.",
)(absmax(most=lambda bits: 2 ** (bits - 1), rounding=lambda x: x.round().clamp(-128, 127)))

exercise.mistake(
    "the scale is as if the codes had no sign",
    hint="Half of the codes are negative: the largest is 2 ** (bits - 1) - 1.",
)(absmax(most=lambda bits: 2**bits - 1))

exercise.mistake("8 bits are taken, whatever is asked", hint="Is `bits` used?")(absmax(most=lambda bits: 127))

exercise.mistake("the codes are cut off instead of rounded", hint="2.9 is nearer to 3: round before you cast.")(
    absmax(rounding=torch.trunc)
)

exercise.mistake("the codes are rounded down", hint="To the nearest whole number, not to the next lower one.")(
    absmax(rounding=torch.floor)
)

exercise.mistake(
    "the scale comes from the largest number instead of the largest size",
    hint="A block's largest number may be negative: take the maximum of |x|.",
)(absmax(size=lambda rows: rows.amax(-1, keepdim=True).abs(), rounding=lambda x: x.round().clamp(-127, 127)))

exercise.mistake(
    "the scale comes from the spread between smallest and largest number",
    hint="That is the affine way. Here 0 stays in the middle: the largest |x| decides.",
)(absmax(size=lambda rows: (rows.amax(-1, keepdim=True) - rows.amin(-1, keepdim=True)) / 2))

exercise.mistake(
    "the scale comes from the standard deviation", hint="The largest |x| of the block decides, else it is cut."
)(absmax(size=lambda rows: rows.std(-1, keepdim=True, correction=0), rounding=lambda x: x.round().clamp(-127, 127)))

exercise.mistake(
    "a block of zeros is divided by zero", hint="What is the scale of a block of zeros? The docstring says."
)(absmax(guard=lambda scale: scale, rounding=lambda x: x.round().nan_to_num(0)))

exercise.mistake("a block of zeros has a tiny scale instead of 1", hint="The docstring says which scale it has.")(
    absmax(guard=lambda scale: scale.clamp(min=1e-12))
)


@exercise.mistake(
    "one scale serves all groups", hint="With `group` every run of that many neighbors has a scale of its own."
)
def one_for_all(x, bits=8, group=None):
    whole, scale = absmax()(x, bits)
    return whole, scale if group is None else scale.expand(*x.shape[:-1], x.shape[-1] // group)


@exercise.mistake(
    "each row has a scale where none is asked for", hint="Without `group` the whole tensor is one block, one scale."
)
def row_by_row(x, bits=8, group=None):
    whole, scale = absmax()(x, bits, group or x.shape[-1])
    return whole, scale if group else scale.max()


@exercise.mistake(
    "a group is every so-manieth number instead of neighbors",
    hint="reshape(-1, group) keeps neighbors together. Did you transpose, or swap the two sizes?",
)
def strided(x, bits=8, group=None):
    if group is None:
        return absmax()(x, bits)
    rows = x.reshape(-1, group, x.shape[-1] // group).mT
    whole, scale = absmax()(rows, bits, group)
    return whole.mT.reshape(x.shape), scale.reshape(*x.shape[:-1], -1)


@exercise.mistake("`group` is taken for the number of groups", hint="It is how many numbers share a scale.")
def counted(x, bits=8, group=None):
    whole, scale = absmax()(x, bits, group and max(1, x.shape[-1] // group))
    return whole, scale


exercise.mistake("the codes are left as floating-point numbers", hint="Whole numbers: .to(torch.int8).")(
    absmax(dtypes=(torch.float32, None))
)

exercise.mistake("the codes are int64", hint="Eight bytes a code save nothing: .to(torch.int8).")(
    absmax(dtypes=(torch.int64, None))
)

exercise.mistake("the scales of float64 numbers are float32", hint="The scales have the dtype of x.")(
    absmax(dtypes=(torch.int8, torch.float32))
)

exercise.mistake(
    "what is returned is 1 / scale", hint="The scale is what a code is multiplied by: largest |x| / largest code."
)(absmax(finish=lambda scale: 1 / scale))

exercise.mistake("the codes have no sign", hint="Symmetric: 0 stays 0, and half of the codes are negative.")(
    absmax(dtypes=(torch.uint8, None), rounding=lambda x: x.round() + 128)
)


@exercise.alternative
def by_loop(x, bits=8, group=None):
    flat, most = x.reshape(-1), _most(bits)
    size = len(flat) if group is None else group
    whole, scales = torch.zeros(len(flat), dtype=torch.int8), []
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        step = max(abs(float(part.max())), abs(float(part.min()))) / most or 1.0
        whole[start : start + size] = (part / step).round().to(torch.int8)
        scales.append(step)
    shape = () if group is None else (*x.shape[:-1], -1)
    return whole.reshape(x.shape), torch.tensor(scales, dtype=x.dtype).reshape(shape)


@exercise.alternative
def by_unflatten(x, bits=8, group=None):
    """Multiplies by the reciprocal, as fast kernels do, and rounds as C does."""
    rows = x.flatten()[None] if group is None else x.unflatten(-1, (-1, group))
    top = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1)
    step = torch.where(top == 0, torch.ones_like(top), top / _most(bits))
    whole = torch.floor(rows * (1 / step)[..., None] + 0.5).to(torch.int8)
    return whole.reshape(x.shape), step.squeeze(0) if group is None else step
