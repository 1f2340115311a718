"""The exercise all_reduce_cost of 03_data_parallel/02_all_reduce: three closed forms.

The judge is a simulation: every single message gets its place in time.
"""

from __future__ import annotations

import math

from autograde.exercise import Exercise, Law, Misconception, case
from autograde.exercises.data_parallel import all_reduce_mistakes as wrong
from autograde.exercises.data_parallel.ddp_plan import pick


def _rounds(algorithm, ranks):
    """The messages (sender, receiver) of each round. A round begins when what it sends is there."""
    if algorithm == "ring":
        return [[(r, (r + 1) % ranks) for r in range(ranks)]] * (2 * (ranks - 1))
    if algorithm == "server":
        return [[(r, 0)] for r in range(1, ranks)] + [[(0, r)] for r in range(1, ranks)]
    down, have = [], 1
    while have < ranks:
        down.append([(r, r + have) for r in range(have) if r + have < ranks])
        have *= 2
    return [[(b, a) for a, b in level] for level in reversed(down)] + down


def simulated(algorithm, ranks, size, alpha, beta):
    """When the last message has arrived. A rank sends one message at a time, and receives one at a time."""
    length = size / ranks if algorithm == "ring" else size
    out, into, ready = ([0.0] * ranks for _ in range(3))
    for messages in _rounds(algorithm, ranks):
        before = list(ready)
        for a, b in messages:
            end = max(out[a], into[b], before[a]) + alpha + length / beta
            out[a] = into[b] = end
            ready[b] = max(ready[b], end)
    return max(ready)


def cost_cases(g):
    def some(algorithm, ranks, label, size=None, alpha=None, beta=None):
        size = 4 * pick(g, 1000, 9999) if size is None else size
        alpha = pick(g, 1, 99) * 1e-6 if alpha is None else alpha
        return case(algorithm, ranks, size, alpha, beta or pick(g, 1, 9) * 1e8, label=label)

    for algorithm in ("ring", "tree", "server"):
        yield some(algorithm, 4, f"{algorithm}, four ranks")
        yield some(algorithm, pick(g, 5, 7), f"{algorithm}, no power of two")
        yield some(algorithm, pick(g, 36, 50), f"{algorithm}, many ranks", size=pick(g, 1, 9) * 10**8)
        yield some(algorithm, 2, f"{algorithm}, two ranks, one number", size=4)
        yield some(algorithm, 1, f"{algorithm}, one rank")
    yield some("ring", 8, "ring, no latency", alpha=0.0)
    yield some("tree", 9, "tree, one more than a power of two")


def _alone_for_nothing(out, one, call):
    algorithm, _, *rest = one.args
    return bool(call(algorithm, 1, *rest) == 0)


def _ring_below_two(out, one, call):
    if one.args[0] != "ring":
        return None
    size, beta = one.args[2], one.args[4]
    return all(bool(call("ring", n, size, 0.0, beta) <= 2 * size / beta) for n in (2, 5, 64, 1000))


def _log_rounds(out, one, call):
    if one.args[0] != "tree":
        return None
    alpha = 1e-3
    right = {2: 2, 3: 4, 4: 4, 5: 6, 8: 6, 9: 8, 64: 12, 1000: 20}
    for n, rounds in right.items():
        found = call("tree", n, 0, alpha, one.args[4])
        if not math.isclose(found, rounds * alpha, rel_tol=1e-6):
            return f"a message of no bytes on {n} ranks takes {found / alpha:.3g} latencies, and should take {rounds}"
    return True


all_reduce_cost = Exercise(
    name="all_reduce_cost",
    points=2,
    cases=cost_cases,
    oracle=simulated,
    rtol=1e-6,
    atol=1e-12,
    laws=[
        Law("One rank alone pays nothing", _alone_for_nothing),
        Law("Without latency a ring takes at most two times size / beta, on any number of ranks", _ring_below_two),
        Law("A tree takes ⌈log2 n⌉ rounds up and as many down", _log_rounds),
    ],
    misconceptions=[
        Misconception(
            "only one way is counted: adding up, but not handing back",
            wrong.cost_one_way,
            "After adding up, the result has to reach all ranks: twice as many steps.",
        ),
        Misconception(
            "the ring is taken to send the whole tensor in each step",
            wrong.cost_whole_tensor,
            "In a ring a message is one chunk: size / ranks.",
        ),
        Misconception(
            "the tree and the server are taken to send chunks as well",
            wrong.cost_chunks_everywhere,
            "Only the ring cuts the tensor.",
        ),
        Misconception(
            "n steps are counted where n - 1 are needed",
            wrong.cost_n_steps,
            "A chunk visits n ranks: that takes n - 1 hops. And nobody sends to himself.",
        ),
        Misconception(
            "the latency is paid only once",
            wrong.cost_one_latency,
            "Every message on the slowest path pays alpha before its first byte moves.",
        ),
        Misconception(
            "the latency is left out",
            wrong.cost_no_latency,
            "Every message costs alpha + bytes / beta.",
        ),
        Misconception(
            "beta is taken as the time a byte takes",
            wrong.cost_beta_is_time,
            "beta is in bytes a second: a larger one makes it faster.",
        ),
        Misconception(
            "the number of the tree's rounds is rounded down",
            wrong.cost_floor_of_log,
            "Five ranks need three rounds: 1, 2, 4, and the fifth.",
        ),
        Misconception(
            "the number of the tree's rounds is not rounded",
            wrong.cost_real_log,
            "There is no half round: math.ceil(math.log2(ranks)), or (ranks - 1).bit_length().",
        ),
        Misconception(
            "the natural logarithm is taken",
            wrong.cost_natural_log,
            "Each round doubles how many have it: log2.",
        ),
        Misconception(
            "the server is taken to talk to all ranks at once",
            wrong.cost_free_server,
            "Its link carries one message at a time: ranks - 1 in, ranks - 1 out.",
        ),
        Misconception(
            "the ring's messages are added up over all ranks, though they travel side by side",
            wrong.cost_all_ranks_added,
            "All n links work at the same time: count the steps, not the messages.",
        ),
    ],
    alternatives=[wrong.cost_in_a_loop, wrong.cost_by_terms],
    hints=[
        "Every algorithm is (number of messages one after the other) times (alpha + bytes of one message / beta).",
        "Both ways: a ring makes 2 (n - 1) steps of size / n bytes, a tree 2 ⌈log2 n⌉ steps of the whole size.",
        "steps = 2 * (ranks - 1), for the tree 2 * math.ceil(math.log2(ranks)); length = size, for the ring size / "
        "ranks; return steps * (alpha + length / beta).",
    ],
)
