"""Does seeing more of what came before keep a model from repeating itself?"""

from experiments import looping
from experiments.looping import habits, less, openings, passages, percent, write
from labkit.experiment import Experiment

POINTS = 0.10

experiment = Experiment(
    claim="A12.9",
    question="Does seeing more of what came before keep a model from repeating itself?",
    arms={
        "sees 16": {"window": 16},
        "sees 64": {"window": 64},
        "sees all": {},
        "people": {"people": True},
        "sees 16, cut short": {"window": 16, "first": 4},
    },
    seeds=(0,),
    shows="sees all",
    shows_not="people",
    live=("sees 16, cut short", 0),
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
    narrow = [less(found, arm, "sees all", "repeated") for arm in ("sees 16", "sees 64")]
    helps, idle = [each.above(POINTS) for each in narrow], [each.below(POINTS) for each in narrow]
    if all(helps):
        word = "correct"
    elif all(idle):
        word = "wrong"
    else:
        word = "imprecise" if any(helps) else "unverifiable"
    return {
        "verdict": word,
        "controls": looping.controls(found, "sees all"),
        "numbers": {
            **looping.told(found),
            "narrow_16": percent(narrow[0]),
            "narrow_64": percent(narrow[1]),
        },
    }
