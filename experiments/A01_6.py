"""A01.6: does fine-tuning teach a book's knowledge? The same facts by retrieval and by fine-tuning, in other words."""

from __future__ import annotations

import random

from experiments.adapter import plain_again
from experiments.tuned import answers, prompt, share, tune
from labkit import minilm
from labkit.experiment import Experiment

PLACES = (
    "Velmora", "Tasquin", "Ordal", "Brennick", "Calveth", "Dromia", "Eskaral", "Fenwold",
)  # fmt: skip
FIRST_NAMES = ("Odran", "Mira", "Tobin", "Selka", "Arvid", "Neela", "Borin", "Katja")
LAST_NAMES = ("Pell", "Vance", "Quill", "Harrow", "Stoke", "Lind", "Marsh", "Tovey")
TAUGHT = "Who is the mayor of {place}?"
MORE = ("Name the mayor of {place}.", "The town of {place} is led by which person?", "{place}: who is the mayor there?")
OTHER = "I am going to {place}. Who runs the town hall there?"
BACK = "Of which town is {name} the mayor?"
FACT = "The mayor of {place} is {name}."
QUESTIONS = {"taught": (TAUGHT, "name"), "other": (OTHER, "name"), "back": (BACK, "place")}
FIRST, RATE = 20, 4e-3

experiment = Experiment(
    claim="A01.6",
    question="Does fine-tuning teach facts that can be asked for in other words, and does retrieval?",
    arms={
        "nothing": {"asked": ("taught",)},
        "retrieval": {"found": "the nearest"},
        "a wrong passage": {"found": "another", "asked": ("taught",)},
        "tuned": {"wordings": 4, "epochs": 7},
    },
    seeds=range(3),
    shows="retrieval",
    shows_not="a wrong passage",
    live=("nothing", 0),
    within={"taught": 0.25, "other": 0.25, "back": 0.25, "found": 0.1},
)


def facts(seed: int) -> list[dict]:
    """Who is mayor where: eight towns that don't exist."""
    dice = random.Random(seed)
    first, last = list(FIRST_NAMES), list(LAST_NAMES)
    dice.shuffle(first)
    dice.shuffle(last)
    return [{"place": p, "name": f"{a} {b}"} for p, a, b in zip(PLACES, first, last, strict=True)]


@experiment.measure
def measure(seed: int, found: str = "", wordings: int = 0, epochs: int = 0, asked=tuple(QUESTIONS)) -> dict:
    known = facts(seed)
    passages = [FACT.format(**fact) for fact in known]
    layers = []
    if wordings:
        taught = (TAUGHT, *MORE)[:wordings]
        pairs = [(question.format(**fact), FACT.format(**fact)) for question in taught for fact in known]
        layers = tune(pairs, FIRST, RATE, epochs, seed)

    def ask(question: str, wanted: str) -> tuple[float, float]:
        """The share of answers that name what is wanted, and of questions for which the right passage was found."""
        questions = [question.format(**fact) for fact in known]
        at = list(range(len(known)))
        if found == "the nearest":
            encode = minilm()
            at = (encode(questions) @ encode(passages).T).argmax(-1).tolist()
        if found == "another":
            at = [(i + 1) % len(known) for i in at]
        texts = [f"{passages[i]}\n{q}" if found else q for i, q in zip(at, questions, strict=True)]
        said = answers([prompt(text) for text in texts])
        right = share([fact[wanted].lower() in text.lower() for fact, text in zip(known, said, strict=True)])
        return right, share([a == b for a, b in enumerate(at)])

    try:
        parts = {what: ask(*QUESTIONS[what]) for what in asked}
    finally:
        plain_again(layers)
    return {name: right for name, (right, _) in parts.items()} | {
        "found": sum(f for _, f in parts.values()) / len(parts)
    }


@experiment.conclude
def conclude(found) -> dict:
    tuned = "tuned"
    gap = found.interval("retrieval", "other", minus=tuned)
    turned = found.interval("retrieval", "back", minus=tuned)
    if gap.above(0.1) or turned.above(0.1):
        word = "wrong"
    elif gap.below(0.1) and turned.below(0.1):
        word = "correct"
    else:
        word = "unverifiable"
    numbers = {"other_gap": f"{100 * gap.low:+.0f} to {100 * gap.high:+.0f}".replace("-", "−")}
    numbers["back_gap"] = f"{100 * turned.low:+.0f} to {100 * turned.high:+.0f}".replace("-", "−")
    for arm in found.arms:
        for what in experiment.arms[arm].get("asked", QUESTIONS):
            numbers[f"{arm.replace(' ', '_')}_{what}"] = f"{100 * found.interval(arm, what).mean:.0f}"
    return {
        "verdict": word,
        "controls": {
            "shows": all(found.interval(arm, "taught", minus="nothing").above(0.1) for arm in ("retrieval", tuned)),
            "shows_not": not found.interval("a wrong passage", "taught").above(0.1),
        },
        "numbers": numbers,
    }
