"""`interleaved_schedule(n_ranks, n_chunks, n_micro)`: Interleaved 1F1B: every rank owns several stages."""

from __future__ import annotations

import functools
from types import SimpleNamespace

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.pipeline_parallel.shared import as_actions, bubble, each_once, most_held
from autograde.exercises.shared import pick

exercise = Draft(
    "interleaved_schedule",
    points=4,
    no_gradient="a schedule is a table of names",
    hints=[
        "Number a rank's forward passes k = 0, 1, … Which chunk and which micro-batch is number k? The first n_ranks "
        "passes are chunk 0, the next n_ranks chunk 1 …",
        "With p = n_ranks: pass k has chunk (k // p) % n_chunks and micro-batch k // (p * n_chunks) * p + k % p. "
        "Number the backward passes alike, with the chunks from the last to the first. Then warm up, alternate, drain.",
        "warm = min((n_chunks - 1) * p + 2 * (p - 1 - r), n_chunks * n_micro); F 0 … warm - 1; then for j = 0, 1, …: F "
        "warm + j (while there is one), B j. The stage of chunk c is c * p + r.",
    ],
)


@exercise.cases
def interleaved_cases(g):
    yield case(2, 2, 4, label="two ranks, two chunks, four micro-batches")
    yield case(2, 3, 4, label="three chunks")
    yield case(4, 2, 4, label="as many micro-batches as ranks: warm-up is cut on rank 0")
    yield case(3, 2, 3 * pick(g, 2, 4), label="three ranks")
    yield case(pick(g, 2, 4), 1, 12, label="one chunk")
    yield case(1, 3, pick(g, 2, 4), label="one rank")
    yield case(4, pick(g, 2, 4), 4 * pick(g, 3, 6), label="many of all")


@exercise.oracle
def torch_interleaved(n_ranks, n_chunks, n_micro):
    from torch.distributed.pipelining import ScheduleInterleaved1F1B

    planned = SimpleNamespace(
        n_local_stages=n_chunks, microbatches_per_round=n_ranks, pp_group_size=n_ranks, _n_microbatches=n_micro
    )
    order = ScheduleInterleaved1F1B._calculate_single_rank_operations
    return [as_actions(order(planned, rank)) for rank in range(n_ranks)]


def _warm_up(p, v, m, rank):
    return min((v - 1) * p + 2 * (p - 1 - rank), v * m)


@exercise.law("Rank r owns the stages r, r + p, r + 2 p …, and runs each micro-batch on them forward and back once")
def _each_once(out, one, call):
    p, v, m = one.args
    return each_once(out, lambda rank: range(rank, v * p, p), m) if len(out) == p else f"{len(out)} ranks"


@exercise.law("The bubble is (p - 1) / (v m + p - 1), p ranks, v chunks, m micro-batches", essential=True)
def _bubble(out, one, call):
    p, v, m = one.args
    found = bubble(out)
    if found is None:
        return "the ranks wait for one another for ever"
    return abs(found - (p - 1) / (v * m + p - 1)) < 1e-9 or f"p = {p}, v = {v}, m = {m}: the bubble is {found:.3f}"


@exercise.law("A rank never holds more pairs of chunk and micro-batch than its warm-up and one")
def _held(out, one, call):
    p, v, m = one.args
    most = [most_held(actions) for actions in out]
    need = [min(_warm_up(p, v, m, rank) + 1, v * m) for rank in range(p)]
    return most == need or f"p = {p}, v = {v}, m = {m}: the ranks hold up to {most}, and {need} is enough"


