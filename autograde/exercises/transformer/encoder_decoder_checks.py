"""What the layers of 01_transformer/02_encoder_decoder are judged by: torch's own layers, cases and laws."""

from __future__ import annotations

import functools

import torch
from torch import nn

from autograde.exercise import case, same

D_FF = 5  # the inner width of a layer's feed-forward network, unlike every d


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


# ---- feed_forward ---------------------------------------------------------------------------------------------------

def torch_feed_forward(x, w1, b1, w2, b2, activation="relu"):
    inner, outer = nn.Linear(*w1.shape, dtype=torch.float64), nn.Linear(*w2.shape, dtype=torch.float64)
    _fill(inner, w1, b1)
    _fill(outer, w2, b2)
    act = {"relu": nn.ReLU, "gelu": nn.GELU}[activation]()
    with torch.no_grad():
        return nn.Sequential(inner, act, outer)(x.double()).to(x.dtype)


def _fill(linear, weight, bias):
    """Give a torch layer the course's [in, out] matrix."""
    with torch.no_grad():
        linear.weight.copy_(weight.mT)
        linear.bias.copy_(bias)


def _ff_weights(g, d, d_ff, scale=1.0):
    return _randn(g, d, d_ff) * scale, _randn(g, d_ff), _randn(g, d_ff, d) * scale, _randn(g, d)


def feed_forward_cases(g):
    yield case(_randn(g, 3, 4), *_ff_weights(g, 4, 16), label="one sequence")
    yield case(_randn(g, 2, 5, 6), *_ff_weights(g, 6, 3), label="narrower inside")
    yield case(_randn(g, 2, 3, 4, 8), *_ff_weights(g, 8, 12), activation="gelu", label="GELU, two batch dims")
    yield case(_randn(g, 1, 2), *_ff_weights(g, 2, 7), label="one token")
    yield case(_randn(g, 3, 1), *_ff_weights(g, 1, 4), "gelu", label="width one, GELU")
    yield case(_randn(g, 4, 6), *_ff_weights(g, 6, 6), label="as wide inside as outside")
    yield case(torch.zeros(2, 4), *_ff_weights(g, 4, 9), label="zeros")
    yield case(_randn(g, 3, 4) * 40, *_ff_weights(g, 4, 8), label="large numbers")
    yield case(_randn(g, 5, 2, 4).transpose(0, 1), *_ff_weights(g, 4, 8), activation="gelu", label="not contiguous")
    w1, b1, w2, b2 = _ff_weights(g, 5, 40)
    yield case(_randn(g, 2, 4, 5), w1, b1, 3 * w2, b2, activation="gelu", label="GELU, many hidden units")


def zero_weights_leave_the_bias(out, one, call):
    x, w1, b1, w2, b2 = one.args[:5]
    return same(call(x, w1, b1, torch.zeros_like(w2), b2), b2.expand(x.shape))


def not_linear(out, one, call):
    """relu(h) + relu(-h) is |h|."""
    x, w1, b1, w2, b2 = one.args[:5]
    x = x / x.abs().amax().clamp(min=1)
    no1, no2 = torch.zeros_like(b1), torch.zeros_like(b2)
    both = call(x, w1, no1, w2, no2).double() + call(-x, w1, no1, w2, no2).double()
    return same(both, (x @ w1).abs().double() @ w2.double(), rtol=1e-3, atol=1e-3)


def token_by_token(out, one, call):
    x, *weights = one.args
    if x.shape[-2] == 1:
        return None
    return same(call(x[..., :1, :], *weights, **one.kwargs), out[..., :1, :], atol=1e-3)


# ---- the layers -----------------------------------------------------------------------------------------------------

def _attention_weights(g, d):
    return {name: _randn(g, d, d) * d**-0.5 * (2.0 if name in "qk" else 1.0) for name in "qkvo"}


def _norm_weights(g, d):
    return {"gain": 1 + 0.5 * _randn(g, d), "bias": 0.5 * _randn(g, d)}


def encoder_weights(g, d):
    w1, b1, w2, b2 = _ff_weights(g, d, D_FF, d**-0.5)
    return {
        "self": _attention_weights(g, d),
        "ff": {"w1": w1, "b1": b1, "w2": w2, "b2": b2},
        "norm1": _norm_weights(g, d),
        "norm2": _norm_weights(g, d),
    }


def decoder_weights(g, d):
    return encoder_weights(g, d) | {"cross": _attention_weights(g, d), "norm3": _norm_weights(g, d)}


def _padding(g, *shape):
    """True in about half of the places, anywhere; at least one place a row is False and one True."""
    n = shape[-1]
    order = torch.rand(shape, generator=g).argsort(-1)
    return order >= torch.randint(1, n, (*shape[:-1], 1), generator=g)


@functools.lru_cache(maxsize=64)
def _layer(kind, d, heads, d_ff, norm_first):
    """One of torch's layers in float64. In training mode, since evaluation has a shortcut that treats padding in
    another way; there is no dropout."""
    return kind(d, heads, d_ff, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64).train()


