"""D02.17: does a compressed gradient train as well as a whole one? Four replicas of a small network, in one process.

The network reads eight letters and predicts the next one. Its four replicas see different letters; what the ranks
would send is computed exactly as they would, and counted: bytes that one rank sends in a step.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from experiments.normed_lm import draw, finite, letters
from labkit.experiment import Experiment

RANKS, CONTEXT, ROWS, STEPS, EVERY = 4, 8, 32, 600, 60
WIDTH, HIDDEN = 24, 128
RATES = {"SGD": (0.1, 0.3, 1.0, 3.0), "Adam": (3e-3, 1e-2, 3e-2)}
SHARE, LOW_RANK, BLOCK = 0.01, 2, 64
COUNTS = 0.05  # nats a letter: what a way of sending may lose against sending everything. Stated before the run.

IMPORTANT = ("top 1 %", "top 1 %, feedback")
LOW_PRECISION = ("bfloat16", "int8")
WAYS = (
    "everything",
    "top 100 %",
    "bfloat16",
    "int8",
    "top 1 %, feedback",
    "top 1 %",
    "random 1 %",
    "PowerSGD, feedback",
    "PowerSGD",
    "every 8th step",
    "DiLoCo, every 32nd",
)

ADAM_TOO = ("everything", *WAYS[4:6], *WAYS[7:])

experiment = Experiment(
    claim="D02.17",
    question="Does training lose anything when only part of the gradient is sent, or few digits of it?",
    arms={
        "a short run": {"way": "top 1 %, feedback", "by": "SGD", "rate": 0.3, "steps": 200},
        **{f"{way}, SGD": {"way": way, "by": "SGD"} for way in WAYS},
        **{f"{way}, Adam": {"way": way, "by": "Adam"} for way in ADAM_TOO},
        "everything, SGD, slower": {"way": "everything", "by": "SGD", "rate": 0.03},
        "top 1 %, feedback, SGD, slower": {"way": "top 1 %, feedback", "by": "SGD", "rate": 0.03},
    },
    seeds=range(5),
    shows="random 1 %, SGD",
    shows_not="top 100 %, SGD",
    live=("a short run", 0),
    within={"loss": 0.1, "curve": 0.15},
)


def network(seed: int) -> list[torch.Tensor]:
    """The parameters of all replicas, equal at the start: each tensor is [ranks, ...]."""
    g = torch.Generator().manual_seed(seed)
    vocab, inputs = letters(), CONTEXT * WIDTH
    one = [
        torch.randn(vocab, WIDTH, generator=g),
        torch.randn(inputs, HIDDEN, generator=g) / inputs**0.5,
        torch.zeros(1, HIDDEN),
        torch.randn(HIDDEN, vocab, generator=g) / HIDDEN**0.5,
        torch.zeros(1, vocab),
    ]
    return [p.expand(RANKS, *p.shape).clone().requires_grad_() for p in one]


def losses(params, pieces: torch.Tensor) -> torch.Tensor:
    """Nats a letter on each replica, [ranks]; pieces: long [ranks, rows, CONTEXT + 1]."""
    table, first, bias, second, last = params
    ranks = torch.arange(len(table))[:, None, None]
    seen = table[ranks, pieces[..., :-1]].flatten(2)
    scores = torch.tanh(seen @ first + bias) @ second + last
    targets = pieces[..., -1]
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).mean(1)


class Sender:
    """What the replicas send of their gradients, and what all of them then apply. `bytes`: of a rank, in one step."""

    def __init__(self, way: str, shapes: list[torch.Size], seed: int):
        self.way, self.shapes = way, shapes
        self.count = sum(s.numel() for s in shapes)
        self.left = torch.zeros(RANKS, self.count)
        self.feedback = "feedback" in way
        self.g = torch.Generator().manual_seed(1000 + seed)
        self.q = [torch.randn(s[1], LOW_RANK, generator=self.g) for s in shapes if min(s) > LOW_RANK]
        self.bytes = 0.0

    def __call__(self, flat: torch.Tensor) -> torch.Tensor:
        """The gradient that all apply, [count], from each rank's own, [ranks, count]."""
        flat = flat + self.left if self.feedback else flat
        mean, sent = self._sent(flat)
        if self.feedback:
            self.left = flat - sent
        return mean

    def _sent(self, flat):
        if self.way == "everything":
            self.bytes = ring(4 * self.count)
            return flat.mean(0), flat
        if self.way == "bfloat16":
            self.bytes = ring(2 * self.count)
            total = flat[0].bfloat16()
            for one in flat[1:]:
                total = total + one.bfloat16()
            return total.float() / RANKS, flat
        if self.way == "int8":  # each rank adds up its part, which is then quantized once more
            self.bytes = ring(self.count * (1 + 4 / BLOCK))
            return self._rounded(self._rounded(flat).mean(0, keepdim=True))[0], flat
        if self.way.startswith("PowerSGD"):
            return self._low_rank(flat)
        share = 1.0 if "100" in self.way else SHARE
        k = round(share * self.count)
        sizes = torch.rand(self.count, generator=self.g).expand_as(flat) if "random" in self.way else flat.abs()
        places = sizes.topk(k, dim=1, sorted=False).indices
        sent = torch.zeros_like(flat).scatter(1, places, flat.gather(1, places))
        self.bytes = ring(4 * k) if "random" in self.way else (RANKS - 1) * k * (4 + 4)  # all know the random places
        return sent.mean(0), sent

    def _rounded(self, flat):
        rows = F.pad(flat, (0, -flat.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
        scale = (rows.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
        codes = (rows / scale + torch.rand(rows.shape, generator=self.g)).floor().clamp(-127, 127)
        return (codes * scale).flatten(1)[:, : flat.shape[1]]

    def _low_rank(self, flat):
        parts, narrow, at = [], 0, 0
        for part, shape in zip(flat.split([s.numel() for s in self.shapes], 1), self.shapes, strict=True):
            m = part.view(RANKS, *shape)
            if min(shape) <= LOW_RANK:
                parts.append(m.mean(0).flatten())
                narrow += shape.numel()
                continue
            p = torch.linalg.qr((m @ self.q[at]).mean(0)).Q
            self.q[at] = (m.transpose(1, 2) @ p).mean(0)
            parts.append((p @ self.q[at].T).flatten())
            narrow += LOW_RANK * sum(shape)
            at += 1
        self.bytes = ring(4 * narrow)
        return torch.cat(parts), torch.cat(parts).expand_as(flat)


def ring(size: float) -> float:
    """Bytes that a rank sends in a ring all-reduce of `size` bytes."""
    return 2 * (RANKS - 1) / RANKS * size


def apart(way: str) -> int:
    """Steps from one meeting of the replicas to the next."""
    return {"every 8th step": 8, "DiLoCo, every 32nd": 32}.get(way, 1)


@experiment.measure
def measure(seed: int, way: str, by: str, rate: float | None = None, steps: int = STEPS) -> dict:
    """One run, at the rate that suits this way best."""
    rate = best_rate(way, by) if rate is None else rate
    return train(seed, way, by, rate, steps) | {"rate": rate}


@functools.cache
def best_rate(way: str, by: str, seed: int = 99) -> float:
    """The rate with the lowest validation loss at the end, of a seed that isn't reported."""
    return min(RATES[by], key=lambda rate: train(seed, way, by, rate)["curve"][-1])


def train(seed: int, way: str, by: str, rate: float, steps: int = STEPS) -> dict:
    """One run. The rate falls to zero along a quarter of a cosine, and grows over the first 20 steps."""
    params = network(seed)
    shapes = [p.shape[1:] for p in params]
    momentum = {"SGD": {"momentum": 0.9}, "Adam": {"betas": (0.9, 0.99)}}[by]
    optimizer = getattr(torch.optim, by)(params, lr=rate, **momentum)
    send, outer = Sender(way, shapes, seed), Outer(params)
    g, curve = torch.Generator().manual_seed(seed), []
    for step in range(1, steps + 1):
        warm, progress = min(1.0, step / 20), torch.tensor(0.5 * torch.pi * step / steps)
        optimizer.param_groups[0]["lr"] = rate * warm * float(torch.cos(progress))
        optimizer.zero_grad()
        losses(params, draw("train", RANKS * ROWS, CONTEXT, g).view(RANKS, ROWS, -1)).sum().backward()
        if apart(way) == 1:
            mean = send(torch.cat([p.grad.flatten(1) for p in params], 1))
            for p, part in zip(params, mean.split([s.numel() for s in shapes]), strict=True):
                p.grad.copy_(part.view(p.shape[1:]).expand_as(p))
        optimizer.step()
        if apart(way) > 1 and (step % apart(way) == 0 or step == steps):
            outer.step(params, plain=not way.startswith("DiLoCo"))
            send.bytes = ring(4 * send.count) / apart(way)
        if step % EVERY == 0:
            curve.append(_loss(params, "validation"))
    return {"loss": _loss(params, "test"), "bytes": send.bytes, "curve": curve}


class Outer:
    """The meeting of replicas that have gone their own ways: a mean, or DiLoCo's step along it."""

    def __init__(self, params):
        self.start = [p.detach()[0].clone() for p in params]
        self.velocity = [torch.zeros_like(s) for s in self.start]

    @torch.no_grad()
    def step(self, params, plain: bool, rate: float = 0.7, momentum: float = 0.9) -> None:
        """Set all replicas to the new common parameters."""
        for i, p in enumerate(params):
            gradient = self.start[i] - p.mean(0)
            self.velocity[i] = momentum * self.velocity[i] + gradient
            self.start[i] = self.start[i] - (gradient if plain else rate * (gradient + momentum * self.velocity[i]))
            p.copy_(self.start[i].expand_as(p))


@torch.no_grad()
def _loss(params, part: str) -> float:
    """Of the replicas' mean, on 3,000 places of a part of the book."""
    pieces = draw(part, 3000, CONTEXT, torch.Generator().manual_seed(5))
    return finite(losses([p.mean(0, keepdim=True) for p in params], pieces[None]).item())


def lost(found, way: str, by: str):
    """What a way loses against sending everything, nats a letter, seed by seed."""
    return found.interval(f"{way}, {by}", "loss", minus=f"everything, {by}")


def fewer(found, way: str, by: str = "SGD") -> float:
    """How many times fewer bytes a rank sends than with everything."""
    return found.each(f"everything, {by}", "bytes")[0] / found.each(f"{way}, {by}", "bytes")[0]


def free(found, ways, by: str) -> list[str]:
    """The ways that send at most half of the bytes and surely lose less than COUNTS."""
    return [way for way in ways if fewer(found, way, by) >= 2 and lost(found, way, by).below(COUNTS)]


@experiment.conclude
def conclude(found) -> dict:
    """Correct if with SGD both kinds have a way that is free, imprecise if one has, wrong if none."""
    kinds = [free(found, ways, "SGD") for ways in (IMPORTANT, LOW_PRECISION)]

    def name(way, by):
        words = "".join(c if c.isalnum() else " " for c in f"{way} {by}").split()
        return "_".join(words)

    def rounded(value):
        return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")

    arms = [(way, by) for by, ways in (("SGD", WAYS), ("Adam", ADAM_TOO)) for way in ways[1:]]
    cost = {name(way, by): lost(found, way, by) for way, by in arms}
    return {
        "verdict": ("wrong", "imprecise", "correct")[sum(map(bool, kinds))],
        "controls": {
            "shows": lost(found, experiment.arms[experiment.shows]["way"], "SGD").above(COUNTS),
            "shows_not": lost(found, "top 100 %", "SGD").within(-COUNTS, COUNTS),
        },
        "numbers": {
            **{key: rounded(each.mean) for key, each in cost.items()},
            **{f"{key}_range": f"{rounded(each.low)}–{rounded(each.high)}" for key, each in cost.items()},
            **{f"fewer_{name(way, '')}": f"{fewer(found, way):.0f}" for way in WAYS[1:]},
        },
    }
