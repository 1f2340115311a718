"""What exercises of the chapter ddp share."""

from __future__ import annotations

import re

import torch

from autograde.exercise import PerRank
from autograde.judging.comparing import compare


def agree(expected, got, one):
    """Compare what is listed on the left; what the oracle leaves out, such as the order of events, is for the laws."""
    if not isinstance(got, list) or not all(isinstance(g, dict) for g in got):
        return "is not what was expected"
    told = [{key: g[key] for key in e} for e, g in zip(expected, got, strict=True)]
    mismatch = compare(expected, told, rtol=1e-4, atol=1e-6)
    return re.sub(r"item (\d+) of the result\b", r"rank \1's result", mismatch.message) if mismatch else True


def agree_first_on(numbers, oracle):
    """As `agree`; but wrong numbers are recognised as a mistake's by the numbers alone, whatever else went wrong."""

    def agrees(expected, got, one):
        verdict = agree(expected, got, one)
        if verdict is True or not isinstance(expected, PerRank):  # the right answer comes as a plain list
            return verdict
        wrong = [{key: r[key] for key in numbers} for r in expected]
        if agree(wrong, got, one) is not True:
            return verdict
        right = [{key: r[key] for key in numbers} for r in oracle(*one.args, **one.kwargs)]
        return verdict if agree(right, wrong, one) is True else True

    return agrees


def bytes_of(tensors):
    return [t.numel() * t.element_size() for t in tensors]


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def grad_or_zeros(p):
    return torch.zeros_like(p) if p.grad is None else p.grad


def buckets_in_a_loop(sizes, cap):
    """Right: a bucket that holds `cap` bytes takes nothing more."""
    buckets = []
    for i, _ in enumerate(sizes):
        if not buckets or sum(sizes[j] for j in buckets[-1]) >= cap:
            buckets.append([])
        buckets[-1].append(i)
    return buckets