def _table(p, v, m, warm=None, chunk=None, micro=None, back=None, stage=None, drain=True, turn=1):
    """Right as it stands. The others say what a mistake does: `warm(r)`, which chunk or micro-batch pass k has, …"""
    warm = warm or functools.partial(_warm_up, p, v, m)
    chunk = chunk or (lambda k: k // p % v)
    micro = micro or (lambda k: k // (p * v) * p + k % p)
    back = back or (lambda k: v - 1 - chunk(k))
    stage = stage or (lambda c, r: c * p + r)

    def actions(r):
        forward = [("F", stage(chunk(k), r), micro(k)) for k in range(v * m)]
        backward = [("B", stage(back(k), r), micro(k)) for k in range(v * m)]
        ahead = min(warm(r), v * m)
        steady = [one for pair in zip(forward[ahead:], backward, strict=False) for one in pair[::turn]]
        return forward[:ahead] + steady + (backward[v * m - ahead :] if drain else [])

    return [actions(r) for r in range(p)]


@exercise.alternative
def interleaved_by_numbers(n_ranks, n_chunks, n_micro):
    """Right: from the numbers of the passes."""
    return _table(n_ranks, n_chunks, n_micro)


@exercise.alternative
def interleaved_by_rounds(n_ranks, n_chunks, n_micro):
    """Right: rounds of n_ranks micro-batches, chunk by chunk, as nested loops."""
    rounds = [range(start, start + n_ranks) for start in range(0, n_micro, n_ranks)]
    chunks = range(n_chunks)
    forward = [(c, i) for some in rounds for c in chunks for i in some]
    backward = [(c, i) for some in rounds for c in chunks[::-1] for i in some]
    schedule = []
    for r in range(n_ranks):
        ahead = _warm_up(n_ranks, n_chunks, n_micro, r)
        order = [("F", *one) for one in forward[:ahead]]
        for k, one in enumerate(backward):
            order += [("F", *forward[ahead + k])] if ahead + k < len(forward) else []
            order.append(("B", *one))
        schedule.append([(kind, c * n_ranks + r, i) for kind, c, i in order])
    return schedule


@exercise.mistake(
    "a rank's stages are neighbors (rank r has r v … r v + v - 1), so that nothing is interleaved",
    hint="Then a micro-batch stays on the rank for all its chunks. Chunk c of rank r is stage c * n_ranks + r.",
)
def interleaved_neighbors(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, stage=lambda c, r: r * n_chunks + c)


@exercise.mistake(
    "the warm-up is that of plain 1F1B, n_ranks - 1 - r passes",
    hint="A micro-batch comes by n_chunks times before its first gradient: count the passes until then.",
)
def interleaved_cold(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, warm=lambda r: n_ranks - 1 - r)


@exercise.mistake(
    "the warm-up lacks the factor 2: (v - 1) p + (p - 1 - r) passes",
    hint="From rank r down to the last stage and back it is p - 1 - r hops each way.",
)
def interleaved_half_warm(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, warm=lambda r: (n_chunks - 1) * n_ranks + n_ranks - 1 - r)


@exercise.mistake(
    "the warm-up counts n_micro passes for each earlier chunk, not n_ranks: more is held than needed",
    hint="Micro-batches go in rounds of n_ranks: after one round on chunk 0 the next pass is on chunk 1.",
)
def interleaved_hot(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, warm=lambda r: (n_chunks - 1) * n_micro + 2 * (n_ranks - 1 - r))


@exercise.mistake(
    "there is one warm-up pass too many",
    hint="In the steady state a forward pass comes first, then a backward pass: the warm-up ends before that one.",
)
def interleaved_warm(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, warm=lambda r: _warm_up(n_ranks, n_chunks, n_micro, r) + 1)


@exercise.mistake(
    "after the warm-up a backward pass comes first, then a forward pass",
    hint="By turns, the forward pass first: the warm-up has left room for one more micro-batch.",
)
def interleaved_backward_first(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, turn=-1)


@exercise.mistake(
    "the warm-up has 2 r passes where it should have 2 (p - 1 - r): it grows with the rank",
    hint="The first rank waits longest for its first gradient, so it warms up longest.",
)
def interleaved_upside_down(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, warm=lambda r: (n_chunks - 1) * n_ranks + 2 * r)


@exercise.mistake(
    "all micro-batches pass chunk 0 before the first one passes chunk 1 (breadth first)",
    hint="Then the first gradient comes late, and nearly everything is held. Rounds of n_ranks micro-batches.",
)
def interleaved_breadth_first(n_ranks, n_chunks, n_micro):
    m = n_micro
    return _table(
        n_ranks, n_chunks, m, chunk=lambda k: k // m, micro=lambda k: k % m,
        warm=lambda r: (n_chunks - 1) * m + 2 * (n_ranks - 1 - r),
    )  # fmt: skip


@exercise.mistake(
    "all forward passes run before the first backward pass",
    hint="GPipe with chunks: the bubble is as small, but everything is held.",
)
def interleaved_all_forward(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, warm=lambda r: n_chunks * n_micro)


@exercise.mistake(
    "the backward passes take the chunks in the order of the forward passes",
    hint="Gradients come from the last stage: a rank's last chunk goes back first.",
)
def interleaved_backward_from_first_chunk(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, back=lambda k: k // n_ranks % n_chunks)


@exercise.mistake(
    "a micro-batch passes all chunks before the next one starts (rounds of one micro-batch)",
    hint="Its next chunk needs the other ranks first: meanwhile this rank should run other micro-batches.",
)
def interleaved_depth_first(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, chunk=lambda k: k % n_chunks, micro=lambda k: k // n_chunks)


@exercise.mistake("the actions name the chunk instead of the stage", hint="Chunk c of rank r is stage c * n_ranks + r.")
def interleaved_names_chunks(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, stage=lambda c, r: c)


@exercise.mistake(
    "the cool-down is missing: the last backward passes never run",
    hint="As many backward passes are left at the end as the warm-up had forward passes.",
)
def interleaved_without_cool_down(n_ranks, n_chunks, n_micro):
    return _table(n_ranks, n_chunks, n_micro, drain=False)
