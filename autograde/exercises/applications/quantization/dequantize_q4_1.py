"""`dequantize_q4_1(blocks)`

The numbers that stand in GGUF's Q4_1 blocks: 20 bytes for 32 of them.
"""

from __future__ import annotations

import numpy as np
import torch

from autograde.exercise import Draft, case

exercise = Draft(
    "dequantize_q4_1",
    points=4,
    no_gradient="bytes have no gradient",
    rtol=1e-6,
    atol=0.0,
    fresh=True,
    forbid=["gguf", "transformers"],
    hints=[
        "Cut the last dimension into blocks of 20 bytes. Which bytes are the scale, which the least number, which the "
        "codes?",
        "Two uint8 side by side are read as a float16 by .view(torch.float16), if they are contiguous. A byte's lower "
        "half is byte & 15, its upper one byte >> 4.",
        "rows = blocks.reshape(-1, 20); d, m = rows[:, :4].contiguous().view(torch.float16).float().split(1, 1); q = "
        "torch.cat([rows[:, 4:] & 15, rows[:, 4:] >> 4], 1); (d * q + m).reshape(*blocks.shape[:-1], -1).",
    ],
)


def block_bytes(g, *shape, scale=1.0, least=1.0):
    """Rows of blocks: `shape` blocks with scales and least numbers of either sign."""
    count = torch.Size(shape).numel()
    head = torch.randn(count, 2, generator=g) * torch.tensor([scale, least])
    body = torch.randint(256, (count, 16), generator=g).to(torch.uint8)
    rows = torch.cat([head.half().view(torch.uint8), body], 1)
    return rows.reshape(*shape[:-1], -1)


@exercise.cases
def block_cases(g):
    yield case(block_bytes(g, 1), label="one block")
    yield case(block_bytes(g, 3, 2, scale=0.02, least=0.1), label="three rows of two blocks")
    yield case(block_bytes(g, 2, 3, 4, scale=0.02, least=0.1), label="two batch dimensions")
    yield case(block_bytes(g, 2, 1, scale=1e-6, least=1e-5), label="scales below float16's normal range")
    yield case(block_bytes(g, 1, 2, scale=2e3, least=1e4), label="large numbers")
    yield case(block_bytes(g, 1, 3, scale=1.0, least=0.0), label="the least number is zero")
    yield case(block_bytes(g, 5, 1, scale=0.0), label="the scale is zero")
    yield case(block_bytes(g, 2, 4).flip(0)[:, : 20 * 3], label="part of a longer row")
    yield case(block_bytes(g, 130, 4, scale=0.02, least=0.1), label="130 rows")
    yield case(block_bytes(g, 6, 2).t().contiguous().t(), label="not contiguous")


@exercise.oracle
def gguf_dequantize(blocks):
    """The package gguf, of the authors of the format."""
    from gguf import GGMLQuantizationType, quants

    return torch.from_numpy(quants.dequantize(np.ascontiguousarray(blocks.numpy()), GGMLQuantizationType.Q4_1))


@exercise.law("The result is float32")
def is_float32(out, one, call):
    return out.dtype is torch.float32 or f"it should be float32, and is {out.dtype}"


@exercise.law("Bit for bit what the package gguf gives", essential=True)
def bit_for_bit(out, one, call):
    wanted = gguf_dequantize(one.args[0])
    if out.shape != wanted.shape or out.dtype is not torch.float32:
        return False
    off = int((out.contiguous().view(torch.int32) != wanted.view(torch.int32)).sum())
    return off == 0 or f"{off} of {out.numel()} numbers differ in some bit"


def _halves(rows):
    return torch.cat([rows & 15, rows >> 4], 1)


def q4_1(
    head=lambda rows: rows[:, :4],
    order=(0, 1),
    numbers=_halves,
    join=lambda d, m, q: d * q + m,
    body=lambda rows: rows[:, 4:],
    wide=torch.float32,
):
    """`dequantize_q4_1` from its parts."""

    def dequantize_q4_1(blocks):
        rows = blocks.reshape(-1, 20)
        two = head(rows).contiguous()
        two = (two if two.is_floating_point() else two.view(torch.float16)).to(wide)
        d, m = two[:, order[0], None], two[:, order[1], None]
        return join(d, m, numbers(body(rows))).reshape(*blocks.shape[:-1], -1)

    return dequantize_q4_1


exercise.mistake(
    "neighbors share a byte",
    hint="Byte j of a block holds the codes j (lower half) and j + 16 (upper half): first all lower, then all upper.",
)(q4_1(numbers=lambda rows: torch.stack([rows & 15, rows >> 4], -1).flatten(1)))

