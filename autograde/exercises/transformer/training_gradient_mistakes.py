"""Wrong ways to accumulate, clip and unscale gradients, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- accumulate_gradients -------------------------------------------------------------------------------------------


def _loss(model, ids, targets, reduction="sum"):
    return F.cross_entropy(model(ids).flatten(0, -2), targets.flatten(), reduction=reduction)


def _tokens(batches):
    return sum(int((targets != -100).sum()) for _, targets in batches)


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


def _by_tokens(model, ids, targets, batches):
    return _loss(model, ids, targets) / _tokens(batches)


accumulated = _accumulating(_by_tokens)
mean_of_means = _accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets, "mean") / len(batches))
sum_of_means = _accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets, "mean"))
sum_of_tokens = _accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets))
padding_counted = _accumulating(
    lambda model, ids, targets, batches: _loss(model, ids, targets) / sum(t.numel() for _, t in batches)
)
weighted_by_rows = _accumulating(
    lambda model, ids, targets, batches: _loss(model, ids, targets, "mean") * len(ids) / sum(len(i) for i, _ in batches)
)
batches_counted = _accumulating(lambda model, ids, targets, batches: _loss(model, ids, targets) / len(batches))
rows_counted = _accumulating(
    lambda model, ids, targets, batches: _loss(model, ids, targets) / sum(len(i) for i, _ in batches)
)
own_tokens_counted = _accumulating(
    lambda model, ids, targets, batches: _loss(model, ids, targets) / max(int((targets != -100).sum()), 1)
)
old_kept = _accumulating(_by_tokens, forget=False)
only_the_last = _accumulating(_by_tokens, between=lambda model: model.zero_grad())
last_loss_told = _accumulating(_by_tokens, told=lambda total, plain, batches: plain)
mean_loss_told = _accumulating(_by_tokens, told=lambda total, plain, batches: total / len(batches))
sum_told = _accumulating(_by_tokens, told=lambda total, plain, batches: total * _tokens(batches))


def _mean_by_share(model, ids, targets, batches):
    """A mean weighted by tokens: not a number where there are none."""
    return _loss(model, ids, targets, "mean") * int((targets != -100).sum()) / _tokens(batches)


nan_from_padding = _accumulating(_mean_by_share)


def _padding_as_class(model, ids, targets, batches):
    return _loss(model, ids, targets.clamp(min=0)) / sum(t.numel() for _, t in batches)


padding_is_class_zero = _accumulating(_padding_as_class)


def takes_a_step(model, batches):
    """The right gradients, and a step of gradient descent that nobody asked for."""
    loss = accumulated(model, batches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss


def all_graphs_at_once(model, batches):
    """One backward at the end: right numbers, and the memory of one big batch."""
    model.zero_grad()
    loss = sum(_loss(model, ids, targets) for ids, targets in batches) / _tokens(batches)
    loss.backward()
    return loss.item()


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


def cut_up_further(model, batches):
    """Every row is a micro-batch of its own, and rows of padding are passed over."""
    rows = [pair for ids, targets in batches for pair in zip(ids.split(1), targets.split(1), strict=True)]
    return accumulated(model, [(ids, targets) for ids, targets in rows if (targets != -100).any()])


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


# ---- clip_grad_norm -------------------------------------------------------------------------------------------------


def _live(gradients):
    return [gradient for gradient in gradients if gradient is not None]


def _total(gradients):
    return torch.stack([gradient.norm() for gradient in _live(gradients)]).norm()


def _factor(norm, max_norm):
    return (max_norm / (norm + 1e-6)).clamp(max=1.0)


def _scaled(gradients, factor):
    return [None if gradient is None else gradient * factor for gradient in gradients]


def _clipping(norm=_total, factor=_factor):
    """Multiply by `factor(norm(gradients), max_norm)` and tell the norm."""

    def clip(gradients, max_norm):
        size = norm(gradients)
        return _scaled(gradients, factor(size, max_norm)), size

    return clip


clipped = _clipping()
clipped_scaled_up = _clipping(factor=lambda norm, max_norm: max_norm / (norm + 1e-6))
clipped_upside_down = _clipping(factor=lambda norm, max_norm: (norm / max_norm).clamp(max=1.0))
clipped_by_square = _clipping(norm=lambda gradients: _total(gradients) ** 2)
clipped_by_sum = _clipping(norm=lambda gradients: sum(gradient.norm() for gradient in _live(gradients)))
clipped_by_largest = _clipping(norm=lambda gradients: torch.stack([g.norm() for g in _live(gradients)]).max())
clipped_by_l1 = _clipping(norm=lambda gradients: sum(gradient.abs().sum() for gradient in _live(gradients)))
clipped_by_mean = _clipping(
    norm=lambda gradients: torch.cat([g.flatten() for g in _live(gradients)]).square().mean().sqrt()
)
clipped_by_entry = _clipping(norm=lambda gradients: torch.cat([g.flatten() for g in _live(gradients)]).abs().max())
clipped_to_one = _clipping(factor=lambda norm, max_norm: _factor(norm, 1.0) if norm > max_norm else torch.ones(()))
clipped_never = _clipping(factor=lambda norm, max_norm: 1.0)
clipped_to_zero = _clipping(factor=lambda norm, max_norm: (norm <= max_norm).to(norm.dtype))


def clipped_by_value(gradients, max_norm):
    return [None if g is None else g.clamp(-max_norm, max_norm) for g in gradients], _total(gradients)


def clipped_one_by_one(gradients, max_norm):
    return [None if g is None else g * _factor(g.norm(), max_norm) for g in gradients], _total(gradients)


def clipped_norm_told(gradients, max_norm):
    """The norm after the clipping is told instead of the one before."""
    after = clipped(gradients, max_norm)[0]
    return after, _total(after)


def none_as_zero(gradients, max_norm):
    return [torch.zeros(1) if gradient is None else gradient for gradient in clipped(gradients, max_norm)[0]], _total(
        gradients
    )


def none_left_out(gradients, max_norm):
    after, norm = clipped(gradients, max_norm)
    return _live(after), norm


def clipped_in_place(gradients, max_norm):
    norm = _total(gradients)
    for gradient in _live(gradients):
        gradient.mul_(_factor(norm, max_norm))
    return gradients, norm


def clipped_flat(gradients, max_norm):
    """All entries as one long vector, and an if."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients if gradient is not None])
    norm = math.sqrt(float((flat.double() ** 2).sum()))
    factor = max_norm / norm if norm > max_norm else 1.0
    return tuple(None if gradient is None else gradient * factor for gradient in gradients), norm


