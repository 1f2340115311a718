"""`tree_broadcast(x, root=0)`: The root's x on every rank, after ceil(log2 n) rounds of sends and receives."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.all_reduce.shared import by_hand, judged, on_own_part
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.shared import pick
from labkit.timeline import timeline

exercise = Draft(
    "tree_broadcast",
    points=3,
    ranks=True,
    limit=4.0,
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


@exercise.cases
def broadcast_cases(g):
    def some(n, shape, label, **options):
        return case(torch.randn(n, *shape, generator=g), ranks=n, label=label, **options)

    k = pick(g, 2, 4)
    yield some(3, (2, k), "three ranks")
    yield some(3, (), "a single number, from the last rank", root=2)
    transposed = 1e4 * torch.randn(4, k, 3, generator=g, dtype=torch.float64).transpose(1, 2)
    yield case(transposed, ranks=4, root=1, label="a transposed float64 matrix, large numbers")
    yield case(torch.randint(-99, 100, (4, k), generator=g), 3, ranks=4, label="whole numbers (int64), root by place")
    yield some(7, (1, 2), "seven ranks, one row", root=3)
    yield some(1, (k,), "one rank alone")


@exercise.oracle
def copies_of_root(xs, root=0):
    return [xs[root]] * len(xs)


exercise.probe(on_own_part)

exercise.agrees(judged(copies_of_root))


@exercise.law("Everybody has it after ⌈log2 n⌉ rounds", essential=True)
@by_hand
def _few_rounds(out, one, call):
    n, most = len(out), (len(out) - 1).bit_length()
    rounds = max((trip.end for trip in timeline(out.traffic)), default=0)
    return rounds <= most or f"{n} ranks need {most} rounds; here it takes {rounds:.0f}"


@exercise.law("Everybody but the root receives exactly once")
@by_hand
def _once_each(out, one, call):
    n, root = len(out), (list(one.args[1:]) + [one.kwargs.get("root", 0)])[0]
    for r, messages in enumerate(out.traffic):
        came = sum(m.op == "recv" for m in messages)
        if came != (r != root):
            return f"{n} ranks, root {root}: rank {r} receives {came} messages"
    return sum(m.op == "send" for messages in out.traffic for m in messages) == n - 1


@exercise.alternative
def tree_by_doubling(x, root=0):
    """Right: in round k those who have it, 2**k of them, tell as many others."""
    rank, n = place()
    me = (rank - root) % n
    x = x.clone(memory_format=torch.contiguous_format)
    have = 1
    while have < n:
        if me < have and me + have < n:
            dist.send(x, (me + have + root) % n)
        elif have <= me < 2 * have:
            dist.recv(x, (me - have + root) % n)
        have *= 2
    return x


def _broadcast(x, root, parent, children):
    """Receive from the parent, then send to the children, all counted from the root."""
    rank, n = place()
    me, x = (rank - root) % n, x.contiguous().clone()
    if me:
        dist.recv(x, (parent(me, n) + root) % n)
    for child in children(me, n):
        dist.send(x, (child + root) % n)
    return x


@exercise.mistake(
    "the root sends to everybody by itself",
    hint="n - 1 rounds, and the others only wait. Whoever has it can help: twice as many have it after each round.",
)
def broadcast_flat(x, root=0):
    return _broadcast(x, root, lambda me, n: 0, lambda me, n: range(1, n) if me == 0 else [])


@exercise.mistake(
    "every rank passes it on to the next one only",
    hint="n - 1 rounds. Those who have it should all send in every round.",
)
def broadcast_chain(x, root=0):
    return _broadcast(x, root, lambda me, n: me - 1, lambda me, n: [me + 1] if me + 1 < n else [])


@exercise.mistake(
    "each rank has two children, as in a binary tree",
    hint="Who has it goes on sending in every round, not to two ranks only: in round k rank me tells me + 2**k.",
)
def broadcast_binary(x, root=0):
    """The children of me are 2 me + 1 and 2 me + 2, as in a heap: one round too many from seven ranks on."""
    return _broadcast(
        x, root, lambda me, n: (me - 1) // 2, lambda me, n: [c for c in (2 * me + 1, 2 * me + 2) if c < n]
    )


@exercise.mistake(
    "it travels in float32, whatever the dtype of x",
    hint="x.float() loses digits of a float64 that no cast brings back. Send x as it is.",
)
def broadcast_through_float32(x, root=0):
    return tree_by_doubling(x.float(), root).to(x.dtype)


@exercise.mistake(
    "it goes round the whole ring and comes back to the root",
    hint="The root has it already. And n rounds are many more than log2 n.",
)
def broadcast_round_the_ring(x, root=0):
    """As a chain, and the last one sends it back to the root."""
    came = _broadcast(x, root, lambda me, n: me - 1, lambda me, n: [(me + 1) % n] if n > 1 else [])
    rank, n = place()
    if rank == root and n > 1:
        dist.recv(came, (root - 1) % n)
    return came


@exercise.mistake(
    "rank 0 is always taken as the root",
    hint="Count the ranks from the root: me = (rank - root) % n, and back: (me + root) % n.",
)
def broadcast_from_rank_0(x, root=0):
    return tree_by_doubling(x, 0)


@exercise.mistake(
    "what arrives is written into x",
    hint="dist.broadcast does that; here a new tensor is asked for. Receive into a copy.",
)
def broadcast_in_place(x, root=0):
    return x.copy_(tree_by_doubling(x, root))


@exercise.mistake("every rank returns its own x", hint="Return what has arrived; only the root returns its own.")
def broadcast_returns_own(x, root=0):
    tree_by_doubling(x, root)
    return x


@exercise.mistake(
    "a rank sends its own x on, instead of what it has received",
    hint="The first send of a rank other than the root comes after its receive, and passes on what came.",
)
def broadcast_before_receiving(x, root=0):
    """Sends its own x on before the root's has arrived."""
    rank, n = place()
    me, own, have, result = (rank - root) % n, x.contiguous(), 1, x.contiguous().clone()
    while have < n:
        if me < have and me + have < n:
            dist.send(own, (me + have + root) % n)
        elif have <= me < 2 * have:
            dist.recv(result, (me - have + root) % n)
        have *= 2
    return result


