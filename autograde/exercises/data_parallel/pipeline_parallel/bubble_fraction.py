"""`bubble_fraction(schedule, seconds, load=None, latency=0.0)`

The share of all ranks' time in which they wait, when a schedule is played.
"""

from __future__ import annotations

from types import SimpleNamespace

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.pipeline_parallel.gpipe_schedule import gpipe_by_kind
from autograde.exercises.data_parallel.pipeline_parallel.interleaved_schedule import interleaved_by_rounds
from autograde.exercises.data_parallel.pipeline_parallel.one_f_one_b_schedule import one_f_one_b_by_limit
from autograde.exercises.data_parallel.pipeline_parallel.shared import as_actions, ends
from autograde.exercises.shared import only, pick

exercise = Draft(
    "bubble_fraction",
    points=4,
    rtol=1e-6,
    atol=1e-9,
    no_gradient="a share of time is a plain number",
    hints=[
        "Keep two things: when each rank is free again, and when each action ended. Go round the ranks and run "
        "whatever can run.",
        "An action can run when all that it needs has an end. It starts at the latest of these ends (plus latency, "
        "where the other stage is on another rank) and of its rank's own last end. Nobody moves in a whole round and "
        "something is left: ValueError.",
        "owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}; B and I both count as 'back' of "
        "their stage. At the end 1 - sum of all durations / (len(schedule) * latest end).",
    ],
)


def _zero_bubble(n_ranks, n_micro):
    """torch's ZB1P with one stage a rank: the backward pass in two parts, I for the input and W for the weights."""
    from torch.distributed.pipelining.schedules import ScheduleInterleavedZeroBubble

    planned = SimpleNamespace(
        n_local_stages=1, microbatches_per_round=n_ranks, pp_group_size=n_ranks, _n_microbatches=n_micro
    )
    order = ScheduleInterleavedZeroBubble._calculate_single_rank_operations
    return [as_actions(order(planned, rank)) for rank in range(n_ranks)]


def _some_in_two_parts(p):
    """GPipe, in which every second backward pass is in one piece, and the others in two."""
    return [
        [half for kind, s, i in actions for half in _parts_of(kind, s, i, whole=(s + i) % 2)]
        for actions in gpipe_by_kind(p, 4)
    ]


def _parts_of(kind, s, i, whole):
    return [(kind, s, i)] if kind == "F" or whole else [("I", s, i), ("W", s, i)]


def _uneven(g, n):
    return [pick(g, 3, 12) / 4 for _ in range(n)]


def _merged(schedule):
    """Every rank takes the stages of two, one after the other: a V, so that the middle stages are neighbors."""
    p = len(schedule) // 2
    both = [[schedule[r], schedule[-1 - r]] for r in range(p)]
    return [sorted(a + b, key=lambda one: (one[0] == "B", one[2], one[1] * (1 - 2 * (one[0] == "B")))) for a, b in both]


@exercise.cases
def bubble_cases(g):
    p, m = pick(g, 3, 4), pick(g, 5, 7)
    unit = {"F": 1.0, "B": 2.0}
    drawn = {"F": pick(g, 2, 5) / 2, "B": pick(g, 7, 12) / 2}
    yield case(gpipe_by_kind(2, 2), unit, label="GPipe, two stages, two micro-batches")
    yield case(one_f_one_b_by_limit(p, m), drawn, label="1F1B, other durations")
    yield case(one_f_one_b_by_limit(p, 2), unit, load=_uneven(g, p), label="stages that are not alike")
    yield case(gpipe_by_kind(p, m), drawn, latency=pick(g, 1, 6) / 4, label="messages that take time")
    yield case(interleaved_by_rounds(2, 2, 4), unit, latency=0.25, label="two stages a rank")
    yield case(interleaved_by_rounds(3, 2, 6), drawn, _uneven(g, 6), 0.5, label="all at once")
    yield case(_merged(gpipe_by_kind(4, 3)), unit, latency=0.5, label="neighboring stages on one rank")
    zero = {"F": 1.0, "I": 1.25, "W": pick(g, 2, 6) / 4}
    yield case(_zero_bubble(p, 2 * p), zero, latency=0.125, label="a backward pass in two parts (I and W)")
    yield case(_some_in_two_parts(p), zero | {"B": 2.5}, latency=0.125, label="some backward passes in two parts")
    yield case(gpipe_by_kind(1, 3), unit, label="one rank alone")
    yield case([*gpipe_by_kind(2, 3), []], drawn, label="a rank without work")
    yield case(gpipe_by_kind(p, 2)[::-1], unit, load=_uneven(g, p), label="stages on the ranks in another order")
    stuck = [list(actions) for actions in gpipe_by_kind(2, 2)]
    stuck[0] = [stuck[0][0], stuck[0][2], stuck[0][1], stuck[0][3]]
    stuck[1] = [stuck[1][1], stuck[1][0], stuck[1][2], stuck[1][3]]
    yield case(stuck, unit, label="ranks that wait for each other")
    yield case([gpipe_by_kind(2, 2)[0], gpipe_by_kind(2, 1)[1]], unit, label="a gradient that nobody sends")
    early = [gpipe_by_kind(2, 2)[0], [("B", 1, 0), ("F", 1, 0), ("F", 1, 1), ("B", 1, 1)]]
    yield case(early, unit, label="a backward pass before its forward pass")
    early = [[(kind, r, 0) for kind in kinds] for r, kinds in enumerate(["FWI", "FIW"])]
    yield case(early, zero, label="W before its I")
    for kind in "FB":
        turned = [sorted(actions, key=lambda one: one[0] == "B") for actions in _merged(gpipe_by_kind(4, 1))]
        places = [i for i, one in enumerate(turned[1]) if one[0] == kind]
        turned[1][places[0]], turned[1][places[1]] = turned[1][places[1]], turned[1][places[0]]
        yield case(turned, unit, label=f"{kind} of a rank's own two stages in the wrong order")
    yield case(gpipe_by_kind(8, 40), drawn, _uneven(g, 8), 0.0625, label="many of both")


