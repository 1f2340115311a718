"""Wrong ways to write the layers of an encoder and a decoder, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- feed_forward ---------------------------------------------------------------------------------------------------

_ACTIVATIONS = {"relu": torch.relu, "gelu": F.gelu}


def feed_forward(x, w1, b1, w2, b2, activation="relu"):
    return _ACTIVATIONS[activation](x @ w1 + b1) @ w2 + b2


def no_activation(x, w1, b1, w2, b2, activation="relu"):
    return (x @ w1 + b1) @ w2 + b2


def activation_at_the_end(x, w1, b1, w2, b2, activation="relu"):
    return _ACTIVATIONS[activation](no_activation(x, w1, b1, w2, b2))


def activation_twice(x, w1, b1, w2, b2, activation="relu"):
    return _ACTIVATIONS[activation](feed_forward(x, w1, b1, w2, b2, activation))


def activation_first(x, w1, b1, w2, b2, activation="relu"):
    return no_activation(_ACTIVATIONS[activation](x), w1, b1, w2, b2)


def always_relu(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, b1, w2, b2)


def gelu_by_tanh(x, w1, b1, w2, b2, activation="relu"):
    if activation == "relu":
        return feed_forward(x, w1, b1, w2, b2)
    return F.gelu(x @ w1 + b1, approximate="tanh") @ w2 + b2


def inner_bias_missing(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, 0 * b1, w2, b2, activation)


def inner_bias_after_activation(x, w1, b1, w2, b2, activation="relu"):
    return (_ACTIVATIONS[activation](x @ w1) + b1) @ w2 + b2


def outer_bias_missing(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, b1, w2, 0 * b2, activation)


def with_residual(x, w1, b1, w2, b2, activation="relu"):
    return x + feed_forward(x, w1, b1, w2, b2, activation)


def transposed_weights(x, w1, b1, w2, b2, activation="relu"):
    return _ACTIVATIONS[activation](F.linear(x, w1, b1)) @ w2.mT + b2


def averaged_tokens(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x.mean(-2, keepdim=True).expand(x.shape), w1, b1, w2, b2, activation)


def feed_forward_by_linear(x, w1, b1, w2, b2, activation="relu"):
    inner = F.linear(x, w1.T, b1)
    inner = inner.clamp(min=0) if activation == "relu" else inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return F.linear(inner, w2.T, b2)


def feed_forward_by_loop(x, w1, b1, w2, b2, activation="relu"):
    rows = [feed_forward(row, w1, b1, w2, b2, activation) for row in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows, 1).mT.reshape(x.shape)


# ---- what the layers are made of ------------------------------------------------------------------------------------

def attention(x, memory, w, heads, hidden=None):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(-3, -2) for t in (x @ w["q"], memory @ w["k"], memory @ w["v"]))
    seen = None if hidden is None else ~hidden.unsqueeze(-3)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(-3, -2).flatten(-2) @ w["o"]


def norm(x, w):
    return F.layer_norm(x, x.shape[-1:], w["gain"], w["bias"])


def _norm_over_tokens(x, w):
    centred = x - x.mean(-2, keepdim=True)
    return centred / (centred.square().mean(-2, keepdim=True) + 1e-5).sqrt() * w["gain"] + w["bias"]


def _residual(x, sublayer, w, norm_first):
    """Sublayer, residual, norm, in the order of post-norm or of pre-norm."""
    return x + sublayer(norm(x, w)) if norm_first else norm(x + sublayer(x), w)


def _norm_inside(x, sublayer, w, norm_first):
    return x + sublayer(norm(x, w)) if norm_first else x + norm(sublayer(x), w)


def _residual_of_the_normed(x, sublayer, w, norm_first):
    return norm(x, w) + sublayer(norm(x, w)) if norm_first else norm(x + sublayer(x), w)


def _no_residual(x, sublayer, w, norm_first):
    return sublayer(norm(x, w)) if norm_first else norm(sublayer(x), w)


def _no_norm(x, sublayer, w, norm_first):
    return x + sublayer(x)


def _wrong_axis(x, sublayer, w, norm_first):
    return x + sublayer(_norm_over_tokens(x, w)) if norm_first else _norm_over_tokens(x + sublayer(x), w)


def _keys(padding):
    return None if padding is None else padding[..., None, :]


def _rows_instead(padding):
    return None if padding is None else padding[..., :, None]


def _inverted(padding):
    return None if padding is None else ~padding[..., None, :]


# ---- encoder_layer --------------------------------------------------------------------------------------------------

def _encoder(first=_residual, second=_residual, hidden=_keys, norms=("norm1", "norm2"), one_head=False, order=None):
    """`encoder_layer` with parts exchanged; `order` fixes norm_first."""
    def encoder_layer(x, w, heads, padding=None, norm_first=False):
        pre, count, mask = norm_first if order is None else order, 1 if one_head else heads, hidden(padding)
        x = first(x, lambda y: attention(y, y, w["self"], count, mask), w[norms[0]], pre)
        return second(x, lambda y: feed_forward(y, **w["ff"]), w[norms[1]], pre)
    return encoder_layer


encoder_layer = _encoder()
encoder_no_residuals = _encoder(_no_residual, _no_residual)
encoder_no_attention_residual = _encoder(first=_no_residual)
encoder_no_ff_residual = _encoder(second=_no_residual)
encoder_norm_inside = _encoder(_norm_inside, _norm_inside)
encoder_no_norm = _encoder(_no_norm, _no_norm)
encoder_wrong_axis = _encoder(_wrong_axis, _wrong_axis)
encoder_residual_of_the_normed = _encoder(_residual_of_the_normed, _residual_of_the_normed)
encoder_one_norm = _encoder(norms=("norm1", "norm1"))
encoder_norms_swapped = _encoder(norms=("norm2", "norm1"))
encoder_always_post = _encoder(order=False)
encoder_always_pre = _encoder(order=True)
encoder_flag_inverted = _encoder(hidden=_inverted)
encoder_padding_ignored = _encoder(hidden=lambda padding: None)
encoder_padding_in_rows = _encoder(hidden=_rows_instead)
encoder_one_head = _encoder(one_head=True)


def encoder_causal(x, w, heads, padding=None, norm_first=False):
    future = _future(x)
    return _encoder(hidden=lambda p: future if p is None else future | _keys(p))(x, w, heads, padding, norm_first)


def encoder_parallel(x, w, heads, padding=None, norm_first=False):
    """Both sub-layers read the layer's input, as in GPT-J."""
    a = norm(x, w["norm1"]) if norm_first else x
    y = x + attention(a, a, w["self"], heads, _keys(padding))
    y = y if norm_first else norm(y, w["norm1"])
    inner = feed_forward(norm(x, w["norm2"]) if norm_first else x, **w["ff"])
    return y + inner if norm_first else norm(y + inner, w["norm2"])


