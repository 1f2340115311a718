"""What exercises of the chapter normalization share."""

from __future__ import annotations

import torch

from autograde.exercise import same
from autograde.exercises.shared import randn

READY_MADE = [f"torch.nn.functional.{name}_norm" for name in ("layer", "rms", "batch", "group", "instance")]


def coarse(x):
    return x.dtype in (torch.float16, torch.bfloat16)


def ordinary(x):
    """Whether every row varies so much that eps does not count, in numbers with digits enough to see it."""
    return x.shape[-1] > 1 and not coarse(x) and bool((x.var(-1, correction=0) > 0.05).all())


def tight(a, b, scale=1.0):
    return same(a, b, rtol=1e-3, atol=1e-3 * scale)


def own_row(out, one, call):
    x = one.args[0]
    if x.ndim < 2 or len(x) < 2:
        return None
    return same(call(x[:1].clone(), *one.args[1:], **one.kwargs), out[:1])


def far(g, *shape):
    """Numbers far from zero beside their spread: a difference of squares keeps nothing of it in float32."""
    return randn(g, *shape) * 0.1 + 100


def affine(y, weight, bias=None):
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
