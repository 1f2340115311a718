"""What exercises of the chapter rope share."""

from __future__ import annotations

import functools
import math

import torch

from autograde.borrowed import borrowed

BASE = 10_000.0


def config_of(d, length=2048, **rope):
    """What transformers' rotary code reads of a model's config, on the library's own base class for it."""
    config = borrowed("transformers.modeling_rope_utils", "RotaryEmbeddingConfigMixin")()
    config.hidden_size, config.num_attention_heads, config.head_dim = d, 1, d
    config.max_position_embeddings, config.rope_parameters = length, rope
    return config


@functools.lru_cache(maxsize=64)
def rotary(d, base):
    """transformers' LLaMA rotary module for one head of d dimensions."""
    embedding = borrowed("transformers.models.llama.modeling_llama", "LlamaRotaryEmbedding")
    return embedding(config_of(d, rope_type="default", rope_theta=base))


def hf_rotation(x, positions, base=BASE):
    apply_rotary_pos_emb = borrowed("transformers.models.llama.modeling_llama", "apply_rotary_pos_emb")
    rows = x.float().reshape(1, 1, -1, x.shape[-1])
    places = positions.expand(x.shape[:-1]).reshape(1, -1)
    cos, sin = rotary(x.shape[-1], float(base))(rows, places)
    return apply_rotary_pos_emb(rows, rows, cos, sin)[0].reshape(x.shape).to(x.dtype)


def randint(g, low, high, *shape):
    return torch.randint(low, high, shape, generator=g)


def distinct(g, n, high):
    """n positions below `high` in no order."""
    return torch.randperm(high, generator=g)[:n]


def option(one, name, at, default):
    """A parameter of a case, passed by keyword or as argument number `at`."""
    return one.kwargs.get(name, one.args[at] if len(one.args) > at else default)


def speeds(d, base=BASE):
    return base ** (-torch.arange(0, d, 2, dtype=torch.float32) / d)


def angles_with(speeds):
    """`rope_angles` with other speeds: `speeds(d, base)` gives [d/2] radians a position."""

    def rope_angles(positions, d, base=BASE):
        return positions[..., None].float() * speeds(d, base)

    return rope_angles


angles = angles_with(speeds)

base_fixed = angles_with(lambda d, base: speeds(d))


def counted_by_index(positions, d, base=BASE):
    return angles(torch.arange(positions.shape[-1]).expand(positions.shape), d, base)


def angles_by_loop(positions, d, base=BASE):
    rows = [[p * math.exp(-2 * i / d * math.log(base)) for i in range(d // 2)] for p in positions.flatten().tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(*positions.shape, d // 2)


def halves(x):
    return x.chunk(2, -1)


def rotate_half(x):
    first, second = halves(x)
    return torch.cat([-second, first], -1)


def repeated(angle):
    return torch.cat([angle, angle], -1)


def rotation_made_of(turn=rotate_half, spread=repeated, angle=angles):
    """`apply_rope` from its three parts: the quarter turn, how d/2 angles become d, and the angles."""

    def apply_rope(x, positions, base=BASE):
        a = spread(angle(positions, x.shape[-1], base))
        return (x.float() * a.cos() + turn(x.float()) * a.sin()).to(x.dtype)

    return apply_rope


rotation = rotation_made_of()

backwards = rotation_made_of(turn=lambda x: -rotate_half(x))

positions_ignored = rotation_made_of(angle=counted_by_index)


def rotation_by_complex(x, positions, base=BASE):
    pairs = torch.view_as_complex(torch.stack(x.double().chunk(2, -1), -1))
    a = angles_by_loop(positions, x.shape[-1], base)
    return torch.cat([(z := pairs * torch.exp(1j * a)).real, z.imag], -1).to(x.dtype)
