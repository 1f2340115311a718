"""What exercises of the chapter efficient_attention share."""

from __future__ import annotations

import torch

LIBRARY = ["torch.nn.functional.scaled_dot_product_attention", "torch.nn.MultiheadAttention", "transformers"]


def attention(q, k, v, mask=None, scale=None):
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v