def _attention_by_loop(x, memory, w, heads, hidden=None):
    """One head at a time, softmax by hand, the output projection head by head."""
    size, total = x.shape[-1] // heads, 0
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = torch.einsum("...md,...nd->...mn", x @ w["q"][:, part], memory @ w["k"][:, part]) / math.sqrt(size)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        total = total + scores.softmax(-1) @ (memory @ w["v"][:, part]) @ w["o"][part]
    return total


def _norm_by_hand(x, w):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-5) * w["gain"] + w["bias"]


def encoder_by_hand(x, w, heads, padding=None, norm_first=False):
    hidden = None if padding is None else padding.unsqueeze(-2)
    def attend(y):
        return _attention_by_loop(y, y, w["self"], heads, hidden)
    if norm_first:
        x = attend(_norm_by_hand(x, w["norm1"])) + x
        return feed_forward_by_linear(_norm_by_hand(x, w["norm2"]), **w["ff"]) + x
    x = _norm_by_hand(x + attend(x), w["norm1"])
    return _norm_by_hand(feed_forward_by_linear(x, **w["ff"]) + x, w["norm2"])


def encoder_by_sequence(x, w, heads, padding=None, norm_first=False):
    """One sequence after the other, with its padded keys cut out; the result is not contiguous."""
    rows = []
    flat = x.reshape(-1, *x.shape[-2:])
    masks = torch.zeros(flat.shape[:2], dtype=torch.bool) if padding is None else padding.reshape(flat.shape[:2])
    for row, mask in zip(flat, masks, strict=True):
        def attend(y, keep=~mask):
            return attention(y, y[keep], w["self"], heads)
        y = _residual(row, attend, w["norm1"], norm_first)
        rows.append(_residual(y, lambda z: feed_forward(z, **w["ff"]), w["norm2"], norm_first))
    return torch.stack(rows, -1).movedim(-1, 0).reshape(x.shape)


# ---- decoder_layer --------------------------------------------------------------------------------------------------

def _future(y, shift=1):
    return torch.ones(y.shape[-2], y.shape[-2], dtype=torch.bool, device=y.device).triu(shift)


