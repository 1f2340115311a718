"""Wrong ways to write rotary position embedding, and a few right ones that look different."""

from __future__ import annotations

import math

import torch

BASE = 10_000.0


# ---- rope_angles ----------------------------------------------------------------------------------------------------

def _speeds(d, base=BASE):
    return base ** (-torch.arange(0, d, 2, dtype=torch.float32) / d)


def _angles_with(speeds):
    """`rope_angles` with other speeds: `speeds(d, base)` gives [d/2] radians a position."""
    def rope_angles(positions, d, base=BASE):
        return positions[..., None].float() * speeds(d, base)
    return rope_angles


angles = _angles_with(_speeds)
exponent_not_doubled = _angles_with(lambda d, base: base ** (-torch.arange(d // 2) / d))
exponent_doubled_twice = _angles_with(lambda d, base: base ** (-torch.arange(0, d, 2) / (d // 2)))
exponent_positive = _angles_with(lambda d, base: base ** (torch.arange(0, d, 2) / d))
exponent_to_one = _angles_with(lambda d, base: base ** -torch.linspace(0, 1, d // 2))
base_fixed = _angles_with(lambda d, base: _speeds(d))
whole_turns = _angles_with(lambda d, base: 2 * math.pi * _speeds(d, base))
each_angle_twice = _angles_with(lambda d, base: torch.cat([_speeds(d, base)] * 2))


def counted_by_index(positions, d, base=BASE):
    return angles(torch.arange(positions.shape[-1]).expand(positions.shape), d, base)


def counted_from_one(positions, d, base=BASE):
    return angles(positions + 1, d, base)


def one_dimension_only(positions, d, base=BASE):
    return torch.outer(positions.float(), _speeds(d, base))


def angles_by_loop(positions, d, base=BASE):
    rows = [[p * math.exp(-2 * i / d * math.log(base)) for i in range(d // 2)] for p in positions.flatten().tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(*positions.shape, d // 2)


def angles_by_einsum(positions, d, base=BASE):
    wavelengths = torch.pow(base, torch.arange(d // 2, dtype=torch.float32).mul(2).div(d))
    return torch.einsum("...,i->...i", positions.float(), wavelengths.reciprocal())


# ---- apply_rope -----------------------------------------------------------------------------------------------------

def _halves(x):
    return x.chunk(2, -1)


def rotate_half(x):
    first, second = _halves(x)
    return torch.cat([-second, first], -1)


def rotate_neighbours(x):
    return torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)


def _repeated(angle):
    return torch.cat([angle, angle], -1)


def _interleaved(angle):
    return angle.repeat_interleave(2, -1)


def _rotation(turn=rotate_half, spread=_repeated, angle=angles):
    """`apply_rope` from its three parts: the quarter turn, how d/2 angles become d, and the angles."""
    def apply_rope(x, positions, base=BASE):
        a = spread(angle(positions, x.shape[-1], base))
        return (x.float() * a.cos() + turn(x.float()) * a.sin()).to(x.dtype)
    return apply_rope


rotation = _rotation()
neighbours_paired = _rotation(turn=rotate_neighbours, spread=_interleaved)
halves_with_interleaved_angles = _rotation(spread=_interleaved)
neighbours_with_repeated_angles = _rotation(turn=rotate_neighbours)
backwards = _rotation(turn=lambda x: -rotate_half(x))
no_minus = _rotation(turn=lambda x: torch.cat(_halves(x)[::-1], -1))
no_sine = _rotation(turn=torch.zeros_like)
base_ignored = _rotation(angle=base_fixed)
positions_ignored = _rotation(angle=counted_by_index)
one_speed = _rotation(angle=lambda positions, d, base: positions[..., None].float().expand(*positions.shape, d // 2))


def cos_and_sin_swapped(x, positions, base=BASE):
    a = _repeated(angles(positions, x.shape[-1], base))
    return (x.float() * a.sin() + rotate_half(x.float()) * a.cos()).to(x.dtype)


def only_first_half(x, positions, base=BASE):
    rotated = x.shape[-1] // 4 * 2
    return torch.cat([rotation(x[..., :rotated], positions, base), x[..., rotated:]], -1)


def angles_in_dtype_of_x(x, positions, base=BASE):
    a = _repeated(positions[..., None].to(x.dtype) * _speeds(x.shape[-1], base).to(x.dtype))
    return x * a.cos() + rotate_half(x) * a.sin()


def promoted(x, positions, base=BASE):
    a = _repeated(angles(positions, x.shape[-1], base))
    return x * a.cos() + rotate_half(x) * a.sin()


def rotation_by_complex(x, positions, base=BASE):
    pairs = torch.view_as_complex(torch.stack(x.double().chunk(2, -1), -1))
    a = angles_by_loop(positions, x.shape[-1], base)
    return torch.cat([(z := pairs * torch.exp(1j * a)).real, z.imag], -1).to(x.dtype)


def rotation_by_matrix(x, positions, base=BASE):
    d = x.shape[-1]
    a, i = angles(positions, d, base), torch.arange(d // 2)
    matrix = torch.zeros(*positions.shape, d, d)
    matrix[..., i, i] = matrix[..., i + d // 2, i + d // 2] = a.cos()
    matrix[..., i, i + d // 2], matrix[..., i + d // 2, i] = -a.sin(), a.sin()
    return torch.einsum("...ij,...j->...i", matrix, x.float()).to(x.dtype)


def rotation_in_dtype_of_x(x, positions, base=BASE):
    """As transformers does it: angles in float32, the cosines and the products in the dtype of x."""
    a = _repeated(angles(positions, x.shape[-1], base))
    return x * a.cos().to(x.dtype) + rotate_half(x) * a.sin().to(x.dtype)


# ---- rope_attention_scores ------------------------------------------------------------------------------------------

def _later(q_positions, k_positions):
    return k_positions[..., None, :] > q_positions[..., :, None]


def _by_position(scores, q_positions, k_positions, causal):
    return scores.masked_fill(_later(q_positions, k_positions), -torch.inf) if causal else scores


def _scores(turn_q=rotation, turn_k=rotation, divisor=math.sqrt, hide=_by_position):
    """`rope_attention_scores` from its parts."""
    def rope_attention_scores(q, k, q_positions, k_positions, base=BASE, causal=True):
        scores = turn_q(q, q_positions, base) @ turn_k(k, k_positions, base).mT / divisor(q.shape[-1])
        return hide(scores, q_positions, k_positions, causal)
    return rope_attention_scores


def _by_index(scores, q_positions, k_positions, causal):
    keep = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~keep, -torch.inf) if causal else scores


def _hiding(which):
    """Hide the keys for which `which(q_positions, k_positions)` is True."""
    return lambda scores, m, n, causal: scores.masked_fill(which(m, n), -torch.inf) if causal else scores


def _unrotated(x, positions, base):
    return x


scores_right = _scores()
not_scaled = _scores(divisor=lambda d: 1.0)
scaled_by_d = _scores(divisor=float)
keys_not_rotated = _scores(turn_k=_unrotated)
counted_anew = _scores(turn_q=positions_ignored, turn_k=positions_ignored)
keys_backwards = _scores(turn_k=backwards)
no_mask = _scores(hide=lambda scores, m, n, causal: scores)
always_masked = _scores(hide=lambda scores, m, n, causal: _by_position(scores, m, n, True))
mask_by_index = _scores(hide=_by_index)
mask_inverted = _scores(hide=_hiding(lambda m, n: n[..., None, :] < m[..., :, None]))
mask_hides_itself = _scores(hide=_hiding(lambda m, n: n[..., None, :] >= m[..., :, None]))
mask_with_zero = _scores(hide=lambda s, m, n, causal: s.masked_fill(_later(m, n), 0.0) if causal else s)


def keys_at_query_positions(q, k, q_positions, k_positions, base=BASE, causal=True):
    scores = rotation(q, q_positions, base) @ rotation(k, q_positions, base).mT / q.shape[-1] ** 0.5
    return _by_position(scores, q_positions, k_positions, causal)


def scores_by_distance(q, k, q_positions, k_positions, base=BASE, causal=True):
    """Turns the key by the distance alone, and leaves the query where it is."""
    distance = k_positions[..., None, :] - q_positions[..., :, None]
    turned = rotation_by_complex(k[..., None, :, :].expand(*k.shape[:-2], q.shape[-2], *k.shape[-2:]), distance, base)
    scores = torch.einsum("...md,...mnd->...mn", q.to(turned.dtype), turned) * q.shape[-1] ** -0.5
    return torch.where(distance > 0, -torch.inf, scores) if causal else scores


# ---- scale_rope -----------------------------------------------------------------------------------------------------

def _linear(factor, d, length, base):
    return _speeds(d, base) / factor, 1.0


def _ntk(factor, d, length, base):
    return _speeds(d, base * factor ** (d / (d - 2))), 1.0


def _pair_with(turns, d, length, base):
    return d * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))


def _by_pair(d, length, base, pair=_pair_with):
    low = max(math.floor(pair(32, d, length, base)), 0)
    high = min(math.ceil(pair(1, d, length, base)), d - 1)
    return ((torch.arange(d // 2) - low) / (max(high - low, 0.001))).clamp(0, 1)


def _by_pair_unrounded(d, length, base):
    low, high = max(_pair_with(32, d, length, base), 0), min(_pair_with(1, d, length, base), d - 1)
    return ((torch.arange(d // 2) - low) / (high - low)).clamp(0, 1)


def _by_turns(d, length, base):
    turns = length * _speeds(d, base) / (2 * math.pi)
    return 1 - ((turns - 1) / 31).clamp(0, 1)


def _softness(factor):
    return 0.1 * math.log(factor) + 1


def _yarn_with(ramp=_by_pair, attention=_softness):
    """YaRN from its parts: how much of each pair is interpolated, and the attention factor."""
    def yarn(factor, d, length, base):
        share = ramp(d, length, base)
        return _speeds(d, base) * (share / factor + 1 - share), attention(factor)
    return yarn


_yarn = _yarn_with()


def _scaling(linear=_linear, ntk=_ntk, yarn=_yarn):
    """`scale_rope` from its three kinds."""
    def scale_rope(kind, factor, d, trained_length, base=BASE):
        return {"linear": linear, "ntk": ntk, "yarn": yarn}[kind](factor, d, trained_length, base)
    return scale_rope


scaling = _scaling()
linear_multiplied = _scaling(linear=lambda s, d, length, base: (_speeds(d, base) * s, 1.0))
ntk_base_times_factor = _scaling(ntk=lambda s, d, length, base: (_speeds(d, base * s), 1.0))
ntk_power_inverted = _scaling(ntk=lambda s, d, length, base: (_speeds(d, base * s ** ((d - 2) / d)), 1.0))
yarn_reversed = _scaling(yarn=_yarn_with(lambda *shape: 1 - _by_pair(*shape)))
yarn_all_interpolated = _scaling(yarn=_yarn_with(lambda d, length, base: torch.ones(d // 2)))
yarn_without_attention = _scaling(yarn=_yarn_with(attention=lambda s: 1.0))
yarn_temperature = _scaling(yarn=_yarn_with(attention=lambda s: _softness(s) ** -2))
yarn_log10 = _scaling(yarn=_yarn_with(attention=lambda s: 0.1 * math.log10(s) + 1))
yarn_unrounded = _scaling(yarn=_yarn_with(_by_pair_unrounded))
yarn_by_turns = _scaling(yarn=_yarn_with(_by_turns))
yarn_without_two_pi = _scaling(
    yarn=_yarn_with(lambda *shape: _by_pair(*shape, pair=lambda t, *rest: _pair_with(t / (2 * math.pi), *rest)))
)
yarn_new_length = _scaling(yarn=lambda s, d, length, base: _yarn(s, d, s * length, base))


def scaling_base_ignored(kind, factor, d, trained_length, base=BASE):
    return scaling(kind, factor, d, trained_length)


def scaling_by_loop(kind, factor, d, trained_length, base=BASE):
    """One pair after the other in plain Python floats, and the wavelengths rather than the speeds."""
    if kind == "ntk":
        base, factor = base * factor ** (d / (d - 2)), 1.0
    wavelengths = [2 * math.pi * base ** (2 * i / d) for i in range(d // 2)]
    attention = 1.0
    if kind == "yarn":
        attention = 1 + math.log(factor) / 10
        ramp = _by_pair(d, trained_length, base).tolist()
    else:
        ramp = [1.0] * (d // 2)
    mixed = [2 * math.pi / w * (r / factor + (1 - r)) for w, r in zip(wavelengths, ramp, strict=True)]
    return torch.tensor(mixed, dtype=torch.float64), torch.tensor(attention)
