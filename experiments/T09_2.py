"""T09.2, and T07.12, T09.1, T09.4, T09.5, T09.6 beside it: what keeps a small GPT from overfitting its pages.

Every arm is trained at several learning rates. A number is asked for, such as the loss at the end; the rate at which
it is the lowest on the validation pages is taken, and the same number on the test pages is told.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from experiments.overfit import RATE, STEPS, train
from labkit.display import minus
from labkit.experiment import Evidence, Experiment, Interval, interval

COUNTS = 0.05  # nats a letter: what a difference has to be to count. Stated in the chapter before the run.
LEVEL = 1.8  # nats a letter on the known pages: where arms are compared at an equal training loss
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, RATE)
PLAIN, ORDER, MORE = "nothing", "nothing, other batches", "four times the text"
DROPOUT, DECAY, WRONG = "dropout 0.2", "weight decay 1.0", "5 % wrong letters"
ARMS = {
    PLAIN: {},
    DROPOUT: {"p": 0.2},
    "label smoothing 0.1": {"smoothing": 0.1},
    DECAY: {"decay": 1.0},
    "synonyms": {"augment": "synonyms"},
    WRONG: {"augment": "letters"},
    MORE: {"text": "more"},
    ORDER: {"order": 2},
    "no norm": {"norm": "none"},
    "BatchNorm": {"norm": "batch"},
}


def arm(name: str, rate: float) -> str:
    """The name of an arm at one rate."""
    return f"{name} at {rate:g}"


experiment = Experiment(
    claim="T09.2",
    question="What keeps a small GPT from overfitting its pages, each cure at its own best rate?",
    arms={arm(name, rate): settings | {"rate": rate} for name, settings in ARMS.items() for rate in RATES},
    seeds=range(5),
    shows=arm(MORE, RATE),
    shows_not=arm(ORDER, RATE),
    live=(arm(PLAIN, RATE), 0),
    within={"known": 0.1, "validation": 0.15, "test": 0.15, "step": 0.0},
)


@experiment.measure
def measure(seed: int, **settings) -> dict:
    """Losses on the known pages, the validation and the test pages, over the training."""
    return train(seed, **settings)


def at_end(run: dict, part: str = "test") -> float:
    """The loss on a part when nobody stops."""
    return run[part][-1]


def stopped(run: dict, part: str = "test") -> float:
    """The loss on a part at the step whose validation loss is the lowest: with early stopping."""
    return run[part][min(range(len(run["step"])), key=run["validation"].__getitem__)]


def at_known(run: dict, part: str = "test") -> float:
    """The loss on a part when the loss on the known pages passes LEVEL, between two measurements; infinite if never."""
    known, losses = run["known"], run[part]
    i = next((i for i in range(1, len(known)) if known[i] <= LEVEL), None)
    if i is None:
        return float("inf")
    share = (known[i - 1] - LEVEL) / (known[i - 1] - known[i])
    return losses[i - 1] + share * (losses[i] - losses[i - 1])


def runs(found: Evidence, name: str, rate: float = RATE) -> list[dict]:
    """The curves of an arm at a rate, one a seed."""
    names = ("step", "known", "validation", "test")
    curves = (found.each(arm(name, rate), each) for each in names)
    return [dict(zip(names, each, strict=True)) for each in zip(*curves, strict=True)]


def best_rate(found: Evidence, name: str, of: Callable = at_end) -> float:
    """The rate at which a number, see `of`, has the lowest mean on the validation pages."""
    return min(RATES, key=lambda rate: statistics.fmean(of(run, "validation") for run in runs(found, name, rate)))


def losses(found: Evidence, name: str, of: Callable = at_end, rate: float | None = None) -> list[float]:
    """A number on the test pages, one a seed, at a rate or at the arm's own best one."""
    return [of(run) for run in runs(found, name, rate or best_rate(found, name, of))]


def lower(found: Evidence, name: str, of: Callable = at_end, over: str = PLAIN, rate=None, over_rate=None) -> list:
    """How much lower a number is than in another arm, one a seed: each at its own best rate, or at those given."""
    pairs = zip(losses(found, over, of, over_rate or rate), losses(found, name, of, rate), strict=True)
    return [other - mine for other, mine in pairs]


def gain(found: Evidence, *how, **where) -> Interval:
    """The interval of `lower`."""
    return interval(lower(found, *how, **where))


NAMED = {"dropout": DROPOUT, "decay": DECAY, "synonyms": "synonyms", "letters": WRONG, "more": MORE}


@experiment.conclude
def conclude(found: Evidence) -> dict:
    """Whether dropout ends surely lower by COUNTS.

    Correct if so with each at its own best rate; imprecise if only where both share some rate; wrong if surely at none;
    else unverifiable.
    """
    own, shared = gain(found, DROPOUT), [gain(found, DROPOUT, rate=rate) for rate in RATES]
    plain = runs(found, PLAIN, best_rate(found, PLAIN))
    turn = statistics.fmean(stopped(run, "step") for run in plain)
    gains = {
        **{f"{name}_end": gain(found, arm) for name, arm in NAMED.items()},
        **{f"{name}_stopped": gain(found, arm, stopped) for name, arm in NAMED.items()},
        **{f"{name}_shared": gain(found, arm, rate=RATE) for name, arm in NAMED.items()},
        "rate_end": gain(found, PLAIN, over_rate=RATE),
        "rate_stopped": gain(found, PLAIN, stopped, over_rate=RATE),
        "layernorm_end": gain(found, PLAIN, over="no norm"),
        "layernorm_known": gain(found, PLAIN, at_known, over="no norm"),
        "batchnorm_known": gain(found, "BatchNorm", at_known),
    }
    if own.above(COUNTS):
        word = "correct"
    elif any(each.above(COUNTS) for each in shared):
        word = "imprecise"
    else:
        word = "wrong" if all(each.below(COUNTS) for each in (own, *shared)) else "unverifiable"
    return {
        "verdict": word,
        "controls": {"shows": gain(found, MORE).above(COUNTS), "shows_not": not gain(found, ORDER).above(COUNTS)},
        "numbers": {"steps": f"{STEPS}", "rate": f"{RATE:g}", "rates": f"{len(RATES)}", "lowest": f"{RATES[0]:g}"}
        | {"plain_rate": f"{best_rate(found, PLAIN):g}", "plain_turn": f"{turn:.0f}"}
        | {name: minus(f"{one.mean:+.2f}") for name, one in gains.items()}
        | {f"{name}_range": minus(one.text("+.2f")) for name, one in gains.items()},
    }
