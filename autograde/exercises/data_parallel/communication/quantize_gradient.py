"""`quantize_gradient(x, noise, bits=8, block=64)`: Small whole numbers and a scale a block, right on average."""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "quantize_gradient",
    points=4,
    no_gradient="a gradient is quantized for its trip, and nobody trains through that",
    dtypes=[],
    hints=[
        "How many steps is a number away from zero? Between two whole numbers, the noise decides.",
        "Pad x with zeros to whole blocks and view it as [blocks, block]; scale = largest size / (2**(bits - 1) - 1); "
        "y = x / scale; down = floor(y); one more where noise < y - down.",
        "Where the scale is 0, divide by 1. codes = (down + (noise < y - down)).clamp(-levels, levels), then cut the "
        "padding off again, .to(torch.int8).",
    ],
)


@exercise.cases
def gradient_cases(g):
    def some(n, label, bits=None, block=None, scale=1.0, change=None, dtype=torch.float32):
        x = scale * randn(g, n) * torch.rand(n, generator=g)
        if change is not None:
            change(x)
        x = x.to(dtype)
        given = {"bits": bits, "block": block}
        given = {name: value for name, value in given.items() if value is not None}
        return case(x, _clear(x, torch.rand(n, generator=g), **given), label=label, **given)

    def blank(x):
        x[4:8] = 0

    def tilted(x):  # the farthest from zero is negative, in the first block of five
        x[:5] = x[:5].abs()
        x[3] = -3 - float(x.abs().max())

    yield some(pick(g, 3, 5) * 4 + 3, "blocks of 4, the last one shorter", block=4)
    yield some(pick(g, 130, 180), "8 bits, blocks of 64")
    yield some(pick(g, 17, 19), "4 bits: levels from -7 to 7", bits=4, block=6)
    yield some(13, "a block of zeros", block=4, change=blank)
    yield some(10, "the largest is negative", bits=3, block=5, change=tilted)
    yield some(pick(g, 20, 30), "2 bits: -1, 0 and 1", bits=2, block=8)
    yield some(pick(g, 5, 9), "shorter than a block", scale=1e-6)
    yield some(1, "a single number")
    yield some(pick(g, 90, 110), "x in bfloat16", dtype=torch.bfloat16)
    yield some(pick(g, 9, 11), "x in float64", block=4, dtype=torch.float64)
    yield some(12, "very different blocks", block=4, change=lambda x: x[:4].mul_(1000))
    yield some(pick(g, 9, 11), "numbers near 1e-20", block=4, scale=1e-20)
    x = _beyond(127) * 2.0 ** torch.tensor([pick(g, -3, 3), -math.inf, -math.inf, -9, -math.inf, pick(g, -3, 3)])
    yield case(x, torch.zeros(6), label="lots of 0", block=4)
    yield case(-x, torch.full((6,), 1 - 2.0**-24), label="lots of nearly 1", block=4)
    x = (randn(g, 60) * torch.rand(60, generator=g)).bfloat16()
    steps = _steps(x.double(), 8, 64)[0]
    side = torch.randint(2, (60,), generator=g) * 2e-3 - 1e-3
    lots = (steps - steps.floor() + side).clamp(2e-3, 0.99)  # so near to the fraction that bfloat16 loses the side
    yield case(x, _clear(x, lots.float(), margin=5e-4), label="lots near the fractions, x in bfloat16")


def _beyond(levels):
    """A number in float32 of which, divided by its own step, a little more than `levels` comes out."""
    tried = 1 + torch.arange(1_000) / 1_000
    return float(tried[tried / (tried / levels) > levels][0])


def _clear(x, noise, bits=8, block=64, margin=2e-3):
    """The noise, moved where it is so near to a fraction that a rounding decides."""
    steps, _ = _steps(x.double(), bits, block)
    near = ((noise - (steps - steps.floor())).abs() < margin) | (noise < margin) | (noise > 1 - margin)
    return torch.where(near, torch.where(noise > 0.5, noise - 0.4, noise + 0.4), noise).float()


def _steps(x, bits, block):
    """x in steps, and each block's step."""
    levels, steps, scales = 2 ** (bits - 1) - 1, torch.zeros_like(x), []
    for start in range(0, len(x), block):
        part = x[start : start + block]
        scale = part.abs().max() / levels
        scales.append(scale)
        if scale > 0:
            steps[start : start + block] = part / scale
    return steps, torch.stack(scales)


@exercise.oracle
def block_by_block(x, noise, bits=8, block=64):
    steps, scales = _steps(x.double(), bits, block)
    levels = 2 ** (bits - 1) - 1
    codes = [
        max(-levels, min(levels, math.floor(y + 1e-6) + (u < y - math.floor(y + 1e-6))))
        for y, u in zip(steps.tolist(), noise.double().tolist(), strict=True)
    ]
    return torch.tensor(codes, dtype=torch.int8), scales.float()


def _values(codes, scales, n, block):
    return codes.double() * scales.double().repeat_interleave(block)[:n]


