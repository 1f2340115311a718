"""`multi_head_attention(x, w_q, w_k, w_v, w_o, n_heads, mask=None)`

Self-attention in several heads: project, split, attend in each head, join, project.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.attention.shared import (
    LIBRARY,
    always_causal,
    attention,
    mask_after,
    mask_ignored,
    mask_inverted,
    mask_of_the_queries,
    mean_of_all,
    nan_gradients,
    nan_rows,
    not_scaled,
    nothing_seen_is_zero,
    over_queries,
    some,
)

exercise = Draft(
    "multi_head_attention",
    points=4,
    forbid=LIBRARY[1:],
    atol=1e-4,
    hints=[
        "Project, split, attend, join, project. Only the split and the join are new, and both are about shapes.",
        "x @ w_q is [..., n, d]. unflatten(-1, (n_heads, -1)) makes it [..., n, heads, width], transpose(-3, -2) "
        "brings the heads forward. The mask needs a dimension for the heads, too: mask.unsqueeze(-3).",
        "q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)).transpose(-3, -2) for w in (w_q, w_k, w_v)); attend; then "
        "transpose(-3, -2).flatten(-2) @ w_o.",
    ],
)


def _matrices(g, d):
    return [randn(g, d, d) * d**-0.5 * scale for scale in (2.0, 2.0, 1.0, 1.0)]


@exercise.cases
def multi_head_cases(g):
    yield case(randn(g, 2, 5, 6), *_matrices(g, 6), 3, label="three heads")
    hole = some(g, 4, 4)
    hole[1] = False
    yield case(randn(g, 2, 4, 4), *_matrices(g, 4), 2, mask=hole, label="a query that may see nothing")
    yield case(randn(g, 4, 8), *_matrices(g, 8), 2, label="no batch")
    yield case(randn(g, 2, 3, 5, 4), *_matrices(g, 4), n_heads=2, label="two batch dimensions")
    yield case(randn(g, 2, 4, 6), *_matrices(g, 6), 2, torch.ones(4, 4).tril().bool(), label="a causal mask")
    yield case(
        randn(g, 3, 5, 6),
        *_matrices(g, 6),
        3,
        mask=some(g, 3, 1, 5),
        label="a padding mask, as many heads as sequences",
    )
    yield case(randn(g, 2, 4, 8), *_matrices(g, 8), 4, mask=some(g, 2, 4, 4), label="a mask a sequence")
    yield case(
        randn(g, 2, 3, 4, 4),
        *_matrices(g, 4),
        2,
        mask=some(g, 2, 3, 4, 4),
        label="two batch dimensions, a mask a sequence",
    )
    yield case(randn(g, 2, 3, 4), *_matrices(g, 4), 1, label="one head")
    yield case(randn(g, 1, 3, 4), *_matrices(g, 4), 4, label="a batch of one, heads of width one")
    yield case(randn(g, 2, 1, 6), *_matrices(g, 6), 2, label="one token")
    yield case(randn(g, 2, 4, 4).double() * 8, *[w.double() for w in _matrices(g, 4)], 2, label="float64, large")
    yield case(
        randn(g, 5, 2, 6).transpose(0, 1),
        *[w.T.contiguous().T for w in _matrices(g, 6)],
        3,
        mask=some(g, 5, 5),
        label="not contiguous",
    )


@exercise.oracle
def torch_multi_head(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """What nn.MultiheadAttention calls, in float64; its masks are True where nothing may be read."""
    d, n = x.shape[-1], x.shape[-2]
    rows = x.double().reshape(-1, n, d).transpose(0, 1)
    hidden = None
    if mask is not None:
        full = mask.expand(*x.shape[:-2], n, n).reshape(-1, 1, n, n)
        hidden = ~full.expand(-1, n_heads, n, n).reshape(-1, n, n)
    out, _ = F.multi_head_attention_forward(
        *(rows, rows, rows, d, n_heads),
        in_proj_weight=torch.cat([w.double().mT for w in (w_q, w_k, w_v)]),
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=w_o.double().mT,
        out_proj_bias=None,
        need_weights=False,
        attn_mask=hidden,
    )
    out = out.transpose(0, 1).reshape(x.shape)
    if mask is not None:
        out = out.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return out.to(x.dtype)


def _heads(one):
    return one.kwargs.get("n_heads", one.args[5] if len(one.args) > 5 else None)


def _mha_mask(one):
    return one.kwargs.get("mask", one.args[6] if len(one.args) > 6 else None)


@exercise.law("Heads don't mix before w_o: head i owns its block of columns")
def one_head_alone(out, one, call):
    """With w_o reading the last head's columns alone, the other heads' queries, keys and values don't matter."""
    x, w_q, w_k, w_v, w_o = one.args[:5]
    width = x.shape[-1] // _heads(one)
    if width == x.shape[-1]:
        return None
    last = torch.arange(x.shape[-1]) >= x.shape[-1] - width
    w_o = torch.where(last[:, None], w_o, 0)
    mixed = [torch.where(last, w, w.flip(0) * 1.5 + 0.2) for w in (w_q, w_k, w_v)]
    rest = (_heads(one), _mha_mask(one))
    return same(call(x, *mixed, w_o, *rest), call(x, w_q, w_k, w_v, w_o, *rest))


