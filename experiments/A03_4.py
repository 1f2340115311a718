"""A03.4: models differ in how they take tasks apart, so agents need stronger ones. One model, as it is and weakened,
on tasks of one to three looks: does a weakness that hardly shows in one step show in several?
"""

from __future__ import annotations

from experiments.hunting import LOOKS, loop, scored, tasks, weakened
from labkit.experiment import Experiment

NOISE = 0.05

experiment = Experiment(
    claim="A03.4",
    question="Does a weaker model lose more where a task takes more steps?",
    arms={
        "as it is": {"noise": 0.0},
        "weakened": {"noise": NOISE},
        "much weakened": {"noise": 1.0, "steps": 1},
    },
    seeds=range(5),
    shows="much weakened",
    shows_not="The same model twice gives the same answers to the letter: nothing is drawn, so no arm could differ.",
    live=("much weakened", 0),
    within={"tokens": 100.0, "looks": 1.0},
)


@experiment.measure
def measure(seed: int, noise: float, steps: int = 5) -> dict:
    some = tasks(seed)
    with weakened(noise, seed):
        return scored(some, loop(some, steps))


@experiment.conclude
def conclude(found) -> dict:
    short, long = (found.interval("weakened", f"solved_{k}", minus="as it is") for k in (LOOKS[0], LOOKS[-1]))
    whole = found.interval("weakened", "solved", minus="as it is")
    word = "wrong"
    if whole.below(0):
        word = "correct" if long.mean < short.mean else "imprecise"
    numbers = {"gap": whole.text("+.0f"), "gap_1": short.text("+.0f"), "gap_3": long.text("+.0f")}
    for arm in found.arms:
        for what in ("solved", *(f"solved_{k}" for k in LOOKS)):
            numbers[f"{arm.replace(' ', '_')}_{what}"] = f"{found.interval(arm, what).mean:.0f}"
    return {
        "verdict": word,
        "controls": {"shows": found.interval(experiment.shows, "solved", minus="as it is").below(0)},
        "numbers": numbers,
    }
