"""Do penalties on what was said break the loops of greedy decoding, and what do they cost?"""

from experiments import looping
from experiments.looping import PATTERNS, answers, habits, less, openings, over, passages, penalised, percent, write
from experiments.trial import WAYS, written
from labkit.experiment import Experiment, interval

PENALTIES = ("repetition penalty 1.2", "presence 1", "frequency 1")

experiment = Experiment(
    claim="A12.14",
    question="Do penalties on what was said break the loops of greedy decoding, and what do they cost?",
    arms={
        "greedy": {"by": "greedy"},
        **{name: {"by": name} for name in PENALTIES},
        "people": {"by": "people"},
        "repetition penalty 1.2, cut short": {"by": PENALTIES[0], "first": 4},
    },
    seeds=(0,),
    shows="greedy",
    shows_not="people",
    live=("repetition penalty 1.2, cut short", 0),
    within={"repeated": 0.25, "pairs": 0.25, "curve": 0.4, "nll": 0.4},
)


@experiment.measure
def measure(seed, by, first=None):
    """One way to write, its texts and its copies; or what people wrote; `first` texts alone are short."""
    if by == "people":
        return habits(passages(looping.STEPS))
    if first:
        return habits(*write(openings(first), penalised(1.2), 50))
    texts = looping.greedy_texts() if by == "greedy" else written()[by]
    return habits(*texts) | {"copies": copies(WAYS.get(by, looping.greedy))}


def copies(choose) -> list[int]:
    """Whether each pattern is copied: 1 or 0."""
    said = answers([f"Repeat this text exactly, and nothing else: {text}" for text in PATTERNS], choose)
    return [int(text.lower() in each.lower()) for text, each in zip(PATTERNS, said, strict=True)]


@experiment.conclude
def conclude(found):
    rate = {arm: interval(over(found, arm, "repeated")) for arm in PENALTIES}
    broken = [arm for arm, each in rate.items() if each.below(looping.BROKEN)]
    helped = [arm for arm in PENALTIES if less(found, "greedy", arm, "repeated").above(0)]
    return {
        "verdict": "correct" if broken else "imprecise" if helped else "wrong",
        "controls": looping.controls(found, "greedy"),
        "numbers": {
            **{_name(arm): text for arm, text in looping.told(found).items()},
            "presence_minus_frequency": percent(less(found, "presence 1", "frequency 1", "repeated")),
            **{f"copies_lost_{_name(arm)}": percent(less(found, "greedy", arm, "copies")) for arm in PENALTIES},
            **{
                f"copies_{_name(arm)}": f"{100 * interval(over(found, arm, 'copies')).mean:.0f} %"
                for arm in ("greedy", *PENALTIES)
            },
        },
    }


def _name(arm):
    """An arm as cards name it: `{A12.14:repetition_penalty_1_2}`."""
    return "".join(letter if letter.isalnum() else "_" for letter in arm)
