"""Does a higher temperature break the loops of greedy decoding, and what does it cost?"""

from experiments import looping
from experiments.looping import habits, less, openings, over, passages, percent, write
from experiments.trial import written
from labkit.experiment import Experiment, interval

HOT = "temperature 1.0"

experiment = Experiment(
    claim="A12.13",
    question="Does a higher temperature break the loops of greedy decoding, and what does it cost?",
    arms={
        "greedy": {"by": "greedy"},
        HOT: {"by": HOT},
        "people": {"by": "people"},
        "greedy, cut short": {"by": "greedy", "first": 4},
    },
    seeds=(0,),
    shows="greedy",
    shows_not="people",
    live=("greedy, cut short", 0),
    within={"repeated": 0.25, "pairs": 0.25, "curve": 0.4, "nll": 0.4},
)


@experiment.measure
def measure(seed, by, first=None):
    """The texts of one way to write, or what people wrote; `first` texts alone are short."""
    if by == "people":
        return habits(passages(looping.STEPS))
    if first:
        return habits(*write(openings(first), looping.greedy, 50))
    return habits(*(looping.greedy_texts() if by == "greedy" else written()[by]))


@experiment.conclude
def conclude(found):
    hot = interval(over(found, HOT, "repeated"))
    gain, cost = less(found, "greedy", HOT, "repeated"), less(found, HOT, "greedy", "nll")
    return {
        "verdict": "correct" if hot.below(looping.BROKEN) else "imprecise" if gain.above(0) else "wrong",
        "controls": looping.controls(found, "greedy"),
        "numbers": {
            **{name.replace(".", "_"): text for name, text in looping.told(found).items()},
            "gain": percent(gain),
            "cost": cost.text(".1f"),
        },
    }
