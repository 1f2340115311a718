"""A05.20: does a student approach its teacher, and what is the teacher worth for the same text and the same work?"""

from __future__ import annotations

import functools

from experiments.distilling import STUDENT, TEACHER_STEPS, fresh, judged, on_text, teacher_of, train, weights
from labkit.experiment import Experiment, interval

STEPS, RATES = 400, (1e-2, 2e-2, 4e-2)
LONG = 1 + round(weights(teacher_of(0)) / weights(fresh(STUDENT, 0)) / 3, 1)  # of one step with a teacher, see below
LEFT = 0.1  # of the distance to the teacher at the start: what is less counts as reached. Stated before the run.

experiment = Experiment(
    claim="A05.20",
    question="Does a student approach its teacher, and what is the teacher worth for the same text and the same work?",
    arms={
        "teacher": {"by": "itself"},
        "alone": {},
        "with teacher": {"by": "teacher"},
        "alone, same compute": {"times": LONG},
        "with teacher, as many steps": {"by": "teacher", "times": LONG},
        "with an untrained teacher": {"by": "nobody"},
        "little text: alone": {"part": "little"},
        "little text: with teacher": {"part": "little", "by": "teacher"},
        "little text: alone, same compute": {"part": "little", "times": LONG},
        "cut short": {"by": "teacher", "times": 0.15, "teacher_steps": 60, "rates": (2e-2,)},
    },
    seeds=range(3),
    shows="with teacher",
    shows_not="with an untrained teacher",
    live=("cut short", 0),
    within={"loss": 0.15, "right": 0.05, "divergence": 0.15, "agrees": 0.2, "curve": 0.4, "rate": 0.0, "steps": 0.0},
)


@experiment.measure
def measure(seed, part="train", by=None, times=1.0, teacher_steps=TEACHER_STEPS, rates=RATES):
    """One student, as it was where the validation text liked it best: judged on the test text.

    A student's step costs 6 operations a weight and token, forward and backward; the teacher's forward pass 2. So a
    step with a teacher costs as much as LONG steps without, and `times` says how many steps of STEPS there are.
    """
    if by == "itself":
        return judged(teacher_of(teacher_steps), "test", teacher_steps)
    steps = round(STEPS * times)
    rate = rates[0] if len(rates) == 1 else _best_rate(part, by, steps, rates)
    looks = _learn(seed, part, by, steps, rate, teacher_steps)
    best = min(looks, key=lambda look: look[0]["loss"])
    return best[1] | {"curve": [test["loss"] for _, test in looks], "rate": rate, "steps": steps}


def _learn(seed, part, by, steps, rate, teacher_steps=TEACHER_STEPS):
    """What is judged on the validation and the test text, several times on the way."""
    net = fresh(STUDENT, seed)
    teacher = {"teacher": teacher_of(teacher_steps), "nobody": teacher_of(0), None: None}[by]

    def look(net):
        return judged(net, "validation", teacher_steps), judged(net, "test", teacher_steps)

    return train(net, on_text(net, part, seed, teacher), steps, rate, look)


@functools.cache
def _best_rate(part, by, steps, rates):
    """Chosen by the validation text, with a seed that is not among those that are reported."""
    found = {rate: min(v["loss"] for v, _ in _learn(10, part, by, steps, rate)) for rate in rates}
    return min(found, key=found.get)


@experiment.conclude
def conclude(found):
    """Correct if a long run surely comes within LEFT of the teacher; imprecise if it only comes nearer; else wrong."""
    first, last, by_itself = (interval(_left(found, arm)) for arm in (*_RUNS, "alone, same compute"))

    def saved(start, *opponents):
        """Seed by seed, against the best of some opponents: who has compute need not use it all."""
        others = [min(each) for each in zip(*(found.each(start + arm, "loss") for arm in opponents), strict=True)]
        return interval([a - b for a, b in zip(others, found.each(start + "with teacher", "loss"), strict=True)])

    nearer = found.interval(_RUNS[0], "loss", minus=_RUNS[1])
    if last.below(LEFT):
        word = "correct"
    elif nearer.above(0):
        word = "imprecise" if last.above(LEFT) else "unverifiable"
    else:
        word = "wrong" if last.above(LEFT) else "unverifiable"
    gain = {
        "same_text": saved("", "alone"),
        "same_compute": saved("", "alone", "alone, same compute"),
        "little_same_text": saved("little text: ", "alone"),
        "little_same_compute": saved("little text: ", "alone", "alone, same compute"),
    }
    nobody = found.interval("alone", "loss", minus="with an untrained teacher")
    return {
        "verdict": word,
        "controls": {"shows": gain["same_text"].above(0), "shows_not": not nobody.above(0)},
        "numbers": {name: each.text("+.2f").replace("-", "−") for name, each in gain.items()}
        | {
            "teacher": f"{found.interval('teacher', 'loss').mean:.2f}",
            "alone": f"{found.interval('alone', 'loss').mean:.2f}",
            "with_teacher": f"{found.interval('with teacher', 'loss').mean:.2f}",
            "alone_long": f"{found.interval('alone, same compute', 'loss').mean:.2f}",
            "with_teacher_long": f"{found.interval(_RUNS[1], 'loss').mean:.2f}",
            "left_short": f"{100 * first.low:.0f} to {100 * first.high:.0f} %",
            "left_long": f"{100 * last.low:.0f} to {100 * last.high:.0f} %",
            "left_alone": f"{100 * by_itself.low:.0f} to {100 * by_itself.high:.0f} %",
            "compute": f"{LONG:.1f}",
        },
    }


_RUNS = ("with teacher", "with teacher, as many steps")


def _left(found, arm):
    """Each seed's loss above the teacher's, in units of that of the student alone."""
    three = zip(*(found.each(name, "loss") for name in (arm, "alone", "teacher")), strict=True)
    return [(student - teacher) / (alone - teacher) for student, alone, teacher in three]
