"""Whether something can be trained through a solution: its gradients against those of the oracle.

The result's tensors are multiplied by fixed random numbers, and autograd says what that does to each input.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from autograde.judging.comparing import Mismatch, compare, rebuild, tensors

FLOWS = "Gradients flow through it, as the formula has them"
_RTOL = 1e-3
Asked = tuple[tuple[int, ...], tuple[int, ...]]  # numbers of results, numbers of inputs
_CUT = "no gradient reaches {}: the result is cut off from the graph"


def flows(oracle: Callable) -> Callable:
    """What the law `FLOWS` asks: gradients are the oracle's, on the cases that are marked as trained through."""

    def holds(out: Any, one, call: Callable) -> bool | str | None:
        if not one.trained:
            return None
        wanted, asked = _right(oracle, one)
        if asked is None:
            return None
        found = call(*one.args, backward=asked, **one.kwargs)
        names = [name for i, name in enumerate(_names(oracle, one)) if i in asked[1]]
        if not isinstance(found, list) or len(found) != len(wanted):
            return _CUT.format("its inputs")
        cut = [n for n, w, f in zip(names, wanted, found, strict=True) if f is None and bool(w.any())]
        if cut:
            return _CUT.format(" and ".join(dict.fromkeys(cut)))
        if one.wild:
            return _overflows(names, found)
        beside, largest = None, max((float(w.abs().max()) for w in wanted if w.numel()), default=0.0)
        for i, (name, w, f) in enumerate(zip(names, wanted, found, strict=True)):
            mismatch = _apart(w, torch.zeros_like(w) if f is None else f, largest)
            if mismatch:
                beside = beside or _beside(oracle, one, asked)
                if beside[i] is not None and not _apart(w, beside[i], largest):
                    return f"the gradient of {name}{mismatch.message.removeprefix('the result')}"
        return True

    return holds


def _overflows(names: Sequence[str], found: Sequence[torch.Tensor | None]) -> bool | str:
    """Whether all that was found is finite. (How far it may be off where numbers are large, nobody could say.)"""
    odd = [n for n, f in zip(names, found, strict=True) if f is not None and not bool(f.isfinite().all())]
    return not odd or f"with large numbers the gradient of {odd[0]} isn't finite: something overflows on the way back"


def gradients(function: Callable, args: tuple, kwargs: dict, asked: Asked | None) -> tuple[list, Asked]:
    """One gradient for each input that is asked for (None: nothing reaches it), in their order.

    asked: the numbers of the result's tensors that count, and those of the floating-point tensors among the inputs that
    are trained; None: all results that have a gradient, and all inputs. What was looked at is returned as well. Other
    inputs are plain tensors to the function: it may turn them into numbers as it likes.
    """
    leaves: list[torch.Tensor] = []
    seen = itertools.count()

    def watched(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point() or (next(seen) not in asked[1] if asked else False):
            return x
        leaves.append(x.detach().requires_grad_())
        return leaves[-1].clone()  # so that even writing into it would be seen

    with torch.enable_grad():
        made = list(tensors(function(*rebuild(args, watched), **rebuild(kwargs, watched))))
        chosen = range(len(made)) if asked is None else [i for i in asked[0] if i < len(made)]
        chosen = [i for i in chosen if made[i].requires_grad]
        found: Sequence = [None] * len(leaves)
        if chosen and leaves:
            # As one number: given a gradient to start with, autograd would import a compiler to look at its shape.
            total = sum((_real(made[i]) * _real(_pull(i, made[i]))).sum() for i in chosen)
            found = torch.autograd.grad(total, leaves, allow_unused=True)
    return list(found), (tuple(chosen), tuple(range(len(leaves))) if asked is None else tuple(asked[1]))


def _pull(i: int, result: torch.Tensor) -> torch.Tensor:
    """What the result number i is multiplied by: the same numbers for whoever asks, and 0 where nothing is learned."""
    drawn = torch.randn(result.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
    return drawn.to(result.dtype).masked_fill(result.detach().isinf(), 0)


def _real(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _right(oracle: Callable, one) -> tuple[list, Asked | None]:
    """The oracle's gradients of the inputs that have one, and what to ask a solution for; None where none has."""
    try:
        found, (through, _) = gradients(oracle, one.args, one.kwargs, None)
    except RuntimeError:  # what the oracle is made of has no gradient
        return [], None
    trained = tuple(i for i, gradient in enumerate(found) if gradient is not None)
    wanted = [found[i] for i in trained]
    usable = through and all(bool(torch.isfinite(gradient).all()) for gradient in wanted)
    return (wanted, (through, trained)) if usable else ([], None)


def _apart(wanted: torch.Tensor, found: torch.Tensor, largest: float) -> Mismatch | None:
    """Whether two gradients differ. What cancels to 0, as a key's bias does, has the `largest` one's rounding."""
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    return compare(wanted, found, _RTOL, 1e-4 * scale + max(1e-6, 3e-6 * largest))


def _beside(oracle: Callable, one, asked: Asked) -> list:
    """The right gradients where the inputs are moved a little: they jump at a kink, and where conditioning is bad."""
    generator = torch.Generator().manual_seed(0)

    def moved(x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        if not (x.is_floating_point() and x.numel()):
            return x
        size = x.abs().nan_to_num(0.0, posinf=0.0).max()  # masked entries of -inf say nothing of the scale
        return x + 1e-6 * (size + 1e-3) * noise

    return gradients(oracle, rebuild(one.args, moved), rebuild(one.kwargs, moved), asked)[0]


def _names(oracle: Callable, one) -> list[str]:
    """What the learner calls each floating-point tensor among the inputs, in their order."""
    parameters = list(inspect.signature(oracle).parameters)
    parameters += [f"argument {i + 1}" for i in range(len(parameters), len(one.args))]
    given = [*zip(parameters, one.args, strict=False), *one.kwargs.items()]
    return [f"`{name}`" for name, value in given for x in tensors(value) if x.is_floating_point()]
