"""`pack_int4(codes)`

Two 4-bit codes in each byte, in the order of GGUF's blocks of 32.
"""

from __future__ import annotations

import numpy as np
import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.quantization.shared import codes

exercise = Draft(
    "pack_int4",
    points=2,
    no_gradient="codes are whole numbers",
    fresh=True,
    forbid=["gguf"],
    hints=[
        "A byte has two halves of four bits. Which code of a block goes into the lower half of byte 0, which into the "
        "upper one?",
        "blocks = codes.reshape(*codes.shape[:-1], -1, 2, 16): the first 16 codes of each block are the lower halves, "
        "the last 16 the upper ones. A shift by 4 bits multiplies by 16.",
        "low, high = blocks[..., 0, :], blocks[..., 1, :]; (low + 16 * high).to(torch.uint8), then reshape to "
        "[..., n // 2].",
    ],
)


@exercise.cases
def pack_cases(g):
    yield case(codes(g, 0, 15, 32), label="one block")
    yield case(codes(g, 0, 15, 3, 64), label="three rows of two blocks")
    yield case(codes(g, 0, 15, 2, 3, 96), label="two batch dimensions")
    yield case(torch.arange(32) % 16, label="0 to 15, twice")
    yield case(torch.full((2, 32), 15), label="nothing but 15")
    yield case(torch.zeros(1, 32, dtype=torch.int64), label="nothing but 0")
    yield case(codes(g, 8, 15, 1, 160), label="large codes")
    yield case(codes(g, 0, 15, 130, 64), label="130 rows")


@exercise.oracle
def numpy_packbits(codes):
    """Bit by bit, by numpy."""
    pairs = codes.numpy().astype(np.uint8).reshape(-1, 2, 16).transpose(0, 2, 1)  # block, byte, half
    bits = np.unpackbits(pairs[..., None], axis=-1, count=4, bitorder="little")
    found = np.packbits(bits.reshape(*pairs.shape[:2], 8), axis=-1, bitorder="little")
    return torch.from_numpy(found.reshape(*codes.shape[:-1], -1).copy())


@exercise.law("The result is uint8, half as long")
def halves(out, one, call):
    wanted = (*one.args[0].shape[:-1], one.args[0].shape[-1] // 2)
    if out.dtype is not torch.uint8:
        return f"it should be uint8, and is {out.dtype}"
    return tuple(out.shape) == wanted or f"its shape should be {wanted}, and is {tuple(out.shape)}"


@exercise.law("The package gguf reads the codes back", essential=True)
def read_back(out, one, call):
    from gguf import GGMLQuantizationType, quants

    wanted = one.args[0]
    if out.dtype is not torch.uint8 or out.numel() != wanted.numel() // 2:
        return False
    blocks = out.reshape(-1, 16).numpy()
    head = np.tile(np.array([1, 0], np.float16).view(np.uint8), (len(blocks), 1))  # scale 1, least number 0
    found = quants.dequantize(np.concatenate([head, blocks], 1), GGMLQuantizationType.Q4_1)
    return bool((torch.from_numpy(found).reshape(wanted.shape) == wanted).all())


def pack(halves=lambda blocks: (blocks[..., :16], blocks[..., 16:]), join=lambda low, high: low + 16 * high):
    """`pack_int4` from its parts."""

    def pack_int4(codes):
        low, high = halves(codes.reshape(*codes.shape[:-1], -1, 32))
        return join(low, high).to(torch.uint8).reshape(*codes.shape[:-1], -1)

    return pack_int4


exercise.mistake(
    "neighbors share a byte", hint="In GGUF byte j holds the codes j and j + 16 of its block. (Other formats do pair.)"
)(pack(lambda blocks: (blocks[..., ::2], blocks[..., 1::2])))

exercise.mistake("the two halves of a byte are swapped", hint="The first 16 codes are the lower four bits.")(
    pack(join=lambda low, high: 16 * low + high)
)

exercise.mistake(
    "neighbors share a byte, and the first is the upper half",
    hint="In GGUF byte j holds the codes j (lower half) and j + 16 of its block.",
)(pack(lambda blocks: (blocks[..., 1::2], blocks[..., ::2])))

exercise.mistake("the upper code is shifted by 3 bits only", hint="Four bits: times 16.")(
    pack(join=lambda low, high: (low + 8 * high) % 256)
)

exercise.mistake("the upper code is multiplied by 15", hint="Four bits have 16 values: times 16.")(
    pack(join=lambda low, high: low + 15 * high)
)

exercise.mistake("the second half of each block is lost", hint="The last 16 codes go into the upper four bits.")(
    pack(join=lambda low, high: low)
)

exercise.mistake("the last 16 codes of a block are turned round", hint="Byte 0 holds the codes 0 and 16.")(
    pack(lambda blocks: (blocks[..., :16], blocks[..., 16:].flip(-1)))
)

exercise.mistake(
    "8 is taken off each code first", hint="The codes are 0 to 15 already; the block's least number shifts them."
)(pack(join=lambda low, high: ((low - 8) % 16) + 16 * ((high - 8) % 16)))


@exercise.mistake("a row is halved as a whole, not block by block", hint="Blocks of 32: byte j + 16 starts a new one.")
def row_halved(codes):
    low, high = codes.chunk(2, dim=-1)
    return (low + 16 * high).to(torch.uint8)


@exercise.mistake("the bytes are left as int64", hint="A byte is a byte: .to(torch.uint8).")
def eight_bytes(codes):
    return pack()(codes).long()


@exercise.mistake("the rows are run together", hint="One row of bytes for each row of codes: [..., n // 2].")
def run_together(codes):
    return pack()(codes.reshape(-1))


exercise.alternative(pack(join=lambda low, high: low | (high << 4)))


@exercise.alternative
def by_loop(codes):
    rows = []
    for row in codes.reshape(-1, codes.shape[-1]).tolist():
        starts = range(0, len(row), 32)
        rows.append([row[s + j] + 16 * row[s + j + 16] for s in starts for j in range(16)])
    return torch.tensor(rows, dtype=torch.uint8).reshape(*codes.shape[:-1], -1)


@exercise.alternative
def by_bytes(codes):
    """In uint8 from the start."""
    halves = codes.to(torch.uint8).unflatten(-1, (-1, 2, 16))
    return halves.select(-2, 0).bitwise_or(halves.select(-2, 1).bitwise_left_shift(4)).flatten(-2)
