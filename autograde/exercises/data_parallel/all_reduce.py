"""Exercises of 03_data_parallel/02_all_reduce: the whole ring and the tree; those of the other modules as well.

The judge of the values is the plain sum or copy in one process, the judge of the traffic what was recorded.
"""

from __future__ import annotations

import torch

from autograde.exercise import Exercise, Law, Misconception, case
from autograde.exercises.data_parallel import all_reduce_mistakes as trees
from autograde.exercises.data_parallel import all_reduce_whole_mistakes as rings
from autograde.exercises.data_parallel.all_reduce_cost import all_reduce_cost
from autograde.exercises.data_parallel.all_reduce_probes import on_own_part
from autograde.exercises.data_parallel.all_reduce_rings import ring_all_gather, ring_reduce_scatter
from autograde.exercises.data_parallel.all_reduce_traffic import (
    by_hand,
    judged,
    keeps_dtype,
    only_neighbours,
    sent_by,
)
from autograde.exercises.data_parallel.ddp_plan import pick
from labkit.timeline import timeline

__all__ = ["all_reduce_cost", "ring_all_gather", "ring_all_reduce", "ring_reduce_scatter", "tree_broadcast"]


# ---- ring_all_reduce ------------------------------------------------------------------------------------------------


def summed(xs, mean=False):
    total = xs.sum(0) if xs.is_floating_point() else xs.sum(0, dtype=xs.dtype)
    return [total / len(xs) if mean else total] * len(xs)


def reduce_cases(g):
    def some(n, shape, label, **options):
        return case(torch.randn(n, *shape, generator=g), ranks=n, label=label, **options)

    k = pick(g, 2, 4)
    transposed = torch.randn(3, k, k + 1, generator=g).transpose(1, 2)
    yield case(transposed, ranks=3, mean=True, label="the mean of transposed matrices")
    yield case(torch.randint(-99, 100, (3, 2, 1, k), generator=g), ranks=3, label="whole numbers (int64), three dims")
    yield some(4, (4 * k + 3, 2), "four ranks", mean=True)
    yield some(4, (), "a single number without dimensions")
    large = 1e4 * torch.randint(-9, 10, (4, 4 * k), generator=g)
    yield case(large, ranks=4, label="large numbers")
    yield some(1, (k,), "one rank alone", mean=True)


