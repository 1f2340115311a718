"""What exercises of the chapter pipeline_parallel share: schedules as tables, played, and as torch has them.

A schedule is a list of each rank's actions in order. An action is (kind, stage, micro-batch).
"""

from __future__ import annotations

from types import SimpleNamespace


def ends(schedule, seconds, load=None, latency=0.0):
    """When each action ends, by action, in a plain simulation; None where the ranks wait for ever.

    A backward pass ends as ("B", stage, micro-batch), whether its weights' part is split off or not.
    """
    owner = {stage: rank for rank, actions in enumerate(schedule) for _, stage, _ in actions}
    last, free, at, done = max(owner, default=0), [0.0] * len(schedule), [0] * len(schedule), {}

    def moves(rank):
        kind, stage, i = schedule[rank][at[rank]]
        back = kind in ("B", "I")
        needs = [("F", stage - 1, i)] if kind == "F" and stage else []
        needs += [("B" if kind == "W" else "F", stage, i)] if kind != "F" else []
        needs += [("B", stage + 1, i)] if back and stage < last else []
        if not all(one in done for one in needs):
            return False
        ready = [done[one] + latency * (owner[one[1]] != rank) for one in needs]
        cost = seconds[kind] * (1.0 if load is None else load[stage])
        free[rank] = done["B" if back else kind, stage, i] = max([free[rank], *ready]) + cost
        at[rank] += 1
        return True

    ranks = range(len(schedule))
    while any(at[r] < len(schedule[r]) and moves(r) for r in ranks):
        pass
    return done if at == [len(actions) for actions in schedule] else None


def bubble(schedule, seconds=None):
    """The share of all ranks' time in which they wait; None where they wait for ever."""
    seconds = seconds or {"F": 1.0, "B": 2.0}
    done = ends(schedule, seconds)
    if done is None:
        return None
    busy = sum(seconds[kind] for actions in schedule for kind, _, _ in actions)
    return 1 - busy / (len(schedule) * max(done.values()))


def most_held(actions):
    """How many (stage, micro-batch) pairs have gone forward and not yet back, at most."""
    held = [sum(1 if kind == "F" else -1 for kind, _, _ in actions[: n + 1]) for n in range(len(actions))]
    return max(held, default=0)


def as_actions(listed):
    """torch's actions as plain tuples, without the pauses that it lists."""
    return [(one.computation_type.value, one.stage_index, one.microbatch_index) for one in listed if one]


def torch_order(schedule, n_stages, rank, n_micro):
    """What a schedule of torch that has one stage a rank really does on a rank: it runs, on a stage that only listens.

    (The table that Schedule1F1B gives for pictures is another one: on the last rank it begins with micro-batch 1.)
    """
    from torch.distributed.pipelining import schedules

    told = []
    stage = SimpleNamespace(
        stage_index=rank,
        forward_one_chunk=lambda i, *_, **__: told.append(("F", rank, i)),
        backward_one_chunk=lambda i, **_: told.append(("B", rank, i)),
        perform_reduce_grad=lambda _: None,
        **{f"get_{way}_{what}_ops": lambda i: [] for way in ("fwd", "bwd") for what in ("recv", "send")},
    )
    runs = SimpleNamespace(
        _stage=stage,
        _num_stages=n_stages,
        _n_microbatches=n_micro,
        _check_inputs=lambda *_: ([()] * n_micro, [{}] * n_micro),
        scale_grads=True,
        **dict.fromkeys(
            ("_initialize_stage", "_maybe_compute_loss", "_maybe_get_loss", "_update_losses"), lambda *_: 0
        ),
    )
    getattr(schedules, schedule)._step_microbatches(runs)
    return told


def each_once(schedule, stages, n_micro):
    """True where rank r has one F and one B of every micro-batch for each of its `stages(r)`, else what is wrong."""
    for rank, actions in enumerate(schedule):
        need = sorted((kind, s, i) for kind in "FB" for s in stages(rank) for i in range(n_micro))
        if sorted(map(tuple, actions)) != need:
            missing, extra = set(need) - set(map(tuple, actions)), set(map(tuple, actions)) - set(need)
            some = min(missing, default=None) or min(extra, default="an action twice")
            return f"rank {rank} {'lacks' if missing else 'has, in excess,'} {some}"
    return True
