"""What exercises of the chapter forgetting share."""

from __future__ import annotations

import torch

from autograde.exercise import Law
from autograde.judging.comparing import tensors

CUT = "It is fixed, a point to be pulled to or a teacher: detach() it."


def stands_still(at, name):
    """A law: no floating-point tensor of argument number `at`, which the learner calls `name`, is trained."""

    def holds(out, one, call):
        if one.made:
            return None
        counts = [sum(x.is_floating_point() for x in tensors(argument)) for argument in one.args]
        asked = tuple(range(sum(counts[:at]), sum(counts[: at + 1])))
        found = call(*one.args, backward=((0,), asked), **one.kwargs)
        moved = isinstance(found, list) and any(g is not None and bool(g.any()) for g in found)
        return not moved or "a gradient reaches it"

    return Law(f"No gradient reaches {name}", holds)


def _wide_enough(out, one, call):
    given = {x.dtype for x in tensors(list(one.args)) if x.is_floating_point()}
    wanted = torch.float64 if torch.float64 in given else torch.float32
    return out.dtype == wanted or f"{wanted} is wanted, {out.dtype} came out"


WIDE = Law("The result is a float32 number, of float64 inputs a float64 one", _wide_enough, everywhere=True)


def in_float32(weight, start, given):
    """A law: what isn't a bfloat16 number any more, a difference or a square, is held in float32.

    The same ten weights are asked about in bfloat16 and in float32; `given(weights, start)` gives the arguments. So it
    says nothing about a wrong formula.
    """

    def holds(out, one, call):
        if one.made or one.label != "a network near its start":
            return None
        w, s = (torch.full((10,), x, dtype=torch.bfloat16) for x in (weight, start))
        low, full = float(call(*given(w, s))), float(call(*given(w.float(), s.float())))
        return abs(low - full) <= 1e-3 * abs(full) or f"in bfloat16 it is {low:.6g}, in float32 {full:.6g}"

    return Law("Of bfloat16 weights, too, differences and squares are taken in float32", holds)


def wide(x):
    return x if x.dtype == torch.float64 else x.float()


def near(g, start, by=0.3):
    """The tensors of `start` after some training: each moved, in another order of names than `start` has."""
    names = list(start)[1:] + list(start)[:1]
    return {name: start[name] + by * torch.randn(start[name].shape, generator=g) for name in names}


def tensors_of(g, **shapes):
    """Named tensors of standard normal numbers."""
    return {name.replace("__", "."): torch.randn(shape, generator=g) for name, shape in shapes.items()}


def pulled(each, names, strength=lambda s: s / 2, dtype=wide):
    """The sum over some names of what `each(name)` gives, times a strength: what the penalties have in common."""
    total = sum((each(name).sum() for name in names), torch.zeros(()))
    return strength(dtype(total))
