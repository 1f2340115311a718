"""`apply_rope(x, positions, base=10000.0)`

Turn each pair (x[..., i], x[..., i + d/2]) counter-clockwise, by pair i of rope_angles.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.rope.shared import (
    BASE,
    angles,
    backwards,
    base_fixed,
    distinct,
    halves,
    hf_rotation,
    option,
    positions_ignored,
    randint,
    repeated,
    rotate_half,
    rotation,
    rotation_by_complex,
    rotation_made_of,
    speeds,
)

exercise = Draft(
    "apply_rope",
    points=4,
    forbid=["transformers"],
    atol=2e-3,
    hints=[
        "Take one pair (a, b) = (x[i], x[i + d/2]) and one angle. How does a point (a, b) of the plane turn by it?",
        "a' = a cos - b sin and b' = b cos + a sin. With first, second = x.chunk(2, -1) you do all pairs at once.",
        "angle = rope_angles(positions, d, base) has shape [..., d/2], like the halves. Join first * cos - second * sin"
        " and second * cos + first * sin with torch.cat(…, -1), then .to(x.dtype).",
    ],
)


@exercise.cases
def rotation_cases(g):
    yield case(randn(g, 5, 8), torch.arange(1, 6), label="one sequence")
    yield case(randn(g, 2, 3, 7, 4), torch.arange(2, 9), label="[batch, heads, n, d], odd length")
    yield case(randn(g, 1, 1, 1, 8), randint(g, 3, 40, 1), label="one head, one token")
    yield case(randn(g, 4, 2) + 1, torch.arange(3, 7), label="a single pair")
    yield case(randn(g, 3, 16), torch.arange(20, 23), base=500_000.0, label="LLaMA 3's base, by keyword")
    yield case(randn(g, 2, 6, 8), distinct(g, 6, 300) + 2, label="positions in any order")
    yield case(randn(g, 3, 12), torch.full((3,), 9), label="the same position three times")
    yield case(randn(g, 4, 8), randint(g, -60, -2, 4), label="negative positions")
    yield case(randn(g, 2, 3, 5, 8), randint(g, 2, 90, 2, 1, 5), label="positions [batch, 1, n]")
    yield case(randn(g, 2, 5, 3, 8).transpose(1, 2), torch.arange(4, 9), 100.0, label="not contiguous, base 100")
    yield case(randn(g, 3, 8), distinct(g, 3, 900) + 3_000.5, label="far away and between integers")
    yield case(randn(g, 1, 6, 16).bfloat16(), distinct(g, 6, 900) + 1_001, label="bfloat16")
    yield case(randn(g, 2, 4, 8).half(), distinct(g, 4, 2_000) * 2 + 4_001, label="float16")
    yield case(randn(g, 130, 32), distinct(g, 130, 500), base=50, label="130 tokens, a whole number as base")


exercise.oracle(hf_rotation)


@exercise.law("Keeps the length of every vector")
def keeps_length(out, one, call):
    before, after = (x.double().norm(dim=-1) for x in (one.args[0], out))
    loose = 2e-2 if out.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return same(after, before, rtol=loose, atol=loose)


@exercise.law("Leaves position 0 alone")
def still_at_zero(out, one, call):
    x = one.args[0]
    return same(call(x, torch.zeros(x.shape[-2], dtype=torch.long), option(one, "base", 2, BASE)), x)


_Q, _K = torch.linspace(1.0, 0.3, 8), torch.linspace(0.4, 1.2, 8)


def _score_at(call, m, n, base):
    """The dot product of a fixed query at position m and a fixed key at position n."""
    q, k = call(torch.stack([_Q, _K]).double(), torch.tensor([m, n]), base)
    return q @ k


@exercise.law("q·k depends on the distance between the positions, and on nothing else of them")
def relative(out, one, call):
    base = option(one, "base", 2, BASE)
    near, far, moved = (_score_at(call, *at, base) for at in [(1, 0), (4, 0), (47, 43)])
    if not same(far, moved, rtol=1e-3, atol=1e-3):
        return f"positions 4 and 0 score {far:.4f}, positions 47 and 43 score {moved:.4f}"
    return not same(near, far, rtol=1e-2, atol=1e-2) or "the score is the same at distance 1 and at distance 4"


exercise.law("Gives back the dtype of x")(keeps_dtype)


def rotate_neighbors(x):
    return torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)


def _interleaved(angle):
    return angle.repeat_interleave(2, -1)


exercise.mistake(
    "neighbors (x0, x1), (x2, x3), … are paired, as in the RoFormer paper and GPT-J",
    hint="A valid rotary embedding, but not LLaMA's: here dimension i is paired with i + d/2.",
)(rotation_made_of(turn=rotate_neighbors, spread=_interleaved))

exercise.mistake(
    "pairs (i, i + d/2) meet angles laid out for neighbors (repeat_interleave)",
    hint="Both members of a pair need the same angle. With halves that is torch.cat([angle, angle], -1).",
)(rotation_made_of(spread=_interleaved))

exercise.mistake(
    "neighbors are paired, but the angles are laid out for halves (cat)",
    hint="The angles fit pairs (i, i + d/2). Rotate these rather than neighbors.",
)(rotation_made_of(turn=rotate_neighbors))

exercise.mistake(
    "the rotation goes backwards: the minus sign stands at the wrong half",
    hint="The minus belongs where the second half enters the new first one: first * cos - second * sin.",
)(backwards)

exercise.mistake(
    "both sines have a plus sign", hint="That isn't a rotation: lengths change. One of the two sines needs a minus."
)(rotation_made_of(turn=lambda x: torch.cat(halves(x)[::-1], -1)))


@exercise.mistake(
    "cosine and sine are swapped", hint="At position 0 nothing may move: which of the two functions is 1 at angle 0?"
)
def cos_and_sin_swapped(x, positions, base=BASE):
    a = repeated(angles(positions, x.shape[-1], base))
    return (x.float() * a.sin() + rotate_half(x.float()) * a.cos()).to(x.dtype)


exercise.mistake(
    "each dimension is only multiplied with its cosine",
    hint="A rotation mixes the two members of a pair: the sine brings in the partner.",
)(rotation_made_of(turn=torch.zeros_like))

exercise.mistake(
    "all pairs turn at the same speed", hint="Each pair has its own speed: use all d/2 angles that rope_angles gives."
)(rotation_made_of(angle=lambda positions, d, base: positions[..., None].float().expand(*positions.shape, d // 2)))

exercise.mistake("the base is always 10,000, whatever is passed", hint="Pass `base` on to rope_angles.")(
    rotation_made_of(angle=base_fixed)
)

exercise.mistake(
    "rows are counted 0, 1, 2, … and `positions` is not used", hint="Row r sits at positions[r], which need not be r."
)(positions_ignored)


@exercise.mistake("all sequences have the first one's positions", hint="Positions broadcast: use them as they are.")
def positions_of_the_first(x, positions, base=BASE):
    return rotation(x, positions.reshape(-1, positions.shape[-1])[0], base)


@exercise.mistake("positions are cut down to whole numbers", hint="Positions may lie between the integers.")
def whole_positions(x, positions, base=BASE):
    return rotation(x, positions.long(), base)


@exercise.mistake("positions are counted from 1", hint="At position 0 nothing turns.")
def counted_from_one(x, positions, base=BASE):
    return rotation(x, positions + 1, base)


@exercise.mistake(
    "the angles are rounded to the dtype of x before cosine and sine are taken",
    hint="An angle of 1,001 radians needs float32, its cosine doesn't.",
)
def angles_rounded(x, positions, base=BASE):
    a = repeated(angles(positions, x.shape[-1], base).to(x.dtype))
    return x * a.cos() + rotate_half(x) * a.sin()


@exercise.mistake(
    "only the first half of the dimensions is rotated",
    hint="Some models do (partial rotary factor). LLaMA rotates all d dimensions.",
)
def only_first_half(x, positions, base=BASE):
    rotated = x.shape[-1] // 4 * 2
    return torch.cat([rotation(x[..., :rotated], positions, base), x[..., rotated:]], -1)


@exercise.mistake(
    "the angles are computed in the dtype of x, which is too coarse in bfloat16",
    hint="bfloat16 has 8 bits of precision: position 1,001 becomes 1,000. Compute angles in float32.",
)
def angles_in_dtype_of_x(x, positions, base=BASE):
    a = repeated(positions[..., None].to(x.dtype) * speeds(x.shape[-1], base).to(x.dtype))
    return x * a.cos() + rotate_half(x) * a.sin()


@exercise.mistake(
    "a bfloat16 x is promoted by the float32 cosines",
    hint="End with .to(x.dtype): half-precision attention kernels refuse float32 queries.",
)
def promoted(x, positions, base=BASE):
    a = repeated(angles(positions, x.shape[-1], base))
    return x * a.cos() + rotate_half(x) * a.sin()


exercise.alternative(rotation_by_complex)


@exercise.alternative
def rotation_by_matrix(x, positions, base=BASE):
    d = x.shape[-1]
    a, i = angles(positions, d, base), torch.arange(d // 2)
    matrix = torch.zeros(*positions.shape, d, d)
    matrix[..., i, i] = matrix[..., i + d // 2, i + d // 2] = a.cos()
    matrix[..., i, i + d // 2], matrix[..., i + d // 2, i] = -a.sin(), a.sin()
    return torch.einsum("...ij,...j->...i", matrix, x.float()).to(x.dtype)


@exercise.alternative
def rotation_in_dtype_of_x(x, positions, base=BASE):
    """As transformers does it: angles in float32, the cosines and the products in the dtype of x."""
    a = repeated(angles(positions, x.shape[-1], base))
    return x * a.cos().to(x.dtype) + rotate_half(x) * a.sin().to(x.dtype)
