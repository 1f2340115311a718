"""`encoder_layer(x, w, heads, padding=None, norm_first=False)`

One encoder layer: self-attention, then feed-forward (ReLU), with residuals and norms.
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
    "encoder_layer",
    points=4,
    forbid=["torch.nn.TransformerEncoderLayer"],
    atol=1e-4,
    dtypes=[torch.float64],
    hints=[
        "Two sub-layers: attention(x, x, …), then feed_forward. Write the post-norm case first: two lines.",
        "Post-norm: x = norm(x + sublayer(x), w[…]). Pre-norm: x = x + sublayer(norm(x, w[…])). The mask for "
        "attention is padding[..., None, :], where there is padding.",
        "hidden = None if padding is None else padding[..., None, :]; post-norm: "
        "x = norm(x + attention(x, x, w['self'], heads, hidden), w['norm1']), and then "
        "norm(x + feed_forward(x, **w['ff']), w['norm2']).",
    ],
)


@exercise.cases
def encoder_cases(g):
    yield case(randn(g, 5, 8), encoder_weights(g, 8), 2, label="no batch")
    yield case(randn(g, 2, 5, 8), encoder_weights(g, 8), 2, padding=padding(g, 2, 5), label="padding by keyword")
    yield case(randn(g, 1, 3, 4), encoder_weights(g, 4), 1, label="one head")
    yield case(randn(g, 2, 1, 4), encoder_weights(g, 4), 2, label="one token")
    yield case(randn(g, 2, 3, 7, 6), encoder_weights(g, 6), 3, padding(g, 2, 3, 7), label="two batch dims, padding")
    yield case(
        randn(g, 3, 5, 8),
        encoder_weights(g, 8),
        4,
        padding=padding(g, 3, 5),
        norm_first=True,
        label="pre-norm, padding",
    )
    yield case(randn(g, 4, 6), encoder_weights(g, 6), 2, norm_first=True, label="pre-norm, no batch")
    yield case(
        randn(g, 6, 2, 8).transpose(0, 1),
        encoder_weights(g, 8),
        8,
        padding(g, 2, 6),
        True,
        label="not contiguous, heads of size one, pre-norm",
    )
    yield case(randn(g, 2, 4, 8) * 5, encoder_weights(g, 8), 2, padding=padding(g, 2, 4), label="large numbers")
    yield case(torch.zeros(3, 8), encoder_weights(g, 8), 2, norm_first=True, label="zeros, pre-norm")
    yield case(randn(g, 3, 70, 4), encoder_weights(g, 4), 2, padding(g, 3, 70), label="70 tokens, padding")
    yield case(randn(g, 3, 8) * 1e-3, encoder_weights(g, 8), 4, norm_first=True, label="tiny numbers, pre-norm")


@exercise.oracle
def torch_encoder_layer(x, w, heads, padding=None, norm_first=False):
    settings = nn.TransformerEncoderLayer, w, heads, norm_first, ("norm1", "norm2")
    out = called(*settings, batched(x, 2), src_key_padding_mask=mask_of(padding))
    return out.reshape(x.shape).to(x.dtype)


@exercise.law("Shuffling the tokens shuffles the result, and changes nothing else")
def encoder_shuffle(out, one, call):
    x, w, heads = one.args[:3]
    n, pre = x.shape[-2], pre_norm(one)
    if n == 1:
        return None
    order = torch.arange(n - 1, -1, -1)
    return same(
        call(x[..., order, :], w, heads, norm_first=pre), call(x, w, heads, norm_first=pre)[..., order, :], atol=1e-3
    )


def _encoder_padding(one):
    return one.kwargs.get("padding", one.args[3] if len(one.args) > 3 else None)


@exercise.law("What stands at a padded place doesn't matter to the others")
def encoder_padding_unread(out, one, call):
    padding = _encoder_padding(one)
    if padding is None:
        return None
    x, w, heads = one.args[:3]
    changed = call(torch.where(padding[..., None], other(x), x), w, heads, padding=padding)
    return same(changed[~padding], call(x, w, heads, padding=padding)[~padding], atol=1e-3)


@exercise.law("Post-norm: before gain and bias every token leaves with mean 0 and variance 1")
def encoder_post_norm(out, one, call):
    x, w, heads = one.args[:3]
    return None if pre_norm(one) else standardized(call(x, plain_norms(w), heads))


@exercise.law("Pre-norm: sub-layers that give 0 leave the token as it is")
def encoder_pre_norm(out, one, call):
    x, w, heads = one.args[:3]
    if not pre_norm(one):
        return None
    return same(call(x, without(w, "self.o", "ff.w2", "ff.b2"), heads, norm_first=True), x)


exercise.law("The result has the dtype of x")(keeps_dtype)


def _encoder(
    first=residual,
    second=residual,
    hidden=keys,
    norms=("norm1", "norm2"),
    one_head=False,
    order=None,
    network=feed_forward,
):
    """`encoder_layer` with parts exchanged; `order` fixes norm_first."""

    def encoder_layer(x, w, heads, padding=None, norm_first=False):
        pre, count, mask = norm_first if order is None else order, 1 if one_head else heads, hidden(padding)
        x = first(x, lambda y: attention(y, y, w["self"], count, mask), w[norms[0]], pre)
        return second(x, lambda y: network(y, **w["ff"]), w[norms[1]], pre)

    return encoder_layer


exercise.mistake(
    "neither sub-layer has a residual connection", hint="A sub-layer's result is added to what went into it."
)(_encoder(no_residual, no_residual))

exercise.mistake("the attention has no residual connection", hint="x + attention(…), not attention(…) alone.")(
    _encoder(first=no_residual)
)

exercise.mistake(
    "the feed-forward network has no residual connection", hint="x + feed_forward(…), not feed_forward(…) alone."
)(_encoder(second=no_residual))

exercise.mistake(
    "post-norm normalizes the sub-layer's result before it is added",
    hint="Post-norm is norm(x + sublayer(x)): the sum is normalized.",
)(_encoder(norm_inside, norm_inside))


def _no_norm(x, sublayer, w, norm_first):
    return x + sublayer(x)


exercise.mistake("nothing is normalized", hint="Each sub-layer has its norm.")(_encoder(_no_norm, _no_norm))


def _norm_over_tokens(x, w):
    centered = x - x.mean(-2, keepdim=True)
    return centered / (centered.square().mean(-2, keepdim=True) + 1e-5).sqrt() * w["gain"] + w["bias"]


def _wrong_axis(x, sublayer, w, norm_first):
    return x + sublayer(_norm_over_tokens(x, w)) if norm_first else _norm_over_tokens(x + sublayer(x), w)


exercise.mistake(
    "the norm goes over the tokens rather than over the numbers of each token",
    hint="LayerNorm looks at one token at a time: mean and variance over the last dimension.",
)(_encoder(_wrong_axis, _wrong_axis))

exercise.mistake(
    "pre-norm adds the residual of the normed token",
    hint="Pre-norm is x + sublayer(norm(x)): the road for x itself stays free.",
)(_encoder(residual_of_the_normed, residual_of_the_normed))

def _second_unnormed(x, sublayer, w, norm_first):
    return x + sublayer(x) if norm_first else residual(x, sublayer, w, norm_first)


exercise.mistake(
    "pre-norm normalizes for the attention alone",
    hint="With norm_first=True each sub-layer reads a normed token: x + feed_forward(norm(x)), too.",
)(_encoder(second=_second_unnormed))

exercise.mistake(
    "pre-norm adds the residual of the normed token in the attention",
    hint="Pre-norm is x + sublayer(norm(x)): the road for x itself stays free.",
)(_encoder(first=residual_of_the_normed))

exercise.mistake("both sub-layers use norm1", hint="The second sub-layer has w['norm2'].")(
    _encoder(norms=("norm1", "norm1"))
)

exercise.mistake(
    "norm1 and norm2 are swapped", hint="norm1 belongs to the attention, norm2 to the feed-forward network."
)(_encoder(norms=("norm2", "norm1")))

exercise.mistake(
    "`norm_first` is ignored and the norm always comes last", hint="With norm_first=True: x + sublayer(norm(x))."
)(_encoder(order=False))


@exercise.mistake("the result comes in float32, whatever x is", hint="Don't cast: float64 in, float64 out.")
def encoder_in_float32(x, w, heads, padding=None, norm_first=False):
    return _encoder()(x, w, heads, padding, norm_first).float()


@exercise.mistake("`norm_first` is inverted", hint="norm_first=True is pre-norm, x + sublayer(norm(x)).")
def encoder_norm_inverted(x, w, heads, padding=None, norm_first=False):
    return _encoder()(x, w, heads, padding, not norm_first)


@exercise.mistake("the feed-forward network is missing", hint="Two sub-layers: attention, then feed_forward.")
def encoder_without_feed_forward(x, w, heads, padding=None, norm_first=False):
    return residual(x, lambda y: attention(y, y, w["self"], heads, keys(padding)), w["norm1"], norm_first)


@exercise.mistake(
    "pre-norm normalizes the queries alone", hint="All three are made from norm(x): y = norm(x, …), attention(y, y, …)."
)
def encoder_keys_not_normed(x, w, heads, padding=None, norm_first=False):
    y = residual(
        x, lambda y: attention(y, x if norm_first else y, w["self"], heads, keys(padding)), w["norm1"], norm_first
    )
    return residual(y, lambda z: feed_forward(z, **w["ff"]), w["norm2"], norm_first)


exercise.mistake("the norm always comes first", hint="The default, as in the paper, is norm(x + sublayer(x)).")(
    _encoder(order=True)
)

exercise.mistake(
    "the padding mask is inverted, so that only padding is seen",
    hint="`padding` and `hidden` are both True where nothing may be read. Pass it without ~.",
)(_encoder(hidden=inverted))

exercise.mistake("the padding is ignored", hint="Hide the keys at padded places: hidden=padding[..., None, :].")(
    _encoder(hidden=lambda padding: None)
)


def _rows_instead(padding):
    return None if padding is None else padding[..., :, None]


exercise.mistake(
    "the padding hides rows (queries) instead of columns (keys)",
    hint="hidden is [..., queries, keys]. What must not be read are keys: padding[..., None, :].",
)(_encoder(hidden=_rows_instead))

exercise.mistake("there is only one head, whatever is passed", hint="Pass `heads` on to attention.")(
    _encoder(one_head=True)
)


def _keys_and_rows(padding):
    return None if padding is None else padding[..., :, None] | padding[..., None, :]


exercise.mistake(
    "the padding hides rows (queries) as well as columns (keys)",
    hint="A padded row that may read nothing has no softmax. Only keys are hidden: padding[..., None, :].",
)(_encoder(hidden=_keys_and_rows))


@exercise.mistake("all sequences have the first one's padding", hint="padding[..., None, :] needs no index.")
def encoder_padding_of_the_first(x, w, heads, padding=None, norm_first=False):
    first = padding if padding is None or padding.dim() < 2 else padding.flatten(0, -2)[0].expand(padding.shape)
    return _encoder()(x, w, heads, first, norm_first)


@exercise.mistake(
    "the rows of padded tokens are set to 0", hint="They are computed like all others: nobody reads them."
)
def encoder_without_padded_rows(x, w, heads, padding=None, norm_first=False):
    out = _encoder()(x, w, heads, padding, norm_first)
    return out if padding is None else out.masked_fill(padding[..., None], 0.0)


@exercise.mistake("pre-norm ends with one norm more", hint="With norm_first=True nothing is normalized at the end.")
def encoder_with_final_norm(x, w, heads, padding=None, norm_first=False):
    out = _encoder()(x, w, heads, padding, norm_first)
    return norm(out, w["norm2"]) if norm_first else out


@exercise.mistake("the feed-forward network comes first", hint="First attention, then feed-forward.")
def encoder_backwards(x, w, heads, padding=None, norm_first=False):
    y = residual(x, lambda z: feed_forward(z, **w["ff"]), w["norm2"], norm_first)
    return residual(y, lambda z: attention(z, z, w["self"], heads, keys(padding)), w["norm1"], norm_first)


@exercise.mistake(
    "a causal mask hides later tokens", hint="An encoder has the whole source before it: every token sees every other."
)
def encoder_causal(x, w, heads, padding=None, norm_first=False):
    future = future_mask(x)
    return _encoder(hidden=lambda p: future if p is None else future | keys(p))(x, w, heads, padding, norm_first)


@exercise.mistake(
    "the feed-forward network reads the layer's input rather than what the attention left",
    hint="Some models do this (GPT-J). Here the second sub-layer continues where the first ended.",
)
def encoder_parallel(x, w, heads, padding=None, norm_first=False):
    """Both sub-layers read the layer's input, as in GPT-J."""
    a = norm(x, w["norm1"]) if norm_first else x
    y = x + attention(a, a, w["self"], heads, keys(padding))
    y = y if norm_first else norm(y, w["norm1"])
    inner = feed_forward(norm(x, w["norm2"]) if norm_first else x, **w["ff"])
    return y + inner if norm_first else norm(y + inner, w["norm2"])