@exercise.mistake(
    "the last round is missing where the number of ranks is no power of two",
    hint="Go on as long as fewer than n ranks have it: ⌈log2 n⌉ rounds, not ⌊log2 n⌋.",
)
def broadcast_one_round_short(x, root=0):
    """floor(log2 n) rounds: right for powers of two only."""
    rank, n = place()
    me, x, have = (rank - root) % n, x.contiguous().clone(), 1
    for _ in range(n.bit_length() - 1):
        if me < have and me + have < n:
            dist.send(x, (me + have + root) % n)
        elif have <= me < 2 * have:
            dist.recv(x, (me - have + root) % n)
        have *= 2
    return x


@exercise.mistake("what arrives is added to x", hint="The values of x count on the root only.")
def broadcast_adds(x, root=0):
    """Adds what arrives to its own instead of replacing it."""
    rank = dist.get_rank()
    came = tree_by_doubling(x, root)
    return came if rank == root else came + x


@exercise.alternative
def tree_from_the_top(x, root=0):
    """Right: the far half first, as MPI does it."""
    rank, n = place()
    me, x = (rank - root) % n, x.contiguous().clone()
    for k in reversed(range((n - 1).bit_length())):
        if me % 2 ** (k + 1) == 0 and me + 2**k < n:
            dist.isend(x, (me + 2**k + root) % n).wait()
        elif me % 2 ** (k + 1) == 2**k:
            dist.irecv(x, (me - 2**k + root) % n).wait()
    return x
