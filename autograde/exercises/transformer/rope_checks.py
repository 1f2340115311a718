"""What the exercises on rotary position embedding are judged by: transformers' own code, cases and laws.

Positions stay below about 4,000 where their cosines are compared: a float32 angle is then off by less than 1e-3, so
that solutions with float32 and with float64 angles both pass.
"""

from __future__ import annotations

import functools
import math

import torch

from autograde.exercise import case, same

BASE = 10_000.0


# ---- what transformers does -----------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=64)
def _rotary(d, base):
    """transformers' LLaMA rotary module for one head of d dimensions."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    return LlamaRotaryEmbedding(_config(d, rope_type="default", rope_theta=base))


def _config(d, length=2048, **rope):
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=d, num_attention_heads=1, head_dim=d, max_position_embeddings=length, rope_parameters=rope
    )


def hf_angles(positions, d, base=BASE):
    return positions[..., None].float() * _rotary(d, float(base)).inv_freq


def hf_rotation(x, positions, base=BASE):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rows = x.float().reshape(1, 1, -1, x.shape[-1])
    places = positions.expand(x.shape[:-1]).reshape(1, -1)
    cos, sin = _rotary(x.shape[-1], float(base))(rows, places)
    return apply_rotary_pos_emb(rows, rows, cos, sin)[0].reshape(x.shape).to(x.dtype)


def hf_scores(q, k, q_positions, k_positions, base=BASE, causal=True):
    scores = hf_rotation(q, q_positions, base) @ hf_rotation(k, k_positions, base).mT * q.shape[-1] ** -0.5
    later = k_positions[..., None, :] > q_positions[..., :, None]
    return scores.masked_fill(later, -torch.inf) if causal else scores


def hf_scaling(kind, factor, d, trained_length, base=BASE):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if kind == "ntk":
        # transformers has the dynamic form only; with factor 1 at factor * trained_length it is the fixed form.
        config = _config(d, trained_length, rope_type="dynamic", rope_theta=base, factor=1.0)
        return ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=factor * trained_length)
    config = _config(
        d, trained_length, rope_type=kind, rope_theta=base, factor=factor,
        **({"original_max_position_embeddings": trained_length} if kind == "yarn" else {}),
    )
    return ROPE_INIT_FUNCTIONS[kind](config)


# ---- what the exercises share ---------------------------------------------------------------------------------------

def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


def _randint(g, low, high, *shape):
    return torch.randint(low, high, shape, generator=g)


def _distinct(g, n, high):
    """n positions below `high` in no order."""
    return torch.randperm(high, generator=g)[:n]


def _option(one, name, at, default):
    """A parameter of a case, passed by keyword or as argument number `at`."""
    return one.kwargs.get(name, one.args[at] if len(one.args) > at else default)


# ---- rope_angles ----------------------------------------------------------------------------------------------------

def angle_cases(g):
    yield case(torch.arange(1, 5), 8, label="positions 1 to 4, four pairs")
    yield case(_randint(g, 1, 50, 1), 2, label="one position, one pair")
    yield case(torch.arange(5), 16, base=500_000.0, label="LLaMA 3's base, by keyword")
    yield case(_randint(g, 2, 2_000, 6), 6, label="any order, an odd number of pairs")
    yield case(_randint(g, -90, -1, 3), 8, label="negative positions")
    yield case(torch.arange(7).repeat(2), 8, 100.0, label="repeated positions, base 100")
    yield case(_randint(g, 1, 300, 2, 5), 8, label="one row of positions a sequence")
    yield case(_randint(g, 1, 300, 3, 1, 4).mT, 4, label="three dimensions, not contiguous")
    yield case(_randn(g, 5) * 20, 12, label="positions between the integers")
    yield case(_randint(g, 100_000, 200_000, 3), 8, base=1e6, label="positions beyond 100,000")


def from_zero(out, one, call):
    return same(call(torch.zeros(3), 8, _option(one, "base", 2, BASE)), torch.zeros(3, 4))


def unit_pair(out, one, call):
    return same(out[..., 0].double(), one.args[0].double())


def doubles(out, one, call):
    positions, d = one.args[:2]
    return same(call(2 * positions, d, _option(one, "base", 2, BASE)), 2 * out.double())


def ladder(out, one, call):
    d = one.args[1]
    if d == 2:
        return None
    speeds = call(torch.ones(1), d, _option(one, "base", 2, BASE))[0].double()
    return same(speeds[:-1] / speeds[1:], torch.full((d // 2 - 1,), _option(one, "base", 2, BASE) ** (2 / d)).double())


# ---- apply_rope -----------------------------------------------------------------------------------------------------

def rotation_cases(g):
    yield case(_randn(g, 5, 8), torch.arange(1, 6), label="one sequence")
    yield case(_randn(g, 2, 3, 7, 4), torch.arange(2, 9), label="[batch, heads, n, d], odd length")
    yield case(_randn(g, 1, 1, 1, 8), _randint(g, 3, 40, 1), label="one head, one token")
    yield case(_randn(g, 4, 2) + 1, torch.arange(3, 7), label="a single pair")
    yield case(_randn(g, 3, 16), torch.arange(20, 23), base=500_000.0, label="LLaMA 3's base, by keyword")
    yield case(_randn(g, 2, 6, 8), _distinct(g, 6, 300) + 2, label="positions in any order")
    yield case(_randn(g, 3, 12), torch.full((3,), 9), label="the same position three times")
    yield case(_randn(g, 4, 8), _randint(g, -60, -2, 4), label="negative positions")
    yield case(_randn(g, 2, 3, 5, 8), _randint(g, 2, 90, 2, 1, 5), label="positions [batch, 1, n]")
    yield case(_randn(g, 2, 5, 3, 8).transpose(1, 2), torch.arange(4, 9), 100.0, label="not contiguous, base 100")
    yield case(_randn(g, 3, 8), _distinct(g, 3, 900) + 3_000.5, label="far away and between integers")
    yield case(_randn(g, 1, 6, 16).bfloat16(), _distinct(g, 6, 900) + 1_001, label="bfloat16")


def keeps_length(out, one, call):
    before, after = (x.double().norm(dim=-1) for x in (one.args[0], out))
    loose = 2e-2 if out.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return same(after, before, rtol=loose, atol=loose)


def still_at_zero(out, one, call):
    x = one.args[0]
    return same(call(x, torch.zeros(x.shape[-2], dtype=torch.long), _option(one, "base", 2, BASE)), x)


_Q, _K = torch.linspace(1.0, 0.3, 8), torch.linspace(0.4, 1.2, 8)


def _score_at(call, m, n, base):
    """The dot product of a fixed query at position m and a fixed key at position n."""
    q, k = call(torch.stack([_Q, _K]).double(), torch.tensor([m, n]), base)
    return q @ k


def relative(out, one, call):
    base = _option(one, "base", 2, BASE)
    near, far, moved = (_score_at(call, *at, base) for at in [(1, 0), (4, 0), (47, 43)])
    if not same(far, moved, rtol=1e-3, atol=1e-3):
        return f"positions 4 and 0 score {far:.4f}, positions 47 and 43 score {moved:.4f}"
    return not same(near, far, rtol=1e-2, atol=1e-2) or "the score is the same at distance 1 and at distance 4"


# ---- rope_attention_scores ------------------------------------------------------------------------------------------

def score_cases(g):
    def call(q, k, at_q, at_k, *args, label, **kwargs):
        return case(_randn(g, *q), _randn(g, *k), at_q, at_k, *args, label=label, **kwargs)

    n = torch.arange(1, 8)
    far = _distinct(g, 5, 400) + 600
    yield call((4, 8), (4, 8), n[:4], n[:4], label="one head")
    yield call((2, 3, 7, 4), (2, 3, 7, 4), n, n, label="[batch, heads, n, d], odd length")
    yield call((1, 2, 1, 8), (1, 2, 6, 8), torch.tensor([7]), n[1:], label="decoding: one new query, six cached keys")
    yield call((3, 8), (7, 8), n[2:5], n, label="a chunk of three queries, four earlier keys")
    yield call((3, 8), (3, 8), n[:3] + 20, n[:3] + 20, base=500_000.0, label="another base, by keyword")
    yield call((4, 16), (5, 16), far[:4], far, causal=False, label="no mask, any order, by keyword")
    yield call((5, 6), (5, 6), far, far, label="any order: the mask follows positions")
    each = torch.stack([n[:3] + 4, n[:3] + 9])[:, None]
    yield call((2, 2, 3, 8), (2, 2, 3, 8), each, each, label="positions [batch, 1, n]")
    yield call((6, 4), (6, 4), -n[:6], -n[:6], 100.0, False, label="negative positions, no mask")


def _finite(x):
    return x.double().masked_fill(~torch.isfinite(x), 0.0)


def shift(out, one, call):
    q, k, m, n, *rest = one.args
    moved = call(q, k, m + 37, n + 37, *rest, **one.kwargs)
    return moved.shape == out.shape and same(_finite(moved), _finite(out), rtol=1e-3, atol=2e-3)


def distance_counts(out, one, call):
    q, k, m, n, *rest = one.args
    near, far = (call(q, k, m + gap, n, _option(one, "base", 4, BASE), False) for gap in (1, 4))
    return not same(near, far, rtol=1e-2, atol=1e-2)


def mask_by_position(out, one, call):
    q, k, m, n = one.args[:4]
    hidden = (n[..., None, :] > m[..., :, None]).expand(out.shape)
    wanted = hidden & _option(one, "causal", 5, True)
    return torch.equal(out == -torch.inf, wanted)


def plain_at_same_place(out, one, call):
    q, k, m, n = one.args[:4]
    here = call(q, k, torch.full_like(m, 5), torch.full_like(n, 5), _option(one, "base", 4, BASE), False)
    return same(here, q @ k.mT / q.shape[-1] ** 0.5, rtol=1e-3, atol=1e-3)


# ---- scale_rope -----------------------------------------------------------------------------------------------------

def scaling_cases(g):
    def factor(low, high):
        return low + (high - low) * float(torch.rand(1, generator=g))

    for kind in ("linear", "ntk", "yarn"):
        yield case(kind, factor(2, 4), 64, 2_048, label=f"{kind}: LLaMA's head, trained on 2,048")
        yield case(kind, factor(4, 9), 16, 512, base=500_000.0, label=f"{kind}: another base, by keyword")
        yield case(kind, factor(8, 32), 128, 8_192, 1_000_000.0, label=f"{kind}: a wide head, a large factor")
    yield case("ntk", 2, 4, 64, label="ntk: two pairs, a whole factor")
    yield case("yarn", factor(2, 4), 32, 100_000, label="yarn: trained so long that every pair has gone round")
    yield case("yarn", factor(2, 4), 32, 64, label="yarn: trained on 64 tokens only")


def _plain_speeds(d, base):
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def _close(got, expected):
    return same(torch.as_tensor(got).double(), torch.as_tensor(expected).double(), atol=1e-9)


def _scaled(out, one):
    """The kind, the factor, the plain speeds, and the new ones in float64."""
    kind, factor, d = one.args[:3]
    base = _option(one, "base", 4, BASE)
    return kind, factor, _plain_speeds(d, base), out[0].double()


def neutral_factor(out, one, call):
    kind, _, plain, _ = _scaled(out, one)
    speeds, attention = call(kind, 1.0, *one.args[2:], **one.kwargs)
    return _close(speeds, plain) and _close(attention, 1.0)


def fastest_kept(out, one, call):
    kind, _, plain, new = _scaled(out, one)
    return None if kind == "linear" else _close(new[0], plain[0])


def slowest_slowed(out, one, call):
    kind, factor, plain, new = _scaled(out, one)
    if kind == "yarn" and one.args[3] * plain[-1] > 2 * math.pi:
        return None  # even the slowest pair has gone round in training
    return _close(new[-1], plain[-1] / factor)


def within(out, one, call):
    _, factor, plain, new = _scaled(out, one)
    return bool(((new <= plain * 1.0001) & (new >= plain / factor * 0.9999)).all())


def attention_factor(out, one, call):
    kind, factor = one.args[:2]
    return float(out[1]) > 1 if kind == "yarn" else float(out[1]) == 1
