"""`nf4_quantize(weight, block=64)`: Four bits a weight: the nearest of sixteen levels, and a scale for each block."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case
from autograde.exercises.applications.finetuning.shared import NF4, packed_pairs, unpacked
from autograde.exercises.shared import randn

exercise = Draft(
    "nf4_quantize",
    points=3,
    fresh=True,
    atol=1e-9,
    dtypes=(torch.float64,),
    no_gradient="a code has no gradient; QLoRA trains beside it",
    hints=[
        "Blocks first: what has to happen to a block's weights, so that the sixteen numbers from -1 to 1 fit them?",
        "scale = the largest |w| of the block; the code is the number of the level that is nearest to w / scale. Mind "
        "a block of zeros, and a last block that is shorter.",
        "flat = weight.detach().float().flatten(), padded with zeros to whole blocks; scales = blocks.abs().amax(1); "
        "codes = (blocks / scales.clamp(min=1e-38)[:, None])[..., None].sub(levels).abs().argmin(-1), then the first "
        "numel of them in pairs: first * 16 + second.",
    ],
)

MARGIN = 0.02


@exercise.cases
def weights(g):
    levels = torch.tensor(NF4)

    def near(codes, scales, block, *shape):
        """Weights that are clearly nearest to one level each; the largest of a block is exactly its scale."""
        gap = torch.full_like(levels, 1.0)
        gap[1:] = levels[1:] - levels[:-1]
        room = torch.minimum(gap, torch.cat([gap[1:], gap[:1]])) * 0.42
        x = levels[codes] + room[codes] * (2 * torch.rand(codes.shape, generator=g) - 1)
        x = x.clamp(-0.97, 0.97)
        for i in range(0, len(x), block):
            part = x[i : i + block]
            if len(part):
                at = int(torch.randint(len(part), (), generator=g))
                part[at] = 1.0 if i // block % 2 else -1.0
        return (x * scales.repeat_interleave(block)[: len(x)]).view(shape)

    def one(*shape, block, label, size=1.0):
        n = int(torch.tensor(shape).prod())
        codes = torch.randint(1, 15, (n,), generator=g)
        scales = size * (0.2 + randn(g, -(-n // block)).abs())
        return near(codes, scales, block, *shape), label

    def made(*shape, block, label, size=1.0, change=lambda w: w, named=True):
        weight, label = one(*shape, block=block, label=label, size=size)
        return case(change(weight), **({"block": block} if named else {}), label=label)

    yield made(4, 8, block=8, label="four blocks of eight")
    yield made(6, 32, block=64, label="blocks of 64, across rows", named=False)
    yield made(5, 6, block=8, label="a last block that is shorter")
    yield made(3, 4, block=16, label="a single block, shorter than its length")

    def zeros(weight):
        weight.view(-1)[8:16] = 0.0
        return weight

    yield made(4, 8, block=8, label="a block of zeros", change=zeros)
    yield made(2, 8, block=4, label="tiny weights", size=1e-4)
    yield made(2, 8, block=4, label="huge weights", size=300.0)
    yield made(8, 3, block=2, label="blocks of two")
    yield made(12, block=4, label="a vector")
    yield made(
        8, 10, block=16, label="not contiguous", change=lambda w: w.view(10, 8).T.contiguous().T.reshape(10, 8).T
    )
    yield made(40, 96, block=64, label="sixty blocks")


@exercise.oracle
def nearest_by_table(weight, block=64):
    """numpy's searchsorted in the middles between the levels, block by block, in float64."""
    import numpy as np

    levels = np.array(NF4)
    flat = weight.detach().double().reshape(-1).numpy()
    codes, scales = [], []
    for start in range(0, len(flat), block):
        part = flat[start : start + block]
        scales.append(np.abs(part).max())
        codes.append(np.searchsorted((levels[1:] + levels[:-1]) / 2, part / (scales[-1] or 1.0)))
    codes = np.concatenate(codes)
    packed = torch.from_numpy((codes[::2] * 16 + codes[1::2]).astype(np.uint8))
    return packed, torch.tensor(np.array(scales), dtype=torch.float32)