def _filled(kind, w, heads, norm_first, norms):
    """A torch layer with the course's weights."""
    layer = _layer(kind, w["ff"]["w1"].shape[0], heads, w["ff"]["w1"].shape[1], norm_first)
    with torch.no_grad():
        for name, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
            if hasattr(layer, attention):
                module = getattr(layer, attention)
                module.in_proj_weight.copy_(torch.cat([w[name][part].mT for part in "qkv"]))
                module.in_proj_bias.zero_()
                _fill(module.out_proj, w[name]["o"], torch.zeros(()))
        _fill(layer.linear1, w["ff"]["w1"], w["ff"]["b1"])
        _fill(layer.linear2, w["ff"]["w2"], w["ff"]["b2"])
        for name in norms:
            getattr(layer, name).weight.copy_(w[name]["gain"])
            getattr(layer, name).bias.copy_(w[name]["bias"])
    return layer


def _batched(x, rows):
    return x.double().reshape(-1, *x.shape[-rows:])


def _mask(padding):
    return None if padding is None else padding.reshape(-1, padding.shape[-1])


def torch_encoder_layer(x, w, heads, padding=None, norm_first=False):
    layer = _filled(nn.TransformerEncoderLayer, w, heads, norm_first, ("norm1", "norm2"))
    return layer(_batched(x, 2), src_key_padding_mask=_mask(padding)).detach().reshape(x.shape).to(x.dtype)


def torch_decoder_layer(y, memory, w, heads, memory_padding=None, norm_first=False):
    layer = _filled(nn.TransformerDecoderLayer, w, heads, norm_first, ("norm1", "norm2", "norm3"))
    causal = nn.Transformer.generate_square_subsequent_mask(y.shape[-2]).isinf()
    padded = _mask(memory_padding)
    out = layer(_batched(y, 2), _batched(memory, 2), tgt_mask=causal, memory_key_padding_mask=padded)
    return out.detach().reshape(y.shape).to(y.dtype)


def _without(w, *names):
    """The weights with some matrices set to zero, named as in "self.o"."""
    changed = {key: dict(part) for key, part in w.items()}
    for name in names:
        part, key = name.split(".")
        changed[part][key] = torch.zeros_like(changed[part][key])
    return changed


def _plain_norms(w):
    return {
        key: {"gain": torch.ones_like(part["gain"]), "bias": torch.zeros_like(part["bias"])} if "gain" in part else part
        for key, part in w.items()
    }


def _other(x, scale=3.0):
    """Other numbers of the same shape, made from x without chance."""
    return (x * 1.7 + scale * torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)).flip(-1)


def _pre(one):
    """Whether a case asks for pre-norm."""
    return one.kwargs.get("norm_first", one.args[-1] is True)


def _standardised(rows):
    rows = rows.double()
    return bool((rows.mean(-1).abs() < 1e-3).all() and (rows.var(-1, unbiased=False) - 1).abs().max() < 2e-2)


# ---- encoder_layer --------------------------------------------------------------------------------------------------

def encoder_cases(g):
    yield case(_randn(g, 5, 8), encoder_weights(g, 8), 2, label="no batch")
    yield case(_randn(g, 2, 5, 8), encoder_weights(g, 8), 2, padding=_padding(g, 2, 5), label="padding by keyword")
    yield case(_randn(g, 1, 3, 4), encoder_weights(g, 4), 1, label="one head")
    yield case(_randn(g, 2, 1, 4), encoder_weights(g, 4), 2, label="one token")
    yield case(_randn(g, 2, 3, 7, 6), encoder_weights(g, 6), 3, _padding(g, 2, 3, 7), label="two batch dims, padding")
    yield case(_randn(g, 3, 5, 8), encoder_weights(g, 8), 4, padding=_padding(g, 3, 5), norm_first=True,
               label="pre-norm, padding")
    yield case(_randn(g, 4, 6), encoder_weights(g, 6), 2, norm_first=True, label="pre-norm, no batch")
    yield case(_randn(g, 6, 2, 8).transpose(0, 1), encoder_weights(g, 8), 8, _padding(g, 2, 6), True,
               label="not contiguous, heads of size one, pre-norm")
    yield case(_randn(g, 2, 4, 8) * 5, encoder_weights(g, 8), 2, padding=_padding(g, 2, 4), label="large numbers")
    yield case(torch.zeros(3, 8), encoder_weights(g, 8), 2, norm_first=True, label="zeros, pre-norm")
    yield case(_randn(g, 3, 8) * 1e-3, encoder_weights(g, 8), 4, norm_first=True, label="tiny numbers, pre-norm")


def encoder_shuffle(out, one, call):
    x, w, heads = one.args[:3]
    n, pre = x.shape[-2], _pre(one)
    if n == 1:
        return None
    order = torch.arange(n - 1, -1, -1)
    return same(call(x[..., order, :], w, heads, norm_first=pre), call(x, w, heads, norm_first=pre)[..., order, :],
                atol=1e-3)


def _encoder_padding(one):
    return one.kwargs.get("padding", one.args[3] if len(one.args) > 3 else None)


