"""`checkpoint_interval(save, restart, mtbf, nodes)`

How long to work between two checkpoints, and the share of time in which the cluster then gets on.
"""

from __future__ import annotations

import math

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "checkpoint_interval",
    points=2,
    rtol=1e-5,
    atol=1e-9,
    no_gradient="seconds are plain numbers",
    hints=[
        "How often does *something* fail among so many nodes? Then the time that an interval takes on average is "
        "given; you look for the interval that gets most work out of it.",
        "M = mtbf / nodes. Share(t) = t / (M * exp(restart / M) * (exp((t + save) / M) - 1)). It has one maximum: "
        "search for it, or set the derivative to zero.",
        "The derivative is zero where exp(-(t + save) / M) = 1 - t / M, for t between 0 and M: halve that range sixty "
        "times. Young's sqrt(2 * save * M) is where you would begin.",
    ],
)


@exercise.cases
def clusters(g):
    def some(label, save, restart, mtbf, nodes):
        return case(float(save), float(restart), float(mtbf), nodes, label=label)

    years = 365.0 * 24 * 3600
    yield some("a large cluster", pick(g, 30, 90), pick(g, 300, 900), pick(g, 3, 9) * years, 2048)
    yield some("one node", pick(g, 30, 90), pick(g, 300, 900), pick(g, 3, 9) * years, 1)
    yield some("slow checkpoints", pick(g, 900, 1900), pick(g, 300, 900), pick(g, 2, 4) * years, pick(g, 9000, 16000))
    yield some("failures more often than restarts", pick(g, 60, 90), 2000, years / 2, pick(g, 9000, 12000))
    yield some("checkpoints that take a moment", pick(g, 2, 9) / 100, 1, pick(g, 4, 9) * 3600, pick(g, 200, 300))
    yield some("no time to restart", pick(g, 200, 400), 0, pick(g, 2, 4) * years, pick(g, 4000, 6000))
    yield some("a checkpoint that takes as long as there is", 3000, 100, 3000 * 512, 512)


def share(interval, save, restart, mtbf):
    return interval / (mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf))


@exercise.oracle
def by_lambert(save, restart, mtbf, nodes):
    """The maximum in closed form: t = M (1 + W(-exp(-1 - save / M))), with the W of scipy."""
    from scipy.special import lambertw

    system = mtbf / nodes
    x = save / system
    if x < 1e-6:  # W loses digits beside its branch point, and there its series is exact
        root = math.sqrt(2 * x)
        interval = system * (root - x / 1.5 + root * x / 18)
    else:
        interval = system * (1 + float(lambertw(-math.exp(-1 - x)).real))
    return interval, share(interval, save, restart, system)


@exercise.agrees
def near_the_best(expected, got, one):
    """The maximum is flat: an interval is right to one part in a thousand, the share to many more digits."""
    if not isinstance(got, (list, tuple)) or len(got) != 2 or not all(_is_number(x) for x in got):
        return "is not a pair (interval, share)"
    for name, right, found, digits in zip(("interval", "share"), expected, got, (1e-3, 1e-6), strict=True):
        if not math.isclose(right, float(found), rel_tol=digits):
            return f"{one.label}: the {name} is {float(found):,.6g}, and should be {right:,.6g}"
    return True


def _is_number(x):
    return hasattr(x, "__float__") and not isinstance(x, bool)


@exercise.law("A shorter or a longer interval gets less work done")
def no_better(out, one, call):
    save, restart, mtbf, nodes = one.args
    interval, told = float(out[0]), float(out[1])
    return all(share(interval * factor, save, restart, mtbf / nodes) < told for factor in (0.7, 1.4))


@exercise.law("A restart costs time, and doesn't change when to save")
def restart_apart(out, one, call):
    save, restart, mtbf, nodes = one.args
    interval, told = call(save, restart + 500.0, mtbf, nodes)
    return math.isclose(float(interval), float(out[0]), rel_tol=1e-3) and float(told) < float(out[1])


def _best(save, system):
    low, high = 0.0, system
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if math.exp(-(middle + save) / system) > 1 - middle / system else (middle, high)
    return (low + high) / 2


def _checkpoint(system=lambda mtbf, nodes: mtbf / nodes, interval=_best, worth=share, told=None):
    """Right as it stands. A mistake takes one of its parts another way."""

    def checkpoint(save, restart, mtbf, nodes):
        m = system(mtbf, nodes)
        t = interval(save, m)
        return told(t, save) if told else t, worth(t, save, restart, m)

    return checkpoint


def _newton(save, restart, mtbf, nodes):
    system = mtbf / nodes
    x, d = math.sqrt(2 * save / system), save / system
    x = min(x, 1.0)
    for _ in range(60):
        low = math.exp(-(x + d))
        x -= (low - 1 + x) / (1 - low)
    t = x * system
    return t, share(t, save, restart, system)


def _series(save, restart, mtbf, nodes):
    """Halving on the derivative's sign, written with expm1 and in units of the mean time between failures."""
    m = mtbf / nodes
    d, low, high = save / m, 0.0, 1.0
    while high - low > 1e-14 * max(high, 1e-3):
        x = (low + high) / 2
        if math.expm1(-(x + d)) + x < 0:
            low = x
        else:
            high = x
    return [low * m, low * m / (m * math.exp(restart / m) * math.expm1(low + d))]


exercise.alternative(_series)
exercise.alternative(_newton)
exercise.alternative(_checkpoint())

exercise.mistake(
    "the interval is Young's, sqrt(2 * save * M), though failures are frequent",
    hint="That is the first term of a series. The share of time asked for is exact; look for its maximum.",
)(_checkpoint(interval=lambda save, m: math.sqrt(2 * save * m)))
exercise.mistake(
    "the interval is Daly's sqrt(2 * save * M) - save", hint="That is an estimate, too. Look for the maximum."
)(_checkpoint(interval=lambda save, m: math.sqrt(2 * save * m) - save))
exercise.mistake(
    "the cluster is taken to fail as rarely as one node",
    hint="With n nodes something fails n times as often: M = mtbf / nodes.",
)(_checkpoint(system=lambda mtbf, nodes: mtbf))
exercise.mistake("intervals below a minute are never tried", hint="A checkpoint may take milliseconds.")(
    _checkpoint(interval=lambda save, m: max(60.0, _best(save, m)))
)
exercise.mistake("the factor 2 is missing under the root", hint="A failure costs half an interval on average.")(
    _checkpoint(interval=lambda save, m: math.sqrt(save * m))
)
exercise.mistake(
    "the interval is counted from checkpoint to checkpoint, with the saving in it",
    hint="The time of work between two checkpoints, without the saving.",
)(_checkpoint(told=lambda t, save: t + save))
exercise.mistake(
    "the restart is left out of the share",
    hint="After each failure `restart` seconds pass, in which something may fail again.",
)(_checkpoint(worth=lambda t, save, restart, m: share(t, save, 0.0, m)))
exercise.mistake(
    "the share is t / (t + save): failures cost nothing",
    hint="What failed has to be worked again, and the restart takes time.",
)(_checkpoint(worth=lambda t, save, restart, m: t / (t + save)))
exercise.mistake("the share that is lost is given, not the share that is of use", hint="Near 1 is good.")(
    _checkpoint(worth=lambda *given: 1 - share(*given))
)
exercise.mistake(
    "the share is a first-order estimate: 1 - save / t - (t / 2 + restart) / M",
    hint="The time an interval takes on average is given exactly.",
)(_checkpoint(worth=lambda t, save, restart, m: 1 - save / t - (t / 2 + restart) / m))
