"""`qlora_forward(x, packed, scales, A, B, alpha)`

A linear layer whose weights are four bits wide, and a LoRA update beside it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, Law, case, keeps_dtype, same
from autograde.exercises.applications.finetuning.shared import NF4, unpacked
from autograde.exercises.shared import randn

exercise = Draft(
    "qlora_forward",
    points=3,
    hints=[
        "First give the weights back, as a matrix. How many are there, which is its shape, and to which scale does the "
        "weight number i belong?",
        "codes = the high half and the low half of each byte, one after the other; levels[codes] times the scale of "
        "each block, which is numel // len(scales) long; then a linear layer and a LoRA update.",
        "codes = torch.stack([packed >> 4, packed & 15], -1).flatten().long(); w = (levels[codes].view(len(scales), "
        "-1) * scales.detach()[:, None]).view(B.shape[0], A.shape[1]); return x @ w.T + alpha / len(A) * (x @ A.T) "
        "@ B.T.",
    ],
)


@exercise.cases
def layers(g):
    def one(m, n, r, blocks, alpha, *shape, label, size=1.0):
        packed = torch.randint(256, (m * n // 2,), generator=g).to(torch.uint8)
        scales = size * (0.3 + torch.rand(blocks, generator=g))
        return case(
            randn(g, *shape, n), packed, scales, randn(g, r, n) * n**-0.5, randn(g, m, r) * size, alpha, label=label
        )

    yield one(4, 6, 2, 3, 8, 5, label="six to four, three blocks")
    yield one(6, 4, 3, 6, 1.5, 2, 3, label="a batch, alpha below r")
    yield one(5, 4, 1, 1, 3, 2, label="rank 1, one block")
    yield one(4, 4, 6, 2, 2, 3, label="a rank above both sizes")
    yield one(3, 8, 2, 12, 4, label="a single vector, blocks of two")
    yield one(4, 9, 2, 4, 6, 2, 2, 3, label="blocks of an odd length")
    yield one(24, 128, 8, 48, 16, 3, label="blocks of 64", size=0.1)
    far = one(4, 6, 2, 4, 4, 3, label="")
    yield case(far.args[0] * 50 + 100, *far.args[1:], label="large inputs, far from zero")
    yield one(4, 6, 2, 3, 8, 1, label="a batch of one vector")


@exercise.oracle
def embedding_and_linear(x, packed, scales, A, B, alpha):
    """The levels by torch's embedding, the sum of both weights by one F.linear, in float64."""
    wide = torch.float64
    levels = torch.tensor(NF4, dtype=wide)[:, None]
    weight = F.embedding(unpacked(packed), levels).view(len(scales), -1) * scales.detach().to(wide)[:, None]
    update = (B.to(wide) * (alpha / A.shape[0])) @ A.to(wide)
    return F.linear(x.to(wide), weight.view(B.shape[0], A.shape[1]) + update).to(x.dtype)


exercise.law(Law("The result has the dtype of x", keeps_dtype, everywhere=True))


@exercise.law("The four-bit weights aren't trained: no gradient reaches the scales")
def scales_are_still(out, one, call):
    if one.made:
        return None
    found = call(*one.args, backward=((0,), (1,)))
    return not isinstance(found, list) or found[0] is None or not bool(found[0].any()) or "a gradient reaches them"


@exercise.law("With B = 0 only the four-bit weights speak")
def no_update(out, one, call):
    x, packed, scales, A, B, alpha = one.args
    if one.made:
        return None
    quiet = call(x, packed, scales, A, torch.zeros_like(B), alpha)
    return same(quiet, embedding_and_linear(x, packed, scales, A, torch.zeros_like(B), alpha))


def _forward(
    levels=NF4,
    codes=unpacked,
    grouped=lambda w, scales: w.view(len(scales), -1) * scales[:, None],
    matrix=lambda w, m, n: w.reshape(m, n),
    factor=lambda alpha, r: alpha / r,
    still=lambda scales: scales.detach(),
    base=lambda x, w: x @ w.T,
    update=lambda x, A, B: (x @ A.T) @ B.T,
    join=lambda old, new: old + new,
):
    """`qlora_forward` with some of its parts exchanged."""

    def qlora_forward(x, packed, scales, A, B, alpha):
        w = grouped(torch.tensor(levels, dtype=x.dtype)[codes(packed)], still(scales))
        w = matrix(w, B.shape[0], A.shape[1])
        return join(base(x, w), factor(alpha, A.shape[0]) * update(x, A, B))

    return qlora_forward


right = _forward()

