"""What exercises of several chapters of transformer share."""

from __future__ import annotations

import torch


def mask_of(one):
    return one.kwargs.get("mask", one.args[3] if len(one.args) > 3 else None)


class Still(torch.optim.Optimizer):
    """An optimizer that never moves, for what asks one for its learning rate or its parameters.

    torch's own ones, and Optimizer itself, import torch._dynamo when they are first made: a second's work.
    """

    def __init__(self, parameters=(), lr=1.0):
        self.defaults, self.param_groups = {"lr": lr}, [{"lr": lr, "params": list(parameters)}]

    def step(self, closure=None):
        pass