@exercise.law("On average every number comes back as it was", essential=True)
def _unbiased(out, one, call):
    x, block, n = one.args[0], one.kwargs.get("block", 64), 16
    if len(x) > 60:
        return None
    total, turns = torch.zeros(len(x), dtype=torch.float64), [(i + 0.5) / n for i in range(n)]
    for u in turns:
        total += _values(*call(x, torch.full((len(x),), u), **one.kwargs), len(x), block)
    step = out[1].double().repeat_interleave(block)[: len(x)]
    off = ((total / n - x.double()).abs() / step.clamp(min=1e-300)).max()
    return bool(off < 0.6 / n + 1e-4) or f"{one.label}: with {n} even noises the mean is off by {off:.2g} steps"


@exercise.law("No number is a whole step off")
def _near(out, one, call):
    x, block = one.args[0], one.kwargs.get("block", 64)
    off = (_values(*out, len(x), block) - x.double()).abs()
    return bool((off <= out[1].double().repeat_interleave(block)[: len(x)] * (1 + 1e-4)).all())


@exercise.law("Codes are int8, scales float32")
def _kinds(out, one, call):
    kinds = out[0].dtype, out[1].dtype
    return kinds == (torch.int8, torch.float32) or f"they are {kinds[0]} and {kinds[1]}"


def _quantize(x, noise, bits=8, block=64, levels=None, size=None, choose=None, whole=False, bound=None):
    """Right as it stands; a mistake replaces a part."""
    n, block = len(x), len(x) if whole else block
    levels = 2 ** (bits - 1) - 1 if levels is None else levels(bits)

    def table(t):
        return torch.nn.functional.pad(t, (0, -n % block)).view(-1, block)

    rows, u = table(x.float()), table(noise)
    scales = (rows.abs().amax(1) if size is None else size(rows)) / levels
    y = rows / torch.where(scales > 0, scales, 1)[:, None]
    down = y.floor()
    codes = down + (u < y - down) if choose is None else choose(y, u)
    bound = levels if bound is None else bound
    return codes.clamp(-bound, bound).flatten()[:n].to(torch.int8), scales


@exercise.alternative
def quantize_by_rows(x, noise, bits=8, block=64):
    """Right: padded to whole blocks, one row each."""
    return _quantize(x, noise, bits, block)


@exercise.alternative
def quantize_by_ceiling(x, noise, bits=8, block=64):
    """Right: up where the noise is small, else down."""
    levels, codes, scales = 2 ** (bits - 1) - 1, [], []
    for part, u in zip(x.float().split(block), noise.split(block), strict=True):
        scale = part.abs().max() / levels
        y = part / scale if scale else torch.zeros_like(part)
        codes.append(torch.where(u < y % 1, y.ceil(), y.floor()).clamp(-levels, levels))
        scales.append(scale)
    return torch.cat(codes).to(torch.int8), torch.stack(scales)


@exercise.mistake(
    "every number is rounded to the nearest code, and the noise isn't asked",
    hint="0.4 of a step then always becomes 0, and in the mean over ranks and steps it is lost. Let the noise decide.",
)
def quantize_to_nearest(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: y.round())


@exercise.mistake(
    "the fraction is cut off towards zero before the noise decides",
    hint="Negative numbers: -1.3 lies between -2 and -1, so down is floor(y), and the fraction is 0.7.",
)
def quantize_truncates(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: y.trunc() + (u < y - y.trunc()))


@exercise.mistake(
    "a number goes up where the noise is above its fraction",
    hint="0.9 of a step should go up nine times in ten: where noise < fraction.",
)
def quantize_reversed(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: y.floor() + (u >= y - y.floor()))


@exercise.mistake(
    "the noise is added and the sum rounded down: unbiased as well, but it goes up for other noises",
    hint="floor(y + noise) goes up where noise >= 1 - fraction. The docstring says: where noise < fraction.",
)
def quantize_adds_noise(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: (y + u).floor())


@exercise.mistake(
    "the noise is added before rounding to the nearest, half a step too much",
    hint="round(y + noise) is half a step too high on average.",
)
def quantize_noise_and_round(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: (y + u).round())


@exercise.mistake(
    "the lot decides about the size, and the sign is put back at the end: unbiased as well, but not what is asked for",
    hint="-1.3 lies between floor(y) = -2 and -1, and its fraction is 0.7: up, to -1, where noise < 0.7.",
)
def quantize_sizes(x, noise, bits=8, block=64):
    def by_size(y, u):
        return y.sign() * (y.abs().floor() + (u < y.abs() - y.abs().floor()))

    return _quantize(x, noise, bits, block, choose=by_size)


@exercise.mistake(
    "a number goes up also where the noise equals its fraction",
    hint="A 0 has no fraction, and a noise of 0 is no less than that: it stays 0.",
)
def quantize_up_if_equal(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: y.floor() + (u <= y - y.floor()))


