"""LoRA on the linear layers of a LLaMA's blocks: what A01.6, A04.1 and A04.4 share."""

from __future__ import annotations

import torch
from torch import nn


class Adapter(nn.Module):
    """A frozen linear layer and an update of low rank."""

    def __init__(self, linear: nn.Linear, r: int, alpha: float):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / r
        self.A = nn.Parameter(torch.empty(r, linear.in_features).uniform_(-1, 1) * linear.in_features**-0.5)
        self.B = nn.Parameter(torch.zeros(linear.out_features, r))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T


def adapt(layers, r: int, alpha: float) -> list[nn.Parameter]:
    """Put an adapter on every linear layer of the blocks; what is trained now."""
    found = []
    for block in layers:
        for parent in (block.self_attn, block.mlp):
            for name, part in list(parent.named_children()):
                if isinstance(part, nn.Linear):
                    adapter = Adapter(part, r, alpha)
                    setattr(parent, name, adapter)
                    found += [adapter.A, adapter.B]
    return found


def plain_again(layers) -> None:
    """Take the adapters off, unmerged: the blocks are as they were."""
    for block in layers:
        for parent in (block.self_attn, block.mlp):
            for name, part in list(parent.named_children()):
                if isinstance(part, Adapter):
                    setattr(parent, name, part.linear)
