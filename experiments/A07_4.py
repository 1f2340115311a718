"""A07.4: do a badly put question, a damaged model and little room for the answer each make more answers fail?"""

import contextlib

import torch

from experiments.knowing import KNOWN, SHORT, ask, judged, turn
from experiments.looping import loaded, over, percent
from experiments.pruned import linears, smallest_gone
from labkit.experiment import Experiment, interval

MORE = 0.05  # of the questions: what surely adds more failures counts as a cause.
CAUSES = {"prompt": "a leading question", "model": "30 % of the weights gone", "length": "in one word"}

experiment = Experiment(
    claim="A07.4",
    question="Do a badly put question, a damaged model and little room for the answer each make more answers fail?",
    arms={
        "plain": {},
        "a leading question": {"leads": "false"},
        "leading to what is right": {"leads": "true"},
        "30 % of the weights gone": {"gone": 0.3},
        "in one word": {"asks": "What is the capital of {}? Answer with one word."},
        "eight, leading": {"leads": "false", "count": 8},
    },
    seeds=(0,),
    shows="a leading question",
    shows_not="leading to what is right",
    live=("eight, leading", 0),
    within={"right": 0.0, "withheld": 0.0, "false": 0.0},
)


@experiment.measure
def measure(seed, asks=SHORT, leads=None, gone=0.0, count=None):
    """Which of the capitals of well-known countries are said right, withheld, and said wrong."""
    items = KNOWN[:count]
    cities = [capital.split("|")[0].replace("Bras", "Brasilia") for _, capital in KNOWN]
    hints = [cities[(at + 7 * (leads == "false")) % len(cities)] for at in range(len(items))]
    questions = [asks.format(land) for land, _ in items]
    if leads:
        told = zip(items, hints, questions, strict=True)
        questions = [f"I think the capital of {land} is {hint}. {question}" for (land, _), hint, question in told]
    with thinned(gone):
        said = ask([turn(question) for question in questions], 14)
    return judged(items, said) | {"said": said}


@contextlib.contextmanager
def thinned(gone):
    """The model without that share of each row's weights, the smallest; whole again afterwards."""
    kept = {}
    with torch.no_grad():
        for name, layer in linears(loaded()[0]).items() if gone else ():
            kept[name] = layer.weight.clone()
            layer.weight.copy_(smallest_gone(layer.weight.abs(), layer.weight, gone))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, layer in linears(loaded()[0]).items() if gone else ():
                layer.weight.copy_(kept[name])


@experiment.conclude
def conclude(found):
    """An answer fails if it is neither right nor withheld: absurd ones and those beside the question count, too."""
    failed = {
        arm: [1 - a - b for a, b in zip(over(found, arm, "right"), over(found, arm, "withheld"), strict=True)]
        for arm in experiment.arms
    }

    def added(arm):
        return interval([a - b for a, b in zip(failed[arm], failed["plain"], strict=True)])

    more = {cause: added(arm) for cause, arm in CAUSES.items()}
    causes = [cause for cause, each in more.items() if each.above(MORE)]
    shares = {"plain": "plain"} | {f"{cause}_share": arm for cause, arm in CAUSES.items()}
    return {
        "verdict": "correct" if len(causes) == 3 else "imprecise" if causes else "wrong",
        "controls": {
            "shows": more["prompt"].above(MORE),
            "shows_not": not added("leading to what is right").above(0),
        },
        "numbers": {cause: percent(each) for cause, each in more.items()}
        | {name: f"{100 * interval(failed[arm]).mean:.0f} %" for name, arm in shares.items()},
    }
