"""What exercises of the chapter attention share."""

from __future__ import annotations

import math

import torch

LIBRARY = [
    "torch.nn.functional.scaled_dot_product_attention",
    "torch.nn.functional.multi_head_attention_forward",
    "torch.nn.MultiheadAttention",
    "transformers",
]


def some(g, *shape):
    """A mask that lets each query see at least one key, and hides at least one where there are two or more."""
    n = shape[-1]
    order = torch.rand(shape, generator=g).argsort(-1)
    return order < torch.randint(1, max(n, 2), (*shape[:-1], 1), generator=g)


def is_bool(out, one, call):
    return out.dtype is torch.bool or f"the mask should be a bool tensor, and is {out.dtype}"


def scores_of(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def nothing_seen_is_zero(weights):
    return weights.nan_to_num(0.0)


def attention(q, k, v, mask=None):
    return nothing_seen_is_zero(scores_of(q, k, mask).softmax(-1)) @ v


def scaled_by(factor):
    """Attention with another scale: `factor(q, k, v)` is what every score is multiplied by."""

    def wrong(q, k, v, mask=None):
        return attention(q * (factor(q, k, v) * math.sqrt(q.shape[-1])), k, v, mask)

    return wrong


def normalized(softmax):
    """Attention with another softmax over the masked scores."""

    def wrong(q, k, v, mask=None):
        weights = softmax(scores_of(q, k, mask))
        return (weights if mask is None else weights.masked_fill(~mask, 0.0)) @ v

    return wrong


def masked(apply):
    """Attention whose mask is brought in by `apply(scores, mask)`, before the softmax."""

    def wrong(q, k, v, mask=None):
        scores = scores_of(q, k)
        return nothing_seen_is_zero((scores if mask is None else apply(scores, mask)).softmax(-1)) @ v

    return wrong


not_scaled = scaled_by(lambda q, k, v: 1.0)

over_queries = normalized(lambda s: s.softmax(-2))

mask_ignored = masked(lambda s, m: s)

mask_inverted = masked(lambda s, m: s.masked_fill(m, -torch.inf))

mask_of_the_queries = masked(lambda s, m: s.masked_fill(~(m.mT if m.shape[-1] == m.shape[-2] else m), -torch.inf))

mean_of_all = masked(lambda s, m: s.masked_fill(~m, torch.finfo(s.dtype).min))


def nan_gradients(q, k, v, mask=None):
    """Adds -inf and replaces NaN after the softmax: the softmax's own gradient of such a row is NaN."""
    scores = scores_of(q, k)
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    return nothing_seen_is_zero(scores.softmax(-1)) @ v


def always_causal(q, k, v, mask=None):
    past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return attention(q, k, v, past if mask is None else mask & past)


def mask_after(q, k, v, mask=None):
    weights = scores_of(q, k).softmax(-1)
    return (weights if mask is None else weights * mask) @ v


def nan_rows(q, k, v, mask=None):
    return scores_of(q, k, mask).softmax(-1) @ v
