"""`balance_work(costs, ranks)`: Deal pieces of work out so that no rank has much more than the others."""

from __future__ import annotations

import heapq

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "balance_work",
    points=2,
    no_gradient="numbers of pieces are whole numbers",
    hints=[
        "Stones and sand: what do you put into the buckets first?",
        "Pieces from the dearest to the cheapest; each goes to the rank that has the least so far.",
        "order = sorted(range(len(costs)), key=lambda i: (-costs[i], i)); loads = [0] * ranks; for each piece: "
        "r = loads.index(min(loads)).",
    ],
)


@exercise.cases
def work_cases(g):
    def some(n, ranks, label, low=1, high=99, twins=False):
        costs = [pick(g, low, high) for _ in range(n)]
        if twins:
            costs[n // 2] = costs[0] = max(costs) + 2
            costs[-1] = costs[1] = max(costs) + 3
        return case(costs, ranks, label=label)

    yield some(pick(g, 8, 10), 3, "three ranks")
    yield some(12, 4, "equal costs among them", twins=True)
    yield some(6, 2, "all costs equal", low=5, high=5)
    yield case([7, 1, 5, 3, 30, 2, 9, 4], 3, label="one piece dearer than all others together")
    yield case([3, 3, 2, 2, 2], 2, label="greedy isn't perfect here: 7 and 5")
    yield some(3, 5, "fewer pieces than ranks")
    yield some(pick(g, 90, 120), 7, "many pieces")
    yield some(5, 1, "one rank")
    yield case([], 2, label="no work at all")
    unit = pick(g, 1, 9)
    yield case([unit * c for c in (8, 6, 4, 1, 1, 1)], 2, label="equally full ranks with 3 pieces and 2")
    yield case([2.9, 2.1, 2.8, 1.2, 1.7], 2, label="costs with a fraction")


@exercise.oracle
def by_heap(costs, ranks):
    """Graham's rule, with the standard library's heap: the least loaded rank is on top."""
    loads, dealt = [(0, r) for r in range(ranks)], [[] for _ in range(ranks)]
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):  # Python's sort keeps the order of equals
        load, r = heapq.heappop(loads)
        dealt[r].append(i)
        heapq.heappush(loads, (load + costs[i], r))
    return dealt


@exercise.law("Every piece is dealt out exactly once")
def _each_once(out, one, call):
    return sorted(i for mine in out for i in mine) == list(range(len(one.args[0])))


@exercise.law("The fullest rank has at most 4/3 - 1/(3 n) of the least that is possible")
def _near_the_best(out, one, call):
    costs, n = one.args
    if not costs:
        return None
    most = max(sum(costs[i] for i in mine) for mine in out)
    pair = sorted(costs)[-n - 1] + sorted(costs)[-n] if len(costs) > n else 0  # two of the n + 1 dearest share a rank
    least = max(sum(costs) / n, max(costs), pair)
    room = (4 / 3 - 1 / (3 * n)) * _best(costs, n, least)
    return most <= room + 1e-9 or f"{one.label}: the fullest rank has {most:g}, and {room:g} should be enough"


def _best(costs, n, least):
    """The least possible load of the fullest rank, where trying all is cheap; else more than that, so that it holds."""
    if n ** len(costs) > 3000:
        return max(least, sum(costs) / n + max(costs) * (1 - 1 / n))
    loads = {(0,) * n}
    for cost in costs:
        loads = {tuple(sorted((*load[:r], load[r] + cost, *load[r + 1 :]))) for load in loads for r in range(n)}
    return min(max(load) for load in loads)


def _deal(costs, ranks, order=None, choose=None, weight=None):
    """Right as it stands; a mistake replaces a part."""
    loads, dealt = [0] * ranks, [[] for _ in range(ranks)]
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)) if order is None else order(costs):
        r = min(range(ranks), key=lambda r: (loads[r], r)) if choose is None else choose(loads, dealt)
        loads[r] += costs[i] if weight is None else weight(costs[i])
        dealt[r].append(i)
    return dealt


@exercise.alternative
def balance_by_minimum(costs, ranks):
    """Right: the least loaded rank, looked for each time."""
    return _deal(costs, ranks)


@exercise.alternative
def balance_by_taking(costs, ranks):
    """Right: the dearest piece that is left, taken out of a list."""
    left, dealt, loads = list(range(len(costs))), [[] for _ in range(ranks)], [0] * ranks
    while left:
        i = max(left, key=lambda i: costs[i])
        left.remove(i)
        r = loads.index(min(loads))
        dealt[r].append(i)
        loads[r] += costs[i]
    return tuple(dealt)


