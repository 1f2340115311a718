"""Do penalties on what was said break the loops of greedy decoding, and what do they cost?"""

from experiments import looping
from experiments.looping import (
    charged,
    habits,
    less,
    openings,
    over,
    passages,
    penalised,
    percent,
    tasks,
    without_repeats,
    write,
)
from labkit.experiment import Experiment, interval

PENALTIES = ("repetition penalty 1.2", "presence 1", "frequency 1", "no 4-gram twice")

experiment = Experiment(
    claim="A12.14",
    question="Do penalties on what was said break the loops of greedy decoding, and what do they cost?",
    arms={
        "greedy": {},
        "repetition penalty 1.2": {"penalty": 1.2},
        "presence 1": {"presence": 1.0},
        "frequency 1": {"frequency": 1.0},
        "people": {"people": True},
        "repetition penalty 1.2, cut short": {"penalty": 1.2, "first": 4},
        "no 4-gram twice": {"n": 4},
    },
    seeds=(0,),
    shows="greedy",
    shows_not="people",
    live=("repetition penalty 1.2, cut short", 0),
    within={"repeated": 0.25, "pairs": 0.25, "curve": 0.4, "nll": 0.4},
)


@experiment.measure
def measure(seed, penalty=None, presence=0.0, frequency=0.0, n=None, people=False, first=None):
    """One way to write, its texts and its tasks; or what people wrote; `first` texts alone are short."""
    if people:
        return habits(passages(looping.STEPS))
    choose = looping.greedy
    if penalty:
        choose = penalised(penalty)
    elif n:
        choose = without_repeats(n)
    elif presence or frequency:
        choose = charged(frequency, presence)
    if first:
        return habits(*write(openings(first), choose, 50))
    greedily = choose is looping.greedy
    texts = looping.greedy_texts() if greedily else write(openings(), choose, looping.STEPS)
    return habits(*texts) | tasks(choose)


@experiment.conclude
def conclude(found):
    rate = {arm: interval(over(found, arm, "repeated")) for arm in found.arms}
    # That no 4-gram comes twice where none may is no finding: the verdict rests on the three others.
    broken = [name for name in PENALTIES[:3] if rate[name].below(looping.BROKEN)]
    helped = [name for name in PENALTIES[:3] if less(found, "greedy", name, "repeated").above(0)]
    lost = {name: less(found, "greedy", name, "copies") for name in PENALTIES}
    facts = {name: less(found, "greedy", name, "capitals") for name in PENALTIES}
    apart = less(found, "presence 1", "frequency 1", "repeated")
    return {
        "verdict": "correct" if broken else "imprecise" if helped else "wrong",
        "controls": looping.controls(found, "greedy"),
        "numbers": {
            **{_name(arm): text for arm, text in looping.told(found).items()},
            "presence_minus_frequency": percent(apart),
            **{f"copies_lost_{_name(arm)}": percent(each) for arm, each in lost.items()},
            **{f"capitals_lost_{_name(arm)}": percent(each) for arm, each in facts.items()},
        },
    }


def _name(arm):
    """An arm as cards name it: `{A12.14:repetition_penalty_1_2}`."""
    return "".join(letter if letter.isalnum() else "_" for letter in arm)