@exercise.mistake(
    "the lots are rounded to the dtype of x", hint="noise is float32 and stays so, also where x is bfloat16."
)
def quantize_rounds_noise(x, noise, bits=8, block=64):
    return _quantize(x, noise.to(x.dtype).float(), bits, block)


@exercise.mistake(
    "nothing keeps codes within the levels",
    hint="x / scale may come out a little above levels; its fraction can then lift it to one more. Clamp.",
)
def quantize_unbounded(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, bound=float("inf"))


@exercise.mistake(
    "a block of small numbers is taken for zeros",
    hint="Only a block in which every number is 0 has the scale 0. Compare with 0, and add nothing.",
)
def quantize_small_as_zeros(x, noise, bits=8, block=64):
    return _quantize(torch.where(x.abs() < 1e-12, 0, x), noise, bits, block)


@exercise.mistake("every number is rounded down", hint="Up where noise < fraction, else down.")
def quantize_floors(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, choose=lambda y, u: y.floor())


@exercise.mistake(
    "one scale serves all blocks", hint="Each block has its own largest number, so that one outlier spoils one block."
)
def quantize_in_one_block(x, noise, bits=8, block=64):
    codes, scales = _quantize(x, noise, bits, block, whole=True)
    return codes, scales.expand(-(-len(x) // block)).clone()


@exercise.mistake(
    "the scale is taken from the largest number, not from the largest size",
    hint="A block's farthest number from zero may be negative: abs() first.",
)
def quantize_by_maximum(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, size=lambda rows: rows.amax(1).clamp(min=0))


@exercise.mistake(
    "there is one level more than there is room for", hint="int8 ends at 127: 2**(bits - 1) - 1 levels on each side."
)
def quantize_one_level_more(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, levels=lambda bits: 2 ** (bits - 1) - (bits == 8) * 1e-6)


@exercise.mistake(
    "twice as many levels are taken as the bits can hold",
    hint="One of the bits is the sign: from -(2**(bits - 1) - 1) to 2**(bits - 1) - 1.",
)
def quantize_without_sign(x, noise, bits=8, block=64):
    return _quantize(x, noise, bits, block, levels=lambda bits: min(127, 2**bits - 1) if bits < 8 else 255)


@exercise.mistake("`bits` is ignored: there are always 127 levels", hint="levels = 2**(bits - 1) - 1.")
def quantize_always_8(x, noise, bits=8, block=64):
    return _quantize(x, noise, 8, block)


@exercise.mistake(
    "the numbers left over at the end, too few for a block, are dropped",
    hint="The last block may be shorter. It has a scale of its own, too.",
)
def quantize_drops_the_rest(x, noise, bits=8, block=64):
    n = len(x) // block * block
    if not n:
        return _quantize(x, noise, bits, block)
    return _quantize(x[:n], noise[:n], bits, block)


@exercise.mistake(
    "the 1 that stands in for a scale of 0 comes back as the scale",
    hint="Divide by 1 in a block of zeros, and return 0 as its scale.",
)
def quantize_scale_of_zeros(x, noise, bits=8, block=64):
    codes, scales = _quantize(x, noise, bits, block)
    return codes, torch.where(scales > 0, scales, 1)


@exercise.mistake(
    "the scale is the largest size, not the size of a step",
    hint="codes * scale has to be x: divide by levels.",
)
def quantize_returns_the_maximum(x, noise, bits=8, block=64):
    codes, scales = _quantize(x, noise, bits, block)
    return codes, scales * (2 ** (bits - 1) - 1)


@exercise.mistake("the codes stay floating-point numbers", hint="3.0 in float32 takes four bytes: .to(torch.int8).")
def quantize_floats(x, noise, bits=8, block=64):
    codes, scales = _quantize(x, noise, bits, block)
    return codes.float(), scales


@exercise.mistake("the codes are int32", hint="int8 is one byte a number; int32 saves nothing.")
def quantize_int32(x, noise, bits=8, block=64):
    codes, scales = _quantize(x, noise, bits, block)
    return codes.int(), scales


@exercise.mistake("the scales have x's dtype", hint="A scale is float32, whatever x is: x.float() first.")
def quantize_scales_like_x(x, noise, bits=8, block=64):
    codes, scales = _quantize(x, noise, bits, block)
    return codes, scales.to(x.dtype)


@exercise.mistake(
    "the steps are counted in bfloat16 where x is bfloat16",
    hint="bfloat16 knows no fraction beyond 128, and few before: x.float() first.",
)
def quantize_in_bfloat16(x, noise, bits=8, block=64):
    levels, n = 2 ** (bits - 1) - 1, len(x)
    rows, u = (torch.nn.functional.pad(t, (0, -n % block)).view(-1, block) for t in (x, noise))
    scales = rows.abs().amax(1) / levels
    y = rows / torch.where(scales > 0, scales, 1)[:, None]
    codes = (y.floor() + (u < y - y.floor())).clamp(-levels, levels)
    return codes.flatten()[:n].to(torch.int8), scales.float()