exercise.mistake("the low half of a byte comes first", hint="bitsandbytes: the first weight is in the high half.")(
    _forward(codes=lambda packed: unpacked(packed, high_first=False))
)
exercise.mistake("all high halves come first, then all low ones", hint="A byte holds two neighbors.")(
    _forward(codes=lambda packed: torch.cat([packed >> 4, packed & 15]).long())
)
exercise.mistake("the codes are taken for evenly spaced numbers", hint="A code is a place in the list of levels.")(
    _forward(levels=tuple(i / 7.5 - 1 for i in range(16)))
)
exercise.mistake("the codes are taken for int4 numbers", hint="A code is a place in the list of levels.")(
    _forward(levels=tuple(float(i - 8) for i in range(16)))
)
exercise.mistake("weights are divided by their scale", hint="level * scale.")(
    _forward(grouped=lambda w, scales: w.view(len(scales), -1) / scales[:, None])
)
exercise.mistake(
    "neighbors get different scales: they are repeated, not stretched",
    hint="A block is consecutive: repeat_interleave, or view(blocks, -1).",
)(_forward(grouped=lambda w, scales: w * scales.repeat(len(w) // len(scales))))
exercise.mistake("one scale serves all blocks", hint="Each block has its own.")(
    _forward(grouped=lambda w, scales: w * scales[0])
)
exercise.mistake("the scales aren't used", hint="level * scale of the block.")(_forward(grouped=lambda w, scales: w))
exercise.mistake("the matrix is [in, out]", hint="Row-major [out, in], as in nn.Linear.")(
    _forward(matrix=lambda w, m, n: w.reshape(n, m).T)
)
exercise.mistake("alpha isn't divided by r", hint="alpha / r.")(_forward(factor=lambda alpha, r: alpha))
exercise.mistake("there is no alpha", hint="alpha / r times the update.")(_forward(factor=lambda alpha, r: 1.0))
exercise.mistake("alpha is divided by the root of r", hint="That is rsLoRA: alpha / r here.")(
    _forward(factor=lambda alpha, r: alpha / r**0.5)
)
exercise.mistake("alpha is divided by the number of outputs", hint="r is the number of rows of A.")(
    lambda x, packed, scales, A, B, alpha: right(x, packed, scales, A, B, alpha * len(A) / len(B))
)
exercise.mistake("alpha is divided by the number of inputs", hint="r is the number of rows of A.")(
    lambda x, packed, scales, A, B, alpha: right(x, packed, scales, A, B, alpha * len(A) / A.shape[1])
)
exercise.mistake("alpha is multiplied by r", hint="alpha / r.")(_forward(factor=lambda alpha, r: alpha * r))
exercise.mistake("alpha is divided by r twice", hint="alpha / r, once.")(_forward(factor=lambda alpha, r: alpha / r**2))
exercise.mistake("the four-bit layer is scaled by alpha / r, too", hint="Only the update is.")(
    lambda x, packed, scales, A, B, alpha: alpha / len(A) * right(x, packed, scales, A, B, len(A))
)
exercise.mistake("the four-bit layer counts twice", hint="x W^T once, and the update.")(
    _forward(join=lambda old, new: 2 * old + new)
)
exercise.mistake("the update is left out", hint="x @ w.T + alpha / r * (x @ A.T) @ B.T.")(
    _forward(join=lambda old, new: old)
)
exercise.mistake("only the update is returned", hint="The four-bit layer and the update.")(
    _forward(join=lambda old, new: new)
)
exercise.mistake("the scales are trained, too", hint="Only A, B and x have a gradient: scales.detach().")(
    _forward(still=lambda scales: scales)
)


def _cut(x, w):
    with torch.no_grad():
        return x @ w.T


exercise.mistake(
    "x gets only a part of its gradient",
    hint="x reaches the result by two roads, the frozen layer and the update. Layers below learn through both.",
)(_forward(base=_cut))
exercise.mistake("A isn't trained", hint="Both A and B are.")(_forward(update=lambda x, A, B: (x @ A.detach().T) @ B.T))


exercise.mistake("B isn't trained", hint="Both A and B are.")(_forward(update=lambda x, A, B: (x @ A.T) @ B.detach().T))
exercise.mistake("the result is float32, whatever x is", hint="The dtype of x.")(
    lambda x, *others: right(x, *others).float()
)
exercise.mistake("the scales are taken from the last block to the first", hint="Block i has scales[i].")(
    lambda x, packed, scales, *others: right(x, packed, scales.flip(0), *others)
)
exercise.mistake("one scale serves all blocks: the largest", hint="Each block has its own.")(
    _forward(grouped=lambda w, scales: w * scales.max())
)
exercise.mistake("alpha is always 1", hint="alpha / r times the update.")(_forward(factor=lambda alpha, r: 1 / r))
exercise.mistake("the levels are read from the last to the first", hint="Code 0 is the level -1.")(
    _forward(levels=NF4[::-1])
)


@exercise.alternative
def by_blocks(x, packed, scales, A, B, alpha):
    """A loop over bytes and blocks; both weights are added first."""
    numbers = [NF4[half] for byte in packed.tolist() for half in (byte // 16, byte % 16)]
    size = len(numbers) // len(scales)
    w = torch.tensor(numbers, dtype=x.dtype).split(size)
    w = torch.cat([part * scale.detach() for part, scale in zip(w, scales, strict=True)]).view(len(B), -1)
    return F.linear(x, w + alpha / len(A) * B @ A)


@exercise.alternative
def by_einsum(x, packed, scales, A, B, alpha):
    table = torch.tensor(NF4, dtype=x.dtype)
    halves = torch.stack([packed // 16, packed % 16], 1).reshape(-1).int()
    stretched = scales.detach().repeat_interleave(2 * len(packed) // len(scales))
    w = (table.index_select(0, halves) * stretched).reshape(B.shape[0], A.shape[1])
    low = torch.einsum("...i,ri->...r", x, A) * (alpha / A.shape[0])
    return torch.einsum("...i,oi->...o", x, w) + torch.einsum("...r,or->...o", low, B)
