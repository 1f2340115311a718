"""`pipeline_step(stage, actions, shapes, inputs, targets, loss_fn)`

This rank's part of one training step: run its actions, with activations sent down and gradients sent up.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.pipeline_parallel.gpipe_schedule import gpipe_by_kind
from autograde.exercises.data_parallel.pipeline_parallel.one_f_one_b_schedule import one_f_one_b_by_limit
from autograde.exercises.data_parallel.pipeline_parallel.shared import most_held
from autograde.exercises.data_parallel.shared import agree_by_entry, place
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "pipeline_step",
    points=6,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    strides=False,
    forbid=["torch.distributed.pipelining"],
    hints=[
        "For F: where does the input come from, and where does the output go? For B: the same two questions for "
        "gradients. Between F and B keep input and output of the micro-batch, by its number.",
        "What is received must be a leaf that wants a gradient (requires_grad_()); what is sent is detached. Back: on"
        " the last rank (loss * share).backward(), elsewhere output.backward(received gradient); then send "
        "input.grad up. Send with isend, and wait for all of them at the end.",
        "F: x = inputs[i] or dist.recv into torch.empty(shapes[i], dtype=…) from rank - 1; y = stage(x); kept[i] = x, "
        "y; last rank: kept[i] = x, loss_fn(y, targets[i]) * rows / all rows; else works.append(dist.isend(y.detach()"
        ", rank + 1)). B: x, y = kept.pop(i); g = None or dist.recv into torch.empty_like(y) from rank + 1; "
        "y.backward(g); works.append(dist.isend(x.grad, rank - 1)) unless rank is 0.",
    ],
)


def _newest_first(world, n_micro):
    """GPipe, its backward passes turned round."""
    return [actions[:n_micro] + actions[: n_micro - 1 : -1] for actions in gpipe_by_kind(world, n_micro)]


@exercise.cases
def step_cases(g):
    def some(world, rows, label, make=one_f_one_b_by_limit, **options):
        widths = [pick(g, 2, 4) * 2 + k % 2 for k in range(world + 1)]
        size = sum((a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
        x, y = randn(g, sum(rows), widths[0]), randn(g, sum(rows), widths[-1])
        weights = 0.5 * randn(g, size)
        schedule = [list(actions) for actions in make(world, len(rows))]
        return case(schedule, weights, widths, x, y, rows, ranks=world, label=label, **options)

    n = pick(g, 1, 3)
    yield some(2, [n] * 4, "two ranks, 1F1B, four micro-batches")
    yield some(2, [3, 1, 2], "GPipe, micro-batches of different sizes", make=gpipe_by_kind)
    yield some(2, [3], "one micro-batch, in evaluation mode", training=False)
    yield some(2, [1, 4, 2], "GPipe, gradients lie there already", make=gpipe_by_kind, old=3.0)
    yield some(2, [n] * 3, "GPipe, the newest micro-batch goes back first", make=_newest_first)
    yield some(3, [n] * 5, "three ranks, 1F1B, five micro-batches")
    yield some(3, [2, 3, 1, 4], "three ranks, GPipe, different sizes", make=gpipe_by_kind)
    yield some(4, [n] * 6, "four ranks, 1F1B")
    yield some(1, [n, n + 1], "one rank alone")


def _parameters(weights, widths):
    """The whole model's parameters: (weight, bias) of each rank's layer."""
    sizes = [n for a, b in zip(widths, widths[1:], strict=False) for n in (a * b, b)]
    flat = weights.split(sizes)
    return [(w.view(len(b), -1), b) for w, b in zip(flat[::2], flat[1::2], strict=True)]


@exercise.oracle
def unsplit(schedule, weights, widths, x, y, rows, old=0.0, training=True):
    """One process, the whole model, the whole batch."""
    whole = weights.clone().requires_grad_()
    hidden, pairs = x, _parameters(whole, widths)
    for w, b in pairs:
        hidden = torch.tanh(hidden @ w.T + b)
    loss = nn.functional.mse_loss(hidden, y)
    loss.backward()
    each = [w.numel() + b.numel() for w, b in pairs]
    last = len(each) - 1
    told = {"weights and mode left alone": True, "loss without a graph": True}
    return [
        {"loss": loss.item() if r == last else None, "gradient": part + old, **told}
        for r, part in enumerate(whole.grad.split(each))
    ]


@exercise.probe
def step_on_rank(pipeline_step, schedule, weights, widths, x, y, rows, old=0.0, training=True):
    """Let every rank run its actions on one layer and a tanh; note what runs when, and what is held for later.

    What waits for a send while actions are still to come is noted, too.
    """
    import contextlib

    import torch
    import torch.distributed as dist
    from torch import nn

    rank, world = dist.get_rank(), dist.get_world_size()
    actions = [tuple(one) for one in schedule[rank]]
    order = [i for kind, _, i in actions if kind == "F"]
    events, held, most = [], set(), [0]

    class Kept:
        """What autograd keeps for a backward pass; gone when autograd lets go of it."""

        def __init__(self, tensor, number):
            self.tensor, self.number = tensor, number

        def __del__(self):
            held.discard(self.number)

    class Stage(nn.Module):
        def __init__(self, w, b):
            super().__init__()
            self.linear, self.calls = nn.Linear(*w.shape[::-1]).to(w.dtype), 0
            self.linear.weight.data.copy_(w)
            self.linear.bias.data.copy_(b)

        def forward(self, hidden):
            number = order[self.calls] if self.calls < len(order) else -1
            self.calls += 1
            events.append(("F", number, tuple(hidden.shape)))
            out = self.linear(hidden)
            if out.requires_grad:
                out.register_hook(lambda grad: events.append(("B", number, tuple(hidden.shape))))

            def keep(tensor):
                held.add(number)
                return Kept(tensor, number)

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
                out = torch.tanh(out)
            most[0] = max(most[0], len(held))
            return out

    sendings, waits = [], [0]

    @contextlib.contextmanager
    def watched():
        """Counts the sends that are waited for before the last action. torch's own module must know the new isend."""
        inside, send, isend, wait = dist.distributed_c10d, dist.send, dist.isend, dist.Work.wait

        def early():
            waits[0] += len(events) < len(actions)

        def send_and_wait(*args, **kwargs):
            early()
            return send(*args, **kwargs)

        def send_later(*args, **kwargs):
            sendings.append(isend(*args, **kwargs))
            return sendings[-1]

        def wait_for(work, *args, **kwargs):
            if any(work is sending for sending in sendings):
                early()
            return wait(work, *args, **kwargs)

        dist.send, dist.isend, inside.isend, dist.Work.wait = send_and_wait, send_later, send_later, wait_for
        try:
            yield
        finally:
            dist.send, dist.isend, inside.isend, dist.Work.wait = send, isend, isend, wait

    into, out = widths[rank], widths[rank + 1]
    before = sum((n + 1) * m for n, m in zip(widths[:rank], widths[1:], strict=False))
    w = weights[before : before + into * out].view(out, into)
    b = weights[before + into * out : before + (into + 1) * out]
    stage = Stage(w, b).train(training)
    params = list(stage.parameters())
    if old:
        for p in params:
            p.grad = torch.full_like(p, old)
    shapes = [(n, widths[rank]) for n in rows]
    inputs = list(x.split(rows)) if rank == 0 else None
    targets = list(y.split(rows)) if rank == world - 1 else None
    with watched():
        loss = pipeline_step(stage, list(actions), shapes, inputs, targets, nn.functional.mse_loss)
    left = torch.equal(stage.linear.weight, w) and torch.equal(stage.linear.bias, b) and stage.training is training
    told = {"weights and mode left alone": left, "loss without a graph": not getattr(loss, "requires_grad", False)}
    gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in params])
    told |= {"loss": None if loss is None else float(loss), "gradient": gradient}
    return told | {"events": events, "held": most[0], "waits": waits[0]}


