"""`diloco_step(params, start, velocity, lr=0.7, momentum=0.9)`: The outer step of DiLoCo, after many steps alone."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.communication.shared import gathered, mean_over_ranks, other_calls
from autograde.exercises.data_parallel.shared import agree_by_entry, bytes_of
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "diloco_step",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    fresh=True,
    forbid=["torch.optim"],
    hints=[
        "How far has each replica come, from the start that all had in common? The mean of that is one large gradient.",
        "gradient = start - mean over ranks of params (a step subtracts it); then Nesterov's step.",
        "velocity = momentum * velocity + gradient; new = start - lr * (gradient + momentum * velocity), with the new "
        "velocity. One all_reduce a tensor, on a copy.",
    ],
)


@exercise.cases
def outer_cases(g):
    def some(world, label, still=False, **options):
        shapes = [(pick(g, 2, 4), 3), (pick(g, 4, 6),), (1, 2), ()]
        start = [randn(g, *shape) for shape in shapes]
        params = [s + 0.3 * randn(g, world, *s.shape) - 0.2 for s in start]
        velocity = [torch.zeros_like(s) if still else 0.3 * randn(g, *s.shape) for s in start]
        return case(params, start, velocity, ranks=world, label=label, **options)

    yield some(2, "two ranks, at rest", still=True)
    yield some(3, "three ranks, on the way")
    yield some(2, "another rate and momentum", lr=0.25, momentum=0.5)
    yield some(4, "four ranks, by place", lr=1.3)
    yield some(2, "no momentum, rate 1: plain averaging", lr=1.0, momentum=0.0)


@exercise.oracle
def torch_sgd(params, start, velocity, lr=0.7, momentum=0.9):
    """torch's own SGD, with the mean difference as its gradient."""
    ours = [torch.nn.Parameter(s.clone()) for s in start]
    optimizer = torch.optim.SGD(ours, lr=lr, momentum=momentum, nesterov=momentum > 0)
    for p, replicas, v in zip(ours, params, velocity, strict=True):
        p.grad = p.detach() - replicas.mean(0)
        if momentum:
            optimizer.state[p]["momentum_buffer"] = v.clone()
    gradients = [p.grad.clone() for p in ours]
    optimizer.step()
    after = [optimizer.state[p]["momentum_buffer"] for p in ours] if momentum else gradients
    return [{"params": [p.detach() for p in ours], "velocity": after}] * len(params[0])


@exercise.probe
def outer_on_rank(function, params, start, velocity, lr=None, momentum=None):
    """Rank r has params[i][r]; the start and the velocity are the same on all ranks."""
    import torch.distributed as dist

    options = {"lr": lr, "momentum": momentum}
    options = {name: value for name, value in options.items() if value is not None}
    new, after = function([p[dist.get_rank()] for p in params], start, velocity, **options)
    return {"params": list(new), "velocity": list(after)}


exercise.agrees(agree_by_entry(["params", "velocity"], torch_sgd))


@exercise.law("Each parameter travels once, by all_reduce, and nothing else does", essential=True)
def _once(out, one, call):
    if told := other_calls(out, ["all_reduce"]):
        return told
    need = sum(bytes_of(one.args[1]))
    for r, messages in enumerate(out.traffic):
        sent = sum(m.bytes for m in messages)
        if sent != need:
            return f"{one.label}: rank {r} sends {sent} bytes, and its parameters have {need}"
    return True


@exercise.law("All ranks start the next round from the same parameters")
def _agree(out, one, call):
    return all(torch.equal(a, b) for r in out[1:] for a, b in zip(r["params"], out[0]["params"], strict=True))


def _outer(params, start, velocity, lr, momentum, mean=mean_over_ranks, gradient=None, moved=None, new=None):
    """Right as it stands; a mistake replaces a part, for each tensor."""
    found = []
    for p, s, v in zip(params, start, velocity, strict=True):
        g = s - mean(p) if gradient is None else gradient(p, s)
        after = momentum * v + g if moved is None else moved(v, g)
        found.append((s - lr * (g + momentum * after) if new is None else new(s, g, v, after, p), after))
    return [p for p, _ in found], [v for _, v in found]


@exercise.alternative
def diloco_by_tensor(params, start, velocity, lr=0.7, momentum=0.9):
    """Right: tensor by tensor, the parameters averaged."""
    return _outer(params, start, velocity, lr, momentum)


@exercise.alternative
def diloco_in_one_message(params, start, velocity, lr=0.7, momentum=0.9):
    """Right: the differences travel as one vector."""
    flat = torch.cat([(s - p).flatten() for p, s in zip(params, start, strict=True)])
    dist.all_reduce(flat)
    parts = (flat / dist.get_world_size()).split([s.numel() for s in start])
    gradients = [part.view_as(s) for part, s in zip(parts, start, strict=True)]
    after = tuple(g + momentum * v for g, v in zip(gradients, velocity, strict=True))
    steps = (g + momentum * v for g, v in zip(gradients, after, strict=True))
    return tuple(s - lr * step for s, step in zip(start, steps, strict=True)), after


