"""`ring_all_reduce(x, mean=False)`

The sum (or mean) of x over all ranks, on every rank, by a ring of sends and receives.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.all_reduce.shared import (
    by_hand,
    gather_pieces,
    judged,
    keeps_dtype,
    on_own_part,
    only_neighbors,
    scatter_chunks,
    sent_by,
    sum_at_rank_0,
    swap,
    swap_in_turns,
)
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.shared import pick

exercise = Draft(
    "ring_all_reduce",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    fresh=True,
    hints=[
        "You have both halves already. What do they need as input, and what is missing at the end?",
        "Flatten x. ring_reduce_scatter gives this rank's chunk of the sum, ring_all_gather wants to know how long the "
        "chunks of all ranks are.",
        "flat = x.reshape(-1); sizes = [len(c) for c in flat.tensor_split(n)]; total = "
        "ring_all_gather(ring_reduce_scatter(flat), sizes).reshape(x.shape); divide by n if mean.",
    ],
)


@exercise.cases
def reduce_cases(g):
    def some(n, shape, label, **options):
        return case(torch.randn(n, *shape, generator=g), ranks=n, label=label, **options)

    k = pick(g, 2, 4)
    transposed = torch.randn(3, k, k + 1, generator=g).transpose(1, 2)
    yield case(transposed, ranks=3, mean=True, label="the mean of transposed matrices")
    yield case(torch.randint(-99, 100, (3, 1, 2, k), generator=g), ranks=3, label="whole numbers (int64), three dims")
    yield some(4, (4 * k + 3, 2), "four ranks", mean=True)
    yield some(4, (), "a single number without dimensions")
    large = 1e4 * torch.randint(-9, 10, (4, 4 * k), generator=g)
    yield case(large, ranks=4, label="large numbers")
    yield some(1, (k,), "one rank alone", mean=True)


@exercise.oracle
def summed(xs, mean=False):
    total = xs.sum(0) if xs.is_floating_point() else xs.sum(0, dtype=xs.dtype)
    return [total / len(xs) if mean else total] * len(xs)


exercise.probe(on_own_part)

exercise.agrees(judged(summed))

exercise.law("Every rank sends to its right neighbor and receives from its left one")(only_neighbors)


@exercise.law("No rank sends more than 2 (n - 1) chunks", essential=True)
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


@exercise.law("All ranks end with the same bits")
@by_hand
def _same_bits(out, one, call):
    return all(torch.equal(out[0], other) for other in out[1:])


exercise.law("Gives back the dtype of x")(keeps_dtype)


@exercise.alternative
def reduce_in_two_rounds(x, mean=False):
    """Right: the flattened tensor, both halves of the ring, the old shape."""
    flat = x.flatten()
    total = torch.cat(gather_pieces(scatter_chunks(flat), [len(c) for c in flat.tensor_split(dist.get_world_size())]))
    return (total / dist.get_world_size() if mean else total).reshape(x.shape)


@exercise.mistake(
    "the sum is never divided, although mean=True asks for it",
    hint="With mean=True divide by the number of ranks, once, at the end.",
)
def reduce_always_sums(x, mean=False):
    return reduce_in_two_rounds(x)


@exercise.mistake("the mean is taken where the sum is asked for", hint="Without mean=True the result is the sum.")
def reduce_always_means(x, mean=False):
    return reduce_in_two_rounds(x, mean=True)


@exercise.mistake(
    "the mean is divided by the number of ranks twice",
    hint="Divide once: in the chunks before they are gathered, or in the result.",
)
def reduce_divides_twice(x, mean=False):
    total = reduce_in_two_rounds(x, mean)
    return total / dist.get_world_size() if mean else total


@exercise.mistake(
    "only this rank's own chunk is the sum, and nothing is gathered afterwards",
    hint="After the reduce-scatter rank r has chunk r. ring_all_gather brings the others.",
)
def reduce_half_way(x, mean=False):
    """After the reduce-scatter every rank puts its chunk into its own tensor."""
    rank, n = place()
    flat = x.flatten()
    chunks = list(flat.tensor_split(n))
    chunks[rank] = scatter_chunks(flat) / (n if mean else 1)
    return torch.cat(chunks).reshape(x.shape)


@exercise.mistake("the result has lost the shape of x", hint="Flatten on the way in, reshape(x.shape) on the way out.")
def reduce_forgets_the_shape(x, mean=False):
    return reduce_in_two_rounds(x, mean).flatten()


@exercise.mistake(
    "the last x.numel() % n numbers are not added up",
    hint="tensor_split cuts any length. Or pad with zeros, and cut them off at the end.",
)
def reduce_drops_the_rest(x, mean=False):
    flat, n = x.flatten(), dist.get_world_size()
    whole = len(flat) // n * n
    return torch.cat([reduce_in_two_rounds(flat[:whole], mean), flat[whole:]]).reshape(x.shape)


@exercise.mistake(
    "something is written into x on the way",
    hint="dist.all_reduce does that; here a new tensor is asked for, and x stays as it was: work on a copy.",
)
def reduce_in_place(x, mean=False):
    return x.copy_(reduce_in_two_rounds(x, mean))


@exercise.mistake(
    "everything is added up in float32, whatever the dtype of x",
    hint="x.float() and a cast back give the right dtype with a third of float64's digits. Stay in x.dtype.",
)
def reduce_through_float32(x, mean=False):
    return reduce_in_two_rounds(x.float(), mean).to(x.dtype)


@exercise.mistake(
    "one rank alone gets x itself instead of a new tensor",
    hint="Whoever writes into the result would change x: x.clone() where there is nothing to add.",
)
def reduce_alone_is_x(x, mean=False):
    return x if dist.get_world_size() == 1 else reduce_in_two_rounds(x, mean)


@exercise.mistake(
    "the whole tensor goes round the ring n - 1 times, and each rank adds in an order of its own",
    hint="n - 1 times the bytes, where 2 (n - 1) / n are enough. First reduce-scatter, then all-gather.",
)
def reduce_whole_tensors(x, mean=False):
    """The whole tensor goes round, and every rank adds in its own order."""
    total, passing = x.clone(), x
    for _ in range(dist.get_world_size() - 1):
        passing = swap(passing.reshape(-1), x.numel()).reshape(x.shape)
        total += passing
    return total / dist.get_world_size() if mean else total


@exercise.mistake(
    "every rank sends its whole tensor to every other one",
    hint="Only neighbors talk, and only chunks travel: first reduce-scatter, then all-gather.",
)
def reduce_among_all(x, mean=False):
    """Everybody sends everything to everybody, and adds in its own order."""
    rank, n = place()
    total = x.clone()
    for step in range(1, n):
        total += swap(x.reshape(-1), x.numel(), (rank + step) % n, (rank - step) % n).reshape(x.shape)
    return total / n if mean else total


def _received(result, source):
    dist.recv(result, source)
    return result


@exercise.mistake(
    "rank 0 gathers, adds, and sends the result to everybody",
    hint="Right numbers, but rank 0 sends n - 1 tensors. A ring spreads the work evenly.",
)
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


@exercise.mistake(
    "the total is made along a chain and comes back, whole tensors all the way",
    hint="Only one link works at a time. With chunks all links work at once.",
)
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


@exercise.mistake(
    "only rank 0 has the result, and the others still have their own tensors",
    hint="That is a reduce. In an all-reduce every rank needs the result.",
)
def reduce_only_on_rank_0(x, mean=False):
    return reduce_at_rank_0(x, mean, tell=False)


@exercise.alternative
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