exercise.agrees(agree_by_entry(["loss", "gradient"], unsplit))


@exercise.law("Every rank runs its actions in the order given, each once")
def _in_order(out, one, call):
    rows, widths = one.args[5], one.args[2]
    for rank, result in enumerate(out):
        need = [(kind, i, (rows[i], widths[rank])) for kind, _, i in one.args[0][rank]]
        ran = [(kind, i, tuple(shape)) for kind, i, shape in result["events"]]
        if ran != need:
            some = " ".join(f"{kind}{i}" for kind, i, _ in ran[:8])
            return f"{one.label}: rank {rank} ran {some or 'nothing'} …"
    return True


@exercise.law("No rank keeps more micro-batches for the backward pass than its schedule asks for", essential=True)
def _held(out, one, call):
    most = [result["held"] for result in out]
    need = [most_held(one.args[0][rank]) for rank in range(len(out))]
    return most == need or f"{one.label}: the ranks hold up to {most} micro-batches, and {need} is what is needed"


@exercise.law("No send is waited for before the next action")
def _sends_go_on(out, one, call):
    """A rank that waits idles until its neighbor has come so far; in the worst case both wait for ever."""
    if not any(result["events"] for result in out):
        return "nothing runs"
    waiting = [rank for rank, result in enumerate(out) if result["waits"]]
    return not waiting or f"{one.label}: rank {waiting[0]} waits for {out[waiting[0]]['waits']} of its sends at once"


