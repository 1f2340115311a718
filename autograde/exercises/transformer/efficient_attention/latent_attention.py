"""`latent_attention(q, q_rope, latent, k_rope, w_k, w_v, mask=None)`

Multi-head latent attention from its cache: no head's keys or values are ever made.
"""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "latent_attention",
    points=4,
    forbid=["transformers"],
    rtol=1e-3,
    atol=1e-4,
    hints=[
        "q · (w_k c) is (w_kᵀ q) · c. Which of the two sides is done once a query, and which once for every token in "
        "the cache?",
        "Absorb w_k into the queries: each head's d numbers become c. Then all heads read the same latents, twice: for "
        "the scores (plus those of the rotated parts), and as values. w_v comes last, once a query. The root is still "
        "that of d + r.",
        "asked = q @ w_k; keys = latent.unsqueeze(-3); scores = (asked @ keys.mT + q_rope @ k_rope.unsqueeze(-3).mT) / "
        "sqrt(d + r); hide, softmax; return (weights @ keys) @ w_v.mT",
    ],
)


def _some(g, lead, heads, n, m, d, r, c, wide=None):
    wide = wide or d
    rows = randn(g, *lead, heads, n, d), randn(g, *lead, heads, n, r), randn(g, *lead, m, c), randn(g, *lead, m, r)
    return *rows, randn(g, heads, d, c) / c**0.5, randn(g, heads, wide, c) / c**0.5


def _mask(g, *shape):
    """Each query sees the first key, and others by chance; never all of them."""
    mask = torch.rand(shape, generator=g) < 0.5
    mask[..., 0], mask[..., -1] = True, False
    return mask


def _loud(g):
    """Scores of thousands, of which some hidden ones are the highest."""
    q, q_rope, latent, k_rope, w_k, w_v = _some(g, (2,), 3, 4, 6, 4, 2, 3)
    return q * 60, q_rope * 60, latent * 40, k_rope * 40, w_k, w_v


def _low(g, far=256.0):
    """Scores near -far² / 4, some of them hidden: a mask that isn't -inf may be the highest of all.

    1 / sqrt(d + r) and its root, by which torch's kernels multiply queries and keys, are exact: nothing is rounded.
    """
    q, q_rope, latent, k_rope, w_k, w_v = _some(g, (2,), 2, 3, 5, 8, 8, 3, wide=4)
    q_rope, k_rope = torch.zeros_like(q_rope), torch.zeros_like(k_rope)
    q_rope[..., 0] = far
    k_rope[..., 0] = -far - torch.rand(k_rope.shape[:-1], generator=g).argsort() / 64
    return 0 * q, q_rope, latent, k_rope, w_k, w_v


@exercise.cases
def latent_cases(g):
    yield case(*_some(g, (), 3, 4, 5, 6, 2, 3), label="three heads")
    yield case(*_some(g, (2,), 2, 3, 5, 4, 3, 5, wide=7), label="a batch, wider values")
    yield case(*_some(g, (2,), 4, 3, 6, 5, 2, 3, wide=2), _mask(g, 3, 6), label="a mask, narrower values")
    yield case(*_some(g, (2, 3), 2, 2, 4, 3, 4, 2), label="two batch dimensions, a wide rotated part")
    yield case(*_some(g, (2,), 1, 3, 4, 4, 2, 4), label="one head, a latent as wide as it")
    yield case(*_some(g, (3,), 5, 1, 7, 6, 2, 4), label="one new token, seven in the cache")
    yield case(*_some(g, (1,), 2, 2, 1, 3, 1, 1), label="a batch of one, one token in the cache, a latent of one")
    yield case(*_some(g, (2,), 2, 3, 4, 1, 1, 6), label="width one, a latent wider than all keys")
    yield case(*_some(g, (2,), 3, 4, 4, 4, 2, 3), torch.ones(4, 4).tril().bool(), label="a causal mask")
    yield case(*_some(g, (2,), 3, 4, 4, 4, 2, 3), label="as many queries as tokens, and no mask")
    yield case(*_some(g, (2,), 3, 3, 5, 4, 2, 3), mask=_mask(g, 2, 1, 3, 5), label="a mask a sequence")
    yield case(*_some(g, (2,), 3, 3, 5, 4, 2, 3), mask=_mask(g, 2, 3, 3, 5), label="a mask a head")
    yield case(*_loud(g), mask=_mask(g, 4, 6), label="scores of thousands")
    yield case(*_low(g), mask=_mask(g, 3, 5), label="scores far below zero, and a mask")
    yield case(*_low(g, 2.0**17), mask=_mask(g, 3, 5), label="scores lower than any number one would think of")
    yield case(*_some(g, (), 3, 40, 150, 5, 3, 4), _mask(g, 40, 150), label="a long text")


