"""What does a real model lose with six of its thirty layers, and what do eight steps of healing give back?"""

import copy
import math

import torch
from torch import nn

from experiments.pruned import influence, least, nats, passages, without
from labkit import smollm
from labkit.experiment import Experiment, interval

COSTS = math.log(1.1)  # nats a token: ten percent of perplexity
GONE, STEPS, BATCH, WARM_UP = 6, 8, 4, 2
RATES = (3e-4, 1e-3)
WHOLE, CUT, FRESH = "the whole model", "the cut model", "the same, new layers behind the cut"
HEALED = {rate: f"the cut model, healed at {rate:g}" for rate in RATES}

experiment = Experiment(
    claim="A05.4",
    question="How much of what six of thirty layers cost do eight steps of distillation give back?",
    arms={
        WHOLE: {},
        CUT: {"gone": GONE},
        **{arm: {"gone": GONE, "rate": rate} for rate, arm in HEALED.items()},
        FRESH: {"gone": GONE, "rate": 1e-3, "fresh": True},
    },
    seeds=(0, 1, 2),
    shows=CUT,
    shows_not="None: everything is measured against the whole model, which is no distance from itself.",
    live=(CUT, 0),
    within={"nats": 0.05, "validation": 0.05},
)


@experiment.measure
def measure(seed, gone=0, rate=None, fresh=False):
    """Nats a token of test passages, which each seed draws anew, and of those by which the rate is chosen."""
    model, _ = smollm()
    less = least(influence(), gone)
    test, validation = passages("test", 12, seed), passages("validation", 6)
    if rate is None:
        with without(less) as net:
            return {"nats": nats(net, test).mean(), "validation": nats(net, validation).mean()}
    with without(less) as cut:
        net = copy.deepcopy(cut)
    layers = net.model.layers[less[0] :]
    if fresh:
        layers.apply(_anew)
    heal(net, model, layers, rate, passages("healing", STEPS * BATCH, seed))
    return {"nats": nats(net, test).mean(), "validation": nats(net, validation).mean()}


def _anew(part):
    if isinstance(part, nn.Linear):
        nn.init.normal_(part.weight, std=0.04)
    elif hasattr(part, "variance_epsilon"):  # a norm
        nn.init.ones_(part.weight)


def heal(net, teacher, layers, rate, texts):
    """Train the layers so that `net` predicts each next token as the teacher does: KL divergence to it, AdamW."""
    net.requires_grad_(False)
    layers.requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step, ids in enumerate(texts.split(BATCH)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARM_UP) * (1 - step / STEPS)
        with torch.inference_mode():
            wanted = teacher(ids).logits.log_softmax(-1)
        found = net(ids).logits.log_softmax(-1)
        loss = nn.functional.kl_div(
            found.flatten(0, 1), wanted.clone().flatten(0, 1), log_target=True, reduction="batchmean"
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def best(found):
    """The arm that is healed at the rate with the best mean on validation passages."""
    return min(HEALED.values(), key=lambda arm: found.interval(arm, "validation").mean)


def regained(found, arm):
    """The share of what the cut costs that training gives back: an interval over the seeds."""
    whole, cut, healed = (found.each(each, "nats") for each in (WHOLE, CUT, arm))
    return interval([(c - h) / (c - w) for w, c, h in zip(whole, cut, healed, strict=True)])


def factor(each):
    """An interval in nats a token as a factor of perplexity."""
    return f"{math.exp(each.low):.2f} to {math.exp(each.high):.2f}"


@experiment.conclude
def conclude(found):
    cost, back = found.interval(CUT, "nats", minus=WHOLE), regained(found, best(found))
    if cost.below(COSTS):
        word = "wrong"
    elif back.below(0.5):
        word = "correct"
    else:
        word = "outdated" if back.above(0.5) and cost.above(COSTS) else "imprecise"
    return {
        "verdict": word,
        "controls": {"shows": cost.above(COSTS)},
        "numbers": {
            "cost": factor(cost),
            "left": factor(found.interval(best(found), "nats", minus=WHOLE)),
            "fresh": factor(found.interval(FRESH, "nats", minus=WHOLE)),
            "back": f"{100 * back.low:.0f} to {100 * back.high:.0f} %",
            "rate": f"{RATES[list(HEALED.values()).index(best(found))]:g}",
        },
    }
