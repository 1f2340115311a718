"""What several chapters of 03_data_parallel share: who I am, and how the results of all ranks are compared."""

from __future__ import annotations

import re

import torch
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


def agree_by_entry(numbers, oracle, atol=1e-6, names=None):
    """As `agree`, telling which entries are off, on which ranks and how, and which are right on all ranks.

    Wrong numbers are recognized as a mistake's by the entries in `numbers` alone, whatever else went wrong.
    `names`: what an entry is called, where its key doesn't say it.
    """
    names = names or {}

    def agrees(expected, got, one):
        verdict = agree(expected, got, one, atol)
        if verdict is True or not isinstance(got, list):
            return verdict
        if not isinstance(expected, PerRank):  # the right answer comes as a plain list
            right, given = ([_entries(of_rank, numbers, names) for of_rank in each] for each in (expected, got))
            return _told_by_entry(right, given, atol) or verdict
        wrong = [{key: r[key] for key in numbers} for r in expected]
        if agree(wrong, got, one, atol) is not True:
            return verdict
        right = [{key: r[key] for key in numbers} for r in oracle(*one.args, **one.kwargs)]
        return verdict if agree(right, wrong, one, atol) is True else True

    return agrees


def _entries(told, numbers, names):
    """What a rank brought home, the parts of a dict or a list one by one."""
    found = {}
    for key in numbers:
        value, name = told[key], names.get(key, key)
        if isinstance(value, dict):
            found |= {f"{name} `{part}`": each for part, each in value.items()}
        elif isinstance(value, (list, tuple)):
            found |= {f"{name}[{i}]": each for i, each in enumerate(value)}
        else:
            found[name] = value
    return found


def _told_by_entry(expected, got, atol):
    """Which entries are off, on which ranks and how; an empty text if none is."""
    off, right = [], []
    for name in dict.fromkeys(name for of_rank in (*expected, *got) for name in of_rank):
        pairs = [(e.get(name), g.get(name)) for e, g in zip(expected, got, strict=True)]
        wrong = [r for r, (e, g) in enumerate(pairs) if compare(e, g, rtol=1e-4, atol=atol)]
        ranks = "every rank" if len(wrong) == len(pairs) else f"rank {' and '.join(map(str, wrong))}"
        if wrong:
            off.append(f"{name} on {ranks} ({_how(pairs, wrong, atol)})")
        else:
            right.append(name)
    return off and f"off: {_few(off, '; ')}. Right on all ranks: {_few(right, ', ') or 'nothing'}"


def _few(told, between):
    return between.join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")


def _how(pairs, wrong, atol):
    """How one entry differs on the ranks on which it is wrong."""

    def near(expected, got):
        return compare(expected, got, rtol=1e-4, atol=atol) is None

    expected, got = pairs[wrong[0]]
    if expected is None or any(pairs[r][1] is None for r in wrong):
        return "there should be none" if expected is None else "there is none"
    if not all(isinstance(t, torch.Tensor) for pair in pairs for t in pair):
        return compare(expected, got, rtol=1e-4, atol=atol, where="it").message
    if expected.shape != got.shape:
        return f"of shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if not all(pairs[r][1].isfinite().all() for r in wrong):
        return "not all of it finite"
    for times in (0, 1 / len(pairs), len(pairs), -1):
        if all(near(times * e, g) for e, g in (pairs[r] for r in wrong)):
            return f"{times:.3g} times the right one"
    if len({g.shape for _, g in pairs}) == 1 and all(near(e, sum(g for _, g in pairs)) for e, _ in pairs):
        return "the ranks' parts of it add up to the right one"
    return f"by up to {max(float((g - e).abs().max()) for e, g in (pairs[r] for r in wrong) if e.shape == g.shape):.2g}"


def bytes_of(tensors):
    return [t.numel() * t.element_size() for t in tensors]
