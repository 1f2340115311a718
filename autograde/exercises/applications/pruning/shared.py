"""What exercises of the chapter pruning share."""

from __future__ import annotations

import torch


def distinct(g, *shape, scale=1 / 64):
    """Numbers of both signs, no two of the same size; up to 256 of them are exact in bfloat16, too."""
    count = torch.Size(shape).numel()
    sizes = (torch.randperm(count, generator=g) + 1.0).reshape(shape)
    signs = torch.randint(2, shape, generator=g) * 2 - 1
    return sizes * signs * scale


def unlike_rows(g, *shape):
    """`distinct`, and each row of another size: the first the smallest, by factors which make no two of them equal."""
    return distinct(g, *shape) * 8.01 ** torch.arange(shape[0])[:, None]


def smallest(sizes, count):
    """True for the `count` smallest of the last dimension, of equal ones for those that stand first."""
    order = sizes.argsort(stable=True)
    return torch.zeros_like(sizes, dtype=torch.bool).scatter(-1, order[..., :count], True)