@exercise.mistake(
    "pieces are dealt out in the order in which they come",
    hint="A dear piece that comes late finds all ranks full already: the dearest first.",
)
def balance_unsorted(costs, ranks):
    return _deal(costs, ranks, order=lambda costs: range(len(costs)))


@exercise.mistake("the cheapest pieces are dealt out first", hint="Stones first, then sand: from dear to cheap.")
def balance_ascending(costs, ranks):
    return _deal(costs, ranks, order=lambda costs: sorted(range(len(costs)), key=lambda i: (costs[i], i)))


@exercise.mistake(
    "every rank gets equally many pieces, in turn, whatever they cost",
    hint="Equally many isn't equally much: look at the loads.",
)
def balance_in_turns(costs, ranks):
    return _deal(costs, ranks, choose=lambda loads, dealt: sum(map(len, dealt)) % ranks)


@exercise.mistake(
    "pieces are dealt out in turn in the order in which they come", hint="Look at what they cost: the dearest first."
)
def balance_round_robin(costs, ranks):
    return [list(range(len(costs)))[r::ranks] for r in range(ranks)]


@exercise.mistake(
    "the order turns round at each end, as in a snake draft",
    hint="A good rule of thumb, but the next piece goes to the rank that really has the least.",
)
def balance_snake(costs, ranks):
    turn = [*range(ranks), *reversed(range(ranks))]
    return _deal(costs, ranks, choose=lambda loads, dealt: turn[sum(map(len, dealt)) % (2 * ranks)])


@exercise.mistake(
    "the rank with the fewest pieces is taken, not the one with the least work", hint="Add up costs, not pieces."
)
def balance_by_count(costs, ranks):
    return _deal(
        costs, ranks, choose=lambda loads, dealt: min(range(ranks), key=lambda r: (len(dealt[r]), loads[r], r))
    )


@exercise.mistake("the fullest rank gets the next piece", hint="The next piece goes where the least is.")
def balance_to_the_fullest(costs, ranks):
    return _deal(costs, ranks, choose=lambda loads, dealt: max(range(ranks), key=lambda r: loads[r]))


@exercise.mistake(
    "between equally loaded ranks the last one is taken", hint="Where several have the least: the lowest number."
)
def balance_last_of_equals(costs, ranks):
    return _deal(costs, ranks, choose=lambda loads, dealt: min(range(ranks), key=lambda r: (loads[r], -r)))


@exercise.mistake(
    "between equally loaded ranks the one with fewer pieces is taken",
    hint="Where several have the least: the lowest number, however many pieces it has.",
)
def balance_fewest_of_equals(costs, ranks):
    return _deal(
        costs, ranks, choose=lambda loads, dealt: min(range(ranks), key=lambda r: (loads[r], len(dealt[r]), r))
    )


@exercise.mistake(
    "between equally dear pieces the later one comes first", hint="Equal costs keep their order: the earlier one first."
)
def balance_later_first(costs, ranks):
    return _deal(costs, ranks, order=lambda costs: sorted(range(len(costs)), key=lambda i: (-costs[i], -i)))


@exercise.mistake("fractions of costs are cut off", hint="Costs may be any positive numbers: no int().")
def balance_whole_numbers(costs, ranks):
    return balance_by_minimum([int(cost) for cost in costs], ranks)


@exercise.mistake("a rank's pieces come sorted by number", hint="In the order in which it got them: dearest first.")
def balance_sorted_at_the_end(costs, ranks):
    return [sorted(mine) for mine in _deal(costs, ranks)]


@exercise.mistake("all ranks share one list", hint="[[]] * ranks is one list, many times. [[] for _ in range(ranks)].")
def balance_one_list(costs, ranks):
    return [sorted(range(len(costs)), key=lambda i: -costs[i])] * ranks


@exercise.mistake(
    "among equal costs the first piece is taken again and again",
    hint="costs.index finds the first of several: sort the pieces' numbers by their costs.",
)
def balance_by_value(costs, ranks):
    return [[costs.index(costs[i]) for i in mine] for mine in _deal(costs, ranks)]


@exercise.mistake("ranks without work are left out", hint="One list for each rank, also an empty one.")
def balance_without_idle(costs, ranks):
    return [mine for mine in _deal(costs, ranks) if mine]


@exercise.mistake("each rank gets one block of neighbors", hint="Look at what they cost: the dearest first.")
def balance_in_blocks(costs, ranks):
    each = -(-len(costs) // ranks)
    return [list(range(len(costs)))[r * each : (r + 1) * each] for r in range(ranks)]


@exercise.mistake("the costs come back instead of the pieces' numbers", hint="Say which pieces: their indices.")
def balance_gives_costs(costs, ranks):
    return [[costs[i] for i in mine] for mine in _deal(costs, ranks)]
