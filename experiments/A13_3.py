"""A13.3: from a chat model for dialogue, from a base model else? Both at their best rate, little and much data."""

from __future__ import annotations

import functools

from experiments.tuning import ASSISTANT, OTHER_ASSISTANT, OTHER_USER, USER, judged, start, task, tuned
from labkit.experiment import Experiment

STEPS, RATES = 24, (3e-3, 1e-2)
LITTLE, MUCH = 16, 512
OWN, STRANGE = (USER, ASSISTANT), (OTHER_USER, OTHER_ASSISTANT)

experiment = Experiment(
    claim="A13.3",
    question="Is a chat model the better start for a dialogue task, and the base model for one that is no dialogue?",
    arms={
        f"{kind}, {kind_of_task}, {n}": {"kind": kind, "what": kind_of_task, "n": n}
        for kind_of_task in ("dialogue", "text")
        for n in (LITTLE, MUCH)
        for kind in ("base", "chat")
    }
    | {
        "chat, dialogue in a strange template, 16": {"kind": "chat", "what": "dialogue", "n": LITTLE, "strange": True},
        "fresh, dialogue, 512": {"kind": "fresh", "what": "dialogue", "n": MUCH, "rates": (1e-2,)},
        "base again, dialogue, 512": {"kind": "base", "what": "dialogue", "n": MUCH, "again": 1},
        "untuned chat, dialogue, 512": {"kind": "chat", "what": "dialogue", "n": MUCH, "steps": 0},
    },
    seeds=range(3),
    shows="fresh, dialogue, 512",
    shows_not="base again, dialogue, 512",
    live=("fresh, dialogue, 512", 0),
    within={"loss": 0.2, "rate": 0.0},
)

PRETRAINED = 0  # one reading and one training to converse; the seeds draw the examples and their order


@experiment.measure
def measure(seed, kind, what, n, strange=False, steps=STEPS, rates=RATES, again=0):
    """The loss on the test part, nats a scored letter, at the rate that the validation part of another seed likes."""
    marks = STRANGE if strange else OWN
    if not steps:
        return {"loss": judged(start(kind, PRETRAINED), task(what, n, seed, marks)["test"]), "rate": 0.0}
    rate = rates[0] if len(rates) == 1 else _best_rate(kind, what, n, marks, steps, rates)
    return {"loss": _run(seed, kind, what, n, marks, steps, rate, again)[1], "rate": rate}


def _run(seed, kind, what, n, marks, steps, rate, again=0):
    return tuned(start(kind, PRETRAINED), task(what, n, seed, marks), steps, rate, seed + 100 * again)


@functools.cache
def _best_rate(kind, what, n, marks, steps, rates):
    found = {rate: _run(10, kind, what, n, marks, steps, rate)[0] for rate in rates}
    return min(found, key=found.get)


def lead(found, what, n):
    """By how much the chat start is ahead, nats a letter: negative where the base start is."""
    return found.interval(f"base, {what}, {n}", "loss", minus=f"chat, {what}, {n}")


@experiment.conclude
def conclude(found) -> dict:
    ahead = {f"{what}_{n}": lead(found, what, n) for what in ("dialogue", "text") for n in (LITTLE, MUCH)}
    dialogue = [ahead[f"dialogue_{n}"] for n in (LITTLE, MUCH)]
    if all(each.above(0.01) for each in dialogue):
        word = "correct"
    elif any(each.above(0.01) for each in dialogue):
        word = "imprecise"
    else:
        word = "wrong" if all(each.below(0.01) for each in dialogue) else "unverifiable"
    nothing = found.interval("fresh, dialogue, 512", "loss", minus="base, dialogue, 512")
    same = found.interval("base again, dialogue, 512", "loss", minus="base, dialogue, 512")
    strange = found.interval("base, dialogue, 16", "loss", minus="chat, dialogue in a strange template, 16")
    numbers = {name: each.text("+.2f").replace("-", "−") for name, each in ahead.items()}
    numbers["strange"] = strange.text("+.2f").replace("-", "−")
    numbers["fresh"] = f"{found.interval('fresh, dialogue, 512', 'loss').mean:.2f}"
    numbers["untuned"] = f"{found.interval('untuned chat, dialogue, 512', 'loss').mean:.2f}"
    for arm in ("base, dialogue, 16", "chat, dialogue, 16", "base, dialogue, 512", "chat, dialogue, 512"):
        numbers[arm.replace(", ", "_")] = f"{found.interval(arm, 'loss').mean:.2f}"
    return {
        "verdict": word,
        "controls": {"shows": nothing.above(0.01), "shows_not": not (same.above(0.03) or same.below(-0.03))},
        "numbers": numbers,
    }
