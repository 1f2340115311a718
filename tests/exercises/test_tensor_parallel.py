"""The oracles of the chapter on tensor parallelism against torch's own parallelize_module: results and gradients."""

from __future__ import annotations

import pytest
import torch

from autograde.exercises import find
from autograde.exercises.data_parallel.tensor_parallel.shared import spread
from autograde.judging.comparing import compare
from labkit import launch


def by_torch(kind, whole, xs, pulls):
    """What torch gives for the case of an exercise: the result, the gradient of x, this rank's parts of the others."""
    import warnings

    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    class Gated(nn.Module):
        def forward(self, x):
            return self.down(nn.functional.silu(self.gate(x)) * self.up(x))

    warnings.simplefilter("ignore")
    module, rank = Gated() if kind == "mlp" else nn.Module(), dist.get_rank()
    biases = {"mlp": {"down": "bias"}}.get(kind, {"only": "bias"})
    for name in ("gate", "up", "down") if kind == "mlp" else ("only",):
        weight, bias = whole["weight" if name == "only" else name], whole[biases[name]] if name in biases else None
        linear = nn.Linear(*weight.shape[::-1], bias=bias is not None)
        linear.weight.data.copy_(weight)
        if bias is not None:
            linear.bias.data.copy_(bias)
        setattr(module, name, linear)
    plans = {"column": {"only": ColwiseParallel()}, "row": {"only": RowwiseParallel()}}
    plans["mlp"] = {"gate": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
    module = parallelize_module(module, init_device_mesh("cpu", (dist.get_world_size(),)), plans[kind])
    x = xs[rank].clone().requires_grad_()
    y = module(x) if kind == "mlp" else module.only(x)
    (y * pulls[rank]).sum().backward()
    gradients = {name.removeprefix("only."): p.grad.to_local() for name, p in module.named_parameters()}
    gradients = {name.removesuffix(".weight").replace("down.bias", "bias"): g for name, g in gradients.items()}
    return {"y": y + 0.0, "gradient of x": x.grad, "gradients": gradients}


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("column", "ColumnParallelLinear"), ("row", "RowParallelLinear"), ("mlp", "TensorParallelMLP")],
)
def test_the_oracle_is_what_torch_gives(kind, name, ranks):
    g = torch.Generator().manual_seed(ranks)
    d, hidden = 5, 6 * ranks
    x, wide = torch.randn(4, d, generator=g), torch.randn(4, hidden, generator=g)
    if kind == "column":
        whole = {"weight": spread(g, hidden, d), "bias": spread(g, hidden)}
        given = [x] * ranks, list(wide.tensor_split(ranks, 1)), True
    elif kind == "row":
        whole = {"weight": spread(g, d, hidden), "bias": spread(g, d)}
        given = list(wide.tensor_split(ranks, 1)), [x] * ranks
    else:
        whole = {"gate": spread(g, hidden, d), "up": spread(g, hidden, d), "down": spread(g, d, hidden)}
        whole["bias"] = spread(g, d)
        given = [x] * ranks, [x.flip(0)] * ranks, True
    wanted = find(name).oracle(whole, *given)
    found = launch(by_torch, kind, whole, *given[:2], ranks=ranks)
    mismatch = compare(wanted, found, rtol=1e-4, atol=2e-5)
    assert mismatch is None, mismatch.message