@exercise.law("Without a mask, shuffled tokens give the shuffled result")
def shuffles_along(out, one, call):
    """Without a mask, shuffled tokens give the shuffled result."""
    x, *weights = one.args[:5]
    order = torch.arange(x.shape[-2]).roll(1).flip(0)
    plain = call(x, *weights, _heads(one))
    return same(call(x[..., order, :], *weights, _heads(one)), plain[..., order, :])


@exercise.law("Under a causal mask nothing later is read")
def later_unread(out, one, call):
    """Under a causal mask a new last token changes nothing before it."""
    x, *weights = one.args[:5]
    n = x.shape[-2]
    if n == 1:
        return None
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    other = torch.cat([x[..., :-1, :], 3 - x[..., -1:, :]], -2)
    before, after = (call(rows, *weights, _heads(one), mask) for rows in (x, other))
    return same(after[..., :-1, :], before[..., :-1, :])


@exercise.law("The result is linear in w_o")
def output_projection(out, one, call):
    """What comes out is linear in w_o."""
    x, w_q, w_k, w_v, w_o = one.args[:5]
    other = call(x, w_q, w_k, w_v, -3 * w_o, _heads(one), _mha_mask(one))
    return same(other, -3 * out, rtol=1e-3, atol=1e-4)


exercise.law("The result has the dtype of the input")(keeps_dtype)


def split(x, n_heads):
    """[..., n, d] to [..., heads, n, d / heads]."""
    return x.unflatten(-1, (n_heads, -1)).transpose(-3, -2)


def join(x):
    return x.transpose(-3, -2).flatten(-2)


def _for_heads(mask):
    return None if mask is None else mask.unsqueeze(-3)


def _multi_head(attend=attention, divide=split, unite=join, for_heads=_for_heads):
    def multi_head(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
        heads = [divide(x @ w, n_heads) for w in (w_q, w_k, w_v)]
        return unite(attend(*heads, for_heads(mask))) @ w_o

    return multi_head


def _split_by_view(x, n_heads):
    return x.reshape(*x.shape[:-2], n_heads, x.shape[-2], -1)


def _join_by_view(x):
    return x.reshape(*x.shape[:-3], x.shape[-2], -1)


exercise.mistake(
    "heads are split and joined by reshape, without a transpose",
    hint="reshape(heads, n, width) tears tokens apart. First [..., n, heads, width], then transpose.",
)(_multi_head(divide=_split_by_view, unite=_join_by_view))

exercise.mistake(
    "heads are split by reshape, without a transpose",
    hint="reshape(heads, n, width) tears tokens apart. First [..., n, heads, width], then transpose.",
)(_multi_head(divide=_split_by_view))

exercise.mistake(
    "heads are joined by reshape, without transposing back",
    hint="[..., heads, n, width] has to become [..., n, heads, width] before the last two are merged.",
)(_multi_head(unite=_join_by_view))


def _split_in_turn(x, n_heads):
    return x.unflatten(-1, (-1, n_heads)).movedim(-1, -3)


def _join_in_turn(x):
    return x.movedim(-3, -1).flatten(-2)


exercise.mistake(
    "head i takes every n_heads-th column",
    hint="Head i owns a block of neighboring columns: unflatten(-1, (n_heads, width)).",
)(_multi_head(divide=_split_in_turn, unite=_join_in_turn))

exercise.mistake(
    "head i takes every n_heads-th column, and its results stand in a block",
    hint="Head i owns a block of neighboring columns: unflatten(-1, (n_heads, width)).",
)(_multi_head(divide=_split_in_turn))

exercise.mistake(
    "the heads' results are interleaved", hint="Join them one after the other: [..., n, heads, width], flattened."
)(_multi_head(unite=_join_in_turn))

multi_head = _multi_head()


@exercise.mistake(
    "the scores are divided by the root of the model's width", hint="d in 1/sqrt(d) is the width of one head."
)
def scaled_by_model_width(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q / math.sqrt(n_heads), w_k, w_v, w_o, n_heads, mask)


exercise.mistake("the scores aren't scaled", hint="Divide by the root of the head's width.")(
    _multi_head(attend=not_scaled)
)


@exercise.mistake("there is only one head, whatever is passed", hint="Split the d columns into n_heads blocks.")
def one_head_only(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, w_v, w_o, 1, mask)


@exercise.mistake(
    "the heads of one token attend to each other",
    hint="Attention runs over the last two dimensions, and these have to be [n, width]: transpose.",
)
def heads_attend_to_heads(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """No transpose: at each token the heads look at one another."""
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)) for w in (w_q, w_k, w_v))
    return attention(q, k, v).flatten(-2) @ w_o


