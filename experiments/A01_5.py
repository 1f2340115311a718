"""A01.5: an agent plans first and acts afterwards. Against it: a loop that decides after each observation.

The same runs say what a fixed workflow does on these tasks, which A03.3 asks.
"""

from __future__ import annotations

from experiments.hunting import LOOKS, loop, plan, scored, tasks, unaided, workflow
from labkit.experiment import Experiment

experiment = Experiment(
    claim="A01.5",
    question="Does a plan made beforehand solve more tasks than a loop of acting and observing?",
    arms={
        "plan, length told": {"method": "plan", "says_length": True},
        "loop, length told": {"method": "loop", "says_length": True},
        "plan": {"method": "plan"},
        "loop": {"method": "loop"},
        "workflow of 1": {"method": "workflow", "looks": 1},
        "workflow of 2": {"method": "workflow", "looks": 2},
        "workflow of 3": {"method": "workflow", "looks": 3},
        "no tool": {"method": "unaided"},
    },
    seeds=range(8),
    shows="workflow of 1",
    shows_not="no tool",
    live=("workflow of 1", 0),
    within={"solved": 25.0, "solved_1": 50.0, "solved_2": 50.0, "solved_3": 50.0},
)


@experiment.measure
def measure(seed: int, method: str, looks: int = 0, says_length: bool = False) -> dict:
    some = tasks(seed, says_length)
    methods = {"plan": plan, "loop": loop, "unaided": unaided}
    return scored(some, workflow(some, looks) if looks else methods[method](some))


@experiment.conclude
def conclude(found) -> dict:
    told = found.interval("plan, length told", "solved", minus="loop, length told")
    unknown = found.interval("plan", "solved", minus="loop")
    if told.above(0) and unknown.above(0):
        word = "correct"
    elif told.below(0) and unknown.below(0):
        word = "wrong"
    else:
        word = "imprecise"
    numbers = {"gap_told": told.text("+.0f"), "gap_unknown": unknown.text("+.0f")}
    for arm in found.arms:
        name = arm.replace(", ", "_").replace(" ", "_")
        for what in ("solved", *(f"solved_{k}" for k in LOOKS), "tokens"):
            numbers[f"{name}_{what}"] = f"{found.interval(arm, what).mean:.0f}"
        numbers[f"{name}_asked"] = f"{found.interval(arm, 'asked').mean:.1f}"
    return {
        "verdict": word,
        "controls": {
            "shows": found.interval(experiment.shows, "solved_1").above(50),
            "shows_not": found.interval(experiment.shows_not, "solved").below(30),
        },
        "numbers": numbers,
    }
