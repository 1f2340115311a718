"""Exercises of 03_data_parallel/03_ddp that average on ranks: the gradients of a model, accumulated micro-batches.

The judge is one process that sees the whole batch.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from autograde.exercise import Exercise, Law, Misconception, PerRank, case
from autograde.exercises.data_parallel import ddp_mistakes as wrong
from autograde.exercises.data_parallel import ddp_probes as probes
from autograde.exercises.data_parallel.ddp_plan import pick
from autograde.judging.comparing import compare


def randn(generator, *shape):
    return torch.randn(shape, generator=generator)


def agree(expected, got, one):
    """Compare what is listed on the left; what the oracle leaves out, such as the order of events, is for the laws."""
    if not isinstance(got, list) or not all(isinstance(g, dict) for g in got):
        return "is not what was expected"
    told = [{key: g[key] for key in e} for e, g in zip(expected, got, strict=True)]
    mismatch = compare(expected, told, rtol=1e-4, atol=1e-6)
    return re.sub(r"item (\d+) of the result\b", r"rank \1's result", mismatch.message) if mismatch else True


def agree_first_on(numbers, oracle):
    """As `agree`; but wrong numbers are recognised as a mistake's by the numbers alone, whatever else went wrong."""

    def agrees(expected, got, one):
        verdict = agree(expected, got, one)
        if verdict is True or not isinstance(expected, PerRank):  # the right answer comes as a plain list
            return verdict
        wrong = [{key: r[key] for key in numbers} for r in expected]
        if agree(wrong, got, one) is not True:
            return verdict
        right = [{key: r[key] for key in numbers} for r in oracle(*one.args, **one.kwargs)]
        return verdict if agree(right, wrong, one) is True else True

    return agrees


def bytes_of(tensors):
    return [t.numel() * t.element_size() for t in tensors]


# ---- average_gradients ----------------------------------------------------------------------------------------------


def mean_of_ranks(weights, grads, frozen=()):
    world = len(grads)
    means = []
    for i, w in enumerate(weights):
        mine = [torch.zeros_like(w) if of_rank[i] is None else of_rank[i] for of_rank in grads]
        means.append(None if i in frozen else torch.stack(mine).mean(0))
    return [{"gradients": means, "parameters": [w + r for w in weights]} for r in range(world)]


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


def _same_everywhere(out, one, call):
    def rank(r):
        return [torch.zeros(0) if g is None else g for g in out[r]["gradients"]]

    return all(compare(rank(0), rank(r), rtol=1e-6, atol=0) is None for r in range(1, len(out)))


def _each_crosses_once(out, one, call):
    frozen = one.kwargs.get("frozen", ())
    need = sum(bytes_of(w for i, w in enumerate(one.args[0]) if i not in frozen))
    for r, messages in enumerate(out.traffic):
        other = sorted({m.op for m in messages if m.bytes} - {"all_reduce"})
        if other:
            return f"rank {r} calls {', '.join(other)}, where all_reduce is asked for"
        sent = sum(m.bytes for m in messages)
        if sent != need:
            return f"rank {r} sends {sent} bytes, and its trainable parameters have {need} bytes of gradients"
    return True


average_gradients = Exercise(
    name="average_gradients",
    points=3,
    cases=average_cases,
    oracle=mean_of_ranks,
    probe=probes.average_on_rank,
    ranks=True,
    limit=4.0,
    agrees=agree,
    laws=[
        Law("All ranks end with the same gradients", _same_everywhere),
        Law("Every trainable gradient crosses once, by all_reduce, and nothing else does", _each_crosses_once),
    ],
    misconceptions=[
        Misconception(
            "the gradients are summed over the ranks and never divided",
            wrong.average_sums,
            "all_reduce adds by default. What is still missing for a mean?",
        ),
        Misconception(
            "the gradients are divided by the number of ranks twice",
            wrong.average_divides_twice,
            "Divide before the all-reduce or after it, not both.",
        ),
        Misconception(
            "only weight matrices are averaged, and biases stay local",
            wrong.average_weights_only,
            "model.parameters() has the biases, too. One that isn't averaged makes the replicas drift apart.",
        ),
        Misconception(
            "a parameter without a gradient is skipped, so that the ranks' messages pair up wrongly",
            wrong.average_skips_missing,
            "Collectives are matched by their order alone. Every rank must send every trainable parameter: zeros if "
            "it has nothing.",
        ),
        Misconception(
            "a parameter that had no gradient on this rank still has none afterwards",
            wrong.average_forgets_to_store_missing,
            "Other ranks may have a gradient for it: store the mean here as well.",
        ),
        Misconception(
            "the mean is computed in a copy and never stored in .grad",
            wrong.average_in_a_copy,
            "p.grad / n makes a new tensor. Put the result back into p.grad.",
        ),
        Misconception(
            "the parameters are averaged instead of their gradients",
            wrong.average_the_parameters,
            "It is p.grad that differs from rank to rank and has to be averaged.",
        ),
        Misconception(
            "every rank takes rank 0's gradients",
            wrong.average_takes_rank_0,
            "A broadcast throws away what the other ranks have computed.",
        ),
        Misconception(
            "only rank 0 gets the mean",
            wrong.average_only_on_rank_0,
            "After reduce one rank has the result, after all_reduce all have it.",
        ),
        Misconception(
            "frozen parameters are sent as well",
            wrong.average_includes_frozen,
            "A parameter with requires_grad=False never has a gradient. Leave it alone.",
        ),
        Misconception(
            "every rank's gradients are gathered on every rank, which costs as many times the bytes as there are ranks",
            wrong.average_by_gathering,
            "all_reduce adds on the way and hands back one tensor of the gradient's own size.",
        ),
    ],
    alternatives=[wrong.average_one_by_one, wrong.average_flat],
    dtypes=[torch.float64],
    hints=[
        "all_reduce adds up one tensor over all ranks, in place. How do you get from a sum to a mean?",
        "Go through the trainable parameters in the same order on all ranks. Where p.grad is None, put zeros there.",
        "For each p with requires_grad: p.grad = torch.zeros_like(p) if it is None, dist.all_reduce(p.grad), then "
        "divide p.grad in place by dist.get_world_size().",
    ],
)


