"""The right answers of 05_zero_and_fsdp, held against what torch itself does on two ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercises import find
from labkit import launch


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))


def rows():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))[dist.get_rank() :: dist.get_world_size()]


def stepped_by_torch_and_by_hand():
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    theirs, ours = DistributedDataParallel(small_net()), small_net()
    zero = ZeroRedundancyOptimizer(theirs.parameters(), torch.optim.AdamW, lr=0.1)
    params = list(ours.parameters())
    shard_flat, zero1_step = (find(name).alternatives[0] for name in ("shard_flat", "zero1_step"))
    part = nn.Parameter(shard_flat(params, dist.get_rank(), dist.get_world_size()))
    optimizer = torch.optim.AdamW([part], lr=0.1)
    for _ in range(3):
        theirs.zero_grad()
        for model in (theirs, ours):
            model(rows()).square().mean().backward()
        zero.step()
        zero1_step(params, part, optimizer)
    return [p.detach() for p in theirs.parameters()], [p.detach() for p in params]


def gradients_of_fully_shard_and_of_units():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    theirs, ours = small_net(), small_net()
    sizes = [p.numel() for p in ours[0].parameters()], [p.numel() for p in ours[2].parameters()]
    fully_shard(theirs, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    unit = find("FSDP").alternatives[0]
    ours[0], ours[2] = unit(ours[0]), unit(ours[2])
    for model in (theirs, ours):
        model(rows()).square().mean().backward()
    right = [p.grad.full_tensor().flatten() for p in theirs.parameters()]
    return torch.cat(right), [ours[0].part.grad, ours[2].part.grad], [sum(of_unit) for of_unit in sizes]


def test_a_step_of_zero_1_is_that_of_the_zero_redundancy_optimizer():
    for theirs, ours in launch(stepped_by_torch_and_by_hand, ranks=2):
        for a, b in zip(theirs, ours, strict=True):
            torch.testing.assert_close(a, b)


def test_the_parts_gradients_are_those_of_fully_shard():
    found = launch(gradients_of_fully_shard_and_of_units, ranks=2)
    right, _, sizes = found[0]
    for u, of_unit in enumerate(right.split(sizes)):
        joined = torch.cat([parts[u] for _, parts, _ in found])
        torch.testing.assert_close(joined[: sizes[u]], of_unit)
