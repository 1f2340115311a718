"""`split_layers(costs, n_stages)`: How many layers each stage takes, so that the slowest stage is as fast as can be."""

from __future__ import annotations

import itertools
import operator

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick
from autograde.judging.comparing import compare

exercise = Draft(
    "split_layers",
    points=3,
    no_gradient="a cut is a list of whole numbers",
    hints=[
        "A pipeline is as fast as its slowest stage. Would you know how to check whether a limit on it can be kept?",
        "For a given limit fill each stage until the next layer doesn't fit: that needs the fewest stages. Try as "
        "limits the sums of neighboring layers, from the smallest on. Or fill a table: best[k][n] = the smallest "
        "slowest stage for the first n layers on k stages.",
        "best[k][n] = min over m of max(best[k - 1][m], sum(costs[m:n])), with k - 1 <= m < n; remember each m, and "
        "walk back from best[n_stages][len(costs)].",
    ],
)


def _costs(g, n, low=1, high=9):
    return [pick(g, low, high) for _ in range(n)]


@exercise.cases
def split_cases(g):
    yield case([1, 1, 1, 1, 1, 1, 1], 3, label="equal layers that don't divide evenly")
    yield case([*_costs(g, 3), 20 + pick(g, 0, 9), *_costs(g, 4)], 3, label="one large layer in the middle")
    yield case([1, *[2] * pick(g, 9, 12), 30 + pick(g, 0, 9)], 4, label="a large output layer")
    yield case([30 + pick(g, 0, 9), *[2] * pick(g, 9, 12), 1], 4, label="a large embedding")
    yield case(_costs(g, pick(g, 10, 12)), 4, label="costs of all sizes")
    yield case([0.5 * c for c in _costs(g, pick(g, 9, 11))], 3, label="costs with fractions")
    yield case([2, 1, 1, 9], 3, label="greedy filling leaves a stage without layers")
    yield case([9, 0, 0, 1, 0], 4, label="layers that cost nothing")
    unit = pick(g, 1, 9)
    yield case([unit / 10 * c for c in (0.9, 0.2, 0.1, 0.1, 0.2, 0.8)], 3, label="no layer takes a whole second")
    yield case([unit * c for c in (1, 1, 9, 5, 4)], 3, label="the most even cut isn't the fastest")
    yield case(_costs(g, 5), 5, label="as many stages as layers")
    yield case(_costs(g, pick(g, 4, 6)), 1, label="one stage")
    yield case(_costs(g, pick(g, 90, 110), 1, 99), 8, label="a hundred layers")


@exercise.oracle
def least_slowest(costs, n_stages):
    """The seconds of the slowest stage: the least sum of neighboring layers for which enough stages are there."""
    sums = {sum(costs[a:b]) for a, b in itertools.combinations(range(len(costs) + 1), 2)}
    return {"slowest": next(limit for limit in sorted(sums) if _stages_for(costs, limit) <= n_stages)}


def _stages_for(costs, limit):
    """How many stages it takes at least if none may need more than `limit`."""
    if max(costs) > limit:
        return float("inf")
    stages, load = 1, 0
    for cost in costs:
        load += cost
        if load > limit:
            stages, load = stages + 1, cost
    return stages


@exercise.agrees
def as_good(expected, got, one):
    if not isinstance(expected, dict):  # another solution's cut
        whole = _whole(expected), _whole(got)
        counts, given = (expected, got) if whole == (None, None) else whole
        return None not in (counts, given) and compare(counts, given, rtol=0, atol=0) is None
    if told := _unfit(got, *one.args):
        return told
    slowest = max(_loads(one.args[0], _whole(got)))
    best = expected["slowest"]
    return abs(slowest - best) <= 1e-9 or f"the slowest stage takes {slowest:g}, where {best:g} is possible"


def _whole(got):
    """The numbers of layers as a plain list, also from NumPy's or torch's integers; None where they are none."""
    try:
        return [operator.index(n) for n in got] if isinstance(got, (list, tuple)) or hasattr(got, "tolist") else None
    except TypeError:
        return None


def _unfit(got, costs, n_stages):
    got = _whole(got)
    if got is None:
        return "is not a list of whole numbers"
    if len(got) != n_stages:
        return f"has {len(got)} stages instead of {n_stages}"
    if sum(got) != len(costs):
        return f"deals out {sum(got)} of {len(costs)} layers"
    return "has a stage without layers" if min(got) < 1 else ""


def _loads(costs, counts):
    at = [0, *itertools.accumulate(counts)]
    return [sum(costs[a:b]) for a, b in itertools.pairwise(at)]


@exercise.law("Every stage has a layer, and every layer a stage")
def _all_dealt_out(out, one, call):
    return _unfit(out, *one.args) or True


@exercise.law("Twice the costs, the same cut's quality")
def _unit_free(out, one, call):
    costs, n = one.args
    both = [max(_loads(costs, _whole(counts))) for counts in (out, call([2 * c for c in costs], n))]
    return abs(both[0] - both[1]) < 1e-9


def _filled(costs, n_stages, limit):
    """Fill each stage up to `limit`, but leave a layer for each stage to come; the last takes the rest."""
    counts, at = [], 0
    for stage in range(n_stages - 1):
        start, load, to_come = at, costs[at], n_stages - 1 - stage
        at += 1
        while at < len(costs) - to_come and load + costs[at] <= limit:
            load, at = load + costs[at], at + 1
        counts.append(at - start)
    return [*counts, len(costs) - at]


