"""What exercises of the chapter rag share."""

from __future__ import annotations

from autograde.exercise import case
from autograde.exercises.shared import integer

WORDS = [
    "tensor",
    "axis",
    "sum",
    "loss",
    "Adam",
    "the",
    "a",
    "of",
    "梯度",
    "café",
    "x_1",
    "3.14",
    "(see",
    "it's",
    "row,",
]


def words(g, n, known=WORDS):
    """A list of n random words."""
    return [known[integer(g, 0, len(known))] for _ in range(n)]


def ranking(g, ids, n):
    """n different ones of the ids, in a random order."""
    order = list(ids)
    for i in range(len(order) - 1, 0, -1):
        j = integer(g, 0, i + 1)
        order[i], order[j] = order[j], order[i]
    return order[:n]


NAMES = ["sum", "mean", "std", "var", "max", "min", "all", "any", "cat", "stack", "split", "Sum"]


def judged_cases(ks):
    """Cases of a metric: rankings, what is relevant, and a k. Of the five ks the first is that of most cases."""

    def cases(g):
        def asked(n, length, wanted):
            rankings = [ranking(g, NAMES, length) for _ in range(n)]
            return rankings, [ranking(g, NAMES, integer(g, 1, wanted + 1)) for _ in range(n)]

        first, two, one, large, five = ks
        fixed = [["a", "b", "c", "d", "e"], ["e", "d", "x", "y", "b"], ["c", "d", "e", "a", "b"], list("vwxyz")]
        wanted = [["c", "b", "q"], ["b"], ["e"], ["q", "r"]]
        yield case(fixed, wanted, first, label="four questions")
        yield case(fixed, [["c", "a", "q"], ["b", "y"], ["d"], ["z", "w", "x"]], two, label="the first two places")
        yield case(*asked(6, 8, 3), first, label="six questions")
        yield case(rankings=fixed, relevant=wanted, k=one, label="the first place alone, by keyword")
        yield case(fixed, wanted, large, label="k is larger than the rankings")
        yield case(fixed, [["c", "a"], [], ["b", "d", "e"], []], first, label="questions without anything relevant")
        yield case(fixed[:2], [[], []], first, label="nothing to judge")
        yield case([], [], first, label="no question")
        yield case([[], ["b", "a"]], [["a"], ["a"]], first, label="an empty ranking")
        twice = [["b", "b", "b", "a", "c"], ["c", "a", "a", "b"]]
        yield case(twice, [["a", "c"], ["b", "a"]], first, label="passages that are ranked twice")
        yield case(twice, [["a", "b"], ["a", "c"]], two, label="passages that are ranked twice, and two places")
        yield case(fixed, [["b", "b", "e"], ["x", "q"], ["a"], ["v"]], first, label="relevant ones listed twice")
        yield case([[3, 1, 2], [5, 4, 6]], [[2], [4, 6]], first, label="numbers as names")
        mixed = [["1", 1, 2, "2"], [2, "3", 3, "1"]]
        yield case(mixed, [[1, 7], ["2", 3]], first, label="a number and its text are two names")
        long = [ranking(g, range(60), 50) for _ in range(5)]
        yield case(long, [ranking(g, range(60), 12) for _ in range(4)] + [long[4][30:40]], first, label="fifty places")
        yield case(long, [ranking(g, range(60), 4) for _ in range(5)], five, label="fifty places, of which five count")

    return cases
