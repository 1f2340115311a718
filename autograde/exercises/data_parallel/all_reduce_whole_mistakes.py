"""Right and wrong functions for the exercise `ring_all_reduce` of 03_data_parallel/02_all_reduce."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercises.data_parallel.all_reduce_gather_mistakes import gather_pieces
from autograde.exercises.data_parallel.all_reduce_scatter_mistakes import (
    place,
    scatter_chunks,
    sum_at_rank_0,
    swap,
    swap_in_turns,
)


def reduce_in_two_rounds(x, mean=False):
    """Right: the flattened tensor, both halves of the ring, the old shape."""
    flat = x.flatten()
    total = torch.cat(gather_pieces(scatter_chunks(flat), [len(c) for c in flat.tensor_split(dist.get_world_size())]))
    return (total / dist.get_world_size() if mean else total).reshape(x.shape)


def reduce_padded(x, mean=False):
    """Right: zeros make the chunks equally long, one row of a table each."""
    rank, n = place()
    padded = torch.zeros(-(-x.numel() // n) * n, dtype=x.dtype)
    padded[: x.numel()] = x.reshape(-1)
    table = padded.reshape(n, -1)
    for step in range(2 * (n - 1)):
        into = (rank - 1 - step) % n
        came = swap_in_turns(table[(rank - step) % n], table.shape[1])
        table[into] = table[into] + came if step < n - 1 else came
    total = table.flatten()[: x.numel()].reshape(x.shape)
    return total / n if mean else total


def reduce_always_sums(x, mean=False):
    return reduce_in_two_rounds(x)


def reduce_always_means(x, mean=False):
    return reduce_in_two_rounds(x, mean=True)


def reduce_divides_twice(x, mean=False):
    total = reduce_in_two_rounds(x, mean)
    return total / dist.get_world_size() if mean else total


def reduce_forgets_the_shape(x, mean=False):
    return reduce_in_two_rounds(x, mean).flatten()


def reduce_drops_the_rest(x, mean=False):
    flat, n = x.flatten(), dist.get_world_size()
    whole = len(flat) // n * n
    return torch.cat([reduce_in_two_rounds(flat[:whole], mean), flat[whole:]]).reshape(x.shape)


def reduce_half_way(x, mean=False):
    """After the reduce-scatter every rank puts its chunk into its own tensor."""
    rank, n = place()
    flat = x.flatten()
    chunks = list(flat.tensor_split(n))
    chunks[rank] = scatter_chunks(flat) / (n if mean else 1)
    return torch.cat(chunks).reshape(x.shape)


def reduce_in_place(x, mean=False):
    return x.copy_(reduce_in_two_rounds(x, mean))


def reduce_whole_tensors(x, mean=False):
    """The whole tensor goes round, and every rank adds in its own order."""
    total, passing = x.clone(), x
    for _ in range(dist.get_world_size() - 1):
        passing = swap(passing.reshape(-1), x.numel()).reshape(x.shape)
        total += passing
    return total / dist.get_world_size() if mean else total


def reduce_among_all(x, mean=False):
    """Everybody sends everything to everybody, and adds in its own order."""
    rank, n = place()
    total = x.clone()
    for step in range(1, n):
        total += swap(x.reshape(-1), x.numel(), (rank + step) % n, (rank - step) % n).reshape(x.shape)
    return total / n if mean else total


def reduce_at_rank_0(x, mean=False, tell=True):
    """Rank 0 gathers, adds and tells everybody."""
    rank, n = place()
    x = x.contiguous()
    if rank:
        dist.send(x, 0)
        result = torch.empty_like(x) if tell else x
        return _received(result, 0) if tell else result
    total = sum_at_rank_0(x)
    total = total / n if mean else total
    for other in range(1, n) if tell else ():
        dist.send(total, other)
    return total


def _received(result, source):
    dist.recv(result, source)
    return result


def reduce_only_on_rank_0(x, mean=False):
    return reduce_at_rank_0(x, mean, tell=False)


def reduce_along_a_chain(x, mean=False):
    """0 to 1 to 2 … and the total back again: whole tensors, one link at a time."""
    rank, n = place()
    total = x.contiguous().clone()
    came = torch.empty_like(total)
    if rank:
        dist.recv(came, rank - 1)
        total += came
    if rank < n - 1:
        dist.send(total, rank + 1)
        dist.recv(total, rank + 1)
    if rank:
        dist.send(total, rank - 1)
    return total / n if mean else total
