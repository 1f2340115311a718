"""What exercises of the chapter zero_and_fsdp share."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercises.data_parallel.shared import place

GATHERS = {"all_gather", "all_gather_into_tensor"}
SCATTERS = {"reduce_scatter", "reduce_scatter_tensor"}


def share(numbers, ranks):
    """How many numbers a rank holds of them."""
    return -(-numbers // ranks)


def joined(tensors, ranks):
    """All numbers in one vector, padded with zeros to a multiple of `ranks`."""
    flat = torch.cat([t.detach().flatten() for t in tensors])
    return torch.cat([flat, flat.new_zeros(share(len(flat), ranks) * ranks - len(flat))])


def gathered(part):
    """Every rank's part, one after the other, in one vector."""
    world = dist.get_world_size()
    full = part.new_empty(world * len(part))
    dist.all_gather(list(full.chunk(world)), part.contiguous())
    return full


def scattered(flat):
    """This rank's part of the sum of `flat` over the ranks."""
    rank, world = place()
    parts = list(flat.chunk(world))
    mine = torch.empty_like(parts[rank])
    dist.reduce_scatter(mine, parts)
    return mine


def sent(messages, ops):
    """Bytes that a rank handed in to some operations."""
    return sum(m.bytes for m in messages if m.op in ops)
