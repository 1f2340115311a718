"""What exercises of the chapter metrics share."""

from __future__ import annotations

import functools

import torch


def ints(g, high, n):
    return torch.randint(high, (n,), generator=g)


def key_of(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.double().numpy().tobytes()
    return value


def remembered(oracle):
    """The same oracle, asked once for the same inputs: scikit-learn takes milliseconds to look at its arguments."""
    known = {}

    @functools.wraps(oracle)
    def ask(*args, **kwargs):
        key = tuple(key_of(value) for value in (*args, *kwargs.values())), tuple(kwargs)
        if key not in known:
            known[key] = oracle(*args, **kwargs)
        return known[key]

    return ask


def randn(g, *shape, scale=1.0):
    return torch.randn(*shape, generator=g) * scale


WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "big", "small", "mat", "The"]


def pick(g, high):
    return int(torch.randint(high, (1,), generator=g))


def sentence(g, n, words=WORDS):
    return [words[pick(g, len(words))] for _ in range(n)]


def edited(g, tokens, changes):
    """The tokens with some of them exchanged for words that occur nowhere else."""
    out = list(tokens)
    for place in torch.randperm(len(out), generator=g)[:changes].tolist():
        out[place] = f"x{pick(g, 90)}"
    return out


def share(hits, total):
    return hits / total if total else 0.0
