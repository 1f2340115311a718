"""What exercises of the chapter rag share."""

from __future__ import annotations

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
