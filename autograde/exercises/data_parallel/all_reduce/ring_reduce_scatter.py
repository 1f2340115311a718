"""`ring_reduce_scatter(x)`: This rank's chunk of the sum of x over all ranks, by a ring of sends and receives."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.all_reduce.shared import (
    copies,
    judged,
    keeps_dtype,
    on_own_part,
    only_neighbors,
    scatter_chunks,
    shares,
    sum_at_rank_0,
    swap,
    swap_both_send_first,
    swap_in_turns,
)
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.shared import pick

exercise = Draft(
    "ring_reduce_scatter",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    strides=False,
    hints=[
        "Follow one chunk: it starts one place to the right of its own rank, and every rank that it visits adds its "
        "part. Now ask what rank r does in step s.",
        "In step s rank r sends chunk (r - 1 - s) % n and receives chunk (r - 2 - s) % n, to which it adds its own "
        "part. All ranks send and receive at the same time: isend, recv, wait.",
        "chunks = [c.clone() for c in x.tensor_split(n)]; in each of n - 1 steps: came = torch.empty_like(chunks[into])"
        ", work = dist.isend(chunks[out], right), dist.recv(came, left), work.wait(), chunks[into] += came. "
        "Return chunks[rank].",
    ],
)


def vectors(g, n, length, label, scale=1.0, dtype=torch.float32):
    """A case with one vector a rank. What is scaled up is a whole number, so that adding it up is exact."""
    if scale == 1.0 and dtype.is_floating_point:
        return case(torch.randn(n, length, generator=g, dtype=dtype), ranks=n, label=label)
    x = (scale * torch.randint(-9, 10, (n, length), generator=g)).to(dtype)
    return case(x, ranks=n, label=label)


@exercise.cases
def scatter_cases(g):
    k = pick(g, 2, 4)
    yield vectors(g, 3, 3 * k + 2, "two more than divides evenly", dtype=torch.float64)
    yield vectors(g, 3, 3 * k + 1, "whole numbers (int64)", dtype=torch.int64)
    yield vectors(g, 4, 4 * k + 1, "four ranks, large numbers", scale=1e4)
    yield vectors(g, 4, pick(g, 2, 3), "fewer numbers than ranks")
    yield vectors(g, 1, k, "one rank alone")


@exercise.oracle
def sums(xs):
    total = xs.sum(0) if xs.is_floating_point() else xs.sum(0, dtype=xs.dtype)
    return list(total.tensor_split(len(xs)))


exercise.probe(on_own_part)

exercise.agrees(judged(sums))

exercise.law("Every rank sends to its right neighbor and receives from its left one")(only_neighbors)


def _vector_chunks(one):
    xs = one.args[0]
    return [len(c) * xs.element_size() for c in xs[0].tensor_split(len(xs))]


exercise.law("Every rank sends n - 1 messages: all chunks but its own", essential=True)(
    shares(_vector_chunks, lambda r, n: r)
)

exercise.law("Gives back the dtype of x")(keeps_dtype)


def swap_in_a_batch(out, size):
    """As `swap`, the way NCCL wants it."""
    rank, n = place()
    came, out = torch.empty(size, dtype=out.dtype), out.contiguous()
    pair = [dist.P2POp(dist.isend, out, (rank + 1) % n), dist.P2POp(dist.irecv, came, (rank - 1) % n)]
    for work in dist.batch_isend_irecv(pair):
        work.wait()
    return came


@exercise.alternative
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


@exercise.mistake(
    "rank r ends with chunk r + 1, because it starts by sending chunk r",
    hint="A chunk makes n - 1 hops and must end at its own rank. So at which rank does it start?",
)
def scatter_next_chunk(x):
    """The textbook's own numbering: rank r starts with chunk r and ends with chunk r + 1."""
    rank, n = place()
    mine = copies(x)
    scatter_chunks(x, chunks=mine, late=0)
    return mine[(rank + 1) % n]


@exercise.mistake(
    "a rank's chunk comes back before anything was added to it",
    hint="Chunk r must arrive at rank r in the last of n - 1 steps: rank r starts with chunk r - 1, not with its own.",
)
def scatter_own_chunk_too_early(x):
    return scatter_chunks(x, late=0)


@exercise.mistake(
    "each step sends this rank's own numbers instead of the sum that has piled up",
    hint="What arrives is a partial sum. Add your own numbers to it, and pass on the sum.",
)
def scatter_without_partial_sums(x):
    return scatter_chunks(x, partial=False)


@exercise.mistake(
    "this rank adds the chunk that it has just sent to the one that arrives",
    hint="In the step in which you send chunk c, chunk c - 1 arrives: your left neighbor is one behind you.",
)
def scatter_adds_wrong_chunk(x):
    return scatter_parcels(x, added=1)


