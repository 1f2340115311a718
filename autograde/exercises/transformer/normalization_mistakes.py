"""Right and wrong ways to normalise, for the exercises of 01_transformer/05_normalization."""

from __future__ import annotations

import torch


def _affine(y, weight, bias=None):
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


# ---- layer_norm -----------------------------------------------------------------------------------------------------


def layer(over=lambda x: -1, unbiased=False, centre=True, scale=None, affine=_affine, fixed_eps=None):
    """`layer_norm` from its parts. `scale(variance, eps)` is what is divided by."""
    scale = scale or (lambda variance, eps: (variance + eps).sqrt())

    def layer_norm(x, weight=None, bias=None, eps=1e-5):
        dims = over(x)
        centred = x - x.mean(dims, keepdim=True)
        count = x.numel() // x.mean(dims, keepdim=True).numel()
        variance = centred.square().sum(dims, keepdim=True) / (count - unbiased)
        y = (centred if centre else x) / scale(variance, eps if fixed_eps is None else fixed_eps)
        return affine(y, weight, bias)

    return layer_norm


layer_unbiased = layer(unbiased=True)
layer_eps_outside = layer(scale=lambda variance, eps: variance.sqrt() + eps)
layer_without_eps = layer(scale=lambda variance, eps: variance.sqrt())
layer_by_variance = layer(scale=lambda variance, eps: variance + eps)
layer_eps_fixed = layer(fixed_eps=1e-5)
layer_over_example = layer(over=lambda x: tuple(range(1, x.ndim)) or -1)
layer_over_everything = layer(over=lambda x: tuple(range(x.ndim)))
layer_over_batch = layer(over=lambda x: 0)
layer_over_positions = layer(over=lambda x: -2 if x.ndim > 1 else -1)
layer_not_centred = layer(centre=False)
layer_bias_first = layer(affine=lambda y, w, b: _affine(y if b is None else y + b, w))
layer_without_bias = layer(affine=lambda y, w, b: _affine(y, w))
layer_without_weight = layer(affine=lambda y, w, b: _affine(y, None, b))
layer_one_plus_weight = layer(affine=lambda y, w, b: _affine(y, None if w is None else 1 + w, b))


def layer_root_mean_square(x, weight=None, bias=None, eps=1e-5):
    return _affine(x / (x.square().mean(-1, keepdim=True) + eps).sqrt(), weight, bias)


def layer_in_float64(x, weight=None, bias=None, eps=1e-5):
    return layer()(x.double(), weight, bias, eps)


def layer_by_loop(x, weight=None, bias=None, eps=1e-5):
    rows = []
    for row in x.reshape(-1, x.shape[-1]).double():
        mean = sum(row) / len(row)
        spread = sum((v - mean) ** 2 for v in row) / len(row)
        rows.append(torch.stack([(v - mean) / (spread + eps) ** 0.5 for v in row]))
    return _affine(torch.stack(rows).reshape(x.shape), weight, bias).to(x.dtype)


def layer_by_var_mean(x, weight=None, bias=None, eps=1e-5):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    y = torch.rsqrt(variance + eps) * (x - mean)
    weight = torch.ones_like(y) if weight is None else weight
    return torch.addcmul(torch.zeros_like(y) if bias is None else bias, y, weight)


def layer_by_second_moment(x, weight=None, bias=None, eps=1e-5):
    wide = x.double()
    mean = wide.mean(-1, keepdim=True)
    variance = wide.square().mean(-1, keepdim=True) - mean.square()
    return _affine((wide - mean) / (variance.clamp(min=0) + eps).sqrt(), weight, bias).to(x.dtype)


# ---- rms_norm -------------------------------------------------------------------------------------------------------


def rms(over=lambda x: -1, scale=None, affine=_affine, prepare=lambda x: x.float(), fixed_eps=None, back=True):
    """`rms_norm` from its parts. `scale(mean of squares, eps)` is what is divided by."""
    scale = scale or (lambda square, eps: (square + eps).sqrt())

    def rms_norm(x, weight=None, eps=1e-6):
        wide = prepare(x)
        square = wide.square().mean(over(x), keepdim=True)
        y = affine(wide / scale(square, eps if fixed_eps is None else fixed_eps), weight)
        return y.to(x.dtype) if back else y

    return rms_norm


