"""Does seeing more of what came before keep a model from repeating itself?"""

from experiments import looping
from experiments.looping import habits, less, openings, over, passages, percent, write
from labkit.experiment import Experiment, interval

READ = 256
POINTS = 0.10

experiment = Experiment(
    claim="A12.9",
    question="Does seeing more of what came before keep a model from repeating itself?",
    arms={
        "sees 16": {"window": 16},
        "sees 64": {"window": 64},
        "sees all": {},
        "read 16": {"read": 16},
        "read 256": {"read": 256},
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
def measure(seed, window=None, read=None, people=False, first=None):
    """Greedy texts of a writer who sees only its beginning and the last few tokens, or who has read more or less."""
    if people:
        return habits(passages(looping.STEPS))
    if read:
        return habits(*write(passages(READ)[:, -read:], looping.greedy, looping.STEPS))
    if first:
        return habits(*write(openings(first), looping.greedy, 50, window=window))
    whole = window is None
    return habits(
        *(looping.greedy_texts() if whole else write(openings(), looping.greedy, looping.STEPS, None, window))
    )


@experiment.conclude
def conclude(found):
    # Above 0: who sees less repeats more, as the claim has it.
    narrow = [less(found, arm, "sees all", "repeated") for arm in ("sees 16", "sees 64")]
    short = less(found, "read 16", "read 256", "repeated")
    helps = [all(each.above(POINTS) for each in narrow), short.above(POINTS)]
    idle = [all(each.below(POINTS) for each in narrow), short.below(POINTS)]
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
            "short": percent(short),
            "after_256": percent(interval(over(found, "read 256", "repeated"))),
        },
    }