@exercise.mistake(
    "the parameters are averaged and nothing more: that is local SGD, without an outer optimizer",
    hint="The mean of the replicas is where rate 1 without momentum would go. Take an outer step with lr and momentum.",
)
def diloco_only_averages(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, new=lambda s, g, v, after, p: s - g)


@exercise.mistake(
    "the outer gradient has the wrong sign, so that the step goes back where the replicas came from",
    hint="A step subtracts the gradient: it has to be start - mean, not mean - start.",
)
def diloco_uphill(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, gradient=lambda p, s: mean_over_ranks(p) - s)


@exercise.mistake(
    "the outer step is added to the start, not subtracted",
    hint="gradient = start - mean points back: start - lr * (gradient + momentum * new velocity).",
)
def diloco_adds_the_step(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, new=lambda s, g, v, after, p: s + lr * (g + momentum * after))


@exercise.mistake(
    "the new gradient is multiplied by the momentum, too, before it enters the velocity",
    hint="momentum * velocity + gradient: only the old velocity fades.",
)
def diloco_fades_too_early(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, moved=lambda v, g: momentum * (v + g))


@exercise.mistake(
    "the step starts from this rank's own parameters, not from the common start",
    hint="The outer step goes from `start`. What the inner steps did is in the gradient already.",
)
def diloco_from_own(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, new=lambda s, g, v, after, p: p - lr * (g + momentum * after))


@exercise.mistake(
    "the step starts from the mean of the replicas: the way there is counted twice",
    hint="start - lr · …: the mean is in the gradient already.",
)
def diloco_from_mean(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(
        params, start, velocity, lr, momentum, new=lambda s, g, v, after, p: s - g - lr * (g + momentum * after)
    )


@exercise.mistake(
    "the replicas' parameters are summed, not averaged",
    hint="all_reduce adds: divide by the number of ranks before you subtract.",
)
def diloco_sums_parameters(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(
        params, start, velocity, lr, momentum, mean=lambda p: mean_over_ranks(p) * dist.get_world_size()
    )


@exercise.mistake("the replicas' differences are summed, not averaged", hint="Divide by the number of ranks.")
def diloco_sums(params, start, velocity, lr=0.7, momentum=0.9):
    def differences(p, s):
        return mean_over_ranks(s - p) * dist.get_world_size()

    return _outer(params, start, velocity, lr, momentum, gradient=differences)


@exercise.mistake(
    "the ranks don't talk: each takes the outer step with its own difference",
    hint="The mean over the ranks is the point: without it there are as many models as ranks.",
)
def diloco_alone(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, mean=lambda p: p)


@exercise.mistake(
    "the momentum is plain, not Nesterov's: the old velocity counts, not the new one",
    hint="Nesterov looks ahead: gradient + momentum * (new velocity).",
)
def diloco_plain_momentum(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, new=lambda s, g, v, after, p: s - lr * after)


@exercise.mistake(
    "the velocity that comes back is the old one", hint="Return the new velocity: the next round goes on with it."
)
def diloco_keeps_velocity(params, start, velocity, lr=0.7, momentum=0.9):
    new, _ = _outer(params, start, velocity, lr, momentum)
    return new, [v.clone() for v in velocity]


@exercise.mistake(
    "the gradient enters the velocity with weight 1 - momentum, as in Adam",
    hint="momentum * velocity + gradient, with the gradient's full weight.",
)
def diloco_dampened(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, moved=lambda v, g: momentum * v + (1 - momentum) * g)


@exercise.mistake(
    "the rate is in the velocity", hint="velocity = momentum * velocity + gradient; the rate comes in at the step."
)
def diloco_rate_in_velocity(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(
        params,
        start,
        velocity,
        lr,
        momentum,
        moved=lambda v, g: momentum * v + lr * g,
        new=lambda s, g, v, after, p: s - lr * g - momentum * after,
    )


@exercise.mistake(
    "as many bytes again are averaged, such as the velocity or the start",
    hint="Velocity and start are the same on all ranks already: they have all seen the same means.",
)
def diloco_averages_velocity(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, [mean_over_ranks(v) for v in velocity], lr, momentum)


@exercise.mistake(
    "every rank's parameters are gathered on every rank",
    hint="That grows with the number of ranks. all_reduce adds on the way.",
)
def diloco_gathers(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, mean=lambda p: torch.stack(gathered(p)).mean(0))


@exercise.mistake(
    "this rank's parameters are overwritten",
    hint="New tensors come back. Mind that all_reduce writes into what it gets: give it a copy.",
)
def diloco_in_place(params, start, velocity, lr=0.7, momentum=0.9):
    return _outer(params, start, velocity, lr, momentum, mean=lambda p: p.copy_(mean_over_ranks(p)))


@exercise.mistake(
    "the start is overwritten by the new parameters", hint="New tensors: start, params and velocity stay as they are."
)
def diloco_overwrites_start(params, start, velocity, lr=0.7, momentum=0.9):
    new, after = _outer(params, start, velocity, lr, momentum)
    return [s.copy_(n) for s, n in zip(start, new, strict=True)], after
