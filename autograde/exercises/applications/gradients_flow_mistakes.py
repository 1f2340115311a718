"""Wrong residual stacks and wrong clipping by value, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- residual_stack -------------------------------------------------------------------------------------------------


def _layer_norm(x, eps):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _stack(join=lambda x, branch, norm, root: x + branch(norm(x)) / root, norm=_layer_norm,
           root=lambda branches: math.sqrt(len(branches)), end=torch.stack, fixed_eps=None):
    """A `residual_stack` with some of its parts exchanged."""

    def residual_stack(x, branches, eps=1e-5):
        streams, divisor = [x], root(branches)
        for branch in branches:
            streams.append(join(streams[-1], branch, lambda z: norm(z, fixed_eps or eps), divisor))
        return end(streams)

    return residual_stack


def _unbiased(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt()


def _eps_outside(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + eps)


right_stack = _stack()
stack_unscaled = _stack(root=lambda branches: 1.0)
stack_by_count = _stack(root=len)
stack_by_layers = _stack(root=lambda branches: math.sqrt(2 * len(branches)))
stack_by_half = _stack(root=lambda branches: math.sqrt(len(branches) / 2))
stack_multiplied = _stack(root=lambda branches: 1 / math.sqrt(len(branches)))
stack_sum_scaled = _stack(lambda x, branch, norm, root: (x + branch(norm(x))) / root)
stack_stream_scaled = _stack(lambda x, branch, norm, root: x / root + branch(norm(x)))
stack_input_scaled = _stack(lambda x, branch, norm, root: x + branch(norm(x) / root))
stack_post_norm = _stack(lambda x, branch, norm, root: norm(x + branch(x) / root))
stack_without_norm = _stack(lambda x, branch, norm, root: x + branch(x) / root)
stack_norm_kept = _stack(lambda x, branch, norm, root: norm(x) + branch(norm(x)) / root)
stack_branch_normed = _stack(lambda x, branch, norm, root: x + norm(branch(x)) / root)
stack_without_residual = _stack(lambda x, branch, norm, root: branch(norm(x)) / root)
stack_detached = _stack(lambda x, branch, norm, root: x.detach() + branch(norm(x)) / root)
stack_norm_detached = _stack(lambda x, branch, norm, root: x + branch(norm(x.detach())) / root)
stack_rms = _stack(norm=lambda x, eps: F.rms_norm(x, x.shape[-1:], eps=eps))
stack_norm_over_all = _stack(norm=lambda x, eps: F.layer_norm(x, x.shape, eps=eps))
stack_unbiased = _stack(norm=_unbiased)
stack_eps_outside = _stack(norm=_eps_outside)
stack_eps_fixed = _stack(fixed_eps=1e-5)
stack_last_only = _stack(end=lambda streams: streams[-1])
stack_without_first = _stack(end=lambda streams: torch.stack(streams[1:]))
stack_along_the_end = _stack(end=lambda streams: torch.stack(streams, -1))


def stack_in_parallel(x, branches, eps=1e-5):
    """Every branch reads x itself, as if there were a single layer."""
    z, streams = _layer_norm(x, eps), [x]
    for branch in branches:
        streams.append(streams[-1] + branch(z) / math.sqrt(len(branches)))
    return torch.stack(streams)


def stack_from_the_start(x, branches, eps=1e-5):
    """Each branch is added to x, not to the stream."""
    streams = [x]
    for branch in branches:
        streams.append(x + branch(_layer_norm(streams[-1], eps)) / math.sqrt(len(branches)))
    return torch.stack(streams)


def stack_by_position(x, branches, eps=1e-5):
    """The root of the branches so far."""
    streams = [x]
    for i, branch in enumerate(branches, 1):
        streams.append(streams[-1] + branch(_layer_norm(streams[-1], eps)) / math.sqrt(i))
    return torch.stack(streams)


def stack_final_norm(x, branches, eps=1e-5):
    streams = right_stack(x, branches, eps)
    return torch.cat([streams[:-1], _layer_norm(streams[-1:], eps)])


def stack_by_hand(x, branches, eps=1e-5):
    """The norm by hand, the streams as running sums."""
    said, stream = [torch.zeros_like(x)], x
    for branch in branches:
        centred = stream - stream.mean(-1, keepdim=True)
        said.append(branch(centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()) * len(branches) ** -0.5)
        stream = stream + said[-1]
    return x + torch.stack(said).cumsum(0)


# ---- clip_by_value --------------------------------------------------------------------------------------------------


def _live(gradients):
    return [g for g in gradients if g is not None]


def _long(gradients):
    return torch.cat([g.flatten().double() for g in gradients] or [torch.zeros(0, dtype=torch.float64)])


def _cosine(before, after):
    a, b = _long(before), _long(after)
    return a @ b / (a.norm() * b.norm()) if a.any() else torch.tensor(1.0)


def _clip(change=lambda g, limit, live: g.clamp(-limit, limit), told=_cosine, none=lambda: None):
    """A `clip_by_value` with some of its parts exchanged."""

    def clip_by_value(gradients, limit):
        live = _live(gradients)
        clipped = [none() if g is None else change(g, limit, live) for g in gradients]
        return clipped, told(live, _live(clipped))

    return clip_by_value


def _shortened(g, limit, live):
    return g * (limit / _long(live).norm().clamp(min=limit)).to(g.dtype)


def _shortened_alone(g, limit, live):
    return g * (limit / g.double().norm().clamp(min=limit)).to(g.dtype)


def _scaled_by_largest(g, limit, live):
    largest = max((float(x.abs().max()) for x in live if x.numel()), default=0.0)
    return g * min(1.0, limit / largest) if largest else g


def _single_cosine(before, after):
    """Adds squares in float32."""
    a, b = (_long(part).float() for part in (before, after))
    return a @ b / (a.norm() * b.norm()) if a.any() else torch.tensor(1.0)


def _library_cosine(before, after):
    """F.cosine_similarity in float32; its eps hides short vectors."""
    a, b = (_long(part).float() for part in (before, after))
    return F.cosine_similarity(a, b, dim=0) if a.any() else torch.tensor(1.0)


def _mean_cosine(before, after):
    found = [_cosine([a], [b]) for a, b in zip(before, after, strict=True)]
    return torch.stack([one.double() for one in found]).mean() if found else torch.tensor(1.0)


def _unguarded_cosine(before, after):
    a, b = _long(before), _long(after)
    return a @ b / (a.norm() * b.norm())


def _zero_cosine(before, after):
    return _cosine(before, after) if _long(before).any() else torch.tensor(0.0)


def _angle(before, after):
    return torch.acos(_cosine(before, after).clamp(-1, 1))


def _share_cut(before, after):
    a, b = _long(before), _long(after)
    return (a == b).double().mean() if len(a) else torch.tensor(1.0)


right_clip = _clip()
value_norm_clipped = _clip(_shortened)
value_norm_clipped_alone = _clip(_shortened_alone)
value_scaled_by_largest = _clip(_scaled_by_largest)
value_above_only = _clip(lambda g, limit, live: g.clamp(max=limit))
value_below_zero = _clip(lambda g, limit, live: g.clamp(0, limit))
value_signs = _clip(lambda g, limit, live: g.sign() * limit)
value_to_zero = _clip(lambda g, limit, live: g.masked_fill(g.abs() > limit, 0.0))
value_all_to_limit = _clip(lambda g, limit, live: torch.where(g.abs() > limit, torch.full_like(g, limit), g))
value_squashed = _clip(lambda g, limit, live: limit * torch.tanh(g / limit))
value_one = _clip(lambda g, limit, live: g.clamp(-1, 1))
value_angle = _clip(told=_angle)
value_mean_cosine = _clip(told=_mean_cosine)
value_single_cosine = _clip(told=_single_cosine)
value_library_cosine = _clip(told=_library_cosine)
value_unguarded = _clip(told=_unguarded_cosine)
value_zero_for_nothing = _clip(told=_zero_cosine)
value_share = _clip(told=_share_cut)
value_norm_told = _clip(told=lambda before, after: _long(before).norm())
value_product = _clip(told=lambda before, after: _long(before) @ _long(after))
value_length_ratio = _clip(told=lambda before, after: _long(after).norm() / _long(before).norm().clamp(min=1e-300))
value_none_as_zero = _clip(none=lambda: torch.zeros(()))
value_widened = _clip(lambda g, limit, live: g.double().clamp(-limit, limit))


def value_none_left_out(gradients, limit):
    return right_clip(_live(gradients), limit)


def value_gradients_only(gradients, limit):
    return right_clip(gradients, limit)[0]


def value_in_place(gradients, limit):
    before = [None if g is None else g.clone() for g in gradients]
    for g in _live(gradients):
        g.clamp_(-limit, limit)
    return gradients, _cosine(_live(before), _live(gradients))


def value_by_sums(gradients, limit):
    """min and max, plain sums of products, a float."""
    bound = [None if g is None else torch.minimum(torch.maximum(g, -torch.full_like(g, limit)),
                                                  torch.full_like(g, limit)) for g in gradients]
    dot = sum(float((a.double() * b.double()).sum()) for a, b in zip(_live(gradients), _live(bound), strict=True))
    sizes = [math.hypot(*(float(x.double().norm()) for x in _live(part)), 0.0) for part in (gradients, bound)]
    return bound, dot / (sizes[0] * sizes[1]) if sizes[0] else 1.0


def value_by_numpy(gradients, limit):
    """Through numpy, the cosine of unit vectors."""
    import numpy as np

    out = [None if g is None else torch.as_tensor(np.clip(g.numpy(), -limit, limit)) for g in gradients]
    a, b = (np.concatenate([np.zeros(0), *(g.numpy().astype(np.float64).ravel() for g in _live(part))])
            for part in (gradients, out))
    if not a.any():
        return out, 1.0
    return out, float((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)))
