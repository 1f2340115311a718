"""`linformer_attention(q, k, v, e, f)`: Attention over r mixtures of the keys and values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.efficient_attention.shared import LIBRARY

exercise = Draft(
    "linformer_attention",
    points=2,
    forbid=LIBRARY,
    rtol=1e-3,
    atol=1e-4,
    hints=[
        "Make the sequence short first, then attend as always.",
        "e @ k is [..., r, d] and f @ v is [..., r, d_v]: matrix products over the *sequence*, not over the features.",
        "(q @ (e @ k).mT / q.shape[-1] ** 0.5).softmax(-1) @ (f @ v)",
    ],
)


def _projected(g, lead, n, m, d, r, wide=None):
    inputs = randn(g, *lead, n, d), randn(g, *lead, m, d), randn(g, *lead, m, wide or d)
    return *inputs, randn(g, r, m) * 2 * m**-0.5, randn(g, r, m) * m**-0.5


@exercise.cases
def linformer_cases(g):
    yield case(*_projected(g, (), 5, 6, 4, 3), label="six keys become three")
    yield case(*_projected(g, (2,), 4, 7, 3, 2, wide=5), label="a batch, wider values")
    yield case(*_projected(g, (2, 3), 6, 6, 4, 2), label="two batch dimensions")
    yield case(*_projected(g, (2,), 1, 5, 4, 2), label="one query")
    yield case(*_projected(g, (1,), 3, 4, 1, 2), label="a batch of one, width one")
    yield case(*_projected(g, (2,), 5, 8, 4, 1), label="one projected key")
    yield case(*_projected(g, (), 4, 4, 4, 4), label="every size is four")
    yield case(*_projected(g, (2,), 3, 4, 6, 9), label="more projected keys than keys")
    yield case(
        *(x * s for x, s in zip(_projected(g, (2,), 4, 6, 4, 3), (60, 60, 5, 1, -1), strict=True)),
        label="scores of thousands",
    )
    yield case(*_projected(g, (), 140, 130, 3, 7, wide=2), label="a long text")
    yield case(*(x.mT.contiguous().mT for x in _projected(g, (2,), 5, 6, 4, 3)), label="not contiguous")
    q, k, v, e, f = _projected(g, (2,), 4, 6, 4, 3)
    yield case(torch.zeros_like(q), k, v, e, f, label="queries of zeros")


@exercise.oracle
def torch_linformer(q, k, v, e, f):
    """torch's attention over the projected keys and values, in float64."""
    q, k, v, e, f = (x.double() for x in (q, k, v, e, f))
    return F.scaled_dot_product_attention(q, e @ k, f @ v).to(q.dtype)


@exercise.law("With e and f the identity it is ordinary attention")
def full_attention_at_identity(out, one, call):
    q, k, v = (x.double() for x in one.args[:3])  # scores of thousands: float32 rounds farther than any tolerance
    eye = torch.eye(k.shape[-2], dtype=q.dtype)
    return same(call(q, k, v, eye, eye), F.scaled_dot_product_attention(q, k, v))


@exercise.law("The last value reaches every query")
def every_value_counts(out, one, call):
    """A change of any value, near or far, reaches every query."""
    q, k, v, e, f = one.args
    other = v.clone()
    other[..., -1, :] += 3.0
    moved = call(q, k, other, torch.zeros_like(e), torch.ones_like(f)) - call(
        q, k, v, torch.zeros_like(e), torch.ones_like(f)
    )
    return same(moved, torch.full_like(moved, 3.0), rtol=1e-3, atol=1e-3)


@exercise.law("e projects keys only, f values only")
def keys_and_values_have_their_own(out, one, call):
    """With e = 0 all projected keys are alike: the mean of the projected values comes out."""
    q, k, v, e, f = one.args
    mean = (f @ v).mean(-2, keepdim=True).expand(out.shape)
    return same(call(q, k, v, torch.zeros_like(e), f), mean)


@exercise.law("Tokens in another order, columns too: the same result")
def order_is_in_the_projections(out, one, call):
    """Keys and values in another order, with the columns of e and f in that order: nothing changes."""
    q, k, v, e, f = (x.double() for x in one.args)
    order = torch.arange(k.shape[-2]).roll(1)
    return same(call(q, k[..., order, :], v[..., order, :], e[:, order], f[:, order]), call(q, k, v, e, f))


exercise.law("The result has the dtype of the input")(keeps_dtype)


