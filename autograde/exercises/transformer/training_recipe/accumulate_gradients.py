"""`accumulate_gradients(model, batches)`: The gradient of one big batch, from micro-batches, one at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import randn

exercise = Draft(
    "accumulate_gradients",
    points=4,
    rtol=1e-3,
    atol=1e-5,
    no_gradient="gradients are its result",
    hints=[
        "What would the loss of one big batch be? A sum over tokens, divided by their number. Only the sum can be cut "
        "into parts.",
        "Count the targets that aren't -100 in all micro-batches first. F.cross_entropy(…, reduction='sum') is a part.",
        "model.zero_grad(); for ids, targets in batches: loss = F.cross_entropy(model(ids).flatten(0, 1), "
        "targets.flatten(), reduction='sum') / tokens; loss.backward(); total += loss.item()",
    ],
)


@exercise.cases
def accumulate_cases(g):
    def some(*sizes, letters=5, width=3, padded=(), scale=1.0):
        """Micro-batches of the given (rows, n); those in `padded` have some targets of -100."""
        batches = []
        for i, (rows, n) in enumerate(sizes):
            ids, targets = torch.randint(letters, (2, rows, n), generator=g)
            if i in padded:
                targets[:, max(1, n // 3) :] = -100
            batches.append([ids, targets])
        return [randn(g, letters, width) * scale, randn(g, width, letters) * scale], batches

    yield case(*some((2, 4), (2, 4)), label="two equal micro-batches")
    yield case(*some((2, 6), (2, 6), padded=[1]), label="the second is padded")
    yield case(*some((1, 3), (4, 3), (2, 3)), label="unequal numbers of rows")
    yield case(*some((3, 7), (1, 2), (2, 5), padded=[0]), label="unequal lengths, some padding")
    yield case(*some((3, 4)), label="a single micro-batch")
    yield case(*some((2, 3), (30, 50), (5, 7), letters=150, padded=[1]), label="many tokens and classes")
    yield case(*some((1, 1), (1, 3)), old=True, label="old gradients lie about")
    yield case(*some((2, 5), (2, 5), (2, 5), padded=[0, 2], scale=3.0), old=True, label="three, large weights")
    weights, batches = some((2, 4), (2, 3))
    batches.insert(1, [batches[0][0], torch.full((2, 4), -100)])
    yield case(weights, batches, label="one micro-batch is all padding")


@exercise.oracle
def one_big_batch(weights, batches, old=False):
    table, head = (weight.clone().requires_grad_() for weight in weights)
    ids, targets = (torch.cat([batch[i].flatten() for batch in batches]) for i in (0, 1))
    loss = F.cross_entropy(torch.tanh(table[ids]) @ head, targets)
    gradients = list(torch.autograd.grad(loss, [table, head]))
    most = max(len(ids) for ids, _ in batches)
    told = {"rows held at once": most, "weights and mode left alone": True}
    return {"loss": loss.item(), "gradients": gradients, "dimensions of the loss": 0, **told}


@exercise.probe
def accumulated(accumulate, weights, batches, old=False):
    """Loss, gradients, and of how many rows the graph was kept at once, of a small model built from `weights`."""
    import weakref

    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = (torch.nn.Parameter(weight.clone()) for weight in weights)

        def forward(self, ids):
            return torch.tanh(self.table[ids]) @ self.head

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    passes, most = [(0, weakref.WeakSet())], [0]

    def keep(tensor):
        kept = Kept(tensor)
        passes[-1][1].add(kept)
        return kept

    def begins(module, args):
        passes.append((len(args[0]), weakref.WeakSet()))

    def ends(module, args, logits):
        most[0] = max(most[0], sum(rows for rows, kept in passes if len(kept)))

    model = Model().train(not old)
    model.register_forward_pre_hook(begins)
    model.register_forward_hook(ends)
    if old:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        loss = accumulate(model, [tuple(batch) for batch in batches])
    left = all(torch.equal(now, then) for now, then in zip(model.parameters(), weights, strict=True))
    left = left and model.training is not old
    gradients = [torch.zeros(0) if p.grad is None else p.grad.detach().clone() for p in model.parameters()]
    # To hold less than the largest micro-batch, by cutting it up further, is as good.
    held_at_once = max(most[0], max(len(ids) for ids, _ in batches))
    told = {"rows held at once": held_at_once, "weights and mode left alone": left}
    return {"loss": float(loss), "gradients": gradients, "dimensions of the loss": getattr(loss, "ndim", 0), **told}


@exercise.law("Only one micro-batch's graph is kept at a time")
def one_at_a_time(out, one, call):
    most = max(len(ids) for ids, _ in one.args[1])
    held = out["rows held at once"]
    return held <= most or f"the graphs of {held} rows were kept at once, of the largest micro-batch's {most}"


@exercise.law("Finer micro-batches give the same gradient")
def row_by_row(out, one, call):
    """The same rows, each as a micro-batch of its own, give the same gradient."""
    weights, batches = one.args
    rows = [[ids[i : i + 1], targets[i : i + 1]] for ids, targets in batches for i in range(len(ids))]
    finer = call(weights, rows)
    return all(same(finer[key], out[key], rtol=1e-3, atol=1e-4) for key in ("gradients", "loss"))


@exercise.law("Their order doesn't matter")
def any_order(out, one, call):
    weights, batches = one.args
    turned = call(weights, batches[::-1])
    return all(same(turned[key], out[key], rtol=1e-3, atol=1e-4) for key in ("gradients", "loss"))


@exercise.law("A micro-batch of padding changes nothing")
def padding_is_silent(out, one, call):
    weights, batches = one.args
    more = call(weights, [*batches, [batches[0][0], torch.full_like(batches[0][1], -100)]])
    return all(same(more[key], out[key], rtol=1e-3, atol=1e-4) for key in ("gradients", "loss"))


def _loss(model, ids, targets, reduction="sum"):
    return F.cross_entropy(model(ids).flatten(0, -2), targets.flatten(), reduction=reduction)


def _accumulating(part, told=None, forget=True, between=None):
    """Backward after each micro-batch, on `part(model, ids, targets, batches)`."""

    def accumulate(model, batches):
        if forget:
            model.zero_grad()
        total, plain = 0.0, 0.0
        for ids, targets in batches:
            if between:
                between(model)
            loss = part(model, ids, targets, batches)
            loss.backward()
            total, plain = total + loss.item(), loss.item()
        return told(total, plain, batches) if told else total

    return accumulate


exercise.mistake(
    "the means of the micro-batches are averaged",
    hint=(
        "A micro-batch with few real tokens would count as much as a full one. Sum over tokens, and "
        "divide by the number of tokens in all of them."
    ),
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets, "mean") / len(batches)))

exercise.mistake(
    "the means of the micro-batches are added up",
    hint="Sum over tokens, and divide by the number of tokens in all micro-batches.",
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets, "mean")))

exercise.mistake(
    "the sum over tokens is never divided", hint="Divide by the number of tokens in all micro-batches together."
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets)))

exercise.mistake(
    "padding is counted among the tokens", hint="Targets of -100 count neither in the sum nor in the number."
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets) / sum(t.numel() for _, t in batches)))


def _padding_as_class(model, ids, targets, batches):
    return _loss(model, ids, targets.clamp(min=0)) / sum(t.numel() for _, t in batches)


exercise.mistake(
    "padding is trained on, as class 0", hint="Targets of -100 are to be ignored: F.cross_entropy does so."
)(_accumulating(_padding_as_class))

exercise.mistake("class 0 is taken for padding", hint="Padding is -100. 0 is a class like any other.")(
    _accumulating(
        lambda model, ids, targets, batches: (
            F.cross_entropy(model(ids).flatten(0, 1), targets.clamp(min=0).flatten(), reduction="sum", ignore_index=0)
            / max(sum(int((t > 0).sum()) for _, t in batches), 1)
        )
    )
)

exercise.mistake(
    "micro-batches are weighted by their rows", hint="Rows have different numbers of real tokens. Weight by tokens."
)(
    _accumulating(
        lambda model, ids, targets, batches: (
            _loss(model, ids, targets, "mean") * len(ids) / sum(len(i) for i, _ in batches)
        )
    )
)

exercise.mistake(
    "the sum is divided by the number of micro-batches",
    hint="Divide by the number of tokens in all micro-batches together.",
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets) / len(batches)))

exercise.mistake(
    "the sum is divided by the number of rows", hint="Divide by the number of tokens in all micro-batches together."
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets) / sum(len(i) for i, _ in batches)))

exercise.mistake(
    "each micro-batch is divided by its own number of tokens",
    hint="That is its mean. All of them share one divisor: the tokens of all micro-batches.",
)(_accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets) / max(int((targets != -100).sum()), 1)))


def _tokens(batches):
    return sum(int((targets != -100).sum()) for _, targets in batches)


def _mean_by_share(model, ids, targets, batches):
    """A mean weighted by tokens: not a number where there are none."""
    return _loss(model, ids, targets, "mean") * int((targets != -100).sum()) / _tokens(batches)


exercise.mistake(
    "a micro-batch without tokens gives NaN",
    hint="The mean of no tokens is 0 / 0, whatever you multiply it by. reduction='sum' gives 0.",
)(_accumulating(_mean_by_share))


def _by_tokens(model, ids, targets, batches):
    return _loss(model, ids, targets) / _tokens(batches)


right_accumulation = _accumulating(_by_tokens)


@exercise.mistake("a step is taken as well", hint="Only .grad is wanted. The step is the optimizer's.")
def takes_a_step(model, batches):
    """The right gradients, and a step of gradient descent that nobody asked for."""
    loss = right_accumulation(model, batches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss


@exercise.mistake("the model is put into training mode", hint="The caller has chosen the mode: leave it.")
def puts_into_training(model, batches):
    return right_accumulation(model.train(), batches)


@exercise.mistake("the model is put into evaluation mode", hint="The caller has chosen the mode: leave it.")
def puts_into_evaluation(model, batches):
    return right_accumulation(model.eval(), batches)


exercise.mistake("the targets are shifted once more", hint="targets[r, i] belongs to logits[r, i] already.")(
    _accumulating(
        lambda model, ids, targets, batches: (
            F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), reduction="sum")
            / max(sum(int((t[:, 1:] != -100).sum()) for _, t in batches), 1)
        )
    )
)


@exercise.mistake(
    "the gradient is right, and the mean of the micro-batches' means is returned",
    hint="The mean over all tokens, in which a micro-batch with few of them counts little.",
)
def mean_of_means_told(model, batches):
    right_accumulation(model, batches)
    with torch.no_grad():
        means = [_loss(model, ids, targets, "mean").item() for ids, targets in batches if (targets != -100).any()]
    return sum(means) / len(means)


@exercise.mistake("the gradients are cleared at the end", hint="They are the result: clear them before, not after.")
def clears_at_the_end(model, batches):
    loss = right_accumulation(model, batches)
    model.zero_grad()
    return loss


exercise.mistake(
    "old gradients are kept and added to", hint="backward() adds to .grad. Clear it once, before the first micro-batch."
)(_accumulating(_by_tokens, forget=False))

exercise.mistake(
    "gradients are cleared before every micro-batch",
    hint="Then only the last one is left. Clear them once, before the first.",
)(_accumulating(_by_tokens, between=lambda model: model.zero_grad()))


@exercise.mistake(
    "backward comes once, at the end, or graphs are retained: those of all micro-batches are in memory",
    hint="backward() after each micro-batch frees its graph, unless it is told to retain it.",
)
def all_graphs_at_once(model, batches):
    """One backward at the end: right numbers, and the memory of one big batch."""
    model.zero_grad()
    loss = sum(_loss(model, ids, targets) for ids, targets in batches) / _tokens(batches)
    loss.backward()
    return loss.item()


@exercise.mistake("the loss comes as a list or tensor of one number", hint="A float, or a tensor of no dimension.")
def loss_with_a_dimension(model, batches):
    return torch.tensor([right_accumulation(model, batches)])


exercise.mistake("only the last micro-batch's share of the loss is returned", hint="Return the mean over all tokens.")(
    _accumulating(_by_tokens, told=lambda total, plain, batches: plain)
)

exercise.mistake(
    "the gradient is right, and the returned loss is divided by the micro-batches",
    hint="The parts already add up to the mean over all tokens.",
)(_accumulating(_by_tokens, told=lambda total, plain, batches: total / len(batches)))

exercise.mistake(
    "the gradient is right, and the sum of the losses is returned", hint="Return the mean over all tokens."
)(_accumulating(_by_tokens, told=lambda total, plain, batches: total * _tokens(batches)))

exercise.alternative(right_accumulation)


@exercise.alternative
def divided_afterwards(model, batches):
    """Sums first; the division by the number of tokens comes at the end."""
    for parameter in model.parameters():
        parameter.grad = None
    total = torch.zeros(())
    for ids, targets in batches:
        loss = _loss(model, ids, targets)
        loss.backward()
        total += loss.detach()
    for parameter in model.parameters():
        parameter.grad /= _tokens(batches)
    return total / _tokens(batches)


@exercise.alternative
def cut_up_further(model, batches):
    """Every row is a micro-batch of its own, and rows of padding are passed over."""
    rows = [pair for ids, targets in batches for pair in zip(ids.split(1), targets.split(1), strict=True)]
    return right_accumulation(model, [(ids, targets) for ids, targets in rows if (targets != -100).any()])


@exercise.alternative
def by_functional_gradients(model, batches):
    """No .backward(): autograd.grad, and the sums by hand."""
    parameters = list(model.parameters())
    sums, total = [torch.zeros_like(p) for p in parameters], 0.0
    for ids, targets in batches:
        live = targets != -100
        logs = model(ids).log_softmax(-1)
        loss = -(logs.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1) * live).sum() / _tokens(batches)
        sums = [a + b for a, b in zip(sums, torch.autograd.grad(loss, parameters), strict=True)]
        total += loss.item()
    for parameter, gradient in zip(parameters, sums, strict=True):
        parameter.grad = gradient
    return total
