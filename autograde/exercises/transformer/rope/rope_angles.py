"""`rope_angles(positions, d, base=10000.0)`

The angle of every pair at every position, in radians: positions * base ** (-2i/d).
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, Law, case, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.rope.shared import (
    BASE,
    angles,
    angles_by_loop,
    angles_with,
    base_fixed,
    counted_by_index,
    distinct,
    option,
    randint,
    rotary,
    speeds,
)

exercise = Draft(
    "rope_angles",
    points=3,
    no_gradient="positions aren't learned, and nothing else enters but two numbers",
    hints=[
        "Two ingredients: a speed for each of the d/2 pairs, which doesn't depend on the position, and the positions.",
        "The speeds are base ** (-torch.arange(0, d, 2) / d), of shape [d/2]. Multiply each position with all of them.",
        "positions[..., None] has shape [..., 1]; times the speeds of shape [d/2] it broadcasts to [..., d/2]. "
        "Use .float(), since positions are often integers.",
    ],
)


@exercise.cases
def angle_cases(g):
    yield case(torch.arange(1, 5), 8, label="positions 1 to 4, four pairs")
    yield case(randint(g, 1, 50, 1), 2, label="one position, one pair")
    yield case(torch.arange(5), 16, base=500_000.0, label="LLaMA 3's base, by keyword")
    yield case(randint(g, 2, 2_000, 6), 6, label="any order, an odd number of pairs")
    yield case(randint(g, -90, -1, 3), 8, label="negative positions")
    yield case(torch.arange(7).repeat(2), 8, 100.0, label="repeated positions, base 100")
    yield case(randint(g, 1, 300, 2, 5), 8, label="one row of positions a sequence")
    yield case(randint(g, 1, 300, 3, 1, 4).mT, 4, label="three dimensions, not contiguous")
    yield case(randn(g, 5) * 20, 12, label="positions between the integers")
    yield case(randint(g, 100_000, 200_000, 3), 8, base=1e6, label="positions beyond 100,000")
    yield case(randint(g, 1, 30, 4), 8, 2.5, label="a small base, no whole number")
    yield case(distinct(g, 300, 900), 128, base=20, label="300 positions, 64 pairs, a whole number as base")


@exercise.oracle
def hf_angles(positions, d, base=BASE):
    return positions[..., None].float() * rotary(d, float(base)).inv_freq


@exercise.law("At position 0 every angle is 0")
def from_zero(out, one, call):
    return same(call(torch.zeros(3), 8, option(one, "base", 2, BASE)), torch.zeros(3, 4))


@exercise.law("Pair 0 turns by one radian a position")
def unit_pair(out, one, call):
    return same(out[..., 0].double(), one.args[0].double())


@exercise.law("Twice as far means twice the angle")
def doubles(out, one, call):
    positions, d = one.args[:2]
    return same(call(2 * positions, d, option(one, "base", 2, BASE)), 2 * out.double())


@exercise.law("Each pair is slower than the one before by the same factor, base ** (2/d)")
def ladder(out, one, call):
    d = one.args[1]
    if d == 2:
        return None
    speeds = call(torch.ones(1), d, option(one, "base", 2, BASE))[0].double()
    return same(speeds[:-1] / speeds[1:], torch.full((d // 2 - 1,), option(one, "base", 2, BASE) ** (2 / d)).double())


@exercise.law("Positions in bfloat16 have the angles of the same positions in float32")
def few_digits(out, one, call):
    positions, rest = torch.tensor([203.0, -37.0, 3.5]).bfloat16(), (one.args[1], option(one, "base", 2, BASE))
    return same(call(positions, *rest).float(), call(positions.float(), *rest).float())


def wide(out, one, call):
    return out.dtype in (torch.float32, torch.float64) or f"the angles should be float32 or float64, not {out.dtype}"


exercise.law(Law("The angles are float32 or float64, whatever the positions are", wide, everywhere=True))

exercise.mistake(
    "the exponent is -i/d rather than -2i/d",
    hint="There are d/2 pairs, and the exponents run from 0 almost to -1: pair i gets -2i/d.",
)(angles_with(lambda d, base: base ** (-torch.arange(d // 2) / d)))

exercise.mistake(
    "the exponent is divided by the number of pairs, d/2, rather than by d",
    hint="torch.arange(0, d, 2) already holds 2i. It is divided by d.",
)(angles_with(lambda d, base: base ** (-torch.arange(0, d, 2) / (d // 2))))

exercise.mistake(
    "the exponent has no minus sign, so that later pairs turn faster",
    hint="Pair 0 is the fastest one. Is your exponent negative?",
)(angles_with(lambda d, base: base ** (torch.arange(0, d, 2) / d)))

exercise.mistake(
    "the exponents run from 0 to -1 with both ends included (linspace)",
    hint="The last exponent is -(d - 2)/d, not -1: step by 2/d and stop before 1.",
)(angles_with(lambda d, base: base ** -torch.linspace(0, 1, d // 2)))

exercise.mistake(
    "the base is always 10,000, whatever is passed", hint="`base` is a parameter: LLaMA 3 calls this with 500,000."
)(base_fixed)

exercise.mistake(
    "positions are turned into whole turns (multiplied by 2 pi)",
    hint="Pair 0 turns by one radian a position, not by one revolution.",
)(angles_with(lambda d, base: 2 * math.pi * speeds(d, base)))

exercise.mistake(
    "positions are counted 0, 1, 2, … instead of being read from `positions`",
    hint="`positions` need not be 0, 1, 2, …: a KV cache asks for position 57 alone.",
)(counted_by_index)


@exercise.mistake("positions are counted from 1", hint="Position 0 has angle 0.")
def counted_from_one(positions, d, base=BASE):
    return angles(positions + 1, d, base)


@exercise.mistake(
    "positions are taken to have one dimension, as torch.outer does",
    hint="positions[..., None] times the speeds works for positions of any shape.",
)
def one_dimension_only(positions, d, base=BASE):
    return torch.outer(positions.float(), speeds(d, base))


exercise.mistake(
    "every angle is given twice, d of them rather than d/2",
    hint="Return one angle a pair. The rotation spreads them over both halves later.",
)(angles_with(lambda d, base: torch.cat([speeds(d, base)] * 2)))

exercise.mistake(
    "every angle is given twice in a row, d of them rather than d/2",
    hint="Return one angle a pair. The rotation spreads them over both halves later.",
)(angles_with(lambda d, base: speeds(d, base).repeat_interleave(2)))


@exercise.mistake("positions are cut down to whole numbers", hint="Positions may lie between the integers: .float().")
def whole_positions(positions, d, base=BASE):
    return angles(positions.long(), d, base)


@exercise.mistake(
    "angles of floating-point positions come in their dtype, which may be too coarse",
    hint="bfloat16 holds 8 bits: turn positions into float32 or float64 first.",
)
def angles_in_dtype_of_positions(positions, d, base=BASE):
    found = angles(positions, d, base)
    return found.to(positions.dtype) if positions.is_floating_point() else found


@exercise.mistake(
    "the speeds are rounded to the positions' bfloat16",
    hint="Far from zero a speed that is 0.2 % off is a whole turn off. Turn positions into float32 first.",
)
def speeds_in_dtype_of_positions(positions, d, base=BASE):
    kind = positions.dtype if positions.is_floating_point() else torch.float32
    return (positions[..., None] * speeds(d, base).to(kind)).to(torch.promote_types(kind, torch.float32))


exercise.mistake("the base is cut to a whole number", hint="The base may be any number above 1: don't cut it.")(
    angles_with(lambda d, base: speeds(d, max(int(base), 1)))
)


@exercise.mistake("the angles' cosines come back", hint="The angles themselves: cosine and sine come in exercise 2.")
def cosines(positions, d, base=BASE):
    return angles(positions, d, base).cos()


exercise.alternative(angles_by_loop)


@exercise.alternative
def angles_by_einsum(positions, d, base=BASE):
    wavelengths = torch.pow(base, torch.arange(d // 2, dtype=torch.float32).mul(2).div(d))
    return torch.einsum("...,i->...i", positions.float(), wavelengths.reciprocal())
