"""`ring_all_gather(chunk, sizes)`

The chunks of all ranks as one vector, in the order of the ranks, on every rank.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.all_reduce.shared import (
    gather_pieces,
    judged,
    keeps_dtype,
    on_own_part,
    only_neighbors,
    shares,
    swap,
    swap_both_send_first,
    swap_in_turns,
)
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.shared import pick

exercise = Draft(
    "ring_all_gather",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    strides=False,
    hints=[
        "Nothing is added here: in every step each rank passes on what it received in the step before.",
        "In step s rank r sends chunk (r - s) % n and receives chunk (r - 1 - s) % n. How long is that one?",
        "pieces = [None] * n, pieces[rank] = chunk; in each of n - 1 steps: came = chunk.new_empty(sizes[source]), "
        "work = dist.isend(pieces[out], right), dist.recv(came, left), work.wait(), pieces[source] = came. At the end "
        "torch.cat(pieces).",
    ],
)


@exercise.cases
def gather_cases(g):
    def some(sizes, label, dtype=torch.float32, scale=1):
        if dtype.is_floating_point:
            chunks = [scale * torch.randn(size, generator=g, dtype=dtype) for size in sizes]
        else:
            chunks = [torch.randint(-99, 100, (size,), generator=g, dtype=dtype) for size in sizes]
        return case(chunks, sizes, ranks=len(sizes), label=label)

    k = pick(g, 2, 4)
    yield some([k + 1, k + 1, k], "the last one is shorter")
    yield some([k, 1, k + 2], "very different sizes", dtype=torch.float64)
    yield some([k, k + 1, 2, k + 3], "four ranks, large numbers", scale=1e4)
    yield some([1, 1, 0, 0], "two empty chunks of whole numbers (int64)", dtype=torch.int64)
    yield some([0, 1, 0], "one number in all")
    yield some([k], "one rank alone")


@exercise.oracle
def joined(chunks, sizes):
    return [torch.cat(list(chunks))] * len(chunks)


exercise.probe(on_own_part)

exercise.agrees(judged(joined))

exercise.law("Every rank sends to its right neighbor and receives from its left one")(only_neighbors)


def _given_chunks(one):
    return [c.numel() * c.element_size() for c in one.args[0]]


exercise.law("Every rank sends n - 1 messages: all chunks but its right neighbor's", essential=True)(
    shares(_given_chunks, lambda r, n: (r + 1) % n)
)

exercise.law("Gives back the dtype of the chunks")(keeps_dtype)


@exercise.mistake(
    "every step sends this rank's own chunk again",
    hint="Your right neighbor has your chunk after the first step. Pass on what has just arrived.",
)
def gather_own_again(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, own_again=True))


@exercise.mistake(
    "a chunk is stored one place too far",
    hint="What arrives in step s (from 0) started s + 1 places to the left: it is chunk (rank - 1 - s) % n.",
)
def gather_one_place_off(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, shift=1))


@exercise.mistake(
    "the chunks are joined in the order in which they arrive",
    hint="They arrive as rank - 1, rank - 2, … Put each at its own place before you join them.",
)
def gather_in_order_of_arrival(chunk, sizes):
    rank, n = place()
    pieces = gather_pieces(chunk, sizes)
    return torch.cat([pieces[(rank - step) % n] for step in range(n)])


@exercise.mistake("this rank's own chunk is missing", hint="n - 1 chunks arrive; the n-th is the one you came with.")
def gather_without_own(chunk, sizes):
    pieces = gather_pieces(chunk, sizes)
    pieces[dist.get_rank()] = torch.zeros_like(chunk)
    return torch.cat(pieces)


@exercise.mistake("the last step is missing", hint="There are n - 1 chunks to come, and one arrives in each step.")
def gather_short_of_a_step(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, extra=-1))


@exercise.mistake(
    "there is one step too many: every chunk comes home again", hint="After n - 1 steps everything is there."
)
def gather_extra_step(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, extra=1))


@exercise.mistake(
    "all chunks are received into the same buffer, so that later ones overwrite earlier ones",
    hint="A list of views of one buffer holds the same numbers many times. Make a new buffer in each step.",
)
def gather_in_one_buffer(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, buffer=chunk.new_empty(max(sizes))))


@exercise.mistake("the chunks come back as a list", hint="One vector is asked for: torch.cat.")
def gather_as_a_list(chunk, sizes):
    return gather_pieces(chunk, sizes)


@exercise.mistake(
    "every rank sends its chunk straight to every other rank",
    hint="A rank talks to its two neighbors only, and passes on what arrives.",
)
def gather_directly(chunk, sizes):
    """Everybody sends its chunk to everybody."""
    rank, n = place()
    pieces = [chunk] * n
    for step in range(1, n):
        source = (rank - step) % n
        pieces[source] = swap(chunk, sizes[source], (rank + step) % n, source)
    return torch.cat(pieces)


@exercise.mistake(
    "rank 0 gathers all chunks and sends the whole to everybody",
    hint="Right numbers, and rank 0's link carries n - 1 times the whole. Every rank should do the same work.",
)
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


@exercise.mistake(
    "all ranks send first, with a send that waits, so that nobody ever receives",
    hint="dist.send returns when the other side receives. Start an isend, then receive, then wait for the isend.",
    hangs=True,
)
def gather_deadlock(chunk, sizes):
    return torch.cat(gather_pieces(chunk, sizes, swap_both_send_first))


@exercise.mistake(
    "a message is longer than the buffer that it lands in",
    hint="When chunk c is about to arrive from the left, make room for sizes[c] numbers of the chunk's dtype. Messages "
    "carry bytes, not types.",
    hangs=True,
)
def gather_sizes_like_own(chunk, sizes):
    """Every chunk is taken to be as long as this rank's own."""
    return torch.cat(gather_pieces(chunk, [len(chunk)] * len(sizes)))


@exercise.alternative
def gather_cat(chunk, sizes):
    """Right: a list of pieces, one after the other."""
    return torch.cat(gather_pieces(chunk, sizes, swap_in_turns))


@exercise.alternative
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