exercise.mistake("the halves of the bytes are swapped", hint="The lower four bits are the first 16 numbers.")(
    q4_1(numbers=lambda rows: torch.cat([rows >> 4, rows & 15], 1))
)

exercise.mistake(
    "neighbors share a byte, and the upper half comes first",
    hint="Byte j of a block holds the codes j (lower half) and j + 16 (upper half).",
)(q4_1(numbers=lambda rows: torch.stack([rows >> 4, rows & 15], -1).flatten(1)))

exercise.mistake("scale and least number are swapped", hint="First the scale d, then the least number m.")(
    q4_1(order=(1, 0))
)

exercise.mistake(
    "8 is taken off the codes, as in Q4_0", hint="In Q4_1 codes run from 0 to 15, and m is what 0 stands for."
)(q4_1(numbers=lambda rows: _halves(rows).float() - 8))

exercise.mistake("the least number is left out", hint="w = d * q + m.")(q4_1(join=lambda d, m, q: d * q))

exercise.mistake("the least number is subtracted", hint="w = d * q + m: m is negative already, mostly.")(
    q4_1(join=lambda d, m, q: d * q - m)
)

exercise.mistake("the least number is scaled, too", hint="w = d * q + m: m is added as it is.")(
    q4_1(join=lambda d, m, q: d * (q + m))
)

exercise.mistake(
    "the result is computed in float16",
    hint="Scale and least number are float16 in the file; make them float32 before you multiply.",
)(q4_1(wide=torch.float16, join=lambda d, m, q: (d * q + m).float()))

exercise.mistake("the result is rounded to float16", hint="float32, as in the docstring.")(
    q4_1(join=lambda d, m, q: (d * q + m).half().float())
)

exercise.mistake("the result is float64", hint="float32, as in the docstring.")(q4_1(wide=torch.float64))

exercise.mistake(
    "the head is read as bfloat16", hint="GGUF writes float16 here: one sign, five exponent bits, ten others."
)(q4_1(head=lambda rows: rows[:, :4].contiguous().view(torch.bfloat16)))

exercise.mistake(
    "the bytes of the head are read in the wrong order", hint="Little-endian: .view(torch.float16) reads it as it is."
)(q4_1(head=lambda rows: rows[:, [1, 0, 3, 2]]))

exercise.mistake(
    "the head stands behind the codes", hint="A block is d (2 bytes), m (2 bytes), 16 bytes of codes, in this order."
)(q4_1(head=lambda rows: rows[:, 16:], body=lambda rows: rows[:, :16]))


@exercise.mistake("the head of the first block serves all blocks of a row", hint="Each 20 bytes have a head.")
def first_head(blocks):
    rows = blocks.reshape(-1, blocks.shape[-1] // 20, 20).clone()
    rows[:, :, :4] = rows[:, :1, :4]
    return q4_1()(rows.reshape(blocks.shape))


@exercise.mistake("a row's heads are taken to stand in front of all its codes", hint="Each 20 bytes are a block.")
def heads_first(blocks):
    rows, b = blocks.reshape(-1, blocks.shape[-1]), blocks.shape[-1] // 20
    heads, bodies = rows[:, : 4 * b].reshape(-1, b, 4), rows[:, 4 * b :].reshape(-1, b, 16)
    return q4_1()(torch.cat([heads, bodies], -1).reshape(blocks.shape))


exercise.mistake("the head of the very first block serves all blocks", hint="Each 20 bytes have a head.")(
    q4_1(head=lambda rows: rows[:1, :4].expand(len(rows), 4))
)

exercise.alternative(q4_1())


@exercise.alternative
def by_numpy(blocks):
    kind = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])
    rows = np.ascontiguousarray(blocks.numpy()).reshape(-1).view(kind)
    d, m = (rows[name].astype(np.float32)[:, None] for name in ("d", "m"))
    halves = np.concatenate([rows["q"] & 15, rows["q"] >> 4], axis=1)
    return torch.from_numpy(d * halves + m).reshape(*blocks.shape[:-1], -1)


@exercise.alternative
def by_parts(blocks):
    """Lower and upper halves written where they belong."""
    rows = blocks.contiguous().view(*blocks.shape[:-1], -1, 20)
    d, m = (rows[..., at : at + 2].contiguous().view(torch.float16).float() for at in (0, 2))
    out = torch.empty(*rows.shape[:-1], 32)
    torch.add(torch.mul(rows[..., 4:].bitwise_and(15), d), m, out=out[..., :16])
    torch.add(torch.mul(rows[..., 4:] // 16, d), m, out=out[..., 16:])
    return out.flatten(-2)
