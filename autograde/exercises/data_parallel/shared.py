"""What several chapters of 03_data_parallel share: who I am, and how the results of all ranks are compared."""

from __future__ import annotations

import re

import torch.distributed as dist

from autograde.exercise import PerRank
from autograde.judging.comparing import compare


def place():
    """(rank, number of ranks)."""
    return dist.get_rank(), dist.get_world_size()


def agree(expected, got, one, atol=1e-6):
    """Compare what is listed on the left; what the oracle leaves out, such as the order of events, is for the laws."""
    if not isinstance(got, list) or not all(isinstance(g, dict) for g in got):
        return "is not what was expected"
    told = [{key: g[key] for key in e} for e, g in zip(expected, got, strict=True)]
    mismatch = compare(expected, told, rtol=1e-4, atol=atol)
    return re.sub(r"item (\d+) of the result\b", r"rank \1's result", mismatch.message) if mismatch else True


def agree_first_on(numbers, oracle, atol=1e-6):
    """As `agree`; but wrong numbers are recognised as a mistake's by the numbers alone, whatever else went wrong."""

    def agrees(expected, got, one):
        verdict = agree(expected, got, one, atol)
        if verdict is True or not isinstance(expected, PerRank):  # the right answer comes as a plain list
            return verdict
        wrong = [{key: r[key] for key in numbers} for r in expected]
        if agree(wrong, got, one, atol) is not True:
            return verdict
        right = [{key: r[key] for key in numbers} for r in oracle(*one.args, **one.kwargs)]
        return verdict if agree(right, wrong, one, atol) is True else True

    return agrees


def bytes_of(tensors):
    return [t.numel() * t.element_size() for t in tensors]
