"""What the exercises on normalisation are judged by: torch's own functions and layer, cases and laws."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(shape, generator=g)


def _pick(g, low, high):
    return int(torch.randint(low, high + 1, (), generator=g))


def _coarse(x):
    return x.dtype in (torch.float16, torch.bfloat16)


def _ordinary(x):
    """Whether every row varies so much that eps does not count, in numbers with digits enough to see it."""
    return x.shape[-1] > 1 and not _coarse(x) and bool((x.var(-1, correction=0) > 0.05).all())


def _tight(a, b, scale=1.0):
    return same(a, b, rtol=1e-3, atol=1e-3 * scale)


# ---- layer_norm -----------------------------------------------------------------------------------------------------


def torch_layer_norm(x, weight=None, bias=None, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def layer_cases(g):
    d = _pick(g, 3, 5) * 2 + 1
    yield case(_randn(g, 3, 4, d) * 3, _randn(g, d), _randn(g, d), label="a batch of sentences")
    yield case(_randn(g, d) * 2, label="one vector, neither weight nor bias")
    yield case(_randn(g, 2, 1, 3, d + 1), _randn(g, d + 1), label="two leading dimensions, weight only")
    yield case(_randn(g, 4, d), bias=_randn(g, d), label="bias only")
    yield case(_randn(g, 3, 1), _randn(g, 1), _randn(g, 1), label="a single feature")
    yield case(_randn(g, 2, 3, d) * 3e-3, label="tiny numbers, where eps counts")
    yield case(_randn(g, 3, d), _randn(g, d), _randn(g, d), eps=0.1, label="eps=0.1")
    # So small that a mean which is off in its last digit still counts for nothing beside eps.
    yield case(torch.full((2, d), 0.025), _randn(g, d), _randn(g, d), label="rows of equal numbers")
    yield case(_randn(g, 3, d).double(), _randn(g, d).double(), label="float64")
    yield case(_randn(g, 2, 2, d) * 1e4, _randn(g, d), label="large numbers")
    yield case(_randn(g, d, 5).T - 10, label="a transposed view, far from zero")


def layer_shift(out, one, call):
    x = one.args[0]
    return _tight(call(x + 3), call(x)) if _ordinary(x) else None


def own_row(out, one, call):
    x = one.args[0]
    if x.ndim < 2 or len(x) < 2:
        return None
    return same(call(x[:1].clone(), *one.args[1:], **one.kwargs), out[:1])


def layer_moments(out, one, call):
    x = one.args[0]
    plain = call(x)
    if not same(plain.mean(-1), torch.zeros(x.shape[:-1]), atol=1e-3):
        return "a row's mean isn't 0"
    ones = same(plain.square().mean(-1), torch.ones(x.shape[:-1]), rtol=2e-3, atol=1e-3)
    return ones or "the mean of a row's squares isn't 1" if _ordinary(x) else True


def layer_affine(out, one, call):
    x = one.args[0]
    weight, bias = torch.arange(1.0, x.shape[-1] + 1), torch.full((x.shape[-1],), -2.0)
    return _tight(call(x, weight, bias), call(x) * weight - 2)


# ---- rms_norm -------------------------------------------------------------------------------------------------------


def torch_rms_norm(x, weight=None, eps=1e-6):
    wide = F.rms_norm(x.double(), x.shape[-1:], None if weight is None else weight.double(), eps)
    return wide.to(x.dtype)


def rms_cases(g):
    d = _pick(g, 3, 5) * 2 + 1
    yield case(_randn(g, 3, 4, d) * 3, _randn(g, d), label="a batch of sentences")
    yield case(_randn(g, d) * 2, label="one vector, no weight")
    yield case(_randn(g, 2, 1, 3, d + 1) - 2, _randn(g, d + 1), label="two leading dimensions, mostly negative")
    yield case(_randn(g, 3, 1) * 2, _randn(g, 1), label="a single feature")
    yield case(_randn(g, 2, 3, d) * 1e-3, _randn(g, d), label="tiny numbers, where eps counts")
    yield case(_randn(g, 3, d), _randn(g, d), eps=0.1, label="eps=0.1")
    yield case(torch.zeros(2, d), _randn(g, d), label="rows of zeros")
    yield case(_randn(g, 2, 2, d) * 1e4, label="large numbers")
    yield case(_randn(g, d, 5).T + 10, weight=_randn(g, d), label="a transposed view, far from zero")
    yield case((_randn(g, 3, d) * 1e3).half(), _randn(g, d).half(), label="float16, where squares overflow")


def rms_scale(out, one, call):
    x = one.args[0]
    return None if _coarse(x) else _tight(call(10 * x), call(x)) if bool((x.square().mean(-1) > 0.05).all()) else None


def rms_feels_shift(out, one, call):
    x = one.args[0]
    return not _tight(call(x + 20), call(x)) if _ordinary(x) and bool((x.abs() < 100).all()) else None


def rms_moment(out, one, call):
    x = one.args[0]
    ones = torch.ones(x.shape[:-1])
    if _coarse(x) or bool((x.square().mean(-1) <= 0.05).any()):
        return None
    return same(call(x).square().mean(-1), ones, 2e-3, 1e-3)


# ---- batch_norm -----------------------------------------------------------------------------------------------------


def torch_batch_norm(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    running_mean, running_var = running_mean.clone(), running_var.clone()
    y = F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return y, running_mean, running_var


def batch_cases(g):
    def some(*shape, scale=2.0, **options):
        c = shape[1]
        # Channels with means of their own; but not where x is tiny, since float32 would lose what varies.
        x = (_randn(g, *shape) + _randn(g, c).view(-1, *[1] * (len(shape) - 2))) * scale
        return case(x, _randn(g, c), torch.rand(c, generator=g) + 0.5, **options)

    c = _pick(g, 3, 5)
    affine = {"weight": _randn(g, c), "bias": _randn(g, c)}
    yield some(6, c, label="training, vectors")
    yield some(4, c, 5, **affine, label="training, sentences: [batch, channels, length]")
    yield some(2, 1, label="training, two examples, one channel")
    yield some(1, c, 7, label="training, one sentence")
    yield some(5, c, **affine, training=False, label="evaluation")
    yield some(1, c, training=False, label="evaluation, a single example")
    yield some(3, c, 4, training=False, bias=affine["bias"], label="evaluation, sentences, bias only")
    yield some(7, c, momentum=0.3, training=True, label="momentum=0.3")
    yield some(3, c, 2, eps=0.1, weight=affine["weight"], label="eps=0.1, weight only")
    yield some(4, c, scale=1e-3, label="channels that hardly vary")
    wide = some(4, 5, c)
    x = wide.args[0].transpose(1, 2)
    yield case(x, _randn(g, c), torch.rand(c, generator=g) + 0.5, label="training, a transposed view")


def batch_moments(out, one, call):
    if one.kwargs.get("training") is False:
        return None
    x = one.args[0]
    y = call(*one.args, training=True)[0]
    dims = [0, *range(2, x.ndim)]
    if not same(y.mean(dims), torch.zeros(x.shape[1]), atol=1e-3):
        return f"{one.label}: a channel's mean isn't 0"
    varies = bool((x.var(dims) > 0.05).all())
    return same(y.square().mean(dims), torch.ones(x.shape[1]), 2e-3, 1e-3) if varies else True


def batch_alone(out, one, call):
    if one.kwargs.get("training") is not False:
        return None
    return same(call(one.args[0][:1].clone(), *one.args[1:], **one.kwargs)[0], out[0][:1])


def batch_still(out, one, call):
    if one.kwargs.get("training") is not False:
        return None
    return same(list(out[1:]), list(one.args[1:3]))


def batch_momentum(out, one, call):
    x, mean, var = one.args
    dims = [0, *range(2, x.ndim)]
    if x.numel() // x.shape[1] < 2:
        return None
    whole, none = call(x, mean, var, momentum=1.0), call(x, mean, var, momentum=0.0)
    return same([whole[1], none[1], none[2]], [x.mean(dims), mean, var])


# ---- pre_norm_block -------------------------------------------------------------------------------------------------


def run_block(block, x, weights, heads):
    """Build the four parts of a block from `weights`, and let `block` put them together."""
    import torch.nn.functional as F

    def norm(scale_and_shift):
        return lambda h: F.layer_norm(h, h.shape[-1:], scale_and_shift[0], scale_and_shift[1])

    def attention(h):
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (h @ weights["qkv"].T).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ weights["out"].T

    def feed_forward(h):
        return (h @ weights["up"].T).relu() @ weights["down"].T

    return block(x, norm(weights["norm1"]), attention, norm(weights["norm2"]), feed_forward)


def torch_encoder_layer(x, weights, heads):
    d, hidden = x.shape[-1], len(weights["up"])
    layer = torch.nn.TransformerEncoderLayer(d, heads, hidden, dropout=0.0, batch_first=True, norm_first=True)
    layer = layer.to(x.dtype).eval()
    values = {
        "self_attn.in_proj_weight": weights["qkv"],
        "self_attn.out_proj.weight": weights["out"],
        "linear1.weight": weights["up"],
        "linear2.weight": weights["down"],
    }
    for i in (1, 2):
        values |= {f"norm{i}.weight": weights[f"norm{i}"][0], f"norm{i}.bias": weights[f"norm{i}"][1]}
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.copy_(values.get(name, torch.zeros_like(p)))
        return layer(x)


def block_cases(g):
    def some(batch, length, heads, size, label, scale=1.0, view=False):
        d = heads * size
        shapes = {"qkv": (3 * d, d), "out": (d, d), "up": (2 * d + 1, d), "down": (d, 2 * d + 1)}
        weights = {name: _randn(g, *shape) * shape[1] ** -0.5 for name, shape in shapes.items()}
        weights |= {name: _randn(g, 2, d) * 0.5 + 0.5 for name in ("norm1", "norm2")}
        x = _randn(g, length, batch, d).transpose(0, 1) if view else _randn(g, batch, length, d)
        return case(x * scale, weights, heads, label=label)

    yield some(2, 5, 2, _pick(g, 3, 5), "two sentences")
    yield some(1, 1, 1, 4, "one token, one head")
    yield some(3, 4, 1, 5, "one head", scale=10.0)
    yield some(1, 6, 3, 2, "three heads", scale=0.1)
    yield some(2, 3, 2, 4, "a transposed view", view=True)


def block_passes_on(out, one, call):
    x, weights, heads = one.args
    silent = weights | {name: torch.zeros_like(weights[name]) for name in ("out", "down")}
    return same(call(x, silent, heads), x)


def block_passes_shift(out, one, call):
    x, weights, heads = one.args
    return _tight(call(x + 3, weights, heads), out + 3)


def block_second_hears_first(out, one, call):
    """What attention adds has to reach the feed-forward part: undoing the first must change what the second adds."""
    x, weights, heads = one.args
    without_down = weights | {"down": torch.zeros_like(weights["down"])}
    without_out = weights | {"out": torch.zeros_like(weights["out"])}
    parallel = call(x, without_down, heads) + call(x, without_out, heads) - x
    return not same(parallel, out, 1e-3, 1e-3)