@by_hand
def _own_share(out, one, call):
    """2 (n - 1) chunks; whoever pads to equal chunks may round up."""
    xs, n = one.args[0], len(out)
    chunk = -(-xs[0].numel() // n) * xs.element_size()
    for r, messages in enumerate(out.traffic):
        sent = sent_by(messages)
        told = f"rank {r} sends {sum(m.bytes for m in sent)} bytes in {len(sent)} messages"
        if sum(m.bytes for m in sent) > 2 * (n - 1) * chunk or len(sent) > 2 * (n - 1):
            return f"{one.label}: {told}; its share is {2 * (n - 1)} chunks of {chunk} bytes"
    return True


@by_hand
def _same_bits(out, one, call):
    return all(torch.equal(out[0], other) for other in out[1:])


ring_all_reduce = Exercise(
    name="ring_all_reduce",
    points=3,
    cases=reduce_cases,
    oracle=summed,
    probe=on_own_part,
    ranks=True,
    limit=4.0,
    agrees=judged(summed),
    laws=[
        Law("Every rank sends to its right neighbour and receives from its left one", only_neighbours),
        Law("No rank sends more than 2 (n - 1) chunks", _own_share),
        Law("All ranks end with the same bits", _same_bits),
        Law("Gives back the dtype of x", keeps_dtype),
    ],
    misconceptions=[
        Misconception(
            "the sum is never divided, although mean=True asks for it",
            rings.reduce_always_sums,
            "With mean=True divide by the number of ranks, once, at the end.",
        ),
        Misconception(
            "the mean is taken where the sum is asked for",
            rings.reduce_always_means,
            "Without mean=True the result is the sum.",
        ),
        Misconception(
            "the mean is divided by the number of ranks twice",
            rings.reduce_divides_twice,
            "Divide once: in the chunks before they are gathered, or in the result.",
        ),
        Misconception(
            "only this rank's own chunk is the sum, and nothing is gathered afterwards",
            rings.reduce_half_way,
            "After the reduce-scatter rank r has chunk r. ring_all_gather brings the others.",
        ),
        Misconception(
            "the result has lost the shape of x",
            rings.reduce_forgets_the_shape,
            "Flatten on the way in, reshape(x.shape) on the way out.",
        ),
        Misconception(
            "the last x.numel() % n numbers are not added up",
            rings.reduce_drops_the_rest,
            "tensor_split cuts any length. Or pad with zeros, and cut them off at the end.",
        ),
        Misconception(
            "the result is written into x",
            rings.reduce_in_place,
            "dist.all_reduce does that; here a new tensor is asked for, and x stays as it was.",
        ),
        Misconception(
            "the whole tensor goes round the ring n - 1 times, and each rank adds in an order of its own",
            rings.reduce_whole_tensors,
            "n - 1 times the bytes, where 2 (n - 1) / n are enough. First reduce-scatter, then all-gather.",
        ),
        Misconception(
            "every rank sends its whole tensor to every other one",
            rings.reduce_among_all,
            "Only neighbours talk, and only chunks travel: first reduce-scatter, then all-gather.",
        ),
        Misconception(
            "rank 0 gathers, adds, and sends the result to everybody",
            rings.reduce_at_rank_0,
            "Right numbers, but rank 0 sends n - 1 tensors. A ring spreads the work evenly.",
        ),
        Misconception(
            "the total is made along a chain and comes back, whole tensors all the way",
            rings.reduce_along_a_chain,
            "Only one link works at a time. With chunks all links work at once.",
        ),
        Misconception(
            "only rank 0 has the result, and the others still have their own tensors",
            rings.reduce_only_on_rank_0,
            "That is a reduce. In an all-reduce every rank needs the result.",
        ),
    ],
    alternatives=[rings.reduce_in_two_rounds, rings.reduce_padded],
    dtypes=[torch.float64],
    hints=[
        "You have both halves already. What do they need as input, and what is missing at the end?",
        "Flatten x. ring_reduce_scatter gives this rank's chunk of the sum, ring_all_gather wants to know how long the "
        "chunks of all ranks are.",
        "flat = x.reshape(-1); sizes = [len(c) for c in flat.tensor_split(n)]; total = "
        "ring_all_gather(ring_reduce_scatter(flat), sizes).reshape(x.shape); divide by n if mean.",
    ],
)


# ---- tree_broadcast -------------------------------------------------------------------------------------------------


def copies_of_root(xs, root=0):
    return [xs[root]] * len(xs)


def broadcast_cases(g):
    def some(n, shape, label, **options):
        return case(torch.randn(n, *shape, generator=g), ranks=n, label=label, **options)

    k = pick(g, 2, 4)
    yield some(3, (2, k), "three ranks")
    yield some(3, (), "a single number, from the last rank", root=2)
    transposed = 1e4 * torch.randn(4, k, 3, generator=g).transpose(1, 2)
    yield case(transposed, ranks=4, root=1, label="a transposed matrix, large numbers")
    yield case(torch.randint(-99, 100, (4, k), generator=g), 3, ranks=4, label="whole numbers (int64), root by place")
    yield some(1, (k,), "one rank alone")


@by_hand
def _few_rounds(out, one, call):
    n, most = len(out), (len(out) - 1).bit_length()
    rounds = max((trip.end for trip in timeline(out.traffic)), default=0)
    return rounds <= most or f"{n} ranks need {most} rounds; here it takes {rounds:.0f}"


@by_hand
def _once_each(out, one, call):
    n, root = len(out), (list(one.args[1:]) + [one.kwargs.get("root", 0)])[0]
    for r, messages in enumerate(out.traffic):
        came = sum(m.op == "recv" for m in messages)
        if came != (r != root):
            return f"{n} ranks, root {root}: rank {r} receives {came} messages"
    return sum(m.op == "send" for messages in out.traffic for m in messages) == n - 1


tree_broadcast = Exercise(
    name="tree_broadcast",
    points=3,
    cases=broadcast_cases,
    oracle=copies_of_root,
    probe=on_own_part,
    ranks=True,
    limit=4.0,
    agrees=judged(copies_of_root),
    laws=[
        Law("Everybody has it after ⌈log2 n⌉ rounds", _few_rounds),
        Law("Everybody but the root receives exactly once", _once_each),
    ],
    misconceptions=[
        Misconception(
            "the root sends to everybody by itself, one after the other",
            trees.broadcast_flat,
            "n - 1 rounds, and the others only wait. Whoever has it can help: twice as many have it after each round.",
        ),
        Misconception(
            "every rank passes it on to the next one only",
            trees.broadcast_chain,
            "n - 1 rounds. Those who have it should all send in every round.",
        ),
        Misconception(
            "it goes round the whole ring and comes back to the root",
            trees.broadcast_round_the_ring,
            "The root has it already. And n rounds are many more than log2 n.",
        ),
        Misconception(
            "rank 0 is always taken as the root",
            trees.broadcast_from_rank_0,
            "Count the ranks from the root: me = (rank - root) % n, and back: (me + root) % n.",
        ),
        Misconception(
            "what arrives is written into x",
            trees.broadcast_in_place,
            "dist.broadcast does that; here a new tensor is asked for. Receive into a copy.",
        ),
        Misconception(
            "every rank returns its own x",
            trees.broadcast_returns_own,
            "Return what has arrived; only the root returns its own.",
        ),
        Misconception(
            "a rank sends its own x on, instead of what it has received",
            trees.broadcast_before_receiving,
            "The first send of a rank other than the root comes after its receive, and passes on what came.",
        ),
        Misconception(
            "the last round is missing where the number of ranks is no power of two",
            trees.broadcast_one_round_short,
            "Go on as long as fewer than n ranks have it: ⌈log2 n⌉ rounds, not ⌊log2 n⌋.",
        ),
        Misconception(
            "what arrives is added to x",
            trees.broadcast_adds,
            "The values of x count on the root only.",
        ),
    ],
    alternatives=[trees.tree_by_doubling, trees.tree_from_the_top],
    dtypes=[torch.float64],
    hints=[
        "At first one rank has it. In each round everybody who has it tells one who hasn't. Who tells whom?",
        "Count from the root: me = (rank - root) % n. After round k the ranks with me < 2**(k + 1) have it: me sends "
        "to me + 2**k if that is below n (there is no rank n).",
        "have = 1; while have < n: if me < have and me + have < n: dist.send(result, (me + have + root) % n), elif "
        "have <= me < 2 * have: dist.recv(result, (me - have + root) % n); have *= 2. Start with result, a contiguous "
        "copy of x.",
    ],
)