@exercise.law("One activation down and one gradient up for each micro-batch, and nothing else", essential=True)
def _messages(out, one, call):
    size = one.args[3].element_size()
    rows, widths = one.args[5], one.args[2]
    for rank, messages in enumerate(out.traffic):
        other = {m.op for m in messages} - {"send", "recv"}
        if other:
            return f"rank {rank} calls {', '.join(sorted(other))}"
        down = [("send", rank + 1, size * n * widths[rank + 1]) for n in rows] if rank + 1 < len(out) else []
        up = [("send", rank - 1, size * n * widths[rank]) for n in rows] if rank else []
        sent = sorted((m.op, m.peer, m.bytes) for m in messages if m.op == "send")
        if sent != sorted(down + up):
            told = sorted(b for _, _, b in sent)
            return (
                f"{one.label}: rank {rank} sends {told or 'no'} bytes, and {sorted(b for *_, b in down + up)} are due"
            )
    return True


def _step(
    stage,
    actions,
    shapes,
    inputs,
    targets,
    loss_fn,
    share=None,
    before=None,
    blocking=(),
    take=None,
    retain=False,
    returned=None,
    arrived=None,
    cut=True,
):
    """Right as it stands. The others say what a mistake does."""
    rank, world = place()
    rows = [shape[0] for shape in shapes]
    share = share or (lambda i: rows[i] / sum(rows))
    kept, works, losses = {}, [], {}
    kind_of = next(stage.parameters()).dtype

    def send(tensor, to):
        tensor = tensor.contiguous()
        if to - rank in blocking:
            dist.send(tensor, to)
        else:
            works.append((dist.isend(tensor, to), tensor))

    for kind, _, i in actions:
        if before:
            before(stage, kind, i)
        if kind == "F":
            if rank:
                x = torch.empty(shapes[i], dtype=kind_of)
                dist.recv(x, rank - 1)
                x.requires_grad_(cut)
            else:
                x = inputs[i]
            y = stage(x)
            if rank == world - 1:
                loss = loss_fn(y, targets[i])
                losses[i] = loss.detach()
                y = loss * share(i)
            else:
                send(y.detach(), rank + 1)
            kept[i] = x, y
        else:
            x, y = kept.pop(take(kept) if take else i)
            grad = None
            if rank < world - 1:
                grad = torch.empty_like(y)
                dist.recv(grad, rank + 1)
                grad = arrived(grad, i) if arrived else grad
            y.backward(grad, retain_graph=retain)
            if retain:
                kept[-1 - i] = x, y
            if rank:
                send(x.grad, rank - 1)
    for work, _ in works:
        work.wait()
    if rank < world - 1:
        return None
    return returned(losses, rows) if returned else sum(losses[i].item() * share(i) for i in losses)


@exercise.alternative
def step_by_loop(stage, actions, shapes, inputs, targets, loss_fn):
    """Right: the loop that the mistakes below change."""
    return _step(stage, actions, shapes, inputs, targets, loss_fn)


@exercise.alternative
def step_with_grad_function(stage, actions, shapes, inputs, targets, loss_fn):
    """Right: gradients by torch.autograd.grad, added by hand; receives are posted early; the loss stays a tensor."""
    rank, world = place()
    total, params = sum(shape[0] for shape in shapes), [p for p in stage.parameters() if p.requires_grad]
    kind_of = params[0].dtype
    arriving = {}
    for kind, _, i in actions:
        if kind == "F" and rank:
            buffer = torch.empty(shapes[i], dtype=kind_of)
            arriving[i] = buffer, dist.irecv(buffer, rank - 1)
    kept, works, loss = {}, [], torch.zeros((), dtype=kind_of)
    for kind, _, i in actions:
        if kind == "F":
            x = inputs[i] if rank == 0 else arriving[i][0]
            if rank:
                arriving.pop(i)[1].wait()
                x = x.requires_grad_()
            out = stage(x)
            if rank < world - 1:
                works.append(dist.isend(out.detach().clone(), rank + 1))
            else:
                out = loss_fn(out, targets[i]) * (shapes[i][0] / total)
                loss += out.detach()
            kept[i] = x, out
        else:
            x, out = kept.pop(i)
            grad = None
            if rank < world - 1:
                grad = torch.zeros(out.shape, dtype=out.dtype)
                dist.irecv(grad, rank + 1).wait()
            wanted = params if rank == 0 else [*params, x]
            found = torch.autograd.grad(out, wanted, grad)
            for p, g in zip(params, found, strict=False):
                p.grad = g if p.grad is None else p.grad + g
            if rank:
                works.append(dist.isend(found[-1].contiguous(), rank - 1))
    for work in works:
        work.wait()
    return loss if rank == world - 1 else None


