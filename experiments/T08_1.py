"""T08.1, and T07.8 to T07.11, T08.2 and T08.3 beside it: the parts of a training recipe, each at its own best rate.

A small causal language model on letters. Every part of the recipe is tried at several peak rates; the rate with the
lowest loss on the validation text is taken, and the loss on the test text is what is told.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from experiments.normed_lm import LENGTH, LanguageModel, draw, finite, loss_of
from labkit.experiment import Evidence, Experiment, Interval

STEPS, ROWS, EVERY, WIDTH = 200, 12, 20, 64
WARMUP, LIMIT = 20, 1.0
COUNTS = 0.01  # nats a letter: a smaller gain doesn't count. Stated before the run.
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2)
PLANS = ("constant", "decay", "warm-up", "warm-up, decay", "warm-up, decay, clipping", "plateau")
AROUND = RATES[2:5]  # of what behaves as Adam does
PARTS = {
    "SGD with momentum": {"optimizer": "SGD", "rates": (0.1, 0.3, 1.0)},
    "AdamW, decay 0.1": {"optimizer": "AdamW", "rates": AROUND},
    "Muon and AdamW": {"optimizer": "Muon", "rates": RATES[4:]},
    "GELU": {"mlp": "GELU", "rates": AROUND},
    "SiLU": {"mlp": "SiLU", "rates": AROUND},
    "SwiGLU": {"mlp": "SwiGLU", "rates": AROUND},
    "bfloat16": {"precision": "bfloat16", "rates": AROUND},
    "float16, scaled": {"precision": "float16", "scale": 2.0**16, "rates": (1e-2,)},  # slow here: float32's best alone
    "float16, not scaled": {"precision": "float16", "rates": (1e-2,)},
    "other pages": {"pages": 1000, "rates": AROUND},
    "too slow": {"rates": (5e-4,)},
}


def arm(part: str, rate: float) -> str:
    """The name of one part at one peak rate."""
    return f"{part} at {rate:g}"


experiment = Experiment(
    claim="T08.1",
    question="What does each part of the recipe gain after the same steps, at its own best rate?",
    arms={
        **{arm(plan, rate): {"plan": plan, "rate": rate} for plan in PLANS for rate in RATES},
        **{
            arm(part, rate): {"plan": "decay", "rate": rate} | {k: v for k, v in options.items() if k != "rates"}
            for part, options in PARTS.items()
            for rate in options["rates"]
        },
    },
    seeds=range(5),
    shows=arm("too slow", 5e-4),
    shows_not=arm("other pages", 1e-2),
    live=(arm("decay", 1e-2), 0),
    within={"test": 0.05, "validation": 0.05, "curve": 0.1},
)


class Gated(nn.Module):
    """SwiGLU with as many weights as a plain feed-forward part of 4 x width."""

    def __init__(self):
        super().__init__()
        self.into, self.down = nn.Linear(WIDTH, 2 * (8 * WIDTH // 3)), nn.Linear(8 * WIDTH // 3, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., width]."""
        gate, up = self.into(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


def network(mlp: str) -> LanguageModel:
    """Two pre-norm layers, 64 wide; `mlp` names what stands for the ReLU."""
    net = LanguageModel(width=WIDTH)
    for block in net.blocks:
        if mlp == "SwiGLU":
            block.parts[1] = Gated()
        elif mlp != "ReLU":
            block.parts[1][1] = {"GELU": nn.GELU, "SiLU": nn.SiLU}[mlp]()
    return net


def optimizers(kind: str, net: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """One optimizer, or for Muon two: it takes the matrices inside, AdamW what is left."""
    if kind == "SGD":
        return [torch.optim.SGD(net.parameters(), rate, momentum=0.9, nesterov=True)]
    if kind != "Muon":
        return [torch.optim.AdamW(net.parameters(), rate, weight_decay=0.1 if kind == "AdamW" else 0.0, fused=True)]
    inner = [p for p in net.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in inner}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    return [torch.optim.Muon(inner, rate, weight_decay=0.0), torch.optim.AdamW(rest, 1e-2, weight_decay=0.0)]


def share(plan: str, step: int) -> float:
    """The part of the peak rate that a plan uses in a step, from 0 on."""
    warm = min(1.0, (step + 1) / WARMUP) if "warm-up" in plan else 1.0
    return warm * (0.5 * (1 + math.cos(math.pi * step / STEPS)) if "decay" in plan else 1.0)


@experiment.measure
def measure(
    seed: int, plan: str, rate: float, optimizer="Adam", mlp="ReLU", precision="float32", scale=1.0, pages=0
) -> dict:
    """One training. Losses in nats a letter; `clipped`: share of the steps whose gradient was longer than LIMIT."""
    net = network(mlp)
    chosen = optimizers(optimizer, net, rate)
    peaks = [group["lr"] for each in chosen for group in each.param_groups]
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
    g, curve, clipped, factor = torch.Generator().manual_seed(seed + pages), [], 0, 1.0
    for step in range(STEPS):
        for group, peak in zip((group for each in chosen for group in each.param_groups), peaks, strict=True):
            group["lr"] = peak * factor * share(plan, step)
        with torch.autocast("cpu", getattr(torch, precision), enabled=precision != "float32"):
            loss = loss_of(net, draw("train", ROWS, LENGTH, g))
        net.zero_grad()
        scaler.scale(loss).backward()
        if "clipping" in plan:
            clipped += float(nn.utils.clip_grad_norm_(net.parameters(), LIMIT)) > LIMIT
        for each in chosen:
            scaler.step(each)
        scaler.update()
        if (step + 1) % EVERY == 0:
            curve.append(tested(net, "validation"))
            if plan == "plateau" and len(curve) > 1 and curve[-1] > min(curve[:-1]) - COUNTS:
                factor /= 2
    return {"test": tested(net, "test"), "validation": curve[-1], "curve": curve, "clipped": clipped / STEPS}


@torch.no_grad()
def tested(net: nn.Module, part: str) -> float:
    """Nats a letter on 192 pieces of a part of the book."""
    return finite(loss_of(net, draw(part, 192, LENGTH, torch.Generator().manual_seed(5))).item())


def rates(part: str) -> tuple[float, ...]:
    """The peak rates at which a part was tried."""
    return RATES if part in PLANS else PARTS[part]["rates"]


def best_rate(found: Evidence, part: str) -> float:
    """The peak rate with the lowest mean loss on the validation text."""
    return min(rates(part), key=lambda rate: found.interval(arm(part, rate), "validation").mean)


def best(found: Evidence, part: str) -> str:
    """The arm of a part at its best rate."""
    return arm(part, best_rate(found, part))


def gain(found: Evidence, part: str, over: str) -> Interval:
    """How much lower a part ends than another, each at its own best rate: nats a letter on the test text, by seeds."""
    return found.interval(best(found, over), "test", minus=best(found, part))


@experiment.conclude
def conclude(found: Evidence) -> dict:
    """Correct if warm-up and decay each gain surely more than COUNTS, wrong if both together surely gain less."""
    gains = {
        "warmup": gain(found, "warm-up", "constant"),
        "warmup_on_decay": gain(found, "warm-up, decay", "decay"),
        "decay": gain(found, "decay", "constant"),
        "decay_on_warmup": gain(found, "warm-up, decay", "warm-up"),
        "plan": gain(found, "warm-up, decay", "constant"),
        "clipping": gain(found, "warm-up, decay, clipping", "warm-up, decay"),
        "plateau": gain(found, "plateau", "constant"),
        "adamw_over_sgd": gain(found, "AdamW, decay 0.1", "SGD with momentum"),
        "muon_over_sgd": gain(found, "Muon and AdamW", "SGD with momentum"),
        **{name: gain(found, part, "decay") for name, part in BESIDE_DECAY.items()},
    }
    each = all(gains[name].above(COUNTS) for name in ("warmup", "decay"))
    return {
        "verdict": "correct" if each else "wrong" if gains["plan"].below(COUNTS) else "imprecise",
        "controls": {
            "shows": gain(found, "decay", "too slow").above(COUNTS),
            "shows_not": gain(found, "other pages", "decay").within(-0.05, 0.05),
        },
        "numbers": {
            **{name: f"{one.mean:+.3f}".replace("-", "−") for name, one in gains.items()},
            **{f"{name}_range": one.text("+.3f").replace("-", "−") for name, one in gains.items()},
            **{f"rate_{name}": f"{best_rate(found, part):g}" for name, part in NAMED.items()},
            "rates": f"{len(RATES)}",
            "lowest": f"{RATES[0]:g}",
        },
    }


BESIDE_DECAY = {
    "sgd": "SGD with momentum",
    "adamw": "AdamW, decay 0.1",
    "muon": "Muon and AdamW",
    "gelu": "GELU",
    "silu": "SiLU",
    "swiglu": "SwiGLU",
    "bf16": "bfloat16",
    "fp16_scaled": "float16, scaled",
    "fp16": "float16, not scaled",
}
NAMED = {"constant": "constant", "decay": "decay", "warmup": "warm-up", "plan": "warm-up, decay"} | BESIDE_DECAY
