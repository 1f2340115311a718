"""A04.4: what does fine-tuning change, and is LoRA as good? Full fine-tuning and LoRA, each over its learning rates."""

from __future__ import annotations

import torch

from experiments.adapter import adapt
from experiments.tuning import start, task, tuned
from labkit.experiment import Experiment

STEPS, N, ALPHA = 24, 512, 16
FULL_RATES, LORA_RATES = (1e-3, 3e-3, 1e-2, 3e-2), (3e-3, 1e-2, 3e-2, 1e-1)
RANKS = (1, 16)
# r = 8 on q and v of a LLaMA with 7 billion weights, as peft does it unless told otherwise: its share of the model.
DEFAULTS = 32 * 2 * 8 * (4096 + 4096) / 6_738_415_616

experiment = Experiment(
    claim="A04.4",
    question="Is LoRA at its best learning rate as good as full fine-tuning at its own, and is it the same rate?",
    arms={"full": {}}
    | {f"LoRA, r = {r}": {"r": r} for r in RANKS}
    | {"LoRA, r = 16, frozen": {"r": 16, "rates": (0.0,)}, "full, cut short": {"rates": (3e-3,), "kind": "fresh"}},
    seeds=range(3),
    shows="full",
    shows_not="LoRA, r = 16, frozen",
    live=("full, cut short", 0),
    within={"curve": 0.3, "best": 0.3, "rate": 0.0, "trained": 0.0, "changed": 0.1},
)


@experiment.measure
def measure(seed, r=0, rates=None, kind="base"):
    """The loss on the test part after each rate, and the one that the validation part likes best."""
    rates = rates or (LORA_RATES if r else FULL_RATES)
    data, curve, changed, trained = task("dialogue", N, seed), [], [], 1.0
    for rate in rates:
        net = start(kind, 0)
        before = {name: w.clone() for name, w in net.named_parameters()}
        torch.manual_seed(seed)
        if r:
            net.requires_grad_(False)
            new = sum(p.numel() for p in adapt(net.model.layers, r, ALPHA))
            trained = new / sum(p.numel() for p in net.parameters())
        curve.append(tuned(net, data, STEPS, rate, seed))
        after = {name.replace(".linear.", "."): w for name, w in net.named_parameters()}
        changed.append(sum(int((w != after[name]).sum()) for name, w in before.items()))
    validation, best = min(curve)
    at = [v for v, _ in curve].index(validation)
    return {
        "best": best,
        "rate": rates[at],
        "changed": changed[at] / sum(w.numel() for w in before.values()),
        "curve": [test for _, test in curve],
        "trained": trained,
    }


@experiment.conclude
def conclude(found) -> dict:
    """The verdict is about the share of weights that full fine-tuning changes, or else that LoRA trains."""
    changed = found.interval("full", "changed")
    word = "correct" if changed.within(0.01, 0.05) else "imprecise" if 0.01 <= DEFAULTS <= 0.05 else "wrong"
    gap = found.interval(f"LoRA, r = {RANKS[-1]}", "best", minus="full")
    learnt = found.interval("LoRA, r = 16, frozen", "best", minus="full")
    numbers = {
        "defaults": f"{100 * DEFAULTS:.2f}",
        "changed": f"{100 * changed.mean:.0f}",
        "gap": gap.text("+.2f").replace("-", "−"),
    }
    for arm in ["full", *(f"LoRA, r = {r}" for r in RANKS)]:
        name = arm.replace("LoRA, r = ", "lora_")
        numbers[name] = f"{found.interval(arm, 'best').mean:.2f}"
        numbers[f"{name}_rate"] = f"{sorted(found.each(arm, 'rate'))[1]:g}"
        numbers[f"{name}_trained"] = f"{100 * found.interval(arm, 'trained').mean:.1f}"
    return {
        "verdict": word,
        "controls": {"shows": learnt.above(0.05), "shows_not": learnt.above(0.05)},
        "numbers": numbers,
    }
