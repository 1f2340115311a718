"""What exercises of the chapter encoder_decoder share."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F

from autograde.exercises.shared import randn

D_FF = 5  # the inner width of a layer's feed-forward network, unlike every d


def ff_weights(g, d, d_ff, scale=1.0):
    return randn(g, d, d_ff) * scale, randn(g, d_ff), randn(g, d_ff, d) * scale, randn(g, d)


def attention_weights(g, d):
    return {name: randn(g, d, d) * d**-0.5 * (2.0 if name in "qk" else 1.0) for name in "qkvo"}


def norm_weights(g, d):
    return {"gain": 1 + 0.5 * randn(g, d), "bias": 0.5 * randn(g, d)}


def encoder_weights(g, d):
    w1, b1, w2, b2 = ff_weights(g, d, D_FF, d**-0.5)
    return {
        "self": attention_weights(g, d),
        "ff": {"w1": w1, "b1": b1, "w2": w2, "b2": b2},
        "norm1": norm_weights(g, d),
        "norm2": norm_weights(g, d),
    }


def padding(g, *shape):
    """True in about half of the places, anywhere; at least one place a row is False and one True."""
    n = shape[-1]
    order = torch.rand(shape, generator=g).argsort(-1)
    return order >= torch.randint(1, n, (*shape[:-1], 1), generator=g)


@functools.lru_cache(maxsize=64)
def layer_made_of(kind, d, heads, d_ff, norm_first):
    """One of torch's layers in float64. In training mode, since evaluation has a shortcut that treats padding in
    another way; there is no dropout."""
    return kind(d, heads, d_ff, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64).train()


def called(kind, w, heads, norm_first, norms, *inputs, **masks):
    """What a torch layer with the course's weights gives. Gradients flow to the weights, too."""
    layer = layer_made_of(kind, w["ff"]["w1"].shape[0], heads, w["ff"]["w1"].shape[1], norm_first)
    values = {"linear1.weight": w["ff"]["w1"].mT, "linear1.bias": w["ff"]["b1"]}
    values |= {"linear2.weight": w["ff"]["w2"].mT, "linear2.bias": w["ff"]["b2"]}
    for name, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
        if hasattr(layer, attention):
            values[f"{attention}.in_proj_weight"] = torch.cat([w[name][part].mT for part in "qkv"])
            values[f"{attention}.out_proj.weight"] = w[name]["o"].mT
    for name in norms:
        values |= {f"{name}.weight": w[name]["gain"], f"{name}.bias": w[name]["bias"]}
    values = {name: values.get(name, torch.zeros_like(p)).double() for name, p in layer.named_parameters()}
    return torch.func.functional_call(layer, values, inputs, masks)


def batched(x, rows):
    return x.double().reshape(-1, *x.shape[-rows:])


def mask_of(padding):
    return None if padding is None else padding.reshape(-1, padding.shape[-1])


def without(w, *names):
    """The weights with some matrices set to zero, named as in "self.o"."""
    changed = {key: dict(part) for key, part in w.items()}
    for name in names:
        part, key = name.split(".")
        changed[part][key] = torch.zeros_like(changed[part][key])
    return changed


def plain_norms(w):
    return {
        key: {"gain": torch.ones_like(part["gain"]), "bias": torch.zeros_like(part["bias"])} if "gain" in part else part
        for key, part in w.items()
    }


def other(x, scale=3.0):
    """Other numbers of the same shape, made from x without chance."""
    return (x * 1.7 + scale * torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)).flip(-1)


def pre_norm(one):
    """Whether a case asks for pre-norm."""
    return one.kwargs.get("norm_first", one.args[-1] is True)


def standardized(rows):
    rows = rows.double()
    return bool((rows.mean(-1).abs() < 1e-3).all() and (rows.var(-1, unbiased=False) - 1).abs().max() < 2e-2)


ACTIVATIONS = {"relu": torch.relu, "gelu": F.gelu}


