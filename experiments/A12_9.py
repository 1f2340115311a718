"""Does seeing more of what came before keep a model from repeating itself?"""

from experiments import looping
from experiments.looping import habits, less, openings, passages, percent, write
from labkit.experiment import Experiment

POINTS = 0.10

experiment = Experiment(
    claim="A12.9",
    question="Does seeing more of what came before keep a model from repeating itself?",
    arms={
        "sees 32": {"window": 32},
        "sees all": {},
        "people": {"people": True},
        "sees 32, cut short": {"window": 32, "first": 4},
    },
    seeds=(0,),
    shows="sees all",
    shows_not="people",
    live=("sees 32, cut short", 0),
    within={"repeated": 0.25, "pairs": 0.25, "curve": 0.4, "nll": 0.4},
)


@experiment.measure
def measure(seed, window=None, people=False, first=None):
    """Greedy texts of a writer who sees its opening and, of what it wrote, the last few tokens; `first` are short."""
    if people:
        return habits(passages(looping.STEPS))
    if first:
        return habits(*write(openings(first), looping.greedy, 50, window=window))
    if window is None:
        return habits(*looping.greedy_texts())
    return habits(*write(openings(), looping.greedy, looping.STEPS, window=window))


@experiment.conclude
def conclude(found):
    # Above 0: who sees less repeats more, as the claim has it.
    narrow = less(found, "sees 32", "sees all", "repeated")
    if narrow.above(0):
        word = "correct" if narrow.above(POINTS) else "imprecise"
    else:
        word = "wrong" if narrow.below(POINTS) else "unverifiable"
    return {
        "verdict": word,
        "controls": looping.controls(found, "sees all"),
        "numbers": {**looping.told(found), "narrow": percent(narrow)},
    }
