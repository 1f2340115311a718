"""A small causal language model on letters, with any norm in any place: what the experiments on T06 share."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from labkit import shakespeare

LENGTH = 48
PLACES = ("pre", "post", "reordered", "sandwich")
LOST = 10.0  # nats a letter; what has diverged counts as this


@functools.cache
def texts() -> dict[str, torch.Tensor]:
    """Three parts of the book as letters' numbers: training, validation (rates are chosen on it) and test."""
    book = shakespeare()[:400_000]
    alphabet = sorted(set(book))
    data = torch.tensor([alphabet.index(c) for c in book])
    return {"train": data[:320_000], "validation": data[320_000:360_000], "test": data[360_000:]}


@functools.cache
def letters() -> int:
    """How many different letters there are."""
    return 1 + max(int(part.max()) for part in texts().values())


def draw(part: str, rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Pieces of a part of the book: long [rows, length + 1], inputs and targets together."""
    data = texts()[part]
    starts = torch.randint(len(data) - length, (rows, 1), generator=generator)
    return data[starts + torch.arange(length + 1)]


class Norm(nn.Module):
    """LayerNorm, RMSNorm, or BatchNorm over all tokens of a batch.

    parts: BatchNorm cuts the tokens into so many equal parts, each with statistics of its own, as ranks do that don't
    talk to each other. The running statistics are those of the first part: rank 0's, which DistributedDataParallel
    sends to all. One part is torch.nn.BatchNorm1d.
    """

    def __init__(self, kind: str, width: int, parts: int = 1):
        super().__init__()
        self.kind, self.parts = kind, parts
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if kind != "rms" else None
        if kind == "batch":
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("var", torch.ones(width))

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """x: [rows, n, width]. real: bool [rows, n], the tokens that BatchNorm's statistics count, or None for all."""
        if self.kind == "layer":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        if self.kind == "rms":
            return F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)
        if not self.training:
            return (x - self.mean) * (self.weight * torch.rsqrt(self.var + 1e-5)) + self.bias
        tokens = x.flatten(0, 1) if real is None else x[real]
        parts = tokens.view(self.parts, -1, x.shape[-1])
        var, mean = torch.var_mean(parts, 1, correction=0, keepdim=True)
        with torch.no_grad():
            n = parts.shape[1]
            self.mean.lerp_(mean[0, 0], 0.1)
            self.var.lerp_(var[0, 0] * n / (n - 1), 0.1)
        if real is None:
            y = ((parts - mean) * torch.rsqrt(var + 1e-5)).view_as(x)
        else:
            y = (x - mean[0]) * torch.rsqrt(var[0] + 1e-5)
        return y * self.weight + self.bias


class Attention(nn.Module):
    """Causal attention of several heads. qk: an RMSNorm on every head's queries and keys."""

    def __init__(self, width: int, heads: int, qk: bool):
        super().__init__()
        self.heads, self.qk = heads, qk
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if qk:
            self.scales = nn.Parameter(torch.ones(2, 1, 1, width // heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [rows, n, width]."""
        q, k, v = self.into(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk:
            q, k = (F.rms_norm(a, a.shape[-1:], eps=1e-6) * s for a, s in zip((q, k), self.scales, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward part, each with its norm in front of it, behind the sum, behind the part, or twice."""

    def __init__(self, width: int, norm, place: str, qk: bool):
        super().__init__()
        self.place = place
        feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.parts = nn.ModuleList([Attention(width, 4, qk), feed_forward])
        self.norms = nn.ModuleList(norm() for _ in range(4 if place == "sandwich" else 2))

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """x: [rows, n, width]."""
        for i, part in enumerate(self.parts):
            norm = self.norms[i]
            if self.place == "pre":
                x = x + part(norm(x, real))
            elif self.place == "post":
                x = norm(x + part(x), real)
            elif self.place == "reordered":
                x = x + norm(part(x), real)
            else:
                x = x + self.norms[i + 2](part(norm(x, real)), real)
        return x


class LanguageModel(nn.Module):
    """Predicts the next letter. Everywhere but in post-norm the sums leave unnormalized, so one more norm ends them."""

    def __init__(self, depth=2, width=64, kind="layer", place="pre", qk=False, parts=1, length=LENGTH):
        super().__init__()

        def norm():
            return Norm(kind, width, parts)

        self.embedding = nn.Embedding(letters(), width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width, norm, place, qk) for _ in range(depth))
        self.last = None if place == "post" else norm()
        self.head = nn.Linear(width, letters())
        for p in self.blocks.parameters():
            if p.ndim == 2:
                nn.init.xavier_uniform_(p)  # as the first Transformer began

    def forward(self, tokens: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of the next letter, [rows, n, letters], of tokens [rows, n]. `real` as in Norm."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, real)
        return self.head(x if self.last is None else self.last(x, real))


def loss_of(net: nn.Module, pieces: torch.Tensor, real=None, counted=None) -> torch.Tensor:
    """Mean negative log-likelihood in nats a letter, of the letters that `counted` (bool [rows, n]) says, or of all."""
    targets = pieces[:, 1:] if counted is None else pieces[:, 1:].masked_fill(~counted, -100)
    return F.cross_entropy(net(pieces[:, :-1], real).flatten(0, 1), targets.flatten())


def finite(value: float) -> float:
    """A loss, or LOST where it is no number or beyond it."""
    return min(value, LOST) if math.isfinite(value) else LOST


def train(net: nn.Module, rate: float, steps: int, batch, warmup: int = 0, change=None) -> nn.Module:
    """AdamW on `batch()`, which gives loss_of's arguments. For `warmup` steps the rate grows linearly.

    `change(net)` may change the gradients before each step.
    """
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / max(warmup, 1))
        loss = loss_of(net, *batch())
        optimizer.zero_grad()
        loss.backward()
        if change is not None:
            change(net)
        optimizer.step()
    return net
