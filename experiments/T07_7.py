"""T07.7: absolute and relative position encodings together in one model, against each of the two alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from experiments.normed_lm import draw, finite, letters
from labkit.experiment import Evidence, Experiment, Interval

RATES, STEPS, ROWS = (1.2e-2, 2.4e-2, 4.8e-2), 150, 24
TRAINED, TESTED, WIDTH, HEADS, REACH = 64, 512, 64, 4, 32
ALONE = ("none", "waves", "T5", "ALiBi", "Shaw")
MIXED = ("waves + T5", "waves + ALiBi", "waves + Shaw")
CONTROL = "still + T5"  # an absolute code that is the same in all places: it tells nothing
COUNTS = 0.01  # nats a letter; a smaller gain counts as none. Stated before the run.


def arm(scheme: str, rate: float) -> str:
    """The name of an arm."""
    return f"{scheme}, rate {rate:g}"


experiment = Experiment(
    claim="T07.7",
    question="Does a model with an absolute and a relative encoding beat models with one of the two?",
    arms={
        arm(scheme, rate): {"scheme": scheme, "rate": rate} for scheme in (*ALONE, *MIXED, CONTROL) for rate in RATES
    },
    seeds=range(3),
    shows=arm("T5", RATES[1]),  # against none
    shows_not=arm(CONTROL, RATES[1]),  # against T5
    live=(arm("waves + T5", RATES[1]), 0),
    within={"validation": 0.05, "near": 0.05, "far": 0.3},
)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward part; what the parts of a scheme add to the scores is of this layer alone."""

    def __init__(self, relative: list[str]):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.relative = relative
        sizes = {"T5": (16, HEADS), "Shaw": (REACH + 1, WIDTH // HEADS)}
        self.tables = nn.ParameterList(torch.zeros(sizes.get(kind, 0)) for kind in relative)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [rows, n, WIDTH]."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        back = (torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])).clamp(min=-1)
        bias = torch.zeros(HEADS, *back.shape)
        for kind, table in zip(self.relative, self.tables, strict=True):
            bias = bias + ADDED[kind](q, back.clamp(min=0), table)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(back < 0, -torch.inf))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def _t5(q: torch.Tensor, back: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Sixteen buckets: one a distance up to 7, then wider ones, the last from 27 letters on."""
    far = 8 + (back.clamp(min=1) / 8).log2().mul(4).long()
    return table[torch.where(back < 8, back, far.clamp(max=15))].permute(2, 0, 1)


def _alibi(q: torch.Tensor, back: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return -(2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS))[:, None, None] * back


def _shaw(q: torch.Tensor, back: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Each query with the vector of its distance to each key, up to REACH letters; one table for all heads."""
    rows = back.clamp(max=REACH).expand(*q.shape[:-1], -1)
    return (q @ table.T).gather(-1, rows) / q.shape[-1] ** 0.5


ADDED = {"T5": _t5, "ALiBi": _alibi, "Shaw": _shaw}


class Reader(nn.Module):
    """Letters [rows, n] in, scores of the next letter [rows, n, letters] out, for a scheme such as "waves + T5"."""

    def __init__(self, scheme: str):
        super().__init__()
        parts = scheme.split(" + ")
        self.speed = {"waves": 1, "still": 0}.get(parts[0])
        self.embed = nn.Embedding(letters(), WIDTH)
        self.layers = nn.Sequential(*(Layer([part for part in parts if part in ADDED]) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, letters())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: [rows, n]."""
        x = self.embed(ids)
        if self.speed is not None:
            angle = self.speed * torch.arange(ids.shape[1])[:, None] * 10_000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
            x = x + torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
        return self.head(self.norm(self.layers(x)))


@experiment.measure
def measure(seed: int, scheme: str, rate: float) -> dict:
    """Loss within the trained length on validation text, and on test text within it and at eight times the length."""
    reader, generator = Reader(scheme), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(reader.parameters(), rate, fused=True)
    for step in range(STEPS):
        pieces = draw("train", ROWS, TRAINED, generator)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20, (STEPS - step) / 60)
        optimizer.zero_grad()
        F.cross_entropy(reader(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
    by_place = losses(reader, "test", 32, TESTED)
    return {
        "validation": finite(losses(reader, "validation", 150, TRAINED)[16:].mean().item()),
        "near": finite(by_place[16:TRAINED].mean().item()),
        "far": finite(by_place[-128:].mean().item()),
        "by_place": [round(value, 3) for value in by_place.view(-1, 16).mean(1).tolist()],
        "weights": sum(p.numel() for p in reader.parameters()),
    }


@torch.no_grad()
def losses(reader: Reader, part: str, rows: int, n: int) -> torch.Tensor:
    """Mean loss at each of n positions, over pieces that are always the same."""
    pieces = draw(part, rows, n, torch.Generator().manual_seed(5))
    return F.cross_entropy(reader(pieces[:, :-1]).transpose(1, 2), pieces[:, 1:], reduction="none").mean(0)


def best_rate(found: Evidence, scheme: str) -> float:
    """The rate with the lowest mean loss on validation text."""
    return min(RATES, key=lambda rate: found.interval(arm(scheme, rate), "validation").mean)


def best(found: Evidence, scheme: str) -> str:
    """The arm of a scheme at its best rate."""
    return arm(scheme, best_rate(found, scheme))


def gain(found: Evidence, scheme: str, other: str, where: str) -> Interval:
    """How many nats a letter a scheme lies below another one on test text, "near" or "far", seed by seed."""
    return found.interval(best(found, other), where, minus=best(found, scheme))


def beats_both(found: Evidence, mixed: str, where: str) -> bool:
    """Whether a mix is surely more than COUNTS better than each of its parts alone."""
    return all(gain(found, mixed, part, where).above(COUNTS) for part in mixed.split(" + "))


def falls_behind(found: Evidence, mixed: str, where: str) -> bool:
    """Whether a mix is surely more than COUNTS worse than one of its parts alone."""
    return any(gain(found, mixed, part, where).below(-COUNTS) for part in mixed.split(" + "))


@experiment.conclude
def conclude(found: Evidence) -> dict:
    """Correct if each mix beats both parts within the trained length and falls behind neither far beyond; wrong if none
    beats both anywhere; else imprecise."""
    better = {where: [mix for mix in MIXED if beats_both(found, mix, where)] for where in ("near", "far")}
    behind = [mix for mix in MIXED if falls_behind(found, mix, "far")]
    if len(better["near"]) == len(MIXED) and not behind:
        word = "correct"
    else:
        word = "imprecise" if better["near"] or better["far"] else "wrong"
    told = {
        f"{mix.removeprefix('waves + ').lower()}_{where}": min(
            gain(found, mix, part, where).mean for part in mix.split(" + ")
        )
        for mix in MIXED
        for where in ("near", "far")
    }
    return {
        "verdict": word,
        "controls": {
            "shows": gain(found, "T5", "none", "near").above(COUNTS),
            "shows_not": not gain(found, CONTROL, "T5", "near").above(COUNTS),
        },
        "numbers": {name: f"{value:+.2f}".replace("-", "−") for name, value in told.items()},
    }
