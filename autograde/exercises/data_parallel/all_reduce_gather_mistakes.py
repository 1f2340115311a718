"""Right and wrong functions for the exercise `ring_all_gather` of 03_data_parallel/02_all_reduce."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercises.data_parallel.all_reduce_scatter_mistakes import (
    place,
    swap,
    swap_both_send_first,
    swap_in_turns,
)


def gather_pieces(chunk, sizes, swap=swap, shift=0, own_again=False, extra=0, buffer=None):
    """Right as it stands: the chunks of all ranks, in their order, as a list.

    A mistake stores a chunk `shift` places off, sends its `own_again`, makes `extra` steps, or reuses one `buffer`.
    """
    rank, n = place()
    pieces = [chunk.new_zeros(size) for size in sizes]
    pieces[rank] = passing = chunk
    for step in range(n - 1 + extra * (n > 1)):
        source = (rank - 1 - step) % n
        passing = swap(chunk if own_again else passing, sizes[source] if not own_again else sizes[rank - 1])
        if buffer is not None:
            buffer[: len(passing)] = passing
            passing = buffer[: len(passing)]
        pieces[(source + shift) % n] = passing
    return pieces


def gather_cat(chunk, sizes):
    """Right: a list of pieces, one after the other."""
    return torch.cat(gather_pieces(chunk, sizes, swap_in_turns))


def gather_into_place(chunk, sizes):
    """Right: what arrives goes straight to its place in the result."""
    rank, n = place()
    result = chunk.new_empty(sum(sizes))
    views = result.split(list(sizes))
    views[rank].copy_(chunk)
    for step in range(n - 1):
        works = [
            dist.irecv(views[(rank - 1 - step) % n], (rank - 1) % n),
            dist.isend(views[(rank - step) % n], (rank + 1) % n),
        ]
        for work in works:
            work.wait()
    return result


def gather_deadlock(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, swap_both_send_first))


def gather_one_place_off(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, shift=1))


def gather_own_again(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, own_again=True))


def gather_extra_step(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, extra=1))


def gather_short_of_a_step(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, extra=-1))


def gather_in_one_buffer(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, buffer=chunk.new_empty(max(sizes))))


def gather_in_order_of_arrival(chunk, sizes):
    rank, n = place()
    pieces = gather_pieces(chunk, sizes)
    return torch.cat([pieces[(rank - step) % n] for step in range(n)])


def gather_without_own(chunk, sizes):
    pieces = gather_pieces(chunk, sizes)
    pieces[dist.get_rank()] = torch.zeros_like(chunk)
    return torch.cat(pieces)


def gather_as_a_list(chunk, sizes):
    return gather_pieces(chunk, sizes)


def gather_sizes_like_own(chunk, sizes):
    """Every chunk is taken to be as long as this rank's own."""
    return torch.cat(gather_pieces(chunk, [len(chunk)] * len(sizes)))


def gather_directly(chunk, sizes):
    """Everybody sends its chunk to everybody."""
    rank, n = place()
    pieces = [chunk] * n
    for step in range(1, n):
        source = (rank - step) % n
        pieces[source] = swap(chunk, sizes[source], (rank + step) % n, source)
    return torch.cat(pieces)


def gather_at_rank_0(chunk, sizes):
    """Rank 0 gathers everything and sends all of it to everybody."""
    rank, n = place()
    result = chunk.new_empty(sum(sizes))
    if rank:
        dist.send(chunk.contiguous(), 0)
        dist.recv(result, 0)
        return result
    views = result.split(list(sizes))
    views[0].copy_(chunk)
    for other in range(1, n):
        dist.recv(views[other], other)
    for other in range(1, n):
        dist.send(result, other)
    return result
