"""`decoder_layer(y, memory, w, heads, memory_padding=None, norm_first=False)`

One decoder layer: causal self-attention, cross-attention, feed-forward (ReLU).
"""

from __future__ import annotations

import torch
from torch import nn

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.encoder_decoder.shared import (
    WRONG_NETWORKS,
    attention,
    attention_by_loop,
    attention_weights,
    batched,
    called,
    encoder_weights,
    feed_forward,
    feed_forward_by_linear,
    future_mask,
    inverted,
    keys,
    mask_of,
    no_residual,
    norm,
    norm_by_hand,
    norm_inside,
    norm_weights,
    other,
    padding,
    plain_norms,
    pre_norm,
    residual,
    residual_of_the_normed,
    standardized,
    without,
)

exercise = Draft(
    "decoder_layer",
    points=4,
    forbid=["torch.nn.TransformerDecoderLayer"],
    atol=1e-4,
    dtypes=[torch.float64],
    hints=[
        "Take your encoder layer and put a second attention in the middle: attention(x, memory, w['cross'], …).",
        "Self-attention gets the causal mask, [m, m] and True above the diagonal; cross-attention gets the padding of "
        "the memory. Three sub-layers, three residuals, three norms.",
        "future = torch.ones(m, m, dtype=torch.bool).triu(1); post-norm: "
        "x = norm(y + attention(y, y, w['self'], heads, future), w['norm1']), then the same with "
        "attention(x, memory, w['cross'], heads, hidden) and norm2, then with feed_forward(x, **w['ff']) and norm3.",
    ],
)


def decoder_weights(g, d):
    return encoder_weights(g, d) | {"cross": attention_weights(g, d), "norm3": norm_weights(g, d)}


@exercise.cases
def decoder_cases(g):
    yield case(randn(g, 4, 8), randn(g, 6, 8), decoder_weights(g, 8), 2, label="no batch")
    yield case(
        randn(g, 2, 5, 8),
        randn(g, 2, 5, 8),
        decoder_weights(g, 8),
        2,
        memory_padding=padding(g, 2, 5),
        label="padding, as many targets as sources",
    )
    yield case(randn(g, 2, 1, 4), randn(g, 2, 4, 4), decoder_weights(g, 4), 1, label="one target token, one head")
    yield case(randn(g, 1, 3, 6), randn(g, 1, 1, 6), decoder_weights(g, 6), 3, label="a batch of one, one source token")
    yield case(
        randn(g, 2, 3, 4, 6),
        randn(g, 2, 3, 7, 6),
        decoder_weights(g, 6),
        2,
        padding(g, 2, 3, 7),
        label="two batch dims, padding",
    )
    yield case(
        randn(g, 3, 5, 8),
        randn(g, 3, 3, 8),
        decoder_weights(g, 8),
        4,
        memory_padding=padding(g, 3, 3),
        norm_first=True,
        label="pre-norm, padding",
    )
    yield case(
        randn(g, 4, 6), randn(g, 5, 6) * 3, decoder_weights(g, 6), 2, norm_first=True, label="pre-norm, no batch"
    )
    yield case(
        randn(g, 5, 2, 8).transpose(0, 1),
        randn(g, 4, 2, 8).transpose(0, 1),
        decoder_weights(g, 8),
        8,
        padding(g, 2, 4),
        True,
        label="not contiguous, heads of size one, pre-norm",
    )
    yield case(
        randn(g, 2, 3, 8) * 5,
        randn(g, 2, 4, 8) * 5,
        decoder_weights(g, 8),
        2,
        memory_padding=padding(g, 2, 4),
        label="large numbers",
    )
    yield case(randn(g, 2, 6, 4), randn(g, 2, 70, 4), decoder_weights(g, 4), 2, padding(g, 2, 70), label="70 sources")
    yield case(torch.zeros(3, 8), randn(g, 4, 8), decoder_weights(g, 8), 4, norm_first=True, label="zeros, pre-norm")


