"""`rope_attention_scores(q, k, q_positions, k_positions, base=10000.0, causal=True)`

Attention scores before softmax: rotated queries times rotated keys, divided by sqrt(d).
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.rope.shared import (
    BASE,
    angles_with,
    backwards,
    distinct,
    hf_rotation,
    option,
    positions_ignored,
    rotation,
    rotation_by_complex,
    rotation_made_of,
)

exercise = Draft(
    "rope_attention_scores",
    points=3,
    forbid=["transformers"],
    atol=2e-3,
    hints=[
        "Rotate first, then do what attention always does: dot products, the scale, the mask.",
        "apply_rope(q, q_positions, base) @ apply_rope(k, k_positions, base).mT is [..., n_q, n_k]. Divide by sqrt(d).",
        "k_positions[..., None, :] > q_positions[..., :, None] is True where a key lies in the future: "
        "scores.masked_fill(that, -torch.inf) if causal.",
    ],
)


@exercise.cases
def score_cases(g):
    def call(q, k, at_q, at_k, *args, label, **kwargs):
        return case(randn(g, *q), randn(g, *k), at_q, at_k, *args, label=label, **kwargs)

    n = torch.arange(1, 8)
    far = distinct(g, 5, 400) + 600
    yield call((4, 8), (4, 8), n[:4], n[:4], label="one head")
    yield call((2, 3, 7, 4), (2, 3, 7, 4), n, n, label="[batch, heads, n, d], odd length")
    yield call((1, 2, 1, 8), (1, 2, 6, 8), torch.tensor([7]), n[1:], label="decoding: one new query, six cached keys")
    yield call((3, 8), (7, 8), n[2:5], n, label="a chunk of three queries, four earlier keys")
    yield call((3, 8), (3, 8), n[:3] + 20, n[:3] + 20, base=500_000.0, label="another base, by keyword")
    yield call((4, 16), (5, 16), far[:4], far, causal=False, label="no mask, any order, by keyword")
    yield call((5, 6), (5, 6), far, far, label="any order: the mask follows positions")
    each = torch.tensor([[[4, 5, 6]], [[14, 9, 11]]])
    yield call((2, 2, 3, 8), (2, 2, 3, 8), each, each.flip(-1) + 1, label="positions [batch, 1, n]")
    yield call((3, 6), (200, 6), distinct(g, 3, 90) + 60, distinct(g, 200, 300), label="200 keys in any order")
    yield call((6, 4), (6, 4), -n[:6], -n[:6], 100.0, False, label="negative positions, no mask")


@exercise.oracle
def hf_scores(q, k, q_positions, k_positions, base=BASE, causal=True):
    scores = hf_rotation(q, q_positions, base) @ hf_rotation(k, k_positions, base).mT * q.shape[-1] ** -0.5
    later = k_positions[..., None, :] > q_positions[..., :, None]
    return scores.masked_fill(later, -torch.inf) if causal else scores


def _finite(x):
    return x.double().masked_fill(~torch.isfinite(x), 0.0)


@exercise.law("Moving all positions by 37 changes no score")
def shift(out, one, call):
    q, k, m, n, *rest = one.args
    moved = call(q, k, m + 37, n + 37, *rest, **one.kwargs)
    return moved.shape == out.shape and same(_finite(moved), _finite(out), rtol=1e-3, atol=2e-3)


@exercise.law("Another distance gives another score")
def distance_counts(out, one, call):
    q, k, m, n, *rest = one.args
    near, far = (call(q, k, m + gap, n, option(one, "base", 4, BASE), False) for gap in (1, 4))
    return not same(near, far, rtol=1e-2, atol=1e-2)


@exercise.law("Hides exactly the keys at later positions, with -inf")
def mask_by_position(out, one, call):
    q, k, m, n = one.args[:4]
    hidden = (n[..., None, :] > m[..., :, None]).expand(out.shape)
    wanted = hidden & option(one, "causal", 5, True)
    return torch.equal(out == -torch.inf, wanted)


@exercise.law("At equal positions the score is q·k / sqrt(d)")
def plain_at_same_place(out, one, call):
    q, k, m, n = one.args[:4]
    here = call(q, k, torch.full_like(m, 5), torch.full_like(n, 5), option(one, "base", 4, BASE), False)
    return same(here, q @ k.mT / q.shape[-1] ** 0.5, rtol=1e-3, atol=1e-3)


exercise.law("The scores have the dtype of q")(keeps_dtype)


def _later(q_positions, k_positions):
    return k_positions[..., None, :] > q_positions[..., :, None]


def _by_position(scores, q_positions, k_positions, causal):
    return scores.masked_fill(_later(q_positions, k_positions), -torch.inf) if causal else scores


def _scores(turn_q=rotation, turn_k=rotation, divisor=math.sqrt, hide=_by_position):
    """`rope_attention_scores` from its parts."""

    def rope_attention_scores(q, k, q_positions, k_positions, base=BASE, causal=True):
        scores = turn_q(q, q_positions, base) @ turn_k(k, k_positions, base).mT / divisor(q.shape[-1])
        return hide(scores, q_positions, k_positions, causal)

    return rope_attention_scores


exercise.mistake("the scores aren't divided by sqrt(d)", hint="Attention divides q·k by the root of d.")(
    _scores(divisor=lambda d: 1.0)
)

exercise.mistake("the scores are divided by d rather than by its root", hint="Attention divides by the root of d.")(
    _scores(divisor=float)
)


def _unrotated(x, positions, base):
    return x


exercise.mistake(
    "only the queries are rotated", hint="The distance appears only when both are turned, each by its own position."
)(_scores(turn_k=_unrotated))

exercise.mistake(
    "only the keys are rotated", hint="The distance appears only when both are turned, each by its own position."
)(_scores(turn_q=_unrotated))

exercise.mistake("`base` is used for the queries alone", hint="Both are turned by the same speeds: pass base twice.")(
    _scores(turn_k=lambda k, positions, base: rotation(k, positions))
)

exercise.mistake(
    "keys are rotated backwards, so that scores depend on the sum of the positions",
    hint="Query and key turn the same way. The dot product itself makes the difference.",
)(_scores(turn_k=backwards))


exercise.mistake(
    "queries and keys are turned clockwise", hint="(a, b) becomes (a cos - b sin, b cos + a sin), as in apply_rope."
)(_scores(turn_q=backwards, turn_k=backwards))


def _of_neighbors(x):
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)


_PAIRS_OF_NEIGHBORS = rotation_made_of(_of_neighbors, lambda angle: angle.repeat_interleave(2, -1))

exercise.mistake(
    "neighbors are taken for pairs", hint="Pair i is (x[..., i], x[..., i + d/2]), as in apply_rope: halves."
)(_scores(turn_q=_PAIRS_OF_NEIGHBORS, turn_k=_PAIRS_OF_NEIGHBORS))

_SLOWLY_SLOWER = rotation_made_of(angle=angles_with(lambda d, base: base ** (-torch.arange(d // 2) / d)))

exercise.mistake(
    "the speeds fall half as fast from pair to pair", hint="base ** (-2i/d): the 2 is easily lost. Call apply_rope."
)(_scores(turn_q=_SLOWLY_SLOWER, turn_k=_SLOWLY_SLOWER))


@exercise.mistake("the keys get the queries' positions", hint="Rotate k with k_positions.")
def keys_at_query_positions(q, k, q_positions, k_positions, base=BASE, causal=True):
    scores = rotation(q, q_positions, base) @ rotation(k, q_positions, base).mT / q.shape[-1] ** 0.5
    return _by_position(scores, q_positions, k_positions, causal)


exercise.mistake(
    "queries and keys are both counted 0, 1, 2, … and the positions aren't used",
    hint="With a cache the only query sits at position 7, not 0: use the positions you are given.",
)(_scores(turn_q=positions_ignored, turn_k=positions_ignored))

exercise.mistake("no key is hidden", hint="With causal=True, keys at later positions get -inf.")(
    _scores(hide=lambda scores, m, n, causal: scores)
)

exercise.mistake("`causal=False` is ignored", hint="Hide keys only where `causal` is true.")(
    _scores(hide=lambda scores, m, n, causal: _by_position(scores, m, n, True))
)


def _by_index(scores, q_positions, k_positions, causal):
    keep = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~keep, -torch.inf) if causal else scores


exercise.mistake(
    "the mask goes by row and column numbers instead of positions",
    hint="A new query at position 7 may see all seven cached keys. Compare k_positions with q_positions.",
)(_scores(hide=_by_index))


def _hiding(which):
    """Hide the keys for which `which(q_positions, k_positions)` is True."""
    return lambda scores, m, n, causal: scores.masked_fill(which(m, n), -torch.inf) if causal else scores


exercise.mistake(
    "the mask hides the past instead of the future", hint="Hide where the key's position is greater than the query's."
)(_scores(hide=_hiding(lambda m, n: n[..., None, :] < m[..., :, None])))

exercise.mistake(
    "the mask also hides the token itself",
    hint="A token may attend to its own position: hide only strictly later ones.",
)(_scores(hide=_hiding(lambda m, n: n[..., None, :] >= m[..., :, None])))

exercise.mistake(
    "hidden scores are set to a large negative number instead of -inf", hint="float('-inf'), of which exp is exactly 0."
)(_scores(hide=lambda s, m, n, causal: s.masked_fill(_later(m, n), -1e9) if causal else s))

exercise.mistake("the softmax is taken already", hint="The scores are asked for, before the softmax.")(
    _scores(hide=lambda s, m, n, causal: _by_position(s, m, n, causal).softmax(-1))
)


def _by_first_row(scores, m, n, causal):
    return _by_position(scores, *(at.reshape(-1, at.shape[-1])[0] for at in (m, n)), causal)


exercise.mistake(
    "the mask of all sequences follows the first one's positions",
    hint="Positions may be [batch, 1, n]: k_positions[..., None, :] > q_positions[..., :, None].",
)(_scores(hide=_by_first_row))

exercise.mistake(
    "the scores come in float32, whatever q is", hint="The result has the dtype of q: a float64 q gives float64."
)(_scores(hide=lambda s, m, n, causal: _by_position(s, m, n, causal).float()))

exercise.mistake(
    "hidden scores are set to 0 instead of -inf",
    hint="After softmax a score of 0 still has weight; only -inf has none.",
)(_scores(hide=lambda s, m, n, causal: s.masked_fill(_later(m, n), 0.0) if causal else s))

exercise.alternative(_scores())


@exercise.alternative
def scores_by_distance(q, k, q_positions, k_positions, base=BASE, causal=True):
    """Turns the key by the distance alone, and leaves the query where it is."""
    distance = k_positions[..., None, :] - q_positions[..., :, None]
    turned = rotation_by_complex(k[..., None, :, :].expand(*k.shape[:-2], q.shape[-2], *k.shape[-2:]), distance, base)
    scores = torch.einsum("...md,...mnd->...mn", q.to(turned.dtype), turned) * q.shape[-1] ** -0.5
    return torch.where(distance > 0, -torch.inf, scores) if causal else scores