@exercise.alternative
def split_by_limit(costs, n_stages):
    """Right: the least limit with which filling from the left succeeds."""
    sums = sorted({sum(costs[a:b]) for a, b in itertools.combinations(range(len(costs) + 1), 2)})
    low, high = 0, len(sums) - 1
    while low < high:
        middle = (low + high) // 2
        fits = _stages_for(costs, sums[middle]) <= n_stages
        low, high = (low, middle) if fits else (middle + 1, high)
    return _filled(costs, n_stages, sums[low])


def _table(costs, n_stages, worse=max):
    """The cut with the least `worse(slowest so far, this stage)`, from a table."""
    sums = [0, *itertools.accumulate(costs)]
    best = {(0, 0): (0, None)}
    for k in range(1, n_stages + 1):
        for n in range(k, len(costs) + 1):
            options = ((worse(best[k - 1, m][0], sums[n] - sums[m]), m) for m in range(n) if (k - 1, m) in best)
            best[k, n] = min(options)
    counts, n = [], len(costs)
    for k in range(n_stages, 0, -1):
        m = best[k, n][1]
        counts.append(n - m)
        n = m
    return counts[::-1]


@exercise.alternative
def split_by_table(costs, n_stages):
    """Right: dynamic programming."""
    return tuple(_table(costs, n_stages))


@exercise.mistake(
    "every stage gets the same number of layers, whatever they cost",
    hint="The stages wait for the slowest one. Layers differ: an output layer may cost as much as five blocks.",
)
def split_by_count(costs, n_stages):
    each, rest = divmod(len(costs), n_stages)
    return [each + (k < rest) for k in range(n_stages)]


@exercise.mistake(
    "each stage is filled up to the average, and the last one takes what is left",
    hint="What the first stages leave over piles up at the end. The limit has to be one that all can keep.",
)
def split_up_to_average(costs, n_stages):
    return _filled(costs, n_stages, sum(costs) / n_stages)


@exercise.mistake(
    "each stage is filled until it has reached the average, so that the layer that goes beyond it is taken along",
    hint="One layer too much on the first stage can make it the slowest by far.",
)
def split_beyond_average(costs, n_stages):
    counts, at, average = [], 0, sum(costs) / n_stages
    for stage in range(n_stages - 1):
        start, load, to_come = at, 0, n_stages - 1 - stage
        while at < len(costs) - to_come and (at == start or load < average):
            load, at = load + costs[at], at + 1
        counts.append(at - start)
    return [*counts, len(costs) - at]


@exercise.mistake(
    "the cut makes the stages as equal as possible on the whole (least squares), but the slowest one could be faster",
    hint="Nobody waits for the sum of squares. Only the slowest stage counts.",
)
def split_least_squares(costs, n_stages):
    return _table(costs, n_stages, worse=lambda so_far, stage: so_far + stage**2)


@exercise.mistake(
    "the layers are cut at the quantiles of the running sum",
    hint="A boundary that is nearest to k / n of the total cost can still split badly round a large layer.",
)
def split_at_quantiles(costs, n_stages):
    sums = [0, *itertools.accumulate(costs)]
    marks = [0]
    for k in range(1, n_stages):
        free = range(marks[-1] + 1, len(costs) - (n_stages - k) + 1)
        marks.append(min(free, key=lambda m: abs(sums[m] - sums[-1] * k / n_stages)))
    return [b - a for a, b in itertools.pairwise([*marks, len(costs)])]


@exercise.mistake(
    "the first and the last layer are left out of the costs",
    hint="The embedding and the output layer are layers like the others here, with a cost of their own.",
)
def split_without_ends(costs, n_stages):
    return _table([0, *costs[1:-1], 0] if len(costs) > 2 else costs, n_stages)


@exercise.mistake(
    "stages stay without layers",
    hint="Every rank needs at least one layer: it would otherwise only pass messages on.",
)
def split_with_empty_stages(costs, n_stages):
    limit = least_slowest(costs, n_stages)["slowest"]
    counts, load = [0], 0
    for cost in costs:
        if load + cost > limit:
            counts.append(0)
            load = 0
        counts[-1] += 1
        load += cost
    return counts + [0] * (n_stages - len(counts))


@exercise.mistake("costs are cut down to whole seconds", hint="Half a second is a cost, too: keep the fractions.")
def split_whole_seconds(costs, n_stages):
    return _table([int(c) for c in costs], n_stages)


@exercise.mistake("the stages are listed from the last to the first", hint="Stage 0 comes first: turn the list round.")
def split_reversed(costs, n_stages):
    return _table(costs, n_stages)[::-1]


@exercise.mistake("the numbers of layers are floats", hint="A number of layers is an int: // divides ints into ints.")
def split_into_floats(costs, n_stages):
    return [float(n) for n in _table(costs, n_stages)]


@exercise.mistake(
    "the layers of each stage are listed, not counted", hint="Return how many layers each stage takes, not which."
)
def split_lists_layers(costs, n_stages):
    marks = [0, *itertools.accumulate(_table(costs, n_stages))]
    return [list(range(a, b)) for a, b in itertools.pairwise(marks)]


@exercise.mistake(
    "the costs of the stages are given instead of their numbers of layers",
    hint="Return how many layers each stage takes.",
)
def split_gives_costs(costs, n_stages):
    return _loads(costs, _table(costs, n_stages))


@exercise.mistake(
    "the boundaries are given instead of the numbers of layers",
    hint="Return how many layers each stage takes: numbers that add up to len(costs).",
)
def split_gives_boundaries(costs, n_stages):
    return list(itertools.accumulate(_table(costs, n_stages)))
