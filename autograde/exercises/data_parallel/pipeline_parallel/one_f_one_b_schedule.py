"""`one_f_one_b_schedule(n_stages, n_micro)`: 1F1B: after a warm-up each rank goes back and forward by turns."""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.pipeline_parallel.gpipe_schedule import table
from autograde.exercises.data_parallel.pipeline_parallel.shared import bubble, each_once, most_held, torch_order
from autograde.exercises.shared import pick

exercise = Draft(
    "one_f_one_b_schedule",
    points=4,
    no_gradient="a schedule is a table of names",
    hints=[
        "When the first gradient comes back to rank r, how many micro-batches has it sent forward?",
        "Three phases: warm-up (min(n_stages - r, n_micro) forward passes), steady state (one back, one forward, until "
        "no forward pass is left), cool-down (the rest of the backward passes).",
        "warm = min(n_stages - r, n_micro); actions = F 0 … warm - 1; for i in range(n_micro): append B i, and if "
        "warm + i < n_micro append F warm + i.",
    ],
)


@exercise.cases
def one_f_one_b_cases(g):
    yield case(3, 5, label="three stages, five micro-batches")
    yield case(4, 4, label="as many micro-batches as stages")
    yield case(pick(g, 4, 6), pick(g, 2, 3), label="fewer micro-batches than stages")
    yield case(4, 1, label="one micro-batch")
    yield case(1, pick(g, 2, 4), label="one stage")
    yield case(2, pick(g, 6, 9), label="two stages")
    yield case(pick(g, 6, 8), pick(g, 20, 33), label="many of both")


@exercise.oracle
def torch_1f1b(n_stages, n_micro):
    return [torch_order("Schedule1F1B", n_stages, rank, n_micro) for rank in range(n_stages)]


@exercise.law("Every rank runs each micro-batch forward and back once")
def _each_once(out, one, call):
    return each_once(out, lambda rank: [rank], one.args[1]) if len(out) == one.args[0] else f"{len(out)} ranks"


@exercise.law("Rank r never holds more than p - r micro-batches", essential=True)
def _held(out, one, call):
    p, m = one.args
    for rank, actions in enumerate(out):
        if (most := most_held(actions)) != min(p - rank, m):
            return f"p = {p}, m = {m}: rank {rank} holds up to {most} micro-batches instead of {min(p - rank, m)}"
    return True


@exercise.law("The bubble is (p - 1) / (m + p - 1), as GPipe's", essential=True)
def _bubble(out, one, call):
    p, m = one.args
    found = bubble(out)
    if found is None:
        return "the ranks wait for one another for ever"
    return abs(found - (p - 1) / (m + p - 1)) < 1e-9 or f"p = {p}, m = {m}: the bubble is {found:.3f}"


def _rank(m, warm, drain=True):
    """A rank's order: `warm` forward passes, then one of each in turn, then the rest."""
    warm = min(warm, m)
    order = [("F", i) for i in range(warm)]
    for i in range(m):
        pair = [("B", i)] + ([("F", warm + i)] if warm + i < m else [])
        if len(pair) == 2 or drain:
            order += pair
    return order


@exercise.alternative
def one_f_one_b_by_limit(n_stages, n_micro):
    """Right: go forward while there is room, else back."""

    def order(r):
        forward, back, said = 0, 0, []
        while back < n_micro:
            if forward < n_micro and forward - back < n_stages - r:
                said.append(("F", forward))
                forward += 1
            else:
                said.append(("B", back))
                back += 1
        return said

    return table(n_stages, n_micro, order)


@exercise.alternative
def one_f_one_b_forward_first(n_stages, n_micro):
    """Right: one warm-up pass less, and the steady state begins with F, as Megatron has it."""

    def order(r):
        warm = min(n_stages - 1 - r, n_micro)
        steady = [(kind, warm + i if kind == "F" else i) for i in range(n_micro - warm) for kind in "FB"]
        return [("F", i) for i in range(warm)] + steady + [("B", i) for i in range(n_micro - warm, n_micro)]

    return table(n_stages, n_micro, order)


@exercise.mistake(
    "all forward passes run before the first backward pass: GPipe, which holds all micro-batches",
    hint="Valid, with the same bubble; but rank r should not hold more than n_stages - r micro-batches.",
)
def one_f_one_b_gpipe(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, n_micro))


@exercise.mistake(
    "there is one warm-up pass too few, so that every rank waits for its gradients",
    hint="When rank r begins its first backward pass, n_stages - r micro-batches are under way below it.",
)
def one_f_one_b_cold(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, max(n_stages - r - 1, 1)))


@exercise.mistake(
    "there is one warm-up pass too many: rank r holds n_stages - r + 1 micro-batches",
    hint="The last rank has its loss at once: how many forward passes does it need before the first backward pass?",
)
def one_f_one_b_warm(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, n_stages - r + 1))


@exercise.mistake(
    "all ranks warm up with n_stages forward passes",
    hint="The nearer to the last stage, the sooner the first gradient comes back: the warm-up depends on the rank.",
)
def one_f_one_b_same_everywhere(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, n_stages))


@exercise.mistake(
    "the warm-up grows with the rank: r + 1 forward passes on rank r",
    hint="It is the other way round: the first rank waits longest for a gradient, so it has most under way.",
)
def one_f_one_b_upside_down(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, r + 1))


@exercise.mistake(
    "each rank goes forward and back by turns from the start",
    hint="Without a warm-up only one micro-batch is under way at a time: where is the pipeline?",
)
def one_f_one_b_naive(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, 1))


@exercise.mistake(
    "the cool-down is missing: the last backward passes never run",
    hint="After the last forward pass as many backward passes are left as the warm-up had forward passes.",
)
def one_f_one_b_without_cool_down(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(n_micro, n_stages - r, drain=False))


@exercise.mistake(
    "the newest micro-batch goes back first",
    hint="The last rank finishes micro-batch 0 first, so its gradient comes back first.",
)
def one_f_one_b_newest_first(n_stages, n_micro):
    def order(r):
        held, said = [], []
        for kind, i in _rank(n_micro, n_stages - r):
            held += [i] if kind == "F" else []
            said.append((kind, i if kind == "F" else held.pop()))
        return said

    return table(n_stages, n_micro, order)


@exercise.mistake(
    "with fewer micro-batches than stages the warm-up runs micro-batches that don't exist",
    hint="A rank can't warm up with more micro-batches than there are.",
)
def one_f_one_b_beyond_the_last(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _rank(max(n_micro, n_stages - r), n_stages - r))
