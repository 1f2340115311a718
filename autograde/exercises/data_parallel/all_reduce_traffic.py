"""How the exercises of 03_data_parallel/02_all_reduce look at what was sent.

The judge of the values is plain arithmetic in one process, the judge of the traffic what was recorded.
"""

from __future__ import annotations

import re

import torch

from autograde.exercise import PerRank
from autograde.judging.comparing import compare, tensors


def _collectives(out):
    """What a solution calls besides sends and receives, as a sentence; empty if nothing. A barrier moves nothing."""
    other = {m.op for messages in getattr(out, "traffic", ()) for m in messages} - {"send", "recv", "barrier"}
    return f"calls {', '.join(sorted(other))}, where only sends and receives are allowed" if other else ""


def by_hand(holds):
    """A law that nothing keeps which sends nothing, or leaves the work to the library's collectives."""

    def law(out, one, call):
        if told := _collectives(out):
            return told
        if not all(isinstance(value, torch.Tensor) for value in out):
            return "not every rank returns a tensor"
        if len(out) > 1 and not any(map(sent_by, out.traffic)):
            return "nobody sends anything"
        return holds(out, one, call)

    return law


def judged(oracle):
    """`agrees` of an exercise: values, and nothing but sends and receives.

    A mistake that gives the right values is recognised by its messages; any other by its values alone.
    """

    def agrees(expected, got, one):
        if told := _collectives(got):
            return told
        verdict = _values(expected, got, one)
        if verdict is not True or not isinstance(expected, PerRank):  # the right answer comes as a plain list
            return verdict
        if _values(oracle(*one.args, **one.kwargs), expected, one) is not True:
            return True
        return _who_sends_what(expected) == _who_sends_what(got)

    return agrees


def _values(expected, got, one):
    if not isinstance(got, list):
        return "is not what was expected"
    scale = max([1.0, *(float(x.abs().max()) for x in tensors(list(one.args)) if x.numel())])
    mismatch = compare(list(expected), list(got), rtol=1e-5, atol=2e-6 * scale)
    return re.sub(r"item (\d+) of the result\b", r"rank \1's result", mismatch.message) if mismatch else True


def _who_sends_what(out):
    return [sorted((m.op, m.bytes, -1 if m.peer is None else m.peer) for m in sent if m.bytes) for sent in out.traffic]


def sent_by(messages):
    return [m for m in messages if m.op == "send" and m.bytes]


@by_hand
def only_neighbours(out, one, call):
    n = len(out)
    for r, messages in enumerate(out.traffic):
        for m in messages:
            right = (r + 1) % n if m.op == "send" else (r - 1) % n
            if m.bytes and m.peer not in (right, None):
                told = f"sends to rank {m.peer}" if m.op == "send" else f"receives from rank {m.peer}"
                return f"{n} ranks: rank {r} {told}"
    return True


def shares(lengths, left_out):
    """A law: rank r sends every chunk once, but the one with number left_out(r)."""

    @by_hand
    def law(out, one, call):
        n, sizes = len(out), lengths(one)
        for r, messages in enumerate(out.traffic):
            need = sorted(size for c, size in enumerate(sizes) if c != left_out(r, n) and size)
            sent = sorted(m.bytes for m in sent_by(messages))
            if sent != need:
                return f"{one.label}: rank {r} sends messages of {sent or 'no'} bytes, and its share is {need}"
        return True

    return law


@by_hand
def keeps_dtype(out, one, call):
    kind = one.args[0][0].dtype
    return all(value.dtype == kind for value in out) or f"{kind} went in, {out[0].dtype} came out"
