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
