"""What exercises of several sections share."""

from __future__ import annotations

import torch

from autograde.borrowed import borrowed


def integer(g, low, high):
    """A random whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=g))


def randn(g, *shape):
    """Standard normal numbers, float32."""
    return torch.randn(shape, generator=g)


def value_keeps_dtypes(out, one, call):
    return all(a is None or a.dtype == b.dtype for a, b in zip(out[0], one.args[0], strict=True))


def only(*labels):
    """A law on inputs of its own is asked on the cases of these labels: on more of them it would learn nothing new."""

    def of(law):
        def holds(out, one, call):
            return law(out, one, call) if one.label in labels else None

        return holds

    return of


def pick(g, low, high):
    """A random whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=g))


def logits_processor(name):
    """One of the classes that transformers' generate() makes logits ready with."""
    return borrowed("transformers.generation.logits_process", name)
