"""What exercises of the chapter communication share."""

from __future__ import annotations

import torch
import torch.distributed as dist


def mean_over_ranks(x):
    """Right: the mean of x over all ranks, as a new tensor."""
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()


def gathered(x):
    """Every rank's x, in the order of the ranks."""
    everyones = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, x.contiguous())
    return everyones


def other_calls(out, allowed):
    """What a solution calls besides `allowed`, as a sentence; empty if nothing."""
    other = {m.op for messages in out.traffic for m in messages} - set(allowed)
    return f"calls {', '.join(sorted(other))}, where only {' and '.join(allowed)} may be" if other else ""