rms_centred = rms(prepare=lambda x: x.float() - x.float().mean(-1, keepdim=True))
rms_in_dtype_of_x = rms(prepare=lambda x: x)
rms_not_cast_back = rms(back=False)
rms_without_root = rms(scale=lambda square, eps: square + eps)
rms_eps_outside = rms(scale=lambda square, eps: square.sqrt() + eps)
rms_without_eps = rms(scale=lambda square, eps: square.sqrt())
rms_eps_fixed = rms(fixed_eps=1e-6)
rms_over_example = rms(over=lambda x: tuple(range(1, x.ndim)) or -1)
rms_over_everything = rms(over=lambda x: tuple(range(x.ndim)))
rms_over_batch = rms(over=lambda x: 0)
rms_without_weight = rms(affine=lambda y, w: y)
rms_one_plus_weight = rms(affine=lambda y, w: _affine(y, None if w is None else 1 + w))
rms_divided_by_weight = rms(affine=lambda y, w: y if w is None else y / w)


def rms_of_sum(x, weight=None, eps=1e-6):
    wide = x.float()
    return _affine(wide / (wide.square().sum(-1, keepdim=True) + eps).sqrt(), weight).to(x.dtype)


def rms_by_norm(x, weight=None, eps=1e-6):
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    y = x.float() * torch.rsqrt(length**2 / x.shape[-1] + eps)
    return _affine(y, None if weight is None else weight.float()).to(x.dtype)


def rms_by_einsum(x, weight=None, eps=1e-6):
    """As transformers does it: back to the dtype of x before the weight is multiplied."""
    wide = x.double()
    square = torch.einsum("...i,...i->...", wide, wide) / x.shape[-1]
    y = (wide / (square + eps).pow(0.5).unsqueeze(-1)).to(x.dtype)
    return y if weight is None else torch.einsum("...i,i->...i", y, weight)


# ---- batch_norm -----------------------------------------------------------------------------------------------------


def _shaped(v, x):
    return v.view(1, -1, *[1] * (x.ndim - 2))


def batch(
    over=lambda x: [0, *range(2, x.ndim)],
    unbiased=False,
    unbiased_running=True,
    keep=lambda momentum: 1 - momentum,
    uses_batch=lambda training: training,
    updates=lambda training: training,
    scale=None,
    use_weight=True,
    use_bias=True,
    fixed_eps=None,
):
    """`batch_norm` from its parts. `scale(variance, eps)` is the divisor; `keep` is the share of the old statistics."""
    scale = scale or (lambda variance, eps: (variance + eps).sqrt())

    def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
        mean, variance = x.mean(over(x), keepdim=True), x.var(over(x), correction=int(unbiased), keepdim=True)
        used = (mean, variance) if uses_batch(training) else (_shaped(running_mean, x), _shaped(running_var, x))
        y = (x - used[0]) / scale(used[1], eps if fixed_eps is None else fixed_eps)
        y = y * _shaped(weight, x) if use_weight and weight is not None else y
        y = y + _shaped(bias, x) if use_bias and bias is not None else y
        if updates(training):
            share, dims = keep(momentum), [0, *range(2, x.ndim)]
            running_mean = share * running_mean + (1 - share) * x.mean(dims)
            running_var = share * running_var + (1 - share) * x.var(dims, correction=int(unbiased_running))
        return y, running_mean, running_var

    return batch_norm


