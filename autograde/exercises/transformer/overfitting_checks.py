"""What the exercises on overfitting are judged by: torch's loss, optimizers and scheduler, cases and laws."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(shape, generator=g)


def _rand(g, *shape):
    return torch.rand(shape, generator=g)


# ---- dropout --------------------------------------------------------------------------------------------------------


def torch_dropout(x, p, noise, training=True):
    """torch's own dropout on the places that `noise` keeps: it decides by chance, so it is asked place by place."""
    if not training:
        return F.dropout(x, p, training=False)
    survivors = x * F.dropout(torch.ones(()), 0.0) / (1 - p) if p < 1 else F.dropout(x, 1.0)
    return torch.where(noise < p, torch.zeros_like(x), survivors)


def dropout_cases(g):
    yield case(_randn(g, 3, 4, 5), 0.3, _rand(g, 3, 4, 5), label="a batch of sentences")
    yield case(_randn(g, 7), 0.5, _rand(g, 7), training=True, label="one vector")
    yield case(_randn(g, 4, 6), 0.25, _rand(g, 4, 6), training=False, label="evaluation")
    yield case(_randn(g, 2, 3), 0.0, _rand(g, 2, 3), label="p = 0 drops nothing")
    yield case(_randn(g, 2, 4), 1.0, _rand(g, 2, 4), label="p = 1 drops everything")
    yield case(_randn(g, 1), 0.6, _rand(g, 1), label="a single number")
    noise = torch.tensor([[0.0, 0.25, 0.5, 0.75], [0.5, 0.4999, 0.5001, 0.5]])
    yield case(_randn(g, 2, 4), 0.5, noise, label="noise exactly at p")
    yield case(_randn(g, 6, 5).T * 1e3, 0.9, _rand(g, 5, 6), label="a transposed view, large numbers")


def keeps_the_mean(out, one, call):
    p = one.args[1]
    if p == 1 or one.kwargs.get("training") is False:
        return None
    noise = (torch.arange(4_000) + 0.5) / 4_000  # every value of the noise once
    return same(call(torch.ones(4_000), p, noise).mean(), torch.tensor(1.0), rtol=2e-3)


def same_in_evaluation(out, one, call):
    x, p, noise = one.args
    return same(call(x, p, noise, training=False), x)


def drops_its_share(out, one, call):
    p = one.args[1]
    noise = (torch.arange(4_000) + 0.5) / 4_000
    gone = (call(torch.ones(4_000), p, noise) == 0).float().mean().item()
    return math.isclose(gone, p, abs_tol=1e-3) or f"{gone:.0%} of the numbers are dropped at p = {p}"


# ---- label_smoothing_loss -------------------------------------------------------------------------------------------


def torch_label_smoothing(logits, targets, smoothing=0.1, ignore_index=-100):
    return F.cross_entropy(logits, targets, label_smoothing=smoothing, ignore_index=ignore_index)


def smoothing_cases(g):
    def some(rows, vocabulary, scale=2.0, padding=(), fill=-100, **options):
        targets = torch.randint(vocabulary, (rows,), generator=g)
        targets[list(padding)] = fill
        return case(_randn(g, rows, vocabulary) * scale, targets, **options)

    yield some(5, 7, label="the default, 0.1")
    yield some(4, 5, smoothing=0.3, label="smoothing=0.3")
    yield some(6, 4, padding=[1, 5], smoothing=0.2, label="two rows of padding")
    yield some(3, 6, smoothing=0.0, label="no smoothing")
    yield some(1, 9, smoothing=0.5, label="a single row")
    yield some(7, 2, padding=[0], label="two classes, one row of padding")
    yield some(4, 6, scale=100.0, label="large logits")
    yield some(5, 3, padding=[2], fill=-1, ignore_index=-1, smoothing=0.4, label="ignore_index=-1")
    yield some(3, 5, smoothing=1.0, label="smoothing=1")


def plain_without_smoothing(out, one, call):
    logits, targets = one.args
    ignored = one.kwargs.get("ignore_index", -100)
    right = F.cross_entropy(logits, targets, ignore_index=ignored)
    return same(call(logits, targets, smoothing=0.0, ignore_index=ignored), right, rtol=1e-3)


def deaf_at_one(out, one, call):
    logits, targets = one.args
    ignored = one.kwargs.get("ignore_index", -100)
    others = torch.where(targets == ignored, targets, (targets + 1) % logits.shape[-1])
    options = {"smoothing": 1.0, "ignore_index": ignored}
    return same(call(logits, others, **options), call(logits, targets, **options), rtol=1e-3)


def shift_of_logits(out, one, call):
    return same(call(one.args[0] + 5, one.args[1], **one.kwargs), out, rtol=1e-3, atol=1e-3)


# ---- EarlyStopping --------------------------------------------------------------------------------------------------


def run_stopper(stopper, losses, patience, min_delta=0.0):
    """Report one loss after another; what `step` said each time, and what is remembered at the end."""
    stopping = stopper(patience, min_delta=min_delta) if min_delta else stopper(patience)
    said = [bool(stopping.step(loss)) for loss in losses]
    return {"stop": said, "best": float(stopping.best), "best_step": int(stopping.best_step)}