@exercise.oracle
def torch_decoder_layer(y, memory, w, heads, memory_padding=None, norm_first=False):
    settings = nn.TransformerDecoderLayer, w, heads, norm_first, ("norm1", "norm2", "norm3")
    causal = nn.Transformer.generate_square_subsequent_mask(y.shape[-2]).isinf()
    padded = mask_of(memory_padding)
    out = called(*settings, batched(y, 2), batched(memory, 2), tgt_mask=causal, memory_key_padding_mask=padded)
    return out.reshape(y.shape).to(y.dtype)


def _decoder_rest(one):
    """The options of a case as keywords."""
    names = ("memory_padding", "norm_first")
    return dict(zip(names, one.args[4:], strict=False)) | one.kwargs


@exercise.law("No token sees one that comes after it")
def no_future(out, one, call):
    y, memory, w, heads = one.args[:4]
    if y.shape[-2] == 1:
        return None
    changed = torch.cat([y[..., :-1, :], other(y[..., -1:, :])], -2)
    return same(call(changed, memory, w, heads, **_decoder_rest(one))[..., :-1, :], out[..., :-1, :], atol=1e-3)


exercise.law("The result has the dtype of y")(keeps_dtype)


def _moved(a, b, row):
    return bool((a[..., row, :] - b[..., row, :]).abs().max() > 1e-4)


@exercise.law("The last token sees the first")
def whole_past(out, one, call):
    y, memory, w, heads = one.args[:4]
    if y.shape[-2] == 1:
        return None
    w, rest = without(w, "self.q", "self.k"), _decoder_rest(one)  # all that may be read is read alike
    changed = torch.cat([other(y[..., :1, :]), y[..., 1:, :]], -2)
    return _moved(call(changed, memory, w, heads, **rest), call(y, memory, w, heads, **rest), -1)


@exercise.law("Every target token sees every source token that isn't padding")
def every_source(out, one, call):
    """Even the first target token sees the last source token; the order of the source is nothing, nor is padding."""
    y, memory, w, heads = one.args[:4]
    rest = _decoder_rest(one)
    padding = rest.get("memory_padding")
    if padding is not None:
        return same(call(y, torch.where(padding[..., None], other(memory), memory), w, heads, **rest), out, atol=1e-3)
    flat = without(w, "cross.q", "cross.k")
    changed = torch.cat([memory[..., :-1, :], other(memory[..., -1:, :])], -2)
    seen = _moved(call(y, changed, flat, heads, **rest), call(y, memory, flat, heads, **rest), 0)
    return seen and same(call(y, memory.flip(-2), w, heads, **rest), out, atol=1e-3)


@exercise.law("Post-norm: before gain and bias every token leaves with mean 0 and variance 1")
def decoder_post_norm(out, one, call):
    y, memory, w, heads = one.args[:4]
    if pre_norm(one):
        return None
    return standardized(call(y, memory, plain_norms(w), heads))


@exercise.law("Pre-norm: sub-layers that give 0 leave the token as it is")
def decoder_pre_norm(out, one, call):
    y, memory, w, heads = one.args[:4]
    if not pre_norm(one):
        return None
    return same(call(y, memory, without(w, "self.o", "cross.o", "ff.w2", "ff.b2"), heads, norm_first=True), y)


def _decoder(
    steps=("self", "cross", "ff"),
    causal=future_mask,
    source=keys,
    wrap=residual,
    wraps=None,
    norms=("norm1", "norm2", "norm3"),
    order=None,
    one_head=False,
    weights=("self", "cross"),
    network=feed_forward,
    keys=lambda y, memory, w, pre: memory,
):
    """`decoder_layer` with parts exchanged: which sub-layers, masks, residuals, norms, weights, keys of the cross."""

    def decoder_layer(y, memory, w, heads, memory_padding=None, norm_first=False):
        pre, count = norm_first if order is None else order, 1 if one_head else heads
        hidden = source(memory_padding)
        sublayers = {
            "self": lambda x: attention(x, x, w[weights[0]], count, causal(y)),
            "cross": lambda x: attention(x, keys(x, memory, w, pre), w[weights[1]], count, hidden),
            "ff": lambda x: network(x, **w["ff"]),
        }
        x, number = y, dict(zip(("self", "cross", "ff"), norms, strict=True))
        for step in steps:
            x = (wraps or {}).get(step, wrap)(x, sublayers[step], w[number[step]], pre)
        return x

    return decoder_layer


