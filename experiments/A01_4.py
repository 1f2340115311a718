"""A01.4: is retrieval an open book: does the right page help, and what does a wrong one do?"""

from __future__ import annotations

import random

from experiments.retrieving import answers, asked, names, page, some
from labkit import embedded_docstrings, minilm
from labkit.experiment import Experiment

COUNT = 14  # questions a seed
HELPS = 0.2  # by so much more the right page has to raise the share of right answers. Stated before the run.

experiment = Experiment(
    claim="A01.4",
    question="Does a page of the documentation in the prompt decide what a small model answers?",
    arms={
        "book shut": {},
        "the right page": {"pages": "right"},
        "a wrong page": {"pages": "wrong"},
        "the page that search finds": {"pages": "found"},
    },
    seeds=range(5),
    shows="the right page",
    shows_not="a wrong page",
    live=("the right page", 0),
    within={"right": 0.15, "names the page": 0.3, "page is right": 0.0},
)


@experiment.measure
def measure(seed, pages=""):
    """The share of answers that are right, and of those that give the name on the page that lies open."""
    questions = some(seed, COUNT)
    dice = random.Random(seed)
    if pages == "right":
        opened = [question.answers[0] for question in questions]
    elif pages == "wrong":
        others = [question.answers[0] for question in some(seed + 6, COUNT)]
        opened = dice.sample(others, len(others))
    elif pages == "found":
        passages, vectors = embedded_docstrings()
        best = (minilm()([question.text for question in questions]) @ vectors.T).argmax(-1)
        opened = [passages[place].name for place in best.tolist()]
    else:
        opened = []
    prompts = [asked(q.text, [page(opened[i])] if opened else []) for i, q in enumerate(questions)]
    given = answers(prompts)
    right = [names(text, *question.answers) for text, question in zip(given, questions, strict=True)]
    copied = [names(text, name) for text, name in zip(given, opened, strict=False)]
    fits = [names(name, *question.answers) for name, question in zip(opened, questions, strict=False)]
    return {
        "right": sum(right) / COUNT,
        "names the page": sum(copied) / COUNT,
        "page is right": sum(fits) / COUNT,
    }


@experiment.conclude
def conclude(found):
    """Wrong if the right page doesn't help; else a picture that fits, unless a wrong page leaves answers as good."""
    helps = found.interval("the right page", "right", minus="book shut")
    follows = found.interval("a wrong page", "names the page")
    shut = found.interval("book shut", "right")
    searched = found.interval("the page that search finds", "right")
    opened = found.interval("the right page", "right")
    word = "correct" if helps.above(HELPS) else "imprecise" if helps.above(0) else "wrong"
    return {
        "verdict": word,
        "controls": {
            "shows": helps.above(0),
            "shows_not": not found.interval("a wrong page", "right", minus="book shut").above(0),
        },
        "numbers": {
            "shut": f"{100 * shut.mean:.0f} %",
            "right": f"{100 * opened.mean:.0f} %",
            "searched": f"{100 * searched.mean:.0f} %",
            "found": f"{100 * found.interval('the page that search finds', 'page is right').mean:.0f} %",
            "helps": f"{100 * helps.low:.0f} to {100 * helps.high:.0f}",
            "follows": f"{100 * follows.mean:.0f} %",
        },
    }
