"""What the experiments on pruning share: passages, a real model with less in it, and what that costs.

The model is SmolLM2-135M-Instruct in float32. Nothing in it is overwritten: a linear layer asks for its pruned weights
when it runs, so that the model needs no second copy.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from labkit import shakespeare, smollm

LENGTH = 96  # tokens of a passage
_CHARACTERS = 1_000  # hold that many tokens everywhere in the plays
# Shares of the text. No two parts have a line in common, and each holds plays of its own.
_PARTS = {"calibration": (0.0, 0.1), "healing": (0.1, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}

Choose = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@functools.cache
def passages(part: str, count: int, seed: int = 0) -> torch.Tensor:
    """Passages of Shakespeare from one part of the text: int64 [count, LENGTH]."""
    plays, (_, tokenizer) = shakespeare(), smollm()
    low, high = (int(share * len(plays)) for share in _PARTS[part])
    dice = torch.Generator().manual_seed(seed)
    places = torch.randint(low, high - _CHARACTERS, (count,), generator=dice).tolist()
    return torch.tensor([tokenizer(plays[at : at + _CHARACTERS]).input_ids[:LENGTH] for at in places])


def nats(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of each passage, in nats a token: [passages]."""
    with torch.inference_mode():
        states = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        # Scores over the vocabulary are what takes memory: two passages at a time.
        pairs = zip(states.split(2), ids[:, 1:].split(2), strict=True)
        each = [F.cross_entropy(model.lm_head(x).mT, wanted, reduction="none").mean(1) for x, wanted in pairs]
    return torch.cat(each)


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside the model's blocks, by name; embedding and output stay out."""
    return {name: part for name, part in model.model.named_modules() if isinstance(part, nn.Linear)}


@functools.cache
def input_norms() -> dict[str, torch.Tensor]:
    """For every linear layer the norm of each input feature over the calibration passages."""
    model, _ = smollm()
    squares: dict[str, torch.Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, layer in linears(model).items():

            def look(_, given, name=name):
                squares[name] = squares.get(name, 0) + given[0].flatten(0, -2).square().sum(0)

            stack.callback(layer.register_forward_pre_hook(look).remove)
        nats(model, passages("calibration", 16))
    return {name: square.sqrt() for name, square in squares.items()}


@contextlib.contextmanager
def pruned(choose: Choose, norms: dict[str, torch.Tensor] | None = None) -> Iterator[nn.Module]:
    """The model, each of whose linear layers runs with `choose(weight, norms of its inputs)` in its weights' place."""
    model, _ = smollm()
    layers = linears(model)
    for name, layer in layers.items():
        of = None if norms is None else norms[name]
        layer.forward = lambda x, layer=layer, of=of: F.linear(x, choose(layer.weight, of))
    try:
        yield model
    finally:
        for layer in layers.values():
            del layer.forward


def smallest_gone(scores: torch.Tensor, weight: torch.Tensor, share: float) -> torch.Tensor:
    """The weights, without that share of each row of `scores` which is smallest."""
    count = round(share * scores.shape[-1])
    stays = scores > scores.kthvalue(count, -1, keepdim=True).values
    return weight * stays.reshape(weight.shape)


@contextlib.contextmanager
def without(gone: list[int]) -> Iterator[nn.Module]:
    """The model without some of its layers."""
    model, _ = smollm()
    whole = model.model.layers
    model.model.layers = nn.ModuleList(layer for i, layer in enumerate(whole) if i not in gone)
    try:
        yield model
    finally:
        model.model.layers = whole


def influence() -> list[float]:
    """How far each layer but the last turns a token's vector: 1 - cosine, mean over the calibration passages' tokens.

    The first token is left out, whose vector is a giant. Behind the last layer the model norms what it gives.
    """
    model, _ = smollm()
    with torch.inference_mode():
        states = model.model(passages("calibration", 8), output_hidden_states=True).hidden_states[:-1]
    pairs = zip(states[:-1], states[1:], strict=True)
    return [1 - F.cosine_similarity(a, b, dim=-1)[:, 1:].mean().item() for a, b in pairs]


def least(layers: list[float], count: int) -> list[int]:
    """The numbers of the `count` layers with the least influence, in order."""
    return sorted(sorted(range(len(layers)), key=layers.__getitem__)[:count])
