"""What accumulation, clipping and loss scaling in 01_transformer/07_training_recipe are judged by."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


# ---- accumulate_gradients -------------------------------------------------------------------------------------------

def accumulated(accumulate, weights, batches, old=False):
    """Loss, gradients, and how many rows were in memory at once, of a small model built from `weights`."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = (torch.nn.Parameter(weight.clone()) for weight in weights)

        def forward(self, ids):
            return torch.tanh(self.table[ids]) @ self.head

    held, most = [0], [0]

    def forwarded(module, args, logits):
        if logits.requires_grad:
            rows = args[0].shape[0]
            held[0] += rows
            most[0] = max(most[0], held[0])

            def released(gradient):
                held[0] -= rows

            logits.register_hook(released)

    model = Model()
    model.register_forward_hook(forwarded)
    if old:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)
    loss = accumulate(model, [tuple(batch) for batch in batches])
    left = all(torch.equal(now, then) for now, then in zip(model.parameters(), weights, strict=True))
    gradients = [torch.zeros(0) if p.grad is None else p.grad.detach().clone() for p in model.parameters()]
    # To hold less than the largest micro-batch, by cutting it up further, is as good.
    held_at_once = max(most[0], max(len(ids) for ids, _ in batches))
    return {"loss": float(loss), "gradients": gradients, "rows held at once": held_at_once, "weights left alone": left}


def one_big_batch(weights, batches, old=False):
    table, head = (weight.clone().requires_grad_() for weight in weights)
    ids, targets = (torch.cat([batch[i].flatten() for batch in batches]) for i in (0, 1))
    loss = F.cross_entropy(torch.tanh(table[ids]) @ head, targets)
    gradients = list(torch.autograd.grad(loss, [table, head]))
    most = max(len(ids) for ids, _ in batches)
    return {"loss": loss.item(), "gradients": gradients, "rows held at once": most, "weights left alone": True}


