"""D03.7: every device takes different batches in turn, and they are worked on as in a pipeline."""

from __future__ import annotations

import functools
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from labkit import shakespeare
from labkit.experiment import Experiment

RATES = (1e-3, 2e-3, 4e-3, 8e-3)
STEPS, EVERY = 500, 50
ROWS, CONTEXT, WIDTH, LAYERS = 64, 12, 64, 8
GAP = 0.02  # nats a character that count as a difference. Stated in the chapter before the run.

experiment = Experiment(
    claim="D03.7",
    question="Does it matter whether the pipeline's parcels are parts of one batch, or batches of their own?",
    arms={
        "one device": {},
        "4 stages, micro-batches of one batch": {"micro": 4},
        "4 stages, a batch each": {"late": 3},
        "8 stages, a batch each": {"late": 7},
        "all layers 16 updates late": {"late": 16, "alike": True},
    },
    seeds=range(5),
    shows="all layers 16 updates late",
    shows_not="4 stages, micro-batches of one batch",
    live=("8 stages, a batch each", 0),
    within={"loss": 0.05, "rate": 0.004, "curve": 0.1},
)


class Net(nn.Module):
    """The next character from the last CONTEXT ones, by residual layers: int64 [rows, CONTEXT] in, logits out."""

    def __init__(self, vocab: int):
        super().__init__()
        self.tokens, self.read = nn.Embedding(vocab, 16), nn.Linear(16 * CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)]) for _ in range(LAYERS)
        )
        self.head = nn.Linear(WIDTH, vocab)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.read(self.tokens(ids).flatten(1))
        for norm, mix in self.blocks:
            hidden = hidden + mix(F.gelu(norm(hidden)))
        return self.head(hidden)


@functools.cache
def text() -> tuple[dict[str, torch.Tensor], int]:
    """The plays as numbers, in parts to train on, to choose a rate by, and to report; the size of the alphabet."""
    plays = shakespeare()
    number = {character: i for i, character in enumerate(sorted(set(plays)))}
    ids = torch.tensor([number[character] for character in plays])
    train, validation, test = ids.tensor_split([int(0.8 * len(ids)), int(0.9 * len(ids))])
    return {"train": train, "validation": validation, "test": test}, len(number)


def rows(part: str, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` random places: the characters before, int64 [count, CONTEXT], and the next one, [count]."""
    ids = text()[0][part]
    at = torch.randint(len(ids) - CONTEXT, (count, 1), generator=generator)
    window = ids[at + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, -1]


def lateness(net: Net, late: int, alike: bool) -> dict[str, int]:
    """How many updates old the weights are that each parameter's gradient is computed with.

    Stage r of p works on p - r batches at a time, and steps after each backward pass: p - 1 - r updates.
    """
    stages = late + 1

    def stage(name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) * stages // LAYERS
        return 0 if name.startswith(("tokens", "read")) else late

    return {name: late if alike else late - stage(name) for name, _ in net.named_parameters()}


def train(seed: int, rate: float, micro: int = 1, late: int = 0, alike: bool = False):
    """The trained model, and the validation loss every EVERY updates."""
    torch.manual_seed(seed)
    net = Net(text()[1])
    ages = lateness(net, late, alike)
    params, generator = dict(net.named_parameters()), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.95))
    versions, curve = deque(maxlen=late + 1), []
    for step in range(STEPS):
        ids, wanted = rows("train", ROWS, generator)
        versions.append({name: p.detach().clone() for name, p in params.items()})
        # The version that each stage went forward with, and goes back with: PipeDream's weight stashing.
        old = {name: versions[max(len(versions) - 1 - age, 0)][name].requires_grad_() for name, age in ages.items()}
        for part, target in zip(ids.chunk(micro), wanted.chunk(micro), strict=True):
            loss_here = F.cross_entropy(functional_call(net, old, (part,)), target) / micro
            found = torch.autograd.grad(loss_here, list(old.values()))
            for name, g in zip(old, found, strict=True):
                params[name].grad = g if params[name].grad is None else params[name].grad + g
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % EVERY == 0:
            curve.append(loss(net, "validation", 2000))
    return net, curve


@torch.no_grad()
def loss(net: Net, part: str, count: int) -> float:
    """Nats a character at always the same places; a run that has blown up counts as 9."""
    ids, wanted = rows(part, count, torch.Generator().manual_seed(1))
    found = F.cross_entropy(net(ids), wanted).item()
    return found if found < 9 else 9.0


@experiment.measure
def measure(seed: int, **settings) -> dict:
    """The test loss at the rate whose validation loss is the lowest."""
    tried = {rate: train(seed, rate, **settings) for rate in RATES}
    best = min(tried, key=lambda rate: tried[rate][1][-1])
    net, curve = tried[best]
    return {"loss": loss(net, "test", 10_000), "rate": best, "curve": curve}


@experiment.conclude
def conclude(found) -> dict:
    """Imprecise if parts of one batch cost nothing and a batch each costs more than GAP with 4 stages or with 8."""

    def signed(value: float, form: str = ".2f") -> str:
        return f"{value:+{form}}".replace("-", "−")

    plain = "one device"
    gaps = {arm: found.interval(arm, "loss", minus=plain) for arm in found.arms if arm != plain}
    parts, four, eight, all_late = gaps.values()
    same = parts.within(-GAP, GAP)
    costs = four.above(GAP) or eight.above(GAP)
    return {
        "verdict": "wrong" if not same else "imprecise" if costs else "correct",
        "controls": {"shows": all_late.above(GAP), "shows_not": same},
        "numbers": {
            "parts": signed(parts.mean, ".3f"),
            "four": signed(four.mean),
            "eight": signed(eight.mean),
            "four_range": f"{four.low:.2f}–{four.high:.2f}",
            "eight_range": f"{eight.low:.2f}–{eight.high:.2f}",
            "late": signed(all_late.mean),
        },
    }
