"""`all_reduce_cost(algorithm, ranks, size, alpha, beta)`

Seconds that an all-reduce takes, where a message of m bytes takes alpha + m / beta.
"""

from __future__ import annotations

import math

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "all_reduce_cost",
    points=2,
    rtol=1e-6,
    atol=1e-12,
    no_gradient="seconds are plain numbers",
    hints=[
        "Every algorithm is (number of messages one after the other) times (alpha + bytes of one message / beta).",
        "Both ways: a ring makes 2 (n - 1) steps of size / n bytes, a tree 2 ⌈log2 n⌉ steps of the whole size.",
        "steps = 2 * (ranks - 1), for the tree 2 * math.ceil(math.log2(ranks)); length = size, for the ring size / "
        "ranks; return steps * (alpha + length / beta).",
    ],
)


@exercise.cases
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
        yield some(algorithm, pick(g, 5, 7), f"{algorithm}, no bytes at all", size=0)
    yield some("ring", 8, "ring, no latency", alpha=0.0)
    yield some("tree", 9, "tree, one more than a power of two")


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


@exercise.oracle
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


@exercise.law("One rank alone pays nothing")
def _alone_for_nothing(out, one, call):
    algorithm, _, *rest = one.args
    return bool(call(algorithm, 1, *rest) == 0)


@exercise.law("Without latency a ring takes at most two times size / beta, on any number of ranks")
def _ring_below_two(out, one, call):
    if one.args[0] != "ring":
        return None
    size, beta = one.args[2], one.args[4]
    return all(bool(call("ring", n, size, 0.0, beta) <= 2 * size / beta) for n in (2, 5, 64, 1000))


@exercise.law("A tree takes ⌈log2 n⌉ rounds up and as many down")
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


def _cost(rounds=None, length=None, latency=None, both=2.0, per_byte=None):
    """A wrong cost: the right one with a part replaced. Each part is a function of (algorithm, ranks, …)."""

    def cost(algorithm, ranks, size, alpha, beta):
        steps = math.ceil(math.log2(ranks)) if algorithm == "tree" else ranks - 1
        steps = rounds(algorithm, ranks, steps) if rounds else steps
        m = length(algorithm, ranks, size) if length else size / ranks if algorithm == "ring" else size
        alphas = latency(both * steps) if latency else both * steps
        return alpha * alphas + both * steps * (per_byte(m, beta) if per_byte else m / beta)

    return cost


exercise.mistake(
    "only one way is counted: adding up, but not handing back",
    hint="After adding up, the result has to reach all ranks: twice as many steps.",
)(_cost(both=1.0))

exercise.mistake(
    "the ring is taken to send the whole tensor in each step", hint="In a ring a message is one chunk: size / ranks."
)(_cost(length=lambda algorithm, ranks, size: size))

exercise.mistake("the tree and the server are taken to send chunks as well", hint="Only the ring cuts the tensor.")(
    _cost(length=lambda algorithm, ranks, size: size / ranks)
)

exercise.mistake(
    "n steps are counted where n - 1 are needed",
    hint="A chunk visits n ranks: that takes n - 1 hops. And nobody sends to himself.",
)(_cost(rounds=lambda algorithm, ranks, steps: steps if algorithm == "tree" else ranks))

exercise.mistake(
    "the latency is paid only once", hint="Every message on the slowest path pays alpha before its first byte moves."
)(_cost(latency=lambda steps: min(steps, 1.0)))

exercise.mistake("the latency is left out", hint="Every message costs alpha + bytes / beta.")(
    _cost(latency=lambda steps: 0.0)
)

exercise.mistake(
    "beta is taken as the time a byte takes", hint="beta is in bytes a second: a larger one makes it faster."
)(_cost(per_byte=lambda m, beta: m * beta))

exercise.mistake(
    "the number of the tree's rounds is rounded down", hint="Five ranks need three rounds: 1, 2, 4, and the fifth."
)(_cost(rounds=lambda a, ranks, steps: int(math.log2(ranks)) if a == "tree" else steps))

exercise.mistake(
    "the number of the tree's rounds is not rounded",
    hint="There is no half round: math.ceil(math.log2(ranks)), or (ranks - 1).bit_length().",
)(_cost(rounds=lambda a, ranks, steps: math.log2(ranks) if a == "tree" else steps))

exercise.mistake("the natural logarithm is taken", hint="Each round doubles how many have it: log2.")(
    _cost(rounds=lambda a, ranks, steps: math.ceil(math.log(ranks)) if a == "tree" else steps)
)

exercise.mistake(
    "the server is taken to talk to all ranks at once",
    hint="Its link carries one message at a time: ranks - 1 in, ranks - 1 out.",
)(_cost(rounds=lambda a, ranks, steps: min(steps, 1) if a == "server" else steps))

exercise.mistake(
    "the ring's messages are added up over all ranks, though they travel side by side",
    hint="All n links work at the same time: count the steps, not the messages.",
)(_cost(rounds=lambda a, ranks, steps: steps * ranks if a == "ring" else steps))


@exercise.alternative
def cost_in_a_loop(algorithm, ranks, size, alpha, beta):
    """Right: a message after the other, as they stand on the slowest path."""
    rounds = {"ring": ranks - 1, "tree": (ranks - 1).bit_length(), "server": ranks - 1}[algorithm]
    length = size / ranks if algorithm == "ring" else size
    return sum(alpha + length / beta for _ in range(2 * rounds))


@exercise.alternative
def cost_by_terms(algorithm, ranks, size, alpha, beta):
    """Right: latency and bandwidth apart."""
    steps = 2 * (math.ceil(math.log2(ranks)) if algorithm == "tree" else ranks - 1)
    share = 1 / ranks if algorithm == "ring" else 1.0
    return alpha * steps + share * steps * size / beta