# ---- grad_scaler_step -----------------------------------------------------------------------------------------------


def _is_clean(gradients):
    return all(bool(gradient.isfinite().all()) for gradient in gradients)


def _divided(scaled, scale):
    return [gradient.float() / scale for gradient in scaled]


def _scaling(clean=_is_clean, unscale=_divided, back=None, on=None, spoilt=None):
    """GradScaler in parts: the look for overflow, the division, and the new (scale, count) after either outcome."""

    def step(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
        if not clean(scaled):
            kept = spoilt(unscale(scaled, scale)) if spoilt else None
            return kept, *(back or _back)(scale, good_steps, backoff_factor)
        return unscale(scaled, scale), *(on or _on)(scale, good_steps, growth_factor, growth_interval)

    return step


def _back(scale, count, factor):
    return scale * factor, 0


def _on(scale, count, factor, interval):
    return (scale * factor, 0) if count + 1 == interval else (scale, count + 1)


scaled_step = _scaling()
divided_in_half = _scaling(unscale=lambda scaled, scale: [(gradient / scale).float() for gradient in scaled])
precision_kept = _scaling(unscale=lambda scaled, scale: [(g.float() / scale).to(g.dtype) for g in scaled])
multiplied = _scaling(unscale=lambda scaled, scale: [gradient.float() * scale for gradient in scaled])
not_divided = _scaling(unscale=lambda scaled, scale: [gradient.float() for gradient in scaled])
never_looks = _scaling(clean=lambda gradients: True)
looks_for_nan = _scaling(clean=lambda gradients: not any(bool(g.isnan().any()) for g in gradients))
looks_for_inf = _scaling(clean=lambda gradients: not any(bool(g.isinf().any()) for g in gradients))
looks_at_the_first = _scaling(clean=lambda gradients: _is_clean(gradients[:1]))
looks_at_the_sum = _scaling(clean=lambda gradients: all(bool((g.float() ** 2).sum().isfinite()) for g in gradients))
step_not_skipped = _scaling(spoilt=lambda gradients: gradients)
zeros_instead = _scaling(spoilt=lambda gradients: [torch.zeros_like(gradient) for gradient in gradients])
holes_patched = _scaling(spoilt=lambda gradients: [g.nan_to_num(0.0, 0.0, 0.0) for g in gradients])
scale_stays_after_overflow = _scaling(back=lambda scale, count, factor: (scale, 0))
scale_grows_after_overflow = _scaling(back=lambda scale, count, factor: (scale / factor, 0))
count_goes_on_after_overflow = _scaling(back=lambda scale, count, factor: (scale * factor, count))
overflow_counts_as_step = _scaling(back=lambda scale, count, factor: (scale * factor, count + 1))
never_below_one = _scaling(back=lambda scale, count, factor: (max(1.0, scale * factor), 0))
half_whatever = _scaling(back=lambda scale, count, factor: (scale / 2, 0))
grows_each_step = _scaling(on=lambda scale, count, factor, interval: (scale * factor, 0))
never_grows = _scaling(on=lambda scale, count, factor, interval: (scale, count + 1))
count_not_restarted = _scaling(
    on=lambda scale, count, factor, interval: (scale * (factor if count + 1 == interval else 1), count + 1)
)
doubles_whatever = _scaling(
    on=lambda scale, count, factor, interval: (scale * 2, 0) if count + 1 == interval else (scale, count + 1)
)


def divided_by_the_next(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
    """The scale is renewed first, and the new one divides."""
    gradients, new, count = scaled_step(scaled, scale, good_steps, growth_factor, backoff_factor, growth_interval)
    return (None if gradients is None else _divided(scaled, new)), new, count


def scaled_by_inverse(scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000):
    """Divide first, look afterwards: an infinity stays one."""
    inverse = 1.0 / scale
    gradients = tuple(gradient.to(torch.float32).mul(inverse) for gradient in scaled)
    bad = sum(float((~torch.isfinite(gradient)).sum()) for gradient in scaled)
    if bad:
        return None, backoff_factor * scale, 0
    good_steps += 1
    grown = good_steps >= growth_interval
    return list(gradients), scale * growth_factor if grown else scale, 0 if grown else good_steps