@exercise.probe
def or_error(bubble_fraction, schedule, seconds, load=None, latency=0.0):
    """The share, or the word "ValueError" where one is raised."""
    given = {} if load is None else {"load": load}
    given |= {"latency": latency} if latency else {}
    try:
        return float(bubble_fraction(schedule, seconds, **given))
    except ValueError:
        return "ValueError"


@exercise.oracle
def longest_path(schedule, seconds, load=None, latency=0.0):
    """networkx: the time is the longest path through all that waits for something."""
    import networkx as nx

    def cost(action):
        return seconds[action[0]] * (1.0 if load is None else load[action[1]])

    flat = [tuple(action) for actions in schedule for action in actions]
    owner = {stage: rank for rank, actions in enumerate(schedule) for _, stage, _ in actions}
    graph, known, last = nx.DiGraph(), set(flat), max(owner)

    def wait(before, after, message=0.0):
        graph.add_edge(before, after, weight=cost(before) + message)

    for actions in schedule:
        for before, after in zip(actions, actions[1:], strict=False):
            wait(tuple(before), tuple(after))
    for kind, s, i in flat:
        needs = [("F", s - 1, i)] if kind == "F" and s else []
        needs += [("I", s, i)] if kind == "W" else [("F", s, i)] if kind != "F" else []
        needs += [("I" if ("I", s + 1, i) in known else "B", s + 1, i)] if kind in ("B", "I") and s < last else []
        if not known.issuperset(needs):
            return "ValueError"
        for need in needs:
            if not graph.has_edge(need, (kind, s, i)) or owner[need[1]] != owner[s]:
                wait(need, (kind, s, i), latency * (owner[need[1]] != owner[s]))
        graph.add_edge((kind, s, i), "end", weight=cost((kind, s, i)))
    try:
        whole = nx.dag_longest_path_length(graph)
    except nx.NetworkXUnfeasible:
        return "ValueError"
    return 1 - sum(map(cost, flat)) / (len(schedule) * whole)


@exercise.law("A schedule that gets stuck, or waits for what nobody does, is a ValueError")
def _stuck_is_an_error(out, one, call):
    return out == "ValueError" if ends(*one.args[:2]) is None else None


@exercise.law("Twice the seconds, the same bubble")
def _unit_free(out, one, call):
    schedule, seconds, *rest = one.args
    load, latency = one.kwargs.get("load", rest[0] if rest else None), one.kwargs.get("latency", (rest + [0, 0])[1])
    if out == "ValueError":
        return None
    other = call(schedule, {kind: 2 * t for kind, t in seconds.items()}, load, 2 * latency)
    return abs(other - out) < 1e-9 or f"{one.label}: {out:.4f} becomes {other:.4f}"


@exercise.law("GPipe's is (p - 1) / (m + p - 1)")
@only("GPipe, two stages, two micro-batches")
def _formula(out, one, call):
    found = call(gpipe_by_kind(4, 6), {"F": 1.0, "B": 2.0})
    return abs(found - 3 / 9) < 1e-9 or f"p = 4, m = 6: {found:.4f} instead of 3 / 9"


