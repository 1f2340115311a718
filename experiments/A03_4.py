"""A03.4: models differ in how they take tasks apart, so agents need stronger ones. One model, as it is and weakened,
on tasks of one to three looks: does a weakness that hardly shows in one step show in several?

The model as it is stands in A01.5 already: its arm "loop" has the same tasks, seed by seed. Seeds 0 to 3 had been seen
when the rule was made stricter (three looks must lose *surely* more than one, not on average), and four were added.
"""

from __future__ import annotations

from experiments.hunting import LOOKS, loop, scored, tasks, weakened
from labkit.experiment import Evidence, Experiment, Interval, evidence, interval

experiment = Experiment(
    claim="A03.4",
    question="Does a weaker model lose more where a task takes more steps?",
    arms={
        "weakened": {"noise": 0.1},
        "much weakened": {"noise": 1.0, "steps": 1},
    },
    seeds=range(8),
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


def lost(found: Evidence, arm: str, what: str) -> list[float]:
    """Points that a weakened model solves more or less than the same model as it is, seed by seed."""
    pairs = zip(found.each(arm, what), evidence("A01.5").each("loop", what), strict=True)
    return [weak - strong for weak, strong in pairs]


def deepening(found: Evidence) -> Interval:
    """Points that the weakened model loses on the longest tasks beyond what it loses on the shortest; below 0: more."""
    pairs = zip(*(lost(found, "weakened", f"solved_{k}") for k in (LOOKS[-1], LOOKS[0])), strict=True)
    return interval([long - short for long, short in pairs])


@experiment.conclude
def conclude(found) -> dict:
    """Correct if the weakened model surely loses and surely more on long tasks, imprecise if it only surely loses."""
    whole, deeper = interval(lost(found, "weakened", "solved")), deepening(found)
    word = "unverifiable" if not whole.below(0) else "correct" if deeper.below(0) else "imprecise"
    short, long = (interval(lost(found, "weakened", f"solved_{k}")) for k in (LOOKS[0], LOOKS[-1]))
    numbers = {"gap": whole.text("+.0f"), "gap_1": f"{short.mean:+.0f}", "gap_3": f"{long.mean:+.0f}"}
    numbers["deeper"] = deeper.text("+.0f")
    strong = evidence("A01.5")
    for what in ("solved", *(f"solved_{k}" for k in LOOKS)):
        numbers[f"as_it_is_{what}"] = f"{strong.interval('loop', what).mean:.0f}"
        numbers[f"weakened_{what}"] = f"{found.interval('weakened', what).mean:.0f}"
    return {
        "verdict": word,
        "controls": {"shows": interval(lost(found, experiment.shows, "solved")).below(0)},
        "numbers": numbers,
    }