@exercise.oracle
def deepseek(q, q_rope, latent, k_rope, w_k, w_v, mask=None, peak=False):
    """DeepSeek-V3's own way from latents to keys and values, then torch's attention, in float64."""
    lead, d, wide = q.shape[:-3], w_k.shape[1], w_v.shape[1]
    weight = torch.cat([w_k, w_v], 1).flatten(0, 1).double()
    layer = types.SimpleNamespace(
        kv_b_proj=lambda x: F.linear(x, weight), qk_nope_head_dim=d, v_head_dim=wide, qk_rope_head_dim=q_rope.shape[-1]
    )
    kv, rope = (x.double().reshape(-1, 1, *x.shape[-2:]) for x in (latent, k_rope))
    expand = borrowed("transformers.models.deepseek_v3.modeling_deepseek_v3", "DeepseekV3Attention").expand_kv
    k, v = expand(layer, kv, rope)
    asked = torch.cat([q, q_rope], -1).double()
    shown = None if mask is None else mask.expand(*q.shape[:-1], k.shape[2]).reshape(-1, *q.shape[-3:-1], k.shape[2])
    out = F.scaled_dot_product_attention(asked.reshape(-1, *asked.shape[-3:]), k, v, attn_mask=shown)
    return out.reshape(*lead, *out.shape[1:]).to(q.dtype)


@exercise.probe
def answered(implementation, q, q_rope, latent, k_rope, w_k, w_v, mask=None, peak=False):
    """The result; with `peak` the most bytes that lived at once on the way, as a number."""
    if not peak:
        return implementation(q, q_rope, latent, k_rope, w_k, w_v, mask)
    from labkit import record_memory

    with record_memory() as memory:
        implementation(q, q_rope, latent, k_rope, w_k, w_v, mask)
    return memory.peak


@exercise.law("No head's keys or values are made", essential=True)
def absorbed(out, one, call):
    """One new token, 160 in the cache: three heads of which keys, then values, are 256 wide, over latents of two."""
    if one.args[0].dim() > 3 or one.args[0].dtype != torch.float32:
        return None
    m, one_head = 160, 160 * 256 * 4
    peaks = {}
    for what, d, wide in (("keys", 256, 2), ("values", 2, 256)):
        q = torch.linspace(-1, 1, 3 * d).view(3, 1, d)
        cached, matrices = [torch.ones(m, 2), torch.ones(m, 1)], [torch.ones(3, d, 2), torch.ones(3, wide, 2)]
        peaks[what] = call(q, torch.ones(3, 1, 1), *cached, *matrices, peak=True)
    made = {what: peak for what, peak in peaks.items() if peak > 0.9 * one_head}
    told = ", ".join(f"where {what} are wide, {peak:,} bytes lived at once" for what, peak in made.items())
    return not made or f"{told}; those of one head alone take {one_head:,}"


@exercise.law("Larger latents and smaller matrices: the same result")
def only_products_count(out, one, call):
    q, q_rope, latent, k_rope, w_k, w_v = one.args[:6]
    return same(call(q, q_rope, 4 * latent, k_rope, w_k / 4, w_v / 4, _mask_of(one)), out, rtol=1e-3, atol=1e-3)


@exercise.law("What stands at a hidden token doesn't matter")
def hidden_is_unread(out, one, call):
    q, q_rope, latent, k_rope, w_k, w_v = one.args[:6]
    if latent.shape[-2] < 2:
        return None
    mask = torch.ones(q.shape[-2], latent.shape[-2], dtype=torch.bool)
    mask[:, -1] = False
    other, turned = latent.clone(), k_rope.clone()
    other[..., -1, :] -= 9.0
    turned[..., -1, :] += 5.0
    return same(call(q, q_rope, other, turned, w_k, w_v, mask), call(*one.args[:6], mask), rtol=1e-3, atol=1e-3)


@exercise.law("The result has the dtype of q")
def result_keeps_dtype(out, one, call):
    return keeps_dtype(out, one, call)


def _mask_of(one):
    return one.kwargs.get("mask", one.args[6] if len(one.args) > 6 else None)


def _hidden(scores, mask):
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _softmax(scores, mask):
    return _hidden(scores, mask).softmax(-1)


def _scaled(content, rope, d, r, c):
    return (content + rope) / (d + r) ** 0.5