@exercise.mistake(
    "the micro-batches' losses are not divided: the gradient is as many times too large as there are micro-batches",
    hint="The batch's loss is a mean over all its rows. Weight each micro-batch's loss by its share of the rows.",
)
def step_undivided(*args):
    return _step(*args, share=lambda i: 1.0)


@exercise.mistake(
    "every micro-batch counts the same, whatever its number of rows",
    hint="A mean of means is the mean only for equal sizes. Weight by shapes[i][0] / all rows.",
)
def step_mean_of_means(stage, actions, shapes, *args):
    return _step(stage, actions, shapes, *args, share=lambda i: 1 / len(shapes))


@exercise.mistake(
    "the loss is divided by the number of ranks",
    hint="The ranks hold different layers of one model. What is averaged over is the batch's rows.",
)
def step_divided_by_ranks(*args):
    return _step(*args, share=lambda i: 1 / dist.get_world_size())


@exercise.mistake(
    "each micro-batch's loss, which is a mean already, is divided by all rows",
    hint="Only a sum over rows would be divided so. A mean counts with the micro-batch's share: its rows / all rows.",
)
def step_divided_by_all_rows(stage, actions, shapes, *args):
    return _step(stage, actions, shapes, *args, share=lambda i: 1 / sum(shape[0] for shape in shapes))


@exercise.mistake(
    "the gradients are divided by the number of micro-batches after their losses have been weighted",
    hint="The shares add up to 1: nothing is left to divide. And what lay in .grad before is not yours to change.",
)
def step_divided_twice(stage, actions, shapes, *args):
    loss = _step(stage, actions, shapes, *args)
    for p in stage.parameters():
        p.grad /= len(shapes)
    return loss


@exercise.mistake(
    "what comes from the next rank isn't used: every rank goes back from a gradient of ones",
    hint="output.backward(received gradient): ones belong only to a scalar loss.",
)
def step_back_from_ones(*args):
    return _step(*args, arrived=lambda grad, i: torch.ones_like(grad))


@exercise.mistake(
    "each micro-batch's loss is multiplied by its rows, but never divided by all of them",
    hint="A share is shapes[i][0] / all rows: the shares add up to 1.",
)
def step_times_rows(stage, actions, shapes, *args):
    return _step(stage, actions, shapes, *args, share=lambda i: float(shapes[i][0]))


@exercise.mistake(
    "the share of the rows is multiplied in again on every rank that a gradient passes",
    hint="The last rank has scaled the loss; the chain rule carries the factor up by itself.",
)
def step_scaled_everywhere(stage, actions, shapes, *args):
    rows = [shape[0] for shape in shapes]
    return _step(stage, actions, shapes, *args, arrived=lambda grad, i: grad * (rows[i] / sum(rows)))


@exercise.mistake(
    "each micro-batch's gradient overwrites that of the one before",
    hint="backward() adds to .grad: let it, and clear nothing between micro-batches.",
)
def step_overwrites(*args):
    def before(stage, kind, i):
        if kind == "B":
            stage.zero_grad()

    return _step(*args, before=before)


@exercise.mistake("gradients are cleared at the start", hint="They are added to: whoever calls clears them.")
def step_clears(stage, *args):
    stage.zero_grad()
    return _step(stage, *args)


@exercise.mistake(
    "all forward passes run first, whatever the actions say",
    hint="Right numbers, and all micro-batches are held at once. Run the actions one by one, as they come.",
)
def step_forward_first(stage, actions, *args):
    return _step(stage, sorted(actions, key=lambda one: one[0] == "B"), *args)


@exercise.mistake(
    "the backward passes run in reverse order: the newest micro-batch goes back first",
    hint="B i belongs to micro-batch i, whose gradient comes next. Keep inputs and outputs by number.",
)
def step_newest_first(*args):
    return _step(*args, take=lambda kept: max(kept))


@exercise.mistake(
    "a backward pass takes the oldest micro-batch, whatever its action says",
    hint="B i belongs to micro-batch i, and a schedule may turn the order round. Keep inputs and outputs by number.",
)
def step_oldest_first(*args):
    return _step(*args, take=min)


@exercise.mistake(
    "the graphs are kept after their backward passes (retain_graph=True)",
    hint="Right numbers, and the memory of GPipe. Each graph is needed once: let it go.",
)
def step_retains(*args):
    return _step(*args, retain=True)