def _share(schedule, seconds, load=None, latency=0.0, end=max, over=None, needs=None, hop=None, stuck=None, cost=None):
    """Right as it stands. The others say what a mistake does."""
    load = load or {s: 1.0 for actions in schedule for _, s, _ in actions}
    cost = cost or (lambda kind, s: seconds[kind] * load[s])
    owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}
    hop = hop or (lambda a, b: latency * (owner[a] != owner[b]))
    last, queues, done = max(owner), [list(actions) for actions in schedule], {}
    free, busy, first = [0.0] * len(schedule), 0.0, {}

    def wanted(kind, s, i):
        if kind == "W":
            return [("B", s, i)]
        if kind == "F":
            return [("F", s - 1, i)] if s else []
        return [("F", s, i)] + ([("B", s + 1, i)] if s < last else [])

    needs = needs or wanted
    while any(queues):
        before = sum(map(len, queues))
        for r, queue in enumerate(queues):
            while queue and all(one in done for one in needs(*queue[0])):
                kind, s, i = queue.pop(0)
                start = max([free[r], *(done[one] + hop(one[1], s) for one in needs(kind, s, i))])
                first.setdefault(r, start)
                free[r] = done["B" if kind == "I" else kind, s, i] = start + cost(kind, s)
                busy += cost(kind, s)
        if sum(map(len, queues)) == before:
            if stuck is None:
                raise ValueError("nobody can go on")
            return stuck
    whole = len(schedule) * end(free)
    return over(busy, whole, free, first) if over else 1 - busy / whole


@exercise.alternative
def share_of_queues(schedule, seconds, load=None, latency=0.0):
    """Right: queues that are worked off."""
    return _share(schedule, seconds, load, latency)


@exercise.alternative
def share_by_relaxing(schedule, seconds, load=None, latency=0.0):
    """Right: from the simulation that the other exercises are judged by."""
    done = ends(schedule, seconds, load, latency)
    if done is None:
        raise ValueError("stuck")
    idle = len(schedule) * max(done.values())
    for actions in schedule:
        for kind, stage, _ in actions:
            idle -= seconds[kind] * (load[stage] if load else 1)
    return idle / (len(schedule) * max(done.values()))


@exercise.mistake(
    "the waiting is divided by the working time, not by all of the time: (p - 1) / m",
    hint="Megatron's paper writes it so. Here it is the share of all ranks' time: at most 1.",
)
def share_of_the_work(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, over=lambda busy, whole, free, first: (whole - busy) / busy)


@exercise.mistake(
    "what is returned is the busy share", hint="The bubble is what is missing to 1: the share in which ranks wait."
)
def share_busy(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, over=lambda busy, whole, free, first: busy / whole)


@exercise.mistake(
    "a rank's time ends with its own last action, so that waiting at the end isn't counted",
    hint="All ranks wait until the last one has finished: only then does the optimizer step.",
)
def share_until_own_end(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, over=lambda busy, whole, free, first: 1 - busy / sum(free))


@exercise.mistake(
    "a rank's time begins with its own first action, so that waiting at the start isn't counted",
    hint="The step begins at time 0 for every rank, also for the last one, which has nothing to do yet.",
)
def share_from_own_start(schedule, seconds, load=None, latency=0.0):
    def over(busy, whole, free, first):
        return 1 - busy / (whole - sum(first.values()))

    return _share(schedule, seconds, load, latency, over=over)


@exercise.mistake(
    "every action counts as one second", hint="seconds[kind] says how long an action takes: B may take twice F."
)
def share_in_steps(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, cost=lambda kind, s: 1.0)


@exercise.mistake("the stages' loads have no influence", hint="An action of stage s takes seconds[kind] * load[s].")
def share_without_load(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, None, latency)


@exercise.mistake("messages take no time", hint="What comes from another rank arrives latency seconds later.")
def share_without_latency(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load)


@exercise.mistake(
    "a stage on the same rank is charged a message, too",
    hint="Latency is for what travels from rank to rank. Two stages of one rank share its memory.",
)
def share_latency_everywhere(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, hop=lambda a, b: latency * (a != b))


@exercise.mistake(
    "a message keeps its sender busy",
    hint="Messages travel while the ranks go on: only the receiver's action waits for them.",
)
def share_blocking_sends(schedule, seconds, load=None, latency=0.0):
    owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}
    loads = load or dict.fromkeys(owner, 1.0)

    def cost(kind, s):
        to = s + 1 if kind == "F" else s - 1 if kind in ("B", "I") else s
        return seconds[kind] * loads[s] + latency * (to in owner and owner[to] != owner[s])

    def over(busy, whole, free, first):
        work = sum(seconds[kind] * loads[s] for actions in schedule for kind, s, _ in actions)
        return 1 - work / whole

    return _share(schedule, seconds, load, latency, hop=lambda a, b: 0.0, cost=cost, over=over)