@exercise.mistake("the last step is missing", hint="A chunk has to pass n ranks: that takes n - 1 hops.")
def scatter_short_of_a_step(x):
    return scatter_parcels(x, missing=1)


@exercise.mistake(
    "there is one step too many: the finished chunks travel on",
    hint="n - 1 steps. After the n-th a chunk would be back where it started.",
)
def scatter_extra_step(x):
    return scatter_chunks(x, extra=1)


@exercise.mistake(
    "this rank's own numbers are missing in its chunk",
    hint="The last addition is yours: what arrives in the last step plus your own chunk.",
)
def scatter_without_own(x):
    rank, n = place()
    return scatter_chunks(x) - (x.tensor_split(n)[rank] if n > 1 else 0)


@exercise.mistake(
    "the sum is divided by the number of ranks", hint="The sum is asked for. Whoever wants a mean divides afterwards."
)
def scatter_mean(x):
    return scatter_chunks(x) / dist.get_world_size()


@exercise.mistake(
    "what arrives takes the place of this rank's own numbers instead of being added to them",
    hint="chunks[into] += came. With = the sum is only what one rank came with.",
)
def scatter_replaces(x):
    return scatter_chunks(x, own=0)


@exercise.mistake("what arrives is added twice", hint="Once is enough: chunks[into] += came.")
def scatter_adds_twice(x):
    return scatter_chunks(x, came=2)


@exercise.mistake(
    "the sums are written into x itself",
    hint="tensor_split gives views: += on one of them changes x. Clone the chunks first.",
)
def scatter_in_place(x):
    return scatter_chunks(x, chunks=list(x.tensor_split(dist.get_world_size())))


@exercise.mistake(
    "the last len(x) % n numbers are left out",
    hint="x.tensor_split(n) gives n chunks for any length; the first ones are longer by one.",
)
def scatter_drops_the_rest(x):
    n = dist.get_world_size()
    return scatter_chunks(x[: len(x) // n * n])


@exercise.mistake(
    "x is cut into chunks of ceil(length / n) numbers, as torch.chunk does, so that the last are shorter or missing",
    hint="torch.chunk(9 numbers, 4) gives 3, 3, 3 and no fourth. x.tensor_split(4) gives 3, 2, 2, 2.",
)
def scatter_with_chunk(x):
    """torch.chunk cuts ceil(length / n) numbers each, and may give fewer chunks than asked for."""
    n = dist.get_world_size()
    chunks = [c.clone() for c in x.chunk(n)]
    return scatter_chunks(x, chunks=chunks + [x.new_empty(0)] * (n - len(chunks)))


@exercise.mistake(
    "the whole vector goes round the ring, n times the bytes that are needed",
    hint="In each step one chunk leaves this rank, not the vector.",
)
def scatter_whole_vectors(x):
    """The whole vector goes round, and everybody adds all of it."""
    rank, n = place()
    total, passing = x.clone(), x
    for _ in range(n - 1):
        passing = swap(passing, len(x))
        total += passing
    return total.tensor_split(n)[rank]


@exercise.mistake(
    "every chunk is sent straight to its owner instead of round the ring",
    hint="A rank talks to its two neighbors only. Partial sums grow on the way.",
)
def scatter_directly(x):
    """Every chunk goes straight to its owner."""
    rank, n = place()
    chunks = x.tensor_split(n)
    total = chunks[rank].clone()
    for step in range(1, n):
        total += swap(chunks[(rank + step) % n], len(total), (rank + step) % n, (rank - step) % n)
    return total


@exercise.mistake(
    "rank 0 gathers everything, adds it up and deals it out",
    hint="Right numbers, and rank 0's link carries n - 1 times the vector. Every rank should do the same work.",
)
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


@exercise.mistake(
    "all ranks send first, with a send that waits, so that nobody ever receives",
    hint="dist.send returns when the other side receives. Start an isend, then receive, then wait for the isend.",
    hangs=True,
)
def scatter_deadlock(x):
    return scatter_chunks(x, swap_both_send_first)


def swap_as_float32(out, size):
    rank, n = place()
    came = torch.empty(size)
    sending = dist.isend(out.contiguous(), (rank + 1) % n)
    dist.recv(came, (rank - 1) % n)
    sending.wait()
    return came


@exercise.mistake(
    "a message is longer than the buffer that it lands in",
    hint="Messages carry bytes, not types: the buffer needs the length of the chunk that comes from the left in this "
    "step, and dtype=x.dtype.",
    hangs=True,
)
def scatter_as_float32(x):
    return scatter_chunks(x, swap_as_float32)


@exercise.alternative
def scatter_in_turns(x):
    """Right: blocking calls, odd ranks receive first."""
    return scatter_chunks(x, swap_in_turns)