@exercise.mistake("ranks that have no loss return 0", hint="Only the last rank knows the loss. The others return None.")
def step_returns_zero(*args):
    return _step(*args) or 0.0


@exercise.mistake("the loss isn't returned", hint="The last rank returns the mean loss over all rows.")
def step_returns_nothing(*args):
    _step(*args)


@exercise.mistake("the loss of the last micro-batch is returned", hint="Return the mean over all rows of the batch.")
def step_returns_last(*args):
    return _step(*args, returned=lambda losses, rows: losses[len(rows) - 1].item())


@exercise.mistake(
    "the loss that is returned is a mean of means, whatever the numbers of rows",
    hint="The gradients are weighted by rows; the loss has to be, too.",
)
def step_returns_mean_of_means(*args):
    return _step(*args, returned=lambda losses, rows: sum(losses.values()).item() / len(losses))


@exercise.mistake(
    "the losses of the micro-batches are returned as a sum", hint="Return the mean over all rows of the batch."
)
def step_returns_sum(*args):
    return _step(*args, returned=lambda losses, rows: sum(losses.values()).item())


@exercise.mistake(
    "the loss is sent to all ranks as well",
    hint="Only activations and gradients travel, between neighbors. The last rank has the loss, the others None.",
)
def step_broadcasts_the_loss(*args):
    loss = _step(*args)
    said = torch.tensor(loss or 0.0)
    dist.broadcast(said, dist.get_world_size() - 1)
    return loss


@exercise.mistake("the ranks meet at a barrier as well", hint="recv waits by itself for what it needs.")
def step_with_a_barrier(*args):
    loss = _step(*args)
    dist.barrier()
    return loss


@exercise.mistake(
    "the gradients are averaged over the ranks",
    hint="The ranks hold different layers: there is nothing to average. That is data parallelism.",
)
def step_averages(stage, *args):
    loss = _step(stage, *args)
    size = torch.zeros(dist.get_world_size(), dtype=torch.int64)
    size[dist.get_rank()] = sum(p.numel() for p in stage.parameters())
    dist.all_reduce(size)
    flat = torch.zeros(int(size.max()), dtype=next(stage.parameters()).dtype)
    grads = [p.grad for p in stage.parameters()]
    own = torch.cat([g.flatten() for g in grads])
    flat[: len(own)] = own
    dist.all_reduce(flat)
    mean = (flat / dist.get_world_size())[: len(own)].split([g.numel() for g in grads])
    for p, g in zip(stage.parameters(), mean, strict=True):
        p.grad = g.view_as(p)
    return loss


@exercise.mistake("a step is taken as well", hint="Only .grad is wanted. The step is the optimizer's.")
def step_steps(stage, *args):
    loss = _step(stage, *args)
    with torch.no_grad():
        for p in stage.parameters():
            p -= 0.1 * p.grad
    return loss


@exercise.mistake("the stage is put into training mode", hint="The caller has chosen the mode: leave it.")
def step_trains(stage, *args):
    return _step(stage.train(), *args)


@exercise.mistake("the stage is put into evaluation mode", hint="The caller has chosen the mode: leave it.")
def step_evaluates(stage, *args):
    return _step(stage.eval(), *args)


@exercise.mistake(
    "the loss that is returned still has its graph",
    hint="loss.item() or loss.detach(): else the memory of the micro-batches stays with it.",
)
def step_keeps_the_graph(stage, actions, shapes, inputs, targets, loss_fn):
    kept = []

    def listened(y, target):
        kept.append(loss_fn(y, target))
        return kept[-1]

    loss = _step(stage, actions, shapes, inputs, targets, listened)
    return None if loss is None else sum(kept) * 0 + loss


@exercise.mistake(
    "sends wait until they are received, so that neighbors that both send wait for ever",
    hint="In 1F1B rank r sends an activation down while rank r + 1 sends a gradient up. Use isend, wait at the end.",
    hangs=True,
)
def step_blocking(*args):
    return _step(*args, blocking=(1, -1))


@exercise.mistake(
    "the sends of one direction wait until they are received",
    hint="Right numbers, and a rank idles until its neighbor receives. Use isend both down and up, wait at the end.",
)
def step_blocks_down(*args):
    return _step(*args, blocking=(1,))


@exercise.mistake(
    "what is received doesn't ask for a gradient, so that there is none to send up",
    hint="torch.empty gives a tensor without requires_grad. Ask for it before the stage sees it.",
    hangs=True,
)
def step_without_input_gradient(*args):
    return _step(*args, cut=False)
