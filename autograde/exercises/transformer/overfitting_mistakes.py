"""Right and wrong cures for overfitting, for the exercises of 01_transformer/08_overfitting."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- dropout --------------------------------------------------------------------------------------------------------


def dropping(
    keeps=lambda noise, p: noise >= p, scale=lambda p: 1 / (1 - p), in_eval=lambda x, p, noise: x, all_gone=True
):
    """`dropout` from its parts: what is kept, what the kept is multiplied by, and what evaluation does."""

    def dropout(x, p, noise, training=True):
        if not training:
            return in_eval(x, p, noise)
        if p == 1 and all_gone:
            return torch.zeros_like(x)
        return x * keeps(noise, p) * scale(p)

    return dropout


drop_unscaled = dropping(scale=lambda p: 1.0)
drop_scaled_down = dropping(scale=lambda p: 1 - p)
drop_divided_by_p = dropping(scale=lambda p: 1 / p if p else 1.0)
drop_keeps_with_p = dropping(keeps=lambda noise, p: noise < p)
drop_boundary = dropping(keeps=lambda noise, p: noise > p)
drop_in_eval = dropping(in_eval=dropping())
drop_scales_in_eval = dropping(scale=lambda p: 1.0, in_eval=lambda x, p, noise: x * (1 - p))
drop_whole_rows = dropping(keeps=lambda noise, p: (noise >= p)[..., :1])


def drop_nan_at_one(x, p, noise, training=True):
    return x * (noise >= p) / torch.tensor(1.0 - p) if training else x


def drop_to_minus_infinity(x, p, noise, training=True):
    return (x / max(1 - p, 1e-9)).masked_fill(noise < p, -torch.inf) if training else x


def drop_by_where(x, p, noise, training=True):
    if not training or p == 0:
        return x.clone()
    zeros = torch.zeros((), dtype=x.dtype)
    return zeros.expand_as(x).clone() if p == 1 else torch.where(noise.lt(p), zeros, x.div(1 - p))


def drop_by_loop(x, p, noise, training=True):
    pairs = zip(x.flatten().tolist(), noise.flatten().tolist(), strict=True)
    rate = torch.tensor(p, dtype=noise.dtype).item()
    kept = [(0.0 if n < rate else v / (1 - p)) if training else v for v, n in pairs]
    return torch.tensor(kept, dtype=x.dtype).reshape(x.shape)


# ---- label_smoothing_loss -------------------------------------------------------------------------------------------


def smoothed(
    uniform=lambda logs, picked, s: s * -logs.mean(-1),
    true=lambda picked, s: (1 - s) * -picked,
    logs=lambda logits: logits.log_softmax(-1),
    reduce=lambda losses, live: losses[live].mean(),
):
    """`label_smoothing_loss` from its parts."""

    def label_smoothing_loss(logits, targets, smoothing=0.1, ignore_index=-100):
        live = targets != ignore_index
        scores = logs(logits)
        picked = scores.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return reduce(true(picked, smoothing) + uniform(scores, picked, smoothing), live)

    return label_smoothing_loss


smooth_others_only = smoothed(uniform=lambda logs, picked, s: s * (picked - logs.sum(-1)) / max(logs.shape[-1] - 1, 1))
smooth_without_uniform = smoothed(uniform=lambda logs, picked, s: 0.0)
smooth_on_top = smoothed(true=lambda picked, s: -picked)
smooth_summed_uniform = smoothed(uniform=lambda logs, picked, s: s * -logs.sum(-1))
smooth_swapped = smoothed(uniform=lambda logs, picked, s: (1 - s) * -logs.mean(-1), true=lambda picked, s: s * -picked)
smooth_ignored = smoothed(uniform=lambda logs, picked, s: 0.0, true=lambda picked, s: -picked)
smooth_without_logarithm = smoothed(logs=lambda logits: logits.softmax(-1))
smooth_raw_logits = smoothed(logs=lambda logits: logits)
smooth_over_all = smoothed(reduce=lambda losses, live: (losses * live).mean())
smooth_counts_padding = smoothed(reduce=lambda losses, live: losses.mean())
smooth_summed = smoothed(reduce=lambda losses, live: losses[live].sum())
smooth_per_token = smoothed(reduce=lambda losses, live: losses[live])


def smooth_by_targets(logits, targets, smoothing=0.1, ignore_index=-100):
    rows = targets.ne(ignore_index).nonzero().flatten()
    wanted = torch.full_like(logits[rows], smoothing / logits.shape[-1])
    wanted[torch.arange(len(rows)), targets[rows]] += 1 - smoothing
    return torch.einsum("nv,nv->", wanted, -F.log_softmax(logits[rows], 1)) / len(rows)


def smooth_by_loop(logits, targets, smoothing=0.1, ignore_index=-100):
    losses = []
    for row, target in zip(logits.double(), targets.tolist(), strict=True):
        if target != ignore_index:
            total = torch.logsumexp(row, 0)
            losses.append((1 - smoothing) * (total - row[target]) + smoothing * (total - row).mean())
    return (sum(losses) / len(losses)).to(logits.dtype)


# ---- EarlyStopping --------------------------------------------------------------------------------------------------


class Stopper:
    """Early stopping, right; what the mistakes below change is each a method or an attribute."""

    slack = 0

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.best, self.best_step, self.bad, self.count = math.inf, -1, 0, 0

    def better(self, loss):
        return loss < self.best - self.min_delta

    def improved(self, loss):
        self.best, self.best_step, self.bad = loss, self.count, 0

    def step(self, loss):
        if self.better(loss):
            self.improved(loss)
        else:
            self.bad += 1
        self.count += 1
        return self.bad >= self.patience + self.slack


class StopsOneLate(Stopper):
    slack = 1


class StopsOneEarly(Stopper):
    slack = -1

    def step(self, loss):
        return super().step(loss) and self.bad > 0


class StopsOnTotal(Stopper):
    def improved(self, loss):
        self.best, self.best_step = loss, self.count


class StopsByPrevious(Stopper):
    previous = math.inf

    def better(self, loss):
        better, self.previous = loss < self.previous - self.min_delta, loss
        return better


class StopsUpsideDown(Stopper):
    def __init__(self, patience, min_delta=0.0):
        super().__init__(patience, min_delta)
        self.best = -math.inf

    def better(self, loss):
        return loss > self.best + self.min_delta


class StopsWithoutDelta(Stopper):
    def better(self, loss):
        return loss < self.best


class StopsOnTies(Stopper):
    def better(self, loss):
        return loss <= self.best - self.min_delta


class StopsNeverForNaN(Stopper):
    def better(self, loss):
        return not loss >= self.best - self.min_delta


class StopsKeepsLast(Stopper):
    def step(self, loss):
        stop = super().step(loss)
        self.best_step = self.count - 1
        return stop


class StopsTracksEverySmallGain(Stopper):
    """Counts by min_delta, but lets `best` creep down with gains that are too small to count."""

    def step(self, loss):
        stop = super().step(loss)
        if loss < self.best:
            self.best, self.best_step = loss, self.count - 1
        return stop


class StopsByHistory:
    """Keeps all losses and works everything out anew."""

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta, self.losses = patience, min_delta, []
        self.best, self.best_step = float("inf"), -1

    def step(self, loss):
        self.losses.append(float(loss))
        if self.losses[-1] + self.min_delta < self.best or (self.best == math.inf and not math.isnan(loss)):
            self.best, self.best_step = self.losses[-1], len(self.losses) - 1
        return len(self.losses) - 1 - self.best_step >= self.patience


# ---- adam_with_decay ------------------------------------------------------------------------------------------------


def adam(
    decoupled_as=lambda decoupled: decoupled,
    decay=lambda w, lr, wd: w - lr * wd * w,
    corrections=(True, True),
    eps_inside=False,
    l2=lambda w, g, wd: g + wd * w,
    square=lambda g: g * g,
):
    """`adam_with_decay` from its parts."""

    def adam_with_decay(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
        w, m, v = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
        for t, g in enumerate(gradients, start=1):
            if decoupled_as(decoupled):
                w = decay(w, lr, weight_decay)
            else:
                g = l2(w, g, weight_decay)
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * square(g)
            m_hat = m / (1 - betas[0] ** t) if corrections[0] else m
            v_hat = v / (1 - betas[1] ** t) if corrections[1] else v
            w = w - lr * m_hat / ((v_hat + eps).sqrt() if eps_inside else v_hat.sqrt() + eps)
        return w

    return adam_with_decay


adam_always_decoupled = adam(decoupled_as=lambda decoupled: True)
adam_never_decoupled = adam(decoupled_as=lambda decoupled: False)
adam_swapped = adam(decoupled_as=lambda decoupled: not decoupled)
adam_decay_without_lr = adam(decay=lambda w, lr, wd: w - wd * w)
adam_uncorrected = adam(corrections=(False, False))
adam_first_uncorrected = adam(corrections=(False, True))
adam_second_uncorrected = adam(corrections=(True, False))
adam_eps_inside = adam(eps_inside=True)
adam_l2_subtracted = adam(l2=lambda w, g, wd: g - wd * w)
adam_l2_twice = adam(l2=lambda w, g, wd: g + 2 * wd * w)


def adam_without_second_moment(
    weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8
):
    w, m = weight, torch.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        w, g = (w - lr * weight_decay * w, g) if decoupled else (w, g + weight_decay * w)
        m = betas[0] * m + (1 - betas[0]) * g
        w = w - lr * m / (1 - betas[0] ** t)
    return w


def adam_without_decay(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    return adam()(weight, gradients, lr, 0.0, decoupled, betas, eps)


def adam_by_scale(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    (b1, b2), w = betas, weight.double()
    m = v = torch.zeros_like(w)
    for t in range(1, len(gradients) + 1):
        g = gradients[t - 1].double() + (0 if decoupled else weight_decay) * w
        m, v = torch.lerp(g, m, b1), torch.lerp(g.square(), v, b2)
        step = (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + eps)
        w = w * (1 - lr * weight_decay * decoupled) - lr * step
    return w.to(weight.dtype)


def adam_in_place_on_copies(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    w, m, v = weight.detach().clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for t, gradient in enumerate(gradients.unbind(0)):
        g = gradient.clone() if decoupled else torch.add(gradient, w, alpha=weight_decay)
        if decoupled:
            w.mul_(1 - lr * weight_decay)
        m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
        v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        size = (v.sqrt() / math.sqrt(1 - betas[1] ** (t + 1))).add_(eps)
        w.addcdiv_(m, size, value=-lr / (1 - betas[0] ** (t + 1)))
    return w
