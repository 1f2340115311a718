"""T09.2, and T09.1, T09.4, T09.5 beside it: what keeps a small GPT from learning its pages by heart."""

from __future__ import annotations

from experiments.overfit import STEPS, train
from labkit.experiment import Experiment, Interval, interval

COUNTS = 0.05  # nats a letter: what a difference has to be to count. Stated in the chapter before the run.
PLAIN, ORDER, MORE = "nothing", "nothing, other batches", "four times the text"

experiment = Experiment(
    claim="T09.2",
    question="What keeps a small GPT from learning its pages by heart?",
    arms={
        PLAIN: {},
        "dropout 0.2": {"p": 0.2},
        "label smoothing 0.1": {"smoothing": 0.1},
        "weight decay 1.0": {"decay": 1.0},
        "synonyms": {"augment": "synonyms"},
        "5 % wrong letters": {"augment": "letters"},
        MORE: {"text": "more"},
        ORDER: {"order": 2},
        "no norm": {"norm": "none"},
        "BatchNorm": {"norm": "batch"},
    },
    seeds=range(5),
    shows=MORE,
    shows_not=ORDER,
    live=(PLAIN, 0),
    within={"known": 0.1, "validation": 0.15, "test": 0.15, "step": 0.0},
)


@experiment.measure
def measure(seed: int, **cure) -> dict:
    """Losses on the known pages, the validation and the test pages, over the training."""
    return train(seed, **cure)


def stopped(run: dict) -> float:
    """The test loss at the step whose validation loss is the lowest: with early stopping."""
    return run["test"][min(range(len(run["step"])), key=run["validation"].__getitem__)]


def at_known(run: dict, level: float) -> float:
    """The test loss at the moment when the loss on the known pages passes a level, between two measurements."""
    known, test = run["known"], run["test"]
    i = next(i for i in range(1, len(known)) if known[i] <= level)
    share = (known[i - 1] - level) / (known[i - 1] - known[i])
    return test[i - 1] + share * (test[i] - test[i - 1])


def runs(found, arm: str) -> list[dict]:
    """The curves of an arm, one a seed."""
    names = ("step", "known", "validation", "test")
    return [
        dict(zip(names, each, strict=True)) for each in zip(*(found.each(arm, name) for name in names), strict=True)
    ]


def gain(found, arm: str, of=lambda run: run["test"][-1], over: str = PLAIN) -> Interval:
    """How much lower a number is than without the cure, seed by seed: at the end, or what `of` takes of a run."""
    return interval([of(one) - of(other) for one, other in zip(runs(found, over), runs(found, arm), strict=True)])


@experiment.conclude
def conclude(found) -> dict:
    """Correct if dropout ends surely lower by COUNTS, wrong if surely not, else unverifiable."""
    ends = gain(found, "dropout 0.2")
    return {
        "verdict": "correct" if ends.above(COUNTS) else "wrong" if ends.below(COUNTS) else "unverifiable",
        "controls": {"shows": gain(found, MORE).above(COUNTS), "shows_not": not gain(found, ORDER).above(COUNTS)},
        "numbers": {"steps": f"{STEPS}"}
        | {
            f"{name}_{kind}": f"{gain(found, arm, of).mean:+.2f}".replace("-", "−").replace("−0.00", "0.00")
            for name, arm in (
                ("dropout", "dropout 0.2"),
                ("decay", "weight decay 1.0"),
                ("synonyms", "synonyms"),
                ("more", MORE),
            )
            for kind, of in (("end", lambda run: run["test"][-1]), ("stopped", stopped))
        },
    }
