"""D01.6: can a model label preferences itself, and does its verdict survive other words?

One small chat model is asked in two ways: for a letter, in both orders, and how likely it finds each answer.
"""

from __future__ import annotations

import numpy as np

from experiments.asking import ITEMS, WORDINGS, answer, holds, likelihood, named_first, sampled
from labkit.experiment import Experiment, interval

GROUPS, ASKED = 5, 4  # the groups stand for seeds; of each the first questions are answered by sampling, too
PLAIN, SHORT = "the same again", "shortened"

experiment = Experiment(
    claim="D01.6",
    question="Can a model label preferences itself, and does its verdict survive other words?",
    arms={
        "asked for a letter": {"way": "letter"},
        "likelihood": {"way": "likelihood"},
        "likelihood after another question": {"way": "likelihood", "shift": 1, "wordings": (SHORT,)},
        "its own samples": {"way": "samples"},
        "cut short": {"way": "likelihood", "wordings": (PLAIN,)},
    },
    seeds=range(GROUPS),
    shows="likelihood",
    shows_not="likelihood after another question",
    live=("cut short", 0),
    within={"nats": 0.2},
)


def items(seed: int) -> tuple:
    """The questions of a group."""
    return ITEMS[seed::GROUPS]


@experiment.measure
def measure(seed, way, shift=0, wordings=tuple(WORDINGS)):
    """letter: log-odds of the first place with the right answer there, and with the wrong one there.

    likelihood: nats a token of the right and of the wrong answer, [wordings, 2, items]. samples: whether each sampled
    answer holds, and its nats a token, [items, samples].
    """
    here = items(seed)
    if way == "letter":
        both = [(item[0], answer(item, True), answer(item, False)) for item in here]
        return {"right_first": named_first(both), "wrong_first": named_first([(q, b, a) for q, a, b in both])}
    if way == "samples":
        here = here[:ASKED]
        said = sampled([item[0] for item in here], seed)
        nats = [likelihood([(item[0], text or " ") for text in texts]) for item, texts in zip(here, said, strict=True)]
        return {
            "holds": [[int(holds(i, text)) for text in texts] for i, texts in zip(here, said, strict=True)],
            "nats": nats,
        }
    questions = [item[0] for item in here[shift:] + here[:shift]]
    return {
        "nats": [
            [
                likelihood([(q, answer(item, right, wording)) for q, item in zip(questions, here, strict=True)])
                for right in (True, False)
            ]
            for wording in wordings
        ]
    }


def flips(found, wording: str) -> list[float]:
    """Each group's share of preferences that turn over if one of both answers is worded another way."""
    at, shares = list(WORDINGS).index(wording), []
    for nats in found.each("likelihood", "nats"):
        nats = np.array(nats)
        plain, other = nats[0], nats[at]
        before = plain[0] > plain[1]
        shares.append(np.mean([(other[0] > plain[1]) != before, (plain[0] > other[1]) != before]))
    return shares


def likelier(found, arm: str, wording: int = 0) -> list[float]:
    """Each group's share of questions whose right answer is the likelier one."""
    return [np.mean(np.array(nats[wording][0]) > np.array(nats[wording][1])) for nats in found.each(arm, "nats")]


def places(found) -> tuple[np.ndarray, np.ndarray]:
    """The log-odds of the first place over all questions: right answer there, wrong answer there."""
    return tuple(np.concatenate(found.each("asked for a letter", name)) for name in ("right_first", "wrong_first"))


def mixed(found) -> list[float]:
    """Each group's share of questions to which some samples are right and some wrong."""
    return [np.mean([0 < sum(row) < len(row) for row in rows]) for rows in found.each("its own samples", "holds")]


def ordered(found) -> list[float]:
    """Each group's share of pairs of a right and a wrong sample in which the right one is the likelier."""
    shares = []
    runs = zip(*(found.each("its own samples", name) for name in ("holds", "nats")), strict=True)
    for holding, nats in runs:
        pairs = [
            a > b
            for row, own in zip(holding, nats, strict=True)
            for a, right in zip(own, row, strict=True)
            for b, other in zip(own, row, strict=True)
            if right and not other
        ]
        shares += [np.mean(pairs)] if pairs else []
    return shares


def percent(values) -> str:
    return f"{100 * interval(values).mean:.0f} %"


@experiment.conclude
def conclude(found):
    """Imprecise if one of the ways finds the right answer more often than a coin: the list lacks a source.

    Correct if neither way surely does better, unverifiable between the two. Intervals are over the groups of questions.
    """
    from labkit.experiment import wilson

    right, other = (interval(likelier(found, arm)) for arm in ("likelihood", "likelihood after another question"))
    asked = (found.each("asked for a letter", name) for name in ("right_first", "wrong_first"))
    letter = interval([np.mean([*(np.array(a) > 0), *(np.array(b) < 0)]) for a, b in zip(*asked, strict=True)])
    right_first, wrong_first = places(found)
    named = np.concatenate([right_first, wrong_first]) > 0
    source, none = right.above(0.5) or letter.above(0.5), max(right.high, letter.high) <= 0.5
    steady = int(np.sum((right_first > 0) != (wrong_first > 0)))
    shares = {
        "likelier": likelier(found, "likelihood"),
        "short": likelier(found, "likelihood", list(WORDINGS).index(SHORT)),  # worded as in the control
        "another": likelier(found, "likelihood after another question"),
        "mixed": mixed(found),
        "ordered": ordered(found),
    }
    spans = {name: interval(each) for name, each in shares.items()} | {"steady": wilson(steady, len(right_first))}
    return {
        "verdict": "imprecise" if source else "correct" if none else "unverifiable",
        "controls": {"shows": right.above(0.5), "shows_not": not other.above(0.5)},
        "numbers": {
            **{name: percent(each) for name, each in shares.items()},
            **{
                f"{name}_range": f"{max(0, 100 * span.low):.0f}–{min(100, 100 * span.high):.0f} %"
                for name, span in spans.items()
            },
            "first": f"{100 * named.mean():.0f} %",
            "steady": f"{steady}",
            "averaged": f"{100 * np.mean(right_first > wrong_first):.0f} %",
            "questions": f"{len(right_first)}",
            **{f"flips_{name.replace(' ', '_')}": percent(flips(found, name)) for name in WORDINGS},
        },
    }