# ---- accumulate -----------------------------------------------------------------------------------------------------


def one_big_batch(weight, x, y, rows):
    weight = weight.clone().requires_grad_()
    losses = [nn.functional.mse_loss(x[r] @ weight.T, y[r]) for r in range(len(x))]
    torch.stack(losses).mean().backward()
    passes = ["local"] * (len(rows) - 1) + ["averaged"]
    return [{"loss": loss.item(), "gradient": weight.grad, "passes": passes} for loss in losses]


def accumulate_cases(g):
    def some(world, rows, label):
        d, k = pick(g, 2, 4), pick(g, 1, 3)
        x, y = randn(g, world, sum(rows), d), randn(g, world, sum(rows), k)
        return case(randn(g, k, d), x, y, rows, ranks=world, label=label)

    yield some(2, [4, 4, 4], "three equal micro-batches")
    yield some(2, [5, 1], "the last one is smaller")
    yield some(2, [6], "a single one")
    yield some(3, [2, 2], "two, on three ranks")
    yield some(3, [1, 4, 2, 3], "four of different sizes")


def _averaged_once(out, one, call):
    for r, (result, messages) in enumerate(zip(out, out.traffic, strict=True)):
        if result["passes"][-1:] != ["averaged"] or len(messages) != 1:
            return f"rank {r} sends {len(messages)} messages; its backward passes are {', '.join(result['passes'])}"
    return True


def _ranks_agree(out, one, call):
    if out[0]["gradient"] is None:
        return "there is no gradient"
    return all(compare(out[0]["gradient"], r["gradient"], rtol=1e-6, atol=0) is None for r in out)


accumulate = Exercise(
    name="accumulate",
    points=3,
    cases=accumulate_cases,
    oracle=one_big_batch,
    probe=probes.accumulate_on_rank,
    ranks=True,
    limit=4.0,
    agrees=agree_first_on(["loss", "gradient"], one_big_batch),
    laws=[
        Law("The ranks talk once, after the last micro-batch", _averaged_once),
        Law("All ranks end with the same gradient", _ranks_agree),
    ],
    misconceptions=[
        Misconception(
            "the micro-batches' losses are summed instead of averaged",
            wrong.accumulate_sums,
            "k micro-batches give k times the gradient of one batch, unless each loss is weighted.",
        ),
        Misconception(
            "every micro-batch counts the same, whatever its number of rows",
            wrong.accumulate_mean_of_means,
            "A mean of means is the overall mean only for equal sizes. Weight by len(x) / all rows.",
        ),
        Misconception(
            "the loss is divided by the number of micro-batches on top of the weighting by rows",
            wrong.accumulate_divides_twice,
            "The weights len(x) / all rows already add up to 1.",
        ),
        Misconception(
            "every backward pass averages over the ranks, because no_sync() is never entered",
            wrong.accumulate_syncs_always,
            "Right numbers, too many messages: run all but the last micro-batch inside ddp.no_sync().",
        ),
        Misconception(
            "the last micro-batch runs under no_sync() as well, so that the ranks never talk",
            wrong.accumulate_never_syncs,
            "The last backward pass has to run outside no_sync().",
        ),
        Misconception(
            "the first micro-batch is averaged and the later ones stay local",
            wrong.accumulate_syncs_first,
            "The pass that averages is the last one: only then is everything in .grad.",
        ),
        Misconception(
            "the forward pass runs outside no_sync() and only the backward pass inside",
            wrong.accumulate_forward_outside,
            "torch's DDP decides in the forward pass whether the backward pass will average. Put both inside.",
        ),
        Misconception(
            "the loss of the last micro-batch is returned instead of the mean over all rows",
            wrong.accumulate_returns_last,
            "Add up the weighted losses.",
        ),
    ],
    alternatives=[wrong.accumulate_by_rows, wrong.accumulate_then_last],
    dtypes=[torch.float64],
    hints=[
        "Only the last micro-batch may average. Which context do the others need?",
        "Weight each micro-batch's loss by its share of the rows before backward(); the shares add up to 1.",
        "for i, (x, y): enter ddp.no_sync() unless i is the last (contextlib.nullcontext() there); inside it run "
        "loss = loss_fn(ddp(x), y) * len(x) / rows and loss.backward(); add loss.item() to the total.",
    ],
)
