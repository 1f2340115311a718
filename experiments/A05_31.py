"""Are there unimportant weights in a real model, and how many? Perplexity against the share that is set to zero."""

import math

import torch

from experiments.pruned import input_norms, nats, passages, pruned, smallest_gone, without
from labkit import smollm
from labkit.experiment import Experiment, interval

COSTS = math.log(1.1)  # nats a token: ten percent of perplexity
SHARES = {"at random": (5, 10), "by size": (10, 20, 30, 40, 50, 60), "by Wanda": (10, 20, 30, 40, 50, 60)}
WHOLE, ONE_BY_ONE = "the whole model", "a layer less, one after the other"

experiment = Experiment(
    claim="A05.31",
    question="How many weights of a real model can be set to zero before its perplexity rises by ten percent?",
    arms={
        WHOLE: {},
        **{f"{how}, {share} %": {"how": how, "share": share} for how, shares in SHARES.items() for share in shares},
        "by size, row by row, 50 %": {"how": "by size, row by row", "share": 50},
        "by size, 2:4": {"how": "by size, 2:4", "share": 50},
        "by Wanda, 2:4": {"how": "by Wanda, 2:4", "share": 50},
        ONE_BY_ONE: {"layers": True},
    },
    seeds=(0,),
    shows="at random, 10 %",
    shows_not="by Wanda, 10 %",
    live=("by size, 30 %", 0),
    within={"nats": 0.05},
)


@experiment.measure
def measure(seed, how="", share=0, layers=False):
    """Nats a token of each test passage; of eight of them for every layer that is left out."""
    ids, (model, _) = passages("test", 20), smollm()
    if layers:
        return {"nats": [_without(i, ids[:8]) for i in range(len(model.model.layers))]}
    if not how:
        return {"nats": nats(model, ids)}
    with pruned(_chooser(how, share / 100), input_norms() if "Wanda" in how else None) as net:
        return {"nats": nats(net, ids)}


def _without(layer, ids):
    with without([layer]) as net:
        return nats(net, ids).tolist()


def _chooser(how, share):
    def choose(weight, norms):
        scores = torch.rand_like(weight) if how == "at random" else weight.abs()
        scores = scores if norms is None else scores * norms
        if "2:4" in how:
            return smallest_gone(scores.reshape(-1, 4), weight, share)
        by_matrix = how in ("at random", "by size")
        return smallest_gone(scores.reshape(1, -1) if by_matrix else scores, weight, share)

    return choose


def rise(found, arm):
    """By how many nats a token an arm is worse than the whole model: an interval over passages."""
    (mine,), (whole,) = found.each(arm, "nats"), found.each(WHOLE, "nats")
    return interval([a - b for a, b in zip(mine, whole, strict=True)])


def factor(found, arm):
    """The same as a factor of perplexity, in words."""
    each = rise(found, arm)
    return f"{math.exp(each.low):.2f} to {math.exp(each.high):.2f}"


def free(found, how):
    """The largest share tried that surely costs less than ten percent, as long as all smaller ones do; else 0."""
    best = 0
    for share in SHARES[how]:
        if not rise(found, f"{how}, {share} %").below(COSTS):
            break
        best = share
    return best


@experiment.conclude
def conclude(found):
    most = max(free(found, "by size"), free(found, "by Wanda"))
    told = {"wanda_30": "by Wanda, 30 %", "wanda_50": "by Wanda, 50 %", "size_30": "by size, 30 %"}
    told |= {"size_50": "by size, 50 %", "rows_50": "by size, row by row, 50 %"}
    told |= {"random_5": "at random, 5 %", "wanda_24": "by Wanda, 2:4"}
    return {
        "verdict": "correct" if most >= 50 else "imprecise" if most else "wrong",
        "controls": {
            "shows": rise(found, experiment.shows).above(COSTS),
            "shows_not": rise(found, experiment.shows_not).below(COSTS),
        },
        "numbers": {
            **{name: factor(found, arm) for name, arm in told.items()},
            "free_size": f"{free(found, 'by size')} %",
            "free_wanda": f"{free(found, 'by Wanda')} %",
        },
    }
