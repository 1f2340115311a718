"""Right and wrong functions for the exercise `ring_reduce_scatter` of 03_data_parallel/02_all_reduce."""

from __future__ import annotations

import torch
import torch.distributed as dist


def place():
    """(rank, number of ranks)."""
    return dist.get_rank(), dist.get_world_size()


def swap(out, size, to=None, source=None):
    """Send `out` to the right neighbour while `size` numbers come from the left one."""
    rank, n = place()
    came = torch.empty(size, dtype=out.dtype)
    sending = dist.isend(out.contiguous(), (rank + 1) % n if to is None else to)
    dist.recv(came, (rank - 1) % n if source is None else source)
    sending.wait()
    return came


def swap_in_turns(out, size):
    """As `swap`, with blocking calls: odd ranks receive first."""
    rank, n = place()
    came = torch.empty(size, dtype=out.dtype)
    if rank % 2:
        dist.recv(came, (rank - 1) % n)
    dist.send(out.contiguous(), (rank + 1) % n)
    if not rank % 2:
        dist.recv(came, (rank - 1) % n)
    return came


def swap_in_a_batch(out, size):
    """As `swap`, the way NCCL wants it."""
    rank, n = place()
    came, out = torch.empty(size, dtype=out.dtype), out.contiguous()
    pair = [dist.P2POp(dist.isend, out, (rank + 1) % n), dist.P2POp(dist.irecv, came, (rank - 1) % n)]
    for work in dist.batch_isend_irecv(pair):
        work.wait()
    return came


def swap_both_send_first(out, size):
    rank, n = place()
    came = torch.empty(size, dtype=out.dtype)
    dist.send(out.contiguous(), (rank + 1) % n)
    dist.recv(came, (rank - 1) % n)
    return came


def swap_as_float32(out, size):
    rank, n = place()
    came = torch.empty(size)
    sending = dist.isend(out.contiguous(), (rank + 1) % n)
    dist.recv(came, (rank - 1) % n)
    sending.wait()
    return came


def copies(x):
    return [chunk.clone() for chunk in x.tensor_split(dist.get_world_size())]


# ---- ring_reduce_scatter --------------------------------------------------------------------------------------------


def scatter_chunks(x, swap=swap, chunks=None, late=1, partial=True, extra=0):
    """Right as it stands. `late`: which chunk leaves first, counted back from the rank's own number.

    The others say what a mistake does: sends only what it came with (not `partial`), makes `extra` steps.
    """
    rank, n = place()
    mine = copies(x) if chunks is None else chunks
    fresh = [chunk.clone() for chunk in mine]
    for step in range(n - 1 + extra * (n > 1)):
        out, into = (rank - late - step) % n, (rank - late - 1 - step) % n
        mine[into] += swap((mine if partial else fresh)[out], len(mine[into]))
    return mine[rank]


def scatter_in_turns(x):
    """Right: blocking calls, odd ranks receive first."""
    return scatter_chunks(x, swap_in_turns)


def scatter_parcels(x, added=2, missing=0):
    """Right as it stands: only the chunk that is under way is kept, in batches of one send and one receive.

    A mistake adds another chunk to the one that arrives (`added` places back), or leaves out the last steps.
    """
    rank, n = place()
    own = x.tensor_split(n)
    parcel = own[rank - 1]
    for step in range(n - 1 - missing):
        parcel = swap_in_a_batch(parcel, len(own[(rank - 2 - step) % n])).clone()
        mine = own[(rank - added - step) % n][: len(parcel)]
        parcel[: len(mine)] += mine
    return parcel


def scatter_deadlock(x):
    return scatter_chunks(x, swap_both_send_first)


def scatter_as_float32(x):
    return scatter_chunks(x, swap_as_float32)


def scatter_in_place(x):
    return scatter_chunks(x, chunks=list(x.tensor_split(dist.get_world_size())))


def scatter_next_chunk(x):
    """The textbook's own numbering: rank r starts with chunk r and ends with chunk r + 1."""
    rank, n = place()
    mine = copies(x)
    scatter_chunks(x, chunks=mine, late=0)
    return mine[(rank + 1) % n]


def scatter_own_chunk_too_early(x):
    return scatter_chunks(x, late=0)


def scatter_without_partial_sums(x):
    return scatter_chunks(x, partial=False)


def scatter_adds_wrong_chunk(x):
    return scatter_parcels(x, added=1)


def scatter_extra_step(x):
    return scatter_chunks(x, extra=1)


def scatter_short_of_a_step(x):
    return scatter_parcels(x, missing=1)


def scatter_mean(x):
    return scatter_chunks(x) / dist.get_world_size()


def scatter_without_own(x):
    rank, n = place()
    return scatter_chunks(x) - (x.tensor_split(n)[rank] if n > 1 else 0)


def scatter_with_chunk(x):
    """torch.chunk cuts ceil(length / n) numbers each, and may give fewer chunks than asked for."""
    n = dist.get_world_size()
    chunks = [c.clone() for c in x.chunk(n)]
    return scatter_chunks(x, chunks=chunks + [x.new_empty(0)] * (n - len(chunks)))


def scatter_drops_the_rest(x):
    n = dist.get_world_size()
    return scatter_chunks(x[: len(x) // n * n])


def scatter_whole_vectors(x):
    """The whole vector goes round, and everybody adds all of it."""
    rank, n = place()
    total, passing = x.clone(), x
    for _ in range(n - 1):
        passing = swap(passing, len(x))
        total += passing
    return total.tensor_split(n)[rank]


def scatter_directly(x):
    """Every chunk goes straight to its owner."""
    rank, n = place()
    chunks = x.tensor_split(n)
    total = chunks[rank].clone()
    for step in range(1, n):
        total += swap(chunks[(rank + step) % n], len(total), (rank + step) % n, (rank - step) % n)
    return total


def scatter_at_rank_0(x):
    """Rank 0 gathers everything, adds, and deals out."""
    rank, n = place()
    if rank:
        dist.send(x.contiguous(), 0)
        mine = torch.empty_like(x.tensor_split(n)[rank])
        dist.recv(mine, 0)
        return mine
    chunks = sum_at_rank_0(x).tensor_split(n)
    for other in range(1, n):
        dist.send(chunks[other].contiguous(), other)
    return chunks[0]


def sum_at_rank_0(x):
    total, came = x.clone(), torch.empty_like(x)
    for other in range(1, dist.get_world_size()):
        dist.recv(came, other)
        total += came
    return total