for says, hint, network in WRONG_NETWORKS:
    exercise.mistake(says, hint=hint)(_encoder(network=network))


@exercise.alternative
def encoder_by_hand(x, w, heads, padding=None, norm_first=False):
    hidden = None if padding is None else padding.unsqueeze(-2)

    def attend(y):
        return attention_by_loop(y, y, w["self"], heads, hidden)

    if norm_first:
        x = attend(norm_by_hand(x, w["norm1"])) + x
        return feed_forward_by_linear(norm_by_hand(x, w["norm2"]), **w["ff"]) + x
    x = norm_by_hand(x + attend(x), w["norm1"])
    return norm_by_hand(feed_forward_by_linear(x, **w["ff"]) + x, w["norm2"])


@exercise.alternative
def encoder_by_sequence(x, w, heads, padding=None, norm_first=False):
    """One sequence after the other, with its padded keys cut out; the result is not contiguous."""
    rows = []
    flat = x.reshape(-1, *x.shape[-2:])
    masks = torch.zeros(flat.shape[:2], dtype=torch.bool) if padding is None else padding.reshape(flat.shape[:2])
    for row, mask in zip(flat, masks, strict=True):

        def attend(y, keep=~mask):
            return attention(y, y[keep], w["self"], heads)

        y = residual(row, attend, w["norm1"], norm_first)
        rows.append(residual(y, lambda z: feed_forward(z, **w["ff"]), w["norm2"], norm_first))
    return torch.stack(rows, -1).movedim(-1, 0).reshape(x.shape)
