"""`accumulate(ddp, loss_fn, batches)`

Leave in .grad the gradient of the mean loss over all rows of `batches` and all ranks.
"""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import agree_by_entry
from autograde.exercises.shared import pick, randn
from autograde.judging.comparing import compare

exercise = Draft(
    "accumulate",
    points=3,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "Only the last micro-batch may average. Which context do the others need?",
        "Weight each micro-batch's loss by its share of the rows before backward(); the shares add up to 1.",
        "for i, (x, y): enter ddp.no_sync() unless i is the last (contextlib.nullcontext() there); inside it run "
        "loss = loss_fn(ddp(x), y) * len(x) / rows and loss.backward(); add loss.item() to the total.",
    ],
)


@exercise.cases
def accumulate_cases(g):
    def some(world, rows, label, **options):
        d, k = pick(g, 2, 4), pick(g, 1, 3)
        x, y = randn(g, world, sum(rows), d), randn(g, world, sum(rows), k)
        return case(randn(g, k, d), x, y, rows, ranks=world, label=label, **options)

    yield some(2, [4, 4, 4], "three equal micro-batches")
    yield some(2, [5, 1], "the last one is smaller")
    yield some(2, [6], "a single one, in evaluation mode", training=False)
    yield some(2, [2, 3], "a gradient lies there already", old=3.0)
    yield some(3, [2, 2], "two, on three ranks")
    yield some(3, [1, 4, 2, 3], "four of different sizes")


@exercise.oracle
def one_big_batch(weight, x, y, rows, old=0.0, training=True):
    weight = weight.clone().requires_grad_()
    losses = [nn.functional.mse_loss(x[r] @ weight.T, y[r]) for r in range(len(x))]
    torch.stack(losses).mean().backward()
    passes = ["local"] * (len(rows) - 1) + ["averaged"]
    told = {"gradient": weight.grad + old, "passes": passes, "rows of each forward pass": list(rows)}
    told |= {"weights and mode left alone": True, "loss without a graph": True}
    return [{"loss": loss.item(), **told} for loss in losses]


