"""A03.1: is retrieval only for what a model doesn't know, or does a page also change what it knew?"""

from __future__ import annotations

import random

from experiments.asking import ITEMS, holds
from experiments.retrieving import write
from labkit.experiment import Experiment, interval

COUNT = 8  # questions a seed
ORDER = random.Random(0).sample(ITEMS, len(ITEMS))  # as they stand, one seed would get all the capitals
MANY = 0.1  # of the known answers: more of them following a new page is more than filling gaps. Stated before the run.

experiment = Experiment(
    claim="A03.1",
    question="Where a model knows the answer, does a page that says something else change it?",
    arms={
        "book shut": {},
        "a page that agrees": {"says": "right"},
        "a page with something new": {"says": "new"},
        "a page about something else": {"says": "else"},
    },
    seeds=range(5),
    shows="a page with something new",
    shows_not="a page about something else",
    live=("a page with something new", 0),
    within={"right": 0.3, "new": 0.3, "each": 1.0},
)


def _page(item, says):
    _, subject, _, right, new = item
    return f"{subject} has changed: since 2026 it is {new}." if says == "new" else f"{subject} is {right}."


@experiment.measure
def measure(seed, says=""):
    """The shares of answers with the old and with the new value; `each` says of each whether it has the new or old."""
    items = ORDER[seed * COUNT : (seed + 1) * COUNT]
    prompts = []
    for i, item in enumerate(items):
        about = ORDER[((seed + 1) * COUNT + i) % len(ITEMS)] if says == "else" else item
        source = f"[1] {_page(about, says)}\n" if says else ""
        order = "Answer from the source alone.\n" if says else ""
        prompts.append(f"{order}{source}{item[0]} Answer in one short sentence.")
    given = write(prompts, longest=18)
    old = [holds(item, text) for item, text in zip(items, given, strict=True)]
    new = [holds((*item[:3], item[4]), text) for item, text in zip(items, given, strict=True)]
    return {
        "right": sum(old) / COUNT,
        "new": sum(new) / COUNT,
        "each": [int(a) + 2 * int(b) for a, b in zip(old, new, strict=True)],
    }


def among(found, arm, knew, bit):
    """Seed by seed: of the questions that were (not) known with the book shut, the share with the old (1), new (2)."""
    shares = []
    for shut, here in zip(found.each("book shut", "each"), found.each(arm, "each"), strict=True):
        chosen = [value for before, value in zip(shut, here, strict=True) if bool(before & 1) == knew]
        if chosen:
            shares.append(sum(bool(value & bit) for value in chosen) / len(chosen))
    return interval(shares)


@experiment.conclude
def conclude(found):
    """Imprecise if pages surely change known answers, too; wrong if they don't even fill gaps; else correct."""

    def over_questions(arm, knew, bit):
        """The model answers greedily: what varies is the question, so the interval is over questions, not groups."""
        pairs = zip(found.each("book shut", "each"), found.each(arm, "each"), strict=True)
        both = [pair for shut, here in pairs for pair in zip(shut, here, strict=True)]
        return interval([float(bool(value & bit)) for before, value in both if bool(before & 1) == knew])

    changed = over_questions("a page with something new", True, 2)
    filled = over_questions("a page that agrees", False, 1)
    elsewhere = over_questions("a page about something else", True, 2)
    word = "imprecise" if changed.above(MANY) else "correct" if filled.above(0) else "wrong"
    return {
        "verdict": word,
        "controls": {"shows": changed.above(0), "shows_not": not elsewhere.above(MANY)},
        "numbers": {
            "known": f"{100 * found.interval('book shut', 'right').mean:.0f} %",
            "changed": f"{100 * changed.mean:.0f} %",
            "changed_interval": f"{100 * changed.low:.0f} to {100 * min(changed.high, 1):.0f} %",
            "filled": f"{100 * filled.mean:.0f} %",
            "changed_by_group": among(found, "a page with something new", True, 2).text(),
        },
    }
