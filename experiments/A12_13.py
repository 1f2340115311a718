"""Does a higher temperature break the loops of greedy decoding, and what does it cost?"""

from experiments import looping
from experiments.looping import habits, heated, less, openings, over, passages, percent, tasks, write
from labkit.experiment import Experiment, interval

HEATS = {"temperature 1.0": 1.0, "temperature 0.7": 0.7}

experiment = Experiment(
    claim="A12.13",
    question="Does a higher temperature break the loops of greedy decoding, and what does it cost?",
    arms={
        "greedy": {"heat": 0.0},
        "people": {},
        "greedy, cut short": {"heat": 0.0, "first": 4},
        **{name: {"heat": heat} for name, heat in HEATS.items()},
    },
    seeds=(0,),
    shows="greedy",
    shows_not="people",
    live=("greedy, cut short", 0),
    within={"repeated": 0.25, "pairs": 0.25, "curve": 0.4, "nll": 0.4},
)


@experiment.measure
def measure(seed, heat=None, first=None):
    """One way to write, its texts and its tasks; without a heat, what people wrote; `first` texts alone are short."""
    if heat is None:
        return habits(passages(looping.STEPS))
    if first:
        return habits(*write(openings(first), looping.greedy, 50))
    choose = heated(heat) if heat else looping.greedy
    texts = looping.greedy_texts() if not heat else write(openings(), choose, looping.STEPS)
    return habits(*texts) | tasks(choose)


@experiment.conclude
def conclude(found):
    rate = {arm: interval(over(found, arm, "repeated")) for arm in found.arms}
    best = [name for name in HEATS if rate[name].below(looping.BROKEN)]
    gain = {name: less(found, "greedy", name, "repeated") for name in HEATS}
    helped = [name for name in HEATS if gain[name].above(0)]
    cost = less(found, "temperature 1.0", "greedy", "nll")
    facts = {kind: less(found, "greedy", "temperature 1.0", kind) for kind in ("capitals", "copies")}
    return {
        "verdict": "correct" if best else "imprecise" if helped else "wrong",
        "controls": looping.controls(found, "greedy"),
        "numbers": {
            **{name.replace(".", "_"): text for name, text in looping.told(found).items()},
            "gain": percent(gain["temperature 1.0"]),
            "cost": cost.text(".1f"),
            **{f"{kind}_lost": percent(each) for kind, each in facts.items()},
        },
    }