@exercise.mistake(
    "backward passes don't wait for the next stage's gradient",
    hint="B of stage s needs the gradient that B (or I) of stage s + 1 sends.",
)
def share_gradients_at_once(schedule, seconds, load=None, latency=0.0):
    def needs(kind, s, i):
        return [("F", s - 1, i)] if kind == "F" and s else [("F" if kind in "BI" else "B", s, i)] if kind != "F" else []

    return _share(schedule, seconds, load, latency, needs=needs)


@exercise.mistake(
    "what a rank's own stages need of each other isn't waited for",
    hint="A rank may own two stages in a row. In the wrong order the first of its actions would wait for ever.",
)
def share_own_unasked(schedule, seconds, load=None, latency=0.0):
    owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}

    def needs(kind, s, i):
        if kind == "W":
            return [("B", s, i)]
        far = [("F", s - 1, i)] if kind == "F" and s else [("B", s + 1, i)] if kind != "F" and s < max(owner) else []
        return [("F", s, i)] * (kind != "F") + [one for one in far if owner[one[1]] != owner[s]]

    return _share(schedule, seconds, load, latency, needs=needs)


@exercise.mistake(
    "only activations take the latency, gradients come at once",
    hint="Whatever comes from another rank arrives later, gradients as well.",
)
def share_latency_forward(schedule, seconds, load=None, latency=0.0):
    owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}
    return _share(schedule, seconds, load, latency, hop=lambda a, b: latency * (owner[a] != owner[b] and a < b))


@exercise.mistake("a stage's load is looked up by its rank", hint="load[s]: a factor for each stage.")
def share_load_by_rank(schedule, seconds, load=None, latency=0.0):
    owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}
    by_rank = load and {s: load[owner[s]] for s in owner}
    return _share(schedule, seconds, by_rank, latency)


@exercise.mistake(
    "the weights' part of a backward pass isn't counted as work", hint="W keeps its rank busy like F, B and I."
)
def share_w_is_idle(schedule, seconds, load=None, latency=0.0):
    loads = load or {s: 1.0 for actions in schedule for _, s, _ in actions}
    unseen = sum(seconds["W"] * loads[s] for actions in schedule for kind, s, _ in actions if kind == "W")

    def over(busy, whole, free, first):
        return 1 - (busy - unseen) / whole

    return _share(schedule, seconds, load, latency, over=over)


@exercise.mistake(
    "stage s is taken to be on rank s", hint="A rank may own several stages, and in any order: look into the actions."
)
def share_stage_is_rank(schedule, seconds, load=None, latency=0.0):
    p = len(schedule)
    return _share(schedule, seconds, load, latency, hop=lambda a, b: latency * (min(a, p - 1) != min(b, p - 1)))


@exercise.mistake(
    "a rank without work is left out", hint="Every rank counts for all of the time, also one that has nothing to do."
)
def share_without_idle_ranks(schedule, seconds, load=None, latency=0.0):
    return _share([actions for actions in schedule if actions], seconds, load, latency)


@exercise.mistake(
    "as soon as one backward pass is in two parts, all are taken to be",
    hint="Look for each stage and micro-batch by itself: B, or I and W.",
)
def share_all_in_parts(schedule, seconds, load=None, latency=0.0):
    split = any(kind == "I" for actions in schedule for kind, _, _ in actions)
    owner = {s: r for r, actions in enumerate(schedule) for _, s, _ in actions}
    inside = {(s, i) for actions in schedule for kind, s, i in actions if kind == "I"}

    def needs(kind, s, i):
        if kind == "F":
            return [("F", s - 1, i)] if s else []
        if kind == "W":
            return [("B", s, i)]
        after = [("B", s + 1, i)] if s < max(owner) and ((s + 1, i) in inside or not split) else []
        return [("F", s, i), *after]

    return _share(schedule, seconds, load, latency, needs=needs)


@exercise.mistake(
    "a schedule that gets stuck gives a bubble of 1 instead of an error",
    hint="If in a whole round nobody could go on and actions are left: raise ValueError.",
)
def share_stuck_is_one(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, stuck=1.0)


@exercise.mistake(
    "a schedule that gets stuck gives 0 instead of an error",
    hint="If in a whole round nobody could go on and actions are left: raise ValueError.",
)
def share_stuck_is_zero(schedule, seconds, load=None, latency=0.0):
    return _share(schedule, seconds, load, latency, stuck=0.0)
