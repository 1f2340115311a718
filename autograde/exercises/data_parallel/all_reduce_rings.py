"""Exercises of 03_data_parallel/02_all_reduce: the two halves of the ring.

The judge of the values is the plain sum or concatenation in one process, the judge of the traffic what was recorded.
"""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception, case
from autograde.exercises.data_parallel import all_reduce_gather_mistakes as gathers
from autograde.exercises.data_parallel import all_reduce_scatter_mistakes as scatters
from autograde.exercises.data_parallel.all_reduce_probes import on_own_part
from autograde.exercises.data_parallel.all_reduce_traffic import (
    judged,
    keeps_dtype,
    only_neighbours,
    shares,
)
from autograde.exercises.data_parallel.ddp_plan import pick

# ---- ring_reduce_scatter --------------------------------------------------------------------------------------------


def vectors(g, n, length, label, scale=1.0, dtype=torch.float32):
    """A case with one vector a rank. What is scaled up is a whole number, so that adding it up is exact."""
    if scale == 1.0 and dtype.is_floating_point:
        return case(torch.randn(n, length, generator=g, dtype=dtype), ranks=n, label=label)
    x = (scale * torch.randint(-9, 10, (n, length), generator=g)).to(dtype)
    return case(x, ranks=n, label=label)


def sums(xs):
    total = xs.sum(0) if xs.is_floating_point() else xs.sum(0, dtype=xs.dtype)
    return list(total.tensor_split(len(xs)))


def scatter_cases(g):
    k = pick(g, 2, 4)
    yield vectors(g, 3, 3 * k + 2, "two more than divides evenly", dtype=torch.float64)
    yield vectors(g, 3, 3 * k + 1, "whole numbers (int64)", dtype=torch.int64)
    yield vectors(g, 4, 4 * k + 1, "four ranks, large numbers", scale=1e4)
    yield vectors(g, 4, pick(g, 2, 3), "fewer numbers than ranks")
    yield vectors(g, 1, k, "one rank alone")


def _vector_chunks(one):
    xs = one.args[0]
    return [len(c) * xs.element_size() for c in xs[0].tensor_split(len(xs))]