@exercise.mistake("all heads are averaged", hint="Heads are set side by side; mixing them is the job of w_o.")
def heads_averaged(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """Every head's result is the mean of all heads'."""
    heads = [split(x @ w, n_heads) for w in (w_q, w_k, w_v)]
    out = attention(*heads, _for_heads(mask))
    return join(out.mean(-3, keepdim=True).expand_as(out)) @ w_o


@exercise.mistake("w_o is forgotten", hint="The joined heads go through w_o.")
def no_output_projection(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, w_v, torch.eye(x.shape[-1], dtype=x.dtype), n_heads, mask)


@exercise.mistake("the matrices are transposed, as nn.Linear stores them", hint="Here it is x @ w.")
def transposed_weights(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q.T, w_k.T, w_v.T, w_o.T, n_heads, mask)


@exercise.mistake("w_q, w_k and w_v are transposed", hint="Here it is x @ w.")
def transposed_inputs(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q.T, w_k.T, w_v.T, w_o, n_heads, mask)


@exercise.mistake("w_k and w_v are swapped", hint="k = x @ w_k, v = x @ w_v.")
def keys_and_values_swapped(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_v, w_k, w_o, n_heads, mask)


@exercise.mistake("w_o is transposed", hint="Here it is joined @ w_o.")
def transposed_output(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, w_v, w_o.T, n_heads, mask)


@exercise.mistake("the values aren't projected", hint="v = x @ w_v.")
def values_not_projected(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, torch.eye(x.shape[-1], dtype=x.dtype), w_o, n_heads, mask)


@exercise.mistake("w_q makes the keys, too", hint="k = x @ w_k.")
def keys_are_queries(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_q, w_v, w_o, n_heads, mask)


@exercise.mistake("w_q and w_k are swapped", hint="q = x @ w_q, k = x @ w_k.")
def queries_and_keys_swapped(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_k, w_q, w_v, w_o, n_heads, mask)


@exercise.mistake("x is added to the result", hint="The residual connection belongs to the layer around the attention.")
def residual_added(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return x + multi_head(x, w_q, w_k, w_v, w_o, n_heads, mask)


exercise.mistake("a causal mask is always on", hint="Hide only what `mask` hides.")(_multi_head(attend=always_causal))

exercise.mistake("the mask is ignored", hint="Pass the mask on.")(_multi_head(attend=mask_ignored))

exercise.mistake("the mask is inverted", hint="True means: may attend.")(_multi_head(attend=mask_inverted))

exercise.mistake("the mask is applied after the softmax", hint="Hidden keys must not take part in the softmax.")(
    _multi_head(attend=mask_after)
)

exercise.mistake(
    "the mask's batch dimension meets the heads",
    hint="Scores are [..., heads, n, n]: the mask needs a dimension for the heads, mask.unsqueeze(-3).",
)(_multi_head(for_heads=lambda mask: mask))


@exercise.mistake("all sequences use the first one's mask", hint="Each sequence has a mask of its own.")
def mask_of_the_first_sequence(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    first = mask if mask is None or mask.dim() == 2 else mask.flatten(0, -3)[0]
    return multi_head(x, w_q, w_k, w_v, w_o, n_heads, first)


exercise.mistake("a query that may see nothing gives NaN", hint="Such a query gets zeros, as in exercise 1.")(
    _multi_head(attend=nan_rows)
)

exercise.mistake(
    "a query that may see nothing reads the mean of all values",
    hint="With the same finite number everywhere the softmax is uniform. Such a query gets zeros.",
)(_multi_head(attend=mean_of_all))

exercise.mistake(
    "the numbers are right, but a query that may see nothing makes gradients NaN",
    hint="Adding -inf leaves NaN in the softmax, and its gradient. masked_fill on the scores lets none through.",
)(_multi_head(attend=nan_gradients))

exercise.mistake("the mask hides queries from keys, not keys from queries", hint="Its rows are queries.")(
    _multi_head(attend=mask_of_the_queries)
)

exercise.mistake("the softmax runs over the queries", hint="Each query shares out its attention over the keys.")(
    _multi_head(attend=over_queries)
)

exercise.alternative(multi_head)


@exercise.alternative
def multi_head_by_columns(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """A head at a time, from slices of the matrices; each adds its part through its rows of w_o."""
    width = x.shape[-1] // n_heads
    total = torch.zeros_like(x)
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        total = total + attention(x @ w_q[:, part], x @ w_k[:, part], x @ w_v[:, part], mask) @ w_o[part]
    return total


@exercise.alternative
def multi_head_by_einsum(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    q, k, v = (torch.einsum("...nd,dhe->...hne", x, w.reshape(w.shape[0], n_heads, -1)) for w in (w_q, w_k, w_v))
    scores = torch.einsum("...qe,...ke->...qk", q * q.shape[-1] ** -0.5, k)
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(-3), -torch.inf)
    mixed = nothing_seen_is_zero(scores.softmax(-1)) @ v
    return torch.einsum("...hne,hed->...nd", mixed, w_o.reshape(n_heads, -1, w_o.shape[-1]))