def accumulate_cases(g):
    def some(*sizes, letters=5, width=3, padded=(), scale=1.0):
        """Micro-batches of the given (rows, n); those in `padded` have some targets of -100."""
        batches = []
        for i, (rows, n) in enumerate(sizes):
            ids, targets = torch.randint(letters, (2, rows, n), generator=g)
            if i in padded:
                targets[:, max(1, n // 3) :] = -100
            batches.append([ids, targets])
        return [_randn(g, letters, width) * scale, _randn(g, width, letters) * scale], batches

    yield case(*some((2, 4), (2, 4)), label="two equal micro-batches")
    yield case(*some((2, 6), (2, 6), padded=[1]), label="the second is padded")
    yield case(*some((1, 3), (4, 3), (2, 3)), label="unequal numbers of rows")
    yield case(*some((3, 7), (1, 2), (2, 5), padded=[0]), label="unequal lengths, some padding")
    yield case(*some((3, 4)), label="a single micro-batch")
    yield case(*some((1, 1), (1, 3)), old=True, label="old gradients lie about")
    yield case(*some((2, 5), (2, 5), (2, 5), padded=[0, 2], scale=3.0), old=True, label="three, large weights")
    weights, batches = some((2, 4), (2, 3))
    batches.insert(1, [batches[0][0], torch.full((2, 4), -100)])
    yield case(weights, batches, label="one micro-batch is all padding")


def row_by_row(out, one, call):
    """The same rows, each as a micro-batch of its own, give the same gradient."""
    weights, batches = one.args
    rows = [[ids[i : i + 1], targets[i : i + 1]] for ids, targets in batches for i in range(len(ids))]
    finer = call(weights, rows)
    return all(same(finer[key], out[key], rtol=1e-3, atol=1e-4) for key in ("gradients", "loss"))


def any_order(out, one, call):
    weights, batches = one.args
    turned = call(weights, batches[::-1])
    return all(same(turned[key], out[key], rtol=1e-3, atol=1e-4) for key in ("gradients", "loss"))


def padding_is_silent(out, one, call):
    weights, batches = one.args
    more = call(weights, [*batches, [batches[0][0], torch.full_like(batches[0][1], -100)]])
    return all(same(more[key], out[key], rtol=1e-3, atol=1e-4) for key in ("gradients", "loss"))


def one_at_a_time(out, one, call):
    most = max(len(ids) for ids, _ in one.args[1])
    held = out["rows held at once"]
    return held <= most or f"the graphs of {held} rows were kept at once, of the largest micro-batch's {most}"


# ---- clip_grad_norm -------------------------------------------------------------------------------------------------

def torch_clipped(gradients, max_norm):
    parameters = [None if g is None else torch.zeros_like(g).requires_grad_() for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter is not None:
            parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_([p for p in parameters if p is not None], max_norm)
    return [None if p is None else p.grad for p in parameters], norm


def clip_cases(g):
    yield case([_randn(g, 3, 4), _randn(g, 5)], 1.0, label="a matrix and a vector")
    yield case([_randn(g, 3, 4) * 1e-3, _randn(g, 5) * 1e-3], 1.0, label="small ones")
    yield case([_randn(g, 2, 3) * 200, _randn(g, 4), _randn(g, 2, 2, 2)], max_norm=5.0, label="one is much larger")
    yield case([_randn(g, 4), None, _randn(g, 3, 2)], 0.5, label="one parameter took no part")
    yield case([torch.zeros(3), torch.zeros(2, 2)], 1.0, label="all zero")
    yield case([torch.tensor(-3.0)], 0.25, label="a single number")
    yield case([_randn(g, 3), _randn(g, 3)], 1000.0, label="a generous limit")
    yield case([_randn(g, 2, 3).double() * 40, _randn(g, 4).double()], 2.0, label="float64")
    yield case([torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [-4.0]])], 5.0, label="exactly on the limit")
    yield case([_randn(g, 4, 6).T * 7, torch.zeros(0), _randn(g, 1)], 3.0, label="not contiguous, and an empty one")


def _norm(gradients):
    return torch.cat([gradient.flatten().double() for gradient in gradients if gradient is not None]).norm()


def is_short_enough(out, one, call):
    max_norm = one.kwargs.get("max_norm") or one.args[1]
    return bool(_norm(out[0]) <= max_norm * (1 + 1e-4))


def keeps_the_direction(out, one, call):
    """All entries are multiplied by one and the same positive number."""
    before, after = (torch.cat([g.flatten().double() for g in part if g is not None]) for part in (one.args[0], out[0]))
    return None if not before.any() else bool(F.cosine_similarity(before, after, dim=0) > 1 - 1e-5)


def small_ones_stay(out, one, call):
    gradients = one.args[0]
    clipped, norm = call(gradients, float(_norm(gradients)) * 1.5 + 1.0)
    return same(clipped, gradients, rtol=1e-5, atol=0.0) and same(float(norm), float(_norm(gradients)))


def keeps_dtypes(out, one, call):
    return all(a is None or a.dtype == b.dtype for a, b in zip(out[0], one.args[0], strict=True))


# ---- grad_scaler_step -----------------------------------------------------------------------------------------------

def torch_scaler(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
    """torch's GradScaler, on float32 copies: it unscales float32 gradients only."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    state = {"scale": scale, "growth_factor": growth_factor, "backoff_factor": backoff_factor,
             "growth_interval": growth_interval, "_growth_tracker": good_steps}
    scaler.load_state_dict(state)
    scaler.scale(torch.zeros(1))  # makes the scale's tensor
    parameters = [torch.zeros(gradient.shape, requires_grad=True) for gradient in scaled]
    for parameter, gradient in zip(parameters, scaled, strict=True):
        parameter.grad = gradient.float().clone()
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    after = scaler.state_dict()
    clean = all(gradient.isfinite().all() for gradient in scaled)
    return [p.grad for p in parameters] if clean else None, after["scale"], after["_growth_tracker"]


def scaler_cases(g):
    def some(*shapes, dtype=torch.float32, size=1.0):
        return [(_randn(g, *shape) * size).to(dtype) for shape in shapes]

    def spoilt(value, at=0, dtype=torch.float32):
        gradients = some((3, 2), (4,), dtype=dtype)
        gradients[at].view(-1)[1] = value
        return gradients

    yield case(some((2, 3), (4,)), 1024.0, 7, label="a clean step")
    yield case(some((5,)), 512.0, 3, growth_interval=4, label="the last clean step of the interval")
    yield case(some((5,)), 512.0, 2, growth_interval=4, label="the last but one")
    yield case(spoilt(math.inf), 65536.0, 30, label="an infinity")
    yield case(spoilt(-math.inf, at=1), 256.0, 0, backoff_factor=0.25, label="minus infinity, in the last tensor")
    yield case(spoilt(math.nan, at=1), 128.0, 11, growth_factor=4.0, growth_interval=12, label="a NaN")
    yield case(some((3, 3), (2,), dtype=torch.float16, size=1e-4), 65536.0, 1, label="tiny float16 gradients")
    yield case(spoilt(math.inf, dtype=torch.float16), 64.0, 1, growth_interval=2, label="a float16 overflow")
    yield case(spoilt(math.inf), 1.0, 0, label="an infinity at a scale of 1")
    yield case(some((2,), size=100.0), 8.0, 0, growth_factor=3.0, growth_interval=1, label="grows every step")
    yield case([torch.tensor([1e30, -1e30]), torch.zeros(2)], 2.0, 5, label="large, but finite")
    yield case(some((1,)), 0.5, 1999, label="a scale below 1, and the default interval ends")


def divides_by_the_scale(out, one, call):
    scaled, scale, _ = one.args
    if out[0] is None:
        return not all(gradient.isfinite().all() for gradient in scaled)
    return same(out[0], [gradient.float() / scale for gradient in scaled], rtol=1e-3, atol=1e-12)


def is_float32(out, one, call):
    return None if out[0] is None else all(gradient.dtype == torch.float32 for gradient in out[0])


def an_overflow_is_skipped(out, one, call):
    """An infinity anywhere: no gradients, a lower scale, and the count starts again."""
    scaled, scale, _ = one.args
    spoilt = [*scaled, torch.tensor([0.0, math.inf])]
    gradients, lower, count = call(spoilt, scale, 9, backoff_factor=0.125)
    return gradients is None and lower == scale / 8 and count == 0


def grows_after_the_interval(out, one, call):
    """Ten clean steps in a row with an interval of 4: the scale grows twice."""
    scale, count = 16.0, 0
    for _ in range(10):
        _, scale, count = call([torch.ones(2)], scale, count, growth_factor=2.0, growth_interval=4)
    return scale == 64.0 and count == 2
