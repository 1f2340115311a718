"""What exercises of the chapter hallucination share."""

from __future__ import annotations

import torch

from autograde.exercises.shared import pick

NAMES = ("Oslo", "lima", "New Delhi", "Bern", "Quito", "Porto Novo", "Rabat", "Suva", "Apia", "Minsk")


def shuffled(g, items):
    """The items in a drawn order."""
    items = list(items)
    return [items[i] for i in torch.randperm(len(items), generator=g).tolist()]


def some(g, count, items=NAMES):
    """Distinct items, drawn."""
    return shuffled(g, items)[:count]


def judged(g, n, low=0.0, high=1.0, levels=997):
    """Confidences that lie on no round number, and which of the answers are right: both [n]."""
    steps = torch.randint(1, levels, (n,), generator=g)
    confidence = low + (high - low) * (steps + 0.37) / levels
    right = torch.rand(n, generator=g) < confidence**2
    right[pick(g, 0, n - 1)] = True
    return confidence, right
