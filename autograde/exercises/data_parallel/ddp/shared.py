"""What exercises of the chapter ddp share."""

from __future__ import annotations

import torch


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def grad_or_zeros(p):
    return torch.zeros_like(p) if p.grad is None else p.grad


def buckets_in_a_loop(sizes, cap):
    """Right: a bucket that holds `cap` bytes takes nothing more."""
    buckets = []
    for i, _ in enumerate(sizes):
        if not buckets or sum(sizes[j] for j in buckets[-1]) >= cap:
            buckets.append([])
        buckets[-1].append(i)
    return buckets
