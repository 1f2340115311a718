"""`average_gradients(model)`

Replace the gradient of every trainable parameter of `model` by its mean over all ranks.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.ddp.shared import grad_or_zeros, trainable
from autograde.exercises.data_parallel.shared import agree, bytes_of
from autograde.exercises.shared import pick, randn
from autograde.judging.comparing import compare

exercise = Draft(
    "average_gradients",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "all_reduce adds up one tensor over all ranks, in place. How do you get from a sum to a mean?",
        "Go through the trainable parameters in the same order on all ranks. Where p.grad is None, put zeros there.",
        "For each p with requires_grad: p.grad = torch.zeros_like(p) if it is None, dist.all_reduce(p.grad), then "
        "divide p.grad in place by dist.get_world_size().",
    ],
)


@exercise.cases
def average_cases(g):
    def model(world, shapes, without=(), frozen=()):
        weights = [randn(g, *shape) for shape in shapes]
        grads = [
            [None if (r, i) in without or i in frozen else randn(g, *s) for i, s in enumerate(shapes)]
            for r in range(world)
        ]
        return weights, grads

    d, h = pick(g, 2, 4), pick(g, 5, 7)
    yield case(*model(2, [(h, d), (h,), (d, h)]), ranks=2, label="weights and a bias")
    twins = [(d, h), (h, d), (d, h)]
    lacking = {(0, 0), (1, 2)}
    yield case(*model(2, twins, lacking), ranks=2, label="each rank used another head, so one gradient is None")
    yield case(*model(2, [(h,), (d,)], {(0, 1), (1, 1)}), ranks=2, label="a gradient that no rank has")
    yield case(*model(3, [(h, d), (), (2, 1, d)], frozen=[0]), frozen=[0], ranks=3, label="one frozen, one scalar")
    thrice = [(h,)] * 3
    lacking = {(0, 0), (1, 1), (2, 2)}
    yield case(*model(3, thrice, lacking), ranks=3, label="three ranks, each without another gradient")
    weights, grads = model(3, [(1, d)])
    yield case(weights, [[1e4 * x for x in of_rank] for of_rank in grads], ranks=3, label="large gradients")
    yield case(*model(3, [(d, h), (d,)]), tied=[0], ranks=3, label="a weight that two layers share")
    weights, grads = model(2, [(h, d), (d,)])
    yield case(weights, grads, frozen=[1], ranks=2, label="one frozen, with a gradient from before")


@exercise.oracle
def mean_of_ranks(weights, grads, frozen=(), tied=()):
    means = []
    for i, w in enumerate(weights):
        mine = [torch.zeros_like(w) if of_rank[i] is None else of_rank[i] for of_rank in grads]
        means.append(torch.stack(mine).mean(0))
    return [
        {
            "gradients": [of_rank[i] if i in frozen else mean for i, mean in enumerate(means)],
            "parameters": [w + r for w in weights],
            "training": r % 2 == 0,
            "returned": None,
        }
        for r, of_rank in enumerate(grads)
    ]


@exercise.probe
def average_on_rank(average_gradients, weights, grads, frozen=(), tied=()):
    """Give the parameters of a model this rank's gradients, average, and look at what is there afterwards.

    Each parameter has a layer of its own; those in `tied` have a second one.
    """
    import torch.distributed as dist
    from torch import nn

    rank = dist.get_rank()
    parameters = [nn.Parameter(w + rank, requires_grad=i not in frozen) for i, w in enumerate(weights)]
    model = nn.Sequential()
    for i, p in enumerate([*parameters, *(parameters[i] for i in tied)]):
        layer = nn.Module()
        layer.register_parameter("weight" if p.dim() > 1 else "bias", p)
        model.add_module(f"layer{i}", layer)
    for p, grad in zip(parameters, grads[rank], strict=True):
        p.grad = None if grad is None else grad.clone()
    model.train(rank % 2 == 0)
    returned = average_gradients(model)
    told = {"gradients": [p.grad for p in parameters], "parameters": [p.detach() for p in parameters]}
    return told | {"training": model.training, "returned": None if returned is None else type(returned).__name__}


exercise.agrees(agree)


@exercise.law("All ranks end with the same gradients")
def _same_everywhere(out, one, call):
    frozen = one.kwargs.get("frozen", ())

    def rank(r):
        trained = [g for i, g in enumerate(out[r]["gradients"]) if i not in frozen]
        return [torch.zeros(0) if g is None else g for g in trained]

    return all(compare(rank(0), rank(r), rtol=1e-6, atol=0) is None for r in range(1, len(out)))


@exercise.law("Every trainable gradient crosses once, by all_reduce, and nothing else does")
def _each_crosses_once(out, one, call):
    frozen = one.kwargs.get("frozen", ())
    need = sum(bytes_of(w for i, w in enumerate(one.args[0]) if i not in frozen))
    for r, messages in enumerate(out.traffic):
        other = sorted({m.op for m in messages} - {"all_reduce"})
        if other:
            return f"rank {r} calls {', '.join(other)}, where all_reduce is asked for"
        sent = sum(m.bytes for m in messages)
        if sent != need:
            return f"rank {r} sends {sent} bytes, and its trainable parameters have {need} bytes of gradients"
    return True


@exercise.alternative
def average_flat(model):
    """Right: one flat bucket, divided before it is sent."""
    params = trainable(model)
    flat = torch.cat([grad_or_zeros(p).flatten() for p in params]) / dist.get_world_size()
    dist.all_reduce(flat)
    for p, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
        p.grad = part.view_as(p).clone()


def average_each(parameters):
    """The gradients of these parameters, one by one: which ones is where the mistakes below go wrong."""
    for p in parameters:
        p.grad = grad_or_zeros(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@exercise.mistake(
    "the gradients are summed over the ranks and never divided",
    hint="all_reduce adds by default. What is still missing for a mean?",
)
def average_sums(model):
    average_flat(model)
    for p in trainable(model):
        p.grad *= dist.get_world_size()


@exercise.mistake(
    "the gradients are divided by the number of ranks twice", hint="Divide before the all-reduce or after it, not both."
)
def average_divides_twice(model):
    average_flat(model)
    for p in trainable(model):
        p.grad /= dist.get_world_size()


@exercise.mistake(
    "only weight matrices are averaged, and biases stay local",
    hint="model.parameters() has the biases, too. One that isn't averaged makes the replicas drift apart.",
)
def average_weights_only(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        if p.dim() > 1:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@exercise.mistake(
    "a parameter without a gradient is skipped, so that the ranks' messages pair up wrongly",
    hint=(
        "Collectives are matched by their order alone. Every rank must send every trainable parameter: zeros if "
        "it has nothing."
    ),
)
def average_skips_missing(model):
    for p in trainable(model):
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@exercise.mistake(
    "a parameter that had no gradient on this rank still has none afterwards",
    hint="Other ranks may have a gradient for it: store the mean here as well.",
)
def average_forgets_to_store_missing(model):
    for p in trainable(model):
        grad = grad_or_zeros(p)
        dist.all_reduce(grad)
        grad /= dist.get_world_size()


@exercise.mistake(
    "the mean is computed in a copy and never stored in .grad",
    hint="p.grad / n makes a new tensor. Put the result back into p.grad.",
)
def average_in_a_copy(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        mean = p.grad / dist.get_world_size()
        dist.all_reduce(mean)


@exercise.mistake(
    "the parameters are averaged instead of their gradients",
    hint="It is p.grad that differs from rank to rank and has to be averaged.",
)
def average_the_parameters(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


@exercise.mistake(
    "every rank takes rank 0's gradients", hint="A broadcast throws away what the other ranks have computed."
)
def average_takes_rank_0(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        dist.broadcast(p.grad, src=0)


@exercise.mistake(
    "only rank 0 gets the mean", hint="After reduce one rank has the result, after all_reduce all have it."
)
def average_only_on_rank_0(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        total = p.grad.clone()
        dist.reduce(total, dst=0)
        if dist.get_rank() == 0:
            p.grad = total / dist.get_world_size()


@exercise.mistake(
    "frozen parameters are sent as well",
    hint="A parameter with requires_grad=False never has a gradient. Leave it alone.",
)
def average_includes_frozen(model):
    average_each(model.parameters())


@exercise.mistake(
    "a frozen parameter is sent where it has a gradient from before",
    hint="Whether a parameter is trained says requires_grad, not .grad: that one may be old.",
)
def average_includes_old_gradients(model):
    average_each(p for p in model.parameters() if p.requires_grad or p.grad is not None)


@exercise.mistake(
    "the gradient of a parameter that two layers share is sent twice",
    hint="model.parameters() has a shared one once; named_parameters(remove_duplicate=False) and a loop over all "
    "modules have it as often as it is used.",
)
def average_shared_twice(model):
    average_each(p for _, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)


@exercise.mistake(
    "only the parameters of the model itself are averaged, not those of its layers",
    hint="model.parameters() goes into the layers; with recurse=False it doesn't, and ._parameters doesn't either.",
)
def average_the_top_alone(model):
    average_each(p for p in model.parameters(recurse=False) if p.requires_grad)


@exercise.mistake(
    "the gradients are divided by the number of ranks that had one",
    hint="A rank without a gradient counts as zeros: divide by the number of all ranks.",
)
def average_over_those_that_have(model):
    for p in trainable(model):
        has = torch.tensor(float(p.grad is not None))
        dist.all_reduce(has)
        p.grad = grad_or_zeros(p)
        dist.all_reduce(p.grad)
        p.grad /= has.clamp(min=1)


@exercise.mistake("the gradients are divided by 2, whatever the number of ranks", hint="dist.get_world_size().")
def average_of_two(model):
    average_sums(model)
    for p in trainable(model):
        p.grad /= 2


@exercise.mistake("the model is returned", hint="The gradients are changed in place: nothing is to be returned.")
def average_returns_the_model(model):
    average_flat(model)
    return model


@exercise.mistake(
    "a step is taken with the mean gradients, too", hint="The optimizer steps afterwards: leave the parameters alone."
)
def average_and_step(model):
    average_flat(model)
    with torch.no_grad():
        for p in trainable(model):
            p -= 0.01 * p.grad


@exercise.mistake(
    "every rank's gradients are gathered on every rank, which costs as many times the bytes as there are ranks",
    hint="all_reduce adds on the way and hands back one tensor of the gradient's own size.",
)
def average_by_gathering(model):
    for p in trainable(model):
        everyones = [torch.empty_like(p) for _ in range(dist.get_world_size())]
        dist.all_gather(everyones, grad_or_zeros(p).contiguous())
        p.grad = torch.stack(everyones).mean(0)


@exercise.mistake("the ranks meet at a barrier as well", hint="all_reduce waits for everybody by itself.")
def average_with_a_barrier(model):
    average_flat(model)
    dist.barrier()


@exercise.mistake("the model is put into training mode", hint="The caller has chosen the mode: leave it.")
def average_trains(model):
    average_flat(model.train())


@exercise.mistake("the model is put into evaluation mode", hint="The caller has chosen the mode: leave it.")
def average_evaluates(model):
    average_flat(model.eval())


@exercise.mistake(
    "a step is taken with this rank's own gradients before they are averaged",
    hint="Average first: the parameters keep their values here, and the optimizer steps afterwards.",
)
def average_after_the_step(model):
    with torch.no_grad():
        for p in trainable(model):
            p -= 0.1 * grad_or_zeros(p)
    average_flat(model)


@exercise.alternative
def average_one_by_one(model):
    """Right: one all-reduce a parameter, started together and waited for together."""
    params = trainable(model)
    for p in params:
        p.grad = grad_or_zeros(p)
    for work in [dist.all_reduce(p.grad, async_op=True) for p in params]:
        work.wait()
    for p in params:
        p.grad /= dist.get_world_size()
