"""`gpipe_schedule(n_stages, n_micro)`: GPipe: every rank runs all forward passes, then all backward passes."""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.pipeline_parallel.shared import bubble, each_once, torch_order
from autograde.exercises.shared import pick

exercise = Draft(
    "gpipe_schedule",
    points=2,
    no_gradient="a schedule is a table of names",
    hints=[
        "What rank 2 does is what rank 1 does, only later; a schedule says the order, and the waiting comes by itself.",
        "Rank r owns stage r. First F of micro-batches 0 … n_micro - 1, then B of the same, in the same order.",
        "[[(kind, r, i) for kind in 'FB' for i in range(n_micro)] for r in range(n_stages)]",
    ],
)


@exercise.cases
def gpipe_cases(g):
    yield case(3, 4, label="three stages, four micro-batches")
    yield case(4, 1, label="one micro-batch: the naive schedule")
    yield case(pick(g, 3, 5), 2, label="fewer micro-batches than stages")
    yield case(1, pick(g, 2, 4), label="one stage")
    yield case(2, pick(g, 6, 9), label="two stages")
    yield case(pick(g, 6, 8), pick(g, 20, 33), label="many of both")


@exercise.oracle
def torch_gpipe(n_stages, n_micro):
    return [torch_order("ScheduleGPipe", n_stages, rank, n_micro) for rank in range(n_stages)]


@exercise.law("Every rank runs each micro-batch forward and back once")
def _each_once(out, one, call):
    return each_once(out, lambda rank: [rank], one.args[1]) if len(out) == one.args[0] else f"{len(out)} ranks"


@exercise.law("The bubble is (p - 1) / (m + p - 1), p stages, m micro-batches", essential=True)
def _bubble(out, one, call):
    p, m = one.args
    found = bubble(out)
    if found is None:
        return "the ranks wait for one another for ever"
    return abs(found - (p - 1) / (m + p - 1)) < 1e-9 or f"p = {p}, m = {m}: the bubble is {found:.3f}"


def table(n_stages, n_micro, order):
    """The schedule in which rank r does `order(r)`, a list of (kind, micro-batch)."""
    return [[(kind, r, i) for kind, i in order(r)] for r in range(n_stages)]


def _all(kind, n_micro):
    return [(kind, i) for i in range(n_micro)]


@exercise.alternative
def gpipe_by_kind(n_stages, n_micro):
    """Right: lists and strings put together in another way."""
    return tuple(table(n_stages, n_micro, lambda r: _all("F", n_micro) + _all("B", n_micro)))


@exercise.mistake(
    "each micro-batch goes forward and back before the next one starts, so that only one rank works at a time",
    hint="Valid, and naive: the ranks should already be busy with micro-batch 1 while 0 is further down.",
)
def gpipe_one_by_one(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: [(kind, i) for i in range(n_micro) for kind in "FB"])


@exercise.mistake(
    "the backward passes run in reverse order",
    hint="As good as the other order, but not the one that is asked for: 0 … n_micro - 1.",
)
def gpipe_backward_reversed(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _all("F", n_micro) + _all("B", n_micro)[::-1])


@exercise.mistake("the backward passes are missing", hint="F for every micro-batch, and then B for every micro-batch.")
def gpipe_forward_only(n_stages, n_micro):
    return table(n_stages, n_micro, lambda r: _all("F", n_micro))


@exercise.mistake(
    "there is one micro-batch a stage, whatever n_micro says",
    hint="The two numbers have nothing to do with each other.",
)
def gpipe_square(n_stages, n_micro):
    return table(n_stages, n_stages, lambda r: _all("F", n_stages) + _all("B", n_stages))


@exercise.mistake(
    "the ranks are listed from the last to the first", hint="Entry r of the list is what rank r does, on stage r."
)
def gpipe_ranks_reversed(n_stages, n_micro):
    return gpipe_by_kind(n_stages, n_micro)[::-1]


@exercise.mistake(
    "stage and micro-batch are swapped in the actions", hint="An action is (kind, stage, micro-batch), in this order."
)
def gpipe_swapped(n_stages, n_micro):
    return [[(kind, i, r) for kind, r, i in actions] for actions in gpipe_by_kind(n_stages, n_micro)]


@exercise.mistake(
    "rank r starts with micro-batch r, as in a ring",
    hint="Every stage needs the micro-batches in the order in which the one before it sends them.",
)
def gpipe_rotated(n_stages, n_micro):
    def order(r):
        return [(kind, (i + r) % n_micro) for kind in "FB" for i in range(n_micro)]

    return table(n_stages, n_micro, order)