def _decoder(
    steps=("self", "cross", "ff"), causal=_future, source=_keys, wrap=_residual, wraps=None, norms=("norm1", "norm2",
    "norm3"), order=None, one_head=False, weights=("self", "cross"), keys=lambda y, memory, w, pre: memory,
):
    """`decoder_layer` with parts exchanged: which sub-layers, masks, residuals, norms, weights, keys of the cross."""
    def decoder_layer(y, memory, w, heads, memory_padding=None, norm_first=False):
        pre, count = norm_first if order is None else order, 1 if one_head else heads
        hidden = source(memory_padding)
        sublayers = {
            "self": lambda x: attention(x, x, w[weights[0]], count, causal(y)),
            "cross": lambda x: attention(x, keys(x, memory, w, pre), w[weights[1]], count, hidden),
            "ff": lambda x: feed_forward(x, **w["ff"]),
        }
        x, number = y, dict(zip(("self", "cross", "ff"), norms, strict=True))
        for step in steps:
            x = (wraps or {}).get(step, wrap)(x, sublayers[step], w[number[step]], pre)
        return x
    return decoder_layer


decoder_layer = _decoder()
decoder_no_mask = _decoder(causal=lambda y: None)
decoder_past_hidden = _decoder(causal=lambda y: _future(y).mT)
decoder_itself_hidden = _decoder(causal=lambda y: _future(y, 0))
decoder_peeks_one_ahead = _decoder(causal=lambda y: _future(y, 2))
decoder_no_cross = _decoder(steps=("self", "ff"))
decoder_no_ff = _decoder(steps=("self", "cross"))
decoder_cross_first = _decoder(steps=("cross", "self", "ff"), norms=("norm2", "norm1", "norm3"))
decoder_padding_ignored = _decoder(source=lambda padding: None)
decoder_padding_inverted = _decoder(source=_inverted)
decoder_no_cross_residual = _decoder(wraps={"cross": _no_residual})
decoder_no_residuals = _decoder(wrap=_no_residual)
decoder_norm_inside = _decoder(wrap=_norm_inside)
decoder_residual_of_the_normed = _decoder(wrap=_residual_of_the_normed)
decoder_one_norm = _decoder(norms=("norm1",) * 3)
decoder_always_post = _decoder(order=False)
decoder_always_pre = _decoder(order=True)
decoder_one_head = _decoder(one_head=True)
decoder_weights_shared = _decoder(weights=("self", "self"))
decoder_memory_normed = _decoder(keys=lambda x, memory, w, pre: norm(memory, w["norm2"]) if pre else memory)


def decoder_crosses_itself(y, memory, w, heads, memory_padding=None, norm_first=False):
    """The second attention reads the decoder's own tokens; with them there is no source whose padding could count."""
    return _decoder(keys=lambda x, *_: x, source=lambda padding: None)(y, memory, w, heads, None, norm_first)


def decoder_causal_cross(y, memory, w, heads, memory_padding=None, norm_first=False):
    future = torch.ones(y.shape[-2], memory.shape[-2], dtype=torch.bool).triu(1)
    return _decoder(source=lambda p: future if p is None else future | _keys(p))(
        y, memory, w, heads, memory_padding, norm_first
    )


def decoder_by_hand(y, memory, w, heads, memory_padding=None, norm_first=False):
    positions = torch.arange(y.shape[-2])
    future = positions[None, :] > positions[:, None]
    hidden = None if memory_padding is None else memory_padding.unsqueeze(-2)
    before = _norm_by_hand if norm_first else (lambda x, _: x)
    after = (lambda x, _: x) if norm_first else _norm_by_hand
    a = before(y, w["norm1"])
    x = after(y + _attention_by_loop(a, a, w["self"], heads, future), w["norm1"])
    a = before(x, w["norm2"])
    x = after(x + _attention_by_loop(a, memory, w["cross"], heads, hidden), w["norm2"])
    return after(x + feed_forward_by_linear(before(x, w["norm3"]), **w["ff"]), w["norm3"])


def decoder_by_prefix(y, memory, w, heads, memory_padding=None, norm_first=False):
    """Row t is the last row of the layer, without any causal mask, on the first t + 1 tokens."""
    rows = [
        decoder_no_mask(y[..., : t + 1, :], memory, w, heads, memory_padding, norm_first)[..., -1, :]
        for t in range(y.shape[-2])
    ]
    return torch.stack(rows, -1).mT
