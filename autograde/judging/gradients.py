"""Whether something can be trained through a solution: its gradients against those of the oracle.

The result's tensors are multiplied by fixed random numbers, and autograd says what that does to each input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from autograde.judging.comparing import compare, rebuild, tensors

FLOWS = "Gradients flow through it, as the formula has them"
_RTOL = 1e-3
_CUT = "no gradient reaches {}: the result is cut off from the graph"


def flows(oracle: Callable) -> Callable:
    """What the law `FLOWS` asks: gradients are the oracle's, on the cases that are marked as trained through."""

    def holds(out: Any, one, call: Callable) -> bool | str | None:
        if not one.trained:
            return None
        wanted, through = _right(oracle, one)
        if not through:
            return None
        found = call(*one.args, backward=through, **one.kwargs)
        names = _names(oracle, one)
        if not isinstance(found, list) or len(found) != len(wanted):
            return _CUT.format("its inputs")
        pairs = [(name, w, f) for name, w, f in zip(names, wanted, found, strict=True) if w is not None]
        cut = [name for name, w, f in pairs if f is None and bool(w.any())]
        if cut:
            return _CUT.format(" and ".join(dict.fromkeys(cut)))
        for name, w, f in pairs:
            scale = float(w.abs().max()) if w.numel() else 0.0
            mismatch = compare(w, torch.zeros_like(w) if f is None else f, _RTOL, 1e-4 * scale + 1e-6)
            if mismatch and not _is_shaky(oracle, one, through, w, name, names):
                return f"the gradient of {name}{mismatch.message.removeprefix('the result')}"
        return True

    return holds


def gradients(function: Callable, args: tuple, kwargs: dict, through: Sequence[int] | None) -> tuple[list, list[int]]:
    """One gradient for each floating-point tensor among the inputs (None: nothing reaches it), in their order.

    through: numbers of the result's tensors that count; None: all that have a gradient. They are returned as well.
    """
    leaves: list[torch.Tensor] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x
        leaves.append(x.detach().requires_grad_())
        return leaves[-1].clone()  # so that even writing into it would be seen

    with torch.enable_grad():
        made = list(tensors(function(*rebuild(args, watched), **rebuild(kwargs, watched))))
        chosen = range(len(made)) if through is None else [i for i in through if i < len(made)]
        chosen = [i for i in chosen if made[i].requires_grad]
        if not chosen or not leaves:
            return [None] * len(leaves), []
        pulls = [_pull(i, made[i]) for i in chosen]
        found = torch.autograd.grad([made[i] for i in chosen], leaves, pulls, allow_unused=True)
    return list(found), list(chosen)


def _pull(i: int, result: torch.Tensor) -> torch.Tensor:
    """What the result number i is multiplied by: the same numbers for whoever asks, and 0 where nothing is learned."""
    drawn = torch.randn(result.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
    return drawn.to(result.dtype).masked_fill(result.detach().isinf(), 0)


def _right(oracle: Callable, one) -> tuple[list, tuple[int, ...]]:
    try:
        wanted, through = gradients(oracle, one.args, one.kwargs, None)
    except RuntimeError:  # what the oracle is made of has no gradient
        return [], ()
    usable = all(w is None or bool(torch.isfinite(w).all()) for w in wanted)
    return wanted, tuple(through) if usable else ()


def _is_shaky(oracle: Callable, one, through, wanted, name: str, names: list[str]) -> bool:
    """Whether the right gradient itself jumps when the inputs move a little: at a kink, or badly conditioned."""
    generator = torch.Generator().manual_seed(0)

    def moved(x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        return x + 1e-6 * (x.abs().max() + 1e-3) * noise if x.is_floating_point() and x.numel() else x

    other, _ = gradients(oracle, rebuild(one.args, moved), rebuild(one.kwargs, moved), through)
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    beside = next(w for n, w in zip(names, other, strict=True) if n == name)
    return beside is None or compare(wanted, beside, _RTOL, 1e-4 * scale + 1e-6) is not None


def _names(oracle: Callable, one) -> list[str]:
    """What the learner calls each floating-point tensor among the inputs, in their order."""
    parameters = list(inspect.signature(oracle).parameters)
    parameters += [f"argument {i + 1}" for i in range(len(parameters), len(one.args))]
    given = [*zip(parameters, one.args, strict=False), *one.kwargs.items()]
    return [f"`{name}`" for name, value in given for x in tensors(value) if x.is_floating_point()]
