"""Right and wrong trees and costs for the exercises of 03_data_parallel/02_all_reduce."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist

from autograde.exercises.data_parallel.all_reduce_scatter_mistakes import place

# ---- tree_broadcast -------------------------------------------------------------------------------------------------


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


def _broadcast(x, root, parent, children):
    """Receive from the parent, then send to the children, all counted from the root."""
    rank, n = place()
    me, x = (rank - root) % n, x.contiguous().clone()
    if me:
        dist.recv(x, (parent(me, n) + root) % n)
    for child in children(me, n):
        dist.send(x, (child + root) % n)
    return x


def broadcast_flat(x, root=0):
    return _broadcast(x, root, lambda me, n: 0, lambda me, n: range(1, n) if me == 0 else [])


def broadcast_chain(x, root=0):
    return _broadcast(x, root, lambda me, n: me - 1, lambda me, n: [me + 1] if me + 1 < n else [])


def broadcast_round_the_ring(x, root=0):
    """As a chain, and the last one sends it back to the root."""
    came = _broadcast(x, root, lambda me, n: me - 1, lambda me, n: [(me + 1) % n] if n > 1 else [])
    rank, n = place()
    if rank == root and n > 1:
        dist.recv(came, (root - 1) % n)
    return came


def broadcast_from_rank_0(x, root=0):
    return tree_by_doubling(x, 0)


def broadcast_in_place(x, root=0):
    return x.copy_(tree_by_doubling(x, root))


def broadcast_returns_own(x, root=0):
    tree_by_doubling(x, root)
    return x


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


def broadcast_adds(x, root=0):
    """Adds what arrives to its own instead of replacing it."""
    rank = dist.get_rank()
    came = tree_by_doubling(x, root)
    return came if rank == root else came + x


# ---- all_reduce_cost ------------------------------------------------------------------------------------------------


def cost_in_a_loop(algorithm, ranks, size, alpha, beta):
    """Right: a message after the other, as they stand on the slowest path."""
    rounds = {"ring": ranks - 1, "tree": (ranks - 1).bit_length(), "server": ranks - 1}[algorithm]
    length = size / ranks if algorithm == "ring" else size
    return sum(alpha + length / beta for _ in range(2 * rounds))


def cost_by_terms(algorithm, ranks, size, alpha, beta):
    """Right: latency and bandwidth apart."""
    steps = 2 * (math.ceil(math.log2(ranks)) if algorithm == "tree" else ranks - 1)
    share = 1 / ranks if algorithm == "ring" else 1.0
    return alpha * steps + share * steps * size / beta


def _cost(rounds=None, length=None, latency=None, both=2.0, per_byte=None):
    """A wrong cost: the right one with a part replaced. Each part is a function of (algorithm, ranks, …)."""

    def cost(algorithm, ranks, size, alpha, beta):
        steps = math.ceil(math.log2(ranks)) if algorithm == "tree" else ranks - 1
        steps = rounds(algorithm, ranks, steps) if rounds else steps
        m = length(algorithm, ranks, size) if length else size / ranks if algorithm == "ring" else size
        alphas = latency(both * steps) if latency else both * steps
        return alpha * alphas + both * steps * (per_byte(m, beta) if per_byte else m / beta)

    return cost


cost_one_way = _cost(both=1.0)
cost_whole_tensor = _cost(length=lambda algorithm, ranks, size: size)
cost_chunks_everywhere = _cost(length=lambda algorithm, ranks, size: size / ranks)
cost_n_steps = _cost(rounds=lambda algorithm, ranks, steps: steps if algorithm == "tree" else ranks)
cost_one_latency = _cost(latency=lambda steps: min(steps, 1.0))
cost_no_latency = _cost(latency=lambda steps: 0.0)
cost_beta_is_time = _cost(per_byte=lambda m, beta: m * beta)
cost_floor_of_log = _cost(rounds=lambda a, ranks, steps: int(math.log2(ranks)) if a == "tree" else steps)
cost_real_log = _cost(rounds=lambda a, ranks, steps: math.log2(ranks) if a == "tree" else steps)
cost_natural_log = _cost(rounds=lambda a, ranks, steps: math.ceil(math.log(ranks)) if a == "tree" else steps)
cost_free_server = _cost(rounds=lambda a, ranks, steps: min(steps, 1) if a == "server" else steps)
cost_all_ranks_added = _cost(rounds=lambda a, ranks, steps: steps * ranks if a == "ring" else steps)