def feed_forward(x, w1, b1, w2, b2, activation="relu"):
    return ACTIVATIONS[activation](x @ w1 + b1) @ w2 + b2


# What layers have in the place of their feed-forward network: what is said, the hint, the network.
WRONG_NETWORKS = [
    (
        "the feed-forward network has a GELU",
        "BERT and GPT-2 have it. The first Transformer, and this layer, has a ReLU.",
        lambda x, w1, b1, w2, b2: feed_forward(x, w1, b1, w2, b2, "gelu"),
    ),
    (
        "the feed-forward network has no activation",
        "Two linear maps in a row are one linear map. A ReLU stands between them.",
        lambda x, w1, b1, w2, b2: (x @ w1 + b1) @ w2 + b2,
    ),
    (
        "the ReLU of the feed-forward network stands after its second matrix",
        "What is added to the residual may be negative: the ReLU stands between the two matrices.",
        lambda x, w1, b1, w2, b2: torch.relu((x @ w1 + b1) @ w2 + b2),
    ),
    (
        "the feed-forward network lacks b1",
        "Both matrices have a bias, as in your feed_forward.",
        lambda x, w1, b1, w2, b2: feed_forward(x, w1, 0 * b1, w2, b2),
    ),
    (
        "the feed-forward network lacks b2",
        "Both matrices have a bias, as in your feed_forward.",
        lambda x, w1, b1, w2, b2: feed_forward(x, w1, b1, w2, 0 * b2),
    ),
    (
        "the feed-forward network has no biases",
        "Both matrices have a bias, as in your feed_forward.",
        lambda x, w1, b1, w2, b2: feed_forward(x, w1, 0 * b1, w2, 0 * b2),
    ),
]


def feed_forward_by_linear(x, w1, b1, w2, b2, activation="relu"):
    inner = F.linear(x, w1.T, b1)
    inner = inner.clamp(min=0) if activation == "relu" else inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return F.linear(inner, w2.T, b2)


def attention(x, memory, w, heads, hidden=None):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(-3, -2) for t in (x @ w["q"], memory @ w["k"], memory @ w["v"]))
    seen = None if hidden is None else ~hidden.unsqueeze(-3)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(-3, -2).flatten(-2) @ w["o"]


def norm(x, w):
    return F.layer_norm(x, x.shape[-1:], w["gain"], w["bias"])


def residual(x, sublayer, w, norm_first):
    """Sublayer, residual, norm, in the order of post-norm or of pre-norm."""
    return x + sublayer(norm(x, w)) if norm_first else norm(x + sublayer(x), w)


def norm_inside(x, sublayer, w, norm_first):
    return x + sublayer(norm(x, w)) if norm_first else x + norm(sublayer(x), w)


def residual_of_the_normed(x, sublayer, w, norm_first):
    return norm(x, w) + sublayer(norm(x, w)) if norm_first else norm(x + sublayer(x), w)


def no_residual(x, sublayer, w, norm_first):
    return sublayer(norm(x, w)) if norm_first else norm(sublayer(x), w)


def keys(padding):
    return None if padding is None else padding[..., None, :]


def inverted(padding):
    return None if padding is None else ~padding[..., None, :]


def attention_by_loop(x, memory, w, heads, hidden=None):
    """One head at a time, softmax by hand, the output projection head by head."""
    size, total = x.shape[-1] // heads, 0
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = torch.einsum("...md,...nd->...mn", x @ w["q"][:, part], memory @ w["k"][:, part]) / math.sqrt(size)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        total = total + scores.softmax(-1) @ (memory @ w["v"][:, part]) @ w["o"][part]
    return total


def norm_by_hand(x, w):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-5) * w["gain"] + w["bias"]


def future_mask(y, shift=1):
    return torch.ones(y.shape[-2], y.shape[-2], dtype=torch.bool, device=y.device).triu(shift)
