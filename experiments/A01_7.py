"""A01.7: does a language model know everything, and what does it say where it doesn't?"""

from experiments.knowing import GROUPS, SHORT, ask, begun, first_token, judged, sampled, share, turn
from experiments.looping import percent
from labkit.experiment import Experiment

SAMPLES = 8

experiment = Experiment(
    claim="A01.7",
    question="Does a language model know everything, and what does it say where it doesn't?",
    arms={
        "well known": {"group": "well known"},
        "little known": {"group": "little known"},
        "invented": {"group": "invented"},
        "eight well known": {"group": "well known", "count": 8},
    },
    seeds=(0,),
    shows="little known",
    shows_not="well known",
    live=("eight well known", 0),
    within={"right": 0.0, "withheld": 0.0, "false": 0.0, "entropy": 0.1, "surest": 0.05},
)


@experiment.measure
def measure(seed, group, count=None):
    """How the capital of each country is answered; and with the answer begun, how sure the model is of its beginning.

    `samples` are the names of SAMPLES answers that are drawn at temperature 1.
    """
    items = GROUPS[group][:count]
    said = ask([turn(SHORT.format(land)) for land, _ in items], 14)
    prompts = [begun(land) for land, _ in items]
    entropy, surest = first_token(prompts)
    names = ask(prompts, 6)
    return judged(items, said) | {
        "entropy": entropy,
        "surest": surest,
        "said": said,
        "names": names,
        "samples": sampled(prompts, SAMPLES, 6),
    }


@experiment.conclude
def conclude(found):
    known, little = share(found, "well known", "right"), share(found, "little known", "right")
    invents = share(found, "little known", "false")
    if known.above(0.95) and little.above(0.95):
        word = "correct"
    elif little.below(0.5) and invents.above(0.5):
        word = "wrong"
    else:
        word = "imprecise"
    numbers = {
        f"{arm.replace(' ', '_')}_{number}": f"{100 * share(found, arm, number).mean:.0f} %"
        for arm in GROUPS
        for number in ("right", "withheld", "false")
    }
    numbers["invented_false_range"] = f"{percent(share(found, 'invented', 'false'))} %"
    return {
        "verdict": word,
        "controls": {"shows": invents.above(0.25), "shows_not": not share(found, "well known", "false").above(0.25)},
        "numbers": numbers,
    }