@exercise.law("Two codes a byte: uint8, half as many as weights; scales are float32, one a block")
def sizes(out, one, call):
    packed, scales = out
    n, block = one.args[0].numel(), one.kwargs.get("block", 64)
    if packed.dtype is not torch.uint8 or scales.dtype is not torch.float32:
        return f"they are {packed.dtype} and {scales.dtype}"
    return tuple(packed.shape) == (n // 2,) and tuple(scales.shape) == (-(-n // block),)


@exercise.law("Twice the weights: the same codes, twice the scales")
def scaled(out, one, call):
    packed, scales = call(2 * one.args[0], **one.kwargs)
    return torch.equal(packed, out[0]) and bool(torch.allclose(scales, 2 * out[1]))


@exercise.law("What has been given back is quantized to the same codes")
def again(out, one, call):
    weight, block = one.args[0], one.kwargs.get("block", 64)
    codes = unpacked(out[0])
    if len(codes) != weight.numel() or len(out[1]) != -(-len(codes) // block):
        return "codes or scales are missing"
    back = torch.tensor(NF4)[codes] * out[1].repeat_interleave(block)[: len(codes)]
    return torch.equal(call(back.view(weight.shape), **one.kwargs)[0], out[0])


def _quantize(
    flatten=lambda w: w.reshape(-1),
    scale=lambda part: part.abs().max(),
    divide=lambda part, s: part / s if s > 0 else part,
    code=lambda x: (x[:, None] - torch.tensor(NF4, dtype=x.dtype)).abs().argmin(-1),
    pack=packed_pairs,
    blocks=lambda block: block,
    dtype=torch.float32,
    finish=lambda packed, scales: (packed, scales),
):
    """`nf4_quantize` with some of its parts exchanged."""

    def nf4_quantize(weight, block=64):
        flat = flatten(weight.detach().double())
        codes, scales = [], []
        for part in flat.split(blocks(block)):
            scales.append(scale(part))
            codes.append(code(divide(part, scales[-1])))
        return finish(pack(torch.cat(codes)), torch.stack(scales).to(dtype))

    return nf4_quantize


right = _quantize()


def _row_scales(weight, block=64):
    whole = right(weight, weight.numel())
    return whole[0], whole[1].expand(-(-weight.numel() // block)).clone()


def _affine(part):
    return (part.max() - part.min()) / 2


exercise.mistake("one scale serves all blocks", hint="Each block has its own largest weight.")(_row_scales)
exercise.mistake(
    "the scale is the largest weight, not the largest |weight|", hint="A block's outlier may be negative."
)(_quantize(scale=lambda part: part.max().clamp(min=0)))
exercise.mistake(
    "the scale is the largest weight, which may be below 0", hint="The largest |w|: a scale isn't negative."
)(_quantize(scale=lambda part: part.max(), divide=lambda part, s: part / s if s else part))
exercise.mistake(
    "the scale has the sign of the weight that is largest in size", hint="Its size, |w|: a scale isn't negative."
)(_quantize(scale=lambda part: part[part.abs().argmax()], divide=lambda part, s: part / s if s else part))
exercise.mistake("the scale is half of the range", hint="That is an affine grid's. The largest |w| of the block.")(
    _quantize(scale=_affine)
)
exercise.mistake("the scale is the mean |weight|", hint="The largest |w| of the block: nothing may lie beyond 1.")(
    _quantize(scale=lambda part: part.abs().mean())
)
exercise.mistake("the weights aren't divided by their scale", hint="The level that is nearest to w / scale.")(
    _quantize(divide=lambda part, s: part)
)
exercise.mistake(
    "each row has a scale, however long it is", hint="`block` weights share one; rows run into each other."
)(lambda weight, block=64: right(weight, weight.shape[-1]))
exercise.mistake("the scale is the standard deviation", hint="Quantiles of the normal, yes, but scaled to reach 1.")(
    _quantize(scale=lambda part: part.std() if len(part) > 1 else part.abs().max())
)
exercise.mistake("scales are 1 over the largest |weight|", hint="weight = level * scale: the scale multiplies.")(
    _quantize(finish=lambda packed, scales: (packed, torch.where(scales > 0, 1 / scales, scales)))
)
exercise.mistake(
    "the sixteen levels are taken to be evenly spaced", hint="NF4 has the levels of the list: more of them near 0."
)(_quantize(code=lambda x: ((x + 1) * 7.5).round().clamp(0, 15).long()))
exercise.mistake(
    "the code is the next level below, not the nearest", hint="The nearest of the sixteen: argmin of the distances."
)(_quantize(code=lambda x: torch.searchsorted(torch.tensor(NF4, dtype=x.dtype), x.clamp(-1, 1), right=True) - 1))
exercise.mistake("the code is the next level above, not the nearest", hint="The nearest of the sixteen.")(
    _quantize(code=lambda x: torch.searchsorted(torch.tensor(NF4, dtype=x.dtype), x.clamp(-1, 1)))
)
exercise.mistake("the first weight of a pair is in the low half", hint="first * 16 + second, as bitsandbytes packs.")(
    _quantize(pack=lambda codes: packed_pairs(codes, high_first=False))
)
exercise.mistake("the first half of the weights is packed with the second half", hint="Neighbors share a byte.")(
    _quantize(pack=lambda codes: (codes[: len(codes) // 2] * 16 + codes[len(codes) // 2 :]).to(torch.uint8))
)
exercise.mistake("codes aren't packed: a byte each", hint="Two codes in a byte: that is the point of four bits.")(
    _quantize(pack=lambda codes: codes.to(torch.uint8))
)
exercise.mistake(
    "a block of zeros gets the code of -1", hint="0 / 0 is NaN, and its nearest level is nonsense. Code 7."
)(_quantize(divide=lambda part, s: part / s if s > 0 else part - 1))
exercise.mistake("a block of zeros gets the scale 1", hint="Its scale is 0.")(
    _quantize(finish=lambda packed, scales: (packed, torch.where(scales > 0, scales, torch.ones_like(scales))))
)
exercise.mistake("blocks run down the columns", hint="Consecutive weights in row-major order: flatten().")(
    _quantize(flatten=lambda w: w.T.reshape(-1) if w.dim() == 2 else w)
)
exercise.mistake("blocks have 64 weights, whatever `block` says", hint="It is a parameter.")(
    _quantize(blocks=lambda block: 64)
)
exercise.mistake("scales are float64", hint="float32.")(_quantize(dtype=torch.float64))
exercise.mistake("a block of zeros gets a tiny scale", hint="Its scale is 0: only the division has to be guarded.")(
    _quantize(finish=lambda packed, scales: (packed, scales.clamp(min=1e-8)))
)


exercise.mistake("the sign is lost", hint="Eight levels are for the negative half: w / scale, not |w| / scale.")(
    lambda weight, block=64: right(weight.abs(), block)
)
exercise.mistake("a block has twice as many weights", hint="`block` weights share a scale, not `block` bytes.")(
    lambda weight, block=64: right(weight, 2 * block)
)
exercise.mistake("packed isn't uint8", hint="A byte for two codes: .to(torch.uint8).")(
    _quantize(finish=lambda packed, scales: (packed.int(), scales))
)
exercise.mistake("the zeros that fill up the last block are packed, too", hint="numel // 2 bytes: cut them off.")(
    lambda weight, block=64: right(F.pad(weight.reshape(-1), (0, -weight.numel() % block)), block)
)
exercise.mistake("the codes count from the largest level down", hint="Code 0 is the level -1, code 15 is 1.")(
    _quantize(finish=lambda packed, scales: (255 - packed, scales))
)


@exercise.mistake("a last block that is shorter is left out", hint="It has a scale of its own, like any other.")
def whole_blocks(weight, block=64):
    flat = weight.detach().reshape(-1)
    whole = len(flat) // block * block
    if not whole:
        return torch.zeros(0, dtype=torch.uint8), torch.zeros(0)
    return right(flat[:whole], block)


exercise.alternative(right)


@exercise.alternative
def by_padding(weight, block=64):
    flat = weight.detach().float().flatten()
    n = len(flat)
    rows = F.pad(flat, (0, -n % block)).view(-1, block)
    scales = rows.abs().amax(1)
    middles = torch.tensor(NF4).unfold(0, 2, 1).mean(-1)
    codes = torch.bucketize((rows / torch.where(scales > 0, scales, 1.0)[:, None]).flatten()[:n], middles)
    return packed_pairs(codes), scales