ring_reduce_scatter = Exercise(
    name="ring_reduce_scatter",
    points=4,
    cases=scatter_cases,
    oracle=sums,
    probe=on_own_part,
    ranks=True,
    limit=4.0,
    agrees=judged(sums),
    laws=[
        Law("Every rank sends to its right neighbour and receives from its left one", only_neighbours),
        Law("Every rank sends n - 1 messages: all chunks but its own", shares(_vector_chunks, lambda r, n: r)),
        Law("Gives back the dtype of x", keeps_dtype),
    ],
    misconceptions=[
        Misconception(
            "rank r ends with chunk r + 1, because it starts by sending chunk r",
            scatters.scatter_next_chunk,
            "A chunk makes n - 1 hops and must end at its own rank. So at which rank does it start?",
        ),
        Misconception(
            "every rank sends its own chunk first, and then returns a sum that isn't finished",
            scatters.scatter_own_chunk_too_early,
            "Chunk r must arrive at rank r in the last step. So rank r starts with chunk r - 1.",
        ),
        Misconception(
            "each step sends this rank's own numbers instead of the sum that has piled up",
            scatters.scatter_without_partial_sums,
            "What arrives is a partial sum. Add your own numbers to it, and pass on the sum.",
        ),
        Misconception(
            "this rank adds the chunk that it has just sent to the one that arrives",
            scatters.scatter_adds_wrong_chunk,
            "In the step in which you send chunk c, chunk c - 1 arrives: your left neighbour is one behind you.",
        ),
        Misconception(
            "the last step is missing",
            scatters.scatter_short_of_a_step,
            "A chunk has to pass n ranks: that takes n - 1 hops.",
        ),
        Misconception(
            "there is one step too many: the finished chunks travel on",
            scatters.scatter_extra_step,
            "n - 1 steps. After the n-th a chunk would be back where it started.",
        ),
        Misconception(
            "this rank's own numbers are missing in its chunk",
            scatters.scatter_without_own,
            "The last addition is yours: what arrives in the last step plus your own chunk.",
        ),
        Misconception(
            "the sum is divided by the number of ranks",
            scatters.scatter_mean,
            "The sum is asked for. Whoever wants a mean divides afterwards.",
        ),
        Misconception(
            "the sums are written into x itself",
            scatters.scatter_in_place,
            "tensor_split gives views: += on one of them changes x. Clone the chunks first.",
        ),
        Misconception(
            "the last len(x) % n numbers are left out",
            scatters.scatter_drops_the_rest,
            "x.tensor_split(n) gives n chunks for any length; the first ones are longer by one.",
        ),
        Misconception(
            "x is cut with torch.chunk, whose last chunks are shorter or missing",
            scatters.scatter_with_chunk,
            "torch.chunk(9 numbers, 4) gives 3, 3, 3 and no fourth. x.tensor_split(4) gives 3, 2, 2, 2.",
        ),
        Misconception(
            "the whole vector goes round the ring, n times the bytes that are needed",
            scatters.scatter_whole_vectors,
            "In each step one chunk leaves this rank, not the vector.",
        ),
        Misconception(
            "every chunk is sent straight to its owner instead of round the ring",
            scatters.scatter_directly,
            "A rank talks to its two neighbours only. Partial sums grow on the way.",
        ),
        Misconception(
            "rank 0 gathers everything, adds it up and deals it out",
            scatters.scatter_at_rank_0,
            "Right numbers, and rank 0's link carries n - 1 times the vector. Every rank should do the same work.",
        ),
        Misconception(
            "all ranks send first, with a send that waits, so that nobody ever receives",
            scatters.scatter_deadlock,
            "dist.send returns when the other side receives. Start an isend, then receive, then wait for the isend.",
            hangs=True,
        ),
        Misconception(
            "a message is longer than the buffer that it lands in, for instance a float32 one for float64 numbers",
            scatters.scatter_as_float32,
            "Messages carry bytes, not types: the buffer needs the length of the chunk that comes, and dtype=x.dtype.",
            hangs=True,
        ),
    ],
    alternatives=[scatters.scatter_in_turns, scatters.scatter_parcels],
    dtypes=[torch.float64],
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


# ---- ring_all_gather ------------------------------------------------------------------------------------------------


def joined(chunks, sizes):
    return [torch.cat(list(chunks))] * len(chunks)


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
    yield some([k], "one rank alone")


def _given_chunks(one):
    return [c.numel() * c.element_size() for c in one.args[0]]


ring_all_gather = Exercise(
    name="ring_all_gather",
    points=3,
    cases=gather_cases,
    oracle=joined,
    probe=on_own_part,
    ranks=True,
    limit=4.0,
    agrees=judged(joined),
    laws=[
        Law("Every rank sends to its right neighbour and receives from its left one", only_neighbours),
        Law(
            "Every rank sends n - 1 messages: all chunks but its right neighbour's",
            shares(_given_chunks, lambda r, n: (r + 1) % n),
        ),
        Law("Gives back the dtype of the chunks", keeps_dtype),
    ],
    misconceptions=[
        Misconception(
            "every step sends this rank's own chunk again",
            gathers.gather_own_again,
            "Your right neighbour has your chunk after the first step. Pass on what has just arrived.",
        ),
        Misconception(
            "a chunk is stored one place too far",
            gathers.gather_one_place_off,
            "What arrives in step s (from 0) started s + 1 places to the left: it is chunk (rank - 1 - s) % n.",
        ),
        Misconception(
            "the chunks are joined in the order in which they arrive",
            gathers.gather_in_order_of_arrival,
            "They arrive as rank - 1, rank - 2, … Put each at its own place before you join them.",
        ),
        Misconception(
            "this rank's own chunk is missing",
            gathers.gather_without_own,
            "n - 1 chunks arrive; the n-th is the one you came with.",
        ),
        Misconception(
            "the last step is missing",
            gathers.gather_short_of_a_step,
            "There are n - 1 chunks to come, and one arrives in each step.",
        ),
        Misconception(
            "there is one step too many: every chunk comes home again",
            gathers.gather_extra_step,
            "After n - 1 steps everything is there.",
        ),
        Misconception(
            "all chunks are received into the same buffer, so that later ones overwrite earlier ones",
            gathers.gather_in_one_buffer,
            "A list of views of one buffer holds the same numbers many times. Make a new buffer in each step.",
        ),
        Misconception(
            "the chunks come back as a list",
            gathers.gather_as_a_list,
            "One vector is asked for: torch.cat.",
        ),
        Misconception(
            "every rank sends its chunk straight to every other rank",
            gathers.gather_directly,
            "A rank talks to its two neighbours only, and passes on what arrives.",
        ),
        Misconception(
            "rank 0 gathers all chunks and sends the whole to everybody",
            gathers.gather_at_rank_0,
            "Right numbers, and rank 0's link carries n - 1 times the whole. Every rank should do the same work.",
        ),
        Misconception(
            "all ranks send first, with a send that waits, so that nobody ever receives",
            gathers.gather_deadlock,
            "dist.send returns when the other side receives. Start an isend, then receive, then wait for the isend.",
            hangs=True,
        ),
        Misconception(
            "a message is longer than the buffer that it lands in, as if all chunks were as long as this rank's own",
            gathers.gather_sizes_like_own,
            "Make room for sizes[c] numbers when chunk c is about to arrive.",
            hangs=True,
        ),
    ],
    alternatives=[gathers.gather_cat, gathers.gather_into_place],
    dtypes=[torch.float64],
    hints=[
        "Nothing is added here: in every step each rank passes on what it received in the step before.",
        "In step s rank r sends chunk (r - s) % n and receives chunk (r - 1 - s) % n. How long is that one?",
        "pieces = [None] * n, pieces[rank] = chunk; in each of n - 1 steps: came = chunk.new_empty(sizes[source]), "
        "work = dist.isend(pieces[out], right), dist.recv(came, left), work.wait(), pieces[source] = came. At the end "
        "torch.cat(pieces).",
    ],
)
