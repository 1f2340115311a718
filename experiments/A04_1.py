"""A04.1: does fine-tuning customize a model? Appointments on the real model: asked, shown examples, tuned.

And what it does to what was not asked for (A04.5): other wordings of the task, and ordinary questions.
"""

from __future__ import annotations

import random

from experiments.adapter import plain_again
from experiments.asking import ITEMS, holds
from experiments.tuned import ORDER, OTHER_WORDINGS, answers, appointments, prompt, share, tune
from labkit.experiment import Experiment

TRAIN, HELD, SHOTS = 32, 24, 4
FIRST, RATE, EPOCHS = 22, 4e-3, 4

experiment = Experiment(
    claim="A04.1",
    question="Does fine-tuning give a model an ability, and what does it do to the others?",
    arms={
        "asked": {"how": "asked"},
        "examples": {"how": "examples"},
        "tuned": {"how": "tuned"},
        "tuned on shuffled answers": {"how": "shuffled"},
    },
    seeds=range(3),
    shows="tuned",
    shows_not="tuned on shuffled answers",
    live=("asked", 0),
    within={"right": 0.2, "other_words": 0.25, "ordinary": 0.2, "prompt": 2.0},
)


def _ordinary() -> float:
    """The share of ordinary questions whose answer names the right thing."""
    some = ITEMS[:: len(ITEMS) // HELD][:HELD]
    said = answers([prompt(item[0]) for item in some])
    return share([holds(item, text) for item, text in zip(some, said, strict=True)])


@experiment.measure
def measure(seed: int, how: str) -> dict:
    dice = random.Random(seed)
    train, held = appointments(TRAIN, dice), appointments(HELD, dice)
    others = appointments(HELD, dice, OTHER_WORDINGS)

    def made(request):
        if how == "asked":
            return prompt(ORDER + request)
        if how == "examples":
            shown = [((ORDER if i == 0 else "") + q, a) for i, (q, a) in enumerate(train[:SHOTS])]
            return prompt(request, shown)
        return prompt(request)

    def right(items):
        return share(
            [said == want for said, (_, want) in zip(answers([made(q) for q, _ in items]), items, strict=True)]
        )

    layers = []
    if how == "shuffled":
        wanted = [a for _, a in train]
        train = [(q, wanted[(i + 7) % TRAIN]) for i, (q, _) in enumerate(train)]
    if how in ("tuned", "shuffled"):
        layers = tune(train, FIRST, RATE, EPOCHS, seed)
    try:
        found = {"right": right(held), "prompt": sum(len(made(q)) for q, _ in held) / HELD}
        if how in ("examples", "tuned"):
            found["other_words"] = right(others)
        if how in ("asked", "tuned"):
            found["ordinary"] = _ordinary()
        return found
    finally:
        plain_again(layers)


@experiment.conclude
def conclude(found) -> dict:
    gain = found.interval("tuned", "right", minus="asked")
    over_prompt = found.interval("tuned", "right", minus="examples")
    lost = found.interval("asked", "ordinary", minus="tuned")
    word = "correct" if gain.above(0.1) else "wrong" if gain.below(0.1) else "unverifiable"

    def percent(arm, what):
        return f"{100 * found.interval(arm, what).mean:.0f}"

    return {
        "verdict": word,
        "controls": {
            "shows": gain.above(0.1),
            "shows_not": not found.interval("tuned on shuffled answers", "right", minus="asked").above(0.1),
        },
        "numbers": {
            "asked": percent("asked", "right"),
            "examples": percent("examples", "right"),
            "tuned": percent("tuned", "right"),
            "shuffled": percent("tuned on shuffled answers", "right"),
            "examples_other": percent("examples", "other_words"),
            "tuned_other": percent("tuned", "other_words"),
            "ordinary_before": percent("asked", "ordinary"),
            "ordinary_after": percent("tuned", "ordinary"),
            "over_prompt": f"{100 * over_prompt.low:+.0f} to {100 * over_prompt.high:+.0f}".replace("-", "−"),
            "lost": f"{100 * lost.low:.0f} to {100 * lost.high:.0f}".replace("-", "−"),
        },
    }