def _attend(q, k, v, scale=None):
    return ((q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(-1) @ v


@exercise.alternative
def linformer(q, k, v, e, f):
    return _attend(q, e @ k, f @ v)


@exercise.mistake("e projects the values as well", hint="Values have f.")
def linformer_one_projection(q, k, v, e, f):
    return linformer(q, k, v, e, e)


@exercise.mistake("e and f are swapped", hint="e is for the keys, f for the values.")
def linformer_swapped(q, k, v, e, f):
    return linformer(q, k, v, f, e)


@exercise.mistake("the scores aren't divided by sqrt(d)", hint="Scale as in ordinary attention.")
def linformer_not_scaled(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, 1.0)


@exercise.mistake(
    "the scores are divided by the root of r", hint="The dot products still sum over d terms: q.shape[-1]."
)
def linformer_scaled_by_rank(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, e.shape[0] ** -0.5)


@exercise.mistake(
    "the scores are divided by the root of the number of keys",
    hint="The dot products still sum over d terms: q.shape[-1].",
)
def linformer_scaled_by_keys(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, k.shape[-2] ** -0.5)


@exercise.mistake("the scores are divided by d instead of its root", hint="The root of q.shape[-1].")
def linformer_scaled_by_width(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, 1 / q.shape[-1])


@exercise.mistake(
    "the scores are divided by the root of the values' width", hint="The dot products sum over q.shape[-1] terms."
)
def linformer_scaled_by_values(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, v.shape[-1] ** -0.5)


@exercise.mistake(
    "the finished attention map is projected instead of the keys",
    hint="Then all n × m scores have been computed already. Project before the softmax.",
)
def linformer_weights_projected(q, k, v, e, f):
    """The finished attention map is projected, when all its work has been done."""
    return _attend(q, k, e.T) @ (f @ v)


@exercise.mistake("nothing is projected", hint="e @ k and f @ v come first.")
def linformer_not_projected(q, k, v, e, f):
    return _attend(q, k, v)


@exercise.mistake(
    "only the first r keys are kept", hint="Not a selection: each projected key is a mix of all keys, e @ k."
)
def linformer_first_keys(q, k, v, e, f):
    r = e.shape[0]
    return _attend(q, k[..., :r, :], v[..., :r, :])


@exercise.mistake(
    "only the last r keys are kept", hint="Not a selection: each projected key is a mix of all keys, e @ k."
)
def linformer_last_keys(q, k, v, e, f):
    r = e.shape[0]
    return _attend(q, k[..., -r:, :], v[..., -r:, :])


@exercise.mistake(
    "neighboring keys are averaged, and e and f not used",
    hint="e and f say how to mix. They may be averages, but needn't.",
)
def linformer_pooled(q, k, v, e, f):
    def pooled(x):
        rows = x.reshape(-1, *x.shape[-2:]).mT
        return F.adaptive_avg_pool1d(rows, e.shape[0]).mT.reshape(*x.shape[:-2], -1, x.shape[-1])

    return _attend(q, pooled(k), pooled(v))


@exercise.mistake("e and f go through a softmax", hint="They are plain matrices, with negative numbers.")
def linformer_softmaxed_projections(q, k, v, e, f):
    return linformer(q, k, v, e.softmax(-1), f.softmax(-1))


@exercise.mistake(
    "the softmax runs over the queries", hint="Each query shares out its attention over the r projected keys: dim=-1."
)
def linformer_over_queries(q, k, v, e, f):
    return (q @ (e @ k).mT / math.sqrt(q.shape[-1])).softmax(-2) @ (f @ v)


@exercise.mistake("a causal mask is applied", hint="Mixtures have no order: each query sees all r of them.")
def linformer_causal(q, k, v, e, f):
    scores = q @ (e @ k).mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1) @ (f @ v)


@exercise.mistake(
    "no gradient reaches e and f", hint="Linformer learns its mixtures: both matrices need their gradients."
)
def linformer_fixed_mixtures(q, k, v, e, f):
    return linformer(q, k, v, e.detach(), f.detach())


@exercise.mistake("there is no softmax", hint="Scores become weights by softmax.")
def linformer_without_softmax(q, k, v, e, f):
    return (q @ (e @ k).mT / math.sqrt(q.shape[-1])) @ (f @ v)


@exercise.mistake("the projected keys are averaged instead of values", hint="f @ v.")
def linformer_keys_returned(q, k, v, e, f):
    return _attend(q, e @ k, f @ k)


@exercise.mistake("exp is taken without protection, and overflows", hint="torch.softmax subtracts the maximum first.")
def linformer_unprotected(q, k, v, e, f):
    weights = torch.exp(q @ (e @ k).mT / math.sqrt(q.shape[-1]))
    return weights / weights.sum(-1, keepdim=True) @ (f @ v)


@exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of the input."
)
def linformer_single_precision(q, k, v, e, f):
    return linformer(*(x.float() for x in (q, k, v, e, f)))


@exercise.alternative
def linformer_by_einsum(q, k, v, e, f):
    keys, values = torch.einsum("rm,...md->...rd", e, k), torch.einsum("rm,...mv->...rv", f, v)
    weights = torch.exp(torch.log_softmax(torch.einsum("...nd,...rd->...nr", q, keys) / math.sqrt(q.shape[-1]), -1))
    return torch.einsum("...nr,...rv->...nv", weights, values)


@exercise.alternative
def linformer_scores_first(q, k, v, e, f):
    """(q k^T) E^T: the same numbers, and the n × m scores that Linformer wants to avoid."""
    return ((q @ k.mT) @ e.T / math.sqrt(q.shape[-1])).softmax(-1) @ (f @ v)