def torch_plateau(losses, patience, min_delta=0.0):
    """torch's ReduceLROnPlateau lowers the learning rate where we stop."""
    said = []
    for upto in range(1, len(losses) + 1):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=10**6, threshold=min_delta, threshold_mode="abs"
        )
        best_step = -1
        for i, loss in enumerate(losses[:upto]):
            before = plateau.best
            plateau.step(loss)
            best_step = i if plateau.best != before else best_step
        said.append(plateau.num_bad_epochs >= patience)
    return {"stop": said, "best": float(plateau.best), "best_step": best_step}


def stopper_cases(g):
    def walk(steps, drift):
        return [round(v, 3) for v in (3 + (drift + 0.3 * _randn(g, steps)).cumsum(0)).tolist()]

    yield case([1.0, 0.8, 0.9, 0.7, 0.75, 0.72, 0.71, 0.8], 3, label="down, then up")
    yield case([2.0, 1.5, 1.6, 1.4, 1.5, 1.3, 1.4, 1.2, 1.3], 2, label="every other step better")
    yield case([1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7], 2, min_delta=0.12, label="small gains, min_delta=0.12")
    yield case([1.0, 1.0, 1.0, 1.0], 2, label="always the same")
    yield case([1.0, math.nan, math.nan, 0.5], 2, label="NaN is no improvement")
    yield case([0.5, 0.9, 0.8, 0.7, 0.6], 3, label="falling, but never below the first")
    yield case([0.7], 1, label="a single step")
    yield case([-1.0, -2.0, -1.5, -3.0, -2.0], 1, label="negative losses, patience 1")
    yield case(walk(14, 0.02), 3, label="a random walk")
    yield case(walk(14, -0.05), 2, min_delta=0.05, label="a falling random walk, min_delta=0.05")


def remembers_the_best(out, one, call):
    if one.kwargs.get("min_delta"):
        return None
    real = [loss for loss in one.args[0] if not math.isnan(loss)]
    return out["best"] == min(real) and one.args[0][out["best_step"]] == min(real)


def goes_on_while_it_gets_better(out, one, call):
    falling = [10.0 - i for i in range(8)]
    return not any(call(falling, one.args[1])["stop"])


def stops_after_patience(out, one, call):
    patience = one.args[1]
    said = call([1.0] + [2.0] * patience, patience)["stop"]
    return said == [False] * patience + [True]


# ---- adam_with_decay ------------------------------------------------------------------------------------------------


def torch_adam(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    w = weight.clone().requires_grad_()
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([w], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    for gradient in gradients:
        w.grad = gradient.clone()
        optimizer.step()
    return w.detach()


def adam_cases(g):
    def some(steps, *shape, scale=1.0, **options):
        return case(_randn(g, *shape), _randn(g, steps, *shape) * scale, **options)

    yield some(5, 4, 3, lr=0.1, weight_decay=0.2, label="decoupled decay")
    yield some(5, 4, 3, lr=0.1, weight_decay=0.2, decoupled=False, label="L2 in the loss")
    yield some(1, 6, lr=0.05, weight_decay=0.5, label="one step")
    yield some(3, 5, label="the defaults, without decay")
    yield some(4, 1, lr=0.2, weight_decay=0.3, decoupled=False, label="a single weight, L2")
    yield some(6, 2, 3, lr=0.1, weight_decay=0.1, betas=(0.5, 0.9), label="betas=(0.5, 0.9)")
    yield some(4, 3, scale=1e-4, lr=0.1, weight_decay=0.1, eps=1e-3, label="tiny gradients, eps=1e-3")
    yield some(3, 2, 2, scale=100.0, lr=0.1, weight_decay=0.4, decoupled=False, label="large gradients, L2")


def shrinks_by_itself(out, one, call):
    weight = one.args[0]
    still = torch.zeros(3, *weight.shape)
    return same(call(weight, still, lr=0.1, weight_decay=0.5, decoupled=True), weight * 0.95**3)


def size_of_gradients(out, one, call):
    """Adam's steps don't depend on the gradients' scale."""
    weight, gradients = one.args
    small, large = (call(weight, gradients * scale, lr=0.1, eps=0.0) for scale in (1.0, 50.0))
    return same(small, large, rtol=1e-3, atol=1e-3)


def l2_is_adapted(out, one, call):
    """With L2 in the loss a weight shrinks less where its gradients are large; with decoupled decay it does not."""
    weight, gradients = torch.ones(2), torch.tensor([[1.0, 100.0], [-1.0, -100.0]] * 3)

    def shrinkage(decoupled):
        options = {"lr": 0.01, "decoupled": decoupled}
        return call(weight, gradients, **options) - call(weight, gradients, weight_decay=0.5, **options)

    apart = shrinkage(True)
    return same(apart[0], apart[1], rtol=1e-3, atol=1e-4) and shrinkage(False)[0] > 5 * shrinkage(False)[1].abs()