decoder_no_mask = exercise.mistake(
    "no token is hidden from those before it",
    hint="In training the decoder is given the whole answer: without a causal mask it can copy it.",
)(_decoder(causal=lambda y: None))

exercise.mistake(
    "the causal mask hides the past instead of the future",
    hint="hidden is True where nothing may be read: above the diagonal, triu(1).",
)(_decoder(causal=lambda y: future_mask(y).mT))

exercise.mistake(
    "the causal mask is inverted, as if True meant that a token may be read",
    hint="hidden is True where nothing may be read: above the diagonal, triu(1).",
)(_decoder(causal=lambda y: ~future_mask(y)))

exercise.mistake(
    "the causal mask also hides the token itself", hint="A token may look at itself: triu(1), not triu(0)."
)(_decoder(causal=lambda y: future_mask(y, 0)))

exercise.mistake(
    "the causal mask lets each token see the next one",
    hint="The input is shifted already: the next token is the answer. triu(1), not triu(2).",
)(_decoder(causal=lambda y: future_mask(y, 2)))

exercise.mistake(
    "there is no cross-attention", hint="Three sub-layers: self-attention, cross-attention to the memory, feed-forward."
)(_decoder(steps=("self", "ff")))

exercise.mistake(
    "the feed-forward network is missing", hint="Three sub-layers: self-attention, cross-attention, feed-forward."
)(_decoder(steps=("self", "cross")))


@exercise.mistake(
    "the cross-attention reads the target's own tokens instead of the memory",
    hint="Queries come from the decoder; keys and values from the memory: attention(x, memory, …).",
)
def decoder_crosses_itself(y, memory, w, heads, memory_padding=None, norm_first=False):
    """The second attention reads the decoder's own tokens; with them there is no source whose padding could count."""
    return _decoder(keys=lambda x, *_: x, source=lambda padding: None)(y, memory, w, heads, None, norm_first)


exercise.mistake("the cross-attention comes before the self-attention", hint="The order is self, cross, feed-forward.")(
    _decoder(steps=("cross", "self", "ff"), norms=("norm2", "norm1", "norm3"))
)


@exercise.mistake(
    "the causal mask also lies on the cross-attention",
    hint="The source is known from the start: even the first target token may read all of it.",
)
def decoder_causal_cross(y, memory, w, heads, memory_padding=None, norm_first=False):
    future = torch.ones(y.shape[-2], memory.shape[-2], dtype=torch.bool).triu(1)
    return _decoder(source=lambda p: future if p is None else future | keys(p))(
        y, memory, w, heads, memory_padding, norm_first
    )


exercise.mistake(
    "the padding of the memory is ignored",
    hint="Hide padded source tokens from the cross-attention: memory_padding[..., None, :].",
)(_decoder(source=lambda padding: None))

exercise.mistake(
    "the padding mask of the memory is inverted",
    hint="`memory_padding` and `hidden` are both True where nothing may be read. Pass it without ~.",
)(_decoder(source=inverted))

exercise.mistake(
    "norm2 and norm3 are swapped", hint="norm2 belongs to the cross-attention, norm3 to the feed-forward network."
)(_decoder(norms=("norm1", "norm3", "norm2")))


@exercise.mistake("all sources have the first one's padding", hint="memory_padding[..., None, :] needs no index.")
def decoder_padding_of_the_first(y, memory, w, heads, memory_padding=None, norm_first=False):
    hidden = memory_padding
    first = hidden if hidden is None or hidden.dim() < 2 else hidden.flatten(0, -2)[0].expand(hidden.shape)
    return _decoder()(y, memory, w, heads, first, norm_first)


@exercise.mistake("pre-norm ends with one norm more", hint="With norm_first=True nothing is normalized at the end.")
def decoder_with_final_norm(y, memory, w, heads, memory_padding=None, norm_first=False):
    out = _decoder()(y, memory, w, heads, memory_padding, norm_first)
    return norm(out, w["norm3"]) if norm_first else out