def _latent(scaled=_scaled, weigh=_softmax, change=lambda *given: given):
    """The right way with one screw turned: how scores are scaled, how they become weights, what is read."""

    def attend(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
        q, q_rope, latent, k_rope, w_k, w_v = change(q, q_rope, latent, k_rope, w_k, w_v)
        keys = latent.unsqueeze(-3)
        sizes = q.shape[-1], q_rope.shape[-1], latent.shape[-1]
        scores = scaled(q @ w_k @ keys.mT, q_rope @ k_rope.unsqueeze(-3).mT, *sizes)
        return weigh(scores, mask) @ keys @ w_v.mT

    return attend


@exercise.mistake(
    "keys and values of all heads are made from the latents first",
    hint="The values are right, the memory isn't: that is ordinary attention's cache again. Move w_k to the queries.",
)
def expanded(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    k, v = latent.unsqueeze(-3) @ w_k.mT, latent.unsqueeze(-3) @ w_v.mT
    scores = q @ k.mT + q_rope @ k_rope.unsqueeze(-3).mT
    return _softmax(scores / (q.shape[-1] + q_rope.shape[-1]) ** 0.5, mask) @ v


@exercise.mistake(
    "w_v is absorbed, but all heads' keys are made from the latents",
    hint="q · (w_k c) is (w_kᵀ q) · c: w_k can change sides, too.",
)
def keys_expanded(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    keys = latent.unsqueeze(-3)
    scores = q @ (keys @ w_k.mT).mT + q_rope @ k_rope.unsqueeze(-3).mT
    return _softmax(scores / (q.shape[-1] + q_rope.shape[-1]) ** 0.5, mask) @ keys @ w_v.mT


@exercise.mistake(
    "w_k is absorbed, but all heads' values are made from the latents",
    hint="The weighted mean of w_v c is w_v times the weighted mean of c: w_v can wait, too.",
)
def values_expanded(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    scores = q @ w_k @ latent.unsqueeze(-3).mT + q_rope @ k_rope.unsqueeze(-3).mT
    weights = _softmax(scores / (q.shape[-1] + q_rope.shape[-1]) ** 0.5, mask)
    return weights @ (latent.unsqueeze(-3) @ w_v.mT)


for says, root in {
    "the scores are divided by the root of d alone": lambda s, t, d, r, c: (s + t) / d**0.5,
    "the scores are divided by the root of the latent's width": lambda s, t, d, r, c: (s + t) / c**0.5,
    "the scores are divided by the root of c + r, the width that is multiplied": lambda s, t, d, r, c: (
        (s + t) / (c + r) ** 0.5
    ),
    "the two parts are scaled each by its own root": lambda s, t, d, r, c: s / d**0.5 + t / r**0.5,
    "the scores aren't scaled": lambda s, t, d, r, c: s + t,
    "only the content part is scaled": lambda s, t, d, r, c: s / (d + r) ** 0.5 + t,
}.items():
    exercise.mistake(says, hint="A head's key is d + r wide, however it is computed: one root, for both parts.")(
        _latent(root)
    )

exercise.mistake("the rotated part is left out", hint="Without it no score knows any position: add q_rope · k_rope.")(
    _latent(lambda s, t, d, r, c: s / (d + r) ** 0.5)
)

exercise.mistake("the content part is left out", hint="q · k has two parts: add that of the latents.")(
    _latent(lambda s, t, d, r, c: t / (d + r) ** 0.5)
)

exercise.mistake("the rotated parts are multiplied by the content part", hint="Parts of one product are added.")(
    _latent(lambda s, t, d, r, c: s * t / (d + r) ** 0.5)
)

exercise.mistake("all heads use the first head's w_k", hint="Each head has a w_k of its own.")(
    _latent(change=lambda q, qr, z, kr, w_k, w_v: (q, qr, z, kr, w_k[:1].expand_as(w_k), w_v))
)

exercise.mistake("all heads use the first head's w_v", hint="Each head has a w_v of its own.")(
    _latent(change=lambda q, qr, z, kr, w_k, w_v: (q, qr, z, kr, w_k, w_v[:1].expand_as(w_v)))
)

exercise.mistake("all heads use the first head's rotated queries", hint="k_rope is shared by the heads; q_rope isn't.")(
    _latent(change=lambda q, qr, z, kr, w_k, w_v: (q, qr[..., :1, :, :].expand_as(qr), z, kr, w_k, w_v))
)

exercise.mistake("no gradient reaches w_k", hint="Absorbing is a product like any other: detach nothing.")(
    _latent(change=lambda q, qr, z, kr, w_k, w_v: (q, qr, z, kr, w_k.detach(), w_v))
)

exercise.mistake("no gradient reaches the latents", hint="The latents are made by a matrix that is trained, too.")(
    _latent(change=lambda q, qr, z, kr, w_k, w_v: (q, qr, z.detach(), kr, w_k, w_v))
)

exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of q."
)(_latent(change=lambda *given: tuple(x.float() for x in given)))


@exercise.mistake("the result stays a latent: w_v is left out", hint="Each head's mean latent still meets its w_v.")
def still_latent(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    keys = latent.unsqueeze(-3)
    scores = q @ w_k @ keys.mT + q_rope @ k_rope.unsqueeze(-3).mT
    return _softmax(scores / (q.shape[-1] + q_rope.shape[-1]) ** 0.5, mask) @ keys


def _square(scores):
    """The causal mask of as many queries as tokens, else none."""
    n, m = scores.shape[-2:]
    return torch.ones(n, m, dtype=torch.bool).tril() if n == m else None


exercise.mistake("the softmax runs over the queries", hint="Over the tokens in the cache: dim=-1.")(
    _latent(weigh=lambda s, m: _hidden(s, m).softmax(-2))
)

exercise.mistake("the mask is ignored", hint="Where the mask is False, a score is -inf.")(
    _latent(weigh=lambda s, m: s.softmax(-1))
)

exercise.mistake("the mask is added to the scores as 0 and 1", hint="Where the mask is False, a score is -inf.")(
    _latent(weigh=lambda s, m: (s if m is None else s + m).softmax(-1))
)

exercise.mistake("without a mask the future is hidden", hint="No mask: every query attends to every token.")(
    _latent(weigh=lambda s, m: _hidden(s, _square(s) if m is None else m).softmax(-1))
)

exercise.mistake("the mask is inverted", hint="True means: may attend.")(
    _latent(weigh=lambda s, m: _hidden(s, None if m is None else ~m).softmax(-1).nan_to_num(0.0))
)

exercise.mistake("the mask is applied after the softmax", hint="Hidden tokens must not take part in the softmax.")(
    _latent(weigh=lambda s, m: s.softmax(-1) if m is None else s.softmax(-1) * m)
)

for low, told in ((-1e4, "-10,000"), (-1e9, "-1,000,000,000")):
    exercise.mistake(
        f"hidden scores become {told}, and visible ones lie below that",
        hint="No number is low enough for every score but -inf.",
    )(_latent(weigh=lambda s, m, low=low: (s if m is None else s.masked_fill(~m, low)).softmax(-1)))


exercise.mistake("the latents are normed once more", hint="Use the latents as they lie in the cache.")(
    _latent(change=lambda q, qr, z, kr, w_k, w_v: (q, qr, F.rms_norm(z, z.shape[-1:]), kr, w_k, w_v))
)


@exercise.mistake(
    "without a mask later tokens are hidden", hint="mask None hides nothing: who asks decides what is causal."
)
def always_causal(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    n, m = q.shape[-2], latent.shape[-2]
    if mask is None and n <= m:
        mask = torch.ones(n, m).tril(m - n).bool()
    return _latent()(q, q_rope, latent, k_rope, w_k, w_v, mask)


@exercise.mistake(
    "the heads end up behind the tokens", hint="The result is [..., heads, n, d_v]: leave the heads there."
)
def heads_behind(*given, **named):
    return _latent()(*given, **named).transpose(-3, -2)


exercise.alternative(_latent())


@exercise.alternative
def as_one_shared_head(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    """As serving engines do: multi-query attention, with [latent, k_rope] as the one key and the latent as value."""
    asked = torch.cat([torch.einsum("...hnd,hdc->...hnc", q, w_k), q_rope], -1)
    keys = torch.cat([latent, k_rope], -1).unsqueeze(-3)
    heads = (*asked.shape[:-2], *keys.shape[-2:])
    scale = (q.shape[-1] + q_rope.shape[-1]) ** -0.5
    mean = F.scaled_dot_product_attention(
        asked, keys.expand(heads), latent.unsqueeze(-3).expand(*heads[:-1], -1), attn_mask=mask, scale=scale
    )
    return torch.einsum("...hnc,hvc->...hnv", mean, w_v)


@exercise.alternative
def latent_by_loop(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    scale = (q.shape[-1] + q_rope.shape[-1]) ** -0.5
    full = None if mask is None else mask.expand(*q.shape[:-1], latent.shape[-2])
    found = []
    for h in range(len(w_k)):
        scores = (q[..., h, :, :] @ w_k[h] @ latent.mT + q_rope[..., h, :, :] @ k_rope.mT) * scale
        if full is not None:
            scores = torch.where(full[..., h, :, :], scores, -torch.inf)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        found.append(weights / weights.sum(-1, keepdim=True) @ latent @ w_v[h].T)
    return torch.stack(found, -3)