def encoder_padding_unread(out, one, call):
    padding = _encoder_padding(one)
    if padding is None:
        return None
    x, w, heads = one.args[:3]
    changed = call(torch.where(padding[..., None], _other(x), x), w, heads, padding=padding)
    return same(changed[~padding], call(x, w, heads, padding=padding)[~padding], atol=1e-3)


def encoder_post_norm(out, one, call):
    x, w, heads = one.args[:3]
    return None if _pre(one) else _standardised(call(x, _plain_norms(w), heads))


def encoder_pre_norm(out, one, call):
    x, w, heads = one.args[:3]
    if not _pre(one):
        return None
    return same(call(x, _without(w, "self.o", "ff.w2", "ff.b2"), heads, norm_first=True), x)


# ---- decoder_layer --------------------------------------------------------------------------------------------------

def decoder_cases(g):
    yield case(_randn(g, 4, 8), _randn(g, 6, 8), decoder_weights(g, 8), 2, label="no batch")
    yield case(_randn(g, 2, 5, 8), _randn(g, 2, 5, 8), decoder_weights(g, 8), 2, memory_padding=_padding(g, 2, 5),
               label="padding, as many targets as sources")
    yield case(_randn(g, 2, 1, 4), _randn(g, 2, 4, 4), decoder_weights(g, 4), 1, label="one target token, one head")
    yield case(_randn(g, 3, 6), _randn(g, 1, 6), decoder_weights(g, 6), 3, label="one source token")
    yield case(_randn(g, 2, 3, 4, 6), _randn(g, 2, 3, 7, 6), decoder_weights(g, 6), 2, _padding(g, 2, 3, 7),
               label="two batch dims, padding")
    yield case(_randn(g, 3, 5, 8), _randn(g, 3, 3, 8), decoder_weights(g, 8), 4, memory_padding=_padding(g, 3, 3),
               norm_first=True, label="pre-norm, padding")
    yield case(_randn(g, 4, 6), _randn(g, 5, 6) * 3, decoder_weights(g, 6), 2, norm_first=True,
               label="pre-norm, no batch")
    yield case(_randn(g, 5, 2, 8).transpose(0, 1), _randn(g, 4, 2, 8).transpose(0, 1), decoder_weights(g, 8), 8,
               _padding(g, 2, 4), True, label="not contiguous, heads of size one, pre-norm")
    yield case(_randn(g, 2, 3, 8) * 5, _randn(g, 2, 4, 8) * 5, decoder_weights(g, 8), 2,
               memory_padding=_padding(g, 2, 4), label="large numbers")
    yield case(torch.zeros(3, 8), _randn(g, 4, 8), decoder_weights(g, 8), 4, norm_first=True, label="zeros, pre-norm")


def _decoder_rest(one):
    """The options of a case as keywords."""
    names = ("memory_padding", "norm_first")
    return dict(zip(names, one.args[4:], strict=False)) | one.kwargs


def no_future(out, one, call):
    y, memory, w, heads = one.args[:4]
    if y.shape[-2] == 1:
        return None
    changed = torch.cat([y[..., :-1, :], _other(y[..., -1:, :])], -2)
    return same(call(changed, memory, w, heads, **_decoder_rest(one))[..., :-1, :], out[..., :-1, :], atol=1e-3)


def whole_past(out, one, call):
    y, memory, w, heads = one.args[:4]
    if y.shape[-2] == 1:
        return None
    w, rest = _without(w, "self.q", "self.k"), _decoder_rest(one)  # all that may be read is read alike
    changed = torch.cat([_other(y[..., :1, :]), y[..., 1:, :]], -2)
    return _moved(call(changed, memory, w, heads, **rest), call(y, memory, w, heads, **rest), -1)


def every_source(out, one, call):
    """Even the first target token sees the last source token; the order of the source is nothing, nor is padding."""
    y, memory, w, heads = one.args[:4]
    rest = _decoder_rest(one)
    padding = rest.get("memory_padding")
    if padding is not None:
        return same(call(y, torch.where(padding[..., None], _other(memory), memory), w, heads, **rest), out, atol=1e-3)
    flat = _without(w, "cross.q", "cross.k")
    changed = torch.cat([memory[..., :-1, :], _other(memory[..., -1:, :])], -2)
    seen = _moved(call(y, changed, flat, heads, **rest), call(y, memory, flat, heads, **rest), 0)
    return seen and same(call(y, memory.flip(-2), w, heads, **rest), out, atol=1e-3)


def _moved(a, b, row):
    return bool((a[..., row, :] - b[..., row, :]).abs().max() > 1e-4)


def decoder_post_norm(out, one, call):
    y, memory, w, heads = one.args[:4]
    if _pre(one):
        return None
    return _standardised(call(y, memory, _plain_norms(w), heads))


def decoder_pre_norm(out, one, call):
    y, memory, w, heads = one.args[:4]
    if not _pre(one):
        return None
    return same(call(y, memory, _without(w, "self.o", "cross.o", "ff.w2", "ff.b2"), heads, norm_first=True), y)
