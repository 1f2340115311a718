"""`sinusoidal_encoding(n, d)`: The sinusoidal position encoding of the first Transformer."""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import integer
from autograde.exercises.transformer.position_encodings.shared import is_wide

exercise = Draft(
    "sinusoidal_encoding",
    points=3,
    forbid=["transformers"],
    atol=1e-4,
    no_gradient="nothing enters that could be learned",
    hints=[
        "One column of positions, one row of speeds: their product holds all angles.",
        "angle = torch.arange(n)[:, None] / 10_000 ** (torch.arange(0, d, 2) / d) is [n, d/2].",
        "torch.stack([angle.sin(), angle.cos()], -1).flatten(-2) interleaves the two.",
    ],
)


@exercise.cases
def sinusoidal_cases(g):
    yield case(4, 8, label="four positions")
    yield case(1, 6, label="one position")
    yield case(7, 2, label="one pair")
    yield case(50, 6, label="longer than wide")
    yield case(3, 20, label="wider than long")
    yield case(300, 8, label="300 positions")
    yield case(600, 2, label="600 positions")
    yield case(integer(g, 10, 30), d=2 * integer(g, 3, 8), label="a random size")


@exercise.oracle
def marian_sinusoids(n, d):
    """Marian's table holds the same numbers with all sines first; the paper interleaves sines and cosines."""
    table = borrowed("transformers.models.marian.modeling_marian", "MarianSinusoidalPositionalEmbedding")
    halves = table(n, d).create_weight()
    return halves.view(n, 2, d // 2).mT.reshape(n, d)


@exercise.law("Position 0 is (0, 1, 0, 1, …)")
def starts_at_zero(out, one, call):
    """Position 0 is (0, 1, 0, 1, …)."""
    return same(out[0].double(), torch.tensor([0.0, 1.0]).repeat(out.shape[1] // 2).double())


@exercise.law("Every row has the length sqrt(d/2)")
def lies_on_circles(out, one, call):
    return same(out.double().square().sum(-1), torch.full((out.shape[0],), out.shape[1] / 2).double(), rtol=1e-3)


@exercise.law("The dot product of two rows depends on their distance alone")
def distance_alone(out, one, call):
    gram = out.double() @ out.double().T
    return same(gram[1:, 1:], gram[:-1, :-1], rtol=1e-3, atol=1e-3)


@exercise.law("Pair 0 turns by one radian a position, each further pair more slowly")
def slowest_last(out, one, call):
    """Each pair turns more slowly than the one before; the first by one radian a position."""
    if out.shape[0] < 2:
        return None
    step = torch.atan2(out[1, 0::2].double(), out[1, 1::2].double())
    return bool(abs(step[0] - 1) < 1e-3 and (step.diff() < 0).all())


exercise.law("The table is float32 or float64")(is_wide)


def _speeds(d, base=10_000.0):
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


@exercise.mistake(
    "all sines come first, then all cosines",
    hint="That is tensor2tensor's layout. The paper, and this exercise, interleave: sin, cos, sin, cos.",
)
def halves(n, d):
    """All sines first, as in tensor2tensor and Marian."""
    angle = torch.arange(n)[:, None] * _speeds(d)
    return torch.cat([angle.sin(), angle.cos()], -1).float()


def _waves(speeds=_speeds, start=0):
    """Interleaved sines and cosines with other speeds, or another first position."""

    def encode(n, d):
        angle = torch.arange(start, start + n)[:, None] * speeds(d)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).float()

    return encode


sinusoids = _waves()


@exercise.mistake("the cosine stands before the sine", hint="Even columns hold the sine, odd ones the cosine.")
def cosine_first(n, d):
    return sinusoids(n, d).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


exercise.mistake("positions count from 1", hint="The first row belongs to position 0.")(_waves(start=1))


@exercise.mistake(
    "sine and cosine of a pair have different speeds", hint="Columns 2i and 2i + 1 share the exponent 2i/d."
)
def own_speed_each(n, d):
    """Each column has its own speed, so sine and cosine of a pair don't belong together."""
    angle = torch.arange(n)[:, None] * 10_000.0 ** (-torch.arange(d, dtype=torch.float64) / d)
    return torch.where(torch.arange(d) % 2 == 0, angle.sin(), angle.cos()).float()


@exercise.mistake(
    "the exponent is twice the number of the column",
    hint="In the formula i counts pairs: columns 2i and 2i + 1 share the exponent 2i/d.",
)
def doubled_columns(n, d):
    """2i in the exponent, where i already is the number of the column, and 2(i + 1) for the cosine."""
    columns = torch.arange(d)
    angle = torch.arange(n)[:, None] * 10_000.0 ** (-2 * columns.double() / d)
    return torch.where(columns % 2 == 0, angle.sin(), angle.cos()).float()


@exercise.mistake("every column is a sine", hint="Odd columns hold the cosine of the same angle.")
def sines_only(n, d):
    angle = torch.arange(n)[:, None] * _speeds(d).repeat_interleave(2)
    return angle.sin().float()


exercise.mistake(
    "the exponent is i/d instead of 2i/d", hint="i counts the d/2 pairs, so the exponent 2i/d runs from 0 to nearly 1."
)(_waves(lambda d: 10_000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / d)))

exercise.mistake(
    "the exponent is 4i/d: a column number was doubled again", hint="torch.arange(0, d, 2) already is 2i."
)(_waves(lambda d: _speeds(d) ** 2))

exercise.mistake(
    "the slowest pair gets exponent 1: i runs up to d/2 - 1 and is divided by that",
    hint="Divide by d/2, not by d/2 - 1: exponent 2i/d.",
)(_waves(lambda d: 10_000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / max(d // 2 - 1, 1))))

exercise.mistake("the exponents start at 2/d", hint="i counts from 0: the first pair has the speed 1.")(
    _waves(lambda d: _speeds(d) * 10_000.0 ** (-2 / d))
)


@exercise.mistake("the table comes in float16", hint="It is added to float32 numbers: keep the digits.")
def half_table(n, d):
    return sinusoids(n, d).half()


exercise.mistake("the speeds rise from pair to pair", hint="Divide by 10,000 ** (2i/d).")(
    _waves(lambda d: 1 / _speeds(d))
)

exercise.mistake("the base is 1,000", hint="The paper's base is 10,000.")(_waves(lambda d: _speeds(d, 1_000.0)))

exercise.mistake("all pairs turn at the same speed", hint="Pair i has the speed 10,000 ** (-2i/d).")(
    _waves(lambda d: torch.ones(d // 2, dtype=torch.float64))
)

exercise.mistake(
    "angles are multiplied by 2π", hint="The wavelength is 2π · 10,000 ** (2i/d), so the angle itself has no 2π."
)(_waves(lambda d: 2 * math.pi * _speeds(d)))

exercise.mistake("angles are taken for degrees", hint="torch.sin wants radians.")(
    _waves(lambda d: _speeds(d) * math.pi / 180)
)

exercise.alternative(sinusoids)


@exercise.alternative
def sinusoids_by_loop(n, d):
    rows = [[(math.cos if j % 2 else math.sin)(p / 10_000 ** (2 * (j // 2) / d)) for j in range(d)] for p in range(n)]
    return torch.tensor(rows, dtype=torch.float64)


@exercise.alternative
def sinusoids_by_log(n, d):
    out = torch.zeros(n, d)
    factor = torch.exp(torch.arange(0, d, 2) * (-math.log(10_000.0) / d))
    out[:, 0::2] = torch.sin(torch.arange(n)[:, None] * factor)
    out[:, 1::2] = torch.cos(torch.arange(n)[:, None] * factor)
    return out