@exercise.probe
def accumulate_on_rank(accumulate, weight, x, y, rows, old=0.0, training=True):
    """Let `accumulate` work through micro-batches of `rows` rows, on a wrapper that averages as torch's DDP does."""
    import contextlib

    import torch
    import torch.distributed as dist
    from torch import nn

    passes, seen = [], []

    class Averaging(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.quiet, self.armed = module, False, True
            module.weight.register_post_accumulate_grad_hook(self.ready)

        def forward(self, x):
            seen.append(len(x))
            self.armed = not self.quiet  # as in torch, the forward pass decides
            return self.module(x)

        def ready(self, p):
            if self.armed:
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
            kind = "averaged" if self.armed else "local"
            usual = self.armed != self.quiet
            passes.append(kind if usual else f"{kind} {'inside' if self.quiet else 'outside'} no_sync")

        def finish(self):
            passes.append("finish()")

        @contextlib.contextmanager
        def no_sync(self):
            before, self.quiet = self.quiet, True
            try:
                yield
            finally:
                self.quiet = before

    rank = dist.get_rank()
    module = nn.Linear(*weight.shape[::-1], bias=False).to(weight.dtype)
    module.weight.data.copy_(weight)
    module.weight.grad = torch.full_like(weight, old) if old else None
    batches = list(zip(x[rank].split(rows), y[rank].split(rows), strict=True))
    ddp = Averaging(module).train(training)
    loss = accumulate(ddp, nn.functional.mse_loss, batches)
    left = torch.equal(module.weight, weight) and module.training is ddp.training is training
    told = {"loss": loss, "gradient": module.weight.grad, "passes": passes, "rows of each forward pass": seen}
    told |= {"weights and mode left alone": left}
    return told | {"loss without a graph": not getattr(loss, "requires_grad", False)}


exercise.agrees(agree_by_entry(["loss", "gradient"], one_big_batch))


@exercise.law("The ranks talk once, after the last micro-batch")
def _averaged_once(out, one, call):
    for r, (result, messages) in enumerate(zip(out, out.traffic, strict=True)):
        if result["passes"][-1:] != ["averaged"] or len(messages) != 1:
            return f"rank {r} sends {len(messages)} messages; its backward passes are {', '.join(result['passes'])}"
    return True


@exercise.law("All ranks end with the same gradient")
def _ranks_agree(out, one, call):
    if out[0]["gradient"] is None:
        return "there is no gradient"
    return all(compare(out[0]["gradient"], r["gradient"], rtol=1e-6, atol=0) is None for r in out)


def _accumulate(
    ddp,
    loss_fn,
    batches,
    weight=None,
    quiet=None,
    forward_inside=True,
    only_last=False,
    told=torch.Tensor.item,
    model=None,
    counted=None,
):
    """One loop for the mistakes: `weight(i)` of a micro-batch's loss, `quiet(i)`: whether it runs under no_sync.

    `counted(i)`: its weight in what is returned; `model`: what is called instead of ddp.
    """
    model = model or ddp
    rows, total = sum(len(x) for x, _ in batches), 0.0
    for i, (x, y) in enumerate(batches):
        share = weight(i) if weight else len(x) / rows
        silent = quiet(i) if quiet else i < len(batches) - 1
        early = None if forward_inside else model(x)
        with ddp.no_sync() if silent else contextlib.nullcontext():
            loss = loss_fn(model(x) if forward_inside else early, y)
            (loss * share).backward()
        total += told(loss) * (counted(i) if counted else share)
    return loss.item() if only_last else total


@exercise.mistake(
    "the micro-batches' losses are summed instead of averaged",
    hint="k micro-batches give k times the gradient of one batch, unless each loss is weighted.",
)
def accumulate_sums(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, weight=lambda i: 1.0)


@exercise.mistake(
    "every micro-batch counts the same, whatever its number of rows",
    hint="A mean of means is the overall mean only for equal sizes. Weight by len(x) / all rows.",
)
def accumulate_mean_of_means(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, weight=lambda i: 1 / len(batches))


@exercise.mistake(
    "the loss is divided by the number of micro-batches on top of the weighting by rows",
    hint="The weights len(x) / all rows already add up to 1.",
)
def accumulate_divides_twice(ddp, loss_fn, batches):
    rows = sum(len(x) for x, _ in batches)
    return _accumulate(ddp, loss_fn, batches, weight=lambda i: len(batches[i][0]) / rows / len(batches))


@exercise.mistake(
    "every backward pass averages over the ranks, as without no_sync()",
    hint="Right numbers, too many messages: run all but the last micro-batch inside ddp.no_sync().",
)
def accumulate_syncs_always(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, quiet=lambda i: False)


@exercise.mistake(
    "the last micro-batch runs under no_sync() as well, so that the ranks never talk",
    hint="The last backward pass has to run outside no_sync().",
)
def accumulate_never_syncs(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, quiet=lambda i: True)


@exercise.mistake(
    "the first micro-batch is averaged and the later ones stay local",
    hint="The pass that averages is the last one: only then is everything in .grad.",
)
def accumulate_syncs_first(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, quiet=lambda i: i > 0)


@exercise.mistake(
    "the forward pass runs outside no_sync() and only the backward pass inside",
    hint="torch's DDP decides in the forward pass whether the backward pass will average. Put both inside.",
)
def accumulate_forward_outside(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, forward_inside=False)


@exercise.mistake(
    "the backward pass runs outside no_sync() and only the forward pass inside",
    hint="Forward and backward, both inside: other wrappers decide in the backward pass.",
)
def accumulate_backward_outside(ddp, loss_fn, batches):
    rows, total = sum(len(x) for x, _ in batches), 0.0
    for i, (x, y) in enumerate(batches):
        with contextlib.nullcontext() if i == len(batches) - 1 else ddp.no_sync():
            loss = loss_fn(ddp(x), y) * (len(x) / rows)
        loss.backward()
        total += loss.item()
    return total


@exercise.mistake(
    "all micro-batches stay local, and the gradients are averaged by hand at the end",
    hint="ddp does that itself, in the last backward pass: run it outside no_sync().",
)
def accumulate_averages_by_hand(ddp, loss_fn, batches):
    total = accumulate_never_syncs(ddp, loss_fn, batches)
    for p in ddp.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()
    return total


@exercise.mistake(
    "the loss that is returned still has its graph",
    hint="loss.item() or loss.detach(): else the memory of all micro-batches stays with it.",
)
def accumulate_keeps_the_graph(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, told=lambda loss: loss)


@exercise.mistake("the ranks meet at a barrier as well", hint="ddp's averaging waits for everybody by itself.")
def accumulate_with_a_barrier(ddp, loss_fn, batches):
    dist.barrier()
    return _accumulate(ddp, loss_fn, batches)


@exercise.mistake(
    "the loss that is returned is a mean of means, whatever the numbers of rows",
    hint="The gradients are weighted by rows; the loss has to be, too.",
)
def accumulate_returns_mean_of_means(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, counted=lambda i: 1 / len(batches))


@exercise.mistake(
    "the losses are returned as a sum", hint="The mean over all rows: each loss times its share of the rows."
)
def accumulate_returns_sum(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, counted=lambda i: 1.0)


@exercise.mistake(
    "the module inside ddp is called, past ddp's own forward()",
    hint="ddp(x), not ddp.module(x): torch's DDP decides in its forward() what the backward pass will do.",
)
def accumulate_calls_the_module(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, model=ddp.module)


@exercise.mistake("finish() is called as well", hint="The caller does that, before the optimizer's step.")
def accumulate_finishes(ddp, loss_fn, batches):
    total = _accumulate(ddp, loss_fn, batches)
    ddp.finish()
    return total


@exercise.mistake(
    "the model runs once more for each loss that is added up",
    hint="The loss of the pass that goes back is the one to return: loss.item() or loss.detach().",
)
def accumulate_runs_twice(ddp, loss_fn, batches):
    _accumulate(ddp, loss_fn, batches)
    rows = sum(len(x) for x, _ in batches)
    with torch.no_grad():
        return sum(loss_fn(ddp(x), y).item() * len(x) / rows for x, y in batches)


@exercise.mistake("the module is put into evaluation mode", hint="The caller has chosen the mode: leave it.")
def accumulate_evaluates(ddp, loss_fn, batches):
    return _accumulate(ddp.eval(), loss_fn, batches)


@exercise.mistake("the module is put into training mode", hint="The caller has chosen the mode: leave it.")
def accumulate_trains(ddp, loss_fn, batches):
    return _accumulate(ddp.train(), loss_fn, batches)


@exercise.mistake("the gradients are cleared first", hint="They are added to: whoever calls clears them.")
def accumulate_clears(ddp, loss_fn, batches):
    ddp.zero_grad()
    return _accumulate(ddp, loss_fn, batches)


@exercise.mistake("a step is taken as well", hint="Only .grad is wanted. The step is the optimizer's.")
def accumulate_steps(ddp, loss_fn, batches):
    total = _accumulate(ddp, loss_fn, batches)
    with torch.no_grad():
        for p in ddp.parameters():
            p -= 0.1 * p.grad
    return total


@exercise.mistake(
    "the loss of the last micro-batch is returned instead of the mean over all rows", hint="Add up the weighted losses."
)
def accumulate_returns_last(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, only_last=True)


@exercise.alternative
def accumulate_by_rows(ddp, loss_fn, batches):
    """Right: each micro-batch counts by its rows."""
    rows, total = sum(len(x) for x, _ in batches), 0.0
    for i, (x, y) in enumerate(batches):
        with contextlib.nullcontext() if i == len(batches) - 1 else ddp.no_sync():
            loss = loss_fn(ddp(x), y) * (len(x) / rows)
            loss.backward()
        total += loss.item()
    return total


@exercise.alternative
def accumulate_then_last(ddp, loss_fn, batches):
    """Right: all but the last in one no_sync block; the loss stays a tensor."""
    rows, losses = sum(len(x) for x, _ in batches), []

    def back(x, y):
        losses.append(loss_fn(ddp(x), y) * len(x) / rows)
        losses[-1].backward()

    with ddp.no_sync():
        for x, y in batches[:-1]:
            back(x, y)
    back(*batches[-1])
    return torch.stack(losses).sum().detach()