@exercise.mistake("the result comes in float32, whatever y is", hint="Don't cast: float64 in, float64 out.")
def decoder_in_float32(y, memory, w, heads, memory_padding=None, norm_first=False):
    return _decoder()(y, memory, w, heads, memory_padding, norm_first).float()


@exercise.mistake("`norm_first` is inverted", hint="norm_first=True is pre-norm, x + sublayer(norm(x)).")
def decoder_norm_inverted(y, memory, w, heads, memory_padding=None, norm_first=False):
    return _decoder()(y, memory, w, heads, memory_padding, not norm_first)


@exercise.mistake(
    "the numbers are right, but the memory is cut off from the graph",
    hint="The encoder learns through the memory: no detach(), no .data.",
)
def decoder_detached(y, memory, w, heads, memory_padding=None, norm_first=False):
    return _decoder()(y, memory.detach(), w, heads, memory_padding, norm_first)


exercise.mistake("the cross-attention has no residual connection", hint="All three sub-layers add to what came in.")(
    _decoder(wraps={"cross": no_residual})
)

exercise.mistake("no sub-layer has a residual connection", hint="A sub-layer's result is added to what went into it.")(
    _decoder(wrap=no_residual)
)

exercise.mistake(
    "post-norm normalizes the sub-layer's result before it is added",
    hint="Post-norm is norm(x + sublayer(x)): the sum is normalized.",
)(_decoder(wrap=norm_inside))

exercise.mistake(
    "pre-norm adds the residual of the normed token",
    hint="Pre-norm is x + sublayer(norm(x)): the road for x itself stays free.",
)(_decoder(wrap=residual_of_the_normed))

exercise.mistake("all sub-layers use norm1", hint="norm1, norm2 and norm3, in this order.")(
    _decoder(norms=("norm1",) * 3)
)

exercise.mistake(
    "`norm_first` is ignored and the norm always comes last", hint="With norm_first=True: x + sublayer(norm(x))."
)(_decoder(order=False))

exercise.mistake("the norm always comes first", hint="The default, as in the paper, is norm(x + sublayer(x)).")(
    _decoder(order=True)
)

exercise.mistake(
    "pre-norm also normalizes the memory",
    hint="The memory comes from the encoder as it should be read; only the decoder's own side is normed.",
)(_decoder(keys=lambda x, memory, w, pre: norm(memory, w["norm2"]) if pre else memory))

exercise.mistake("the cross-attention uses the weights of the self-attention", hint="w['cross'] is a set of its own.")(
    _decoder(weights=("self", "self"))
)

exercise.mistake("there is only one head, whatever is passed", hint="Pass `heads` on to attention, in both places.")(
    _decoder(one_head=True)
)


for says, hint, network in WRONG_NETWORKS:
    exercise.mistake(says, hint=hint)(_decoder(network=network))


@exercise.alternative
def decoder_by_hand(y, memory, w, heads, memory_padding=None, norm_first=False):
    positions = torch.arange(y.shape[-2])
    future = positions[None, :] > positions[:, None]
    hidden = None if memory_padding is None else memory_padding.unsqueeze(-2)
    before = norm_by_hand if norm_first else (lambda x, _: x)
    after = (lambda x, _: x) if norm_first else norm_by_hand
    a = before(y, w["norm1"])
    x = after(y + attention_by_loop(a, a, w["self"], heads, future), w["norm1"])
    a = before(x, w["norm2"])
    x = after(x + attention_by_loop(a, memory, w["cross"], heads, hidden), w["norm2"])
    return after(x + feed_forward_by_linear(before(x, w["norm3"]), **w["ff"]), w["norm3"])


@exercise.alternative
def decoder_by_prefix(y, memory, w, heads, memory_padding=None, norm_first=False):
    """Row t is the last row of the layer, without any causal mask, on the first t + 1 tokens."""
    rows = [
        decoder_no_mask(y[..., : t + 1, :], memory, w, heads, memory_padding, norm_first)[..., -1, :]
        for t in range(y.shape[-2])
    ]
    return torch.stack(rows, -1).mT