batch_unbiased = batch(unbiased=True)
batch_biased_running = batch(unbiased_running=False)
batch_momentum_swapped = batch(keep=lambda momentum: momentum)
batch_always_training = batch(uses_batch=lambda training: True)
batch_never_training = batch(uses_batch=lambda training: False)
batch_updates_in_eval = batch(updates=lambda training: True)
batch_never_updates = batch(updates=lambda training: False)
batch_eps_outside = batch(scale=lambda variance, eps: variance.sqrt() + eps)
batch_without_affine = batch(use_weight=False, use_bias=False)
batch_without_weight = batch(use_weight=False)
batch_without_bias = batch(use_bias=False)
batch_eps_fixed = batch(fixed_eps=1e-5)
batch_without_eps = batch(fixed_eps=0.0)
batch_momentum_fixed = batch(keep=lambda momentum: 0.9)
batch_per_position = batch(over=lambda x: [0])
batch_over_features = batch(over=lambda x: [1])
batch_over_everything = batch(over=lambda x: list(range(x.ndim)))


def batch_normalises_by_running(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    _, mean, var = batch()(x, running_mean, running_var, training=training, momentum=momentum)
    return batch()(x, mean, var, weight, bias, training=False, eps=eps)


def batch_by_channel(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    y, means, variances = torch.empty_like(x), running_mean.clone(), running_var.clone()
    for c in range(x.shape[1]):
        values = x[:, c]
        mean, variance = running_mean[c], running_var[c]
        if training:
            mean, variance = values.mean(), (values - values.mean()).pow(2).mean()
            n = values.numel()
            means[c] += momentum * (mean - means[c])
            variances[c] += momentum * (variance * n / (n - 1) - variances[c])
        y[:, c] = (values - mean) * (variance + eps) ** -0.5
        if weight is not None:
            y[:, c] *= weight[c]
        if bias is not None:
            y[:, c] += bias[c]
    return [y, means, variances]


def batch_by_transpose(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    rows = x.transpose(1, -1)  # the channels last, so that everything broadcasts by itself
    flat = rows.reshape(-1, rows.shape[-1])
    if training:
        new_mean, new_var = running_mean.lerp(flat.mean(0), momentum), running_var.lerp(flat.var(0), momentum)
        variance, mean = torch.var_mean(flat, 0, correction=0)
    else:
        new_mean, new_var, mean, variance = running_mean, running_var, running_mean, running_var
    y = _affine((rows - mean) / torch.sqrt(variance + eps), weight, bias)
    return y.transpose(1, -1), new_mean, new_var


# ---- pre_norm_block -------------------------------------------------------------------------------------------------


def block_post_norm(x, norm1, attention, norm2, feed_forward):
    h = norm1(x + attention(x))
    return norm2(h + feed_forward(h))


def block_residual_from_norm(x, norm1, attention, norm2, feed_forward):
    n = norm1(x)
    h = n + attention(n)
    n = norm2(h)
    return n + feed_forward(n)


def block_without_first_residual(x, norm1, attention, norm2, feed_forward):
    h = attention(norm1(x))
    return h + feed_forward(norm2(h))


def block_without_second_residual(x, norm1, attention, norm2, feed_forward):
    return feed_forward(norm2(x + attention(norm1(x))))


def block_second_residual_from_x(x, norm1, attention, norm2, feed_forward):
    return x + feed_forward(norm2(x + attention(norm1(x))))


def block_parallel(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x))


def block_without_second_norm(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return h + feed_forward(h)


def block_without_first_norm(x, norm1, attention, norm2, feed_forward):
    h = x + attention(x)
    return h + feed_forward(norm2(h))


def block_norms_swapped(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm2(x))
    return h + feed_forward(norm1(h))


def block_one_norm_twice(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return h + feed_forward(norm1(h))


def block_norm_after_part(x, norm1, attention, norm2, feed_forward):
    h = x + norm1(attention(x))
    return h + norm2(feed_forward(h))


def block_feed_forward_first(x, norm1, attention, norm2, feed_forward):
    h = x + feed_forward(norm1(x))
    return h + attention(norm2(h))


def block_norm_at_the_end(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return norm2(h + feed_forward(h))


def block_by_loop(x, norm1, attention, norm2, feed_forward):
    for norm, part in ((norm1, attention), (norm2, feed_forward)):
        x = torch.add(part(norm(x)), x)
    return x


def block_in_place_on_a_copy(x, norm1, attention, norm2, feed_forward):
    stream = x.clone()
    stream += attention(norm1(stream))
    stream += feed_forward(norm2(stream))
    return stream
